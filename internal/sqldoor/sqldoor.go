// Package sqldoor is the SQL door: it speaks MySQL's protocol to clients, signs consumers in, and passes their statements
// to the instance behind the database that they chose. The way of one statement is serve.go, top to bottom; sign-in is
// signin.go; which MySQL error a fault becomes is errors.go.
//
// A session is one goroutine with at most one connection to an instance; between statements, in a transaction too, it has none where the own
// poller can wait for it (Resume). It takes one from the instance's pool for each statement and gives it back after it, unless something pins it there (pins.go): a transaction, a temporary table, a lock, and
// whatever else cannot be made again on another connection. What can be made again, variables above all, is remembered
// and set on the connection that the next statement gets. Where LAST_INSERT_ID(), ROW_COUNT() and the like can be asked for
// is in state.go. Answers are passed on undecoded; only their boundaries are followed. A statement is never sent twice,
// but for reads that a replica did not answer, and for writes that a primary refused because it is none any more (refused.go).
//
// In a group of instances statements go to the primary, and reads to replicas if the config says so: reads.go. Who is the primary is known by instance.go and keeper.go.
//
// A session outlives reloads: each statement reads the current Tables. When its database moves, or when its connection is
// lost, the session goes on with another connection only if that is the same to the client: outside of a transaction, and with
// nothing on the old one that cannot be made again. Otherwise the client gets an error and its session ends.
//
// Goroutines: one for each session that is not idle on the own poller, whose workers serve it then; it ends with its client or by Drain, which
// waits for it; one watcher while there are sessions (watch.go), which ends with the last of them.
//
// Locks: Door.mu guards the sets of sessions and counts; session.mu guards what kill closes. Door.mu is never taken under
// session.mu.
//
// What is not here: reading SQL (package scan), the rules of roles (package group), shards.
package sqldoor

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

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/sqldoor/wire"
)

// Options are what a Door is built on.
type Options struct {
	Tables  func() *Tables                    // the current generation; asked for each statement
	Log     *slog.Logger                      // nil discards
	Access  *observe.AccessLog                // nil writes no records
	Slow    *observe.SlowLog                  // nil writes no records
	Metrics *observe.Metrics                  // nil counts nothing
	TLS     func(listener string) *tls.Config // a listener's certificates; nil, or a nil answer: TLS is not offered
}

// Door serves the mysql listeners. It is safe for use by many goroutines.
type Door struct {
	o    Options
	key  rsaKey
	full bool // tests: caching_sha2_password always asks for the password itself

	ids    atomic.Uint32          // of sessions; never 0 or backend.Nobody
	pinned [pinCount]atomic.Int64 // sessions by pin

	began    poll.Instant
	digests  digests
	attempts attempts

	mu        sync.Mutex
	serving   map[*serving]struct{} // Serve calls that run, or that still have sessions
	sessions  int
	consumers map[string]int // sessions by consumer
	stopWatch chan struct{}  // nil without a watcher
}

// serving is one call of Serve with its sessions.
type serving struct {
	listener string
	draining atomic.Bool

	// Guarded by Door.mu.
	accepting bool
	sessions  map[*session]struct{}
	addresses map[netip.Addr]int
	changed   chan struct{} // closed and replaced when a session ends
}

// New makes a door without listeners.
func New(o Options) *Door {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &Door{o: o, began: poll.Now(), serving: make(map[*serving]struct{})}
	o.Metrics.SQL(d.status)
	return d
}

// acceptPause is the wait after an accept that failed for want of descriptors or memory.
const acceptPause = 50 * time.Millisecond

// Serve accepts connections for the listener of that name until ln is closed or ctx ends; then it returns nil. Its
// sessions go on: Drain ends them.
func (d *Door) Serve(ctx context.Context, ln net.Listener, listener string) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	sv := &serving{
		listener:  listener,
		accepting: true,
		sessions:  make(map[*session]struct{}),
		addresses: make(map[netip.Addr]int),
		changed:   make(chan struct{}),
	}
	d.mu.Lock()
	d.serving[sv] = struct{}{}
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		sv.accepting = false
		d.forget(sv)
		d.mu.Unlock()
	}()
	for {
		c, err := ln.Accept()
		if err == nil {
			d.accept(sv, c)
			continue
		}
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return nil
		}
		d.o.Log.Warn("accept", "listener", listener, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(acceptPause):
		}
	}
}

// forget drops a Serve call that is over. Door.mu is held.
func (d *Door) forget(sv *serving) {
	if !sv.accepting && len(sv.sessions) == 0 {
		delete(d.serving, sv)
	}
}

// accept starts a session, or refuses it.
func (d *Door) accept(sv *serving, c net.Conn) {
	tables := d.o.Tables()
	settings := tables.listeners[sv.listener]
	if settings == nil { // it left the config a moment ago
		settings = new(listener)
	}
	address := socketAddress(c.RemoteAddr()).Addr()
	announced := settings.proxies.Has(address) // then it is introduced first, and counted as the client's
	s := &session{door: d, serving: sv, listener: settings, tables: tables, client: wire.On(settings.open(c)), address: address, id: d.nextID(), series: settings.series, dead: make(chan struct{})}

	d.mu.Lock()
	refusal, reason := errorTooMany, ""
	switch limits := settings.limits; {
	case sv.draining.Load():
		refusal, reason = errorShutdown, "draining"
	case limits.Connections > 0 && d.open(sv.listener, netip.Addr{}) >= limits.Connections:
		reason = "connections"
	case !announced && limits.ConnectionsPerAddress > 0 && d.open(sv.listener, address) >= limits.ConnectionsPerAddress:
		reason = "connections_per_address"
	default:
		sv.sessions[s] = struct{}{}
		if s.counted = !announced; s.counted {
			sv.addresses[address]++
		}
		d.sessions++
		d.watch()
	}
	d.mu.Unlock()

	if reason != "" {
		s.series.Refused(reason)
		s.decline(refusal)
		_ = s.client.Close()
		return
	}
	s.series.Accepted()
	go s.begin(announced) // ends with its client or by Drain, which waits until it has left
}

// decline says why there is no greeting.
func (s *session) decline(e mysql.Error) {
	// The socket's buffer is empty, so this cannot block. Before the greeting an ERR packet has no SQLSTATE.
	e.State = ""
	s.client.WritePatience(time.Second)
	_ = s.client.WriteMessage(0, e.AppendTo)
}

// nextID numbers a session.
func (d *Door) nextID() uint32 {
	for {
		if id := d.ids.Add(1); id != 0 && id != backend.Nobody {
			return id
		}
	}
}

// open counts the sessions of a listener, over all its Serve calls; with an address, those from there. Door.mu is held.
func (d *Door) open(listener string, address netip.Addr) int {
	n := 0
	for sv := range d.serving {
		if sv.listener != listener {
			continue
		}
		if address.IsValid() {
			n += sv.addresses[address]
		} else {
			n += len(sv.sessions)
		}
	}
	return n
}

// left is called at the end of each session, by the goroutine that served it last.
func (d *Door) left(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	sv := s.serving
	d.dismiss(s)
	delete(sv.sessions, s)
	if s.counted {
		if sv.addresses[s.address]--; sv.addresses[s.address] <= 0 {
			delete(sv.addresses, s.address)
		}
	}
	d.sessions--
	if d.sessions == 0 {
		d.unwatch()
	}
	d.forget(sv)
	close(sv.changed)
	sv.changed = make(chan struct{})
	s.series.Closed()
}

// Sessions is the number of client connections.
func (d *Door) Sessions() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sessions
}

// Drain ends the sessions of a listener ("" means all): idle ones at once, with error 1053 in case their client asks
// something more; those with a statement or a transaction when that has ended, or when ctx ends, whichever comes first.
// It returns when the sessions have ended; the error says that ctx cut some of them off.
//
// When the listener has Serve calls that returned and others that still accept (it moved to another address), only the
// sessions of the former end.
func (d *Door) Drain(ctx context.Context, listener string) error {
	d.mu.Lock()
	var all, over []*serving
	for sv := range d.serving {
		if listener == "" || sv.listener == listener {
			all = append(all, sv)
			if !sv.accepting {
				over = append(over, sv)
			}
		}
	}
	if listener != "" && len(over) > 0 {
		all = over
	}
	for _, sv := range all {
		sv.draining.Store(true)
		for s := range sv.sessions {
			s.drain()
		}
	}
	d.mu.Unlock()

	var cut error
	for _, sv := range all {
		for {
			d.mu.Lock()
			left, changed := len(sv.sessions), sv.changed
			if left > 0 && ctx.Err() != nil {
				for s := range sv.sessions {
					s.kill()
				}
			}
			d.mu.Unlock()
			if left == 0 {
				break
			}
			if cut == nil {
				select {
				case <-changed:
					continue
				case <-ctx.Done():
					cut = context.Cause(ctx)
				}
				continue
			}
			<-changed // their connections are closed
		}
	}
	return cut
}
