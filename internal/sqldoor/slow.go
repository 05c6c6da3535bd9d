package sqldoor

import (
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/observe"
)

// This file counts statements by their text (digests.go) and writes those that took too long to the slow log.

// stages is where a statement's time went before it was sent. Each is measured only where there is something to wait for, so a statement that finds its connection at hand does not
// read the clock for them.
type stages struct {
	sent     time.Duration // from the command's first byte to when its last one was passed on
	queue    time.Duration // waiting for a connection
	connect  time.Duration // opening one
	settings time.Duration // what the gateway sent for itself before
}

// slowSettings is the slow log's part of a generation.
type slowSettings struct {
	on        bool
	threshold time.Duration
	literals  bool
}

func slowSettingsOf(c *config.SlowLog) (s slowSettings) {
	if c != nil {
		s = slowSettings{on: true, threshold: time.Duration(c.Threshold), literals: c.Literals}
	}
	return s
}

// literalsMax is how much of a statement's own text is kept for the slow log, if that is asked for.
const literalsMax = 4 << 10

// account finds out what a statement will be counted as. text dies when it is sent.
func (s *session) account(text []byte) {
	st, t := &s.st, s.tables
	st.digest = s.door.digests.of(text, st.whole, &s.mode, s.database, t.digestsMax)
	s.doing.Store(st.digest)
	s.literals = s.literals[:0]
	if t.slow.literals {
		s.literals = append(s.literals, text[:min(len(text), literalsMax)]...)
	}
}

// count counts the statement that is over. A COM_STMT_PREPARE is none, its executions are; but one that failed has none, and would be seen nowhere.
func (s *session) count(total time.Duration) {
	st := &s.st
	failed := st.code != 0 || st.fault != ""
	if st.digest != nil && (failed || st.command != mysql.ComStmtPrepare) {
		x := observe.Execution{Begun: st.begun.Time(), Total: total, BytesIn: st.in, BytesOut: st.out, Failed: failed}
		if st.answered { // else the response is that of an earlier statement
			x.Rows, x.Affected = s.response.Rows, s.response.Affected
		}
		st.digest.Observe(&x)
	}
	if slow := &s.tables.slow; slow.on && total >= slow.threshold && s.door.o.Slow != nil {
		s.recordSlow(total)
	}
	if s.link != nil {
		s.link.Own = 0
	}
}

// recordSlow writes a statement to the slow log.
func (s *session) recordSlow(total time.Duration) {
	st := &s.st
	r := observe.SlowStatement{
		Time: st.begun.Time(), Listener: s.Listener.Name, ClientAddress: s.Peer, Consumer: s.consumer.Name, Session: uint64(s.id), Endpoint: st.endpoint,
		Command: st.command.String(), SQLCode: int(st.code), SQLState: st.state, Fault: st.fault, BytesIn: st.in, BytesOut: st.out, Generation: s.tables.Generation,
		Total: total, Queue: st.queue, Connect: st.connect, Settings: st.settings, Upstream: st.upstream,
	}
	if st.database != nil {
		r.Database = st.database.name
		if len(st.database.instances) > 1 && st.endpoint != "" {
			r.Split = st.to.String()
		}
	}
	if d := st.digest; d != nil {
		r.Kind, r.Digest, r.Statement = st.Kind.String(), d.id(), d.text
		if st.command != mysql.ComStmtExecute {
			r.Literals = s.literals
		}
	}
	if st.answered {
		r.Rows, r.Affected = s.response.Rows, s.response.Affected
		r.Stream = max(total-st.sent-st.upstream, 0)
	}
	for i := range pinCount {
		if s.pins.has(i) {
			r.Pins = append(r.Pins, i.String())
		}
	}
	s.door.o.Slow.Write(&r)
}
