package config

import (
	"strings"

	"github.com/goccy/go-yaml/token"

	"github.com/menshen-gateway/menshen/internal/pause"
)

// lexeme is a token as the reader needs it.
type lexeme struct {
	kind         token.Type
	text         string // the value of a scalar; what stands there of anything else
	line, column int
}

// simple is the lexer for text as configurations are written: each line a key, a dash, or both, with at most one value behind it, on
// the line; that value a scalar, or brackets. It fails at everything else, and then the whole text is the library's: scalars of several
// lines, brackets over several lines, escapes, tabs, anything but ASCII outside comments, and whatever YAML has beyond that. What it
// takes, it takes for exactly what the library takes it for; FuzzSimpleLexemes compares the two.
//
// It is there for reloads: the library's lexer allocates 26 MB for 10,000 routes, and computes for 45 ms without a pause.
type simple struct {
	text   string // from clean: lines end with \n, and nothing else ends one
	failed bool   // something is not simple
	begun  bool   // there was a lexeme

	at         int // the next byte
	start, end int // of the line
	line       int
	lexemes    []lexeme // what fill appends to

	// open says that the last line with something on it ended with a colon or a dash, so that what follows may stand deeper; owner
	// is the column of its last key or dash otherwise.
	open  bool
	owner int
}

// more says whether there is text that was not looked at.
func (s *simple) more() bool { return s.at < len(s.text) && !s.failed }

// fill appends the lexemes of at least one line, and of as many as there is room for; none at the end of the text or of what is simple.
func (s *simple) fill(lexemes []lexeme) []lexeme {
	s.lexemes = lexemes
	for s.more() && (len(s.lexemes) == len(lexemes) || cap(s.lexemes)-len(s.lexemes) > lineLexemes) {
		pause.Moment()
		s.line++
		s.start, s.end = s.at, len(s.text)
		if n := strings.IndexByte(s.text[s.at:], '\n'); n >= 0 {
			s.end = s.at + n
		}
		s.failed = !s.oneLine()
		s.at = s.end + 1
	}
	return s.lexemes
}

// lineLexemes is what most lines have at most; a route on a line has 11.
const lineLexemes = 32

func (s *simple) add(kind token.Type, from, to int) {
	s.begun = true
	s.lexemes = append(s.lexemes, lexeme{kind, s.text[from:to], s.line, from - s.start + 1})
}

// spaces goes to what follows, and says whether it is the end of the line or a comment.
func (s *simple) spaces() (over bool) {
	from := s.at
	for s.at < s.end && s.text[s.at] == ' ' {
		s.at++
	}
	return s.at == s.end || s.text[s.at] == '#' && (s.at > from || from == s.start)
}

// oneLine reads a line; false when it is not simple.
func (s *simple) oneLine() bool {
	if s.spaces() {
		return true
	}
	if s.at-s.start > s.owner && !s.open && s.begun {
		return false // it continues a scalar, or is wrong
	}
	dashed := false
	for s.text[s.at] == '-' {
		if s.at+1 < s.end && s.text[s.at+1] != ' ' {
			return false // a number, or the mark of a document
		}
		s.owner, s.open, dashed = s.at-s.start, true, true
		s.add(token.SequenceEntryType, s.at, s.at+1)
		s.at++
		if s.spaces() {
			return true
		}
	}
	switch s.text[s.at] {
	case '{', '[':
		s.open = false
		return dashed && s.brackets() && s.spaces()
	}
	key := s.at
	if !s.scalar(false) {
		return false
	}
	if s.at == s.end || s.text[s.at] != ':' {
		s.open = false
		return dashed && s.spaces()
	}
	s.owner, s.open = key-s.start, true
	s.add(token.MappingValueType, s.at, s.at+1)
	s.at++
	if s.spaces() {
		return true
	}
	s.open = false
	switch s.text[s.at] {
	case '{', '[':
		return s.brackets() && s.spaces()
	}
	return s.scalar(false) && s.spaces() // false at a second colon
}

// brackets reads what stands in brackets, which end on the line.
func (s *simple) brackets() bool {
	var closing [depthMax]byte
	depth := 0
	for s.at < s.end {
		if s.text[s.at] == ' ' {
			s.at++
			continue
		}
		switch c := s.text[s.at]; c {
		case '{', '[':
			if depth == len(closing) {
				return false
			}
			kind := token.MappingStartType
			closing[depth] = '}'
			if c == '[' {
				kind, closing[depth] = token.SequenceStartType, ']'
			}
			depth++
			s.add(kind, s.at, s.at+1)
		case '}', ']':
			if depth--; closing[depth] != c {
				return false
			}
			kind := token.MappingEndType
			if c == ']' {
				kind = token.SequenceEndType
			}
			s.add(kind, s.at, s.at+1)
			if s.at++; depth == 0 {
				return true
			}
			continue
		case ',':
			s.add(token.CollectEntryType, s.at, s.at+1)
		default:
			value := s.lexemes[len(s.lexemes)-1].kind == token.MappingValueType
			if !s.scalar(true) {
				return false
			}
			if s.at == s.end || s.text[s.at] != ':' {
				continue
			}
			if value {
				return false // a comma is missing
			}
			s.add(token.MappingValueType, s.at, s.at+1)
		}
		s.at++
	}
	return false
}

// scalar reads a scalar with the spaces behind it, up to the colon that makes a key of it, a flow indicator (in brackets), a comment or the end of the line.
func (s *simple) scalar(bracketed bool) bool {
	from := s.at
	first := s.text[from]
	if first == '"' || first == '\'' {
		return s.quoted(first)
	}
	if !plainFirst[first] {
		return false
	}
	last := from // behind the last byte that is no space
loop:
	for ; s.at < s.end; s.at++ {
		switch c := s.text[s.at]; {
		case bracketed && s.text[s.at-1] == ':' && s.at > from && !plainFirst[c]:
			return false // the library begins a scalar behind each colon in brackets, and libraryLexemes mends it
		case c == ' ':
			continue
		case c == ':' && (s.at+1 == s.end || s.text[s.at+1] == ' '):
			break loop
		case c == '#' && s.text[s.at-1] == ' ':
			break loop
		case bracketed && plainEnds[c]:
			if c != ',' && c != '}' && c != ']' {
				return false
			}
			break loop
		case c < ' ' || c >= 0x7f:
			return false
		}
		last = s.at + 1
	}
	if bracketed && s.at < s.end && s.text[s.at] == ':' && strings.Contains(s.text[from:last], ":") {
		return false // see above
	}
	if last != s.at && (s.at == s.end || s.text[s.at] == ':') {
		return false // a space before the colon, or at the end of the line, where the library counts columns in its own way
	}
	if s.at < s.end && s.text[s.at] == '#' {
		s.at-- // the space before it makes it a comment
	}
	if plain := s.text[from:last]; strings.HasPrefix(plain, "...") || strings.Contains(plain, "<<") {
		return false // the end of a document; a merge key, which the library sees also at the end of a key
	}
	s.add(plainKind(s.text[from:last]), from, last)
	return true
}

// quoted reads a scalar in quotes, without an escape.
func (s *simple) quoted(quote byte) bool {
	from := s.at + 1
	for s.at = from; s.at < s.end && s.text[s.at] != quote; s.at++ {
		if c := s.text[s.at]; c < ' ' || c >= 0x7f || c == '\\' {
			return false
		}
	}
	if s.at == s.end {
		return false
	}
	kind := token.SingleQuoteType
	if quote == '"' {
		kind = token.DoubleQuoteType
	}
	s.add(kind, from, s.at)
	s.lexemes[len(s.lexemes)-1].column-- // its place is that of the quote
	if s.at++; s.at == s.end {
		return true
	}
	switch s.text[s.at] {
	case ':':
		return s.at+1 == s.end || s.text[s.at+1] == ' '
	case ' ', ',', '}', ']':
		return true
	}
	return false
}

// plainFirst holds the bytes with which a plain scalar may begin here: YAML allows a few more.
var plainFirst = bytesOf("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_/~.$^(")

// plainEnds holds the bytes that no plain scalar in brackets has: flow indicators, and quotes, which are rare enough for the library.
var plainEnds = bytesOf(",[]{}\"'`")

func bytesOf(s string) (set [256]bool) {
	for _, c := range []byte(s) {
		set[c] = true
	}
	return set
}

// plainKind tells what YAML takes a plain scalar for.
func plainKind(s string) token.Type {
	if c := s[0]; c == '/' || c == '_' || (c|0x20 >= 'a' && c|0x20 <= 'z') {
		switch s { // no number begins like this, and of the reserved words only these
		case "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE":
		default:
			return token.StringType
		}
	}
	return token.New(s, s, nil).Type
}
