package sqldoor

import (
	"bytes"
	"testing"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/sqldoor/scan"
)

// What the gateway answers itself tells of the session, and of no other answer: its status says neither that there is more to come, nor that no index was used.
func TestStatusOfOwnAnswers(t *testing.T) {
	g := open(t, shop(mariadb(t).Addr))
	r := connect(t, g, mysql.MultiStatements, "shop")
	want := func(status mysql.Status) {
		t.Helper()
		for _, own := range []struct {
			command  mysql.Command
			argument string
		}{{mysql.ComQuery, "SELECT CONNECTION_ID()"}, {mysql.ComQuery, "USE shop"}, {mysql.ComInitDB, "shop"}, {mysql.ComQuery, "SHOW PROCESSLIST"}} {
			if a, _ := r.ask(own.command, own.argument); a.Code != 0 || a.Status != status {
				t.Errorf("%s %s: status %b, want %b", own.command, own.argument, a.Status, status)
			}
		}
	}
	want(mysql.Autocommit)
	if a, _ := r.ask(mysql.ComQuery, "SELECT name FROM users ORDER BY name"); a.Status == mysql.Autocommit {
		t.Fatalf("a scan: status %b", a.Status)
	}
	want(mysql.Autocommit)
	if a, _ := r.ask(mysql.ComQuery, "SELECT 1; SELECT bad"); a.Code != 1054 {
		t.Fatal(a.Code)
	}
	want(mysql.Autocommit)
	r.ask(mysql.ComQuery, "SET sql_mode = 'NO_BACKSLASH_ESCAPES'")
	want(mysql.Autocommit | mysql.NoBackslash)
	r.ask(mysql.ComQuery, "SET sql_mode = ''")
	r.ask(mysql.ComQuery, "BEGIN; SELECT name FROM users ORDER BY name")
	want(mysql.Autocommit | mysql.InTransaction)
	r.ask(mysql.ComQuery, "COMMIT")
	want(mysql.Autocommit)
}

// ROW_COUNT() after what the gateway itself has answered, and after what leaves it as it was, is as on a server, whether the session keeps its connection or not.
func TestRowCountLikeAServer(t *testing.T) {
	db, plain := mariadb(t), mariadb(t)
	g := open(t, pooled(db.Addr, "max_connections: 2"))
	p := g.beside(t, plain, 0)
	for _, pin := range []string{"SELECT 1", "BEGIN", "SET @d = 0"} {
		for _, before := range []string{"SELECT id FROM users", "INSERT INTO users (name) VALUES ('x'), ('y')", "SELECT bad", "DO 1"} {
			for _, last := range []string{"USE shop", "GET DIAGNOSTICS @d = NUMBER", "SELECT CONNECTION_ID() > 0", "SELECT ROW_COUNT()"} {
				for _, between := range []string{"", "SET time_zone = '+03:00'"} { // makes the gateway ask for settings
					w := p.meet("", nil)
					other := g.session(t)
					ask(other, "SET NAMES latin1")
					w.both(pin)
					w.both(before)
					ask(other, "UPDATE users SET name = 'z' WHERE id < 4") // on the same connection, perhaps
					if between != "" {
						w.both(between)
					}
					w.both(last)
					if !w.both("SELECT ROW_COUNT()") {
						w.both("SELECT ROW_COUNT()")
					}
					w.part()
					_ = other.Close()
				}
			}
		}
	}
}

// A statement that is no SELECT may change FOUND_ROWS() on its connection; that of another one is not asked then, also when the statement was prepared on its connection first.
func TestFoundRowsOfPreparedShow(t *testing.T) {
	one, other := new(backend.Conn), new(backend.Conn)
	var s traces
	answer := mysql.Response{Settled: true}
	s.ran(one, 1, &judgement{Facts: scan.Facts{Kind: scan.Select, Statements: 1}}, &answer)
	if only, _, ok := s.where(scan.ReadsFoundRows); !ok || only != one {
		t.Fatal("FOUND_ROWS() of a SELECT is not known")
	}
	s.last = here(other) // as COM_STMT_PREPARE leaves it
	s.ran(other, 1, &judgement{Facts: scan.Facts{Kind: scan.Describe, Statements: 1}}, &answer)
	if only, _, ok := s.where(scan.ReadsFoundRows); ok {
		t.Errorf("FOUND_ROWS() is asked of %p, and the last statement ran on %p", only, other)
	}
}

// VALUES is a SELECT that leaves FOUND_ROWS() as it was.
func TestFoundRowsOfValues(t *testing.T) {
	one, other := new(backend.Conn), new(backend.Conn)
	s := session{mode: scan.Mode{MariaDB: true, Version: 101119}}
	answer := mysql.Response{Settled: true}
	ran := func(c *backend.Conn, text string) {
		j := s.judge([]byte(text), true)
		s.traces.ran(c, 1, &j, &answer)
	}
	want := func(c *backend.Conn) {
		t.Helper()
		if only, _, ok := s.traces.where(scan.ReadsFoundRows); only != c || ok != (c != nil) {
			t.Errorf("FOUND_ROWS() is asked of %p, not of %p", only, c)
		}
	}
	ran(other, "VALUES (1), (2)")
	want(nil)
	ran(one, "SELECT 1")
	want(one)
	ran(one, "VALUES (1), (2)")
	want(one)
	ran(other, "VALUES (1), (2)")
	want(nil)
}

// Neither does a COM_STMT_PREPARE make the count of whoever had its connection before the session's own.
func TestRowCountAfterPrepare(t *testing.T) {
	g := open(t, pooled(mariadb(t).Addr, "max_connections: 1"))
	r, other := connect(t, g, 0, "shop"), g.session(t)
	for _, c := range []struct {
		first string
		want  []byte // nil: it may be refused
	}{{"INSERT INTO users (name) VALUES ('x'), ('y')", nil}, {"USE shop", []byte{1, '0'}}, {"SELECT bad", []byte{2, '-', '1'}}} {
		r.ask(mysql.ComQuery, c.first)
		g.rested()
		wantAnswer(t, other, "UPDATE users SET name = CONCAT(name, 'z') WHERE id < 4", "")
		g.rested()
		if a, first := r.ask(mysql.ComStmtPrepare, "SELECT ?"); a.Code != 0 {
			t.Fatalf("prepare: %q", first)
		}
		g.rested()
		a, all, err := r.whole(mysql.ComQuery, "SELECT ROW_COUNT()")
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case a.Code == 1105 && c.want == nil:
			r.ask(mysql.ComReset, "")
		case a.Code != 0 || !bytes.Contains(all, append([]byte{byte(len(c.want)), 0, 0, 4}, c.want...)):
			t.Errorf("after %s: error %d, %q", c.first, a.Code, all)
		}
	}
}

// whole asks, and gives all of the answer.
func (r *raw) whole(c mysql.Command, argument string) (a mysql.Response, all []byte, err error) {
	r.send(c, argument)
	a.Start(c, r.caps, 1, false)
	for !a.Done() {
		if len(r.Buffered()) == 0 {
			if err := r.Fill(); err != nil {
				return a, nil, err
			}
		}
		n, err := a.Feed(r.Buffered())
		if err != nil {
			return a, nil, err
		}
		all = append(all, r.Buffered()[:n]...)
		r.Skip(n)
	}
	return a, all, nil
}

// USE of a database that was dropped and made again chooses it again, also on a connection that the session keeps.
func TestUseAfterDrop(t *testing.T) {
	g := open(t, pooled(mariadb(t).Addr, ""))
	c := g.session(t)
	wantAnswer(t, c, "SET @x = 1", "")
	wantAnswer(t, c, "DROP DATABASE shop", "")
	wantAnswer(t, c, "USE shop", "error 1049")
	wantAnswer(t, c, "CREATE DATABASE shop", "")
	wantAnswer(t, c, "CREATE TABLE again (i INT)", "error 1046")
	wantAnswer(t, c, "USE shop", "")
	wantAnswer(t, c, "CREATE TABLE again (i INT)", "")
	wantAnswer(t, c, "SELECT DATABASE(), @x", "shop|1|\n")
}
