package upstream

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/menshen-gateway/menshen/internal/traffic/balance"
)

// Registry owns all endpoints, across generations.
type Registry struct {
	log    *slog.Logger
	epoch  time.Time
	ctx    context.Context // of all checks; ended by Close
	cancel context.CancelFunc
	checks sync.WaitGroup

	building sync.Mutex // held by the open generation

	mu        sync.Mutex
	closed    bool
	endpoints map[endpointKey]*Endpoint
	groups    map[string]*group
	sets      []*Set // published, in the order of their names
}

// NewRegistry makes an empty registry. Close must be called at the end. log gets each change of an endpoint's state;
// nil discards it.
func NewRegistry(log *slog.Logger) *Registry {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Registry{log: log, epoch: time.Now(), endpoints: map[endpointKey]*Endpoint{}, groups: map[string]*group{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.checks.Go(r.sweep)
	return r
}

// sweepInterval is how often pools are asked to close what they have kept for too long.
const sweepInterval = 5 * time.Second

// sweep asks all pools that can, one goroutine for all of them. It ends with Close.
func (r *Registry) sweep() {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		endpoints := slices.Collect(maps.Values(r.endpoints))
		r.mu.Unlock()
		for _, e := range endpoints {
			if pool, ok := e.Pool.(interface{ Sweep() }); ok {
				pool.Sweep()
			}
		}
	}
}

// now is the registry's clock in nanoseconds. It starts at 1 s so that 0 never stands for a time.
func (r *Registry) now() int64 { return int64(time.Since(r.epoch) + time.Second) }

// when is now for a moment that was read from the clock before; zero is now.
func (r *Registry) when(t time.Time) int64 {
	if t.IsZero() {
		return r.now()
	}
	return int64(t.Sub(r.epoch) + time.Second)
}

// Close retires every endpoint: it stops all checks, waits for them, and closes the pools. Sets stay usable for
// requests that still run. A second call does nothing; Commit after Close is an Abort.
func (r *Registry) Close() {
	r.mu.Lock()
	r.closed = true
	endpoints := r.endpoints
	r.endpoints, r.groups, r.sets = map[endpointKey]*Endpoint{}, map[string]*group{}, nil
	r.mu.Unlock()
	r.cancel()
	for _, e := range endpoints {
		e.retire()
	}
	r.checks.Wait()
}

// Generation collects the sets of one configuration. Nothing that runs changes before Commit. Its methods may be
// called by several goroutines.
type Generation struct {
	registry *Registry

	mu    sync.Mutex
	ended bool
	sets  map[string]*Set
	fresh map[endpointKey]*Endpoint // made by this generation
}

// Begin opens a generation; it waits while another one is open. Each must end with Commit or Abort; an Abort after Commit
// does nothing, so it may be deferred.
func (r *Registry) Begin() *Generation {
	r.building.Lock()
	return &Generation{registry: r, sets: map[string]*Set{}, fresh: map[endpointKey]*Endpoint{}}
}

// Set gives the set of a Spec. Endpoints that the registry knows by the set's name, the address and the identity are taken
// over with their state; others are made, with their pools. A second call with the same name gives the first one's set:
// a set that two listeners use is one. Call it before Commit or Abort.
func (g *Generation) Set(spec Spec) *Set {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		panic("BUG: upstream: Set after the end of its generation")
	}
	if s := g.sets[spec.Name]; s != nil {
		return s
	}
	r := g.registry
	r.mu.Lock()
	gr := r.groups[spec.Name]
	r.mu.Unlock()
	if gr == nil {
		gr = &group{name: spec.Name, registry: r}
	}
	s := &Set{spec: spec, group: gr, members: make([]member, 0, len(spec.Endpoints))}
	places := make(map[string]int, len(spec.Endpoints))
	for _, m := range spec.Endpoints {
		weight := max(m.Weight, 0)
		if at, twice := places[m.Address]; twice {
			s.members[at].weight += weight
			continue
		}
		places[m.Address] = len(s.members)
		s.members = append(s.members, member{endpoint: g.endpoint(gr, &spec, m.Address), weight: weight, labels: m.Labels})
	}
	s.refresh()
	g.sets[spec.Name] = s
	return s
}

// endpoint finds or makes an endpoint. Generation.mu is held.
func (g *Generation) endpoint(gr *group, spec *Spec, address string) *Endpoint {
	key := endpointKey{spec.Name, address, spec.Identity}
	g.registry.mu.Lock()
	e := g.registry.endpoints[key]
	g.registry.mu.Unlock()
	if e != nil {
		return e
	}
	e = &Endpoint{Address: address, key: key, id: balance.Key(address), group: gr, since: time.Now()}
	if spec.NewPool != nil {
		e.Pool = spec.NewPool(e)
	}
	g.fresh[key] = e
	return e
}

// Commit publishes the generation: new endpoints start their checks, known ones take over changed settings, and those that
// it does not use retire.
func (g *Generation) Commit() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	r := g.registry
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		g.abort()
		return
	}
	g.ended = true
	defer r.building.Unlock()
	old, used := r.endpoints, make(map[endpointKey]*Endpoint, len(r.endpoints))
	groups, sets := make(map[string]*group, len(g.sets)), sorted(g.sets)
	for _, s := range sets {
		groups[s.group.name] = s.group
		for _, m := range s.members {
			used[m.endpoint.key] = m.endpoint
			m.endpoint.configure(&s.spec) // starts checks: under Registry.mu, so that Close waits for them
		}
		s.group.current.Store(s)
	}
	r.endpoints, r.groups, r.sets = used, groups, sets
	r.mu.Unlock()
	for key, e := range old {
		if used[key] != e {
			e.retire()
			e.group.budget.left.addAll(&e.recent) // what it took stays in the service's account
		}
	}
	for _, s := range sets {
		s.group.changed()
	}
}

// Abort drops the generation: the pools that it made are closed, and everything stays as it was.
func (g *Generation) Abort() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.ended {
		g.abort()
	}
}

func (g *Generation) abort() {
	g.ended = true
	for _, e := range g.fresh {
		e.retire()
	}
	g.registry.building.Unlock()
}
