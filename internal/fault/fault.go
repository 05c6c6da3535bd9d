// Package fault says what went wrong with a request or a statement: a kind, the side to blame, the phase it happened in,
// and whether a retry is safe. It knows neither HTTP statuses nor MySQL codes: each door maps kinds to its own numbers in
// one file. It refuses to carry anything for the client beyond the kind and a short public text; the chain of causes is
// for the log.
package fault

import (
	"errors"
	"fmt"
)

// Kind is what went wrong, by meaning.
type Kind uint8

// The kinds. Each has an id (Kind.String) that is stable: it stands in access records, metrics and error documents.
const (
	Internal           Kind = iota // a bug or an unforeseen state of the gateway
	BadRequest                     // the client's message cannot be understood, or could be read in two ways
	NoRoute                        // no route, or no database, for this
	MethodNotAllowed               // a route exists, but not for this method
	RequestTimeout                 // the client took too long to send
	TooLarge                       // the body is larger than allowed
	TargetTooLong                  // the request line is larger than allowed
	HeadersTooLarge                // the head is larger than allowed, or has too many fields
	NotImplemented                 // a method or a coding that the gateway does not speak
	UnsupportedVersion             // a protocol version that the gateway does not speak
	Unauthenticated                // who are you?
	Forbidden                      // you may not
	Limited                        // too much of it
	Misdirected                    // not on this connection: its TLS side belongs to other names, or lacks a certificate
	NoEndpoint                     // no endpoint is left to try
	ConnectFailed                  // the endpoint could not be reached
	ConnectTimeout                 // it did not answer the connection attempt in time
	UpstreamTimeout                // it did not answer in time
	UpstreamBroken                 // it closed early or answered nonsense
	ClientGone                     // the client left before its answer was complete
	Draining                       // the gateway is stopping
)

var kindIDs = [...]string{"internal", "bad_request", "no_route", "method_not_allowed", "request_timeout", "too_large",
	"target_too_long", "headers_too_large", "not_implemented", "unsupported_version", "unauthenticated", "forbidden",
	"limited", "misdirected", "no_endpoint", "connect_failed", "connect_timeout", "upstream_timeout", "upstream_broken", "client_gone",
	"draining"}

// String gives the kind's id, for example "connect_failed".
func (k Kind) String() string {
	if int(k) < len(kindIDs) {
		return kindIDs[k]
	}
	return fmt.Sprintf("kind_%d", uint8(k))
}

// Side is who is to blame.
type Side uint8

// The sides.
const (
	Gateway Side = iota
	Client
	Upstream
)

// Blame says which side a kind is held against: passive health counts Upstream only.
func (k Kind) Blame() Side {
	switch k {
	case BadRequest, NoRoute, MethodNotAllowed, RequestTimeout, TooLarge, TargetTooLong, HeadersTooLarge, NotImplemented,
		UnsupportedVersion, Unauthenticated, Forbidden, Limited, Misdirected, ClientGone:
		return Client
	case ConnectFailed, ConnectTimeout, UpstreamTimeout, UpstreamBroken:
		return Upstream
	}
	return Gateway
}

// Fault is an error with a kind. Retriable says that the endpoint has certainly not acted on the request (nothing was
// sent), whatever its method.
type Fault struct {
	Kind      Kind
	Public    string // a short sentence that the client may read
	Cause     error  // for the log only; may be nil
	Unsent    bool   // nothing of the request reached the endpoint: a retry is safe for every method
	RetryWait int    // seconds that the client should wait before it tries again; 0 says nothing
}

// New makes a fault without a cause.
func New(k Kind, public string) *Fault { return &Fault{Kind: k, Public: public} }

// Wrap makes a fault from an error, for the log.
func Wrap(k Kind, public string, cause error) *Fault {
	return &Fault{Kind: k, Public: public, Cause: cause}
}

// Error is the text for the log: kind, public words and the chain of causes.
func (f *Fault) Error() string {
	if f.Cause != nil {
		return f.Kind.String() + ": " + f.Public + ": " + f.Cause.Error()
	}
	return f.Kind.String() + ": " + f.Public
}

// Unwrap gives the cause.
func (f *Fault) Unwrap() error { return f.Cause }

// Of gives the fault in an error's chain, or an Internal fault around it. Of(nil) is nil.
func Of(err error) *Fault {
	if err == nil {
		return nil
	}
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return Wrap(Internal, "internal error", err)
}
