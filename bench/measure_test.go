//go:build linux

package bench

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// subject is something to visit.
type subject struct {
	name    string
	address string // host:port
	pid     int    // whose processor time counts; 0 when nothing stands between client and server
	tls     bool
}

// visit is what one visit to a subject showed.
type visit struct {
	requests float64
	elapsed  time.Duration
	cpu      time.Duration // of the subject
	server   time.Duration // of the server behind it
	foreign  float64       // share of the subject's core that something else used
	p50, p99 time.Duration
	errors   int
}

// cost is the subject's processor time for one request, in microseconds.
func (v visit) cost() float64 { return micros(v.cpu) / v.requests }

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// processClock returns the processor time that a process has used so far: all threads, also those that ended, to the nanosecond. The id of that clock is
// what clock_getcpuclockid(3) would give.
func processClock(pid int) (time.Duration, error) {
	if pid == 0 {
		return 0, nil
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// coreBusy returns how long a core has been busy since the machine started, in units of the kernel's tick (10 ms).
func coreBusy(core int) (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseCoreBusy(string(text), core)
}

func parseCoreBusy(stat string, core int) (time.Duration, error) {
	for line := range strings.Lines(stat) {
		words := strings.Fields(line)
		if len(words) < 9 || words[0] != "cpu"+strconv.Itoa(core) {
			continue
		}
		var ticks int64
		for i, word := range words[1:9] { // user nice system idle iowait irq softirq steal
			n, err := strconv.ParseInt(word, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/stat: %w", err)
			}
			if i != 3 && i != 4 {
				ticks += n
			}
		}
		return time.Duration(ticks) * 10 * time.Millisecond, nil
	}
	return 0, fmt.Errorf("/proc/stat has no cpu%d", core)
}

// meter reads all clocks of a visit.
type meter struct {
	core, pid, server int
	cpu, back, busy   time.Duration
	start             time.Time
}

func startMeter(t testing.TB, core, pid, server int) *meter {
	t.Helper()
	m := &meter{core: core, pid: pid, server: server}
	var err [3]error
	m.cpu, err[0] = processClock(pid)
	m.back, err[1] = processClock(server)
	m.busy, err[2] = coreBusy(core)
	if e := errors.Join(err[:]...); e != nil {
		t.Fatal(e)
	}
	m.start = time.Now()
	return m
}

// stop fills the clocks of a visit. It must be called before anything else is done.
func (m *meter) stop(t testing.TB, v *visit) {
	t.Helper()
	elapsed := time.Since(m.start)
	now := startMeter(t, m.core, m.pid, m.server)
	v.cpu, v.server = now.cpu-m.cpu, now.back-m.back
	v.foreign = max(0, float64(now.busy-m.busy-v.cpu)/float64(elapsed))
	if v.elapsed == 0 {
		v.elapsed = elapsed
	}
}

// visitsDirect is how often a tour visits what has nothing between client and server: it only has to show that they are not the limit.
const visitsDirect = 2

// tour visits all subjects in turn, rounds times, forward and backward alternately, so that a slow drift of the machine's speed meets all alike. The result
// is by subject, then by round.
func tour(t testing.TB, subjects []subject, rounds int, call func(subject) visit) [][]visit {
	t.Helper()
	visits := make([][]visit, len(subjects))
	for round := range rounds {
		for i := range subjects {
			if round%2 == 1 {
				i = len(subjects) - 1 - i
			}
			if round >= visitsDirect && subjects[i].pid == 0 {
				continue
			}
			v := call(subjects[i])
			if v.requests == 0 {
				t.Fatalf("%s answered nothing", subjects[i].name)
			}
			visits[i] = append(visits[i], v)
		}
	}
	return visits
}

// table prints a tour. Ratios are medians over the rounds of the ratio inside one round.
func table(subjects []subject, visits [][]visit, base, unit string) string {
	at := slices.IndexFunc(subjects, func(s subject) bool { return s.name == base })
	var b strings.Builder
	fmt.Fprintf(&b, "| subject | CPU µs/%s, median | min | to %s | %s/s | p50 µs | p99 µs | core used | foreign | server µs/%s | errors |\n", unit, base, plural(unit), unit)
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for i, s := range subjects {
		collect := func(f func(visit) float64) []float64 {
			all := make([]float64, len(visits[i]))
			for round, v := range visits[i] {
				all[round] = f(v)
			}
			return all
		}
		of := func(f func(visit) float64) float64 { return median(collect(f)) }
		costs := collect(visit.cost)
		cost, least, ratio := "-", "-", "-"
		if s.pid != 0 {
			cost, least = fmt.Sprintf("%.1f", median(costs)), fmt.Sprintf("%.1f", slices.Min(costs))
			if at >= 0 {
				ratios := make([]float64, len(costs))
				for round := range costs {
					ratios[round] = costs[round] / visits[at][round].cost()
				}
				ratio = fmt.Sprintf("%.2f", median(ratios))
			}
		}
		p99 := "-" // not every client knows it
		if late := of(func(v visit) float64 { return micros(v.p99) }); late > 0 {
			p99 = fmt.Sprintf("%.0f", late)
		}
		failed := 0
		for _, v := range visits[i] {
			failed += v.errors
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.0f | %.0f | %s | %.0f %% | %.0f %% | %.1f | %d |\n", s.name, cost, least, ratio,
			of(func(v visit) float64 { return v.requests / v.elapsed.Seconds() }),
			of(func(v visit) float64 { return micros(v.p50) }),
			p99,
			of(func(v visit) float64 { return 100 * v.cpu.Seconds() / v.elapsed.Seconds() }),
			of(func(v visit) float64 { return 100 * v.foreign }),
			of(func(v visit) float64 { return micros(v.server) / v.requests }),
			failed)
	}
	return b.String()
}

// plural is for headings; symbols have none.
func plural(unit string) string {
	if unit == "MiB" {
		return unit
	}
	return unit + "s"
}

// median of no values is not a number.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// awaitAddress waits until a process listens.
func awaitAddress(t testing.TB, p *testenv.Process, address string) {
	t.Helper()
	testenv.Eventually(t, 30*time.Second, func() error {
		select {
		case <-p.Done():
			t.Fatalf("ended at once: %s", p.Log())
		default:
		}
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err
	})
}
