package scan

// Trim returns text without the semicolons and whitespace at its end, which servers take off before they read.
func Trim(text []byte, m *Mode) []byte {
	cs := m.Charset
	if cs == nil {
		cs = UTF8MB4
	}
	last := len(text)
	for last > 0 && (text[last-1] == ';' || cs.class[text[last-1]] == cSpace) {
		last--
	}
	return text[:last]
}

// Split finds the first statement of a text that was trimmed: text[:end] is it, without the semicolon, and the next one begins at next, which is len(text) when
// there is none. Walking over a text with Split takes time in proportion to its length.
//
// As in the server, a comment behind a semicolon is a statement (one that answers OK), and a blank statement is an error, behind which nothing is run, so it is
// always the last. exact is false when where the statement ends depends on a grammar: in blocks of routines, triggers, events and MariaDB's compound statements,
// whose ends are found by counting BEGIN and END, and when the text is odd.
func Split(text []byte, m *Mode) (end, next int, exact bool) {
	var s Scanner
	s.Reset(text, m)
	var b blocks
	for {
		t, _ := s.next()
		switch t.Kind {
		case End, Bad:
			return len(text), len(text), !s.Odd && !b.seen
		case Semicolon:
			if b.inside() {
				break
			}
			next = t.End
			if s.spaces(0) == t.Start {
				next = len(text)
			}
			return t.Start, next, !s.Odd && !b.seen
		}
		b.token(&s, t)
	}
}

// blocks follows the nesting of compound statements, as far as that goes without a grammar.
type blocks struct {
	tokens   int
	seen     bool // there is or may be a block
	body     bool // the statement can have blocks
	head     bool // still in the words before PROCEDURE, TRIGGER, ...
	depth    int
	start    bool // the next token begins a statement
	ended    bool // the last word was END
	last     word
	pastHead bool
}

func (b *blocks) inside() bool { return b.depth > 0 }

func (b *blocks) token(s *Scanner, t Token) {
	b.tokens++
	w := none
	if t.Kind == Word {
		w, _ = wordOf(s.src[t.Start:t.End])
	}
	if b.tokens == 1 {
		switch w {
		case wCreate, wAlter:
			b.head = true
		case wIf, wLoop, wRepeat, wWhile, wFor, wCase, wDeclare, wBegin:
			b.body, b.start = w != wBegin, true
		}
		if w == wBegin {
			b.head, b.last = true, w
			return
		}
	}
	if b.head {
		switch {
		case b.last == wBegin && b.tokens == 2:
			b.head = false
			if w == wNot { // BEGIN NOT ATOMIC
				b.body, b.seen, b.depth = true, true, 1
			}
		case w == wProcedure || w == wFunction || w == wTrigger || w == wEvent || w == wPackage:
			b.head, b.body, b.seen = false, true, true
		case w == wTable || w == wView || w == wIndex || w == wDatabase || w == wSchema || w == wUser || w == wRole || w == wServer || b.tokens > 16:
			b.head = false
		}
		b.last = w
		return
	}
	if !b.body {
		if b.tokens == 2 && t.Kind == Operator && s.src[t.Start] == ':' { // a label
			b.body, b.seen, b.start = true, true, true
		}
		return
	}
	b.block(w, t, t.Kind == Operator && s.src[t.Start] == ':')
	b.last = w
}

// block counts one token of a body.
func (b *blocks) block(w word, t Token, colon bool) {
	start, ended := b.start, b.ended
	b.start, b.ended = false, false
	switch w {
	case wBegin:
		// BEGIN is a word like any other in expressions; a block begins where a statement can, or behind the head of a routine.
		if start || b.depth == 0 && !b.pastHead {
			b.depth++
			b.seen, b.start, b.pastHead = true, true, true
		}
	case wCase:
		if !ended {
			b.depth++
			b.seen = true
		}
	case wIf, wLoop, wRepeat, wWhile, wFor:
		if !ended && (start || b.depth == 0 && !b.pastHead && w != wIf && w != wFor && w != wRepeat) {
			b.depth++
			b.seen, b.start = true, w == wLoop || w == wRepeat
		}
	case wEnd:
		if b.depth > 0 {
			b.depth--
			b.ended = true
		}
	case wThen, wElse, wDo:
		b.start = true
	case wRow:
		b.start = b.last == wEach // FOR EACH ROW
	default:
		b.start = t.Kind == Semicolon || colon // behind a label
	}
}
