// Package upstream keeps named sets of endpoints and says which one a request should go to.
//
// A [Set] belongs to one generation of the configuration and never changes its members; [Set.Pick] gives a [Lease] on one of
// them, and [Lease.Done] reports how it went. An [Endpoint] outlives generations: while its set's name, its address and
// the spec's identity stay the same, its health, load, latency, ejections and connection pool stay too. The [Registry]
// holds what must be closed some time: health checks and pools. What a new generation no longer uses retires: its checks stop and
// its pool closes, but requests that still hold it may finish.
//
// An endpoint leaves the rotation when its active checks fail, or for a while when requests fail in a row (ejection). When
// too few are left (the panic threshold), health is ignored: many broken endpoints are more likely a broken check, and a
// few healthy ones would be overrun.
//
// The package knows neither HTTP nor MySQL, opens no connection by itself, and never retries: it only says whether a
// retry is within the budget.
//
// Pick and Done take no lock. They read a view of the available endpoints that is replaced as a whole; each change of an
// endpoint's availability increments its group's version, and a view of an older version is rebuilt by whoever meets it first.
//
// Lock order: Registry.building, Generation.mu, Registry.mu, Set.building, Endpoint.mu. Goroutines: one per endpoint with active
// checks; it ends when the endpoint retires, and Registry.Close waits for it. Ejections end by timers, which Close stops.
package upstream

import (
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/traffic/balance"
	"github.com/menshen-gateway/menshen/internal/traffic/health"
)

// Spec describes a set. The zero value of each field but Name is usable: no endpoints, round robin, no active checks, no
// ejection, health never ignored, no bounds, and a retry budget of the floor alone.
type Spec struct {
	Name      string // unique in its generation; the key under which state is kept
	Endpoints []EndpointSpec
	Balance   balance.Algorithm
	Probe     health.Probe    // active check; nil means none
	Health    health.Settings // for Probe
	Outlier   OutlierSettings
	// PanicThreshold is a fraction from 0 to 1: when fewer endpoints than that are available, all are used. 0 never does.
	// Endpoints of weight 0 do not count.
	PanicThreshold float64
	MaxConnections int     // active leases per endpoint; 0 means no bound
	RetryBudget    float64 // most retries as a fraction of the requests (0.2 is 20 %), see Set.AllowRetry
	// Identity stands for everything that a pool of connections depends on (TLS, credentials, pool sizes). When it changes, the
	// endpoints are new ones, with new pools and without a past.
	Identity string
	// NewPool makes Endpoint.Pool for a new endpoint; nil means none. It must not connect: a generation that is only
	// checked and then aborted calls it too. Close is called once, when the endpoint retires or its generation is aborted.
	NewPool func(*Endpoint) io.Closer
}

// EndpointSpec is one member of a set. An address that stands there twice is one endpoint with the sum of the weights.
type EndpointSpec struct {
	Address string            // host:port
	Weight  int               // share of the traffic; 0 (or less) takes none, but is checked
	Labels  map[string]string // for status only
}

// OutlierSettings say when requests that fail eject their endpoint.
type OutlierSettings struct {
	ConsecutiveFailures int           // failures in a row; 0 never ejects
	Ejection            time.Duration // the first ejection, and by how much each further one is longer; 0 means 10s
	EjectionMax         time.Duration // the longest; 0 means 5m
}

// Set is a set of endpoints as one generation of the configuration has it. It is safe for use by many goroutines and stays
// usable, with up-to-date health, after its generation was replaced.
type Set struct {
	spec    Spec
	group   *group
	members []member
	view    atomic.Pointer[view]

	building sync.Mutex // held while the view is rebuilt; guards nothing else
}

type member struct {
	endpoint *Endpoint
	weight   int
	labels   map[string]string
}

// group is what the sets of one name share across generations.
type group struct {
	name     string
	registry *Registry
	version  atomic.Uint64 // incremented at each change of an endpoint's availability
	cursor   atomic.Uint64 // place in the round robin
	current  atomic.Pointer[Set]
	budget   budget

	watching sync.Mutex    // guards the two below
	watch    chan struct{} // closed at the next change; nil while nobody watches
	shared   any           // see Set.Shared

	panicking  atomic.Bool // of the current set; for the log
	panicPicks atomic.Uint64
	noEndpoint atomic.Uint64
	limited    atomic.Uint64
}

// view is a Set at one version.
type view struct {
	choice    // among all in rotation
	version   uint64
	available int  // endpoints that are well and have a weight
	total     int  // endpoints that have a weight
	panic     bool // health is ignored: endpoints holds all with a weight
	// narrow are the choices among the endpoints of some classes, by their bits; nil when no endpoint has a class.
	narrow []choice
}

// choice is endpoints and a balancer over them.
type choice struct {
	endpoints []*Endpoint // in the order of the balancer's candidates
	balancer  *balance.Balancer
	none      error // why endpoints is empty
}

// Request is what a choice depends on.
type Request struct {
	Hash   uint64 // balance.Key of what the set is hashed on
	Hashed bool   // Hash is set
	Class  Class  // only an endpoint of one of these classes will do; 0 means any. Health is never ignored then
	// Exclude is the endpoint of the attempt that failed. It is chosen again only when no other endpoint is in rotation.
	Exclude *Endpoint
	// Tried are the endpoints of still earlier attempts; they are avoided as long as there are others.
	Tried []*Endpoint
}

// Outcome is how a lease went. The zero value is a success of unknown latency.
type Outcome struct {
	Failed  bool          // the endpoint is to blame: no connection, a timeout, a broken answer, 502 to 504
	Ignored bool          // says nothing about the endpoint: the client left, or the lease was not used
	Latency time.Duration // to the first byte of the answer; 0 when unknown
	Ended   time.Time     // when the lease ended, for who has just read the clock; zero is now
}

// Lease is the use of an endpoint for one attempt. It is a value; Done must be called on exactly one copy, once. Done on
// the zero Lease does nothing.
type Lease struct {
	Endpoint *Endpoint
	set      *Set
}

// Pick chooses an endpoint. The error is a *fault.Fault: NoEndpoint when none is in rotation, Limited when all that
// are have their MaxConnections.
func (s *Set) Pick(p Request) (Lease, error) {
	v := s.fresh()
	c := v.of(p.Class)
	if len(c.endpoints) == 0 {
		if p.Class != 0 { // the view may be a moment old, and who waits for a class has just been told that it changed
			if c = s.refresh().of(p.Class); len(c.endpoints) > 0 {
				return s.pick(c, p)
			}
		}
		s.group.noEndpoint.Add(1)
		return Lease{}, &fault.Fault{Kind: fault.NoEndpoint, Public: "no endpoint is available", Cause: c.none, Unsent: true}
	}
	if v.panic && p.Class == 0 {
		s.group.panicPicks.Add(1)
	}
	return s.pick(c, p)
}

func (s *Set) pick(v *choice, p Request) (Lease, error) {
	call := balance.Call{Hash: p.Hash, Hashed: p.Hashed}
	switch s.spec.Balance {
	case balance.RoundRobin, "":
	case balance.LeastLatency:
		call.Now = s.group.registry.now()
		fallthrough
	default:
		call.Random = rand.Uint64()
	}
	if p.Exclude != nil || p.Tried != nil {
		call.Skip = v.skip(p)
	}
	for {
		i := v.balancer.Choose(call)
		if i < 0 {
			if len(call.Skip) > 1 { // all but the tried ones are full or gone: then only not the last one again
				call.Skip = v.skip(Request{Exclude: p.Exclude})
				if i = v.balancer.Choose(call); i < 0 {
					return s.refuse()
				}
			} else {
				return s.refuse()
			}
		}
		if e := v.endpoints[i]; e.load.Acquire(s.spec.MaxConnections) {
			return Lease{Endpoint: e, set: s}, nil
		}
		// Another request took the last place in the meantime. Each round means that one did, so this ends.
	}
}

func (s *Set) refuse() (Lease, error) {
	s.group.limited.Add(1)
	return Lease{}, &fault.Fault{Kind: fault.Limited, Public: "every endpoint has all the connections that it may have", Unsent: true}
}

// skip gives the places of the endpoints to avoid; none when nothing else would be left.
func (v *choice) skip(p Request) []int {
	var skip []int
	for i, e := range v.endpoints {
		avoid := e == p.Exclude
		for _, t := range p.Tried {
			avoid = avoid || e == t
		}
		if avoid {
			skip = append(skip, i)
		}
	}
	switch {
	case len(skip) < len(v.endpoints):
		return skip
	case len(v.endpoints) == 1:
		return nil
	}
	return v.skip(Request{Exclude: p.Exclude})
}

// fresh gives a view of the group's current version.
func (s *Set) fresh() *view {
	v := s.view.Load()
	if v.version == s.group.version.Load() || !s.building.TryLock() {
		return v // up to date, or somebody is rebuilding it and a moment's delay does no harm
	}
	defer s.building.Unlock()
	return s.rebuild()
}

// refresh is fresh for those who must not miss a change.
func (s *Set) refresh() *view {
	s.building.Lock()
	defer s.building.Unlock()
	return s.rebuild()
}

// rebuild makes the view of the current version, if there is none yet. Set.building must be held.
func (s *Set) rebuild() *view {
	// The version is read before the endpoints are: a change in between is seen twice instead of never.
	version := s.group.version.Load()
	old := s.view.Load()
	if old != nil && old.version == version {
		return old
	}
	v := &view{version: version}
	for i := range s.members {
		if m := &s.members[i]; m.weight > 0 {
			v.total++
			if m.endpoint.available() {
				v.available++
			}
		}
	}
	v.panic = v.total > 0 && float64(v.available) < s.spec.PanicThreshold*float64(v.total)
	classed := Class(0)
	v.choice = s.choose(v.total, func(e *Endpoint) bool {
		classed |= e.Class()
		return v.panic || e.available()
	})
	if classed != 0 {
		v.narrow = make([]choice, 1<<classes)
		for c := Class(1); int(c) < len(v.narrow); c++ {
			v.narrow[c] = s.choose(v.total, func(e *Endpoint) bool { return e.Class()&c != 0 && e.available() })
		}
	}
	s.view.Store(v)
	return v
}

// choose makes the choice among the endpoints that have a weight and for which in says true.
func (s *Set) choose(most int, in func(*Endpoint) bool) (c choice) {
	candidates := make([]balance.Candidate, 0, most)
	for i := range s.members {
		if m := &s.members[i]; m.weight > 0 && in(m.endpoint) {
			c.endpoints = append(c.endpoints, m.endpoint)
			candidates = append(candidates, balance.Candidate{Weight: m.weight, ID: m.endpoint.id, Load: &m.endpoint.load, Max: s.spec.MaxConnections})
		}
	}
	if len(candidates) == 0 {
		c.none = s.whyNone()
	}
	c.balancer = balance.New(s.spec.Balance, candidates, &s.group.cursor)
	return c
}

// of gives the choice among the endpoints of some classes.
func (v *view) of(c Class) *choice {
	switch {
	case c == 0:
		return &v.choice
	case int(c) < len(v.narrow):
		return &v.narrow[c]
	}
	return &nothing
}

// nothing is the choice when no endpoint has a class.
var nothing choice

// Done ends the lease and reports its outcome.
func (l Lease) Done(o Outcome) {
	e := l.Endpoint
	if e == nil {
		return
	}
	e.load.Release()
	if o.Ignored {
		return
	}
	now := l.set.group.registry.when(o.Ended)
	e.requests.Add(1)
	if e.retired.Load() {
		e.group.budget.left.add(now)
	} else {
		e.recent.add(now)
	}
	e.load.Observe(now, o.Latency, o.Failed)
	if o.Failed {
		e.failed(l.set)
	} else if e.failures.Load() != 0 {
		e.failures.Store(0)
	}
}

// AllowRetry takes one retry from the set's budget, or says that it is used up: at most RetryBudget of the requests that
// ended in the last 10 seconds may be retries, but never fewer than 3 a second. The budget keeps an overload from being
// multiplied by the attempts to survive it.
func (s *Set) AllowRetry() bool {
	now := s.group.registry.now()
	attempts := s.group.budget.left.sum(now)
	current := s // the budget is the service's: an older generation shares it
	if c := s.group.current.Load(); c != nil {
		current = c
	}
	for i := range current.members {
		if e := current.members[i].endpoint; !e.retired.Load() {
			attempts += e.recent.sum(now)
		}
	}
	return s.group.budget.retry(now, attempts, s.spec.RetryBudget)
}

// Name is the name in the set's Spec.
func (s *Set) Name() string { return s.spec.Name }

// Endpoints gives the members, in the order of the Spec.
func (s *Set) Endpoints() []*Endpoint {
	endpoints := make([]*Endpoint, len(s.members))
	for i := range s.members {
		endpoints[i] = s.members[i].endpoint
	}
	return endpoints
}
