package test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

const threeMistakes = `listeners:
  web: {adress: ":8080"}
routes:
  users: {match: /users/*, service: usres}
services:
  users: {endpoints: [127.0.0.1:9001], timeouts: {connect: soon}}
`

// Three mistakes are three lines, each with its place.
func TestEveryMistakeAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "menshen.yaml")
	write(t, path, strings.Replace(threeMistakes, "adress: ", "address: \":8080\", adress: ", 1))
	for _, command := range []string{"run", "check"} {
		exit, stdout, stderr := menshen(t, command, "-c", path)
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		if exit != 1 || stdout != "" || len(lines) != 3 {
			t.Fatalf("%s: exit code %d, stdout %q, stderr:\n%s", command, exit, stdout, stderr)
		}
		for i, want := range []string{`:2:\d+: listeners\.web\.adress: .*nearest: address`, `:4:\d+: routes\.users\.service: .*users`, `:6:\d+: services\.users\.timeouts\.connect: .*accepted`} {
			if !regexp.MustCompile("^" + regexp.QuoteMeta(path) + want).MatchString(lines[i]) {
				t.Errorf("%s: line %d is %q, want %s", command, i+1, lines[i], want)
			}
		}
	}
}

// A broken config leaves the running one in service, and everybody can see why.
func TestBrokenReloadIsVisible(t *testing.T) {
	t.Parallel()
	good := "admin: 127.0.0.1:0\naccess_log: none\nlisteners: {web: {address: \"127.0.0.1:0\"}}\nroutes: {who: {match: /who, respond: {body: gateway}}}\n"
	g := start(t, good)
	for i, breakIt := range []func(){
		func() { g.write(threeMistakes) },
		func() { must(t, g.Signal(syscall.SIGHUP)) }, // the file is broken still
		func() {
			status, body := g.post("/api/v1/reload", "")
			var refusal struct{ Problems []problem }
			if err := json.Unmarshal(body, &refusal); err != nil || status != 422 || len(refusal.Problems) < 3 {
				t.Errorf("POST /api/v1/reload: %d %s", status, body)
			}
		},
		func() {
			if status, body := g.post("/api/v1/config", threeMistakes); status != 422 || !strings.Contains(string(body), "usres") {
				t.Errorf("POST /api/v1/config: %d %s", status, body)
			}
		},
		func() { must(t, os.Remove(g.config)) },
	} {
		before := g.reloads("failure")
		breakIt()
		testenv.Eventually(t, deadline, func() error {
			if now := g.reloads("failure"); now != before+1 {
				return fmt.Errorf("step %d: %v failed reloads, want %v", i, now, before+1)
			}
			return nil
		})
		s := g.state()
		if s.Generation != 1 || s.LastReload.OK || len(s.LastReload.Problems) == 0 && s.LastReload.Error == "" {
			t.Errorf("step %d: state %+v", i, s)
		}
		if status, _ := fetch(t, http.DefaultClient, g.url("admin", "/readyz")); status != 200 {
			t.Errorf("step %d: /readyz says %d", i, status)
		}
		if status, body := fetch(t, client(t), g.url("web", "/who")); status != 200 || string(body) != "gateway" {
			t.Errorf("step %d: %d %s", i, status, body)
		}
	}
	if log := g.log(); !strings.Contains(log, "old one stays in service") || !strings.Contains(log, "menshen.yaml:2:") || !strings.Contains(log, "listeners.web.adress") {
		t.Errorf("the log does not tell the mistakes and their places:\n%s", log)
	}
	g.write(good)
	g.reloaded(1)
	if s := g.state(); s.Generation != 2 || !s.LastReload.OK || len(s.LastReload.Problems) != 0 {
		t.Errorf("after the repair: %+v", s)
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	t.Parallel()
	config := func(body string) string {
		return "admin: 127.0.0.1:0\naccess_log: none\nlisteners: {web: {address: \"127.0.0.1:0\"}}\nroutes: {who: {match: /who, respond: {body: " + body + "}}}\n"
	}
	g := start(t, config("one"))
	if status, body := g.post("/api/v1/config?dry_run=1", config("two")); status != 200 || !strings.Contains(string(body), `"routes.who.respond.body"`) {
		t.Errorf("a good one: %d %s", status, body)
	}
	if status, body := g.post("/api/v1/config?dry_run=1", threeMistakes); status != 422 {
		t.Errorf("a broken one: %d %s", status, body)
	}
	if s := g.state(); s.Generation != 1 || !s.LastReload.OK || g.reloads("failure") != 0 {
		t.Errorf("a dry run left traces: %+v", s)
	}
	if _, body := fetch(t, client(t), g.url("web", "/who")); string(body) != "one" {
		t.Errorf("it serves %s", body)
	}
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	for what, config := range map[string]string{
		"listener second": fmt.Sprintf("listeners:\n  web: {address: \"127.0.0.1:0\"}\n  second: {address: %q}\nroutes: {who: {match: /, respond: 204}}\n", taken.Addr()),
		"admin address":   fmt.Sprintf("admin: %q\nlisteners:\n  web: {address: \"127.0.0.1:0\"}\nroutes: {who: {match: /, respond: 204}}\n", taken.Addr()),
	} {
		path := filepath.Join(t.TempDir(), "menshen.yaml")
		write(t, path, config)
		exit, stdout, stderr := menshen(t, "run", "-c", path)
		if exit != 2 || stdout != "" || !strings.Contains(stderr, what) || !strings.Contains(stderr, taken.Addr().String()) || !strings.Contains(stderr, "in use") {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", what, exit, stdout, stderr)
		}
		if exit, stdout, _ := menshen(t, "check", "-c", path); exit != 0 || !strings.HasPrefix(stdout, "ok: ") {
			t.Errorf("%s: check gives %d %q: it opens no ports", what, exit, stdout)
		}
	}
}

func TestAccessLogCannotBeOpened(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "menshen.yaml")
	write(t, path, "listeners: {web: {address: \"127.0.0.1:0\"}}\nroutes: {who: {match: /, respond: 204}}\naccess_log: /dev/null/access.log\n")
	if exit, _, stderr := menshen(t, "run", "-c", path); exit != 2 || !strings.Contains(stderr, "/dev/null/access.log") {
		t.Errorf("exit code %d, stderr %q", exit, stderr)
	}
}
