package upstream

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/menshen-gateway/menshen/internal/traffic/balance"
)

// SetStatus is a set as admin API and metrics show it. Counters start when the set's name first appears.
type SetStatus struct {
	Name            string
	Balance         balance.Algorithm
	Available       int    // endpoints in rotation by their own state
	Total           int    // endpoints with a weight
	Panic           bool   // too few are available: health is ignored and all are used
	PanicPicks      uint64 // choices that were made so
	NoEndpoint      uint64 // choices that found none
	Limited         uint64 // choices that found all at their MaxConnections
	RetriesAllowed  uint64
	RetriesRejected uint64 // the budget was used up
	Endpoints       []EndpointStatus
}

// EndpointStatus is one endpoint as admin API and metrics show it.
type EndpointStatus struct {
	Address   string
	Weight    int
	Labels    map[string]string
	Healthy   bool      // available: neither its checks nor its requests speak against it
	Ejected   bool      // out for a while because requests failed
	Retired   bool      // no current configuration uses it
	Reason    string    // why it is healthy or not, in words
	Since     time.Time // when Healthy last changed, or the endpoint was made
	Active    int       // leases that are not done
	Latency   time.Duration
	Requests  uint64 // leases that ended with a known outcome
	Failures  uint64 // of these
	Ejections uint64
	Role      string        // of Standing; "" when none was assigned
	Lag       time.Duration // of Standing
	LagKnown  bool
	Checks    uint64    // active checks that ended
	LastCheck time.Time // zero without one
}

// Status describes all published sets, sorted by name.
func (r *Registry) Status() []SetStatus {
	r.mu.Lock()
	sets := r.sets
	r.mu.Unlock()
	status := make([]SetStatus, len(sets))
	for i, s := range sets {
		status[i] = s.Status()
	}
	return status
}

// Status describes one set.
func (s *Set) Status() SetStatus {
	v := s.refresh()
	g := s.group
	status := SetStatus{
		Name: s.spec.Name, Balance: s.spec.Balance, Available: v.available, Total: v.total, Panic: v.panic,
		PanicPicks: g.panicPicks.Load(), NoEndpoint: g.noEndpoint.Load(), Limited: g.limited.Load(),
		RetriesAllowed: g.budget.allowed.Load(), RetriesRejected: g.budget.rejected.Load(),
		Endpoints: make([]EndpointStatus, len(s.members)),
	}
	if status.Balance == "" {
		status.Balance = balance.RoundRobin
	}
	for i, m := range s.members {
		e := m.endpoint.Status()
		e.Weight, e.Labels = m.weight, m.labels
		if m.weight == 0 {
			e.Reason += "; weight 0: takes no traffic"
		}
		status.Endpoints[i] = e
	}
	return status
}

// Status describes the endpoint, without what only its set knows (Weight, Labels).
func (e *Endpoint) Status() EndpointStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	standing := e.Standing()
	return EndpointStatus{
		Role: standing.Role, Lag: standing.Lag, LagKnown: standing.LagKnown,
		Address: e.Address, Healthy: e.available(), Ejected: e.ejection != nil, Retired: e.Retired(),
		Reason: e.reason(), Since: e.since,
		Active: e.load.Active(), Latency: e.load.Latency(), Requests: e.requests.Load(), Failures: e.errors.Load(),
		Ejections: e.ejected, Checks: e.checks, LastCheck: e.lastCheck,
	}
}

// reason is why the endpoint is in rotation or not. Endpoint.mu is held.
func (e *Endpoint) reason() string {
	out := e.out.Load()
	var reasons []string
	if out&outEjected != 0 {
		reasons = append(reasons, e.ejectWhy)
	}
	if standing := e.Standing(); standing.Reason != "" {
		reasons = append(reasons, standing.Reason)
	} else if out&outUnhealthy != 0 || out == 0 {
		reasons = append(reasons, e.checkReason())
	}
	return strings.Join(reasons, "; ")
}

// checkReason is what the active checks say. Endpoint.mu is held.
func (e *Endpoint) checkReason() string {
	switch {
	case e.checker == nil:
		return "no active checks"
	case !e.checked:
		return "not checked yet"
	case e.problem != nil:
		return fmt.Sprintf("active: %s (%d in a row)", e.problem, e.problems)
	}
	return fmt.Sprintf("active: passed (%d in a row)", e.passing)
}

// whyNone explains, for the log, why a set has nothing to choose from.
func (s *Set) whyNone() error {
	if len(s.members) == 0 {
		return fmt.Errorf("%s has no endpoints", s.spec.Name)
	}
	const most = 3 // enough to see a pattern
	var reasons []string
	for _, m := range s.members {
		if m.weight == 0 {
			continue
		}
		if len(reasons) == most {
			reasons = append(reasons, "...")
			break
		}
		m.endpoint.mu.Lock()
		reasons = append(reasons, m.endpoint.Address+": "+m.endpoint.reason())
		m.endpoint.mu.Unlock()
	}
	if len(reasons) == 0 {
		return errors.New(s.spec.Name + ": every endpoint has weight 0")
	}
	return fmt.Errorf("%s: no endpoint is healthy (%s)", s.spec.Name, strings.Join(reasons, "; "))
}

// changed makes the current set notice a change at once and logs when its panic begins or ends.
func (g *group) changed() {
	s := g.current.Load()
	if s == nil {
		return
	}
	v := s.refresh()
	if g.panicking.Swap(v.panic) == v.panic {
		return
	}
	if v.panic {
		g.registry.log.Warn("too few healthy endpoints: health is ignored", "service", g.name, "available", v.available, "endpoints", v.total)
	} else {
		g.registry.log.Info("enough healthy endpoints again", "service", g.name, "available", v.available, "endpoints", v.total)
	}
}

func sorted(sets map[string]*Set) []*Set {
	list := make([]*Set, 0, len(sets))
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		list = append(list, sets[name])
	}
	return list
}
