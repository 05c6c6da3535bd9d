package policy

import (
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/identity"
)

func TestNames(t *testing.T) {
	t.Parallel()
	n := NewNames("X-A", "Content-*", "vary")
	f := func(name string, want bool) {
		t.Helper()
		if n.Has([]byte(name)) != want {
			t.Errorf("%s: want %v", name, want)
		}
	}
	f("X-A", true)
	f("x-a", true)
	f("Vary", true)
	f("X-AB", false)
	f("X", false)
	f("", false)
	f("content-type", true)
	f("Content-", true)
	f("Conten", false)
	f("Content-Length", false) // a star never takes what frames the message
	f("content-length", false)
	if NewNames().Has([]byte("X-A")) {
		t.Error("an empty set has X-A")
	}
}

func TestEdits(t *testing.T) {
	t.Parallel()
	var e Edits
	f := func(want string) {
		t.Helper()
		if got := strings.ReplaceAll(string(e.Lines()), "\r\n", "|"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if !e.Empty() {
		t.Error("not empty at first")
	}
	e.AddLines("A: 1\r\nB: 2\r\n")
	e.Add("C", "3")
	e.Add("D", "a\r\nEvil: 1") // no value can begin a field of its own
	e.AddBytes("Bad Name", []byte("x"))
	f("A: 1|B: 2|C: 3|")
	e.Remove(NewNames("b"))
	f("A: 1|C: 3|")
	e.Build("E: ", func(dst []byte) []byte { return append(dst, "5"...) })
	e.Build("F: ", func(dst []byte) []byte { return dst })
	e.Build("G: ", func(dst []byte) []byte { return append(dst, "a\nb"...) })
	e.AddCounts("H: ", 6, "; ", -7, "\r\n")
	f("A: 1|C: 3|E: 5|H: 6; -7|")
	if !e.Removes(h1.Field{Name: []byte("B")}) || e.Removes(h1.Field{Name: []byte("A")}) {
		t.Error("Removes")
	}
	if got := string(e.AppendTo(nil, []byte("B: 9\r\nX: 1\r\n"))); got != "X: 1\r\nA: 1\r\nC: 3\r\nE: 5\r\nH: 6; -7\r\n" {
		t.Errorf("AppendTo: %q", got)
	}
	e.Reset()
	e.AddLines("Cache-Control: max-age=60\r\nVary: Origin\r\ncontent-type: text/html\r\nRetry-After: 1\r\n")
	if got := string(e.AppendToError(nil, []byte("Content-Type: application/problem+json\r\n"))); got != "Content-Type: application/problem+json\r\nVary: Origin\r\n" {
		t.Errorf("AppendToError: %q", got)
	}
	e.AddLines(strings.Repeat("x", linesKept+1))
	if e.Reset(); !e.Empty() || cap(e.lines) > linesKept {
		t.Error("Reset keeps too much")
	}
}

func TestIdentify(t *testing.T) {
	t.Parallel()
	x := &Exchange{}
	x.Identify(&identity.Consumer{Name: "a", Groups: []string{"g", "h"}})
	x.Identify(&identity.Consumer{Name: "b"}) // the last word stands
	if got := string(x.ToEndpoint.Lines()); got != "X-Consumer-Name: b\r\n" || x.Consumer.Name != "b" {
		t.Errorf("%q", got)
	}
	x.Identify(nil)
	if got := string(x.ToEndpoint.Lines()); got != "" || x.Consumer != nil || !x.ToEndpoint.RemovesName([]byte("x-consumer-id")) || !x.ToEndpoint.RemovesName([]byte("X_Consumer-Name")) {
		t.Errorf("%q", got)
	}
	x.Status, x.Query = 3, []byte("a")
	x.Reset()
	if x.Status != 0 || x.Query != nil || !x.ToEndpoint.Empty() {
		t.Error("Reset left something")
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	x := &Exchange{}
	ctx, cancel := x.Context()
	if _, bounded := ctx.Deadline(); bounded || !x.Waited() {
		t.Error("a deadline out of nowhere")
	}
	cancel()
	x.Deadline = 5
	ctx, cancel = x.Context()
	defer cancel()
	if <-ctx.Done(); ctx.Err() == nil {
		t.Error("a deadline that is past does not end the context")
	}
}

func TestStates(t *testing.T) {
	t.Parallel()
	s := NewStates()
	c, err := config.Parse(config.File{Name: "f", Data: []byte("log: info")})
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	fresh := func() *int { made++; return new(int) }
	g := s.Begin()
	e := &Env{Config: c, States: g, Place: "routes.a", kind: "k"}
	one, place := State(e, "x", 1, fresh)
	if again, _ := State(e, "x", 1, fresh); again != one || place != "" || made != 1 {
		t.Error("one key, two states")
	}
	e.Place = "routes.b"
	if _, place = State(e, "x", 2, fresh); place != "routes.a" {
		t.Errorf("other settings under the same key: %q", place)
	}
	e.kind = "other"
	if other, _ := State(e, "x", 1, fresh); other == one {
		t.Error("two kinds share a state")
	}
	g.Commit()
	g.Abort() // does nothing any more
	if s.Len() != 2 {
		t.Error(s.Len())
	}
	g = s.Begin()
	e = &Env{Config: c, States: g, kind: "k"}
	if kept, _ := State(e, "x", 3, fresh); kept != one {
		t.Error("the state did not survive")
	}
	if changed, _ := State(e, "y", 1, func() *string { return new(string) }); changed == nil {
		t.Error("no state")
	}
	g.Abort()
	if s.Len() != 2 {
		t.Error("an aborted generation changed what is held")
	}
	s.Begin().Commit()
	if s.Len() != 0 {
		t.Error("states without a lease are held")
	}
}

func TestPreflighted(t *testing.T) {
	t.Parallel()
	f := func(head, want string) {
		t.Helper()
		var r h1.Request
		if _, err := r.Parse([]byte(head+"\r\nHost: a\r\n\r\n"), h1.Limits{}); err != nil {
			t.Fatal(err)
		}
		if got := string(Preflighted(&r)); got != want {
			t.Errorf("%q: %q, want %q", head, got, want)
		}
	}
	f("OPTIONS / HTTP/1.1\r\nOrigin: null\r\nAccess-Control-Request-Method: PUT", "PUT")
	f("OPTIONS / HTTP/1.1\r\nOrigin: null", "")
	f("OPTIONS / HTTP/1.1\r\nAccess-Control-Request-Method: PUT", "")
	f("OPTIONS / HTTP/1.1\r\nOrigin: null\r\nAccess-Control-Request-Method: a b", "")
	f("GET / HTTP/1.1\r\nOrigin: null\r\nAccess-Control-Request-Method: PUT", "")
}

// Whatever lines were added and taken away, what is left are whole lines of other names.
func FuzzRemove(f *testing.F) {
	f.Add("A", "1", "B", "2", "a")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2, gone string) {
		var e Edits
		e.Add(name1, value1)
		e.Add(name2, value2)
		e.Remove(NewNames(gone))
		want := ""
		for _, p := range [][2]string{{name1, value1}, {name2, value2}} {
			if h1.ValidName(p[0]) && h1.ValidValue(p[1]) && !NewNames(gone).Has([]byte(p[0])) {
				want += p[0] + ": " + p[1] + "\r\n"
			}
		}
		if got := string(e.Lines()); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}
