package sqldoor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

func TestInstanceDown(t *testing.T) {
	g := open(t, shop(testenv.FreeAddress(t)))
	begun := time.Now()
	wantCode(t, g.one("app:apple", "shop").Ping(), 2003, "Can't connect to MySQL server on 'shop' (") // refused, or out of rotation by the first check
	if d := time.Since(begun); d > 3*time.Second {
		t.Errorf("it took %s", d)
	}
	_, err := g.one("app:apple", "").Exec("SELECT 1")
	wantCode(t, err, 2003, "Can't connect to MySQL server")
	g.logged(`"sql_code":2003,"sql_state":"HY000","fault":"connect_failed"`)
}

func TestInstanceDoesNotAnswer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	g := open(t, strings.ReplaceAll(shop(ln.Addr().String()), "login:", "timeouts: {connect: 300ms}\n    login:"))
	begun := time.Now()
	wantCode(t, g.one("app:apple", "shop").Ping(), 2003, "Can't connect to MySQL server on 'shop' (")
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("it took %s", d)
	}
}

// Who waits for an instance that takes connections and says nothing waits no longer than its client does, or than the door lives.
func TestAttemptToConnectEndsWithItsSession(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes the connections
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	g := open(t, strings.ReplaceAll(shop(ln.Addr().String()), "login:", "timeouts: {connect: 1h}\n    check_interval: 1h\n    login:"))
	opening := func(database string) (leave func()) {
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() {
			defer close(over)
			_, _ = g.one("app:apple", database).ExecContext(ctx, "SELECT 1")
		}()
		testenv.Eventually(t, 10*time.Second, func() error {
			if n := g.stats(); n.Open != 1 {
				return fmt.Errorf("%+v", n)
			}
			return nil
		})
		return func() { cancel(); <-over }
	}
	ended := func() {
		t.Helper()
		testenv.Eventually(t, 20*time.Second, func() error {
			if n := g.stats(); n.Open+g.Sessions() > 0 {
				return fmt.Errorf("%+v, %d sessions", n, g.Sessions())
			}
			return nil
		})
	}
	opening("")()
	ended()
	opening("shop")() // in its sign-in
	ended()
	g.logged(`"fault":"client_gone"`)

	leave := opening("shop")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	go g.Drain(ctx, "sql")
	ended()
	leave()
}

func TestInstanceDies(t *testing.T) {
	db := mariadb(t)
	g := open(t, shop(db.Addr))

	running := g.one("app:apple", "shop")
	clean := g.one("app:apple", "shop")
	stateful := g.one("app:apple", "shop")
	settings := g.one("app:apple", "shop")
	idle := dial(t, g)
	for _, p := range []interface{ Ping() error }{running, clean, stateful, settings} {
		if err := p.Ping(); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, stateful, "SET @x = 1")
	exec(t, settings, "SET SESSION group_concat_max_len = 4321, time_zone = 'SYSTEM'")
	exec(t, settings, "SET NAMES latin1")
	tx, err := g.one("app:apple", "shop").Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT INTO users (id, name) VALUES (500, 'lost')"); err != nil {
		t.Fatal(err)
	}
	broken := make(chan error, 1)
	go func() {
		_, err := running.Exec("SELECT SLEEP(60)")
		broken <- err
	}()
	awaitRunning(t, db, "SELECT SLEEP%")

	_ = db.Signal(syscall.SIGKILL)
	<-db.Done()
	wantCode(t, <-broken, 2013, "Lost connection to MySQL server during query")
	if _, err := tx.Exec("SELECT 1"); code(err) != 2013 && code(err) != 2006 {
		t.Errorf("in a transaction: %v", err)
	}
	_ = tx.Rollback()
	_, err = clean.Exec("SELECT 1")
	if code(err) != 2013 && code(err) != 2003 {
		t.Errorf("after the death of the instance: %v", err)
	}
	_, err = clean.Exec("SELECT 1")
	wantCode(t, err, 2003, "Can't connect to MySQL server on 'shop'")

	db.Restart(t)
	var n int
	testenv.Eventually(t, 15*time.Second, func() error { return clean.QueryRow("SELECT 1").Scan(&n) })
	// Sessions that can be continued are; the others end, and the pool opens new ones.
	if _, err := idle.Write(mysql.AppendCommand(nil, mysql.ComPing, "")); err != nil {
		t.Fatal(err)
	}
	if answer := readMessage(t, idle); !mysql.IsOK(answer) {
		t.Errorf("ping of an idle session: %q", answer)
	}
	if v := value[int](t, settings, "SELECT @@group_concat_max_len"); v != 4321 {
		t.Errorf("group_concat_max_len is %d", v)
	}
	if v := value[string](t, settings, "SELECT @@character_set_client"); v != "latin1" {
		t.Errorf("character_set_client is %s", v)
	}
	_, err = stateful.Exec("SELECT @x")
	wantCode(t, err, 2006, "MySQL server has gone away")
	if v := value[int](t, g.one("app:apple", "shop"), "SELECT COUNT(*) FROM users WHERE id = 500"); v != 0 {
		t.Error("a row of the lost transaction is there")
	}
}

func TestReload(t *testing.T) {
	first, second := mariadb(t), mariadb(t)
	second.Exec(t, "UPDATE shop.users SET name = 'second'")
	g := open(t, shop(first.Addr))
	name := "SELECT name FROM users WHERE id = 1"

	same := g.one("app:apple", "shop")
	exec(t, same, "SET @x = 5")
	for range 50 {
		g.reload(shop(first.Addr))
		if v := value[int](t, same, "SELECT @x"); v != 5 {
			t.Fatalf("@x is %d after a reload that does not concern the session", v)
		}
	}

	asks := g.one("app:apple", "shop")
	exec(t, asks, "INSERT INTO users (id, name) VALUES (950, 'asks')")
	clean, stateful, busy := g.one("app:apple", "shop"), g.one("app:apple", "shop"), g.one("app:apple", "shop")
	value[string](t, clean, name)
	exec(t, stateful, "SET @x = 5")
	tx, err := busy.Begin()
	if err != nil {
		t.Fatal(err)
	}
	exec(t, tx, "INSERT INTO users (id, name) VALUES (900, 'tx')")

	g.reload(shop(second.Addr))
	if v := value[string](t, clean, name); v != "second" {
		t.Errorf("a clean session reads %q", v)
	}
	_, err = asks.Exec("SELECT ROW_COUNT()") // the new connection would answer, and be wrong
	wantCode(t, err, 2006, "gone away")
	_, err = stateful.Exec(name)
	wantCode(t, err, 1053, "connect again")
	testenv.Eventually(t, 5*time.Second, func() error { // the pool finds out that its connection has ended
		var v string
		if err := stateful.QueryRow(name).Scan(&v); err != nil || v != "second" {
			return fmt.Errorf("a new session reads %q, %w", v, err)
		}
		return nil
	})
	if v := value[string](t, tx, name); v != "ada" {
		t.Errorf("the transaction reads %q", v)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	if v := value[string](t, busy, name); v != "second" {
		t.Errorf("after its transaction the session reads %q", v)
	}
	var n int
	if err := first.Open(t, "root", "shop").QueryRow("SELECT COUNT(*) FROM users WHERE id = 900").Scan(&n); err != nil || n != 1 {
		t.Errorf("the transaction's row: %d, %v", n, err)
	}

	// The database leaves the configuration, and so does the consumer's password.
	g.reload(strings.ReplaceAll(strings.ReplaceAll(shop(second.Addr), "  shop:", "  mall:"), "apple", "pear"))
	_, err = clean.Exec("SELECT 1")
	wantCode(t, err, 1049, "Unknown database 'shop'")
	wantCode(t, g.one("app:apple", "mall").Ping(), 1045, "")
}

func TestDatabasesOnTwoInstances(t *testing.T) {
	one, two := mariadb(t), mariadb(t)
	two.Exec(t, "UPDATE stock_0.items SET id = 8")
	g := open(t, strings.Replace(shop(one.Addr), fmt.Sprintf("primary: %q, schema", one.Addr), fmt.Sprintf("primary: %q, schema", two.Addr), 1))
	db := g.one("app:apple", "shop")
	exec(t, db, "SET NAMES utf8mb4")
	exec(t, db, "SET SESSION group_concat_max_len = 777")
	exec(t, db, "USE stock")
	if v := value[int](t, db, "SELECT id FROM items"); v != 8 {
		t.Errorf("id is %d", v)
	}
	if v := value[int](t, db, "SELECT @@group_concat_max_len"); v != 777 {
		t.Errorf("the setting did not follow: %d", v)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	_, err = tx.Exec("USE shop")
	wantCode(t, err, 1179, "transaction")
	_ = tx.Rollback()
	exec(t, db, "SET @x = 1")
	_, err = db.Exec("USE shop")
	wantCode(t, err, 1105, "user variable")
	if _, err := db.Exec("USE stock"); err != nil {
		t.Errorf("the same database: %v", err)
	}
}

// awaitRunning waits until the instance runs a statement like that.
func awaitRunning(t testing.TB, db *testenv.DB, like string) {
	t.Helper()
	root := db.Open(t, "root", "")
	defer root.Close()
	testenv.Eventually(t, 10*time.Second, func() error {
		var n int
		if err := root.QueryRow("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE ?", like).Scan(&n); err != nil || n == 0 {
			return fmt.Errorf("not running yet: %v", err)
		}
		return nil
	})
}

func TestDrain(t *testing.T) {
	db := mariadb(t)
	g := open(t, shop(db.Addr))
	idle := dial(t, g)
	busy := g.one("app:apple", "shop")
	inTransaction := g.one("app:apple", "shop")
	tx, err := inTransaction.Begin()
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	if err := busy.Ping(); err != nil {
		t.Fatal(err)
	}
	go func() {
		var n int
		answered <- busy.QueryRow("SELECT SLEEP(2)").Scan(&n)
	}()
	awaitRunning(t, db, "SELECT SLEEP%")
	_ = g.ln.Close()
	drained := make(chan error, 1)
	go func() { drained <- g.Drain(t.Context(), "sql") }()

	var e mysql.Error
	if err := e.Decode(readMessage(t, idle)); err != nil || e.Code != 1053 {
		t.Errorf("an idle session is told %v, %v", &e, err)
	}
	expectEnd(t, idle)
	if err := <-answered; err != nil {
		t.Errorf("a running statement: %v", err)
	}
	exec(t, tx, "INSERT INTO users (id, name) VALUES (700, 'late')")
	select {
	case err := <-drained:
		t.Errorf("drained (%v) under an open transaction", err)
	default:
	}
	if err := tx.Commit(); err != nil {
		t.Errorf("commit: %v", err)
	}
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
	if n := g.Sessions(); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

func TestDrainEndsWhenItsTimeIsOver(t *testing.T) {
	db := mariadb(t)
	g := open(t, shop(db.Addr))
	busy := g.one("app:apple", "shop")
	if err := busy.Ping(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := busy.Exec("SELECT SLEEP(60)")
		answered <- err
	}()
	awaitRunning(t, db, "SELECT SLEEP%")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := g.Drain(ctx, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain: %v", err)
	}
	if err := <-answered; err == nil {
		t.Error("the statement succeeded")
	}
}

// A session that Retire takes for idle at the last moment, when the statement has come already that begins a transaction, may end that.
func TestDrainLeavesTransactionThatHasJustBegun(t *testing.T) {
	db := mariadb(t)
	config, certificate := serverTLS(t)
	g := open(t, shop(db.Addr), func(d *Door) { d.o.TLS = func(string) *tls.Config { return config } })
	secure := &tls.Config{RootCAs: certificate.Pool, ServerName: "localhost"}
	for i, r := range []*raw{connect(t, g, 0, "shop"), compressed(t, g, mysql.Zlib, nil, 0), compressed(t, g, mysql.Uncompressed, secure, 0)} {
		r.ask(mysql.ComQuery, "BEGIN")
		for _, s := range g.sessionsOf("") {
			if s.id == r.ThreadID {
				s.client.Interrupt()
			}
		}
		id := 800 + i
		if a, _ := r.ask(mysql.ComQuery, fmt.Sprintf("INSERT INTO users (id, name) VALUES (%d, 'begun')", id)); a.Code != 0 {
			t.Errorf("in the transaction: error %d", a.Code)
		}
		if a, _ := r.ask(mysql.ComQuery, "COMMIT"); a.Code != 0 {
			t.Errorf("its end: error %d", a.Code)
		}
		if n := value[int](t, db.Open(t, "root", "shop"), "SELECT COUNT(*) FROM users WHERE id = ?", id); n != 1 {
			t.Errorf("client %d: %d rows", i, n)
		}
	}
}
