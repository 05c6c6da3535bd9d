package h2

import (
	"bytes"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/menshen-gateway/menshen/internal/h1"
)

// encoder turns heads, given as HTTP/1.1 text, into field blocks. The state of the compression is the library's. Around it are two
// shortcuts, because most heads of a connection are nearly the same (1.6 µs for a response with 12 fields by the library alone, 0.5 with them):
//
//   - A line that stood in the same place of an earlier head, and was then found in the table, is found there again as long as
//     nothing was added to the table: its code is kept.
//   - A field whose value comes once is a literal, for which nothing has to be looked up.
type encoder struct {
	out     []byte // the block being encoded
	library *hpack.Encoder
	changes uint64 // of the library's table
	resized bool   // the library has to say so before anything else
	lines   []codedLine
	place   int // of the next line in its head
}

// codedLine is a line and the code that stands for it while the table is what it was after that many changes.
type codedLine struct {
	line    string
	changes uint64
	code    [4]byte
	length  uint8
}

// pathTabled is the longest path that may come again.
const pathTabled = 64

// The kept lines of a connection have at most 8 KiB.
const (
	linesKept     = 32
	lineBytesKept = 256
)

func newEncoder() *encoder {
	e := &encoder{}
	e.library = hpack.NewEncoder(e)
	e.library.SetMaxDynamicTableSizeLimit(headerTableSize)
	return e
}

// Write takes what the library writes.
func (e *encoder) Write(p []byte) (int, error) {
	e.out = append(e.out, p...)
	return len(p), nil
}

// resize heeds the peer's bound on the table.
func (e *encoder) resize(bytes uint32) {
	e.library.SetMaxDynamicTableSize(min(bytes, headerTableSize))
	e.changes++
	e.resized = true
}

// begin starts a block.
func (e *encoder) begin() { e.out, e.place = e.out[:0], 0 }

// response encodes the text of a response's head.
func (e *encoder) response(text []byte) {
	e.begin()
	line, rest, _ := bytes.Cut(text, lineEnd)
	status := line[len("HTTP/1.1 ") : len("HTTP/1.1 ")+3]
	e.field(status, ":status", status)
	e.textLines(rest)
}

// request encodes the text of a request's head, whose second line is Host. It says whether the method is HEAD.
func (e *encoder) request(text []byte, scheme string) (head bool) {
	e.begin()
	line, rest, _ := bytes.Cut(text, lineEnd)
	method, line, _ := bytes.Cut(line, space)
	path, _, _ := bytes.Cut(line, space)
	host, rest, _ := bytes.Cut(rest, lineEnd)
	e.field(method, ":method", method)
	e.field([]byte(scheme), ":scheme", []byte(scheme))
	host = host[len("Host: "):]
	e.field(host, ":authority", host)
	if len(path) > pathTabled {
		e.place++
		e.byLibrary(":path", string(path), true)
	} else {
		e.field(path, ":path", path)
	}
	e.textLines(rest)
	return string(method) == "HEAD"
}

var lineEnd, space, colon = []byte("\r\n"), []byte(" "), []byte(": ")

// trailers encodes fields of their own.
func (e *encoder) trailers(fields []h1.Field) {
	e.begin()
	for _, f := range fields {
		e.named(nil, f.Name, f.Value)
	}
}

// textLines encodes field lines up to the empty one.
func (e *encoder) textLines(text []byte) {
	for {
		var line []byte
		if line, text, _ = bytes.Cut(text, lineEnd); len(line) == 0 {
			return
		}
		if e.again(line) { // before its name is looked up
			continue
		}
		name, value, _ := bytes.Cut(line, colon)
		e.named(line, name, value)
	}
}

// named encodes a field. What concerns an HTTP/1 connection is left out.
func (e *encoder) named(line, name, value []byte) {
	n, known := names[string(name)]
	if !known {
		lower := strings.ToLower(string(name))
		if n, known = names[lower]; !known {
			n.lower = lower
		}
	}
	switch {
	case n.hop:
	case n.once != "" && !e.resized:
		e.out = append(e.out, n.once...)
		e.out = appendHuffman(e.out, value)
	case n.once != "":
		e.byLibrary(n.lower, string(value), true)
	default:
		e.field(line, n.lower, value)
	}
}

// again encodes the next line if it is the one that stood there before.
func (e *encoder) again(line []byte) bool {
	if e.place >= len(e.lines) {
		return false
	}
	l := &e.lines[e.place]
	if l.changes != e.changes || l.line != string(line) {
		return false
	}
	e.out = append(e.out, l.code[:l.length]...)
	e.place++
	return true
}

// field encodes a field that may stand in the table. line is what it is recognised by in its place; an empty one never is.
func (e *encoder) field(line []byte, name string, value []byte) {
	if len(line) > 0 && e.again(line) {
		return
	}
	at := e.place
	e.place++
	code := e.byLibrary(name, string(value), false)
	if code[0]&0x80 == 0 || len(code) > len(codedLine{}.code) || len(line) == 0 || len(line) > lineBytesKept || at >= linesKept {
		return
	}
	for len(e.lines) <= at {
		e.lines = append(e.lines, codedLine{changes: e.changes - 1})
	}
	l := &e.lines[at]
	if l.line != string(line) {
		l.line = string(line)
	}
	l.changes, l.length = e.changes, uint8(copy(l.code[:], code))
}

// byLibrary encodes a field, and notes whether the table has changed. Once keeps values that come once, or must not be guessed,
// out of the table.
func (e *encoder) byLibrary(name, value string, once bool) (code []byte) {
	before := len(e.out)
	_ = e.library.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: once}) // writing to memory cannot fail
	code = e.out[before:]
	if code[0]&0xc0 == 0x40 || e.resized { // added to the table (RFC 7541, 6.2.1), or behind a change of its size
		e.changes++
	}
	e.resized = false
	return code
}

// appendHuffman appends text in the shorter of its two forms (RFC 7541, 5.2).
func appendHuffman(dst, text []byte) []byte {
	// The library does not keep these strings: up to 32 bytes they are copied to the stack.
	if n := hpack.HuffmanEncodeLength(string(text)); n < uint64(len(text)) {
		start := len(dst)
		dst = appendPrefixed(dst, 7, n)
		dst[start] |= 0x80
		return hpack.AppendHuffmanString(dst, string(text))
	}
	return append(appendPrefixed(dst, 7, uint64(len(text))), text...)
}

// appendPrefixed appends a number with a prefix of some bits (RFC 7541, 5.1).
func appendPrefixed(dst []byte, bits int, n uint64) []byte {
	most := uint64(1)<<bits - 1
	if n < most {
		return append(dst, byte(n))
	}
	dst = append(dst, byte(most))
	for n -= most; n >= 128; n >>= 7 {
		dst = append(dst, byte(0x80|n&0x7f))
	}
	return append(dst, byte(n))
}

// name is what is known of a field's name.
type name struct {
	lower string
	hop   bool   // concerns an HTTP/1 connection
	once  string // the code of the name in a literal that nobody may put into a table; "" for the others
}

// names are common names, in their usual and in lower case.
var names = func() map[string]name {
	m := map[string]name{}
	for _, canonical := range strings.Fields(`Accept Accept-Charset Accept-Encoding Accept-Language Accept-Ranges
		Access-Control-Allow-Credentials Access-Control-Allow-Headers Access-Control-Allow-Methods Access-Control-Allow-Origin
		Access-Control-Expose-Headers Access-Control-Max-Age Access-Control-Request-Headers Access-Control-Request-Method Age
		Allow Alt-Svc Cache-Control Content-Disposition Content-Encoding Content-Language
		Content-Location Content-Range Content-Security-Policy Content-Type Date Expect Expires Forwarded
		Grpc-Accept-Encoding Grpc-Encoding Grpc-Message Grpc-Status Grpc-Status-Details-Bin If-Match
		If-Modified-Since If-None-Match If-Range If-Unmodified-Since Link Origin Pragma Priority
		Proxy-Authenticate Range Retry-After Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site
		Sec-Fetch-User Server Strict-Transport-Security TE Te Tracestate Trailer
		Upgrade-Insecure-Requests User-Agent Vary Via WWW-Authenticate Www-Authenticate
		X-Content-Type-Options X-Forwarded-Host X-Forwarded-Proto X-Frame-Options X-Real-Ip RateLimit-Policy`) {
		lower := strings.ToLower(canonical)
		m[canonical] = name{lower: lower}
		m[lower] = m[canonical]
	}
	for _, canonical := range strings.Fields("Connection Transfer-Encoding Keep-Alive Proxy-Connection Upgrade Host") {
		lower := strings.ToLower(canonical)
		m[canonical] = name{lower: lower, hop: true}
		m[lower] = m[canonical]
	}
	for _, canonical := range strings.Fields(`Authorization Cookie Set-Cookie Proxy-Authorization X-Request-Id X-Response-Time Server-Timing ETag Etag
		Content-Length Last-Modified X-Forwarded-For Location Referer Grpc-Timeout Traceparent RateLimit`) {
		lower := strings.ToLower(canonical)
		var code bytes.Buffer
		_ = hpack.NewEncoder(&code).WriteField(hpack.HeaderField{Name: lower, Sensitive: true})
		once := code.String()
		m[canonical] = name{lower: lower, once: once[:len(once)-1]} // without the length of the empty value
		m[lower] = m[canonical]
	}
	return m
}()
