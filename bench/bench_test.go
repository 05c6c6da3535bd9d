//go:build linux

package bench

import (
	"database/sql"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// The tests here are about the measuring instruments: a scenario is only worth something when its parts do what they say.

func TestMedian(t *testing.T) {
	t.Parallel()
	f := func(want float64, values ...float64) {
		t.Helper()
		if got := median(values); got != want {
			t.Errorf("median of %v is %v, want %v", values, got, want)
		}
	}
	f(3, 3)
	f(2, 3, 1)
	f(2, 9, 1, 2)
	f(2.5, 4, 1, 2, 3)
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing is %v", got)
	}
}

func TestWrkReportIsRead(t *testing.T) {
	t.Parallel()
	const out = `Running 1s test @ http://127.0.0.1:1/100
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.36ms    1.02ms  21.11ms   87.55%
    Req/Sec    27.41k     1.86k   29.95k    70.00%
  Latency Distribution
     50%    2.16ms
     75%    2.63ms
     90%    3.31ms
     99%  912.00us
  27345 requests in 1.01s, 10.61MB read
  Socket errors: connect 0, read 1, write 2, timeout 3
  Non-2xx or 3xx responses: 4
Requests/sec:  27189.49
`
	var v visit
	if err := parseWrk(out, &v); err != nil {
		t.Fatal(err)
	}
	want := visit{requests: 27345, elapsed: 1010 * time.Millisecond, p50: 2160 * time.Microsecond, p99: 912 * time.Microsecond, errors: 10}
	if v != want {
		t.Errorf("%+v, want %+v", v, want)
	}
	if err := parseWrk("unable to connect", &v); err == nil {
		t.Error("no report, and no error")
	}
}

func TestCoreBusyCountsAllButIdle(t *testing.T) {
	t.Parallel()
	const stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 4 1000 1000 8 16 32 0 0\ncpu1 5 0 0 0 0 0 0 0 0 0\n"
	if busy, err := parseCoreBusy(stat, 0); busy != 630*time.Millisecond || err != nil {
		t.Errorf("%s, %v", busy, err)
	}
	if _, err := parseCoreBusy(stat, 7); err == nil {
		t.Error("a core that is not there, and no error")
	}
}

func TestProcessClockCountsTheChild(t *testing.T) {
	t.Parallel()
	core, _ := cores(t)
	p := testenv.Start(t, pinned(t, core, testenv.Lookup(t, "sh"), "-c", "while :; do :; done"))
	before, err := processClock(p.PID)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 30*time.Second, func() error {
		now, err := processClock(p.PID)
		if err == nil && now-before < 20*time.Millisecond {
			err = io.ErrNoProgress
		}
		return err
	})
}

func TestTableComparesInsideRounds(t *testing.T) {
	t.Parallel()
	subjects := []subject{{name: "base", pid: 1}, {name: "other", pid: 1}, {name: "direct"}}
	v := func(cost time.Duration) visit {
		return visit{requests: 1000, elapsed: time.Second, cpu: 1000 * cost}
	}
	// Twice as slow a machine in the second round: the ratio does not see it.
	got := table(subjects, [][]visit{{v(10), v(20)}, {v(5), v(10)}, {v(0), v(0)}}, "base", "request")
	for _, want := range []string{"| base | 0.0 | 0.0 | 1.00 |", "| other | 0.0 | 0.0 | 0.50 |", "| direct | - | - | - | 1000 |"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestOriginAnswers(t *testing.T) {
	t.Parallel()
	_, core := cores(t)
	address := testenv.FreeAddress(t)
	awaitAddress(t, testenv.Start(t, role(t, core, "origin", address)), address)
	client := http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	for path, size := range originBodies {
		for range 3 {
			res, err := client.Get("http://" + address + path)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || len(body) != size || res.StatusCode != 200 {
				t.Errorf("%s: %d, %d bytes, %v", path, res.StatusCode, len(body), err)
			}
		}
	}
	res, err := client.Get("http://" + address + "/other")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 404 {
		t.Errorf("/other: %d", res.StatusCode)
	}
}

func TestSQLServerAndClientUnderstandEachOther(t *testing.T) {
	t.Parallel()
	subjectCore, loadCore := cores(t)
	address := testenv.FreeAddress(t)
	p := testenv.Start(t, role(t, loadCore, "sql-server", address))
	awaitAddress(t, p, address)
	db, err := sql.Open("mysql", "any:body@tcp("+address+")/bench")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for range 2 {
		var c string
		if err := db.QueryRow(statement).Scan(&c); err != nil || len(c) != column {
			t.Errorf("%q, %v", c, err)
		}
	}
	if _, err := db.Exec("set names utf8mb4"); err != nil {
		t.Error(err)
	}
	if v := sqlVisitFor(t, subject{name: "direct", address: address}, subjectCore, loadCore, p.PID, 4, 100*time.Millisecond); v.requests < 10 || v.server == 0 || v.p50 == 0 || v.p99 < v.p50 {
		t.Errorf("%+v", v)
	}
}

func TestSysbenchReportIsRead(t *testing.T) {
	t.Parallel()
	const out = `Latency histogram (values are in milliseconds)
       value  ------------- distribution ------------- count
       0.500 |****                                     40
       1.500 |*****                                    50
      12.984 |*                                        10
 
SQL statistics:
    queries performed:
        total:                           1600
    transactions:                        100    (99.68 per sec.)
    queries:                             1600   (1599.86 per sec.)

General statistics:
    total time:                          1.0032s
`
	var v visit
	if err := parseSysbench(out, &v); err != nil {
		t.Fatal(err)
	}
	if want := (visit{requests: 1600, elapsed: 1003200 * time.Microsecond, p50: 1500 * time.Microsecond, p99: 12984 * time.Microsecond}); v != want {
		t.Errorf("%+v, want %+v", v, want)
	}
	if err := parseSysbench("FATAL: unable to connect", &v); err == nil {
		t.Error("no report, and no error")
	}
}
