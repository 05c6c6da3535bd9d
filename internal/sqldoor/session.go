package sqldoor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/identity"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/sqldoor/wire"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// session is one client's connection. But for the fields that say otherwise it belongs to its goroutine.
type session struct {
	door    *Door
	serving *serving
	series  *observe.ListenerSeries
	client  *wire.Conn
	address netip.Addr
	id      uint32

	tables   *Tables   // pinned for the running statement
	listener *listener // its newest settings

	consumer     *identity.Consumer // nil before sign-in
	capabilities mysql.Capability
	collation    uint8
	database     string // "" means none
	status       mysql.Status
	memory       memory
	link         *link // nil: not needed so far, or lost
	linked       bool  // there was one already

	st       statement
	response mysql.Response

	idle    atomic.Bool  // waits for a command outside of a transaction: Interrupt ends it
	waiting atomic.Int64 // the poll.Instant at which the running statement began; 0 between statements

	mu     sync.Mutex
	closer io.Closer   // of the link; nil without one
	killed *fault.Kind // why somebody else closed the connections; nil when nobody did
}

// link is the session's connection to an instance.
type link struct {
	*backend.Conn
	home   string // see database
	schema string // chosen last
	lease  upstream.Lease
	used   poll.Instant // when the last statement ended
}

// begin signs the client in. The session proper runs on a goroutine of its own, whose stack is not grown by sign-in: it is
// there as long as the client is.
func (s *session) begin() {
	signedIn := false
	defer func() {
		if !s.caught(recover()) && signedIn {
			go s.talk() // ends with its client or by Drain, which waits until it has left
			return
		}
		s.end()
	}()
	signedIn = s.signIn()
}

func (s *session) talk() {
	s.series.SessionOpened()
	defer func() {
		s.caught(recover())
		s.series.SessionClosed()
		s.end()
	}()
	s.serve()
}

// caught logs a panic: a bug ends the session that met it and no other.
func (s *session) caught(p any) bool {
	if p == nil {
		return false
	}
	s.door.o.Log.Error("BUG: panic in an SQL session", "session", s.id, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	return true
}

// end closes everything. The session's goroutine is over when it returns.
func (s *session) end() {
	s.unlink(upstream.Outcome{})
	_ = s.client.Close()
	s.door.left(s)
}

// drain ends the session if it is idle; else the session sees serving.draining when its statement or transaction is over.
func (s *session) drain() {
	if s.idle.Load() {
		s.client.Interrupt()
	}
}

// kill closes the session's connections because the time for draining is over; abandon does because the client has
// left. Both may be called from any goroutine.
func (s *session) kill()    { s.shut(fault.Draining) }
func (s *session) abandon() { s.shut(fault.ClientGone) }

func (s *session) shut(why fault.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.killed != nil {
		return
	}
	s.killed = &why
	_ = s.client.Close()
	if s.closer != nil {
		_ = s.closer.Close()
	}
}

// shutBy gives the reason why somebody else closed the connections, or otherwise.
func (s *session) shutBy(otherwise fault.Kind) fault.Kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.killed != nil {
		return *s.killed
	}
	return otherwise
}

// inTransaction says that the instance holds a transaction of this session.
func (s *session) inTransaction() bool { return s.link != nil && s.status&mysql.InTransaction != 0 }

// unlink closes the connection to the instance and reports how it was.
func (s *session) unlink(o upstream.Outcome) {
	l := s.link
	if l == nil {
		return
	}
	s.mu.Lock()
	s.closer = nil
	s.mu.Unlock()
	if o == (upstream.Outcome{}) {
		_ = l.Write(quit) // between statements the instance is told, so that it counts no aborted connection
	}
	_ = l.Close()
	l.lease.Done(o)
	s.link = nil
	s.status &^= mysql.InTransaction
}

var quit = mysql.AppendCommand(nil, mysql.ComQuit, "")

// target is the database whose instance answers the session: the chosen one, or for a session that chose none, Tables.home.
func (s *session) target() (d *database, schema string, err error) {
	if s.database == "" {
		if d = s.tables.home(); d == nil {
			return nil, "", &errorNoDatabase
		}
		return d, "", nil
	}
	if d = s.tables.databases[s.database]; d == nil {
		return nil, "", fault.New(fault.NoRoute, "no such database")
	}
	return d, d.schema, nil
}

// staleAfter is how long a connection must have been unused to be looked at before it is used again: a look is a system
// call, which sessions that are busy should not pay.
const staleAfter = 50 * time.Millisecond

// errEnd is in the chain of an error after which the session cannot go on.
var errEnd = errors.New("the session cannot go on")

// ensure makes sure that the session has a connection to the instance of its database, with its schema chosen. With an error,
// nothing of the statement was sent.
func (s *session) ensure() error {
	d, schema, err := s.target()
	l := s.link
	if l != nil && (err != nil || l.home != d.home) {
		switch {
		case s.inTransaction():
			return nil // the database moved or went: the transaction may end where it is
		case err == nil && s.memory.pinned() != "":
			return errors.Join(&errorMoved, errEnd)
		}
		s.unlink(upstream.Outcome{})
		l = nil
	}
	if err != nil {
		return err
	}
	if l != nil && poll.Now().Sub(l.used) >= staleAfter && !l.Alive() {
		if s.inTransaction() {
			return errors.Join(&errorLostIdle, errEnd)
		}
		s.unlink(upstream.Outcome{Ignored: true}) // servers close idle connections: that is no failure
		l = nil
	}
	if l != nil {
		if s.memory.lacks(s.st.verdict) {
			return errors.Join(&errorLostIdle, errEnd)
		}
		return s.choose(schema)
	}
	if s.linked {
		s.memory.replaced()
	}
	if s.memory.pinned() != "" || s.memory.lacks(s.st.verdict) {
		return errors.Join(&errorLostIdle, errEnd)
	}
	return s.open(d, schema)
}

// open connects to a database's instance and makes the session's settings again.
func (s *session) open(d *database, schema string) error {
	lease, err := d.set.Pick(upstream.Request{})
	if err != nil {
		return err
	}
	want := backend.Session{Capabilities: s.capabilities, Collation: s.collation, Schema: schema}
	conn, err := backend.Open(context.Background(), lease.Endpoint.Address, d.settings, want, d.facts)
	if err != nil {
		var refused *mysql.Error
		lease.Done(upstream.Outcome{Failed: !errors.As(err, &refused)})
		return err
	}
	s.link = &link{Conn: conn, home: d.home, schema: schema, lease: lease, used: poll.Now()}
	s.status, s.linked = conn.Status, true
	s.mu.Lock()
	s.closer = conn
	killed := s.killed != nil
	s.mu.Unlock()
	if killed {
		s.unlink(upstream.Outcome{})
		return fault.New(fault.Draining, "the session was ended")
	}
	for _, text := range s.memory.sets {
		if err := s.ask(mysql.ComQuery, text); err != nil {
			s.unlink(upstream.Outcome{})
			return fmt.Errorf("restore session settings: %w", err)
		}
	}
	return nil
}

// choose makes schema the current one of the connection.
func (s *session) choose(schema string) error {
	if s.link.schema == schema || schema == "" {
		return nil
	}
	if err := s.ask(mysql.ComInitDB, schema); err != nil {
		return err
	}
	s.link.schema = schema
	return nil
}

// ask sends a small command of the gateway's own and waits for its OK. A *mysql.Error leaves the connection usable; any other error
// has closed it.
func (s *session) ask(c mysql.Command, argument string) error {
	l := s.link
	err := l.Write(mysql.AppendCommand(nil, c, argument))
	var payload []byte
	if err == nil {
		payload, _, err = l.ReadMessage(1, answerMax)
	}
	switch {
	case err != nil:
		err = fault.Wrap(fault.UpstreamBroken, "connection lost", err)
	case mysql.IsError(payload):
		e := new(mysql.Error)
		if err = e.Decode(payload); err == nil {
			return e
		}
	default:
		var ok mysql.OK
		if err = ok.Decode(payload, l.Capabilities); err == nil && ok.Status&mysql.MoreResults == 0 {
			s.status = ok.Status
			return nil
		}
		err = fault.Wrap(fault.UpstreamBroken, "unexpected answer", err)
	}
	s.unlink(upstream.Outcome{Failed: true})
	return err
}

// answerMax bounds an answer to the gateway's own commands.
const answerMax = 64 << 10
