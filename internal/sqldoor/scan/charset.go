package scan

import (
	"strings"
	"unicode/utf8"
)

// The classes of bytes, as servers have them per character set. The order matters: bytes up to cIdentLast can continue an unquoted identifier.
const (
	cIdent    = iota // letters, _, $
	cHex             // x X
	cBin             // b B
	cNational        // n N
	cDigit
	cMulti     // the first byte of a character of several bytes, to be checked
	cIdentLast = cMulti
)

const (
	cSpace = cIdentLast + 1 + iota
	cOperator
	cString
	cQuote
	cBacktick
	cDot
	cCompare
	cDouble
	cHash
	cMinus
	cSlash
	cStar
	cAt
	cColon
	cSemicolon
	cParameter
	cBackslash
	cBad
)

// Charset is a character set that a client can use in statements. Immutable.
type Charset struct {
	Name string

	class    [256]uint8
	control  [4]uint64 // bytes that end the "--" of a comment, beside whitespace
	trailing bool      // bytes below 0x80 can be the second of a character
	utf8     bool
	length   func([]byte) int // of the character at the start, whose first byte is cMulti; 0 if it is broken
}

func (c *Charset) spaceOrControl(b byte) bool {
	return c.class[b] == cSpace || c.control[b>>6]>>(b&63)&1 != 0
}

// CharsetNamed returns the character set of that name, in any case, or nil: one that no client can use (ucs2, utf16, utf32) or that is not known here.
// utf8 is utf8mb3, which in MariaDB it need not be (old_mode): for finding the ends of strings they are the same.
func CharsetNamed(name string) *Charset {
	for _, c := range charsets {
		if strings.EqualFold(c.Name, name) {
			return c
		}
	}
	if strings.EqualFold(name, "utf8") {
		return charsets[1]
	}
	return nil
}

// UTF8MB4 is the default.
var UTF8MB4 = charsets[0]

// charsets lists them all: with several bytes to a character first. swe7 is left out, in which brackets are letters.
var charsets = append([]*Charset{
	multi("utf8mb4", false, utf8mb4Length),
	multi("utf8mb3", false, utf8mb3Length),
	multi("gbk", true, double(0x81, 0xfe, func(b byte) bool { return b >= 0x40 && b <= 0x7e || b >= 0x80 && b <= 0xfe })),
	multi("gb18030", true, gb18030Length), // MySQL only
	multi("sjis", true, shiftLength),
	multi("cp932", true, shiftLength),
	multi("big5", true, double(0xa1, 0xf9, func(b byte) bool { return b >= 0x40 && b <= 0x7e || b >= 0xa1 && b <= 0xfe })),
	multi("gb2312", false, double(0xa1, 0xf7, func(b byte) bool { return b >= 0xa1 && b <= 0xfe })),
	multi("euckr", true, double(0x81, 0xfe, func(b byte) bool { return b >= 0x41 && b <= 0x5a || b >= 0x61 && b <= 0x7a || b >= 0x81 && b <= 0xfe })),
	multi("ujis", false, eucLength),
	multi("eucjpms", false, eucLength),
}, singles()...)

// multi builds a character set in which every byte from 0x80 on begins a character of several bytes, or is broken. trailing says that bytes below 0x80 can
// be second bytes.
func multi(name string, trailing bool, length func([]byte) int) *Charset {
	c := &Charset{Name: name, class: ascii, control: asciiControl, trailing: trailing, utf8: strings.HasPrefix(name, "utf8"), length: length}
	for b := 0x80; b < 0x100; b++ {
		c.class[b] = cMulti
	}
	return c
}

func singles() []*Charset {
	all := make([]*Charset, 0, len(upperHalves))
	for _, half := range upperHalves {
		c := &Charset{Name: half.name, class: ascii, control: asciiControl}
		if strings.Contains(deleteIsNone, half.name) {
			c.control[1] = 0
		}
		for i := range 128 {
			b := 0x80 + i
			switch half.bytes[i] {
			case 'i':
				c.class[b] = cIdent
			case 's':
				c.class[b] = cSpace
			case 'c':
				c.control[b>>6] |= 1 << (b & 63)
			}
		}
		all = append(all, c)
	}
	return all
}

// ascii holds the classes of the bytes below 0x80, the same in all the character sets here.
var ascii = func() (class [256]uint8) {
	for b := range class {
		class[b] = cBad
	}
	for b := byte('a'); b <= 'z'; b++ {
		class[b], class[b-0x20] = cIdent, cIdent
	}
	for b := byte('0'); b <= '9'; b++ {
		class[b] = cDigit
	}
	for bytes, kind := range map[string]uint8{
		"_$": cIdent, "xX": cHex, "bB": cBin, "nN": cNational, " \t\n\v\f\r": cSpace, "(),+%^~{}": cOperator, "'": cString, "\"": cQuote, "`": cBacktick, ".": cDot,
		"<>=!": cCompare, "&|": cDouble, "#": cHash, "-": cMinus, "/": cSlash, "*": cStar, "@": cAt, ":": cColon, ";": cSemicolon, "?": cParameter, "\\": cBackslash,
	} {
		for i := range len(bytes) {
			class[bytes[i]] = kind
		}
	}
	return class
}()

// asciiControl holds the control characters below 0x80: 0 to 31, and DEL.
var asciiControl = [4]uint64{1<<32 - 1, 1 << 63}

// The lengths of characters follow the server's own idea of a well-formed one (MySQL manual 12.10.5 to 12.10.7; checked by TestStringsAgree).

func double(low, high byte, trail func(byte) bool) func([]byte) int {
	return func(b []byte) int {
		if len(b) >= 2 && b[0] >= low && b[0] <= high && trail(b[1]) {
			return 2
		}
		return 0
	}
}

func shiftTrail(b byte) bool { return b >= 0x40 && b <= 0x7e || b >= 0x80 && b <= 0xfc }

// shiftLength leaves out the half-width katakana, which stand in one byte.
func shiftLength(b []byte) int {
	if len(b) >= 2 && (b[0] >= 0x81 && b[0] <= 0x9f || b[0] >= 0xe0 && b[0] <= 0xfc) && shiftTrail(b[1]) {
		return 2
	}
	return 0
}

func eucLength(b []byte) int {
	high := func(i int) bool { return len(b) > i && b[i] >= 0xa1 && b[i] <= 0xfe }
	switch {
	case high(0) && high(1), b[0] == 0x8e && len(b) > 1 && b[1] >= 0xa0 && b[1] <= 0xdf:
		return 2
	case b[0] == 0x8f && high(1) && high(2):
		return 3
	}
	return 0
}

func gb18030Length(b []byte) int {
	high := func(i int) bool { return len(b) > i && b[i] >= 0x81 && b[i] <= 0xfe }
	digit := func(i int) bool { return len(b) > i && isDigit(b[i]) }
	switch {
	case !high(0):
		return 0
	case len(b) > 1 && (b[1] >= 0x40 && b[1] <= 0x7e || b[1] >= 0x80 && b[1] <= 0xfe):
		return 2
	case digit(1) && high(2) && digit(3):
		return 4
	}
	return 0
}

func utf8mb4Length(b []byte) int {
	if r, n := utf8.DecodeRune(b); r != utf8.RuneError || n > 1 {
		return n
	}
	return 0
}

func utf8mb3Length(b []byte) int {
	if n := utf8mb4Length(b); n <= 3 {
		return n
	}
	return 0
}
