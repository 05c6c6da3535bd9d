package sqldoor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// This file is prepared statements. To its client a session's statement is a number; to the session it is a text, and what the text meant when it was prepared. On the
// connection that an execution gets, the text is prepared if it was not there yet, and the number exchanged. The answer to the client's own COM_STMT_PREPARE, with its
// descriptions of parameters and columns, always comes from the instance.

// prepared is one statement of a session.
type prepared struct {
	judgement
	id         uint32
	text       string
	schema     string        // chosen when it was prepared
	vars       *backend.Vars // of then
	reading    string        // see backend.Vars.Reading
	parameters int
	types      []byte // that the client bound last, two bytes for each parameter; never changed
	broken     bool   // long data for it was lost: what else comes is dropped, until the client was told
	large      bool   // see session.large
	digest     *digest

	open *backend.Statement // with a cursor or long data on the session's connection; nil without
	only *backend.Statement // large: what the session's connection has; nil while that is only a replica's, and for all others
}

// large says that a statement's text, or the types of its parameters, do not fit the buffer in which they are remembered.
func (s *session) large(parameters uint16) bool {
	return s.st.long || typesAt(int(parameters))+2*int(parameters) > textMax
}

// typesAt is where the types of that many parameters begin in the frame of an execution.
func typesAt(parameters int) int { return executeAt + (parameters+7)/8 + 1 }

// Bounds of what a session can prepare.
const (
	preparedMax      = 4096
	preparedBytesMax = 4 << 20
)

// execution is what the running command needs of a prepared statement.
type execution struct {
	*prepared
	on     *backend.Statement
	types  []byte // of this execution
	prefix int    // bytes of the frame up to the types, when they are to be put in; 0 when not
}

// newestID stands for the statement that was prepared last (MariaDB 10.2). Clients that do not wait for its number use it, MariaDB's connector for node for one.
const newestID = 1<<32 - 1

// offsets in the frames of the commands
const (
	idAt      = mysql.HeaderLen + 1
	executeAt = mysql.HeaderLen + 10 // the bitmap of NULLs
)

func errorStatement(id uint32, command mysql.Command) mysql.Error {
	name := map[mysql.Command]string{mysql.ComStmtExecute: "mysqld_stmt_execute", mysql.ComStmtFetch: "mysqld_stmt_fetch", mysql.ComStmtReset: "mysqld_stmt_reset"}[command]
	return mysql.Error{Code: 1243, State: "HY000", Message: fmt.Sprintf("Unknown prepared statement handler (%d) given to %s", id, name)}
}

// onStatement begins a command about a prepared statement: it says whether the command goes on to the instance, or what the session does then.
func (s *session) onStatement() (send, goOn bool) {
	st := &s.st
	h, _ := mysql.ParseHeader(s.client.Buffered())
	if h.Length < 5 {
		return false, s.discard() && s.refuse(errorMalformed)
	}
	if err := s.need(min(executeAt, mysql.HeaderLen+h.Length)); err != nil {
		return false, s.failed(err)
	}
	id := binary.LittleEndian.Uint32(s.client.Buffered()[idAt:])
	p := s.prepared[id]
	if id == newestID {
		p = s.newest
	}
	st.execution = execution{prepared: p}
	switch {
	case st.command == mysql.ComStmtClose:
		if p != nil {
			s.closePrepared(p)
		}
		return false, s.discard()
	case st.command == mysql.ComStmtLongData && (p == nil || p.broken):
		return false, s.discard() // as servers do: what executes it is told
	case p == nil:
		return false, s.discard() && s.refuse(errorStatement(id, st.command))
	case st.command == mysql.ComStmtReset && p.open == nil:
		p.broken = false
		return false, s.discard() && s.sendOK(st.message.Sequence)
	case st.command == mysql.ComStmtFetch && p.open == nil:
		return false, s.discard() && s.refuse(mysql.Error{Code: 1421, State: "HY000", Message: fmt.Sprintf("The statement (%d) has no open cursor.", id)})
	case st.command == mysql.ComStmtExecute:
		st.judgement, p.digest = p.judgement, s.door.digests.current(p.digest, s.tables.digestsMax)
		st.digest = p.digest
		s.doing.Store(p.digest)
		return s.onExecute(p, h)
	}
	return true, true
}

// onExecute reads the head of an execution: the types of its parameters, which clients send when they changed, and servers remember.
func (s *session) onExecute(p *prepared, h mysql.Header) (send, goOn bool) {
	st := &s.st
	if p.broken {
		p.broken = false
		if p.open != nil && s.link != nil { // what did arrive must not come before what is sent again
			if err := s.link.Reset(p.open); err != nil {
				s.logFault("reset a statement", err)
				s.breakLink(true)
			}
			s.hold(p, nil, false)
			s.settle(!s.unsure)
		}
		return false, s.discard() && s.refuse(errorLongData)
	}
	if h.Length < executeAt-mysql.HeaderLen {
		return false, s.discard() && s.refuse(errorMalformed)
	}
	st.cursor = s.client.Buffered()[idAt+4] != 0
	if p.parameters == 0 || p.large { // the connection is the one that has seen the types
		return true, true
	}
	flag := typesAt(p.parameters) - 1 // of the byte that says whether types follow
	if err := s.need(min(flag+1, mysql.HeaderLen+h.Length)); err != nil {
		return false, s.failed(err)
	}
	if mysql.HeaderLen+h.Length <= flag {
		return false, s.discard() && s.refuse(errorMalformed)
	}
	if s.client.Buffered()[flag] == 0 {
		if p.types == nil {
			return false, s.discard() && s.refuse(errorArguments)
		}
		st.types, st.prefix = p.types, flag
		return true, true
	}
	end := flag + 1 + 2*p.parameters
	if mysql.HeaderLen+h.Length < end {
		return false, s.discard() && s.refuse(errorMalformed)
	}
	if err := s.need(end); err != nil {
		return false, s.failed(err)
	}
	if types := s.client.Buffered()[flag+1 : end]; !bytes.Equal(types, p.types) || p.types == nil {
		p.types = bytes.Clone(types)
	}
	st.types = p.types
	return true, true
}

// bring is the last step before the statement is sent. Here it ends if it was killed.
func (s *session) bring() (err error) {
	st := &s.st
	if st.prepared != nil {
		err = s.bringPrepared()
	}
	if s.halted.Load() && !errors.Is(err, errEnd) {
		err = s.unsent()
	}
	if err != nil && st.command == mysql.ComStmtLongData {
		st.broken = true // what executes the statement is told
	}
	return err
}

// bringPrepared makes sure that the statement is prepared on the connection, and puts its number there into the command.
func (s *session) bringPrepared() error {
	st, l := &s.st, s.link
	p := st.prepared
	if p.large && l.reads { // nothing is kept there: see only
		return errElsewhere
	}
	on := p.open
	if on == nil {
		on = p.only
	}
	if on == nil && !p.large {
		on = l.Find(p.text, p.schema, p.reading)
	}
	if on == nil {
		var ok bool
		var err error
		if on, ok, err = l.PrepareUnder(p.vars, s.vars, p.text, p.schema, p.reading, uint16(p.parameters)); err != nil || !ok {
			var refused *mysql.Error
			switch {
			case err == nil:
				return &errorPrepareAgain
			case errors.As(err, &refused):
				return err
			}
			s.st.held = s.st.held || s.inTransaction()
			s.unlink(upstream.Outcome{Failed: true})
			if s.st.held || s.pinned() != "" {
				return errors.Join(err, errEnd)
			}
			return err
		}
		if p.large { // it was prepared on a replica, and is executed for the first time
			s.only(p, on)
		}
	}
	st.on = on
	if st.prefix > 0 && on.Bound != nil && bytes.Equal(on.Bound, st.types) {
		st.prefix = 0 // the instance knows them
	}
	if h, _ := mysql.ParseHeader(s.client.Buffered()); st.prefix > 0 && h.Length+len(st.types) >= mysql.PayloadMax {
		return &errorBindAgain
	}
	if st.command == mysql.ComStmtExecute {
		on.Bound = nil // until it succeeds
	}
	binary.LittleEndian.PutUint32(s.client.Buffered()[idAt:], on.ID)
	return nil
}

// withTypes gives the head of the frame with the types put in; the rest follows from st.prefix+1 on.
func (s *session) withTypes() []byte {
	st := &s.st
	view := s.client.Buffered()
	h, _ := mysql.ParseHeader(view)
	out := mysql.Header{Length: h.Length + len(st.types), Sequence: h.Sequence}.AppendTo(nil)
	out = append(out, view[mysql.HeaderLen:st.prefix]...)
	return append(append(out, 1), st.types...)
}

// rename puts the session's own number into the answer to COM_STMT_PREPARE, which is at the start of the link's buffer, and keeps the instance's.
func (s *session) rename() error {
	l := s.link
	if err := l.Need(mysql.HeaderLen + 1); err != nil {
		return err
	}
	h, _ := mysql.ParseHeader(l.Buffered())
	if h.Length < 12 || !mysql.IsOK(l.Buffered()[mysql.HeaderLen:]) {
		return nil
	}
	if err := l.Need(mysql.HeaderLen + 12); err != nil {
		return err
	}
	at := l.Buffered()[idAt:]
	s.st.real = binary.LittleEndian.Uint32(at)
	for {
		s.statements++
		if s.statements != 0 && s.statements != newestID && s.prepared[s.statements] == nil {
			break
		}
	}
	binary.LittleEndian.PutUint32(at, s.statements)
	return nil
}

// keepPrepared remembers a statement whose COM_STMT_PREPARE succeeded.
func (s *session) keepPrepared() error {
	st, r, l := &s.st, &s.response, s.link
	p := &prepared{judgement: st.judgement, id: r.Prepared.Statement, text: st.argument, schema: l.Schema, vars: s.vars, reading: s.vars.Reading(), parameters: int(r.Prepared.Parameters), digest: st.digest}
	if s.prepared == nil {
		s.prepared = make(map[uint32]*prepared)
	}
	s.prepared[p.id], s.newest = p, p
	s.preparedBytes += len(p.text)
	on, err := l.Keep(st.real, p.text, p.schema, p.reading)
	if p.large = s.large(r.Prepared.Parameters); p.large && !l.reads { // a replica's connection is given back: the first execution prepares it on the primary's
		s.only(p, on)
	}
	return err
}

// only keeps the session on the connection that has a large statement.
func (s *session) only(p *prepared, on *backend.Statement) {
	p.only, on.Open = on, true
	s.pin(pinLong)
}

// afterStatement follows cursors and long data. r is the answer.
func (s *session) afterStatement(r *mysql.Response) {
	st := &s.st
	p := st.prepared
	if p == nil {
		return
	}
	switch st.command {
	case mysql.ComStmtExecute:
		if r.Code == 0 {
			st.on.Bound = st.types
		}
		s.hold(p, st.on, r.Code == 0 && r.Status&mysql.CursorExists != 0)
	case mysql.ComStmtLongData:
		s.hold(p, st.on, true)
	case mysql.ComStmtReset:
		p.broken = p.broken && r.Code != 0
		s.hold(p, st.on, r.Code != 0)
	case mysql.ComStmtFetch:
		s.hold(p, st.on, r.Code == 0 && r.Status&mysql.LastRowSent == 0)
	}
}

// hold notes whether a statement has something on the connection that cannot be made again.
func (s *session) hold(p *prepared, on *backend.Statement, open bool) {
	switch {
	case open && p.open == nil:
		s.opened++
		p.open, on.Open = on, true
		s.pin(pinCursor)
	case !open && p.open != nil:
		p.open.Open, p.open = p.only != nil, nil
		if s.opened--; s.opened == 0 {
			s.unpin(pinCursor)
		}
	}
}

// closePrepared forgets a statement. The instance keeps it for the next session that wants it, but not with a cursor.
func (s *session) closePrepared(p *prepared) {
	delete(s.prepared, p.id)
	if s.newest == p {
		s.newest = nil
	}
	s.preparedBytes -= len(p.text)
	on := p.open
	if on == nil {
		on = p.only
	}
	if on == nil {
		return
	}
	s.hold(p, nil, false)
	if s.link != nil {
		if err := s.link.Forget(on); err != nil {
			s.breakLink(true)
		}
	}
	if s.link != nil {
		s.link.Used = poll.Now()
		s.settle(!s.unsure)
	}
}
