package observe

import (
	"io"
	"log/slog"
	"net/netip"
	"strconv"
	"time"
)

// SlowLog writes one JSON line for each statement that took too long. It is an AccessLog for other records: Write never waits, a file can be reopened, Close flushes. A nil
// *SlowLog discards.
type SlowLog struct{ lines *AccessLog }

// OpenSlowLog opens the slow log, at the same places as OpenAccessLog. For "none" the result is nil, which discards.
func OpenSlowLog(to string) (*SlowLog, error) {
	lines, err := openLog("slow log", to)
	if lines == nil {
		return nil, err
	}
	return &SlowLog{lines}, err
}

// NewSlowLog writes records to a writer of the caller's, who closes it after Close.
func NewSlowLog(w io.Writer) *SlowLog { return &SlowLog{newLog("slow log", w, "")} }

// SlowStatement is what is said about one slow statement. Empty fields are left out of the line. Its stages do not overlap; what they leave of Total the gateway itself needed, or
// the client, to send its statement.
type SlowStatement struct {
	Time          time.Time // when it began
	Listener      string
	ClientAddress netip.Addr
	Consumer      string
	Session       uint64
	Database      string
	Endpoint      string // "" when none was asked
	Command       string // "query", "execute", ...
	Kind          string // what it is by its words: "select", "update", ...
	Split         string // as in Record
	Digest        string // see DigestStatus.ID
	Statement     string // without literals
	Literals      []byte // the text as the client sent it; nil unless asked for
	Pins          []string
	SQLCode       int
	SQLState      string
	Fault         string
	Rows          uint64
	Affected      uint64
	BytesIn       int64
	BytesOut      int64
	Generation    uint64

	Total    time.Duration
	Queue    time.Duration // waiting for a connection of the pool
	Connect  time.Duration // opening one
	Settings time.Duration // what the gateway sent for itself: settings, schema, a statement prepared again
	Upstream time.Duration // from its last byte sent to the instance to the first byte of the answer
	Stream   time.Duration // from the first byte of the answer to the last one, which is also the client's time
}

// Write adds a record. It never waits for the sink: when the buffer is full the record is dropped and counted.
func (l *SlowLog) Write(r *SlowStatement) {
	if l == nil {
		return
	}
	if s := l.lines.begin(); s != nil {
		before := len(s.buf)
		s.buf = appendSlow(s.buf, r, &s.clock)
		l.lines.end(s, before)
	}
}

// SetLog sets the logger that is told, at most once a minute, that records were lost.
func (l *SlowLog) SetLog(log *slog.Logger) {
	if l != nil {
		l.lines.SetLog(log)
	}
}

// Status says what became of the records so far.
func (l *SlowLog) Status() AccessLogStatus {
	if l == nil {
		return AccessLogStatus{}
	}
	return l.lines.Status()
}

// Reopen is AccessLog.Reopen.
func (l *SlowLog) Reopen() error {
	if l == nil {
		return nil
	}
	return l.lines.Reopen()
}

// Close is AccessLog.Close.
func (l *SlowLog) Close() error {
	if l == nil {
		return nil
	}
	return l.lines.Close()
}

// appendSlow adds the record as one line of JSON, in a fixed order of fields.
func appendSlow(dst []byte, r *SlowStatement, c *clock) []byte {
	dst = append(dst, `{"time":"`...)
	dst = c.append(dst, r.Time)
	dst = append(dst, `","slow":true`...)
	dst = text(dst, `,"listener":`, r.Listener)
	dst = address(dst, r.ClientAddress)
	dst = text(dst, `,"consumer":`, r.Consumer)
	dst = strconv.AppendUint(append(dst, `,"session":`...), r.Session, 10)
	dst = text(dst, `,"database":`, r.Database)
	dst = text(dst, `,"endpoint":`, r.Endpoint)
	dst = text(dst, `,"command":`, r.Command)
	dst = text(dst, `,"kind":`, r.Kind)
	dst = text(dst, `,"split":`, r.Split)
	dst = text(dst, `,"digest":`, r.Digest)
	dst = text(dst, `,"statement":`, r.Statement)
	dst = text(dst, `,"literals":`, r.Literals)
	for i, p := range r.Pins {
		key := `,"pins":[`
		if i > 0 {
			key = ","
		}
		dst = append(escape(append(append(dst, key...), '"'), p), '"')
	}
	if len(r.Pins) > 0 {
		dst = append(dst, ']')
	}
	dst = strconv.AppendInt(append(dst, `,"sql_code":`...), int64(r.SQLCode), 10)
	dst = text(dst, `,"sql_state":`, r.SQLState)
	dst = text(dst, `,"fault":`, r.Fault)
	dst = milliseconds(append(dst, `,"duration_ms":`...), r.Total)
	dst = milliseconds(append(dst, `,"queue_ms":`...), r.Queue)
	dst = milliseconds(append(dst, `,"connect_ms":`...), r.Connect)
	dst = milliseconds(append(dst, `,"settings_ms":`...), r.Settings)
	dst = milliseconds(append(dst, `,"upstream_ms":`...), r.Upstream)
	dst = milliseconds(append(dst, `,"stream_ms":`...), r.Stream)
	dst = strconv.AppendUint(append(dst, `,"rows":`...), r.Rows, 10)
	dst = strconv.AppendUint(append(dst, `,"affected":`...), r.Affected, 10)
	dst = strconv.AppendInt(append(dst, `,"bytes_in":`...), r.BytesIn, 10)
	dst = strconv.AppendInt(append(dst, `,"bytes_out":`...), r.BytesOut, 10)
	dst = strconv.AppendUint(append(dst, `,"generation":`...), r.Generation, 10)
	return append(dst, '}', '\n')
}
