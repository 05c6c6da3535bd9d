package sqldoor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/sqldoor/group"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

func TestKillByNumber(t *testing.T) {
	db := mariadb(t)
	g := open(t, pooled(db.Addr, "max_connections: 5"))
	killer, victim := g.session(t), g.session(t)
	id := strings.Trim(ask(victim, "SELECT CONNECTION_ID()"), "|\n")
	wantAnswer(t, victim, "SELECT CONNECTION_ID() = ?", "1|\n", id)
	wantAnswer(t, victim, "SELECT 0 + CONNECTION_ID()", id+"|\n")
	run := func(sleep string) chan string {
		answer := make(chan string, 1)
		go func() { answer <- ask(victim, "SELECT "+sleep) }()
		awaitRunning(t, db, "SELECT "+sleep)
		return answer
	}

	answer := run("SLEEP(101)")
	if got := ask(killer, "SHOW PROCESSLIST"); !strings.Contains(got, id+"|app|127.0.0.1|shop|query|") {
		t.Errorf("processes: %q", got)
	}
	rows, err := killer.QueryContext(t.Context(), "SHOW PROCESSLIST")
	if err != nil {
		t.Fatal(err)
	}
	if types, err := rows.ColumnTypes(); err != nil || types[0].DatabaseTypeName() != "BIGINT" || types[1].DatabaseTypeName() != "VARCHAR" || types[5].DatabaseTypeName() != "BIGINT" {
		t.Errorf("types of the list of processes: %v, %v", types, err) // clients make numbers of numbers
	}
	_ = rows.Close()
	if got := ask(killer, "SHOW MENSHEN SESSIONS"); !strings.Contains(got, "|CONNECTION_ID|") {
		t.Errorf("sessions: %q", got)
	}
	wantAnswer(t, killer, "KILL QUERY "+id, "")
	if got := <-answer; got != "1|\n" && got != "error 1317" { // SLEEP says that it was interrupted
		t.Errorf("the killed statement: %q", got)
	}
	wantAnswer(t, victim, "SELECT 5", "5|\n")
	wantAnswer(t, killer, "KILL QUERY "+id, "") // an idle one: nothing happens to it
	for range 20 {
		wantAnswer(t, victim, "SELECT 6", "6|\n")
		wantAnswer(t, killer, "SELECT 7", "7|\n")
	}

	stranger, err := g.pool("other:orange", "shop").Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	wantAnswer(t, stranger, "KILL "+id, "error 1094")
	if got := ask(stranger, "SHOW MENSHEN SESSIONS"); strings.Contains(got, "|app|") {
		t.Errorf("another consumer sees %q", got)
	}

	answer = run("SLEEP(102)")
	wantAnswer(t, killer, "KILL "+id, "")
	if got := <-answer; !strings.HasPrefix(got, "error") {
		t.Errorf("a killed session's statement: %q", got)
	}
	root := db.Open(t, "root", "")
	testenv.Eventually(t, 10*time.Second, func() error {
		var n int
		if err := root.QueryRow("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'").Scan(&n); err != nil || n > 0 {
			return fmt.Errorf("%d statements go on, %v", n, err)
		}
		return nil
	})
	wantAnswer(t, killer, "KILL "+id, "error 1094")
	wantAnswer(t, killer, "KILL QUERY 1 + 1", "error 1235")
	for _, topic := range []string{"POOLS", "INSTANCES", "STATUS"} {
		if got := ask(killer, "SHOW MENSHEN "+topic); strings.HasPrefix(got, "error") || got == "" {
			t.Errorf("%s: %q", topic, got)
		}
	}
	if got := ask(killer, "SHOW MENSHEN INSTANCES"); !strings.HasPrefix(got, "shop|10.") {
		t.Errorf("the version is not what the server calls itself: %q", got)
	}
	wantAnswer(t, killer, "SHOW MENSHEN WEATHER", "error 1235")
	own := strings.Trim(ask(killer, "SELECT CONNECTION_ID()"), "|\n")
	wantAnswer(t, killer, "KILL QUERY "+own, "error 1317")
	wantAnswer(t, killer, "SELECT 1", "1|\n")
}

// Sessions that are killed while statements of others run on the connections they gave back: nobody else is hit.
func TestKillHitsNobodyElse(t *testing.T) {
	g := open(t, pooled(mariadb(t).Addr, "max_connections: 3, queue_timeout: 60s"))
	killer := g.session(t)
	var wg sync.WaitGroup
	var ids [6]string
	var sessions [6]*sql.Conn
	for i := range sessions {
		sessions[i] = g.session(t)
		ids[i] = strings.Trim(ask(sessions[i], "SELECT CONNECTION_ID()"), "|\n")
	}
	stop := make(chan struct{})
	for i, c := range sessions {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				token := fmt.Sprintf("%d-%d", i, n)
				got := ask(c, "SELECT '"+token+"', SLEEP(0.0005)")
				if killed := got == token+"|1|\n" || got == "error 1317"; got != token+"|0|\n" && !(killed && i == 0) {
					t.Errorf("session %d: %q", i, got)
				}
			}
		})
	}
	for range 100 {
		wantAnswer(t, killer, "KILL QUERY "+ids[0], "")
	}
	close(stop)
	wg.Wait()
}

// A KILL QUERY that is on its way when its statement ends hits no later one of a session that keeps its connection: that one waits.
func TestKillHitsNoLaterStatement(t *testing.T) {
	g := open(t, pooled(mariadb(t).Addr, ""))
	c := g.session(t)
	id := number(c)
	wantAnswer(t, c, "SET @x = 1", "")
	s := g.numbered(id)
	s.using.Lock() // as interrupt does it
	s.halt()
	answer := make(chan string, 1)
	go func() { answer <- ask(c, "SELECT @x") }()
	select {
	case got := <-answer:
		t.Errorf("%q before the killer was done", got)
		answer <- got
	case <-time.After(50 * time.Millisecond):
	}
	s.using.Unlock()
	if got := <-answer; got != "1|\n" {
		t.Error(got)
	}
}

// number is what the session is killed by.
func number(c *sql.Conn) string { return strings.Trim(ask(c, "SELECT CONNECTION_ID()"), "|\n") }

// numbered gives the gate's side of a session.
func (g *gate) numbered(id string) *session {
	for s := range g.All() {
		if fmt.Sprint(s.id) == id {
			return s
		}
	}
	g.t.Fatalf("no session %s", id)
	return nil
}

// A statement that waits for a connection is not sent once it is killed, and its session goes on.
func TestKillInQueue(t *testing.T) {
	db := mariadb(t)
	db.Exec(t, "CREATE TABLE shop.killed (n INT)")
	g := open(t, pooled(db.Addr, "max_connections: 1, queue_timeout: 60s"))
	holder, victim, killer := g.session(t), g.session(t), g.session(t)
	id := number(victim)
	statement, err := victim.PrepareContext(t.Context(), "INSERT INTO killed VALUES (?)")
	if err != nil {
		t.Fatal(err)
	}
	defer statement.Close()
	wantAnswer(t, holder, "BEGIN", "")
	for what, run := range map[string]func() string{
		"text":     func() string { return ask(victim, "INSERT INTO killed VALUES (1)") },
		"prepared": func() string { return answerOf(statement.Query(2)) },
		"prepare": func() string {
			s, err := victim.PrepareContext(context.Background(), "INSERT INTO killed VALUES (3 + ?)")
			if err == nil {
				_ = s.Close()
			}
			return answerOf(nil, err)
		},
		"a change of database": func() string { return ask(victim, "USE shop") },
	} {
		answer := make(chan string, 1)
		go func() { answer <- run() }()
		testenv.Eventually(t, 10*time.Second, func() error {
			if n := g.stats().Waiting; n != 1 {
				return fmt.Errorf("%d wait", n)
			}
			return nil
		})
		for _, show := range []string{"SHOW PROCESSLIST", "SHOW MENSHEN SESSIONS"} {
			if got := ask(killer, show); strings.Count(got, "|waiting for a connection|") != 1 {
				t.Errorf("%s: %s: %q", what, show, got)
			}
		}
		wantAnswer(t, killer, "KILL QUERY "+id, "")
		if got := <-answer; got != "error 1317" {
			t.Errorf("%s: %q", what, got)
		}
		if n := g.stats().Waiting; n != 0 {
			t.Errorf("%s: %d wait", what, n)
		}
	}
	wantAnswer(t, holder, "COMMIT", "")
	wantAnswer(t, victim, "SELECT COUNT(*) FROM killed", "0|\n")
	if got := answerOf(statement.Query(4)); got != "" {
		t.Error(got)
	}
	wantAnswer(t, victim, "SELECT * FROM killed", "4|\n")
	if n := g.rested(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// One that waits for a primary, or that the old one has refused, is not sent to the new one.
func TestKillWithoutPrimary(t *testing.T) {
	t.Parallel()
	f, _ := fleetOf(t, "    failover_wait: 60s", false)
	killer, victim := f.session(t), f.session(t)
	id := number(victim)
	killed := func(answer chan string) {
		t.Helper()
		f.sees(t, group.Headless, 0)
		testenv.Eventually(t, 10*time.Second, func() error {
			if n := f.database().keeper.waiting.Load(); n != 1 {
				return fmt.Errorf("%d wait", n)
			}
			return nil
		})
		for _, show := range []string{"SHOW PROCESSLIST", "SHOW MENSHEN SESSIONS"} {
			if got := ask(killer, show); strings.Count(got, "|waiting for a primary|") != 1 {
				t.Errorf("%s: %q", show, got)
			}
		}
		wantAnswer(t, killer, "KILL QUERY "+id, "")
		if got := <-answer; got != "error 1317" {
			t.Error(got)
		}
		if n := f.database().keeper.waiting.Load(); n != 0 {
			t.Errorf("%d wait", n)
		}
		wantAnswer(t, victim, "SELECT COUNT(*) FROM t", "0|\n") // from a replica, meanwhile
	}
	answer := make(chan string, 1)
	f.readOnlyUnder(t, 1, func() { go func() { answer <- ask(victim, "INSERT INTO t (name) VALUES ('refused')") }() })
	killed(answer)
	go func() { answer <- ask(victim, "INSERT INTO t (name) VALUES ('waits')") }()
	killed(answer)
	f.DBs[0].Exec(t, "SET GLOBAL read_only = 0")
	f.sees(t, group.Ready, 0)
	wantAnswer(t, victim, "INSERT INTO t (name) VALUES ('later')", "")
	wantAnswer(t, victim, "SELECT name FROM t", "later|\n")
}

// One whose instance takes connections and says nothing; meanwhile the gateway answers what it knows itself, to everybody.
func TestKillWhileConnecting(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes the connections
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	g := open(t, strings.ReplaceAll(shop(ln.Addr().String()), "login:", "timeouts: {connect: 1h}\n    check_interval: 1h\n    login:"))
	open := func() *sql.Conn {
		c, err := g.one("app:apple", "").Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	killer, victim := open(), open()
	answer := make(chan string, 1)
	for _, statement := range []string{"SELECT 1", "USE shop"} {
		go func() { answer <- ask(victim, statement) }()
		testenv.Eventually(t, 10*time.Second, func() error {
			if n := g.stats(); n.Open != 1 {
				return fmt.Errorf("%+v", n)
			}
			return nil
		})
		id := ""
		for s := range g.All() {
			if s.waiting.Load() != 0 {
				id = fmt.Sprint(s.id)
			}
		}
		if got := ask(killer, "SHOW MENSHEN SESSIONS"); !strings.Contains(got, id+"|app|") {
			t.Errorf("sessions: %q", got)
		}
		wantAnswer(t, killer, "KILL QUERY "+id, "")
		if got := <-answer; got != "error 1317" {
			t.Errorf("%s: %q", statement, got)
		}
		testenv.Eventually(t, 10*time.Second, func() error {
			if n := g.stats(); n.Open != 0 {
				return fmt.Errorf("%+v", n)
			}
			return nil
		})
	}
}

// Whatever a statement is doing when it is killed, it does not go on: it waits for a connection, gets one, has it set and is prepared there, is on its way, or runs.
func TestKillAtAnyMoment(t *testing.T) {
	db := mariadb(t)
	g := open(t, pooled(db.Addr, "max_connections: 2, queue_timeout: 60s"))
	var wg sync.WaitGroup
	for i := range 6 {
		c, killer := g.session(t), g.session(t)
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			s := g.numbered(number(c))
			wantAnswer(t, c, fmt.Sprintf("SET time_zone = '+0%d:00'", i), "")
			prepared, err := c.PrepareContext(t.Context(), fmt.Sprintf("SELECT SLEEP(? + %d)", i))
			if err != nil {
				t.Error(err)
				return
			}
			defer prepared.Close()
			for n := range 40 {
				testenv.Eventually(t, 10*time.Second, func() error {
					if s.waiting.Load() != 0 {
						return errors.New("the statement before is not over")
					}
					return nil
				})
				answer := make(chan string, 1)
				go func() {
					if n%2 == 0 {
						answer <- ask(c, fmt.Sprintf("SELECT SLEEP(10%d)", i))
					} else {
						answer <- answerOf(prepared.Query(100))
					}
				}()
				for s.waiting.Load() == 0 {
					runtime.Gosched()
				}
				moment := time.Duration(random.ExpFloat64() * float64(300*time.Microsecond))
				for begun := time.Now(); time.Since(begun) < moment; {
					runtime.Gosched()
				}
				wantAnswer(t, killer, fmt.Sprintf("KILL QUERY %d", s.id), "")
				select {
				case got := <-answer:
					if got != "1|\n" && got != "error 1317" { // SLEEP says that it was interrupted
						t.Errorf("the killed statement: %q", got)
					}
				case <-time.After(30 * time.Second):
					t.Errorf("killed %s after its begin, a statement goes on: %+v", moment, s.view())
					return
				}
			}
			wantAnswer(t, c, "SELECT @@time_zone", fmt.Sprintf("+0%d:00|\n", i))
		})
	}
	wg.Wait()
	g.rested()
}

// A session whose statement was killed keeps what its connection knew, and its own settings can be read after the kill.
func TestKillKeepsLastInsertID(t *testing.T) {
	db := mariadb(t)
	g := open(t, pooled(db.Addr, "max_connections: 2"))
	killer, victim := g.session(t), g.session(t)
	id := number(victim)
	for range 3 {
		wantAnswer(t, victim, "INSERT INTO users (name) VALUES ('x')", "")
		last := ask(victim, "SELECT MAX(id) FROM users")
		answer := make(chan string, 1)
		go func() { answer <- ask(victim, "SELECT SLEEP(103)") }()
		awaitRunning(t, db, "SELECT SLEEP(103)")
		wantAnswer(t, killer, "KILL QUERY "+id, "")
		if got := <-answer; got != "1|\n" && got != "error 1317" {
			t.Errorf("the killed statement: %q", got)
		}
		wantAnswer(t, victim, "SELECT LAST_INSERT_ID()", last)
	}
	if n := g.rested(); n > 2 {
		t.Errorf("%d connections", n)
	}
}
