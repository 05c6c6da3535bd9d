package upstream

import (
	"log/slog"
	"time"
)

// Class is a kind of endpoint, as a bit. What a class means is the business of whoever assigns it (for instance: takes
// writes); here it only narrows a choice.
type Class uint8

// classes is how many there may be: a set keeps a balancer for each combination that is asked for.
const classes = 3

// Standing is what somebody who knows more than a health check says about an endpoint. The zero value is an endpoint of no
// class.
type Standing struct {
	Class    Class         // requests for one of these classes may go there; 0: only requests that ask for none
	Role     string        // what it is, in a word, for status
	Reason   string        // why, in words, for status
	Lag      time.Duration // how far its data is behind
	LagKnown bool          // Lag was measured
}

// Class gives the endpoint's classes. It costs one atomic load.
func (e *Endpoint) Class() Class { return Class(e.class.Load()) }

// Standing gives what was assigned last.
func (e *Endpoint) Standing() Standing {
	if s := e.standing.Load(); s != nil {
		return *s
	}
	return Standing{}
}

// Assign replaces the endpoint's standing. Choices that begin after it has returned follow it.
func (e *Endpoint) Assign(s Standing) {
	e.standing.Store(&s)
	if Class(e.class.Swap(uint32(s.Class))) != s.Class {
		e.group.bump()
	}
}

// Check makes the endpoint's active check run soon instead of at its time. It does nothing without one, or when a check
// began only just before.
func (e *Endpoint) Check() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.checker != nil {
		e.checker.Soon()
	}
}

// Watch gives a channel that is closed when the availability or the class of an endpoint of the set next changes. A Pick that
// follows sees at least what was so when Watch was called, so nothing is missed between the two.
func (s *Set) Watch() <-chan struct{} {
	g := s.group
	g.watching.Lock()
	defer g.watching.Unlock()
	if g.watch == nil {
		g.watch = make(chan struct{})
	}
	return g.watch
}

// bump makes all views old, and wakes those who watch.
func (g *group) bump() {
	g.version.Add(1)
	g.watching.Lock()
	defer g.watching.Unlock()
	if g.watch != nil {
		close(g.watch)
		g.watch = nil
	}
}

// Shared gives what all sets of this name share across generations; the first call makes it. It lives as long as some
// configuration has a set of the name, and is not closed.
func (s *Set) Shared(first func() any) any {
	g := s.group
	g.watching.Lock()
	defer g.watching.Unlock()
	if g.shared == nil {
		g.shared = first()
	}
	return g.shared
}

// Log is the registry's log, for what concerns the set.
func (s *Set) Log() *slog.Logger { return s.group.registry.log.With("service", s.spec.Name) }
