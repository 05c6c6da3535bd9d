package httpdoor

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// What an endpoint sees of fields whose names it may take for others, under each setting, and over both protocols.
func TestUnderscores(t *testing.T) {
	t.Parallel()
	a := endpoint(t, echo)
	f := func(setting string, status int, sees, misses []string) {
		t.Helper()
		g := open(t, strings.Replace(simple, `"127.0.0.1:0"`, `"127.0.0.1:0", headers: {`+setting+`}`, 1), "A", a)
		check := func(got int, body string) {
			t.Helper()
			if got != status {
				t.Errorf("{%s}: %d %s", setting, got, body)
			}
			for _, want := range sees {
				if !strings.Contains(strings.ToLower(body), want) {
					t.Errorf("{%s}: the endpoint did not see %q:\n%s", setting, want, body)
				}
			}
			for _, wrong := range misses {
				if strings.Contains(strings.ToLower(body), wrong) {
					t.Errorf("{%s}: the endpoint saw %q:\n%s", setting, wrong, body)
				}
			}
		}
		c := g.dial()
		c.send("GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 6.6.6.6\r\nX-Forwarded_Proto: https\r\nClient_Cert: :AA==:\r\nX_Mine: 1\r\n\r\n")
		resp, body := c.get("GET")
		check(resp.StatusCode, body)
		if status == 400 {
			c.closed()
		}
		r, err := http.NewRequest("GET", "http://"+g.address, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{"x_forwarded_for": {"6.6.6.6"}, "x-forwarded_proto": {"https"}, "client_cert": {":AA==:"}, "x_mine": {"1"}}
		resp, err = over2(t).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		whole, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		check(resp.StatusCode, string(whole))
	}
	aliases := []string{"6.6.6.6", "https", ":aa==:"}
	f("", 200, []string{"x_mine: 1", "x-forwarded-for: 127.0.0.1"}, aliases)
	f("underscores: safe", 200, []string{"x_mine: 1"}, aliases)
	f("underscores: drop", 200, []string{"x-forwarded-for: 127.0.0.1"}, append(aliases, "x_mine"))
	f("underscores: allow", 200, []string{"x_mine: 1", "x_forwarded_for: 6.6.6.6", "x-forwarded_proto: https"}, nil)
	f("underscores: refuse", 400, []string{"underscore in a field name"}, nil)
}

// What a policy takes out of a request goes in all spellings.
func TestUnderscoresAndPolicies(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0", policies: [{headers: {request: {set: {X-User: somebody}, remove: [X-Internal-*]}}}]}}
services: {a: {endpoints: [$A]}}
routes: {all: {match: /*, service: a}}
`, "A", endpoint(t, echo))
	c := g.dial()
	c.send(fmt.Sprintf("GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", "X_User: root\r\nx-USER: root\r\nX_Internal_A: root\r\nX-Internal_B: root\r\nX_Users: x\r\n"))
	if _, body := c.get("GET"); strings.Contains(body, "root") || !strings.Contains(body, "X-User: somebody") || !strings.Contains(body, "X_users: x") {
		t.Error(body)
	}
}
