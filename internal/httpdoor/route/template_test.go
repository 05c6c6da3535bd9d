package route

import (
	"strings"
	"testing"
)

func TestTemplate(t *testing.T) {
	t.Parallel()
	known := []string{"host", "path", "query", "id", "*"}
	values := map[string]string{"host": "a.example", "path": "/p", "id": "7", "*": "x/y"}
	f := func(in, want string) {
		t.Helper()
		tm, err := ParseTemplate(in, known)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			return
		}
		if got := string(tm.Append([]byte(">"), func(name string) []byte { return []byte(values[name]) })); got != ">"+want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	f("", "")
	f("/plain", "/plain")
	f("/new/{*}", "/new/x/y")
	f("https://{host}{path}?id={id}&q={query}", "https://a.example/p?id=7&q=")
	f("{id}{id}", "77")
	f("{{id}}", "{id}")
	f("{{{id}}}", "{7}")
	f("a}}b{{", "a}b{")

	refuse := func(in string, known []string, want string) {
		t.Helper()
		if _, err := ParseTemplate(in, known); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", in, err, want)
		}
	}
	refuse("/{hots}", known, "did you mean {host}? accepted: {*}, {host}, {id}, {path}, {query}")
	refuse("/{elephant}", known, "not known here (accepted: {*}")
	refuse("/{}", known, "uses {}")
	refuse("/{id", known, "without its }")
	refuse("/id}", known, "without its {")
	refuse("/{a{b}", known, "uses {a{b}")
	refuse("/{id}", nil, "nothing can be filled in")
}

func TestTemplateFacts(t *testing.T) {
	t.Parallel()
	tm, _ := ParseTemplate("/{b}/{a}/{b}", []string{"a", "b"})
	if got := strings.Join(tm.Names(), " "); got != "b a" {
		t.Errorf("names %q", got)
	}
	if _, ok := tm.Static(); ok {
		t.Error("is not static")
	}
	tm, _ = ParseTemplate("a{{b}}", nil)
	if s, ok := tm.Static(); !ok || s != "a{b}" {
		t.Errorf("static %q, %v", s, ok)
	}
	if s, ok := (Template{}).Static(); !ok || s != "" {
		t.Errorf("zero: %q, %v", s, ok)
	}
}

func TestTemplateDoesNotAllocate(t *testing.T) {
	table := compile(t, short(t, "r: /users/{id}/*")...)
	tm, err := ParseTemplate("https://{host}/u/{id}?rest={*}", []string{"host", "id", "*"})
	if err != nil {
		t.Fatal(err)
	}
	r := request(t, "GET a.example/users/7/x/y")
	dst := make([]byte, 0, 128)
	var c Captures
	if n := testing.AllocsPerRun(100, func() {
		table.Match(r, &c)
		dst = tm.Append(dst[:0], func(name string) []byte {
			switch name {
			case "host":
				return r.Host
			case "*":
				return c.Star()
			}
			v, _ := c.Get(name)
			return v
		})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if string(dst) != "https://a.example/u/7?rest=x/y" {
		t.Errorf("got %q", dst)
	}
}
