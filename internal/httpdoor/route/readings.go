package route

import "bytes"

// Reading is a way in which servers read a path in normal form further than Normalize does. RFC 3986 leaves these open, so a path that
// has more than one is kept as it is; but who protects one place with one route and another with a second must know of them.
type Reading uint8

// What a server may do to a path.
const (
	DropRaw     Reading = 1 << iota // drop ;v=1 up to the next slash, which belongs to no segment's name (servlet containers); then decode
	DropDecoded                     // the same once escapes are decoded
	Decode                          // %3A is a colon (most servers); %2F and %5C stay escaped
	Slash                           // with Decode: %2F is a slash
	Backslash                       // with Decode and Slash: %5C is a backslash, which is a slash too; else it is like any other character
)

// Ways are the readings that servers are known to have, but for the one that leaves a path as it is.
var Ways = [...]Reading{
	Decode, Decode | Slash, Decode | Slash | Backslash,
	DropRaw, DropRaw | Decode, DropRaw | Decode | Slash, DropRaw | Decode | Slash | Backslash,
	DropDecoded | Decode, DropDecoded | Decode | Slash, DropDecoded | Decode | Slash | Backslash,
}

// Readings says what may change a path in normal form; 0 for almost every path. Ways that have more in them read it as one of the others does.
func Readings(path []byte) (all Reading) {
	if bytes.IndexByte(path, ';') >= 0 {
		all = DropRaw | DropDecoded
	}
	for rest := path; ; {
		i := bytes.IndexByte(rest, '%')
		if i < 0 || i+2 >= len(rest) {
			return all
		}
		if c := unhex(rest[i+1])<<4 | unhex(rest[i+2]); readable(c) {
			all |= Decode
			switch c {
			case ';':
				all |= DropDecoded
			case '/':
				all |= Slash
			case '\\':
				all |= Slash | Backslash
			}
		}
		rest = rest[i+3:]
	}
}

// readable says that an escaped c means the same as a raw one to a server that decodes. Raw ? and # would end the path, % begin another escape.
func readable(c byte) bool {
	return c > ' ' && c < 0x7F && c != '%' && c != '?' && c != '#'
}

// decodes says that a server that reads so decodes an escaped c, or does as if.
func (r Reading) decodes(c byte) bool {
	switch c {
	case '/':
		return r&Slash != 0
	case '\\':
		return r&Backslash != 0
	}
	return r&Decode != 0 && readable(c)
}

// Of gives a path in normal form as a server sees it that reads so, in normal form again. It allocates.
func (r Reading) Of(path []byte) ([]byte, error) {
	read := make([]byte, 0, len(path))
	dropping := false
	for i := 0; i < len(path); i++ {
		c, counts := path[i], true // as a separator, when parameters are dropped
		if c == '%' && i+2 < len(path) {
			if decoded := unhex(path[i+1])<<4 | unhex(path[i+2]); r.decodes(decoded) {
				c, counts = decoded, r&DropRaw == 0
				i += 2
			}
		}
		if c == '\\' {
			c = '/'
		}
		switch {
		case c == '/' && counts:
			dropping = false
		case c == ';' && counts && r&(DropRaw|DropDecoded) != 0:
			dropping = true
		}
		if !dropping {
			read = append(read, c)
		}
	}
	out, _, err := Normalize(nil, read)
	return out, err
}
