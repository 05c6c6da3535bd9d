package sqldoor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// slow gives a door a slow log, and waits for the lines of a statement in it, in the order of their time: those of two shards may be written in any.
func slow(t testing.TB) (option func(*Door), lines func(statement string, count int) []map[string]any) {
	into := new(lockedBuffer)
	l := observe.NewSlowLog(into)
	t.Cleanup(func() { _ = l.Close() })
	return func(d *Door) { d.o.Slow = l }, func(statement string, count int) (found []map[string]any) {
		testenv.Eventually(t, 5*time.Second, func() error {
			found = nil
			for line := range strings.Lines(into.String()) {
				var v map[string]any
				if err := json.Unmarshal([]byte(line), &v); err != nil {
					t.Fatalf("%v: %s", err, line)
				}
				if v["statement"] == statement {
					found = append(found, v)
				}
			}
			if len(found) < count {
				return fmt.Errorf("%q is %d times in the slow log:\n%s", statement, len(found), into.String())
			}
			return nil
		})
		slices.SortFunc(found, func(a, b map[string]any) int { return strings.Compare(a["time"].(string), b["time"].(string)) })
		return found
	}
}

func TestSlowLog(t *testing.T) {
	db := mariadb(t)
	option, lines := slow(t)
	g := open(t, pooled(db.Addr, "max_connections: 1")+"slow_log: 300ms\n", option)
	c := g.session(t)
	ask(c, "SELECT 'secret', name FROM users")
	ask(c, "SELECT 'secret', SLEEP(0.4), name FROM users WHERE id = 1")
	v := lines("select ?, SLEEP(?), name from users where id = ?", 1)[0]
	if v["consumer"] != "app" || v["database"] != "shop" || v["endpoint"] != db.Addr || v["command"] != "query" || v["kind"] != "select" || v["rows"] != 1.0 || v["sql_code"] != 0.0 || v["pins"] != nil ||
		v["upstream_ms"].(float64) <= 0 || v["duration_ms"].(float64) < max(400, v["upstream_ms"].(float64)) || v["queue_ms"] != 0.0 || len(v["digest"].(string)) != 16 || v["literals"] != nil {
		t.Errorf("%v", v)
	}

	// One that waits for the connection of another, and finds other settings on it.
	other := g.session(t)
	ask(other, "SET time_zone = '+05:00'")
	ask(c, "BEGIN")
	ask(c, "SELECT name FROM users FOR UPDATE")
	done := make(chan string)
	go func() { done <- ask(other, "SELECT @@time_zone, 7") }()
	testenv.Eventually(t, 5*time.Second, func() error {
		if n := g.stats(); n.Waiting != 1 {
			return fmt.Errorf("%+v", n)
		}
		return nil
	})
	ask(c, "SELECT SLEEP(0.4)")
	ask(c, "COMMIT")
	if got := <-done; got != "+05:00|7|\n" {
		t.Error(got)
	}
	if v = lines("select SLEEP(?)", 1)[0]; fmt.Sprint(v["pins"]) != "[transaction]" {
		t.Errorf("%v", v)
	}
	if v = lines("select @@time_zone, ?", 1)[0]; v["queue_ms"].(float64) < 300 || v["settings_ms"].(float64) <= 0 || v["upstream_ms"].(float64) >= v["duration_ms"].(float64)-300 {
		t.Errorf("%v", v)
	}

	// Prepared, with an error, and with the values when that is asked for.
	g.reload(pooled(db.Addr, "max_connections: 1") + "slow_log: {threshold: 0, literals: true}\n")
	ask(c, "SELECT name, ? FROM users WHERE id = 2", "hidden")
	if all := lines("select name, ? from users where id = ?", 2); len(all) != 2 || all[1]["command"] != "stmt_execute" || all[1]["rows"] != 1.0 || all[1]["literals"] != nil ||
		all[0]["command"] != "stmt_prepare" || all[0]["literals"] != "SELECT name, ? FROM users WHERE id = 2" {
		t.Errorf("%v", all)
	}
	ask(c, "SELECT 'x' FROM nothing")
	if v = lines("select ? from nothing", 1)[0]; v["sql_code"] != 1146.0 || v["sql_state"] != "42S02" || v["literals"] != "SELECT 'x' FROM nothing" || v["rows"] != 0.0 {
		t.Errorf("%v", v)
	}
	ask(c, "SELECT '"+strings.Repeat("x", 3*literalsMax)+"' AS long_one")
	if v = lines("select ? as long_one", 1)[0]; len(v["literals"].(string)) > literalsMax+10 {
		t.Errorf("%d bytes of literals", len(v["literals"].(string)))
	}
}

// After a statement that the gateway answered itself, ROW_COUNT() is what a server says after such a one.
func TestRowCountAfterOwnAnswers(t *testing.T) {
	db := mariadb(t)
	g := open(t, shop(db.Addr))
	c := g.session(t)
	f := func(statement, want string) {
		t.Helper()
		ask(c, "UPDATE users SET name = CONCAT(name, 'x')")
		ask(c, statement)
		wantAnswer(t, c, "SELECT ROW_COUNT()", want+"|\n")
		wantAnswer(t, c, "select row_count();", "-1|\n") // a SELECT was the last statement
	}
	f("SELECT @@last_gtid", "-1") // refused
	f("USE nothing", "-1")
	f("KILL 'x'", "-1")
	f("SHOW MENSHEN STATUS", "-1")
	f("SELECT CONNECTION_ID()", "-1")
	f("FLUSH MENSHEN DIGESTS", "0")
	f("SELECT nonsense", "-1") // by the instance
	f("DO 1", "0")
	// An error in the middle of several results leaves nothing behind for which the client would wait.
	several := g.session(t, "multiStatements=true")
	for _, own := range []string{"SELECT ROW_COUNT()", "SHOW MENSHEN STATUS", "FLUSH MENSHEN DIGESTS", "USE shop"} {
		wantAnswer(t, several, "BEGIN; SELECT 1; SELECT bad", "error 1054")
		ask(several, own)
	}
	wantAnswer(t, several, "SELECT 7", "7|\n")
	// A text whose statements ask of each other needs no connection that knows of earlier ones. Frameworks insert so.
	again := g.session(t, "multiStatements=true")
	ask(again, "SHOW MENSHEN STATUS")
	wantAnswer(t, again, "INSERT INTO users (name) VALUES ('z'); SELECT name FROM users WHERE ROW_COUNT() = 1 AND id = LAST_INSERT_ID()", "z|\n")
	wantAnswer(t, again, "DELETE FROM users WHERE id > 3; SHOW WARNINGS; SELECT 1 FROM users; SELECT FOUND_ROWS()", "1|\n1|\n1|\n3|\n")
	wantAnswer(t, c, "UPDATE users SET name = 'y'", "")
	wantAnswer(t, c, "SELECT ROW_COUNT()", "3|\n")
	if got := ask(c, "SELECT ROW_COUNT(), 1"); got != "-1|1|\n" {
		t.Error(got)
	}
}

func TestShowConfig(t *testing.T) {
	db := mariadb(t)
	g := open(t, shop(db.Addr))
	c := g.session(t)
	all := ask(c, "SHOW MENSHEN CONFIG")
	for _, line := range []string{"listeners.sql.protocol|mysql|", "databases.shop.login.user|gate|", `databases.shop.login.password|"***"|`, `consumers.app.mysql.password|"***"|`, "databases.shop.pool.max_connections|50|",
		"digests.max|10000|", "databases.stock.shards.s0.schema|stock_0|"} {
		if !strings.Contains("\n"+all, "\n"+line+"\n") {
			t.Errorf("no line %s in\n%s", line, all)
		}
	}
	for _, secret := range []string{"secret", "apple", "orange"} {
		if strings.Contains(all, secret) {
			t.Errorf("%s is shown", secret)
		}
	}
	wantAnswer(t, c, "SHOW MENSHEN CONFIG LIKE '%.login.user'", "databases.shop.login.user|gate|\ndatabases.stock.login.user|gate|\n")
	if got := ask(c, "SHOW MENSHEN STATUS LIKE 'uptime%'"); !strings.HasPrefix(got, "Uptime_seconds|") {
		t.Error(got)
	}
	if got := ask(c, "SHOW MENSHEN POOLS LIKE 'stock'"); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "stock|") || !strings.Contains(got, db.Addr) {
		t.Error(got)
	}
}

// What runs is shown, without its literals, to those whose session it is.
func TestRunningStatementIsShown(t *testing.T) {
	db := mariadb(t)
	g := open(t, shop(db.Addr))
	c, watcher := g.session(t), g.session(t)
	done := make(chan string)
	ask(c, "BEGIN")
	go func() { done <- ask(c, "SELECT 'secret', SLEEP(20)") }()
	testenv.Eventually(t, 5*time.Second, func() error {
		if got := ask(watcher, "SHOW FULL PROCESSLIST"); !strings.Contains(got, "|executing|select ?, SLEEP(?)|") {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	awaitRunning(t, db, "SELECT 'secret', SLEEP%") // at the instance too: a KILL QUERY that comes before the statement ends nothing
	got := ask(watcher, "SHOW MENSHEN SESSIONS LIKE 'shop'")
	if !strings.Contains(got, db.Addr+"|select ?, SLEEP(?)|") || !strings.Contains(got, "|1|transaction|") || strings.Contains(got, "secret") {
		t.Error(got)
	}
	id := strings.SplitN(ask(watcher, "SELECT CONNECTION_ID()"), "|", 2)[0]
	for _, s := range strings.Split(strings.TrimSpace(got), "\n") {
		if victim := strings.SplitN(s, "|", 2)[0]; victim != id {
			wantAnswer(t, watcher, "KILL QUERY "+victim, "")
		}
	}
	if got := <-done; got != "secret|1|\n" && got != "error 1317" { // how MariaDB ends a SLEEP
		t.Error(got)
	}
	wantAnswer(t, c, "ROLLBACK", "")
	other := g.pool("other:orange", "shop")
	rows, err := other.Query("SHOW MENSHEN SESSIONS")
	if got := answerOf(rows, err); strings.Count(got, "\n") != 1 || strings.Contains(got, "|app|") {
		t.Errorf("%s", got)
	}
}

func TestConsumerBounds(t *testing.T) {
	db := mariadb(t)
	yaml := func(bounds string) string {
		return strings.Replace(pooled(db.Addr, "max_connections: 4, queue_timeout: 200ms"), "{password: apple}", "{password: apple, "+bounds+"}", 1)
	}
	g := open(t, yaml("max_sessions: 2, max_connections: 1"))
	first := g.pool("app:apple", "shop")
	a, err := first.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := g.session(t)
	_, err = g.pool("app:apple", "shop").Conn(t.Context())
	wantCode(t, err, 1226, "User 'app' has exceeded the 'max_user_connections' resource (current value: 2)")
	g.logged(`"sql_code":1226,"sql_state":"42000","fault":"limited"`)
	other, err := g.pool("other:orange", "shop").Conn(t.Context()) // nobody else is meant
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()

	ask(a, "BEGIN")
	wantAnswer(t, a, "SELECT 1", "1|\n")
	wantAnswer(t, b, "SELECT 2", "error 1040") // its consumer's one connection is in use
	wantAnswer(t, other, "SELECT 3", "3|\n")
	ask(a, "COMMIT")
	wantAnswer(t, b, "SELECT 2", "2|\n")

	g.reload(yaml("max_sessions: 3, max_connections: 2"))
	c := g.session(t)
	ask(a, "BEGIN")
	wantAnswer(t, a, "SELECT 1", "1|\n")
	ask(b, "BEGIN")
	wantAnswer(t, b, "SELECT 2", "2|\n")
	wantAnswer(t, c, "SELECT 2", "error 1040")
	_ = a.Close()
	_ = first.Close()
	testenv.Eventually(t, 5*time.Second, func() error { // a session that is over counts no more
		if got := ask(c, "SELECT 4"); got != "4|\n" {
			return fmt.Errorf("%s", got)
		}
		return nil
	})

	// A change of user counts for the other one.
	r := connect(t, g, 0, "shop")
	r.changeUser("other", "orange", "shop", 0)
	d := g.session(t)
	wantAnswer(t, d, "SELECT 5", "5|\n")
	r.changeUser("app", "apple", "shop", 1226)
}

func TestMinIdle(t *testing.T) {
	db := mariadb(t)
	g := open(t, pooled(db.Addr, "max_connections: 4, min_idle: 3, idle_timeout: 100ms"))
	c := g.session(t)
	wantAnswer(t, c, "SELECT 1", "1|\n")
	want := func(idle, most int) {
		t.Helper()
		testenv.Eventually(t, 15*time.Second, func() error {
			if n := g.stats(); n.Idle < idle || n.Open > most {
				return fmt.Errorf("%+v", n)
			}
			return nil
		})
	}
	want(3, 4)
	ask(c, "BEGIN")
	ask(c, "SELECT 1")
	want(3, 4)
	g.reload(pooled(db.Addr, "max_connections: 4, idle_timeout: 100ms"))
	ask(c, "COMMIT")
	testenv.Eventually(t, 15*time.Second, func() error {
		if n := g.stats(); n.Idle > 0 {
			return fmt.Errorf("%+v", n)
		}
		return nil
	})
}

func TestRaisedPoolServesThoseWhoWait(t *testing.T) {
	db := mariadb(t)
	config := func(pool string) string { // no check comes before the test is over
		return strings.ReplaceAll(pooled(db.Addr, pool+", queue_timeout: 60s"), "    login:", "    check_interval: 1h\n    login:")
	}
	g := open(t, config("max_connections: 1"))
	a, b := g.session(t), g.session(t)
	ask(a, "BEGIN")
	wantAnswer(t, a, "SELECT 1", "1|\n")
	done := make(chan string)
	go func() { done <- ask(b, "SELECT 2") }()
	testenv.Eventually(t, 5*time.Second, func() error {
		if n := g.stats(); n.Waiting != 1 {
			return fmt.Errorf("%+v", n)
		}
		return nil
	})
	g.reload(config("max_connections: 2"))
	select {
	case got := <-done:
		if got != "2|\n" {
			t.Error(got)
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits still")
	}
}

func TestGuessersAreRefused(t *testing.T) {
	db := mariadb(t)
	g := open(t, shop(db.Addr, ", limits: {sign_in_failures: 3/1h}"))
	good := g.session(t)
	for range 3 {
		_, err := g.pool("app:wrong", "shop").Conn(t.Context())
		wantCode(t, err, 1045, "Access denied")
		_, err = g.pool("app:apple", "nothing").Conn(t.Context()) // not a guess
		if c := code(err); c != 1049 && c != 1129 {
			t.Error(err)
		}
	}
	g.logged(`"sql_code":1045,"sql_state":"28000","fault":"unauthenticated"`)
	g.logged(`"sql_code":1049,"sql_state":"42000","fault":"no_route"`)
	_, err := g.pool("app:apple", "shop").Conn(context.Background())
	if err == nil || !strings.Contains(err.Error(), "blocked because of too many refused sign-ins") {
		t.Errorf("%v", err)
	}
	wantAnswer(t, good, "SELECT 1", "1|\n") // who is in stays in
	g.reload(shop(db.Addr, ", limits: {sign_in_failures: 100/h}"))
	wantAnswer(t, g.session(t), "SELECT 2", "2|\n")

	g.reload(shop(db.Addr, ", limits: {sign_in_failures: 0}"))
	for range 210 { // more than what is the bound without a word
		_, err := g.pool("app:wrong", "shop").Conn(t.Context())
		wantCode(t, err, 1045, "Access denied")
	}
	wantAnswer(t, g.session(t), "SELECT 3", "3|\n")
}

func TestAttempts(t *testing.T) {
	t.Parallel()
	var table attempts
	bound := config.RateOrNone{Count: 2, Per: time.Minute}
	now := poll.Now()
	a, b := fromOf("sql", netip.MustParseAddr("192.0.2.1")), fromOf("sql", netip.MustParseAddr("192.0.2.2"))
	f := func(at from, after, want time.Duration) {
		t.Helper()
		if got := table.blocked(at, bound, now+poll.Instant(after)); got != want {
			t.Errorf("after %v: blocked for %v, want %v", after, got, want)
		}
	}
	f(a, 0, 0)
	table.note(a, bound, now)
	f(a, 0, 0)
	table.note(a, bound, now+poll.Instant(10*time.Second))
	f(a, 10*time.Second, 50*time.Second)
	f(b, 10*time.Second, 0)
	f(a, time.Minute, 0)
	f(a, 10*time.Second, 0) // it is forgotten
	for range 5 {
		table.note(a, config.RateOrNone{}, now)
	}
	f(a, 0, 0)

	one, two := netip.MustParseAddr("2001:db8:1:2::1%eth0"), netip.MustParseAddr("2001:db8:1:2:ffff::")
	if fromOf("sql", one) != fromOf("sql", two) || fromOf("sql", one) == fromOf("other", one) || fromOf("sql", one) == fromOf("sql", netip.MustParseAddr("2001:db8:1:3::1")) {
		t.Error("a network of 64 bits is one")
	}
	fromOf("sql", netip.Addr{}) // a Unix socket

	var last time.Duration
	for i := range 3 * fromsMax {
		last = time.Duration(i) * time.Millisecond
		ip := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		table.note(fromOf("sql", ip), bound, now+poll.Instant(last))
		if i == 0 { // from here on it is blocked, and others do not push it out
			table.note(b, config.RateOrNone{Count: 2, Per: time.Hour}, now)
			table.note(b, config.RateOrNone{Count: 2, Per: time.Hour}, now)
		}
		if len(table.froms) > fromsMax {
			t.Fatalf("%d addresses", len(table.froms))
		}
	}
	if len(table.froms) < fromsMax/2 {
		t.Errorf("%d addresses are left, though there is room", len(table.froms))
	}
	f(b, 30*time.Second, 30*time.Second)
}
