package test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// Policies in the whole binary: a limit goes on counting through reloads, whatever else they change; a policy that is
// wrong replaces nothing; a key is never shown.
func TestPoliciesThroughReloads(t *testing.T) {
	t.Parallel()
	site := testenv.Nginx(t, testenv.NginxConf{})
	log := filepath.Join(t.TempDir(), "access.log")
	config := func(edge, route string) string {
		return `
admin: "127.0.0.1:0"
access_log: {to: "` + log + `"}
listeners: {web: {address: "127.0.0.1:0", policies: [edge]}}
services: {site: {endpoints: ["` + site.Address + `"]}}
routes: {site: {match: /*, service: site, policies: [` + route + `]}}
consumers: {app: {groups: [a], api_keys: [a-plain-key]}}
policies: {edge: [` + edge + `]}
`
	}
	const cors, limit = `{cors: "https://shop.example"}`, `{api_key: {}}, {rate_limit: {rate: 4/h, key: consumer}}`
	g := start(t, config(cors, limit))
	ask := func(key string) *http.Response {
		t.Helper()
		q, err := http.NewRequest("GET", g.url("web", "/healthz"), nil)
		must(t, err)
		q.Header.Set("X-API-Key", key)
		q.Header.Set("Origin", "https://shop.example")
		resp, err := client(t).Do(q)
		must(t, err)
		drain(t, resp)
		if resp.Header.Get("Access-Control-Allow-Origin") != "https://shop.example" {
			t.Errorf("%d without CORS fields: %v", resp.StatusCode, resp.Header)
		}
		return resp
	}
	f := func(key string, want int) {
		t.Helper()
		if resp := ask(key); resp.StatusCode != want {
			t.Fatalf("%d, want %d: %v", resp.StatusCode, want, resp.Header)
		}
	}
	f("a-plain-key", 200)
	g.apply(config(cors+`, {headers: {response: {set: {X-A: b}}}}`, limit))
	f("a-plain-key", 200)
	f("wrong", 401)
	if status, body := g.post("/api/v1/config", config(cors, `{rate_limt: 1/h}`)); status != 422 || !strings.Contains(string(body), "rate_limit") {
		t.Errorf("a policy that is wrong: %d %s", status, body)
	}
	f("a-plain-key", 200)
	g.apply(config(cors, limit+`, {rate_limit: {rate: 100/h, scope: more}}`))
	f("a-plain-key", 200)
	f("a-plain-key", 429)
	if resp := ask("a-plain-key"); resp.Header.Get("Retry-After") == "" || resp.Header.Get("RateLimit") == "" {
		t.Errorf("%v", resp.Header)
	}
	_, shown := fetch(t, client(t), g.url("admin", "/api/v1/config"))
	if strings.Contains(string(shown), "a-plain-key") || !strings.Contains(string(shown), `"rate_limit"`) {
		t.Errorf("the configuration as it is shown: %s", shown)
	}
	consumers := map[any]int{}
	for _, record := range records(t, log, 7) {
		consumers[record["consumer"]]++
	}
	if consumers["app"] != 6 || consumers[nil] != 1 {
		t.Errorf("consumers in the access log: %v", consumers)
	}
}
