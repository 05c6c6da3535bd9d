package observe

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestExecutions(t *testing.T) {
	t.Parallel()
	var e Executions
	if s := e.Sum(); s.Count != 0 || s.Mean() != 0 || s.Quantile(0.5) != 0 || !s.Last.IsZero() {
		t.Errorf("%+v", s)
	}
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	const workers, each = 4, 2000
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range each {
				x := Execution{Begun: at.Add(time.Duration(i) * time.Second), Total: time.Millisecond, Rows: 2, Affected: 1, BytesIn: 10, BytesOut: 20, Failed: i%10 == 0}
				if i%20 == 0 {
					x.Total = 40 * time.Millisecond
				}
				e.Observe(&x)
			}
		})
	}
	wg.Wait()
	e.Observe(&Execution{Begun: at, Total: time.Minute, BytesIn: -1})
	f := func(s ExecutionSum, times uint64) {
		t.Helper()
		n := times * workers * each
		if s.Count != n+times || s.Rows != 2*n || s.Affected != n || s.BytesIn != 10*n || s.BytesOut != 20*n || s.Errors != n/10 || s.Longest != time.Minute {
			t.Errorf("%+v", s)
		}
		if want := time.Duration(n)*time.Millisecond + time.Duration(n/20)*39*time.Millisecond + time.Duration(times)*time.Minute; s.Total != want || s.Mean() != want/time.Duration(s.Count) {
			t.Errorf("%v, want %v", s.Total, want)
		}
		if late := at.Add((each - 1) * time.Second).Sub(s.Last); late < 0 || late > time.Millisecond {
			t.Errorf("last seen %v", s.Last)
		}
		if a, b, c := s.Quantile(0.5), s.Quantile(0.99), s.Quantile(1); a != time.Millisecond || b != 50*time.Millisecond || c != time.Minute {
			t.Error(a, b, c)
		}
		sum := uint64(0)
		for _, b := range s.Buckets() {
			sum += b.Count
		}
		if last := s.Buckets()[len(bucketBounds)]; sum != s.Count || last.Bound != 0 || last.Count != times {
			t.Errorf("%+v", s.Buckets())
		}
	}
	sum := e.Sum()
	f(sum, 1)
	var other Executions
	other.Absorb(&sum)
	other.Absorb(&sum)
	f(other.Sum(), 2)
}

func TestSlowLog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "slow.log")
	l, err := OpenSlowLog(path)
	if err != nil {
		t.Fatal(err)
	}
	r := SlowStatement{
		Time: time.Date(2026, 11, 22, 12, 31, 5, 42000, time.UTC), Listener: "sql", ClientAddress: netip.MustParseAddr("192.0.2.8"), Consumer: "app", Session: 9, Database: "shop", Endpoint: "10.0.1.1:3306",
		Command: "query", Kind: "select", Split: "replica", Digest: "00000000000000ab", Statement: "select \"a\n\" from t where id = ?", Pins: []string{"transaction", "user \"lock\""}, SQLCode: 1146, SQLState: "42S02",
		Rows: 3, Affected: 1, BytesIn: 41, BytesOut: 62, Generation: 3, Total: 1500 * time.Millisecond, Queue: time.Millisecond, Connect: 2 * time.Millisecond, Settings: 3 * time.Millisecond,
		Upstream: time.Second, Stream: 400 * time.Millisecond,
	}
	l.Write(&r)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	l.Write(&SlowStatement{Time: r.Time, Command: "ping", Literals: []byte(strings.Repeat("x", 2*fieldBytesMax) + "\xff")})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(path + ".1")
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"time":"2026-11-22T12:31:05.000042Z","slow":true,"listener":"sql","client_address":"192.0.2.8","consumer":"app","session":9,"database":"shop","endpoint":"10.0.1.1:3306",` +
		`"command":"query","kind":"select","split":"replica","digest":"00000000000000ab","statement":"select \"a\n\" from t where id = ?","pins":["transaction","user \"lock\""],"sql_code":1146,"sql_state":"42S02",` +
		`"duration_ms":1500.000,"queue_ms":1.000,"connect_ms":2.000,"settings_ms":3.000,"upstream_ms":1000.000,"stream_ms":400.000,"rows":3,"affected":1,"bytes_in":41,"bytes_out":62,"generation":3}` + "\n"
	if string(first) != want {
		t.Errorf("%s", first)
	}
	second, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range [][]byte{first, second} {
		if !json.Valid(bytes.TrimSpace(line)) || bytes.Count(line, []byte("\n")) != 1 || len(line) > fieldBytesMax+1000 {
			t.Errorf("%s", line)
		}
	}
	if s := l.Status(); s.Written != 2 || s.Dropped != 0 {
		t.Errorf("%+v", s)
	}
	if _, err := OpenSlowLog(filepath.Join(path, "none")); err == nil || !strings.Contains(err.Error(), "open slow log") {
		t.Error(err)
	}
	none, err := OpenSlowLog("none")
	if none != nil || err != nil || none.Reopen() != nil || none.Close() != nil || none.Status() != (AccessLogStatus{}) {
		t.Error("a slow log that discards")
	}
	none.Write(&r)
	none.SetLog(nil)
}

func TestQuantileOfFew(t *testing.T) {
	t.Parallel()
	var e Executions
	f := func(took, half, most time.Duration) {
		t.Helper()
		e.Observe(&Execution{Begun: time.Now(), Total: took})
		s := e.Sum()
		if a, b := s.Quantile(0.5), s.Quantile(0.99); a != half || b != most {
			t.Errorf("half %v, want %v; nearly all %v, want %v", a, half, b, most)
		}
	}
	f(100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond)
	f(2*time.Second, 100*time.Millisecond, 2*time.Second)
	f(3*time.Second, 2500*time.Millisecond, 3*time.Second)
}
