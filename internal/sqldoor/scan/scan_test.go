package scan

import (
	"strings"
	"testing"
)

// tokens writes the tokens of a text: the letter of each kind, then its bytes.
func tokens(text string, m *Mode) string {
	letters := map[Kind]string{Hint: "hint", Junk: "junk", Open: "open", Close: "close", Word: "word", Name: "name", Quoted: "quoted", Text: "text", Hex: "hex", Bits: "bits", Integer: "int",
		Decimal: "decimal", Float: "float", Null: "null", Parameter: "parameter", UserVar: "user", SysVar: "system", Dot: "dot", Operator: "op", Semicolon: "semicolon", Bad: "bad"}
	var s Scanner
	s.Reset([]byte(text), m)
	var all []string
	for {
		t := s.Next()
		switch t.Kind {
		case End:
			return strings.Join(all, " ")
		case Space, Comment:
		default:
			all = append(all, letters[t.Kind]+"<"+text[t.Start:t.End]+">")
		}
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	mysql := &Mode{Version: 80036}
	f := func(m *Mode, text, want string) {
		t.Helper()
		if got := tokens(text, m); got != want {
			t.Errorf("%q\n got %s\nwant %s", text, got, want)
		}
	}
	// Numbers: MySQL manual 11.1.2, and identifiers that look like them, 11.2.
	f(maria, "1 1.5 .5 1. 1e5 1.e5 1e+3 .5e-3", "int<1> decimal<1.5> decimal<.5> decimal<1.> float<1e5> float<1.e5> float<1e+3> float<.5e-3>")
	f(maria, "1a 1e 1ea 0xg 0X41 0b2 0x", "name<1a> name<1e> name<1ea> name<0xg> name<0X41> name<0b2> name<0x>")
	f(maria, "1e+ 1e+x", "name<1e> op<+> name<1e> op<+> word<x>")
	f(maria, "t.1a t.5 t.1e5 `t`.5 t .5", "name<t> dot<.> name<1a> name<t> dot<.> name<5> name<t> dot<.> name<1e5> quoted<`t`> decimal<.5> word<t> decimal<.5>")
	f(maria, "1..2", "int<1> op<..> int<2>")
	f(mysql, "1..2", "decimal<1.> decimal<.2>")
	f(maria, "0x41 0b01 x'41' X'' b'01' B''", "hex<0x41> bits<0b01> hex<x'41'> hex<X''> bits<b'01'> bits<B''>")
	f(maria, "x'4'", "bad<x'4'>")
	f(maria, "1.e(2", "junk<1.e> op<(> int<2>")
	f(maria, "1.e/*2", "junk<1.e> op</> op<*> int<2>")
	f(maria, "1.ea", "bad<1.ea>")
	// Strings and quoted identifiers.
	f(maria, `'a''b' 'a\'b' "a""b" "a'b" n'x' N'y' _utf8'z'`, `text<'a''b'> text<'a\'b'> text<"a""b"> text<"a'b"> text<n'x'> text<N'y'> word<_utf8> text<'z'>`)
	f(&Mode{NoBackslashEscapes: true}, `'a\' 'b'`, `text<'a\'> text<'b'>`)
	f(&Mode{ANSIQuotes: true}, `"a\" 'b'`, `quoted<"a\"> text<'b'>`)
	f(maria, "`a``b` `a\\`", "quoted<`a``b`> quoted<`a\\`>")
	f(maria, "'a", "bad<'a>")
	f(maria, `'a\'`, `bad<'a\'>`)
	f(maria, "`a\x00`", "bad<`a\x00`>")
	// A backslash that is the second byte of a character: injection's old friend.
	f(&Mode{Charset: CharsetNamed("gbk")}, "'\xbf\\' or 1", "text<'\xbf\\'> word<or> int<1>")
	f(&Mode{Charset: CharsetNamed("latin1")}, "'\xbf\\' or 1", "bad<'\xbf\\' or 1>")
	f(&Mode{Charset: CharsetNamed("sjis")}, "'\x95\\' `\x81``", "text<'\x95\\'> quoted<`\x81``>")
	f(&Mode{Charset: CharsetNamed("gb18030")}, "'\x81\x30\x81\x35' '\x81\\'", "text<'\x81\x30\x81\x35'> text<'\x81\\'>")
	f(&Mode{Charset: CharsetNamed("gbk")}, "'\\\xbf\\' or 1", "bad<'\\\xbf\\' or 1>") // behind a backslash one byte is skipped, not one character
	f(&Mode{Charset: CharsetNamed("latin1")}, "a\xa0b\xe9", "word<a> word<b\xe9>")
	f(maria, "größe 表", "word<größe> word<表>")
	f(maria, "a\xff", "bad<a\xff>")
	// Variables.
	f(maria, "@a @a.b @`c d` @'e' @\"f\" @ g", "user<@a> user<@a.b> user<@`c d`> user<@'e'> user<@\"f\"> user<@> word<g>")
	f(maria, "@@a @@session.b @@`c` @@global . d", "system<@@a> system<@@session> dot<.> name<b> system<@@`c`> system<@@global> dot<.> word<d>")
	f(maria, "@@", "bad<@@>")
	f(maria, "'root'@'%'", "text<'root'> user<@'%'>")
	// Operators.
	f(maria, "a<=>b<=c>=d<>e!=f<<g>>h:=i&&j||k&l|m", "word<a> op<<=>> word<b> op<<=> word<c> op<>=> word<d> op<<>> word<e> op<!=> word<f> op<<<> word<g> op<>>> word<h> op<:=> word<i> op<&&> word<j> op<||> word<k> op<&> word<l> op<|> word<m>")
	f(maria, "a->'$.b' a->>'$.b'", "word<a> op<->> text<'$.b'> word<a> op<->>> text<'$.b'>")
	f(maria, "? ?, ?;\\N", "parameter<?> parameter<?> op<,> parameter<?> semicolon<;> null<\\N>")
	f(maria, "?a", "bad<?a>")
	// Comments: MySQL manual 11.7; MariaDB "Comment Syntax".
	f(maria, "1--1 1-- 1\n2 --\n3 #4\n5 --", "int<1> op<-> op<-> int<1> int<1> int<2> int<3> int<5>")
	f(maria, "1 /* ' */ 2 /**/ 3 /*/ */ 4 /*+ x */ 5", "int<1> int<2> int<3> int<4> hint</*+ x */> int<5>")
	f(maria, "/*! 1 */ /*!40101 2*/ /*!50700 3 */ /*!99999 4 */ /*!100000 5 */ /*!110000 6 */ /*M!80000 7 */ /*M! 8 */", "open</*!> int<1> close<*/> open</*!40101> int<2> close<*/> open</*!100000> int<5> close<*/> open</*M!80000> int<7> close<*/> open</*M!> int<8> close<*/>")
	f(mysql, "/*!50700 1 */ /*!80036 2 */ /*!80037 3 */ /*!99999 4 */ /*M!50000 5 */", "open</*!50700> int<1> close<*/> open</*!80036> int<2> close<*/>")
	f(maria, "/*!40101 1 /* 2 */ 3 */ 4", "open</*!40101> int<1> int<3> close<*/> int<4>")
	f(maria, "/*!99999 1 /* 2 */ 3 */ 4", "int<4>")
	f(maria, "/*! 1 /*! 2 */ 3 */", "open</*!> int<1> open</*!> int<2> close<*/> int<3> op<*> op</>")
	f(maria, "/* 1", "bad</* 1>")
	f(maria, "1 \x00 2", "int<1> bad<\x00 2>")
	f(maria, "$a a$b$", "word<$a> word<a$b$>")
	f(mysql, "$a $$ x", "word<$a> bad<$$ x>")
	f(maria, "select.a a.select a . select", "name<select> dot<.> name<a> name<a> dot<.> name<select> word<a> dot<.> word<select>")
}

func TestOdd(t *testing.T) {
	t.Parallel()
	f := func(m *Mode, text string, want bool) {
		t.Helper()
		var s Scanner
		s.Reset([]byte(text), m)
		for s.Next().Kind != End {
		}
		if s.Odd != want {
			t.Errorf("%q: odd is %v", text, s.Odd)
		}
	}
	f(maria, "select 1 /*!40101 + 2 */", false)
	f(&Mode{MariaDB: true}, "select 1 /*!40101 + 2 */", true) // the version is not known
	f(&Mode{MariaDB: true}, "select 1 /*! + 2 */", false)
	f(maria, "select 1 /*!40101 + 2", true)
	f(maria, "select 1 /*!40101 ; */", true)
	f(maria, "select 1 =! 2", true)
	f(maria, "select 1.e(2)", true)
	f(&Mode{MariaDB: true, Version: 101119, Foreign: true}, "select 1", true)
	f(&Mode{Version: 80036}, "select 1 /*!080036+ 2 */", true)
	f(maria, "select 1 /*!99997 2 */", true)
	f(&Mode{Charset: CharsetNamed("gbk")}, "select @\xbf\x5c", true)
}

func TestSetSQLMode(t *testing.T) {
	t.Parallel()
	f := func(names string, want Mode) {
		t.Helper()
		m := Mode{NoBackslashEscapes: true, ANSIQuotes: true, Foreign: true}
		if m.SetSQLMode(names); m != want {
			t.Errorf("%s: %+v", names, m)
		}
	}
	f("", Mode{})
	f("STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO", Mode{})
	f("no_backslash_escapes, Ansi_Quotes", Mode{NoBackslashEscapes: true, ANSIQuotes: true})
	f("REAL_AS_FLOAT,PIPES_AS_CONCAT,ANSI_QUOTES,IGNORE_SPACE,ANSI", Mode{ANSIQuotes: true})
	f("ORACLE", Mode{ANSIQuotes: true, Foreign: true})
	f("4", Mode{Foreign: true})
}

func TestCharsetNamed(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"UTF8MB4": "utf8mb4", "utf8": "utf8mb3", "Gbk": "gbk", "latin1": "latin1", "binary": "binary"} {
		if c := CharsetNamed(name); c == nil || c.Name != want {
			t.Errorf("%s is %v", name, c)
		}
	}
	for _, name := range []string{"ucs2", "utf16", "utf32", "swe7", ""} {
		if CharsetNamed(name) != nil {
			t.Errorf("%q is known", name)
		}
	}
}

func TestAppendValue(t *testing.T) {
	t.Parallel()
	f := func(m *Mode, text, want string) {
		t.Helper()
		var s Scanner
		s.Reset([]byte(text), m)
		if got := string(AppendValue(nil, []byte(text), s.Next(), m)); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	f(maria, `'a\n\t\r\b\0\Z\\\'\"\%\_\x'`, "a\n\t\r\b\x00\x1a\\'\"\\%\\_x")
	f(maria, `'a''b""c'`, `a'b""c`)
	f(maria, `"a''b""c"`, `a''b"c`)
	f(maria, "N'a'", "a")
	f(maria, "`a``b\\n`", "a`b\\n")
	f(&Mode{NoBackslashEscapes: true}, `'a\n'`, `a\n`)
	f(&Mode{Charset: CharsetNamed("gbk")}, "'\xbf\\n'", "\xbf\\n")
	f(maria, "12", "12")
}
