package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/h2"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// Over HTTP/2 a Conn is a stream, and the pool keeps the connections that bundle them.

const (
	// streamsPerBundle is how many streams one connection carries before another is opened, if the endpoint allows as many. One
	// connection is one reading goroutine here and mostly one thread there.
	streamsPerBundle = 100
	streamWindow     = 256 << 10
	// refusingMost is how many connections an endpoint may refuse streams on before no other is opened: then it is the endpoint
	// that has had enough, not the connection.
	refusingMost = 4
	// newTime is how long a connection counts as new for those who fall back on a new one.
	newTime = time.Second
)

// bundleLimits give each stream its window for itself: a client that is slow to take its response holds up nobody else's.
var bundleLimits = h2.Limits{
	Streams: streamsPerBundle, Window: streamWindow, ConnectionWindow: streamsPerBundle * streamWindow, HeadBytes: headLimits.HeadBytes,
	Continuations: 64, Idle: h2.Rate{Count: 10000, Per: 10 * time.Second}, TimeoutHead: 10 * time.Second, TimeoutIdle: idleTimeout,
}

// getStream takes a place on a connection that has one, or nil.
func (p *Pool) getStream() *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.getStreamLocked()
}

func (p *Pool) getStreamLocked() *Conn {
	for _, b := range p.bundles {
		if st := b.Reserve(streamsPerBundle); st != nil {
			c := p.newStream(b, st)
			c.Reused = true
			return c
		}
	}
	return nil
}

func (p *Pool) newStream(b *h2.Conn, st *h2.Stream) *Conn {
	both := &struct {
		Conn
		poll poll.Conn
	}{Conn: Conn{pool: p, stream: st, bundle: b, heard: b.Heard()}, poll: poll.Conn{Conn: st}} // one piece of memory, for each request anew
	c := &both.Conn
	c.poll = &both.poll
	c.net = c.poll
	return c
}

// goneAfter is how long the host of an endpoint may be silent, to data or to the kernel's probes (RFC 1122, 4.2.3.6), until a connection
// that bundles streams is given up. An exchange over HTTP/1 waits for itself; here one lost cable would have every request of the
// service wait for its first byte, a minute by default. It is the kernel that asks: pings of HTTP/2 (RFC 9113, 6.7) are counted
// against us by servers of gRPC.
const goneAfter = 20 * time.Second

// dialer opens connections as their use wants them.
func (p *Pool) dialer() *net.Dialer {
	if !p.http2 {
		return new(net.Dialer)
	}
	return &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: goneAfter / 2, Interval: goneAfter / 4, Count: 2},
		Control:         func(_, _ string, c syscall.RawConn) error { return unacknowledged(c, goneAfter) },
	}
}

// dialStream opens a connection, or takes a place on one that somebody else has opened meanwhile. While the endpoint refuses streams,
// each connection may have one more opened beside it, not one for each stream that it refuses.
func (p *Pool) dialStream(ctx context.Context, open func(net.Conn) *poll.Conn) (*Conn, *fault.Fault) {
	for waited := false; ; waited = true {
		p.mu.Lock()
		refusing := p.refusingLocked()
		var c *Conn
		switch {
		case waited, refusing > 0:
			c = p.getStreamLocked()
		case p.newest != nil && poll.Now().Sub(p.newestAt) < newTime: // who came a moment too late to wait for it
			if st := p.newest.Reserve(streamsPerBundle); st != nil {
				c = p.newStream(p.newest, st)
			}
		}
		if c != nil {
			p.mu.Unlock()
			c.Reused = false // whoever falls back on a new connection gets one that counts as new
			return c, nil
		}
		dialing := p.dialing
		if dialing == nil {
			if refusing >= refusingMost && 2*refusing > len(p.bundles) {
				p.mu.Unlock()
				return nil, refusingFault(p.address, refusing)
			}
			p.dialing = make(chan struct{})
			p.mu.Unlock()
			return p.dialBundle(ctx, open)
		}
		p.mu.Unlock()
		select {
		case <-dialing:
		case <-ctx.Done():
			return nil, connectFault(p.address, ctx.Err())
		}
	}
}

// refusingLocked counts the connections on which the endpoint has just refused a stream.
func (p *Pool) refusingLocked() (n int) {
	for _, b := range p.bundles {
		if b.Refused() {
			n++
		}
	}
	return n
}

func refusingFault(address string, conns int) *fault.Fault {
	f := fault.Wrap(fault.UpstreamBroken, "the service refuses requests", fmt.Errorf("%s has refused streams on %d connections within a second", address, conns))
	f.Unsent = true
	return f
}

// dialBundle opens a connection for the first stream that waits for it, and tells the others, once the endpoint has said how many it
// allows.
func (p *Pool) dialBundle(ctx context.Context, open func(net.Conn) *poll.Conn) (_ *Conn, f *fault.Fault) {
	dialed := func() {
		p.mu.Lock()
		close(p.dialing)
		p.dialing = nil
		p.mu.Unlock()
	}
	defer func() {
		if f != nil {
			dialed()
		}
	}()
	under, f := p.dial(ctx, open)
	if f != nil {
		return nil, f
	}
	scheme := "http"
	if tc, ok := under.net.(*tls.Conn); ok {
		scheme = "https"
		if got := tc.ConnectionState().NegotiatedProtocol; got != "h2" {
			under.net.Close()
			return nil, connectFault(p.address, fmt.Errorf("tls: the endpoint does not agree on HTTP/2 (it chose %q)", got))
		}
	}
	under.poll.WritePatience(idleTimeout)
	b := h2.NewClient(under.net, under.poll.Shutdown, scheme, bundleLimits)
	st := b.Reserve(streamsPerBundle)
	p.mu.Lock()
	if p.closed {
		b.Drain() // its one stream may end
	} else {
		p.bundles = append(p.bundles, b)
		p.newest, p.newestAt = b, poll.Now()
	}
	p.mu.Unlock()
	go func() { // ends with the connection: idle, drained or broken
		_ = b.Serve(nil)
		p.mu.Lock()
		p.bundles = slices.DeleteFunc(p.bundles, func(other *h2.Conn) bool { return other == b })
		if p.newest == b {
			p.newest = nil
		}
		p.mu.Unlock()
	}()
	if st == nil {
		return nil, connectFault(p.address, errors.New("the connection ended as soon as it stood"))
	}
	go func() { // ends soon: h2.Limits.TimeoutHead bounds the wait for the endpoint's settings
		<-b.Ready()
		dialed()
	}()
	return p.newStream(b, st), nil
}

// openStream sends the beginning of a request. An endpoint that answers before it has read everything may end the stream under
// the write (RFC 9113, 8.1); whether there is an answer shows in the read.
func (c *Conn) openStream(o Opening) error {
	if err := c.stream.Head(o.Head, !o.More && len(o.Whole) == 0); err != nil {
		return err
	}
	if o.More {
		_ = c.stream.Flush()
		return nil
	}
	if err := c.stream.End(o.Whole, nil, c.patience); errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

func (c *Conn) endStream(trailers []h1.Field) error {
	return c.stream.End(nil, trailers, c.patience)
}

// settleStream corrects what a head means on a stream: the end of the body is not that of the connection. A body with both
// Content-Length and trailers, which HTTP/1 cannot have, loses the former.
func settleStream(resp *h1.Response) {
	resp.Close = false
	if resp.ContentLength > 0 && resp.Get(h1.KnownTrailer) != nil {
		resp.ContentLength = -1
	}
}

// startStreamBody finds out whether there is a body.
func (c *Conn) startStreamBody() {
	c.framing = bodyUntilClose
	if c.r == c.w && c.stream.Complete() {
		c.framing = bodyDone
	}
}

// closeStream gives the stream up, unless it has ended. When the endpoint was silent on the whole connection, the connection
// takes no more streams: the endpoint may be gone without a word.
func (c *Conn) closeStream() {
	c.stream.Finish(h2.Cancel)
	if c.silent && c.bundle.Heard() == c.heard {
		c.bundle.Drain()
	}
}

// Gone gives a channel that is closed when the endpoint has given the exchange up, or has ended it; nil over HTTP/1.
func (c *Conn) Gone() <-chan struct{} {
	if c.stream == nil {
		return nil
	}
	return c.stream.Gone()
}
