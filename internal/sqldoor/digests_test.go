package sqldoor

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/sqldoor/scan"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// digest gives the statistics of one text.
func (g *gate) digest(database, text string) (found observe.DigestStatus) {
	for _, d := range g.Digests(func(in, of string) bool { return in == database && of == text }) {
		found = d
	}
	return found
}

// counted waits until a text was executed so many times: a client reads its answer before the statement is counted.
func (g *gate) counted(database, text string, count uint64) (found observe.DigestStatus) {
	g.t.Helper()
	testenv.Eventually(g.t, 5*time.Second, func() error {
		if found = g.digest(database, text); found.Count < count {
			return fmt.Errorf("%s: %d executions, not %d", text, found.Count, count)
		}
		return nil
	})
	return found
}

func TestDigests(t *testing.T) {
	db := mariadb(t)
	g := open(t, shop(db.Addr))
	c := g.session(t, "clientFoundRows=true")
	wantAnswer(t, c, "FLUSH MENSHEN DIGESTS", "")
	for i := range 5 {
		ask(c, fmt.Sprintf("SELECT name FROM users WHERE id = %d", i+1))
	}
	ask(c, "select `name` from users where id=7")
	ask(c, "UPDATE users SET name = 'x' WHERE id IN (1,2)")
	ask(c, "UPDATE users SET name='y' WHERE id IN (1,2,3)")
	ask(c, "SELECT nonsense FROM users")
	ask(c, "SELECT name FROM users WHERE id > ?", 0)                            // prepared
	wantAnswer(t, c, "SELECT missing FROM users WHERE id > ?", "error 1054", 0) // it gets no further than that
	ask(c, "SELECT 1; SELECT 2")
	ask(c, "USE stock")
	ask(c, "SELECT id FROM items")

	f := func(database, text string, count, errors, rows, affected uint64) {
		t.Helper()
		d := g.counted(database, text, count)
		if d.Count != count || d.Errors != errors || d.Rows != rows || d.Affected != affected {
			t.Errorf("%s: %d executions, %d errors, %d rows, %d affected", text, d.Count, d.Errors, d.Rows, d.Affected)
		}
		if count > 0 && (d.Total <= 0 || d.Longest <= 0 || d.Longest > d.Total || d.Last.Before(d.First.Add(-time.Second)) || time.Since(d.Last) > time.Minute || d.BytesIn == 0 || d.BytesOut == 0 || len(d.ID) != 16) {
			t.Errorf("%+v", d)
		}
	}
	f("shop", "select name from users where id = ?", 5, 0, 3, 0)
	f("shop", "select `name` from users where id = ?", 1, 0, 0, 0)
	f("shop", "update users set name = ? where id in (?)", 2, 0, 0, 5)
	f("shop", "select nonsense from users", 1, 1, 0, 0)
	f("shop", "select name from users where id > ?", 1, 0, 3, 0)
	f("shop", "select missing from users where id > ?", 1, 1, 0, 0)
	f("stock", "select id from items", 1, 0, 1, 0)
	f("shop", "select id from items", 0, 0, 0, 0)

	listed := ask(c, "SHOW MENSHEN DIGESTS LIKE '%FROM USERS where id = _'")
	if lines := strings.Split(strings.TrimSpace(listed), "\n"); len(lines) != 2 || !strings.Contains(listed, "|shop|5|0|") || !strings.Contains(listed, "ms:") && !strings.Contains(listed, "µs:") {
		t.Errorf("%s", listed)
	}
	if listed = ask(c, "SHOW MENSHEN DIGESTS LIMIT 2;"); strings.Count(listed, "\n") != 2 {
		t.Errorf("%s", listed)
	}
	wantAnswer(t, c, "SHOW MENSHEN DIGESTS LIKE 'no such'", "")
	wantAnswer(t, c, "SHOW MENSHEN DIGESTS LIMIT 0 -- none", "")
	for _, wrong := range []string{"SHOW MENSHEN DIGESTS LIKE", "SHOW MENSHEN DIGESTS LIKE x", "SHOW MENSHEN DIGESTS LIMIT -1", "SHOW MENSHEN DIGESTS LIMIT 1, 2", "SHOW MENSHEN NONSENSE",
		"SHOW MENSHEN DIGESTS LIMIT 99999999999999999999", "FLUSH MENSHEN", "FLUSH MENSHEN NONSENSE", "FLUSH MENSHEN DIGESTS NOW"} {
		wantAnswer(t, c, wrong, "error 1235")
	}
	wantAnswer(t, c, "flush /* all */ menshen digests;", "")
	f("shop", "select name from users where id = ?", 0, 0, 0, 0)
	wantAnswer(t, c, "FLUSH STATUS", "")
}

// What a prepared statement counts for may have left the table meanwhile.
// Whoever mistakes the quotes of a password makes a name of it, or a word: such a text is not kept.
func TestDigestsHoldNoPasswords(t *testing.T) {
	t.Parallel()
	var plain, ansi scan.Mode
	for _, m := range []*scan.Mode{&plain, &ansi} {
		m.MariaDB, m.Version = true, 101119
	}
	ansi.SetSQLMode("ANSI_QUOTES")
	f := func(m *scan.Mode, text, want string) {
		t.Helper()
		var table digests
		if got := table.of([]byte(text), true, m, "shop", 10).text; got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	f(&plain, "CREATE USER a IDENTIFIED BY 'secret'", "create USER a IDENTIFIED by ?")
	f(&plain, `SET PASSWORD FOR a@'%' = PASSWORD("secret")`, "set PASSWORD for a @'%' = PASSWORD(?)")
	f(&plain, "ALTER USER a IDENTIFIED BY PASSWORD '*1'", "alter USER a IDENTIFIED by PASSWORD ?")
	f(&plain, "GRANT ALL ON *.* TO a IDENTIFIED VIA ed25519 USING PASSWORD('secret')", "grant all on *.* to a IDENTIFIED VIA ed25519 using PASSWORD(?)")
	f(&plain, "GRANT ALL ON *.* TO a IDENTIFIED BY secret", observe.Other)
	f(&plain, "SELECT 1; CREATE USER a IDENTIFIED BY `secret`", observe.Other)
	f(&plain, "CREATE TABLE `users` (`password` TEXT)", "create table `users` (`password` TEXT)")
	for _, text := range []string{`CREATE USER a IDENTIFIED BY "secret"`, `ALTER USER a IDENTIFIED VIA ed25519 USING "secret"`, `GRANT ALL ON *.* TO a IDENTIFIED BY "secret"`, `SET PASSWORD = "secret"`,
		`SET PASSWORD FOR a = PASSWORD("secret")`, `CHANGE MASTER TO MASTER_PASSWORD="secret"`, `CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (PASSWORD "secret")`} {
		f(&ansi, text, observe.Other)
	}
	f(&ansi, `SELECT "password" FROM "users"`, `select "password" from "users"`)
}

func TestDigestOfAPreparedStatementAfterAFlush(t *testing.T) {
	db := mariadb(t)
	g := open(t, shop(db.Addr))
	c := g.session(t)
	st, err := c.PrepareContext(context.Background(), "SELECT name FROM users WHERE id = ?")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for range 2 {
		ask(c, "FLUSH MENSHEN DIGESTS")
		for range 3 {
			if got := answerOf(st.Query(1)); got != "ada|\n" {
				t.Fatal(got)
			}
		}
		if d := g.counted("shop", "select name from users where id = ?", 3); d.Count != 3 || d.Rows != 3 {
			t.Errorf("%+v", d)
		}
	}
}

var mariaMode = &scan.Mode{MariaDB: true, Version: 101119}

func TestDigestTableIsBounded(t *testing.T) {
	t.Parallel()
	var table digests
	x := observe.Execution{Begun: time.Now(), Total: time.Millisecond, Rows: 1}
	const most, all = 200, 5000
	for i := range all {
		x.Begun = x.Begun.Add(10 * time.Millisecond)
		table.of(fmt.Appendf(nil, "SELECT a%d FROM t", i), true, mariaMode, "shop", most).Observe(&x)
		table.of([]byte("SELECT busy FROM t"), true, mariaMode, "shop", most).Observe(&x)
	}
	if n := table.size(); n > most || n < most*3/4 {
		t.Errorf("%d digests", n)
	}
	d := Door{digests: digests{count: table.count, bytes: table.bytes, others: table.others}}
	for i := range table.places {
		d.digests.places[i].Store(table.places[i].Load())
	}
	var sum, busy, other uint64
	bytes := 0
	for _, s := range d.Digests(nil) {
		sum += s.Count
		switch s.Text {
		case "select busy from t":
			busy = s.Count
		case observe.Other:
			other = s.Count
			continue
		}
		bytes += len(s.Text)
	}
	if sum != 2*all || busy != all || other < all-most || bytes != table.bytes {
		t.Errorf("%d executions, %d of the busy one, %d others, %d bytes of %d", sum, busy, other, bytes, table.bytes)
	}
}

func TestLongTextsAreBounded(t *testing.T) {
	t.Parallel()
	var table digests
	x := observe.Execution{Begun: time.Now(), Total: time.Millisecond}
	for i := range 700 {
		table.of(fmt.Appendf(nil, "SELECT a%d%s FROM t", i, strings.Repeat(", aaaaaaaaaaaaaaa", 3700)), true, mariaMode, "shop", 10000).Observe(&x)
		if table.bytes > digestBytesMax {
			t.Fatalf("%d bytes of texts", table.bytes)
		}
	}
	if n := table.size(); n < 400 {
		t.Errorf("%d digests", n)
	}
	for _, text := range []string{"SELECT 'unclosed", "SELECT a" + strings.Repeat(", b", 30000)} {
		if d := table.of([]byte(text), true, mariaMode, "shop", 10000); d.text != observe.Other {
			t.Errorf("%.20s has a digest", text)
		}
	}
	if d := table.of([]byte("SELECT 1"), false, mariaMode, "shop", 10000); d.text != observe.Other {
		t.Error("a part of a statement has a digest")
	}
}

// Two texts with one hash are two digests.
func TestDigestsCompareTexts(t *testing.T) {
	t.Parallel()
	var table digests
	a := table.add(7, 7, "select ?", "shop", 100)
	b := table.add(7, 7, "delete from t", "shop", 100)
	c := table.add(7, 7, "select ?", "stock", 100)
	if a == b || a == c || table.find(7, []byte("select ?"), "shop") != a || table.find(7, []byte("delete from t"), "shop") != b || table.find(7, []byte("select ?"), "stock") != c {
		t.Error("taken for one another")
	}
	if table.find(7, []byte("update t"), "shop") != nil || table.add(7, 7, "select ?", "shop", 100) != a {
		t.Error("not the same")
	}
}

func TestDigestsUnderFire(t *testing.T) {
	t.Parallel()
	d := &Door{}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			var kept *digest
			x := observe.Execution{Begun: time.Now(), Total: time.Millisecond}
			for i := range 3000 {
				kept = d.digests.current(kept, 100)
				e := d.digests.of(fmt.Appendf(nil, "SELECT a%d FROM t", (i*7+w)%300), true, mariaMode, "shop", 100)
				e.Observe(&x)
				if kept == nil {
					kept = e
				}
				if i%1000 == 999 {
					d.ResetDigests()
				}
				if i%100 == 0 {
					d.Digests(nil)
				}
			}
		})
	}
	wg.Wait()
	if n := d.digests.size(); n > 100 {
		t.Error(n)
	}
}

func TestLike(t *testing.T) {
	t.Parallel()
	f := func(text, pattern string, want bool) {
		t.Helper()
		if like(text, pattern) != want {
			t.Errorf("%q like %q: want %v", text, pattern, want)
		}
	}
	f("", "", true)
	f("", "%", true)
	f("a", "", false)
	f("abc", "ABC", true)
	f("abc", "a%", true)
	f("abc", "%c", true)
	f("abc", "%b%", true)
	f("abc", "_b_", true)
	f("abc", "_b", false)
	f("abcabd", "%ab_", true)
	f("abcabd", "%abc", false)
	f("a%c", `a\%c`, true)
	f("abc", `a\%c`, false)
	f("a_c", `a\_%`, true)
	f("жук", "_у%", true)
	f(strings.Repeat("a", 3000), strings.Repeat("%a", 20)+"%b", false)
}

func TestLookUpAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	var table digests
	text := []byte("SELECT c FROM sbtest1 WHERE id=12345")
	x := observe.Execution{Begun: time.Now(), Total: time.Millisecond, Rows: 1, BytesIn: 40, BytesOut: 100}
	if n := testing.AllocsPerRun(5000, func() { table.of(text, true, mariaMode, "shop", 10000).Observe(&x) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// What do the statistics cost for a statement that is known, beside its print?
func BenchmarkDigest(b *testing.B) {
	var table digests
	for i := range 9000 {
		table.of(fmt.Appendf(nil, "SELECT a%d FROM t", i), true, mariaMode, "shop", 10000)
	}
	text := []byte("SELECT c FROM sbtest1 WHERE id=12345")
	table.of(text, true, mariaMode, "shop", 10000)
	x := observe.Execution{Begun: time.Now(), Total: time.Millisecond, Rows: 1, BytesIn: 40, BytesOut: 100}
	b.Run("print", func(b *testing.B) {
		var p scan.Print
		for b.Loop() {
			p.Scan(text, mariaMode)
		}
	})
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			table.of(text, true, mariaMode, "shop", 10000).Observe(&x)
		}
	})
	b.Run("all parallel", func(b *testing.B) {
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				table.of(text, true, mariaMode, "shop", 10000).Observe(&x)
			}
		})
	})
}

// The facts that a digest remembers are those of the statement, however it is read.
func TestRememberedFacts(t *testing.T) {
	t.Parallel()
	var table digests
	modes := []scan.Mode{{MariaDB: true, Version: 101119}, {MariaDB: true, Version: 101119, ANSIQuotes: true}, {Version: 80036}, {MariaDB: true, Version: 101119, NoBackslashEscapes: true}}
	texts := []string{"SELECT name FROM users WHERE id = 7", "SELECT name FROM users WHERE id = 8 -- x", `SELECT "a", f(1)`, `SELECT "b", f(2)`, "USE shop", "USE stock_0", "SAVEPOINT a", "SAVEPOINT bc", "KILL 'x'", "KILL 7", "KILL QUERY 700", "FLUSH STATUS", "SHOW MENSHEN", "SHOW MENSHEN STATUS", "HELP 'x'",
		"SELECT 'a\\' OR f('x')", "BEGIN", "START TRANSACTION READ ONLY", "SET @a = 1", "SET autocommit = 0", "SET autocommit=1;", "SELECT 1; SELECT 2", "SELECT /*!50000 GET_LOCK('a', 1) */", "/* menshen: primary */ SELECT 3",
		"SELECT LAST_INSERT_ID()", "PREPARE x FROM 'SELECT 1'", "select id from t where id in (1,2,3) for update", "CALL p(1)", "INSERT INTO t VALUES (1, f(2)), (3, f(4))"}
	for range 3 {
		for m := range modes {
			for _, text := range texts {
				s := &session{mode: modes[m]}
				s.st.digest = table.of([]byte(text), true, &s.mode, "shop", 1000)
				if got, want := s.classify([]byte(text)), scan.Classify([]byte(text), &s.mode); got != want {
					t.Errorf("%s: %+v, want %+v", text, got, want)
				}
			}
		}
	}
}

// What does it cost to look at a statement whose text is known: its digest and all that it tells?
func BenchmarkKnownStatement(b *testing.B) {
	text := []byte("SELECT c FROM sbtest1 WHERE id=12345")
	s := &session{door: &Door{}, tables: &Tables{digestsMax: 1000}, mode: *mariaMode}
	s.st.whole = true
	b.ReportAllocs()
	for b.Loop() {
		s.account(text)
		s.st.judgement = s.judge(text, true)
	}
}

// What follows SHOW MENSHEN and FLUSH is a client's.
func FuzzShowClauses(f *testing.F) {
	for _, rest := range []string{"", " LIKE '%x%'", " LIKE 'a' LIMIT 5;", " limit 0 -- x", " LIKE \"a\\", " LIMIT 18446744073709551616", " LIKE N'a'", "LIKE _utf8 'a'", ";;", "FLUSH MENSHEN DIGESTS", "flush /*", " LIKE x'41'"} {
		f.Add(rest, uint8(0))
		f.Add(rest, uint8(7))
	}
	f.Fuzz(func(t *testing.T, rest string, pick uint8) {
		s := &session{mode: scan.Mode{MariaDB: pick&1 == 0, Version: 101119, ANSIQuotes: pick&2 != 0, NoBackslashEscapes: pick&4 != 0}}
		pattern, limit, ok := s.clauses([]byte(rest))
		if ok && (limit < 0 || limit > rowsMax) {
			t.Errorf("limit %d", limit)
		}
		if ok && pattern != nil {
			like("select name from users where id = ?", *pattern)
		}
		s.flushes(rest)
	})
}

func FuzzLike(f *testing.F) {
	f.Add("abc", "a%c")
	f.Add("a%c", `a\%_`)
	f.Add("", "%%")
	f.Fuzz(func(t *testing.T, text, pattern string) {
		if len(text)*len(pattern) > 1<<16 {
			return
		}
		if got, want := like(text, pattern), slowLike([]rune(strings.ToLower(text)), []rune(strings.ToLower(pattern))); got != want {
			t.Errorf("%q like %q: %v", text, pattern, got)
		}
	})
}

// slowLike is like, by its definition.
func slowLike(t, p []rune) bool {
	// reach[i] says that the pattern so far matches the first i characters.
	reach := make([]bool, len(t)+1)
	reach[0] = true
	for j := 0; j < len(p); j++ {
		next := make([]bool, len(t)+1)
		c, escaped := p[j], false
		if c == '\\' && j+1 < len(p) {
			j++
			c, escaped = p[j], true
		} else if c == '\\' {
			return false
		}
		for i := range reach {
			switch {
			case !reach[i]:
			case c == '%' && !escaped:
				for k := i; k <= len(t); k++ {
					next[k] = true
				}
			case i < len(t) && (c == '_' && !escaped || c == t[i]):
				next[i+1] = true
			}
		}
		reach = next
	}
	return reach[len(t)]
}
