package httpdoor

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/httpdoor/forward"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// requestBody is the state of a request's body. Its bytes are read by one goroutine at a time: the connection's, or
// the pump.
type requestBody struct {
	framing   bodyFraming
	remaining int64 // of a Content-Length body
	limit     int64 // most payload bytes; 0 is no bound
	received  int64 // payload bytes so far
	complete  bool
	declare   bool   // the request does not say how long whole is
	whole     []byte // the body, when it was read whole before an endpoint was chosen
	chunks    h1.ChunkDecoder

	// What is read and not yet used is spill[r:w], or exchange.in[r:w] as long as spill is nil: the views of the head lie
	// in that buffer, so nothing may be read into it.
	spill []byte
	r, w  int
	fast  bool // the last read filled the spill
}

type bodyFraming uint8

const (
	bodyNone bodyFraming = iota
	bodyLength
	bodyChunked
	bodyStream // of an HTTP/2 request: until the stream ends
)

// unmeasured says that the body's length is not known before its end.
func (b *requestBody) unmeasured() bool { return b.framing >= bodyChunked }

func (b *requestBody) start(r *h1.Request, limit int64) {
	b.limit = limit
	switch {
	case r.Chunked:
		b.framing = bodyChunked
	case r.ContentLength > 0:
		b.framing, b.remaining = bodyLength, r.ContentLength
	default:
		b.complete = true
	}
}

func (b *requestBody) reset() {
	poll.Put(b.spill)
	b.spill, b.whole = nil, nil
	b.framing, b.remaining, b.limit, b.received, b.complete, b.declare = bodyNone, 0, 0, 0, false, false
	b.r, b.w, b.fast = 0, 0, false
	b.chunks.Reset()
}

// refill gives the memory for the next read, when everything is used. It is small for a client that trickles, and large
// once there is more to read than a small buffer takes.
func (b *requestBody) refill() []byte {
	if b.fast && cap(b.spill) == poll.SmallBuffer {
		poll.Put(b.spill)
		b.spill = poll.GetLarge()
	}
	b.r, b.w = 0, 0
	room := b.spill[:len(b.spill)-frameRoom]
	if b.framing == bodyLength && b.remaining < int64(len(room)) {
		room = room[:b.remaining] // a pipelined request stays in the kernel
	}
	return room
}

// takeWhole reads a short body whole, into the head's buffer, so that it can leave in one write with the head and be sent
// again to another endpoint. Longer ones, chunked ones and those of a client that waits for 100 (Continue) are left to
// the pump.
func (x *exchange) takeWhole() *fault.Fault {
	b := &x.body
	if b.framing == bodyStream {
		return x.takeStream()
	}
	if b.framing != bodyLength || b.complete || x.request.ExpectContinue || b.remaining > int64(len(x.in)-x.r) {
		return nil
	}
	length := int(b.remaining)
	for x.w-x.r < length {
		n, f := x.readClient(x.in[x.w:])
		if f != nil {
			return f
		}
		x.w += n
		x.tick() // the client's slowness is not the endpoint's
	}
	b.whole = x.in[x.r : x.r+length]
	x.r += length
	b.received, b.remaining, b.complete = int64(length), 0, true
	x.bytesIn += int64(length)
	return nil
}

// readClient reads bytes of the request.
func (x *exchange) readClient(p []byte) (int, *fault.Fault) {
	patience := x.site.timeoutBody
	if x.call {
		patience = x.callPatience()
	}
	x.conn.poll.ReadBefore(poll.Earlier(poll.Now().Add(patience), x.deadline))
	n, err := x.conn.net.Read(p)
	for n == 0 && errors.Is(err, poll.ErrInterrupted) && !x.unwanted.Load() { // a drain meant the wait before this request
		n, err = x.conn.net.Read(p)
	}
	if n > 0 {
		return n, nil
	}
	switch {
	case err == io.EOF && x.body.framing == bodyStream:
		x.body.complete = true
		return 0, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, fault.New(fault.RequestTimeout, "the request body took too long to arrive")
	case err == nil, err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return 0, fault.Wrap(fault.ClientGone, "the client left before its request was complete", err)
}

// nextBody gives the next piece of the body: a view that lives until the next call. It is empty only when the body is
// complete.
func (x *exchange) nextBody() ([]byte, *fault.Fault) {
	b := &x.body
	for !b.complete {
		if b.spill == nil && x.r == x.w {
			b.spill = poll.GetSmall()
		}
		view := x.in[x.r:x.w]
		if b.spill != nil {
			if b.r == b.w {
				room := b.refill()
				n, f := x.readClient(room)
				if f != nil {
					return nil, f
				}
				b.w, b.fast = n, n == len(room)
			}
			view = b.spill[b.r:b.w]
		}
		payload, used, err := view, len(view), error(nil)
		switch b.framing {
		case bodyLength:
			if int64(len(view)) > b.remaining {
				payload, used = view[:b.remaining], int(b.remaining)
			}
			b.remaining -= int64(used)
			b.complete = b.remaining == 0
		case bodyChunked:
			if payload, used, b.complete, err = b.chunks.Next(view); err != nil {
				return nil, fault.Wrap(fault.BadRequest, "the chunked request body cannot be understood", err)
			}
		}
		if b.spill != nil {
			b.r += used
		} else {
			x.r += used
		}
		x.bytesIn += int64(len(payload))
		if b.received += int64(len(payload)); b.limit > 0 && b.received > b.limit {
			return nil, b.tooLarge()
		}
		if len(payload) > 0 {
			return payload, nil
		}
		if used == 0 && !b.complete { // an unfinished line of chunked framing: it must grow
			if f := x.moreBody(view); f != nil {
				return nil, f
			}
		}
	}
	return nil, nil
}

func (b *requestBody) tooLarge() *fault.Fault {
	return fault.New(fault.TooLarge, fmt.Sprintf("the request body is larger than %d bytes", b.limit))
}

// moreBody reads behind rest, the unused bytes. The chunk decoder bounds how long a line can be.
func (x *exchange) moreBody(rest []byte) *fault.Fault {
	b := &x.body
	if b.spill == nil {
		b.spill = poll.GetSmall()
		x.r = x.w
	}
	b.w = copy(b.spill, rest)
	b.r = 0
	n, f := x.readClient(b.spill[b.w : len(b.spill)-frameRoom])
	b.w += n
	return f
}

// frameRoom is what chunked framing adds to a piece.
const frameRoom = 64

// What a client with "Expect: 100-continue" is waiting for. Whoever moves the state away from expectWaiting decides.
const (
	expectNothing int32 = iota
	expectWaiting
	expectContinued // 100 (Continue) has been sent
	expectRefused   // the final response came first: the body must not be asked for
)

// patienceContinue is how long an endpoint may think about an expectation before the client is told to go on: many servers
// never answer it (RFC 9110, 10.1.1 forbids a client to wait for ever, and so do we).
const patienceContinue = time.Second

// startPump starts sending the body in a goroutine, because the endpoint may answer before it has read all of it. Its
// outcome is taken by joinPump, on every path.
func (x *exchange) startPump(up *forward.Conn) {
	x.pumping = make(chan *fault.Fault, 1)
	x.goAhead = make(chan struct{})
	x.pumped.Store(0)
	x.unwanted.Store(false)
	if x.request.ExpectContinue {
		x.expecting.Store(expectWaiting)
	} else {
		close(x.goAhead)
	}
	go func() { // ends when the body is sent, either side breaks, or joinPump interrupts it
		defer func() {
			if r := recover(); r != nil {
				x.conn.door.bug(r, x)
				up.Poll().Interrupt()
				x.pumping <- fault.New(fault.Internal, "internal error")
			}
		}()
		f := x.pump(up)
		x.pumped.Store(int64(poll.Now()))
		if f != nil && f.Kind != fault.UpstreamBroken {
			up.Poll().Interrupt() // no response is worth waiting for
		}
		x.pumping <- f
	}()
}

// answerBefore bounds the wait for an answer while there is a pump: an endpoint's time for its first byte begins when it
// has the whole request. As long as it has not, the bound is one at which to ask again.
func (x *exchange) answerBefore(now poll.Instant) poll.Instant {
	began := poll.Instant(x.pumped.Load())
	if began == 0 {
		began = now
	}
	return poll.Earlier(began.Add(x.share.target.TimeoutFirst), x.deadline)
}

// pump sends the body. A broken endpoint is no fault of the body yet: its response may explain (413, say).
func (x *exchange) pump(up *forward.Conn) *fault.Fault {
	if !x.mayContinue() {
		return nil
	}
	for {
		payload, f := x.nextBody()
		if f != nil {
			return f
		}
		var err error
		if len(payload) > 0 {
			err = up.Send(payload)
		} else {
			err = up.End(x.trailers())
		}
		if err != nil {
			return fault.Wrap(fault.UpstreamBroken, "the service closed the connection before it had the whole request", err)
		}
		if len(payload) == 0 {
			return nil
		}
	}
}

// mayContinue waits until the client may send its body, and says whether it will.
func (x *exchange) mayContinue() bool {
	timer := time.NewTimer(patienceContinue)
	defer timer.Stop()
	select {
	case <-x.goAhead:
	case <-timer.C:
		x.sendContinue()
	}
	return x.expecting.Load() != expectRefused
}

// sendContinue tells the client to go on, unless it was told or its answer is there.
func (x *exchange) sendContinue() {
	x.interim.Lock() // answered waits for a write that has begun
	defer x.interim.Unlock()
	if x.expecting.CompareAndSwap(expectWaiting, expectContinued) {
		x.conn.interim([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	}
}

// relayContinue passes an endpoint's 100 (Continue) on.
func (x *exchange) relayContinue() {
	if x.expecting.Load() == expectWaiting {
		x.sendContinue()
		close(x.goAhead)
	}
}

// answered notes that the final response is there: a client that still waits for 100 need not send its body.
func (x *exchange) answered() {
	if x.expecting.Load() == expectNothing { // nobody but startPump changes that
		return
	}
	x.interim.Lock()
	defer x.interim.Unlock()
	if x.expecting.CompareAndSwap(expectWaiting, expectRefused) {
		x.keep = false // whether it sends the body all the same is not known
		close(x.goAhead)
	}
}

// pumpGrace is how long a pump may go on after an answer that did not want the body.
const pumpGrace = 50 * time.Millisecond

// joinPump ends the pump and gives its fault, if it ended by one of its own. After a good response (patient) the endpoint
// may still be reading, and the pump goes on until the body is sent, under the body's own timeouts. The connections can be
// used again only when the body is complete.
func (x *exchange) joinPump(up *forward.Conn, patient bool) (f *fault.Fault, clean bool) {
	if x.pumping == nil {
		return nil, true
	}
	x.answered()
	grace, gone := (<-chan time.Time)(nil), (<-chan struct{})(nil)
	if !patient {
		timer := time.NewTimer(pumpGrace)
		defer timer.Stop()
		grace = timer.C
	}
	if patient {
		gone = up.Gone()
	}
	interrupted := false
	select {
	case f = <-x.pumping:
	case <-grace:
		interrupted = true
	case <-gone:
		interrupted = true
	}
	if interrupted {
		x.unwanted.Store(true)
		x.conn.poll.Interrupt()
		up.Abort() // it may be blocked in a write
		f = <-x.pumping
		x.conn.poll.Uninterrupt()
	}
	x.pumping = nil
	if clean = f == nil && x.body.complete; !clean {
		x.keep = false
	}
	if f != nil && errors.Is(f.Cause, poll.ErrInterrupted) {
		f = nil
	}
	return f, clean
}

// drainMax is how much of an unwanted body is read for the sake of keeping the connection.
const drainMax = 64 << 10

// drainable says that the rest of the body is short enough to be read and thrown away.
func (x *exchange) drainable() bool {
	b := &x.body
	return b.complete || x.conn.stream == nil && b.framing == bodyLength && b.remaining <= drainMax && !x.request.ExpectContinue
}

// drain reads the rest of the body away. It is called when the response has been sent.
func (x *exchange) drain() {
	for !x.body.complete {
		if _, f := x.nextBody(); f != nil {
			x.keep = false
			return
		}
	}
}

// keepLeftover moves bytes that were read beyond the body to where the next head is parsed. The head's views die.
func (x *exchange) keepLeftover() {
	b := &x.body
	if b.spill == nil {
		return
	}
	rest := b.spill[b.r:b.w]
	if len(rest) > len(x.in) {
		poll.Put(x.in)
		x.in = make([]byte, len(rest)+1024) // at most LargeBuffer
	}
	x.r, x.w = 0, copy(x.in, rest)
}

const (
	lingerTime         = 5 * time.Second
	lingerTimeDraining = time.Second // a drain does not wait longer for clients that do not stop sending
	lingerBytes        = 64 << 20
)

// lingers says that the client is sending, or may be, what nobody is going to read: the rest of a body, or requests
// behind the last one that is answered.
func (x *exchange) lingers() bool {
	return x.in != nil && x.status != 0 && (x.refused || !x.body.complete || x.pipelined() || !x.conn.poll.Alive())
}

// linger closes the connection so that the client can read the response although it is still sending: closing with
// unread bytes would reset the connection and throw the response away (RFC 9112, 9.6).
func (x *exchange) linger() {
	c := x.conn
	if tc, ok := c.net.(*tls.Conn); ok {
		_ = tc.CloseWrite() // and what follows is read away unread
	}
	if c.poll.CloseWrite() != nil {
		return
	}
	until := lingerTime
	if !c.state.CompareAndSwap(stateActive, stateIdle) { // or a drain that begins meanwhile interrupts the wait
		until = lingerTimeDraining
	}
	c.poll.ReadBefore(poll.Now().Add(until))
	for read := 0; read < lingerBytes; {
		n, err := c.poll.Read(x.in)
		if errors.Is(err, poll.ErrInterrupted) && until != lingerTimeDraining {
			until, err = lingerTimeDraining, nil
			c.poll.ReadBefore(poll.Now().Add(until))
		}
		if err != nil && !errors.Is(err, poll.ErrInterrupted) {
			return
		}
		read += n
	}
}
