package group

import (
	"strings"
	"testing"
)

const one, two = "3e11fa47-71ca-11e1-9e33-c80aa9429562", "4e11fa47-71ca-11e1-9e33-c80aa9429562"

// parse reads either form.
func parse(t testing.TB, text string) Position {
	t.Helper()
	read := func(s string) (Position, error) { return ParseMariaDB(s) }
	if strings.Contains(text, ":") {
		read = ParseMySQL
	}
	p, err := read(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCovers(t *testing.T) {
	t.Parallel()
	f := func(p, q string, want bool) {
		t.Helper()
		if got := parse(t, p).Covers(parse(t, q)); got != want {
			t.Errorf("%q covers %q: %v", p, q, got)
		}
	}
	f("", "", true)
	f("0-1-5", "", true)
	f("", "0-1-5", false)
	f("0-1-5", "0-1-5", true)
	f("0-2-6", "0-1-5", true) // another server went on in the domain
	f("0-1-4", "0-1-5", false)
	f("0-1-9", "0-1-5,1-1-1", false)
	f("0-1-9,1-3-1", "0-1-5,1-1-1", true)
	f(one+":1-10", one+":3-5:7", true)
	f(one+":1-4:6-10", one+":3-5", false)
	f(one+":1-4:5-10", one+":3-5", true) // they touch
	f(one+":1-10", two+":1", false)
	f(one+":1-10", one+":tag:1", false)
	f(one+":1-10:tag:1-3", one+":tag:2", true)
}

func TestContains(t *testing.T) {
	t.Parallel()
	f := func(p, q string, want bool) {
		t.Helper()
		if got := parse(t, p).Contains(parse(t, q)); got != want {
			t.Errorf("%q contains %q: %v", p, q, got)
		}
	}
	f("", "", true)
	f("0-1-5", "", true)
	f("0-1-5", "0-1-5", true)
	f("0-1-4", "0-1-5", false)
	f("0-1-5", "0-2-5", false) // the same number, by another server: they have parted
	f("0-1-9", "0-2-5", false)
	f("0-1-3,0-2-9", "0-1-2,0-2-8", true)
	f("0-2-9", "0-1-2,0-2-8", true) // who has the last one has those before it
	f("0-2-9,1-1-1", "0-2-8,1-1-2", false)
	f(one+":1-9", one+":1-9", true)
	f(one+":1-9", one+":1-9,"+two+":1", false)
}

func TestRelated(t *testing.T) {
	t.Parallel()
	f := func(p, q string, want bool) {
		t.Helper()
		if a, b := parse(t, p).Related(parse(t, q)), parse(t, q).Related(parse(t, p)); a != want || b != want {
			t.Errorf("%q and %q: %v, %v", p, q, a, b)
		}
	}
	f("", "", false)
	f("", "0-1-5", false)
	f("0-1-5", "0-1-900", true)
	f("0-1-5", "0-2-5", false) // the same domain, but no server in common
	f("0-1-5,0-2-6", "0-2-9", true)
	f("0-1-5", "1-1-5", false)
	f(one+":1-5", one+":5-9", true)
	f(one+":1-5", one+":6-9", false)
	f(one+":1-5", two+":1-5", false)
}

func TestUnion(t *testing.T) {
	t.Parallel()
	f := func(p, q, covered string) {
		t.Helper()
		u := parse(t, p).Union(parse(t, q))
		if !u.Covers(parse(t, p)) || !u.Covers(parse(t, q)) || !u.Covers(parse(t, covered)) {
			t.Errorf("%q and %q: %v", p, q, u)
		}
	}
	f("0-1-5", "0-2-9,1-1-1", "0-1-9")
	f(one+":1-5", one+":6-9", one+":1-9")
	if !(Position{}).Union(Position{}).Empty() {
		t.Error("something from nothing")
	}
}

func TestBadPositions(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"1", "1-2", "1-2-3-4", "a-1-1", "0-0-99999999999999999999", "4294967296-1-1", "--"} {
		if _, err := ParseMariaDB(text); err == nil {
			t.Errorf("MariaDB: %q", text)
		}
	}
	for _, text := range []string{"x", "x:1", one, one + ":", one + ":0", one + ":5-4", one + ":1-", one + ":9223372036854775808"} {
		if _, err := ParseMySQL(text); err == nil {
			t.Errorf("MySQL: %q", text)
		}
	}
}

func FuzzPositions(f *testing.F) {
	f.Add("0-1-100,5-2-7", "0-2-100")
	f.Add(one+":1-5:11-18,\n"+two+":7", one+":tag:1-3:other:9")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, read := range []func(string) (Position, error){ParseMySQL, func(s string) (Position, error) { return ParseMariaDB(s) }} {
			p, err := read(a)
			q, err2 := read(b)
			if err != nil || err2 != nil {
				continue
			}
			if !p.Covers(p) || !p.Covers(Position{}) || p.Related(q) != q.Related(p) || !p.Empty() && !p.Related(p) {
				t.Errorf("%q, %q", a, b)
			}
			if u := p.Union(q); !u.Covers(p) || !u.Covers(q) || p.Contains(q) && !p.Covers(q) || !p.Contains(p) || p.Covers(q) && !p.Covers(u) {
				t.Errorf("union of %q and %q", a, b)
			}
		}
	})
}
