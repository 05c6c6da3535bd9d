package sqldoor

import (
	"bytes"
	"cmp"
)

// memory is what the session has on its instance connection beyond an open transaction: what would be lost with it. As long
// as that is nothing but settings which can be made again, the session can go on with another connection.
type memory struct {
	sets     []string // SET statements to repeat on a new connection, in order
	setBytes int
	prepared int    // statements prepared and not closed
	sticky   string // the first thing that cannot be made again, for people; "" means nothing

	// What a connection that took another one's place does not know.
	noLast   bool // the last statement: ROW_COUNT(), SHOW WARNINGS
	noInsert bool // the last insert: LAST_INSERT_ID()
}

// Bounds of the settings that are remembered; a session with more is pinned.
const (
	setsMax     = 64
	setBytesMax = 8 << 10
)

// pinned says why the session cannot leave its connection; "" means that it can.
func (m *memory) pinned() string {
	if m.sticky == "" && m.prepared > 0 {
		return "prepared statements"
	}
	return m.sticky
}

// replaced notes that a new connection takes an old one's place.
func (m *memory) replaced() { m.noLast, m.noInsert = true, true }

// lacks says that a statement asks for something that was known on an earlier connection only.
func (m *memory) lacks(v verdict) bool {
	return v.reads == readsLast && m.noLast || v.reads == readsInsert && m.noInsert
}

// note remembers a statement that succeeded.
func (m *memory) note(v verdict, text string) {
	switch {
	case v.kind == kindSticky:
		m.stick(v.why)
	case v.kind == kindSet && (len(m.sets) >= setsMax || m.setBytes+len(text) > setBytesMax):
		m.stick("many SET statements")
	case v.kind == kindSet:
		m.sets = append(m.sets, text)
		m.setBytes += len(text)
	}
}

func (m *memory) stick(why string) {
	if m.sticky == "" {
		m.sticky = why
	}
}

// verdict is what the first words of a statement tell.
type verdict struct {
	kind  kind
	name  string // kindUse: the database
	why   string // kindSticky
	reads reads
}

// reads is what a statement asks its connection about earlier ones.
type reads uint8

const (
	readsNothing reads = iota
	readsLast          // what became of the statement before it
	readsInsert        // the id of the last insert
)

type kind uint8

const (
	kindPlain  kind = iota // leaves nothing behind on the connection but, perhaps, a transaction
	kindSet                // a SET that can be repeated on another connection
	kindUse                // USE name, alone
	kindUseBad             // USE in a form that cannot be followed
	kindKill               // KILL
	kindSticky             // may leave something behind
)

// plainWords are the first words of statements that leave nothing behind when nothing in their text says otherwise.
var plainWords = map[string]bool{"SELECT": true, "INSERT": true, "UPDATE": true, "DELETE": true, "REPLACE": true, "WITH": true,
	"SHOW": true, "EXPLAIN": true, "DESCRIBE": true, "DESC": true, "BEGIN": true, "START": true, "COMMIT": true, "ROLLBACK": true,
	"SAVEPOINT": true, "RELEASE": true, "TRUNCATE": true, "ALTER": true, "DROP": true, "CREATE": true, "ANALYZE": true,
	"OPTIMIZE": true, "CHECK": true, "LOAD": true, "VALUES": true, "TABLE": true, "DO": true}

// telling are the words that, wherever they stand, mean that a statement leaves something on its connection, or asks it
// about earlier statements. They are looked for in the raw text: in a string they do no more harm than to pin a session
// that need not be.
var telling = map[string]verdict{
	"TEMPORARY":           {kind: kindSticky, why: "temporary table"},
	"GET_LOCK":            {kind: kindSticky, why: "user lock"},
	"SQL_CALC_FOUND_ROWS": {kind: kindSticky, why: "SQL_CALC_FOUND_ROWS"},
	"LAST_INSERT_ID":      {kind: kindSticky, why: "LAST_INSERT_ID", reads: readsInsert},
	"IDENTITY":            {kind: kindSticky, why: "IDENTITY", reads: readsInsert},
	"LASTVAL":             {kind: kindSticky, why: "LASTVAL", reads: readsInsert},
	"ROW_COUNT":           {kind: kindPlain, reads: readsLast},
	"FOUND_ROWS":          {kind: kindPlain, reads: readsLast},
	"WARNINGS":            {kind: kindPlain, reads: readsLast},
	"ERRORS":              {kind: kindPlain, reads: readsLast},
	"WARNING_COUNT":       {kind: kindPlain, reads: readsLast},
	"ERROR_COUNT":         {kind: kindPlain, reads: readsLast},
}

// classify looks at a statement's text. whole says that text is all of it; the rest of a longer one is not looked at, and
// may hide anything.
func classify(text []byte, whole bool) verdict {
	rest, ok := skipBlank(text)
	if !ok {
		return verdict{kind: kindSticky, why: "executable comment"}
	}
	var word word
	rest = word.read(rest)
	switch string(word.text()) {
	case "USE":
		if name, ok := onlyName(rest); ok && whole {
			return verdict{kind: kindUse, name: name}
		}
		return verdict{kind: kindUseBad}
	case "KILL":
		return verdict{kind: kindKill}
	case "SET":
		if why := unrepeatableSet(rest); why != "" || !whole {
			return verdict{kind: kindSticky, why: cmp.Or(why, "a long SET")}
		}
		return verdict{kind: kindSet}
	}
	if !plainWords[string(word.text())] {
		return verdict{kind: kindSticky, why: cmp.Or(string(word.text()), "statement")}
	}
	v := inspect(rest)
	if v.kind == kindPlain && !whole {
		v.kind, v.why = kindSticky, "a long statement"
	}
	return v
}

// inspect looks for telling things in the text after a plain first word.
func inspect(text []byte) (v verdict) {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '@':
			if i+1 < len(text) && text[i+1] == '@' {
				i++
				continue
			}
			return verdict{kind: kindSticky, why: "user variable"}
		case c == ';':
			if after, ok := skipBlank(text[i+1:]); !ok || len(after) > 0 {
				return verdict{kind: kindSticky, why: "several statements in one"}
			}
		case c == '/' && i+2 < len(text) && text[i+1] == '*' && (text[i+2] == '!' || text[i+2] == 'M'):
			return verdict{kind: kindSticky, why: "executable comment"}
		case isWord(c):
			var word word
			i = len(text) - len(word.read(text[i:])) - 1
			if t, ok := telling[string(word.text())]; ok {
				if v = t; v.kind == kindSticky {
					return v
				}
			}
		}
	}
	return v
}

// momentary are the words in a SET that make it something else than a setting of the session, or one for this moment only.
var momentary = map[string]bool{"GLOBAL": true, "PERSIST": true, "PERSIST_ONLY": true, "TRANSACTION": true, "PASSWORD": true,
	"ROLE": true, "DEFAULT": true, "STATEMENT": true, "RESOURCE": true, "TIMESTAMP": true, "INSERT_ID": true,
	"LAST_INSERT_ID": true}

// unrepeatableSet says why a SET cannot be repeated on another connection with the same effect; "" means that it can.
func unrepeatableSet(rest []byte) (why string) {
	for i := 0; i < len(rest); i++ {
		next := byte(0)
		if i+1 < len(rest) {
			next = rest[i+1]
		}
		switch c := rest[i]; {
		case c == '(' || c == '#' || c == '`' || c == '\\', c == '-' && next == '-', c == '/' && next == '*':
			return "SET with an expression"
		case c == ';':
			if after, ok := skipBlank(rest[i+1:]); !ok || len(after) > 0 {
				return "several statements in one"
			}
			return ""
		case c == '@' && next != '@':
			return "user variable"
		case c == '@':
			i++
		case isWord(c):
			var word word
			i = len(rest) - len(word.read(rest[i:])) - 1
			if momentary[string(word.text())] {
				return "SET " + string(word.text())
			}
		}
	}
	return ""
}

// skipBlank drops white space and comments at the start. It says false at a comment that servers execute, and at one that does
// not end.
func skipBlank(b []byte) (rest []byte, ok bool) {
	for len(b) > 0 {
		switch {
		case b[0] <= ' ':
			b = b[1:]
		case b[0] == '#', len(b) >= 2 && b[0] == '-' && b[1] == '-' && (len(b) == 2 || b[2] <= ' '):
			for len(b) > 0 && b[0] != '\n' {
				b = b[1:]
			}
		case len(b) >= 2 && b[0] == '/' && b[1] == '*':
			if len(b) > 2 && (b[2] == '!' || b[2] == 'M') {
				return b, false
			}
			end := bytes.Index(b[2:], []byte("*/"))
			if end < 0 {
				return b, false
			}
			b = b[2+end+2:]
		default:
			return b, true
		}
	}
	return b, true
}

// word is a word of a statement in capitals, cut at a length that no word of interest has.
type word struct {
	b [24]byte
	n int
}

// read takes the word at the start of b and gives what follows it.
func (w *word) read(b []byte) (rest []byte) {
	n := 0
	for n < len(b) && isWord(b[n]) {
		n++
	}
	w.n = copy(w.b[:], b[:n])
	for i, c := range w.b[:w.n] {
		if c >= 'a' && c <= 'z' {
			w.b[i] = c - 'a' + 'A'
		}
	}
	return b[n:]
}

func (w *word) text() []byte { return w.b[:w.n] }

// onlyName reads a database name, quoted or not, and nothing more but white space, comments and a closing semicolon.
func onlyName(b []byte) (name string, ok bool) {
	b, ok = skipBlank(b)
	if !ok || len(b) == 0 {
		return "", false
	}
	if b[0] == '`' {
		var unquoted []byte
		for i := 1; ; i++ {
			if i >= len(b) {
				return "", false
			}
			if b[i] == '`' {
				if i+1 < len(b) && b[i+1] == '`' {
					i++
				} else {
					name, b = string(unquoted), b[i+1:]
					break
				}
			}
			unquoted = append(unquoted, b[i])
		}
	} else {
		n := 0
		for n < len(b) && (isWord(b[n]) || b[n] == '-') {
			n++
		}
		name, b = string(b[:n]), b[n:]
	}
	b, ok = skipBlank(b)
	if ok && len(b) > 0 && b[0] == ';' {
		b, ok = skipBlank(b[1:])
	}
	return name, ok && len(b) == 0 && name != ""
}

// isWord says whether a byte can be part of an unquoted name. Bytes of other alphabets can.
func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}
