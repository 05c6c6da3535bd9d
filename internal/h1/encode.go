package h1

import (
	"strconv"
	"time"
)

// reasons has the registered reason phrases (RFC 9110, 15, and the IANA registry).
var reasons = map[int]string{
	100: "Continue", 101: "Switching Protocols", 102: "Processing", 103: "Early Hints",

	200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content",
	205: "Reset Content", 206: "Partial Content", 207: "Multi-Status", 208: "Already Reported", 226: "IM Used",

	300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
	305: "Use Proxy", 307: "Temporary Redirect", 308: "Permanent Redirect",

	400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
	405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
	409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed", 413: "Content Too Large",
	414: "URI Too Long", 415: "Unsupported Media Type", 416: "Range Not Satisfiable", 417: "Expectation Failed",
	421: "Misdirected Request", 422: "Unprocessable Content", 423: "Locked", 424: "Failed Dependency", 425: "Too Early",
	426: "Upgrade Required", 428: "Precondition Required", 429: "Too Many Requests",
	431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",

	500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Gateway Timeout", 505: "HTTP Version Not Supported", 506: "Variant Also Negotiates",
	507: "Insufficient Storage", 508: "Loop Detected", 510: "Not Extended", 511: "Network Authentication Required",
}

const (
	statusMin = 100
	statusMax = 999
)

// statusLines has the whole line for each registered status, so that writing one is a copy. Never written after start.
var statusLines = func() (lines [600 - statusMin]string) {
	for status, reason := range reasons {
		lines[status-statusMin] = "HTTP/1.1 " + strconv.Itoa(status) + " " + reason + "\r\n"
	}
	return lines
}()

// Reason gives the registered reason phrase of a status, "" when there is none.
func Reason(status int) string { return reasons[status] }

// AppendStatusLine appends "HTTP/1.1 status reason" and CRLF. The reason is the registered one, else empty. A status that
// no three digits can show (below 100 or above 999) becomes 500.
func AppendStatusLine(dst []byte, status int) []byte {
	if status < statusMin || status > statusMax {
		status = 500
	}
	if i := status - statusMin; i < len(statusLines) && statusLines[i] != "" {
		return append(dst, statusLines[i]...)
	}
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	return append(dst, " \r\n"...) // the space belongs to the grammar even without a reason
}

// AppendField appends "name: value" and CRLF. When name is not a token, or value has a control character (CR, LF, NUL,
// ...), which could begin another field or message, it appends nothing: check with ValidName and ValidValue what comes
// from outside and must not get lost. Fields that Parse gave out are valid: Field.AppendTo saves the check.
func AppendField[N, V []byte | string](dst []byte, name N, value V) []byte {
	if !ValidName(name) || !ValidValue(value) {
		return dst
	}
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}

// ValidName says whether name is a token, as field names and methods are.
func ValidName[T []byte | string](name T) bool {
	for i := range len(name) {
		if classes[name[i]]&token == 0 {
			return false
		}
	}
	return len(name) > 0
}

// ValidValue says whether value may be a field value: no control characters but tabs.
func ValidValue[T []byte | string](value T) bool { return skipValue(value, 0) == len(value) }

// AppendChunkHeader appends the line before a chunk of size bytes, which must be more than 0 (that is AppendLastChunk).
// Behind the chunk comes CRLF.
func AppendChunkHeader(dst []byte, size int) []byte {
	if size <= 0 {
		panic("BUG: h1: chunk without payload would end the body")
	}
	dst = strconv.AppendUint(dst, uint64(size), 16)
	return append(dst, "\r\n"...)
}

// AppendLastChunk appends the end of a chunked body: the last chunk, trailers, and the empty line.
func AppendLastChunk(dst []byte, trailers []Field) []byte {
	dst = append(dst, "0\r\n"...)
	for _, f := range trailers {
		dst = f.AppendTo(dst)
	}
	return append(dst, "\r\n"...)
}

// AppendDate appends t as a date of HTTP (IMF-fixdate; RFC 9110, 5.6.7), 29 bytes. The year must have four digits.
func AppendDate(dst []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(dst, "Mon, 02 Jan 2006 15:04:05 GMT")
}
