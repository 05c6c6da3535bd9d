package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const example = `
listeners:
  web: {address: ":8080"}
  few: {address: ":8081", routes: [ping]}
  sql: {address: ":3306", protocol: mysql}
services:
  users: {endpoints: ["10.0.0.1:9001", {address: "10.0.0.2:9001", weight: 2, labels: {zone: a}}]}
  idle: {endpoints: ["10.0.0.3:9001"], balance: random}
routes:
  users: {match: {paths: [/users/*], headers: {X-Token: "${file:token}"}}, split: {users: 100%}}
  ping: {match: "GET /ping", respond: {status: 200, body: "<pong> & more"}}
  inline: {match: "~^/in<x>&$", service: {endpoints: ["10.0.0.9:1"]}}
databases:
  shop:
    login: {user: menshen, password: hunter2}
    shards: {s0: {primary: "10.0.1.1:3306", schema: shop_0}}
  shop2:
    login: {user: menshen, password: hunter2}
    shards: {only: {primary: "10.0.1.2:3306"}}
consumers:
  app: {mysql: {password: "${file:token}"}}
admin: 127.0.0.1:9901
`

const secret = "s3cr3t-t0ken"

// fakeGateway stands in for app: it parses for real and serves nothing.
type fakeGateway struct {
	dir string
	sql fakeSQL

	mu      sync.Mutex
	current Current
	reasons []string
	fail    error // what the environment says to the next Apply
	source  string
}

func newGateway(t *testing.T) *fakeGateway {
	t.Helper()
	g := &fakeGateway{dir: t.TempDir(), source: example}
	if err := os.WriteFile(g.dir+"/token", []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Apply(t.Context(), []byte(example), false); err != nil {
		t.Fatal(err)
	}
	g.current.Source = "/etc/menshen.yaml"
	return g
}

func (g *fakeGateway) Current() Current {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.current
}

func (g *fakeGateway) Ready() (bool, []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.reasons) == 0, g.reasons
}

func (g *fakeGateway) Apply(_ context.Context, yaml []byte, dryRun bool) (Current, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c, err := config.Parse(config.File{Name: g.dir + "/menshen.yaml", Data: yaml})
	if err == nil {
		err = g.fail
	}
	next := g.current
	if err == nil {
		next.Config = c
	}
	if dryRun {
		return next, err
	}
	next.LastReload = Reload{At: time.Date(2026, 11, 22, 12, 31, 5, 0, time.FixedZone("", 3600)), Err: err}
	if err == nil {
		next.Generation++
		next.LoadedAt, next.Source = next.LastReload.At, "admin API"
	}
	g.current = next
	if err != nil {
		return next, fmt.Errorf("apply: %w", err)
	}
	return next, nil
}

func (g *fakeGateway) Reload(ctx context.Context) (Current, error) {
	return g.Apply(ctx, []byte(g.source), false)
}

func (g *fakeGateway) Upstreams() []upstream.SetStatus {
	since := time.Date(2026, 11, 22, 12, 0, 0, 0, time.FixedZone("", 3600))
	return []upstream.SetStatus{
		{Name: "databases.shop", Balance: "round_robin", Available: 1, Total: 1, Endpoints: []upstream.EndpointStatus{
			{Address: "10.0.1.1:3306", Weight: 1, Healthy: true, Reason: "no active checks", Since: since, Active: 2}}},
		{Name: "routes.inline.service", Balance: "round_robin", Endpoints: []upstream.EndpointStatus{{Address: "10.0.0.9:1", Weight: 1}}},
		{Name: "users", Balance: "round_robin", Available: 1, Total: 2, Panic: true, NoEndpoint: 3, Limited: 4, RetriesAllowed: 5, RetriesRejected: 6, PanicPicks: 7,
			Endpoints: []upstream.EndpointStatus{
				{Address: "10.0.0.1:9001", Weight: 1, Healthy: true, Reason: "active: passed (9 in a row)", Since: since, LastCheck: since,
					Latency: 1500 * time.Microsecond, Requests: 10, Failures: 1, Checks: 9},
				{Address: "10.0.0.2:9001", Weight: 2, Labels: map[string]string{"zone": "a"}, Ejected: true, Since: since,
					Reason: "ejected for 20s: 5 failures in a row", Ejections: 2},
			}},
	}
}

// server runs the API over a real socket.
func server(t *testing.T, g *fakeGateway) string {
	t.Helper()
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "menshen_config_generation 1") })
	s := httptest.NewServer(New(Options{Gateway: g, Metrics: metrics, Log: slog.New(slog.DiscardHandler)}))
	t.Cleanup(s.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return s.URL
}

type reply struct {
	*http.Response
	body string
}

// ask sends a request; headers are "Name: value".
func ask(t *testing.T, method, url, body string, headers ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
		if name == "Host" {
			r.Host = value
		}
	}
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	data, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{w, string(data)}
}

// decode reads a JSON answer, refusing what the view does not name.
func decode[T any](t *testing.T, r reply, status int) (v T) {
	t.Helper()
	if r.StatusCode != status {
		t.Fatalf("%s: %s", r.Status, r.body)
	}
	want := "application/json"
	if status >= 400 {
		want = "application/problem+json"
	}
	if got := r.Header.Get("Content-Type"); got != want {
		t.Errorf("content type %s, want %s", got, want)
	}
	d := json.NewDecoder(strings.NewReader(r.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	return v
}

func TestEveryEndpoint(t *testing.T) {
	t.Parallel()
	url := server(t, newGateway(t))
	f := func(method, path string, status int, allow, contains string) {
		t.Helper()
		r := ask(t, method, url+path, "")
		if r.StatusCode != status || r.Header.Get("Allow") != allow || !strings.Contains(r.body, contains) {
			t.Errorf("%s %s: %s, Allow: %s\n%s", method, path, r.Status, r.Header.Get("Allow"), r.body)
		}
		if r.Header.Get("X-Content-Type-Options") != "nosniff" || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: %v", method, path, r.Header)
		}
		if strings.Contains(r.body, secret) || strings.Contains(r.body, "hunter2") {
			t.Errorf("%s %s shows a secret:\n%s", method, path, r.body)
		}
		if status >= 400 {
			p := decode[problem](t, r, status)
			if p.Type != "about:blank" || p.Title != http.StatusText(status) || p.Status != status || p.Detail == "" {
				t.Errorf("%s %s: %+v", method, path, p)
			}
		}
	}
	for path, contains := range map[string]string{
		"/": "/api/v1/services", "/healthz": `"ok"`, "/readyz": `"ready"`, "/metrics": "menshen_config_generation",
		"/api/v1/services": "ejected for 20s", "/api/v1/routes": "/ping", "/api/v1/databases": "shop_0",
	} {
		f("GET", path, 200, "", contains)
		f("GET", path+"?x=1", 200, "", contains)
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"} {
			f(method, path, 405, "GET, HEAD", "takes GET, HEAD")
		}
	}
	f("GET", "/api/v1/config", 200, "", `"generation": 1`)
	f("DELETE", "/api/v1/config", 405, "GET, HEAD, POST", "takes")
	f("GET", "/api/v1/reload", 405, "POST", "takes POST")
	f("POST", "/api/v1/reload", 200, "", `"generation": 2`)
	for _, path := range []string{"/nothing", "/healthz/", "/api", "/api/v1", "/api/v1/routes/users", "//healthz", "/HEALTHZ", "/%68ealthz/x"} {
		f("GET", path, 404, "", "nothing is at")
		f("POST", path, 404, "", "nothing is at")
	}
}

func TestHead(t *testing.T) {
	t.Parallel()
	url := server(t, newGateway(t))
	for _, path := range []string{"/", "/healthz", "/readyz", "/api/v1/config", "/api/v1/services", "/api/v1/routes", "/api/v1/databases", "/nothing"} {
		get, head := ask(t, "GET", url+path, ""), ask(t, "HEAD", url+path, "")
		if head.StatusCode != get.StatusCode || head.body != "" || head.ContentLength != int64(len(get.body)) ||
			head.Header.Get("Content-Type") != get.Header.Get("Content-Type") {
			t.Errorf("%s: %s, %d bytes announced, %d in GET", path, head.Status, head.ContentLength, len(get.body))
		}
	}
}

func TestIndexListsEveryEndpoint(t *testing.T) {
	t.Parallel()
	r := ask(t, "GET", server(t, newGateway(t))+"/", "")
	for _, line := range []string{"GET, HEAD        /healthz ", "GET, HEAD        /readyz ", "GET, HEAD        /metrics ", "GET, HEAD, POST  /api/v1/config ",
		"POST             /api/v1/reload ", "GET, HEAD        /api/v1/services ", "GET, HEAD        /api/v1/routes ", "GET, HEAD        /api/v1/databases "} {
		if !strings.Contains(r.body, "\n"+line) {
			t.Errorf("no %q in\n%s", line, r.body)
		}
	}
}

func TestNoMetrics(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	New(Options{Gateway: newGateway(t)}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 404 {
		t.Error(w.Code)
	}
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	url := server(t, g)
	g.mu.Lock()
	g.reasons = []string{"draining", "listener sql is not open"}
	g.mu.Unlock()
	r := ask(t, "GET", url+"/readyz", "")
	var v notReady
	if err := json.Unmarshal([]byte(r.body), &v); err != nil || r.StatusCode != 503 || v.Status != "not ready" || len(v.Reasons) != 2 || v.Reasons[0] != "draining" {
		t.Errorf("%s %s", r.Status, r.body)
	}
	if r := ask(t, "GET", url+"/healthz", ""); r.StatusCode != 200 {
		t.Errorf("alive: %s", r.Status)
	}
}

func TestServices(t *testing.T) {
	t.Parallel()
	type services struct {
		Generation uint64
		Services   []serviceView
	}
	v := decode[services](t, ask(t, "GET", server(t, newGateway(t))+"/api/v1/services", ""), 200)
	if v.Generation != 1 || len(v.Services) != 3 {
		t.Fatalf("%+v", v)
	}
	idle, inline, users := v.Services[0], v.Services[1], v.Services[2]
	if idle.Name != "idle" || idle.Balance != "random" || idle.Endpoints == nil || len(idle.Endpoints) != 0 {
		t.Errorf("%+v", idle)
	}
	if inline.Name != "routes.inline.service" || len(inline.Endpoints) != 1 {
		t.Errorf("%+v", inline)
	}
	if users.Available != 1 || users.Total != 2 || !users.Panic || users.Counters != (counters{3, 4, 7, 5, 6}) {
		t.Errorf("%+v", users)
	}
	good, bad := users.Endpoints[0], users.Endpoints[1]
	if !good.Healthy || good.LatencyMS != 1.5 || good.Reason != "active: passed (9 in a row)" || good.Requests != 10 || good.Failures != 1 ||
		good.Checks != 9 || good.LastCheck == nil || good.Since.Format(time.RFC3339) != "2026-11-22T11:00:00Z" {
		t.Errorf("%+v", good)
	}
	if bad.Healthy || !bad.Ejected || bad.Weight != 2 || bad.Labels["zone"] != "a" || bad.LastCheck != nil || bad.Ejections != 2 {
		t.Errorf("%+v", bad)
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	type routes struct {
		Generation uint64
		Routes     []map[string]any
	}
	r := ask(t, "GET", server(t, newGateway(t))+"/api/v1/routes", "")
	v := decode[routes](t, r, 200)
	if v.Generation != 1 || len(v.Routes) != 3 {
		t.Fatalf("%+v", v)
	}
	f := func(i int, key, want string) {
		t.Helper()
		if got := fmt.Sprint(v.Routes[i][key]); got != want {
			t.Errorf("route %d, %s: %s, want %s", i, key, got, want)
		}
	}
	f(0, "name", "inline")
	f(0, "service", "routes.inline.service")
	f(0, "listeners", "[web]")
	f(1, "name", "ping")
	f(1, "match", "GET /ping")
	f(1, "respond", "map[body:<pong> & more status:200]")
	f(1, "listeners", "[few web]")
	f(2, "name", "users")
	f(2, "split", "map[users:100%]")
	f(2, "match", "map[headers:map[X-Token:${file:token}] paths:[/users/*]]")
	if !strings.Contains(r.body, "<pong> & more") {
		t.Errorf("escaped for HTML:\n%s", r.body)
	}
}

func TestDatabases(t *testing.T) {
	t.Parallel()
	type databases struct {
		Generation uint64
		Databases  []databaseView
	}
	v := decode[databases](t, ask(t, "GET", server(t, newGateway(t))+"/api/v1/databases", ""), 200)
	if v.Generation != 1 || len(v.Databases) != 2 {
		t.Fatalf("%+v", v)
	}
	s0, only := v.Databases[0].Shards[0], v.Databases[1].Shards[0]
	if s0.Name != "s0" || s0.Schema != "shop_0" || !s0.Primary.Healthy || s0.Primary.Active != 2 || s0.Primary.Address != "10.0.1.1:3306" {
		t.Errorf("%+v %+v", s0, s0.Primary)
	}
	// shop's set must not be taken for shop2's, whose name begins alike.
	if only.Schema != "shop2" || only.Primary.Healthy || only.Primary.Address != "10.0.1.2:3306" || only.Primary.Reason != "not in service" {
		t.Errorf("%+v %+v", only, only.Primary)
	}
}

func TestGetConfig(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	url := server(t, g)
	r := ask(t, "GET", url+"/api/v1/config", "")
	v := decode[configView](t, r, 200)
	if v.Generation != 1 || v.SHA256 != g.current.Config.SHA256() || v.Source != "/etc/menshen.yaml" ||
		v.LoadedAt.Format(time.RFC3339) != "2026-11-22T11:31:05Z" || v.LastReload == nil || !v.LastReload.OK || v.LastReload.Problems == nil {
		t.Errorf("%+v", v)
	}
	if r.Header.Get("ETag") != `"`+v.SHA256+`"` || r.Header.Get("Vary") != "Accept" {
		t.Errorf("%v", r.Header)
	}
	var c struct {
		Listeners map[string]struct{ Protocol string }
		Databases map[string]struct {
			Login struct{ User, Password string }
		}
		Consumers map[string]struct{ MySQL struct{ Password string } }
	}
	if err := json.Unmarshal(v.Config, &c); err != nil {
		t.Fatal(err)
	}
	if c.Listeners["web"].Protocol != "http" || c.Databases["shop"].Login.User != "menshen" || c.Databases["shop"].Login.Password != "***" ||
		c.Consumers["app"].MySQL.Password != "${file:token}" {
		t.Errorf("%+v", c)
	}
	r = ask(t, "GET", url+"/api/v1/config", "", "Accept: application/yaml")
	if r.Header.Get("Content-Type") != "application/yaml" || !strings.HasPrefix(r.body, "listeners:\n") || strings.Contains(r.body, secret) || strings.Contains(r.body, "hunter2") {
		t.Errorf("%v %s", r.Header, r.body)
	}
}

func TestWantsYAML(t *testing.T) {
	t.Parallel()
	f := func(want bool, accept ...string) {
		t.Helper()
		if wantsYAML(accept) != want {
			t.Errorf("%q: want %v", accept, want)
		}
	}
	f(false)
	f(false, "")
	f(false, "*/*")
	f(true, "application/yaml")
	f(true, "text/yaml; charset=utf-8, */*;q=0.1")
	f(true, "text/html", "application/x-yaml")
	f(false, "application/json, application/yaml")
	f(true, "application/yaml, application/json")
	f(true, "application/json;q=0.5, application/yaml;q=0.9")
	f(false, "application/yaml;q=0")
	f(false, "application/yaml;q=x", ",;,", "/")
	f(false, "application/yamlish")
}

func TestApply(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	url := server(t, g)
	changed := strings.Replace(example, "balance: random", "balance: hash", 1)
	f := func(query string, want appliedView) {
		t.Helper()
		v := decode[appliedView](t, ask(t, "POST", url+"/api/v1/config"+query, changed, "Content-Type: application/yaml"), 200)
		if v.Generation != want.Generation || v.DryRun != want.DryRun || len(v.SHA256) != 64 || len(v.Changes) != len(want.Changes) {
			t.Fatalf("got %+v, want %+v", v, want)
		}
		for i, c := range want.Changes {
			if !strings.HasPrefix(v.Changes[i].Path, c.Path) || !strings.Contains(v.Changes[i].Before, c.Before) || !strings.Contains(v.Changes[i].After, c.After) {
				t.Errorf("got %+v, want %+v", v.Changes[i], c)
			}
		}
	}
	one := []changeView{{"services.idle.balance", "random", "hash"}}
	for _, query := range []string{"?dry_run=1", "?dry_run=true", "?dry_run"} {
		f(query, appliedView{Generation: 1, DryRun: true, Changes: one})
	}
	f("", appliedView{Generation: 2, Changes: one})
	f("?dry_run=0", appliedView{Generation: 3})
	if v := decode[configView](t, ask(t, "GET", url+"/api/v1/config", ""), 200); v.Source != "admin API" || v.Generation != 3 {
		t.Errorf("%+v", v)
	}
	if v := decode[appliedView](t, ask(t, "POST", url+"/api/v1/reload", ""), 200); v.Generation != 4 || len(v.Changes) != 1 || !strings.HasPrefix(v.Changes[0].Path, "services.idle.balance") {
		t.Errorf("%+v", v)
	}
	for _, kind := range []string{"", "application/json", "application/x-www-form-urlencoded", "text/yaml; charset=utf-8", "application/octet-stream", "text/plain"} {
		if r := ask(t, "POST", url+"/api/v1/config?dry_run=1", changed, "Content-Type: "+kind); r.StatusCode != 200 {
			t.Errorf("%s: %s", kind, r.body)
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	url := server(t, g)
	f := func(path, body string, status int, contains string, headers ...string) problem {
		t.Helper()
		p := decode[problem](t, ask(t, "POST", url+path, body, headers...), status)
		if !strings.Contains(p.Detail, contains) {
			t.Errorf("%s: %+v", path, p)
		}
		if g.Current().Generation != 1 {
			t.Fatalf("%s changed something", path)
		}
		return p
	}
	const api = "/api/v1/config"
	wrong := strings.NewReplacer("balance: random", "balanse: random", "status: 200,", "status: 2000,").Replace(example)
	for _, path := range []string{api + "?dry_run=1", api} {
		p := f(path, wrong, 422, "the configuration has 2 problems; generation 1 goes on serving")
		if len(p.Problems) != 2 || p.Problems[0].Line != 8 || p.Problems[0].Column == 0 || p.Problems[0].Path != "services.idle.balanse" ||
			!strings.Contains(p.Problems[0].Message, "balance") || !strings.HasSuffix(p.Problems[0].File, "/menshen.yaml") {
			t.Errorf("%+v", p)
		}
	}
	v := decode[configView](t, ask(t, "GET", url+api, ""), 200)
	if v.LastReload.OK || len(v.LastReload.Problems) != 2 || v.LastReload.Error != "" || v.LastReload.Time.IsZero() || v.Generation != 1 {
		t.Errorf("%+v", v.LastReload)
	}
	f(api, "", 422, "1 problem;")
	f(api, "{", 422, "problem")
	f(api+"?dryrun=1", example, 400, "did you mean dry_run?")
	f(api+"?force=1", example, 400, `unknown parameter "force"`)
	f(api+"?dry_run=yes", example, 400, `dry_run="yes" (1, true, 0 and false are accepted)`)
	f(api+"?dry_run=1&dry_run=0", example, 400, "more than once")
	f(api+"?a=%zz", example, 400, "cannot be read")
	f(api+"?dry_run=1;x", example, 400, "cannot be read")
	f("/api/v1/reload?dry_run=1", "", 400, `unknown parameter "dry_run"`)
	f(api, example, 415, `"multipart/form-data; boundary=x"`, "Content-Type: multipart/form-data; boundary=x")
	f(api, example, 415, `accepted`, "Content-Type: nonsense/")
	f(api, strings.Repeat("#", bodyBytesMax+1), 413, "larger than 16 MiB")

	g.mu.Lock()
	g.fail = errors.New("listen tcp :8080: address already in use")
	g.mu.Unlock()
	f(api, example, 409, "address already in use; generation 1 goes on serving")
	f("/api/v1/reload", "", 409, "address already in use")
	v = decode[configView](t, ask(t, "GET", url+api, ""), 200)
	if v.LastReload.OK || len(v.LastReload.Problems) != 0 || !strings.Contains(v.LastReload.Error, "address already in use") {
		t.Errorf("%+v", v.LastReload)
	}
}

// A body that breaks off must not be applied, although what came is a whole configuration.
func TestBrokenBodyIsNotApplied(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	url := server(t, g)
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /api/v1/config HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(example), example)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil {
		defer r.Body.Close()
		if r.StatusCode != 400 {
			t.Error(r.Status)
		}
	}
	if g.Current().Generation != 1 {
		t.Error("applied")
	}
}

func TestCrossSiteRequestsAreRefused(t *testing.T) {
	t.Parallel()
	url := server(t, newGateway(t)) // on 127.0.0.1
	host := strings.TrimPrefix(url, "http://")
	_, port, _ := net.SplitHostPort(host)
	f := func(status int, headers ...string) {
		t.Helper()
		for _, path := range []string{"/api/v1/reload", "/api/v1/config?dry_run=1"} {
			r := ask(t, "POST", url+path, example, headers...)
			if r.StatusCode != status {
				t.Errorf("%s %q: %s %s", path, headers, r.Status, r.body)
			}
		}
		if r := ask(t, "GET", url+"/api/v1/services", "", headers...); r.StatusCode != 200 {
			t.Errorf("reading with %q: %s", headers, r.Status)
		}
	}
	f(200) // curl
	f(200, "Host: menshen.example")
	f(200, "Origin: http://"+host, "Sec-Fetch-Site: same-origin")
	f(200, "Origin: http://"+host)
	f(200, "Sec-Fetch-Site: none")
	f(200, "Origin: http://localhost:"+port, "Host: localhost:"+port)
	f(200, "Origin: http://menshen.localhost:"+port, "Host: Menshen.localhost.:"+port, "Sec-Fetch-Site: same-origin")
	f(200, "Origin: http://[::1]:"+port, "Host: [::1]:"+port)
	f(403, "Origin: https://evil.example")
	f(403, "Origin: null")
	f(403, "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")
	f(403, "Sec-Fetch-Site: cross-site")
	f(403, "Sec-Fetch-Site: same-site")
	f(403, "Origin: http://"+host+"0")
	// evil.example was rebound to 127.0.0.1: to the browser all is of one site.
	f(403, "Origin: http://evil.example:"+port, "Host: evil.example:"+port)
	f(403, "Origin: http://evil.example:"+port, "Host: evil.example:"+port, "Sec-Fetch-Site: same-origin")
	f(403, "Origin: http://localhost.evil.example", "Host: localhost.evil.example")
}

func TestChangesAreBounded(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	a := New(Options{Gateway: newGateway(t), Log: slog.New(slog.NewTextHandler(&logged, nil))}).(*api)
	for range changesMax {
		a.changes <- struct{}{}
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequest("POST", "/api/v1/reload", nil))
	if w.Code != 503 || w.Header().Get("Retry-After") != "1" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	<-a.changes
	w = httptest.NewRecorder()
	a.ServeHTTP(w, httptest.NewRequest("POST", "/api/v1/reload", nil))
	if w.Code != 200 || len(a.changes) != changesMax-1 || !strings.Contains(logged.String(), "admin: reload") {
		t.Errorf("%d, %d in progress, log: %s", w.Code, len(a.changes), logged.String())
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	url := server(t, g)
	var group sync.WaitGroup
	for i := range changesMax {
		group.Go(func() {
			for range 5 {
				body := strings.Replace(example, "10.0.0.3:9001", fmt.Sprintf("10.0.0.3:%d", 9100+i), 1)
				if r := ask(t, "POST", url+"/api/v1/config", body); r.StatusCode != 200 {
					t.Errorf("%s: %s", r.Status, r.body)
				}
				for _, path := range []string{"/api/v1/config", "/api/v1/routes", "/api/v1/services", "/readyz"} {
					if r := ask(t, "GET", url+path, ""); r.StatusCode != 200 {
						t.Errorf("%s: %s", path, r.Status)
					}
				}
			}
		})
	}
	group.Wait()
	if n := g.Current().Generation; n != 1+5*changesMax {
		t.Errorf("generation %d", n)
	}
}
