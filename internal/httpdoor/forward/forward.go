// Package forward makes one attempt at one endpoint: a pooled connection, the request's head and body on it, the
// response's head and body from it, each side's headers cleaned of what concerns one connection only.
//
// A Target is a service; its upstream set chooses the endpoint. A Conn is a connection to an endpoint, owned by
// one goroutine between Dial or Get and Put or Close (its writing half may be lent to a second one while a request body
// streams). Pools belong to endpoints and survive reloads with them.
//
// It refuses to decide: whether to try again, what the client sees and what is logged is the door's business.
package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/h2"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/tlsconfig"
	"github.com/menshen-gateway/menshen/internal/traffic/services"
)

// Target is a service as requests use it. It is immutable.
type Target struct {
	*services.Service
	Key HashKey // what the hash balancer hashes; Kind NoKey for the other balancers
}

// NewTarget makes a Target of a service whose endpoints have pools by NewPool.
func NewTarget(s *services.Service) *Target {
	return &Target{Service: s, Key: parseKey(s.HashKey)}
}

// NewPool makes the pool of one endpoint of a service. It connects to nothing yet.
func NewPool(s *services.Service, address string) io.Closer {
	return &Pool{address: address, tls: s.TLS, connect: s.TimeoutConnect, idleMax: s.IdleMax, http2: s.HTTP2}
}

// KeyKind says which part of a request a hash balancer looks at.
type KeyKind uint8

// The parts.
const (
	NoKey KeyKind = iota
	ClientAddress
	Path
	Header
	Cookie
)

// HashKey is the part of a request that a hash balancer looks at; Name is the header's or the cookie's.
type HashKey struct {
	Kind KeyKind
	Name string
}

func parseKey(key string) HashKey {
	kind, name, _ := strings.Cut(key, ":")
	switch kind {
	case "":
		return HashKey{}
	case "path":
		return HashKey{Kind: Path}
	case "header":
		return HashKey{Kind: Header, Name: name}
	case "cookie":
		return HashKey{Kind: Cookie, Name: name}
	}
	return HashKey{Kind: ClientAddress}
}

// Pool keeps idle connections to one endpoint, the last used first, so that few stay open when traffic is low.
type Pool struct {
	address string
	tls     *tls.Config // nil: plain text
	connect time.Duration
	idleMax int
	http2   bool

	mu       sync.Mutex
	idle     []*Conn
	closed   bool
	bundles  []*h2.Conn // HTTP/2: connections in use and idle, the oldest first
	newest   *h2.Conn   // HTTP/2: the last that was dialled, while it lives
	newestAt poll.Instant
	dialing  chan struct{} // HTTP/2: closed when a connection that others wait for too has come, or has not
}

// idleTimeout is how long an idle connection is kept. Most servers close theirs after 60 to 75 s; we do so first.
const idleTimeout = 55 * time.Second

// Get takes an idle connection that is open and silent, or nil: an endpoint that sends more than it announced, a moment later, would
// otherwise answer the next client's request with it. The own poller knows without a system call what had come when it last
// looked, which under load is a fraction of a millisecond ago; on the runtime's the kernel is asked (3 % of a small request).
// It always is for a request that is sent once only: one that meets a connection just closed could not be sent again.
func (p *Pool) Get(now poll.Instant, once bool) *Conn {
	if p.http2 {
		return p.getStream()
	}
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		c := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		age := now.Sub(c.idleSince)
		if age < idleTimeout && c.poll.Quiet() && (!once || c.poll.Alive()) {
			c.Reused = true
			return c
		}
		c.Close()
	}
}

// Put keeps a connection for the next request, or closes it when the pool is full or closed. The connection must have
// nothing left of the last exchange.
func (p *Pool) Put(c *Conn, now poll.Instant) {
	c.release()
	if c.stream != nil {
		c.stream.Finish(h2.Cancel)
		return
	}
	c.idleSince = now
	c.poll.ServedBy(nil)
	var old *Conn
	p.mu.Lock()
	if p.closed || len(p.idle) >= p.idleMax {
		old = c
	} else {
		if len(p.idle) > 0 && now.Sub(p.idle[0].idleSince) > idleTimeout {
			old = p.idle[0]
			copy(p.idle, p.idle[1:])
			p.idle[len(p.idle)-1] = c
		} else {
			p.idle = append(p.idle, c)
		}
	}
	p.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

// Close closes the idle connections, and makes Put close those that are still in use.
func (p *Pool) Close() error {
	p.mu.Lock()
	idle, bundles := p.idle, p.bundles
	p.idle, p.bundles, p.closed = nil, nil, true
	p.mu.Unlock()
	for _, b := range bundles {
		b.Drain()
	}
	for _, c := range idle {
		c.Close()
	}
	return nil
}

// Dial opens a connection, for at most the connect timeout and until deadline. open puts it on a poller: poll.New, or poll.Adopt.
func (p *Pool) Dial(deadline poll.Instant, open func(net.Conn) *poll.Conn) (*Conn, *fault.Fault) {
	until := deadline
	if p.connect > 0 {
		until = poll.Earlier(deadline, poll.Now().Add(p.connect))
	}
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if until != 0 {
		ctx, cancel = context.WithDeadline(ctx, until.Time())
	}
	defer cancel()
	if p.http2 {
		return p.dialStream(ctx, open)
	}
	return p.dial(ctx, open)
}

func (p *Pool) dial(ctx context.Context, open func(net.Conn) *poll.Conn) (*Conn, *fault.Fault) {
	nc, err := p.dialer().DialContext(ctx, "tcp", p.address)
	if err != nil {
		return nil, connectFault(p.address, err)
	}
	c := &Conn{poll: open(nc), pool: p}
	c.net = c.poll
	if p.tls != nil {
		tc := tls.Client(c.poll, tlsconfig.ForAddress(p.tls, p.address))
		if err := tc.HandshakeContext(ctx); err != nil {
			c.poll.Close()
			return nil, connectFault(p.address, fmt.Errorf("tls: %w", err))
		}
		c.net = tc
	}
	return c, nil
}

func connectFault(address string, err error) *fault.Fault {
	kind, public := fault.ConnectFailed, "the service could not be reached"
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &timeout) && timeout.Timeout()) {
		kind, public = fault.ConnectTimeout, "the service could not be reached in time"
	}
	f := fault.Wrap(kind, public, fmt.Errorf("connect %s: %w", address, err))
	f.Unsent = true
	return f
}

// Conn is a connection to an endpoint.
type Conn struct {
	Reused bool // it has served an exchange before: an end of file before the response may be an idle close

	poll *poll.Conn
	net  net.Conn // poll, or TLS on it
	pool *Pool

	buf       []byte // nil while no response is being read; buf[r:w] is read and not yet used
	spare     []byte // lent for buf
	r, w      int
	idleSince poll.Instant
	now       poll.Instant // a reading of the clock for AwaitAnswer; 0: none

	framing   framing
	remaining int64 // of a Content-Length body
	chunks    h1.ChunkDecoder
	piece     []byte // decoded by Buffered, for the next Body: a view into buf

	chunked  bool   // the request's body goes in chunks
	frame    []byte // of the last chunk
	stream   *h2.Stream
	bundle   *h2.Conn // of stream
	heard    uint64   // frames on the bundle when the stream was taken
	silent   bool     // the endpoint did not answer in time
	patience time.Duration
}

type framing uint8

const (
	bodyDone framing = iota
	bodyLength
	bodyChunked
	bodyUntilClose
)

// Close closes the connection.
func (c *Conn) Close() {
	c.release()
	if c.stream != nil {
		c.closeStream()
		return
	}
	c.net.Close()
}

// Put gives the connection back to its pool.
func (c *Conn) Put(now poll.Instant) { c.pool.Put(c, now) }

func (c *Conn) release() {
	poll.Put(c.buf)
	poll.Put(c.frame)
	c.buf, c.spare, c.r, c.w, c.piece, c.frame = nil, nil, 0, 0, nil, nil
}

// Slim lets go of the buffer. Nothing may be left in it.
func (c *Conn) Slim() { c.release() }

// NetConn is the connection as a stream, for tunnels. Buffered bytes (Leftover) come before it.
func (c *Conn) NetConn() net.Conn { return c.net }

// Abort closes the connection under a write in another goroutine. Close must still follow.
func (c *Conn) Abort() {
	if c.stream != nil {
		c.stream.Reset(h2.Cancel)
		return
	}
	c.poll.Close()
}

// WritePatience bounds how long the endpoint may refuse bytes; zero is for ever.
func (c *Conn) WritePatience(d time.Duration) {
	c.patience = d
	c.poll.WritePatience(d)
}

// Poll is the socket, for deadlines.
func (c *Conn) Poll() *poll.Conn { return c.poll }

// Write sends bytes of the request.
func (c *Conn) Write(p []byte) error {
	_, err := c.net.Write(p)
	return err
}

// Opening is a request as far as it is known before its body streams.
type Opening struct {
	Head    []byte // its spare memory is used
	Whole   []byte // the body, if it was read whole
	More    bool   // instead the body follows, by Send and End
	Chunked bool   // and goes in chunks, over HTTP/1
	Spare   []byte // memory for the answer: lent until Put, Close or Slim, used if it is not too short
	Now     poll.Instant
	Before  poll.Instant // bounds the wait for the answer
	Server  poll.Server  // not nil: it can be resumed, and needs no goroutine to wait (ErrPending)
}

// ErrPending is returned by Open when the request is sent and AwaitAnswer is to follow.
var ErrPending = errors.New("the answer is still to come")

// Open sends the beginning of a request. When nothing follows, it may wait until the answer begins: the error is a *fault.Fault
// when everything was sent and no answer came.
func (c *Conn) Open(o Opening) error {
	if c.stream != nil {
		return c.openStream(o)
	}
	c.chunked, c.spare = o.Chunked, o.Spare
	if o.More {
		return c.Write(o.Head)
	}
	if len(o.Head)+len(o.Whole) <= cap(o.Head) { // in one write
		return c.ask(append(o.Head, o.Whole...), &o)
	}
	if err := c.Write(o.Head); err != nil {
		return err
	}
	return c.ask(o.Whole, &o)
}

// ask sends the last bytes of a request and waits for the answer to begin.
func (c *Conn) ask(p []byte, o *Opening) error {
	c.poll.ReadBeforeSince(o.Now, o.Before)
	if c.net != net.Conn(c.poll) {
		return c.Write(p)
	}
	if o.Server != nil && c.poll.ServedBy(o.Server) {
		if err := c.Write(p); err != nil {
			return err
		}
		c.now = o.Now
		return ErrPending
	}
	n, asked, err := c.poll.Ask(p, c)
	c.w += n
	if err != nil && (asked || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, poll.ErrInterrupted)) {
		return c.readFault(err, true)
	}
	return err
}

// AwaitAnswer waits until the answer begins, and reads what is there of it. left says that the wait takes no goroutine: the connection is not ours any
// more, Opening.Server is resumed when there is something, and AwaitAnswer is to be called again.
func (c *Conn) AwaitAnswer() (left bool, f *fault.Fault) {
	switch err := c.poll.Loop((*arrival)(c)); err {
	case nil:
		return false, nil
	case poll.ErrDetached:
		return true, nil
	default:
		return false, c.readFault(err, true)
	}
}

// arrival is a Conn under the poller's Loop, up to the first bytes of an answer.
type arrival Conn

func (a *arrival) Room() []byte { return (*Conn)(a).Room() }

func (a *arrival) Take(n int) (goOn bool) {
	a.w += n
	return n == 0
}

// Idle gives a recent reading of the clock once; where the poller needs it again it reads it itself.
func (a *arrival) Idle() (now poll.Instant) {
	now, a.now = a.now, 0
	return now
}

// spareMin is the least memory for an answer that spares taking a buffer.
const spareMin = poll.SmallBuffer / 2

// headroom is what a response's head may grow by on its way, for Prepend.
const headroom = 512

// Room takes the memory for an answer that begins: no buffer is held while the endpoint thinks.
func (c *Conn) Room() []byte {
	if c.buf != nil {
		return c.buf[c.w:]
	}
	if len(c.spare) >= spareMin {
		n := min(len(c.spare), poll.SmallBuffer-1) // of no pool's size: poll.Put leaves it alone
		c.buf = c.spare[:n:n]
	} else {
		c.buf = poll.GetSmall()
	}
	c.r, c.w = headroom, headroom
	return c.buf[c.w:]
}

// frameRoom is what chunked framing adds to a piece.
const frameRoom = 64

// Send sends a piece of the body.
func (c *Conn) Send(p []byte) error {
	if !c.chunked {
		return c.Write(p)
	}
	if len(p)+frameRoom > cap(c.frame) {
		poll.Put(c.frame)
		if c.frame = poll.GetSmall(); len(p)+frameRoom > cap(c.frame) {
			poll.Put(c.frame)
			c.frame = poll.GetLarge()
		}
	}
	c.frame = h1.AppendChunkHeader(c.frame[:0], len(p))
	c.frame = append(c.frame, p...)
	c.frame = append(c.frame, '\r', '\n')
	return c.Write(c.frame)
}

// End ends the body.
func (c *Conn) End(trailers []h1.Field) error {
	switch {
	case c.stream != nil:
		return c.endStream(trailers)
	case c.chunked:
		c.frame = h1.AppendLastChunk(c.frame[:0], trailers)
		return c.Write(c.frame)
	}
	return nil
}

// Leftover takes the bytes that were read beyond the head, for tunnels.
func (c *Conn) Leftover() []byte {
	view := c.buf[c.r:c.w]
	c.r = c.w
	return view
}

var headLimits = h1.Limits{HeadBytes: 128 << 10, LineBytes: 16 << 10, Fields: 512}

// ReadHead reads one response head, be it interim (1xx) or final. Its views live until the next call of ReadHead or Body.
func (c *Conn) ReadHead(resp *h1.Response, method []byte, before poll.Instant) *fault.Fault {
	c.poll.ReadBefore(before)
	first := c.buf == nil
	if first {
		if c.net == net.Conn(c.poll) {
			if err := c.poll.Await(); err != nil { // hold no buffer while the endpoint thinks
				return c.readFault(err, true)
			}
		}
		c.Room()
	}
	for {
		if c.w > c.r {
			first = false
			n, err := resp.Parse(c.buf[c.r:c.w], headLimits, method)
			if err != nil {
				return fault.Wrap(fault.UpstreamBroken, "the service sent a response that cannot be understood", fmt.Errorf("response head from %s: %w", c.pool.address, err))
			}
			if n > 0 {
				c.r += n
				if c.stream != nil {
					settleStream(resp)
				}
				return nil
			}
			c.makeRoom()
		}
		n, err := c.net.Read(c.buf[c.w:])
		c.w += n
		if n == 0 && err != nil {
			return c.readFault(err, first)
		}
	}
}

// makeRoom makes sure that there is room behind w. The parser has not moved r: an unfinished head stays whole.
func (c *Conn) makeRoom() {
	if c.w < len(c.buf) {
		return
	}
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
		return
	}
	bigger := make([]byte, 2*len(c.buf)) // bounded by headLimits: the parser refuses before it grows beyond twice that
	copy(bigger, c.buf[:c.w])
	poll.Put(c.buf)
	c.buf = bigger
}

// readFault explains a failed read; nothing says that no byte of the response had come.
func (c *Conn) readFault(err error, nothing bool) *fault.Fault {
	if errors.Is(err, poll.ErrInterrupted) {
		return fault.Wrap(fault.Draining, "the gateway is stopping", err)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.silent = true
		return fault.Wrap(fault.UpstreamTimeout, "the service did not answer in time", fmt.Errorf("read from %s: %w", c.pool.address, err))
	}
	if nothing && c.Reused {
		err = fmt.Errorf("closed while idle: %w", err)
	}
	f := fault.Wrap(fault.UpstreamBroken, "the service closed the connection before its response was complete", fmt.Errorf("read from %s: %w", c.pool.address, err))
	f.Unsent = h2.Unsent(err)
	return f
}

// StartBody prepares for the body of the response whose head was just read. The views of
// the head die.
func (c *Conn) StartBody(resp *h1.Response) {
	switch {
	case resp.NoBody:
		c.framing = bodyDone
	case c.stream != nil:
		c.startStreamBody()
	case resp.Chunked:
		c.framing = bodyChunked
		c.chunks.Reset()
	case resp.ContentLength > 0:
		c.framing, c.remaining = bodyLength, resp.ContentLength
		if c.remaining > 4*SmallBody && cap(c.buf) < poll.LargeBuffer {
			large := poll.GetLarge()
			c.w = copy(large, c.buf[c.r:c.w])
			c.r = 0
			poll.Put(c.buf)
			c.buf = large
		}
	case resp.ContentLength == 0:
		c.framing = bodyDone
	default:
		c.framing = bodyUntilClose
	}
}

// SmallBody is what fits into the first read beside a head.
const SmallBody = poll.SmallBuffer - 1024

// Done says that the body is complete.
func (c *Conn) Done() bool { return c.framing == bodyDone }

// Buffered says that Body has something to give, or the end to tell, without waiting.
func (c *Conn) Buffered() bool {
	if c.framing != bodyChunked || c.r == c.w {
		return c.w > c.r || c.stream != nil && c.stream.Buffered()
	}
	// The line end behind a chunk, say, is nothing to give: taking it for something would hold back what came before it
	// until the next chunk is here.
	payload, n, done, err := c.chunks.Next(c.buf[c.r:c.w])
	if err != nil {
		return true // Body gets the same error
	}
	c.r += n
	c.piece = payload
	if done {
		c.framing = bodyDone
	}
	return done || len(payload) > 0
}

// Clean says that the connection may serve another exchange: the body is complete and nothing came after it.
func (c *Conn) Clean() bool {
	return c.framing == bodyDone && c.r == c.w && (c.stream == nil || c.stream.Complete())
}

// Trailers are those of a chunked body that is Done.
func (c *Conn) Trailers() []h1.Field {
	if c.stream != nil {
		return c.stream.Trailers()
	}
	return c.chunks.Trailers()
}

// Prepend gives a piece of Body with other bytes before it, in one piece; nil when there is no room. What lay before the piece is overwritten, the views of
// the head among it.
func (c *Conn) Prepend(head, piece []byte) []byte {
	at := cap(c.buf) - cap(piece)
	if at < len(head) || len(piece) == 0 || &c.buf[at] != &piece[0] {
		return nil
	}
	copy(c.buf[at-len(head):at], head)
	return c.buf[at-len(head) : at+len(piece)]
}

// Body gives the next piece of the body: a view that lives until the next call. It is empty only when the body is Done. A
// silence longer than idle, and the moment deadline, end it with a fault.
func (c *Conn) Body(idle time.Duration, deadline poll.Instant) ([]byte, *fault.Fault) {
	if piece := c.piece; len(piece) > 0 {
		c.piece = nil
		return piece, nil
	}
	for c.framing != bodyDone {
		if c.r == c.w {
			c.r, c.w = 0, 0
			c.readBefore(idle, deadline)
			n, err := c.net.Read(c.buf)
			if n == 0 && err != nil {
				if err == io.EOF && c.framing == bodyUntilClose {
					c.framing = bodyDone
					return nil, nil
				}
				return nil, c.readFault(err, false)
			}
			c.w = n
		}
		view := c.buf[c.r:c.w]
		switch c.framing {
		case bodyLength:
			if int64(len(view)) > c.remaining {
				view = view[:c.remaining]
			}
			c.r += len(view)
			if c.remaining -= int64(len(view)); c.remaining == 0 {
				c.framing = bodyDone
			}
			return view, nil
		case bodyUntilClose:
			c.r = c.w
			if c.stream != nil && c.stream.Complete() {
				c.framing = bodyDone
			}
			return view, nil
		case bodyChunked:
			payload, n, done, err := c.chunks.Next(view)
			if err != nil {
				return nil, fault.Wrap(fault.UpstreamBroken, "the service sent a body that cannot be understood", fmt.Errorf("chunked body from %s: %w", c.pool.address, err))
			}
			c.r += n
			if done {
				c.framing = bodyDone
			}
			if len(payload) > 0 {
				return payload, nil
			}
			if n == 0 && !done { // an unfinished line: it must grow
				c.makeRoom()
				if err := c.more(idle, deadline); err != nil {
					return nil, err
				}
			}
		}
	}
	return nil, nil
}

func (c *Conn) readBefore(idle time.Duration, deadline poll.Instant) {
	now := poll.Now()
	c.poll.ReadBeforeSince(now, poll.Earlier(now.Add(idle), deadline))
}

// more reads behind what is buffered.
func (c *Conn) more(idle time.Duration, deadline poll.Instant) *fault.Fault {
	c.readBefore(idle, deadline)
	n, err := c.net.Read(c.buf[c.w:])
	c.w += n
	if n == 0 && err != nil {
		return c.readFault(err, false)
	}
	return nil
}
