package group

import (
	"fmt"
	"time"
)

// sample is where the primary was at a moment.
type sample struct {
	at       time.Time // it had the position then
	position Position
}

// samplesMax bounds the samples. When there are more, every second one goes, so that they reach further back instead.
const samplesMax = 64

// remember notes the position of the primary.
func (g *Group) remember(now time.Time) {
	m := g.members[g.incumbent]
	if m.failures > 0 || m.good.Position.Empty() {
		return
	}
	p := m.good.Position
	if n := len(g.samples); n > 0 && g.samples[n-1].position.Covers(p) {
		return
	}
	g.history = g.history.Union(p)
	g.samples = append(g.samples, sample{m.good.At, p})
	if len(g.samples) > samplesMax {
		kept := g.samples[:0]
		for i, s := range g.samples {
			if i%2 == 0 || i == len(g.samples)-1 {
				kept = append(kept, s)
			}
		}
		g.samples = kept
	}
}

// missing is for how long an instance has not had what the primary has, as far as positions tell. known is false when they
// tell nothing.
func (g *Group) missing(o Observation) (lag time.Duration, known bool) {
	if len(g.samples) == 0 || o.Position.Empty() {
		return 0, false
	}
	for _, s := range g.samples {
		if s.at.After(o.At) {
			break
		}
		if !o.Position.Covers(s.position) {
			return o.At.Sub(s.at), true
		}
	}
	return 0, true
}

// verdict says what one instance is good for.
func (g *Group) verdict(address string, d Decision, now time.Time) Verdict {
	m := g.members[address]
	v := Verdict{Address: address}
	switch {
	case !m.asked:
		v.Role, v.Reason = Unknown, "not asked yet"
	case d.State == Ready && address == d.Primary:
		v.Role, v.LagKnown = Primary, true
		switch {
		case m.failures > 0:
			v.Reason = fmt.Sprintf("%s (%d in a row)", m.last.Err, m.failures)
		case !m.good.Writable:
			v.Reason = "the only instance, read-only"
		default:
			v.Reason = "writable"
		}
	case m.gone() || !m.known:
		v.Role, v.Reason = Unreachable, fmt.Sprintf("unreachable since %s: %s", clock(m.since), m.last.Err)
	case m.good.Writable:
		v.Role, v.Reason = Writable, d.Reason
		v.Former = d.State == Split && address == g.incumbent
		if d.State == Ready {
			v.Reason = "writable, but " + d.Primary + " is the primary"
		}
	default:
		g.follower(&v, m, d, now)
		if v.Reads && v.LagKnown && d.State == Ready {
			delete(g.replaced, address) // it follows the group again
		}
	}
	return v
}

// follower judges an instance that is read-only and answers, or did until lately.
func (g *Group) follower(v *Verdict, m *member, d Decision, now time.Time) {
	v.Role = Replica
	o := m.good
	behind, byPosition := g.missing(o)
	out := func(format string, args ...any) { v.Reason = fmt.Sprintf(format, args...) }

	var source *Source
	switch {
	case o.SourceErr != nil:
		v.Blind = o.SourceErr
		if !byPosition && g.set.MaxLag > 0 {
			out("lag unknown: %s", o.SourceErr)
			return
		}
	case len(o.Sources) == 0:
		v.Role = ReadOnly
		out("read-only, and replicates from nobody")
		return
	default:
		if source = g.upstream(v.Address, o); source == nil {
			out("replicates from %s, which is not the primary", o.Sources[0].Address)
			return
		}
		if !source.SQL {
			out("replication stopped: SQL thread: %s", orWords(source.Problem, "stopped"))
			return
		}
		if source.IO == Stopped {
			out("replication stopped: IO thread: %s", orWords(source.Problem, "stopped"))
			return
		}
	}

	switch {
	case source == nil: // not to be known, but for the positions
		v.Lag, v.LagKnown = behind, byPosition
	case source.IO == Connected && source.Measured:
		v.Lag, v.LagKnown = max(source.Behind, behind), true
		if m.failures == 0 {
			m.fresh, m.lag, m.age = o.At, v.Lag, true
		}
	case !m.age:
		if g.set.MaxLag > 0 {
			out("not connected to its source: %s", orWords(source.Problem, "lag unknown"))
			return
		}
	case d.State == Headless || d.State == Contested:
		v.Lag, v.LagKnown = m.lag, true // nothing is written, so nothing gets older
	default:
		v.Lag, v.LagKnown = max(m.lag+o.At.Sub(m.fresh), behind), true
		if g.set.MaxLag > 0 && v.Lag > g.set.MaxLag {
			out("not connected to its source since %s: %s", clock(m.fresh), orWords(source.Problem, "lag unknown"))
			return
		}
	}
	if m.failures > 0 && v.LagKnown { // what it was, and what it may have become
		v.Lag += now.Sub(o.At)
		if g.set.MaxLag > 0 && v.Lag > g.set.MaxLag {
			out("unreachable since %s: %s", clock(m.since), m.last.Err)
			return
		}
	}
	if g.set.MaxLag > 0 && v.Lag > g.set.MaxLag {
		out("lag %s > max_lag %s", v.Lag.Round(100*time.Millisecond), g.set.MaxLag)
		return
	}
	v.Reads = true
	switch {
	case source == nil && v.LagKnown:
		out("lag by position: %s", o.SourceErr)
	case source == nil:
		out("lag unknown: %s", o.SourceErr)
	default:
		out("replicates from %s", source.Address)
	}
}

// upstream gives the source by which an instance follows the primary, also through other replicas; nil when there is none.
// While no primary was ever found, it is the first source.
func (g *Group) upstream(address string, o Observation) *Source {
	if g.incumbent == "" {
		return &o.Sources[0]
	}
	for i := range o.Sources {
		if g.leads(g.find(o.Sources[i]), address, len(g.set.Members)) {
			return &o.Sources[i]
		}
	}
	return nil
}

// leads says whether the instance is the primary or follows it.
func (g *Group) leads(address, from string, steps int) bool {
	switch {
	case address == "" || address == from || steps == 0:
		return false
	case address == g.incumbent:
		return true
	}
	m := g.members[address]
	if !m.known || m.gone() {
		return false
	}
	for _, s := range m.good.Sources {
		if s.IO == Connected && s.SQL && g.leads(g.find(s), address, steps-1) {
			return true
		}
	}
	return false
}

func clock(t time.Time) string { return t.Format("15:04:05") }

func orWords(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
