//go:build linux

package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// sysbenchThreads is how many connections sysbench keeps busy.
const sysbenchThreads = 64

// BenchmarkSQLSysbench asks: what does the gateway cost with the statements of sysbench, alone and in transactions, as text and prepared?
//
// CPU time, system calls and switches are the subject's, for one statement; latency is that of a whole transaction, as sysbench counts it (a point select is one).
// System calls are counted in a visit of their own, because counting costs.
func BenchmarkSQLSysbench(b *testing.B) {
	program := testenv.Lookup(b, "sysbench")
	subjectCore, loadCore := cores(b)
	db := testenv.MariaDB(b, "--max-connections=1000")
	pin(b, db.PID, loadCore)
	db.Exec(b, "create database bench", "create user 'bench'@'%' identified by 'bench'", "grant all on bench.* to 'bench'@'%'")
	run := func(s subject, workload, prepared, command string, seconds int) (string, error) {
		host, port, err := net.SplitHostPort(s.address)
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := pinned(b, loadCore, program, workload, "--db-driver=mysql", "--mysql-host="+host, "--mysql-port="+port, "--mysql-user=bench", "--mysql-password=bench", "--mysql-db=bench",
			"--tables=1", "--table-size=10000", "--threads="+strconv.Itoa(sysbenchThreads), "--time="+strconv.Itoa(seconds), "--db-ps-mode="+prepared, "--histogram=on", "--mysql-ssl=off", command)
		stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
		defer stop()
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("sysbench %s through %s: %w\n%s", workload, s.name, err, out)
		}
		return string(out), err
	}
	direct := subject{name: "direct", address: db.Addr}
	if _, err := run(direct, "oltp_read_write", "auto", "prepare", 0); err != nil {
		b.Fatal(err)
	}
	subjects := []subject{haproxyTCP(b, subjectCore, db.Addr)}
	for _, g := range gateways(b) {
		subjects = append(subjects, menshenSQL(b, subjectCore, g, db.Addr, ""))
	}
	subjects = append(subjects, direct)
	var text strings.Builder
	for _, workload := range []string{"oltp_point_select", "oltp_read_only", "oltp_read_write"} {
		for _, mode := range []struct{ name, option string }{{"text", "disable"}, {"prepared", "auto"}} {
			progress("sql-sysbench: %s, %s", workload, mode.name)
			switches := make(map[string]float64)
			one := func(s subject, seconds int) visit {
				before := switched(b, s.pid)
				m := startMeter(b, subjectCore, s.pid, db.PID)
				out, err := run(s, workload, mode.option, "run", seconds)
				var v visit
				m.stop(b, &v)
				if err == nil {
					err = parseSysbench(out, &v)
				}
				if err != nil {
					b.Fatal(err)
				}
				switches[s.name] = (switched(b, s.pid) - before) / v.requests
				return v
			}
			seconds := max(1, int(flagVisit.Seconds())/2)
			visits := tour(b, subjects, min(*flagRounds, 4), func(s subject) visit { return one(s, seconds) })
			calls := make(map[string]string)
			for _, s := range subjects {
				calls[s.name] = "-"
				if s.pid != 0 {
					calls[s.name] = systemCalls(b, s.pid, func() float64 { return one(s, 1).requests })
				}
			}
			fmt.Fprintf(&text, "### %s, %s, %d connections, %d rounds of %d s\n\n%s\n", workload, mode.name, sysbenchThreads, len(visits[0]), seconds, table(subjects, visits, "haproxy tcp", "statement"))
			text.WriteString("| subject | system calls/statement | context switches/statement | added p50 µs | added p99 µs |\n|---|---|---|---|---|\n")
			latency := func(i int, f func(visit) time.Duration) float64 {
				all := make([]float64, len(visits[i]))
				for n, v := range visits[i] {
					all[n] = micros(f(v))
				}
				return median(all)
			}
			p50, p99 := func(v visit) time.Duration { return v.p50 }, func(v visit) time.Duration { return v.p99 }
			last := len(subjects) - 1
			for i, s := range subjects[:last] {
				fmt.Fprintf(&text, "| %s | %s | %.2f | %.0f | %.0f |\n", s.name, calls[s.name], switches[s.name], latency(i, p50)-latency(last, p50), latency(i, p99)-latency(last, p99))
			}
			text.WriteString("\n")
		}
	}
	report(b, "sql-sysbench", text.String(), "haproxy", "mariadbd", "sysbench")
}

// parseSysbench reads what sysbench reports: queries, time, and latency from its histogram.
func parseSysbench(out string, v *visit) error {
	type bar struct {
		at    time.Duration
		count int
	}
	var bars []bar
	all := 0
	inside := false
	for line := range strings.Lines(out) {
		words := strings.Fields(line)
		switch {
		case strings.Contains(line, "- distribution -"):
			inside = true
		case inside && len(words) >= 3 && strings.HasPrefix(words[1], "|"):
			ms, err := strconv.ParseFloat(words[0], 64)
			if err != nil {
				return fmt.Errorf("sysbench: %q: %w", line, err)
			}
			n, err := strconv.Atoi(words[len(words)-1])
			if err != nil {
				return fmt.Errorf("sysbench: %q: %w", line, err)
			}
			bars = append(bars, bar{time.Duration(ms * float64(time.Millisecond)), n})
			all += n
		case len(words) > 1 && words[0] == "queries:":
			inside = false
			n, err := strconv.ParseFloat(words[1], 64)
			if err != nil {
				return fmt.Errorf("sysbench: %q: %w", line, err)
			}
			v.requests = n
		case strings.HasPrefix(strings.TrimSpace(line), "total time:"):
			d, err := time.ParseDuration(words[2])
			if err != nil {
				return fmt.Errorf("sysbench: %q: %w", line, err)
			}
			v.elapsed = d
		}
	}
	if v.requests == 0 || v.elapsed == 0 || all == 0 {
		return fmt.Errorf("not a report of sysbench:\n%s", out)
	}
	at := func(share float64) time.Duration {
		left := share * float64(all)
		i := slices.IndexFunc(bars, func(b bar) bool { left -= float64(b.count); return left <= 0 })
		return bars[max(i, 0)].at
	}
	v.p50, v.p99 = at(0.5), at(0.99)
	return nil
}

// switched counts the context switches of all threads that a process has now; 0 for process 0.
func switched(b testing.TB, pid int) (n float64) {
	b.Helper()
	if pid == 0 {
		return 0
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		b.Fatal(err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, task.Name()))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(text)) {
			if name, value, _ := strings.Cut(line, ":"); strings.HasSuffix(name, "voluntary_ctxt_switches") {
				if one, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
					n += one
				}
			}
		}
	}
	return n
}

// systemCalls counts the system calls of a process while call runs, which says how many statements they were for. It needs perf and the right to look at
// tracepoints, and says "-" without.
func systemCalls(b testing.TB, pid int, call func() float64) string {
	b.Helper()
	perf, err := exec.LookPath("perf")
	if err != nil {
		return "-"
	}
	cmd := exec.Command(perf, "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", strconv.Itoa(pid))
	var out strings.Builder
	cmd.Stderr, cmd.WaitDelay = &out, 5*time.Second
	if err := cmd.Start(); err != nil {
		return "-"
	}
	time.Sleep(200 * time.Millisecond) // perf does not say when it has begun
	statements := call()
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait() // it ends by the signal
	for line := range strings.Lines(out.String()) {
		if count, rest, _ := strings.Cut(line, ","); strings.Contains(rest, "sys_enter") {
			if n, err := strconv.ParseFloat(count, 64); err == nil {
				return fmt.Sprintf("%.2f", n/statements)
			}
		}
	}
	return "-"
}
