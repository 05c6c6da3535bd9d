// Package policy is the contract between the HTTP door and its policies: what a policy is, in which stage it runs, what
// it may read and do of an Exchange, and how it refuses. The policies themselves are packages below this one; the one list
// of them is in the door's policies.go.
//
// A Kind is a policy as the configuration knows it: a name, a struct of settings, and New. New makes a Policy when a
// snapshot is compiled; then it decides and prepares everything that does not depend on a request. A Policy is immutable
// and is asked by many goroutines at once, once for each request. What changes, and is to survive a reload (the counts of
// a limit), is a state that New leases from Env.
//
// A policy may block: a connection is a goroutine, so waiting for something slow holds up nobody else. It waits under
// Exchange.Context, with a bound of its own in its settings, because a route need not have a timeout.
//
// The package refuses to know any policy, to order them (their stage does), and to carry values from one policy to
// another: what policies tell each other is a field of Exchange, with a name and a type.
package policy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"net/netip"
	"strings"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/httpdoor/route"
	"github.com/menshen-gateway/menshen/internal/identity"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// Stage is the fixed place of a policy in the order of execution. The order in which a user writes policies decides only
// among those of the same stage: a listener's come first.
type Stage uint8

// The stages, in their order.
const (
	Screen    Stage = iota // who may come near at all: addresses, floods. Also without a route
	Preflight              // what browsers ask beforehand, without credentials. Also without a route
	Identify               // who is it: sets the consumer
	Authorize              // may they
	Meter                  // how much of it
	Answer                 // no need to ask an endpoint
	Shape                  // changes to what is forwarded and to what is answered
	stageEnd
)

var stageNames = [stageEnd]string{"screen", "preflight", "identify", "authorize", "meter", "answer", "shape"}

// String gives the stage's name, for example "meter".
func (s Stage) String() string { return stageNames[s] }

// Policy is one compiled policy. It is immutable, and safe for concurrent use.
type Policy interface {
	// Request looks at a request before an endpoint is asked. It may change x in the ways of x's methods, and must not keep
	// x or any view of it after it returns. On the plain path it should not allocate.
	Request(x *Exchange) Outcome
}

// Responder is a Policy that has something to say of every response: when an earlier policy has answered or refused, or
// when no route matched, Request is not called, and Response is.
type Responder interface {
	Policy
	// Response leaves edits in x.ToClient.
	Response(x *Exchange)
}

// Outcome is what a policy decides. Its zero value is Continue; the others come from Exchange.Answer and Exchange.Refuse.
type Outcome uint8

// The outcomes.
const (
	Continue Outcome = iota // ask the next one
	Answered                // the response is in the Exchange; nobody else is asked
	Refused                 // the fault is in the Exchange; nobody else is asked
)

// Connection is what a policy may ask of a TLS connection; *tls.Conn is one.
type Connection interface{ ConnectionState() tls.ConnectionState }

// Exchange is one request as policies see it, and what they want done with it and with its response. It belongs to one
// request at a time; views (byte slices) live as long as the call of Policy.Request.
type Exchange struct {
	// To be read. Head is as the client sent it; what is forwarded is what it says, changed by ToEndpoint and Query.
	Head        *h1.Request
	Path        []byte            // normalised: what was matched and is forwarded, before a rewrite
	Captures    *route.Captures   // of the path; empty without a route
	Client      netip.Addr        // the one client address, after trusted_proxies
	TLS         Connection        // nil: plain text
	Certificate *x509.Certificate // the client's, verified; nil: it has none, or the listener asks for none
	Listener    string
	Route       string       // "" when none matches: only Screen and Preflight are asked then
	RequestID   []byte       // made or passed on; empty when the listener has that off
	Now         poll.Instant // when the head was there: one clock reading serves the whole chain
	Deadline    poll.Instant // of the whole request; 0 is never

	// To be read, and written by the policy that knows better.
	Consumer *identity.Consumer // nil: nobody in particular. Set by Identify
	Query    []byte             // as forwarded, without '?'. Empty with HasQuery is a lone '?'
	HasQuery bool

	// ToEndpoint changes the head of the request as it is forwarded, ToClient that of the response, whoever makes it: an
	// endpoint, a policy, or the gateway itself with an error. Both are applied when the heads are written, in the order in
	// which policies left them.
	ToEndpoint, ToClient Edits

	// What Answer and Refuse left, for the door.
	Status int // of Answer, or in place of the fault's own when it is not 0
	Body   []byte
	Fault  *fault.Fault

	waited  bool
	scratch [128]byte
}

// Reset forgets the request but keeps memory.
func (x *Exchange) Reset() {
	x.ToEndpoint.Reset()
	x.ToClient.Reset()
	endpoint, client := x.ToEndpoint, x.ToClient
	*x = Exchange{ToEndpoint: endpoint, ToClient: client}
}

// Context gives a context that ends with the request's deadline, for a policy that waits; cancel it before Request
// returns. That the client left does not end it: nobody reads from the client meanwhile.
func (x *Exchange) Context() (context.Context, context.CancelFunc) {
	x.waited = true
	if x.Deadline == 0 {
		return context.WithCancel(context.Background())
	}
	return context.WithDeadline(context.Background(), x.Deadline.Time())
}

// Waited says whether a policy asked for a context, so that clock readings from before the chain are old.
func (x *Exchange) Waited() bool { return x.waited }

// Answer answers the request without an endpoint. Fields other than the framing are left in ToClient; body lives until the
// response is sent, so it must not be a view of the policy's own memory that changes.
func (x *Exchange) Answer(status int, body []byte) Outcome {
	x.Status, x.Body = status, body
	return Answered
}

// Refuse refuses the request: the door maps the fault to a status, writes a problem document and, for RetryWait,
// Retry-After. Further fields (WWW-Authenticate, say) are left in ToClient.
func (x *Exchange) Refuse(f *fault.Fault) Outcome {
	x.Fault = f
	return Refused
}

// RefuseWith is Refuse with a status that the configuration chose.
func (x *Exchange) RefuseWith(status int, f *fault.Fault) Outcome {
	x.Status = status
	return x.Refuse(f)
}

// Preflight says whether this is a CORS preflight request: a browser asking whether another site's page may send what
// comes next (Fetch standard, 4.8). The door looks up the route of the method that is asked for.
func (x *Exchange) Preflight() bool { return Preflighted(x.Head) != nil }

// Preflighted gives the method that a CORS preflight request asks for; nil when r is none.
func Preflighted(r *h1.Request) []byte {
	if string(r.Method) != "OPTIONS" || len(r.Get(h1.KnownOrigin)) == 0 {
		return nil
	}
	if method, _ := r.Lookup("Access-Control-Request-Method"); h1.ValidName(method) {
		return method
	}
	return nil
}

// The fields that tell an endpoint who the consumer is.
const (
	FieldConsumerName   = "X-Consumer-Name"
	FieldConsumerGroups = "X-Consumer-Groups" // joined by commas
)

var identityFields = NewNames("X-Consumer*")

// Identify sets the consumer and tells the endpoint by identity fields. Copies that the client sent are removed: nobody
// becomes somebody by writing it into a header. nil is an anonymous request, and removes them as well.
func (x *Exchange) Identify(c *identity.Consumer) {
	x.Consumer = c
	x.ToEndpoint.Remove(identityFields)
	if c == nil {
		return
	}
	x.ToEndpoint.Add(FieldConsumerName, c.Name)
	if len(c.Groups) > 0 {
		x.ToEndpoint.begin(FieldConsumerGroups)
		for i, group := range c.Groups {
			if i > 0 {
				x.ToEndpoint.lines = append(x.ToEndpoint.lines, ',')
			}
			x.ToEndpoint.lines = append(x.ToEndpoint.lines, group...)
		}
		x.ToEndpoint.end()
	}
}

// ClientText gives the client's address as text: a view that the next call overwrites.
func (x *Exchange) ClientText() []byte { return x.Client.AppendTo(x.scratch[:0]) }

// Value gives what a Template may name.
func (x *Exchange) Value(name string) []byte {
	switch name {
	case "client.address":
		return x.ClientText()
	case "consumer.name":
		if x.Consumer != nil {
			return append(x.scratch[:0], x.Consumer.Name...)
		}
	case "request.id":
		return x.RequestID
	case "path.*":
		return x.Captures.Star()
	default:
		if part, found := strings.CutPrefix(name, "client.certificate."); found {
			return certificateValue(x.Certificate, part)
		}
		if len(name) > len("path.") {
			v, _ := x.Captures.Get(name[len("path."):])
			return v
		}
	}
	return nil
}

// certificateNames are what a Template may name of the client's certificate.
var certificateNames = []string{"client.certificate.subject", "client.certificate.issuer", "client.certificate.common_name", "client.certificate.serial",
	"client.certificate.fingerprint", "client.certificate.dns_name", "client.certificate.uri"}

// certificateValue gives a part of the client's certificate; nothing when there is none.
func certificateValue(c *x509.Certificate, part string) []byte {
	if c == nil {
		return nil
	}
	switch part {
	case "subject": // RFC 2253
		return []byte(c.Subject.String())
	case "issuer":
		return []byte(c.Issuer.String())
	case "common_name":
		return []byte(c.Subject.CommonName)
	case "serial":
		return c.SerialNumber.Append(nil, 16)
	case "fingerprint":
		sum := sha256.Sum256(c.Raw)
		return hex.AppendEncode(nil, sum[:])
	case "dns_name":
		if len(c.DNSNames) > 0 {
			return []byte(c.DNSNames[0])
		}
	case "uri":
		if len(c.URIs) > 0 {
			return []byte(c.URIs[0].String())
		}
	}
	return nil
}

// Cookie finds a cookie's value (RFC 6265, 4.2.1).
func Cookie(r *h1.Request, name string) ([]byte, bool) {
	for i := range r.Fields {
		if r.Fields[i].Known != h1.KnownCookie {
			continue
		}
		rest := r.Fields[i].Value
		for len(rest) > 0 {
			var pair []byte
			pair, rest, _ = bytes.Cut(rest, []byte{';'})
			key, value, ok := bytes.Cut(bytes.TrimLeft(pair, " \t"), []byte{'='})
			if ok && string(key) == name {
				return value, true
			}
		}
	}
	return nil, false
}
