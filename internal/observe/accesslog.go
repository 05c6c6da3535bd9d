package observe

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// The sizes of the access log. All shards together hold at most 2 * stripesMax * shardBytesMax: 16 MiB on eight processors.
const (
	shardBytesMax   = 1 << 20  // a record that would not fit is dropped
	shardBytesFlush = 32 << 10 // a shard that holds more wakes the writer
	shardBytesStart = 64 << 10 // allocated with the first record
	flushInterval   = 200 * time.Millisecond
	closeWait       = 5 * time.Second // how long Close waits for a sink that does not take the rest
)

// AccessLog writes one JSON line for each record. Write appends to a shard's buffer; one goroutine, ended by Close,
// takes the buffers every 200 ms, or sooner when one is filling, and writes them to the sink. Lines of one shard are in
// the order of their Write; those of two shards may be out of order by one such interval. A nil *AccessLog discards.
type AccessLog struct {
	name string // of the log, for messages
	path string // "" when the sink is not a file of ours
	sink io.Writer

	shards  []shard
	wake    chan struct{}
	reopen  chan reopening
	stop    chan struct{}
	stopped chan struct{}
	closing sync.Once

	written atomic.Uint64
	dropped atomic.Uint64
	errors  atomic.Uint64
	log     atomic.Pointer[slog.Logger]
}

// shard is one buffer. Its neighbours are on other cache lines.
type shard struct {
	mu     sync.Mutex
	buf    []byte
	lines  uint64
	closed bool
	clock  clock
	_      [64]byte
}

type reopening struct {
	file *os.File
	done chan error
}

// AccessLogStatus counts what became of the records.
type AccessLogStatus struct {
	Written uint64 // handed to the sink
	Dropped uint64 // lost: the buffer was full, the write failed, or the log was closed
	Errors  uint64 // failed writes
}

// OpenAccessLog opens the access log: "stdout", "stderr", "none" (or ""), or the path of a file, which is made when it
// does not exist and appended to. For "none" the result is nil, which discards.
func OpenAccessLog(to string) (*AccessLog, error) { return openLog("access log", to) }

func openLog(name, to string) (*AccessLog, error) {
	switch to {
	case "", "none":
		return nil, nil
	case "stdout":
		return newLog(name, os.Stdout, ""), nil
	case "stderr":
		return newLog(name, os.Stderr, ""), nil
	}
	file, err := openLogFile(name, to)
	if err != nil {
		return nil, err
	}
	return newLog(name, file, to), nil
}

// NewAccessLog writes records to a writer of the caller's, who closes it after Close.
func NewAccessLog(w io.Writer) *AccessLog { return newLog("access log", w, "") }

func openLogFile(name, path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return file, nil
}

func newLog(name string, w io.Writer, path string) *AccessLog {
	l := &AccessLog{
		name:    name,
		path:    path,
		sink:    w,
		shards:  make([]shard, stripes),
		wake:    make(chan struct{}, 1),
		reopen:  make(chan reopening),
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
	}
	go l.run()
	return l
}

// SetLog sets the logger that is told, at most once a minute, that records were lost.
func (l *AccessLog) SetLog(log *slog.Logger) {
	if l != nil {
		l.log.Store(log)
	}
}

// Write adds a record. It never waits for the sink: when the buffer is full the record is dropped and counted.
func (l *AccessLog) Write(r *Record) {
	if l == nil {
		return
	}
	if s := l.begin(); s != nil {
		before := len(s.buf)
		s.buf = appendRecord(s.buf, r, &s.clock)
		l.end(s, before)
	}
}

// begin gives a shard for one record, to be followed by end; its mutex is held. It gives nil when the log is closed.
func (l *AccessLog) begin() *shard {
	s := &l.shards[stripe()]
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		l.dropped.Add(1)
		return nil
	}
	if s.buf == nil {
		s.buf = make([]byte, 0, shardBytesStart)
	}
	return s
}

// end takes the record that was appended behind the first bytes of the buffer, or drops it when the buffer is too full.
func (l *AccessLog) end(s *shard, before int) {
	after := len(s.buf)
	if after > shardBytesMax {
		s.buf = s.buf[:before]
		s.mu.Unlock()
		l.dropped.Add(1)
		return
	}
	s.lines++
	s.mu.Unlock()
	if before < shardBytesFlush && after >= shardBytesFlush {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// Status says what became of the records so far.
func (l *AccessLog) Status() AccessLogStatus {
	if l == nil {
		return AccessLogStatus{}
	}
	return AccessLogStatus{Written: l.written.Load(), Dropped: l.dropped.Load(), Errors: l.errors.Load()}
}

// Reopen opens the file anew, under its path, after it was renamed by logrotate. When it returns without an error, the
// old file is closed and written no more. It does nothing when the sink is not a file. On an error the old file stays.
func (l *AccessLog) Reopen() error {
	if l == nil || l.path == "" {
		return nil
	}
	file, err := openLogFile(l.name, l.path)
	if err != nil {
		return err
	}
	r := reopening{file, make(chan error, 1)}
	select {
	case l.reopen <- r:
		return <-r.done
	case <-l.stopped:
		return errors.Join(fmt.Errorf("reopen %s: closed", l.name), file.Close())
	}
}

// Close flushes what was written and closes the file. Records written later are dropped. It waits at most five seconds
// for a sink that does not take the rest; the writer goroutine then lives until the sink lets it go.
func (l *AccessLog) Close() error {
	if l == nil {
		return nil
	}
	l.closing.Do(func() { close(l.stop) })
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case <-l.stopped:
		return nil
	case <-timer.C:
		return fmt.Errorf("close %s: the sink does not take the last records", l.name)
	}
}

// run is the writer goroutine; stop ends it.
func (l *AccessLog) run() {
	defer close(l.stopped)
	ticker := time.NewTicker(flushInterval)
	defer ticker.Stop()
	w := writer{l: l}
	for {
		select {
		case <-ticker.C:
			w.flush(false)
		case <-l.wake:
			w.flush(false)
		case r := <-l.reopen:
			w.flush(false)
			old := l.sink.(io.Closer)
			l.sink, w.torn = r.file, false
			r.done <- old.Close()
		case <-l.stop:
			w.flush(true)
			if l.path != "" {
				l.sink.(io.Closer).Close() // everything is written; there is nobody left to tell
			}
			return
		}
	}
}

// writer is the state of run. It owns the sink and the spare buffer of the pair.
type writer struct {
	l        *AccessLog
	spare    []byte
	torn     bool // the sink ends in the middle of a line
	reported time.Time
	lost     uint64 // dropped when last reported
}

// flush writes all shards, one after the other; last also closes them to further records.
func (w *writer) flush(last bool) {
	for i := range w.l.shards {
		s := &w.l.shards[i]
		s.mu.Lock()
		full, lines := s.buf, s.lines
		if len(full) > 0 {
			s.buf, s.lines = w.spare[:0], 0
		}
		s.closed = s.closed || last
		s.mu.Unlock()
		if len(full) > 0 {
			w.write(full, lines)
			w.spare = full[:0]
		}
	}
	w.report()
}

func (w *writer) write(b []byte, lines uint64) {
	if w.torn {
		if _, err := io.WriteString(w.l.sink, "\n"); err != nil {
			w.failed(lines, err)
			return
		}
		w.torn = false
	}
	n, err := w.l.sink.Write(b)
	if err != nil {
		w.torn = n > 0 && n < len(b) && b[n-1] != '\n'
		w.failed(lines, err)
		return
	}
	w.l.written.Add(lines)
}

func (w *writer) failed(lines uint64, err error) {
	w.l.dropped.Add(lines)
	if w.l.errors.Add(1) == 1 {
		if log := w.l.log.Load(); log != nil {
			log.Error(w.l.name+": write failed", "error", err)
		}
	}
}

// report tells the operator about lost records, at most once a minute.
func (w *writer) report() {
	lost := w.l.dropped.Load()
	if lost == w.lost || time.Since(w.reported) < time.Minute {
		return
	}
	if log := w.l.log.Load(); log != nil {
		log.Warn(w.l.name+": records lost, the sink is slow or failing", "lost", lost-w.lost, "errors", w.l.errors.Load())
		w.reported, w.lost = time.Now(), lost
	}
}
