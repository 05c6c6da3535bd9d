// Package httpdoor is the HTTP door: listeners, connections and the path of a request from its first byte to its access
// record (serve.go). Its own HTTP/1.1 engine stands on package h1 for the syntax, poll for the sockets, route for the
// choice of a route and forward for the endpoints.
//
// A connection is one goroutine; it is joined by a second one only while a request body streams to an endpoint, or for the
// other direction of a tunnel. Between requests a connection holds no buffer.
//
// Locks: Door.mu guards the set of open connections and is never held while anything else is locked or waited for.
//
// The package refuses to know where its configuration comes from, and to speak anything but HTTP.
package httpdoor

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

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
	listeners map[string]*listening
	group     sync.WaitGroup // connections
	stripes   atomic.Uint32
}

// listening is what the connections of one listener share, across reloads and also across sockets: a listener that moves
// to another address keeps its connections.
type listening struct {
	name     string
	draining bool // guarded by Door.mu; conn.state tells the connections
	conns    map[*conn]struct{}
	alike    map[netip.Addr]int
}

// New makes a Door.
func New(o Options) *Door {
	return &Door{options: o, listeners: map[string]*listening{}}
}

// Serve accepts connections for the named listener until ln is closed or ctx ends. Connections go on after it returns.
func (d *Door) Serve(ctx context.Context, ln net.Listener, listener string) error {
	d.mu.Lock()
	l := d.listeners[listener]
	if l == nil {
		l = &listening{name: listener, conns: map[*conn]struct{}{}, alike: map[netip.Addr]int{}}
		d.listeners[listener] = l
	}
	l.draining = false
	d.mu.Unlock()
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

// accept starts a connection, or closes it at once when there are too many.
func (d *Door) accept(nc net.Conn, l *listening) {
	tables := d.options.Tables()
	s := tables.sites[l.name]
	if s == nil { // the listener left the config between the accept and now
		nc.Close()
		return
	}
	peer := addressOf(nc)
	c := &conn{door: d, listening: l, poll: poll.New(nc), peer: peer, stripe: d.stripes.Add(1), tables: tables, site: s}
	c.net = c.poll
	d.mu.Lock()
	refused := ""
	switch {
	case s.connections > 0 && len(l.conns) >= s.connections:
		refused = "connections"
	case s.connectionsAlike > 0 && l.alike[peer] >= s.connectionsAlike:
		refused = "connections_per_address"
	default:
		l.conns[c] = struct{}{}
		l.alike[peer]++
		if l.draining {
			c.state.Store(stateDraining)
		}
		d.group.Add(1)
	}
	d.mu.Unlock()
	if refused != "" {
		s.connectionsSeries.Refused(refused)
		nc.Close()
		return
	}
	s.connectionsSeries.Accepted()
	go func() { // ends with the connection; Drain waits for it
		defer d.group.Done()
		c.run()
		s.connectionsSeries.Closed()
		d.mu.Lock()
		delete(l.conns, c)
		if l.alike[peer]--; l.alike[peer] <= 0 {
			delete(l.alike, peer)
		}
		d.mu.Unlock()
	}()
}

func addressOf(nc net.Conn) netip.Addr {
	if tcp, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// Drain ends the connections of a listener whose socket is closed: idle ones now, others after their present request, whose
// response says so. Those that are left when ctx ends are cut. An empty name means all listeners.
func (d *Door) Drain(ctx context.Context, listener string) error {
	for _, c := range d.connections(listener, true) {
		if c.state.CompareAndSwap(stateIdle, stateDraining) {
			c.poll.Interrupt()
		} else {
			c.state.Store(stateDraining)
		}
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		left := d.connections(listener, false)
		if len(left) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			for _, c := range left {
				c.poll.Conn.Close()
			}
			if listener == "" {
				d.group.Wait()
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// connections lists the open connections of one listener or of all.
func (d *Door) connections(listener string, drain bool) []*conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []*conn
	for name, l := range d.listeners {
		if listener != "" && name != listener {
			continue
		}
		if drain {
			l.draining = true
		}
		for c := range l.conns {
			all = append(all, c)
		}
	}
	return all
}

// Connections counts the open connections.
func (d *Door) Connections() int { return len(d.connections("", false)) }

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
	peer      netip.Addr
	stripe    uint32
	state     atomic.Int32

	tables *Tables // the generation that site belongs to
	site   *site
	served int
	first  [1]byte // for TLS: what woke an idle connection
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

// run serves requests until the connection ends.
func (c *conn) run() {
	var x *exchange
	defer func() {
		if r := recover(); r != nil {
			c.door.bug(r, x)
		}
		c.net.Close()
	}()
	if c.site.tls != nil && !c.handshake() {
		return
	}
	for {
		if x == nil {
			if !c.awaitRequest() {
				return
			}
			x = newExchange(c)
		}
		if !x.serve() {
			x.release()
			x = nil
			return
		}
		if !x.pipelined() {
			x.release()
			x = nil
		}
	}
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
	err := c.await()
	if !c.state.CompareAndSwap(stateIdle, stateActive) { // drained meanwhile
		c.poll.Uninterrupt()
		if err != nil {
			return c.awaitLast()
		}
	}
	return err == nil
}

func (c *conn) await() error {
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
	return c.await() == nil
}

func (c *conn) draining() bool { return c.state.Load() == stateDraining }
