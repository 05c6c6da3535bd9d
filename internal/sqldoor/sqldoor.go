// Package sqldoor is the SQL door: it speaks MySQL's protocol to clients, signs consumers in, and passes their statements
// to the instance behind the database that they chose. The way of one statement is serve.go, top to bottom; sign-in is
// signin.go; which MySQL error a fault becomes is errors.go.
//
// A session is at most one goroutine with at most one connection to an instance. While it waits for its client's next statement, in a transaction too, or for an answer, it has no
// goroutine where the own poller can wait for it (Resume). It takes a connection from the instance's pool for each statement and gives it back after it, unless something pins it there (pins.go): a transaction, a temporary table, a lock, and
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
// Goroutines: one for each session that does not wait on the own poller, whose workers serve it as soon as something has come; it ends with its client or by Drain, which
// waits for it. Package listener accepts, and has the books of who is there.
//
// Locks: Door.mu guards the counts of consumers; session.mu guards what Cut closes. The lock of All may be held when session.mu is taken, never the
// other way round.
//
// What is not here: reading SQL (package scan), the rules of roles (package group), shards.
package sqldoor

import (
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/listener"
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
	*listener.Hall[*session]
	o    Options
	key  rsaKey
	full bool // tests: caching_sha2_password always asks for the password itself

	ids    atomic.Uint32          // of sessions; never 0 or backend.Nobody
	pinned [pinCount]atomic.Int64 // sessions by pin

	began    poll.Instant
	digests  digests
	attempts attempts

	mu        sync.Mutex
	consumers map[string]int // sessions by consumer
}

// New makes a door without listeners.
func New(o Options) *Door {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	d := &Door{o: o, began: poll.Now()}
	d.Hall = listener.New(listener.Options[*session]{Open: d.open, Watch: d.watch, Log: o.Log})
	o.Metrics.SQL(d.status)
	return d
}

// open makes a session of a connection that was accepted.
func (d *Door) open(nc net.Conn, name string) (*session, *listener.Rules) {
	tables := d.o.Tables()
	settings := tables.listeners[name]
	if settings == nil {
		return nil, nil
	}
	return &session{door: d, site: settings, tables: tables, client: wire.On(settings.open(nc)), id: d.nextID(), stop: make(chan struct{})}, &settings.rules
}

// Refuse tells the client that there are too many, and closes its connection.
func (s *session) Refuse() {
	s.decline(errorTooMany)
	_ = s.client.Close()
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

// left is called at the end of each session, by the goroutine that served it last.
func (d *Door) left(s *session) {
	d.mu.Lock()
	d.dismiss(s)
	d.mu.Unlock()
	d.Leave(s)
}
