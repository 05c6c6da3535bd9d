// Package snapshot compiles a config, whole, into one immutable Snapshot and publishes it with a single atomic store. A
// request, statement or connection loads the pointer once at its start and so never sees two generations.
//
// There is no count of who still uses an old Snapshot: it is memory, and the garbage collector counts better. What does have
// to be closed (checks of endpoints, idle connections) is leased from registries and retires when a generation without it
// is published; a request that still holds a retired endpoint can use it to its end.
//
// It refuses to open listeners and to read files: app does, between Prepare and Publish.
package snapshot

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"sort"
	"strings"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/httpdoor"
	"github.com/menshen-gateway/menshen/internal/httpdoor/forward"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/identity"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/pause"
	"github.com/menshen-gateway/menshen/internal/sqldoor"
	"github.com/menshen-gateway/menshen/internal/tcpdoor"
	"github.com/menshen-gateway/menshen/internal/tlsconfig"
	"github.com/menshen-gateway/menshen/internal/traffic/services"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// Snapshot is one generation.
type Snapshot struct {
	Generation uint64 // 1 for the first
	Config     *config.Config
	Source     string // where the config came from
	LoadedAt   time.Time

	HTTP *httpdoor.Tables
	SQL  *sqldoor.Tables
	TCP  *tcpdoor.Tables

	sqlTLS map[string]*tls.Config
}

// SQLTLS gives the TLS configuration of a mysql listener, nil when it offers none.
func (s *Snapshot) SQLTLS(listener string) *tls.Config { return s.sqlTLS[listener] }

// Store holds the present Snapshot. Prepare and Publish are for one goroutine at a time; Current is for all.
type Store struct {
	current   atomic.Pointer[Snapshot]
	upstreams *upstream.Registry
	states    *policy.States
	metrics   *observe.Metrics
}

// NewStore makes a Store without a Snapshot.
func NewStore(log *slog.Logger, m *observe.Metrics) *Store {
	s := &Store{upstreams: upstream.NewRegistry(log), states: policy.NewStates(), metrics: m}
	m.Upstreams(s.endpoints)
	return s
}

// Current gives the present Snapshot, nil before the first.
func (s *Store) Current() *Snapshot { return s.current.Load() }

// Upstreams is the state of all services and databases.
func (s *Store) Upstreams() []upstream.SetStatus { return s.upstreams.Status() }

// Pending is a compiled Snapshot that is not in service. Exactly one of Publish and Abort must follow.
type Pending struct {
	Snapshot *Snapshot
	store    *Store
	leases   *upstream.Generation
	states   *policy.Generation
}

// Prepare compiles a config. The error is config.Problems, all of them; then nothing has changed.
func (s *Store) Prepare(c *config.Config, source string) (*Pending, error) {
	next := &Snapshot{Generation: 1, Config: c, Source: source, LoadedAt: time.Now()}
	if now := s.current.Load(); now != nil {
		next.Generation = now.Generation + 1
	}
	p := &Pending{Snapshot: next, store: s, leases: s.upstreams.Begin(), states: s.states.Begin()}
	all, problems := services.Compile(c, p.leases, forward.NewPool)
	consumers, unusable := identity.Compile(c)
	problems = append(problems, unusable...)
	next.HTTP, unusable = httpdoor.Compile(httpdoor.Source{Config: c, Generation: next.Generation, Services: all, Consumers: consumers, Policies: p.states, Metrics: s.metrics})
	problems = append(problems, unusable...)
	next.TCP, unusable = tcpdoor.Compile(c, next.Generation, all, s.metrics)
	problems = append(problems, unusable...)
	next.SQL, unusable = sqldoor.Compile(c, p.leases, s.metrics)
	problems = append(problems, unusable...)
	next.SQL.Generation = next.Generation
	next.sqlTLS = map[string]*tls.Config{}
	for name, l := range c.Listeners {
		if l.Protocol == config.ProtocolMySQL && l.TLS != nil {
			serverTLS, unusable := tlsconfig.Server(l.TLS)
			for _, u := range unusable {
				problems = append(problems, c.Problem(strings.TrimSuffix("listeners."+name+".tls."+u.Field, "."), "%s", u.Message))
			}
			next.sqlTLS[name] = serverTLS
		}
	}
	if len(problems) > 0 {
		p.Abort()
		sort.SliceStable(problems, func(i, j int) bool {
			a, b := problems[i], problems[j]
			return a.File < b.File || a.File == b.File && a.Line < b.Line
		})
		return nil, problems
	}
	return p, nil
}

// Problems gives those that compiling c would find; nil for nil. It is for what config.LoadIntact gives: nothing comes of it.
func Problems(c *config.Config) config.Problems {
	if c == nil {
		return nil
	}
	store := NewStore(slog.New(slog.DiscardHandler), observe.NewMetrics())
	defer store.Close()
	pending, err := store.Prepare(c, "")
	if err == nil {
		pending.Abort()
		return nil
	}
	var problems config.Problems
	errors.As(err, &problems)
	return problems
}

// Abort drops it.
func (p *Pending) Abort() {
	p.leases.Abort()
	p.states.Abort()
}

// Publish puts it into service.
func (p *Pending) Publish() {
	s := p.store
	s.current.Store(p.Snapshot)
	p.leases.Commit()
	p.states.Commit()
	p.Snapshot.SQL.Published()
	routes, databases, listeners := make(map[string]bool, len(p.Snapshot.Config.Routes)), map[string]bool{}, map[string]bool{}
	for name := range p.Snapshot.Config.Routes {
		pause.Moment()
		routes[name] = true
	}
	for name := range p.Snapshot.Config.Databases {
		databases[name] = true
	}
	for name := range p.Snapshot.Config.Listeners {
		listeners[name] = true
	}
	s.metrics.Keep(routes, databases)
	s.metrics.KeepListeners(listeners)
}

// Close stops what the registries run.
func (s *Store) Close() { s.upstreams.Close() }

// endpoints is the state of all endpoints, as metrics show it.
func (s *Store) endpoints() []observe.EndpointStatus {
	var all []observe.EndpointStatus
	for _, set := range s.upstreams.Status() {
		for _, e := range set.Endpoints {
			all = append(all, observe.EndpointStatus{Service: set.Name, Endpoint: e.Address, Healthy: e.Healthy, Active: int64(e.Active),
				Requests: e.Requests, Failures: e.Failures, Latency: e.Latency})
		}
	}
	return all
}
