package test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// TestSQLSoak has 200 clients say random things to a group of three MariaDB servers through the gateway, while servers are paused, killed and replaced, sessions
// are killed, and the configuration is reloaded. It meets each kind of fault once, or goes on for as long as SOAK says (SOAK=5m); SOAK_SEED replays the
// schedule and what clients choose.
//
// What must hold always:
//   - Every row that a client gets carries the client's own token, and every value is the one that the client's own model of its session has: settings, user
//     variables, temporary tables, LAST_INSERT_ID(), prepared statements, rows of 100 KiB.
//   - A new session has nothing of any other: no setting, no variable, no temporary table, no transaction.
//   - A session sees what it wrote, on whichever replica it reads (consistency: session), and never what it rolled back.
//   - What was acknowledged is on every server at the end, and what was rolled back, or killed by a KILL QUERY through the gateway, on none.
//   - Errors are of the few kinds that faults explain, and most statements succeed.
//
// Servers replicate semi-synchronously (AFTER_SYNC, no fallback), so that a primary that is killed has lost nothing that it acknowledged, when the replica that has the
// most is promoted. With asynchronous replication that is not the gateway's to promise.
//
// At the end, settled, the gateway has no more goroutines and descriptors than at a settled start.
func TestSQLSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes twenty seconds")
	}
	var lasts time.Duration
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SOAK"); text != "" {
		var err error
		lasts, err = time.ParseDuration(text)
		must(t, err)
	}
	if text := os.Getenv("SOAK_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("SOAK=%s SOAK_SEED=%d", lasts, seed)
	s := newSoak(t, seed)
	s.g = start(t, s.config(0))
	s.known(0)

	s.run(seed, 0, func() { s.quiet(500 * time.Millisecond) }) // pools and buffers have what they will have
	before := s.settled()
	s.run(seed+1, 1_000_000, func() {
		end := time.Now().Add(lasts)
		for _, f := range []func(){s.pauseReplica, s.switchover, s.killReplica, s.pausePrimary, s.failover} {
			s.pause()
			f()
		}
		for time.Now().Before(end) && !t.Failed() {
			s.pause()
			[]func(){s.pauseReplica, s.switchover, s.killReplica, s.pausePrimary, s.failover}[s.random.IntN(5)]()
		}
		s.quiet(500 * time.Millisecond)
	})
	s.judge()
	after := s.settled()
	t.Logf("%d statements, %d writes acknowledged, %d killed, %d sessions, %d of them ended by a fault, %d errors survived; faults %s; %d reloads; errors %s; before %+v, after %+v", s.statements.Load(), s.acknowledged.Load(), s.killed.Load(), s.sessions.Load(),
		s.broken.Load(), s.survived.Load(), counted(s.faults), s.reloads, counted(s.errors), before, after)
	if after.goroutines > before.goroutines+5 || after.descriptors > before.descriptors+5 {
		t.Errorf("the gateway holds more: %+v, then %+v", before, after)
	}
	if s.statements.Load() < 2000 || s.failures() > int(s.statements.Load())/10 {
		t.Errorf("the test tests little: %d statements, %d errors", s.statements.Load(), s.failures())
	}
}

// soakClients is how many sessions there are at once.
const soakClients = 200

// soak is the state of the test. The schedule belongs to the test's goroutine.
type soak struct {
	t       *testing.T
	g       *gateway
	group   *testenv.Group
	roots   [3]*sql.DB
	primary int
	random  *rand.Rand
	faults  map[string]int
	reloads int

	statements, acknowledged, killed, sessions, broken, survived atomic.Int64
	ids                                                          [soakClients]atomic.Int64 // of the clients' sessions, for those who kill

	mu     sync.Mutex // guards all below
	errors map[string]int
	wrongs int
	acked  map[string]bool // rows that are there; false: that must not be there
}

func newSoak(t *testing.T, seed uint64) *soak {
	s := &soak{t: t, random: rand.New(rand.NewPCG(seed, 0)), faults: map[string]int{}, errors: map[string]int{}, acked: map[string]bool{}}
	s.group = testenv.Replicated(t, "--read-only", "--max-connections=500", "--rpl-semi-sync-slave-enabled=1", "--rpl-semi-sync-master-timeout=60000",
		"--rpl-semi-sync-master-wait-point=AFTER_SYNC", "--init-rpl-role=SLAVE", // it has a killed primary forget what no replica has acknowledged
		"--binlog-format=ROW") // else the end of a session with a temporary table is written to the stream of a primary that is read-only already
	for i, db := range s.group.DBs {
		s.roots[i] = db.Open(t, "root", "")
	}
	s.group.DBs[0].Exec(t, "SET GLOBAL rpl_semi_sync_master_enabled=1", "SET GLOBAL read_only=0", "CREATE USER gate@'%' IDENTIFIED BY 'secret'",
		"GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, INDEX, ALTER, CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, PROCESS, REPLICA MONITOR ON *.* TO gate@'%'",
		"CREATE DATABASE soak", "CREATE TABLE soak.rows_of (client INT, n INT, token VARCHAR(40), PRIMARY KEY (client, n))",
		"CREATE TABLE soak.numbered (id INT PRIMARY KEY AUTO_INCREMENT, client INT)")
	s.group.Sync(t, 1, 0)
	s.group.Sync(t, 2, 0)
	return s
}

// config is what is in effect after the n-th reload. Sessions notice nothing of what changes.
func (s *soak) config(n int) string {
	a := s.group.Addresses()
	return fmt.Sprintf(`
admin: "127.0.0.1:0"
access_log: {to: none}
log: {level: warn}
listeners:
  sql: {address: "127.0.0.1:0", protocol: mysql, limits: {connections: %d}}
databases:
  soak:
    login: {user: gate, password: secret}
    pool: {max_connections: %d, queue_timeout: 20s, max_lifetime: %ds}
    timeouts: {connect: 5s, statement: 60s}
    read_from: replicas
    consistency: session
    balance: %s
    max_lag: %ds
    failover_wait: 15s
    check_interval: 250ms
    shards: {s0: {primary: %q, replicas: [%q, %q]}}
consumers:
  app: {mysql: apple}
`, 1000+n%3, 120+n%3*40, 5+n%2*3000, []string{"round_robin", "least_connections", "random"}[n%3], 2+n%2*3, a[0], a[1], a[2])
}

// run lets the clients go, and reloads, while f does what it does. The numbers of the clients' rows begin after first.
func (s *soak) run(seed uint64, first int, f func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	db, err := sql.Open("mysql", "app:apple@tcp("+s.g.addresses["sql"]+")/soak?multiStatements=true&timeout=20s&readTimeout=90s")
	must(s.t, err)
	db.SetMaxIdleConns(0)
	var clients, reloads sync.WaitGroup
	stop := sync.OnceFunc(func() { cancel(); clients.Wait(); reloads.Wait(); _ = db.Close() })
	s.t.Cleanup(stop)
	for i := range soakClients {
		clients.Go(func() { s.client(ctx, db, i, seed, first) }) // ends with ctx
	}
	reloads.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			s.reloads++
			resp, err := http.Post(s.g.url("admin", "/api/v1/config"), "application/yaml", strings.NewReader(s.config(s.reloads)))
			if err != nil {
				s.wrong("reload: %v", err)
				continue
			}
			if resp.Body.Close(); resp.StatusCode != 200 {
				s.wrong("reload: %s", resp.Status)
			}
		}
	})
	f()
	stop()
}

// wrong reports what is never right.
func (s *soak) wrong(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrongs++; s.wrongs <= 10 {
		s.t.Errorf(format, args...)
	}
}

func (s *soak) failures() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range s.errors {
		n += of
	}
	return n
}

func counted(m map[string]int) string {
	var words []string
	for name, n := range m {
		words = append(words, fmt.Sprintf("%s: %d", name, n))
	}
	slices.Sort(words)
	return "{" + strings.Join(words, ", ") + "}"
}

// quiet lets the clients alone for a while.
func (s *soak) quiet(d time.Duration) {
	time.Sleep(d) // a time in which nothing is broken is what is asked for
}

func (s *soak) pause() { s.quiet(time.Duration(300+s.random.IntN(700)) * time.Millisecond) }

// known waits until the gateway has found a primary, and reads from both of the others.
func (s *soak) known(primary int) {
	s.t.Helper()
	testenv.Eventually(s.t, 30*time.Second, func() error {
		db, err := sql.Open("mysql", "app:apple@tcp("+s.g.addresses["sql"]+")/soak")
		if err != nil {
			return err
		}
		defer db.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		rows, err := db.QueryContext(ctx, "SHOW MENSHEN INSTANCES")
		if err != nil {
			return err
		}
		defer rows.Close()
		columns, err := rows.Columns()
		if err != nil {
			return err
		}
		values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range into {
			into[i] = &values[i]
		}
		role, instance := slices.Index(columns, "Role"), slices.Index(columns, "Instance")
		for rows.Next() {
			if err := rows.Scan(into...); err != nil {
				return err
			}
			want := "replica"
			if values[instance].String == s.group.DBs[primary].Addr {
				want = "primary"
			}
			if values[role].String != want {
				return fmt.Errorf("%v, want %s", values, want)
			}
		}
		return rows.Err()
	})
}

// other gives a replica by chance.
func (s *soak) other() int { return (s.primary + 1 + s.random.IntN(2)) % 3 }

func (s *soak) pauseReplica() {
	s.faults["replica paused"]++
	i := s.other()
	s.group.Pause(s.t, i)
	s.quiet(time.Duration(200+s.random.IntN(1500)) * time.Millisecond)
	s.group.Resume(s.t, i)
	s.known(s.primary)
}

func (s *soak) pausePrimary() {
	s.faults["primary paused"]++
	s.group.Pause(s.t, s.primary)
	s.quiet(time.Duration(100+s.random.IntN(1500)) * time.Millisecond)
	s.group.Resume(s.t, s.primary)
	s.known(s.primary)
}

func (s *soak) killReplica() {
	s.faults["replica killed"]++
	i := s.other()
	s.group.Kill(i)
	s.pause()
	s.group.Restart(s.t, i)
	s.group.Follow(s.t, i, s.primary)
	s.group.Sync(s.t, i, s.primary)
	s.known(s.primary)
}

// switchover makes a replica the primary as the manual says.
func (s *soak) switchover() {
	s.faults["switchover"]++
	from, to := s.primary, s.other()
	s.group.Demote(s.t, from)
	s.group.Sync(s.t, to, from)
	s.promote(to)
	s.group.DBs[from].Exec(s.t, "SET GLOBAL rpl_semi_sync_master_enabled=0")
	s.group.Follow(s.t, from, to)
	s.known(to)
}

// promote makes a replica the primary, and the third server its replica.
func (s *soak) promote(to int) {
	third := 3 - s.primary - to
	// Only a primary waits for others: a replica that writes what it applied would wait, too.
	s.group.DBs[to].Exec(s.t, "STOP SLAVE", "SET GLOBAL rpl_semi_sync_master_enabled=1")
	s.group.Promote(s.t, to)
	s.group.Follow(s.t, third, to)
	s.primary = to
}

// failover kills the primary and promotes the replica that has the most; the old primary comes back as a replica.
func (s *soak) failover() {
	s.faults["failover"]++
	old := s.primary
	s.group.Kill(old)
	s.quiet(time.Duration(s.random.IntN(500)) * time.Millisecond)
	to, most := -1, int64(-1)
	for i := range 3 {
		if i == old {
			continue
		}
		s.group.DBs[i].Exec(s.t, "STOP SLAVE IO_THREAD")
		if has := s.applied(i); has > most {
			to, most = i, has
		}
	}
	s.promote(to)
	s.group.Restart(s.t, old)
	s.group.Follow(s.t, old, to)
	s.group.Sync(s.t, old, to)
	s.known(to)
}

// applied waits until a replica has applied all that it has received, and gives the last number in its stream of writes.
func (s *soak) applied(i int) (number int64) {
	s.t.Helper()
	testenv.Eventually(s.t, 30*time.Second, func() error {
		var done string
		if err := s.roots[i].QueryRow("SELECT @@global.gtid_current_pos").Scan(&done); err != nil {
			return err
		}
		status, err := s.slave(i)
		if err != nil {
			return err
		}
		if status["Gtid_IO_Pos"] != done {
			return fmt.Errorf("server %d has received %s and applied %s", i, status["Gtid_IO_Pos"], done)
		}
		parts := strings.Split(done, "-")
		number, err = strconv.ParseInt(parts[len(parts)-1], 10, 64)
		return err
	})
	return number
}

// slave gives the replication status of a server.
func (s *soak) slave(i int) (map[string]string, error) {
	rows, err := s.roots[i].Query("SHOW SLAVE STATUS")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for n := range into {
		into[n] = &values[n]
	}
	if !rows.Next() {
		return nil, fmt.Errorf("server %d is no replica: %w", i, rows.Err())
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	status := map[string]string{}
	for n, c := range columns {
		status[c] = values[n].String
	}
	return status, nil
}

// settled gives what the gateway holds without clients and pools.
func (s *soak) settled() weight {
	s.t.Helper()
	bare := "admin: \"127.0.0.1:0\"\naccess_log: {to: none}\nlog: {level: warn}\nlisteners: {sql: {address: \"127.0.0.1:0\", protocol: mysql}}\n"
	s.g.apply(bare)
	w := s.g.weigh(func() { s.g.apply(bare) })
	s.g.apply(s.config(s.reloads))
	s.known(s.primary)
	return w
}

// judge compares what clients were told with what the servers have.
func (s *soak) judge() {
	s.t.Helper()
	for i := range 3 {
		if i != s.primary {
			s.group.Sync(s.t, i, s.primary)
		}
		there := map[string]bool{}
		rows, err := s.roots[i].Query("SELECT client, n, token FROM soak.rows_of")
		must(s.t, err)
		for rows.Next() {
			var client, n int
			var token string
			must(s.t, rows.Scan(&client, &n, &token))
			there[soakRow(client, n)] = true
			if token != soakToken(client, n) {
				s.wrong("server %d: row %d of client %d has the token %s", i, n, client, token)
			}
		}
		must(s.t, rows.Err())
		must(s.t, rows.Close())
		s.mu.Lock()
		lost, risen := 0, 0
		for row, want := range s.acked {
			switch {
			case want && !there[row]:
				lost++
			case !want && there[row]:
				risen++
			}
		}
		s.mu.Unlock()
		if lost > 0 || risen > 0 {
			s.t.Errorf("server %d (the primary is %d): %d acknowledged writes are lost, %d that were rolled back are there", i, s.primary, lost, risen)
		}
	}
}

func soakRow(client, n int) string   { return fmt.Sprintf("%d/%d", client, n) }
func soakToken(client, n int) string { return fmt.Sprintf("token-%d-%d-", client, n) }
