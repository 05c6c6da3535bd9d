// Package scan is the lexer of the SQL door: it cuts a statement into tokens exactly where the server behind us would, without a grammar and without
// allocating, and answers from the tokens what the door must know before it sends a statement anywhere.
//
// Its parts:
//   - [Scanner] yields tokens that tile the statement: every byte belongs to exactly one token.
//   - [Print] is a statement with its literals taken out: normalised text, a 64-bit hash of it, and where the literals stood.
//   - [Classify] says what a statement is and what it leaves behind in its session; [AppendSettings] says which variables a SET sets.
//   - [Split] finds the statements of a multi-statement text.
//   - [Mode] is how the server would read: flavour and version, sql_mode, character_set_client.
//
// The safe direction is everywhere the default: what the scanner does not fully understand is odd, and an odd statement is not read-only, has unknown
// effects, and its print is opaque (not a key to anything). A statement that the server itself would refuse may be read in any way; one that it would run
// must never be taken for something more harmless than it is.
//
// Sources: MySQL 8.4 manual 11.1-11.7 "Language Structure" and 7.1.11 "Server SQL Modes"; MariaDB documentation "SQL Language Structure", "Comment Syntax",
// "Reserved Words"; behaviour checked against a running MariaDB 10.11 by the tests.
//
// It refuses to parse: no expression trees, no names resolved, no rewriting. Everything here is pure: no state is shared, a [Mode] may be used by many
// goroutines as long as nobody changes it.
package scan

import "strings"

// Mode is how the server would read the statement. The zero value is a MySQL of unknown version with the default sql_mode and utf8mb4.
type Mode struct {
	// Charset is the session's character_set_client; nil is utf8mb4.
	Charset *Charset
	// MariaDB is the server's flavour. It decides which executable comments run.
	MariaDB bool
	// Version is the server's version as in executable comments: 101119 is 10.11.19, 80036 is 8.0.36. 0 is unknown: then a statement with a versioned
	// comment is odd.
	Version uint32

	NoBackslashEscapes bool // sql_mode NO_BACKSLASH_ESCAPES: a backslash in a string is itself
	ANSIQuotes         bool // sql_mode ANSI_QUOTES: "x" is an identifier
	Foreign            bool // sql_mode ORACLE or MSSQL: other words, other quotes; every statement is odd
}

// SetSQLMode takes over what a value of sql_mode says about reading statements. names is a comma-separated list in any case; combinations (ANSI, ORACLE,
// ...) are expanded as the server expands them. A numeric sql_mode is not understood: the mode becomes Foreign.
func (m *Mode) SetSQLMode(names string) {
	m.NoBackslashEscapes, m.ANSIQuotes, m.Foreign = false, false, false
	for name := range strings.SplitSeq(names, ",") {
		name = strings.TrimSpace(name)
		switch {
		case name == "":
		case strings.EqualFold(name, "NO_BACKSLASH_ESCAPES"):
			m.NoBackslashEscapes = true
		case strings.EqualFold(name, "ANSI_QUOTES"), strings.EqualFold(name, "ANSI"), strings.EqualFold(name, "DB2"), strings.EqualFold(name, "MAXDB"), strings.EqualFold(name, "POSTGRESQL"):
			m.ANSIQuotes = true
		case strings.EqualFold(name, "ORACLE"), strings.EqualFold(name, "MSSQL"):
			m.ANSIQuotes, m.Foreign = true, true
		case name[0] >= '0' && name[0] <= '9':
			m.Foreign = true
		}
	}
}

// Kind is what a token is.
type Kind uint8

// The kinds. Those up to Close are no part of the grammar: the server drops them between tokens.
const (
	End       Kind = iota // the end of the text; empty
	Space                 // whitespace
	Comment               // a comment the server does not execute, in any style
	Hint                  // an optimizer hint /*+ ... */ (a comment to servers that do not know them)
	Junk                  // a number the server swallows: 1.e before an operator. Makes the statement odd
	Open                  // the start of an executable comment: /*!, /*!40101, /*M!100101
	Close                 // the end of an executable comment: */
	Word                  // an unquoted identifier or keyword
	Name                  // an unquoted identifier that cannot be a keyword: beside a dot, or beginning with a digit
	Quoted                // a quoted identifier: `x`, or "x" under ANSI_QUOTES
	Text                  // a string: 'x', "x", N'x'
	Hex                   // x'41', 0x41
	Bits                  // b'01', 0b01
	Integer               // 123
	Decimal               // 1.5, .5, 1.
	Float                 // 1e5, 1.5e-3
	Null                  // \N
	Parameter             // ?
	UserVar               // @a, @`a b`, @'a'; also the host part of 'user'@'host'
	SysVar                // @@a; a scope and the dot after it are tokens of their own: @@session . a
	Dot                   // . between identifiers
	Operator              // any other operator or punctuation, one to three bytes
	Semicolon             // ;
	Bad                   // what no server can read: an unclosed string or comment, a stray byte. Reaches to the end of the text
)

// Token is a piece of the text: text[Start:End] is of this Kind.
type Token struct {
	Start, End int
	Kind       Kind
}

// Literal says that the kind is a value which a print replaces by a question mark.
func (k Kind) Literal() bool { return k >= Text && k <= Null }

// Scanner walks over a text. Reset makes it ready; the zero value is at the end of an empty text.
type Scanner struct {
	src  []byte
	pos  int
	mode Mode
	cs   *Charset

	lastName   int   // where the last unquoted identifier ended
	after      uint8 // what stands directly before pos: 0, afterDot, afterJunk
	executable bool  // between Open and Close

	// Odd says that something was met which servers read in surprising ways, or which depends on what the Mode does not know. Sticky until Reset.
	Odd bool
}

const (
	afterDot  = 1 + iota // a word is a Name
	afterJunk            // the next byte is an operator of its own, whatever follows (see real)
)

// Reset starts over at the beginning of text.
func (s *Scanner) Reset(text []byte, m *Mode) {
	*s = Scanner{src: text, mode: *m, cs: m.Charset, Odd: m.Foreign}
	if s.cs == nil {
		s.cs = UTF8MB4
	}
}

// Next returns the next token, and End for ever when there is none.
func (s *Scanner) Next() Token {
	if i := s.spaces(s.pos); i > s.pos {
		t := Token{Start: s.pos, End: i, Kind: Space}
		s.pos = i
		return t
	}
	return s.lex()
}

// next is Next without what the grammar does not see; gap says that something of that kind was skipped. A hint is returned, and so is a comment that
// speaks to Menshen.
func (s *Scanner) next() (t Token, gap bool) {
	for {
		if i := s.spaces(s.pos); i > s.pos {
			s.pos, gap = i, true
		}
		t = s.lex()
		if t.Kind > Close || t.Kind == End || t.Kind == Hint || t.Kind == Comment && hintOf(s.src[t.Start:t.End]) != NoHint {
			return t, gap
		}
		gap = true
	}
}

func (s *Scanner) spaces(i int) int {
	src, class := s.src, &s.cs.class
	start := i
	for i < len(src) && class[src[i]] == cSpace {
		i++
	}
	if i > start {
		s.after = 0
	}
	return i
}

// peek returns the byte at i, and 0 past the end, as the server's buffer ends with a zero.
func (s *Scanner) peek(i int) byte {
	if i < len(s.src) {
		return s.src[i]
	}
	return 0
}

func (s *Scanner) token(k Kind, end int) Token {
	t := Token{Start: s.pos, End: end, Kind: k}
	s.pos = end
	return t
}

// bad ends the scan: the server answers a syntax error here, and nothing behind it is run.
func (s *Scanner) bad() Token {
	s.Odd = true
	return s.token(Bad, len(s.src))
}

// lex returns the token that starts at pos, where no whitespace is.
func (s *Scanner) lex() Token {
	src, i := s.src, s.pos
	if i >= len(src) {
		if s.executable {
			s.Odd = true // an executable comment that is not closed is a syntax error
		}
		return Token{Start: i, End: i, Kind: End}
	}
	c := src[i]
	class := s.cs.class[c]
	if s.after != 0 {
		after := s.after
		s.after = 0
		switch {
		case after == afterJunk:
			return s.token(Operator, i+1)
		case class <= cIdentLast:
			return s.identifier(i, Name)
		}
	}
	switch class {
	case cIdent:
		if c == '$' && !s.mode.MariaDB {
			return s.dollar(i)
		}
		return s.identifier(i, Word)
	case cMulti:
		return s.identifier(i, Word)
	case cHex:
		if s.peek(i+1) == '\'' {
			return s.digits(Hex, isHex)
		}
		return s.identifier(i, Word)
	case cBin:
		if s.peek(i+1) == '\'' {
			return s.digits(Bits, isBit)
		}
		return s.identifier(i, Word)
	case cNational:
		if s.peek(i+1) == '\'' {
			return s.text(i + 1)
		}
		return s.identifier(i, Word)
	case cDigit:
		return s.number(i)
	case cString:
		return s.text(i)
	case cQuote:
		if s.mode.ANSIQuotes {
			return s.quoted(i)
		}
		return s.text(i)
	case cBacktick:
		return s.quoted(i)
	case cDot:
		return s.dot(i)
	case cCompare:
		return s.compare(i)
	case cDouble: // & and |: && and || are one operator
		if s.peek(i+1) == c {
			return s.token(Operator, i+2)
		}
	case cHash:
		return s.lineComment(i + 1)
	case cMinus:
		if s.peek(i+1) == '-' && s.cs.spaceOrControl(s.peek(i+2)) {
			return s.lineComment(i + 2)
		}
		if s.peek(i+1) == '>' { // -> and ->>
			if s.peek(i+2) == '>' {
				return s.token(Operator, i+3)
			}
			return s.token(Operator, i+2)
		}
	case cSlash:
		if s.peek(i+1) == '*' {
			return s.comment(i)
		}
	case cStar:
		if s.executable && s.peek(i+1) == '/' {
			s.executable = false
			return s.token(Close, i+2)
		}
	case cAt:
		return s.variable(i)
	case cColon:
		if s.peek(i+1) == '=' {
			return s.token(Operator, i+2)
		}
	case cSemicolon:
		if s.executable {
			s.Odd = true // where the comment ends depends on whether the grammar takes this for the statement's end
		}
		return s.token(Semicolon, i+1)
	case cParameter:
		if s.cs.class[s.peek(i+1)] > cIdentLast {
			return s.token(Parameter, i+1)
		}
		return s.bad()
	case cBackslash:
		if s.peek(i+1) == 'N' {
			return s.token(Null, i+2)
		}
		return s.bad()
	case cBad:
		return s.bad()
	}
	return s.token(Operator, i+1)
}
