package sqldoor

import (
	"math/bits"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/sqldoor/scan"
)

func TestJudge(t *testing.T) {
	s := &session{mode: scan.Mode{MariaDB: true, Version: 101119}}
	f := func(text, detail string) {
		t.Helper()
		j := s.judge([]byte(text), true)
		var got []string
		if j.refusal != nil {
			got = append(got, "refused")
		}
		if j.Kind == scan.Use && j.refusal == nil {
			got = append(got, "use "+j.name)
		}
		for set := j.pinsOf(); set != 0; set &= set - 1 {
			got = append(got, pin(bits.TrailingZeros32(set)).String())
		}
		if j.spends {
			got = append(got, "spends")
		}
		if all := strings.Join(got, ", "); all != detail {
			t.Errorf("%q: %q, want %q", text, all, detail)
		}
	}
	for _, free := range []string{"SELECT * FROM users WHERE id = 5", "  select 1;  ", "/* c */ -- c\n# c\nSELECT @@version_comment LIMIT 1", "INSERT INTO t VALUES ('x')", "START TRANSACTION READ ONLY", "create table t (temporarily int)",
		"SELECT last_insert_ids FROM t", "SELECT LAST_INSERT_ID()", "SELECT 1; -- only a comment", "(SELECT 1)", "SET GLOBAL x = 1", "SET @@global.x = 1", "SELECT 1; SELECT 2"} {
		f(free, "")
	}
	f("SELECT @x", "user variable")
	f("SELECT 1 INTO @x", "user variable")
	f("LOAD DATA INFILE 'x' INTO TABLE t (a, @b)", "user variable")
	f("select get_lock('a', 1)", "user lock")
	f("CREATE TEMPORARY TABLE t (i INT)", "temporary table")
	f("SELECT SQL_CALC_FOUND_ROWS * FROM t", "SQL_CALC_FOUND_ROWS")
	f("/*! SET @x = 1 */", "user variable")
	f("SELECT /*M! @x:= */ 1", "user variable")
	f("LOCK TABLES t READ", "LOCK TABLES")
	f("FLUSH TABLES WITH READ LOCK", "lock")
	f("PREPARE p FROM 'x'", "PREPARE")
	f("CALL p()", "procedure or function")
	f("SELECT my_function(1)", "procedure or function")
	f("SELECT NEXTVAL(s)", "sequence")
	f("SELECT LASTVAL(s)", "refused")
	f("SET ROLE x", "role")
	f("COMMIT RELEASE", "spends")
	f("DROP DATABASE x", "spends")
	f("GIBBERISH", "statement not understood")
	f("/* open", "statement not understood")

	f("SET NAMES utf8mb4", "setting") // nothing is known of the instance yet
	vars := knownVars(t)
	s.vars = vars
	f("SET NAMES utf8mb4", "")
	f("set session sql_mode = CONCAT(@@sql_mode, ',ANSI'), time_zone = '+00:00'; ", "")
	f("SET @@session.autocommit = 0, @@wait_timeout=5", "")
	f("SET `time_zone` = '+00:00'", "")
	f("SET last_insert_id = 5", "")
	f("SET SESSION TRANSACTION READ ONLY", "")
	f("SET SESSION tx_isolation = 'SERIALIZABLE'", "")
	f("SET @x = 1", "user variable")
	f("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET TRANSACTION")
	f("SET tx_isolation = 'SERIALIZABLE'", "SET TRANSACTION")
	f("SET @@tx_isolation = 'SERIALIZABLE' /* session */", "SET TRANSACTION")
	f("SET @@tx_isolation = 'SERIALIZABLE', @@session.sql_mode = ''", "SET TRANSACTION")
	f("SET /* c */ @@session.tx_isolation = 'SERIALIZABLE'", "")
	f("SET timestamp = 5", "setting")
	f("SET sql_mode = '', insert_id = 5", "setting")
	f("SELECT 1; SET profiling = 1", "setting")

	f("USE shop", "use shop")
	f("use `sh``op` ;", "use sh`op")
	f("/* c */ USE shop /* c */;", "use shop")
	f("USE shop; -- c", "use shop")
	f("USE shop; SELECT 1", "refused")
	f("SELECT 1; USE shop", "refused")
	f("USE `shop", "refused, statement not understood")
	f("USE", "refused")
	f("USE shop extra", "refused")
	f("SELECT 1; KILL 5", "refused")

	// What statements of a text ask of each other needs nothing of those before.
	f("INSERT INTO t VALUES (1); SELECT id FROM t WHERE ROW_COUNT() = 1 AND id = LAST_INSERT_ID()", "")
	f("SELECT SQL_CALC_FOUND_ROWS 1; SELECT FOUND_ROWS()", "SQL_CALC_FOUND_ROWS")
	f("SELECT FOUND_ROWS(); SELECT 1", "ROW_COUNT or FOUND_ROWS")
	f("/* c */; SELECT ROW_COUNT()", "ROW_COUNT or FOUND_ROWS")
	f("DO 1; SELECT FOUND_ROWS()", "ROW_COUNT or FOUND_ROWS")
	for _, counts := range []string{"SET SESSION sql_mode = ''", "DO 1", "BEGIN", "COMMIT", "ROLLBACK", "SHOW TABLES", "SHOW WARNINGS", "EXPLAIN SELECT 1", "VALUES (1), (2)", "DELETE FROM t"} {
		if j := s.judge([]byte(counts+"; SELECT ROW_COUNT()"), true); j.Effects.Has(scan.ReadsRowCount) {
			t.Errorf("ROW_COUNT() after %s is taken for that of a statement before", counts)
		}
	}
	for _, leaves := range []string{"GET DIAGNOSTICS @n = NUMBER", "CALL p()", "EXECUTE p", "EXECUTE IMMEDIATE 'GET DIAGNOSTICS @n = NUMBER'", "SET STATEMENT max_statement_time = 5 FOR GET DIAGNOSTICS @n = NUMBER",
		"BEGIN NOT ATOMIC END", "GIBBERISH"} {
		if j := s.judge([]byte(leaves+"; SELECT ROW_COUNT()"), true); !j.Effects.Has(scan.ReadsRowCount | scan.UnknownEffect) {
			t.Errorf("ROW_COUNT() after %s is taken for its own", leaves)
		}
	}
	f("VALUES (1), (2); SELECT FOUND_ROWS()", "ROW_COUNT or FOUND_ROWS")
	f("/* c */ (values (1), (2)); SELECT FOUND_ROWS()", "ROW_COUNT or FOUND_ROWS")
	f("WITH x AS (SELECT 1) VALUES (1); SELECT FOUND_ROWS()", "ROW_COUNT or FOUND_ROWS")
	f("INSERT INTO t VALUES (1); SELECT NEXTVAL(s)", "statement not understood")

	for text, name := range map[string]string{"KILL QUERY 5": "5", "kill /* id */ 5": "5", "KILL QUERY ID 5": "", "KILL HARD QUERY id /* c */ 5": "", "KILL USER 5": "", "KILL 1 + 1": ""} {
		if j := s.judge([]byte(text), true); j.name != name {
			t.Errorf("%s kills %q", text, j.name)
		}
	}

	for _, text := range []string{"INSERT INTO t VALUES ('half", "SET NAMES utf8", "SELECT 1"} {
		if j := s.judge([]byte(text), false); j.pinsOf()&(1<<pinLong) == 0 {
			t.Errorf("half of a statement is believed: %q", text)
		}
	}
	if j := s.judge([]byte("USE shop"), false); j.refusal == nil {
		t.Error("half of a USE is believed")
	}
}

// knownVars are settings as an instance would tell them.
func knownVars(t testing.TB) *backend.Vars {
	f := newFake(t, func(f *fake) { f.settings = true })
	p := new(backend.Pool)
	if c, err := p.Take(nil, backend.Limits{}, backend.Want{}); c != nil || err != nil {
		t.Fatal(c, err)
	}
	c, err := p.Open(t.Context(), f.ln.Addr().String(), &backend.Settings{}, backend.Want{})
	if err != nil {
		t.Fatal(err)
	}
	p.Drop(c)
	return c.Vars
}

func TestJudgeAllocatesNothing(t *testing.T) {
	s := new(session)
	text := []byte("select c from sbtest1 where id = 5000 and name = 'x' order by c limit 10")
	if n := testing.AllocsPerRun(100, func() { s.judge(text, true) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestVersionNumber(t *testing.T) {
	f := func(version string, want uint32) {
		t.Helper()
		if got := versionNumber(version); got != want {
			t.Errorf("%s is %d, want %d", version, got, want)
		}
	}
	f("10.11.6-MariaDB-0+deb12u1", 101106)
	f("5.5.5-10.4.1-MariaDB", 100401)
	f("8.0.36", 80036)
	f("8.4", 0)
	f("", 0)
	f("x", 0)
}

// FuzzJudge: any text is judged without a panic; a database that is believed stands behind a USE.
func FuzzJudge(f *testing.F) {
	for _, s := range []string{"SELECT 1", "USE `a``b` ; -- c", "SET NAMES x;", "/*! x */", "-- ", "#\n", "KILL", "/*", "SELECT @@a, @b", "SELECT 1; SET @@a=1; USE b", "SHOW MENSHEN x", "KILL QUERY 5; -- x"} {
		f.Add([]byte(s), true)
	}
	s := &session{mode: scan.Mode{MariaDB: true, Version: 101119}}
	f.Fuzz(func(t *testing.T, text []byte, whole bool) {
		j := s.judge(text, whole)
		if j.Kind == scan.Use && j.refusal == nil && (j.name == "" || !strings.Contains(strings.ToUpper(string(text)), "USE")) {
			t.Errorf("USE of %q", j.name)
		}
		j.pinsOf()
		j.makes(&mysql.Response{})
	})
}

// What does judging a statement cost?
func BenchmarkJudge(b *testing.B) {
	s := new(session)
	text := []byte("SELECT c FROM sbtest1 WHERE id=5000123 AND k = 77")
	b.ReportAllocs()
	for b.Loop() {
		s.judge(text, true)
	}
}
