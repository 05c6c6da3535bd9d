// Package httpdoor is the HTTP door: connections and the path of a request from its first byte to its access
// record (serve.go). Its own HTTP/1.1 engine stands on package h1 for the syntax, poll for the sockets, listener for whoever accepts and
// counts, route for the choice of a route and forward for the endpoints.
//
// A connection is one goroutine; it is joined by a second one only while a request body streams to an endpoint. Between requests a connection holds no
// buffer, and on the own poller no goroutine; nor has a request one there while an endpoint thinks, if all of it was sent, nor a tunnel while nothing moves.
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
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/h2"
	"github.com/menshen-gateway/menshen/internal/listener"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/traffic/tunnel"
)

// Options are what a Door needs. All fields must be set.
type Options struct {
	Tables func() *Tables // the present generation's
	Log    *slog.Logger
	Access *observe.AccessLog
}

// Door serves HTTP on any number of listeners.
type Door struct {
	*listener.Hall[*conn]
	options Options
	stripes atomic.Uint32

	reportMu     sync.Mutex
	reportSecond int64
	reported     int
}

// New makes a Door.
func New(o Options) *Door {
	d := &Door{options: o}
	d.Hall = listener.New(listener.Options[*conn]{Open: d.open, Watch: d.watch, Log: o.Log})
	return d
}

// open makes a connection of one that was accepted.
func (d *Door) open(nc net.Conn, name string) (*conn, *listener.Rules) {
	tables := d.options.Tables()
	s := tables.sites[name]
	if s == nil {
		return nil, nil
	}
	c := &conn{door: d, poll: s.open(nc), stripe: d.stripes.Add(1), tables: tables, site: s}
	c.net = c.poll
	return c, &s.rules
}

// Begin serves the connection from its first byte.
func (c *conn) Begin() {
	c.polled = c.poll.ServedBy(c)
	c.Resume()
}

// Refuse closes the connection unserved.
func (c *conn) Refuse() { _ = c.poll.Close() }

// Resume serves the connection until it has ended, or until it is idle and needs no goroutine.
func (c *conn) Resume() {
	if c.stream != nil {
		c.runStream()
		return
	}
	if c.run() == nothing {
		c.door.Leave(c)
	}
}

// Retire ends an idle connection now, and one that serves after its present request, whose response says so.
func (c *conn) Retire() {
	if c.state.Swap(stateDraining) == stateIdle {
		c.poll.Interrupt()
	}
	if b := c.bundle.Load(); b != nil {
		b.Drain()
	}
}

// The states of a connection.
const (
	stateActive int32 = iota
	stateIdle
	stateDraining
)

// conn is one client connection. Its goroutine owns it; state is shared with Retire.
type conn struct {
	listener.Entry
	door   *Door
	poll   *poll.Conn
	net    net.Conn // poll, or TLS on it
	secure bool
	tls    *secured // nil: plain text
	stripe uint32
	state  atomic.Int32

	tables *Tables // the generation that site belongs to
	site   *site
	polled bool // on the own poller
	begun  bool // the handshake is over
	served int
	first  [1]byte // for TLS: what woke an idle connection

	x         *exchange                     // under Loop: the request in hand
	over      bool                          // under Loop: this was the last request
	watched   *poll.Conn                    // what endpoint was at the watcher's last look; used under the lock of All
	claimed   bool                          // an endpoint's connection was interrupted from outside
	torn      bool                          // an answer is under way, or was broken off, that lasts until the end of the connection
	last      poll.Instant                  // the clock at the end of the last request; 0 once it is old
	endpoint  atomic.Pointer[poll.Conn]     // that is being asked, for Cut
	relayed   atomic.Pointer[poll.Conn]     // whose answer is being passed on, for Cut
	tunnelled atomic.Pointer[tunnel.Tunnel] // for Cut

	// HTTP/2: a connection is a bundle of streams, each of which is a conn of its own.
	preface  bool                    // the client's first bytes say that it speaks HTTP/2
	bundle   atomic.Pointer[h2.Conn] // of the connection
	accepted []poll.Server           // of the connection: streams that are to begin
	cuts     atomic.Int32            // of the connection: calls of Cut
	stream   *h2.Stream              // of a stream
	left     atomic.Bool             // the client has given the stream, or the connection, up
	holding  sync.Mutex              // held by who interrupts what endpoint or relayed shows: it is held no longer than that
}

// Cut ends the connection whatever it is doing. It must be called until the connection is gone.
func (c *conn) Cut() {
	if b := c.bundle.Load(); b != nil {
		c.cutBundle(b)
		return
	}
	if c.interrupt(&c.endpoint) { // the client is told that the gateway stops
		return
	}
	c.interrupt(&c.relayed) // and the client sees that its answer is not whole
	if t := c.tunnelled.Load(); t != nil {
		t.Cut(errCut)
		return
	}
	if c.stream != nil {
		c.Leave() // its connection does not know it from now on, so nobody else tells it, and it may be about to ask an endpoint
	}
	c.poll.Shutdown()
}

// errCut ends a tunnel.
var errCut = errors.New("the gateway is stopping")

// pin gives the site of the present generation. A listener that left the config keeps its last one until its
// connections are drained.
func (c *conn) pin() *site {
	if tables := c.door.options.Tables(); tables != c.tables {
		if s := tables.sites[c.Listener.Name]; s != nil {
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
	later               // nobody knows: the poller has it, and calls Resume; or it is a tunnel. It is not ours any more, not even to look at
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
		if !c.door.Introduce(c, c.poll, &c.pin().rules) {
			return nothing
		}
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
		if c.pending() {
			left, keep := c.awaitAnswer()
			if left {
				return later
			}
			if n := c.finish(keep); n != more {
				return n
			}
			continue
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
		if n := c.finish(keep); n != more {
			return n
		}
	}
}

// pending says that the request in hand waits for its answer.
func (c *conn) pending() bool { return c.x != nil && c.x.pending }

// finish lets go of the request in hand, which is over.
func (c *conn) finish(keep bool) next {
	if c.x.tunnelling {
		c.tunnel()
		return later
	}
	if !keep && !c.torn && c.x.lingers() {
		c.x.linger()
	}
	if !keep || !c.x.pipelined() {
		c.x.release()
		c.x = nil
	}
	return moreIf(keep)
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
	if c.x != nil { // pending, or pipelined
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
	if c.pending() {
		return more
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
			c.over = !x.pending
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
		c.Series.Refused("tls_handshake")
		c.door.options.Log.Debug("tls handshake failed", "listener", c.Listener.Name, "client", c.Peer, "error", err)
		answerPlainly(err)
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
