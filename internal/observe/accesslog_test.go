package observe

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lines reads a log back, one object for each line.
func lines(t *testing.T, data []byte) []map[string]any {
	t.Helper()
	var all []map[string]any
	for line := range bytes.Lines(data) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		all = append(all, m)
	}
	return all
}

func TestAccessLogKeepsEveryRecordOfManyWriters(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(path, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := OpenAccessLog(path)
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 8, 200 // 1,600 records of 400 bytes: below the bound, so that none may be lost
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			r := httpRecord()
			for i := range each {
				r.BytesIn = int64(w*each + i)
				l.Write(r)
			}
		})
	}
	group.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l.Write(httpRecord()) // too late
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[float64]bool)
	for _, m := range lines(t, data)[1:] { // the first was there before: files are appended to
		seen[m["bytes_in"].(float64)] = true
	}
	if len(seen) != writers*each {
		t.Errorf("%d of %d records", len(seen), writers*each)
	}
	if got, want := l.Status(), (AccessLogStatus{Written: writers * each, Dropped: 1}); got != want {
		t.Errorf("status %+v, want %+v", got, want)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestAccessLogWritesWithin200Milliseconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sink sliceSink
		l := NewAccessLog(&sink)
		l.Write(httpRecord())
		synctest.Wait()
		if sink.len() != 0 {
			t.Error("written at once: one system call for each record")
		}
		time.Sleep(flushInterval) // the bubble's clock
		synctest.Wait()
		if sink.len() == 0 {
			t.Error("not written after the interval")
		}
		l.Close()
	})
}

func TestAccessLogWritesSoonerWhenFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sink sliceSink
		l := NewAccessLog(&sink)
		for range 100 * stripesMax {
			l.Write(httpRecord())
		}
		synctest.Wait() // no time passes
		if sink.len() == 0 {
			t.Error("a full buffer did not wake the writer")
		}
		l.Close()
	})
}

func TestAccessLogDropsWhenTheSinkIsSlow(t *testing.T) {
	t.Parallel()
	sink := blockedSink{entered: make(chan struct{}, 100), release: make(chan struct{})}
	l := NewAccessLog(sink)
	r := httpRecord()
	l.Write(r)
	<-sink.entered // the writer is stuck in its first write
	n := uint64(1)
	for ; l.Status().Dropped == 0; n++ {
		l.Write(r) // never waits, or this loop would not end
	}
	size := uint64(len(appendRecord(nil, r, new(clock))))
	if held := n * size; held < shardBytesMax || held > 3*stripesMax*shardBytesMax {
		t.Errorf("dropped after about %d bytes", held)
	}
	close(sink.release)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s := l.Status(); s.Written+s.Dropped != n || s.Errors != 0 {
		t.Errorf("%d records, status %+v", n, s)
	}
}

func TestAccessLogCloseGivesUpOnAStuckSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := blockedSink{entered: make(chan struct{}, 100), release: make(chan struct{})}
		l := NewAccessLog(sink)
		l.Write(httpRecord())
		start := time.Now()
		if err := l.Close(); err == nil || time.Since(start) != closeWait {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		close(sink.release)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAccessLogCountsFailedWritesAndMendsTornLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var own bytes.Buffer
		sink := &sliceSink{limit: 10}
		l := NewAccessLog(sink)
		l.SetLog(slog.New(slog.NewTextHandler(&own, nil)))
		l.Write(httpRecord()) // ten bytes of it fit
		time.Sleep(flushInterval)
		synctest.Wait()
		l.Write(httpRecord()) // nothing fits
		time.Sleep(flushInterval)
		synctest.Wait()
		sink.grow(1 << 20)
		l.Write(httpRecord())
		l.Close()
		if got, want := l.Status(), (AccessLogStatus{Written: 1, Dropped: 2, Errors: 2}); got != want {
			t.Errorf("status %+v, want %+v", got, want)
		}
		torn, rest, _ := strings.Cut(string(sink.data), "\n")
		if len(torn) != 10 || len(lines(t, []byte(rest))) != 1 {
			t.Errorf("%q", sink.data)
		}
		if !strings.Contains(own.String(), "no space left") || !strings.Contains(own.String(), "lost=1") {
			t.Errorf("own log: %s", own.String())
		}
	})
}

func TestAccessLogReopen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "access.log")
	l, err := OpenAccessLog(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Write(httpRecord())
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	l.Write(sqlRecord())
	// A path that cannot be opened leaves the old file in use.
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err == nil {
		t.Error("reopened a directory")
	}
	l.Write(sqlRecord())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	f := func(name string, want int) {
		t.Helper()
		data, err := os.ReadFile(name)
		if got := len(lines(t, data)); err != nil || got != want {
			t.Errorf("%s: %d lines, want %d (%v)", filepath.Base(name), got, want, err)
		}
	}
	f(path+".1", 1)
	f(path+".2", 2)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err == nil {
		t.Error("reopened after Close")
	}
}

func TestOpenAccessLog(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"", "none"} {
		l, err := OpenAccessLog(to)
		if l != nil || err != nil {
			t.Errorf("%q: %v, %v", to, l, err)
		}
		l.Write(httpRecord())
		l.SetLog(nil)
		if l.Status() != (AccessLogStatus{}) || l.Reopen() != nil || l.Close() != nil {
			t.Error("a nil log must discard")
		}
	}
	for _, to := range []string{"stdout", "stderr"} {
		l, err := OpenAccessLog(to)
		if err != nil || l.Reopen() != nil || l.Close() != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
	if _, err := OpenAccessLog(filepath.Join(t.TempDir(), "no", "such", "folder")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestAccessLogWriteAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool forgets at random under the race detector")
	}
	l := NewAccessLog(io.Discard)
	defer l.Close()
	h, s := httpRecord(), sqlRecord()
	for range 1000 {
		l.Write(h)
	}
	if n := testing.AllocsPerRun(1000, func() { l.Write(h); l.Write(s) }); n >= 0.01 {
		t.Errorf("%v allocations", n)
	}
}

// What does one access record cost a request, alone and beside others?
func BenchmarkAccessLogWrite(b *testing.B) {
	l := NewAccessLog(io.Discard)
	defer l.Close()
	b.Run("browser", func(b *testing.B) {
		b.ReportAllocs()
		r := httpRecord()
		r.UserAgent = []byte("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0")
		r.RequestID = []byte("7d444840-9dc0-11d1-b245-5ffdce74fad2")
		for b.Loop() {
			l.Write(r)
		}
	})
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		r := httpRecord()
		for b.Loop() {
			l.Write(r)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			r := httpRecord()
			for p.Next() {
				l.Write(r)
			}
		})
	})
	b.ReportMetric(float64(l.Status().Dropped), "dropped")
}

// sliceSink keeps what is written, up to limit bytes (0: no limit), and then says that the disk is full.
type sliceSink struct {
	mu    sync.Mutex
	data  []byte
	limit int
}

func (s *sliceSink) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(b)
	if s.limit > 0 {
		n = min(n, s.limit-len(s.data))
	}
	s.data = append(s.data, b[:n]...)
	if n < len(b) {
		return n, errors.New("no space left on device")
	}
	return n, nil
}

func (s *sliceSink) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.data)
}

func (s *sliceSink) grow(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limit
}

// blockedSink takes nothing until release is closed.
type blockedSink struct{ entered, release chan struct{} }

func (s blockedSink) Write(b []byte) (int, error) {
	select {
	case s.entered <- struct{}{}:
	default:
	}
	<-s.release
	return len(b), nil
}
