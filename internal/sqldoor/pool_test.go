package sqldoor

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// pooled is shop with bounds for its pool.
func pooled(address, pool string) string {
	return strings.ReplaceAll(shop(address), "login:", "pool: {"+pool+"}\n    login:")
}

// session opens one connection of its own.
func (g *gate) session(t testing.TB, more ...string) *sql.Conn {
	t.Helper()
	c, err := g.pool("app:apple", "shop", more...).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ask runs a statement and gives all that came of it as text.
func ask(c *sql.Conn, query string, args ...any) string {
	rows, err := c.QueryContext(context.Background(), query, args...)
	if err != nil {
		return fmt.Sprint("error ", code(err))
	}
	defer rows.Close()
	var out strings.Builder
	for {
		columns, _ := rows.Columns()
		for rows.Next() {
			values := make([]sql.NullString, len(columns))
			into := make([]any, len(values))
			for i := range values {
				into[i] = &values[i]
			}
			if err := rows.Scan(into...); err != nil {
				return err.Error()
			}
			for _, v := range values {
				if !v.Valid {
					v.String = "NULL"
				}
				out.WriteString(v.String + "|")
			}
			out.WriteString("\n")
		}
		if !rows.NextResultSet() {
			break
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Sprint("error ", code(err))
	}
	return out.String()
}

func wantAnswer(t testing.TB, c *sql.Conn, query, want string, args ...any) {
	t.Helper()
	if got := ask(c, query, args...); got != want {
		t.Errorf("%s: %q, want %q", query, got, want)
	}
}

func (g *gate) stats() (s struct{ Open, Idle, Waiting int }) {
	st := g.tables.Load().databases["shop"].pool.Stats()
	s.Open, s.Idle, s.Waiting = st.Open, st.Idle, st.Waiting
	return s
}

// Many sessions share few connections, and each row carries the token of the one who asked.
func TestManySessionsFewConnections(t *testing.T) {
	db := mariadb(t)
	g := open(t, pooled(db.Addr, "max_connections: 5, queue_timeout: 60s"))
	zones, modes, charsets := []string{"+00:00", "+03:00", "-08:00"}, []string{"", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES"}, []string{"utf8mb4", "latin1", "gbk"}
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			c, err := g.one("app:apple", "shop").Conn(context.Background())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			zone, mode, charset := zones[i%3], modes[i/3%3], charsets[i/9%3]
			want := func(query, want string, args ...any) {
				t.Helper()
				if got := ask(c, query, args...); got != want {
					t.Errorf("session %d: %s: %q, want %q", i, query, got, want)
				}
			}
			want("SET NAMES "+charset, "")
			want(fmt.Sprintf("SET time_zone = '%s', sql_mode = '%s'", zone, mode), "")
			for n := range 15 {
				token := fmt.Sprintf("%d-%d", i, n)
				want(fmt.Sprintf("SELECT '%s', @@time_zone, @@sql_mode, @@character_set_client", token), fmt.Sprintf("%s|%s|%s|%s|\n", token, zone, mode, charset))
				want("SELECT ?, @@time_zone", token+"|"+zone+"|\n", token)
				switch n % 5 {
				case 0:
					want("BEGIN", "")
					want("SELECT name FROM users WHERE id = 1 FOR UPDATE", "ada|\n")
					want("SELECT '"+token+"'", token+"|\n")
					want("ROLLBACK", "")
				case 1:
					want("SELECT bad", "error 1054")
				}
			}
		})
	}
	wg.Wait()
	testenv.Eventually(t, 5*time.Second, func() error {
		if n := g.stats(); n.Open > 5 || n.Open != n.Idle {
			return fmt.Errorf("pool %+v", n)
		}
		return nil
	})
}

// Random statements of three sessions over two connections are answered as by a server where each has its own. What cannot be known any more is refused.
func TestPoolAnswersAsOneServer(t *testing.T) {
	db, plain := mariadb(t), mariadb(t)
	g := open(t, pooled(db.Addr, "max_connections: 4, queue_timeout: 60s"))
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	refused, asked := 0, 0
	for round := range 12 {
		const sessions = 8
		var ours, theirs [sessions]*sql.Conn
		var busy [sessions]bool // holds a connection
		direct, err := sql.Open("mysql", plain.DSN("gate:secret", "shop")+"?multiStatements=true")
		if err != nil {
			t.Fatal(err)
		}
		defer direct.Close()
		through := g.pool("app:apple", "shop", "multiStatements=true")
		for i := range sessions {
			ours[i], _ = through.Conn(t.Context())
			theirs[i], _ = direct.Conn(t.Context())
			table := fmt.Sprintf("CREATE OR REPLACE TABLE r%d_%d (id INT PRIMARY KEY AUTO_INCREMENT, v INT) AUTO_INCREMENT = %d", round, i, 1+1000*i)
			if a, b := ask(ours[i], table), ask(theirs[i], table); a != b || a != "" {
				t.Fatalf("%s: %q, %q", table, a, b)
			}
		}
		holding := 0
		var history [sessions][]string
		for range 400 {
			i := random.IntN(sessions)
			table := fmt.Sprintf("r%d_%d", round, i)
			statements := []string{
				"SELECT 1", "SELECT id FROM users ORDER BY id LIMIT 2", "INSERT INTO " + table + " (v) VALUES (1), (2)", "INSERT INTO " + table + " (v) VALUES (3)",
				fmt.Sprintf("INSERT INTO %s VALUES (%d, 1)", table, 1+random.IntN(2000)),
				"UPDATE " + table + " SET v = v + 1 ORDER BY id LIMIT 3", "UPDATE " + table + " SET v = LAST_INSERT_ID(v + 7) ORDER BY id LIMIT 1", "DELETE FROM " + table + " ORDER BY id LIMIT 1",
				"SELECT LAST_INSERT_ID()", "SELECT LAST_INSERT_ID()", "SELECT @@identity", "SELECT ROW_COUNT()", "SELECT FOUND_ROWS()", "SHOW WARNINGS", "SHOW ERRORS", "SELECT @@warning_count",
				"SELECT CAST('a' AS INT)", "SELECT 1/0", "SELECT bad", "SELEKT", "SELECT SQL_CALC_FOUND_ROWS id FROM users LIMIT 1", "SELECT * FROM missing",
				"SET sql_mode = ''", "SET sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES')", "SET time_zone = '+05:00'", "SET NAMES latin1", "SET NAMES utf8mb4", "SET time_zone = 'nowhere'",
				"SET group_concat_max_len = 1", "SET last_insert_id = 99", "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET sql_select_limit = 1", "SET sql_select_limit = DEFAULT",
				"SELECT @@sql_mode, @@time_zone, @@character_set_client, @@character_set_connection, @@collation_connection, @@group_concat_max_len, @@tx_isolation, @@autocommit",
				"SELECT \"x\"", "SELECT DATABASE()", "SELECT 1; SELECT 2", "DO 1", "SET autocommit = 0", "SET autocommit = 1", "BEGIN", "COMMIT", "ROLLBACK",
				"SELECT COUNT(*), SUM(v) FROM " + table, "INSERT INTO " + table + " SELECT NULL, v FROM " + table + " LIMIT 2", "REPLACE INTO " + table + " (v) VALUES (5)", "SELECT LAST_INSERT_ID(55)",
				"INSERT INTO " + table + " (id, v) VALUES (1, 1), (1, 2)", "INSERT IGNORE INTO " + table + " (id, v) VALUES (NULL, 1), (1, 2)", "SET character_set_results = NULL",
				"SET CHARACTER SET gbk", "SET collation_connection = utf8mb4_bin", "SET foreign_key_checks = 0",
			}
			statement := statements[random.IntN(len(statements))]
			if holding >= 3 && !busy[i] && (statement == "BEGIN" || strings.Contains(statement, "autocommit = 0")) {
				continue // the pool would be empty
			}
			history[i] = append(history[i], statement)
			var args []any
			if random.IntN(6) == 0 && strings.HasPrefix(statement, "INSERT INTO "+table+" (v) VALUES (3)") {
				statement, args = "INSERT INTO "+table+" (v) VALUES (?)", []any{3}
			}
			got, want := ask(ours[i], statement, args...), ask(theirs[i], statement, args...)
			asked++
			if got == "error 1105" && want != got {
				refused++
				if want = ask(theirs[i], "SELECT bad"); want != "error 1054" { // an error here too
					t.Fatal(want)
				}
				ask(ours[i], "SELECT bad")
			} else if got != want {
				t.Fatalf("round %d, session %d: %s: %q, on a server %q\nbefore: %s", round, i, statement, got, want, strings.Join(history[i][max(0, len(history[i])-12):], "; "))
			}
			holding = 0
			g.mu.Lock()
			for sv := range g.serving {
				for s := range sv.sessions {
					s.mu.Lock()
					if s.pins.set != 0 {
						holding++
					}
					s.mu.Unlock()
				}
			}
			g.mu.Unlock()
			if holding >= 3 { // end a few, or nobody can go on
				for k := range sessions {
					for _, c := range []*sql.Conn{ours[k], theirs[k]} {
						_ = c.Close()
					}
					ours[k], _ = through.Conn(t.Context())
					theirs[k], _ = direct.Conn(t.Context())
					for _, c := range []*sql.Conn{ours[k], theirs[k]} {
						_ = c.Raw(func(any) error { return fmt.Errorf("away: %w", errBad) })
						_ = c.Close()
					}
					ours[k], _ = through.Conn(t.Context())
					theirs[k], _ = direct.Conn(t.Context())
					history[k] = nil
				}
			}
		}
		for i := range sessions {
			_ = ours[i].Close()
			_ = theirs[i].Close()
		}
		_ = through.Close()
		_ = direct.Close()
	}
	t.Logf("%d statements, %d refused", asked, refused)
	if refused > asked/10 {
		t.Errorf("%d of %d statements were refused", refused, asked)
	}
}

// Every variable that is compared can be set, travels with its session, and stays with it.
func TestSettingsTravel(t *testing.T) {
	g := open(t, pooled(mariadb(t).Addr, "max_connections: 2"))
	c, other := g.session(t), g.session(t)
	set := []string{"autocommit=0", "sql_mode='ANSI'", "time_zone='+01:00'", "foreign_key_checks=0", "unique_checks=0", "group_concat_max_len=99", "sql_safe_updates=1", "sql_select_limit=500",
		"max_join_size=1000", "sql_big_selects=1", "sql_notes=0", "sql_warnings=1", "sql_quote_show_create=0", "sql_buffer_result=1", "wait_timeout=1000", "interactive_timeout=1000",
		"net_read_timeout=77", "net_write_timeout=77", "lock_wait_timeout=77", "innodb_lock_wait_timeout=7", "lc_time_names='de_DE'", "lc_messages='de_DE'", "div_precision_increment=6", "default_week_format=3",
		"default_storage_engine='MEMORY'", "completion_type='CHAIN'", "low_priority_updates=1", "updatable_views_with_limit='NO'", "max_sort_length=2000", "tmp_table_size=1000000", "max_heap_table_size=1000448",
		"sort_buffer_size=1000000", "join_buffer_size=100000", "read_buffer_size=98304", "read_rnd_buffer_size=100000", "max_error_count=10", "auto_increment_increment=3", "auto_increment_offset=2",
		"big_tables=1", "optimizer_search_depth=10", "optimizer_prune_level=0", "optimizer_switch='index_merge=off'", "tx_read_only=1", "tx_isolation='SERIALIZABLE'", "max_statement_time=5.5", "check_constraint_checks=0",
		"old_mode=''", "innodb_strict_mode=0", "character_set_client='latin1'", "character_set_results=NULL", "character_set_connection='cp1251'", "collation_connection='cp1251_bin'"}
	for _, one := range set {
		name, _, _ := strings.Cut(one, "=")
		before := ask(other, "SELECT @@"+name)
		if got := ask(c, "SET SESSION "+one); got != "" {
			t.Errorf("SET %s: %q", one, got)
			continue
		}
		mine := ask(c, "SELECT @@"+name)
		if mine == before && one != "sql_big_selects=1" {
			t.Errorf("%s changed nothing: %q", one, mine)
		}
		for range 3 { // the connection goes from one to the other
			wantAnswer(t, other, "SELECT @@"+name, before)
			wantAnswer(t, c, "SELECT @@"+name, mine)
		}
	}
	if n := g.stats(); n.Open > 2 || n.Open != n.Idle {
		t.Errorf("pool %+v: something pinned a session", n)
	}
	wantAnswer(t, other, "SET NAMES utf8mb4", "")
	for _, one := range set {
		name, _, _ := strings.Cut(one, "=")
		if tracked := g.tables.Load().databases["shop"].pool.Usual(keyOf(g)).List.Tracks(name); !tracked {
			t.Errorf("%s is not compared", name)
		}
	}
}

func TestPins(t *testing.T) {
	db := mariadb(t)
	g := open(t, pooled(db.Addr, "max_connections: 3"))
	pins := func() string {
		g.mu.Lock()
		defer g.mu.Unlock()
		var all []string
		for sv := range g.serving {
			for s := range sv.sessions {
				s.mu.Lock()
				if p, _, ok := s.pins.oldest(); ok {
					all = append(all, p.String())
				}
				s.mu.Unlock()
			}
		}
		return strings.Join(all, ", ")
	}
	wantPin := func(want string) {
		t.Helper()
		var last string
		deadline := time.Now().Add(5 * time.Second)
		for time.Now().Before(deadline) {
			if last = pins(); last == want {
				if n := g.stats(); (n.Open == n.Idle) == (want == "") {
					return
				}
			}
			time.Sleep(time.Millisecond)
		}
		t.Errorf("pins are %q, want %q, pool %+v", last, want, g.stats())
	}
	r := connect(t, g, mysql.MultiStatements, "shop")
	f := func(statement, pin string, ends ...string) {
		t.Helper()
		if a, first := r.ask(mysql.ComQuery, statement); a.Code != 0 {
			t.Errorf("%s: %q", statement, first)
		}
		wantPin(pin)
		for _, end := range ends {
			if a, first := r.ask(mysql.ComQuery, end); a.Code != 0 {
				t.Errorf("%s: %q", end, first)
			}
		}
		if len(ends) == 0 && pin != "" {
			r.ask(mysql.ComReset, "")
		}
		wantPin("")
	}
	for _, free := range []string{"SELECT 1", "INSERT INTO users (name) VALUES ('x')", "SET NAMES utf8mb4", "SET sql_mode = ''", "SET autocommit = 0", "SET autocommit = 1", "SHOW TABLES", "SET GLOBAL max_connections = 100",
		"CREATE TABLE pinless (i INT)", "SELECT 1/0", "SELECT LAST_INSERT_ID()", "SELECT 1; SELECT 2", "SELECT * FROM users LIMIT 1", "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", "XA RECOVER; SELECT 1"} {
		f(free, "")
	}
	f("BEGIN", "transaction", "SELECT 1", "COMMIT")
	f("START TRANSACTION READ ONLY", "transaction", "ROLLBACK")
	f("SET autocommit = 0; SELECT * FROM users", "transaction", "COMMIT", "SET autocommit = 1")
	f("CREATE TEMPORARY TABLE tmp (i INT)", "temporary table")
	f("LOCK TABLES users READ", "LOCK TABLES", "UNLOCK TABLES")
	f("HANDLER users OPEN", "lock")
	f("SELECT GET_LOCK('a', 0)", "user lock")
	f("SET @x = 1", "user variable")
	f("SELECT @y := 1", "user variable")
	f("SELECT 1 INTO @z", "user variable")
	f("PREPARE p FROM 'SELECT 1'", "PREPARE")
	f("SELECT SQL_CALC_FOUND_ROWS * FROM users LIMIT 1", "SQL_CALC_FOUND_ROWS", "SELECT 1")
	f("SET timestamp = 5", "setting")
	f("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET TRANSACTION", "BEGIN", "COMMIT")
	f("SET @@tx_isolation = 'SERIALIZABLE'", "SET TRANSACTION", "BEGIN", "SELECT 1", "ROLLBACK")
	f("XA START 'x'", "XA")
	f("BEGIN NOT ATOMIC SET @x = 1; END", "statement not understood")
	f("SELECT CONNECTION_ID()", "CONNECTION_ID")

	a, _ := r.ask(mysql.ComStmtPrepare, "SELECT 1")
	wantPin("prepared statements")
	r.send(mysql.ComStmtClose, string([]byte{byte(a.Prepared.Statement), 0, 0, 0}))
	wantPin("")

	// What was pinned does not come back to others: no user lock, no temporary table, no variable.
	other := g.session(t)
	wantAnswer(t, other, "SELECT IS_FREE_LOCK('a')", "1|\n")
	wantAnswer(t, other, "SELECT * FROM tmp", "error 1146")
	wantAnswer(t, other, "SELECT @x, @y, @z", "NULL|NULL|NULL|\n")
}

func TestQueue(t *testing.T) {
	g := open(t, pooled(mariadb(t).Addr, "max_connections: 1, queue_timeout: 300ms"))
	holder, other := g.session(t), g.session(t)
	wantAnswer(t, holder, "BEGIN", "")
	wantAnswer(t, other, "SELECT 1", "error 1040")
	answered := make(chan string, 1)
	go func() { answered <- ask(other, "SELECT 2") }()
	testenv.Eventually(t, 5*time.Second, func() error {
		if g.stats().Waiting == 0 {
			return fmt.Errorf("nobody waits")
		}
		return nil
	})
	wantAnswer(t, holder, "COMMIT", "")
	if got := <-answered; got != "2|\n" {
		t.Errorf("who waited got %q", got)
	}
}

var errBad = driver.ErrBadConn

// keyOf is what the go-sql-driver's sessions have in common.
func keyOf(g *gate) backend.Key {
	g.mu.Lock()
	defer g.mu.Unlock()
	for sv := range g.serving {
		for s := range sv.sessions {
			return s.key()
		}
	}
	return backend.Key{}
}
