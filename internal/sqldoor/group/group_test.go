package group

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The cases are in testdata: each is a group's life. A line is what one round of checks saw, then what must follow from it:
//
//	a=w#0-1-9 b=r<a+5 c=z => ready a; reads c; took b; out b: lag 5s > max_lag 2s
//
// An instance is w (writable) or r (read-only), x (refuses connections) or z (is silent). Then may follow: <b (replicates
// from b), <~b (is not connected to it), <!b (IO thread stopped), <^b (SQL thread stopped), <? (may not be seen), +5 (lag in
// seconds), #position. Instances that are not named were not checked. A round takes a second, and checks follow each other
// within it; "+10s" alone lets time pass. "members a b" changes the config, "max_lag 0s" the bound.
func TestLives(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for life := range strings.SplitSeq(string(data), "\n\n") {
			lines := strings.Split(strings.TrimSpace(life), "\n")
			if name, ok := strings.CutPrefix(lines[0], "# "); ok {
				t.Run(filepath.Base(file)+"/"+name, func(t *testing.T) { live(t, lines[1:]) })
			} else if lines[0] != "" {
				t.Errorf("%s: no name before %q", file, lines[0])
			}
		}
	}
}

func live(t *testing.T, lines []string) {
	set := Settings{Members: []string{"a", "b", "c"}, MaxLag: 2 * time.Second}
	g := New(set)
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, line := range lines {
		if strings.HasPrefix(line, "# ") {
			continue
		}
		checks, want, judged := strings.Cut(line, " => ")
		words := strings.Fields(checks)
		switch {
		case words[0] == "members":
			set.Members = words[1:]
			g.Configure(set)
		case words[0] == "max_lag":
			set.MaxLag, _ = time.ParseDuration(words[1])
			g.Configure(set)
		case strings.HasPrefix(words[0], "+"):
			d, err := time.ParseDuration(words[0][1:])
			if err != nil {
				t.Fatal(err)
			}
			now = now.Add(d)
		default:
			now = now.Add(time.Second - time.Duration(len(words))*10*time.Millisecond)
			for _, w := range words {
				address, what, _ := strings.Cut(w, "=")
				o := observation(t, what)
				o.Began, o.At = now, now.Add(5*time.Millisecond)
				now = now.Add(10 * time.Millisecond)
				g.Observe(address, o)
			}
		}
		if d := g.Decide(now); judged {
			compare(t, line, d, want)
		}
	}
}

var ids = map[string]uint32{"a": 1, "b": 2, "c": 3, "d": 4}

func observation(t *testing.T, what string) (o Observation) {
	take := func(stop string) (head string) {
		if at := strings.IndexAny(what, stop); at >= 0 {
			head, what = what[:at], what[at:]
			return head
		}
		head, what = what, ""
		return head
	}
	switch kind := take("<+#@"); kind {
	case "w":
		o.Writable = true
	case "r":
	case "x":
		o.Err, o.Gone = errors.New("connection refused"), true
		return o
	case "z":
		o.Err = errors.New("no answer")
		return o
	default:
		t.Fatalf("no such kind: %q", kind)
	}
	for what != "" {
		sign := what[0]
		what = what[1:]
		value := take("<+#@")
		switch sign {
		case '<':
			s := Source{IO: Connected, SQL: true, Measured: true}
			from := strings.TrimLeft(value, "~!^?")
			switch value[:len(value)-len(from)] {
			case "~":
				s.IO, s.Measured, s.Problem = Connecting, false, "cannot reach it"
			case "!":
				s.IO, s.Measured = Stopped, false
			case "!^":
				s.IO, s.SQL, s.Measured = Stopped, false, false
			case "^":
				s.SQL, s.Measured, s.Problem = false, false, "duplicate key"
			case "?":
				o.SourceErr = errors.New("access denied")
				continue
			}
			s.Address, s.ServerID = "10.0.0."+from, ids[from]
			o.Sources = append(o.Sources, s)
		case '+':
			n, err := strconv.Atoi(value)
			if err != nil || len(o.Sources) == 0 {
				t.Fatalf("+%s", value)
			}
			o.Sources[len(o.Sources)-1].Behind = time.Duration(n) * time.Second
		case '#':
			o.Position = parse(t, value)
		case '@':
			o.ServerID = ids[value]
		}
	}
	return o
}

// compare checks the parts that are named; "reads" and "ready" are always complete.
func compare(t *testing.T, line string, d Decision, want string) {
	t.Helper()
	state := d.State.String()
	if d.State == Ready {
		state = "ready " + d.Primary
	}
	var reads, all []string
	for _, v := range d.Instances {
		if v.Reads {
			reads = append(reads, v.Address)
		}
		former := ""
		if v.Former {
			former = " former"
		}
		all = append(all, fmt.Sprintf("%s %s%s: %s", v.Address, v.Role, former, v.Reason))
	}
	parts := strings.Split(want, "; ")
	if parts[0] != state {
		t.Errorf("%s\nis %s (%s)\n%s", line, state, d.Reason, strings.Join(all, "\n"))
	}
	took := ""
	for _, part := range parts[1:] {
		kind, rest, _ := strings.Cut(part, " ")
		ok := false
		switch kind {
		case "reads":
			ok = rest == strings.Join(reads, " ")
		case "took":
			took, ok = rest, true
		case "recheck":
			ok = rest == strings.Join(d.Recheck, " ")
		case "why":
			ok = strings.Contains(d.Reason, rest)
		default: // an instance
			for _, a := range all {
				ok = ok || strings.HasPrefix(a, kind+" ") && strings.Contains(a, rest)
			}
		}
		if !ok {
			t.Errorf("%s\nnot so: %s\nstate %s, reads %q, recheck %q, why %q\n%s", line, part, state, reads, d.Recheck, d.Reason, strings.Join(all, "\n"))
		}
	}
	got := d.Took
	if got != "" && d.Silently {
		got += " silently"
	}
	if got != took {
		t.Errorf("%s\ntook %q", line, got)
	}
}
