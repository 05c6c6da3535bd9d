// Package group decides, from what checks of the instances of a group have seen, which of them takes writes and which may be
// read. [Group] is a state machine: [Group.Observe] takes what one check saw, [Group.Decide] says what follows. It has no
// clock, no goroutine and no lock, and it knows no connection.
//
// Its rules:
//
//   - The primary is the one instance that is writable. What the config calls the primary is only a tie-breaker at the start.
//   - Two writable instances: nothing is the primary until one of them is read-only or gone. To be sure of it, one of them
//     must have been seen writable both before and after the other one was; until then (a promotion whose other half
//     was not seen yet) there is no primary, but nothing is refused either.
//   - An instance that was replaced is not the primary again before it has followed the group, or has all that its
//     successor has, which must be read-only by then. So nothing flaps back to an old primary that comes back with an old state.
//   - Nor is one that comes back writable and lacks what the last primary was seen to have. One that was seen to change from
//     read-only to writable may lack some: that is how a replica of a dead primary is promoted.
//   - An instance whose transactions have nothing in common with the group's is not its primary.
//   - A replica may be read if it follows the primary and its lag is known to be at most the allowed one.
//
// What it cannot know it treats as bad news, with one exception: while there is no primary to write to, replicas that were
// fresh stay readable, because nothing gets older then.
package group

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Settings are what a configuration says about a group.
type Settings struct {
	Members []string      // addresses, the configured primary first; at least one
	MaxLag  time.Duration // 0: lag does not matter
}

// fall is how many checks in a row must fail until an instance that does not answer counts as gone. One that refuses
// connections is gone at once.
const fall = 3

// Observation is what one check of one instance saw.
type Observation struct {
	Began, At time.Time // of the check; what was seen was so at some moment between them
	Err       error     // why nothing was seen
	Gone      bool      // Err is certain: nothing listens, or the connection was reset. Else the instance is silent

	Writable  bool
	ServerID  uint32 // 0: not known
	Position  Position
	Sources   []Source
	SourceErr error // why Sources is not known
}

// Source is one connection of an instance to another one from which it replicates.
type Source struct {
	Name     string // of the channel, mostly ""
	Address  string // host:port
	ServerID uint32 // of the other one; 0: not known
	IO       IO
	SQL      bool // transactions are being applied
	Behind   time.Duration
	Measured bool   // Behind is known
	Problem  string // what went wrong last
}

// IO is the state of the half of a replication that fetches.
type IO uint8

// The states.
const (
	Stopped IO = iota
	Connecting
	Connected
)

// Role is what an instance is in its group.
type Role string

// The roles.
const (
	Primary     Role = "primary"     // takes writes
	Replica     Role = "replica"     // replicates; whether it may be read is another matter
	Writable    Role = "writable"    // takes writes, but not through us
	ReadOnly    Role = "read_only"   // neither takes writes nor replicates
	Unreachable Role = "unreachable" // does not answer
	Unknown     Role = "unknown"     // was not asked yet
)

// Verdict is what is thought of one instance.
type Verdict struct {
	Address  string
	Role     Role
	Reads    bool // it is a replica in rotation
	Former   bool // it was the primary before two were writable, and may be read
	Reason   string
	Lag      time.Duration
	LagKnown bool
	Blind    error // Observation.SourceErr of a read-only instance
}

// State is what is thought of the whole group.
type State uint8

// The states.
const (
	Starting  State = iota // not every instance was asked yet
	Ready                  // there is a primary
	Headless               // there is none
	Contested              // two instances look writable, but perhaps not at the same time; checks decide
	Split                  // two instances are writable
)

var states = [...]string{"starting", "ready", "no primary", "contested", "two primaries"}

// String gives the state in words.
func (s State) String() string { return states[s] }

// Decision is what follows from all observations.
type Decision struct {
	State     State
	Primary   string    // its address, when State is Ready
	Reason    string    // why there is none
	Instances []Verdict // in the order of Settings.Members
	Recheck   []string  // should be checked at once, because the decision waits for it
	Took      string    // the address of the instance that Primary has replaced with this decision; "" otherwise
	Silently  bool      // Took was not seen read-only: it may still believe to be the primary
}

// Group is the memory. Make it with New. It is not safe for use by several goroutines.
type Group struct {
	set       Settings
	members   map[string]*member
	incumbent string // the last primary; "" before the first
	split     bool   // two were writable, and that was not resolved
	history   Position
	replaced  map[string]string // an old primary to its successor, until it has followed the group again
	samples   []sample          // of the incumbent's position
}

// member is what is known about an instance.
type member struct {
	last     Observation // the newest
	good     Observation // the newest one without Err
	asked    bool        // there is a last
	known    bool        // there is a good
	failures int         // in a row
	since    time.Time   // of the first of these
	first    Observation // of the good ones in a row with Writable as in good
	risen    bool        // there was no answer before first, so nobody saw it change
	fresh    time.Time   // when its source was last seen connected
	lag      time.Duration
	age      bool // fresh and lag are known
}

// New makes a group of which nothing is known yet.
func New(s Settings) *Group {
	g := &Group{members: map[string]*member{}, replaced: map[string]string{}}
	g.Configure(s)
	return g
}

// Configure applies a new configuration. What is known about instances that stay is kept.
func (g *Group) Configure(s Settings) {
	g.set = s
	for address := range g.members {
		if !slices.Contains(s.Members, address) {
			delete(g.members, address)
			delete(g.replaced, address)
		}
	}
	for _, address := range s.Members {
		if g.members[address] == nil {
			g.members[address] = &member{}
		}
	}
	// Who takes the successor of an old primary out of the config says that there is no way back to it.
	for old, by := range g.replaced {
		if g.members[by] == nil {
			delete(g.replaced, old)
		}
	}
	if g.members[g.incumbent] == nil && g.incumbent != "" {
		g.incumbent, g.samples = "", nil
	}
}

// Observe takes what a check saw. An address that is not a member is ignored.
func (g *Group) Observe(address string, o Observation) {
	m := g.members[address]
	if m == nil {
		return
	}
	gone := m.gone()
	m.asked, m.last = true, o
	if o.Err != nil {
		if m.failures == 0 {
			m.since = o.At
		}
		m.failures++
		return
	}
	if !m.known || m.good.Writable != o.Writable || gone {
		m.first, m.risen = o, !m.known || gone
	}
	m.failures = 0
	m.known, m.good = true, o
}

// gone says that the instance is not there: its connections are refused, or it was silent for several checks.
func (m *member) gone() bool { return m.failures >= fall || m.failures > 0 && m.last.Gone }

// silent says that it did not answer lately, but may yet be there.
func (m *member) silent() bool { return m.failures > 0 && !m.gone() }

// writes says that it answered last, and was writable.
func (m *member) writes() bool { return m.known && m.failures == 0 && m.good.Writable }

// Decide says what follows from all observations at a moment, which must not be before the last one.
func (g *Group) Decide(now time.Time) Decision {
	var d Decision
	before := g.incumbent
	d.State, d.Primary, d.Reason, d.Recheck = g.primary()
	if d.State == Ready && d.Primary != before {
		if before != "" {
			d.Took = before
			old := g.members[before]
			d.Silently = !(old.known && old.failures == 0 && !old.good.Writable)
			g.replaced[before] = d.Primary
		}
		g.incumbent, g.samples = d.Primary, nil
		delete(g.replaced, d.Primary)
	}
	if d.State == Ready {
		g.remember(now)
	}
	for _, address := range g.set.Members {
		d.Instances = append(d.Instances, g.verdict(address, d, now))
	}
	return d
}

// primary decides which instance takes writes.
func (g *Group) primary() (state State, address, reason string, recheck []string) {
	var writers, silent []string
	asked := true
	for _, a := range g.set.Members {
		m := g.members[a]
		asked = asked && m.asked
		switch {
		case m.writes():
			writers = append(writers, a)
		case m.silent() && m.known && m.good.Writable:
			silent = append(silent, a)
		}
	}
	if len(g.set.Members) == 1 {
		return g.alone()
	}
	if g.incumbent == "" && !asked {
		return Starting, "", "not every instance was asked yet", nil
	}
	switch {
	case len(writers) > 1:
		if g.split = g.split || g.overlap(writers); g.split {
			return Split, "", fmt.Sprintf("%d instances are writable (%s): set all but one read_only", len(writers), strings.Join(writers, ", ")), nil
		}
		return Contested, "", fmt.Sprintf("%d instances look writable (%s): asking again", len(writers), strings.Join(writers, ", ")), writers
	case len(writers) == 1:
		w := writers[0]
		for _, s := range silent {
			// A promotion is seen as such when the other one was silent already: else both may have been writable at once.
			if g.split || !g.members[w].first.Began.After(g.members[s].good.At) {
				if g.split {
					return Split, "", fmt.Sprintf("%s is writable, and so was %s, which does not answer now: set one of them read_only", w, s), nil
				}
				if w != g.incumbent {
					return Contested, "", fmt.Sprintf("%s is writable, and so was %s, which does not answer now: asking again", w, s), []string{s}
				}
			}
		}
		if why := g.unfit(w); why != "" {
			return Headless, "", why, nil
		}
		g.split = false
		return Ready, w, "", nil
	case len(silent) > 0 && g.split:
		return Split, "", fmt.Sprintf("%s was writable, and does not answer now", strings.Join(silent, ", ")), nil
	case slices.Contains(silent, g.incumbent):
		return Ready, g.incumbent, "", nil // one check that fails says little, when nobody else is there to take over
	}
	if len(silent) == 0 {
		g.split = false
	}
	return Headless, "", "no instance is writable (" + g.absent() + ")", nil
}

// alone decides for a group of one: it is the primary if it answers, whatever it says.
func (g *Group) alone() (state State, address, reason string, recheck []string) {
	a := g.set.Members[0]
	switch m := g.members[a]; {
	case !m.asked:
		return Starting, "", "not asked yet", nil
	case m.gone():
		return Headless, "", g.absent(), nil
	}
	return Ready, a, "", nil
}

// absent says of each instance why it is not writable.
func (g *Group) absent() string {
	var all []string
	for _, a := range g.set.Members {
		switch m := g.members[a]; {
		case !m.asked:
			all = append(all, a+": not asked yet")
		case m.failures > 0:
			all = append(all, a+": unreachable since "+clock(m.since))
		case !m.good.Writable:
			all = append(all, a+": read-only")
		default:
			all = append(all, a+": writable")
		}
	}
	return strings.Join(all, "; ")
}

// overlap says whether two of the writers were certainly writable at the same moment.
func (g *Group) overlap(writers []string) bool {
	for i, a := range writers {
		for _, b := range writers[i+1:] {
			if together(g.members[a], g.members[b]) {
				return true
			}
		}
	}
	return false
}

// together compares the times for which two instances were certainly writable: from the end of the first check that saw it to the
// beginning of the last one; and at one moment of each check.
func together(a, b *member) bool {
	from, to := a.first.At, a.good.Began
	if other := b.first.At; other.After(from) {
		from = other
	}
	if other := b.good.Began; other.Before(to) {
		to = other
	}
	if !to.Before(from) {
		return true
	}
	within := func(m *member, o Observation) bool { return !o.Began.Before(m.first.At) && !o.At.After(m.good.Began) }
	return within(a, b.first) || within(a, b.good) || within(b, a.first) || within(b, a.good)
}

// unfit says why the only writable instance is not the primary; "" means that it is.
func (g *Group) unfit(address string) string {
	if address == g.incumbent {
		return ""
	}
	m := g.members[address]
	if by := g.replaced[address]; by != "" {
		// Only of a successor that takes no more writes is it known what it has.
		last := g.members[g.incumbent]
		final := last != nil && last.known && !last.good.Writable && !last.good.Position.Empty()
		if !final || !m.good.Position.Contains(last.good.Position) {
			return fmt.Sprintf("%s is writable, but was replaced by %s and has not followed it since: it may lack transactions (to accept it, take %s out of the config)", address, by, by)
		}
	}
	if history := g.common(address); !history.Empty() && !m.good.Position.Related(history) {
		return address + " is writable, but its transactions have nothing in common with the group's"
	}
	if last := g.members[g.incumbent]; m.risen && last != nil && !m.good.Position.Contains(last.good.Position) {
		return fmt.Sprintf("%s came back writable, and lacks transactions that %s had: it was not promoted", address, g.incumbent)
	}
	for _, s := range m.good.Sources {
		if s.IO == Stopped && !s.SQL {
			continue
		}
		other := g.find(s)
		if other == "" || other == address {
			continue // from outside of the group
		}
		if o := g.members[other]; o.known && o.failures == 0 {
			continue // it answers and is read-only: a circle
		}
		if g.incumbent == "" && address == g.set.Members[0] {
			continue
		}
		return fmt.Sprintf("%s is writable, but still replicates from %s: it was not promoted (STOP SLAVE)", address, other)
	}
	return ""
}

// common is the transactions of the group without one instance: what its primaries had, or else what the others have.
func (g *Group) common(but string) Position {
	if !g.history.Empty() {
		return g.history
	}
	var all Position
	for a, m := range g.members {
		if a != but && m.known {
			all = all.Union(m.good.Position)
		}
	}
	return all
}

// find gives the member that a source is; "" when it is none.
func (g *Group) find(s Source) string {
	for _, a := range g.set.Members {
		m := g.members[a]
		if a == s.Address || s.ServerID != 0 && m.known && m.good.ServerID == s.ServerID {
			return a
		}
	}
	return ""
}
