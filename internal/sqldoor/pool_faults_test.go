package sqldoor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// The connection goes in the moment after an answer, with a transaction or with what was set a moment ago: the session must not go on without.
func TestConnectionLostAfterAnswer(t *testing.T) {
	t.Parallel()
	transaction := mysql.OK{Status: mysql.Autocommit | mysql.InTransaction}
	duplicate := mysql.Error{Code: 1062, State: "23000", Message: "Duplicate entry"}
	packet := func(payload []byte) []byte {
		b, _ := mysql.AppendPacket(nil, 1, payload)
		return b
	}
	f := func(statements ...string) {
		t.Helper()
		last := statements[len(statements)-1]
		fake := newFake(t, func(f *fake) {
			f.settings, f.hangsUp, f.greeting.Capabilities = true, last, f.greeting.Capabilities&^mysql.Framing
		})
		fake.answer("BEGIN", packet(transaction.AppendTo(nil, mysql.Protocol41)))
		fake.answer("INSERT INTO t VALUES (1)", packet(duplicate.AppendTo(nil)))
		fake.answer("SET time_zone = '+01:00'", packet((&mysql.OK{Status: mysql.Autocommit}).AppendTo(nil, mysql.Protocol41)))
		r := connect(t, open(t, shop(fake.ln.Addr().String())), 0, "shop")
		for _, s := range statements {
			if a, first := r.ask(mysql.ComQuery, s); a.Code != 0 && a.Code != 1062 {
				t.Errorf("%s: %q", s, first)
			}
		}
		expectEOF(t, r)
	}
	f("BEGIN", "INSERT INTO t VALUES (1)")
	f("SET time_zone = '+01:00'")
}

// The instance is killed in the middle of everything, twice, and the configuration reloaded all the time: no row goes to the wrong session, and no place in the pool is lost.
func TestPoolThroughFaults(t *testing.T) {
	db := mariadb(t)
	db.Exec(t, "CREATE TABLE shop.acknowledged (id INT PRIMARY KEY AUTO_INCREMENT, token VARCHAR(40) UNIQUE)")
	config := pooled(db.Addr, "max_connections: 4, queue_timeout: 2s")
	g := open(t, config)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	var acknowledged []string
	answered := 0
	for i := range 20 {
		wg.Go(func() {
			clients := g.one("app:apple", "shop")
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				token := fmt.Sprintf("%d-%d", i, n)
				zone := fmt.Sprintf("+%02d:00", i%12)
				c, err := clients.Conn(context.Background())
				if err != nil {
					continue
				}
				check := func(query, want string, args ...any) bool {
					got := ask(c, query, args...)
					if got != want && !strings.HasPrefix(got, "error ") {
						t.Errorf("%s: %q, want %q", query, got, want)
					}
					return got == want
				}
				fine := check("SET time_zone = '"+zone+"'", "") && check("SELECT '"+token+"', @@time_zone", token+"|"+zone+"|\n") && check("SELECT ?, @@time_zone", token+"|"+zone+"|\n", token)
				if fine && n%3 == 0 && check("BEGIN", "") && check("INSERT INTO acknowledged (token) VALUES ('"+token+"')", "") && check("COMMIT", "") {
					mu.Lock()
					acknowledged = append(acknowledged, token)
					mu.Unlock()
				}
				if fine {
					mu.Lock()
					answered++
					mu.Unlock()
				}
				_ = c.Close()
			}
		})
	}
	await := func(more int) {
		t.Helper()
		mu.Lock()
		enough := answered + more
		mu.Unlock()
		testenv.Eventually(t, 30*time.Second, func() error {
			g.reload(config)
			mu.Lock()
			defer mu.Unlock()
			if answered < enough {
				return fmt.Errorf("%d of %d answers", answered, enough)
			}
			return nil
		})
	}
	for range 2 {
		await(300)
		db.Restart(t)
	}
	await(300)
	close(stop)
	wg.Wait()
	testenv.Eventually(t, 10*time.Second, func() error {
		if n := g.stats(); n.Open != n.Idle || n.Open > 4 || n.Waiting > 0 {
			return fmt.Errorf("pool %+v", n)
		}
		return nil
	})
	var tokens []string
	rows, err := db.Open(t, "root", "shop").Query("SELECT token FROM acknowledged")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var token string
		_ = rows.Scan(&token)
		tokens = append(tokens, token)
	}
	for _, token := range acknowledged {
		if !slices.Contains(tokens, token) {
			t.Errorf("%s was acknowledged and is lost", token)
		}
	}
	t.Logf("%d rounds, %d rows acknowledged, %d there", answered, len(acknowledged), len(tokens))
}

// Connections are closed for their age; the last insert id that one had is not lost with it.
func TestLastInsertIDOutlivesItsConnection(t *testing.T) {
	g := open(t, pooled(mariadb(t).Addr, "max_connections: 4, idle_timeout: 1ms"))
	c := g.session(t)
	for range 3 {
		wantAnswer(t, c, "INSERT INTO users (name) VALUES ('x')", "")
		id := ask(c, "SELECT MAX(id) FROM users")
		testenv.Eventually(t, 5*time.Second, func() error {
			g.tables.Load().databases["shop"].instances[0].pool.Tidy()
			if n := g.stats(); n.Open > 0 {
				return fmt.Errorf("pool %+v", n)
			}
			return nil
		})
		wantAnswer(t, c, "SELECT LAST_INSERT_ID()", id)
	}
}

// What belongs to the connection, and cannot be told for a session, is refused where sessions share them.
func TestLastGTIDIsRefusedOnSharedConnections(t *testing.T) {
	db := mariadb(t, "--log-bin", "--server-id=7")
	for share, refused := range map[string]bool{"transaction": true, "session": false} {
		g := open(t, pooled(db.Addr, "share: "+share))
		c := g.session(t)
		if _, err := c.ExecContext(t.Context(), "INSERT INTO users (name) VALUES ('gtid')"); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"SELECT @@last_gtid", "SELECT 1, @@session.last_gtid", "SHOW VARIABLES LIKE 'last_gtid'"} {
			rows, err := c.QueryContext(t.Context(), text)
			if err == nil {
				rows.Close()
			}
			if got := code(err); got != map[bool]int{true: 1105}[refused] {
				t.Errorf("share: %s: %s: %v", share, text, err)
			}
		}
	}
}
