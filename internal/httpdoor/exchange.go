package httpdoor

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/httpdoor/forward"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/httpdoor/route"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// exchange is a request and its response. It is taken from a pool when a request's first byte is there and given back when
// the connection falls idle. One goroutine owns it, but for the fields under "streaming".
type exchange struct {
	// Kept from one request to the next of a connection.
	conn     *conn
	in       []byte // in[r:w] is read and not yet used; the head's views lie before r
	r, w     int
	headFrom int // in[headFrom:headTo] is the head
	headTo   int
	out      []byte // bytes for the client, or the head for the endpoint, that wait to leave in one write
	request  h1.Request
	response h1.Response
	match    route.Request // here, because the matcher would move it to the heap
	captures route.Captures
	policy   policy.Exchange // the request as policies see it, while policing
	trial    trial           // the attempt at an endpoint, while forwarding
	normal   []byte          // memory for path
	target   []byte          // memory for the target as forwarded
	idText   [32]byte
	hop      forward.Hop // what the heads in both directions say of this hop; set by begin

	// Cleared by begin.
	state
}

// state is what begin clears, in one assignment.
type state struct {
	site       *site
	route      *boundRoute
	share      *share // the service, once it is chosen
	path       []byte // normalised
	client     netip.Addr
	trusted    bool // the peer is a trusted proxy
	requestID  []byte
	allow      string // for 405
	began      poll.Instant
	now        poll.Instant // the last reading of the clock
	deadline   poll.Instant // of the whole request; 0 is never
	endpoint   *upstream.Endpoint
	upstream   time.Duration // waiting for endpoints, all attempts
	asked      bool          // an endpoint was asked
	ticked     bool          // now is the end of the response
	pending    bool          // the answer is waited for without a goroutine
	tunnelling bool          // the rest is a tunnel
	headSent   bool          // the client has seen a part of the response
	keep       bool          // the connection may carry another request
	refused    bool          // the head could not be understood
	call       bool          // a call of gRPC
	policing   bool          // policies were asked: policy has what they want
	status     int
	retries    int
	fault      *fault.Fault
	bytesIn    int64
	bytesOut   int64
	body       requestBody

	// Streaming: shared with the goroutine that sends the request body; see pump.
	pumping   chan *fault.Fault
	goAhead   chan struct{}
	unwanted  atomic.Bool  // the rest of the body: an interrupted read is not to be repeated
	pumped    atomic.Int64 // the Instant at which the pump ended; 0: it runs
	expecting atomic.Int32
	interim   sync.Mutex // held while 100 (Continue) is written, which either goroutine may do
}

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

func newExchange(c *conn) *exchange {
	x := exchanges.Get().(*exchange)
	x.conn = c
	if x.in == nil {
		x.in = poll.GetSmall()
	}
	if x.out == nil {
		x.out = poll.GetSmall()
	}
	x.out, x.r, x.w = x.out[:0], 0, 0
	if c.secure && c.stream == nil { // awaitRequest has read the first byte
		x.in[0], x.w = c.first[0], 1
	}
	return x
}

// release gives the exchange back to the pool. Nothing may refer to it any more.
func (x *exchange) release() {
	x.in, x.out, x.conn, x.hop.Certificates = usual(x.in), usual(x.out), nil, nil
	x.request.Reset()
	x.response.Reset()
	x.clear()
	exchanges.Put(x)
}

// usual keeps a buffer of the usual size with its exchange, and lets go of any other.
func usual(b []byte) []byte {
	if cap(b) == poll.SmallBuffer {
		return b[:poll.SmallBuffer]
	}
	poll.Put(b)
	return nil
}

// begin prepares for the request whose head was just parsed.
func (x *exchange) begin(s *site, now poll.Instant) {
	if x.site != nil { // the exchange has served another request; release leaves nothing
		x.clear()
	}
	x.site, x.began, x.now = s, now, now
	x.keep = !x.request.Close
	x.upstream = -1
	x.client = x.conn.Peer
	if len(s.trusted) > 0 {
		x.findClient()
	}
	x.body.start(&x.request, s.bodyBytes)
	if x.conn.stream != nil {
		x.startStream()
	}
	if s.add.RequestID {
		x.requestID = x.findRequestID()
	}
	x.hop = forward.Hop{Add: s.add, Peer: x.conn.Peer, Trusted: x.trusted, TLS: x.conn.secure, RequestID: x.requestID, Certificates: x.conn.tls.client(s)}
}

// clear forgets all of state. Field by field, because a value with an atomic is not copied.
func (x *exchange) clear() {
	e := &x.state
	e.site, e.route, e.share, e.path = nil, nil, nil, nil
	e.client, e.trusted, e.requestID, e.allow = netip.Addr{}, false, nil, ""
	e.began, e.now, e.deadline, e.endpoint = 0, 0, 0, nil
	e.upstream, e.asked, e.ticked, e.headSent, e.keep, e.refused, e.call = 0, false, false, false, false, false, false
	e.pending, e.tunnelling, x.trial = false, false, trial{}
	e.status, e.retries, e.fault = 0, 0, nil
	e.bytesIn, e.bytesOut = 0, 0
	if e.policing {
		e.policing = false
		x.policy.Reset()
	}
	e.body.reset()
	e.pumping, e.goAhead = nil, nil
	if e.expecting.Load() != expectNothing { // a store costs as much as all that stands above
		e.expecting.Store(expectNothing)
	}
	if e.unwanted.Load() {
		e.unwanted.Store(false)
	}
}

// pipelined says that bytes of a next request are here already.
func (x *exchange) pipelined() bool { return x.w > x.r }

// findClient walks X-Forwarded-For from its end, over trusted proxies, to the one client address that policies and logs use.
func (x *exchange) findClient() {
	if !isTrusted(x.site.trusted, x.conn.Peer) {
		return
	}
	x.trusted = true
	for i := len(x.request.Fields) - 1; i >= 0; i-- {
		f := &x.request.Fields[i]
		if f.Known != h1.KnownXForwardedFor {
			continue
		}
		rest := f.Value
		for len(rest) > 0 {
			var hop []byte
			if comma := lastIndex(rest, ','); comma >= 0 {
				hop, rest = rest[comma+1:], rest[:comma]
			} else {
				hop, rest = rest, nil
			}
			address, ok := parseHop(hop)
			if !ok { // what lies behind a word that is no address cannot be trusted
				return
			}
			x.client = address
			if !isTrusted(x.site.trusted, address) {
				return
			}
		}
	}
}

func isTrusted(trusted []netip.Prefix, a netip.Addr) bool {
	for _, p := range trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

func lastIndex(b []byte, c byte) int {
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] == c {
			return i
		}
	}
	return -1
}

// parseHop reads an address as proxies write it: with or without a port, IPv6 with or without brackets.
func parseHop(hop []byte) (netip.Addr, bool) {
	for len(hop) > 0 && (hop[0] == ' ' || hop[0] == '\t') {
		hop = hop[1:]
	}
	for len(hop) > 0 && (hop[len(hop)-1] == ' ' || hop[len(hop)-1] == '\t') {
		hop = hop[:len(hop)-1]
	}
	if len(hop) > 64 {
		return netip.Addr{}, false
	}
	text := string(hop)
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap(), true
	}
	if a, err := netip.ParseAddrPort(text); err == nil {
		return a.Addr().Unmap(), true
	}
	if len(text) > 2 && text[0] == '[' && text[len(text)-1] == ']' {
		if a, err := netip.ParseAddr(text[1 : len(text)-1]); err == nil {
			return a.Unmap(), true
		}
	}
	return netip.Addr{}, false
}

const requestIDMax = 128

// findRequestID passes the client's X-Request-Id on when it is short and plain, and makes one otherwise: 128 random bits.
func (x *exchange) findRequestID() []byte {
	if id := x.request.Get(h1.KnownXRequestID); len(id) > 0 && len(id) <= requestIDMax && plain(id) {
		return id
	}
	var raw [16]byte
	hi, lo := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		raw[i], raw[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	hex.Encode(x.idText[:], raw[:])
	return x.idText[:]
}

// plain says that an id can stand in logs and headers as it is.
func plain(id []byte) bool {
	for _, c := range id {
		if !isPlain[c] {
			return false
		}
	}
	return true
}

var isPlain = func() (is [256]bool) {
	for _, c := range "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+=~@" {
		is[c] = true
	}
	return is
}()

// tick reads the clock. That costs as much as matching the route, so a plain request does it once, at its end: when its head and its
// answer came the poller has noted.
func (x *exchange) tick() poll.Instant {
	x.now = poll.Now()
	return x.now
}

// total is the time since the head was there, as of the last tick.
func (x *exchange) total() time.Duration { return x.now.Sub(x.began) }

// record writes the access record and counts the request.
func (x *exchange) record() {
	if !x.ticked {
		x.tick()
	}
	x.conn.last = x.now
	total, faultID := x.total(), x.faultID()
	x.series().Observe(x.status, total, max(0, x.upstream), x.bytesIn, x.bytesOut, x.retries, faultID)
	if x.conn.door.options.Access == nil {
		return
	}
	var record observe.Record
	x.account(&record)
	x.conn.door.options.Access.Write(&record)
}

// faultID names what went wrong with the request; "" is nothing.
func (x *exchange) faultID() string {
	if x.fault == nil {
		return ""
	}
	return x.fault.Kind.String()
}

// series is where the request is counted.
func (x *exchange) series() *observe.HTTPSeries {
	switch {
	case x.share != nil:
		return x.share.series
	case x.route != nil:
		return x.route.series
	}
	return x.site.seriesUnmatched
}

// account makes the access record, as of the last tick. It has views of the request.
func (x *exchange) account(r *observe.Record) {
	*r = observe.Record{
		Time: x.began.Time(), Door: observe.DoorHTTP, Listener: x.conn.Listener.Name, Consumer: x.consumer(), ClientAddress: x.client,
		Fault: x.faultID(), Generation: x.site.generation, Total: x.total(), Upstream: max(0, x.upstream),
		BytesIn: x.bytesIn, BytesOut: x.bytesOut, Protocol: "HTTP/1.1", RequestID: x.requestID,
		Method: x.request.Method, Host: x.request.Host, Path: x.request.Path, UserAgent: x.request.Get(h1.KnownUserAgent),
		Status: x.status, Retries: x.retries,
	}
	switch {
	case x.refused: // what it was could not be understood
		r.Protocol = ""
	case x.conn.stream != nil:
		r.Protocol = "HTTP/2.0"
	case x.request.Minor == 0:
		r.Protocol = "HTTP/1.0"
	}
	if x.route != nil {
		r.Route = x.route.name
	}
	if x.share != nil {
		r.Service = x.share.target.Name
	}
	if x.endpoint != nil {
		r.Endpoint = x.endpoint.Address
	}
	if t := x.conn.tls; t != nil {
		r.ClientCertificate = t.subject
	}
}

// bug reports a broken invariant that a request ran into. The connection is closed.
func (d *Door) bug(r any, x *exchange) {
	id, routeName := "", ""
	if x != nil {
		x.forsake()
	}
	if x != nil && x.site != nil {
		id = string(x.requestID)
		series := x.site.seriesUnmatched
		if x.route != nil {
			routeName, series = x.route.name, x.route.series
		}
		series.Observe(0, 0, 0, 0, 0, 0, fault.Internal.String())
	}
	d.reportBug(r, debug.Stack(), id, routeName)
}

func (d *Door) reportBug(r any, stack []byte, id, route string) {
	d.options.Log.Error("BUG: panic while serving a request", "panic", fmt.Sprint(r), "request_id", id, "route", route, "stack", string(stack))
}
