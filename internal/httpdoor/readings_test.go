package httpdoor

import (
	"strings"
	"testing"
)

// A path that a server behind would read differently does not lead past what protects that other place.
func TestPathsReadElsewhere(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0", policies: [{headers: {request: {set: {X-L: "1"}}}}]}}
services: {a: {endpoints: [$A]}}
consumers: {c: {api_keys: [0123456789abcdef0123456789abcdef]}}
policies: {key: [{api_key: {}}]}
routes:
  admin: {match: /admin/*, service: a, policies: [{api_key: {}}]}
  secret: {match: /secret/*, respond: 403}
  delete: {match: "/v1/users:delete", service: a, policies: [key]}
  purge: {match: "/v1/users:purge", service: a, policies: [key]}
  both: {match: "/v1/users:both/{x}", service: a, policies: [key]}
  tenant: {match: "/t/{tenant}/users:delete", service: a, policies: [key]}
  inner: {match: "/x/{y}/admin", service: a, policies: [key]}
  area: {match: /area/users/*, service: a, policies: [key]}
  project: {match: "/projects/{id}", service: a}
  rest: {match: /*, service: a}
`, "A", endpoint(t, echo))
	f := func(path string, want int) {
		t.Helper()
		c := g.dial()
		c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp, body := c.get("GET"); resp.StatusCode != want {
			t.Errorf("%s: %d %s, want %d", path, resp.StatusCode, body, want)
		}
		c.Close()
	}
	f("/admin/x", 401)
	f("/admin%2fx", 400)
	f("/admin%5Cx", 400)
	f("/%2fadmin%2fx", 400)
	f("/;/admin/x", 400)
	f("/admin;x/y", 400)
	f("/admin;/y", 400)
	f("/admin%3bx/y", 400)
	f("/x;y%2fadmin", 200) // nobody reads that as /admin
	f("/secret%2fx", 400)
	f("/v1/users:delete", 401)
	f("/v1/users%3Adelete", 400)
	f("/v1/users%3adelete;v=1", 400)

	// %2F is a slash and a backslash a character.
	f("/x/a%5Cb%2Fadmin", 400)
	f("/t/a%5Cb/users%3Adelete", 400)
	// %2F is a character in a segment.
	f("/t/a%2Fb/users%3Adelete", 400)
	f("/t/a%2Fb%3Bc%2Fd/users:delete", 400)
	// Parameters are dropped up to the next raw slash, then the rest is decoded.
	f("/v1;%2Fx/users%3Adelete", 400)
	f("/t/a;%2Fx/users%3Adelete", 400)
	f("/admin;%2Fx/users%2Fy", 400)
	f("/area;%2Fx/users%2Fy", 400)
	f("/area;%5Cx/users%5Cy", 400)
	// A dot segment comes to light.
	f("/a/..%3Bx/b", 400)

	// Where it makes no difference, all spellings pass.
	f("/admin/a%2Fb;c", 401)
	f("/a%2Fb;c=1/d%5Ce", 200)
	f("/@scope%2fname", 200)
	f("/projects/group%2Fname", 200) // route rest would do the same
	f("/projects/7;v=2", 200)
	f("/nothing%2Fof;this", 200)
	f("/t/a%5Cb/users%3Aadd;%2Fx%2Fadmin", 200)
	f("/area/users/a%5Cb%2Fc%3Ad;%2Fe", 401)
}

// What routes of a named list do is alike; what routes say in place is not, not even on one line.
func TestPathsReadElsewhereByPolicies(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
services: {a: {endpoints: [$A]}, b: {endpoints: [$A]}}
policies: {edge: [{headers: {response: {set: {X-R: "1"}}}}]}
routes: {one: {match: /one/*, service: a, policies: [edge]}, two: {match: "/two/{x}", service: a, policies: [edge]}, three: {match: "/two/{x}/y", service: a, policies: [edge]}, four: {match: "/four/{x}", service: a, policies: [{rate_limit: 100/s}]}, five: {match: "/four/{x}/y", service: a, policies: [{rate_limit: 1/s}]}, six: {match: "/six/{x}", service: a}, seven: {match: "/six/{x}/y", service: b}, eight: {match: "/eight/{x}", respond: 204}, nine: {match: "/eight/{x}/y", service: b}}
`, "A", endpoint(t, echo))
	f := func(path string, want int) {
		t.Helper()
		c := g.dial()
		c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp, _ := c.get("GET"); resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, want)
		}
		c.Close()
	}
	f("/two/x%2Fy", 200)
	f("/four/x%2Fy", 400)
	f("/six/x%2Fy", 400)
	f("/eight/x%2Fy", 204) // nobody gets it
}

// What a template makes of a capture is a path like any other.
func TestTemplatesMakePaths(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
services: {a: {endpoints: [$A]}}
routes:
  show: {match: "~^/show(?P<id>.*)$", service: a, rewrite: {path: "/users/{id}"}}
  in: {match: /in/*, service: a, rewrite: {path: "/a/{*}/b"}}
  own: {match: "/own/{id}", service: a, rewrite: {path: "/users?id={id}"}}
  mixed: {match: "/mixed/{id}", service: a, rewrite: {path: "/users?id={id}&{query}"}}
  go: {match: "~^/go(?P<to>.*)$", redirect: {to: "/{to}", status: 302}}
  other: {match: "~^/other(?P<to>.*)$", redirect: {to: "https://b.example/{to}", status: 302}}
`, "A", endpoint(t, echo))
	f := func(path string, want int, text string) {
		t.Helper()
		c := g.dial()
		c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, body := c.get("GET")
		line, _, _ := strings.Cut(body, "\n")
		if resp.StatusCode == 302 {
			line = resp.Header.Get("Location")
		}
		if resp.StatusCode != want || want < 400 && line != text {
			t.Errorf("%s: %d %s, want %d %s", path, resp.StatusCode, line, want, text)
		}
		c.Close()
	}
	f("/show7?q=1", 200, "GET /users/7?q=1")
	f("/show../admin", 400, "")
	f("/show./admin", 400, "")
	f("/show..", 400, "")
	f("/show..%2Fadmin", 400, "")
	f("/show/7", 200, "GET /users/7")
	f("/in", 200, "GET /a/b")
	f("/in/c", 200, "GET /a/c/b")
	f("/own/7?q=1", 200, "GET /users?id=7")
	f("/mixed/7?q=1", 200, "GET /users?id=7&q=1")
	f("/go/evil.example/x?q", 302, "/evil.example/x?q")
	f("/go..", 400, "")
	f("/other/x", 302, "https://b.example//x")
}

func TestTemplatesThatMakeNoPath(t *testing.T) {
	t.Parallel()
	f := func(route, want string) {
		t.Helper()
		_, _, problems := compilePolicies("listeners: {web: {address: ':0'}}\nservices: {a: {endpoints: ['127.0.0.1:1']}}\nroutes: {r: " + route + "}\n")
		got := problems.Error()
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", route, got, want)
		}
	}
	f(`{match: "/{id}", service: a, rewrite: {path: "/a?id={id}"}}`, "")
	f(`{match: "/{id}", redirect: "/a?id={id}#here"}`, "")
	f(`{match: "/{id}", redirect: "//b.example/{id}"}`, "")
	f(`{match: "/{id}", service: a, rewrite: {path: "/../{id}"}}`, `routes.r.rewrite.path: "/../{id}": path has a dot segment when it is rewritten (accepted: a path, with a query or without)`)
	f(`{match: "/{id}", service: a, rewrite: {path: "/a#{id}"}}`, `routes.r.rewrite.path: "/a#{id}" has a fragment, which no server is sent`)
	f(`{match: "/{id}", redirect: "/a/./{id}"}`, `routes.r.redirect.to: "/a/./{id}": path has a dot segment`)
}
