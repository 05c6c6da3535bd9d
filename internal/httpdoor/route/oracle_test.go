package route

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// fields is a HeaderSource for tests; its keys are in lower case.
type fields map[string]string

func (f fields) Lookup(name string) ([]byte, bool) {
	v, ok := f[name]
	return []byte(v), ok
}

// oracle is the plain way to find a rule: make every combination of rule, host and path, keep those that match, sort them
// by the precedence list. It shares no code with the table.
type oracle struct{ rules []Rule }

// oracleCandidate is a rule on one of its hosts and paths, with the numbers that the precedence list compares.
type oracleCandidate struct {
	rule     int
	host     string
	path     string
	rank     []int // lower wins
	names    []string
	captures map[string]string
	star     string
}

func oracleHost(h string) string { return strings.ToLower(strings.TrimSuffix(h, ".")) }

// shape is the path with its captures unnamed.
func shape(path string) string {
	if strings.HasPrefix(path, "~") {
		return path
	}
	return regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(path, "{}")
}

func orAny(list []string, any string) []string {
	if len(list) == 0 {
		return []string{any}
	}
	return list
}

func sameConditions(a, b Rule) bool {
	lower := func(m map[string]string) map[string]string {
		out := map[string]string{}
		for k, v := range m {
			out[strings.ToLower(k)] = v
		}
		return out
	}
	return maps.Equal(lower(a.Headers), lower(b.Headers)) && maps.Equal(a.Query, b.Query)
}

// oracleAmbiguous tells whether two rules are an ambiguous pair.
func oracleAmbiguous(a, b Rule) bool {
	if !sameConditions(a, b) || (len(a.Methods) == 0) != (len(b.Methods) == 0) {
		return false
	}
	if len(a.Methods) > 0 && !slices.ContainsFunc(a.Methods, func(m string) bool { return slices.Contains(b.Methods, m) }) {
		return false
	}
	return oracleShareLeaf(a, b)
}

func oracleShareLeaf(a, b Rule) bool {
	for _, h := range orAny(a.Hosts, "*") {
		for _, p := range orAny(a.Paths, "/*") {
			if oracleHas(b, oracleHost(h), shape(p)) {
				return true
			}
		}
	}
	return false
}

// oracleHas tells whether the rule stands at this host and path shape.
func oracleHas(r Rule, host, path string) bool {
	return slices.ContainsFunc(orAny(r.Hosts, "*"), func(h string) bool { return oracleHost(h) == host }) &&
		slices.ContainsFunc(orAny(r.Paths, "/*"), func(p string) bool { return shape(p) == path })
}

func (o oracle) match(r *Request) (Verdict, map[string]string) {
	host, _, _ := strings.Cut(strings.ToLower(string(r.Host)), ":")
	host = strings.TrimSuffix(host, ".")
	path, method := string(r.Path), string(r.Method)
	var found []oracleCandidate
	allow := map[string]bool{}
	if strings.HasPrefix(path, "/") {
		for i, rule := range o.rules {
			for _, h := range orAny(rule.Hosts, "*") {
				for at, p := range orAny(rule.Paths, "/*") {
					c := oracleCandidate{rule: i, host: oracleHost(h), path: p}
					hostRank, ok := oracleMatchHost(c.host, host)
					if !ok || !c.matchPath(o, path, at) || !oracleConditions(rule, r) {
						continue
					}
					if !o.methodFits(rule, &c, method) {
						for _, m := range rule.Methods {
							allow[m] = true
							if m == "GET" {
								allow["HEAD"] = true
							}
						}
						continue
					}
					conditions := len(rule.Headers) + len(rule.Query)
					if len(rule.Methods) > 0 {
						conditions++
					}
					c.rank = append(slices.Concat(hostRank, c.rank), 1000-conditions)
					c.names = append(c.names, rule.Name)
					found = append(found, c)
				}
			}
		}
	}
	if len(found) == 0 {
		if len(allow) > 0 {
			return Verdict{Rule: -1, NotAllowed: true, Allow: strings.Join(slices.Sorted(maps.Keys(allow)), ", ")}, nil
		}
		return Verdict{Rule: -1}, nil
	}
	best := slices.MinFunc(found, func(a, b oracleCandidate) int {
		for i := range min(len(a.rank), len(b.rank)) {
			// A regular expression's name order comes before its conditions, which are the last number.
			if i == min(len(a.rank), len(b.rank))-1 && len(a.names) == 2 && len(b.names) == 2 {
				if c := strings.Compare(a.names[0], b.names[0]); c != 0 {
					return c
				}
			}
			if c := cmp.Compare(a.rank[i], b.rank[i]); c != 0 {
				return c
			}
		}
		return strings.Compare(a.names[len(a.names)-1], b.names[len(b.names)-1])
	})
	if best.star != "" {
		best.captures["*"] = best.star
	}
	return Verdict{Rule: best.rule}, best.captures
}

func oracleMatchHost(pattern, host string) ([]int, bool) {
	switch {
	case pattern == "*":
		return []int{2, 0}, true
	case strings.HasPrefix(pattern, "*."):
		suffix := pattern[1:]
		return []int{1, -len(suffix)}, strings.HasSuffix(host, suffix) && len(host) > len(suffix)
	}
	return []int{0, 0}, pattern == host
}

// matchPath matches segment by segment and ranks: form, literals, length, end before star, literals to the left.
func (c *oracleCandidate) matchPath(o oracle, path string, at int) bool {
	c.captures = map[string]string{}
	if expression, ok := strings.CutPrefix(c.path, "~"); ok {
		re := regexp.MustCompile(expression)
		groups := re.FindStringSubmatchIndex(path)
		if groups == nil {
			return false
		}
		for i, name := range re.SubexpNames() {
			if name != "" && groups[2*i] >= 0 {
				c.captures[name] = path[groups[2*i]:groups[2*i+1]]
			}
		}
		// Rules that share an expression on this host share the first one's place.
		place := ""
		for _, r := range o.rules {
			if oracleHas(r, c.host, c.path) {
				index := slices.Index(r.Paths, c.path)
				if p := fmt.Sprintf("%s\x00%03d", r.Name, index); place == "" || p < place {
					place = p
				}
			}
		}
		c.names, c.rank = []string{place}, []int{2, 0, 0, 0, 0}
		return true
	}
	form, star := 0, 0
	steps := strings.Split(c.path, "/")[1:]
	have := strings.Split(path, "/")[1:]
	if steps[len(steps)-1] == "*" {
		form, star = 1, 1
		steps = steps[:len(steps)-1]
	}
	if len(have) < len(steps) || star == 0 && len(have) > len(steps) {
		return false
	}
	literals, left := 0, 0
	for i, s := range steps {
		left *= 2
		if strings.HasPrefix(s, "{") {
			form = 1
			left++
			if have[i] == "" {
				return false
			}
			c.captures[strings.Trim(s, "{}")] = have[i]
			continue
		}
		if s != have[i] {
			return false
		}
		if s != "" {
			literals++
		}
	}
	if star == 1 {
		c.star = strings.Join(have[len(steps):], "/")
	}
	c.rank = []int{form, -literals, -len(steps), star, left}
	return true
}

func (o oracle) methodFits(rule Rule, c *oracleCandidate, method string) bool {
	if len(rule.Methods) == 0 || slices.Contains(rule.Methods, method) {
		return true
	}
	if method != "HEAD" || !slices.Contains(rule.Methods, "GET") {
		return false
	}
	// GET stands for HEAD unless a rule that is otherwise the same names HEAD.
	return !slices.ContainsFunc(o.rules, func(other Rule) bool {
		return slices.Contains(other.Methods, "HEAD") && sameConditions(rule, other) && oracleHas(other, c.host, shape(c.path))
	})
}

func oracleConditions(rule Rule, r *Request) bool {
	fits := func(want, have string, found bool) bool {
		switch {
		case !found:
			return false
		case want == "present":
			return true
		case strings.HasPrefix(want, "~"):
			return regexp.MustCompile(want[1:]).MatchString(have)
		}
		return want == have
	}
	for name, want := range rule.Headers {
		var have []byte
		found := false
		if r.Header != nil {
			have, found = r.Header.Lookup(strings.ToLower(name))
		}
		if !fits(want, string(have), found) {
			return false
		}
	}
	for name, want := range rule.Query {
		have, found := "", false
		for _, pair := range strings.Split(string(r.Query), "&") {
			k, v, _ := strings.Cut(pair, "=")
			if oracleUnescape(k) == name && pair != "" && pair != "=" {
				have, found = oracleUnescape(v), true
				break
			}
		}
		if !fits(want, have, found) {
			return false
		}
	}
	return true
}

var badEscape = regexp.MustCompile(`%([^0-9a-fA-F]|$|.[^0-9a-fA-F]|.$)`)

func oracleUnescape(s string) string {
	for badEscape.MatchString(s) { // overlapping ones need another round
		s = badEscape.ReplaceAllString(s, "%25$1")
	}
	out, err := url.QueryUnescape(s)
	if err != nil {
		panic(err)
	}
	return out
}

// Small vocabularies, so that random rules overlap and random requests hit them.
var (
	wordHosts   = []string{"a.example", "b.a.example", "*.example", "*.a.example", "*.b.a.example", "*", "A.Example."}
	wordMethods = []string{"GET", "HEAD", "POST", "PUT", "PURGE"}
	wordSteps   = []string{"a", "b", "c", "{x}", "{y}"}
	wordRegexes = []string{"~^/a", "~b$", "~^/(?P<g>[^/]+)/b", "~^/a(?P<g>/q)?"}
	wordValues  = []string{"present", "1", "~^[12]$", "~2"}
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func randomPath(r *rand.Rand) string {
	if r.IntN(8) == 0 {
		return pick(r, wordRegexes)
	}
	var b strings.Builder
	used := map[string]bool{}
	for range r.IntN(4) {
		s := pick(r, wordSteps)
		if used[s] && s[0] == '{' {
			s = "a"
		}
		used[s] = true
		b.WriteString("/" + s)
	}
	switch n := r.IntN(4); {
	case n < 2 && b.Len() > 0:
	case n == 2:
		b.WriteString("/*")
	default:
		b.WriteString("/")
	}
	return b.String()
}

func randomRules(r *rand.Rand, n int) []Rule {
	some := func(max int, one func() string) []string {
		var out []string
		for range r.IntN(max + 1) {
			if s := one(); !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
		return out
	}
	conditions := func(names ...string) map[string]string {
		out := map[string]string{}
		for _, name := range names {
			if r.IntN(4) == 0 {
				out[name] = pick(r, wordValues)
			}
		}
		return out
	}
	rules := make([]Rule, n)
	for i := range rules {
		rules[i] = Rule{
			Name:    fmt.Sprintf("r%03d", r.IntN(1000)*1000+i),
			Hosts:   some(2, func() string { return pick(r, wordHosts) }),
			Paths:   some(2, func() string { return randomPath(r) }),
			Methods: some(2, func() string { return pick(r, wordMethods) }),
			Headers: conditions("X-A", "x-b"),
			Query:   conditions("q", "p"),
		}
	}
	return rules
}

func randomRequest(r *rand.Rand) *Request {
	var path strings.Builder
	for range r.IntN(5) {
		path.WriteString("/" + pick(r, []string{"a", "b", "c", "d", "a", "b"}))
	}
	if path.Len() == 0 || r.IntN(5) == 0 {
		path.WriteByte('/')
	}
	header := fields{}
	for _, name := range []string{"x-a", "x-b"} {
		if r.IntN(2) == 0 {
			header[name] = pick(r, []string{"1", "2", "3"})
		}
	}
	return &Request{
		Method: []byte(pick(r, append(wordMethods, "OPTIONS"))),
		Host:   []byte(pick(r, []string{"a.example", "A.EXAMPLE:80", "b.a.example.", "c.b.a.example", "x.example:1", "example", "", "other"})),
		Path:   []byte(path.String()),
		Query:  []byte(pick(r, []string{"", "q=1", "q=%31&p=2", "p&q=3", "%71=2&q=1", "q=+1", "&&p=1%"})),
		Header: header,
	}
}

// checkAgainstOracle compiles random rules, compares the ambiguity report, drops what is ambiguous, and compares matches.
func checkAgainstOracle(t *testing.T, seed uint64, count int, requests []*Request) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	all := randomRules(r, count)
	var rules []Rule
	ambiguous := false
	for _, one := range all {
		if slices.ContainsFunc(rules, func(other Rule) bool { return oracleAmbiguous(one, other) }) {
			ambiguous = true
			continue
		}
		rules = append(rules, one)
	}
	if _, problems := Compile(all); ambiguous != (len(problems) > 0) {
		t.Fatalf("seed %d: ambiguous is %v, but Compile says %v\n%+v", seed, ambiguous, problems, all)
	}
	table, problems := Compile(rules)
	if problems != nil {
		t.Fatalf("seed %d: %v\n%+v", seed, problems, rules)
	}
	for range 20 {
		requests = append(requests, randomRequest(r))
	}
	o := oracle{rules}
	var c Captures
	for _, q := range requests {
		want, wantCaptures := o.match(q)
		got := table.Match(q, &c)
		if got != want {
			t.Fatalf("seed %d: %s %s %s?%s %v\n got %+v\nwant %+v\n%v\n%s", seed, q.Method, q.Host, q.Path, q.Query, q.Header, got, want, dump(rules), table.Explain(q))
		}
		if x := table.Explain(q); x.Verdict != want || winnerOf(x) != want.Rule {
			t.Fatalf("seed %d: Explain disagrees with Match: %d\n%s", seed, want.Rule, x)
		}
		if got.Rule < 0 {
			continue
		}
		gotCaptures := map[string]string{}
		for _, name := range c.Names() {
			if v, ok := c.Get(name); ok {
				gotCaptures[name] = string(v)
			}
		}
		if len(c.Star()) > 0 {
			gotCaptures["*"] = string(c.Star())
		}
		if !maps.Equal(gotCaptures, wantCaptures) {
			t.Fatalf("seed %d: %s: captures %v, want %v\n%+v", seed, q.Path, gotCaptures, wantCaptures, rules[got.Rule])
		}
	}
}

func winnerOf(x Explanation) int {
	for _, c := range x.Candidates {
		if c.Won {
			return c.Rule
		}
	}
	return -1
}

func dump(rules []Rule) string {
	var b strings.Builder
	for i, r := range rules {
		fmt.Fprintf(&b, "%d: %+v\n", i, r)
	}
	return b.String()
}

func TestMatchAgreesWithOracle(t *testing.T) {
	t.Parallel()
	for seed := range uint64(800) {
		checkAgainstOracle(t, seed, 1+int(seed%25), nil)
	}
}

func FuzzMatch(f *testing.F) {
	f.Add(uint64(1), uint8(5), "GET", "a.example:80", "/a/b", "q=1", "1")
	f.Add(uint64(2), uint8(40), "HEAD", "B.a.Example.", "/a/", "%71=%32", "2")
	f.Add(uint64(3), uint8(40), "PURGE", "[::1]:80", "/c/a/b/d", "q", "")
	f.Add(uint64(4), uint8(200), "OPTIONS", "..", "*", "=&=", "x")
	f.Fuzz(func(t *testing.T, seed uint64, count uint8, method, host, path, query, header string) {
		if strings.Contains(host, "[") || strings.HasSuffix(host, "..") || len(host) > hostMax || !isASCII(host) || strings.Contains(host, ":") && strings.Count(host, ":") != 1 {
			host = "" // the oracle takes hosts apart in a simpler way
		}
		normal, _, err := Normalize(nil, []byte(path))
		if err != nil {
			normal = []byte("/")
		}
		q := &Request{Method: []byte(method), Host: []byte(host), Path: normal, Query: []byte(query), Header: fields{"x-a": header}}
		checkAgainstOracle(t, seed, 1+int(count)%60, []*Request{q})
	})
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 0x7F }) < 0
}
