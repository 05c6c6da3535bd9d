package scan

import (
	"bytes"
	"testing"
)

// modes are tried by the fuzz targets: one byte picks.
func modeOf(pick uint8) *Mode {
	m := &Mode{MariaDB: pick&1 == 0, Version: 101119, NoBackslashEscapes: pick&2 != 0, ANSIQuotes: pick&4 != 0}
	m.Charset = []*Charset{nil, CharsetNamed("gbk"), CharsetNamed("sjis"), CharsetNamed("latin1"), CharsetNamed("big5"), CharsetNamed("gb18030"), CharsetNamed("utf8mb3"), CharsetNamed("ujis")}[pick>>3&7]
	if pick >= 128 {
		m.Version = 80036
	}
	return m
}

var seeds = []string{
	"", ";", "select 1", "SELECT c FROM sbtest1 WHERE id=12345", "select 'a\\'b', \"c\"\"d\", `e``f`, N'g', x'41', 0x41, b'01', 0b1, 1.5e3, .5, 1., 1e, 1a, t.1a, \\N",
	"insert into t values (1,'a',NULL),(-2,'b',null) on duplicate key update a=values(a)", "select * from t where a in (1,2,3) and (b,c) in ((1,2),(3,4))",
	"select @a, @`b`, @'c', @@session.x, @@`y`, @ z", "select 1 -- x\n, 2 # y\n, 3 /* z */, /*!40101 4 */ /*!99999 5 /* 6 */ 7 */ /*M!100000 8 */ /*+ hint */",
	"select '\xbf\\' or 1=1 -- ", "select '\x95\\', `\x81``", "select 1.e(2), a=!b, a<=>b, a:=1, c->'$.d', c->>'$.e'", "/* menshen: primary */ select 1; select 2;;",
	"set global a=1, @b='c', names utf8 collate utf8_bin", "create trigger t before insert on x for each row begin if a then set b=1; end if; end; select 1",
	"select count (*) from t for update", "with x as (select 1) delete from t", "in ((1,2", "in (1 in (1,2),3)", "values (1),(2", "select 1 /*! ; */", "$a$b", "1..2", "a . b",
	// What a print and its statement once disagreed about:
	"--;", "#0\n;0", "--;x", "select 1 --; select 2", "insert''A(", "/*menshen:primArY*/0 0", "select 1; -- x", "!+0.", "-0x41-1.e(-1a)",
}

func FuzzScan(f *testing.F) {
	for i, s := range seeds {
		f.Add([]byte(s), uint8(i*37))
		f.Add([]byte(s), uint8(0))
	}
	f.Fuzz(func(t *testing.T, text []byte, pick uint8) {
		m := modeOf(pick)
		var s Scanner
		s.Reset(text, m)
		at := 0
		for {
			tok := s.Next()
			if tok.Start != at {
				t.Fatalf("token %+v does not begin at %d", tok, at)
			}
			if tok.Kind == End {
				if at != len(text) || tok.End != at {
					t.Fatalf("the end is at %d of %d", at, len(text))
				}
				break
			}
			if tok.End <= tok.Start {
				t.Fatalf("empty token %+v", tok)
			}
			if tok.Kind == Bad && !s.Odd {
				t.Fatal("a bad token is not odd")
			}
			if tok.Kind == Text || tok.Kind == Quoted {
				AppendValue(nil, text, tok, m)
			}
			at = tok.End
		}
		for rest := Trim(text, m); len(rest) > 0; {
			end, next, _ := Split(rest, m)
			if end < 0 || end > next || next > len(rest) || next == 0 {
				t.Fatalf("split of %q: %d, %d", rest, end, next)
			}
			rest = rest[next:]
		}
		facts := Classify(text, m)
		if facts.ReadOnly == (facts.Why != "") {
			t.Fatalf("read-only %v, why %q", facts.ReadOnly, facts.Why)
		}
		if facts.ReadOnly && facts.Effects.Has(UnknownEffect|CallsUnknown|LocksRows|WritesFile|TakesUserLock|SetsVariables|SetsGlobals) {
			t.Fatalf("read-only with %s", facts.Effects)
		}
		_ = text[facts.Name.Start:facts.Name.End]
		AppendSettings(nil, text, m)
	})
}

func FuzzPrint(f *testing.F) {
	for i, s := range seeds {
		f.Add([]byte(s), uint8(i*37))
		f.Add([]byte(s), uint8(0))
	}
	f.Fuzz(func(t *testing.T, text []byte, pick uint8) {
		m := modeOf(pick)
		var p, again Print
		p.Scan(text, m)
		at := int32(0)
		for _, slot := range p.Slots {
			if slot.Start < at || slot.End <= slot.Start || int(slot.End) > len(text) {
				t.Fatalf("slots %v in %d bytes", p.Slots, len(text))
			}
			at = slot.End
		}
		if p.Opaque {
			return
		}
		again.Scan(p.Text, m)
		if !bytes.Equal(again.Text, p.Text) || again.Hash != p.Hash || again.Opaque || again.Hint != p.Hint || again.Multi != p.Multi {
			t.Fatalf("not stable:\n%q\n%q\n%q", text, p.Text, again.Text)
		}
		facts, same := Classify(text, m), Classify(p.Text, m)
		facts.Name, same.Name = Span{}, Span{}
		if facts != same {
			t.Fatalf("the print has other facts:\n%q %+v\n%q %+v", text, facts, p.Text, same)
		}
		// Other literals, same print and same facts.
		var other []byte
		last := int32(0)
		for _, slot := range p.Slots {
			other = append(other, text[last:slot.Start]...)
			other = append(other, otherLiteral(slot.Kind, text[slot.Start:slot.End], m)...)
			last = slot.End
		}
		other = append(other, text[last:]...)
		again.Scan(other, m)
		if !bytes.Equal(again.Text, p.Text) || again.Opaque || len(again.Slots) != len(p.Slots) {
			t.Fatalf("other literals:\n%q\n%q\n%q\n%q", text, other, p.Text, again.Text)
		}
		a, b := Classify(text, m), Classify(other, m)
		a.Name, b.Name = Span{}, Span{}
		if a != b {
			t.Fatalf("other facts:\n%q %+v\n%q %+v", text, a, other, b)
		}
	})
}

// otherLiteral returns another value of the same kind, one that ends as the old one does.
func otherLiteral(k Kind, old []byte, m *Mode) string {
	switch k {
	case Text:
		quote := string(old[len(old)-1])
		prefix := string(old[:bytes.IndexByte(old, quote[0])])
		if m.NoBackslashEscapes {
			return prefix + quote + "o" + quote + quote + "the\\r" + quote
		}
		return prefix + quote + "o\\" + quote + "the" + quote + quote + "r ;" + quote
	case Integer:
		if old[0] == '-' || old[0] == '+' {
			return "-77"
		}
		return "77"
	case Float:
		return string(old) + "7"
	case Decimal:
		if old[len(old)-1] == '.' {
			return string(old[:len(old)-1]) + "7."
		}
		return string(old) + "7"
	}
	return string(old)
}
