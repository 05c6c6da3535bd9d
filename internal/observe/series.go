package observe

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
)

// The bounds inside one series. What goes beyond them is counted under a coarser label, never lost.
const (
	codesMax      = 32  // exact HTTP status codes of one route and service; then "2xx" and so on
	statementsMax = 128 // pairs of command and code of one database; then code="(other)", then command="(other)"
	commandsMax   = 24  // commands of one database that may have pairs at all
	reasonsMax    = 16  // reasons for refusing connections of one listener; then "(other)"
)

// Other is the label value that stands for everything beyond a bound.
const Other = "(other)"

// None is the label value for requests that belong to no route, service or database.
const None = "(none)"

// faultIDs are the ids of fault.Kind in order, and Other as the last.
var faultIDs = func() []string {
	var ids []string
	for k := fault.Kind(0); k < faultsMax-1; k++ {
		id := k.String()
		if strings.HasPrefix(id, "kind_") {
			break
		}
		ids = append(ids, id)
	}
	return append(ids, Other)
}()

// faultsMax bounds the kinds of fault that are counted apart; a test checks that all of them fit.
const faultsMax = 40

var faultIndex = func() map[string]int {
	m := make(map[string]int, len(faultIDs))
	for i, id := range faultIDs {
		m[id] = i
	}
	return m
}()

// HTTPSeries counts the requests of one route to one service. The zero value works but is part of no registry. It is
// safe for any number of goroutines.
type HTTPSeries struct {
	route, service string

	codes   [codesMax]atomic.Uint32 // the status that owns the slot; 0 is free. Slots are taken in order and never given back.
	stripes [stripesMax]atomic.Pointer[httpCells]
	wanted  bool // guarded by Metrics.mu: asked for since the last Keep
}

// httpCells is one stripe of an HTTPSeries. It is made when the stripe is first written, so that a route without
// traffic costs next to nothing.
type httpCells struct {
	codes    [codesMax + 6]atomic.Uint64 // after the exact codes: 1xx to 5xx, and everything else
	total    histogram
	upstream histogram
	bytesIn  atomic.Uint64
	bytesOut atomic.Uint64
	retries  atomic.Uint64
	faults   [faultsMax]atomic.Uint64
	_        [64]byte // no neighbour on the last cache line
}

// Observe counts one request: its status (0 when no answer was sent), the time in the gateway altogether and waiting
// for endpoints (0 when none was asked), bytes received from and sent to the client, attempts beyond the first, and the
// id of the fault ("" for none). It allocates nothing and takes no lock.
func (s *HTTPSeries) Observe(status int, total, upstream time.Duration, in, out int64, retries int, faultID string) {
	if s == nil {
		return
	}
	c := cellsOf(&s.stripes[stripe()])
	c.codes[s.slot(status)].Add(1)
	c.total.observe(total)
	if upstream > 0 {
		c.upstream.observe(upstream)
	}
	if in > 0 {
		c.bytesIn.Add(uint64(in))
	}
	if out > 0 {
		c.bytesOut.Add(uint64(out))
	}
	if retries > 0 {
		c.retries.Add(uint64(retries))
	}
	if faultID != "" {
		i, ok := faultIndex[faultID]
		if !ok {
			i = len(faultIDs) - 1
		}
		c.faults[i].Add(1)
	}
}

// slot finds the counter of a status code, taking a free one for a code not seen before. Routes answer with few codes,
// the common ones first, so the scan is short.
func (s *HTTPSeries) slot(status int) int {
	if status < 100 || status > 999 {
		return codesMax + 5
	}
	code := uint32(status)
	for i := range s.codes {
		have := s.codes[i].Load()
		if have == 0 {
			if s.codes[i].CompareAndSwap(0, code) {
				return i
			}
			have = s.codes[i].Load()
		}
		if have == code {
			return i
		}
	}
	return codesMax + min(status/100, 6) - 1
}

func cellsOf[T any](p *atomic.Pointer[T]) *T {
	if c := p.Load(); c != nil {
		return c
	}
	p.CompareAndSwap(nil, new(T))
	return p.Load()
}

// SQLSeries counts the statements of one database. The zero value works but is part of no registry. It is safe for any
// number of goroutines.
type SQLSeries struct {
	database string

	index   atomic.Pointer[map[statementKey]int] // copied to grow: written a few times, read for every statement
	mu      sync.Mutex                           // held while index grows
	stripes [stripesMax]atomic.Pointer[sqlCells]
}

type statementKey struct {
	command string
	code    int
}

// otherCode stands for Other among the codes of a command; MySQL's numbers are positive.
const otherCode = -1

type sqlCells struct {
	statements [statementsMax]atomic.Uint64
	total      histogram
	upstream   histogram
	bytesIn    atomic.Uint64
	bytesOut   atomic.Uint64
	_          [64]byte
}

// Observe counts one statement: its command ("query", "execute", ...: one of few words, never the client's own),
// MySQL's error number (0 when it succeeded), the time in the gateway altogether and waiting for instances (0 when none
// was asked), and bytes received from and sent to the client. It allocates nothing and takes no lock, but for the first
// statement of a command with a code.
func (s *SQLSeries) Observe(command string, sqlCode int, total, upstream time.Duration, in, out int64) {
	if s == nil {
		return
	}
	i := s.slot(command, sqlCode)
	c := cellsOf(&s.stripes[stripe()])
	c.statements[i].Add(1)
	c.total.observe(total)
	if upstream > 0 {
		c.upstream.observe(upstream)
	}
	if in > 0 {
		c.bytesIn.Add(uint64(in))
	}
	if out > 0 {
		c.bytesOut.Add(uint64(out))
	}
}

// pairsExact is how many pairs are counted apart: the rest of statementsMax is kept so that each command, and Other, can
// fall back to one coarse pair.
const pairsExact = statementsMax - commandsMax - 1

// slot finds the counter of a pair.
func (s *SQLSeries) slot(command string, code int) int {
	if command == "" {
		command = None
	}
	code = max(code, 0)
	if m := s.index.Load(); m != nil {
		if i, ok := (*m)[statementKey{command, code}]; ok {
			return i
		}
		if len(*m) >= pairsExact { // clients can choose codes (SIGNAL): past the bound they must not reach the lock
			if i, ok := (*m)[statementKey{command, otherCode}]; ok {
				return i
			}
		}
	}
	return s.grow(command, code)
}

// grow finds or makes the counter of a pair that index does not hold.
func (s *SQLSeries) grow(command string, code int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	var old map[statementKey]int
	if m := s.index.Load(); m != nil {
		old = *m
	}
	commands := make(map[string]bool)
	for k := range old {
		commands[k.command] = true
	}
	key := statementKey{command, code}
	switch {
	case !commands[command] && len(commands) >= commandsMax:
		key = statementKey{Other, otherCode}
	case len(old) >= pairsExact:
		key.code = otherCode
	}
	if _, ok := old[statementKey{command, code}]; ok {
		key.code = code // somebody else was quicker
	}
	if i, ok := old[key]; ok {
		return i
	}
	key.command = strings.Clone(key.command)
	m := make(map[statementKey]int, len(old)+1)
	maps.Copy(m, old)
	m[key] = len(old)
	s.index.Store(&m)
	return len(old)
}

// ListenerSeries counts the connections of one listener. The zero value works but is part of no registry. It is safe
// for any number of goroutines.
type ListenerSeries struct {
	name string

	accepted atomic.Uint64
	closed   atomic.Uint64
	opened   atomic.Uint64 // sessions
	ended    atomic.Uint64
	bytesIn  atomic.Uint64
	bytesOut atomic.Uint64
	reasons  [reasonsMax]atomic.Pointer[string]
	refused  [reasonsMax + 1]atomic.Uint64
}

// Accepted counts a connection that is served from now on; Closed must follow once.
func (s *ListenerSeries) Accepted() {
	if s != nil {
		s.accepted.Add(1)
	}
}

// Closed counts the end of a connection that Accepted counted.
func (s *ListenerSeries) Closed() {
	if s != nil {
		s.closed.Add(1)
	}
}

// Refused counts a connection that was closed unserved, with a reason out of few ("connections",
// "connections_per_address", "draining").
func (s *ListenerSeries) Refused(reason string) {
	if s == nil {
		return
	}
	for i := range s.reasons {
		have := s.reasons[i].Load()
		if have == nil {
			r := strings.Clone(reason)
			if s.reasons[i].CompareAndSwap(nil, &r) {
				have = &r
			} else {
				have = s.reasons[i].Load()
			}
		}
		if *have == reason {
			s.refused[i].Add(1)
			return
		}
	}
	s.refused[reasonsMax].Add(1)
}

// SessionOpened counts an SQL session whose client has signed in; SessionClosed must follow once.
func (s *ListenerSeries) SessionOpened() {
	if s != nil {
		s.opened.Add(1)
	}
}

// SessionClosed counts the end of a session that SessionOpened counted.
func (s *ListenerSeries) SessionClosed() {
	if s != nil {
		s.ended.Add(1)
	}
}

// Relayed counts bytes of a tcp listener: received from and sent to the client.
func (s *ListenerSeries) Relayed(in, out int64) {
	if s == nil {
		return
	}
	s.bytesIn.Add(uint64(max(in, 0)))
	s.bytesOut.Add(uint64(max(out, 0)))
}

// Open is the number of connections open now.
func (s *ListenerSeries) Open() int { return gauge(&s.accepted, &s.closed) }

// gauge reads the lower counter first, so that a rise between the two reads cannot make the difference negative.
func gauge(up, down *atomic.Uint64) int {
	d := down.Load()
	return int(int64(up.Load() - d))
}
