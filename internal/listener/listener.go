// Package listener is what the listeners of all doors have in common. A Hall accepts their connections within bounds, knows
// whose they are, also behind a load balancer that introduces them, has an eye on them, and ends them when their listener goes.
//
// A door embeds a Hall, and an Entry in what it keeps of a connection (Conn). What speaks a protocol is the door's: Begin
// serves a connection in a goroutine of its own, and whoever serves it last calls Leave, also when a panic passes by. A
// listener kind that accepts in another way brings a net.Listener.
//
// Goroutines: one for each connection that begins; one watcher while there are connections, if the door watches. Drain
// waits for both. Locks: Hall.mu guards the books, and is held while the door ranges over All. No method of a Conn is called under it.
//
// The package refuses to look at what connections say, but for the PROXY protocol header.
package listener

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is a connection as its door keeps it, by pointer; it embeds an Entry.
type Conn interface {
	comparable
	// Begin serves it, and goes on until nothing is left to do in this goroutine.
	Begin()
	// Refuse closes it unserved: there are too many.
	Refuse()
	// Retire tells it that its listener is gone: it is to end after what it does now. It may come before Begin, from any
	// goroutine, and more than once.
	Retire()
	// Cut ends it whatever it does, from any goroutine. It is called again and again until the connection has left.
	Cut()

	entry() *Entry
}

// Options are what a Hall is made from. Watch may be nil.
type Options[C Conn] struct {
	// Open makes what the door keeps of a connection to the named listener, and gives that one's rules. Without rules the
	// listener has left the config a moment ago: then the connection is untouched.
	Open func(nc net.Conn, listener string) (C, *Rules)
	// Watch is called every WatchInterval while there are connections.
	Watch func()
	Log   *slog.Logger
}

// WatchInterval is how often Options.Watch is called.
const WatchInterval = time.Second

// Hall is the listeners of one door with their connections. It is safe for any number of goroutines.
type Hall[C Conn] struct {
	options Options[C]

	mu      sync.Mutex
	open    map[*Listener]map[C]struct{} // those that accept, and those with connections left
	count   int
	watcher watcher
}

// Listener is what the connections of one listener share, across reloads and also across sockets: a listener that moves to
// another address keeps its connections.
type Listener struct {
	Name    string
	retired atomic.Bool        // it left; one that comes back under the name gets a Listener of its own
	alike   map[netip.Addr]int // guarded by Hall.mu
}

// Retired says that the listener has left, so its connections are to end.
func (l *Listener) Retired() bool { return l.retired.Load() }

// watcher is the goroutine that calls Options.Watch.
type watcher struct{ stop, done chan struct{} }

// New makes a Hall.
func New[C Conn](o Options[C]) *Hall[C] {
	return &Hall[C]{options: o, open: map[*Listener]map[C]struct{}{}}
}

// Serve accepts connections for the named listener until ln is closed or ctx ends. Connections go on after it returns.
func (h *Hall[C]) Serve(ctx context.Context, ln net.Listener, name string) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	l := h.listener(name)
	delay := time.Duration(0)
	for {
		nc, err := ln.Accept()
		if err == nil {
			delay = 0
			h.accept(nc, l)
			continue
		}
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return nil
		}
		// Out of descriptors, or a connection that was gone before it was accepted. Wait, or this loop takes the CPU.
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		h.options.Log.Warn("cannot accept a connection", "listener", name, "error", err, "retry_in", delay)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil
		}
	}
}

// listener finds or makes what the connections of a listener share.
func (h *Hall[C]) listener(name string) *Listener {
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.open {
		if l.Name == name && !l.Retired() {
			return l
		}
	}
	l := &Listener{Name: name, alike: map[netip.Addr]int{}}
	h.open[l] = map[C]struct{}{}
	return l
}

// accept begins a connection, or refuses it when there are too many.
func (h *Hall[C]) accept(nc net.Conn, l *Listener) {
	peer := addressOf(nc.RemoteAddr()).Addr()
	c, r := h.options.Open(nc, l.Name)
	if r == nil {
		nc.Close()
		return
	}
	e := c.entry()
	e.Listener, e.Series, e.Peer, e.announced = l, r.Series, peer, r.Proxies.Has(peer)
	if refused := h.enter(c, r); refused != "" {
		r.Series.Refused(refused)
		c.Refuse()
		return
	}
	r.Series.Accepted()
	if l.Retired() {
		c.Retire()
	}
	go c.Begin() // ends with the connection, or when that is idle; Drain waits for the connection
}

// The reasons to refuse a connection.
const (
	tooMany       = "connections"
	tooManyAlike  = "connections_per_address"
	notIntroduced = "proxy_protocol"
)

// enter takes a connection into the books, unless there are too many.
func (h *Hall[C]) enter(c C, r *Rules) (refused string) {
	e := c.entry()
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.Connections > 0 && h.all(e.Listener.Name) >= r.Connections {
		return tooMany
	}
	if !e.announced && !h.countAlike(e, r) { // else it is counted when it has said whose it is
		return tooManyAlike
	}
	conns := h.open[e.Listener]
	if conns == nil { // it was retired, and had none left
		conns = map[C]struct{}{}
		h.open[e.Listener] = conns
	}
	conns[c] = struct{}{}
	if h.count++; h.count == 1 && h.options.Watch != nil {
		h.watch()
	}
	return ""
}

// all counts the connections to listeners of a name. h.mu is held.
func (h *Hall[C]) all(name string) (n int) {
	for l, conns := range h.open {
		if l.Name == name {
			n += len(conns)
		}
	}
	return n
}

// countAlike counts a connection with those of its client's address to listeners of the name; false when there are too many. h.mu is held.
func (h *Hall[C]) countAlike(e *Entry, r *Rules) bool {
	n := 0
	for l := range h.open {
		if l.Name == e.Listener.Name {
			n += l.alike[e.Peer]
		}
	}
	if r.PerAddress > 0 && n >= r.PerAddress {
		return false
	}
	e.Listener.alike[e.Peer]++
	e.counted = true
	return true
}

// Leave takes a connection that has ended out of the books.
func (h *Hall[C]) Leave(c C) {
	e := c.entry()
	e.Series.Closed()
	h.mu.Lock()
	defer h.mu.Unlock()
	l := e.Listener
	if e.counted {
		if l.alike[e.Peer]--; l.alike[e.Peer] <= 0 {
			delete(l.alike, e.Peer)
		}
	}
	if delete(h.open[l], c); l.Retired() && len(h.open[l]) == 0 {
		delete(h.open, l)
	}
	if h.count--; h.count == 0 && h.options.Watch != nil {
		close(h.watcher.stop)
	}
}

// Count is the number of connections.
func (h *Hall[C]) Count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// All gives the connections, under the lock of the hall.
func (h *Hall[C]) All() iter.Seq[C] {
	return func(yield func(C) bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, conns := range h.open {
			for c := range conns {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// watch starts the watcher. h.mu is held.
func (h *Hall[C]) watch() {
	w := watcher{make(chan struct{}), make(chan struct{})}
	h.watcher = w
	go func() { // ends when the last connection has left; Drain waits for it
		defer close(w.done)
		tick := time.NewTicker(WatchInterval)
		defer tick.Stop()
		for {
			select {
			case <-w.stop:
				return
			case <-tick.C:
				h.options.Watch()
			}
		}
	}()
}

// Drain ends the connections of a listener whose socket is closed: they are told, and those that are left when ctx ends are
// cut, of which the error tells. An empty name means all listeners.
func (h *Hall[C]) Drain(ctx context.Context, name string) error { return h.Retire(name)(ctx) }

// Retire is the first half of Drain: it tells the connections, and wait does the rest. A listener that begins to serve
// under the same name in between has nothing to do with it.
func (h *Hall[C]) Retire(name string) (wait func(context.Context) error) {
	var left []C
	h.mu.Lock()
	for l, conns := range h.open {
		if name != "" && (l.Name != name || l.Retired()) {
			continue
		}
		l.retired.Store(true)
		for c := range conns {
			left = append(left, c)
		}
		if len(conns) == 0 {
			delete(h.open, l)
		}
	}
	h.mu.Unlock()
	for _, c := range left {
		c.Retire()
	}
	return func(ctx context.Context) error { return h.await(ctx, left) }
}

// await waits until the connections have left, and cuts them when ctx has ended.
func (h *Hall[C]) await(ctx context.Context, left []C) (cut error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var watched chan struct{}
		if left, watched = h.stillOpen(left); len(left) == 0 {
			if watched != nil {
				<-watched
			}
			return cut
		}
		<-tick.C
		if ctx.Err() != nil {
			cut = context.Cause(ctx)
			for _, c := range left {
				c.Cut()
			}
		}
	}
}

// stillOpen gives those of the connections that have not left, and what tells the end of the watcher when there are no connections at all.
func (h *Hall[C]) stillOpen(conns []C) (left []C, watched chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count == 0 {
		watched = h.watcher.done
	}
	return slices.DeleteFunc(conns, func(c C) bool {
		_, open := h.open[c.entry().Listener][c]
		return !open
	}), watched
}
