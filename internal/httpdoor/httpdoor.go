// Package httpdoor is the HTTP door: listeners, connections and the path of a request from its first byte to its access
// record (serve.go). Its own HTTP/1.1 engine stands on package h1 for the syntax, poll for the sockets, route for the
// choice of a route and forward for the endpoints.
//
// A connection is one goroutine; it is joined by a second one only while a request body streams to an endpoint, or for the
// other direction of a tunnel. Between requests a connection holds no buffer, and on the own poller no goroutine.
//
// Locks: Door.mu guards the set of open connections and is never held while anything else is locked or waited for.
//
// The package refuses to know where its configuration comes from, and to speak anything but HTTP.
package httpdoor

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/h2"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// Options are what a Door needs. All fields must be set.
type Options struct {
	Tables func() *Tables // the present generation's
	Log    *slog.Logger
	Access *observe.AccessLog
}

// Door serves HTTP on any number of listeners.
type Door struct {
	options Options

	mu        sync.Mutex
	listeners map[*listening]struct{} // those that accept, and those with connections left
	group     sync.WaitGroup          // connections
	open      int                     // so many; guarded by mu
	stopWatch chan struct{}           // nil: there is no connection to watch; guarded by mu
	stripes   atomic.Uint32

	reportMu     sync.Mutex
	reportSecond int64
	reported     int
}

// listening is what the connections of one listener share, across reloads and also across sockets: a listener that moves
// to another address keeps its connections. All but the name is guarded by Door.mu.
type listening struct {
	name     string
	draining bool // its listener left; one that comes back under the name gets a listening of its own. conn.state tells the connections
	conns    map[*conn]struct{}
	alike    map[netip.Addr]int
}

// New makes a Door.
func New(o Options) *Door {
	return &Door{options: o, listeners: map[*listening]struct{}{}}
}

// Serve accepts connections for the named listener until ln is closed or ctx ends. Connections go on after it returns.
func (d *Door) Serve(ctx context.Context, ln net.Listener, listener string) error {
	l := d.listening(listener)
	delay := time.Duration(0)
	for {
		nc, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return nil
			}
			// Out of descriptors, or a connection that was gone before it was accepted. Wait, or this loop takes the CPU.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			d.options.Log.Warn("cannot accept a connection", "listener", listener, "error", err, "retry_in", delay)
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return nil
			}
			continue
		}
		delay = 0
		d.accept(nc, l)
	}
}

// listening finds or makes what the connections of a listener share.
func (d *Door) listening(name string) *listening {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := range d.listeners {
		if l.name == name && !l.draining {
			return l
		}
	}
	l := &listening{name: name, conns: map[*conn]struct{}{}, alike: map[netip.Addr]int{}}
	d.listeners[l] = struct{}{}
	return l
}

// accept starts a connection, or closes it at once when there are too many.
func (d *Door) accept(nc net.Conn, l *listening) {
	tables := d.options.Tables()
	s := tables.sites[l.name]
	if s == nil { // the listener left the config between the accept and now
		nc.Close()
		return
	}
	peer := addressOf(nc)
	c := &conn{door: d, listening: l, poll: s.open(nc), peer: peer, stripe: d.stripes.Add(1), tables: tables, site: s}
	c.net = c.poll
	announced := s.proxies.Has(peer) // then it is introduced first, and counted as the client's
	d.mu.Lock()
	refused := ""
	switch {
	case s.connections > 0 && len(l.conns) >= s.connections:
		refused = "connections"
	case !announced && s.connectionsAlike > 0 && l.alike[peer] >= s.connectionsAlike:
		refused = "connections_per_address"
	default:
		l.conns[c] = struct{}{}
		if !announced {
			l.alike[peer]++
			c.counted = peer
		}
		if l.draining {
			c.state.Store(stateDraining)
		}
		d.group.Add(1)
		if d.open++; d.open == 1 {
			d.watch()
		}
	}
	d.mu.Unlock()
	if refused != "" {
		s.connectionsSeries.Refused(refused)
		c.poll.Close()
		return
	}
	c.series = s.connectionsSeries
	c.series.Accepted()
	c.poll.ServedBy(c)
	go func() { // ends with the connection, or when that is idle; Drain waits for the connection
		if announced && !c.introduce() {
			c.poll.Close()
			c.ended()
			return
		}
		c.Resume()
	}()
}

// Resume serves the connection until it has ended, or until it is idle and needs no goroutine.
func (c *conn) Resume() {
	if c.run() == nothing {
		c.ended()
	}
}

// ended takes the connection out of the books.
func (c *conn) ended() {
	d, l := c.door, c.listening
	defer d.group.Done()
	c.series.Closed()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open--; d.open == 0 {
		d.unwatch()
	}
	if delete(l.conns, c); l.draining && len(l.conns) == 0 {
		delete(d.listeners, l)
	}
	c.uncount()
}

func addressOf(nc net.Conn) netip.Addr {
	if tcp, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// Drain ends the connections of a listener whose socket is closed: idle ones now, others after their present request, whose
// response says so. Those that are left when ctx ends are cut. An empty name means all listeners.
func (d *Door) Drain(ctx context.Context, listener string) error { return d.Retire(listener)(ctx) }

// Retire is the first half of Drain: it tells the connections, and wait does the rest. A listener that begins to serve
// under the same name in between has nothing to do with it.
func (d *Door) Retire(listener string) (wait func(context.Context) error) {
	var left []*conn
	d.mu.Lock()
	for l := range d.listeners {
		if listener != "" && l.name != listener || l.draining && listener != "" {
			continue
		}
		l.draining = true
		for c := range l.conns {
			left = append(left, c)
		}
		if len(l.conns) == 0 {
			delete(d.listeners, l)
		}
	}
	d.mu.Unlock()
	for _, c := range left {
		if c.state.Swap(stateDraining) == stateIdle {
			c.poll.Interrupt()
		}
		if b := c.bundle.Load(); b != nil {
			b.Drain()
		}
	}
	return func(ctx context.Context) error {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			if left = d.stillOpen(left); len(left) == 0 {
				return ctx.Err()
			}
			<-tick.C
			if ctx.Err() != nil {
				for _, c := range left {
					c.cut()
				}
			}
		}
	}
}

// stillOpen gives those of the connections that have not ended.
func (d *Door) stillOpen(conns []*conn) []*conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(conns, func(c *conn) bool {
		_, open := c.listening.conns[c]
		return !open
	})
}

// Connections counts the open connections.
func (d *Door) Connections() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for l := range d.listeners {
		n += len(l.conns)
	}
	return n
}

// The states of a connection.
const (
	stateActive int32 = iota
	stateIdle
	stateDraining
)

// conn is one client connection. Its goroutine owns it; state is shared with Drain.
type conn struct {
	door      *Door
	listening *listening
	poll      *poll.Conn
	net       net.Conn // poll, or TLS on it
	secure    bool
	tls       *secured   // nil: plain text
	peer      netip.Addr // the client's side; behind a trusted load balancer what its PROXY protocol header says
	counted   netip.Addr // the peer as it was counted in alike; guarded by Door.mu
	stripe    uint32
	state     atomic.Int32

	tables *Tables // the generation that site belongs to
	site   *site
	series *observe.ListenerSeries
	begun  bool // the handshake is over
	served int
	first  [1]byte // for TLS: what woke an idle connection

	x         *exchange                          // under Loop: the request in hand
	over      bool                               // under Loop: this was the last request
	watched   *poll.Conn                         // what endpoint was at the watcher's last look; guarded by Door.mu
	claimed   bool                               // an endpoint's connection was interrupted from outside
	torn      bool                               // an answer is under way, or was broken off, that lasts until the end of the connection
	last      poll.Instant                       // the clock at the end of the last request; 0 once it is old
	endpoint  atomic.Pointer[poll.Conn]          // that is being asked, for cut
	relayed   atomic.Pointer[poll.Conn]          // whose answer is being passed on, for cut
	cancelled atomic.Pointer[context.CancelFunc] // of the tunnel, for cut

	// HTTP/2: a connection is a bundle of streams, each of which is a conn of its own.
	preface bool                    // the client's first bytes say that it speaks HTTP/2
	bundle  atomic.Pointer[h2.Conn] // of the connection
	stream  *h2.Stream              // of a stream
	left    atomic.Bool             // the client has given the stream, or the connection, up
	holding sync.Mutex              // held by who interrupts what endpoint or relayed shows: it is held no longer than that
}

// cut ends the connection whatever it is doing. It may be called again and again, and must be until the connection is gone.
func (c *conn) cut() {
	if b := c.bundle.Load(); b != nil {
		c.cutBundle(b)
		return
	}
	if c.interrupt(&c.endpoint) { // the client is told that the gateway stops
		return
	}
	c.interrupt(&c.relayed) // and the client sees that its answer is not whole
	if cancel := c.cancelled.Load(); cancel != nil {
		(*cancel)()
	}
	c.poll.Shutdown()
}

// pin gives the site of the present generation. A listener that left the config keeps its last one until its
// connections are drained.
func (c *conn) pin() *site {
	if tables := c.door.options.Tables(); tables != c.tables {
		if s := tables.sites[c.listening.name]; s != nil {
			c.tables, c.site = tables, s
		}
	}
	return c.site
}

// next is what comes next on a connection.
type next uint8

const (
	nothing next = iota // it is to be closed
	more                // something that needs further reads
	later               // nobody knows: the poller has it, and calls Resume. It is not ours any more, not even to look at
)

func moreIf(yes bool) next {
	if yes {
		return more
	}
	return nothing
}

// run serves requests until the connection ends, or is left to the poller.
func (c *conn) run() (n next) {
	defer func() {
		if r := recover(); r != nil {
			c.door.bug(r, c.x)
			n = nothing
		}
		if n == later {
			return
		}
		if c.torn {
			c.reset()
		}
		c.net.Close()
	}()
	if !c.begun {
		c.begun = true
		if c.site.tls != nil && !c.handshake() {
			return nothing
		}
		if c.negotiated() {
			c.serveBundle(nil)
			return nothing
		}
	}
	for {
		if n := c.await(); n != more {
			return n
		}
		if c.x == nil {
			c.x = newExchange(c)
		}
		keep := !c.over && c.x.serve()
		if c.preface {
			already := bytes.Clone(c.x.in[c.x.r:c.x.w])
			c.x.release()
			c.x = nil
			c.serveBundle(already)
			return nothing
		}
		if !keep && !c.torn && c.x.lingers() {
			c.x.linger()
		}
		if !keep || !c.x.pipelined() {
			c.x.release()
			c.x = nil
		}
		if !keep {
			return nothing
		}
	}
}

// reset closes the connection so that the client sees that its answer is not whole, where only the end of the connection says
// that it is. Under TLS that means: without the alert that says so.
func (c *conn) reset() {
	if tcp, ok := c.poll.Conn.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	c.poll.Conn.Close()
}

// await waits for a request. Most of them it serves: as long as each comes whole in one read, the loop is all there is.
func (c *conn) await() next {
	if c.x != nil { // pipelined
		return more
	}
	if c.secure || !c.poll.CanLoop() {
		return moreIf(c.awaitRequest())
	}
	c.poll.WritePatience(c.pin().timeoutWrite)
	err := c.poll.Loop(c) // Idle sets the bound
	if err == poll.ErrDetached {
		return later
	}
	if c.x != nil && c.x.r == c.x.w && !c.over { // the end came while nothing was in hand
		c.x.release()
		c.x = nil
	}
	if errors.Is(err, poll.ErrInterrupted) || err == nil && c.x == nil { // drained between two requests, or during one
		return moreIf(c.awaitLast())
	}
	return moreIf(err == nil)
}

// Room gives the buffer of the request in hand.
func (c *conn) Room() []byte {
	if c.x == nil {
		c.x = newExchange(c)
	}
	c.x.makeRoom(c.site)
	return c.x.in[c.x.w:]
}

// Take serves what was read, if it is one whole request or several.
func (c *conn) Take(n int) bool {
	x := c.x
	x.w += n
	if n > 0 {
		c.state.CompareAndSwap(stateIdle, stateActive) // if not: it is draining, and says so in its response
	}
	for x.w > x.r {
		s := c.pin()
		if !x.whole(s) {
			return false
		}
		if !x.carry(s) {
			c.over = true
			return false
		}
	}
	x.release()
	c.x = nil
	return !c.draining()
}

// Idle prepares the wait.
func (c *conn) Idle() (now poll.Instant) {
	now, c.last = c.last, 0
	if now == 0 {
		now = poll.Now()
	}
	if c.state.CompareAndSwap(stateActive, stateIdle) {
		c.poll.ReadBefore(now.Add(c.site.timeoutIdle))
	} else if c.draining() {
		c.poll.Interrupt()
	}
	return now
}

// handshake makes the TLS side. The configuration is that of the present generation, so changed certificates need no
// new listener.
func (c *conn) handshake() bool {
	s := c.pin()
	if s.tls == nil {
		return false
	}
	tc := tls.Server(c.poll, s.tls)
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if s.timeoutHead > 0 {
		ctx, cancel = context.WithTimeout(ctx, s.timeoutHead)
	}
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		s.connectionsSeries.Refused("tls_handshake")
		c.door.options.Log.Debug("tls handshake failed", "listener", c.listening.name, "client", c.peer, "error", err)
		return false
	}
	c.net, c.secure = tc, true
	c.tls = newSecured(tc.ConnectionState(), s.tls)
	return true
}

// awaitRequest waits for the first byte of a request and holds no buffer meanwhile.
func (c *conn) awaitRequest() bool {
	s := c.pin()
	if !c.state.CompareAndSwap(stateActive, stateIdle) {
		return c.awaitLast()
	}
	c.poll.WritePatience(s.timeoutWrite)
	c.poll.ReadBefore(poll.Now().Add(s.timeoutIdle))
	err := c.awaitByte()
	if !c.state.CompareAndSwap(stateIdle, stateActive) { // drained meanwhile
		c.poll.Uninterrupt()
		if err != nil {
			return c.awaitLast()
		}
	}
	return err == nil
}

func (c *conn) awaitByte() error {
	if c.secure {
		_, err := c.net.Read(c.first[:])
		return err
	}
	return c.poll.Await()
}

// awaitLast says whether a draining connection has another request to serve: one that is already here, or, when the
// connection came so late that it has served none, one that comes within a second.
func (c *conn) awaitLast() bool {
	if c.served > 0 {
		return !c.secure && !c.poll.Alive()
	}
	c.poll.ReadBefore(poll.Now().Add(time.Second))
	err := c.awaitByte()
	if errors.Is(err, poll.ErrInterrupted) { // told a moment late
		err = c.awaitByte()
	}
	return err == nil
}

func (c *conn) draining() bool { return c.state.Load() == stateDraining }
