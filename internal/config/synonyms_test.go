package config

import (
	"strings"
	"testing"
)

// Who comes from elsewhere is told what the key is called here.
func TestSynonyms(t *testing.T) {
	t.Parallel()
	f := func(text, want string) {
		t.Helper()
		_, err := Parse(File{Name: "m.yaml", Data: []byte(text)})
		if err == nil || !strings.Contains(err.Error(), "nearest: "+want+")") {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	f("server: {listen: 80}", "listeners")
	f("entryPoints: {}", "listeners")
	f("upstreams: {}", "services")
	f("listeners: {web: {bind: ':80'}}", "address")
	f("services: {a: {servers: []}}", "endpoints")
	f("services: {a: {endpoints: ['a:1'], loadBalancer: x}}", "balance")
	f("routes: {r: {match: /, backend: a}}", "service")
	f("routes: {r: {rule: /, respond: 200}}", "match")
	f("routes: {r: {match: /, respond: 200, middlewares: []}}", "policies")
	f("databases: {d: {shards: {s: {master: 'a:1'}}}}", "primary")
	f("routes: {r: {match: /, servce: a}}", "service") // what is spelled alike is still found
}

func TestSynonymsAreKeysOfNobody(t *testing.T) {
	t.Parallel()
	for word, here := range synonyms {
		for _, key := range here {
			if key == word {
				t.Errorf("%s stands for itself", word)
			}
		}
	}
}
