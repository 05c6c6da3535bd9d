package config

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// samples are texts of each form, mostly right; the checks between values decide what becomes of the whole.
var samples = map[string][]string{
	"listen": {":0", "127.0.0.1:0", "[::1]:0", "a.example:0"}, "endpoint": {"10.0.0.1:80", "a:1", "[::1]:80", "b-c.example:9001"},
	"file": {"a.pem", "/b/c.pem", "d e.pem"}, "sink": {"stdout", "none", "access.log"}, "path": {"/", "/healthz", "/a/{*}"},
	"status": {"200", "200-299", "200,204, 300-399"}, "hash_key": {"client_address", "path", "header:X-A", "cookie:sid"},
	"match_path": {"/", "/a/*", "/users/{id}/orders", "~^/re.*$", "~a b: #c"}, "match_host": {"a.example", "*.b.example", "10.0.0.1"},
	"method": {"GET", "POST", "PURGE"}, "condition": {"present", "~^1", "a: b", "", "yes", "$${x}", "${env:MENSHEN_TEST_WORD}"},
	"header_value": {"a", "a\tb", "\"", "'", "#", " x "}, "host": {"a.example", "a:80", "{x}.b"}, "location": {"/a", "https://a.example/{*}?x=y#z"},
	"name": {"a", "b-c", "d.e"}, "": {"text", "", "two\nlines", "é ü \u2028", "- x", "{a}", "%", "null", "1", "a: b", "x #y", "$${env:A}", "${env:MENSHEN_TEST_WORD}!"},
}

var keySamples = map[string][]string{
	"name": {"a", "b", "c-d", "e.f", "1", "true"}, "header": {"X-A", "accept"}, "response_header": {"X-B", "content-type"}, "free": {"", "q", "a: b", "é"},
}

// generator writes random configurations that follow the model.
type generator struct{ r *rand.Rand }

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func (g generator) value(t reflect.Type, f *field) *tree {
	text := func(s string) *tree { return &tree{text: s} }
	plain := func(s string) *tree { return &tree{text: s, plain: true} }
	switch t {
	case reflect.TypeFor[Duration]():
		return plain(pick(g.r, []string{"0", "250ms", "5s", "1h30m", "1.5h", "90s"}))
	case reflect.TypeFor[Size]():
		return plain(pick(g.r, []string{"1024", "64KiB", "2MB", "1.5MiB"}))
	case reflect.TypeFor[Percent]():
		return plain(pick(g.r, []string{"0%", "50%", "33.3%", "100%"}))
	case reflect.TypeFor[Weight]():
		return plain(pick(g.r, []string{"100%", "1", "2.5"}))
	case reflect.TypeFor[netip.Prefix]():
		return text(pick(g.r, []string{"10.0.0.0/8", "10.0.0.1", "fe80::/10", "::1"}))
	case reflect.TypeFor[ServiceRef]():
		if g.r.IntN(2) == 0 {
			return text(pick(g.r, keySamples["name"]))
		}
		return g.value(reflect.TypeFor[Service](), nil)
	}
	if t == reflect.TypeFor[Policy]() {
		out := &tree{kind: kindMapping}
		out.add(pick(g.r, []string{"cors", "a-kind"}), pick(g.r, []*tree{plain("1"), text("10/s"), text("a: #b"), {kind: kindMapping}, {kind: kindList}}))
		return pick(g.r, []*tree{text("a"), out, out})
	}
	switch t.Kind() {
	case reflect.Pointer:
		if t == reflect.TypeFor[*ClientTLS]() && g.r.IntN(2) == 0 {
			return plain("true")
		}
		return g.value(t.Elem(), f)
	case reflect.Struct:
		s := shapeOf(t)
		if t == reflect.TypeFor[Match]() && g.r.IntN(2) == 0 {
			return text(pick(g.r, []string{"/a", "GET /b/*", "a.example/c", "PUT *.a.example/{x}", "~^/re", "GET ~ a", "/${env:MENSHEN_TEST_WORD}"}))
		}
		if s.short != nil && g.r.IntN(3) == 0 {
			return g.value(s.short.kind, s.short)
		}
		out := &tree{kind: kindMapping}
		for _, known := range s.fields {
			if t == configType && known.name != "routes" && known.name != "listeners" || known.required || g.r.IntN(4) == 0 {
				out.add(known.name, g.value(known.kind, known))
			}
		}
		return out
	case reflect.Map:
		out := &tree{kind: kindMapping}
		inner := *f
		for _, key := range keySamples[formName(f.keys)] {
			if g.r.IntN(3) > 0 || f.name == "services" {
				out.add(key, g.value(t.Elem(), &inner))
			}
		}
		return out
	case reflect.Slice:
		if g.r.IntN(4) == 0 && (f.form != nil || t.Elem().Kind() == reflect.String) {
			return g.value(t.Elem(), f)
		}
		out := &tree{kind: kindList}
		for i := range g.r.IntN(4) {
			out.add(fmt.Sprint(i), g.value(t.Elem(), f))
		}
		return out
	case reflect.Bool:
		return plain(pick(g.r, []string{"true", "false"}))
	case reflect.Int:
		if len(f.enum) > 0 {
			return plain(pick(g.r, f.enum))
		}
		return plain(fmt.Sprint(max(f.min, min(f.max, int64(g.r.IntN(300))))))
	default:
		if len(f.enum) > 0 {
			return text(pick(g.r, f.enum))
		}
		return text(pick(g.r, samples[formName(f.form)]))
	}
}

func formName(f *form) string {
	for name, known := range forms {
		if known == f {
			return name
		}
	}
	return ""
}

// random gives a configuration of which parts are wrong.
func random(seed uint64) *tree {
	g := generator{rand.New(rand.NewPCG(seed, 1))}
	return g.value(configType, nil)
}

func (t *tree) yaml() []byte {
	var b strings.Builder
	t.write(&b, 0)
	return []byte(b.String())
}

// without gives t without the named thing that a problem lies in, or without the section when it lies there.
func (t *tree) without(p Problem) *tree {
	kept := &tree{kind: kindMapping}
	for i, section := range t.names {
		item := t.items[i]
		switch {
		case !strings.HasPrefix(p.Path, section):
		case item.kind != kindMapping || len(item.items) == 0 || p.Path == section:
			continue
		default:
			things := &tree{kind: kindMapping}
			for j, name := range item.names {
				if !strings.HasPrefix(p.Path, section+"."+name) {
					things.add(name, item.items[j])
				}
			}
			item = things
		}
		kept.add(section, item)
	}
	return kept
}

// RandomRight gives a configuration that is right, made of a random one: a whole one is nearly always wrong somewhere, so
// the parts that are wrong are taken out until the rest is right. It gives nil when that takes too long. It wants the
// environment variable MENSHEN_TEST_WORD to be set.
func RandomRight(t *testing.T, seed uint64) (*Config, []byte) {
	t.Helper()
	wanted := random(seed)
	for range 50 {
		text := wanted.yaml()
		c, err := Parse(File{Name: "f.yaml", Data: text})
		if err == nil {
			return c, text
		}
		for _, p := range err.(Problems) {
			if p.Line < 1 {
				t.Fatalf("seed %d: a problem without a place: %v\n%s", seed, p, text)
			}
			wanted = wanted.without(p)
		}
	}
	return nil, nil
}

func TestRandomRoundTrip(t *testing.T) {
	t.Setenv("MENSHEN_TEST_WORD", "word")
	right, things := 0, 0
	for seed := range uint64(120) {
		if c, _ := RandomRight(t, seed); c != nil {
			right++
			things += len(c.Listeners) + len(c.Services) + len(c.Routes) + len(c.Databases) + len(c.Consumers)
			roundTrip(t, c, "f.yaml")
		}
	}
	if right < 100 || things < 4*right {
		t.Errorf("%d of 120 were right in the end, with %d things in them: too few to test much", right, things)
	}
}
