// Package health asks an address at an interval whether it is well, and decides from the answers. A [Probe] is one
// question, over HTTP or TCP; [State] is the rule of how many answers in a row change the verdict; a [Checker] is the loop
// that asks. It refuses to know what a verdict is good for: that is the business of package upstream.
//
// Goroutines: Checker.Run is the only loop; its caller starts it, ends it by its context, and waits for it.
package health

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Settings say how often to ask and how many answers decide. Zero fields mean the defaults.
type Settings struct {
	Interval time.Duration // from the start of one check to the start of the next, give or take a tenth; default 2s
	Timeout  time.Duration // a check that takes longer has failed; default 1s
	Rise     int           // successes in a row that make an address healthy; default 2
	Fall     int           // failures in a row that make it unhealthy; default 3
}

func (s Settings) withDefaults() Settings {
	if s.Interval <= 0 {
		s.Interval = 2 * time.Second
	}
	if s.Timeout <= 0 {
		s.Timeout = time.Second
	}
	if s.Rise <= 0 {
		s.Rise = 2
	}
	if s.Fall <= 0 {
		s.Fall = 3
	}
	return s
}

// Report is the outcome of one check.
type Report struct {
	Healthy bool      // the verdict after this check
	Changed bool      // this check changed it; an address counts as healthy before the first
	First   bool      // this was the first check
	Err     error     // why this check failed; nil when it passed
	InARow  int       // how many checks in a row have ended like this one
	Started time.Time // when this check began
}

// Checker asks one address. Make it with NewChecker.
type Checker struct {
	address string
	report  func(Report)
	task    atomic.Pointer[task]
	changed chan struct{} // the settings changed: the current wait is of no use any more
	soon    chan struct{} // see Soon
}

type task struct {
	probe    Probe
	settings Settings
}

// NewChecker makes a checker that calls report after each check, from the goroutine of Run. It does nothing until Run.
func NewChecker(address string, probe Probe, settings Settings, report func(Report)) *Checker {
	c := &Checker{address: address, report: report, changed: make(chan struct{}, 1), soon: make(chan struct{}, 1)}
	c.task.Store(&task{probe: probe, settings: settings.withDefaults()})
	return c
}

// Update replaces probe and settings; the verdict and the answers so far stay. Other settings take effect at once, a
// probe alone at the next check, so that reloading a configuration, however often, neither hastens nor delays checks.
func (c *Checker) Update(probe Probe, settings Settings) {
	settings = settings.withDefaults()
	if old := c.task.Swap(&task{probe: probe, settings: settings}); old.settings != settings {
		select {
		case c.changed <- struct{}{}:
		default: // one wake-up is enough
		}
	}
}

// Soon makes the next check come at once, but not earlier than a tenth of the interval after the last one began: who asks
// for it may be many. While a check runs, the next one follows it.
func (c *Checker) Soon() {
	select {
	case c.soon <- struct{}{}:
	default: // one is enough
	}
}

// Run checks until ctx ends; a check that ctx cuts off is not reported. The first check comes within a tenth of the
// interval: soon, but not for all addresses at the same moment.
func (c *Checker) Run(ctx context.Context) {
	var state State
	t := c.task.Load()
	last := time.Now()
	timer := time.NewTimer(rand.N(t.settings.Interval/10 + 1))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
			t = c.task.Load()
			timer.Reset(time.Until(last.Add(jittered(t.settings.Interval))))
			continue
		case <-c.soon:
			timer.Reset(max(time.Until(last.Add(t.settings.Interval/10)), 0))
			continue
		case <-timer.C:
		}
		t = c.task.Load()
		last = time.Now()
		err := c.check(ctx, t)
		if ctx.Err() != nil {
			return
		}
		first := !state.decided
		changed := state.Record(err, t.settings.Rise, t.settings.Fall)
		c.report(Report{Healthy: state.Healthy(), Changed: changed, First: first, Err: err, InARow: state.InARow(), Started: last})
		// A slow check must not be followed by the next without a pause.
		timer.Reset(max(time.Until(last.Add(jittered(t.settings.Interval))), t.settings.Interval/10))
	}
}

func (c *Checker) check(ctx context.Context, t *task) error {
	ctx, cancel := context.WithTimeoutCause(ctx, t.settings.Timeout, errTimeout{t.settings.Timeout})
	defer cancel()
	err := t.probe(ctx, c.address)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx) // "i/o timeout" says less than how long we waited
	}
	return err
}

type errTimeout struct{ after time.Duration }

func (e errTimeout) Error() string { return "no answer within " + e.after.String() }
func (e errTimeout) Timeout() bool { return true }

// jittered spreads checks over plus or minus a tenth of the interval, so that gateways and endpoints do not fall in step.
func jittered(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }

// State turns answers into a verdict. The zero value is healthy and undecided: the first answer decides alone, because
// waiting for more would send traffic to an endpoint that is known to be down. From then on it takes rise or fall
// answers in a row that speak against the verdict to change it.
type State struct {
	unhealthy bool
	decided   bool
	passing   bool // the last answer
	run       int  // answers in a row equal to the last
}

// Record takes one answer (nil is a success) and says whether it changed the verdict.
func (s *State) Record(err error, rise, fall int) (changed bool) {
	passed := err == nil
	if passed != s.passing || !s.decided {
		s.run = 0
	}
	s.run++
	s.passing = passed
	first := !s.decided
	s.decided = true
	switch {
	case passed && s.unhealthy && s.run >= rise:
		s.unhealthy = false
		return true
	case !passed && !s.unhealthy && (first || s.run >= fall):
		s.unhealthy = true
		return true
	}
	return false
}

// Healthy is the verdict.
func (s *State) Healthy() bool { return !s.unhealthy }

// InARow is how many answers in a row were like the last.
func (s *State) InARow() int { return s.run }
