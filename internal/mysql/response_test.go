package mysql

import (
	"errors"
	"testing"
)

// talk builds the packets of an answer, numbered from 1.
type talk struct {
	b    []byte
	next uint8
	c    Capability
}

func answer(c Capability) *talk { return &talk{next: 1, c: c} }

func (t *talk) packet(payload []byte) *talk {
	t.b, t.next = AppendPacket(t.b, t.next, payload)
	return t
}

func (t *talk) ok(s Status) *talk {
	o := OK{Status: s, Affected: 5, Warnings: 1}
	return t.packet(o.AppendTo(nil, t.c))
}

func (t *talk) end(s Status) *talk {
	o := OK{Status: s, Warnings: 2}
	return t.packet(o.AppendEnd(nil, t.c))
}

func (t *talk) fail() *talk {
	e := Error{Code: 1146, State: "42S02", Message: "Table doesn't exist"}
	return t.packet(e.AppendTo(nil))
}

func (t *talk) columns(n int, s Status) *talk {
	t.packet(AppendLenenc(nil, uint64(n)))
	t.definitions(n)
	if !t.c.Has(DeprecateEOF) {
		t.end(s)
	}
	return t
}

func (t *talk) definitions(n int) *talk {
	c := Column{Name: []byte("c"), Type: TypeLong}
	for range n {
		t.packet(c.AppendTo(nil))
	}
	return t
}

func (t *talk) row(values ...string) *talk {
	var row []byte
	for _, v := range values {
		row = AppendLenencString(row, v)
	}
	return t.packet(row)
}

var cases = []struct {
	name    string
	command Command
	cursor  bool
	build   func(t *talk)
	rows    uint64
	code    uint16
	status  Status
}{
	{"ok", ComQuery, false, func(t *talk) { t.ok(Autocommit) }, 0, 0, Autocommit},
	{"error", ComQuery, false, func(t *talk) { t.fail() }, 0, 1146, 0},
	{"rows", ComQuery, false, func(t *talk) { t.columns(2, 0).row("a", "b").row("c", "").end(InTransaction) }, 2, 0, InTransaction},
	{"no rows", ComQuery, false, func(t *talk) { t.columns(300, 0).end(0) }, 0, 0, 0},
	{"error among rows", ComQuery, false, func(t *talk) { t.columns(1, 0).row("a").fail() }, 1, 1146, 0},
	{"several results", ComQuery, false, func(t *talk) {
		t.ok(MoreResults).columns(1, MoreResults).row("a").end(MoreResults).columns(1, 0).end(MoreResults).ok(Autocommit)
	}, 1, 0, Autocommit},
	{"error after a result", ComQuery, false, func(t *talk) { t.columns(1, 0).row("a").end(MoreResults).fail() }, 1, 1146, MoreResults},
	{"row of 16 MiB", ComQuery, false, func(t *talk) { t.columns(1, 0).row(string(make([]byte, 1<<24))).row("b").end(0) }, 2, 0, 0},
	{"row of one full frame", ComQuery, false, func(t *talk) { t.columns(1, 0).row(string(make([]byte, PayloadMax-4))).end(0) }, 1, 0, 0},
	{"NULL first", ComQuery, false, func(t *talk) { t.columns(1, 0).packet([]byte{0xfb}).end(0) }, 1, 0, 0},
	{"binary rows", ComStmtExecute, false, func(t *talk) { t.columns(1, 0).packet([]byte{0, 0, 1, 2, 3, 4}).end(0) }, 1, 0, 0},
	{"procedure", ComStmtExecute, false, func(t *talk) { t.columns(1, 0).packet([]byte{0, 0, 1}).end(MoreResults).ok(Autocommit) }, 1, 0, Autocommit},
	{"cursor", ComStmtExecute, true, func(t *talk) {
		t.packet(AppendLenenc(nil, 2)).definitions(2).end(CursorExists)
	}, 0, 0, CursorExists},
	{"cursor that was not opened", ComStmtExecute, true, func(t *talk) { t.columns(1, 0).packet([]byte{0, 0, 1}).end(0) }, 1, 0, 0},
	{"fetch", ComStmtFetch, false, func(t *talk) { t.packet([]byte{0, 0, 1}).packet([]byte{0, 0, 2}).end(LastRowSent) }, 2, 0, LastRowSent},
	{"prepare", ComStmtPrepare, false, func(t *talk) {
		p := Prepared{Statement: 1, Columns: 2, Parameters: 1}
		t.packet(p.AppendTo(nil)).definitions(1)
		if !t.c.Has(DeprecateEOF) {
			t.end(0)
		}
		t.definitions(2)
		if !t.c.Has(DeprecateEOF) {
			t.end(0)
		}
	}, 0, 0, 0},
	{"prepare without columns", ComStmtPrepare, false, func(t *talk) {
		p := Prepared{Statement: 1, Parameters: 2}
		t.packet(p.AppendTo(nil)).definitions(2)
		if !t.c.Has(DeprecateEOF) {
			t.end(0)
		}
	}, 0, 0, 0},
	{"prepare of nothing", ComStmtPrepare, false, func(t *talk) { t.packet((&Prepared{Statement: 1}).AppendTo(nil)) }, 0, 0, 0},
	{"prepare refused", ComStmtPrepare, false, func(t *talk) { t.fail() }, 0, 1146, 0},
	{"ping", ComPing, false, func(t *talk) { t.ok(Autocommit) }, 0, 0, Autocommit},
	{"set option", ComSetOption, false, func(t *talk) { t.end(Autocommit) }, 0, 0, Autocommit},
	{"statistics", ComStatistics, false, func(t *talk) { t.packet([]byte("Uptime: 5")) }, 0, 0, 0},
	{"field list", ComFieldList, false, func(t *talk) { t.definitions(3).end(0) }, 3, 0, 0},
}

func TestResponse(t *testing.T) {
	for _, c := range cases {
		for _, caps := range []Capability{0, DeprecateEOF} {
			build := answer(caps)
			c.build(build)
			pieces := []int{1 << 30, 16 << 10, 5, 1}
			if len(build.b) > 1<<20 {
				pieces = pieces[:2]
			}
			for _, piece := range pieces {
				var r Response
				r.Start(c.command, caps, 1, c.cursor)
				// What follows must not be touched.
				rest := append(build.b[:len(build.b):len(build.b)], "junk"...)
				for !r.Done() {
					n, err := r.Feed(rest[:min(piece, len(rest))])
					if err != nil {
						t.Fatalf("%s (%s): %v", c.name, caps, err)
					}
					if n == 0 {
						t.Fatalf("%s (%s): no progress", c.name, caps)
					}
					rest = rest[n:]
				}
				if string(rest) != "junk" {
					t.Errorf("%s (%s), pieces of %d: ended with %d bytes left", c.name, caps, piece, len(rest)-4)
				}
				if r.Rows != c.rows || r.Code != c.code || r.Status != c.status || !r.AtBoundary() || r.Sequence != build.next {
					t.Errorf("%s (%s), pieces of %d: rows %d, code %d, status %b, next %d (want %d)", c.name, caps, piece, r.Rows, r.Code, r.Status, r.Sequence, build.next)
				}
			}
		}
	}
}

func TestResponseAsksForFile(t *testing.T) {
	build := answer(0).packet([]byte("\xfbwords.txt"))
	for _, command := range []Command{ComQuery, ComStmtExecute} {
		var r Response
		r.Start(command, 0, 1, false)
		n, err := r.Feed(append(build.b, "junk"...))
		if err != nil || n != len(build.b) || !r.WantsFile() || r.Done() || r.Sequence != 2 {
			t.Fatalf("%s: consumed %d, %v; wants file: %v", command, n, err, r.WantsFile())
		}
		if n, _ := r.Feed([]byte("junk")); n != 0 {
			t.Errorf("%s: it reads on before the file", command)
		}
		r.FileSent(5)
		ok := OK{}
		b, _ := AppendPacket(nil, 5, ok.AppendTo(nil, 0))
		if _, err := r.Feed(b); err != nil || !r.Done() {
			t.Errorf("%s: after the file: %v, done %v", command, err, r.Done())
		}
	}
}

func TestCommandsWithoutAnswer(t *testing.T) {
	for _, c := range []Command{ComQuit, ComStmtClose, ComStmtLongData} {
		var r Response
		r.Start(c, 0, 1, false)
		if !r.Done() {
			t.Errorf("%s waits for an answer", c)
		}
	}
}

func TestResponseRefusals(t *testing.T) {
	f := func(name string, command Command, b []byte) {
		t.Helper()
		var r Response
		r.Start(command, 0, 1, false)
		n, err := r.Feed(b)
		if !errors.Is(err, ErrMalformed) || r.AtBoundary() {
			t.Errorf("%s: consumed %d, error %v, at boundary %v", name, n, err, r.AtBoundary())
		}
		if _, err := r.Feed([]byte{1, 0, 0, 1, 0}); err == nil {
			t.Errorf("%s: it goes on", name)
		}
	}
	f("out of order", ComQuery, []byte{7, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0})
	f("empty packet", ComQuery, []byte{0, 0, 0, 1})
	f("file for a list of processes", ComProcessInfo, answer(0).packet([]byte("\xfbetc")).b)
	f("too many columns", ComQuery, answer(0).packet(AppendLenenc(nil, 1<<16)).b)
	f("OK cut short", ComQuery, answer(0).packet([]byte{0, 1}).b)
	f("rows for a ping", ComPing, answer(0).packet([]byte{1}).b)
	f("no EOF after columns", ComQuery, answer(0).packet([]byte{1}).definitions(1).row("x").b)
	f("progress report", ComQuery, answer(0).packet([]byte{0xff, 0xff, 0xff, 1}).b)
	f("prepare cut short", ComStmtPrepare, answer(0).packet([]byte{0, 1}).b)
}

func TestResponseAllocatesNothing(t *testing.T) {
	b := answer(DeprecateEOF).columns(3, 0).row("a", "b", "c").row("d", "e", "f").end(0).b
	var r Response
	if n := testing.AllocsPerRun(100, func() {
		r.Start(ComQuery, DeprecateEOF, 1, false)
		for rest := b; !r.Done(); {
			n, err := r.Feed(rest[:min(50, len(rest))])
			if err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What does it cost to follow a large result? (Bytes per second.)
func BenchmarkResponse(b *testing.B) {
	build := answer(DeprecateEOF).columns(3, 0)
	for range 1000 {
		build.row("some text in a column", "12345", "2026-11-22 10:00:00")
	}
	build.end(0)
	b.SetBytes(int64(len(build.b)))
	b.ReportAllocs()
	var r Response
	for b.Loop() {
		r.Start(ComQuery, DeprecateEOF, 1, false)
		for rest := build.b; !r.Done(); {
			n, err := r.Feed(rest[:min(16<<10, len(rest))])
			if err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
	}
}
