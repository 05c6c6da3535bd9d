package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// records reads an access log of n records.
func records(t testing.TB, path string, n int) []map[string]any {
	t.Helper()
	var all []map[string]any
	testenv.Eventually(t, deadline, func() error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		all = nil
		for line := range strings.Lines(string(text)) {
			var r map[string]any
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				return fmt.Errorf("%q: %v", line, err)
			}
			all = append(all, r)
		}
		if len(all) < n {
			return fmt.Errorf("%d records, want %d", len(all), n)
		}
		return nil
	})
	if len(all) > n {
		t.Fatalf("%d records, want %d: %v", len(all), n, all)
	}
	return all
}

// One record for each request, with the documented fields, and metrics that count the same.
func TestRecordsAndMetrics(t *testing.T) {
	t.Parallel()
	n := testenv.Nginx(t, testenv.NginxConf{})
	dead := testenv.FreeAddress(t)
	log := filepath.Join(testenv.Dir(t), "access.log")
	g := start(t, fmt.Sprintf(`
admin: "127.0.0.1:0"
access_log: %s
listeners:
  web: {address: "127.0.0.1:0"}
  raw: {address: "127.0.0.1:0", protocol: tcp, service: pages}
services:
  pages: {endpoints: [%q]}
  dead:  {endpoints: [%q], retry: 0}
routes:
  pages: {match: /*, service: pages}
  dead:  {match: /dead, service: dead}
  ping:  {match: GET /ping, respond: {body: pong}}
  away:  {match: /away, redirect: https://a.example/}
`, log, n.Address, dead))
	c := client(t)
	ask := func(method, path, body string, header ...string) *http.Response {
		t.Helper()
		req, err := http.NewRequest(method, g.url("web", path), strings.NewReader(body))
		must(t, err)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		req.Host = "shop.example"
		resp, err := c.Do(req)
		must(t, err)
		drain(t, resp)
		return resp
	}
	given := ask("GET", "/10k?secret=1", "", "X-Request-Id", "given-by-me", "User-Agent", "tester/1")
	made := ask("PUT", "/files/a", "0123456789")
	ask("GET", "/ping", "")
	ask("POST", "/ping", "")
	ask("GET", "/away", "")
	ask("GET", "/dead", "")
	ask("HEAD", "/10k", "")
	ask("GET", "/status/503", "")
	raw := client(t)
	raw.Transport.(*http.Transport).DisableKeepAlives = true
	fetch(t, raw, g.url("raw", "/100"))

	if id := given.Header.Get("X-Request-Id"); id != "given-by-me" {
		t.Errorf("the request's id comes back as %q", id)
	}
	id := made.Header.Get("X-Request-Id")
	if len(id) < 16 {
		t.Errorf("a request without an id gets %q", id)
	}
	all := records(t, log, 9)
	find := func(want map[string]any) {
		t.Helper()
		i := slices.IndexFunc(all, func(r map[string]any) bool {
			return r["method"] == want["method"] && r["path"] == want["path"] && r["door"] == want["door"]
		})
		if i < 0 {
			t.Errorf("no record of %v", want)
			return
		}
		r := all[i]
		for field, value := range want {
			if fmt.Sprint(r[field]) != fmt.Sprint(value) {
				t.Errorf("%s %s: %s is %v, want %v", want["method"], want["path"], field, r[field], value)
			}
		}
		for _, field := range []string{"time", "listener", "client_address", "duration_ms", "bytes_in", "bytes_out", "generation"} {
			if r[field] == nil {
				t.Errorf("%s %s: no %s in %v", want["method"], want["path"], field, r)
			}
		}
		if total, upstream := r["duration_ms"].(float64), r["upstream_ms"]; upstream != nil && (upstream.(float64) > total || total > 60000) {
			t.Errorf("%v: upstream_ms %v, duration_ms %v", want, upstream, total)
		}
	}
	find(map[string]any{"door": "http", "listener": "web", "client_address": "127.0.0.1", "method": "GET", "host": "shop.example", "path": "/10k", "protocol": "HTTP/1.1", "user_agent": "tester/1",
		"request_id": "given-by-me", "route": "pages", "service": "pages", "endpoint": n.Address, "status": 200, "retries": 0, "generation": 1})
	find(map[string]any{"door": "http", "method": "PUT", "path": "/files/a", "status": 201, "request_id": id})
	find(map[string]any{"door": "http", "method": "GET", "path": "/ping", "route": "ping", "status": 200, "service": nil, "endpoint": nil, "upstream_ms": nil})
	find(map[string]any{"door": "http", "method": "POST", "path": "/ping", "status": 404, "route": "pages"})
	find(map[string]any{"door": "http", "method": "GET", "path": "/away", "route": "away", "status": 302})
	find(map[string]any{"door": "http", "method": "GET", "path": "/dead", "route": "dead", "service": "dead", "endpoint": dead, "status": 502, "fault": "connect_failed"})
	find(map[string]any{"door": "http", "method": "HEAD", "path": "/10k", "status": 200})
	find(map[string]any{"door": "http", "method": "GET", "path": "/status/503", "status": 503, "fault": nil})
	find(map[string]any{"door": "tcp", "listener": "raw", "service": "pages", "endpoint": n.Address, "method": nil, "path": nil})
	if text := read(t, log); strings.Contains(text, "secret") {
		t.Error("the query string is in the access log")
	}

	// Counters are gathered for a moment; then they agree with the records.
	want := map[string]float64{
		`menshen_http_requests_total{code="200",route="pages",service="pages"}`: 2,
		`menshen_http_requests_total{code="201",route="pages",service="pages"}`: 1,
		`menshen_http_requests_total{code="404",route="pages",service="pages"}`: 1,
		`menshen_http_requests_total{code="503",route="pages",service="pages"}`: 1,
		`menshen_http_requests_total{code="502",route="dead",service="dead"}`:   1,
		`menshen_http_faults_total{fault="connect_failed",route="dead"}`:        1,
		`menshen_http_request_duration_seconds_count{route="pages"}`:            5,
		`menshen_connections_accepted_total{listener="raw"}`:                    1,
		`menshen_connections_accepted_total{listener="web"}`:                    1,
		`menshen_connections_open{listener="web"}`:                              1,
		`menshen_access_log_records_total`:                                      9,
		`menshen_access_log_dropped_total`:                                      0,
		`menshen_reloads_total{result="success"}`:                               1,
		`menshen_config_generation`:                                             1,
	}
	testenv.Eventually(t, deadline, func() error {
		now := g.metrics()
		for name, value := range want {
			if got, found := now[name]; !found || got != value {
				return fmt.Errorf("%s is %v (%t), want %v", name, got, found, value)
			}
		}
		return nil
	})

	// logrotate: the file is moved away, SIGHUP opens a new one.
	must(t, os.Rename(log, log+".1"))
	g.hup()
	ask("GET", "/ping", "")
	records(t, log, 1)
	records(t, log+".1", 9)
}

// Records are on standard output by default; the ready line is there too, before them.
func TestRecordsOnStdout(t *testing.T) {
	t.Parallel()
	g := start(t, "admin: 127.0.0.1:0\nlisteners: {web: {address: \"127.0.0.1:0\"}}\nroutes: {ping: {match: /ping, respond: 204}}\n")
	fetch(t, client(t), g.url("web", "/ping"))
	must(t, g.Signal(syscall.SIGTERM))
	ended(t, g, 0)
	lines := strings.Split(strings.TrimSpace(read(t, g.stdout)), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "menshen v0.0.0-test ready: admin=127.0.0.1:") || !json.Valid([]byte(lines[1])) {
		t.Errorf("standard output: %q", lines)
	}
}

// What is wrong with a request is in its record and in its answer, under the same id.
func TestRefusedRequestIsRecorded(t *testing.T) {
	t.Parallel()
	log := filepath.Join(testenv.Dir(t), "access.log")
	g := start(t, "admin: 127.0.0.1:0\naccess_log: "+log+"\nlisteners: {web: {address: \"127.0.0.1:0\"}}\nroutes: {ping: {match: GET /ping, respond: 204}}\n")
	for path, want := range map[string]int{"/nowhere": 404, "/ping/%00": 400} {
		resp, err := client(t).Get(g.url("web", path))
		must(t, err)
		var p struct {
			Status    int
			RequestID string `json:"request_id"`
		}
		status, body := drain(t, resp)
		if err := json.Unmarshal(body, &p); err != nil || status != want || p.Status != want || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", path, status, body)
		}
		if p.RequestID == "" || p.RequestID != resp.Header.Get("X-Request-Id") {
			t.Errorf("%s: the document has id %q, the header %q", path, p.RequestID, resp.Header.Get("X-Request-Id"))
		}
	}
	all := records(t, log, 2)
	for _, r := range all {
		if r["fault"] == nil || r["request_id"] == nil {
			t.Errorf("record %v", r)
		}
	}
}
