//go:build linux

package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql/driver"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"golang.org/x/sys/unix"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// idleSessions is how many sessions the scenario opens, idleFirst how many of them are there before memory is looked at for the first time: from then on what
// grows is the sessions'.
const (
	idleSessions = 10000
	idleFirst    = 1000
)

// BenchmarkSQLIdle asks: how much memory does a session cost that has said SET NAMES and one SELECT, and now says nothing? Ten thousand of them share the fifty
// connections of the pool; in a second table they prepared a statement, in a third they came by TLS.
//
// RSS is what the kernel counts for the process, at rest: the garbage collector has run twice since the last session came. It contains what the
// collector keeps in reserve.
func BenchmarkSQLIdle(b *testing.B) {
	subjectCore, loadCore := cores(b)
	db := testenv.MariaDB(b, "--max-connections=200")
	pin(b, db.PID, loadCore)
	db.Exec(b, benchSchema()...)
	certificate := testenv.NewCertificate(b)
	var text strings.Builder
	fmt.Fprintf(&text, "| subject | sessions | RSS KiB/session | heap KiB/session | stacks KiB/session | goroutines/session | RSS MiB in all |\n|---|---|---|---|---|---|---|\n")
	for _, g := range gateways(b) {
		for _, kind := range []string{"plain", "prepared", "tls"} {
			progress("sql-idle: %s, %s", g.label, kind)
			address, admin := testenv.FreeAddress(b), testenv.FreeAddress(b)
			p := startGateway(b, subjectCore, g, address, fmt.Sprintf(`
admin: %q
listeners: {sql: {address: %q, protocol: mysql, tls: {cert: %q, key: %q}}}
databases:
  bench:
    login: {user: bench, password: bench}
    shards: {s0: {primary: %q}}
consumers: {bench: {mysql: {password: bench}}}
access_log: none
log: {level: warn}
`, admin, address, certificate.CertFile, certificate.KeyFile, db.Addr))
			c := startIdleClient(b, loadCore, "-address", address, "-kind", kind, "-ca", certificate.AuthorityFile)
			c.open(b, idleFirst)
			first := remembered(b, p.PID, admin)
			c.open(b, idleSessions-idleFirst)
			last := remembered(b, p.PID, admin)
			const n, kib = float64(idleSessions - idleFirst), 1024
			fmt.Fprintf(&text, "| %s, %s | %d | %.1f | %.1f | %.1f | %.2f | %.0f |\n", g.label, kind, idleSessions, (last.rss-first.rss)/n/kib, (last.heap-first.heap)/n/kib,
				(last.stacks-first.stacks)/n/kib, (last.goroutines-first.goroutines)/n, last.rss/kib/kib)
			c.Kill()
			p.Kill()
		}
	}
	report(b, "sql-idle", text.String(), "mariadbd")
}

// footprint is what a process holds, in bytes, and its goroutines.
type footprint struct{ rss, heap, stacks, goroutines float64 }

// remembered asks a gateway at rest.
func remembered(b *testing.B, pid int, admin string) footprint {
	b.Helper()
	read := func() map[string]float64 {
		resp, err := http.Get("http://" + admin + "/metrics")
		if err != nil {
			b.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			b.Fatal(err)
		}
		all := make(map[string]float64)
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if v, err := strconv.ParseFloat(value, 64); err == nil {
				all[name] = v
			}
		}
		return all
	}
	// Reading metrics is some garbage, and an idle process collects every two minutes: the least heap of some looks is what lives.
	m := read()
	begun, heap := m["go_gc_duration_seconds_count"], m["go_memstats_heap_alloc_bytes"]
	for n := 0; n < 3000 && m["go_gc_duration_seconds_count"] < begun+2; n++ {
		m = read()
		heap = min(heap, m["go_memstats_heap_alloc_bytes"])
	}
	return footprint{rss: statusOf(b, pid, "VmRSS") * 1024, heap: heap, stacks: m["go_memstats_stack_inuse_bytes"], goroutines: m["go_goroutines"]}
}

// statusOf gives a number of /proc/PID/status.
func statusOf(b testing.TB, pid int, field string) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatalf("no %s in the status of process %d", field, pid)
	return 0
}

// idleClient opens sessions on demand, in a process of its own: both ends of ten thousand connections are more than one may have open.
type idleClient struct {
	*testenv.Process
	in  io.WriteCloser
	out *bufio.Reader
}

func startIdleClient(b *testing.B, core int, arguments ...string) *idleClient {
	b.Helper()
	cmd := role(b, core, "sql-idle", arguments...)
	in, out, err := pipes()
	if err != nil {
		b.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in[0], out[1], os.Stderr
	c := &idleClient{Process: testenv.Start(b, cmd), in: in[1], out: bufio.NewReader(out[0])}
	in[0].Close()
	out[1].Close()
	b.Cleanup(func() { in[1].Close(); out[0].Close() })
	return c
}

func pipes() (in, out [2]*os.File, err error) {
	var failed [2]error
	in[0], in[1], failed[0] = os.Pipe()
	out[0], out[1], failed[1] = os.Pipe()
	return in, out, errors.Join(failed[:]...)
}

func (c *idleClient) open(b *testing.B, n int) {
	b.Helper()
	if _, err := fmt.Fprintln(c.in, n); err != nil {
		b.Fatal(err)
	}
	if line, err := c.out.ReadString('\n'); err != nil || line != "open\n" {
		b.Fatalf("the client of idle sessions: %q, %v", line, err)
	}
}

// runSQLIdle opens as many sessions as each line of standard input says, and keeps them.
func runSQLIdle(arguments []string) error {
	set := flag.NewFlagSet("sql-idle", flag.ContinueOnError)
	address := set.String("address", "", "of the gateway")
	kind := set.String("kind", "plain", "plain, prepared or tls")
	ca := set.String("ca", "", "file of the authority")
	if err := set.Parse(arguments); err != nil {
		return err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && limit.Cur < idleSessions+100 {
		return fmt.Errorf("%d descriptors are too few for %d sessions", limit.Cur, idleSessions)
	}
	dsn := "bench:bench@tcp(" + *address + ")/bench?timeout=10s"
	if *kind == "tls" {
		pem, err := os.ReadFile(*ca)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		if err := mysql.RegisterTLSConfig("bench", &tls.Config{RootCAs: pool}); err != nil {
			return err
		}
		dsn += "&tls=bench"
	}
	config, err := mysql.ParseDSN(dsn)
	if err != nil {
		return err
	}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return err
	}
	var open []driver.Conn
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); fmt.Println("open") {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		for range n {
			c, err := connector.Connect(context.Background())
			if err != nil {
				return err
			}
			if err := useIdle(c, *kind == "prepared", len(open)); err != nil {
				return fmt.Errorf("session %d: %w", len(open), err)
			}
			open = append(open, c)
		}
	}
	runtime.KeepAlive(open)
	return nil
}

// useIdle does with a session what an application does before it has nothing to do: settings of which there are a few kinds, and one statement.
func useIdle(c driver.Conn, prepared bool, number int) error {
	for _, set := range []string{"SET NAMES utf8mb4", fmt.Sprintf("SET time_zone = '+0%d:00'", number%4)} {
		if _, err := c.(driver.ExecerContext).ExecContext(context.Background(), set, nil); err != nil {
			return err
		}
	}
	var rows driver.Rows
	var err error
	if prepared {
		s, failed := c.Prepare("SELECT c FROM t WHERE id = ?")
		if failed != nil {
			return failed
		}
		rows, err = s.(driver.StmtQueryContext).QueryContext(context.Background(), []driver.NamedValue{{Ordinal: 1, Value: int64(1000000)}})
	} else {
		rows, err = c.(driver.QueryerContext).QueryContext(context.Background(), statement, nil)
	}
	if err != nil {
		return err
	}
	return rows.Close()
}
