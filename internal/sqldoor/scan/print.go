package scan

import (
	"encoding/binary"
	"math/bits"
)

// Slot is where a literal or parameter stood in the text: text[Start:End] is the literal, with the sign if there is one.
type Slot struct {
	Start, End int32
	Kind       Kind // Text, Hex, Bits, Integer, Decimal, Float, Null or Parameter
}

const (
	printBytesMax = 64 << 10 // a normalised text longer than this is no key: the statement was not written by a program that will send it again
	slotsMax      = 4096     // the default of Print.SlotsMax
)

// Print is what is left of a statement when its literals are taken out. It is reused: Scan keeps the buffers of the time before and allocates only while
// they grow. The zero value is ready. Not for concurrent use.
//
// The normalised text is SQL again, and its own normalised text:
//   - tokens stand one space apart, but for brackets, commas, dots and the bracket behind an identifier, where the space can matter to servers;
//   - literals and parameters are ?, and so is a sign before a number that cannot be a subtraction;
//   - IN (1, 2, 3) is "in (?)"; rows of VALUES, and of IN ((1, 2), (3, 4)), that look like the row before them are left out, and NULL as a whole value in a row is ?;
//   - reserved words are in small letters, identifiers and all other words are kept as they are, quotes included;
//   - comments are gone, executable ones are what the server would run; optimizer hints stay, and a hint to Menshen stands at the end;
//   - semicolons at the end are gone.
type Print struct {
	Text  []byte // the normalised text
	Slots []Slot // the literals in the order of the statement, those left out of Text too
	// SlotsMax bounds Slots; 0 is 4096. It is kept by Scan.
	SlotsMax int

	Hash       uint64 // of Text; equal texts have equal hashes in every process, but not every two texts with one hash are equal
	Parameters int    // how many ? were in the statement itself
	Hint       Target // what a comment asks of Menshen
	Multi      bool   // there is a semicolon with something behind it
	Partial    bool   // there are more literals than SlotsMax, and the last are missing from Slots
	Opaque     bool   // not a key to anything: the statement is odd (see Scanner.Odd) or too long, and Text may be cut
}

// printer is the state of one Scan beside the result.
type printer struct {
	*Print
	prev     Kind // of the last token written; End at the start
	prevByte byte // its first byte if it is an operator
	call     bool // the last token is an identifier: a bracket directly behind it is written so
	gap      bool // space stood before the current token
	depth    int  // open brackets

	semicolons  int // to be written if something follows
	semicolonAt int // where the first of them stands

	list      int  // the depth inside the brackets of an IN list of plain values, 0 outside
	listed    int  // values seen in it, all but the first not yet written
	listValue bool // the next token of the list must be a value

	rows             uint8
	rowDepth         int // the depth inside the brackets of a row
	rowStart         int // in Text
	lastRow, lastEnd int // the row before in Text
}

// The states of rows.
const (
	noRows     = iota
	rowsAhead  // VALUES was written
	inRow      // inside the brackets of a row
	behindRow  // behind them
	betweenRow // behind the comma after them
	inAhead    // IN was written
	inOpen     // IN ( was written
)

// Scan makes p the print of text. Nothing is kept of text but positions in Slots.
func (p *Print) Scan(text []byte, m *Mode) {
	if p.SlotsMax == 0 {
		p.SlotsMax = slotsMax
	}
	*p = Print{Text: p.Text[:0], Slots: p.Slots[:0], SlotsMax: p.SlotsMax}
	text = Trim(text, m)
	var s Scanner
	s.Reset(text, m)
	w := printer{Print: p}
	for {
		t, gap := s.next()
		w.gap = w.gap || gap
		switch t.Kind {
		case End:
			w.finish(&s)
			return
		case Bad:
			p.Opaque = true
			w.finish(&s)
			return
		case Comment:
			p.Hint = max(p.Hint, hintOf(text[t.Start:t.End]))
			w.gap = true
			continue
		case Operator:
			c := text[t.Start]
			if (c == '-' || c == '+') && t.End == t.Start+1 && w.unary() && (isDigit(s.peek(t.End)) || s.peek(t.End) == '.' && isDigit(s.peek(t.End+1))) {
				n := s.lex()
				if n.Kind >= Integer && n.Kind <= Float {
					n.Start = t.Start
					w.value(n)
					break
				}
				w.operator(text[t.Start:t.End])
				w.gap = false
				if n.Kind.Literal() { // 0x41, whose sign stays
					w.value(n)
				} else { // an identifier such as 1a
					w.write(text[n.Start:n.End], n.Kind)
				}
				break
			}
			w.operator(text[t.Start:t.End])
		case Word:
			w.word(&s, text[t.Start:t.End], t)
		case Semicolon:
			w.breakList()
			if w.semicolons == 0 {
				w.semicolonAt = t.Start
			}
			w.semicolons++
			w.rows, w.gap = noRows, false
			continue
		case Text, Hex, Bits, Integer, Decimal, Float, Null, Parameter:
			w.value(t)
		default:
			w.write(text[t.Start:t.End], t.Kind)
		}
		w.gap = false
		if len(p.Text) > printBytesMax {
			p.Opaque = true
			w.finish(&s)
			return
		}
	}
}

func (w *printer) finish(s *Scanner) {
	w.breakList()
	if s.Odd {
		w.Opaque = true
	}
	if w.semicolons > 0 {
		for _, c := range s.src[w.semicolonAt:] {
			if c != ';' && s.cs.class[c] != cSpace { // a statement of comments only, which leaves nothing to tell "select 1; -- x" from "select 1"
				w.Opaque, w.Multi = true, true
				break
			}
		}
	}
	switch w.Hint {
	case Primary:
		w.Text = append(w.Text, " /* menshen: primary */"...)
	case Replica:
		w.Text = append(w.Text, " /* menshen: replica */"...)
	}
	w.Hash = hash(w.Text)
}

// unary says that a sign here cannot be a subtraction or addition.
func (w *printer) unary() bool { return w.prev == Operator && w.prevByte != ')' && w.prevByte != '}' }

// write appends a token other than a value.
func (w *printer) write(b []byte, k Kind) {
	if w.list != 0 {
		w.breakList()
	}
	if w.rows != inRow && w.rows != noRows {
		w.rows = noRows
	}
	w.space(k, 0)
	w.Text = append(w.Text, b...)
	w.prev, w.prevByte = k, 0
	w.call = k == Word || k == Name || k == Quoted || k == UserVar || k == SysVar
}

// space writes what separates the next token from the last.
func (w *printer) space(k Kind, c byte) {
	if w.semicolons > 0 {
		if w.semicolons > 1 || w.prev == End {
			w.Opaque = true // a blank statement, or one of comments: one ends the run, the other does not
		}
		for ; w.semicolons > 0 && len(w.Text) <= printBytesMax; w.semicolons-- {
			w.Text = append(w.Text, ';')
		}
		w.Multi = true
		w.prev, w.prevByte, w.call = Semicolon, 0, false
	}
	switch {
	case w.prev == End:
		return
	case k == Dot || w.prev == Dot:
		if !w.gap {
			return
		}
	case c == ',' || c == ')' || w.prevByte == '(':
		return
	case c == '(' && w.call && !w.gap:
		return
	}
	w.Text = append(w.Text, ' ')
}

func (w *printer) word(s *Scanner, b []byte, t Token) {
	kind, small := wordOf(b)
	if kind == wNull && w.rows == inRow && w.depth == w.rowDepth && (w.prevByte == '(' || w.prevByte == ',') {
		if c := s.peek(s.spaces(s.pos)); c == ',' || c == ')' {
			t.Kind = Null
			w.value(t)
			return
		}
	}
	if !kind.reserved() {
		w.write(b, Word)
		if kind == wValue {
			w.rows = rowsAhead
		}
		return
	}
	if w.list != 0 {
		w.breakList()
	}
	w.space(Word, 0)
	w.Text = append(w.Text, small...)
	w.prev, w.prevByte, w.call = Word, 0, false
	switch {
	case kind == wValues && w.rows != inRow:
		w.rows = rowsAhead
	case kind == wIn && w.rows != inRow:
		w.rows = inAhead
	case kind == wIn:
		w.list = -1 // a list in a row
	case w.rows != inRow:
		w.rows = noRows
	}
}

func (w *printer) value(t Token) {
	w.slot(t)
	if w.list > 0 {
		if w.listValue {
			w.listValue = false
			if w.listed++; w.listed > 1 {
				w.prev, w.prevByte, w.call = Text, 0, false
				return
			}
		} else {
			w.breakList()
		}
	} else {
		w.list = 0
	}
	if w.rows != inRow && w.rows != noRows {
		w.rows = noRows
	}
	w.space(Text, 0)
	w.Text = append(w.Text, '?')
	w.prev, w.prevByte, w.call = Text, 0, false
}

func (w *printer) slot(t Token) {
	if t.Kind == Parameter {
		w.Parameters++
	}
	if len(w.Slots) >= w.SlotsMax {
		w.Partial = true
		return
	}
	w.Slots = append(w.Slots, Slot{int32(t.Start), int32(t.End), t.Kind})
}

// breakList writes the values of an IN list that were held back, because something came that is no plain value.
func (w *printer) breakList() {
	n := w.listed
	comma := w.list > 0 && w.listValue && n > 0
	w.list, w.listed, w.listValue = 0, 0, false
	for ; n > 1 && len(w.Text) <= printBytesMax; n-- {
		w.Text = append(w.Text, ", ?"...)
	}
	if comma {
		w.Text = append(w.Text, ',')
	}
}

func (w *printer) operator(b []byte) {
	c := b[0]
	if len(b) > 1 {
		c = 0
	}
	if w.list > 0 {
		switch {
		case c == ',' && w.depth == w.list && !w.listValue && w.listed > 0:
			w.listValue = true
			w.prev, w.prevByte, w.call = Operator, ',', false
			return
		case c == ')' && w.depth == w.list && !w.listValue && w.listed > 0:
			w.list, w.listed = 0, 0
		default:
			w.breakList()
		}
	}
	switch c {
	case '(':
		w.depth++
		opened := w.list == -1 || w.rows == inAhead
		w.list = 0
		switch {
		case w.rows == rowsAhead || w.rows == betweenRow || w.rows == inOpen:
			w.space(Operator, c)
			if w.rows != betweenRow {
				w.lastRow, w.lastEnd = 0, 0
			}
			w.rows, w.rowDepth, w.rowStart = inRow, w.depth, len(w.Text)
			w.Text = append(w.Text, c)
			w.prev, w.prevByte, w.call = Operator, c, false
			return
		case opened:
			if w.rows != inRow {
				w.rows = inOpen
			}
			w.list, w.listed, w.listValue = w.depth, 0, true
		case w.rows != inRow:
			w.rows = noRows
		}
	case ')':
		w.depth--
		if w.rows == inRow && w.depth == w.rowDepth-1 {
			w.space(Operator, c)
			w.Text = append(w.Text, c)
			w.prev, w.prevByte, w.call = Operator, c, false
			w.rows = behindRow
			if w.lastEnd > 0 && string(w.Text[w.rowStart:]) == string(w.Text[w.lastRow:w.lastEnd]) {
				w.Text = w.Text[:w.lastEnd]
			} else {
				w.lastRow, w.lastEnd = w.rowStart, len(w.Text)
			}
			return
		}
		if w.rows != inRow {
			w.rows = noRows
		}
	case ',':
		if w.rows == behindRow {
			w.rows = betweenRow
		} else if w.rows != inRow {
			w.rows = noRows
		}
	default:
		if w.list == -1 {
			w.list = 0
		}
		if w.rows != inRow {
			w.rows = noRows
		}
	}
	w.space(Operator, c)
	w.Text = append(w.Text, b...)
	w.prev, w.prevByte, w.call = Operator, c, false
}

// hash is in the manner of wyhash: 64 x 64 to 128 bit products, 16 bytes at a time; about 5 ns for 60 bytes. It has no secret, so an attacker can make two
// texts collide: who looks something up by it compares the texts.
func hash(b []byte) uint64 {
	const k0, k1, k2 = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
	n := uint64(len(b))
	h := uint64(k0)
	for len(b) > 16 {
		hi, lo := bits.Mul64(binary.LittleEndian.Uint64(b)^k1, binary.LittleEndian.Uint64(b[8:])^h)
		h = hi ^ lo
		b = b[16:]
	}
	var x, y uint64
	switch l := len(b); {
	case l >= 8:
		x, y = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[l-8:])
	case l >= 4:
		x, y = uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[l-4:]))
	case l > 0:
		x = uint64(b[0])<<16 | uint64(b[l/2])<<8 | uint64(b[l-1])
	}
	hi, lo := bits.Mul64(x^k2, y^h)
	hi, lo = bits.Mul64(hi^lo^k0, n^k1)
	return hi ^ lo
}
