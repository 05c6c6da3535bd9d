package sqldoor

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

func TestRelay(t *testing.T) {
	g := open(t, shop(mariadb(t).Addr))

	t.Run("text and prepared", func(t *testing.T) {
		for _, how := range []string{"interpolateParams=true", "interpolateParams=false"} {
			db := g.one("app:apple", "shop", how)
			if got := value[string](t, db, "SELECT name FROM users WHERE id = ?", 2); got != "grace" {
				t.Errorf("%s: name is %q", how, got)
			}
			if got := value[string](t, db, "SELECT name FROM users WHERE id = ?", 3); got != "Привет, 🐘" {
				t.Errorf("%s: name is %q", how, got)
			}
		}
	})

	t.Run("rows affected and last insert id", func(t *testing.T) {
		db := g.one("app:apple", "shop")
		exec(t, db, "CREATE TABLE affected (id INT PRIMARY KEY AUTO_INCREMENT, v INT)")
		r, err := db.Exec("INSERT INTO affected (v) VALUES (1), (2), (3)")
		if err != nil {
			t.Fatal(err)
		}
		id, _ := r.LastInsertId()
		n, _ := r.RowsAffected()
		if id != 1 || n != 3 {
			t.Errorf("id %d, affected %d", id, n)
		}
	})

	t.Run("transactions", func(t *testing.T) {
		db, other := g.one("app:apple", "shop"), g.one("app:apple", "shop")
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec("INSERT INTO users (id, name) VALUES (100, 'x')"); err != nil {
			t.Fatal(err)
		}
		if n := value[int](t, other, "SELECT COUNT(*) FROM users WHERE id = 100"); n != 0 {
			t.Error("another session sees an open transaction")
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		if n := value[int](t, db, "SELECT COUNT(*) FROM users WHERE id = 100"); n != 0 {
			t.Error("rolled back row is there")
		}
		tx, _ = db.Begin()
		if _, err := tx.Exec("INSERT INTO users (id, name) VALUES (101, 'y')"); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if n := value[int](t, other, "SELECT COUNT(*) FROM users WHERE id = 101"); n != 1 {
			t.Error("committed row is missing")
		}
	})

	t.Run("several statements and results", func(t *testing.T) {
		db := g.one("app:apple", "shop", "multiStatements=true")
		rows, err := db.Query("SELECT 1; INSERT INTO users (id, name) VALUES (200, 'm'); SELECT 2, 3 UNION SELECT 4, 5; SELECT 6 WHERE 0")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var sets []int
		for {
			n := 0
			for rows.Next() {
				n++
			}
			sets = append(sets, n)
			if !rows.NextResultSet() {
				break
			}
		}
		if err := rows.Err(); err != nil || fmt.Sprint(sets) != "[1 2 0]" {
			t.Errorf("result sets %v, error %v", sets, err)
		}
		wantCode(t, g.one("app:apple", "shop").QueryRow("SELECT 1; SELECT 2").Err(), 1064, "") // not asked for
	})

	t.Run("procedures", func(t *testing.T) {
		db := g.one("app:apple", "shop")
		exec(t, db, "CREATE OR REPLACE PROCEDURE pair() BEGIN SELECT 1; SELECT 2; SELECT 3; END")
		for _, query := range []string{"CALL pair()", "/* text */ CALL pair()"} {
			rows, err := db.Query(query)
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			for {
				for rows.Next() {
					var v int
					_ = rows.Scan(&v)
					got = append(got, v)
				}
				if !rows.NextResultSet() {
					break
				}
			}
			_ = rows.Close()
			if fmt.Sprint(got) != "[1 2 3]" {
				t.Errorf("%s gives %v", query, got)
			}
		}
		st, err := db.Prepare("CALL pair()")
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		if v := scanStmt(t, st); v != 1 {
			t.Errorf("prepared call gives %d", v)
		}
		if v := value[int](t, db, "SELECT 42"); v != 42 {
			t.Errorf("after the call: %d", v)
		}
	})

	t.Run("errors as the instance words them", func(t *testing.T) {
		db := g.one("app:apple", "shop")
		_, err := db.Exec("SELEKT 1")
		wantCode(t, err, 1064, "42000")
		_, err = db.Exec("SELECT * FROM nothing")
		wantCode(t, err, 1146, "Table 'shop.nothing' doesn't exist")
		_, err = db.Exec("INSERT INTO users (id) VALUES (1)")
		wantCode(t, err, 1062, "23000")
		_, err = db.Exec("SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 5555, MESSAGE_TEXT = 'my own'")
		wantCode(t, err, 5555, "(45000): my own")
		if v := value[int](t, db, "SELECT 1"); v != 1 {
			t.Error("session is unusable after errors")
		}
	})

	t.Run("charset of the handshake", func(t *testing.T) {
		for _, charset := range []string{"latin1", "utf8mb4", "cp1251"} {
			out, err := g.cli("app", "apple", "shop", "SELECT @@character_set_client, @@character_set_results", "--default-character-set="+charset)
			if err != nil || out != charset+"\t"+charset+"\n" {
				t.Errorf("%s: %q, %v", charset, out, err)
			}
		}
		db := g.one("app:apple", "shop", "collation=utf8mb4_unicode_ci")
		if got := value[string](t, db, "SELECT @@collation_connection"); got != "utf8mb4_unicode_ci" {
			t.Errorf("collation_connection is %q", got)
		}
	})

	t.Run("local files", func(t *testing.T) {
		db := g.one("app:apple", "shop", "allowAllFiles=true", "maxAllowedPacket=65536")
		exec(t, db, "CREATE TABLE words (n INT, word VARCHAR(40))")
		var file bytes.Buffer
		for i := range 50000 {
			fmt.Fprintf(&file, "%d\tword %d\n", i, i)
		}
		driver.RegisterReaderHandler("lines", func() io.Reader { return bytes.NewReader(file.Bytes()) })
		defer driver.DeregisterReaderHandler("lines")
		r, err := db.Exec("LOAD DATA LOCAL INFILE 'Reader::lines' INTO TABLE words")
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := r.RowsAffected(); n != 50000 {
			t.Errorf("%d rows loaded", n)
		}
		if n := value[int](t, db, "SELECT SUM(n) FROM words"); n != 50000*49999/2 {
			t.Errorf("sum is %d", n)
		}
		_, err = db.Exec("LOAD DATA LOCAL INFILE 'Reader::lines' INTO TABLE nowhere")
		wantCode(t, err, 1146, "")
		load, err := db.Prepare("LOAD DATA LOCAL INFILE 'Reader::lines' INTO TABLE words")
		if err != nil {
			t.Fatal(err)
		}
		defer load.Close()
		if _, err := load.Exec(); err != nil {
			t.Errorf("prepared: %v", err)
		}
		if n := value[int](t, db, "SELECT COUNT(*) FROM words"); n != 100000 {
			t.Errorf("%d rows after a prepared LOAD DATA", n)
		}
	})

	t.Run("databases", func(t *testing.T) {
		db := g.one("app:apple", "shop")
		exec(t, db, "USE stock")
		if v := value[int](t, db, "SELECT id FROM items"); v != 7 {
			t.Errorf("id is %d", v)
		}
		_, err := db.Exec("USE nothing")
		wantCode(t, err, 1049, "Unknown database 'nothing'")
		if v := value[int](t, db, "SELECT id FROM items"); v != 7 {
			t.Errorf("after a failed USE: %d", v)
		}
		exec(t, db, "use `shop` ; -- back")
		if v := value[string](t, db, "SELECT name FROM users WHERE id = 1"); v != "ada" {
			t.Errorf("name is %q", v)
		}
		_, err = db.Exec("USE shop; SELECT 1")
		wantCode(t, err, 1235, "USE")
		_, err = db.Exec("KILL 4000000000")
		wantCode(t, err, 1094, "Unknown thread id: 4000000000")
		_, err = db.Exec("SELECT 1; KILL 4000000000")
		wantCode(t, err, 1235, "KILL")
		wantCode(t, g.pool("app:apple", "nothing").Ping(), 1049, "Unknown database 'nothing'")
		none := g.one("app:apple", "")
		if err := none.Ping(); err != nil {
			t.Error(err)
		}
		if v := value[int](t, none, "SELECT 5"); v != 5 {
			t.Errorf("without a database: %d", v)
		}
		_, err = none.Exec("SELECT * FROM users")
		wantCode(t, err, 1046, "No database selected")
	})

	t.Run("access records", func(t *testing.T) {
		db := g.one("other:orange", "shop")
		value[int](t, db, "SELECT 'very secret' = 'x'")
		_, _ = db.Exec("SELECT * FROM nothing2")
		all := g.logged(`"consumer":"other"`)
		g.logged(`"sql_code":1146`)
		if strings.Contains(all, "secret") {
			t.Error("statement text in the access log")
		}
	})
}

func exec(t testing.TB, db interface {
	Exec(string, ...any) (sql.Result, error)
}, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%.100s: %v", query, err)
	}
}

func scanStmt(t testing.TB, st *sql.Stmt) (v int) {
	t.Helper()
	if err := st.QueryRow().Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestBlobsOver16MiB(t *testing.T) {
	g := open(t, shop(mariadb(t).Addr))
	for _, how := range []string{"interpolateParams=true", "interpolateParams=false"} {
		db := g.one("app:apple", "shop", "maxAllowedPacket=67108864", how)
		exec(t, db, "CREATE OR REPLACE TABLE blobs (id INT PRIMARY KEY, b LONGBLOB)")
		sizes := []int{1<<24 - 60, 2*(1<<24) - 10}
		if os.Getenv("MENSHEN_TEST_LONG") != "" {
			sizes = append(sizes, 1<<24-1, 1<<24, 17<<20)
		}
		for i, size := range sizes {
			blob := bytes.Repeat([]byte{byte('a' + i)}, size)
			exec(t, db, "INSERT INTO blobs VALUES (?, ?)", i, blob)
			if got := value[[]byte](t, db, "SELECT b FROM blobs WHERE id = ?", i); !bytes.Equal(got, blob) {
				t.Errorf("%s: %d bytes came back as %d", how, size, len(got))
			}
		}
	}
	db := g.one("app:apple", "shop", "maxAllowedPacket=134217728", "interpolateParams=true")
	_, err := db.Exec("INSERT INTO blobs VALUES (99, ?)", bytes.Repeat([]byte("x"), 70<<20))
	if code(err) != 1153 && code(err) != 2013 {
		t.Errorf("over max_allowed_packet: %v", err)
	}
}

func TestConcurrentSessions(t *testing.T) {
	g := open(t, shop(mariadb(t, "--max-connections=200").Addr))
	db := g.pool("app:apple", "shop")
	db.SetMaxOpenConns(100)
	db.SetMaxIdleConns(100)
	var wg sync.WaitGroup
	for worker := range 100 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			conn, err := db.Conn(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for i := range 30 {
				want := fmt.Sprintf("%d-%d", worker, i)
				var got string
				if err := conn.QueryRowContext(ctx, "SELECT ?", want).Scan(&got); err != nil || got != want {
					t.Errorf("asked for %s, got %q, %v", want, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestClientLeavesInTheMiddleOfAResult(t *testing.T) {
	db := mariadb(t)
	g := open(t, shop(db.Addr))
	pool := g.pool("app:apple", "shop")
	for range 5 {
		ctx, cancel := context.WithCancel(context.Background())
		rows, err := pool.QueryContext(ctx, "SELECT REPEAT('x', 10000) FROM seq_1_to_100000")
		if err != nil {
			t.Fatal(err)
		}
		rows.Next()
		cancel()
		_ = rows.Close()
	}
	_ = pool.Close()
	root := db.Open(t, "root", "")
	testenv.Eventually(t, 20*time.Second, func() error {
		var n int
		if err := root.QueryRow("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'gate' AND command = 'Query'").Scan(&n); err != nil {
			return err
		}
		if s := g.Sessions(); n > 0 || s > 0 {
			return fmt.Errorf("%d statements still run, %d sessions", n, s)
		}
		return nil
	})
}

// A client that leaves while its statement runs is noticed without anything being written to it.
func TestClientLeavesWhileItsStatementRuns(t *testing.T) {
	g := open(t, shop(mariadb(t).Addr))
	pool := g.one("app:apple", "shop")
	if err := pool.Ping(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if _, err := pool.ExecContext(ctx, "SELECT SLEEP(600)"); err == nil {
		t.Fatal("no error")
	}
	testenv.Eventually(t, 10*time.Second, func() error {
		if n := g.Sessions(); n > 0 {
			return fmt.Errorf("%d sessions", n)
		}
		return nil
	})
	if all := g.logged(`"fault":"client_gone"`); !strings.Contains(all, "query") {
		t.Error(all)
	}
}
