package route

import (
	"strings"
	"testing"
)

func explainRules() []Rule {
	return []Rule{
		{Name: "user", Hosts: []string{"api.example.com"}, Paths: []string{"/users/{id}"}, Methods: []string{"GET", "PUT"}},
		{Name: "user-beta", Hosts: []string{"api.example.com"}, Paths: []string{"/users/{id}"}, Headers: map[string]string{"X-Beta": "~^[12]$"}, Query: map[string]string{"v": "2"}},
		{Name: "user-c", Hosts: []string{"api.example.com"}, Paths: []string{"/users/{name}"}, Headers: map[string]string{"X-C": "present"}},
		{Name: "users", Hosts: []string{"api.example.com"}, Paths: []string{"/users/*"}},
		{Name: "me", Hosts: []string{"api.example.com"}, Paths: []string{"/users/me"}, Methods: []string{"GET"}},
		{Name: "me-star", Hosts: []string{"api.example.com"}, Paths: []string{"/users/me/*"}},
		{Name: "old", Hosts: []string{"api.example.com"}, Paths: []string{"~^/users/"}},
		{Name: "older", Hosts: []string{"api.example.com"}, Paths: []string{"~^/u"}},
		{Name: "captures", Hosts: []string{"api.example.com"}, Paths: []string{"/{a}/{b}"}},
		{Name: "captures-star", Hosts: []string{"api.example.com"}, Paths: []string{"/{a}/{b}/*"}},
		{Name: "right", Hosts: []string{"api.example.com"}, Paths: []string{"/{a}/me"}},
		{Name: "wild", Hosts: []string{"*.example.com"}, Paths: []string{"/users/*"}},
		{Name: "any", Methods: []string{"POST"}},
		{Name: "shop", Hosts: []string{"shop.example"}, Paths: []string{"/cart"}, Methods: []string{"GET"}},
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	table := compile(t, explainRules()...)
	f := func(line, want string) {
		t.Helper()
		want = strings.TrimPrefix(want, "\n")
		if got := table.Explain(request(t, line)).String(); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", line, got, want)
		}
	}
	f("GET API.example.com:80/users/7?v=%33 x-beta:1", `
GET api.example.com/users/7
  1. user-beta      api.example.com/users/{id}          fails: query parameter v is "3", not "2"
  2. user           GET,PUT api.example.com/users/{id}  wins: all before it fail
  3. user-c         api.example.com/users/{name}        comes later, and would fail: header X-C is missing
  4. users          api.example.com/users/*             comes later: 1 segment long against 2
  5. captures       api.example.com/{a}/{b}             comes later: 0 literal segments against 1
  6. captures-star  api.example.com/{a}/{b}/*           comes later: 0 literal segments against 1
  7. old            api.example.com ~^/users/           comes later: regular expressions come after other paths
  8. older          api.example.com ~^/u                comes later: regular expressions come after other paths
  9. wild           *.example.com/users/*               comes later: *.example.com is less specific than api.example.com
 10. any            POST /*                             comes later, and would fail: the method is GET, not POST
route: user
  {id} = "7"
`)
	contains := func(line string, want ...string) {
		t.Helper()
		got := table.Explain(request(t, line)).String()
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: got\n%s\nwant %q", line, got, w)
			}
		}
	}
	contains("GET api.example.com/users/7?v=2 x-beta:2 x-c:1", "wins: the first of all candidates",
		"comes later: 1 condition against 2")
	contains("GET api.example.com/users/7 x-c:1 x-beta:3", `fails: header X-Beta is "3", which does not match ~^[12]$`, "as many conditions, and its name comes after user")
	contains("GET api.example.com/users/me", "comes later: an exact path comes first", "route: me\n")
	contains("PUT api.example.com/users/me", "fails: the method is PUT, not GET or HEAD", "route: me-star")
	contains("DELETE api.example.com/x/me", "right", "{a} = \"x\"")
	contains("GET api.example.com/x/y", "it goes on with a star where captures ends")
	contains("GET api.example.com/ux", "route: older")
	contains("GET api.example.com/users/7/8", "route: users\n  {*} = \"7/8\"")
	contains("POST x.example.com/users/7", "comes later: any host, where wild names *.example.com")
}

func TestExplainRefusals(t *testing.T) {
	t.Parallel()
	table := compile(t, explainRules()[13], explainRules()[0], Rule{Name: "wild-cart", Hosts: []string{"*.shop.example"}, Paths: []string{"/cart"}})
	f := func(line string, want string) {
		t.Helper()
		want = strings.TrimPrefix(want, "\n")
		if got := table.Explain(request(t, line)).String(); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", line, got, want)
		}
	}
	f("POST shop.example/cart", `
POST shop.example/cart
  1. shop  GET shop.example/cart  fails: the method is POST, not GET or HEAD
no route: 405, Allow: GET, HEAD
`)
	f("GET www.example/cart", `
GET www.example/cart
  -  shop       GET shop.example/cart  has this path, but for host shop.example
  -  wild-cart  *.shop.example/cart    has this path, but for host *.shop.example
no route: 404, no route has this host and path
`)
	f("GET shop.example/none", `
GET shop.example/none
no route: 404, no route has this host and path
`)
	f("OPTIONS *", `
OPTIONS *
no route: 404, no route has this host and path
`)
	table = compile(t, Rule{Name: "x", Headers: map[string]string{"A": "b"}})
	f("GET h/", `
GET h/
  1. x  /*  fails: header A is missing
no route: 404, every candidate fails
`)
}

// Hints for an unmatched request stay few, however many routes there are.
func TestElsewhereIsBounded(t *testing.T) {
	t.Parallel()
	x := compile(t, benchRules(2000)...).Explain(request(t, "GET other/v1/resource0/list"))
	if len(x.Elsewhere) != elsewhereMax {
		t.Errorf("%d hints", len(x.Elsewhere))
	}
}
