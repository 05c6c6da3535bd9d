package h2

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// Stream is one request and its response. As a net.Conn it gives heads as HTTP/1.1 text, then the body, then io.EOF; what
// ends it early is an *Error, or os.ErrDeadlineExceeded. Finish must be called at the end.
type Stream struct {
	// Owner, if it is set before accept returns, is told when the peer gives the stream up while it is at work.
	Owner Owner

	c *Conn

	// All that follows is guarded by c.mu.
	id       uint32 // 0: reserved by a client, not opened yet
	in       []byte // in[r:] is received and not yet read
	r        int
	text     int   // that much of it is heads, which count for no window
	declared int64 // Content-Length; -1 without
	got      int64

	recvWindow, owed int
	sendWindow       int
	reader, writer   waiter
	gone             chan struct{}
	trailers         h1.ChunkDecoder
	failed           *Error

	remoteEnded bool // the peer has sent END_STREAM
	localEnded  bool // we have
	headed      bool // client: the final head came
	head        bool // client: the request's method is HEAD
	bodiless    bool // the head came with END_STREAM, or forbids a body
	blocked     bool // a write waits for a window
	deaf        bool // nobody reads any more
	working     bool // Finish was not called yet
	closed      bool
	freed       bool
}

// Owner is who works for a stream.
type Owner interface {
	// Leave is called, in the goroutine of Serve or of another stream, when the peer has given the stream up.
	Leave()
}

// waiter is where one goroutine waits for something to change.
type waiter struct {
	bell     *bell // nil until the first wait
	waiting  bool
	before   time.Time     // zero: no deadline
	patience time.Duration // that the next wait sets before from; 0: none
}

// bell is what a waiter needs when it waits: many streams never do, and those that do take one over from those that have ended.
type bell struct {
	ready chan struct{}
	timer *time.Timer
}

var bells = sync.Pool{New: func() any { return &bell{ready: make(chan struct{}, 1)} }}

func (w *waiter) wake() {
	if w.bell != nil {
		select {
		case w.bell.ready <- struct{}{}:
		default:
		}
	}
}

// release gives the bell to others. Who still waits keeps it.
func (w *waiter) release() {
	if w.bell == nil || w.waiting {
		return
	}
	select {
	case <-w.bell.ready:
	default:
	}
	bells.Put(w.bell)
	w.bell = nil
}

// wait lets go of the lock until wake or the deadline. The caller looks again.
func (w *waiter) wait(mu *sync.Mutex) error {
	if w.bell == nil {
		w.bell = bells.Get().(*bell)
	}
	b := w.bell
	if w.patience > 0 {
		w.before, w.patience = time.Now().Add(w.patience), 0
	}
	var timeout <-chan time.Time
	if !w.before.IsZero() {
		left := time.Until(w.before)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		if b.timer == nil {
			b.timer = time.NewTimer(left)
		} else {
			b.timer.Reset(left)
		}
		timeout = b.timer.C
	}
	w.waiting = true
	mu.Unlock()
	select {
	case <-b.ready:
	case <-timeout:
	}
	if timeout != nil {
		b.timer.Stop() // and nothing of it is left in the channel, since Go 1.23
	}
	mu.Lock()
	w.waiting = false
	return nil
}

func (c *Conn) newStreamLocked() *Stream {
	c.active++
	return &Stream{c: c, declared: -1, recvWindow: c.limits.Window, sendWindow: c.peerWindow, working: true}
}

// Reserve takes a place for a new stream; nil when the connection has none. most bounds the streams at once beside what the
// peer allows. One that has just refused a stream (REFUSED_STREAM: RFC 9113, 5.1.2 and 8.7) allows, for a second, no more than it
// had left: a new one when another has ended.
func (c *Conn) Reserve(most int) *Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil || c.leaving != staying || c.active >= min(most, c.peerStreams) || c.next > streamIDMax-2 {
		return nil
	}
	if c.refusedLocked() && c.active >= c.refusedLeft {
		return nil
	}
	return c.newStreamLocked()
}

// Refused says whether the peer has refused a stream within the last second.
func (c *Conn) Refused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refusedLocked()
}

func (c *Conn) refusedLocked() bool {
	if !c.refusedAt.IsZero() && time.Since(c.refusedAt) >= refusedTime {
		c.refusedAt = time.Time{} // the clock is read only when it matters
	}
	return !c.refusedAt.IsZero()
}

// Usable says whether the connection takes new streams, now or when others have ended.
func (c *Conn) Usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed == nil && c.leaving == staying && c.next <= streamIDMax-2
}

// Idle says for how long no stream has been at work; 0 when one is.
func (c *Conn) Idle() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active > 0 {
		return 0
	}
	return time.Since(c.idleSince)
}

// Heard counts the frames that came from the peer: when it has not grown in a time, the peer may be gone.
func (c *Conn) Heard() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard
}

// append takes received bytes.
func (s *Stream) append(p []byte) {
	if len(p) == 0 {
		return
	}
	if s.in == nil && len(p) <= poll.SmallBuffer {
		s.in, s.r = poll.GetSmall()[:0], 0
	}
	if len(s.in)+len(p) > cap(s.in) {
		unread := s.in[s.r:]
		switch {
		case len(unread)+len(p) <= cap(s.in):
			s.in = append(s.in[:0], unread...)
		case len(unread)+len(p) <= poll.LargeBuffer:
			larger := append(poll.GetLarge()[:0], unread...)
			poll.Put(s.in)
			s.in = larger
		default:
			larger := append(make([]byte, 0, 2*(len(unread)+len(p))), unread...)
			poll.Put(s.in)
			s.in = larger
		}
		s.r = 0
	}
	s.in = append(s.in, p...)
}

// creditLocked notes that n bytes of the body are used up.
func (s *Stream) creditLocked(n int) {
	if n == 0 {
		return
	}
	s.c.creditLocked(n)
	if s.remoteEnded || s.closed {
		return
	}
	if s.owed += n; s.owed >= s.c.limits.Window/2 {
		s.c.pending = appendWindowUpdate(s.c.roomLocked(frameHeaderLength+4), s.id, s.owed)
		s.recvWindow += s.owed
		s.owed = 0
	}
}

// dropLocked throws away what nobody will read.
func (s *Stream) dropLocked() {
	if unread := len(s.in) - s.r - s.text; unread > 0 {
		s.c.creditLocked(unread)
	}
	poll.Put(s.in)
	s.in, s.r, s.text = nil, 0, 0
}

// Read gives what has come, waiting for the first byte.
func (s *Stream) Read(p []byte) (int, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case len(s.in) > s.r:
			n := copy(p, s.in[s.r:])
			s.r += n
			text := min(n, s.text)
			s.text -= text
			if s.r == len(s.in) {
				poll.Put(s.in)
				s.in, s.r = nil, 0
			}
			before := len(c.pending)
			s.creditLocked(n - text)
			if len(c.pending) > before {
				c.flushLocked()
			}
			return n, nil
		case s.remoteEnded:
			return 0, io.EOF
		case s.failed != nil:
			return 0, s.failed
		case len(p) == 0:
			return 0, nil
		}
		if err := s.reader.wait(&c.mu); err != nil {
			return 0, err
		}
	}
}

// writableLocked says whether the stream takes bytes.
func (s *Stream) writableLocked() error {
	switch {
	case s.failed != nil:
		return s.failed
	case s.c.failed != nil:
		return s.c.failed
	case s.localEnded, s.closed:
		return net.ErrClosed
	}
	return nil
}

// Write sends a piece of the body, and what is queued before it. It waits while the peer's windows are full.
func (s *Stream) Write(p []byte) (int, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	n, err := s.dataLocked(p, false)
	if err == nil {
		s.c.flushLocked()
	}
	return n, err
}

// dataLocked queues a piece of the body, and END_STREAM with its last byte when it is the last piece.
func (s *Stream) dataLocked(p []byte, last bool) (n int, err error) {
	c := s.c
	for done := len(p) == 0 && !last; !done; {
		if err := s.writableLocked(); err != nil {
			return n, err
		}
		size := min(len(p), frameSizeMax, s.sendWindow, c.sendWindow)
		switch {
		case size <= 0 && len(p) > 0:
			if len(c.pending) > 0 && !c.flushing {
				c.flushLocked()
				continue
			}
			s.blocked = true
			err := s.writer.wait(&c.mu)
			s.blocked = false
			if err != nil {
				return n, err
			}
			continue
		case len(c.pending) >= pendingMax:
			if c.flushing {
				c.room.Wait()
			} else {
				c.flushLocked()
			}
			continue
		}
		flags := byte(0)
		if last && size == len(p) {
			flags = flagEndStream
		}
		out := appendFrame(c.roomLocked(frameHeaderLength+size), size, frameData, flags, s.id)
		c.pending = append(out, p[:size]...)
		s.sendWindow -= size
		c.sendWindow -= size
		p, n = p[size:], n+size
		if done = len(p) == 0; flags != 0 {
			s.endLocalLocked()
		}
	}
	return n, nil
}

func (s *Stream) endLocalLocked() {
	s.localEnded = true
	if s.remoteEnded {
		s.c.closeLocked(s, nil, false)
	}
}

// Head queues a head, given as HTTP/1.1 text: a request's on the client's side, which opens the stream, a response's on the
// server's, interim ones too. last says that nothing follows it. What concerns an HTTP/1 connection only is left out.
func (s *Stream) Head(text []byte, last bool) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.id == 0 {
		if c.failed != nil || c.unwelcome {
			return &Error{Code: RefusedStream, Reason: "the connection is ending", Connection: true, Unsent: true}
		}
		s.id = c.next
		c.next += 2
		s.sendWindow = c.peerWindow
		c.streams[s.id] = s
	}
	if err := s.writableLocked(); err != nil {
		return err
	}
	if c.client {
		s.head = c.encoder.request(text, c.scheme)
	} else {
		c.encoder.response(text)
	}
	s.queueHeadLocked(last)
	return nil
}

// queueHeadLocked queues the encoded head in HEADERS and as many CONTINUATION frames as it needs.
func (s *Stream) queueHeadLocked(last bool) {
	c := s.c
	kind, flags := byte(frameHeaders), byte(0)
	if last {
		flags = flagEndStream
	}
	for rest := c.encoder.out; ; kind, flags = frameContinuation, 0 {
		part := rest[:min(len(rest), frameSizeMax)]
		rest = rest[len(part):]
		if len(rest) == 0 {
			flags |= flagEndHeaders
		}
		out := appendFrame(c.roomLocked(frameHeaderLength+len(part)), len(part), kind, flags, s.id)
		c.pending = append(out, part...)
		if len(rest) == 0 {
			break
		}
	}
	if last {
		s.endLocalLocked()
	}
}

// End sends the last piece of the body, which may be empty, and the trailers, and ends this side of the stream. patience bounds how long
// it waits for the peer's windows; 0 leaves it at the deadline for writes.
func (s *Stream) End(p []byte, trailers []h1.Field, patience time.Duration) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.writer.patience = patience // the clock is read when it has to wait
	if s.localEnded && len(p) == 0 {
		c.flushLocked()
		return nil
	}
	if _, err := s.dataLocked(p, len(trailers) == 0); err != nil {
		return err
	}
	if len(trailers) > 0 {
		if err := s.writableLocked(); err != nil {
			return err
		}
		c.encoder.trailers(trailers)
		s.queueHeadLocked(true)
	}
	c.flushLocked()
	return nil
}

// Flush sends what is queued.
func (s *Stream) Flush() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.flushLocked()
	if s.localEnded {
		return nil
	}
	return s.writableLocked()
}

// Bodiless says that nothing follows the head, which was read.
func (s *Stream) Bodiless() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.bodiless
}

// Complete says that the peer has ended the stream and everything was read.
func (s *Stream) Complete() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.remoteEnded && s.r == len(s.in)
}

// Ready says that all of the rest is here and has at most n bytes.
func (s *Stream) Ready(n int) bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.remoteEnded && s.failed == nil && len(s.in)-s.r <= n
}

// Buffered says that Read has something to give, or the end to tell, without waiting.
func (s *Stream) Buffered() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.remoteEnded || s.failed != nil || len(s.in) > s.r
}

// Trailers gives the trailers, after io.EOF. The rules are those of h1.ChunkDecoder.
func (s *Stream) Trailers() []h1.Field { return s.trailers.Trailers() }

// Gone gives a channel that is closed when the stream is.
func (s *Stream) Gone() <-chan struct{} {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	gone := make(chan struct{})
	if s.closed {
		close(gone)
	} else {
		s.gone = gone
	}
	return gone
}

// Failed gives why the stream ended early, nil when it did not.
func (s *Stream) Failed() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.failed == nil {
		return nil
	}
	return s.failed
}

// tell calls the owner.
func (s *Stream) tell() {
	if s.Owner != nil {
		s.Owner.Leave()
	}
}

// Reset ends the stream early, in both directions.
func (s *Stream) Reset(code Code) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.closed {
		return
	}
	open := s.id != 0 && c.failed == nil
	c.closeLocked(s, &Error{Code: code}, true)
	if open {
		c.pending = appendReset(c.roomLocked(frameHeaderLength+4), s.id, code)
		c.startFlush()
	}
}

// Finish says that nobody works for the stream any more. What is not ended is reset: with NO_ERROR when only the peer has more to
// send (RFC 9113, 8.1), else with code.
func (s *Stream) Finish(code Code) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !s.working {
		return
	}
	s.deaf = true
	s.dropLocked()
	if !s.closed && !(!c.client && s.localEnded && s.declared >= 0 && s.got == s.declared) { // only END_STREAM is missing: it will come
		if s.localEnded && !c.client {
			code = NoError
		}
		if s.id != 0 && c.failed == nil {
			c.pending = appendReset(c.roomLocked(frameHeaderLength+4), s.id, code)
		}
		c.closeLocked(s, &Error{Code: code}, true)
	}
	s.working = false
	s.reader.release()
	s.writer.release()
	c.freeLocked(s)
	c.flushLocked()
	if !c.client {
		c.work.Done()
	}
}

// Close is Finish for a stream that is given up.
func (s *Stream) Close() error {
	s.Reset(Cancel)
	return nil
}

// LocalAddr is the connection's.
func (s *Stream) LocalAddr() net.Addr { return s.c.nc.LocalAddr() }

// RemoteAddr is the connection's.
func (s *Stream) RemoteAddr() net.Addr { return s.c.nc.RemoteAddr() }

// SetDeadline bounds reads and writes.
func (s *Stream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

// SetReadDeadline bounds reads, also one that waits already.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.c.mu.Lock()
	s.reader.before = t
	s.reader.wake()
	s.c.mu.Unlock()
	return nil
}

// SetWriteDeadline bounds writes, also one that waits already.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.c.mu.Lock()
	s.writer.before, s.writer.patience = t, 0
	s.writer.wake()
	s.c.mu.Unlock()
	return nil
}
