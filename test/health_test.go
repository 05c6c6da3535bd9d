package test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// endpoint is a part of GET /api/v1/services.
type endpoint struct {
	Address   string
	Healthy   bool
	Ejected   bool
	Reason    string
	Ejections int
	Checks    int
}

// endpoints asks for the state of a service's endpoints.
func (g *gateway) endpoints(service string) map[string]endpoint {
	g.t.Helper()
	var answer struct {
		Services []struct {
			Name      string
			Endpoints []endpoint
		}
	}
	g.admin("/api/v1/services", &answer)
	all := map[string]endpoint{}
	for _, s := range answer.Services {
		if s.Name == service {
			for _, e := range s.Endpoints {
				all[e.Address] = e
			}
		}
	}
	return all
}

// until waits until an endpoint is as it should be.
func (g *gateway) until(service, address, what string, is func(endpoint) bool) {
	g.t.Helper()
	testenv.Eventually(g.t, deadline, func() error {
		if e := g.endpoints(service)[address]; !is(e) {
			return fmt.Errorf("%s is not %s: %+v", address, what, e)
		}
		return nil
	})
}

// One of two nginx is stopped and started again under load. Nobody who GETs may notice: the request in hand is tried on the
// other, the failures eject the one that is down, and it takes traffic again when it is back.
func TestEndpointStopsAndComesBack(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]string{
		"passive": `outlier: {consecutive_failures: 3, ejection: 200ms, ejection_max: 400ms}`,
		"active":  `outlier: {consecutive_failures: 3, ejection: 1h, ejection_max: 1h}, health_check: {path: /healthz, interval: 50ms, rise: 1, fall: 2}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stays, goes := testenv.Nginx(t, testenv.NginxConf{Name: "stays"}), testenv.Nginx(t, testenv.NginxConf{Name: "goes"})
			g := start(t, fmt.Sprintf(`
admin: "127.0.0.1:0"
access_log: none
listeners: {web: {address: "127.0.0.1:0"}}
services:
  pages: {endpoints: [%q, %q], panic_threshold: 0%%, retry: {attempts: 1, budget: 100%%}, %s}
routes: {pages: {match: /*, service: pages}}
`, stays.Address, goes.Address, more))
			seen := map[string]*atomic.Int64{"stays": {}, "goes": {}}
			var load sync.WaitGroup
			quit := make(chan struct{})
			for range 3 {
				load.Go(func() {
					c := client(t)
					tick := time.NewTicker(2 * time.Millisecond)
					defer tick.Stop()
					for {
						select {
						case <-quit:
							return
						case <-tick.C:
						}
						resp, err := c.Get(g.url("web", "/100"))
						if err != nil {
							t.Errorf("GET: %v", err)
							return
						}
						if status, body := drain(t, resp); status != 200 || len(body) != 100 {
							t.Errorf("GET: %d %s", status, body)
							return
						}
						seen[resp.Header.Get("X-Backend")].Add(1)
					}
				})
			}
			defer load.Wait()
			defer close(quit)
			takes := func(name string) {
				t.Helper()
				from := seen[name].Load()
				testenv.Eventually(t, deadline, func() error {
					if seen[name].Load() < from+20 {
						return fmt.Errorf("%s takes no traffic", name)
					}
					return nil
				})
			}
			for range 2 {
				takes("stays")
				takes("goes")
				goes.Kill()
				g.until("pages", goes.Address, "out", func(e endpoint) bool { return !e.Healthy && e.Reason != "" })
				takes("stays")
				goes = testenv.Nginx(t, testenv.NginxConf{Name: "goes", Address: goes.Address})
				g.until("pages", goes.Address, "back", func(e endpoint) bool { return e.Healthy && !e.Ejected })
			}
			takes("goes")
		})
	}
}

// A tcp listener relays to endpoints that are there.
func TestRelayFailsOver(t *testing.T) {
	t.Parallel()
	one, two := testenv.Nginx(t, testenv.NginxConf{Name: "one"}), testenv.Nginx(t, testenv.NginxConf{Name: "two"})
	g := start(t, fmt.Sprintf(`
admin: "127.0.0.1:0"
access_log: none
listeners: {raw: {address: "127.0.0.1:0", protocol: tcp, service: pages}}
services:
  pages: {endpoints: [%q, %q], retry: {attempts: 1, budget: 100%%}, health_check: {interval: 50ms, rise: 1, fall: 1}}
`, one.Address, two.Address))
	c := client(t)
	c.Transport.(*http.Transport).DisableKeepAlives = true
	backends := func(n int) map[string]int {
		t.Helper()
		seen := map[string]int{}
		for range n {
			resp, err := c.Get(g.url("raw", "/10k"))
			must(t, err)
			status, body := drain(t, resp)
			if status != 200 || string(body) != string(testenv.Body("/10k")) {
				t.Fatalf("%d, %d bytes", status, len(body))
			}
			seen[resp.Header.Get("X-Backend")]++
		}
		return seen
	}
	if seen := backends(10); seen["one"] != 5 || seen["two"] != 5 {
		t.Errorf("the connections are not spread evenly: %v", seen)
	}
	two.Kill()
	if seen := backends(10); seen["one"] != 10 { // before and after the check has noticed
		t.Errorf("with one endpoint down: %v", seen)
	}
	g.until("pages", two.Address, "out", func(e endpoint) bool {
		return !e.Healthy && strings.Contains(e.Reason, "refused") && e.Checks > 0
	})
	two = testenv.Nginx(t, testenv.NginxConf{Name: "two", Address: two.Address})
	g.until("pages", two.Address, "back", func(e endpoint) bool { return e.Healthy })
	if seen := backends(10); seen["two"] != 5 {
		t.Errorf("with both again: %v", seen)
	}
	one.Kill()
	two.Kill()
	// With nobody there the connection is closed, not kept waiting.
	if resp, err := c.Get(g.url("raw", "/10k")); err == nil {
		t.Errorf("with both down somebody answers: %d", resp.StatusCode)
	}
}

// Without any endpoint the answer is 502 or 503 at once.
func TestNobodyThere(t *testing.T) {
	t.Parallel()
	g := start(t, fmt.Sprintf(`
admin: "127.0.0.1:0"
access_log: none
listeners: {web: {address: "127.0.0.1:0"}}
services:
  checked: {endpoints: [%q], panic_threshold: 0%%, health_check: {interval: 50ms, fall: 1}}
  trusted: {endpoints: [%q], outlier: {consecutive_failures: 0}}
routes:
  checked: {match: /checked, service: checked}
  trusted: {match: /trusted, service: trusted}
`, testenv.FreeAddress(t), testenv.FreeAddress(t)))
	c := client(t)
	testenv.Eventually(t, deadline, func() error {
		if status, body := fetch(t, c, g.url("web", "/checked")); status != 503 || !strings.Contains(string(body), "no_endpoint") {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	if status, body := fetch(t, c, g.url("web", "/trusted")); status != 502 || !strings.Contains(string(body), "connect_failed") {
		t.Errorf("%d %s", status, body)
	}
}
