package sqldoor

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
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
	return answerOf(c.QueryContext(context.Background(), query, args...))
}

func answerOf(rows *sql.Rows, err error) string {
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
	st := g.tables.Load().databases["shop"].instances[0].pool.Stats()
	s.Open, s.Idle, s.Waiting = st.Open, st.Idle, st.Waiting
	return s
}

// rested waits until no session holds a connection, and gives how many are open: a client reads its answer before the session gives its connection back.
func (g *gate) rested() (n int) {
	g.t.Helper()
	testenv.Eventually(g.t, 5*time.Second, func() error {
		s := g.stats()
		if n = s.Open; s.Open != s.Idle {
			return fmt.Errorf("pool %+v", s)
		}
		return nil
	})
	return n
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
	g := open(t, pooled(db.Addr, "max_connections: 5, queue_timeout: 60s"))
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
		var prepared [2][sessions]map[string]*sql.Stmt
		for i := range sessions {
			prepared[0][i], prepared[1][i] = make(map[string]*sql.Stmt), make(map[string]*sql.Stmt)
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
				"SELECT \"x\"", "SELECT DATABASE()", "SELECT 1; SELECT 2", "VALUES (1), (2)", "VALUES (1), (2); SELECT FOUND_ROWS()", "GET DIAGNOSTICS @n = NUMBER; SELECT ROW_COUNT()", "DO 1", "SET autocommit = 0", "SET autocommit = 1", "BEGIN", "COMMIT", "ROLLBACK",
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
			prepare := random.IntN(4) == 0 && !strings.Contains(statement, "SHOW") && !strings.Contains(statement, "ROW_COUNT")
			if prepare {
				history[i][len(history[i])-1] += " (prepared)"
			}
			if random.IntN(6) == 0 && strings.HasPrefix(statement, "INSERT INTO "+table+" (v) VALUES (3)") {
				statement, args = "INSERT INTO "+table+" (v) VALUES (?)", []any{3}
			}
			run := func(c *sql.Conn, open map[string]*sql.Stmt) string {
				if !prepare {
					return ask(c, statement, args...)
				}
				var err error
				if open[statement] == nil {
					if open[statement], err = c.PrepareContext(t.Context(), statement); err != nil {
						return fmt.Sprint("error ", code(err))
					}
				}
				return answerOf(open[statement].Query())
			}
			got, want := run(ours[i], prepared[0][i]), run(theirs[i], prepared[1][i])
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
			for s := range g.All() {
				s.mu.Lock()
				if s.pins.set != 0 {
					holding++
				}
				s.mu.Unlock()
			}
			if holding >= 3 { // end a few, or nobody can go on
				for k := range sessions {
					for _, c := range []*sql.Conn{ours[k], theirs[k]} {
						_ = c.Raw(func(any) error { return errBad })
						_ = c.Close()
					}
				}
				for k := range sessions {
					ours[k], err = through.Conn(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					theirs[k], _ = direct.Conn(t.Context())
					history[k] = nil
					clear(prepared[0][k])
					clear(prepared[1][k])
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
	if n := g.rested(); n > 2 {
		t.Errorf("%d connections: something pinned a session", n)
	}
	wantAnswer(t, other, "SET NAMES utf8mb4", "")
	for _, one := range set {
		name, _, _ := strings.Cut(one, "=")
		if tracked := g.tables.Load().databases["shop"].instances[0].pool.Usual(keyOf(g)).List.Tracks(name); !tracked {
			t.Errorf("%s is not compared", name)
		}
	}
}

func TestPins(t *testing.T) {
	db := mariadb(t)
	g := open(t, pooled(db.Addr, "max_connections: 3"))
	pins := func() string {
		var all []string
		for s := range g.All() {
			s.mu.Lock()
			if p, _, ok := s.pins.oldest(); ok {
				all = append(all, p.String())
			}
			s.mu.Unlock()
		}
		return strings.Join(all, ", ")
	}
	wantPin := func(want string) {
		t.Helper()
		testenv.Eventually(t, 5*time.Second, func() error {
			if last := pins(); last != want {
				return fmt.Errorf("pins are %q, want %q", last, want)
			}
			if n := g.stats(); (n.Open == n.Idle) != (want == "") {
				return fmt.Errorf("pins are %q, pool %+v", want, n)
			}
			return nil
		})
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
	if a, _ := r.ask(mysql.ComQuery, "SET time_zone = '+01:00', max_execution_time = 5"); a.Code != 1193 {
		t.Errorf("an unknown variable: %d", a.Code)
	}
	wantPin("") // nothing was set
	f("SET sql_auto_is_null = 0, session_track_schema = 0, session_track_system_variables = 'autocommit'", "")
	f("SET sql_auto_is_null = 1", "setting")
	f("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET TRANSACTION", "BEGIN", "COMMIT")
	f("SET @@tx_isolation = 'SERIALIZABLE'", "SET TRANSACTION", "BEGIN", "SELECT 1", "ROLLBACK")
	f("XA START 'x'", "XA")
	f("BEGIN NOT ATOMIC SET @x = 1; END", "statement not understood")
	f("SELECT CONNECTION_ID()", "")
	f("SELECT CONNECTION_ID() + 0", "CONNECTION_ID")

	a, _ := r.ask(mysql.ComStmtPrepare, "SELECT id FROM users, (SELECT ? UNION SELECT 2) x")
	wantPin("")
	id := string(binary.LittleEndian.AppendUint32(nil, a.Prepared.Statement))
	r.send(mysql.ComStmtLongData, id+"\x00\x00long")
	wantPin("cursor or long data")
	r.ask(mysql.ComStmtReset, id)
	wantPin("")
	r.send(mysql.ComStmtExecute, id+"\x01\x01\x00\x00\x00\x00\x01\xfc\x00\x01x")
	if a, _ := r.follow(mysql.ComStmtExecute, true); a.Status&mysql.CursorExists == 0 {
		t.Error("no cursor")
	}
	wantPin("cursor or long data")
	r.send(mysql.ComStmtClose, id)
	wantPin("")
	if a, _ := r.ask(mysql.ComStmtFetch, id+"\x02\x00\x00\x00"); a.Code != 1243 {
		t.Errorf("fetch from what was closed: %d", a.Code)
	}

	// What was pinned does not come back to others: no user lock, no temporary table, no variable.
	other := g.session(t)
	wantAnswer(t, other, "SELECT IS_FREE_LOCK('a')", "1|\n")
	wantAnswer(t, other, "SELECT * FROM tmp", "error 1146")
	wantAnswer(t, other, "SELECT @x, @y, @z", "NULL|NULL|NULL|\n")
}

// Frameworks insert thousands of rows by one prepared statement. What is too large to be prepared anew keeps its connection.
func TestLargePreparedStatements(t *testing.T) {
	g := open(t, pooled(mariadb(t).Addr, "max_connections: 4, queue_timeout: 5s"))
	c := g.session(t)
	for _, f := range []struct {
		text, item   string
		parameters   int
		first, again string
	}{
		{"INSERT INTO users (name) VALUES (?)", ",(?)", 65535, "", ""},                                                        // a long text
		{"SELECT COUNT(*) FROM users WHERE name IN (?", ",?", 65000, "65538|\n", "65538|\n"},                                  // many types
		{"SELECT COUNT(*) FROM users WHERE /*" + strings.Repeat("x", 2*textMax) + "*/ id < ?", "", 1, "65538|\n", "65538|\n"}, // a very long text
	} {
		text := f.text + strings.Repeat(f.item, f.parameters-1)
		if strings.HasSuffix(f.text, "(?") {
			text += ") OR 1"
		}
		s, err := c.PrepareContext(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		arguments := make([]any, f.parameters)
		for i := range arguments {
			arguments[i] = 1 << 30
		}
		if got := answerOf(s.QueryContext(t.Context(), arguments...)); got != f.first {
			t.Errorf("%.50s: %q", text, got)
		}
		wantAnswer(t, g.session(t), "SELECT 1", "1|\n")
		if f.again != "" {
			if got := answerOf(s.QueryContext(t.Context(), arguments...)); got != f.again {
				t.Errorf("%.50s again: %q", text, got)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	wantAnswer(t, c, "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'PREPARED_STMT_COUNT'", "0|\n")
	if got := ask(g.session(t), "SHOW MENSHEN SESSIONS"); !strings.Contains(got, "|long statement|") {
		t.Errorf("sessions: %s", got)
	}
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
	for s := range g.All() {
		return s.key()
	}
	return backend.Key{}
}

// Prepared statements go with their session: from connection to connection, in the sense that they had when they were prepared, with the types that were bound.
func TestPreparedStatementsTravel(t *testing.T) {
	db := mariadb(t)
	db.Exec(t, "CREATE TABLE shop.place (p VARCHAR(9))", "INSERT INTO shop.place VALUES ('shop')", "CREATE TABLE stock_0.place (p VARCHAR(9))", "INSERT INTO stock_0.place VALUES ('stock')")
	g := open(t, pooled(db.Addr, "max_connections: 4"))
	one, two := connect(t, g, 0, "shop"), connect(t, g, 0, "shop")
	prepare := func(r *raw, text string) string {
		t.Helper()
		a, first := r.ask(mysql.ComStmtPrepare, text)
		if a.Code != 0 {
			t.Fatalf("%s: %q", text, first)
		}
		return string(binary.LittleEndian.AppendUint32(nil, a.Prepared.Statement))
	}
	const once, typed, again = "\x00\x01\x00\x00\x00\x00", "\x01", "\x00"
	f := func(r *raw, id, argument, want string) {
		t.Helper()
		r.send(mysql.ComStmtExecute, id+argument)
		var all []byte
		var a mysql.Response
		a.Start(mysql.ComStmtExecute, r.caps, 1, false)
		for !a.Done() {
			if len(r.Buffered()) == 0 {
				if err := r.Fill(); err != nil {
					t.Fatal(err)
				}
			}
			n, err := a.Feed(r.Buffered())
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, r.Buffered()[:n]...)
			r.Skip(n)
		}
		if !bytes.Contains(all, []byte(want)) {
			t.Errorf("%q, want %q in it", all, want)
		}
	}
	elsewhere := func(r *raw) (back func()) { // makes the other connections busy
		t.Helper()
		var all []*raw
		for range 3 {
			c := connect(t, g, 0, "shop")
			if a, _ := c.ask(mysql.ComQuery, "BEGIN"); a.Code != 0 {
				t.Fatal(a.Code)
			}
			all = append(all, c)
		}
		return func() {
			for _, c := range all {
				c.ask(mysql.ComQuery, "ROLLBACK")
			}
		}
	}

	text := "SELECT CONCAT('<', ?, '>')"
	a, b := prepare(one, text), prepare(two, text)
	f(one, a, once+typed+"\x03\x00"+"\x39\x30\x00\x00", "<12345>") // an integer
	f(two, b, once+typed+"\xfd\x00"+"\x02hi", "<hi>")              // a string, over the same connection
	for range 3 {                                                  // none sends its types again
		f(one, a, once+again+"\x39\x30\x00\x00", "<12345>")
		f(two, b, once+again+"\x02ho", "<ho>")
		back := elsewhere(one)
		f(one, a, once+again+"\x39\x30\x00\x00", "<12345>")
		f(two, b, once+again+"\x02ho", "<ho>")
		back()
	}
	c := prepare(one, text)
	f(one, c, once+again+"\x02no", "mysqld_stmt_execute") // not bound yet, whatever others bound

	// In the sense that they had.
	one.ask(mysql.ComQuery, "SET sql_mode = 'ANSI_QUOTES'")
	quoted := prepare(one, `SELECT "p" FROM "place"`)
	one.ask(mysql.ComQuery, "SET sql_mode = ''")
	plain := prepare(one, `SELECT "p" FROM place`)
	unqualified := prepare(one, "SELECT CONCAT(p, '!', DATABASE()) FROM place")
	const none = "\x00\x01\x00\x00\x00"
	for range 3 {
		f(one, quoted, none, "\x04shop")
		f(one, plain, none, "\x01p")
		f(one, unqualified, none, "shop!shop")
		one.ask(mysql.ComInitDB, "stock")
		f(one, unqualified, none, "shop!shop")
		f(one, quoted, none, "\x04shop")
		if a, first := one.ask(mysql.ComQuery, "SELECT 1 FROM place WHERE p = 'stock'"); a.Rows != 1 {
			t.Errorf("the session's schema is another one now: %q", first)
		}
		back := elsewhere(one)
		f(one, unqualified, none, "shop!shop")
		f(one, quoted, none, "\x04shop")
		if a, first := one.ask(mysql.ComQuery, `SELECT "p" FROM place WHERE p = "stock"`); a.Rows != 1 {
			t.Errorf("the session's settings are others now: %q", first)
		}
		one.ask(mysql.ComInitDB, "shop")
		back()
	}

	// Definitions change under them.
	all := prepare(one, "SELECT * FROM place")
	db.Exec(t, "ALTER TABLE shop.place ADD q VARCHAR(9) DEFAULT 'added'")
	f(one, all, none, "added")
	db.Exec(t, "DROP TABLE shop.place")
	f(one, all, none, "doesn't exist")
	back := elsewhere(one)
	f(one, all, none, "doesn't exist")
	back()

	// More than a connection keeps.
	var ids []string
	for i := range 150 {
		ids = append(ids, prepare(one, fmt.Sprintf("SELECT 'n%dn'", i)))
	}
	for range 2 {
		for i, id := range ids {
			f(one, id, none, fmt.Sprintf("n%dn", i))
		}
	}
	g.rested()
	root := db.Open(t, "root", "")
	var name string
	var n int
	if err := root.QueryRow("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'").Scan(&name, &n); err != nil || n > 4*64+10 {
		t.Errorf("%d statements on the instance, %v", n, err)
	}
}

// Whatever a session did, the next one on its connection is as on a new connection: all variables, and all that can be asked.
func TestNothingStaysOnConnections(t *testing.T) {
	db := mariadb(t)
	db.Exec(t, "CREATE TABLE shop.scratch (id INT PRIMARY KEY AUTO_INCREMENT, v INT)", "CREATE PROCEDURE shop.dirty() BEGIN SET @a = 1; SET sql_mode = 'ANSI'; CREATE TEMPORARY TABLE tmp (i INT); END", "CREATE ROLE auditor")
	g := open(t, pooled(db.Addr, "max_connections: 2, queue_timeout: 10s"))
	questions := []string{"SELECT CURRENT_ROLE(), DATABASE(), @@in_transaction, LAST_INSERT_ID(), @@identity", "SELECT @@tx_isolation, @@autocommit", "ROLLBACK TO a", "SELECT IS_USED_LOCK('l') IS NULL", "SHOW WARNINGS",
		"SELECT * FROM tmp", "SELECT variable_name, session_value FROM information_schema.system_variables WHERE session_value IS NOT NULL AND variable_name NOT IN ('timestamp', 'rand_seed1', 'rand_seed2', 'pseudo_thread_id', 'gtid_seq_no', 'last_gtid', 'warning_count', 'error_count') ORDER BY 1",
		"INSERT INTO scratch (v) VALUES (1)", "SELECT @a, @b", "EXECUTE p", "HANDLER users READ FIRST"}
	fresh := func() (all []string) {
		c := g.session(t)
		for _, q := range questions {
			all = append(all, ask(c, q))
		}
		_ = c.Raw(func(any) error { return errBad })
		_ = c.Close()
		testenv.Eventually(t, 5*time.Second, func() error {
			if n := g.Sessions(); n > 0 {
				return fmt.Errorf("%d sessions", n)
			}
			return nil
		})
		return all
	}
	want := fresh()
	for _, did := range []string{"SELECT 1", "SET autocommit = 0|SAVEPOINT a", "SET autocommit = 0|SAVEPOINT a|SET autocommit = 1", "SET autocommit = 0; SAVEPOINT a", "SET @@tx_isolation = 'SERIALIZABLE', @@session.sql_mode = ''", "SET @@tx_isolation = 'SERIALIZABLE' /* session */",
		"SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET sql_mode = 'ANSI', timestamp = 5", "SET max_join_size = 5", "SET @a = 1, time_zone = '+01:00'", "INSERT INTO scratch (v) VALUES (2)|SELECT LAST_INSERT_ID()", "SELECT LAST_INSERT_ID(77)", "SET last_insert_id = 5",
		"SET insert_id = 1000", "SELECT 1/0|SELECT CAST('a' AS INT)", "SELECT bad", "CALL dirty()", "SET ROLE auditor", "PREPARE p FROM 'SELECT 1'", "HANDLER users OPEN", "SELECT GET_LOCK('l', 0)", "BEGIN|INSERT INTO scratch (v) VALUES (3)", "LOCK TABLES scratch WRITE",
		"SET STATEMENT max_statement_time = 5 FOR SELECT 1", "SET STATEMENT max_statement_time = 0.1, lock_wait_timeout = 5 FOR SELECT SLEEP(1) FROM users", "SET NAMES gbk|SET character_set_results = NULL", "SET CHARACTER SET latin1", "SET collation_database = utf8mb3_bin", "SET profiling = 1", "BEGIN NOT ATOMIC SET @a = 2; END", "/*! SET @b = 2 */", "SET @@session.sql_log_bin = 0", "XA START 'z'",
		"SET autocommit = 0|SELECT * FROM users", "SET completion_type = 1", "SET sql_mode = 'ORACLE'", "SET default_master_connection = 'x'", "SET LOCAL low_priority_updates = 1", "SET sql_low_priority_updates = 1", "SET unique_checks = 0, foreign_key_checks = OFF", "EXPLAIN SELECT 1|SHOW TABLES",
		"CREATE DATABASE IF NOT EXISTS gone|DROP DATABASE gone", "SET storage_engine = MEMORY", "SET SESSION debug_no_such = 1", "USE stock", "SELECT SQL_CALC_FOUND_ROWS * FROM users LIMIT 1", "FLUSH TABLES WITH READ LOCK", "SET PASSWORD = PASSWORD('secret')", "BACKUP STAGE START"} {
		c := g.session(t)
		for _, statement := range strings.Split(did, "|") {
			ask(c, statement)
		}
		_ = c.Raw(func(any) error { return errBad })
		_ = c.Close()
		testenv.Eventually(t, 5*time.Second, func() error {
			if n := g.Sessions(); n > 0 {
				return fmt.Errorf("%d sessions", n)
			}
			return nil
		})
		for i, got := range fresh() {
			if got != want[i] {
				t.Errorf("%s, then %s:\n%.300s\nwant\n%.300s", did, questions[i], diff(got, want[i]), diff(want[i], got))
			}
		}
	}
}

// diff gives the lines of a that are not in b.
func diff(a, b string) (out string) {
	for line := range strings.Lines(a) {
		if !strings.Contains(b, line) {
			out += line
		}
	}
	return out
}
