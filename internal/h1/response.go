package h1

import "strconv"

// Response is a parsed response head. The zero value is ready; one value serves any number of responses, one after the
// other. All views die with the parsed buffer.
//
// The body is empty when NoBody, else has ContentLength bytes, or is Chunked, or (-1 and not Chunked) goes on until the
// connection closes; then Close is set.
type Response struct {
	Head
	Status int // 100 to 999
	Reason []byte

	// NoBody says that nothing follows the head whatever the fields say: the answer to HEAD, 1xx, 204, 304, and 2xx to
	// CONNECT. Then ContentLength is 0 and Chunked is false; Fields still hold what was declared, which for HEAD and 304
	// describes the answer to GET and may be forwarded.
	NoBody bool

	lineLength int // of the status line, when it reads as one is written; else 0
}

var (
	errStatusLine     = &Error{BadSyntax, "status line is not version SP status SP reason"}
	errStatus         = &Error{BadSyntax, "status is not three digits from 100 up"}
	errReasonInvalid  = &Error{BadSyntax, "control character in the reason"}
	errBodyImpossible = &Error{BadFraming, "1xx or 204 that declares a body"}
)

// StatusRun appends the status line, for HTTP/1.1 whatever the version was, and gives a Run over the fields. When the line
// stands in the head as it is to be, the Run holds it back.
func (r *Response) StatusRun(dst []byte) ([]byte, Run) {
	if r.Minor == 1 && r.lineLength > 0 {
		return dst, Run{r.viewBytes, 0, r.lineLength}
	}
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(r.Status), 10)
	dst = append(dst, ' ')
	dst = append(dst, r.Reason...)
	return append(dst, '\r', '\n'), r.Run()
}

// Reset forgets everything, also an incomplete head. Parse does it itself for the next message; Reset is for giving up
// on an incomplete one.
func (r *Response) Reset() {
	r.reset()
	r.tried, r.parsed = 0, 0
	r.Status, r.Reason, r.NoBody, r.lineLength = 0, nil, false, 0
}

// Parse parses the head at the start of buf, the answer to a request with requestMethod, and gives its length. 0 and nil
// mean that buf does not hold all of it yet: call again with the same bytes and more (they may have moved), or Reset.
// Errors come as early as they are certain; how the bytes were split never changes the outcome. The error is an *Error;
// after one, the connection is lost. A 1xx is a head of its own: parse again behind it. Limits.LineBytes is not used.
//
// What a 1xx or 204 declares is checked although it has no body: Transfer-Encoding and a Content-Length other than 0
// are refused, because some clients would wait for that body. Content-Length: 0 is forbidden too, but common.
func (r *Response) Parse(buf []byte, lim Limits, requestMethod []byte) (n int, err error) {
	lim = lim.withDefaults()
	window := buf[:min(len(buf), lim.HeadBytes)]
	if len(window) == lim.HeadBytes || r.again(window) {
		r.Reset()
		n, e := r.parse(window, lim.Fields, requestMethod)
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
func (r *Response) parse(b []byte, fieldsMax int, requestMethod []byte) (n int, err *Error) {
	i, err := r.parseStatusLine(b)
	if i == 0 {
		return 0, err
	}
	n, err = r.parseFields(b, i, fieldsMax, UnderscoresAllow)
	if n == 0 {
		return 0, err
	}
	if err = r.settle(errCodingOther); err != nil {
		return 0, err
	}
	r.viewBytes = b[:n:n]
	switch {
	case r.Status < 200 || r.Status == 204:
		if r.Chunked || r.ContentLength > 0 {
			return 0, errBodyImpossible
		}
		r.NoBody = true
	case r.Status == 304 || string(requestMethod) == "HEAD":
		r.NoBody = true
	case r.Status < 300 && string(requestMethod) == "CONNECT":
		r.NoBody = true
	}
	if r.NoBody {
		r.ContentLength, r.Chunked = 0, false
	} else if r.ContentLength < 0 && !r.Chunked {
		r.Close = true
	}
	return n, nil
}

// parseStatusLine parses "version SP status [SP reason] CRLF" and gives the index behind it, 0 when b ends before it.
// The space before an empty reason may be missing: many servers leave it out, and nobody can misread that.
func (r *Response) parseStatusLine(b []byte) (next int, err *Error) {
	if len(b) < versionLength+1 || string(b[:7]) != "HTTP/1." || b[7]-'0' > 1 || b[8] != ' ' {
		if err = versionError(b, " "); err == errRequestLine {
			err = errStatusLine
		}
		return 0, err
	}
	r.Minor = b[7] - '0'
	status := b[versionLength+1:]
	for j := range min(3, len(status)) {
		if c := status[j]; c < '0' || c > '9' || j == 0 && c == '0' {
			return 0, errStatus
		}
	}
	if len(status) < 4 {
		return 0, nil
	}
	r.Status = int(status[0]-'0')*100 + int(status[1]-'0')*10 + int(status[2]-'0')
	start := versionLength + 1 + 3
	switch c := b[start]; {
	case c == ' ':
		start++
	case c != '\r':
		return 0, lineEndError(c, errStatus)
	}
	end := skipValue(b, start)
	if end+1 >= len(b) {
		if end == len(b) || b[end] == '\r' {
			return 0, nil
		}
		return 0, lineEndError(b[end], errReasonInvalid)
	}
	if b[end] != '\r' || b[end+1] != '\n' {
		return 0, lineEndError(b[end], errReasonInvalid)
	}
	r.Reason = b[start:end:end]
	if b[start-1] == ' ' {
		r.lineLength = end + 2
	}
	return end + 2, nil
}
