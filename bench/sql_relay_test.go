//go:build linux

package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// BenchmarkSQLRelay asks: how much processor time does one relayed statement cost, beside HAProxy in TCP mode? The server is a fake that costs next to
// nothing, so that the relay works at its limit. HAProxy does not look at the bytes: it is close to the least that a relay between two sockets can cost.
//
// The subject has core 0 to itself; client and server share core 1.
func BenchmarkSQLRelay(b *testing.B) {
	subjectCore, loadCore := cores(b)
	server := testenv.FreeAddress(b)
	p := testenv.Start(b, role(b, loadCore, "sql-server", server))
	awaitAddress(b, p, server)
	relay(b, "sql-relay", server, p.PID, subjectCore, loadCore)
}

// BenchmarkSQLPointSelect asks the same with a real MariaDB and selects by primary key: what share of a statement is the gateway's?
func BenchmarkSQLPointSelect(b *testing.B) {
	subjectCore, loadCore := cores(b)
	db := testenv.MariaDB(b, "--max-connections=1000")
	pin(b, db.PID, loadCore)
	db.Exec(b, benchSchema()...)
	relay(b, "sql-point-select", db.Addr, db.PID, subjectCore, loadCore)
}

// benchSchema is the table of the scenarios with a real MariaDB, and their user.
func benchSchema() []string {
	return []string{
		"create database bench", "use bench",
		"create user 'bench'@'%' identified by 'bench'", "grant all on bench.* to 'bench'@'%'",
		fmt.Sprintf("create table bench.t (id int primary key, c char(%d) not null)", column),
		fmt.Sprintf("insert into bench.t select 1000000 + seq, repeat('v', %d) from seq_0_to_9999", column),
	}
}

// relay measures all subjects in front of one server.
func relay(b *testing.B, scenario, server string, pid, subjectCore, loadCore int) {
	b.Helper()
	subjects := []subject{haproxyTCP(b, subjectCore, server)}
	for _, g := range gateways(b) {
		subjects = append(subjects, menshenSQL(b, subjectCore, g, server, ""))
	}
	subjects = append(subjects, subject{name: "direct", address: server})
	var text strings.Builder
	for _, connections := range []int{1, 16, 64} {
		progress("%s: %d connections", scenario, connections)
		visits := tour(b, subjects, *flagRounds, func(s subject) visit { return sqlVisit(b, s, subjectCore, loadCore, pid, connections) })
		fmt.Fprintf(&text, "### %d connections, %d rounds of %s\n\n%s\n", connections, *flagRounds, *flagVisit/2, table(subjects, visits, "haproxy tcp", "statement"))
	}
	report(b, scenario, text.String(), "haproxy", "mariadbd")
}

func haproxyTCP(b *testing.B, core int, server string) subject {
	b.Helper()
	program := testenv.Lookup(b, "haproxy")
	address := testenv.FreeAddress(b)
	conf := writeFile(b, "haproxy.cfg", fmt.Sprintf(`
global
  nbthread 1
  maxconn 4096
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen sql
  bind %s
  server a %s
`, address, server))
	p := testenv.Start(b, pinned(b, core, program, "-db", "-f", conf))
	awaitAddress(b, p, address)
	return subject{name: "haproxy tcp", address: address, pid: p.PID}
}

// menshenSQL is a gateway to one server; sections are further lines of its file.
func menshenSQL(b *testing.B, core int, g build, server, sections string) subject {
	b.Helper()
	address := testenv.FreeAddress(b)
	p := startGateway(b, core, g, address, fmt.Sprintf(`
listeners: {sql: {address: %q, protocol: mysql}}
databases:
  bench:
    login: {user: bench, password: bench}
    pool: {max_connections: 200}   # the fake server tells no settings, so its connections are not shared
    shards: {s0: {primary: %q}}
consumers: {bench: {mysql: {password: bench}}}
access_log: none
log: {level: warn}
%s
`, address, server, sections))
	return subject{name: g.label, address: address, pid: p.PID}
}

// sqlVisit runs the client once; the clocks run only between its first and its last statement. Half of a visit's length is enough: nothing is set up.
func sqlVisit(b *testing.B, s subject, subjectCore, loadCore, server, connections int) visit {
	b.Helper()
	return sqlVisitFor(b, s, subjectCore, loadCore, server, connections, *flagVisit/2)
}

func sqlVisitFor(b testing.TB, s subject, subjectCore, loadCore, server, connections int, length time.Duration) visit {
	b.Helper()
	cmd := role(b, loadCore, "sql-client", "-dsn", "bench:bench@tcp("+s.address+")/bench", "-connections", strconv.Itoa(connections), "-length", length.String())
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	lines := bufio.NewReader(stdout)
	if line, err := lines.ReadString('\n'); err != nil || line != "ready\n" {
		b.Fatalf("client of %s: %q, %v", s.name, line, err)
	}
	m := startMeter(b, subjectCore, s.pid, server)
	if _, err := io.WriteString(stdin, "go\n"); err != nil {
		b.Fatal(err)
	}
	line, err := lines.ReadString('\n')
	var v visit
	m.stop(b, &v)
	if err != nil {
		b.Fatalf("client of %s: %v", s.name, err)
	}
	var done sqlReport
	if err := json.Unmarshal([]byte(line), &done); err != nil {
		b.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
	v.requests, v.elapsed, v.p50, v.p99 = float64(done.Statements), done.Elapsed, done.P50, done.P99
	return v
}
