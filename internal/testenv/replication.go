package testenv

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"
)

// Group is three MariaDB servers: at first the first one is the primary, and the other two are read-only and replicate from it by
// GTID. Servers keep address and data over a restart; roles that were changed by hand are forgotten then, as on real servers: the first one
// is writable again, the others are read-only again and resume their replication.
type Group struct {
	DBs []*DB
}

// Replicated starts a group. Further options come last on the command line of each server.
func Replicated(t testing.TB, options ...string) *Group {
	t.Helper()
	g := &Group{}
	for i := range 3 {
		own := []string{fmt.Sprintf("--server-id=%d", i+1), "--log-bin=bin", "--log-slave-updates", "--slave-net-timeout=5", "--slave-parallel-mode=none"}
		if i > 0 {
			own = append(own, "--read-only")
		}
		g.DBs = append(g.DBs, newDB(t, append(own, options...)))
	}
	for _, d := range g.DBs {
		d.start(t)
	}
	for i, d := range g.DBs {
		d.ready(t)
		if i > 0 {
			g.Follow(t, i, 0)
		}
	}
	return g
}

// Addresses returns host:port of each server.
func (g *Group) Addresses() (all []string) {
	for _, d := range g.DBs {
		all = append(all, d.Addr)
	}
	return all
}

// Cutters puts a cutter in front of each server, for clients; the servers replicate directly.
func (g *Group) Cutters(t testing.TB) (all []*Cutter) {
	for _, d := range g.DBs {
		all = append(all, NewCutter(t, d.Addr))
	}
	return all
}

// Promote makes a server a primary, as an operator does it by hand. What becomes of the others is the caller's business.
func (g *Group) Promote(t testing.TB, i int) {
	t.Helper()
	g.DBs[i].Exec(t, "STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only=0")
}

// Demote makes a server read-only. Transactions that were committing are over when it returns.
func (g *Group) Demote(t testing.TB, i int) {
	t.Helper()
	g.DBs[i].Exec(t, "SET GLOBAL read_only=1")
}

// Follow makes a server read-only and has it replicate from another one.
func (g *Group) Follow(t testing.TB, i, primary int) {
	t.Helper()
	g.FollowAt(t, i, g.DBs[primary].Addr)
}

// FollowAt is Follow with an address, that of a cutter for instance.
func (g *Group) FollowAt(t testing.TB, i int, address string) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	g.DBs[i].Exec(t, "SET GLOBAL read_only=1", "STOP SLAVE",
		fmt.Sprintf("CHANGE MASTER TO master_host='%s', master_port=%s, master_user='root', master_connect_retry=1, master_heartbeat_period=1, master_use_gtid=current_pos", host, port),
		"START SLAVE")
}

// StopReplication stops a replica where it is; StartReplication lets it go on.
func (g *Group) StopReplication(t testing.TB, i int) {
	t.Helper()
	g.DBs[i].Exec(t, "STOP SLAVE")
}

// StartReplication is the opposite of StopReplication.
func (g *Group) StartReplication(t testing.TB, i int) {
	t.Helper()
	g.DBs[i].Exec(t, "START SLAVE")
}

// Kill kills a server with SIGKILL.
func (g *Group) Kill(i int) { g.DBs[i].Kill() }

// Restart starts a server again, after Kill or while it runs.
func (g *Group) Restart(t testing.TB, i int) {
	t.Helper()
	g.DBs[i].Restart(t)
}

// Pause makes a server hang (SIGSTOP); Resume lets it go on.
func (g *Group) Pause(t testing.TB, i int) {
	t.Helper()
	if err := g.DBs[i].Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

// Resume is the opposite of Pause.
func (g *Group) Resume(t testing.TB, i int) {
	t.Helper()
	if err := g.DBs[i].Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// Sync waits until a server has all that another one has now.
func (g *Group) Sync(t testing.TB, i, primary int) {
	t.Helper()
	var position string
	if err := g.DBs[primary].Open(t, "root", "").QueryRow("SELECT @@global.gtid_current_pos").Scan(&position); err != nil {
		t.Fatal(err)
	}
	db := g.DBs[i].Open(t, "root", "")
	Eventually(t, 30*time.Second, func() error {
		var late int
		if err := db.QueryRow("SELECT MASTER_GTID_WAIT(?, 1)", position).Scan(&late); err != nil {
			return err
		}
		if late != 0 {
			return fmt.Errorf("server %d has not reached %s", i, position)
		}
		return nil
	})
}
