// Package h1 is the HTTP/1.1 codec of both sides of the gateway: it parses request and response heads in place, decodes
// chunked bodies, and encodes heads and chunks (RFC 9112).
//
// Main types: Request and Response (reusable; both embed Head, the fields and what they say about the connection and the
// body), ChunkDecoder, and the Append functions.
//
// It is pure: bytes in, bytes out; no socket, clock, goroutine or lock. Nothing here is safe for concurrent use. In
// steady state nothing allocates: what Parse gives out are views into the caller's buffer, valid as long as those bytes
// stay where they are.
//
// It is strict, because a gateway that guesses lets requests be smuggled. What two implementations could read
// differently is an error, never repaired: bare CR or LF, NUL, folded lines, space around a field name, repeated or
// malformed Content-Length, Content-Length beside Transfer-Encoding, any coding but one lone "chunked", several Hosts,
// Host against an absolute target, unknown versions. Where it is wider or narrower than the grammar, the comment at the
// place says so and why.
//
// It refuses to change messages: which fields to forward, add or drop is the caller's business; normalising paths is
// that of package route. The one tolerance is an empty line before a request (RFC 9112, 2.2).
package h1

import "fmt"

// Limits bound a head. A zero field means its default.
type Limits struct {
	HeadBytes int // the whole head with its empty line, and an empty line before it; default 64 KiB, at most 1 GiB
	LineBytes int // the request line without its line end; default and at most HeadBytes
	Fields    int // number of fields; default 128

	Underscores Underscores // of a request
}

// Underscores says what becomes of request fields with an underscore in their name. Servers of the CGI kind (RFC 3875, 4.1.18)
// cannot tell X_Forwarded_For from X-Forwarded-For, so one of them may be a lie about the other.
type Underscores uint8

// What becomes of them.
const (
	UnderscoresSafe   Underscores = iota // fields that would stand for a known name are dropped, as if they had not been sent
	UnderscoresDrop                      // all of them are dropped
	UnderscoresRefuse                    // they are an error
	UnderscoresAllow                     // they are fields like others
)

// The defaults of Limits.
const (
	headBytesDefault = 64 << 10
	headBytesMax     = 1 << 30
	fieldsDefault    = 128
)

// withDefaults replaces what is zero or makes no sense.
func (l Limits) withDefaults() Limits {
	if l.HeadBytes <= 0 {
		l.HeadBytes = headBytesDefault
	}
	l.HeadBytes = min(l.HeadBytes, headBytesMax)
	if l.LineBytes <= 0 || l.LineBytes > l.HeadBytes {
		l.LineBytes = l.HeadBytes
	}
	if l.Fields <= 0 {
		l.Fields = fieldsDefault
	}
	return l
}

// ErrorKind is what a door needs in order to answer.
type ErrorKind uint8

// The kinds of Error.
const (
	BadSyntax      ErrorKind = iota // not HTTP, or readable in two ways: 400 from a client, 502 from an endpoint
	TargetTooLong                   // the request line is longer than Limits.LineBytes, or than the whole head may be: 414
	HeadTooLarge                    // the head is larger than Limits.HeadBytes, or trailers or chunk extensions exceed theirs: 431
	TooManyFields                   // more than Limits.Fields, or too many trailers: 431
	BadVersion                      // neither HTTP/1.0 nor HTTP/1.1: 505
	BadFraming                      // where the body ends is unclear: 400 or 502
	NotImplemented                  // a transfer coding other than chunked, or a method longer than any: 501
)

var kindNames = [...]string{"bad syntax", "target too long", "head too large", "too many fields", "bad version",
	"bad framing", "not implemented"}

// String names the kind, for example "bad framing".
func (k ErrorKind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Error is why a message was refused. Every *Error of this package is a shared value (no allocation for a hostile
// client) and must not be changed. Reason is for the log and says nothing that the peer sent.
type Error struct {
	Kind   ErrorKind
	Reason string
}

// Error gives kind and reason.
func (e *Error) Error() string { return e.Kind.String() + ": " + e.Reason }

// ErrPreface is the error of a request head that is the HTTP/2 connection preface (RFC 9113, 3.4), so that a door may
// hand the connection over instead of refusing it.
var ErrPreface = &Error{BadVersion, "HTTP/2 connection preface"}
