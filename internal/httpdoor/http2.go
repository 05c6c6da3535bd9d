package httpdoor

import (
	"crypto/tls"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/h2"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// HTTP/2 is served by the same exchanges: an h2.Stream reads like an HTTP/1 connection, so each stream is a conn with one
// request. What differs is how a response is framed (headDone, bodyDone), where a body ends that has no declared length
// (bodyStream), and that the client can give up one request alone (Leave).

// http2Limits are the bounds of a listener's HTTP/2 connections.
func http2Limits(l *config.Listener) h2.Limits {
	from := l.Limits.HTTP2
	return h2.Limits{
		Streams: from.Streams, Window: int(from.Window), ConnectionWindow: int(from.ConnectionWindow),
		HeadBytes: int(l.Limits.HeaderBytes), Continuations: from.Continuations,
		Resets:      h2.Rate{Count: from.Resets.Count, Per: from.Resets.Per},
		Idle:        h2.Rate{Count: from.IdleFrames.Count, Per: from.IdleFrames.Per},
		TimeoutHead: time.Duration(l.Timeouts.RequestHeader), TimeoutIdle: time.Duration(l.Timeouts.Idle),
	}
}

// negotiated says that the TLS handshake has agreed on HTTP/2.
func (c *conn) negotiated() bool {
	tc, ok := c.net.(*tls.Conn)
	return ok && tc.ConnectionState().NegotiatedProtocol == "h2"
}

// mayBundle says that an HTTP/2 preface is welcome: at the start of a connection in plain text. With TLS, HTTP/2 is
// negotiated (RFC 9113, 3.2).
func (c *conn) mayBundle(s *site) bool {
	return s.http2.Streams > 0 && !c.secure && c.served == 0 && c.stream == nil
}

// serveBundle serves an HTTP/2 connection until it ends. already is what was read of it.
func (c *conn) serveBundle(already []byte) {
	s := c.pin()
	c.poll.WritePatience(s.timeoutWrite)
	c.poll.ReadBefore(0) // the bundle has a watch of its own
	c.poll.Uninterrupt()
	b := h2.NewServer(c.net, c.poll.Shutdown, s.http2, c.acceptStream, c.beginStreams)
	c.bundle.Store(b)
	if c.draining() {
		b.Drain()
	}
	if err := b.Serve(already); err != nil {
		c.door.options.Log.Debug("http2 connection ended", "listener", c.Listener.Name, "client", c.Peer, "error", err)
	}
}

// acceptStream prepares the exchange of a stream. The bundle's goroutine calls it.
func (c *conn) acceptStream(st *h2.Stream) {
	s := c.pin()
	both := &struct {
		conn
		poll poll.Conn
	}{conn: conn{Entry: c.Entry, door: c.door, secure: c.secure, tls: c.tls, stripe: c.stripe, tables: c.tables, site: s, stream: st}, poll: poll.Conn{Conn: st}} // one piece of memory
	sc := &both.conn
	sc.poll = &both.poll
	sc.net = sc.poll
	if tc, ok := c.net.(policy.Connection); ok {
		sc.net = secureStream{sc.poll, tc}
	}
	st.Owner = sc
	if c.served++; s.requestsMax > 0 && c.served >= s.requestsMax {
		c.bundle.Load().Drain()
	}
	c.accepted = append(c.accepted, sc)
}

// beginStreams starts the exchanges of the streams that came together. The bundle's Serve waits for the Finish of each.
func (c *conn) beginStreams() {
	poll.Serve(c.accepted)
	clear(c.accepted)
	c.accepted = c.accepted[:0]
}

// secureStream is a stream whose connection has TLS, which policies may look at.
type secureStream struct {
	*poll.Conn
	policy.Connection
}

// runStream carries the one request of a stream, or goes on with it when its answer is there. While an endpoint thinks no goroutine waits, as
// on HTTP/1 connections: the poller calls Resume.
func (c *conn) runStream() {
	left := false
	defer func() {
		if left {
			return
		}
		if r := recover(); r != nil {
			c.door.bug(r, c.x)
		}
		c.stream.Finish(h2.InternalError)
	}()
	if c.x == nil {
		c.poll.WritePatience(c.site.timeoutWrite)
		c.x = newExchange(c)
		c.x.serve()
	}
	if c.x.pending {
		if left, _ = c.awaitAnswer(); left {
			return // it is not ours any more
		}
	}
	c.x.release()
}

// Leave notes that the client has given the stream up, and interrupts what is done for it.
func (c *conn) Leave() {
	c.holding.Lock()
	defer c.holding.Unlock()
	c.left.Store(true)
	if up := c.endpoint.Load(); up != nil {
		up.Interrupt()
	}
	if up := c.relayed.Load(); up != nil {
		up.Interrupt()
	}
}

// interrupt interrupts the connection to an endpoint that is in use, and says whether one is, or was when it was interrupted
// before. A stream's is interrupted under its lock; a connection's, whose owner takes no lock, is marked as taken first.
func (c *conn) interrupt(at *atomic.Pointer[poll.Conn]) bool {
	c.holding.Lock()
	defer c.holding.Unlock()
	up := at.Load()
	switch {
	case up == nil, up == &taken:
	case c.stream == nil && !at.CompareAndSwap(up, &taken):
		return false
	default:
		up.Interrupt()
	}
	return up != nil
}

// hold shows which connection to an endpoint is in use, or that none is, to those who may interrupt it.
func (c *conn) hold(at *atomic.Pointer[poll.Conn], up *poll.Conn) {
	if c.stream == nil {
		if up == nil && at.Load() == nil {
			return
		}
		if at.Swap(up) == &taken {
			c.holding.Lock() // until it is interrupted
			c.claimed = true
			c.holding.Unlock()
		}
		return
	}
	c.holding.Lock()
	defer c.holding.Unlock()
	if at.Store(up); up != nil && c.left.Load() {
		up.Interrupt()
	}
}

// cutsMax is how many calls of Cut, which come every 10 ms, wait for streams to end and for their answers to leave: those that say that the gateway stops. A client that reads too slowly for that
// must not hold up the end of the door.
const cutsMax = 100

// cutBundle ends an HTTP/2 connection whatever its streams are doing.
func (c *conn) cutBundle(b *h2.Conn) {
	if b.Streams(func(st *h2.Stream) { st.Owner.(*conn).Cut() }) == 0 && !b.Sending() || c.cuts.Add(1) > cutsMax {
		c.poll.Shutdown()
	}
}

// interim sends an interim response. A client that is gone shows in the next read.
func (c *conn) interim(head []byte) {
	if c.stream == nil {
		_, _ = c.net.Write(head)
		return
	}
	if c.stream.Head(head, false) == nil {
		_ = c.stream.Flush()
	}
}

// startStream says where the body of a stream's request ends, if no Content-Length does, and whether the request is a call.
func (x *exchange) startStream() {
	x.call = isCall(x.request.Get(h1.KnownContentType))
	if b := &x.body; x.request.ContentLength < 0 && !x.conn.stream.Bodiless() {
		b.framing, b.complete = bodyStream, false
	}
}

// takeStream takes the body of a stream whole, if all of it is here and fits beside the head: most calls of gRPC are that
// short, and so need no pump.
func (x *exchange) takeStream() *fault.Fault {
	st, b := x.conn.stream, &x.body
	if x.request.ExpectContinue || !st.Ready(len(x.in)-x.w) || len(st.Trailers()) > 0 {
		return nil
	}
	for x.w < len(x.in) {
		n, err := st.Read(x.in[x.w:])
		if x.w += n; err != nil {
			break
		}
	}
	b.whole = x.in[x.r:x.w]
	b.framing, b.declare = bodyLength, true
	b.received, b.complete = int64(len(b.whole)), true
	x.r = x.w
	x.bytesIn += b.received
	if b.limit > 0 && b.received > b.limit {
		return b.tooLarge()
	}
	return nil
}

// streamHead hands x.out over as a head.
func (x *exchange) streamHead(last bool) *fault.Fault {
	if x.status >= 200 {
		x.headSent = true
	}
	x.bytesOut += int64(len(x.out))
	err := x.conn.stream.Head(x.out, last)
	x.out = x.out[:0]
	return clientFault(err)
}

// streamEnd sends what is left in x.out and ends the response.
func (x *exchange) streamEnd(trailers []h1.Field) *fault.Fault {
	x.bytesOut += int64(len(x.out))
	err := x.conn.stream.End(x.out, trailers, x.site.timeoutWrite)
	x.out = x.out[:0]
	return clientFault(err)
}

func clientFault(err error) *fault.Fault {
	if err == nil {
		return nil
	}
	return fault.Wrap(fault.ClientGone, "the client left before its response was complete", err)
}
