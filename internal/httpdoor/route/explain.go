package route

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Explanation is how Match decides about one request, for people.
type Explanation struct {
	Verdict    Verdict
	Method     string
	Host       string // as it is matched: without port, in lower case
	Path       string
	Captures   map[string]string // of the winner; "*" is the star
	Candidates []Candidate       // every rule whose host and path match, in order of precedence
	Elsewhere  []Candidate       // when no host and path match: rules that have the path, but on other hosts; elsewhereMax at most
}

// elsewhereMax bounds the hints for a request that matches nothing.
const elsewhereMax = 10

// Candidate is one rule on one host and path pattern.
type Candidate struct {
	Rule    int
	Name    string
	Pattern string // methods, host and path, as in the short form of a match
	Won     bool
	Why     string
}

// Explain tells how Match decides about r. It walks all rules of the request's hosts, and is for commands, not for traffic.
func (t *Table) Explain(r *Request) Explanation {
	var c Captures
	x := Explanation{Verdict: t.Match(r, &c), Method: string(r.Method), Path: string(r.Path)}
	var buf [hostMax]byte
	host := canonicalHost(buf[:], r.Host)
	x.Host = string(host)
	if x.Verdict.Rule >= 0 {
		x.Captures = map[string]string{}
		for _, name := range c.Names() {
			if value, ok := c.Get(name); ok {
				x.Captures[name] = string(value)
			}
		}
		if star := c.Star(); len(star) > 0 {
			x.Captures["*"] = string(star)
		}
	}
	if len(r.Path) == 0 || r.Path[0] != '/' {
		return x
	}
	s := search{request: r, method: t.methodBit(r.Method)}
	var winner *entry
	var winnerSite *site
	sites := t.sitesOf(host)
	for _, at := range sites {
		for _, l := range at.leaves {
			if !l.entries[0].pattern.matches(r.Path) {
				continue
			}
			for i := range l.entries {
				e := &l.entries[i]
				one := t.candidate(at, e)
				switch failure := s.failure(t, e); {
				case failure != "" && winner != nil:
					one.Why = "comes later, and would fail: " + failure
				case failure != "":
					one.Why = "fails: " + failure
				case winner != nil:
					one.Why = t.whyLater(winnerSite, winner, at, e)
				default:
					winner, winnerSite, one.Won = e, at, true
					one.Why = "wins: the first of all candidates"
					if len(x.Candidates) > 0 {
						one.Why = "wins: all before it fail"
					}
				}
				x.Candidates = append(x.Candidates, one)
			}
		}
	}
	if len(x.Candidates) == 0 {
		x.Elsewhere = t.elsewhere(r.Path, sites)
	}
	return x
}

// sitesOf lists the sites of a host from the most to the least specific.
func (t *Table) sitesOf(host []byte) []*site {
	var sites []*site
	if at := t.hosts[string(host)]; at != nil && len(host) > 0 {
		sites = append(sites, at)
	}
	for i := 1; i < len(host); i++ {
		if host[i] == '.' {
			if at := t.wild[string(host[i:])]; at != nil {
				sites = append(sites, at)
			}
		}
	}
	if t.any != nil {
		sites = append(sites, t.any)
	}
	return sites
}

// failure tells which part of e does not hold for a request whose host and path match; empty when all holds.
func (s *search) failure(t *Table, e *entry) string {
	if e.methods&s.method == 0 {
		return fmt.Sprintf("the method is %s, not %s", s.request.Method, strings.Join(t.methodNames(e.methods), " or "))
	}
	if e.conditions == nil {
		return ""
	}
	for i := range e.conditions.headers {
		h := &e.conditions.headers[i]
		var value []byte
		var found bool
		if s.request.Header != nil {
			value, found = s.request.Header.Lookup(h.name)
		}
		if !found || !h.headerHolds(value) {
			return "header " + h.complaint(value, found)
		}
	}
	for i := range e.conditions.query {
		q := &e.conditions.query[i]
		value, found := queryLookup(s.request.Query, q.name)
		if !found || !q.queryHolds(value) {
			return "query parameter " + q.complaint(queryDecode(nil, value), found)
		}
	}
	return ""
}

// complaint words how a value differs from what the condition wants.
func (c *condition) complaint(value []byte, found bool) string {
	switch {
	case !found:
		return c.label + " is missing"
	case c.form == formRegex:
		return fmt.Sprintf("%s is %q, which does not match %s", c.label, value, c.text())
	}
	return fmt.Sprintf("%s is %q, not %q", c.label, value, c.value)
}

// whyLater names the step of the precedence that puts e behind the winner.
func (t *Table) whyLater(winnerSite *site, winner *entry, at *site, e *entry) string {
	w, p := winner.pattern, e.pattern
	name := func(e *entry) string { return t.rules[e.rule].Name }
	switch {
	case winnerSite != at && at.host == "*":
		return fmt.Sprintf("comes later: any host, where %s names %s", name(winner), winnerSite.host)
	case winnerSite != at:
		return fmt.Sprintf("comes later: %s is less specific than %s", at.host, winnerSite.host)
	case w.key == p.key && winner.count() != e.count():
		return fmt.Sprintf("comes later: %s against %d", plural(e.count(), "condition"), winner.count())
	case w.key == p.key:
		return fmt.Sprintf("comes later: as many conditions, and its name comes after %s", name(winner))
	case w.kind == kindRegex:
		return fmt.Sprintf("comes later: regular expressions go in name order, after %s", name(winner))
	case p.kind == kindRegex:
		return "comes later: regular expressions come after other paths"
	case w.kind == kindExact:
		return "comes later: an exact path comes first"
	case w.literals != p.literals:
		return fmt.Sprintf("comes later: %s against %d", plural(p.literals, "literal segment"), w.literals)
	case len(w.segments) != len(p.segments):
		return fmt.Sprintf("comes later: %s long against %d", plural(len(p.segments), "segment"), len(w.segments))
	case w.star != p.star:
		return "comes later: it goes on with a star where " + name(winner) + " ends"
	}
	return "comes later: its first literal after a difference stands further to the right"
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// elsewhere lists rules that match the path on hosts other than those already considered.
func (t *Table) elsewhere(path []byte, considered []*site) []Candidate {
	var found []Candidate
	look := func(sites map[string]*site) {
		for _, key := range slices.Sorted(maps.Keys(sites)) {
			at := sites[key]
			if slices.Contains(considered, at) {
				continue
			}
			for _, l := range at.leaves {
				if len(found) == elsewhereMax {
					return
				}
				if e := &l.entries[0]; e.pattern.matches(path) {
					one := t.candidate(at, e)
					one.Why = "has this path, but for host " + at.host
					found = append(found, one)
				}
			}
		}
	}
	look(t.hosts)
	look(t.wild)
	return found
}

func (t *Table) candidate(at *site, e *entry) Candidate {
	where := e.pattern.text
	switch {
	case at.host == "*":
	case e.pattern.kind == kindRegex:
		where = at.host + " " + where
	default:
		where = at.host + where
	}
	if methods := t.rules[e.rule].Methods; len(methods) > 0 {
		where = strings.Join(methods, ",") + " " + where
	}
	return Candidate{Rule: e.rule, Name: t.rules[e.rule].Name, Pattern: where}
}

// String gives the explanation as lines of text, the last one with a line feed.
func (x Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s%s\n", x.Method, x.Host, x.Path)
	winner := ""
	lines := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for i, c := range x.Candidates {
		fmt.Fprintf(lines, "%3d. %s\t%s\t%s\n", i+1, c.Name, c.Pattern, c.Why)
		if c.Won {
			winner = c.Name
		}
	}
	for _, c := range x.Elsewhere {
		fmt.Fprintf(lines, "  -  %s\t%s\t%s\n", c.Name, c.Pattern, c.Why)
	}
	_ = lines.Flush() // a strings.Builder takes everything
	switch {
	case winner != "":
		fmt.Fprintf(&b, "route: %s\n", winner)
		for _, name := range slices.Sorted(maps.Keys(x.Captures)) {
			fmt.Fprintf(&b, "  {%s} = %q\n", name, x.Captures[name])
		}
	case x.Verdict.NotAllowed:
		fmt.Fprintf(&b, "no route: 405, Allow: %s\n", x.Verdict.Allow)
	case len(x.Candidates) > 0:
		b.WriteString("no route: 404, every candidate fails\n")
	default:
		b.WriteString("no route: 404, no route has this host and path\n")
	}
	return b.String()
}
