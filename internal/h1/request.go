package h1

import "bytes"

// Request is a parsed request head. The zero value is ready; one value serves any number of requests, one after the
// other. All views die with the parsed buffer.
//
// The body has ContentLength bytes, or is Chunked, or (-1 and not Chunked) is empty.
type Request struct {
	Head
	Method []byte
	Target []byte // as received
	Scheme []byte // absolute-form only, as received
	Path   []byte // as received; "*" for OPTIONS *, "/" when an absolute target has none, empty for CONNECT
	Query  []byte // without '?'
	Host   []byte // host[:port] as received, from the target when it has one; empty only in HTTP/1.0

	HasQuery       bool // tells /a? from /a
	ExpectContinue bool // the client waits for 100 (Continue); never in HTTP/1.0; other expectations mean nothing

	viewAuthority []byte // of an absolute or CONNECT target
}

// methodMax is longer than any registered method (the longest has 17 bytes).
const methodMax = 32

var (
	errMethodEmpty     = &Error{BadSyntax, "empty method"}
	errMethodInvalid   = &Error{BadSyntax, "invalid character in the method"}
	errMethodLong      = &Error{NotImplemented, "method is longer than any"}
	errLeadingLines    = &Error{BadSyntax, "more than one empty line before the request"}
	errTargetTooLong   = &Error{TargetTooLong, "request line exceeds its bound"}
	errTargetEmpty     = &Error{BadSyntax, "empty request target"}
	errTargetInvalid   = &Error{BadSyntax, "invalid character in the request target"}
	errTargetEscape    = &Error{BadSyntax, "invalid percent escape in the path"}
	errTargetForm      = &Error{BadSyntax, "request target is neither a path nor an http URL"}
	errTargetAsterisk  = &Error{BadSyntax, "target * without OPTIONS"}
	errTargetConnect   = &Error{BadSyntax, "CONNECT target is not host:port"}
	errTargetAuthority = &Error{BadSyntax, "invalid authority in the request target"}
	errRequestLine     = &Error{BadSyntax, "request line is not method SP target SP version"}
	errVersionMissing  = &Error{BadVersion, "no version (HTTP/0.9)"}
	errVersion         = &Error{BadVersion, "neither HTTP/1.0 nor HTTP/1.1"}
	errHostMissing     = &Error{BadSyntax, "no Host"}
	errHostInvalid     = &Error{BadSyntax, "invalid Host"}
	errHostDisagrees   = &Error{BadSyntax, "Host is not that of the request target"}
)

// Reset forgets everything, also an incomplete head. Parse does it itself for the next message; Reset is for giving up
// on an incomplete one.
func (r *Request) Reset() {
	r.reset()
	r.tried, r.parsed = 0, 0
	r.Method, r.Target, r.Scheme, r.Path, r.Query, r.Host, r.viewAuthority = nil, nil, nil, nil, nil, nil, nil
	r.HasQuery, r.ExpectContinue = false, false
}

// Parse parses the head at the start of buf and gives its length. 0 and nil mean that buf does not hold all of it yet:
// call again with the same bytes and more (they may have moved), or Reset. Errors come as early as they are certain;
// how the bytes were split never changes the outcome. The error is an *Error; after one, the connection is lost, since
// nobody knows where the next request would start.
func (r *Request) Parse(buf []byte, lim Limits) (n int, err error) {
	lim = lim.withDefaults()
	window := buf[:min(len(buf), lim.HeadBytes)]
	if len(window) == lim.HeadBytes || r.again(window) {
		r.Reset()
		n, e := r.parse(window, lim)
		if e != nil {
			r.tried = 0
			return 0, e
		}
		if n > 0 {
			return n, nil
		}
		r.pause(window)
	}
	if len(window) == lim.HeadBytes {
		r.tried = 0
		return 0, errHeadTooLarge
	}
	return 0, nil
}

// parse parses b, which is at most as long as a head may be.
func (r *Request) parse(b []byte, lim Limits) (n int, err *Error) {
	start := 0
	if len(b) > 0 && b[0] == '\r' { // RFC 9112, 2.2: some old clients end a POST body with an uncounted CRLF
		if len(b) == 1 {
			return 0, nil
		}
		if b[1] != '\n' {
			return 0, errBareCR
		}
		start = 2
	}
	i, err := r.parseRequestLine(b, start, lim)
	if i == 0 {
		return 0, err
	}
	n, err = r.parseFields(b, i, lim.Fields, lim.Underscores)
	if n == 0 {
		return 0, err
	}
	if err = r.settle(errCodingNotOffered); err != nil {
		return 0, err
	}
	if err = r.settleHost(); err != nil {
		return 0, err
	}
	r.viewBytes = b[:n:n]
	r.ExpectContinue = r.seen&seenExpect100 != 0 && r.Minor > 0
	return n, nil
}

// parseRequestLine parses the line at b[start:] and gives the index behind it, 0 when b ends before the line does.
func (r *Request) parseRequestLine(b []byte, start int, lim Limits) (next int, err *Error) {
	lineEnd := start + lim.LineBytes + len("\r\n")
	line := b[:min(len(b), lineEnd)]
	next, err = r.splitRequestLine(line, start)
	if next == 0 && err == nil && (len(line) == lineEnd || len(line) == lim.HeadBytes) {
		return 0, errTargetTooLong
	}
	return next, err
}

const versionLength = len("HTTP/1.1")

// splitRequestLine parses "method SP target SP version CRLF", with exactly one space each.
func (r *Request) splitRequestLine(b []byte, start int) (next int, err *Error) {
	i := skip(b, start, token)
	if i-start > methodMax {
		return 0, errMethodLong
	}
	if i == len(b) {
		return 0, nil
	}
	if b[i] != ' ' || i == start {
		return 0, methodError(b[i], i == start)
	}
	r.Method = b[start:i:i]
	start = i + 1
	i, err = r.parseTarget(b, start)
	if i == 0 {
		return 0, err
	}
	r.Target = b[start:i:i]
	version := b[i+1:]
	if len(version) >= versionLength+2 && string(version[:7]) == "HTTP/1." && version[7]-'0' <= 1 &&
		version[8] == '\r' && version[9] == '\n' {
		r.Minor = version[7] - '0'
		if err = r.checkForm(); err != nil {
			return 0, err
		}
		return i + 1 + versionLength + 2, nil
	}
	err = versionError(version, "\r\n")
	if err == errVersion && string(b[:i+1]) == "PRI * " && bytes.HasPrefix(version, []byte("HTTP/2.0")) {
		err = ErrPreface
	}
	return 0, err
}

// methodError says what is wrong with a method that ends at c instead of a space, or is empty.
func methodError(c byte, empty bool) *Error {
	switch {
	case c == '\n':
		return errBareLF
	case c == '\r' && empty:
		return errLeadingLines
	case c == '\r':
		return errRequestLine
	case empty:
		return errMethodEmpty
	}
	return errMethodInvalid
}

// versionError says what is wrong with a version that is not HTTP/1.0 or HTTP/1.1 followed by end; nil when more bytes
// could still make it right.
func versionError(b []byte, end string) *Error {
	const form = "HTTP/d.d"
	for i := range min(len(b), len(form)) {
		if c := b[i]; c != form[i] && (form[i] != 'd' || c < '0' || c > '9') {
			switch {
			case c == '\n':
				return errBareLF
			case c == '\r', i > 5: // HTTP/2, HTTP/1, HTTP/11 ...
				return errVersion
			}
			return errRequestLine
		}
	}
	if len(b) >= len(form) && string(b[:len(form)]) != "HTTP/1.0" && string(b[:len(form)]) != "HTTP/1.1" {
		return errVersion
	}
	for i := len(form); i < min(len(b), len(form)+len(end)); i++ {
		if b[i] != end[i-len(form)] {
			switch {
			case b[i] == '\n':
				return errBareLF
			case i > len(form):
				return errBareCR
			case '0' <= b[i] && b[i] <= '9':
				return errVersion
			}
			return errRequestLine
		}
	}
	return nil
}

// parseTarget parses the target at b[start:] up to the space behind it and gives the index of that space, 0 when b ends
// before it.
func (r *Request) parseTarget(b []byte, start int) (end int, err *Error) {
	if start == len(b) {
		return 0, nil
	}
	switch c := b[start]; {
	case c == '/':
		return r.parsePath(b, start)
	case c == '*':
		if start+1 == len(b) {
			return 0, nil
		}
		if b[start+1] != ' ' {
			return 0, targetError(b[start+1:], errTargetInvalid)
		}
		r.Path = b[start : start+1 : start+1]
		return start + 1, nil
	case c == ' ':
		return 0, errTargetEmpty
	case string(r.Method) == "CONNECT":
		return r.parseAuthority(b, start, false)
	case c|0x20 == 'h':
		return r.parseAbsolute(b, start)
	default:
		return 0, targetError(b[start:], errTargetForm)
	}
}

// targetError says what is wrong with a target that goes on with rest, which is not empty; nil when more bytes are needed
// to tell. other is for what is no line end.
func targetError(rest []byte, other *Error) *Error {
	switch {
	case rest[0] == '\n':
		return errBareLF
	case rest[0] != '\r':
		return other
	case len(rest) == 1:
		return nil
	case rest[1] != '\n':
		return errBareCR
	}
	return errVersionMissing
}

// parsePath parses path and query at b[i:].
func (r *Request) parsePath(b []byte, i int) (end int, err *Error) {
	start := i
	for {
		i = skip(b, i, path)
		if i == len(b) {
			return 0, nil
		}
		if b[i] != '%' {
			break
		}
		for j := i + 1; j <= i+2; j++ {
			if j == len(b) {
				return 0, nil
			}
			if classes[b[j]]&(lowerHex|upperHex) == 0 {
				return 0, errTargetEscape
			}
		}
		i += 3
	}
	r.Path = b[start:i:i]
	if b[i] == '?' {
		start = i + 1
		i = skip(b, start, query)
		if i == len(b) {
			return 0, nil
		}
		r.Query, r.HasQuery = b[start:i:i], true
	}
	if b[i] != ' ' {
		return 0, targetError(b[i:], errTargetInvalid)
	}
	return i, nil
}

// parseAbsolute parses an absolute-form target: http or https, no user information.
func (r *Request) parseAbsolute(b []byte, start int) (end int, err *Error) {
	const scheme, separator = "https", "://"
	i := start
	for i < len(b) && i-start < len(scheme) && lower(b[i]) == scheme[i-start] {
		i++
	}
	if i-start < 4 && i < len(b) {
		return 0, errTargetForm
	}
	r.Scheme = b[start:i:i]
	for j := range len(separator) {
		if i == len(b) {
			return 0, nil
		}
		if b[i] != separator[j] {
			return 0, errTargetForm
		}
		i++
	}
	if i, err = r.parseAuthority(b, i, true); i == 0 {
		return 0, err
	}
	if b[i] == '/' {
		return r.parsePath(b, i)
	}
	// No path: that is "/", and one stands right there, in "://". But OPTIONS http://a means OPTIONS * (RFC 9112, 3.2.4).
	end, err = r.parsePath(b, i)
	slash := start + len(r.Scheme) + 1
	r.Path = b[slash : slash+1 : slash+1]
	if end > 0 && !r.HasQuery && string(r.Method) == "OPTIONS" {
		r.Path = asterisk
	}
	return end, err
}

// asterisk is the only path that is no view. Never written.
var asterisk = []byte("*")

// parseAuthority parses the authority at b[start:] and gives the index behind it, 0 when b ends before it is complete.
func (r *Request) parseAuthority(b []byte, start int, inURL bool) (end int, err *Error) {
	end = start
	for end < len(b) && (classes[b[end]]&(host|ipLiteral) != 0 || b[end] == '[' || b[end] == ']') {
		end++
	}
	if end == len(b) {
		return 0, nil
	}
	if c := b[end]; c != ' ' && !(inURL && (c == '/' || c == '?')) {
		return 0, targetError(b[end:], errTargetAuthority)
	}
	r.viewAuthority = b[start:end:end]
	if !validHost(r.viewAuthority) {
		return 0, errTargetAuthority
	}
	return end, nil
}

// checkForm checks that the target's form fits the method (RFC 9112, 3.2).
func (r *Request) checkForm() *Error {
	switch {
	case string(r.Method) == "CONNECT":
		if r.viewAuthority == nil || r.Path != nil || !hasPort(r.viewAuthority) {
			return errTargetConnect
		}
	case r.Target[0] == '*' && string(r.Method) != "OPTIONS":
		return errTargetAsterisk
	}
	return nil
}

// settleHost finds the effective host. HTTP/1.1 needs a Host field even beside an absolute target; HTTP/1.0 may have
// none, or an empty one. Beside an absolute target, Host must be the same, port included: those who look at one and
// those who look at the other must not differ.
func (r *Request) settleHost() *Error {
	r.Host = r.viewHost
	if r.seen&seenHost == 0 && r.Minor > 0 {
		return errHostMissing
	}
	if len(r.viewHost) == 0 {
		if r.Minor > 0 {
			return errHostInvalid
		}
		r.Host = r.viewAuthority
		return nil
	}
	if !validHost(r.viewHost) {
		return errHostInvalid
	}
	if r.viewAuthority != nil {
		if !EqualFold(r.viewAuthority, r.viewHost) {
			return errHostDisagrees
		}
		r.Host = r.viewAuthority
	}
	return nil
}

// validHost says whether b is a host with an optional port: a name or IPv4 address of unreserved characters, or an IPv6
// address in brackets. Narrower than RFC 3986: no percent escapes, no sub-delimiters (comma, semicolon, quote ...),
// no zone, no IPvFuture, no empty port, no empty label but the last, because hosts are compared, logged and routed on.
func validHost(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	end := 0
	if b[0] == '[' {
		end = skip(b, 1, ipLiteral)
		if end == len(b) || b[end] != ']' || !validIPv6(b[1:end]) {
			return false
		}
		end++
	} else if end = skipName(b); end == 0 {
		return false
	}
	return end == len(b) || b[end] == ':' && validPort(b[end+1:])
}

// skipName gives the length of the name or IPv4 address that b begins with, 0 when a dot has nothing before it.
func skipName(b []byte) (end int) {
	last := byte('.')
	for _, c := range b {
		if classes[c]&host == 0 {
			break
		}
		if c == '.' && last == '.' {
			return 0
		}
		last = c
		end++
	}
	return end
}

// validPort says whether b is a decimal number up to 65535.
func validPort(b []byte) bool {
	if len(b) == 0 || len(b) > 5 {
		return false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n <= 65535
}

// hasPort says whether a valid host has a port.
func hasPort(b []byte) bool {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] == ':' {
			return true
		}
		if b[i] == ']' {
			return false
		}
	}
	return false
}

// validIPv6 says whether b is an IPv6 address as RFC 4291, 2.2 writes it, without a zone.
func validIPv6(b []byte) bool {
	groups, compressed := 0, false
	for i := 0; i < len(b); {
		if b[i] == ':' {
			switch {
			case i+1 < len(b) && b[i+1] == ':':
				if compressed {
					return false
				}
				compressed = true
				i += 2
			case i == 0 || i+1 == len(b) || b[i-1] == ':':
				return false
			default:
				i++
			}
			continue
		}
		end := skip(b, i, lowerHex|upperHex)
		if end < len(b) && b[end] == '.' {
			if !validIPv4(b[i:]) {
				return false
			}
			groups += 2
			break
		}
		if end == i || end-i > 4 {
			return false
		}
		groups++
		i = end
	}
	return groups == 8 && !compressed || groups < 8 && compressed
}

// validIPv4 says whether b is four decimal numbers up to 255 without leading zeros.
func validIPv4(b []byte) bool {
	for part := range 4 {
		end := 0
		n := 0
		for end < len(b) && '0' <= b[end] && b[end] <= '9' && end < 4 {
			n = n*10 + int(b[end]-'0')
			end++
		}
		if end == 0 || n > 255 || b[0] == '0' && end > 1 {
			return false
		}
		b = b[end:]
		if part < 3 {
			if len(b) == 0 || b[0] != '.' {
				return false
			}
			b = b[1:]
		}
	}
	return len(b) == 0
}
