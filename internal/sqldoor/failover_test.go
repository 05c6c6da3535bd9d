package sqldoor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/sqldoor/group"
	"github.com/menshen-gateway/menshen/internal/testenv"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// fleet is a gate in front of a group of real servers.
type fleet struct {
	*testenv.Group
	*gate
	addresses []string
}

// rights are what a login needs; READ ONLY ADMIN is not among them, because it would write on read-only servers.
const rights = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, INDEX, ALTER, CREATE TEMPORARY TABLES, LOCK TABLES, PROCESS"

// config is the gate's configuration; more are settings of the database.
func (f *fleet) config(more string) string {
	return fmt.Sprintf(`
listeners:
  sql: {address: "127.0.0.1:0", protocol: mysql}
databases:
  shop:
    login: {user: gate, password: secret}
    check_interval: 100ms
    shards: {s0: {primary: %q, replicas: [%q, %q], schema: shop}}
%s
consumers:
  app: {mysql: {password: apple}}
`, f.addresses[0], f.addresses[1], f.addresses[2], more)
}

// fleetOf starts servers and a gate, and waits until it knows the roles. With cut, cutters stand between.
func fleetOf(t *testing.T, more string, cut bool, options ...string) (*fleet, []*testenv.Cutter) {
	t.Helper()
	f := &fleet{Group: testenv.Replicated(t, options...)}
	f.DBs[0].Exec(t, "CREATE USER gate@'%' IDENTIFIED BY 'secret'", "GRANT "+rights+", REPLICA MONITOR ON *.* TO gate@'%'",
		"CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(50), server INT)")
	f.Sync(t, 1, 0)
	f.Sync(t, 2, 0)
	f.addresses = f.Addresses()
	var cutters []*testenv.Cutter
	if cut {
		cutters = f.Cutters(t)
		for i, c := range cutters {
			f.addresses[i] = c.Address
		}
	}
	f.gate = open(t, f.config(more))
	f.sees(t, group.Ready, 0)
	f.shows(t, 1, "replica", "replicates from")
	f.shows(t, 2, "replica", "replicates from")
	return f, cutters
}

func (f *fleet) database() *database { return f.tables.Load().databases["shop"] }

// sees waits until the gate thinks so of the group.
func (f *fleet) sees(t testing.TB, state group.State, primary int) {
	t.Helper()
	testenv.Eventually(t, 10*time.Second, func() error {
		d := f.database().keeper.decision.Load()
		if d == nil || d.State != state || state == group.Ready && d.Primary != f.addresses[primary] {
			return fmt.Errorf("decision is %+v", d)
		}
		return nil
	})
}

// shows waits until SHOW MENSHEN INSTANCES has a role and a reason for an instance.
func (f *fleet) shows(t testing.TB, i int, role, reason string) {
	t.Helper()
	testenv.Eventually(t, 10*time.Second, func() error {
		st := f.database().at(f.addresses[i]).endpoint.Status()
		if st.Role != role || !strings.Contains(st.Reason, reason) {
			return fmt.Errorf("instance %d is %s: %s", i, st.Role, st.Reason)
		}
		return nil
	})
}

// settles expects that two instances are writable, demotes one of them, and has a row inserted on the other.
func (f *fleet) settles(t testing.TB, db *sql.DB, demoted, primary int, name string) {
	t.Helper()
	f.sees(t, group.Split, 0)
	f.Demote(t, demoted)
	f.sees(t, group.Ready, primary)
	exec(t, db, insert, name)
}

// inserts inserts a row in the background.
func inserts(db *sql.DB, name string) (done chan error) {
	done = make(chan error, 1)
	go func() {
		_, err := db.Exec(insert, name)
		done <- err
	}()
	return done
}

// insertWaits begins to insert a row, and returns when that waits for a primary.
func (f *fleet) insertWaits(t testing.TB, db *sql.DB, name string) (done chan error) {
	t.Helper()
	done = inserts(db, name)
	testenv.Eventually(t, 10*time.Second, func() error {
		if f.database().keeper.waiting.Load() != 1 {
			return errors.New("nothing waits")
		}
		return nil
	})
	return done
}

const insert = "INSERT INTO t (name, server) VALUES (?, @@server_id)"

// writers insert rows all the time, each with a name of its own, and remember the names of those that were acknowledged.
type writers struct {
	mu   sync.Mutex
	ok   map[string]time.Time
	bad  []error
	stop func()
}

func (f *fleet) write(t *testing.T, n int) *writers {
	w := &writers{ok: map[string]time.Time{}}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	db := f.pool("app:apple", "shop")
	for i := range n {
		all.Go(func() {
			for j := 0; ctx.Err() == nil; j++ {
				name := fmt.Sprintf("%d-%d", i, j)
				_, err := db.Exec(insert, name)
				w.mu.Lock()
				if err == nil {
					w.ok[name] = time.Now()
				} else {
					w.bad = append(w.bad, err)
				}
				w.mu.Unlock()
			}
		})
	}
	w.stop = func() { cancel(); all.Wait() }
	t.Cleanup(w.stop)
	return w
}

// after waits for an acknowledged write that came after a moment, and gives how long it took.
func (w *writers) after(t testing.TB, moment time.Time) time.Duration {
	t.Helper()
	var first time.Time
	testenv.Eventually(t, 20*time.Second, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		first = time.Time{}
		for _, at := range w.ok {
			if at.After(moment) && (first.IsZero() || at.Before(first)) {
				first = at
			}
		}
		if first.IsZero() {
			return fmt.Errorf("no write was acknowledged; errors: %v", w.bad[max(0, len(w.bad)-3):])
		}
		return nil
	})
	return first.Sub(moment)
}

// lost gives the names that were acknowledged and are not on a server.
func (w *writers) lost(t testing.TB, db *testenv.DB) (names []string) {
	t.Helper()
	rows, err := db.Open(t, "root", "shop").Query("SELECT name FROM t")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	there := map[string]bool{}
	for rows.Next() {
		var name sql.NullString
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		there[name.String] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.ok {
		if !there[name] {
			names = append(names, name)
		}
	}
	return names
}

// A clean switchover: writers notice a pause, no acknowledged write is lost, and a transaction that was open is told.
func TestSwitchover(t *testing.T) {
	t.Parallel()
	f, _ := fleetOf(t, "", false)
	one, err := f.pool("app:apple", "shop").Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	begin := func() {
		t.Helper()
		for _, statement := range []string{"BEGIN", "INSERT INTO t (name) VALUES ('open')"} {
			if _, err := one.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
	}
	begin()
	w := f.write(t, 4)
	w.after(t, time.Now())

	for round, from := range []int{0, 1} {
		to := 1 - from
		f.Demote(t, from)
		f.Sync(t, to, from)
		promoted := time.Now()
		f.Promote(t, to)
		f.Follow(t, 2, to)
		f.Follow(t, from, to)
		f.sees(t, group.Ready, to)
		if took := w.after(t, promoted); took > 100*time.Millisecond+time.Second { // the interval, and a margin for a busy machine
			t.Errorf("round %d: the first write came %s after the promotion", round, took)
		} else {
			t.Logf("round %d: the first write came %s after the promotion", round, took)
		}
		_, err = one.ExecContext(t.Context(), "INSERT INTO t (name) VALUES ('open')")
		wantCode(t, err, 1290, "The transaction was rolled back")
		begin() // the session goes on
		f.Sync(t, from, to)
	}
	w.stop()
	if got := f.database().keeper.failovers.Load(); got != 2 {
		t.Errorf("%d failovers", got)
	}
	f.Sync(t, 1, 0)
	f.Sync(t, 2, 0)
	for i, db := range f.DBs {
		if lost := w.lost(t, db); len(lost) > 0 {
			t.Errorf("server %d: %d of %d acknowledged writes are lost: %v", i, len(lost), len(w.ok), lost[:min(3, len(lost))])
		}
	}
	for _, err := range w.bad {
		if code(err) != 2013 { // caught by its end as the primary
			t.Errorf("a writer met %v", err)
		}
	}
	if n := value[int](t, f.DBs[0].Open(t, "root", "shop"), "SELECT COUNT(*) - COUNT(DISTINCT name) FROM t WHERE name <> 'open'"); n != 0 {
		t.Errorf("%d rows were written twice", n)
	}
	t.Logf("%d writes, %d errors", len(w.ok), len(w.bad))
	if n := value[int](t, f.DBs[0].Open(t, "root", "shop"), "SELECT COUNT(*) FROM t WHERE name = 'open' OR server = 3"); n != 0 {
		t.Errorf("%d rows of a transaction that was rolled back, or written on a server that was never a primary", n)
	}
}

// Two instances are writable: nothing is written, until that is over.
func TestTwoPrimaries(t *testing.T) {
	t.Parallel()
	f, _ := fleetOf(t, "", false)
	db := f.one("app:apple", "shop")
	exec(t, db, insert, "before")
	f.DBs[1].Exec(t, "SET GLOBAL read_only=0") // its replication runs on
	f.sees(t, group.Split, 0)
	_, err := db.Exec(insert, "split")
	wantCode(t, err, 1290, "more than one instance is writable")
	f.shows(t, 0, "writable", "set all but one read_only")
	f.shows(t, 1, "writable", "set all but one read_only")
	if in, lease, ok := f.database().reader(); !ok {
		t.Error("nothing may be read")
	} else if lease.Done(upstream.Outcome{Ignored: true}); in.address == f.addresses[1] {
		t.Error("the rival may be read")
	}
	f.Demote(t, 1)
	f.sees(t, group.Ready, 0)
	exec(t, db, insert, "after")
	f.shows(t, 1, "replica", "replicates from")
	if n := value[int](t, f.DBs[0].Open(t, "root", "shop"), "SELECT COUNT(*) FROM t"); n != 2 {
		t.Errorf("%d rows", n)
	}
	if n := f.database().keeper.conflicts.Load(); n != 1 {
		t.Errorf("%d conflicts", n)
	}
}

// The primary is killed: statements wait for the promotion of another one. The old one comes back, and does not get a write.
func TestPrimaryKilled(t *testing.T) {
	t.Parallel()
	f, _ := fleetOf(t, "", false)
	db := f.pool("app:apple", "shop")
	exec(t, db, insert, "before")
	f.Sync(t, 1, 0)
	f.Kill(0)
	var all sync.WaitGroup
	var failed atomic.Int64
	for i := range 8 {
		all.Go(func() {
			// A connection that is idle in the client's pool is well: only the gateway's own was lost.
			if _, err := db.Exec(insert, fmt.Sprint("waits-", i)); err != nil {
				failed.Add(1)
				if c := code(err); c != 2013 {
					t.Error(err)
				}
			}
		})
	}
	testenv.Eventually(t, 10*time.Second, func() error {
		if n := f.database().keeper.waiting.Load() + failed.Load(); n != 8 {
			return fmt.Errorf("%d statements wait or failed", n)
		}
		return nil
	})
	f.sees(t, group.Headless, 0)
	if in, lease, ok := f.database().reader(); !ok {
		t.Error("the replicas may not be read while there is no primary")
	} else {
		lease.Done(upstream.Outcome{Ignored: true})
		if in.address == f.addresses[0] {
			t.Error("the dead one may be read")
		}
	}
	f.Promote(t, 1)
	f.Follow(t, 2, 1)
	all.Wait()
	if n := failed.Load(); n > 1 { // the one whose connection was used within staleAfter before
		t.Errorf("%d statements failed", n)
	}
	f.sees(t, group.Ready, 1)
	f.shows(t, 2, "replica", "replicates from")
	if n := value[int](t, f.DBs[1].Open(t, "root", "shop"), "SELECT COUNT(*) FROM t WHERE server = 2"); n < 7 {
		t.Errorf("%d rows were written on the new primary", n)
	}

	f.Restart(t, 0) // writable, as it was configured
	f.sees(t, group.Split, 0)
	_, err := db.Exec(insert, "split")
	wantCode(t, err, 1290, "more than one instance is writable")

	// The newer primary dies too: the old one lacks what was written since, so it is not believed.
	f.Kill(1)
	f.sees(t, group.Headless, 0)
	if why := f.database().keeper.decision.Load().Reason; !strings.Contains(why, "has not followed it since") {
		t.Error(why)
	}
	f.Restart(t, 1)
	f.DBs[1].Exec(t, "SET GLOBAL read_only=0")
	f.settles(t, db, 0, 1, "after")
	if n := value[int](t, f.DBs[0].Open(t, "root", "shop"), "SELECT COUNT(*) FROM t WHERE name <> 'before'"); n != 0 {
		t.Errorf("%d rows reached the old primary", n)
	}
}

// The primary hangs, and another one is promoted: statements that hang with it are ended, new ones go on.
func TestPrimaryHangs(t *testing.T) {
	t.Parallel()
	f, _ := fleetOf(t, "", false)
	db := f.pool("app:apple", "shop")
	exec(t, db, insert, "before")
	f.Sync(t, 1, 0)
	f.Pause(t, 0)
	hung := inserts(db, "hangs")
	f.shows(t, 0, "primary", "no answer") // one silent check does not unseat it
	f.Promote(t, 1)
	f.Follow(t, 2, 1)
	f.sees(t, group.Ready, 1)
	exec(t, db, insert, "after")
	select {
	case err := <-hung:
		if err != nil { // it may also have waited for the new primary
			wantCode(t, err, 2013, "Lost connection")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a statement hangs with the old primary")
	}
	f.Resume(t, 0)
	f.settles(t, db, 0, 1, "end")
	if n := value[int](t, f.DBs[1].Open(t, "root", "shop"), "SELECT COUNT(*) FROM t WHERE name IN ('before', 'after', 'end')"); n != 3 {
		t.Errorf("%d rows on the new primary", n)
	}
}

// The network between gateway and primary is cut.
func TestPrimaryCutOff(t *testing.T) {
	t.Parallel()
	f, cut := fleetOf(t, "", true)
	db := f.pool("app:apple", "shop")
	exec(t, db, insert, "before")
	cut[0].Pause() // bytes go nowhere
	f.sees(t, group.Headless, 0)
	cut[0].Resume()
	f.sees(t, group.Ready, 0) // as if nothing had been
	exec(t, db, insert, "between")
	cut[0].Cut()
	f.sees(t, group.Headless, 0)
	done := f.insertWaits(t, db, "waits")
	f.Sync(t, 1, 0)
	f.Promote(t, 1)
	if err := <-done; err != nil {
		t.Error(err)
	}
	// The old primary is alive, and others may still write there: when it is seen again, that is two.
	cut[0].Restore(t)
	f.sees(t, group.Split, 0)
	f.Demote(t, 0)
	f.sees(t, group.Ready, 1)
}

// Nothing waits for ever, and not everybody may wait.
func TestFailoverQueue(t *testing.T) {
	t.Parallel()
	f, _ := fleetOf(t, "    failover_wait: 700ms\n    failover_queue: 2", false)
	clients := make([]*sql.Conn, 4)
	db := f.pool("app:apple", "shop")
	for i := range clients {
		var err error
		if clients[i], err = db.Conn(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer clients[i].Close()
	}
	f.Demote(t, 0)
	f.sees(t, group.Headless, 0)
	began := time.Now()
	codes := make(chan int, 4)
	for _, c := range clients {
		go func() {
			_, err := c.ExecContext(t.Context(), insert, "never")
			codes <- code(err)
		}()
	}
	seen := map[int]int{}
	for range 2 {
		seen[<-codes]++
	}
	early := time.Since(began)
	for range 2 {
		seen[<-codes]++
	}
	late := time.Since(began)
	if seen[1040] != 2 || seen[2003] != 2 || early > 600*time.Millisecond || late < 700*time.Millisecond || late > 3*time.Second {
		t.Errorf("codes %v, the first two after %s, the others after %s", seen, early, late)
	}
	if n := f.database().keeper.waiting.Load(); n != 0 {
		t.Errorf("%d wait", n)
	}
	f.reload(f.config("    failover_wait: 0s"))
	began = time.Now()
	_, err := clients[0].ExecContext(t.Context(), insert, "never")
	wantCode(t, err, 2003, "no instance takes writes")
	if time.Since(began) > 500*time.Millisecond {
		t.Error("it waited")
	}
	f.DBs[0].Exec(t, "SET GLOBAL read_only=0")
	f.sees(t, group.Ready, 0)
}

// A reload in the middle of a failover neither forgets nor forgoes anything.
func TestReloadDuringFailover(t *testing.T) {
	t.Parallel()
	f, _ := fleetOf(t, "", false)
	db := f.pool("app:apple", "shop")
	f.Demote(t, 0)
	f.sees(t, group.Headless, 0)
	done := f.insertWaits(t, db, "first")
	f.reload(f.config("    max_lag: 3s"))
	f.Sync(t, 1, 0)
	f.Promote(t, 1)
	if err := <-done; err != nil {
		t.Error(err)
	}
	f.sees(t, group.Ready, 1)

	f.Demote(t, 1)
	f.sees(t, group.Headless, 0)
	f.DBs[0].Exec(t, "SET GLOBAL read_only=0") // it has not followed the other one
	testenv.Eventually(t, 10*time.Second, func() error {
		if why := f.database().keeper.decision.Load().Reason; !strings.Contains(why, "has not followed it since") {
			return errors.New(why)
		}
		return nil
	})
	f.Demote(t, 0)
	done = f.insertWaits(t, db, "second")
	f.DBs[1].Exec(t, "CREATE USER gate2@'%' IDENTIFIED BY 'secret'", "GRANT ALL ON *.* TO gate2@'%'")
	f.reload(strings.ReplaceAll(f.config(""), "user: gate,", "user: gate2,"))
	f.DBs[1].Exec(t, "SET GLOBAL read_only=0")
	f.sees(t, group.Ready, 1)
	if err := <-done; err != nil { // it may have come before the endpoints retired
		wantCode(t, err, 1053, "")
	}
	exec(t, db, insert, "third")
}

// Replicas leave the rotation with a reason, and come back.
func TestReplicasInRotation(t *testing.T) {
	t.Parallel()
	f, _ := fleetOf(t, "    read_from: replicas\n    max_lag: 700ms", false)
	db := f.one("app:apple", "shop")
	f.DBs[1].Exec(t, "STOP SLAVE SQL_THREAD")
	f.shows(t, 1, "replica", "replication stopped: SQL thread")
	f.StopReplication(t, 2)
	f.shows(t, 2, "replica", "replication stopped")
	if in, lease, ok := f.database().replica(nil); ok {
		lease.Done(upstream.Outcome{Ignored: true})
		t.Errorf("%s is in rotation", in.address)
	}
	f.StartReplication(t, 1)
	f.StartReplication(t, 2)
	f.shows(t, 1, "replica", "replicates from")
	f.shows(t, 2, "replica", "replicates from")
	seen := map[string]int{}
	for range 10 {
		in, lease, ok := f.database().replica(nil)
		if !ok {
			t.Fatal("no replica")
		}
		lease.Done(upstream.Outcome{Ignored: true})
		seen[in.address]++
	}
	if seen[f.addresses[1]] != 5 || seen[f.addresses[2]] != 5 {
		t.Errorf("round robin: %v", seen)
	}

	// Nothing arrives any more, and the replica says that it is 0 seconds behind.
	between := testenv.NewCutter(t, f.DBs[0].Addr)
	f.FollowAt(t, 2, between.Address)
	f.shows(t, 2, "replica", "replicates from "+between.Address)
	exec(t, db, insert, "before")
	f.Sync(t, 2, 0) // it has not only signed in there
	between.Pause()
	late := make(chan struct{})
	go func() {
		defer close(late)
		for range 15 {
			if _, err := db.Exec(insert, "late"); err != nil {
				t.Error(err)
			}
			time.Sleep(100 * time.Millisecond) // writes that are spread over more than max_lag are the point
		}
	}()
	f.shows(t, 2, "replica", "> max_lag 700ms")
	<-late
	between.Resume()
	f.shows(t, 2, "replica", "replicates from")

	// Without the right to see replication, positions tell.
	f.DBs[0].Exec(t, "REVOKE REPLICA MONITOR ON *.* FROM gate@'%'")
	f.Sync(t, 1, 0)
	f.reload(strings.ReplaceAll(f.config("    read_from: replicas\n    max_lag: 700ms"), "100ms", "101ms"))
	f.DBs[1].Exec(t, "KILL USER gate")
	f.shows(t, 1, "replica", "lag by position: the login may not see the replication status")
}

// A login that read_only does not bind is warned of, once.
func TestMightyLogin(t *testing.T) {
	t.Parallel()
	f, _ := fleetOf(t, "", false)
	c := f.session(t)
	warnings := func() int {
		return strings.Count(ask(c, "SHOW MENSHEN INSTANCES"), "|the login may write although the instance is read-only|\n")
	}
	if n := warnings(); n != 0 {
		t.Errorf("%d warnings", n)
	}
	f.DBs[0].Exec(t, "GRANT READ_ONLY ADMIN ON *.* TO gate@'%'")
	f.Sync(t, 1, 0)
	f.Sync(t, 2, 0)
	wait := func(want int) {
		t.Helper()
		for _, db := range f.DBs {
			db.Exec(t, "KILL USER gate") // rights count from the sign-in on
		}
		testenv.Eventually(t, 10*time.Second, func() error {
			if n := warnings(); n != want {
				return fmt.Errorf("%d warnings", n)
			}
			return nil
		})
	}
	wait(3)
	f.DBs[0].Exec(t, "REVOKE READ_ONLY ADMIN ON *.* FROM gate@'%'")
	f.Sync(t, 1, 0)
	f.Sync(t, 2, 0)
	wait(0)
}

// A database that had one instance gets replicas: open transactions do not notice.
func TestReplicasAreAdded(t *testing.T) {
	t.Parallel()
	f, _ := fleetOf(t, "    failover_wait: 0s", false)
	alone := strings.Replace(f.config("    failover_wait: 0s"), fmt.Sprintf(", replicas: [%q, %q]", f.addresses[1], f.addresses[2]), "", 1)
	f.reload(strings.Replace(alone, "  shop:", "  lone:", 1)) // another name: nothing is known of it yet
	db := f.one("app:apple", "lone")
	lone := func() *database { return f.tables.Load().databases["lone"] }
	tx, err := db.Begin()
	if err == nil {
		_, err = tx.Exec("INSERT INTO shop.t (name) VALUES ('open')")
	}
	if err != nil {
		t.Fatal(err)
	}
	f.reload(strings.Replace(f.config("    failover_wait: 0s"), "  shop:", "  lone:", 1))
	for range 3 {
		if _, err := tx.Exec("INSERT INTO shop.t (name) VALUES ('open')"); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO shop.t (name) VALUES ('goes on')"); err != nil {
		t.Error(err)
	}
	testenv.Eventually(t, 10*time.Second, func() error {
		if !lone().keeper.decided() {
			return errors.New("no decision")
		}
		return nil
	})
	if _, err := open(t, f.config("    failover_wait: 0s")).one("app:apple", "shop").Exec("INSERT INTO shop.t (name) VALUES ('waits for the first checks')"); err != nil {
		t.Error(err)
	}
	f.reload(strings.Replace(alone, "  shop:", "  lone:", 1))
	if _, err := db.Exec("INSERT INTO shop.t (name) VALUES ('alone again')"); err != nil {
		t.Error(err)
	}
	if n := value[int](t, f.DBs[0].Open(t, "root", "shop"), "SELECT COUNT(*) FROM t"); n != 7 {
		t.Errorf("%d rows", n)
	}
}
