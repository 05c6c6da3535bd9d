package testenv

import (
	"testing"
)

func TestReplicated(t *testing.T) {
	t.Parallel()
	g := Replicated(t)
	g.DBs[0].Exec(t, "CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY)", "INSERT INTO shop.t VALUES (1)")
	g.Sync(t, 1, 0)
	g.Sync(t, 2, 0)

	g.Kill(0)
	g.Promote(t, 1)
	g.Follow(t, 2, 1)
	g.DBs[1].Exec(t, "INSERT INTO shop.t VALUES (2)")
	g.Sync(t, 2, 1)
	g.Restart(t, 0)
	g.Follow(t, 0, 1)
	g.Sync(t, 0, 1)
	for i := range 3 {
		var rows int
		if err := g.DBs[i].Open(t, "root", "shop").QueryRow("SELECT COUNT(*) FROM t").Scan(&rows); err != nil || rows != 2 {
			t.Errorf("server %d: %d rows, %v", i, rows, err)
		}
	}
	g.Pause(t, 2)
	g.Resume(t, 2)
	g.StopReplication(t, 2)
	g.DBs[1].Exec(t, "INSERT INTO shop.t VALUES (3)")
	g.StartReplication(t, 2)
	g.Sync(t, 2, 1)
}
