package route

import (
	"bytes"
	"errors"
)

// Why Normalize refuses a path. The request is bad (400); none of these can be repaired without guessing.
var (
	ErrPathForm      = errors.New("path does not begin with a slash")
	ErrPathEscape    = errors.New("path has a % without two hexadecimal digits")
	ErrPathControl   = errors.New("path has a control character or a space")
	ErrPathBackslash = errors.New("path has a backslash")
	ErrPathCharacter = errors.New("path has a ? or #")
	ErrPathAboveRoot = errors.New("path climbs above the root")
	ErrPathHiddenDot = errors.New("path hides a dot segment behind %2F, %5C or a semicolon")
)

// Normalize brings a path into the one form that is matched and forwarded, so that what a route protects cannot be
// reached under another spelling. An empty path becomes a slash; "*", the target of OPTIONS for the whole server, is kept,
// and matches nothing. Then, in effect in this order:
//
//   - %XX of a letter, a digit, or one of - . _ ~ is decoded (RFC 3986, 6.2.2.2); once, never twice. Every other %XX is
//     kept, with its digits in capitals (6.2.2.1); %2F and %5C stay part of their segment. Bytes above 0x7F are encoded.
//   - Runs of slashes become one slash.
//   - The segments . and .. are resolved (5.2.4), so /a/b/.. is /a/.
//
// It refuses control characters and spaces, raw or as %00 to %1F and %7F, raw backslashes, ? and #, a % without two
// hexadecimal digits, a .. that climbs above the root, and a dot segment that a server behind might find when it decodes
// %2F and %5C (..%2F, %5C..) or drops path parameters (..;x, .;x). The result is a fixed point of Normalize.
//
// A path that is already in this form is returned itself, at the cost of one scan and without touching dst. Otherwise
// the result is written to dst from its start, growing it when needed (at most three times the length of path); dst must not overlap
// path. changed tells whether out differs from path. Normalize does not allocate when dst is large enough.
func Normalize(dst, path []byte) (out []byte, changed bool, err error) {
	if len(path) == 0 {
		return append(dst[:0], '/'), true, nil
	}
	if path[0] != '/' {
		if string(path) == "*" {
			return path, false, nil
		}
		return nil, false, ErrPathForm
	}
	afterSlash := false
	for _, c := range path {
		if pathSpecial[c] || afterSlash && (c == '/' || c == '.') {
			return normalize(dst[:0], path)
		}
		afterSlash = c == '/'
	}
	return path, false, nil
}

// pathSpecial are the bytes that a path in normal form has only as part of %XX, or not at all.
var pathSpecial = func() (special [256]bool) {
	for c := range special {
		special[c] = c <= ' ' || c >= 0x7F || c == '%' || c == '\\' || c == '?' || c == '#'
	}
	return special
}()

// normalize is Normalize for paths that may need a change. It copies segment by segment: dst holds the segments so far,
// each with the slash before it.
func normalize(dst, path []byte) (out []byte, changed bool, err error) {
	for i := 0; i < len(path); {
		start := len(dst)
		dst = append(dst, '/')
		for i++; i < len(path) && path[i] != '/'; i++ {
			if dst, i, err = appendPathByte(dst, path, i); err != nil {
				return nil, false, err
			}
		}
		last := i == len(path)
		segment := dst[start+1:]
		switch {
		case len(segment) == 0:
			if !last {
				dst = dst[:start]
			}
		case string(segment) == ".":
			dst = dst[:start]
		case string(segment) == "..":
			if start == 0 {
				return nil, false, ErrPathAboveRoot
			}
			dst = dst[:bytes.LastIndexByte(dst[:start], '/')]
		case hidesDots(segment):
			return nil, false, ErrPathHiddenDot
		default:
			continue
		}
		if last && (len(dst) == 0 || dst[len(dst)-1] != '/') {
			dst = append(dst, '/')
		}
	}
	if bytes.Equal(dst, path) {
		return path, false, nil
	}
	return dst, true, nil
}

// appendPathByte appends the byte at path[i], or the %XX there, in normal form. It gives the index of the last byte it used.
func appendPathByte(dst, path []byte, i int) ([]byte, int, error) {
	const digits = "0123456789ABCDEF"
	c := path[i]
	switch {
	case c == '%':
		if i+2 >= len(path) {
			return nil, 0, ErrPathEscape
		}
		high, low := unhex(path[i+1]), unhex(path[i+2])
		if high|low > 15 {
			return nil, 0, ErrPathEscape
		}
		i += 2
		c = high<<4 | low
		if c < ' ' || c == 0x7F {
			return nil, 0, ErrPathControl
		}
		if isUnreserved(c) {
			return append(dst, c), i, nil
		}
		return append(dst, '%', digits[high], digits[low]), i, nil
	case c <= ' ' || c == 0x7F:
		return nil, 0, ErrPathControl
	case c == '\\':
		return nil, 0, ErrPathBackslash
	case c == '?' || c == '#':
		return nil, 0, ErrPathCharacter
	case c > 0x7F:
		return append(dst, '%', digits[c>>4], digits[c&15]), i, nil
	}
	return append(dst, c), i, nil
}

// hidesDots tells whether a server that decodes %2F and %5C, or that drops path parameters, would find a dot segment in
// a segment that is none here: "..%2Fb", "a%5C..", "..;x". "a%2Fb" and ".well-known" are fine.
func hidesDots(segment []byte) bool {
	whole := true
	for len(segment) > 0 {
		piece, rest := segment, []byte(nil)
		for i := 0; i+2 < len(segment); i++ {
			if segment[i] == '%' && (string(segment[i+1:i+3]) == "2F" || string(segment[i+1:i+3]) == "5C") {
				piece, rest, whole = segment[:i], segment[i+3:], false
				break
			}
		}
		name, _, parameters := bytes.Cut(piece, []byte{';'})
		if string(name) == ".." && (parameters || !whole) || string(name) == "." && parameters {
			return true
		}
		segment = rest
	}
	return false
}

// isUnreserved tells whether c never needs encoding (RFC 3986, 2.3).
func isUnreserved(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// unhex gives the value of a hexadecimal digit, or 16 and more.
func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10
	}
	return 0xFF
}
