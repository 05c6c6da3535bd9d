package h1

import (
	"encoding/binary"
	"math/bits"
)

// class is a set of character classes; classes says to which ones a byte belongs.
type class uint8

const (
	token     class = 1 << iota // RFC 9110, 5.6.2: field names, methods
	value                       // inside a field value or reason: HTAB, SP, visible ASCII, 0x80 to 0xff
	path                        // in a path, '%' apart
	query                       // in a query
	host                        // in a registered name, see validHost
	lowerHex                    // 0-9 a-f
	upperHex                    // A-F
	ipLiteral                   // between the brackets of an IPv6 address
)

const (
	digits     = "0123456789"
	letters    = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	unreserved = letters + digits + "-._~" // RFC 3986, 2.3
	subDelims  = "!$&'()*+,;="             // RFC 3986, 2.2
	pchar      = unreserved + subDelims + ":@"
)

// classes is read for almost every byte of a head; it is never written after start.
//
// Paths and queries are RFC 3986 plus what browsers send without escaping it (WHATWG URL): in a path | [ ] ^, in a query
// also { } ` and the backslash. Everything else that is not in the grammar is refused, above all '#', quotes, < and >,
// space, controls and bytes beyond ASCII. The backslash is refused in a path because some servers take it for a slash.
var classes = func() (t [256]class) {
	set := func(c class, members string) {
		for i := range len(members) {
			t[members[i]] |= c
		}
	}
	set(token, letters+digits+"!#$%&'*+-.^_`|~")
	set(path, pchar+"/"+"|[]^")
	set(query, pchar+"/?%"+"|[]^{}`\\")
	set(host, unreserved)
	set(lowerHex, digits+"abcdef")
	set(upperHex, "ABCDEF")
	set(ipLiteral, digits+"abcdefABCDEF:.")
	for c := range t {
		if c == '\t' || c >= ' ' && c != 0x7f {
			t[c] |= value
		}
	}
	return t
}()

// skip gives the index of the first byte at or after i that is not in c, or len(b).
func skip(b []byte, i int, c class) int {
	for i < len(b) && classes[b[i]]&c != 0 {
		i++
	}
	return i
}

// Eight bytes at a time: a word has them in the order of memory, the first one lowest.
const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// find has a bit for each byte of w that is c, and may have some above those, so only the lowest counts; see firstByte.
func find(w uint64, c byte) uint64 {
	x := w ^ ones*uint64(c)
	return (x - ones) &^ x & highs
}

// suspects has a bit for each byte of w below 0x20 or equal to 0x7f, and may have some above those and for '~' behind 0xff.
// Above, because of borrows; and 0xff carries into the next byte. So the lowest counts, and is to be looked at.
func suspects(w uint64) uint64 { return (w - ones*0x20 | (w + ones)) &^ w & highs }

// firstByte says which byte the lowest bit of a mask stands for.
func firstByte(mask uint64) int { return bits.TrailingZeros64(mask) / 8 }

// skipValue is skip(b, i, value), eight bytes at a time.
func skipValue[T []byte | string](b T, i int) int {
	for i >= 0 && i <= len(b)-8 {
		m := suspects(binary.LittleEndian.Uint64([]byte(b[i : i+8])))
		if m == 0 {
			i += 8
			continue
		}
		i += firstByte(m)
		if classes[b[i]]&value == 0 {
			return i
		}
		i++
	}
	for i < len(b) && classes[b[i]]&value != 0 {
		i++
	}
	return i
}

// trim cuts spaces and tabs (OWS) from both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// lower is the ASCII lower case of c.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// EqualFold says whether a and b are equal but for the case of ASCII letters.
func EqualFold[A, B []byte | string](a A, b B) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if a[i] != b[i] && lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

// ContainsToken says whether token, in any case, is an element of the comma-separated list value. Parameters are part
// of an element: "gzip;q=0" does not contain gzip.
func ContainsToken(value []byte, token string) bool {
	for more := true; more; {
		var element []byte
		element, value, more = cutElement(value)
		if EqualFold(element, token) {
			return true
		}
	}
	return false
}

// cutElement takes the first element, trimmed and perhaps empty, from a comma-separated list. It knows no quoted
// strings: it is for lists of tokens.
func cutElement(list []byte) (element, rest []byte, more bool) {
	for i, c := range list {
		if c == ',' {
			return trim(list[:i]), list[i+1:], true
		}
	}
	return trim(list), nil, false
}
