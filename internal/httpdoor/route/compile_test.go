package route

import (
	"fmt"
	"strings"
	"testing"
)

// problemsOf compiles and gives the problems as lines.
func problemsOf(rules ...Rule) string {
	table, problems := Compile(rules)
	if (table == nil) != (len(problems) > 0) {
		return "BUG: table and problems"
	}
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintln(&b, p)
	}
	return b.String()
}

func TestProblems(t *testing.T) {
	t.Parallel()
	f := func(r Rule, want ...string) {
		t.Helper()
		r.Name = "x"
		got := problemsOf(r)
		if strings.Count(got, "\n") != len(want) {
			t.Errorf("%+v: got %d problems, want %d:\n%s", r, strings.Count(got, "\n"), len(want), got)
		}
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%+v: got\n%swant %q", r, got, w)
			}
		}
	}
	path := func(p, want string) { t.Helper(); f(Rule{Paths: []string{p}}, want) }
	path("", "x: paths[0]: is empty")
	path("a", "does not begin with a slash")
	path("*", "does not begin with a slash")
	path("/a//b", `"/a/b"`)
	path("/a/./b", "can never match")
	path("/a/../../b", "climbs above the root")
	path("/a%0", "two hexadecimal digits")
	path("/a b", "control character or a space")
	path("/a?b=c", "query: {name: value}")
	path("/a#b", "fragment")
	path("/a/*/b", "* stands only at the end")
	path("/a*", "* stands only at the end")
	path("/a/{id}.json", "whole segment")
	path("/a/{}", "not a name")
	path("/a/{1x}", "not a name")
	path("/a/{id", "whole segment")
	path("/{id}/{id}", "twice")
	path("/"+strings.TrimSuffix(strings.Repeat("{x}/", 17), "/"), "twice")
	path("~", "needs a regular expression")
	path("~^/(", "not a regular expression: missing closing )")
	var many strings.Builder
	for i := range 17 {
		fmt.Fprintf(&many, "/{c%d}", i)
	}
	path(many.String(), "16 at most")

	host := func(h, want string) { t.Helper(); f(Rule{Hosts: []string{h}}, want) }
	host("", "x: hosts[0]: is empty")
	host("a.example:80", "has a port")
	host("http://a.example", "path or a scheme")
	host("fe80::1%eth0", "has a port")
	host("a/b", "path or a scheme")
	host("a.*.example", "only at the beginning")
	host("*example", "only at the beginning")
	host("*.", "only at the beginning")
	host("*.a..b", "empty label")
	host("a..b", "empty label")
	host(".a", "empty label")
	host("bücher.example", "xn--")
	host("a_b c", "' '")
	host(strings.Repeat("a.", 130)+"a", "253")

	f(Rule{Methods: []string{"get", "G T", "POST"}}, "methods[0]: \"get\" has small letters", "methods[1]: \"G T\" is not a method")
	f(Rule{Headers: map[string]string{"X A": "1", "X-B": "~(", "X-C": "1", "x-c": "2"}}, "headers.X A", "headers.X-B", "headers.x-c: stands twice")
	f(Rule{Query: map[string]string{"a": "~["}}, "query.a")
	f(Rule{Paths: []string{"a", "/ok", "/b*"}, Hosts: []string{"ok", "no:1"}}, "paths[0]", "paths[2]", "hosts[1]")

	var methods []string
	for i := range 70 {
		methods = append(methods, fmt.Sprintf("M%d", i))
	}
	if got := problemsOf(Rule{Name: "x", Methods: methods}); strings.Count(got, "62 different methods at most") != 8 {
		t.Errorf("too many methods: %s", got)
	}
}

func TestAcceptedPatterns(t *testing.T) {
	t.Parallel()
	f := expect(t, compile(t, short(t, "utf: /café/{x}", "lower: /%c3%a9", "letter: /%61bc", "slash: /a%2fb", "cc: A.EXAMPLE./*")...))
	f("GET h/caf%C3%A9/1", "utf x=1")
	f("GET h/%C3%A9", "lower")
	f("GET h/abc", "letter")
	f("GET h/a%2Fb", "slash")
	f("GET a.example/", "cc")
	// One rule may say the same thing twice.
	expect(t, compile(t, Rule{Name: "r", Hosts: []string{"::1", "127.0.0.1"}}))("GET [::1]:80/", "r")
	expect(t, compile(t, Rule{Name: "r", Hosts: []string{"a", "A."}, Paths: []string{"/{x}", "/{y}"}}))("GET a/1", "r x=1")
}

func TestAmbiguous(t *testing.T) {
	t.Parallel()
	f := func(want string, rules ...Rule) {
		t.Helper()
		got := problemsOf(rules...)
		if want == "" && got != "" || !strings.Contains(got, want) || strings.Count(got, "\n") > 1 {
			t.Errorf("%+v:\n got %swant %q", rules, got, want)
		}
	}
	s := func(lines ...string) []Rule { return short(t, lines...) }
	f(`b: paths[0]: ambiguous: routes "a" and "b" both match /x,`, s("a: /x", "b: /x")...)
	f(`b: paths[0]: ambiguous: routes "a" and "b" both match /x,`, s("b: /x", "a: /x")...)
	f(`both match h.example/x/{other},`, s("a: h.example/x/{id}", "b: H.example./x/{other}")...)
	f(`both match /x/{b}/*,`, s("a: /x/{a}/*", "b: /x/{b}/*")...)
	f(`both match GET /x,`, s("a: GET /x", "b: GET /x")...)
	f(`both match ~^/x,`, s("a: ~^/x", "b: ~^/x")...)
	f(`both match *.h.example ~^/x,`, Rule{Name: "a", Hosts: []string{"*.h.example"}, Paths: []string{"~^/x"}}, Rule{Name: "b", Hosts: []string{"z", "*.h.example"}, Paths: []string{"/y", "~^/x"}})
	f(`both match /*,`, s("a: /*", "b: */*")...)
	f(`b: paths[2]: ambiguous: routes "a" and "b" both match /x`, Rule{Name: "a", Paths: []string{"/x", "/y"}}, Rule{Name: "b", Paths: []string{"/z", "/y", "/x"}})
	f(`both match POST /x,`, Rule{Name: "a", Paths: []string{"/x"}, Methods: []string{"GET", "POST"}}, Rule{Name: "b", Paths: []string{"/x"}, Methods: []string{"POST", "PUT"}})
	f(`under the same header and query conditions`,
		Rule{Name: "a", Headers: map[string]string{"X-A": "1"}, Query: map[string]string{"q": "~2"}},
		Rule{Name: "b", Headers: map[string]string{"x-a": "1"}, Query: map[string]string{"q": "~2"}})

	// Not ambiguous: something other than the name decides, or the name is meant to.
	f("", s("a: /x", "b: GET /x")...)
	f("", s("a: GET /x", "b: HEAD /x", "c: POST /x")...)
	f("", s("a: /x/*", "b: /x/{id}", "c: /{id}/x", "d: /x", "e: /x/")...)
	f("", s("a: ~^/x", "b: ~^/x.*")...)
	f("", s("a: h/x", "b: /x", "c: *.h/x")...)
	f("", Rule{Name: "a", Headers: map[string]string{"X-A": "1"}}, Rule{Name: "b", Headers: map[string]string{"X-A": "2"}}, Rule{Name: "c", Query: map[string]string{"X-A": "1"}})

	// Three rules: each pair that meets is named once.
	if got := problemsOf(s("a: /x", "b: /x", "c: /x")...); strings.Count(got, "\n") != 2 || !strings.Contains(got, `"a" and "c"`) {
		t.Errorf("three: %s", got)
	}
}

// A router is compiled at every reload: problems come in the same order each time.
func TestProblemsAreStable(t *testing.T) {
	t.Parallel()
	var rules []Rule
	for i := range 20 {
		rules = append(rules, Rule{Name: fmt.Sprint(i), Headers: map[string]string{"X": fmt.Sprint(i % 7)}, Hosts: []string{"h", "*.h"}})
	}
	want := problemsOf(rules...)
	for range 20 {
		if got := problemsOf(rules...); got != want {
			t.Fatalf("got\n%swant\n%s", got, want)
		}
	}
}
