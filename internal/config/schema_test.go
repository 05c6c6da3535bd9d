package config_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/config/configtest"
)

// split gives the inputs of a file of text cases, by name.
func split(t *testing.T, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	inputs := make(map[string]string)
	for i, part := range strings.Split(string(text), "\n=== ") {
		name, body, _ := strings.Cut(part, "\n")
		input, _, _ := strings.Cut(body, "\n----\n")
		if i > 0 {
			inputs[name] = input
		}
	}
	return inputs
}

func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	for name, input := range split(t, "testdata/refused.txt") {
		var document any
		if err := yaml.Unmarshal([]byte(input), &document); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := configtest.Validate(document); err == nil {
			t.Errorf("%s: the schema accepts\n%s", name, input)
		}
		if _, err := config.Parse(config.File{Name: "f", Data: []byte(input)}); err == nil {
			t.Errorf("%s: Parse accepts\n%s", name, input)
		}
	}
}

func TestSchemaRefusesEachMistake(t *testing.T) {
	t.Parallel()
	f := func(text string) {
		t.Helper()
		var document any
		if err := yaml.Unmarshal([]byte(text), &document); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if err := configtest.Validate(document); err == nil {
			t.Errorf("the schema accepts %s", text)
		}
		if _, err := config.Parse(config.File{Name: "f", Data: []byte(text)}); err == nil {
			t.Errorf("Parse accepts %s", text)
		}
	}
	service := func(rest string) { t.Helper(); f(`{services: {a: {endpoints: ["a:1"], ` + rest + `}}}`) }
	listener := func(rest string) { t.Helper(); f(`{listeners: {a: {address: ":1", ` + rest + `}}}`) }
	route := func(rest string) { t.Helper(); f(`{routes: {a: {` + rest + `}}}`) }
	f(`{servces: {}}`)
	f(`{services: {a: {}}}`)
	f(`{services: {a: {endpoints: []}}}`)
	f(`{services: {a: {endpoints: a}}}`)
	f(`{services: {a: {endpoints: [{weight: 1}]}}}`)
	f(`{services: {a: {endpoints: [{address: "a:1", weight: -1}]}}}`)
	f(`{services: {a b: {endpoints: ["a:1"]}}}`)
	service(`balance: fastest`)
	service(`balance: {key: nothing}`)
	service(`health_check: ping`)
	service(`health_check: {interval: 5}`)
	service(`health_check: {rise: 0}`)
	service(`health_check: {status: 2xx}`)
	service(`panic_threshold: 50`)
	service(`retry: often`)
	service(`retry: {budget: 0.2}`)
	service(`tls: maybe`)
	service(`tls: {cert: a}`)
	service(`timeouts: {connect: 5}`)
	service(`connections: {max_per_endpoint: many}`)
	listener(`protocol: udp`)
	listener(`protocol: tcp`)
	listener(`protocol: mysql, routes: [a]`)
	listener(`service: {endpoints: ["a:1"]}`)
	listener(`limits: {header_bytes: 64kb}`)
	listener(`limits: {headers: 0}`)
	listener(`headers: {via: "yes"}`)
	listener(`tls: {min_version: 1.1, cert: a, key: b}`)
	listener(`tls: {}`)
	listener(`tls: {cert: a}`)
	listener(`tls: {cert: a, key: b, client_auth: {mode: optional}}`)
	listener(`headers: {underscores: never}`)
	route(`match: /a`)
	route(`respond: 200`)
	route(`match: a, respond: 200`)
	route(`match: {paths: a}, respond: 200`)
	route(`match: {methods: get}, respond: 200`)
	route(`match: /a, respond: 99`)
	route(`match: /a, respond: 200, redirect: /b`)
	route(`match: /a, redirect: {status: 301}`)
	route(`match: /a, redirect: {to: /b, status: 300}`)
	f(`{routes: {a: {match: /a, split: {b: many}}}}`)
	f(`{databases: {a: {login: {user: u}, shards: {}}}}`)
	f(`{databases: {a: {login: {user: u}, shards: {a: {primary: "a:1"}, b: {primary: "b:1"}}}}}`)
	f(`{databases: {a: {login: {}, shards: {a: {primary: "a:1"}}}}}`)
	f(`{databases: {a: {shards: {a: {primary: "a:1"}}}}}`)
	f(`{consumers: {a: {mysql: 5}}}`)
	f(`{admin: here}`)
	f(`{log: loud}`)
	f(`{trusted_proxies: all}`)
}

func TestSchemaAcceptsExamples(t *testing.T) {
	text, err := os.ReadFile("testdata/shape.yaml")
	if err != nil {
		t.Fatal(err)
	}
	configtest.Check(t, string(text))
	t.Setenv("MENSHEN_TEST_SECRET", "hush")
	t.Setenv("MENSHEN_TEST_PORT", "80")
	t.Setenv("MENSHEN_TEST_COUNT", "3")
	for name, input := range split(t, "testdata/export.txt") {
		c, err := config.Parse(config.File{Name: "f", Data: []byte(input)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := configtest.Validate(c.Node().JSON()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSchemaIsStable(t *testing.T) {
	t.Parallel()
	if !bytes.Equal(config.Schema(), config.Schema()) {
		t.Error("two calls, two schemas")
	}
}

func TestSchemaAcceptsRandomOnes(t *testing.T) {
	t.Setenv("MENSHEN_TEST_WORD", "word")
	for seed := range uint64(80) {
		c, text := config.RandomRight(t, seed)
		if c == nil {
			continue
		}
		if err := configtest.Validate(c.Node().JSON()); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, text)
		}
	}
}
