package test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// What operators see of the SQL door, through the whole binary: digests and sessions in the admin API, the slow log and its rotation, metrics.
func TestOperatorsView(t *testing.T) {
	db := testenv.MariaDB(t)
	db.Exec(t, "CREATE USER gate@'%' IDENTIFIED BY 'secret'", "GRANT ALL ON *.* TO gate@'%'", "CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY)", "INSERT INTO shop.t VALUES (1), (2)")
	slow := filepath.Join(testenv.Dir(t), "slow.log")
	g := start(t, fmt.Sprintf(`
listeners:
  sql: {address: "127.0.0.1:0", protocol: mysql}
databases:
  shop:
    login: {user: gate, password: secret}
    pool: {max_connections: 5, min_idle: 2}
    shards: {s0: {primary: %q}}
consumers:
  app: {mysql: apple}
slow_log: {threshold: 200ms, to: %q}
access_log: none
admin: "127.0.0.1:0"
`, db.Addr, slow))
	pool, err := sql.Open("mysql", "app:apple@tcp("+g.addresses["sql"]+")/shop")
	must(t, err)
	defer pool.Close()
	pool.SetMaxOpenConns(1)
	for i := range 3 {
		must(t, pool.QueryRow(fmt.Sprintf("SELECT id FROM t WHERE id = %d", i%2+1)).Scan(new(int)))
	}
	must(t, pool.QueryRow("SELECT SLEEP(0.3)").Scan(new(int)))
	tx, err := pool.Begin()
	must(t, err)
	must(t, tx.QueryRow("SELECT id FROM t WHERE id = 1 FOR UPDATE").Scan(new(int)))

	var digests struct {
		Total   int
		Digests []struct {
			Text        string
			Count, Rows int
		}
	}
	g.admin("/api/v1/databases/shop/digests", &digests)
	if digests.Total < 3 || digests.Digests[0].Text != "select SLEEP(?)" {
		t.Errorf("%+v", digests)
	}
	found := false
	for _, d := range digests.Digests {
		found = found || d.Text == "select id from t where id = ?" && d.Count == 3 && d.Rows == 3
	}
	if !found {
		t.Errorf("%+v", digests)
	}
	var sessions struct {
		Total    int
		Sessions []struct {
			Consumer, Database, Instance string
			Pins                         []struct{ Reason string }
		}
	}
	g.admin("/api/v1/sessions", &sessions)
	if sessions.Total != 1 || sessions.Sessions[0].Consumer != "app" || sessions.Sessions[0].Instance != db.Addr || len(sessions.Sessions[0].Pins) != 1 || sessions.Sessions[0].Pins[0].Reason != "transaction" {
		t.Errorf("%+v", sessions)
	}
	type databases struct {
		Databases []struct {
			Pins   []struct{ Sessions int }
			Shards []struct {
				Primary struct {
					Pool struct{ Open, Used, Idle int }
				}
			}
		}
	}
	testenv.Eventually(t, deadline, func() error { // the health check opens what is kept ahead
		var now databases
		g.admin("/api/v1/databases", &now)
		d := now.Databases[0]
		if p := d.Shards[0].Primary.Pool; p.Used != 1 || p.Idle < 2 || p.Open != p.Used+p.Idle || len(d.Pins) != 1 || d.Pins[0].Sessions != 1 {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
	must(t, tx.Rollback())

	has := func(path, text string) {
		t.Helper()
		testenv.Eventually(t, deadline, func() error {
			b, err := os.ReadFile(path)
			if err == nil && strings.Count(string(b), `"slow":true`) != 1 || !strings.Contains(string(b), text) {
				err = fmt.Errorf("no %s in %s: %s", text, path, b)
			}
			return err
		})
	}
	has(slow, `"statement":"select SLEEP(?)"`)
	must(t, os.Rename(slow, slow+".1"))
	g.hup()
	testenv.Eventually(t, deadline, func() error { _, err := os.Stat(slow); return err })
	must(t, pool.QueryRow("SELECT SLEEP(0.3), 'secret'").Scan(new(int), new(string)))
	has(slow, `"statement":"select SLEEP(?), ?"`)
	has(slow+".1", `"statement":"select SLEEP(?)"`)

	m := g.metrics()
	if m["menshen_sql_slow_log_records_total"] != 2 || m["menshen_sql_digests"] < 4 || m[`menshen_sql_pool_max_connections{database="shop"}`] != 5 {
		t.Errorf("%v %v", m["menshen_sql_slow_log_records_total"], m["menshen_sql_digests"])
	}
	if status, body := g.post("/api/v1/digests/reset", ""); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	g.admin("/api/v1/databases/shop/digests", &digests)
	if digests.Total != 0 {
		t.Errorf("%+v", digests)
	}
}
