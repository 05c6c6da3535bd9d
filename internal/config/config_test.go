package config

import (
	"strings"
	"testing"
)

func TestParseThreeMistakes(t *testing.T) {
	t.Parallel()
	_, err := Parse(File{Name: "menshen.yaml", Data: []byte(`
listeners:
  web: {adress: ":8080"}
services:
  users: {endpoints: [10.0.0.1:9001], retry: {budget: 200%}}
routes:
  users: {match: /users/*, service: user}
`)})
	want := `menshen.yaml:3:3: listeners.web.address: is missing (accepted: host:port, where an empty host means all addresses and port 0 any free port)
menshen.yaml:3:9: listeners.web.adress: unknown key (accepted: address, protocol, tls, service, routes, default_database, timeouts, limits, headers, drain_timeout; nearest: address)
menshen.yaml:5:55: services.users.retry.budget: 200% is more than 100% (accepted: a share from 0% to 100%)
menshen.yaml:7:37: routes.users.service: no service is named "user" (accepted: users; nearest: users)`
	if got := err.Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if strings.Count(want, "\n") != 3 {
		t.Error("a missing key and its misspelling")
	}
}
