package sqldoor

import (
	"strings"
	"testing"
)

func TestClassify(t *testing.T) {
	f := func(text string, want kind, detail string) {
		t.Helper()
		if v := classify([]byte(text), true); v.kind != want || v.name+v.why != detail {
			t.Errorf("%q is %+v, want %d %q", text, v, want, detail)
		}
	}
	plain := func(text string) { t.Helper(); f(text, kindPlain, "") }
	plain("SELECT * FROM users WHERE id = 5")
	plain("  select 1;  ")
	plain("/* c */ -- c\n# c\nSELECT @@version_comment LIMIT 1")
	plain("INSERT INTO t VALUES ('x')")
	plain("START TRANSACTION READ ONLY")
	plain("create table t (temporarily int)")
	plain("SELECT last_insert_ids FROM t")

	f("SELECT @x", kindSticky, "user variable")
	f("SELECT 1 INTO @x", kindSticky, "user variable")
	f("select get_lock('a', 1)", kindSticky, "user lock")
	f("CREATE TEMPORARY TABLE t (i INT)", kindSticky, "temporary table")
	f("SELECT SQL_CALC_FOUND_ROWS * FROM t", kindSticky, "SQL_CALC_FOUND_ROWS")
	f("SELECT LAST_INSERT_ID()", kindSticky, "LAST_INSERT_ID")
	f("SELECT 1; SELECT 2", kindSticky, "several statements in one")
	f("SELECT 1; -- only a comment", kindPlain, "")
	f("/*! SET @x = 1 */", kindSticky, "executable comment")
	f("SELECT /*M! @x:= */ 1", kindSticky, "executable comment")
	f("LOCK TABLES t READ", kindSticky, "LOCK")
	f("PREPARE p FROM 'x'", kindSticky, "PREPARE")
	f("CALL p()", kindSticky, "CALL")
	f("", kindSticky, "statement")
	f("/* open", kindSticky, "executable comment")
	f("(SELECT 1)", kindSticky, "statement")

	f("SET NAMES utf8mb4", kindSet, "")
	f("set session sql_mode = 'ANSI', time_zone = '+00:00'; ", kindSet, "")
	f("SET time_zone = 'Europe/Berlin'", kindSet, "")
	f("SET @@session.autocommit = 0, @@wait_timeout=5", kindSet, "")
	f("SET GLOBAL x = 1", kindSticky, "SET GLOBAL")
	f("SET @@global.x = 1", kindSticky, "SET GLOBAL")
	f("SET @x = 1", kindSticky, "user variable")
	f("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", kindSticky, "SET TRANSACTION")
	f("SET SESSION TRANSACTION READ ONLY", kindSticky, "SET TRANSACTION")
	f("SET timestamp = 5", kindSticky, "SET TIMESTAMP")
	f("SET sql_mode = CONCAT(@@sql_mode, ',ANSI')", kindSticky, "SET with an expression")
	f("SET autocommit = 1; DELETE FROM t", kindSticky, "several statements in one")
	f("SET x = 1 /*!, y = 2 */", kindSticky, "SET with an expression")

	f("USE shop", kindUse, "shop")
	f("use `sh``op` ;", kindUse, "sh`op")
	f("USE\n\tshop-2 -- now", kindUse, "shop-2")
	f("/* c */ USE shop /* c */;", kindUse, "shop")
	f("USE shop; SELECT 1", kindUseBad, "")
	f("USE `shop", kindUseBad, "")
	f("USE", kindUseBad, "")
	f("USE /*! shop */", kindUseBad, "")
	f("KILL 5", kindKill, "")
	f("kill query 5", kindKill, "")

	f("SHOW WARNINGS", kindPlain, "")
	f("SELECT @@identity", kindSticky, "IDENTITY")
	for text, want := range map[string]reads{"SELECT 1": readsNothing, "SHOW WARNINGS LIMIT 5": readsLast, "select row_count()": readsLast, "SELECT LAST_INSERT_ID()": readsInsert, "SELECT @@warning_count": readsLast} {
		if v := classify([]byte(text), true); v.reads != want {
			t.Errorf("%q reads %d, want %d", text, v.reads, want)
		}
	}
	if v := classify([]byte("INSERT INTO t VALUES ('half"), false); v.why != "a long statement" {
		t.Errorf("half of a statement: %+v", v)
	}
	if v := classify([]byte("SET NAMES utf8"), false); v.kind != kindSticky {
		t.Error("half of a SET is repeated")
	}
	if v := classify([]byte("USE shop"), false); v.kind != kindUseBad {
		t.Error("half of a USE is believed")
	}
}

func TestMemory(t *testing.T) {
	var m memory
	m.note(verdict{kind: kindPlain}, "")
	m.note(verdict{kind: kindSet}, "SET NAMES utf8")
	if m.pinned() != "" || len(m.sets) != 1 {
		t.Errorf("%+v", m)
	}
	m.prepared = 1
	if m.pinned() != "prepared statements" {
		t.Error(m.pinned())
	}
	m.note(verdict{kind: kindSticky, why: "first"}, "")
	m.note(verdict{kind: kindSticky, why: "second"}, "")
	if m.pinned() != "first" {
		t.Error(m.pinned())
	}
	m = memory{}
	for range setsMax + 1 {
		m.note(verdict{kind: kindSet}, "SET a = 1")
	}
	if m.pinned() != "many SET statements" || len(m.sets) > setsMax {
		t.Errorf("%d sets, %q", len(m.sets), m.pinned())
	}
	m = memory{}
	m.note(verdict{kind: kindSet}, "SET a = '"+strings.Repeat("x", setBytesMax)+"'")
	if m.pinned() == "" {
		t.Error("a huge SET is remembered")
	}
}

func TestClassifyAllocatesNothing(t *testing.T) {
	text := []byte("select c from sbtest1 where id = 5000 and name = 'x' order by c limit 10")
	if n := testing.AllocsPerRun(100, func() { classify(text, true) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzClassify: any text is judged without a panic; a database that is believed is one that the server would read too.
func FuzzClassify(f *testing.F) {
	for _, s := range []string{"SELECT 1", "USE `a``b` ; -- c", "SET NAMES x;", "/*! x */", "-- ", "#\n", "KILL", "/*", "SELECT @@a, @b"} {
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, text []byte, whole bool) {
		v := classify(text, whole)
		switch v.kind {
		case kindUse:
			if v.name == "" || !strings.Contains(strings.ToUpper(string(text)), "USE") {
				t.Errorf("USE of %q", v.name)
			}
		case kindSet:
			if strings.ContainsAny(string(text), "(`") && !strings.Contains(string(text), "/*") && !strings.ContainsAny(string(text), "#-") {
				t.Errorf("%q is repeated", text)
			}
		}
	})
}

// What does judging a statement cost?
func BenchmarkClassify(b *testing.B) {
	text := []byte("SELECT c FROM sbtest1 WHERE id=5000123 AND k = 77")
	b.ReportAllocs()
	for b.Loop() {
		classify(text, true)
	}
}
