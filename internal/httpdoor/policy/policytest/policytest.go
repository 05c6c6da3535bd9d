// Package policytest lets the tests of a policy compile it from YAML and ask it about requests, without a door around
// it. It is for tests only.
package policytest

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/httpdoor/route"
	"github.com/menshen-gateway/menshen/internal/identity"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// Start is the clock of requests that Ask makes.
const Start = poll.Instant(1e15)

// Compile compiles a kind from its settings as they stand in YAML, on a route with the captures {id} and *. consumers is the
// section of that name; "" is none. The problems are one line each, without positions.
func Compile(kind policy.Kind, settings, consumers string) (policy.Policy, string) {
	text := "policies:\n  test:\n    - " + kind.Name + ": " + settings + "\n"
	if consumers != "" {
		text += "consumers: " + consumers + "\n"
	}
	c, err := config.Parse(config.File{Name: "test.yaml", Data: []byte(text)})
	if err != nil {
		return nil, err.Error()
	}
	directory, problems := identity.Compile(c)
	g := policy.NewStates().Begin()
	defer g.Commit()
	e := policy.Env{Config: c, Consumers: directory, States: g, Place: "policies.test", Captures: []string{"id", "*"}, Problems: problems}
	p := kind.New(c.Policies["test"][0].Settings, &e)
	var lines []string
	for _, problem := range e.Problems {
		lines = append(lines, strings.TrimPrefix(problem.Path, "policies.test[0]."+kind.Name)+": "+problem.Message)
	}
	return p, strings.Join(lines, "\n")
}

// Must is Compile for settings that are right.
func Must(t testing.TB, kind policy.Kind, settings, consumers string) policy.Policy {
	t.Helper()
	p, problems := Compile(kind, settings, consumers)
	if problems != "" {
		t.Fatal(problems)
	}
	return p
}

// Request makes an Exchange of a request line and field lines: "GET /users/7?x=y", "X-A: 1". The path is matched with
// /users/{id}/*.
func Request(t testing.TB, line string, fields ...string) *policy.Exchange {
	t.Helper()
	head := line + " HTTP/1.1\r\nHost: a.example\r\n"
	for _, field := range fields {
		head += field + "\r\n"
	}
	head += "\r\n"
	r, captures := new(h1.Request), new(route.Captures)
	if n, err := r.Parse([]byte(head), h1.Limits{}); err != nil || n != len(head) {
		t.Fatalf("%q: %v", head, err)
	}
	table, problems := route.Compile([]route.Rule{{Name: "r", Paths: []string{"/users/{id}/*"}}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	table.Match(&route.Request{Method: r.Method, Host: r.Host, Path: r.Path, Header: r}, captures)
	return &policy.Exchange{Head: r, Path: r.Path, Captures: captures, Client: netip.MustParseAddr("192.0.2.7"), Listener: "web", Route: "r",
		RequestID: []byte("id-1"), Now: Start, Query: r.Query, HasQuery: r.HasQuery}
}

// Forwarded gives the request's fields as the endpoint would see them, without Host: lines joined by "; ".
func Forwarded(x *policy.Exchange) string { return apply(x.Head.Fields, &x.ToEndpoint) }

// Answered gives a response's fields as the client would see them, when the endpoint sends these lines.
func Answered(x *policy.Exchange, fields ...string) string {
	var all []h1.Field
	for _, line := range fields {
		name, value, _ := strings.Cut(line, ": ")
		all = append(all, h1.Field{Name: []byte(name), Value: []byte(value)})
	}
	return apply(all, &x.ToClient)
}

func apply(fields []h1.Field, e *policy.Edits) string {
	var lines []string
	for _, f := range fields {
		if f.Known != h1.KnownHost && !e.Removes(f) {
			lines = append(lines, string(f.Name)+": "+string(f.Value))
		}
	}
	for line := range strings.SplitSeq(string(e.Lines()), "\r\n") {
		if line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}
