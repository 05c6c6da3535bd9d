package upstream

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/traffic/balance"
	"github.com/menshen-gateway/menshen/internal/traffic/health"
)

const (
	ejectionDefault    = 10 * time.Second
	ejectionMaxDefault = 5 * time.Minute
)

// Why an endpoint is out of rotation, as bits of Endpoint.out.
const (
	outUnhealthy = 1 << iota // its active checks fail
	outEjected               // its requests failed
)

// Endpoint is one address of a set, with everything that is known about it. It is safe for use by many goroutines.
type Endpoint struct {
	Address string
	Pool    io.Closer // what Spec.NewPool made; nil without one

	key     endpointKey
	id      uint64
	group   *group
	retired atomic.Bool
	out     atomic.Uint32 // bits above; 0 means available
	class   atomic.Uint32 // of standing

	standing atomic.Pointer[Standing] // nil: none was assigned

	// Written by each lease. Requests for different endpoints share no counter but the round robin's cursor.
	load     balance.Load
	requests atomic.Uint64 // leases that ended, except ignored ones
	recent   window        // the same, for the retry budget
	errors   atomic.Uint64 // of these, failed ones
	failures atomic.Int64  // failures in a row

	mu        sync.Mutex
	checker   *health.Checker // nil without active checks
	stopCheck context.CancelFunc
	checked   bool      // at least one check ended
	lastCheck time.Time // when it began
	checks    uint64
	passing   uint64      // checks in a row
	problem   error       // why the last check failed
	problems  int         // in a row
	ejection  *time.Timer // nil unless ejected
	ejectedAt time.Time
	ejectFor  time.Duration
	ejectWhy  string
	ejections int       // how many the next ejection counts as, less one; decays
	ejected   uint64    // how many there were
	returned  time.Time // when the last one ended
	since     time.Time // of the last change of availability
}

type endpointKey struct{ set, address, identity string }

// Retired says that no current configuration uses the endpoint: connections should be closed after use instead of kept.
func (e *Endpoint) Retired() bool { return e.retired.Load() }

// Active is the number of leases that are not Done yet.
func (e *Endpoint) Active() int { return e.load.Active() }

func (e *Endpoint) available() bool { return e.out.Load() == 0 }

// setOut changes one bit. Endpoint.mu must be held; the caller calls group.changed after unlocking when it is true.
func (e *Endpoint) setOut(bit uint32, on bool) (changed bool) {
	old := e.out.Load()
	now := old &^ bit
	if on {
		now = old | bit
	}
	e.out.Store(now)
	if old != now {
		e.since = time.Now()
		e.group.bump()
	}
	return old != now
}

// failed counts a failure and ejects the endpoint when there are enough in a row. The count goes on through an
// ejection, until a request succeeds: an endpoint that comes back and fails at once leaves at once.
func (e *Endpoint) failed(s *Set) {
	e.errors.Add(1)
	n := e.failures.Add(1)
	if limit := s.spec.Outlier.ConsecutiveFailures; limit > 0 && n >= int64(limit) && e.out.Load()&outEjected == 0 {
		e.eject(s, n)
	}
}

func (e *Endpoint) eject(s *Set, failures int64) {
	base, longest := s.spec.Outlier.Ejection, s.spec.Outlier.EjectionMax
	if base <= 0 {
		base = ejectionDefault
	}
	if longest <= 0 {
		longest = ejectionMaxDefault
	}
	e.mu.Lock()
	if e.ejection != nil || e.Retired() {
		e.mu.Unlock()
		return
	}
	now := time.Now()
	if !e.returned.IsZero() { // each base time without an ejection forgives one
		e.ejections = max(e.ejections-int(min(now.Sub(e.returned)/base, 1<<20)), 0)
	}
	e.ejections++
	e.ejected++
	if most := int(min(longest/base, 1<<20)); e.ejections > most {
		e.ejections = most + 1 // growing further would only make it longer to forgive
	}
	e.ejectFor = min(base*time.Duration(e.ejections), longest)
	e.ejectedAt = now
	e.ejectWhy = fmt.Sprintf("ejected for %s: %s in a row", e.ejectFor, count(failures, "failure"))
	e.ejection = time.AfterFunc(e.ejectFor, func() { e.readmit("the time is over") })
	e.setOut(outEjected, true)
	why := e.ejectWhy
	e.mu.Unlock()
	e.group.registry.log.Warn("endpoint ejected", "service", e.group.name, "endpoint", e.Address, "reason", why)
	e.group.changed()
}

// readmit ends an ejection; it does nothing when there is none.
func (e *Endpoint) readmit(why string) {
	e.mu.Lock()
	if e.ejection == nil {
		e.mu.Unlock()
		return
	}
	e.ejection.Stop()
	e.ejection = nil
	e.returned = time.Now()
	after := e.returned.Sub(e.ejectedAt)
	e.setOut(outEjected, false)
	e.mu.Unlock()
	if e.Retired() {
		return
	}
	e.group.registry.log.Info("endpoint readmitted", "service", e.group.name, "endpoint", e.Address, "after", after.Round(time.Millisecond).String(), "reason", why)
	e.group.changed()
}

// configure applies what a new generation says about checks and ejection. Registry.mu is held.
func (e *Endpoint) configure(s *Spec) {
	e.mu.Lock()
	if s.Probe != nil && e.checker != nil {
		e.checker.Update(s.Probe, s.Health)
	}
	if s.Probe != nil && e.checker == nil {
		var c *health.Checker
		c = health.NewChecker(e.Address, s.Probe, s.Health, func(r health.Report) { e.report(c, r) })
		e.checker = c
		var ctx context.Context
		ctx, e.stopCheck = context.WithCancel(e.group.registry.ctx)
		e.group.registry.checks.Go(func() { c.Run(ctx) }) // ends by stopCheck; Registry.Close waits
	}
	if s.Probe == nil && e.checker != nil {
		e.stopCheck()
		e.checker, e.stopCheck = nil, nil
		e.checked, e.problem, e.problems, e.passing = false, nil, 0, 0
		e.setOut(outUnhealthy, false) // nobody would ever find out that it is well again
	}
	e.mu.Unlock()
	if s.Outlier.ConsecutiveFailures == 0 {
		e.readmit("ejection was switched off")
	}
}

// report takes the result of an active check.
func (e *Endpoint) report(from *health.Checker, r health.Report) {
	e.mu.Lock()
	if e.checker != from || e.Retired() {
		e.mu.Unlock()
		return // it was told to stop while it was asking
	}
	e.checked, e.lastCheck, e.problem = true, r.Started, r.Err
	e.checks++
	e.problems, e.passing = 0, 0
	if r.Err != nil {
		e.problems = r.InARow
	} else {
		e.passing = uint64(r.InARow)
	}
	changed := e.setOut(outUnhealthy, !r.Healthy)
	// A check that began before the ejection saw the endpoint as it was then.
	readmit := r.Err == nil && e.ejection != nil && r.Started.After(e.ejectedAt)
	reason := e.checkReason()
	e.mu.Unlock()

	if changed && r.Healthy {
		e.group.registry.log.Info("endpoint healthy", "service", e.group.name, "endpoint", e.Address, "reason", reason)
	} else if changed {
		e.group.registry.log.Warn("endpoint unhealthy", "service", e.group.name, "endpoint", e.Address, "reason", reason)
	}
	if changed {
		e.group.changed()
	}
	if readmit {
		e.readmit("an active check passed")
	}
}

// retire makes the endpoint one that no configuration uses.
func (e *Endpoint) retire() {
	if e.retired.Swap(true) {
		return
	}
	e.mu.Lock()
	if e.stopCheck != nil {
		e.stopCheck()
	}
	if e.ejection != nil {
		e.ejection.Stop()
		e.ejection = nil
		e.setOut(outEjected, false) // nothing would end it; who still holds the endpoint may try it
	}
	e.mu.Unlock()
	if e.Pool != nil {
		if err := e.Pool.Close(); err != nil {
			e.group.registry.log.Warn("closing idle connections", "service", e.group.name, "endpoint", e.Address, "error", err)
		}
	}
}

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
