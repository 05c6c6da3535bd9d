package sqldoor

import (
	"errors"
	"os"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// This file is what happens beside the straight way of serve.go: commands that the gateway answers itself, statements that
// fail, and the records of both.

// use makes another database the session's (COM_INIT_DB, or USE as a statement). It connects to its instance at once, so
// that the answer is true.
func (s *session) use(name string) (goOn bool) {
	d := s.tables.databases[name]
	if d == nil {
		return s.refuse(errorUnknownDatabase(name))
	}
	if s.link != nil && !d.has(s.link.home) {
		if s.inTransaction() {
			return s.refuse(errorTransaction)
		}
		if why := s.pinned(); why != "" {
			return s.refuse(errorPinned(name, why))
		}
	}
	before := s.database
	s.database, s.st.database = name, d
	var conn *backend.Conn
	schema := ""
	if l := s.link; l != nil && l.spent { // its schema may have been dropped, and made again: only choosing it tells
		conn, schema = l.Conn, l.Schema
		l.Schema = ""
	}
	if err := s.ensure(); err != nil {
		if s.link != nil && s.link.Conn == conn && conn.Schema == "" {
			conn.Schema = schema
		}
		s.logFault("connect an SQL session", err)
		goOn = s.refuseFor(err)
		s.database = before
		s.settle(!s.unsure)
		return goOn
	}
	s.show()
	s.traces.own(0)
	s.settle(!s.unsure)
	return s.sendChosen(s.st.message.Sequence)
}

// reset is COM_RESET_CONNECTION: the session is as at sign-in. A connection with a trace of it that cannot be set is closed, which is more thorough than to have it reset.
func (s *session) reset() (goOn bool) {
	s.forget()
	return s.sendOK(s.st.message.Sequence)
}

// forget takes back all that the session has set and made.
func (s *session) forget() {
	s.unlink(upstream.Outcome{})
	s.unpinAll()
	s.vars, s.traces, s.unsure = s.birth, traces{}, false
	s.prepared, s.newest, s.preparedBytes, s.opened = nil, nil, 0, 0
	s.status = mysql.Autocommit
	if s.birth != nil {
		if s.birth.Value("autocommit") == "0" {
			s.status = 0
		}
		version, _, _ := s.varsOf.Known()
		s.learn(version)
	}
}

// answerAlone answers COM_PING and COM_SET_OPTION of a session that has neither database nor connection.
func (s *session) answerAlone(argument []byte) (goOn bool) {
	switch s.st.command {
	case mysql.ComSetOption:
		if !s.setOption(string(argument)) {
			return s.refuse(errorUnknown)
		}
		end := mysql.OK{Status: s.ownStatus()}
		return s.client.WriteMessage(s.st.message.Sequence, func(dst []byte) []byte { return end.AppendEnd(dst, s.capabilities) }) == nil
	}
	return s.sendOK(s.st.message.Sequence)
}

// setOption keeps the capability that COM_SET_OPTION changes, for later connections.
func (s *session) setOption(argument string) bool {
	switch option, err := mysql.DecodeSetOption(append([]byte{byte(mysql.ComSetOption)}, argument...)); {
	case err != nil:
		return false
	case option == mysql.OptionMultiStatementsOn:
		s.capabilities |= mysql.MultiStatements
	default:
		s.capabilities &^= mysql.MultiStatements
	}
	return true
}

// changeUser is COM_CHANGE_USER: as if the client had left and come again. A failure ends the session, as in MySQL.
func (s *session) changeUser() (goOn bool) {
	st := &s.st
	s.client.ReadBefore(st.begun.Add(time.Duration(s.site.timeouts.RequestHeader)))
	payload, next, err := s.client.ReadMessage(0, signInMax)
	st.message.Sequence, st.consumed = next, true
	if err != nil {
		return s.failed(fault.Wrap(fault.BadRequest, "change of user", err))
	}
	var in mysql.ChangeUser
	if err := in.Decode(payload, s.capabilities); err != nil {
		s.refuse(errorMalformed)
		return false
	}
	a := admission{s: s, user: string(in.User), plugin: string(in.Plugin), proof: in.Auth, again: true, seq: st.message.Sequence}
	if !s.capabilities.Has(mysql.PluginAuth) {
		s.refuse(errorPlugins) // the greeting's nonce was used up; only a plugin can be given another one
		return false
	}
	refused := a.check()
	st.message.Sequence = a.seq
	if a.gone {
		st.fault = fault.ClientGone.String()
		return false
	}
	if refused == nil {
		s.forget()
		s.vars, s.birth, s.varsOf = nil, nil, nil
		if in.Collation != 0 {
			s.collation = collationOf(in.Collation)
		}
		database := string(in.Database)
		if database == "" {
			database = s.site.defaultDatabase
		}
		refused = s.enter(a.consumer, database, programOf(in.Attributes))
	}
	if refused != nil {
		s.refuse(*refused)
		return false
	}
	return s.sendChosen(st.message.Sequence)
}

// collationOf gives a collation for the sign-in at an instance, which has one byte for it. Those with larger numbers are NOPAD twins of MariaDB's, or of Unicode
// (0900 of MySQL, UCA 14.0.0 of MariaDB): instead of one of them the connection gets its twin, or the usual one of its character set.
func collationOf(c uint16) uint8 {
	const utf8mb3, utf8mb4 = 33, 45
	switch {
	case c < 256:
		return uint8(c)
	case c > 1024 && c < 1024+256:
		return uint8(c - 1024)
	case c >= 576 && c < 608, c >= 2048 && c < 2048+256:
		return utf8mb3
	}
	return utf8mb4
}

// discard reads the rest of a command that will not be sent. It says false when the session cannot go on.
func (s *session) discard() bool {
	st := &s.st
	for !st.consumed {
		n, done, err := st.message.Feed(s.client.Buffered())
		if err != nil {
			s.refuse(errorOrder)
			return false
		}
		s.client.Skip(n)
		st.in += int64(n)
		if st.consumed = done; done {
			break
		}
		if err := s.fill(); err != nil {
			return s.failed(err)
		}
	}
	return true
}

// refuse answers the command with an error; false when the client cannot be reached. A command without an answer gets none.
func (s *session) refuse(e mysql.Error) bool {
	st := &s.st
	st.code, st.state = e.Code, e.State
	s.traces.own(-1)
	if !st.command.Answered() {
		return true
	}
	return s.client.WriteMessage(st.message.Sequence, s.legible(e).AppendTo) == nil
}

// refuseFor answers with what an error means to the client. It says whether the session goes on.
func (s *session) refuseFor(err error) bool {
	var answered *mysql.Error
	if !errors.As(err, &answered) {
		s.st.fault = fault.Of(err).Kind.String()
	}
	e := errorOf(err, s.database)
	return s.refuse(e) && !errors.Is(err, errEnd)
}

// failed ends a statement that went wrong after a part of it was read, sent or answered. It says whether the session goes on:
// only when the client can be told in its answer's place, and has lost nothing with the connection.
func (s *session) failed(err error) (goOn bool) {
	st := &s.st
	var answered *mysql.Error
	if !errors.As(err, &answered) {
		kind := fault.Of(err).Kind
		st.fault = kind.String()
		switch kind {
		case fault.ClientGone, fault.Draining:
			return false // nobody is there to be told
		case fault.BadRequest:
			st.message.Sequence = max(st.message.Sequence, 1) // also of a command whose first byte could not be read
			s.refuse(errorOfPackets(err))
			return false
		case fault.RequestTimeout:
			s.refuseFor(err)
			return false
		}
	}
	s.logFault("relay a statement", err)
	if st.answered {
		if s.response.AtBoundary() {
			st.message.Sequence = s.response.Sequence
			return s.refuseFor(err) && st.to == replica // nothing of the session's is lost with it
		}
		return false
	}
	s.noteWrite(answered == nil)
	return s.discard() && s.refuseFor(err) && !st.held && s.pinned() == ""
}

// failedAfter is failed for what went wrong after the client had its whole answer. It says whether the session goes on.
func (s *session) failedAfter(err error) (goOn bool) {
	s.logFault("look after a connection", err)
	return !s.st.held && s.pinned() == ""
}

// lost is what became of a read or write at the instance that failed.
func (s *session) lost(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.breakLink(true)
		return fault.Wrap(fault.UpstreamTimeout, "the statement took too long", err)
	}
	kind := s.shutBy(fault.UpstreamBroken)
	if s.link.reads && !s.st.answered && kind == fault.UpstreamBroken && !s.halted.Load() {
		s.lostReplica(err)
		return errElsewhere
	}
	s.breakLink(kind == fault.UpstreamBroken)
	return fault.Wrap(kind, "connection lost", err)
}

// refusedMidway is called when the instance does not take the rest of a command. It may have said why (a packet too large,
// for example).
func (s *session) refusedMidway(cause error) error {
	s.link.ReadBefore(poll.Now().Add(time.Second))
	// Whatever its number, an error belongs to this command; the client expects the number after its last frame.
	if s.link.Need(mysql.HeaderLen) == nil {
		h, _ := mysql.ParseHeader(s.link.Buffered())
		payload, _, err := s.link.ReadMessage(h.Sequence, answerMax)
		if e := new(mysql.Error); err == nil && mysql.IsError(payload) && e.Decode(payload) == nil {
			s.breakLink(false)
			return e
		}
	}
	return s.lost(cause)
}

// breakLink closes the connection to the instance because its state is not known any more. failed says whose fault that is.
func (s *session) breakLink(failed bool) {
	s.st.held = s.st.held || s.inTransaction()
	s.unlink(upstream.Outcome{Failed: failed, Ignored: !failed})
}

// record counts the statement and writes its access record. Commands without an answer, and the end of the session, are
// no statements.
func (s *session) record() {
	st := &s.st
	if !st.command.Answered() || st.command == 0 && st.in == 0 {
		return
	}
	total := s.over.Sub(st.begun)
	series, database := s.tables.outside, ""
	if st.database != nil {
		series, database = st.database.series, st.database.name
	}
	command, split := st.command.String(), s.countSplit()
	series.Observe(command, int(st.code), total, st.upstream, st.in, st.out)
	s.count(total)
	if s.door.o.Access == nil {
		return
	}
	s.door.o.Access.Write(&observe.Record{
		Time: st.begun.Time(), Door: observe.DoorSQL, Listener: s.Listener.Name, Consumer: s.consumer.Name, ClientAddress: s.Peer,
		Session: uint64(s.id), Database: database, Command: command, Endpoint: st.endpoint, SQLCode: int(st.code), SQLState: st.state, Split: split,
		Fault: st.fault, Total: total, Upstream: st.upstream, BytesIn: st.in, BytesOut: st.out, Generation: s.tables.Generation,
	})
}

// recordSignIn writes the access record of a sign-in that was refused.
func (s *session) recordSignIn(begun poll.Instant, user, database string, e *mysql.Error) {
	series := s.tables.outside
	if d := s.tables.databases[database]; d != nil {
		series = d.series
	} else {
		database = "" // what strangers make up is not for logs and labels
	}
	total := poll.Now().Sub(begun)
	series.Observe("connect", int(e.Code), total, 0, 0, 0)
	if s.door.o.Access == nil {
		return
	}
	r := observe.Record{
		Time: begun.Time(), Door: observe.DoorSQL, Listener: s.Listener.Name, ClientAddress: s.Peer, Session: uint64(s.id),
		Database: database, Command: "connect", SQLCode: int(e.Code), SQLState: e.State, Fault: s.st.fault, Total: total, Generation: s.tables.Generation,
	}
	if c, known := s.tables.directory.MySQL(user); known {
		r.Consumer = c.Name
	}
	s.door.o.Access.Write(&r)
}

// logFault logs what the client is not told. What clients do wrong, and what instances answer to them, is for debugging only; that an instance does not take
// the gateway's login is not.
func (s *session) logFault(what string, err error) {
	log := s.door.o.Log.Debug
	var answered *mysql.Error
	if f := fault.Of(err); f.Kind.Blame() != fault.Client && (!errors.As(err, &answered) || refusesLogin(answered)) {
		log = s.door.o.Log.Warn
	}
	log(what, "session", s.id, "database", s.database, "error", err)
}
