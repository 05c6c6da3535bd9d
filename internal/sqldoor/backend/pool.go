package backend

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/proxyproto"
)

// Limits bound a pool. They come with every Take, so that a reload needs not touch the pool.
type Limits struct {
	Connections int           // open at once; 0 means no bound
	Lifetime    time.Duration // of a connection; 0 means no bound
	Idle        time.Duration // unused for that long it is closed; 0 means never
	Queue       time.Duration // longest wait for a connection
	MinIdle     int           // unused connections that Warm opens and Tidy leaves open
}

// Key is what two sessions must have in common to use the same connection: what was agreed on at sign-in.
type Key struct {
	Capabilities mysql.Capability // of these, mysql.Relayed
	Collation    uint8
}

// Pool is the connections to one instance with one login: those that nobody uses, and the count of all. What it hands out belongs to the one who took it until
// Give or Drop. Idle connections have no unread byte, no transaction and nothing of a session's but what Conn says.
//
// It is the upstream pool of its instance: Close closes what is idle, and later what comes back. The zero value is ready. Safe for any number of goroutines. It
// starts none.
type Pool struct {
	Facts
	Progress

	mu      sync.Mutex
	closed  bool
	open    int            // all connections, and the permissions to open one
	idle    []*Conn        // the newest last
	waiting []*waiter      // the longest first; see serve
	used    map[string]int // connections, and permissions to open one, that consumers with a bound have
	limits  Limits         // of the last Take or SetLimits
	form    Want           // of the last Take: its Key and Schema
	asked   bool           // there was one

	usual map[Key]*Vars
	zone  atomic.Pointer[string] // see Zone

	waited uint64 // Takes that had to wait
	late   uint64 // of these, in vain
}

type waiter struct {
	want Want
	got  chan taken // of capacity 1
}

// taken is what a Take came to: a connection, or the permission to open one, for which old may have to be closed first.
type taken struct{ conn, old *Conn }

// Want says what connection a session would like.
type Want struct {
	Key     Key
	Schema  string
	Vars    *Vars  // nil: any
	Session uint32 // the session's number
	Prefer  *Conn  // the one that it used last
	Only    bool   // no other one will do: Take gives nil at once when it is not to be had
	Quiet   bool   // its list of warnings must be empty
	New     bool   // no idle one will do

	Client proxyproto.Header // see Session

	Consumer string         // whose session it is; counts only with Max
	Max      int            // most connections that the consumer's sessions use at once; 0 means no bound
	Waited   *time.Duration // time in the queue is added to it; may be nil
}

// Stats is the state of a pool.
type Stats struct {
	Open, Idle, Waiting int
	Waited, Late        uint64
}

// Stats gives the state of the pool.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Stats{p.open, len(p.idle), len(p.waiting), p.waited, p.late}
}

// warm is how long a connection that holds warnings is kept for the session that they are of, if others will do.
const warm = 10 * time.Second

// Take gives an idle connection, or nil: then the caller may open one, with Open or Drop to follow. stop ends the wait. The error is a *fault.Fault of kind
// Limited when the time in the queue was over.
//
// The queue is first come, first served, but for those whose consumer has as many connections as it may have: they are passed over until it gives one back.
func (p *Pool) Take(stop <-chan struct{}, l Limits, want Want) (*Conn, error) {
	p.mu.Lock()
	p.setLimits(l)
	if !p.asked || p.form.Key != want.Key || p.form.Schema != want.Schema {
		p.form, p.asked = Want{Key: want.Key, Schema: want.Schema}, true
	}
	var t taken
	var ok bool
	// Nobody is overtaken here: who waits can use nothing of what is free (see serve).
	if !p.full(&want) {
		t, ok = p.get(&want)
	}
	if ok {
		p.mu.Unlock()
		return t.ready(), nil
	}
	if want.Only {
		p.mu.Unlock()
		return nil, errGone
	}
	w := &waiter{want: want, got: make(chan taken, 1)}
	p.waiting = append(p.waiting, w)
	p.waited++
	p.mu.Unlock()
	return p.wait(w, stop, l.Queue)
}

// wait waits for a place in the queue to come up.
func (p *Pool) wait(w *waiter, stop <-chan struct{}, most time.Duration) (*Conn, error) {
	if w.want.Waited != nil {
		began := poll.Now()
		defer func() { *w.want.Waited += poll.Now().Sub(began) }()
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case t := <-w.got:
		return t.ready(), nil
	case <-timer.C:
	case <-stop:
	}
	p.mu.Lock()
	for i := range p.waiting {
		if p.waiting[i] == w {
			p.waiting = slices.Delete(p.waiting, i, i+1)
			p.late++
			p.mu.Unlock()
			return nil, fault.New(fault.Limited, "all connections to the instance are in use")
		}
	}
	p.mu.Unlock()
	t := <-w.got // it came at the last moment
	return t.ready(), nil
}

// ready closes what the taken place belonged to.
func (t taken) ready() *Conn {
	if t.old != nil {
		t.old.retire()
	}
	return t.conn
}

// TakeIdle gives a connection that is idle, or nil: it neither waits nor makes room.
func (p *Pool) TakeIdle(want Want) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	c, _ := p.find(&want)
	return c
}

// Pool gives the pool that the connection is of.
func (c *Conn) Pool() *Pool { return c.pool }

var errGone = fault.New(fault.Internal, "the connection is not to be had any more")

// full says that the consumer has as many connections as it may have. p.mu is held.
func (p *Pool) full(want *Want) bool { return want.Max > 0 && p.used[want.Consumer] >= want.Max }

// get takes an idle connection, or a place for one, out of the pool, and counts it for the consumer. p.mu is held.
func (p *Pool) get(want *Want) (t taken, ok bool) {
	t.conn, ok = p.find(want)
	switch {
	case ok:
	case want.Only:
		return t, false
	case p.limits.Connections <= 0 || p.open < p.limits.Connections:
		p.open++
	default:
		if t.conn, t.old, ok = p.replace(want); !ok {
			return t, false
		}
	}
	if want.Max > 0 {
		if p.used == nil {
			p.used = make(map[string]int)
		}
		p.used[want.Consumer]++
	}
	if t.conn != nil {
		t.conn.holder, t.conn.Own = want.holder(), 0
	}
	return t, true
}

// holder is the consumer that a connection is counted for; "" when it is not counted.
func (w *Want) holder() string {
	if w.Max > 0 {
		return w.Consumer
	}
	return ""
}

// uncount takes back what get counted for a consumer. p.mu is held.
func (p *Pool) uncount(holder string) {
	if holder == "" {
		return
	}
	if p.used[holder]--; p.used[holder] <= 0 {
		delete(p.used, holder)
	}
}

// serve gives what is free to those who wait, the longest first. It is called whenever something became free, so what is free after it nobody who waits can use. p.mu is held.
func (p *Pool) serve() {
	for i := 0; i < len(p.waiting); {
		w := p.waiting[i]
		if p.full(&w.want) {
			i++
			continue
		}
		t, ok := p.get(&w.want)
		if !ok {
			return // those behind it must not overtake it
		}
		p.waiting = slices.Delete(p.waiting, i, i+1)
		w.got <- t
	}
}

// SetLimits changes the limits before the next Take does: more connections are for those who wait now.
func (p *Pool) SetLimits(l Limits) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setLimits(l)
}

func (p *Pool) setLimits(l Limits) {
	if l == p.limits {
		return
	}
	p.limits = l
	p.serve()
}

// find takes the best idle connection out of the pool. p.mu is held.
func (p *Pool) find(want *Want) (*Conn, bool) {
	best, least := -1, 0
	for i := len(p.idle) - 1; i >= 0; i-- {
		c := p.idle[i]
		if c == want.Prefer && c.usable(want) {
			return p.take(i), true
		}
		if want.Only || best >= 0 && least == 0 {
			continue
		}
		if !c.usable(want) || c.Warned != 0 && c.Warned != want.Session && c.Warned != Nobody && poll.Now().Sub(c.Used) < warm {
			continue
		}
		if d := c.distance(want); best < 0 || d < least {
			best, least = i, d
		}
	}
	if best < 0 {
		return nil, false
	}
	return p.take(best), true
}

func (p *Pool) take(i int) *Conn {
	c := p.idle[i]
	p.idle = append(p.idle[:i], p.idle[i+1:]...)
	return c
}

// replace gives a connection that find held back, or old, the oldest idle one of another kind, for the caller to close and have its place. p.mu is held.
func (p *Pool) replace(want *Want) (c, old *Conn, ok bool) {
	for i, c := range p.idle {
		if c.usable(want) {
			return p.take(i), nil, true
		}
	}
	if len(p.idle) == 0 {
		return nil, nil, false
	}
	return nil, p.take(0), true
}

// usable says whether a session can use the connection at all.
func (c *Conn) usable(want *Want) bool {
	return !want.New && c.Key == want.Key && (want.Schema != "" || c.Schema == "") && (!want.Quiet || c.Warned == 0)
}

// distance counts what must be set for a session.
func (c *Conn) distance(want *Want) int {
	n := 0
	if c.Schema != want.Schema {
		n++
	}
	if want.Vars != nil {
		n += c.Vars.differences(want.Vars)
	}
	return n
}

// Give puts a connection back. It must be idle in every respect: see Pool. Its Vars are known, and Used is about now.
func (p *Pool) Give(c *Conn) {
	c.Release()
	p.mu.Lock()
	p.uncount(c.holder)
	c.holder = ""
	if p.closed || c.expired(c.Used, p.limits) || p.limits.Connections > 0 && p.open > p.limits.Connections {
		p.mu.Unlock()
		c.retire()
		p.Drop(nil)
		return
	}
	p.idle = append(p.idle, c)
	if len(p.waiting) > 0 {
		p.serve()
	}
	p.mu.Unlock()
}

// Drop closes a connection and frees its place; nil is a permission that was not used, of a consumer without a bound.
func (p *Pool) Drop(c *Conn) {
	holder := ""
	if c != nil {
		c.discard()
		holder = c.holder
		c.holder = ""
	}
	p.free(holder)
}

// Retire is Drop for a connection that is idle and well, but not to be used again: the LAST_INSERT_ID() that it has is read from it first.
func (p *Pool) Retire(c *Conn) {
	c.retire()
	holder := c.holder
	c.holder = ""
	p.free(holder)
}

// free gives back a place that has no connection.
func (p *Pool) free(holder string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.uncount(holder)
	p.open--
	p.serve()
}

// usualMax bounds the kinds of sign-in whose settings are remembered; past it they are all forgotten and learned again.
const usualMax = 256

// Usual gives the settings that new connections of a kind had lately; nil when there was none.
func (p *Pool) Usual(k Key) *Vars {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.usual[k]
}

// Zone stands for what time_zone = SYSTEM means on the instance, as the newest connection was told; "" is not known. Equal ones are equal zones, as far as can be told.
func (p *Pool) Zone() string {
	if z := p.zone.Load(); z != nil {
		return *z
	}
	return ""
}

// learnVars asks a new connection for its settings.
func (p *Pool) learnVars(c *Conn) error {
	p.mu.Lock()
	c.Vars = p.usual[c.Key] // so that equal values become the same pointer
	p.mu.Unlock()
	vars, err := c.ReadVars()
	var refused *mysql.Error
	if errors.As(err, &refused) {
		vars, err = nil, nil // it has other variables: then it is not shared
	}
	c.Vars = vars
	if vars == nil || err != nil {
		return err
	}
	if zone := c.zone; p.Zone() != zone {
		p.zone.Store(&zone)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.usual == nil || len(p.usual) >= usualMax {
		p.usual = make(map[Key]*Vars)
	}
	p.usual[c.Key] = vars
	return nil
}

// Open uses the permission that Take gave. With an error it is used up too. The end of ctx ends the attempt, whatever it waits for.
func (p *Pool) Open(ctx context.Context, address string, s *Settings, want Want) (*Conn, error) {
	session := Session{Capabilities: want.Key.Capabilities, Collation: want.Key.Collation, Schema: want.Schema, Client: want.Client}
	var c *Conn
	opened := false
	defer func() {
		switch { // also when a panic passes by: the place must not outlive it
		case opened:
		case c == nil:
			p.free(want.holder())
		default:
			p.Drop(c)
		}
	}()
	c, err := Open(ctx, address, s, session, &p.Facts)
	if err != nil {
		return nil, err
	}
	c.Key, c.Schema, c.pool, c.holder = want.Key, want.Schema, p, want.holder()
	c.Opened = poll.Now()
	c.Used = c.Opened
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	err = p.learnVars(c)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	c.Warned, c.Own = 0, 0
	opened = true
	return c, nil
}

// warmTime bounds one call of Warm.
const warmTime = time.Second

// Warm opens connections until as many as Limits.MinIdle are unused, in the form that was asked for last: what clients agree on at sign-in is not known before the first one
// came. A health check calls it when the instance is well. What cannot be opened is left to the next check.
func (p *Pool) Warm(ctx context.Context, address string, s *Settings) {
	if s.Proxy != 0 {
		return // its connections are one client's
	}
	ctx, cancel := context.WithTimeout(ctx, warmTime)
	defer cancel()
	for ctx.Err() == nil {
		p.mu.Lock()
		if p.closed || !p.asked || p.idleOf(p.form.Key) >= p.limits.MinIdle || p.limits.Connections > 0 && p.open >= p.limits.Connections {
			p.mu.Unlock()
			return
		}
		want := p.form
		p.open++
		p.mu.Unlock()
		c, err := p.Open(ctx, address, s, want)
		switch {
		case err != nil:
			return
		case c.Vars == nil: // it cannot be shared
			c.sayQuit()
			p.Drop(c)
			return
		}
		p.Give(c)
	}
}

// idleOf counts the idle connections of a kind. p.mu is held.
func (p *Pool) idleOf(k Key) (n int) {
	for _, c := range p.idle {
		if c.Key == k {
			n++
		}
	}
	return n
}

// Close closes the idle connections, and from now on those that come back.
func (p *Pool) Close() error {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, c := range idle {
		c.sayQuit()
		p.Drop(c)
	}
	return nil
}

// Tidy closes what was idle for too long or is too old. A health check calls it.
func (p *Pool) Tidy() {
	now := poll.Now()
	var over []*Conn
	p.mu.Lock()
	kept := p.idle[:0]
	ahead := p.idleOf(p.form.Key) - p.limits.MinIdle // so many of the usual kind are more than are to be kept
	for _, c := range p.idle {
		unused := p.limits.Idle > 0 && now.Sub(c.Used) > p.limits.Idle && (c.Key != p.form.Key || ahead > 0)
		if !unused && !c.expired(now, p.limits) {
			kept = append(kept, c)
			continue
		}
		over = append(over, c)
		if c.Key == p.form.Key {
			ahead--
		}
	}
	clear(p.idle[len(kept):])
	p.idle = kept
	p.mu.Unlock()
	answers := true // one wait for an instance that does not answer is enough
	for _, c := range over {
		if answers && c.Alive() {
			answers = c.tell() == nil
		}
		c.sayQuit()
		p.Drop(c)
	}
}

func (c *Conn) expired(now poll.Instant, l Limits) bool {
	return l.Lifetime > 0 && now.Sub(c.Opened) > l.Lifetime
}

// discard closes the connection. The session whose last insert id it holds cannot ask for it any more.
func (c *Conn) discard() {
	c.lose()
	_ = c.Close()
}

// retire is discard for a connection that is idle and well: it says first whose LAST_INSERT_ID() it has.
func (c *Conn) retire() {
	if c.tell() == nil {
		c.sayQuit()
	}
	c.discard()
}

// sayQuit tells the instance, so that it counts no aborted connection.
func (c *Conn) sayQuit() { _ = c.Write(quit) }

var quit = mysql.AppendCommand(nil, mysql.ComQuit, "")

// Nobody stands for a list of warnings that belongs to no session.
const Nobody = ^uint32(0)

// Insert is a session's LAST_INSERT_ID(). It is read from the connection where it is only when another session takes that connection: the statement that made it
// costs nothing more. It is shared between the session and whoever has the connection.
type Insert struct {
	mu    sync.Mutex
	stamp uint64        // counts the values
	known bool          // value is the current one
	lost  bool          // the connection that had it is gone
	doubt bool          // the value before was lost, so 0 means that the last statement made none, and it is still lost
	at    *Conn         // that has it when it is neither known nor lost
	value uint64        // see known
	told  chan struct{} // closed when it becomes known or lost; nil while nobody waits
}

// claim is whose LAST_INSERT_ID() a connection has.
type claim struct {
	of    *Insert // nil: nobody's, and it is 0
	stamp uint64
	owed  bool // not read yet
}

// Made notes that the statement that just ran may have changed the session's LAST_INSERT_ID(): the connection has it.
func (c *Conn) Made(i *Insert) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stamp++
	i.doubt = i.lost || i.doubt && !i.known
	i.known, i.lost, i.at = false, false, c
	c.insert = claim{i, i.stamp, true}
}

func (i *Insert) settle(stamp, value uint64, lost bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stamp != stamp {
		return // there is a newer one
	}
	lost = lost || i.doubt && value == 0
	i.known, i.lost, i.value, i.at = !lost, lost, value, nil
	if i.told != nil {
		close(i.told)
		i.told = nil
	}
}

func (c *Conn) lose() {
	if c.insert.owed {
		c.insert.of.settle(c.insert.stamp, 0, true)
	}
	c.insert = claim{}
}

// tell reads the LAST_INSERT_ID() of the session that it is of, if that does not know it yet. After an error the connection is of no more use.
func (c *Conn) tell() error {
	if !c.insert.owed {
		return nil
	}
	row, ok, err := c.Row("SELECT LAST_INSERT_ID()", 1)
	if err != nil {
		return err
	}
	value, bad := uint64(0), !ok
	if ok {
		value, err = strconv.ParseUint(string(row[0]), 10, 64)
		bad = err != nil
	}
	c.insert.of.settle(c.insert.stamp, value, bad)
	c.insert.owed = false
	return nil
}

// tell has a connection tell if it is idle. One that is in use does when it changes hands.
func (p *Pool) tell(c *Conn) {
	p.mu.Lock()
	for i := range p.idle {
		if p.idle[i] == c {
			p.take(i)
			p.mu.Unlock()
			if c.tell() != nil {
				p.Drop(c)
			} else {
				p.Give(c)
			}
			return
		}
	}
	p.mu.Unlock()
}

// wait gives the value, waiting for the session that has the connection to tell it. ok is false when it is lost, or when stop ended the wait.
func (i *Insert) wait(stop <-chan struct{}) (value uint64, ok bool) {
	i.mu.Lock()
	if i.known || i.lost || i.stamp == 0 {
		defer i.mu.Unlock()
		return i.value, !i.lost
	}
	if i.told == nil {
		i.told = make(chan struct{})
	}
	told, at := i.told, i.at
	i.mu.Unlock()
	at.pool.tell(at)
	timer := time.NewTimer(ownTime * time.Second)
	defer timer.Stop()
	select {
	case <-told:
	case <-timer.C:
		i.mu.Lock()
		i.lost = !i.known // until it is told after all
		i.mu.Unlock()
	case <-stop:
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.value, i.known
}

// doubtful says that the connection that has the value must be asked for it before the session can.
func (i *Insert) doubtful() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.doubt && !i.known
}

// has says whether the connection has the session's current LAST_INSERT_ID(), or neither has any. i may be nil.
func (c *Conn) has(i *Insert) bool {
	if i == nil {
		return c.insert.of == nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stamp == 0 && c.insert.of == nil {
		return true
	}
	return c.insert.of == i && c.insert.stamp == i.stamp
}

// Turn tells uses of a connection apart: as long as it is the same, nobody but its session has sent anything over it.
func (c *Conn) Turn() uint64 { return c.turn }

// Mark begins a new turn.
func (c *Conn) Mark() { c.turn++ }

// Adopt makes the connection fit for a session: its settings, schema and LAST_INSERT_ID(). insert may be nil; needInsert says that the statement to come asks for
// LAST_INSERT_ID(), so that ErrForgotten is returned when it is not to be known. A *mysql.Error leaves the connection usable by nobody; so does any other.
func (c *Conn) Adopt(stop <-chan struct{}, session uint32, vars *Vars, schema string, insert *Insert, needInsert bool) error {
	if c.owner != session {
		c.owner = session
		c.Mark()
		if c.Warned != 0 && c.Warned != session {
			c.Warned = Nobody // what this session does may or may not empty the list
		}
	}
	var sets []byte
	mine := c.has(insert)
	if !mine || needInsert && insert != nil && insert.doubtful() {
		if err := c.tell(); err != nil {
			return err
		}
	}
	if mine && needInsert && insert != nil && insert.doubtful() {
		return ErrForgotten
	}
	if vars != nil && c.Vars != vars {
		if sets = c.Vars.appendSets(sets, vars); len(sets) == 0 {
			c.Vars = vars // the same pointer compares faster
		}
	}
	var stamp uint64
	if !mine {
		value, ok := uint64(0), true
		if insert != nil {
			value, ok = insert.wait(stop)
			stamp = insert.stamp
		}
		if !ok && needInsert {
			return ErrForgotten
		}
		if !ok {
			value = 0
		}
		if len(sets) > 0 {
			sets = append(sets, ',')
		}
		sets = strconv.AppendUint(append(sets, "@@session.last_insert_id="...), value, 10)
		if !ok {
			stamp = 0 // it is nobody's: who asks is told so
		}
	}
	if len(sets) > 0 {
		if err := c.Do(mysql.ComQuery, "SET "+string(sets)); err != nil {
			return err
		}
		if vars != nil {
			c.Vars = vars
		}
		if !mine {
			c.insert = claim{of: insert, stamp: stamp}
			if insert == nil {
				c.insert = claim{}
			}
		}
	}
	if schema != "" && schema != c.Schema {
		if err := c.Do(mysql.ComInitDB, schema); err != nil {
			return err
		}
		c.Schema = schema
	}
	return nil
}

// ErrForgotten says that the session's LAST_INSERT_ID() went with a connection.
var ErrForgotten = fault.New(fault.Internal, "LAST_INSERT_ID() is not known any more")
