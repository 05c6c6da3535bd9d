package sqldoor

import (
	"errors"
	"math/bits"
	"os"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/sqldoor/scan"
	"github.com/menshen-gateway/menshen/internal/sqldoor/wire"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// statement is one command of the client, from its first byte to the last one of its answer.
type statement struct {
	command mysql.Command
	message mysql.Message // follows the command's frames; its Sequence is that of the answer
	whole   bool          // all of the command was read from the client
	judgement
	execution
	real     uint32 // the instance's number for a statement that was just prepared
	head     uint32 // prefix, before the statement was sent
	argument string // of the commands that are looked at after their answer
	cursor   bool
	begun    poll.Instant
	asked    poll.Instant // its last byte was sent
	database *database    // whose series count it; nil outside of all
	digest   *digest      // counts it; nil for commands without a text
	endpoint string
	to       destination
	kept     int // bytes of it that were sent and are still in the client's buffer
	stages
	upstream time.Duration // from the command's last byte to the answer's first
	in, out  int64
	code     uint16 // of the error that the client got; 0 when all went well
	state    string
	fault    string // id of what went wrong with the gateway's own work; "" for nothing
	consumed bool   // nothing of the command is left to read
	answered bool   // part of the answer is on its way to the client
	held     bool   // the connection was lost, and a transaction with it
}

// serve is the life of a session after sign-in, or a part of it: left says that the session waits for its next command, or for an answer, without
// a goroutine, and is not ours any more. (With a goroutine that sleeps between question and answer, a statement cost 0.3 µs more.)
func (s *session) serve() (left bool) {
	for {
		sent, goOn := s.asked, true
		if !sent {
			switch s.await() {
			case nothing:
				return false
			case later:
				return true
			}
			sent, goOn = s.one()
		}
		if sent {
			s.asked = true
			s.link.ServedBy(s)
			err := s.awaitAnswer()
			if err == poll.ErrDetached {
				return true
			}
			s.asked = false
			goOn = s.conclude(err)
		}
		if s.over == 0 {
			s.over = poll.Now()
		}
		s.record()
		if !goOn {
			return false
		}
	}
}

// one is the way of one statement: read its head, judge it, find its connection, send it. What comes after the wait for the answer is conclude's. When the statement is not sent, one says
// whether the session goes on.
func (s *session) one() (sent, goOn bool) {
	st := &s.st
	*st = statement{}
	st.begun = max(s.client.Recent(), s.over) // it may have come while the last one ran
	s.over = 0
	if t := s.door.o.Tables(); t != s.tables || s.chosen == nil || s.chosen.name != s.database {
		s.tables, s.chosen = t, t.databases[s.database]
		if l := t.listeners[s.Listener.Name]; l != nil {
			s.site = l
		}
	}
	st.database = s.chosen

	text, ok := s.head()
	if !ok {
		return false, false
	}
	if s.halted.Load() {
		s.unhalt() // it was meant for the one before
	}
	s.command.Store(uint32(st.command))
	s.waiting.Store(int64(st.begun))
	switch st.command {
	case mysql.ComQuit:
		return false, false
	case mysql.ComInitDB:
		return false, s.discard() && s.use(string(text))
	case mysql.ComChangeUser:
		return false, s.changeUser()
	case mysql.ComQuery, mysql.ComStmtPrepare:
		if st.command == mysql.ComStmtPrepare {
			s.newest = nil // until it succeeds
		}
		if s.vars == nil && s.link == nil && !ofGateway(scan.Classify(text, &s.mode).Kind) {
			_ = s.ensure() // how the text is to be read depends on the instance; without one there is an error soon enough
		}
		s.account(text)
		st.judgement = s.judge(text, st.whole)
		if s.pins.has(pinUnread) && st.Kind != scan.ShowDiagnostics {
			if asks(st.Effects) || !st.whole {
				st.Effects |= scan.UnknownEffect // it was read by settings that may have changed
			} else if err := s.read(); err != nil {
				s.logFault("ask for settings", err)
				return false, s.discard() && s.refuseFor(err) && !st.held && s.pinned() == ""
			} else {
				s.account(text)
				st.judgement = s.judge(text, true)
			}
		}
		switch {
		case st.command == mysql.ComStmtPrepare && (st.Kind == scan.Use || st.Kind == scan.Kill || st.Kind == scan.ShowMenshen || st.Kind == scan.ShowProcesses || st.Effects.Has(scan.ChangesSchema)):
			return false, s.discard() && s.refuse(errorPrepared)
		case st.refusal != nil:
			return false, s.discard() && s.refuse(*st.refusal)
		case st.Kind == scan.Use:
			return false, s.discard() && s.use(st.name)
		case st.command == mysql.ComQuery:
			if answered, goOn := s.local(text); answered {
				return false, goOn
			}
		case len(s.prepared) >= preparedMax, s.preparedBytes+len(text) > preparedBytesMax:
			return false, s.discard() && s.refuse(errorPreparedMax)
		case st.whole:
			st.argument = string(text)
		}
	case mysql.ComStmtExecute, mysql.ComStmtLongData, mysql.ComStmtReset, mysql.ComStmtFetch, mysql.ComStmtClose:
		if send, goOn := s.onStatement(); !send {
			return false, goOn
		}
	case mysql.ComReset:
		return false, s.discard() && s.reset()
	case mysql.ComPing, mysql.ComSetOption:
		if s.link == nil && s.database == "" {
			return false, s.discard() && s.answerAlone(text)
		}
		st.argument = string(text)
	case mysql.ComFieldList, mysql.ComStatistics, mysql.ComProcessInfo, mysql.ComDebug, mysql.ComRefresh:
	case mysql.ComProcessKill:
		id := append([]byte(nil), text...)
		return false, s.discard() && s.killProcess(id)
	default:
		return false, s.discard() && s.refuse(errorUnknown)
	}

	if err := s.reach(text); err != nil {
		if st.command == mysql.ComStmtLongData {
			st.broken = true // what executes the statement is told
		}
		s.logFault("connect an SQL session", err)
		return false, s.discard() && s.refuseFor(err)
	}
	prefix := st.prefix
	err := s.bring()
	if err != nil && s.again(prefix, true) {
		if err = s.ensure(); err == nil {
			err = s.bring()
		}
	}
	if err != nil {
		s.logFault("prepare a statement again", err)
		return false, s.discard() && s.refuseFor(err)
	}
	st.head = uint32(prefix)
	if err = s.send(); err != nil {
		return false, s.conclude(err)
	}
	return true, true
}

// conclude is the rest of a statement's way: pass on the answer, of which something is there unless err says what went wrong, and remember what the statement left behind. It says
// whether the session goes on.
func (s *session) conclude(err error) (goOn bool) {
	prefix := int(s.st.head)
	if err == nil {
		err = s.answer()
	}
	for errors.Is(err, errDeposed) {
		if err = s.repeat(prefix); err != nil {
			s.logFault("wait for a primary after all", err)
			return s.discard() && s.refuseFor(err)
		}
		err = s.exchange()
	}
	if err != nil && s.again(prefix, errors.Is(err, errElsewhere)) {
		if err = s.ensure(); err == nil {
			err = s.bring()
		}
		if err != nil {
			s.logFault("read from the primary after all", err)
			return s.discard() && s.refuseFor(err)
		}
		err = s.exchange()
	}
	if err != nil {
		return s.failed(err)
	}
	return s.remember()
}

// exchange sends the statement once more, to another instance, and passes the answer on.
func (s *session) exchange() error {
	s.link.ServedBy(nil)
	if err := s.send(); err != nil {
		return err
	}
	if err := s.awaitAnswer(); err != nil {
		return err
	}
	return s.answer()
}

// next is what a session does next.
type next uint8

const (
	nothing next = iota // it is over
	more                // a command, of which something is buffered
	later               // nobody knows: the poller has the session, and calls Resume
)

// await waits for the next command, holding no buffer.
func (s *session) await() next {
	if !s.resting && !s.rest() {
		return nothing
	}
	err := s.client.Await()
	if err == poll.ErrDetached {
		return later
	}
	if err != nil && errors.Is(err, poll.ErrInterrupted) && s.inTransaction() {
		// Retire took the session for idle in the moment in which the statement came that began the transaction.
		if err = s.client.Await(); err == poll.ErrDetached {
			return later
		}
	}
	s.resting = false
	s.idle.Store(false)
	switch {
	case err == nil:
		return more
	case errors.Is(err, poll.ErrInterrupted):
		s.farewell()
	case errors.Is(err, wire.ErrCompressed):
		e := errorOfPackets(err)
		_ = s.client.WriteMessage(1, e.AppendTo)
	}
	return nothing // the client left, or its time is over
}

// rest prepares the wait. It says false when the session is over.
func (s *session) rest() bool {
	s.resting = true
	s.waiting.Store(0)
	s.client.Release()
	if s.link != nil && (s.pins.set == 0 || s.link.reads) { // a statement that was not sent after all
		s.settle(!s.unsure)
	}
	if s.link != nil {
		s.link.Release()
		if len(s.link.Buffered()) > 0 { // the instance said more than it was asked: nothing it says can be trusted
			s.unlink(upstream.Outcome{Failed: true})
			s.pin(pinUnknown) // the next statement is told
		}
	}
	if s.over == 0 {
		s.over = poll.Now()
	}
	s.client.ReadBeforeSince(s.over, s.over.Add(time.Duration(s.site.timeouts.Idle)))
	if !s.inTransaction() {
		// Drain sets draining first and looks at idle then; here it is the other way round, so one of the two sees the other.
		s.idle.Store(true)
		if s.Listener.Retired() {
			s.idle.Store(false)
			return s.farewell()
		}
	}
	return true
}

// farewell tells a client that sent nothing that its session is over; always false. The packet is numbered as the answer to its
// next command, which is what it will be read as.
func (s *session) farewell() bool {
	_ = s.client.WriteMessage(1, errorShutdown.AppendTo)
	return false
}

// fill reads more of the client's command.
func (s *session) fill() error {
	s.client.ReadBefore(poll.Now().Add(time.Duration(s.site.timeouts.RequestBody)))
	err := s.client.Fill()
	if errors.Is(err, poll.ErrInterrupted) { // by Drain, which took the session for idle
		err = s.client.Fill()
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fault.Wrap(fault.RequestTimeout, "the client took too long to send", err)
	case errors.Is(err, wire.ErrCompressed):
		return fault.Wrap(fault.BadRequest, "compression", err)
	}
	return fault.Wrap(s.shutBy(fault.ClientGone), "the client left", err)
}

// need reads until n bytes of the command are buffered.
func (s *session) need(n int) error {
	for len(s.client.Buffered()) < n {
		if err := s.fill(); err != nil {
			return err
		}
	}
	return nil
}

// textMax is as much of a statement as is looked at; sessions that send longer ones keep their connection.
const textMax = poll.LargeBuffer

// head reads the command's byte, and of a statement all of its text that fits a buffer. It says false when the session
// cannot go on.
func (s *session) head() (text []byte, ok bool) {
	st := &s.st
	if err := s.need(mysql.HeaderLen); err != nil {
		return nil, s.failed(err)
	}
	h, _ := mysql.ParseHeader(s.client.Buffered())
	if h.Sequence != 0 {
		st.message.Sequence = h.Sequence + 1
		s.refuse(errorOrder)
		return nil, false
	}
	if h.Length == 0 {
		st.message.Sequence = 1
		s.refuse(errorMalformed)
		return nil, false
	}
	want := mysql.HeaderLen + 1
	if err := s.need(want); err != nil {
		return nil, s.failed(err)
	}
	st.command = mysql.Command(s.client.Buffered()[mysql.HeaderLen])
	switch st.command {
	case mysql.ComQuery, mysql.ComStmtPrepare, mysql.ComStmtExecute, mysql.ComInitDB, mysql.ComSetOption, mysql.ComProcessKill:
		want = min(mysql.HeaderLen+h.Length, textMax)
		if err := s.need(want); err != nil {
			return nil, s.failed(err)
		}
	}
	st.whole = mysql.HeaderLen+h.Length == want
	return s.client.Buffered()[mysql.HeaderLen+1 : want], true
}

// send passes the command on to the instance as it comes, in pieces when it is large.
func (s *session) send() error {
	st := &s.st
	st.endpoint = s.link.in.address
	for {
		n, done, err := st.message.Feed(s.client.Buffered())
		if err != nil {
			s.breakLink(false)
			return fault.Wrap(fault.BadRequest, "packets out of order", err)
		}
		if st.prefix > 0 { // of the first piece only
			err = s.link.Write(append(s.withTypes(), s.client.Buffered()[st.prefix+1:n]...))
			st.prefix = 0
		} else {
			err = s.link.Write(s.client.Buffered()[:n])
		}
		if s.link.reads || s.keeps() { // it is whole, and may have to be sent to another instance
			st.kept = n
		} else {
			s.client.Skip(n)
		}
		st.in += int64(n)
		st.consumed = done
		if err != nil {
			return s.refusedMidway(err)
		}
		if done {
			s.client.Lend() // to the answer, or to others while this one waits for it
			s.expect()
			if s.halted.Load() { // the instance may have been told before the statement was there
				if err := s.interrupt(); err != nil {
					s.logFault("kill a statement", err)
				}
			}
			return nil
		}
		if err := s.fill(); err != nil {
			s.breakLink(false)
			return err
		}
	}
}

// expect gets ready for the answer.
func (s *session) expect() {
	st := &s.st
	s.response.Start(st.command, s.link.Capabilities, st.message.Sequence, st.cursor)
	if s.response.Done() {
		return // there is none
	}
	st.asked = poll.Now()
	st.sent, st.settings = st.asked.Sub(st.begun), s.link.Own
	var bound poll.Instant
	if st.database != nil {
		bound = st.asked.Add(st.database.statement)
	}
	s.link.ReadBeforeSince(st.asked, bound)
}

// awaitAnswer waits until the answer begins. After poll.ErrDetached the session is not ours any more.
func (s *session) awaitAnswer() error {
	if s.response.Done() {
		return nil
	}
	err := s.link.AwaitAnswer()
	if err == nil || err == poll.ErrDetached {
		return err
	}
	return s.lost(err)
}

// answer passes the answer on to the client, one write for each read, until its last byte.
func (s *session) answer() error {
	st, r := &s.st, &s.response
	for !r.Done() {
		if len(s.link.Buffered()) == 0 {
			if err := s.link.Fill(); err != nil {
				return s.lost(err)
			}
		}
		if !st.answered {
			if s.link.reads {
				if err := s.accepted(); err != nil {
					return err
				}
			} else if st.kept > 0 {
				if over, err := s.taken(); over || err != nil {
					return err
				}
			}
			if st.command == mysql.ComStmtPrepare {
				if err := s.rename(); err != nil {
					return s.lost(err)
				}
			}
			if came := s.link.Recent(); came > st.asked {
				st.upstream = came.Sub(st.asked)
			} else { // the poller's turn is still to come
				st.upstream = poll.Now().Sub(st.asked)
			}
			s.link.ReadBefore(0) // the bound is for the first byte
		}
		n, err := r.Feed(s.link.Buffered())
		if err != nil {
			return s.lost(err)
		}
		if err := s.client.Write(s.link.Buffered()[:n]); err != nil {
			s.breakLink(false)
			return fault.Wrap(s.shutBy(fault.ClientGone), "the client left", err)
		}
		s.link.Skip(n)
		st.answered = true
		st.out += int64(n)
		if r.WantsFile() {
			if err := s.file(); err != nil {
				return err
			}
		}
	}
	return nil
}

// file passes the client's file on to the instance (LOAD DATA LOCAL): messages up to an empty one. When the instance is
// lost the rest is read all the same, because the client listens only after its file.
func (s *session) file() error {
	st, r := &s.st, &s.response
	var lost error
	s.client.Number(r.Sequence)
	defer s.client.Uncounted()
	for sequence := r.Sequence; ; {
		m := mysql.Message{Sequence: sequence}
		for done := false; !done; {
			if len(s.client.Buffered()) == 0 {
				if err := s.fill(); err != nil {
					s.breakLink(false)
					return err
				}
			}
			n, end, err := m.Feed(s.client.Buffered())
			if err != nil {
				s.breakLink(false)
				return fault.Wrap(fault.BadRequest, "packets out of order", err)
			}
			if lost == nil {
				lost = s.link.Write(s.client.Buffered()[:n])
			}
			s.client.Skip(n)
			st.in += int64(n)
			done = end
		}
		sequence = m.Sequence
		if m.Length() == 0 {
			r.FileSent(sequence)
			if lost != nil {
				return s.lost(lost)
			}
			return nil
		}
	}
}

// remember notes what the statement left behind, and gives the connection back if that can be had on another one too. It says whether the session goes on.
func (s *session) remember() (goOn bool) {
	st, r, l := &s.st, &s.response, s.link
	known := r.Settled && r.Code == 0
	if r.Settled {
		s.status = r.Status
		l.Status = r.Status
	}
	if st.code = r.Code; st.code != 0 {
		if st.state = string(r.State[:]); r.State[0] == 0 {
			st.state = ""
		}
		if readOnly(st.code) {
			l.refusedWrite()
		}
	}
	s.afterStatement(r)
	switch st.command {
	case mysql.ComQuery, mysql.ComStmtExecute:
		if err := s.after(); err != nil {
			s.logFault("look after a connection", err)
			return false // what a SET has set is lost, and its client was told that it is there
		}
	default:
		switch {
		case r.Code == 0 && (st.command == mysql.ComStmtPrepare || st.command == mysql.ComStatistics || st.command == mysql.ComStmtLongData):
			// They leave ROW_COUNT() as it was, wherever that is.
		default:
			s.traces.last, s.traces.pool, s.traces.counted = here(l.Conn), l.pool, false
		}
		if r.Code != 0 || r.Warnings > 0 {
			s.traces.warned, s.traces.warnedOn, l.Warned = true, l.Conn, s.id
		}
		switch {
		case !st.command.Answered():
			known = !s.unsure
		case st.command == mysql.ComRefresh:
			s.pin(pinLocks) // it may hold locks
		case st.command == mysql.ComStmtPrepare && r.Code == 0:
			if err := s.keepPrepared(); err != nil {
				s.breakLink(true)
				return s.failedAfter(err)
			}
		case st.command == mysql.ComSetOption && r.Code == 0:
			s.setOption(st.argument)
			l.Key = s.key()
		}
	}
	s.over = poll.Now()
	s.settle(known)
	return !st.held // the client has its answer; that a transaction went with the connection it learns by the end of its session
}

// after notes what a statement left on its connection.
func (s *session) after() error {
	st, r, l := &s.st, &s.response, s.link
	if l.reads {
		s.afterRead()
		return nil
	}
	s.noteWrite(false)
	s.unpin(pinFoundRows)
	if s.pins.has(pinNextTransaction) && st.Effects.Has(scan.EndsTransaction) && r.Code == 0 && r.Status&mysql.InTransaction == 0 && s.pins.has(pinTransaction) {
		s.unpin(pinNextTransaction)
	}
	s.traces.ran(l.Conn, s.id, &st.judgement, r)
	s.traces.pool = l.pool
	if r.Code == 1193 && st.Kind == scan.Set && st.Statements == 1 && !st.Effects.Has(anything) {
		return nil // an unknown variable: the statement was not begun. Tools try those of other servers and versions
	}
	if r.Code == 1064 && !r.Settled && st.Kind == scan.Unknown {
		return nil // it was not even read
	}
	if st.makes(r) {
		if s.traces.insert == nil {
			s.traces.insert = new(backend.Insert)
		}
		l.Made(s.traces.insert)
	}
	if st.Kind == scan.UnlockTables && r.Code == 0 {
		s.unpin(pinTables)
	}
	switch {
	case st.Kind == scan.Savepoint && s.status&mysql.Autocommit == 0:
		s.pin(pinSavepoint)
	case st.Effects.Has(scan.EndsTransaction) && st.Statements == 1 && r.Code == 0:
		s.unpin(pinSavepoint)
	}
	if st.spends {
		if l.spent = true; r.Warnings > 0 {
			s.pin(pinUnread) // they would go with the connection
		}
	}
	for set := st.pinsOf(); set != 0; set &= set - 1 {
		s.pin(pin(bits.TrailingZeros32(set)))
	}
	switch {
	case !st.Effects.Has(scan.SetsVariables) || l.Vars == nil:
		return nil
	case r.Code != 0 || r.Warnings > 0:
		s.pin(pinUnread)
		return nil
	}
	return s.reread()
}
