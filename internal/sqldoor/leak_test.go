package sqldoor

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// What one session does is met by no other on the same connection, and the session itself goes on as on a server of its own.
func TestNothingIsLeftBehind(t *testing.T) {
	db, plain := mariadb(t), mariadb(t)
	for _, one := range [...]interface{ Exec(testing.TB, ...string) }{db, plain} {
		one.Exec(t, "CREATE ROLE clerk", "GRANT clerk TO gate@'%'", "GRANT SELECT ON shop.* TO clerk")
	}
	g := open(t, pooled(db.Addr, "max_connections: 1, queue_timeout: 30s"))
	gone := goneFrom(t, g, db, plain)
	direct, err := sql.Open("mysql", plain.DSN("gate:secret", "shop")+"?multiStatements=true")
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	direct.SetMaxIdleConns(0)
	through := g.pool("app:apple", "shop", "multiStatements=true")
	through.SetMaxIdleConns(0)
	const (
		variables = `SELECT variable_name, session_value FROM information_schema.system_variables WHERE session_value IS NOT NULL AND variable_name NOT IN
('TIMESTAMP','PSEUDO_THREAD_ID','RAND_SEED1','RAND_SEED2','WARNING_COUNT','ERROR_COUNT','LAST_GTID','IDENTITY','LAST_INSERT_ID','IN_TRANSACTION') ORDER BY 1`
		here = "SELECT CURRENT_ROLE(), DATABASE(), @@in_transaction, LAST_INSERT_ID(), @@identity, IS_USED_LOCK('l') IS NULL, @@last_gtid"
	)
	probes := []string{here, "ROLLBACK TO a", "SELECT @a, @b", "SELECT * FROM tmp", "EXECUTE p", "HANDLER users READ FIRST", "BEGIN", "INSERT INTO scratch (v) VALUES (1)", "COMMIT", variables, "SELECT RELEASE_LOCK('l')"}
	for _, script := range []string{
		"SELECT 1",
		"SET autocommit = 0|SAVEPOINT a",
		"SET autocommit = 0|SAVEPOINT a|SET autocommit = 1",
		"SET @@tx_isolation = 'SERIALIZABLE', @@session.sql_mode = ''",
		"SET @@tx_isolation = 'SERIALIZABLE' /* session */",
		"SET @@tx_read_only = 1, SESSION sql_mode = ''",
		"SET TRANSACTION READ ONLY; SELECT 1",
		"SELECT 1; SET ROLE clerk",
		"SET ROLE clerk; SELECT 1",
		"SELECT 1; XA START 'x'; XA END 'x'; XA PREPARE 'x'",
		"XA START 'y'; XA END 'y'",
		"SET @a = 1; SELEKT",
		"SELECT GET_LOCK('l', 0); SELEKT",
		"SELECT 1; SELECT @a := 5; SELECT bad",
		"IF 1 THEN SET @a = 1; SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1064; END IF",
		"BEGIN NOT ATOMIC SET @a = 1; SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1064; END",
		"CREATE TABLE IF NOT EXISTS lv AS VALUES (GET_LOCK('l', 0), @a := 4)",
		"CREATE TABLE IF NOT EXISTS lw AS WITH w AS (SELECT GET_LOCK('l', 0)) SELECT * FROM w",
		"CREATE VIEW vv AS SELECT 1|DROP VIEW vv",
		"SET sql_mode = 'NO_BACKSLASH_ESCAPES'; SELECT bad|SELECT '\\', GET_LOCK(\"l\",0) -- '",
		"SET sql_mode = 'NO_BACKSLASH_ESCAPES', group_concat_max_len = 1|SELECT '\\', @a := 3 -- '",
		"SET sql_mode = 'NO_BACKSLASH_ESCAPES', group_concat_max_len = 1|SELECT @@warning_count, '\\', @a := 4 -- '|SELECT 1",
		"SET sql_mode = 'NO_BACKSLASH_ESCAPES', group_concat_max_len = 1|SHOW WARNINGS|SELECT '\\', @a := 5 -- '|SELECT 1",
		"SELECT 1; SET NAMES latin1; SET time_zone = '+07:00'",
		"SET NAMES latin1; SELECT bad",
		"/*! SET NAMES latin1 */",
		"/*M! SET sql_mode = '' */",
		"/*M!100100 SET @a = 5 */",
		"SELECT /*! @a := */ 5",
		"SET STATEMENT sql_mode = '' FOR SELECT 1",
		"SET STATEMENT sql_mode = '' FOR SET @a = 3",
		"EXECUTE IMMEDIATE 'SET time_zone = \"+09:00\"'",
		"PREPARE p FROM 'SELECT 4'",
		"PREPARE p FROM 'SET sql_mode = 0'|EXECUTE p|DEALLOCATE PREPARE p",
		"HANDLER users OPEN",
		"SELECT (SELECT COUNT(*) FROM users WHERE GET_LOCK(CONCAT('l', ''), 0))",
		"SELECT 1 FROM users ORDER BY (SELECT GET_LOCK('l', 0))",
		"DO GET_LOCK('l', 0)",
		"DO @a := 5",
		"SHOW TABLES WHERE @a := 3",
		"INSERT INTO scratch (v) VALUES (@a := 3)",
		"INSERT INTO scratch (v) SELECT GET_LOCK('l', 1)",
		"UPDATE scratch SET v = GET_LOCK('l', 1)",
		"SELECT 3 INTO @a",
		"SELECT name FROM users WHERE id = 1 INTO @`a`",
		"SELECT @'a' := 4",
		"(SELECT 3 INTO @a)",
		"WITH w AS (SELECT 1) (SELECT @a := 3)",
		"VALUES (@a := 3)",
		"SELECT 1 UNION SELECT GET_LOCK('l', 0)",
		"CREATE OR REPLACE TEMPORARY TABLE tmp (i INT)",
		"CREATE /*!50000 TEMPORARY */ TABLE tmp (i INT)",
		"CREATE TEMPORARY TABLE tmp SELECT 1",
		"START TRANSACTION WITH CONSISTENT SNAPSHOT",
		"BEGIN WORK",
		"SET autocommit = 0|INSERT INTO scratch (v) VALUES (9)",
		"SET autocommit = 0|INSERT INTO scratch (v) VALUES (9)|ROLLBACK",
		"SET completion_type = 'CHAIN'|COMMIT",
		"SET completion_type = 'CHAIN'|BEGIN|COMMIT|SET completion_type = 0",
		"BEGIN|COMMIT AND CHAIN",
		"BEGIN|INSERT INTO scratch (v) VALUES (9)|CREATE TABLE IF NOT EXISTS done (i INT)",
		"LOCK TABLES users READ",
		"LOCK TABLES users READ; SELECT 1",
		"LOCK TABLES users READ|UNLOCK TABLES; SELECT 1",
		"FLUSH TABLES users WITH READ LOCK",
		"SET last_insert_id = 44",
		"SET SESSION sql_log_bin = 0; SELECT 1",
		"SET @@rand_seed1 = 5",
		"SET timestamp = 77",
		"SET insert_id = 7777",
		"SET collation_server = latin1_bin",
		"SET character_set_database = latin1",
		"SET max_recursive_iterations = 4",
		"SET LOCAL sql_mode = @@sql_mode",
		"SET sql_mode = DEFAULT, NAMES latin1",
		"SET PASSWORD = PASSWORD('secret')",
		"SET profiling = 1",
		"SET tx_isolation = 'READ-COMMITTED'",
		"SET SESSION TRANSACTION READ ONLY",
		"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY",
		"INSERT INTO scratch (v) VALUES (LAST_INSERT_ID(88))",
		"SELECT LAST_INSERT_ID(77)",
		"INSERT INTO scratch (v) VALUES (5), (6)",
		"INSERT INTO scratch (v) VALUES (5)|INSERT INTO scratch VALUES (1, 1)",
		"INSERT INTO scratch (v) VALUES (5)|CREATE TABLE IF NOT EXISTS other (i INT AUTO_INCREMENT PRIMARY KEY) SELECT NULL AS i",
		"INSERT INTO scratch (v) VALUES (5) RETURNING id",
		"REPLACE INTO scratch (v) VALUES (5) RETURNING id",
		"INSERT INTO scratch VALUES (1, 1) ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id), v = 9",
		"SELECT 1 INTO OUTFILE '/nowhere/at/all'",
		"GET DIAGNOSTICS @a = NUMBER",
		"SIGNAL SQLSTATE '45000'",
		"BEGIN NOT ATOMIC SET @a = 3; END",
		"BEGIN NOT ATOMIC SET time_zone = '+03:00'; END",
		"CREATE OR REPLACE FUNCTION leave() RETURNS INT BEGIN SET @a = 5; RETURN 1; END|SELECT leave()",
		"CREATE OR REPLACE PROCEDURE leaves() BEGIN SET sql_mode = ''; SET @b = 3; END|CALL leaves()",
		"CREATE OR REPLACE PROCEDURE begins() START TRANSACTION|CALL begins()",
		"CREATE OR REPLACE PROCEDURE outs(OUT x INT) SET x = 3|CALL outs(@a)",
		"CREATE DATABASE extra|/* " + strings.Repeat("x", 250) + " */ DROP DATABASE extra",
		"SELECT " + strings.Repeat("1+", 120) + "1; CREATE DATABASE IF NOT EXISTS shop2; DROP DATABASE shop2",
		"ANALYZE SELECT GET_LOCK('l', 0)",
		"EXPLAIN SELECT (SELECT @a := 3)",
		"SHOW CREATE TABLE users",
		"SHOW EXPLAIN FOR 1",
	} {
		for _, d := range []*sql.DB{direct, through} {
			c, err := d.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			ask(c, "XA ROLLBACK 'x'; SELECT 1")
			if a := ask(c, "CREATE OR REPLACE TABLE scratch (id INT AUTO_INCREMENT PRIMARY KEY, v INT)"); a != "" {
				t.Fatal(script, ": ", a)
			}
			_ = c.Close()
			gone()
		}
		for mine := range 2 { // whether the others come before or after the session's own probes
			a, err := through.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			b, err := through.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			x, _ := direct.Conn(t.Context())
			y, _ := direct.Conn(t.Context())
			own := func() {
				for _, p := range probes {
					if got, want := ask(a, p), ask(x, p); got != want && got != "error 1105" {
						t.Errorf("%s, then %s: %s", script, short(p), differ(got, want))
					}
				}
			}
			same := func(one, two *sql.Conn, s string) {
				if got, want := ask(one, s), ask(two, s); got != want {
					t.Errorf("%s: %s: %s", script, short(s), differ(got, want))
				}
			}
			for s := range strings.SplitSeq(script, "|") {
				same(a, x, s)
			}
			if mine == 1 {
				own()
			}
			if !g.kept() { // else there is no connection for it
				for _, p := range probes {
					if got, want := ask(b, p), ask(y, p); got != want && got != "error 1105" {
						t.Errorf("%s, then another session's %s: %s", script, short(p), differ(got, want))
					}
				}
			}
			leave := func(all ...*sql.Conn) {
				for _, c := range all {
					_ = c.Raw(func(any) error { return errBad })
					_ = c.Close()
				}
			}
			leave(b, y)
			if mine == 0 {
				own()
			}
			leave(a, x)
			gone()
		}
	}
}

// goneFrom gives a function that waits until clients that have left are gone from the servers, the second of which is without a gateway. A server ends a connection some time after its
// client has closed it, and only then gives up the locks of that.
func goneFrom(t *testing.T, g *gate, db, plain *testenv.DB) func() {
	var roots [2]*sql.DB
	for i, one := range []*testenv.DB{db, plain} {
		roots[i] = one.Open(t, "root", "")
	}
	return func() {
		t.Helper()
		testenv.Eventually(t, 30*time.Second, func() error {
			if n := g.Sessions(); n > 0 {
				return fmt.Errorf("%d sessions", n)
			}
			for i, kept := range []int{g.stats().Open, 0} {
				if n := value[int](t, roots[i], "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'gate'"); n > kept {
					return fmt.Errorf("server %d has %d connections, not %d", i, n, kept)
				}
			}
			return nil
		})
	}
}

// kept waits until all sessions are between statements, and says whether one of them keeps the only connection.
func (g *gate) kept() bool {
	g.t.Helper()
	testenv.Eventually(g.t, 30*time.Second, func() error {
		for _, s := range g.sessionsOf("") {
			if s.waiting.Load() != 0 {
				return fmt.Errorf("session %d is not done", s.id)
			}
		}
		return nil
	})
	n := g.stats()
	return n.Open > n.Idle
}

func short(s string) string { return s[:min(len(s), 60)] }

// differ gives the first lines that are not the same.
func differ(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			return "got " + g[i] + ", on a server " + strings.Join(w[min(i, len(w)):min(i+1, len(w))], "")
		}
	}
	return "got less than " + want
}
