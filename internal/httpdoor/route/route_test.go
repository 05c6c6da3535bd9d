package route

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// request reads "METHOD host/path?query Name:value ..."; fields' names in lower case.
func request(t testing.TB, line string) *Request {
	t.Helper()
	parts := strings.Fields(line)
	if len(parts) < 2 {
		t.Fatalf("%q is not METHOD host/path", line)
	}
	r := &Request{Method: []byte(parts[0]), Header: fields{}}
	target, query, _ := strings.Cut(parts[1], "?")
	slash := strings.IndexByte(target, '/')
	if slash < 0 {
		slash = len(target)
	}
	r.Host, r.Path, r.Query = []byte(target[:slash]), []byte(target[slash:]), []byte(query)
	for _, field := range parts[2:] {
		name, value, _ := strings.Cut(field, ":")
		r.Header.(fields)[name] = value
	}
	return r
}

func compile(t testing.TB, rules ...Rule) *Table {
	t.Helper()
	table, problems := Compile(rules)
	if problems != nil {
		t.Fatalf("compile: %v", problems)
	}
	return table
}

// short makes rules of "name: match" lines.
func short(t testing.TB, lines ...string) []Rule {
	t.Helper()
	var rules []Rule
	for _, line := range lines {
		name, match, _ := strings.Cut(line, ": ")
		r, err := ParseShort(match)
		if err != nil {
			t.Fatal(err)
		}
		r.Name = name
		rules = append(rules, r)
	}
	return rules
}

// outcome is the verdict with its captures as text: "users id=7 *=x", "405 GET, HEAD", or "404".
func outcome(table *Table, r *Request) string {
	var c Captures
	v := table.Match(r, &c)
	switch {
	case v.NotAllowed:
		return "405 " + v.Allow
	case v.Rule < 0:
		return "404"
	}
	out := table.rules[v.Rule].Name
	for _, name := range c.Names() {
		if value, ok := c.Get(name); ok {
			out += fmt.Sprintf(" %s=%s", name, value)
		}
	}
	if len(c.Star()) > 0 {
		out += " *=" + string(c.Star())
	}
	return out
}

// expect gives the f of an f-test over a table.
func expect(t *testing.T, table *Table) func(line, want string) {
	return func(line, want string) {
		t.Helper()
		r := request(t, line)
		if got := outcome(table, r); got != want {
			t.Errorf("%s: got %q, want %q\n%s", line, got, want, table.Explain(r))
		}
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	f := expect(t, compile(t, short(t,
		"root: /",
		"a: /a",
		"a-slash: /a/",
		"b: /b/*",
		"b-deep: /b/c/*",
		"users: /users/{id}",
		"orders: /users/{id}/orders",
		"me: /users/me",
		"rest: /users/{id}/files/*",
		"pair: /pair/{x}/{y}",
		"old: ~^/old/(?P<page>[0-9]+)(?P<tail>/x)?$",
	)...))
	f("GET h/", "root")
	f("GET h/a", "a")
	f("GET h/a/", "a-slash")
	f("GET h/a/b", "404")
	f("GET h/A", "404")
	f("GET h/b", "b")
	f("GET h/b/", "b")
	f("GET h/bc", "404") // a prefix ends at a slash
	f("GET h/b/x/y/", "b *=x/y/")
	f("GET h/b/c", "b-deep")
	f("GET h/b/c/d", "b-deep *=d")
	f("GET h/b/cd", "b *=cd")
	f("GET h/users/7", "users id=7")
	f("GET h/users/me", "me")
	f("GET h/users/", "404") // a capture is not empty
	f("GET h/users", "404")
	f("GET h/users/7/", "404")
	f("GET h/users/me/orders", "orders id=me")
	f("GET h/users/%2F/orders", "orders id=%2F")
	f("GET h/users/7/files", "rest id=7")
	f("GET h/users/7/files/a/b", "rest id=7 *=a/b")
	f("GET h/pair/1/2", "pair x=1 y=2")
	f("GET h/old/12", "old page=12")
	f("GET h/old/12/x", "old page=12 tail=/x")
	f("GET h/old/x", "404")
	f("GET h", "404")
	f("OPTIONS *", "404")
}

func TestPathPrecedence(t *testing.T) {
	t.Parallel()
	f := expect(t, compile(t, short(t,
		"exact: /a/b/c",
		"two-right: /{x}/b/c",
		"two-left: /a/b/{x}",
		"two-split: /a/{x}/c",
		"prefix-two: /a/b/*",
		"prefix-one: /a/*",
		"captures: /{x}/{y}/{z}",
		"captures-star: /{x}/{y}/{z}/*",
		"any: /*",
		"regex-b: ~^/r/.*$",
		"regex-a: ~^/r/a",
	)...))
	f("GET h/a/b/c", "exact")
	f("GET h/a/b/d", "two-left x=d") // as many literals as the prefix, but longer
	f("GET h/a/d/c", "two-split x=d")
	f("GET h/d/b/c", "two-right x=d")
	f("GET h/a/b/c/d", "prefix-two *=c/d")
	f("GET h/a/x/y", "prefix-one *=x/y") // one literal beats three captures
	f("GET h/x/y/z", "captures x=x y=y z=z")
	f("GET h/x/y/z/w", "captures-star x=x y=y z=z *=w")
	f("GET h/x/y", "any *=x/y")
	f("GET h/r/a", "any *=r/a") // expressions come last, even after /*
	f = expect(t, compile(t, short(t, "b: ~^/r/.*$", "a: ~^/r/a", "c: ~^/r/b")...))
	f("GET h/r/a", "a")
	f("GET h/r/b", "b")
}

func TestHosts(t *testing.T) {
	t.Parallel()
	f := expect(t, compile(t, short(t,
		"exact: api.example.com/*",
		"wild: *.example.com/*",
		"deep: *.api.example.com/*",
		"six: [2001:db8::1]/*",
		"six-too: [2001:DB8:0::2]/*",
		"elsewhere: only.example.com/x",
		"any: /*",
	)...))
	f("GET api.example.com/", "exact")
	f("GET API.Example.COM:8080/", "exact")
	f("GET api.example.com./", "exact")
	f("GET api.example.com.:80/", "exact")
	f("GET www.example.com/", "wild")
	f("GET a.b.example.com/", "wild")
	f("GET a.api.example.com/", "deep")
	f("GET a.b.api.example.com/", "deep")
	f("GET example.com/", "any")
	f("GET .example.com/", "any")
	f("GET xexample.com/", "any")
	f("GET /", "any")
	f("GET [2001:DB8::1]:443/", "six")
	f("GET [2001:db8::2]/", "six-too")
	f("GET only.example.com/y", "wild *=y")
	f("GET "+strings.Repeat("a", 300)+".example.com/", "any")
	f("GET "+strings.Repeat("a.", 100)+"example.com/", "wild")
}

func TestFallBack(t *testing.T) {
	t.Parallel()
	f := expect(t, compile(t,
		Rule{Name: "exact", Hosts: []string{"a.b.example"}, Paths: []string{"/x/y"}, Methods: []string{"POST"}},
		Rule{Name: "capture", Hosts: []string{"a.b.example"}, Paths: []string{"/x/{id}"}, Headers: map[string]string{"X-A": "1"}},
		Rule{Name: "prefix", Hosts: []string{"a.b.example"}, Paths: []string{"/x/*"}, Query: map[string]string{"q": "present"}},
		Rule{Name: "regex", Hosts: []string{"a.b.example"}, Paths: []string{"~^/x"}, Methods: []string{"DELETE"}},
		Rule{Name: "wild", Hosts: []string{"*.b.example"}, Paths: []string{"/x/*"}, Methods: []string{"PUT"}},
		Rule{Name: "wilder", Hosts: []string{"*.example"}, Paths: []string{"/x/*"}, Methods: []string{"PATCH"}},
		Rule{Name: "any", Methods: []string{"GET"}, Headers: map[string]string{"X-B": "present"}},
	))
	f("POST a.b.example/x/y", "exact")
	f("PUT a.b.example/x/y x-a:1", "capture id=y")
	f("PUT a.b.example/x/y?q", "prefix *=y")
	f("DELETE a.b.example/x/y", "regex")
	f("PUT a.b.example/x/y", "wild *=y")
	f("PATCH a.b.example/x/y", "wilder *=y")
	f("GET a.b.example/x/y x-b:1", "any *=x/y")
	f("GET a.b.example/x/y", "405 DELETE, PATCH, POST, PUT") // any fails by its header, so GET is not promised
	f("TRACE a.b.example/x/y x-b:1", "405 DELETE, GET, HEAD, PATCH, POST, PUT")
	f("GET a.b.example/z", "404")
}

func TestMethods(t *testing.T) {
	t.Parallel()
	f := expect(t, compile(t, short(t,
		"get: GET /a",
		"post: POST /a",
		"all: /a/*",
		"both-get: GET /b",
		"both-head: HEAD /b",
		"only: PURGE /c",
	)...))
	f("GET h/a", "get")
	f("HEAD h/a", "get")
	f("POST h/a", "post")
	f("PUT h/a", "all")
	f("get h/b", "405 GET, HEAD") // methods are case-sensitive
	f("GET h/b", "both-get")
	f("HEAD h/b", "both-head") // a rule that names HEAD comes before the HEAD that GET implies
	f("OPTIONS h/c", "405 PURGE")
	f("HEAD h/c", "405 PURGE")
}

func TestConditions(t *testing.T) {
	t.Parallel()
	with := func(name string, headers, query map[string]string, methods ...string) Rule {
		return Rule{Name: name, Paths: []string{"/"}, Headers: headers, Query: query, Methods: methods}
	}
	f := expect(t, compile(t,
		with("plain", nil, nil),
		with("post", nil, nil, "POST"),
		with("beta", map[string]string{"X-Beta": "present"}, nil),
		with("beta-2", map[string]string{"x-beta": "2"}, nil, "POST"),
		with("digits", map[string]string{"X-N": "~^[0-9]+$"}, nil),
		with("query", nil, map[string]string{"mode": "a b"}),
		with("three", map[string]string{"X-Beta": "present", "X-N": "present"}, map[string]string{"mode": "~^a"}),
	))
	f("GET h/", "plain")
	f("POST h/", "post")
	f("GET h/ x-beta:", "beta")
	f("POST h/ x-beta:1", "beta") // as many conditions as post: the name decides
	f("POST h/ x-beta:2", "beta-2")
	f("GET h/ x-n:12", "digits")
	f("GET h/ x-n:12a", "plain")
	f("GET h/?mode=a+b", "query")
	f("GET h/?x=1&mode=a%20b&mode=c", "query")
	f("GET h/?mode=c&mode=a%20b", "plain") // the first one counts
	f("GET h/?m%6Fde=%61%20b", "query")
	f("GET h/?mode=a%2", "plain")
	f("GET h/?mode=a ", "plain")
	f("GET h/?mode=%61b x-beta:1 x-n:x", "three")
	f("GET h/?mode x-beta:1 x-n:x", "beta")
	if got := outcome(compile(t, with("x", map[string]string{"X-A": "present"}, nil)), &Request{Method: []byte("GET"), Path: []byte("/")}); got != "404" {
		t.Errorf("no header source: got %q", got)
	}
}

func TestSharedExpression(t *testing.T) {
	t.Parallel()
	rule := func(name, path string, headers map[string]string) Rule {
		return Rule{Name: name, Paths: []string{path}, Headers: headers}
	}
	f := expect(t, compile(t,
		rule("a", "~^/v[0-9]+/", nil),
		rule("b", "~^/v", nil),
		rule("c", "~^/v[0-9]+/", map[string]string{"x-beta": "present"}),
	))
	f("GET h/v1/ x-beta:1", "c") // not hidden by a, which has the same expression without the condition
	f("GET h/v1/", "a")
	f("GET h/vx", "b")
}

func TestManyMethods(t *testing.T) {
	t.Parallel()
	var rules []Rule
	for i := range 12 {
		rules = append(rules, Rule{Name: fmt.Sprint("r", i), Paths: []string{"/"}, Methods: []string{fmt.Sprintf("M%02d", i)}})
	}
	f := expect(t, compile(t, rules...))
	f("M07 h/", "r7")
	f("GET h/", "405 M00, M01, M02, M03, M04, M05, M06, M07, M08, M09, M10, M11")
}

func TestEmptyTable(t *testing.T) {
	t.Parallel()
	f := expect(t, compile(t))
	f("GET h/", "404")
}

func TestCapturesAreReset(t *testing.T) {
	t.Parallel()
	table := compile(t, short(t, "a: /a/{x}/*", "b: /b")...)
	var c Captures
	table.Match(request(t, "GET h/a/1/2"), &c)
	table.Match(request(t, "GET h/b"), &c)
	if v, ok := c.Get("x"); ok || len(c.Star()) > 0 || len(c.Names()) > 0 {
		t.Errorf("left over: %q %q", v, c.Star())
	}
	table.Match(request(t, "GET h/a/1/2"), &c)
	table.Match(request(t, "GET h/none"), &c)
	if v, ok := c.Get("x"); ok || len(c.Star()) > 0 {
		t.Errorf("left over: %q %q", v, c.Star())
	}
	var zero Captures
	if _, ok := zero.Get("x"); ok || len(zero.Star()) > 0 {
		t.Error("the zero value holds something")
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	rules := short(t, "a: GET api.example.com/a/{x}/{y}/*", "b: *.example.com/b", "c: /c/*", "d: POST /only", "r: ~^/re/[0-9]+$")
	for i := range 100 {
		rules = append(rules, short(t, fmt.Sprintf("w%d: api.example.com/wide/%d/{x}", i, i))...)
	}
	rules = append(rules, Rule{Name: "cond", Paths: []string{"/c/x"}, Headers: map[string]string{"X-A": "~^1"}, Query: map[string]string{"q": "a b", "p": "~^z"}})
	table := compile(t, rules...)
	var c Captures
	f := func(line, want string) {
		t.Helper()
		r := request(t, line)
		r.Header = source{}
		if got := outcome(table, r); got != want {
			t.Fatalf("%s: got %q, want %q", line, got, want)
		}
		if n := testing.AllocsPerRun(100, func() { table.Match(r, &c) }); n != 0 {
			t.Errorf("%s: %v allocations", line, n)
		}
	}
	f("HEAD API.Example.com.:8080/a/1/2/3/4", "a x=1 y=2 *=3/4")
	f("GET x.y.Example.com/b", "b")
	f("GET api.example.com/wide/77/x", "w77 x=x")
	f("GET other/c/x?q=%61+b&p=z", "cond")
	f("GET other/only", "405 POST")
	f("GET other/re/12", "r")
	f("GET other/none", "404")
}

// source has every field, with the value 1.
type source struct{}

var sourceValue = []byte("1")

func (source) Lookup(string) ([]byte, bool) { return sourceValue, true }

func TestRuleCaptures(t *testing.T) {
	t.Parallel()
	f := func(want string, paths ...string) {
		t.Helper()
		if got := strings.Join((Rule{Paths: paths}).Captures(), " "); got != want {
			t.Errorf("%v: got %q, want %q", paths, got, want)
		}
	}
	f("*")
	f("", "/a")
	f("*", "/a/*")
	f("id *", "/a/{id}/*")
	f("id", "/a/{id}/*", "/b/{id}", "~^/c/(?P<id>[0-9]+)$")
	f("", "/a/{id}", "/b")
	f("", "/a/{id", "/b/{id}")
}

func TestParseShort(t *testing.T) {
	t.Parallel()
	f := func(s, methods, hosts, paths string) {
		t.Helper()
		r, err := ParseShort(s)
		got := strings.Join(slices.Concat(r.Methods, []string{"|"}, r.Hosts, []string{"|"}, r.Paths), " ")
		want := strings.Join(slices.DeleteFunc([]string{methods, "|", hosts, "|", paths}, func(s string) bool { return s == "" }), " ")
		if err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", s, got, err, want)
		}
	}
	f("/a", "", "", "/a")
	f("GET /ping", "GET", "", "/ping")
	f("api.example.com/users/*", "", "api.example.com", "/users/*")
	f("POST *.example.com/", "POST", "*.example.com", "/")
	f("~^/re.*$", "", "", "~^/re.*$")
	f("GET ~^/re x$", "GET", "", "~^/re x$")
	f("  GET   /x ", "GET", "", "/x")
	refuse := func(s, want string) {
		t.Helper()
		if r, err := ParseShort(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %+v, %v, want an error with %q", s, r, err, want)
		}
	}
	refuse("", "is empty")
	refuse("api.example.com", "api.example.com/*")
	refuse("GET", "has no path")
	refuse("http://a/b", "scheme")
	refuse("GET POST /a", "space")
	refuse("/a b", "space")
}
