package sqldoor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/identity"
	"github.com/menshen-gateway/menshen/internal/listener"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/sqldoor/scan"
	"github.com/menshen-gateway/menshen/internal/sqldoor/wire"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// session is one client's connection. But for the fields that say otherwise it belongs to the goroutine that serves it, and to none while it
// is idle on the own poller, or waits there for an answer.
type session struct {
	listener.Entry
	door   *Door
	client *wire.Conn
	id     uint32

	tables *Tables // pinned for the running statement
	site   *site   // the newest settings of the listener

	consumer     *identity.Consumer // nil before sign-in
	capabilities mysql.Capability
	collation    uint8
	nonce        [mysql.NonceLen]byte // the last one that the client was given
	database     string               // "" means none
	status       mysql.Status
	unsure       bool // the last answer told no status
	translated   bool // errors are told in the server's numbers; see legible

	vars   *backend.Vars // the session's settings; nil: nothing is known yet
	birth  *backend.Vars // what they were at first
	varsOf *backend.Pool // where they were learned
	knows  string        // the version of the instance there
	mode   scan.Mode     // how statements are read, following vars
	traces traces        // of the last statements
	pins   pins

	prepared      map[uint32]*prepared
	newest        *prepared // the statement of the last COM_STMT_PREPARE; nil if that failed, or it is closed
	preparedBytes int       // of their texts
	statements    uint32    // the last number given to one
	opened        int       // of them with a cursor or long data

	near   *backend.Conn // the last connection to a primary
	writes *writes       // see reads.go; nil: none

	link *link // nil: not needed so far, given back, or lost
	held link  // what link points to

	st       statement
	literals []byte // of st, if the slow log wants them

	admitted    string  // the consumer that it is counted for; guarded by Door.mu
	connections int     // see connectionsMax
	boundsOf    *Tables // that it was read from

	response mysql.Response

	chosen  *database     // what database names in tables; nil: not looked up, or none
	over    poll.Instant  // when the last statement was over; 0: not yet
	resting bool          // rest was called for the present wait
	asked   bool          // the answer to the running statement is waited for
	idle    atomic.Bool   // waits for a command outside of a transaction: Interrupt ends it
	waiting atomic.Int64  // the poll.Instant at which the running statement began; 0 between statements
	stop    chan struct{} // closed by shut and by halt: ends waits; only the session's goroutine makes a new one

	shown   atomic.Pointer[shown]
	command atomic.Uint32          // the running one
	halted  atomic.Bool            // it was killed: it is not sent any more, and if it was, the instance is told
	doing   atomic.Pointer[digest] // of the running statement, or of the last one

	using  sync.Mutex // held while the connection changes hands, or is interrupted; taken before mu
	victim *target    // guarded by using; nil without a connection
	doomed bool       // guarded by using; the connection was interrupted
	at     target     // what victim points to

	mu     sync.Mutex  // guards pins too
	closer io.Closer   // of the link; nil without one
	where  string      // the address of the last link's instance
	killed *fault.Kind // why somebody else closed the connections; nil when nobody did
}

// link is the session's connection to an instance.
type link struct {
	*backend.Conn
	in       *instance
	role     upstream.Class // what in was leased as
	pool     *backend.Pool
	home     string // see instance
	lease    upstream.Lease
	settings *backend.Settings
	spent    bool // it is closed rather than given back
	reads    bool // it is for one read, and read-only: nothing is ever pinned to it
}

// Begin signs the client in. The session proper runs on a goroutine of its own, whose stack is not grown by sign-in: it is
// there as long as the client is.
func (s *session) Begin() {
	signedIn := false
	defer func() {
		if !s.caught(recover()) && signedIn {
			s.Series.SessionOpened()
			s.client.ServedBy(s)
			go s.Resume() // ends with its client or by Drain, which waits until it has left; or when the session is idle
			return
		}
		s.end()
	}()
	signedIn = s.door.Introduce(s, s.client.Plain(), &s.site.rules) && s.signIn()
}

// Resume serves the session until it has ended, or until it waits for a command or for an answer and needs no goroutine: the poller calls Resume when there is
// something to do (poll.Server).
func (s *session) Resume() {
	left := false
	defer func() {
		if !s.caught(recover()) && left {
			return // somebody else may be serving it by now
		}
		s.Series.SessionClosed()
		s.end()
	}()
	left = s.serve()
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
	s.unpinAll()
	s.unlink(upstream.Outcome{})
	_ = s.client.Close()
	s.client.End()
	s.door.left(s)
}

// Retire ends the session if it is idle, with error 1053 in case its client asks something more; else the session sees Listener.Retired when its
// statement or transaction is over.
func (s *session) Retire() {
	if s.idle.Load() {
		s.client.Interrupt()
	}
}

// Cut closes the session's connections because the time for draining is over; abandon does because the client has
// left. Both may be called from any goroutine.
func (s *session) Cut()     { s.shut(fault.Draining) }
func (s *session) abandon() { s.shut(fault.ClientGone) }

func (s *session) shut(why fault.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.killed != nil {
		return
	}
	s.killed = &why
	s.endWaits()
	_ = s.client.Close()
	if s.closer != nil {
		_ = s.closer.Close()
	}
}

// endWaits ends what the session waits for beside the answer of an instance. s.mu is held.
func (s *session) endWaits() {
	select {
	case <-s.stop: // that was done already
	default:
		close(s.stop)
	}
}

// halt keeps the running statement from being sent.
func (s *session) halt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.halted.Store(true)
	s.endWaits()
}

// unhalt gets the session ready for the next statement. It waits for whoever killed the one before: the session may be pinned to its connection, where the next one must not be hit.
func (s *session) unhalt() {
	s.using.Lock()
	defer s.using.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.halted.Store(false)
	if s.killed == nil {
		s.stop = make(chan struct{})
	}
}

// stoppedBy says why the session must wait no longer; nil when it may.
func (s *session) stoppedBy() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.killed != nil:
		return errEnded
	case s.halted.Load():
		return &errorInterrupted
	}
	return nil
}

var errEnded = fault.New(fault.Draining, "the session was ended")

// otherwise gives what went wrong while nothing of the statement was sent, or better: that it was stopped.
func (s *session) otherwise(err error) error {
	if why := s.stoppedBy(); why != nil {
		return why
	}
	return err
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
	s.setCloser(nil)
	if o == (upstream.Outcome{}) {
		_ = l.Write(quit) // between statements the instance is told, so that it counts no aborted connection
	}
	l.pool.Drop(l.Conn)
	l.lease.Done(o)
	s.link = nil
	s.status &^= mysql.InTransaction
	s.unpin(pinTransaction)
}

var quit = mysql.AppendCommand(nil, mysql.ComQuit, "")

// answerMax bounds an error that comes in the middle of a command.
const answerMax = 64 << 10

// setCloser says what shut has to close beside the client's connection, and interrupt to interrupt. It says false when one of them came already.
func (s *session) setCloser(c io.Closer) bool {
	s.using.Lock()
	defer s.using.Unlock()
	interrupted := s.doomed
	s.doomed, s.victim = false, nil
	if c != nil {
		s.at = target{s.held.in, s.held.role, s.held.ThreadID}
		s.victim = &s.at
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closer = c; c != nil {
		s.where = s.at.in.address
	}
	return s.killed == nil && !interrupted
}

// release gives the connection back. Its protocol state is known to be idle, and no pin holds it.
func (s *session) release() {
	l := s.link
	if len(l.Buffered()) > 0 {
		s.unlink(upstream.Outcome{})
		return
	}
	untouched := s.setCloser(nil)
	if !untouched && s.stoppedBy() == errEnded { // it was closed under us
		s.unlink(upstream.Outcome{Ignored: true})
		return
	}
	l.ServedBy(nil)
	if l.spent || !untouched {
		l.pool.Retire(l.Conn)
	} else {
		l.pool.Give(l.Conn)
	}
	l.lease.Done(upstream.Outcome{Latency: s.st.upstream})
	s.link = nil
}

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

// key is what the session has in common with those that can use the same connections.
func (s *session) key() backend.Key {
	return backend.Key{Capabilities: s.capabilities & mysql.Relayed, Collation: s.collation}
}

// ensure makes sure that the session has a connection to the instance of its database, with its schema, its settings and whatever the statement asks for. With an
// error, nothing of the statement was sent.
func (s *session) ensure() error {
	d, schema, err := s.target()
	l := s.link
	if l != nil && err == nil && l.deposed(d) {
		if err := s.dethroned(); err != nil {
			return err
		}
		l = nil
	}
	if l != nil && (err != nil || !d.has(l.home)) {
		switch {
		case s.inTransaction():
			return nil // the database moved or went: the transaction may end where it is
		case err == nil && s.pinned() != "":
			return errors.Join(&errorMoved, errEnd)
		}
		s.unlink(upstream.Outcome{})
		l = nil
	}
	if err != nil {
		return err
	}
	if l != nil && poll.Now().Sub(l.Used) >= staleAfter && !l.Alive() {
		if s.inTransaction() {
			return errors.Join(&errorLostIdle, errEnd)
		}
		s.unlink(upstream.Outcome{Ignored: true}) // servers close idle connections: that is no failure
		l = nil
	}
	if l == nil {
		if s.pinned() != "" {
			return errors.Join(&errorLostIdle, errEnd)
		}
		if err := s.take(d, schema); err != nil {
			return s.otherwise(err)
		}
		l = s.link
	}
	if s.pins.has(pinUnread) && !asks(s.st.Effects) {
		if err := s.read(); err != nil {
			return err
		}
	}
	effects := s.st.Effects
	if err := s.adopt(schema, effects.Has(scan.ReadsLastInsertID|anything)); err != nil {
		return err
	}
	if effects.Has(scan.ReadsConnectionID) {
		if err := s.number(); err != nil {
			return err
		}
	}
	if asks(effects) && !s.traces.answers(l.Conn, s.id, effects) {
		s.settle(!s.unsure)
		return s.forgotten(d)
	}
	return nil
}

// number makes CONNECTION_ID() give the session's number, by which it can be killed. The connection keeps it, so nobody else gets it after this.
func (s *session) number() error {
	l := s.link
	l.spent = true
	err := l.Do(mysql.ComQuery, fmt.Sprintf("SET @@session.pseudo_thread_id=%d", s.id))
	var refused *mysql.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return s.otherwise(&errorNumber) // the login may not
	}
	s.breakLink(true)
	if s.st.held || s.pinned() != "" {
		return errors.Join(err, errEnd)
	}
	return err
}

// forgotten is the refusal of a statement that asks for what another connection knew.
func (s *session) forgotten(d *database) error {
	if last := s.traces.last.conn; last != nil && !slices.ContainsFunc(d.instances, func(in *instance) bool { return in.pool == s.traces.pool }) {
		return errors.Join(&errorLostIdle, errEnd)
	}
	s.pin(pinDiagnostics) // the next time it will know
	return &errorForgotten
}

// take gets a connection to the database's primary. A statement outside of a transaction waits for one, if there is none for a while.
func (s *session) take(d *database, schema string) error {
	until := d.patience(s.st.begun)
	for {
		if s.arrive(d, schema) {
			return nil
		}
		in, lease, err := d.primary(s.stop, until)
		if err != nil {
			return err
		}
		again, err := s.takeFrom(d, in, lease, classPrimary, schema)
		if !again || !d.pause(s.stop, until) {
			return err
		}
	}
}

// takeFrom gets a connection from the pool of an instance, or opens one. role is what the instance was leased as; the lease is the session's, or done, when it returns.
// again says that the instance cannot be reached, or has lost its role meanwhile: with the error, nothing was sent, so another instance may be tried.
func (s *session) takeFrom(d *database, in *instance, lease upstream.Lease, role upstream.Class, schema string) (again bool, err error) {
	want := backend.Want{Key: s.key(), Schema: schema, Session: s.id, Prefer: s.near, Waited: &s.st.queue, Consumer: s.consumer.Name, Max: s.connectionsMax()}
	ours, outcome := true, upstream.Outcome{Ignored: true}
	defer func() {
		if ours { // also when a panic passes by: the lease must not outlive it
			lease.Done(outcome)
		}
	}()
	if asks(s.st.Effects) {
		only, quiet, ok := s.traces.where(s.st.Effects)
		if !ok {
			return false, s.forgotten(d)
		}
		want.Quiet = quiet
		if only != nil {
			want.Prefer, want.Only, want.Quiet = only, true, false
		}
	}
	if s.varsOf != in.pool {
		// The first connection, or another instance than before: settings are what is usual there, and what the session changed.
		usual := in.pool.Usual(want.Key)
		if want.New = usual == nil; !want.New {
			if err := s.rebase(in.pool, usual); err != nil {
				return false, err
			}
		}
	}
	want.Vars = s.vars
	if in.settings.Proxy != 0 { // its connections are one client's
		want.New, want.Client = true, s.Addresses(s.client.Plain())
	}
	for {
		conn, err := in.pool.Take(s.stop, d.limits, want)
		if err != nil {
			if want.Only {
				err = s.forgotten(d)
			}
			return false, err
		}
		if conn == nil {
			if conn, err = s.openTo(in, want); err != nil {
				if why := s.stoppedBy(); why != nil { // whatever it is, the instance is not to blame
					return false, why
				}
				var refused *mysql.Error
				answered := errors.As(err, &refused)
				outcome = upstream.Outcome{Failed: !answered}
				return !answered && d.failedToConnect(in, err), err
			}
		} else if poll.Now().Sub(conn.Used) >= staleAfter && !conn.Alive() {
			in.pool.Drop(conn) // servers close idle connections: that is no failure
			continue
		}
		if !d.still(in, role) { // it took a while
			s.giveBack(in.pool, conn)
			return true, d.keeper.why(d)
		}
		s.held = link{Conn: conn, in: in, role: role, pool: in.pool, home: in.home, lease: lease, settings: in.settings}
		s.link, ours = &s.held, false
		s.status = conn.Status
		if !s.setCloser(conn) {
			s.unlink(upstream.Outcome{})
			return false, errEnded
		}
		break
	}
	s.near = s.link.Conn
	if !d.shared || s.link.Vars == nil {
		s.pin(pinUnshared)
	}
	if s.varsOf != in.pool {
		return false, s.rebase(in.pool, s.link.Vars)
	}
	return false, nil
}

// openTo opens a connection. The end of the session or of its statement, which may come from elsewhere, ends the attempt: else a client that has left would hold a place in the pool for as long as an
// instance that says nothing may be waited for, and Drain would wait too.
func (s *session) openTo(in *instance, want backend.Want) (*backend.Conn, error) {
	ctx, cancel := context.WithCancel(context.Background())
	done, stop := make(chan struct{}), s.stop
	defer func() { cancel(); <-done }()
	go func() { // ends with the attempt; opening is rare
		defer close(done)
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	began := poll.Now()
	conn, err := in.pool.Open(ctx, in.address, in.settings, want)
	s.st.connect += poll.Now().Sub(began)
	return conn, err
}

// giveBack returns a connection on which nothing was done.
func (s *session) giveBack(p *backend.Pool, c *backend.Conn) {
	if c.Vars == nil {
		p.Drop(c)
		return
	}
	p.Give(c)
}

// rebase takes the session's settings to another instance, where others are usual.
func (s *session) rebase(p *backend.Pool, usual *backend.Vars) error {
	vars := usual
	if s.birth != nil && s.vars != nil && usual != nil {
		if vars = s.vars.Rebase(s.birth, usual); vars == nil {
			return errors.Join(&errorMoved, errEnd)
		}
	}
	s.vars, s.birth, s.varsOf = vars, usual, p
	version, _, _ := p.Known()
	s.learn(version)
	return nil
}

// adopt makes the connection the session's in all that can be set.
func (s *session) adopt(schema string, needInsert bool) error {
	l := s.link
	if l.Vars != nil && s.vars != nil && l.Vars.List != s.vars.List { // the instance became another product
		if err := s.rebase(l.pool, l.Vars); err != nil {
			return err
		}
	}
	vars := s.vars
	if l.Vars == nil || s.pins.has(pinSetting) || s.pins.has(pinUnread) {
		vars = nil // nobody else has had it since the session set it
	}
	err := l.Adopt(s.stop, s.id, vars, schema, s.traces.insert, needInsert)
	if err == nil {
		s.status = l.Status
		return nil
	}
	var refused *mysql.Error
	switch {
	case errors.Is(err, backend.ErrForgotten):
		s.settle(!s.unsure)
		return s.otherwise(&errorForgottenInsert)
	case errors.As(err, &refused) && (s.inTransaction() || s.pinned() != ""):
		return err // a schema that is not there; the connection is held anyway
	case errors.As(err, &refused):
		s.unlink(upstream.Outcome{})
		return err
	}
	s.st.held = s.st.held || s.inTransaction()
	s.unlink(upstream.Outcome{Failed: true})
	if s.st.held || s.pinned() != "" {
		return errors.Join(err, errEnd)
	}
	return err
}

// read ends pinUnread: it learns the settings that a SET with warnings or errors has left.
func (s *session) read() error {
	s.unpin(pinUnread)
	if s.link == nil {
		return nil
	}
	return s.reread()
}

// reread learns the settings after a SET. When they are not to be known, the session keeps its connection.
func (s *session) reread() error {
	l := s.link
	if l.Vars == nil {
		return nil
	}
	vars, err := l.ReadVars()
	var refused *mysql.Error
	if err != nil && !errors.As(err, &refused) {
		s.breakLink(true)
		return err
	}
	if vars == nil {
		s.pin(pinSetting)
		l.spent = true
		return nil
	}
	l.Vars = vars
	if vars != s.vars {
		s.vars = vars
		s.learn(l.Version)
	}
	return nil
}

// settle is called after each command: it gives the connection back if nothing holds it. known says that the status is that of now.
func (s *session) settle(known bool) {
	l := s.link
	if l == nil {
		return
	}
	if l.Used = s.over; l.Used == 0 {
		l.Used = poll.Now()
	}
	s.unsure = !known
	others := s.pins.set &^ (1 << pinTransaction)
	if l.reads {
		others = 0
	}
	if !known && others == 0 {
		// An error tells no status: it may have ended a transaction, or begun one. Nothing else is asked, so that warnings stay.
		if err := l.Do(mysql.ComPing, ""); err != nil {
			s.logFault("ask for the state of a connection", err)
			if s.inTransaction() {
				s.st.held = true
			}
			s.unlink(upstream.Outcome{Failed: true})
			s.over = 0
			return
		}
		s.status, s.unsure = l.Status, false
		if l.Used = poll.Now(); s.over != 0 {
			s.over = l.Used
		}
	}
	if s.status&mysql.InTransaction != 0 {
		if l.reads {
			s.unlink(upstream.Outcome{})
			return
		}
		s.pin(pinTransaction)
		return
	}
	s.unpin(pinTransaction)
	if others == 0 {
		s.release()
	}
}
