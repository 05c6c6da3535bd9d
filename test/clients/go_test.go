package clients

import (
	"bytes"
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// goDriver does what the programs do, with go-sql-driver.
func goDriver(t *testing.T, h *house) {
	must(t, mysql.RegisterTLSConfig("menshen", &tls.Config{RootCAs: h.certificate.Pool}))
	_ = mysql.SetLogger(log.New(io.Discard, "", 0)) // it reports broken connections, which are broken here on purpose
	open := func(more ...string) *sql.DB {
		db, err := sql.Open("mysql", fmt.Sprintf("app:apple@tcp(%s)/shop?%s", net.JoinHostPort(h.host, h.port), strings.Join(more, "&")))
		must(t, err)
		t.Cleanup(func() { _ = db.Close() })
		db.SetMaxOpenConns(1)
		return db
	}
	check := func(name string, f func(t *testing.T)) { t.Run(name, f) }
	ask := func(t *testing.T, db *sql.DB, want any, query string, args ...any) {
		t.Helper()
		var got any
		if err := db.QueryRow(query, args...).Scan(&got); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		if b, ok := got.([]byte); ok {
			got = string(b)
		}
		if got != want {
			t.Errorf("%s: %#v, want %#v", query, got, want)
		}
	}
	refused := func(t *testing.T, err error, code uint16, state string) {
		t.Helper()
		var e *mysql.MySQLError
		if !errors.As(err, &e) || e.Number != code || string(e.SQLState[:]) != state {
			t.Errorf("%v, want %d (%s)", err, code, state)
		}
	}
	check("connect", func(t *testing.T) {
		ask(t, open(), int64(1), "SELECT 1")
		ask(t, open("tls=menshen"), int64(1), "SELECT ?", 1)
		ask(t, open("tls=menshen", "allowCleartextPasswords=true"), int64(1), "SELECT 1")
		wrong, err := sql.Open("mysql", "app:wrong@tcp("+net.JoinHostPort(h.host, h.port)+")/shop")
		must(t, err)
		defer wrong.Close()
		refused(t, wrong.Ping(), 1045, "28000")
	})
	check("compressed", func(t *testing.T) {
		data := bytes.Repeat([]byte("0123456789abcdef"), 17<<16)
		for _, more := range []string{"", "tls=menshen"} {
			db := open("compress=true", "maxAllowedPacket=0", more)
			_, err := db.Exec("REPLACE INTO blobs VALUES ('go-compressed', ?)", data)
			must(t, err)
			var back []byte
			must(t, db.QueryRow("SELECT b FROM blobs WHERE who = ?", "go-compressed").Scan(&back))
			if !bytes.Equal(data, back) {
				t.Error("another blob came back")
			}
			ask(t, db, int64(1), "SELECT 1")
		}
	})
	check("types", func(t *testing.T) {
		day := time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)
		late := time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC)
		values := []any{int64(-128), int64(65535), int64(2147483647), int64(-1 << 63), uint64(1<<64 - 1), float32(1.5), -2.25e100, "12345678901234567890.0123456789",
			day, "-800:01:00.000005", late, "a'b\"c\\d\x00e\n🐘", "\x00\xff'\\", "x,z"}
		marks := strings.Repeat(", ?", len(values))
		for _, interpolate := range []string{"false", "true"} {
			db := open("parseTime=true", "interpolateParams="+interpolate)
			exec := func(query string, args ...any) {
				t.Helper()
				if _, err := db.Exec(query, args...); err != nil {
					t.Fatalf("%s: %v", query, err)
				}
			}
			exec("DELETE FROM kinds WHERE who = ?", "go")
			exec("INSERT INTO kinds VALUES (?"+marks+")", append([]any{"go"}, values...)...)
			row := func() []any {
				got := make([]any, len(values))
				into := make([]any, len(values))
				for i := range got {
					into[i] = &got[i]
				}
				must(t, db.QueryRow("SELECT ti, us, i, bi, ub, f, d, de, da, tm, dt, vc, bl, st FROM kinds WHERE who = ?", "go").Scan(into...))
				for i := range got {
					if b, ok := got[i].([]byte); ok {
						got[i] = string(b)
					}
				}
				return got
			}
			if got := row(); !slices.EqualFunc(got, values, func(a, b any) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
				t.Errorf("%v\nwant %v", got, values)
			}
			exec("DELETE FROM kinds WHERE who = ?", "go")
			exec("INSERT INTO kinds VALUES (?"+marks+")", append([]any{"go"}, make([]any, len(values))...)...)
			if got := row(); slices.ContainsFunc(got, func(v any) bool { return v != nil }) {
				t.Errorf("%v, want NULLs", got)
			}
		}
	})
	check("blob", func(t *testing.T) {
		data := bytes.Repeat([]byte("\x00\xffblob\\'"), 17<<17)
		db := open("maxAllowedPacket=0")
		_, err := db.Exec("REPLACE INTO blobs VALUES ('go', ?)", data)
		must(t, err)
		var back []byte
		must(t, db.QueryRow("SELECT b FROM blobs WHERE who = ?", "go").Scan(&back))
		if !bytes.Equal(data, back) {
			t.Error("another blob came back")
		}
	})
	check("transaction", func(t *testing.T) {
		db, other := open(), open()
		for _, commit := range []bool{false, true} {
			tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelSerializable})
			must(t, err)
			_, err = tx.Exec("INSERT INTO ledger VALUES ('go', ?)", 1)
			must(t, err)
			ask(t, other, int64(0), "SELECT COUNT(*) FROM ledger WHERE who = 'go'")
			if commit {
				must(t, tx.Commit())
			} else {
				must(t, tx.Rollback())
			}
		}
		ask(t, other, int64(1), "SELECT COUNT(*) FROM ledger WHERE who = 'go'")
	})
	check("results", func(t *testing.T) {
		db := open("multiStatements=true")
		for _, query := range []string{"SELECT 20; SELECT 22", "CALL both_ways(20, @o)"} {
			rows, err := db.Query(query)
			must(t, err)
			var all []int
			for again := true; again; again = rows.NextResultSet() {
				for rows.Next() {
					var n int
					must(t, rows.Scan(&n))
					all = append(all, n)
				}
			}
			must(t, rows.Err())
			must(t, rows.Close())
			if !slices.Equal(all, []int{20, 22}) {
				t.Errorf("%s: %v", query, all)
			}
		}
		ask(t, db, int64(21), "SELECT @o")
		_, err := open().Exec("SELECT 1; SELECT 2")
		refused(t, err, 1064, "42000")
	})
	check("charsets", func(t *testing.T) {
		for charset, text := range map[string]string{"utf8mb4": "naïve 🐘", "latin1": "na\xefve", "gbk": "\xba\xba\xd7\xd6\xd5\x5c"} {
			db := open("charset=" + charset)
			_, err := db.Exec("REPLACE INTO texts VALUES ('go', ?)", text)
			must(t, err)
			ask(t, db, text, "SELECT t FROM texts WHERE who = 'go'")
			ask(t, db, text, "SELECT t FROM texts WHERE who = ?", "go")
		}
	})
	check("load_data", func(t *testing.T) {
		mysql.RegisterLocalFile(h.file)
		r, err := open().Exec("LOAD DATA LOCAL INFILE '" + h.file + "' INTO TABLE loaded (n, t) SET who = 'go'")
		must(t, err)
		if n, _ := r.RowsAffected(); n != 100000 {
			t.Errorf("%d rows", n)
		}
	})
	check("disconnect", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		rows, err := open().QueryContext(ctx, "SELECT seq, REPEAT('d', 1000) FROM seq_1_to_5000000")
		must(t, err)
		rows.Next()
		cancel() // the driver closes its connection
		_ = rows.Close()
	})
	check("errors", func(t *testing.T) {
		db := open()
		for query, want := range map[string]mysql.MySQLError{
			"SELECT * FROM missing": {Number: 1146, SQLState: [5]byte([]byte("42S02"))}, "SELEKT": {Number: 1064, SQLState: [5]byte([]byte("42000"))},
			"INSERT INTO unique_one VALUES (1), (1)":               {Number: 1062, SQLState: [5]byte([]byte("23000"))},
			"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'too bad'": {Number: 1644, SQLState: [5]byte([]byte("45000"))},
		} {
			_, err := db.Exec(query)
			refused(t, err, want.Number, string(want.SQLState[:]))
		}
	})
	check("stream", func(t *testing.T) {
		rows, err := open().Query("SELECT seq, REPEAT('s', 500) FROM seq_1_to_50000")
		must(t, err)
		total := 0
		for rows.Next() {
			var n int
			var text sql.RawBytes
			must(t, rows.Scan(&n, &text))
			total += n
		}
		must(t, rows.Err())
		if total != 50000*50001/2 {
			t.Errorf("sum %d", total)
		}
	})
	check("kill", func(t *testing.T) {
		db, other := open(), open()
		var id int
		must(t, db.QueryRow("SELECT CONNECTION_ID()").Scan(&id))
		_, err := other.Exec(fmt.Sprintf("KILL %d", id))
		must(t, err)
		ask(t, db, int64(2), "SELECT 2") // database/sql opens another one
		var now int
		must(t, db.QueryRow("SELECT CONNECTION_ID()").Scan(&now))
		if now == id {
			t.Error("the killed session goes on")
		}
	})
	check("reset", func(t *testing.T) {
		// The driver has no COM_RESET_CONNECTION; a session that is left dirty is seen by the next user of its connection, and by nobody else.
		db, other := open(), open()
		_, err := db.Exec("SET @x = 1")
		must(t, err)
		ask(t, other, nil, "SELECT @x")
		ask(t, db, int64(1), "SELECT @x")
	})
	check("cancel", func(t *testing.T) {
		db := open()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err := db.ExecContext(ctx, "SELECT SLEEP(20)"); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, driver.ErrBadConn) {
			t.Errorf("a cancelled statement: %v", err)
		}
		ask(t, db, int64(1), "SELECT 1")
	})
}

// commandLine does the same with the mariadb command.
func commandLine(t *testing.T, h *house) {
	program := testenv.Lookup(t, "mariadb")
	type ways = []string
	run := func(input string, options ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		args := append(ways{"--no-defaults", "--protocol=tcp", "--host=" + h.host, "--port=" + h.port, "--user=app", "--password=apple", "--database=shop", "--batch", "--skip-column-names", "--local-infile=1"}, options...)
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Stdin = strings.NewReader(input)
		var out, problem bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &problem
		err := cmd.Run()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, problem.String())
		}
		return out.String(), err
	}
	f := func(name, want, input string, options ...string) {
		t.Run(name, func(t *testing.T) {
			if got, err := run(input, options...); err != nil || got != want {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		})
	}
	bad := func(name, want, input string, options ...string) {
		t.Run(name, func(t *testing.T) {
			if got, err := run(input, options...); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		})
	}
	f("native", "1\n", "SELECT 1", "--default-auth=mysql_native_password", "--skip-ssl")
	f("sha2", "1\n", "SELECT 1", "--default-auth=caching_sha2_password", "--skip-ssl")
	f("tls", "1\n", "SELECT 1", "--ssl-ca="+h.certificate.AuthorityFile, "--ssl-verify-server-cert")
	bad("wrong password", "ERROR 1045 (28000)", "", "--password=wrong")
	f("types", "-128\t18446744073709551615\t1234567890.0123456789\t2024-02-29\t-800:01:00.5\tNULL\n",
		"SELECT CAST(-128 AS SIGNED), 18446744073709551615, 1234567890.0123456789, DATE'2024-02-29', TIME'-800:01:00.5', NULL")
	f("prepared", "7\n", "PREPARE p FROM 'SELECT ? + 1'; SET @a = 6; EXECUTE p USING @a; DEALLOCATE PREPARE p")
	f("transaction", "2\n1\n", "BEGIN; INSERT INTO ledger VALUES ('cli', 1), ('cli', 2); SELECT COUNT(*) FROM ledger WHERE who = 'cli'; ROLLBACK; INSERT INTO ledger VALUES ('cli', 3); COMMIT; SELECT COUNT(*) FROM ledger WHERE who = 'cli'")
	f("results", "20\n22\n21\n", "CALL both_ways(20, @o); SELECT @o")
	f("delimiter", "1\n2\n", "DELIMITER //\nSELECT 1; SELECT 2//\n")
	f("charset", "\xba\xba\xd5\x5c\n", "SELECT '\xba\xba\xd5\x5c'", "--default-character-set=gbk")
	f("emoji", "🐘\t1\n", "SELECT '🐘', CHAR_LENGTH('🐘')", "--default-character-set=utf8mb4")
	f("load data", "100000\n", "LOAD DATA LOCAL INFILE '"+h.file+"' INTO TABLE loaded (n, t) SET who = 'cli'; SELECT COUNT(*) FROM loaded WHERE who = 'cli'")
	bad("error", "ERROR 1146 (42S02) at line 2: Table 'shop.missing' doesn't exist", "SELECT 1;\nSELECT * FROM missing;")
	f("force", "1\n2\n", "SELECT 1; SELECT * FROM missing; SELECT 2;", "--force")
	f("use", "7\nstock_0\n", "USE stock; SELECT n FROM stock_one; SELECT DATABASE()")
	f("compress", "1\n", "SELECT 1", "--compress")
	t.Run("stream", func(t *testing.T) {
		out, err := run("SELECT seq, REPEAT('s', 500) FROM seq_1_to_20000", "--quick")
		if n := strings.Count(out, "\n"); err != nil || n != 20000 || len(out) < 20000*500 {
			t.Errorf("%d rows, %v", n, err)
		}
	})
	t.Run("blob", func(t *testing.T) {
		out, err := run("REPLACE INTO blobs VALUES ('cli', '"+strings.Repeat("0123456789abcdef", 17<<16)+"');\nSELECT b FROM blobs WHERE who = 'cli'", "--max-allowed-packet=64M", "--quick")
		if err != nil || len(out) != 17<<20+1 || strings.Trim(out, "0123456789abcdef\n") != "" {
			t.Errorf("%d bytes, %v", len(out), err)
		}
	})
	t.Run("dump", func(t *testing.T) {
		dump := exec.Command(testenv.Lookup(t, "mariadb-dump"), "--no-defaults", "--protocol=tcp", "--host="+h.host, "--port="+h.port, "--user=app", "--password=apple", "--single-transaction", "--routines", "shop", "numbered", "unique_one")
		out, err := dump.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "CREATE TABLE `numbered`") || !strings.Contains(string(out), "both_ways") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}
