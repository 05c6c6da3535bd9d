package sqldoor

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// LAST_INSERT_ID() survives statements that make no id, while the connections go from session to session.
func TestLastInsertIDUnderContention(t *testing.T) {
	db := mariadb(t)
	g := open(t, pooled(db.Addr, "max_connections: 3, queue_timeout: 60s"))
	var wg sync.WaitGroup
	for i := range 24 {
		db.Exec(t, fmt.Sprintf("CREATE TABLE shop.n%d (id INT PRIMARY KEY AUTO_INCREMENT, v INT) AUTO_INCREMENT = %d", i, 1000*(i+1)))
		wg.Go(func() {
			c, err := g.one("app:apple", "shop").Conn(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for n := range 40 {
				ask(c, fmt.Sprintf("INSERT INTO n%d (v) VALUES (1)", i))
				want := fmt.Sprint(1000*(i+1) + n)
				switch n % 4 {
				case 0:
					ask(c, fmt.Sprintf("INSERT INTO n%d VALUES (%s, 1)", i, want)) // a duplicate
				case 1:
					ask(c, fmt.Sprintf("INSERT INTO n%d VALUES (%d, 1)", i, n+1))
				case 2:
					ask(c, fmt.Sprintf("INSERT INTO n%d SELECT NULL, 1 FROM users WHERE id < 0", i))
				}
				if got := ask(c, "SELECT LAST_INSERT_ID()"); got != want+"|\n" {
					t.Errorf("session %d: LAST_INSERT_ID() is %q, want %s (%d)", i, got, want, n%4)
				}
			}
		})
	}
	wg.Wait()
	testenv.Eventually(t, 5*time.Second, func() error {
		if n := g.stats(); n.Open > 3 || n.Open != n.Idle {
			return fmt.Errorf("pool %+v", n)
		}
		return nil
	})
}

// A connection that is closed for its age takes nobody's LAST_INSERT_ID() with it.
func TestLastInsertIDOutlivesAnOldConnection(t *testing.T) {
	db := mariadb(t)
	g := open(t, pooled(db.Addr, "max_connections: 1, max_lifetime: 1ms, queue_timeout: 5s"))
	c := g.session(t)
	time.Sleep(3 * time.Millisecond) // the connection is too old
	wantAnswer(t, c, "INSERT INTO users VALUES (77, 'x')", "")
	wantAnswer(t, c, "INSERT INTO users (name) VALUES ('y')", "")
	wantAnswer(t, c, "INSERT INTO users VALUES (77, 'x')", "error 1062")
	wantAnswer(t, c, "SELECT LAST_INSERT_ID()", "78|\n")
}

// Nor does one that is closed because a statement left it without a schema. The warnings of that statement can still be read.
func TestLastInsertIDOutlivesADroppedDatabase(t *testing.T) {
	g := open(t, pooled(mariadb(t).Addr, "max_connections: 1, queue_timeout: 5s"))
	c := g.session(t)
	wantAnswer(t, c, "INSERT INTO users (name) VALUES ('y')", "")
	wantAnswer(t, c, "CREATE DATABASE brief", "")
	wantAnswer(t, c, "SELECT LAST_INSERT_ID()", "4|\n")
	wantAnswer(t, c, "DROP DATABASE brief", "")
	wantAnswer(t, c, "DROP DATABASE IF EXISTS brief", "")
	wantAnswer(t, c, "SHOW WARNINGS", "Note|1008|Can't drop database 'brief'; database doesn't exist|\n")
	wantAnswer(t, c, "SELECT COUNT(*) FROM users", "4|\n")
	wantAnswer(t, c, "EXECUTE IMMEDIATE 'SELECT LAST_INSERT_ID()'", "4|\n")
}

// In another database LAST_INSERT_ID() is known at once, though the connection that has it serves nobody.
func TestLastInsertIDElsewhere(t *testing.T) {
	g := open(t, shop(mariadb(t).Addr))
	c := g.session(t)
	wantAnswer(t, c, "INSERT INTO users (name) VALUES ('y')", "")
	begun := time.Now()
	wantAnswer(t, c, "USE stock", "")
	wantAnswer(t, c, "INSERT INTO items VALUES (8)", "")
	wantAnswer(t, c, "SELECT LAST_INSERT_ID()", "4|\n")
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}
