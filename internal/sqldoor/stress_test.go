package sqldoor

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// Forty sessions over three connections say random things, each beside a session of its own on a server that nobody shares: rows, errors and settings are equal.
func TestSessionsAreAsOnTheirOwn(t *testing.T) {
	db, plain := mariadb(t), mariadb(t)
	for _, d := range [...]*testenv.DB{db, plain} {
		d.Exec(t, "CREATE PROCEDURE shop.both(IN i INT, OUT o INT) BEGIN SELECT i; SET o = i + 1; SELECT i + 2; END", "CREATE FUNCTION shop.one() RETURNS INT BEGIN SET @f = 1; RETURN 1; END")
	}
	g := open(t, pooled(db.Addr, "max_connections: 3, queue_timeout: 60s"))
	p := g.beside(t, plain, uint64(time.Now().UnixNano()))
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(p.seed, uint64(i)))
			table := fmt.Sprintf("q%d", i)
			for life := range 6 {
				w := p.meet(fmt.Sprintf("session %d, life %d", i, life), random)
				if w == nil {
					return
				}
				both := w.both
				both("CREATE OR REPLACE TABLE " + table + fmt.Sprintf(" (id INT PRIMARY KEY AUTO_INCREMENT, v INT) AUTO_INCREMENT = %d", 1000*(i+1)))
				going := true
				for n := 0; n < 30 && going; n++ {
					token := fmt.Sprintf("%d-%d-%d", i, life, n)
					free := []string{
						"SELECT '" + token + "', @@sql_mode, @@time_zone, @@character_set_client, @@collation_connection, @@group_concat_max_len, @@tx_isolation, @@autocommit, DATABASE()",
						"SELECT '" + token + "', LAST_INSERT_ID(), @@identity", "SELECT '" + token + "'; SELECT '" + token + "', 2",
						"SELECT '" + token + "'; SELECT bad; SELECT 3", "SET NAMES latin1; SELECT bad", "SET time_zone = '+03:00'; SELECT '" + token + "'",
						"INSERT INTO " + table + " (v) VALUES (1), (2)", "INSERT INTO " + table + " VALUES (1, 1)", "INSERT IGNORE INTO " + table + " VALUES (1, 1)",
						"INSERT INTO " + table + " (v) VALUES (3) RETURNING id", "UPDATE " + table + " SET v = LAST_INSERT_ID(v + 1) LIMIT 1", "SELECT LAST_INSERT_ID(9)",
						"SET sql_mode = 'NO_BACKSLASH_ESCAPES'", "SET sql_mode = 'ANSI_QUOTES'", "SET sql_mode = DEFAULT", "SET time_zone = '+05:00', group_concat_max_len = 1", "SET NAMES gbk", "SET NAMES utf8mb4",
						"/*! SET time_zone = '-02:00' */", "SET STATEMENT sql_mode = '' FOR SELECT @@sql_mode", "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", "SET tx_isolation = 'SERIALIZABLE'",
						"SELECT \"x\", '\\\\'", "SELECT ROW_COUNT()", "SELECT FOUND_ROWS()", "SHOW WARNINGS", "SHOW ERRORS", "SELECT @@warning_count, @@error_count", "SELECT 1/0", "SELEKT", "SELECT * FROM missing",
						"SELECT * FROM users LIMIT 2", "SELECT COUNT(*), SUM(v) FROM " + table, "SET sql_select_limit = 1", "SET sql_select_limit = DEFAULT", "DO 1", "SHOW COUNT(*) WARNINGS",
						"CREATE TABLE IF NOT EXISTS " + table + " (i INT)", "ALTER TABLE " + table + " COMMENT 'x'", "SELECT CAST('x' AS INT) FROM users", "REPLACE INTO " + table + " (v) VALUES (8)",
						"DELETE FROM " + table + " LIMIT 1", "SELECT '" + token + "' FROM users", "SELECT SQL_CALC_FOUND_ROWS id FROM users LIMIT 1", "SAVEPOINT a", "ROLLBACK TO a", "COMMIT", "ROLLBACK",
						"SET autocommit = 1", "SET autocommit = 0; COMMIT",
					}
					switch random.IntN(12) {
					case 0: // a transaction
						begin := []string{"BEGIN", "START TRANSACTION", "/* x */ begin work", "/*!BEGIN*/", "SELECT 1; BEGIN", "START TRANSACTION READ ONLY", "SET autocommit = 0"}[random.IntN(7)]
						going = both(begin) && both("INSERT INTO "+table+" (v) VALUES (7)") && both("SAVEPOINT s") && both("SELECT COUNT(*) FROM "+table) && both("SELECT ROW_COUNT(), LAST_INSERT_ID()")
						end := []string{"COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK TO s", "CREATE TABLE IF NOT EXISTS " + table + " (i INT)", "LOCK TABLES " + table + " WRITE", "BEGIN"}[random.IntN(7)]
						_ = both(end) && both("UNLOCK TABLES") && both("ROLLBACK")
						both("SET autocommit = 1")
						both("SELECT COUNT(*) FROM " + table)
					case 1:
						both("SELECT ?, @@time_zone, @@sql_mode", token)
					case 2:
						both("INSERT INTO "+table+" (v) VALUES (?)", n)
					case 3:
						if random.IntN(4) == 0 { // what pins for the rest of the session's life
							pin := []string{"SET @u = '" + token + "'", "SELECT @u := '" + token + "'", "SELECT one()", "CALL both(3, @u)", "CREATE TEMPORARY TABLE tt (i INT)", "SELECT GET_LOCK('" + table + "', 0)",
								"PREPARE p FROM 'SELECT 4'", "EXECUTE IMMEDIATE 'SET @u = 5'", "SET timestamp = 5", "XA START '" + table + "'"}[random.IntN(10)]
							both(pin)
							both("SELECT @u, @f, NOW() < '1980-01-01'")
							both("SELECT * FROM tt")
							both("EXECUTE p")
							going = false
						}
					default:
						both(free[random.IntN(len(free))])
					}
				}
				w.part()
			}
		})
	}
	wg.Wait()
	t.Logf("%d statements, %d refused", p.asked, p.refused)
	testenv.Eventually(t, 5*time.Second, func() error {
		if n := g.stats(); n.Open > 3 || n.Open != n.Idle {
			return fmt.Errorf("pool %+v", n)
		}
		return nil
	})
}
