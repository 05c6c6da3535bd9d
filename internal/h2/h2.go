// Package h2 is an HTTP/2 connection (RFC 9113) as a bundle of streams, each of which reads like an HTTP/1 connection: a Stream
// is a net.Conn that gives heads as HTTP/1.1 text, then the body's bytes as they are, then io.EOF. So whoever reads HTTP/1
// heads reads these too, with the same parser and the same strictness. What HTTP/1 frames in text is said by calls instead:
// Head, Write, End.
//
// Main types: Conn, of either side, and Stream. The frames are ours; HPACK is golang.org/x/net/http2/hpack.
//
// A Conn has one goroutine that reads (Serve) and none that writes: who queues frames sends them, and those of others that
// were queued meanwhile. The reading goroutine never writes, because two peers that both write before they read would wait
// for each other. A stream is read by one goroutine and written by one.
//
// Locks: Conn.mu guards the connection and all its streams. It is never held during a system call, a callback or a wait.
//
// Bounded are (Limits): streams at work, unread bytes of a stream and of a connection, the size of heads and of the blocks that
// they come in, streams that end before their time, frames that carry nothing. Who goes beyond is told ENHANCE_YOUR_CALM and
// loses the connection.
//
// It refuses to push, to heed priorities (RFC 9113, 5.3.1 withdrew them) and to change messages.
package h2

import (
	"errors"
	"fmt"
	"time"
)

// Preface is what a client sends first (RFC 9113, 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Limits bound what the peer can fill. All fields must be set, but for the timeouts: zero is no bound.
type Limits struct {
	Streams          int // most streams at work at once
	Window           int // unread bytes of one stream's body, 65,535 or more
	ConnectionWindow int // unread bytes of all streams, Window or more
	HeadBytes        int // a head as HTTP/1.1 text. One that is longer is cut there, so that its reader can refuse it
	Continuations    int // CONTINUATION frames of one head
	Resets           Rate
	Idle             Rate // frames that carry nothing: PING, SETTINGS, PRIORITY, empty DATA, unknown types

	TimeoutHead time.Duration // from a head's first frame to its last, and from the start to the peer's preface
	TimeoutIdle time.Duration // without a stream
}

// Rate is a number of events in a time; all of them may come at once.
type Rate struct {
	Count int
	Per   time.Duration
}

// Code is an error code of RFC 9113, 7.
type Code uint32

// The codes.
const (
	NoError            Code = 0x0
	ProtocolError      Code = 0x1
	InternalError      Code = 0x2
	FlowControlError   Code = 0x3
	SettingsTimeout    Code = 0x4
	StreamClosed       Code = 0x5
	FrameSizeError     Code = 0x6
	RefusedStream      Code = 0x7
	Cancel             Code = 0x8
	CompressionError   Code = 0x9
	ConnectError       Code = 0xa
	EnhanceYourCalm    Code = 0xb
	InadequateSecurity Code = 0xc
	HTTP11Required     Code = 0xd
)

var codeNames = [...]string{"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
	"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
	"INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"}

// String gives the name that RFC 9113 uses.
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %#x", uint32(c))
}

// Error is why a stream or a connection ended before its time.
type Error struct {
	Code       Code
	Reason     string // for the log
	Remote     bool   // the peer said so
	Connection bool   // all streams ended with it
	Unsent     bool   // the peer has certainly not acted on the request (RFC 9113, 8.7)
	Cause      error  // of a connection that broke
}

// Error says who ended what and why.
func (e *Error) Error() string {
	what, who := "stream", "this side"
	if e.Connection {
		what = "connection"
	}
	if e.Remote {
		who = "the peer"
	}
	text := fmt.Sprintf("http2 %s ended by %s: %s", what, who, e.Code)
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Unsent says whether an error of a stream means that the peer has certainly not acted on the request.
func Unsent(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Unsent
}

// allowance is a bucket that holds a Rate.
type allowance struct {
	rate Rate
	left float64
	at   time.Time
}

// take takes one and says whether there was one. A rate of zero is no bound.
func (a *allowance) take() bool {
	if a.rate.Count <= 0 || a.rate.Per <= 0 {
		return true
	}
	if a.at.IsZero() {
		a.left = float64(a.rate.Count)
	}
	if a.left < 1 || a.at.IsZero() { // the clock is read only when it matters
		now := time.Now()
		if !a.at.IsZero() {
			a.left = min(float64(a.rate.Count), a.left+now.Sub(a.at).Seconds()*float64(a.rate.Count)/a.rate.Per.Seconds())
		}
		a.at = now
	}
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}
