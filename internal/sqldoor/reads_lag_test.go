package sqldoor

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// dam holds up replication until open is called: the appliers of the replicas wait for a table that somebody reads.
func dam(t testing.TB, servers *testenv.Group) (open func()) {
	t.Helper()
	servers.DBs[0].Exec(t, "CREATE TABLE IF NOT EXISTS shop.dam (i INT)")
	var held []*sql.Conn
	for i := 1; i < 3; i++ {
		servers.Sync(t, i, 0)
		c, err := servers.DBs[i].Open(t, "root", "").Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.ExecContext(t.Context(), "LOCK TABLES shop.dam READ"); err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	servers.DBs[0].Exec(t, "INSERT INTO shop.dam VALUES (1)")
	return func() {
		for _, c := range held {
			if _, err := c.ExecContext(context.Background(), "UNLOCK TABLES"); err != nil {
				t.Error(err)
			}
			_ = c.Close()
		}
	}
}

// What a view writes through a function is the session's own write, also when its statement went to the primary at once: from when on a replica has met one.
func TestViewThatWrites(t *testing.T) {
	servers, g := split(t, "read_from: replicas; max_lag: 0")
	servers.DBs[0].Exec(t, "CREATE FUNCTION shop.sneaky() RETURNS INT BEGIN INSERT INTO shop.users (name) VALUES ('sneaky'); RETURN 1; END", "CREATE VIEW shop.harmless AS SELECT shop.sneaky() AS v")
	wantAnswer(t, g.session(t), "SELECT COUNT(*) FROM users", "3|\n")
	first, second := g.session(t), g.session(t)
	for i := 1; i < 3; i++ {
		servers.Sync(t, i, 0)
	}
	wantAnswer(t, first, "SELECT v FROM harmless", "1|\n")
	flow := dam(t, servers)
	defer flow()
	for _, statement := range []string{"/* menshen: primary */ SELECT v FROM harmless", "SELECT v, @@server_id > 0 AND 0 FROM harmless", "SELECT v FROM harmless"} {
		before := ask(second, "/* menshen: primary */ SELECT COUNT(*) FROM users")
		if got := ask(second, statement); !strings.HasPrefix(got, "1|") {
			t.Fatalf("%s: %q", statement, got)
		}
		if got := ask(second, "SELECT COUNT(*) FROM users"); got == before || got != ask(second, "/* menshen: primary */ SELECT COUNT(*) FROM users") {
			t.Errorf("after %s: %q rows, before %q", statement, got, before)
		}
	}
}

// While the replicas are behind, a session reads what it wrote; others may read what is there.
func TestReadsBehind(t *testing.T) {
	servers, g := split(t, "read_from: replicas; max_lag: 0")
	writer, reader := g.session(t), g.session(t)
	flow := dam(t, servers)
	wantAnswer(t, writer, "INSERT INTO users (id, name) VALUES (50, 'new')", "")
	f := func(c *sql.Conn, want, to string) {
		t.Helper()
		var got string
		if went := g.went(t, 1, func() { got = ask(c, "SELECT COUNT(*) FROM users WHERE id = 50") }); went != to || got != want+"|\n" {
			t.Errorf("%q from %s, want %q from %s", got, went, want, to)
		}
	}
	for range 3 {
		f(writer, "1", "own write")
		f(reader, "0", "replica")
	}
	begun := time.Now()
	for range 20 {
		f(writer, "1", "own write")
	}
	if took := time.Since(begun); took > 15*reachMax {
		t.Errorf("20 reads took %s: each waits in vain", took)
	}
	id := ask(writer, "SELECT CONNECTION_ID()")
	if err := writer.Raw(func(d any) error {
		return d.(interface{ ResetSession(context.Context) error }).ResetSession(t.Context())
	}); err != nil || ask(writer, "SELECT CONNECTION_ID()") != id {
		t.Fatal(err)
	}
	r := connect(t, g, 0, "shop")
	r.ask(3, "UPDATE users SET name = 'newer' WHERE id = 50")
	r.ask(31, "") // COM_RESET_CONNECTION
	if to := g.went(t, 1, func() { r.ask(3, "SELECT name FROM users WHERE id = 50") }); to != "own write" {
		t.Errorf("after a reset reads go to %q", to)
	}
	flow()
	servers.Sync(t, 1, 0)
	servers.Sync(t, 2, 0)
	testenv.Eventually(t, 5*time.Second, func() error { // when it is worth waiting again
		if to := g.went(t, 1, func() { wantAnswer(t, writer, "SELECT name FROM users WHERE id = 50", "newer|\n") }); to != "replica" {
			return fmt.Errorf("went to %s", to)
		}
		return nil
	})

	g.reload(splitConfig(servers.Addresses(), "read_from: replicas; max_lag: 0; consistency: eventual"))
	flow = dam(t, servers)
	wantAnswer(t, writer, "INSERT INTO users (id, name) VALUES (51, 'late')", "")
	if to := g.went(t, 1, func() { wantAnswer(t, writer, "SELECT COUNT(*) FROM users WHERE id = 51", "0|\n") }); to != "replica" {
		t.Errorf("eventual: %s", to)
	}
	flow()

	g.reload(splitConfig(servers.Addresses(), "read_from: replicas; max_lag: 0; consistency: strong"))
	flow = dam(t, servers)
	wantAnswer(t, writer, "INSERT INTO users (id, name) VALUES (52, 'late')", "")
	if to := g.went(t, 1, func() { wantAnswer(t, reader, "SELECT COUNT(*) FROM users WHERE id = 52", "1|\n") }); to != "own write" {
		t.Errorf("strong, behind: %s", to)
	}
	flow()
	testenv.Eventually(t, 5*time.Second, func() error {
		wantAnswer(t, writer, "UPDATE users SET name = CONCAT(name, '.') WHERE id = 52", "")
		want := ask(writer, "SELECT name FROM users WHERE id = 52 FOR UPDATE")
		if to := g.went(t, 1, func() { wantAnswer(t, reader, "SELECT name FROM users WHERE id = 52", want) }); to != "replica" {
			return fmt.Errorf("strong: went to %s", to)
		}
		return nil
	})

	g.reload(splitConfig(servers.Addresses(), "read_from: nearest"))
	g.rotated(t, 2)
	for range 20 {
		if to := g.went(t, 1, func() { ask(reader, "SELECT n FROM me") }); to != "replica" && to != "nearest" {
			t.Errorf("nearest: %s", to)
		}
	}
	g.reload(splitConfig(servers.Addresses(), "read_from: primary"))
	g.rotated(t, 2)
	for n, statement := range []string{"SELECT n FROM me", "/* menshen: replica */ SELECT n FROM me"} {
		want := []string{"default", "replica"}[n]
		if to := g.went(t, 1, func() { ask(reader, statement) }); to != want {
			t.Errorf("%s: %s, want %s", statement, to, want)
		}
	}
	g.reload(splitConfig(servers.Addresses(), "read_from: replicas; pool: {share: session}"))
	g.rotated(t, 2)
	own := g.session(t)
	for range 3 {
		if to := g.went(t, 1, func() { wantAnswer(t, own, "SELECT n FROM me", "0|\n") }); to != "pinned" {
			t.Errorf("with a connection of its own: %s", to)
		}
	}
}

// The answer to a write never comes, and the primary executes it later: from the moment when it has, the session sees it.
func TestReadsAfterALostWrite(t *testing.T) {
	servers, g := split(t, "read_from: replicas; max_lag: 0; timeouts: {statement: 300ms}")
	root := servers.DBs[0].Open(t, "root", "shop")
	tx, err := root.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec("SELECT name FROM users WHERE id = 1 FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	c := g.session(t)
	wantAnswer(t, c, "UPDATE users SET name = 'late' WHERE id = 1", "error 3024")
	const read = "SELECT name FROM users WHERE id = 1"
	testenv.Eventually(t, 5*time.Second, func() error {
		if to := g.went(t, 1, func() { wantAnswer(t, c, read, "ada|\n") }); to != "replica" {
			return fmt.Errorf("it went to %s", to)
		}
		return nil
	})
	flow := dam(t, servers)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 5*time.Second, func() error {
		if got := value[string](t, root, read); got != "late" {
			return fmt.Errorf("the primary has not executed it: %q", got)
		}
		return nil
	})
	for range 3 {
		if to := g.went(t, 1, func() { wantAnswer(t, c, read, "late|\n") }); to != "own write" {
			t.Errorf("it went to %s", to)
		}
	}
	flow()
	testenv.Eventually(t, 5*time.Second, func() error { // replicas are of use again
		if to := g.went(t, 1, func() { wantAnswer(t, c, read, "late|\n") }); to != "replica" {
			return fmt.Errorf("it went to %s", to)
		}
		return nil
	})
}

// Replicas that stop, hang or break cost an error only where a part of the answer has gone to the client; the session goes on.
func TestReplicasBreak(t *testing.T) {
	servers, g := split(t, "read_from: replicas")
	var wg sync.WaitGroup
	var stop atomic.Bool
	var answers, errors atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			c, err := g.one("app:apple", "shop").Conn(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			for n := 0; !stop.Load(); n++ {
				token := fmt.Sprintf("%d-%d", i, n)
				query, want := "SELECT '"+token+"', COUNT(*) FROM users", token+"|3|\n"
				if n%4 == 0 {
					query, want = "SELECT '"+token+"', SUM(LENGTH(REPEAT('x', 1000))), seq FROM seq_1_to_2000 GROUP BY seq", ""
				}
				got := ask(c, query)
				switch {
				case strings.HasPrefix(got, "error"):
					errors.Add(1)
					if n%4 != 0 {
						t.Errorf("%s: %s", query, got) // its answer is in one piece
					}
					_ = c.Close()
					if c, err = g.one("app:apple", "shop").Conn(context.Background()); err != nil {
						t.Error(err)
						return
					}
				case want != "" && got != want, want == "" && strings.Count(got, token+"|1000|") != 2000:
					t.Errorf("%s: %.200q", query, got)
				default:
					answers.Add(1)
				}
			}
		})
	}
	testenv.Eventually(t, 5*time.Second, func() error {
		if answers.Load() < 50 {
			return fmt.Errorf("%d answers", answers.Load())
		}
		return nil
	})
	servers.Kill(1)
	g.rotated(t, 1)
	servers.Restart(t, 1)
	g.rotated(t, 2)
	servers.Pause(t, 2)
	servers.Resume(t, 2)
	before := answers.Load()
	testenv.Eventually(t, 10*time.Second, func() error {
		if answers.Load() < before+50 {
			return fmt.Errorf("%d answers", answers.Load())
		}
		return nil
	})
	stop.Store(true)
	wg.Wait()
	t.Logf("%d answers, %d errors", answers.Load(), errors.Load())

	for i := 1; i < 3; i++ {
		servers.Kill(i)
	}
	c := g.session(t)
	for range 5 {
		wantAnswer(t, c, "SELECT n FROM me", "0|\n")
	}
	g.rotated(t, 0)
	if to := g.went(t, 1, func() { wantAnswer(t, c, "SELECT n FROM me", "0|\n") }); to != "no replica" {
		t.Errorf("without replicas: %s", to)
	}
}

// While there is no primary, reads go on.
func TestReadsWithoutPrimary(t *testing.T) {
	servers, g := split(t, "read_from: replicas; failover_wait: 200ms")
	reader, writer := g.session(t), g.session(t)
	wantAnswer(t, reader, "SELECT name FROM users WHERE id = 1", "ada|\n")
	wantAnswer(t, writer, "INSERT INTO users (name) VALUES ('z')", "")
	servers.Sync(t, 1, 0)
	servers.Sync(t, 2, 0)
	for range 2 {
		wantAnswer(t, writer, "SELECT COUNT(*) FROM users", "4|\n")
	}
	servers.Kill(0)
	for range 6 {
		wantAnswer(t, reader, "SELECT name FROM users WHERE id = 1", "ada|\n")
		wantAnswer(t, writer, "SELECT COUNT(*) FROM users", "4|\n")
	}
	if got := ask(writer, "INSERT INTO users (name) VALUES ('w')"); !strings.HasPrefix(got, "error") {
		t.Errorf("a write without a primary: %q", got)
	}
	wantAnswer(t, reader, "SELECT name FROM users WHERE id = 1", "ada|\n")
	begun := time.Now()
	late := g.session(t)
	for _, statement := range []string{"SELECT name FROM users WHERE id = 1", "/* menshen: primary */ SELECT 1", "SELECT COUNT(*) FROM users", "BEGIN", "SELECT name FROM users WHERE id = 1"} {
		got := ask(late, statement)
		if refused := strings.HasPrefix(got, "error"); refused != (statement == "BEGIN" || strings.Contains(statement, "menshen")) {
			t.Errorf("%s: %q", statement, got)
		}
	}
	if _, err := late.ExecContext(t.Context(), "USE shop"); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	g.reload(splitConfig(servers.Addresses(), "read_from: primary; failover_wait: 200ms"))
	wantAnswer(t, late, "SELECT name FROM users WHERE id = 1", "ada|\n")

	servers.Promote(t, 1)
	g.rotated(t, 0)
	wantAnswer(t, late, "UPDATE users SET name = 'countess' WHERE id = 1", "")
	wantAnswer(t, late, "SELECT name FROM users WHERE id = 1", "countess|\n")
	wantAnswer(t, late, "SELECT @@tx_read_only, n FROM me", "0|1|\n")
}

// Sessions say random things, each beside a session of its own on one server, while the replicas lag: answers are equal.
func TestSplitAnswersAsOneServer(t *testing.T) {
	plain := mariadb(t)
	servers, g := split(t, "read_from: replicas; max_lag: 0; pool: {max_connections: 8, queue_timeout: 60s}")
	plain.Exec(t, "CREATE TABLE shop.me (n INT)", "INSERT INTO shop.me VALUES (0)")
	p := g.beside(t, plain, uint64(time.Now().UnixNano()))
	p.keep = true
	k := g.tables.Load().databases["shop"].keeper

	// The replicas are held up for moments all the time, apart.
	var dams sync.WaitGroup
	over, done := context.WithCancel(context.Background())
	defer dams.Wait()
	defer done()
	for i := 1; i < 3; i++ {
		db := servers.DBs[i].Open(t, "root", "")
		random := rand.New(rand.NewPCG(p.seed, uint64(100+i)))
		dams.Go(func() {
			c, err := db.Conn(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for over.Err() == nil {
				if _, err := c.ExecContext(context.Background(), "FLUSH TABLES WITH READ LOCK"); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond) // how long the replica is held up
				if _, err := c.ExecContext(context.Background(), "UNLOCK TABLES"); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond) // how long it is not
			}
		})
	}
	lives := 3
	if os.Getenv("MENSHEN_TEST_LONG") != "" {
		lives = 60
	}
	reads, fromReplicas := 0, uint64(0)
	probe := g.session(t)
	wantAnswer(t, probe, "CREATE TABLE probe (i INT)", "")
	for life := range lives {
		all := make([]*twins, 16)
		for i := range all {
			if all[i] = p.meet(fmt.Sprintf("session %d, life %d", i, life), rand.New(rand.NewPCG(p.seed, uint64(100*life+i)))); all[i] == nil {
				return
			}
		}
		together := func(act func(i int, w *twins, table string)) {
			var wg sync.WaitGroup
			for i, w := range all {
				wg.Go(func() { act(i, w, fmt.Sprintf("q%d", i)) })
			}
			wg.Wait()
		}
		together(func(i int, w *twins, table string) {
			w.both("CREATE OR REPLACE TABLE " + table + fmt.Sprintf(" (id INT PRIMARY KEY AUTO_INCREMENT, v INT) AUTO_INCREMENT = %d", 1000*(i+1)))
			for n := range 20 {
				w.anything(table, n)
			}
			w.both("COMMIT")
			w.both("SET autocommit = 1")
		})
		// A replica that has everything answers, however far it was behind just now.
		wantAnswer(t, probe, "INSERT INTO probe VALUES (1)", "")
		servers.Sync(t, 1, 0)
		servers.Sync(t, 2, 0)
		testenv.Eventually(t, 10*time.Second, func() error {
			if to := g.went(t, 1, func() { ask(probe, "SELECT COUNT(*) FROM probe") }); to != "replica" {
				return fmt.Errorf("a read went to %s", to)
			}
			return nil
		})
		before := k.went[replica].Load()
		together(func(_ int, w *twins, table string) {
			for range 5 {
				w.both("SELECT COUNT(*), SUM(v), MAX(id) FROM " + table)
			}
		})
		reads, fromReplicas = reads+5*len(all), fromReplicas+k.went[replica].Load()-before
		together(func(_ int, w *twins, table string) {
			for n := 20; n < 40; n++ {
				w.anything(table, n)
			}
			w.part()
		})
	}
	var went []string
	for to := range destinationCount {
		went = append(went, fmt.Sprint(to, " ", k.went[to].Load()))
	}
	t.Logf("%d statements, %d refused; went to %s; %d of %d reads that no lag hinders to replicas", p.asked, p.refused, strings.Join(went, ", "), fromReplicas, reads)
	if fromReplicas < uint64(reads*3/4) && !t.Failed() { // some may find no connection free to ask where the writes are
		t.Errorf("%d of %d reads went to replicas that had everything", fromReplicas, reads)
	}
	done()
	dams.Wait()
	for i := 1; i < 3; i++ {
		servers.Sync(t, i, 0)
		if got := value[string](t, servers.DBs[i].Open(t, "root", ""), "SELECT @@gtid_binlog_pos"); strings.Contains(got, fmt.Sprintf("-%d-", i+1)) {
			t.Errorf("replica %d has written itself: %s", i, got)
		}
	}
}

// anything says something random, the n-th time.
func (w *twins) anything(table string, n int) {
	both, random := w.both, w.random
	token := fmt.Sprintf("%s-%d", table, n)
	free := []string{
		"SELECT '" + token + "', COUNT(*), SUM(v), MAX(id) FROM " + table, "SELECT '" + token + "', COUNT(*), SUM(v), MAX(id) FROM " + table, "SELECT * FROM " + table + " ORDER BY id LIMIT 5",
		"SELECT '" + token + "', COUNT(*) FROM " + table + "; SELECT '" + token + "', 2", "SELECT '" + token + "', name FROM users ORDER BY id", "SELECT \"x\", '\\\\', CONCAT(1, 'a'), FROM_UNIXTIME(0)",
		"/* menshen: replica */ SELECT COUNT(*) FROM " + table, "/* menshen: primary */ SELECT COUNT(*) FROM " + table, "SELECT COUNT(*) FROM " + table + " FOR UPDATE",
		"INSERT INTO " + table + " (v) VALUES (1), (2)", "INSERT INTO " + table + " (v) VALUES (3)", "INSERT INTO " + table + " VALUES (1, 1)", "UPDATE " + table + " SET v = v + 1", "DELETE FROM " + table + " ORDER BY id LIMIT 1",
		"REPLACE INTO " + table + " (v) VALUES (8)", "INSERT INTO " + table + " SELECT NULL, v FROM " + table + " LIMIT 2", "INSERT INTO " + table + " (v) VALUES (4); SELECT COUNT(*) FROM " + table,
		"ALTER TABLE " + table + " ADD COLUMN IF NOT EXISTS w INT DEFAULT 5", "TRUNCATE " + table, "SELECT LAST_INSERT_ID()", "SHOW WARNINGS", "SHOW ERRORS",
		"SELECT CAST('a' AS INT) FROM users", "SELECT * FROM missing", "SELECT bad FROM users", "SELEKT", "SET sql_mode = 'ANSI_QUOTES'", "SET sql_mode = DEFAULT",
		"SET time_zone = '+05:00'", "SET NAMES latin1", "SET NAMES utf8mb4", "SET sql_select_limit = 2", "SET sql_select_limit = DEFAULT", "SELECT @@sql_mode, @@time_zone, @@tx_read_only, @@sql_select_limit",
		"SET SESSION TRANSACTION READ ONLY", "SET SESSION TRANSACTION READ WRITE", "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE", "DO 1", "COMMIT", "ROLLBACK",
	}
	switch random.IntN(10) {
	case 0:
		begin := []string{"BEGIN", "START TRANSACTION", "START TRANSACTION READ ONLY", "SET autocommit = 0", "START TRANSACTION WITH CONSISTENT SNAPSHOT"}[random.IntN(5)]
		_ = both(begin) && both("INSERT INTO "+table+" (v) VALUES (7)") && both("SELECT COUNT(*) FROM "+table)
		both([]string{"COMMIT", "ROLLBACK", "SET autocommit = 1", "CREATE TABLE IF NOT EXISTS " + table + " (i INT)", "COMMIT AND CHAIN"}[random.IntN(5)])
		both("SELECT COUNT(*), SUM(v) FROM " + table)
		both("COMMIT")
		both("SET autocommit = 1")
		both("SELECT COUNT(*), SUM(v) FROM " + table)
	case 1:
		both("SELECT ?, COUNT(*) FROM "+table, token)
	case 2:
		both("INSERT INTO "+table+" (v) VALUES (?)", n)
		both("SELECT COUNT(*), MAX(id) FROM "+table+" WHERE v = ?", n)
	case 3:
		if n > 20 { // these pin; after an aggregate over an empty table FOUND_ROWS() stays what it was before, on a server too
			both("SELECT id FROM users LIMIT 2")
			both([]string{"SELECT ROW_COUNT()", "SELECT FOUND_ROWS()", "SELECT SQL_CALC_FOUND_ROWS id FROM users LIMIT 1", "SELECT @@warning_count"}[random.IntN(4)])
		}
		both("INSERT INTO " + table + " (v) VALUES (9)")
		both("SELECT COUNT(*), MAX(id), SUM(v) FROM " + table)
	case 4, 5, 6, 7:
		both(free[random.IntN(7)]) // a read
	default:
		both(free[random.IntN(len(free))])
	}
}
