package h2

import (
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/menshen-gateway/menshen/internal/h1"
)

// block is a head that comes in: HEADERS and its CONTINUATION frames. It is turned into HTTP/1.1 text as it is decoded.
type block struct {
	open   bool
	stream uint32
	end    bool // END_STREAM
	kind   blockKind
	frames int
	bytes  int

	text    []byte // request or status line and fields, or trailers as a last chunk
	fields  bool   // a regular field came: pseudo-fields are over
	started bool   // the first line is written
	bad     string // why the head is malformed (RFC 9113, 8.1.1)

	method, scheme, authority, path, status string
	cookie                                  []byte // all crumbs joined (RFC 9113, 8.2.3)
	host                                    string
	declared                                int64
	selfDependent                           bool
}

type blockKind uint8

const (
	blockIgnored blockKind = iota // of a stream that does not exist any more: decoded, because the compression has a state
	blockRequest
	blockResponse
	blockTrailers
)

// takeHeaders begins a head.
func (c *Conn) takeHeaders(f frame, padded []byte) error {
	p, ok := unpad(f, padded)
	if !ok {
		return c.broken(ProtocolError, "more padding than frame")
	}
	b := &c.block
	*b = block{open: true, stream: f.stream, end: f.has(flagEndStream), declared: -1, text: b.text[:0], cookie: b.cookie[:0]}
	if f.has(flagPriority) {
		if len(p) < 5 {
			return c.broken(FrameSizeError, "HEADERS without the priority that it announces")
		}
		b.selfDependent = binary.BigEndian.Uint32(p)&streamIDMax == f.stream
		p = p[5:]
	}
	c.mu.Lock()
	err := c.openBlockLocked(b)
	if !f.has(flagEndHeaders) {
		c.headSince = time.Now()
		c.lookAgainLocked()
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.takeFragment(p, f.has(flagEndHeaders))
}

// openBlockLocked finds out what the head is for.
func (c *Conn) openBlockLocked(b *block) error {
	s := c.streams[b.stream]
	switch {
	case s == nil && !c.client && b.stream%2 == 0:
		return c.broken(ProtocolError, "a client's stream has an even id")
	case s == nil && c.isIdleLocked(b.stream):
		if c.client {
			return c.broken(ProtocolError, "a response to no request")
		}
		c.lastPeer = b.stream
		b.kind = blockRequest
	case s == nil:
		known, local := c.wasClosedLocked(b.stream)
		switch {
		case c.client, local: // it crossed our reset
		case known:
			return c.broken(StreamClosed, "HEADERS on a closed stream")
		default:
			return c.broken(ProtocolError, "a stream's id is lower than one before")
		}
	case c.client && !s.headed:
		b.kind = blockResponse
	default:
		b.kind = blockTrailers
	}
	if b.kind == blockTrailers {
		b.text = append(b.text, "0\r\n"...)
	}
	return nil
}

// takeContinuation goes on with a head.
func (c *Conn) takeContinuation(f frame, p []byte) error {
	b := &c.block
	if !b.open {
		return c.broken(ProtocolError, "CONTINUATION without HEADERS")
	}
	if b.frames++; b.frames > c.limits.Continuations {
		return c.broken(EnhanceYourCalm, "a head of too many frames")
	}
	return c.takeFragment(p, f.has(flagEndHeaders))
}

// takeFragment decodes a part of a head.
func (c *Conn) takeFragment(p []byte, last bool) error {
	b := &c.block
	if b.bytes += len(p); b.bytes > 2*c.limits.HeadBytes {
		return c.broken(EnhanceYourCalm, "a head of too many bytes")
	}
	if _, err := c.decoder.Write(p); err != nil {
		return c.broken(CompressionError, "a head cannot be decoded")
	}
	if !last {
		return nil
	}
	if err := c.decoder.Close(); err != nil {
		return c.broken(CompressionError, "a head cannot be decoded")
	}
	b.open = false
	if b.kind != blockTrailers && b.kind != blockIgnored {
		c.startText()
		if len(b.cookie) > 0 {
			c.line("cookie", string(b.cookie))
		}
	}
	if len(b.text) <= c.limits.HeadBytes { // else it stays unfinished, for the reader to refuse
		b.text = append(b.text, '\r', '\n')
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headSince = time.Time{}
	if b.selfDependent && b.bad == "" {
		b.bad = "stream depends on itself"
	}
	switch b.kind {
	case blockRequest:
		return c.openStreamLocked(b)
	case blockResponse:
		if s := c.streams[b.stream]; s != nil {
			return c.takeResponseLocked(s, b)
		}
	case blockTrailers:
		if s := c.streams[b.stream]; s != nil {
			return c.takeTrailersLocked(s, b)
		}
	}
	return nil
}

// openStreamLocked makes the stream of a request.
func (c *Conn) openStreamLocked(b *block) error {
	if b.bad == "" && b.end && b.declared > 0 {
		b.bad = "a body is announced that does not come"
	}
	switch {
	case b.bad != "":
		return c.refuseLocked(b.stream, ProtocolError)
	case c.leaving == leavingNow, c.active >= c.limits.Streams:
		return c.refuseLocked(b.stream, RefusedStream)
	}
	s := c.newStreamLocked()
	s.id, s.declared, s.bodiless, s.remoteEnded = b.stream, b.declared, b.end, b.end
	c.streams[s.id] = s
	c.lastAccepted = s.id
	s.append(b.text)
	s.text = len(b.text)
	c.work.Add(1)
	c.mu.Unlock()
	c.accept(s)
	c.accepted = true
	c.mu.Lock()
	return nil
}

// takeResponseLocked takes a response's head, interim or final.
func (c *Conn) takeResponseLocked(s *Stream, b *block) error {
	interim := len(b.status) == 3 && b.status[0] == '1'
	if interim && (b.end || b.status == "101") {
		b.bad = "an interim response that ends the stream, or changes the protocol"
	}
	forbids := s.head || b.status == "204" || b.status == "304"
	if b.end && b.declared > 0 && !forbids {
		b.bad = "a body is announced that does not come"
	}
	if b.bad != "" {
		return c.failStreamLocked(s, ProtocolError, b.bad)
	}
	if interim && s.text > c.limits.HeadBytes {
		return c.failStreamLocked(s, EnhanceYourCalm, "too many interim responses")
	}
	s.append(b.text)
	s.text += len(b.text)
	if !interim {
		s.headed, s.bodiless = true, b.end || forbids
		if !forbids {
			s.declared = b.declared
		}
	}
	if b.end {
		c.endRemoteLocked(s)
	}
	s.reader.wake()
	return nil
}

// takeTrailersLocked ends a stream with trailers.
func (c *Conn) takeTrailersLocked(s *Stream, b *block) error {
	switch {
	case s.remoteEnded:
		return c.failStreamLocked(s, StreamClosed, "HEADERS behind the end of the stream")
	case !b.end:
		return c.failStreamLocked(s, ProtocolError, "trailers that do not end the stream")
	case b.bad == "" && s.declared >= 0 && s.got < s.declared:
		b.bad = "the body is not as long as its Content-Length"
	}
	if b.bad == "" {
		if _, _, done, err := s.trailers.Next(b.text); err != nil {
			b.bad = err.Error()
		} else if !done {
			b.bad = "trailers exceed their bound"
		}
	}
	if b.bad != "" {
		return c.failStreamLocked(s, ProtocolError, b.bad)
	}
	c.endRemoteLocked(s)
	s.reader.wake()
	return nil
}

// field takes one decoded field.
func (c *Conn) field(f hpack.HeaderField) {
	b := &c.block
	if b.bad != "" || b.kind == blockIgnored {
		return
	}
	if strings.HasPrefix(f.Name, ":") {
		c.pseudo(f)
		return
	}
	b.fields = true
	if !h1.ValidName(f.Name) || hasUpper(f.Name) {
		b.bad = "invalid field name"
		return
	}
	if v := f.Value; !h1.ValidValue(v) || v != "" && (isSpace(v[0]) || isSpace(v[len(v)-1])) {
		b.bad = "invalid field value" // RFC 9113, 8.2.1
		return
	}
	if b.kind != blockTrailers {
		c.startText()
		switch f.Name {
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
			b.bad = "a field for HTTP/1 connections" // RFC 9113, 8.2.2
			return
		case "te":
			if f.Value != "trailers" && b.kind == blockRequest {
				b.bad = "te is not trailers"
				return
			}
		case "content-length":
			if b.declared >= 0 {
				b.bad = "more than one Content-Length"
				return
			}
			if b.declared = parseLength(f.Value); b.declared < 0 {
				b.bad = "malformed Content-Length"
				return
			}
		case "host":
			if b.kind == blockRequest && b.host != "" {
				if !strings.EqualFold(f.Value, b.host) || b.authority == "" {
					b.bad = "Host is not the authority, or there twice"
				}
				return
			}
			b.host = f.Value
		case "cookie":
			if b.kind == blockRequest {
				if len(b.cookie)+len(f.Value) <= c.limits.HeadBytes+1 {
					if len(b.cookie) > 0 {
						b.cookie = append(b.cookie, "; "...)
					}
					b.cookie = append(b.cookie, f.Value...)
				}
				return
			}
		}
	}
	c.line(f.Name, f.Value)
}

// line appends a field line, unless the text is too long already.
func (c *Conn) line(name, value string) {
	b := &c.block
	if len(b.text) > c.limits.HeadBytes {
		return
	}
	b.text = append(b.text, name...)
	b.text = append(b.text, ": "...)
	b.text = append(b.text, value...)
	b.text = append(b.text, '\r', '\n')
}

// pseudo takes a pseudo-field (RFC 9113, 8.3).
func (c *Conn) pseudo(f hpack.HeaderField) {
	b := &c.block
	var to *string
	switch {
	case b.kind == blockTrailers, b.fields:
	case b.kind == blockRequest:
		switch f.Name {
		case ":method":
			to = &b.method
		case ":scheme":
			to = &b.scheme
		case ":authority":
			to = &b.authority
		case ":path":
			to = &b.path
		}
	case f.Name == ":status":
		to = &b.status
	}
	switch {
	case to == nil:
		b.bad = "a pseudo-field that does not belong there"
	case *to != "":
		b.bad = "a pseudo-field that is there twice"
	case f.Value == "" && f.Name != ":authority":
		b.bad = "an empty pseudo-field"
	case !h1.ValidValue(f.Value) || strings.ContainsAny(f.Value, " \t"):
		b.bad = "invalid character in a pseudo-field"
	}
	if b.bad == "" {
		*to = f.Value
	}
}

// startText writes the first line, once the pseudo-fields are over.
func (c *Conn) startText() {
	b := &c.block
	if b.started || b.bad != "" {
		return
	}
	b.started = true
	if b.kind == blockResponse {
		status, err := strconv.Atoi(b.status)
		if len(b.status) != 3 || err != nil || status < 100 {
			b.bad = "no status"
			return
		}
		b.text = h1.AppendStatusLine(b.text, status) // with a reason: some clients of HTTP/1 cannot do without
		return
	}
	switch {
	case b.method == "" || !h1.ValidName(b.method):
		b.bad = "no method, or an invalid one"
	case b.method == "CONNECT":
		if b.scheme != "" || b.path != "" || b.authority == "" {
			b.bad = "CONNECT with a scheme or a path, or without an authority"
		}
		b.path = b.authority
	case b.scheme != "http" && b.scheme != "https":
		b.bad = "no scheme, or an unknown one"
	case b.path == "" || b.path[0] != '/' && b.path != "*": // an absolute URL would be read as one
		b.bad = "no path, or something else in its place"
	}
	if b.bad != "" {
		return
	}
	b.text = append(b.text, b.method...)
	b.text = append(b.text, ' ')
	b.text = append(b.text, b.path...)
	b.text = append(b.text, " HTTP/1.1\r\n"...)
	if b.authority != "" {
		b.host = b.authority
		b.text = append(b.text, "host: "...)
		b.text = append(b.text, b.authority...)
		b.text = append(b.text, '\r', '\n')
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

func hasUpper(s string) bool {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return true
		}
	}
	return false
}

// parseLength gives a Content-Length, -1 for what is none.
func parseLength(s string) int64 {
	if s == "" || len(s) > 18 || s[0] == '0' && len(s) > 1 {
		return -1
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return -1
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n
}
