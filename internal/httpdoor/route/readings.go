package route

import "bytes"

// Reading is a way in which servers read a path in normal form further than Normalize does. RFC 3986 leaves these open, so a path that
// has more than one is kept as it is; but who protects one place with one route and another with a second must know of them.
type Reading uint8

// What a server may do to a path. Together: first decode, then drop.
const (
	DropParameters Reading = 1 << iota // ;v=1 belongs to no segment's name (servlet containers)
	Decode                             // %2F is a slash, %5C a backslash, which is one too, and %3A a colon (most others)
)

// Readings says what would change a path in normal form; 0 for almost every path.
func Readings(path []byte) (all Reading) {
	if bytes.IndexByte(path, ';') >= 0 {
		all = DropParameters
	}
	for rest := path; ; {
		i := bytes.IndexByte(rest, '%')
		if i < 0 || i+2 >= len(rest) {
			return all
		}
		if c := unhex(rest[i+1])<<4 | unhex(rest[i+2]); readable(c) {
			all |= Decode
			if c == ';' {
				all |= DropParameters
			}
		}
		rest = rest[i+3:]
	}
}

// readable says that an escaped c means the same as a raw one to a server that decodes. Raw ? and # would end the path, % begin another escape.
func readable(c byte) bool {
	return c > ' ' && c < 0x7F && c != '%' && c != '?' && c != '#'
}

// Of gives a path in normal form as a server sees it that reads so, in normal form again. It allocates.
func (r Reading) Of(path []byte) ([]byte, error) {
	read := make([]byte, 0, len(path))
	dropping := false
	for i := 0; i < len(path); i++ {
		c := path[i]
		if r&Decode != 0 && c == '%' && i+2 < len(path) {
			if decoded := unhex(path[i+1])<<4 | unhex(path[i+2]); readable(decoded) {
				c = decoded
				i += 2
			}
		}
		if c == '\\' {
			c = '/'
		}
		switch {
		case c == '/':
			dropping = false
		case c == ';' && r&DropParameters != 0:
			dropping = true
		}
		if !dropping {
			read = append(read, c)
		}
	}
	out, _, err := Normalize(nil, read)
	return out, err
}
