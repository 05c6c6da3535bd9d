package sqldoor

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/sqldoor/scan"
	"github.com/menshen-gateway/menshen/internal/sqldoor/wire"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// split starts a primary and two replicas with the data of mariadb, and a gate in front of them. The table me says who answers: 0, 1 or 2. The login may write
// everywhere, as careless ones may.
func split(t testing.TB, settings string) (*testenv.Group, *gate) {
	t.Helper()
	servers := testenv.Replicated(t, "--max-allowed-packet=64M", "--log-bin-trust-function-creators=1", "--local-infile=1")
	servers.DBs[0].Exec(t,
		"CREATE USER gate@'%' IDENTIFIED BY 'secret'", "GRANT ALL ON *.* TO gate@'%'",
		"CREATE DATABASE shop", "CREATE TABLE shop.users (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(100))",
		"INSERT INTO shop.users (name) VALUES ('ada'), ('grace'), ('Привет, 🐘')", "CREATE TABLE shop.me (n INT)")
	for i, db := range servers.DBs {
		if i > 0 {
			servers.Sync(t, i, 0)
		}
		db.Exec(t, "SET sql_log_bin = 0", fmt.Sprintf("INSERT INTO shop.me VALUES (%d)", i))
	}
	g := open(t, splitConfig(servers.Addresses(), settings))
	g.rotated(t, 2)
	return servers, g
}

func splitConfig(addresses []string, settings string) string {
	return fmt.Sprintf(`
listeners:
  sql: {address: "127.0.0.1:0", protocol: mysql}
databases:
  shop:
    login: {user: gate, password: secret}
    check_interval: 100ms
    shards: {s0: {primary: %q, replicas: [%q, %q]}}
    %s
consumers:
  app: {mysql: {password: apple}}
`, addresses[0], addresses[1], addresses[2], strings.ReplaceAll(settings, "; ", "\n    "))
}

// rotated waits until the gate knows a primary and so many replicas that take reads.
func (g *gate) rotated(t testing.TB, replicas int) {
	t.Helper()
	testenv.Eventually(t, 10*time.Second, func() error {
		d := g.tables.Load().databases["shop"]
		primaries, n := 0, 0
		for _, in := range d.instances {
			if d.still(in, classPrimary) {
				primaries++
			}
			if d.still(in, classReplica) {
				n++
			}
		}
		if primaries != 1 || n != replicas {
			return fmt.Errorf("%d primaries, %d replicas", primaries, n)
		}
		return nil
	})
}

// went gives where the statements of f went, in the order of destinations, parted by commas. There must be n of them.
func (g *gate) went(t testing.TB, n int, f func()) string {
	t.Helper()
	testenv.Eventually(t, 5*time.Second, func() error { // what was answered before is counted
		for s := range g.All() {
			if s.waiting.Load() != 0 {
				return fmt.Errorf("session %d is busy", s.id)
			}
		}
		return nil
	})
	k := g.tables.Load().databases["shop"].keeper
	var before [destinationCount]uint64
	for i := range before {
		before[i] = k.went[i].Load()
	}
	f()
	var all []string
	testenv.Eventually(t, 5*time.Second, func() error {
		all = nil
		for i := range before {
			for range k.went[i].Load() - before[i] {
				all = append(all, destination(i).String())
			}
		}
		if len(all) != n {
			return fmt.Errorf("%d statements were counted, not %d: %v", len(all), n, all)
		}
		return nil
	})
	return strings.Join(all, ", ")
}

// Where statements go, by what they are and what their session is in the middle of.
func TestDestinations(t *testing.T) {
	t.Parallel()
	d := &database{instances: make([]*instance, 3), readFrom: readReplicas}
	fresh := func() *session {
		s := &session{door: New(Options{}), vars: new(backend.Vars), status: mysql.Autocommit}
		s.st.command, s.st.whole = mysql.ComQuery, true
		s.mode.MariaDB, s.mode.Version = true, 101119
		return s
	}
	f := func(text string, want destination, conditions ...func(*session)) {
		t.Helper()
		s := fresh()
		for _, c := range conditions {
			c(s)
		}
		s.st.judgement = s.judge([]byte(text), s.st.whole)
		if got := s.destination(d); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	read := "SELECT name FROM users WHERE id = 1"
	f(read, replica)
	f("SELECT 1; SELECT 2", replica)
	f("(SELECT 1) UNION (SELECT 2)", replica)
	f("WITH x AS (SELECT 1) SELECT NOW(), RAND(), UUID() FROM x", replica)
	f("/* menshen: replica */ "+read, replica)
	f("/* menshen: primary */ "+read, becauseHint)
	f("/* menshen: replica */ UPDATE users SET name = ''", becauseWrites)
	f("/* menshen: replica */ SELECT GET_LOCK('a', 1)", becauseWrites)
	f("/* menshen: replica */ SELECT @a", becauseState)
	f("/* menshen: replica */ gibberish", becauseWrites)
	for _, writes := range []string{"INSERT INTO users (name) VALUES ('x')", read + " FOR UPDATE", read + " LOCK IN SHARE MODE", "SELECT id INTO @x FROM users", "SELECT shop.f()", "SELECT f()", "CALL p()",
		"SELECT 1; DELETE FROM users", "SELECT 1; SELECT 2 FOR UPDATE", "SELECT @a := 1", "SELECT NEXTVAL(s)", "SELECT LAST_INSERT_ID(5)", "SELECT SQL_CALC_FOUND_ROWS 1", "BEGIN", "START TRANSACTION READ ONLY", "COMMIT",
		"SET NAMES utf8mb4", "DO 1", "CREATE TABLE x (i INT)", "LOCK TABLES users READ", "SELEKT", "SELECT 'a", "WITH x AS (SELECT 1) DELETE FROM users", "SELECT 1 INTO OUTFILE '/x'", "HANDLER users READ FIRST", "XA RECOVER"} {
		f(writes, becauseWrites)
	}
	for _, state := range []string{"SELECT @a", "SELECT @@hostname", "SELECT LAST_INSERT_ID()", "SELECT FOUND_ROWS()", "SELECT ROW_COUNT()", "SELECT CONNECTION_ID() + 1", "SELECT VERSION()", "SELECT CURRENT_USER()", "SHOW TABLES",
		"SHOW WARNINGS", "EXPLAIN SELECT 1", "DESCRIBE users", "SELECT * FROM information_schema.tables", "SELECT IS_FREE_LOCK('a')", "SELECT 1; SELECT @@server_id", ""} {
		f(state, becauseState)
	}
	f(read, becauseWrites, func(s *session) { s.st.whole = false })
	f(read, becauseOpen, func(s *session) { s.status = 0 })
	f(read, becauseOpen, func(s *session) { s.status |= mysql.InTransaction; s.link = &s.held })
	f(read, becauseOpen, func(s *session) { s.pin(pinTransaction) })
	f(read, becausePinned, func(s *session) { s.link = &s.held })
	f(read, becausePinned, func(s *session) { s.vars = nil })
	for p := range pinCount {
		if p != pinTransaction {
			f(read, becausePinned, func(s *session) { s.pin(p) })
		}
	}
	f(read, replica, func(s *session) { s.st.command = mysql.ComStmtExecute })
	f(read, replica, func(s *session) { s.st.command = mysql.ComStmtPrepare })
	f(read, becauseCursor, func(s *session) { s.st.command, s.st.cursor = mysql.ComStmtExecute, true })
	f(read, becauseOther, func(s *session) { s.st.command = mysql.ComFieldList })
	for _, own := range []string{"mysql", "SYS", "information_schema", "performance_schema"} {
		d.schema = own
		f(read, becauseState)
	}
	d.schema = "performance_schemas"
	f(read, replica)
	d.readFrom = readPrimary
	f(read, byDefault)
	f("/* menshen: replica */ "+read, replica)
	f("/* menshen: replica */ DELETE FROM users", becauseWrites)
}

func TestReads(whole *testing.T) {
	t := whole
	servers, g := split(t, "read_from: replicas")
	c := g.session(t, "multiStatements=true")
	f := func(statement, want string) {
		t.Helper()
		var got string
		if to := g.went(t, 1, func() { got = ask(c, statement) }); to != want {
			t.Errorf("%s: went to %q, want %q", statement, to, want)
		}
		if strings.HasPrefix(got, "error") {
			t.Errorf("%s: %s", statement, got)
		}
	}
	t.Run("both replicas", func(t *testing.T) {
		seen := map[string]int{}
		for range 10 {
			seen[ask(c, "SELECT n FROM me")]++
		}
		if seen["1|\n"] != 5 || seen["2|\n"] != 5 {
			t.Errorf("answers of %v", seen)
		}
		if got := ask(c, "/* menshen: primary */ SELECT n FROM me"); got != "0|\n" {
			t.Errorf("with a hint: %q", got)
		}
		g.logged(`"command":"query","split":"replica","endpoint":"` + servers.DBs[1].Addr)
		g.logged(`"command":"query","split":"hint","endpoint":"` + servers.DBs[0].Addr)
	})
	t.Run("own writes", func(t *testing.T) {
		f("INSERT INTO users (id, name) VALUES (10, 'x')", "write")
		for n := range 4 {
			f(fmt.Sprintf("SELECT name FROM users WHERE id = 10 AND %d", 1), "replica")
			f(fmt.Sprintf("UPDATE users SET name = 'x%d' WHERE id = 10", n), "write")
			if got := ask(c, "SELECT name FROM users WHERE id = 10"); got != fmt.Sprintf("x%d|\n", n) {
				t.Errorf("name is %q", got)
			}
		}
		f("CREATE TABLE fresh (i INT)", "write")
		f("SELECT * FROM fresh", "replica")
		f("BEGIN", "write")
		f("INSERT INTO fresh VALUES (1)", "write")
		f("SELECT * FROM fresh", "transaction")
		f("COMMIT", "write")
		wantAnswer(t, c, "SELECT * FROM fresh", "1|\n")
		f("SELECT 1; INSERT INTO fresh VALUES (2); SELECT 3", "write")
		wantAnswer(t, c, "SELECT COUNT(*) FROM fresh", "2|\n")
		f("SET autocommit = 0", "write")
		f("INSERT INTO fresh VALUES (3)", "write")
		f("SELECT COUNT(*) FROM fresh", "transaction")
		f("SET autocommit = 1", "write") // commits
		wantAnswer(t, c, "SELECT COUNT(*) FROM fresh", "3|\n")
		f("SELECT COUNT(*) FROM fresh", "replica")
	})
	t.Run("settings", func(t *testing.T) {
		f("SET sql_mode = 'ANSI_QUOTES', time_zone = '+03:00', group_concat_max_len = 4", "write")
		for range 4 {
			wantAnswer(t, c, `SELECT 'a' AS "b", FROM_UNIXTIME(0), (SELECT GROUP_CONCAT("name" ORDER BY id) FROM users WHERE id < 3)`, "a|1970-01-01 03:00:00|ada,|\n")
		}
		f(`SELECT "name" FROM "users" WHERE id = 1`, "replica")
		f("SELECT @@sql_mode, @@tx_read_only", "state")
		wantAnswer(t, c, "SELECT @@sql_mode, @@tx_read_only, @@read_only", "ANSI_QUOTES|0|0|\n")
		f("SET sql_mode = DEFAULT, time_zone = DEFAULT, group_concat_max_len = DEFAULT", "write")
	})
	t.Run("what became of a read", func(t *testing.T) {
		for range 3 {
			wantAnswer(t, c, "SELECT id FROM users WHERE id < 3", "1|\n2|\n")
			wantAnswer(t, c, "SELECT FOUND_ROWS()", "2|\n")
		}
		f("SELECT 1", "pinned") // it may ask again
		c = g.session(whole, "multiStatements=true")
		wantAnswer(t, c, "SELECT CAST('a' AS INT) FROM users LIMIT 1", "0|\n")
		wantAnswer(t, c, "SHOW WARNINGS", "Warning|1292|Truncated incorrect INTEGER value: 'a'|\n")
		wantAnswer(t, c, "SELECT name FROM users WHERE id = 1", "ada|\n")
		wantAnswer(t, c, "SELECT ROW_COUNT()", "-1|\n")
		wantAnswer(t, c, "SELECT LAST_INSERT_ID()", "0|\n")
		c = g.session(whole, "multiStatements=true")
	})
	t.Run("last insert id", func(t *testing.T) {
		c := g.session(t)
		wantAnswer(t, c, "INSERT INTO users (name) VALUES ('y')", "")
		id := ask(c, "SELECT MAX(id) FROM users")
		wantAnswer(t, c, "SELECT LAST_INSERT_ID()", id)
	})
	t.Run("prepared", func(t *testing.T) {
		st, err := c.PrepareContext(t.Context(), "SELECT n, ? FROM me")
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		seen := map[string]int{}
		for n := range 8 {
			seen[strings.Split(answerOf(st.Query(n)), "|")[0]]++
			seen[strings.Split(answerOf(st.Query("text")), "|")[0]]++
		}
		if seen["0"] != 0 || seen["1"] < 4 || seen["2"] < 4 {
			t.Errorf("answers of %v", seen)
		}
		in, err := c.PrepareContext(t.Context(), "INSERT INTO users (name) VALUES (?)")
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		out, err := c.PrepareContext(t.Context(), "SELECT COUNT(*) FROM users WHERE name = ?")
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		for n := range 6 {
			if _, err := in.Exec("prepared"); err != nil {
				t.Fatal(err)
			}
			if got := answerOf(out.Query("prepared")); got != fmt.Sprintf("%d|\n", n+1) {
				t.Errorf("after %d inserts: %q", n+1, got)
			}
		}
	})
	t.Run("what a text does not show", func(t *testing.T) {
		servers.DBs[0].Exec(t, "CREATE FUNCTION shop.sneaky() RETURNS INT BEGIN INSERT INTO shop.users (name) VALUES ('sneaky'); RETURN 1; END", "CREATE VIEW shop.harmless AS SELECT shop.sneaky() AS v")
		servers.Sync(t, 1, 0)
		servers.Sync(t, 2, 0)
		for n := range 3 {
			var got string
			if to := g.went(t, 1, func() { got = ask(c, "SELECT v FROM harmless") }); to != "replica failed" || got != "1|\n" {
				t.Errorf("a view that writes: %q, %s", got, to)
			}
			wantAnswer(t, c, "SELECT COUNT(*) FROM users WHERE name = 'sneaky'", fmt.Sprintf("%d|\n", n+1))
			for i, db := range servers.DBs {
				if i > 0 {
					servers.Sync(t, i, 0)
				}
				if got := value[int](t, db.Open(t, "root", ""), "SELECT COUNT(*) FROM shop.users WHERE name = 'sneaky'"); got != n+1 {
					t.Errorf("instance %d: %d rows, want %d", i, got, n+1)
				}
			}
		}
		wantAnswer(t, c, "SELECT * FROM missing", "error 1146")
		wantAnswer(t, c, "SHOW WARNINGS", "Error|1146|Table 'shop.missing' doesn't exist|\n")
	})
	t.Run("a setting that the replicas refuse", func(t *testing.T) {
		if _, err := servers.DBs[0].Open(t, "root", "").ExecContext(t.Context(), "INSTALL SONAME 'ha_blackhole'"); err != nil {
			t.Skip("no engine to install: ", err)
		}
		opened := func() (n uint64) {
			for i := 1; i < 3; i++ {
				n += value[uint64](t, servers.DBs[i].Open(t, "root", ""), "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'Connections'")
			}
			return n
		}
		wantAnswer(t, c, "SET default_storage_engine = BLACKHOLE", "")
		before := opened()
		for range 40 {
			f("SELECT name FROM users WHERE id = 1", "replica failed")
		}
		if n := opened() - before; n > 30 {
			t.Errorf("%d connections were opened for nothing", n)
		}
		wantAnswer(t, c, "SET default_storage_engine = DEFAULT", "")
		f("SELECT name FROM users WHERE id = 1", "replica")
	})
	t.Run("killed", func(t *testing.T) {
		id := strings.Trim(ask(c, "SELECT CONNECTION_ID()"), "|\n")
		killer := g.session(t)
		begun := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			if to := g.went(t, 1, func() { wantAnswer(t, c, "SELECT SLEEP(20) FROM users LIMIT 1", "error 1317") }); to != "replica" {
				t.Errorf("a read that is killed went to %s", to)
			}
		})
		for i := 0; ; i = 1 + i%2 {
			if n := value[int](t, servers.DBs[i].Open(t, "root", ""), "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(20)%'"); n == 1 {
				if i == 0 {
					t.Error("it runs on the primary")
				}
				break
			}
			if time.Since(begun) > 10*time.Second {
				t.Fatal("it does not run")
			}
		}
		if _, err := killer.ExecContext(t.Context(), "KILL QUERY "+id); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
	})
	t.Run("nothing was written to a replica", func(t *testing.T) {
		for i := 1; i < 3; i++ {
			servers.Sync(t, i, 0)
			if got := value[string](t, servers.DBs[i].Open(t, "root", ""), "SELECT @@gtid_slave_pos = @@gtid_current_pos AND @@gtid_binlog_pos LIKE '0-1-%'"); got != "1" {
				t.Errorf("replica %d has written itself", i)
			}
		}
		if n := g.Sessions(); n < 1 {
			t.Error("no session")
		}
	})
}

// As documented for MySQL, of which there is none here: a set of GTIDs is asked for, and waited for.
func TestPositionsOfMySQL(t *testing.T) {
	answer := func(values ...string) []byte {
		var b, row []byte
		next := uint8(1)
		add := func(payload []byte) { b, next = mysql.AppendPacket(b, next, payload) }
		end := mysql.OK{Status: mysql.Autocommit}
		add([]byte{byte(len(values))})
		for _, v := range values {
			c := mysql.Column{Name: []byte("c"), Type: mysql.TypeVarString, Collation: 45}
			add(c.AppendTo(nil))
			if row = mysql.AppendLenencString(row, v); v == "" {
				row[len(row)-1] = 0xfb
			}
		}
		add(end.AppendEnd(nil, 0))
		add(row)
		add(end.AppendEnd(nil, 0))
		return b
	}
	f := newFake(t, func(f *fake) { f.greeting.Capabilities &^= mysql.Framing })
	f.answer("SELECT @@global.gtid_executed", answer("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"))
	f.answer("SELECT WAIT_FOR_EXECUTED_GTID_SET('3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5',0.100),NULL", answer("0", ""))
	f.answer("SELECT WAIT_FOR_EXECUTED_GTID_SET('3e11fa47-71ca-11e1-9e33-c80aa9429562:1-6',0.100),NULL", answer("1", ""))
	c, err := backend.Open(t.Context(), f.ln.Addr().String(), &backend.Settings{User: "gate", Password: "secret", Connect: 5 * time.Second}, backend.Session{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var p backend.Progress
	at, err := c.AskWritten(&p)
	if err != nil || at == nil || p.Written(0) != at {
		t.Fatalf("%v, %v", at, err)
	}
	for position, want := range map[*backend.Position]bool{at: true, backend.ParsePosition("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-6", false): false, backend.ParsePosition("0-1-5", true): false} {
		if has, err := c.Reach(&p, position, 100*time.Millisecond); err != nil || has != want || p.Reached(position) != want {
			t.Errorf("%s: %v, %v", position, has, err)
		}
	}
}

func TestReadAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	servers, _ := split(t, "read_from: primary")
	g := open(t, strings.ReplaceAll(splitConfig(servers.Addresses(), "read_from: replicas"), "100ms", "1s"))
	g.rotated(t, 2)
	r := connect(t, g, 0, "shop")
	packet := mysql.AppendCommand(nil, mysql.ComQuery, "SELECT name FROM users WHERE id = 1")
	var answer mysql.Response
	allocations := func() (least float64) { // checks of the instances allocate beside it
		least = 1e9
		for range 5 {
			if least = min(least, testing.AllocsPerRun(300, func() { r.statement(packet, &answer) })); least == 0 {
				break
			}
		}
		return least
	}
	if n := allocations(); n > 0 {
		t.Errorf("%v allocations for a read from a replica", n)
	}
	if _, first := r.ask(mysql.ComQuery, "UPDATE users SET name = 'ada' WHERE id = 1"); mysql.IsError(first) {
		t.Fatalf("%q", first)
	}
	r.statement(packet, &answer) // waits for the replica
	r.statement(packet, &answer) // for the other one
	if n := allocations(); n > 0 {
		t.Errorf("%v allocations for a read of what the session wrote", n)
	}
	if n := g.tables.Load().databases["shop"].keeper.went[replica].Load(); n < 500 {
		t.Errorf("%d reads went to replicas", n)
	}
}

// An error of a replica that may not be the primary's is not passed on, unless it is longer than any that servers have and cannot be looked at as a whole.
func TestLongErrorOfReplica(t *testing.T) {
	statement := mysql.AppendCommand(nil, mysql.ComQuery, "SELECT 1")
	for _, length := range []int{1, 500, poll.SmallBuffer - mysql.HeaderLen - 9, poll.SmallBuffer, 3 * poll.SmallBuffer} {
		packet, _ := mysql.AppendPacket(nil, 1, []byte("\xff\x7a\x04#42S02"+strings.Repeat("x", length))) // 1146
		on := func(text []byte) *wire.Conn {
			return wire.On(poll.New(&scripted{texts: [][]byte{text[:7], text[7:]}}))
		}
		s := &session{client: on(statement), link: &link{Conn: &backend.Conn{Conn: on(packet)}, reads: true}}
		if err := s.client.Need(len(statement)); err != nil {
			t.Fatal(err)
		}
		s.st.kept = len(statement)
		passed := len(packet) > poll.SmallBuffer
		if err := s.accepted(); (err == nil) != passed || err != nil && err != errElsewhere {
			t.Errorf("%d bytes: %v", length, err)
		}
		if kept, rest := len(s.client.Buffered()) > 0, len(s.link.Buffered()) > 0; kept == passed || rest != passed {
			t.Errorf("%d bytes: the statement is there: %v, the error is: %v", length, kept, rest)
		}
	}
}

// What does a read cost that goes to a replica, and one that stays, beside one in a database without replicas?
func BenchmarkSplit(b *testing.B) {
	servers, g := split(b, "read_from: replicas")
	alone := open(b, shop(servers.DBs[0].Addr))
	packets := map[string]string{"replica": "SELECT name FROM users WHERE id = 1", "primary": "/* menshen: primary */ SELECT name FROM users WHERE id = 1"}
	for _, way := range []struct {
		name, packet string
		g            *gate
	}{{"alone", "replica", alone}, {"replica", "replica", g}, {"primary", "primary", g}} {
		b.Run(way.name, func(b *testing.B) {
			r := connect(b, way.g, 0, "shop")
			packet := mysql.AppendCommand(nil, mysql.ComQuery, packets[way.packet])
			var answer mysql.Response
			b.ReportAllocs()
			for b.Loop() {
				r.statement(packet, &answer)
			}
		})
	}
}

// Where reads are known to write, a text of several may have written too; what ran on a replica has not.
func TestVeiledTexts(t *testing.T) {
	d := &database{keeper: new(keeper)}
	f := func(text string, to destination, want bool) {
		t.Helper()
		s := &session{mode: scan.Mode{MariaDB: true, Version: 101119}}
		s.st.command, s.st.database, s.st.to = mysql.ComQuery, d, to
		s.st.judgement = s.judge([]byte(text), true)
		if s.noteWrite(false); (s.writes != nil) != want {
			t.Errorf("%s, %s: a write is noted: %v", text, to, !want)
		}
	}
	f("SELECT 1", byDefault, false)
	f("SELECT 1; SELECT 2", byDefault, false)
	d.keeper.veiled.Store(true)
	f("SELECT 1", byDefault, true)
	f("SELECT 1; SELECT 2", byDefault, true)
	f("SELECT 1", replica, false)
	f("SELECT 1; SELECT 2", replica, false)
}
