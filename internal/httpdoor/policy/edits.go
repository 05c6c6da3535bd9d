package policy

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/menshen-gateway/menshen/internal/h1"
)

// Names is a set of field names, in any case, prepared to be asked for each field of a head. A name that ends in * stands
// for all that begin so. An underscore counts as a hyphen, as it does for many servers: what takes X-User away must not leave
// X_User. It is immutable.
type Names struct {
	names    []string
	prefixes []string
	lengths  uint64 // bit n: some name has n bytes (modulo 64); all bits when there are prefixes
	firsts   uint32 // bit n: some name begins with a byte that is n modulo 32, which is the same for both cases of a letter
}

// first gives the bits of Names.firsts that a name may stand for.
func first(name string) uint32 {
	if name == "" || name[0] == '-' { // any, or also an underscore
		return ^uint32(0)
	}
	return 1 << (name[0] & 31)
}

// NewNames makes a set. What frames a message is not in it by a star.
func NewNames(names ...string) *Names {
	n := &Names{}
	for _, name := range names {
		name = strings.ReplaceAll(name, "_", "-")
		if prefix, found := strings.CutSuffix(name, "*"); found {
			n.prefixes = append(n.prefixes, prefix)
			n.firsts |= first(prefix)
			n.lengths = ^uint64(0)
			continue
		}
		n.names = append(n.names, name)
		n.firsts |= first(name)
		n.lengths |= 1 << (len(name) & 63)
	}
	return n
}

// Has says whether the set holds name.
func (n *Names) Has(name []byte) bool {
	if n.lengths&(1<<(len(name)&63)) == 0 || !begins(n.firsts, name) {
		return false
	}
	for _, other := range n.names {
		if h1.EqualName(name, other) {
			return true
		}
	}
	for _, prefix := range n.prefixes {
		if len(name) >= len(prefix) && h1.EqualName(name[:len(prefix)], prefix) {
			return !framing.Has(name) // Content-* must not take Content-Length
		}
	}
	return false
}

// begins says whether a name begins as firsts allow. No name is empty, but then it is for others to say so.
func begins(firsts uint32, name []byte) bool { return len(name) == 0 || firsts&(1<<(name[0]&31)) != 0 }

// Edits are changes to a head: fields to take away and lines to add. Later edits see earlier ones: what is removed is
// removed whoever added it. Framing (Host, Content-Length, Transfer-Encoding, Connection, ...) and the fields that the
// gateway writes itself are out of reach: who takes names from a configuration refuses those with Writable.
type Edits struct {
	removed []*Names
	firsts  uint32 // of all that are removed
	lines   []byte // whole lines, each ending in CRLF
}

// Reset forgets all edits but keeps memory.
func (e *Edits) Reset() {
	e.removed, e.firsts, e.lines = e.removed[:0], 0, e.lines[:0]
	if cap(e.lines) > linesKept {
		e.lines = nil
	}
}

// linesKept is the most memory for lines that is kept from one request to the next.
const linesKept = 16 << 10

// Empty says that there is nothing to do.
func (e *Edits) Empty() bool { return len(e.removed) == 0 && len(e.lines) == 0 }

// Remove takes away all fields of these names, those that were added before included.
func (e *Edits) Remove(names *Names) {
	e.removed = append(e.removed, names)
	e.firsts |= names.firsts
	for rest := e.lines; len(rest) > 0; rest = rest[bytes.IndexByte(rest, '\n')+1:] {
		if begins(names.firsts, rest) { // rarely: most lines are another policy's
			e.lines = e.lines[:len(appendKept(e.lines[:0], e.lines, names.Has))]
			return
		}
	}
}

// AddLines adds ready lines, each ending in CRLF. They must be valid: names and values that did not come out of a parsed
// head were checked at compile.
func (e *Edits) AddLines(lines string) { e.lines = append(e.lines, lines...) }

// Add adds a field whose name is valid. A value that holds control characters is left out: h1.ValidValue.
func (e *Edits) Add(name, value string) { e.lines = h1.AppendField(e.lines, name, value) }

// AddBytes is Add for a view.
func (e *Edits) AddBytes(name string, value []byte) { e.lines = h1.AppendField(e.lines, name, value) }

// Build adds a line that value appends, after ready bytes that begin it ("Name: "). When what value appends is not valid, or
// empty, nothing is added. value does not escape.
func (e *Edits) Build(begin string, value func(dst []byte) []byte) {
	start := len(e.lines)
	e.lines = append(e.lines, begin...)
	from := len(e.lines)
	e.lines = value(e.lines)
	if len(e.lines) == from || !h1.ValidValue(e.lines[from:]) {
		e.lines = e.lines[:start]
		return
	}
	e.end()
}

// AddCounts adds ready lines with two numbers between them.
func (e *Edits) AddCounts(before string, a int64, between string, b int64, after string) {
	e.lines = append(e.lines, before...)
	e.lines = strconv.AppendInt(e.lines, a, 10)
	e.lines = append(e.lines, between...)
	e.lines = strconv.AppendInt(e.lines, b, 10)
	e.lines = append(e.lines, after...)
}

func (e *Edits) begin(name string) {
	e.lines = append(e.lines, name...)
	e.lines = append(e.lines, ": "...)
}

func (e *Edits) end() { e.lines = append(e.lines, "\r\n"...) }

// Firsts has a bit for the first byte, modulo 32, of each name that Removes may be true for.
func (e *Edits) Firsts() uint32 { return e.firsts }

// Removes says whether a field of the original head is taken away.
func (e *Edits) Removes(f h1.Field) bool { return e.RemovesName(f.Name) }

// RemovesName is Removes for a name.
func (e *Edits) RemovesName(name []byte) bool {
	if !begins(e.firsts, name) {
		return false
	}
	for _, names := range e.removed {
		if names.Has(name) {
			return true
		}
	}
	return false
}

// Lines gives what is added, each line ending in CRLF. A view until the next edit.
func (e *Edits) Lines() []byte { return e.lines }

// AppendTo appends ready lines without those that are taken away, and behind them those that are added.
func (e *Edits) AppendTo(dst, lines []byte) []byte {
	dst = appendKept(dst, lines, e.RemovesName)
	return append(dst, e.lines...)
}

// describing are the fields that tell of the representation in a response. On an error document those of the document
// itself stand: a Cache-Control for good answers must not make an error cacheable.
var describing = NewNames("Content-*", "Cache-Control", "Expires", "ETag", "Last-Modified", "Age", "Accept-Ranges", "Retry-After", "Allow")

// AppendToError is AppendTo for an error document, whose own fields stand.
func (e *Edits) AppendToError(dst, lines []byte) []byte {
	dst = append(dst, lines...)
	return appendKept(dst, e.lines, describing.Has)
}

// appendKept appends lines but those whose names are dropped. dst may be lines[:0]: it never overtakes.
func appendKept(dst, lines []byte, dropped func(name []byte) bool) []byte {
	for len(lines) > 0 {
		end := bytes.IndexByte(lines, '\n') + 1
		if !dropped(lines[:bytes.IndexByte(lines, ':')]) {
			dst = append(dst, lines[:end]...)
		}
		lines = lines[end:]
	}
	return dst
}

// The fields that the gateway writes itself, on each side. On both, what frames the message is the door's.
var (
	framing  = NewNames("Connection", "Content-Length", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "HTTP2-Settings")
	hopNames = NewNames("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "Via", "X-Request-Id", "Proxy-Authorization", "Expect", "Client-Cert", "Client-Cert-Chain")
	ownNames = NewNames("Date", "Via", "X-Request-Id", "X-Response-Time")
)

// Writable says why a configured name cannot be set, added or removed in the head of a request (toEndpoint) or of a response;
// "" when it can.
func Writable(name string, toEndpoint bool) string {
	switch n := []byte(name); {
	case !h1.ValidName(name):
		return "is no header name"
	case framing.Has(n):
		return "frames the message and is written by Menshen"
	case toEndpoint && h1.EqualFold(n, "host"):
		return "is written by Menshen (accepted: rewrite: {host: ...} on the route)"
	case toEndpoint && hopNames.Has(n), !toEndpoint && ownNames.Has(n):
		return "is written by Menshen (accepted: headers: {...} on the listener switches it)"
	}
	return ""
}
