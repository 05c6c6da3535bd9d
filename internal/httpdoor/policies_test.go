package httpdoor

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/config/configtest"
	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/httpdoor/forward"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/identity"
	"github.com/menshen-gateway/menshen/internal/listener"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/traffic/services"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// ask sends one request with extra fields ("Name: value" lines) on a connection of its own.
func (g *gate) ask(method, path string, fields ...string) (*http.Response, string) {
	g.t.Helper()
	c := g.dial()
	defer c.Close()
	c.send(method + " " + path + " HTTP/1.1\r\nHost: a\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n")
	return c.get(method)
}

const policed = `
listeners: {web: {address: "127.0.0.1:0", policies: [edge]}}
services: {a: {endpoints: [$A]}}
routes:
  users:
    match: GET /users/{id}
    service: a
    policies:
      - headers: {request: {set: {X-User: "{path.id}", X-Who: "{consumer.name}", X-Route: users}, remove: [X-Internal-*]}, response: {set: {X-Frame: deny, Cache-Control: max-age=60}, add: {X-Id: "{request.id}"}}}
      - api_key: {in: "header:X-API-Key"}
      - rate_limit: {rate: 3/h, key: consumer}
  open: {match: /open, respond: 200}
  inner: {match: /inner, service: a, policies: [{api_key: {in: query:key, anonymous: true}}]}
policies:
  edge: [{cors: {origins: ["https://shop.example"], expose: [X-Id], credentials: true}}]
consumers:
  app: {groups: [one, two], api_keys: [secret-key, old-key]}
`

func TestPolicies(t *testing.T) {
	t.Parallel()
	g := open(t, policed, "A", endpoint(t, echo))
	const origin = "Origin: https://shop.example"

	resp, body := g.ask("GET", "/users/7", origin)
	if resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") != `ApiKey realm="menshen"` {
		t.Errorf("without a key: %d %v", resp.StatusCode, resp.Header)
	}
	// The page may read the refusal, and what the route says of responses holds for it, but not its Cache-Control.
	if resp.Header.Get("Access-Control-Allow-Origin") != "https://shop.example" || resp.Header.Get("X-Frame") != "deny" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the refusal: %v", resp.Header)
	}
	if !strings.Contains(body, `"type":"urn:menshen:fault:unauthenticated"`) {
		t.Error(body)
	}

	for i, key := range []string{"secret-key", "old-key", "secret-key"} {
		resp, body = g.ask("GET", "/users/7?x=y", origin, "X-API-Key: "+key, "X-Consumer-Name: root", "X-Consumer-Id: 1", "X-User: 8", "X-Internal-A: 1", "X-Request-Id: r-1")
		if resp.StatusCode != 200 || resp.Header.Get("RateLimit") != fmt.Sprintf(`"users";r=%d;t=%d`, 2-i, 1200*(i+1)) {
			t.Fatalf("%d: %d %v", i, resp.StatusCode, resp.Header)
		}
		for _, want := range []string{"GET /users/7?x=y\n", "X-User: 7\r\n", "X-Who: app\r\n", "X-Route: users\r\n", "X-Consumer-Name: app\r\n", "X-Consumer-Groups: one,two\r\n"} {
			if !strings.Contains(body, want) {
				t.Errorf("the endpoint did not see %q:\n%s", want, body)
			}
		}
		for _, wrong := range []string{"-key", "root", "X-Consumer-Id", "X-User: 8", "X-Internal"} {
			if strings.Contains(body, wrong) {
				t.Errorf("the endpoint saw %q:\n%s", wrong, body)
			}
		}
		for name, want := range map[string]string{"Access-Control-Allow-Origin": "https://shop.example", "Access-Control-Expose-Headers": "X-Id", "Vary": "Origin",
			"Access-Control-Allow-Credentials": "true", "X-Frame": "deny", "Cache-Control": "max-age=60", "X-Id": "r-1", "RateLimit-Policy": `"users";q=3;w=3600`} {
			if got := resp.Header.Values(name); !slices.Equal(got, []string{want}) {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
	resp, _ = g.ask("GET", "/users/7", origin, "X-API-Key: secret-key")
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "1200" || resp.Header.Get("Access-Control-Allow-Origin") == "" || resp.Header.Get("RateLimit") != `"users";r=0;t=1200` {
		t.Errorf("over the limit: %d %v", resp.StatusCode, resp.Header)
	}
	if resp, _ = g.ask("GET", "/users/7", "X-API-Key: wrong"); resp.StatusCode != 401 {
		t.Errorf("a wrong key: %d", resp.StatusCode)
	}
	if resp, body = g.ask("GET", "/inner?a=1&key=secret-key&b=2"); resp.StatusCode != 200 || !strings.HasPrefix(body, "GET /inner?a=1&b=2\n") || !strings.Contains(body, "X-Consumer-Name: app\r\n") {
		t.Errorf("key in the query: %d %s", resp.StatusCode, body)
	}
	if resp, body = g.ask("GET", "/inner", "X-Consumer-Name: root"); resp.StatusCode != 200 || strings.Contains(body, "X-Consumer-Name") {
		t.Errorf("anonymous: %d %s", resp.StatusCode, body)
	}
	if resp, _ = g.ask("GET", "/open", origin); resp.StatusCode != 200 || resp.Header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("respond: %d %v", resp.StatusCode, resp.Header)
	}
	if resp, _ = g.ask("GET", "/nowhere", origin); resp.StatusCode != 404 || resp.Header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("no route: %d %v", resp.StatusCode, resp.Header)
	}
	if resp, _ = g.ask("DELETE", "/users/7", origin); resp.StatusCode != 405 || resp.Header.Get("Access-Control-Allow-Origin") == "" || resp.Header.Get("Allow") == "" {
		t.Errorf("no method: %d %v", resp.StatusCode, resp.Header)
	}
}

// What is kept from the endpoint does not reach it behind the body, either.
func TestTrailersAreEdited(t *testing.T) {
	t.Parallel()
	g := open(t, "listeners: {web: {address: '127.0.0.1:0'}}\nservices: {a: {endpoints: [$A]}}\nroutes: {all: {match: /*, service: a, policies: [{api_key: {}}]}}\nconsumers: {app: {api_keys: k}}", "A", endpoint(t, echo))
	c := g.dial()
	c.send("POST / HTTP/1.1\r\nHost: a\r\nX-API-Key: k\r\nTransfer-Encoding: chunked\r\nTrailer: X-Consumer-Name, X-T\r\n\r\n1\r\na\r\n0\r\nX-Consumer-Name: root\r\nX-T: end\r\n\r\n")
	resp, body := c.get("POST")
	if resp.StatusCode != 200 || strings.Contains(body, "root") || !strings.Contains(body, "X-T: [end]") || !strings.Contains(body, "X-Consumer-Name: app") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
services: {a: {endpoints: [$A]}}
routes:
  read: {match: "GET /users/{id}", service: a, policies: [{cors: "https://read.example"}, {api_key: {}}]}
  write: {match: "PUT /users/{id}", service: a, policies: [{cors: {origins: "https://write.example", methods: [PUT], headers: [X-A]}}]}
  rest: {match: /*, service: a}
  gone: {match: DELETE /gone, respond: 204}
`, "A", endpoint(t, echo))
	f := func(path, asked, origin string, want map[string]string) {
		t.Helper()
		resp, body := g.ask("OPTIONS", path, "Origin: "+origin, "Access-Control-Request-Method: "+asked, "Access-Control-Request-Headers: x-a, x-b")
		if want == nil {
			if resp.StatusCode != 200 || !strings.HasPrefix(body, "OPTIONS ") {
				t.Errorf("%s %s: should be forwarded: %d %s", asked, path, resp.StatusCode, body)
			}
			return
		}
		if resp.StatusCode != 204 || body != "" {
			t.Errorf("%s %s: %d %s", asked, path, resp.StatusCode, body)
		}
		for _, name := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers", "Access-Control-Max-Age"} {
			if got := resp.Header.Get(name); got != want[name] {
				t.Errorf("%s %s from %s: %s is %q, want %q", asked, path, origin, name, got, want[name])
			}
		}
	}
	allowed := func(origin, methods, headers string) map[string]string {
		return map[string]string{"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Methods": methods, "Access-Control-Allow-Headers": headers, "Access-Control-Max-Age": "600"}
	}
	f("/users/1", "GET", "https://read.example", allowed("https://read.example", "GET", "x-a, x-b")) // without a key: browsers send none
	f("/users/1", "HEAD", "https://read.example", allowed("https://read.example", "HEAD", "x-a, x-b"))
	f("/users/1", "PUT", "https://write.example", allowed("https://write.example", "PUT", "X-A"))
	f("/users/1", "PUT", "https://read.example", map[string]string{}) // each route has its own
	f("/users/1", "POST", "https://read.example", nil)                // the catch-all has no cors
	f("/else", "GET", "https://read.example", nil)
	f("/users/1", "G E T", "https://read.example", nil) // no method
	if resp, body := g.ask("OPTIONS", "/users/1"); resp.StatusCode != 200 || !strings.HasPrefix(body, "OPTIONS ") {
		t.Error("OPTIONS that is no preflight:", resp.StatusCode)
	}
	if resp, body := g.ask("OPTIONS", "/users/1", "Origin: https://read.example"); resp.StatusCode != 200 || !strings.HasPrefix(body, "OPTIONS ") {
		t.Error("OPTIONS that is no preflight:", resp.StatusCode)
	}
}

func TestListenerPreflightWithoutRoute(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0", policies: [{cors: "*"}, {headers: {response: {set: {X-Sts: "1"}}}}, {rate_limit: 1/h}]}}
routes: {ping: {match: GET /ping, respond: 200}}
`)
	for _, method := range []string{"GET", "DELETE"} {
		if resp, _ := g.ask("OPTIONS", "/ping", "Origin: https://x.example", "Access-Control-Request-Method: "+method); resp.StatusCode != 204 || resp.Header.Get("Access-Control-Allow-Origin") != "*" || resp.Header.Get("X-Sts") != "1" {
			t.Errorf("%s: %d %v", method, resp.StatusCode, resp.Header)
		}
	}
	if resp, _ := g.ask("GET", "/other"); resp.StatusCode != 404 || resp.Header.Get("X-Sts") != "1" || resp.Header.Get("RateLimit") != "" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	if resp, _ := g.ask("GET", "/ping"); resp.StatusCode != 200 { // neither preflights nor strays were counted
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}

func compilePolicies(text string) (*config.Config, *Tables, config.Problems) {
	c, err := config.Parse(config.File{Name: "m.yaml", Data: []byte(text)})
	if err != nil {
		return nil, nil, err.(config.Problems)
	}
	registry := upstream.NewRegistry(slog.New(slog.DiscardHandler))
	defer registry.Close()
	leases := registry.Begin()
	defer leases.Abort()
	all, problems := services.Compile(c, leases, forward.NewPool)
	consumers, more := identity.Compile(c)
	problems = append(problems, more...)
	states := policy.NewStates().Begin()
	defer states.Commit()
	tables, more := Compile(Source{Config: c, Generation: 1, Services: all, Consumers: consumers, Policies: states, Metrics: observe.NewMetrics()})
	return c, tables, append(problems, more...)
}

func TestPolicyProblems(t *testing.T) {
	t.Parallel()
	f := func(policies string, want ...string) {
		t.Helper()
		text := "listeners: {web: {address: ':0'}}\nroutes:\n  r: {match: '/{id}', respond: 200, policies: " + policies + "}\n"
		_, _, problems := compilePolicies(text)
		if got := problems.Error(); got != strings.Join(want, "\n") {
			t.Errorf("%s: got\n%s\nwant\n%s", policies, got, strings.Join(want, "\n"))
		}
	}
	f(`[{cors: "*"}]`)
	f(`[{coors: "*"}]`, `m.yaml:3:49: routes.r.policies[0].coors: no kind of policy is named "coors" (accepted: api_key, cors, headers, rate_limit; nearest: cors)`)
	f(`[{whatever: {}}]`, `m.yaml:3:49: routes.r.policies[0].whatever: no kind of policy is named "whatever" (accepted: api_key, cors, headers, rate_limit)`)
	f(`[{cors: {orgins: ["*"]}}]`,
		`m.yaml:3:49: routes.r.policies[0].cors.origins: is missing (accepted: a list, each text)`,
		`m.yaml:3:56: routes.r.policies[0].cors.orgins: unknown key (accepted: origins, methods, headers, expose, credentials, max_age, private_network; nearest: origins)`)
	f(`[{cors: "shop.example"}]`, `m.yaml:3:55: routes.r.policies[0].cors.origins[0]: "shop.example" is no origin (accepted: https://host[:port], ~regular expression, null, or *)`)
	f(`[{rate_limit: 10}]`, `m.yaml:3:61: routes.r.policies[0].rate_limit: is the number 10 (accepted: a rate such as 10/s, 600/m, 1000/h, 5000/d or 5/10s)`)
	f(`[{rate_limit: {rate: 10/s, key: cosumer}}]`, `m.yaml:3:79: routes.r.policies[0].rate_limit.key: "cosumer" is no key (accepted: client_address, consumer, header:NAME, cookie:NAME, path; nearest: consumer)`)
	f(`[{cors: "*"}, {cors: null}]`, `m.yaml:3:62: routes.r.policies[1].cors: has no value (accepted: its settings; {} for the defaults)`)
	f(`[{cors: "*"}, {cors: "https://a.example"}]`, `m.yaml:3:62: routes.r.policies[1].cors: cors applies once, and is there already at m.yaml:3 (accepted: one on a listener or a route; one in place goes before one in a named list)`)
	f(`[{rate_limit: {rate: 1/s, scope: x}}, {rate_limit: {rate: 2/s, scope: x}}]`, `m.yaml:3:117: routes.r.policies[1].rate_limit.scope: "x" is written differently at routes.r (accepted: the same settings)`)
	f(`[{headers: {request: {set: {Host: a, X-B: "{path.name}", Content-Length: "1"}}}}]`,
		`m.yaml:3:120: routes.r.policies[0].headers.request.set.Content-Length: "Content-Length" frames the message and is written by Menshen`,
		`m.yaml:3:81: routes.r.policies[0].headers.request.set.Host: "Host" is written by Menshen (accepted: rewrite: {host: ...} on the route)`,
		`m.yaml:3:89: routes.r.policies[0].headers.request.set.X-B: "{path.name}" uses {path.name}, which is not known here (accepted: {client.address}, {client.certificate.common_name}, {client.certificate.dns_name}, {client.certificate.fingerprint}, {client.certificate.issuer}, {client.certificate.serial}, {client.certificate.subject}, {client.certificate.uri}, {consumer.name}, {path.id}, {request.id})`)
}

func TestUnusedNamedListIsChecked(t *testing.T) {
	t.Parallel()
	_, _, problems := compilePolicies("routes: {r: {match: /, respond: 200}}\npolicies:\n  a: [{rate_limit: {rte: 1/s}}, {nothing: {}}, {headers: {request: {set: {X: '{path.id}'}}}}]\n")
	if len(problems) != 3 || !strings.Contains(problems.Error(), "policies.a[0].rate_limit.rte: unknown key") || !strings.Contains(problems.Error(), "policies.a[1].nothing: no kind") {
		t.Error(problems)
	}
}

// The chain, its order and its origins, as people see them.
func TestExplainPolicies(t *testing.T) {
	t.Parallel()
	c, tables, problems := compilePolicies(`listeners:
  web:
    address: ":0"
    policies: [{headers: {response: {set: {X-A: "1"}}}}, edge]
routes:
  r:
    match: GET /r/{id}
    respond: 200
    policies:
      - headers: {response: {set: {X-B: "{path.id}"}}}
      - rate_limit: 5/m
      - cors: "https://b.example"
policies:
  edge:
    - rate_limit: 100/s
    - cors: "*"
`)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	f := func(method, path, want string, fields ...[2]string) {
		t.Helper()
		e, err := tables.Explain(Question{Method: method, Host: "a", Path: path, Headers: fields}, c)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for line := range strings.Lines(e.String()) {
			if strings.HasPrefix(line, "policy") || strings.HasPrefix(line, "    ") {
				lines = append(lines, strings.TrimRight(line, "\n"))
			}
		}
		if got := strings.Join(lines, "\n"); got != want {
			t.Errorf("%s %s: got\n%s\nwant\n%s", method, path, got, want)
		}
		if text, err := json.Marshal(e); err != nil || !strings.Contains(string(text), `"policies":[{"kind":"cors","stage":"preflight","origin":"`) {
			t.Error(string(text), err)
		}
	}
	cors := `policy     preflight cors         route r (m.yaml:12): https://b.example
                                  goes before the one of list edge on listener web (m.yaml:16)`
	f("GET", "/r/1", cors+`
policy     meter     rate_limit   list edge on listener web (m.yaml:15): 100/s
policy     meter     rate_limit   route r (m.yaml:11): 5/m
policy     shape     headers      listener web (m.yaml:4): {response: {set: {X-A: "1"}}}
policy     shape     headers      route r (m.yaml:10): {response: {set: {X-B: "{path.id}"}}}`)
	f("OPTIONS", "/r/1", cors, [2]string{"Origin", "https://b.example"}, [2]string{"Access-Control-Request-Method", "GET"})
	f("GET", "/else", `policy     preflight cors         list edge on listener web (m.yaml:16): "*"`)
}

// A limit that is written once is one limit, wherever its list is used; the named list is compiled once for all routes.
func TestNamedListIsOneLimit(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
routes:
  a: {match: /a, respond: 200, policies: limits}
  b: {match: /b, respond: 200, policies: [limits]}
  c: {match: /c, respond: 200, policies: [{rate_limit: 2/h}, {rate_limit: 5/h}]}
policies: {limits: [{rate_limit: 2/h}]}
`)
	f := func(path string, want int) {
		t.Helper()
		if resp, _ := g.ask("GET", path); resp.StatusCode != want {
			t.Errorf("%s: %d, want %d: %v", path, resp.StatusCode, want, resp.Header)
		}
	}
	f("/a", 200)
	f("/b", 200)
	f("/a", 429)
	f("/b", 429)
	f("/c", 200)
	f("/c", 200)
	f("/c", 429)
}

// What a limit has counted survives reloads, also one that changes the rate, and is forgotten with the limit.
func TestReloadKeepsCounts(t *testing.T) {
	t.Parallel()
	states := policy.NewStates()
	generation := func(policies string, commit bool) []policy.Policy {
		t.Helper()
		c, err := config.Parse(config.File{Name: "m.yaml", Data: []byte("listeners: {web: {address: ':0'}}\nroutes: {r: {match: /r, respond: 200, policies: " + policies + "}}")})
		if err != nil {
			t.Fatal(err)
		}
		g := states.Begin()
		tables, problems := Compile(Source{Config: c, Policies: g, Metrics: observe.NewMetrics()})
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		if commit {
			g.Commit()
		} else {
			g.Abort()
		}
		if chain := tables.sites["web"].chains; chain != nil {
			return chain[0].policies
		}
		return nil
	}
	ask := func(chain []policy.Policy) bool {
		x := &policy.Exchange{Head: &h1.Request{}, Now: 5e9}
		for _, p := range chain {
			if p.Request(x) != policy.Continue {
				return false
			}
		}
		return true
	}
	first := generation(`[{rate_limit: 2/h}]`, true)
	for _, want := range []bool{true, true, false} {
		if ask(first) != want {
			t.Fatal("the limit is not 2")
		}
	}
	if ask(generation(`[{cors: "*"}, {rate_limit: 2/h}]`, true)) {
		t.Error("the count was lost when a policy was added")
	}
	if ask(generation(`[{rate_limit: {rate: 2/h, headers: off}}]`, true)) {
		t.Error("the count was lost when a setting changed")
	}
	generation(`[]`, false)
	if states.Len() != 1 {
		t.Error("an aborted generation changed what is held")
	}
	generation(`[]`, true)
	if states.Len() != 0 {
		t.Error("the state of a limit that is gone is held")
	}
	if !ask(generation(`[{rate_limit: 2/h}]`, true)) {
		t.Error("a limit that was gone remembers")
	}
}

// slow is a policy that waits, as one that asks another server does.
type slow struct{ started, release chan struct{} }

func (s slow) Request(x *policy.Exchange) policy.Outcome {
	if string(x.Path) != "/slow" {
		return policy.Continue
	}
	ctx, cancel := x.Context()
	defer cancel()
	close(s.started)
	select {
	case <-s.release:
		return x.Answer(202, []byte("late"))
	case <-ctx.Done():
		return x.Refuse(fault.New(fault.Forbidden, "too late"))
	}
}

func TestAWaitingPolicyHoldsUpNobody(t *testing.T) {
	t.Parallel()
	s := slow{make(chan struct{}), make(chan struct{})}
	g := openChanged(t, func(tables *Tables) { tables.sites["web"].chains[0].policies[0] = s },
		"listeners: {web: {address: '127.0.0.1:0', policies: [{cors: '*'}]}}\nroutes: {all: {match: /*, respond: 200}}")
	late := g.dial()
	late.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-s.started
	for range 10 {
		if resp, _ := g.ask("GET", "/fast"); resp.StatusCode != 200 {
			t.Fatal(resp.StatusCode)
		}
	}
	close(s.release)
	if resp, body := late.get("GET"); resp.StatusCode != 202 || body != "late" {
		t.Fatal(resp.StatusCode, body)
	}
}

func TestConsumerInAccessRecord(t *testing.T) {
	t.Parallel()
	g := open(t, "listeners: {web: {address: '127.0.0.1:0'}}\nroutes: {all: {match: /*, respond: 200, policies: [{api_key: bearer}]}}\nconsumers: {app: {api_keys: k}}")
	g.ask("GET", "/", "Authorization: Bearer k")
	g.afterwards = append(g.afterwards, func(log string) {
		if !strings.Contains(log, `"consumer":"app"`) || strings.Contains(log, "Bearer") {
			t.Errorf("access log: %s", log)
		}
	})
}

// The schema that the command prints knows every kind, and refuses what the kinds refuse.
func TestPolicySchema(t *testing.T) {
	t.Parallel()
	validate, err := configtest.Validator(PolicyKinds()...)
	if err != nil {
		t.Fatal(err)
	}
	f := func(entry string, want bool) {
		t.Helper()
		c, err := config.Parse(config.File{Name: "m.yaml", Data: []byte("policies: {a: [" + entry + "]}")})
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(c.Node().JSON()); (err == nil) != want {
			t.Errorf("%s: %v", entry, err)
		}
	}
	f(`{cors: "*"}`, true)
	f(`{cors: {origins: ["*"], max_age: 5m}}`, true)
	f(`{cors: {}}`, false)
	f(`{cors: {orgins: "*"}}`, false)
	f(`{coors: "*"}`, false)
	f(`{rate_limit: 10/s}`, true)
	f(`{rate_limit: {rate: 10/s, key: consumer}}`, true)
	f(`{rate_limit: fast}`, false)
	f(`{api_key: bearer}`, true)
	f(`{api_key: {}}`, true)
	f(`{headers: {request: {set: {X-A: b}}}}`, true)
	f(`{headers: {requests: {}}}`, false)
}

// How long does a reload take with 10,000 routes that have policies, of their own and from a list?
func BenchmarkCompilePolicies(b *testing.B) {
	var text strings.Builder
	text.WriteString("listeners: {web: {address: ':0', policies: [edge]}}\npolicies: {edge: [{cors: '*'}], limits: [{rate_limit: 10/s}, {headers: {response: {set: {X-A: b}}}}]}\nroutes:\n")
	for i := range 10000 {
		fmt.Fprintf(&text, "  r%d: {match: '/r%d/{id}', respond: 200, policies: [limits, {rate_limit: 5/m}, {headers: {request: {set: {X-Id: '{path.id}'}}}}]}\n", i, i)
	}
	c, err := config.Parse(config.File{Name: "m.yaml", Data: []byte(text.String())})
	if err != nil {
		b.Fatal(err)
	}
	states := policy.NewStates()
	b.ReportAllocs()
	for b.Loop() {
		g := states.Begin()
		if _, problems := Compile(Source{Config: c, Policies: g, Metrics: observe.NewMetrics()}); len(problems) > 0 {
			b.Fatal(problems)
		}
		g.Commit()
	}
}

// What do policies add to a request? Each is asked alone, and the four together, on a request that passes.
func BenchmarkChain(b *testing.B) {
	_, tables, problems := compilePolicies(`
listeners: {web: {address: ":0"}}
routes:
  r:
    match: /*
    respond: 200
    policies:
      - cors: "https://shop.example"
      - api_key: {}
      - rate_limit: {rate: 1000000/s, key: consumer}
      - headers: {request: {set: {X-A: "1"}, remove: [X-Internal]}, response: {set: {X-B: "2"}}}
consumers: {app: {groups: [a], api_keys: [k]}}
`)
	if len(problems) > 0 {
		b.Fatal(problems)
	}
	x := &exchange{conn: &conn{Entry: listener.Entry{Listener: &listener.Listener{}}}}
	x.site = tables.sites["web"]
	head := []byte("GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://shop.example\r\nX-API-Key: k\r\nUser-Agent: b\r\nAccept: */*\r\n\r\n")
	if _, err := x.request.Parse(head, x.site.limits); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	x.began = 1e9
	for b.Loop() {
		x.began += poll.Instant(time.Microsecond)
		if done, f := x.police(0); done || f != nil {
			b.Fatal(f)
		}
	}
}
