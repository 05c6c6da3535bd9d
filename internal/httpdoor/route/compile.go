package route

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/menshen-gateway/menshen/internal/pause"
)

// Problem is one thing wrong with a rule.
type Problem struct {
	Rule    string // its name
	Field   string // "hosts[0]", "paths[1]", "methods[0]", "headers.X-A", "query.q"
	Message string // what is wrong, and what would be accepted
}

// String gives "rule: field: message".
func (p Problem) String() string { return p.Rule + ": " + p.Field + ": " + p.Message }

// allowBits is the number of different methods up to which every possible Allow is made at compile.
const allowBits = 10

// Compile builds a table. On any problem the table is nil and all problems are given, in the order of the rules.
func Compile(rules []Rule) (*Table, []Problem) {
	b := builder{
		rules: rules,
		table: &Table{rules: slices.Clone(rules), hosts: map[string]*site{}, wild: map[string]*site{}},
		sites: map[string]*building{},
	}
	b.collectMethods()
	for i := range rules {
		pause.Moment()
		b.add(i)
	}
	b.findAmbiguous()
	if len(b.problems) > 0 {
		slices.SortStableFunc(b.problems, func(x, y located) int {
			return cmp.Or(cmp.Compare(x.rule, y.rule), cmp.Compare(x.Field, y.Field), cmp.Compare(x.Message, y.Message))
		})
		problems := make([]Problem, len(b.problems))
		for i, p := range b.problems {
			problems[i] = p.Problem
		}
		return nil, problems
	}
	for host, s := range b.sites {
		b.finish(host, s)
	}
	b.makeAllow()
	return b.table, nil
}

// builder is the state of one Compile.
type builder struct {
	rules    []Rule
	table    *Table
	sites    map[string]*building // by host pattern
	problems []located
}

type located struct {
	Problem
	rule int
}

// building is a site that is not ordered yet.
type building struct {
	byKey map[string]*leaf // by pattern.key
	keys  []string         // in order of appearance, so that problems come in a stable order
}

func (b *builder) problem(rule int, field, message string) {
	b.problems = append(b.problems, located{Problem{Rule: b.rules[rule].Name, Field: field, Message: message}, rule})
}

// collectMethods gives each method that rules name its bit.
func (b *builder) collectMethods() {
	found := map[string]bool{}
	for i, r := range b.rules {
		pause.Moment()
		for j, m := range r.Methods {
			field := fmt.Sprintf("methods[%d]", j)
			switch {
			case !isToken(m):
				b.problem(i, field, fmt.Sprintf("%q is not a method", m))
			case m != strings.ToUpper(m):
				b.problem(i, field, fmt.Sprintf("%q has small letters (methods are case-sensitive: %s)", m, strings.ToUpper(m)))
			case len(found) >= methodsMax-1 && !found[m]:
				b.problem(i, field, fmt.Sprintf("%q is one too many (%d different methods at most)", m, methodsMax-1))
			default:
				found[m] = true
			}
		}
	}
	if found["GET"] {
		found["HEAD"] = true
	}
	b.table.methods = slices.Sorted(maps.Keys(found))
}

// mask gives the methods as the rule writes them, and with the HEAD that a GET implies.
func (b *builder) mask(methods []string) (written, all uint64) {
	if len(methods) == 0 {
		return allMethods, allMethods
	}
	for _, m := range methods {
		written |= b.table.methodBit([]byte(m)) &^ otherMethod
	}
	all = written
	if written&b.bit("GET") != 0 {
		all |= b.bit("HEAD")
	}
	return written, all
}

func (b *builder) bit(method string) uint64 {
	if i, ok := slices.BinarySearch(b.table.methods, method); ok {
		return 1 << i
	}
	return 0
}

// add puts one rule at each of its hosts and paths.
func (b *builder) add(rule int) {
	r := &b.rules[rule]
	conditions := parseConditions(r, func(field, message string) { b.problem(rule, field, message) })
	_, methods := b.mask(r.Methods)
	paths := r.Paths
	if len(paths) == 0 {
		paths = []string{"/*"}
	}
	var patterns []*pattern
	for i, text := range paths {
		p, err := parsePattern(text)
		if err != nil {
			b.problem(rule, fmt.Sprintf("paths[%d]", i), err.Error())
			continue
		}
		p.index = i
		patterns = append(patterns, p)
	}
	hosts := r.Hosts
	if len(hosts) == 0 {
		hosts = []string{"*"}
	}
	for i, text := range hosts {
		host, err := parseHost(text)
		if err != nil {
			b.problem(rule, fmt.Sprintf("hosts[%d]", i), err.Error())
			continue
		}
		s := b.sites[host]
		if s == nil {
			s = &building{byKey: map[string]*leaf{}}
			b.sites[host] = s
		}
		for _, p := range patterns {
			l := s.byKey[p.key]
			if l == nil {
				l = &leaf{}
				s.byKey[p.key] = l
				s.keys = append(s.keys, p.key)
			}
			if n := len(l.entries); n > 0 && l.entries[n-1].rule == rule {
				continue // the rule says the same host and path twice
			}
			l.entries = append(l.entries, entry{rule: rule, methods: methods, conditions: conditions, pattern: p})
		}
	}
}

// findAmbiguous reports each pair of rules that only their names set apart: on one host and path pattern, for a common
// method, under the same conditions. Rules with as many but other conditions are no such pair: a request that meets both is decided
// by name, as the precedence says, and each has requests of its own. It also takes the implied HEAD from a GET
// rule where another rule, which would be such a pair with it, names HEAD.
func (b *builder) findAmbiguous() {
	reported := map[[2]int]bool{}
	for _, host := range slices.Sorted(maps.Keys(b.sites)) {
		s := b.sites[host]
		for _, key := range s.keys {
			pause.Moment()
			l := s.byKey[key]
			if len(l.entries) < 2 {
				continue
			}
			groups := map[string][]int{}
			for i := range l.entries {
				e := &l.entries[i]
				group := "any"
				if e.methods != allMethods {
					group = "some"
				}
				if e.conditions != nil {
					group += e.conditions.key
				}
				groups[group] = append(groups[group], i)
			}
			for _, members := range groups {
				b.findAmbiguousIn(host, l, members, reported)
			}
		}
	}
}

// findAmbiguousIn looks at the entries of a leaf that have the same conditions.
func (b *builder) findAmbiguousIn(host string, l *leaf, members []int, reported map[[2]int]bool) {
	var owner [64]int // for each method in named, the first entry that names it
	var named uint64
	for _, i := range members {
		e := &l.entries[i]
		written, _ := b.mask(b.rules[e.rule].Methods)
		clash := written & named
		for m := clash; m != 0; m &= m - 1 {
			other := &l.entries[owner[bits.TrailingZeros64(m)]]
			if pair := [2]int{other.rule, e.rule}; !reported[pair] {
				reported[pair] = true
				b.reportAmbiguous(host, other, e, clash)
			}
		}
		for m := written &^ named; m != 0; m &= m - 1 {
			owner[bits.TrailingZeros64(m)] = i
		}
		named |= written
	}
	if head := b.bit("HEAD"); named != allMethods && named&head != 0 {
		for _, i := range members {
			e := &l.entries[i]
			if written, _ := b.mask(b.rules[e.rule].Methods); written&head == 0 {
				e.methods &^= head
			}
		}
	}
}

func (b *builder) reportAmbiguous(host string, first, second *entry, methods uint64) {
	if b.rules[second.rule].Name < b.rules[first.rule].Name {
		first, second = second, first
	}
	what := host + second.pattern.text
	switch {
	case host == "*":
		what = second.pattern.text
	case second.pattern.kind == kindRegex:
		what = host + " " + second.pattern.text
	}
	if methods != allMethods {
		what = strings.Join(b.table.methodNames(methods), ", ") + " " + what
	}
	under := ""
	if second.conditions != nil {
		under = " under the same header and query conditions"
	}
	field := fmt.Sprintf("paths[%d]", second.pattern.index)
	b.problem(second.rule, field, fmt.Sprintf(
		"ambiguous: routes %q and %q both match %s%s, and nothing but their names would decide (give one of them another path, host, method or condition)",
		b.rules[first.rule].Name, b.rules[second.rule].Name, what, under))
}

// compareEntries orders the entries of one leaf by precedence.
func (t *Table) compareEntries(x, y *entry) int {
	return cmp.Or(
		cmp.Compare(y.count(), x.count()),
		cmp.Compare(t.rules[x.rule].Name, t.rules[y.rule].Name),
		cmp.Compare(x.rule, y.rule))
}

// count is what precedence calls more conditions.
func (e *entry) count() int {
	n := e.conditions.count()
	if e.methods != allMethods {
		n++
	}
	return n
}

// finish orders the leaves of a site and builds its look-ups.
func (b *builder) finish(host string, from *building) {
	t := b.table
	s := &site{host: host, leaves: make([]*leaf, 0, len(from.keys))}
	for _, key := range from.keys {
		l := from.byKey[key]
		slices.SortFunc(l.entries, func(x, y entry) int { return t.compareEntries(&x, &y) })
		s.leaves = append(s.leaves, l)
	}
	regexPlace := func(l *leaf) (name string, index int) {
		if l.entries[0].pattern.kind != kindRegex {
			return "", 0
		}
		return b.regexPlace(l)
	}
	slices.SortFunc(s.leaves, func(x, y *leaf) int {
		p, q := x.entries[0].pattern, y.entries[0].pattern
		if c := comparePatterns(p, q); c != 0 {
			return c
		}
		xName, xIndex := regexPlace(x)
		yName, yIndex := regexPlace(y)
		return cmp.Or(cmp.Compare(xName, yName), cmp.Compare(xIndex, yIndex), cmp.Compare(p.key, q.key))
	})
	for i, l := range s.leaves {
		pause.Moment()
		l.rank = int32(i)
		switch p := l.entries[0].pattern; p.kind {
		case kindExact:
			s.exact.put(p.text, l)
		case kindSegments:
			if s.tree == nil {
				s.tree = &node{best: math.MaxInt32}
			}
			s.tree.insert(p, l)
		case kindRegex:
			s.regexes = append(s.regexes, l)
		}
	}
	switch {
	case host == "*":
		t.any = s
	case host[0] == '*':
		t.wild[host[1:]] = s
		t.labels = max(t.labels, strings.Count(host, "."))
	default:
		t.hosts[host] = s
	}
}

// regexPlace is the place of a regular expression: name order, and within a rule the order in which they are written. Rules that
// share an expression share the place of the first among them, and are ordered there by their conditions; otherwise one
// without conditions could hide one with.
func (b *builder) regexPlace(l *leaf) (name string, index int) {
	first := &l.entries[0]
	for i := range l.entries[1:] {
		if e := &l.entries[i+1]; b.rules[e.rule].Name < b.rules[first.rule].Name {
			first = e
		}
	}
	return b.rules[first.rule].Name, first.pattern.index
}

// insert adds the leaf of a pattern below n.
func (n *node) insert(p *pattern, l *leaf) {
	n.best = min(n.best, l.rank)
	for _, s := range p.segments {
		var next *node
		if s.capture {
			if n.capture == nil {
				n.capture = &node{best: math.MaxInt32}
			}
			next = n.capture
		} else if next = n.literal.get([]byte(s.text)); next == nil {
			next = &node{best: math.MaxInt32}
			n.literal.put(s.text, next)
		}
		n = next
		n.best = min(n.best, l.rank)
	}
	if p.star {
		n.star = l
	} else {
		n.end = l
	}
}

// methodNames lists the methods of a mask.
func (t *Table) methodNames(mask uint64) []string {
	var names []string
	for i, m := range t.methods {
		if mask&(1<<i) != 0 {
			names = append(names, m)
		}
	}
	return names
}

func (b *builder) makeAllow() {
	t := b.table
	if len(t.methods) > allowBits {
		return
	}
	t.allow = make([]string, 1<<len(t.methods))
	for mask := range t.allow {
		t.allow[mask] = strings.Join(t.methodNames(uint64(mask)), ", ")
	}
}

// allowFor gives the value of Allow for a mask.
func (t *Table) allowFor(mask uint64) string {
	if mask < uint64(len(t.allow)) {
		return t.allow[mask]
	}
	return strings.Join(t.methodNames(mask), ", ")
}
