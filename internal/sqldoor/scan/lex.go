package scan

import "bytes"

// identifier reads an unquoted identifier from i on (at least one byte of it is there).
func (s *Scanner) identifier(i int, k Kind) Token {
	src, class := s.src, &s.cs.class
	for {
		for i < len(src) && class[src[i]] <= cDigit {
			i++
		}
		if i >= len(src) || class[src[i]] != cMulti {
			break
		}
		n := s.cs.length(src[i:])
		if n == 0 {
			return s.bad() // a broken character: a syntax error or "invalid character string"
		}
		i += n
	}
	if i < len(src) && src[i] == '.' && i+1 < len(src) && class[src[i+1]] <= cIdentLast {
		k = Name // select.a is a column of the table named select
	}
	s.lastName = i
	return s.token(k, i)
}

// dollar reads an identifier that begins with a dollar sign. MySQL 9 quotes the bodies of JavaScript routines as $tag$ ... $tag$; what is in there is not
// for us.
func (s *Scanner) dollar(i int) Token {
	t := s.identifier(i, Word)
	if bytes.IndexByte(s.src[t.Start+1:t.End], '$') >= 0 {
		s.pos = t.Start
		return s.bad()
	}
	return t
}

// number reads what begins with a digit: a number, or an identifier such as 1a or 0xfg.
func (s *Scanner) number(i int) Token {
	class := &s.cs.class
	if s.src[i] == '0' {
		j := i + 2
		switch s.peek(i + 1) { // small letters only: 0X41 is an identifier
		case 'x':
			for isHex(s.peek(j)) {
				j++
			}
			if j > i+2 && class[s.peek(j)] > cIdentLast {
				return s.token(Hex, j)
			}
			return s.identifier(j, Name)
		case 'b':
			for isBit(s.peek(j)) {
				j++
			}
			if j > i+2 && class[s.peek(j)] > cIdentLast {
				return s.token(Bits, j)
			}
			return s.identifier(j, Name)
		}
	}
	i = s.decimals(i)
	c := s.peek(i)
	if class[c] <= cIdentLast {
		if c == 'e' || c == 'E' {
			j := i + 1
			if d := s.peek(j); d == '+' || d == '-' {
				j++
			}
			if isDigit(s.peek(j)) {
				return s.token(Float, s.decimals(j))
			}
			i++ // the e belongs to the identifier whatever follows
		}
		return s.identifier(i, Name)
	}
	if c != '.' || s.mode.MariaDB && s.peek(i+1) == '.' { // 1..10 in a MariaDB FOR loop
		return s.token(Integer, i)
	}
	return s.real(i + 1)
}

// real reads on behind the decimal point.
func (s *Scanner) real(i int) Token {
	i = s.decimals(i)
	if c := s.peek(i); c != 'e' && c != 'E' {
		return s.token(Decimal, i)
	}
	j := i + 1
	if c := s.peek(j); c == '+' || c == '-' {
		j++
	}
	if isDigit(s.peek(j)) {
		return s.token(Float, s.decimals(j))
	}
	// The number is incomplete, and servers then forget it and return the next byte as an operator: "1.e(" is "(". (Known as a way around firewalls.)
	s.Odd = true
	switch s.cs.class[s.peek(j)] {
	case cOperator, cDot, cCompare, cDouble, cMinus, cSlash, cStar, cAt, cColon, cSemicolon:
		s.after = afterJunk
		return s.token(Junk, j)
	}
	return s.bad()
}

func (s *Scanner) decimals(i int) int {
	for i < len(s.src) && isDigit(s.src[i]) {
		i++
	}
	return i
}

// digits reads x'41' or b'01' at pos.
func (s *Scanner) digits(k Kind, digit func(byte) bool) Token {
	i := s.pos + 2
	for digit(s.peek(i)) {
		i++
	}
	if s.peek(i) != '\'' || k == Hex && (i-s.pos)%2 != 0 {
		return s.bad()
	}
	return s.token(k, i+1)
}

// text reads a string whose opening quote is at i.
func (s *Scanner) text(i int) Token {
	src, quote, escapes := s.src, s.src[i], !s.mode.NoBackslashEscapes
	i++
	if s.cs.trailing {
		return s.textMulti(i, quote)
	}
	// Bytes of the client's character sets below 0x80 are always characters of their own here, so the quote can be searched for: 20 KB of text cost what
	// two runs of IndexByte over it cost. quoteAt and backslashAt are kept while they lie ahead, so that the search stays linear.
	quoteAt, backslashAt := -1, -1
	for {
		if quoteAt < i {
			n := bytes.IndexByte(src[i:], quote)
			if n < 0 {
				return s.bad()
			}
			quoteAt = i + n
		}
		if escapes && backslashAt < i {
			// Nothing behind the quote matters yet; without a backslash before it, remember just that.
			if n := bytes.IndexByte(src[i:quoteAt], '\\'); n >= 0 {
				backslashAt = i + n
			} else {
				backslashAt = -1
			}
		}
		if escapes && backslashAt >= i {
			i = backslashAt + 2
			continue
		}
		i = quoteAt + 1
		if i >= len(src) || src[i] != quote {
			return s.token(Text, i)
		}
		i++
	}
}

// textMulti is text for character sets in which a backslash or a quote can be the second byte of a character. As in the server, a whole character is
// skipped as one; behind a backslash exactly one byte is.
func (s *Scanner) textMulti(i int, quote byte) Token {
	src := s.src
	for i < len(src) {
		c := src[i]
		switch {
		case c >= 0x80:
			if n := s.cs.length(src[i:]); n > 1 {
				i += n
				continue
			}
		case c == '\\' && !s.mode.NoBackslashEscapes:
			i++
		case c == quote:
			if i++; i >= len(src) || src[i] != quote {
				return s.token(Text, i)
			}
		}
		i++
	}
	return s.bad()
}

// quoted reads a quoted identifier whose opening quote is at i. A zero byte in it is an error to servers.
func (s *Scanner) quoted(i int) Token {
	end := s.quotedEnd(i)
	if end < 0 {
		return s.bad()
	}
	return s.token(Quoted, end)
}

func (s *Scanner) quotedEnd(i int) int {
	src, quote := s.src, s.src[i]
	i++
	for i < len(src) {
		c := src[i]
		switch {
		case c == 0:
			return -1
		case c == quote:
			if i++; i >= len(src) || src[i] != quote {
				return i
			}
		case c >= 0x80 && s.cs.trailing:
			if n := s.cs.length(src[i:]); n > 1 {
				i += n
				continue
			}
		}
		i++
	}
	return -1
}

// dot reads a dot at i: the start of .5, or the separator of identifiers, behind which no word is a keyword.
func (s *Scanner) dot(i int) Token {
	switch c := s.peek(i + 1); {
	case isDigit(c) && !s.afterName(i):
		return s.real(i + 1)
	case c == '.' && s.mode.MariaDB:
		return s.token(Operator, i+2)
	}
	s.after = afterDot
	return s.token(Dot, i+1)
}

// afterName says that the dot at i follows an unquoted identifier directly. Then 5 in t.5 is a name. Behind a quoted one .5 is a number.
func (s *Scanner) afterName(i int) bool {
	return i > 0 && s.lastName == i
}

// compare reads an operator that begins with one of < > = !.
func (s *Scanner) compare(i int) Token {
	a, b := s.src[i], s.peek(i+1)
	if s.cs.class[b] != cCompare {
		return s.token(Operator, i+1)
	}
	if a == '<' && b == '=' && s.peek(i+2) == '>' {
		return s.token(Operator, i+3)
	}
	switch {
	case b == '=' && a != '=', a == '<' && b == '>', a == b && (a == '<' || a == '>'):
		if a == '<' && s.cs.class[s.peek(i+2)] == cCompare {
			s.Odd = true
		}
		return s.token(Operator, i+2)
	}
	s.Odd = true // MySQL forgets the second byte of =!, MariaDB does not
	return s.token(Operator, i+1)
}

// variable reads what an @ at i begins.
func (s *Scanner) variable(i int) Token {
	src, class := s.src, &s.cs.class
	switch c := s.peek(i + 1); {
	case c == '`':
		if end := s.quotedEnd(i + 1); end >= 0 {
			return s.token(UserVar, end)
		}
		return s.bad()
	case c == '\'' || c == '"':
		t := Token{Kind: Bad}
		s.pos++
		if c == '"' && s.mode.ANSIQuotes {
			t = s.quoted(i + 1)
		} else {
			t = s.text(i + 1)
		}
		if t.Kind != Bad {
			t.Kind = UserVar
		}
		t.Start = i
		return t
	case c == '@':
		if s.peek(i+2) == '`' {
			if end := s.quotedEnd(i + 2); end >= 0 {
				return s.token(SysVar, end)
			}
			return s.bad()
		}
		j := i + 2
		for j < len(src) && class[src[j]] <= cDigit {
			j++
		}
		if j == i+2 || class[s.peek(j)] == cMulti {
			return s.bad()
		}
		t := s.token(SysVar, j)
		s.lastName = j
		return t
	}
	// The name may be empty: "@ a" is the variable with the empty name, and a its alias. Bytes are looked at one by one, so a character may be cut.
	j := i + 1
	for j < len(src) && (class[src[j]] <= cIdentLast || src[j] == '.') {
		if src[j] >= 0x80 && !s.cs.utf8 {
			s.Odd = true
		}
		j++
	}
	return s.token(UserVar, j)
}

// lineComment reads to the end of the line, or to a zero byte, which is where servers stop.
func (s *Scanner) lineComment(i int) Token {
	rest := s.src[i:]
	n := bytes.IndexByte(rest, '\n')
	if n < 0 {
		n = len(rest)
	}
	if z := bytes.IndexByte(rest[:n], 0); z >= 0 {
		n = z
	}
	return s.token(Comment, i+n)
}

// comment reads what /* at i begins. The versions in executable comments are those of the MySQL 8.4 manual, 11.7, and of MariaDB's "Comment Syntax":
// MariaDB leaves out /*!50700 to /*!99999, which are meant for MySQL, and knows /*M! as well.
func (s *Scanner) comment(i int) Token {
	j := i + 2
	switch {
	case s.peek(j) == '!':
		j++
	case s.peek(j) == 'M' && s.peek(j+1) == '!' && s.mode.MariaDB:
		j += 2
	default:
		end := s.commentEnd(j, false)
		if end < 0 {
			return s.bad()
		}
		if s.peek(j) == '+' {
			return s.token(Hint, end)
		}
		return s.token(Comment, end)
	}
	n, version := 0, uint32(0)
	for n < 6 && isDigit(s.peek(j+n)) {
		version = version*10 + uint32(s.peek(j+n)-'0')
		n++
	}
	if n < 5 { // not a version: always executed, and the digits are part of the text
		s.executable = true
		return s.token(Open, j)
	}
	if s.mode.Version == 0 {
		s.Odd = true
	}
	if !s.mode.MariaDB && n == 6 && s.cs.class[s.peek(j+6)] != cSpace {
		s.Odd = true // MySQL 8.1 and later then take five digits for the version, earlier ones six
	}
	run := s.mode.Version == 0 || version <= s.mode.Version
	if s.mode.MariaDB && version >= 50700 && version <= 99999 && s.src[i+2] != 'M' {
		run = false
		if version == 99997 {
			s.Odd = true // a cluster (wsrep) executes these
		}
	}
	if run {
		s.executable = true
		return s.token(Open, j+n)
	}
	end := s.commentEnd(j, true)
	if end < 0 {
		return s.bad()
	}
	return s.token(Comment, end)
}

// commentEnd returns where the comment whose text begins at i ends, or -1. A comment that is left out for its version may hold one level of comments.
func (s *Scanner) commentEnd(i int, nested bool) int {
	src := s.src
	for {
		n := bytes.Index(src[i:], closing)
		if n < 0 {
			return -1
		}
		if nested {
			if k := bytes.Index(src[i:i+n+1], opening); k >= 0 { // n+1: in "/*/" the opening comes first
				// What is inside ends at the first */ behind its opening.
				i += k + 2
				if n = bytes.Index(src[i:], closing); n < 0 {
					return -1
				}
				i += n + 2
				continue
			}
		}
		return i + n + 2
	}
}

var opening, closing = []byte("/*"), []byte("*/")

func isDigit(c byte) bool { return c-'0' <= 9 }
func isBit(c byte) bool   { return c-'0' <= 1 }
func isHex(c byte) bool   { return isDigit(c) || c|0x20-'a' <= 5 }
