// Package route finds the rule that answers an HTTP request. Compile turns rules into an immutable Table: hosts in a hash
// map, and for each host a hash map of exact paths, a tree of path segments and a list of regular expressions. Table.Match
// reads it without locks and without allocation; Table.Explain tells in words how Match decides. Normalize brings a path
// into the one form that is matched and forwarded, and Template fills captures into redirects and rewrites.
//
// Precedence, first difference decides: exact host, longest wildcard host, any host; exact path, more literal segments,
// longer pattern (and at equal length one that ends there before one that goes on with a star, and a literal further to
// the left), regular expressions in name order; more conditions (methods count as one, each header and each query
// parameter as one); name. Two rules that only their names would set apart, on the same host and path pattern, for a
// common method and under the same header and query conditions, are an error of Compile.
//
// A candidate whose method, headers or query do not fit gives way to the next one, also on a less specific host.
//
// The package is pure: no I/O, no clock, no goroutines. It does not know what a rule leads to, it makes no exception for
// any method beyond HEAD (which a GET rule answers), and it never decodes the path: patterns and captures are raw,
// normalised bytes.
package route

// Rule is a condition on a request. All of its parts must hold; inside a list one entry is enough, and an empty list
// means any. The zero Rule matches every request.
type Rule struct {
	Name    string            // decides between rules that are otherwise equal; also names the rule in problems
	Hosts   []string          // a.example, *.example.com (any deeper name), * (any)
	Paths   []string          // /exact, /prefix/*, /with/{capture}/x, ~^/regular.*$
	Methods []string          // in capitals; GET includes HEAD
	Headers map[string]string // name to an exact value, ~regular expression, or present
	Query   map[string]string // the same for query parameters
}

// HeaderSource gives a request's header fields. Lookup takes a name in lower case, ignores the case of the fields' names,
// and gives the first value.
type HeaderSource interface {
	Lookup(name string) ([]byte, bool)
}

// Request is what Match looks at. The slices are only read, and kept nowhere but as views in Captures.
type Request struct {
	Method []byte
	Host   []byte       // as received: any case, with or without port and trailing dot; empty matches only any host
	Path   []byte       // as Normalize gives it; a path that does not begin with a slash matches nothing
	Query  []byte       // raw, without the question mark
	Header HeaderSource // nil means no fields
}

// Verdict is the outcome of Match.
type Verdict struct {
	Rule       int    // index into the rules given to Compile; -1 when none matches
	NotAllowed bool   // no rule matches, but one would have with another method: 405
	Allow      string // then: the methods that would have matched, for the Allow field (RFC 9110, 10.2.1)
}

// Table is a compiled set of rules. It is immutable and may be used by many goroutines.
type Table struct {
	rules   []Rule
	hosts   map[string]*site // exact names
	wild    map[string]*site // ".example.com" for *.example.com
	any     *site            // nil when every rule names hosts
	labels  int              // the most dots in a key of wild: longer suffixes of a host need no look-up
	methods []string         // bit i of a method mask is methods[i]; sorted
	allow   []string         // Allow for each mask, when methods are few
}

// site is what one host pattern serves.
type site struct {
	host    string // "a.example", "*.example.com", or "*"
	exact   index[*leaf]
	tree    *node
	regexes []*leaf // in order of precedence
	leaves  []*leaf // all of them, in order of precedence; for Explain
}

// node is a place in the segment tree: where a prefix of a path has led.
type node struct {
	literal index[*node]
	capture *node
	end     *leaf // a pattern that ends here
	star    *leaf // a pattern that takes everything below here, and here itself
	best    int32 // lowest rank in this subtree, so that hopeless branches are not walked
}

// leaf is one path pattern of one host, with the rules that use it. Patterns that differ only in the names of their
// captures share a leaf.
type leaf struct {
	rank    int32 // among the leaves of its site
	entries []entry
}

// entry is one rule's use of a leaf.
type entry struct {
	rule       int
	methods    uint64 // mask; allMethods when the rule names none
	conditions *conditions
	pattern    *pattern // with this rule's names for the captures
}

const (
	allMethods  = ^uint64(0)
	otherMethod = uint64(1) << methodsMax // any method that no rule names
	methodsMax  = 63
)

// search is the state of one Match. It lives on the stack.
type search struct {
	request *Request
	method  uint64
	leaf    *leaf  // the best so far
	entry   *entry // the entry of leaf that matched
	allow   uint64 // methods of entries that failed by their method alone

	headerName  string // the last header looked up: rules on one path often ask for the same one
	headerValue []byte
	headerFound bool
}

// Match finds the rule for r and fills c, which may be nil when captures are not wanted. It does not allocate, except for
// regular expressions with named groups, regular expressions on percent-encoded query values, and the Allow of a table
// with more than allowBits different methods.
func (t *Table) Match(r *Request, c *Captures) Verdict {
	if c != nil {
		c.reset()
	}
	if len(r.Path) == 0 || r.Path[0] != '/' {
		return Verdict{Rule: -1}
	}
	s := search{request: r, method: t.methodBit(r.Method)}
	var buf [hostMax]byte
	host := canonicalHost(buf[:], r.Host)
	if !t.matchHosts(&s, host) {
		if s.allow != 0 {
			return Verdict{Rule: -1, NotAllowed: true, Allow: t.allowFor(s.allow)}
		}
		return Verdict{Rule: -1}
	}
	if c != nil {
		c.fill(s.entry.pattern, r.Path)
	}
	return Verdict{Rule: s.entry.rule}
}

// matchHosts tries the sites of a host from the most to the least specific.
func (t *Table) matchHosts(s *search, host []byte) bool {
	if len(host) > 0 {
		if at := t.hosts[string(host)]; at != nil && s.site(at) {
			return true
		}
		if len(t.wild) > 0 {
			for i := suffixStart(host, t.labels); i < len(host); i++ {
				if host[i] != '.' || i == 0 {
					continue
				}
				if at := t.wild[string(host[i:])]; at != nil && s.site(at) {
					return true
				}
			}
		}
	}
	return t.any != nil && s.site(t.any)
}

// site looks for a match among one host's rules.
func (s *search) site(at *site) bool {
	if l := at.exact.get(s.request.Path); l != nil && s.try(l) {
		return true
	}
	if at.tree != nil {
		if s.walk(at.tree, 0); s.leaf != nil {
			return true
		}
	}
	for _, l := range at.regexes {
		if l.entries[0].pattern.re.Match(s.request.Path) && s.try(l) {
			return true
		}
	}
	return false
}

// walk searches the subtree of n for the leaf with the lowest rank that matches. The path up to i has led to n: i is at a
// slash or at the end.
func (s *search) walk(n *node, i int) {
	if s.leaf != nil && n.best >= s.leaf.rank {
		return
	}
	path := s.request.Path
	if i < len(path) {
		j := i + 1
		for j < len(path) && path[j] != '/' {
			j++
		}
		if next := n.literal.get(path[i+1 : j]); next != nil {
			s.walk(next, j)
		}
		if n.capture != nil && j > i+1 {
			s.walk(n.capture, j)
		}
	} else if n.end != nil {
		s.try(n.end)
	}
	if n.star != nil {
		s.try(n.star)
	}
}

// try makes l the best leaf when it outranks the best so far and one of its entries matches.
func (s *search) try(l *leaf) bool {
	if s.leaf != nil && l.rank >= s.leaf.rank {
		return false
	}
	for i := range l.entries {
		e := &l.entries[i]
		if e.methods&s.method == 0 {
			if s.leaf == nil && s.holds(e.conditions) {
				s.allow |= e.methods
			}
			continue
		}
		if s.holds(e.conditions) {
			s.leaf, s.entry = l, e
			return true
		}
	}
	return false
}

// methodBit gives the mask of a request's method.
func (t *Table) methodBit(method []byte) uint64 {
	for i, m := range t.methods {
		if m == string(method) {
			return 1 << i
		}
	}
	return otherMethod
}

// index maps strings to values: a scan while they are few, a hash map when they are many. Its zero value is empty.
type index[V any] struct {
	keys   []string
	values []V
	wide   map[string]V
}

// indexScan is the number of keys up to which a scan is faster than a hash (measured: about 8 short keys).
const indexScan = 8

func (x *index[V]) get(key []byte) V {
	if x.wide != nil {
		return x.wide[string(key)]
	}
	for i, k := range x.keys {
		if k == string(key) {
			return x.values[i]
		}
	}
	var zero V
	return zero
}

// put adds a key that is not there yet.
func (x *index[V]) put(key string, value V) {
	if x.wide != nil {
		x.wide[key] = value
		return
	}
	if len(x.keys) < indexScan {
		x.keys, x.values = append(x.keys, key), append(x.values, value)
		return
	}
	x.wide = make(map[string]V, 2*indexScan)
	for i, k := range x.keys {
		x.wide[k] = x.values[i]
	}
	x.wide[key] = value
	x.keys, x.values = nil, nil
}
