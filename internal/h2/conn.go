package h2

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/menshen-gateway/menshen/internal/poll"
)

const (
	// pendingMax is how much may wait to be sent before a stream's Write waits with it.
	pendingMax = 64 << 10
	// pendingFlood is how much may wait when frames are added that wait for nobody (acknowledgements, resets): beyond it the
	// peer makes us answer and does not read.
	pendingFlood = 512 << 10
	// flushRounds is how often a stream sends what others have queued meanwhile, before another goroutine does.
	flushRounds = 4
	// lingerTime is how long a connection that is over waits for the peer to close it: closing first could destroy what the
	// peer has not read yet.
	lingerTime = time.Second
	// closedKept is how many closed streams are remembered, to tell a peer's mistake from frames that crossed ours.
	closedKept = 128
	// refusedTime is how long a stream that the endpoint has refused says something about the next ones.
	refusedTime = time.Second
)

// Conn is one connection. Its methods may be called from any goroutine.
type Conn struct {
	nc     net.Conn
	hangup func()
	client bool
	scheme string // of a client's requests
	limits Limits
	accept func(*Stream)
	begin  func()

	// Owned by Serve's goroutine.
	in       []byte // in[r:w] is read and not yet used
	r, w     int
	decoder  *hpack.Decoder
	block    block
	idle     allowance
	resets   allowance
	settled  bool // the peer's first SETTINGS came
	accepted bool // streams were, since begin was called

	mu           sync.Mutex
	streams      map[uint32]*Stream // by id: not closed
	active       int                // reserved, open, or at work for a stream that the peer has closed
	idleSince    time.Time          // when active fell to zero
	headSince    time.Time          // when an unfinished head began, or the wait for the preface
	heard        uint64             // frames received
	watch        *time.Timer
	lastPeer     uint32 // the highest stream id that the peer has opened
	next         uint32 // the client's next stream id
	closed       [closedKept]closedStream
	closedAt     int
	recvWindow   int
	owed         int // consumed and not yet told to the peer
	sendWindow   int
	peerWindow   int // initial window of streams to the peer
	peerStreams  int
	encoder      *encoder
	failed       *Error // the connection is of no use any more
	leaving      leaving
	ready        chan struct{} // client: closed when the peer's first SETTINGS came, or the connection failed
	unwelcome    bool          // client: the endpoint takes no further stream
	refusedAt    time.Time     // client: when the endpoint last refused a stream; zero: not within refusedTime
	refusedLeft  int           // client: how many it had not refused then
	finishing    bool          // close for writing when everything is sent
	shut         bool          // that is done
	lastAccepted uint32
	pending      []byte
	spare        []byte
	flushing     bool
	room         sync.Cond // pending was taken by the flusher
	work         sync.WaitGroup
}

// leaving is how far the end of the connection has come.
type leaving uint8

const (
	staying     leaving = iota
	leavingSoon         // GOAWAY is sent, but the peer may not know yet: what it has sent meanwhile is served
	leavingNow          // no further stream
)

// closedStream remembers the end of a stream.
type closedStream struct {
	id    uint32
	local bool // we reset it: the peer may not have known when it sent what comes now
}

// NewServer makes the server's side of a connection. hangup ends the connection underneath at once, from any goroutine.
// accept gets each new stream in Serve's goroutine and must not block; the stream counts as at work until its Finish. begin, if it is not nil,
// is called behind it when no further stream is at hand, also in Serve's goroutine: streams that came together can so be begun together.
func NewServer(nc net.Conn, hangup func(), l Limits, accept func(*Stream), begin func()) *Conn {
	c := newConn(nc, hangup, l)
	c.accept, c.begin = accept, begin
	c.pending = appendSettings(c.room16(), setting{settingStreams, uint32(l.Streams)}, setting{settingWindow, uint32(l.Window)},
		setting{settingHeaderListSize, uint32(l.HeadBytes)}, setting{settingNoOldPriorities, 1})
	c.greet()
	return c
}

// NewClient makes the client's side, whose requests are for URLs of the scheme http or https. Serve must be started.
func NewClient(nc net.Conn, hangup func(), scheme string, l Limits) *Conn {
	c := newConn(nc, hangup, l)
	c.client, c.scheme, c.next = true, scheme, 1
	c.peerStreams = 1 // until it says how many it allows: one too many is a mistake
	c.ready = make(chan struct{})
	c.pending = append(c.room16(), Preface...)
	c.pending = appendSettings(c.pending, setting{settingEnablePush, 0}, setting{settingWindow, uint32(l.Window)},
		setting{settingHeaderListSize, uint32(l.HeadBytes)})
	c.greet()
	return c
}

func newConn(nc net.Conn, hangup func(), l Limits) *Conn {
	c := &Conn{
		nc: nc, hangup: hangup, limits: l, streams: map[uint32]*Stream{},
		idle: allowance{rate: l.Idle}, resets: allowance{rate: l.Resets},
		recvWindow: l.ConnectionWindow, sendWindow: windowInitial, peerWindow: windowInitial, peerStreams: 100,
	}
	c.room.L = &c.mu
	c.decoder = hpack.NewDecoder(headerTableSize, c.field)
	c.decoder.SetMaxStringLength(2 * l.HeadBytes)
	c.encoder = newEncoder()
	now := time.Now()
	c.idleSince, c.headSince = now, now
	return c
}

func (c *Conn) room16() []byte { return poll.GetSmall()[:0] }

// greet widens the connection's window and starts the watch.
func (c *Conn) greet() {
	if more := c.limits.ConnectionWindow - windowInitial; more > 0 {
		c.pending = appendWindowUpdate(c.pending, 0, more)
	} else {
		c.recvWindow = windowInitial
	}
	c.mu.Lock()
	c.watch = time.AfterFunc(time.Hour, c.look)
	c.lookAgainLocked()
	c.mu.Unlock()
}

// look is the watch: it ends connections that are idle, or whose peer does not finish what it has begun.
func (c *Conn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil || c.finishing {
		c.hangUpLocked()
		return
	}
	now := time.Now()
	switch {
	case !c.headSince.IsZero() && due(c.headSince, c.limits.TimeoutHead, now):
		c.endLocked(&Error{Code: EnhanceYourCalm, Reason: "the peer took too long for a head", Connection: true})
	case c.active == 0 && due(c.idleSince, c.limits.TimeoutIdle, now):
		c.endLocked(&Error{Code: NoError, Reason: "idle", Connection: true})
	case c.leaving == leavingSoon: // the answer to our ping did not come
		c.leaveLocked()
	}
	c.lookAgainLocked()
}

func due(since time.Time, timeout time.Duration, now time.Time) bool {
	return timeout > 0 && now.Sub(since) >= timeout
}

// lookAgainLocked sets the watch for the next moment at which something may be due.
func (c *Conn) lookAgainLocked() {
	wait := time.Hour
	now := time.Now()
	if c.failed != nil || c.finishing || c.leaving == leavingSoon {
		wait = lingerTime
	}
	if !c.headSince.IsZero() && c.limits.TimeoutHead > 0 {
		wait = min(wait, c.limits.TimeoutHead-now.Sub(c.headSince))
	}
	if c.limits.TimeoutIdle > 0 {
		if c.active == 0 {
			wait = min(wait, c.limits.TimeoutIdle-now.Sub(c.idleSince))
		} else {
			wait = min(wait, c.limits.TimeoutIdle)
		}
	}
	c.watch.Reset(max(wait, time.Millisecond))
}

// hangUpLocked lets go of the lock for the call.
func (c *Conn) hangUpLocked() {
	c.mu.Unlock()
	c.hangup()
	c.mu.Lock()
}

// Serve reads until the connection ends, and returns when the streams are finished. already is what was read before. It
// closes the connection underneath. The error is nil when the peer left at a point where it may.
func (c *Conn) Serve(already []byte) error {
	c.mu.Lock()
	c.startFlush()
	c.mu.Unlock()
	c.in = poll.GetLarge()
	c.w = copy(c.in, already)
	err := c.read()
	c.beginStreams()
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Code: ConnectError, Connection: true, Remote: true, Cause: err}
	}
	c.mu.Lock()
	c.endLocked(e)
	for c.flushing {
		c.room.Wait()
	}
	c.mu.Unlock()
	if !e.Remote && !c.client {
		c.linger()
	}
	poll.Put(c.in)
	c.in = nil
	c.hangup()
	c.work.Wait()
	c.mu.Lock()
	c.watch.Stop()
	for c.flushing {
		c.room.Wait()
	}
	poll.Put(c.pending)
	poll.Put(c.spare)
	c.pending, c.spare = nil, nil
	c.mu.Unlock()
	_ = c.nc.Close()
	if e.Remote && (e.Cause == io.EOF || e.Code == NoError) || !e.Remote && e.Code == NoError {
		return nil
	}
	return e
}

// linger reads away what the peer still sends, until it closes or the watch hangs up.
func (c *Conn) linger() {
	for {
		if _, err := c.nc.Read(c.in); err != nil {
			return
		}
	}
}

// read takes frames until the connection ends.
func (c *Conn) read() error {
	if !c.client {
		if err := c.need(len(Preface)); err != nil {
			return err
		}
		if string(c.in[c.r:c.r+len(Preface)]) != Preface {
			return c.broken(ProtocolError, "no preface")
		}
		c.r += len(Preface)
	}
	for {
		if err := c.need(frameHeaderLength); err != nil {
			return err
		}
		f := parseFrame(c.in[c.r:])
		if f.length > frameSizeMax {
			return c.broken(FrameSizeError, "frame is larger than allowed")
		}
		if err := c.need(frameHeaderLength + f.length); err != nil {
			return err
		}
		p := c.in[c.r+frameHeaderLength : c.r+frameHeaderLength+f.length]
		c.r += frameHeaderLength + f.length
		if err := c.take(f, p); err != nil {
			return err
		}
	}
}

// need makes sure that n bytes are in hand. Before it waits, it has somebody send what reading has queued.
func (c *Conn) need(n int) error {
	for c.w-c.r < n {
		if c.r == c.w {
			c.r, c.w = 0, 0
		} else if c.r+n > len(c.in) {
			c.w = copy(c.in, c.in[c.r:c.w])
			c.r = 0
		}
		c.mu.Lock()
		c.startFlush()
		c.mu.Unlock()
		c.beginStreams()
		m, err := c.nc.Read(c.in[c.w:])
		if m == 0 && err != nil {
			return err
		}
		c.w += m
	}
	return nil
}

// beginStreams tells that no further stream is at hand.
func (c *Conn) beginStreams() {
	if c.accepted && c.begin != nil {
		c.accepted = false
		c.begin()
	}
}

// broken is a mistake of the peer that costs it the connection.
func (c *Conn) broken(code Code, reason string) *Error {
	return &Error{Code: code, Reason: reason, Connection: true}
}

// take handles one frame. An error ends the connection.
func (c *Conn) take(f frame, p []byte) error {
	c.mu.Lock()
	c.heard++
	failed := c.failed
	c.mu.Unlock()
	if failed != nil {
		return failed
	}
	if c.block.open && (f.kind != frameContinuation || f.stream != c.block.stream) {
		return c.broken(ProtocolError, "a head is interrupted by another frame")
	}
	if !c.settled {
		if f.kind != frameSettings || f.has(flagAck) {
			return c.broken(ProtocolError, "the first frame is not SETTINGS")
		}
		c.settled = true
		c.mu.Lock()
		c.headSince = time.Time{}
		c.mu.Unlock()
	}
	switch f.kind {
	case frameData, frameHeaders, framePriority, frameReset, frameContinuation, framePushPromise:
		if f.stream == 0 {
			return c.broken(ProtocolError, "a frame of streams is on stream 0")
		}
	case frameSettings, framePing, frameGoAway:
		if f.stream != 0 {
			return c.broken(ProtocolError, "a frame of connections is on a stream")
		}
	}
	switch f.kind {
	case frameData:
		return c.takeData(f, p)
	case frameHeaders:
		return c.takeHeaders(f, p)
	case frameContinuation:
		return c.takeContinuation(f, p)
	case frameWindowUpdate:
		return c.takeWindowUpdate(f, p)
	case frameReset:
		return c.takeReset(f, p)
	case framePushPromise:
		return c.broken(ProtocolError, "PUSH_PROMISE is not welcome")
	case frameGoAway:
		return c.takeGoAway(p)
	}
	if !c.idle.take() {
		return c.broken(EnhanceYourCalm, "too many frames that carry nothing")
	}
	switch f.kind {
	case frameSettings:
		return c.takeSettings(f, p)
	case framePing:
		return c.takePing(f, p)
	case framePriority:
		if len(p) != 5 {
			return c.resetStream(f.stream, FrameSizeError, "PRIORITY of a wrong size")
		}
		if binary.BigEndian.Uint32(p)&streamIDMax == f.stream {
			return c.resetStream(f.stream, ProtocolError, "stream depends on itself")
		}
	}
	return nil
}

// takeData takes a piece of a body.
func (c *Conn) takeData(f frame, padded []byte) error {
	p, ok := unpad(f, padded)
	if !ok {
		return c.broken(ProtocolError, "more padding than frame")
	}
	if len(p) == 0 && !f.has(flagEndStream) && !c.idle.take() {
		return c.broken(EnhanceYourCalm, "too many frames that carry nothing")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.length > c.recvWindow {
		return c.broken(FlowControlError, "more data than the connection's window")
	}
	c.recvWindow -= f.length
	s := c.streams[f.stream]
	if s == nil {
		if c.isIdleLocked(f.stream) {
			return c.broken(ProtocolError, "DATA on a stream that was never opened")
		}
		c.creditLocked(f.length)
		if c.wasResetLocked(f.stream) {
			return nil
		}
		return c.refuseLocked(f.stream, StreamClosed)
	}
	if f.length > s.recvWindow {
		c.creditLocked(f.length)
		return c.failStreamLocked(s, FlowControlError, "more data than the stream's window")
	}
	s.recvWindow -= f.length
	s.got += int64(len(p))
	end := f.has(flagEndStream)
	switch {
	case s.remoteEnded:
		c.creditLocked(f.length)
		return c.failStreamLocked(s, StreamClosed, "DATA behind the end of the stream")
	case c.client && (!s.headed || s.bodiless && len(p) > 0):
		c.creditLocked(f.length)
		return c.failStreamLocked(s, ProtocolError, "DATA without a head that allows it")
	case s.declared >= 0 && (s.got > s.declared || end && s.got < s.declared):
		c.creditLocked(f.length)
		return c.failStreamLocked(s, ProtocolError, "the body is not as long as its Content-Length")
	}
	if s.deaf {
		c.creditLocked(f.length)
	} else {
		s.append(p)
		s.creditLocked(f.length - len(p))
	}
	if end {
		c.endRemoteLocked(s)
	}
	s.reader.wake()
	return nil
}

// takeWindowUpdate lets streams write on.
func (c *Conn) takeWindowUpdate(f frame, p []byte) error {
	if len(p) != 4 {
		return c.broken(FrameSizeError, "WINDOW_UPDATE of a wrong size")
	}
	n := int(binary.BigEndian.Uint32(p) & windowMax)
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.stream == 0 {
		if n == 0 {
			return c.broken(ProtocolError, "WINDOW_UPDATE by nothing")
		}
		if c.sendWindow += n; c.sendWindow > windowMax {
			return c.broken(FlowControlError, "the connection's window is too large")
		}
		for _, s := range c.streams {
			if s.blocked {
				s.writer.wake()
			}
		}
		return nil
	}
	s := c.streams[f.stream]
	if s == nil {
		if c.isIdleLocked(f.stream) {
			return c.broken(ProtocolError, "WINDOW_UPDATE on a stream that was never opened")
		}
		return nil
	}
	if n == 0 {
		return c.failStreamLocked(s, ProtocolError, "WINDOW_UPDATE by nothing")
	}
	if s.sendWindow += n; s.sendWindow > windowMax {
		return c.failStreamLocked(s, FlowControlError, "the stream's window is too large")
	}
	s.writer.wake()
	return nil
}

// takeReset ends a stream that the peer gave up.
func (c *Conn) takeReset(f frame, p []byte) error {
	if len(p) != 4 {
		return c.broken(FrameSizeError, "RST_STREAM of a wrong size")
	}
	c.mu.Lock()
	s := c.streams[f.stream]
	idle := s == nil && c.isIdleLocked(f.stream)
	if s != nil {
		code := Code(binary.BigEndian.Uint32(p))
		c.closeLocked(s, &Error{Code: code, Remote: true, Unsent: code == RefusedStream}, false)
		if c.client && code == RefusedStream {
			c.refusedAt, c.refusedLeft = time.Now(), len(c.streams)
		}
	}
	c.mu.Unlock()
	if idle {
		return c.broken(ProtocolError, "RST_STREAM on a stream that was never opened")
	}
	if s != nil {
		s.tell()
	}
	if !c.client && !c.resets.take() {
		return c.broken(EnhanceYourCalm, "too many streams that end before their time")
	}
	return nil
}

// takeSettings heeds the peer's settings and acknowledges them.
func (c *Conn) takeSettings(f frame, p []byte) error {
	if f.has(flagAck) {
		if len(p) > 0 {
			return c.broken(FrameSizeError, "SETTINGS acknowledgement with a payload")
		}
		return nil
	}
	if len(p)%6 != 0 {
		return c.broken(FrameSizeError, "SETTINGS of a wrong size")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client && !c.readyLocked() {
		c.peerStreams = windowMax // no bound, unless the frame has one
		defer close(c.ready)
	}
	for ; len(p) > 0; p = p[6:] {
		value := binary.BigEndian.Uint32(p[2:])
		switch binary.BigEndian.Uint16(p) {
		case settingHeaderTableSize:
			c.encoder.resize(value)
		case settingEnablePush:
			if value > 1 || c.client && value == 1 {
				return c.broken(ProtocolError, "ENABLE_PUSH is neither 0 nor 1")
			}
		case settingStreams:
			c.peerStreams = int(min(value, windowMax))
		case settingWindow:
			if value > windowMax {
				return c.broken(FlowControlError, "INITIAL_WINDOW_SIZE is too large")
			}
			change := int(value) - c.peerWindow
			c.peerWindow = int(value)
			for _, s := range c.streams {
				if s.sendWindow += change; s.sendWindow > windowMax {
					return c.broken(FlowControlError, "a stream's window is too large")
				}
				if change > 0 {
					s.writer.wake()
				}
			}
		case settingFrameSize:
			if value < frameSizeMax || value > 1<<24-1 {
				return c.broken(ProtocolError, "MAX_FRAME_SIZE is out of range")
			}
		}
	}
	return c.queueLocked(appendFrame(c.roomLocked(frameHeaderLength), 0, frameSettings, flagAck, 0))
}

// Ready gives a channel that is closed when it is known how many streams the peer allows, or the connection has ended. Until then a
// client may have one stream.
func (c *Conn) Ready() <-chan struct{} { return c.ready }

func (c *Conn) readyLocked() bool {
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

// takePing answers a ping, or takes the answer to ours.
func (c *Conn) takePing(f frame, p []byte) error {
	if len(p) != 8 {
		return c.broken(FrameSizeError, "PING of a wrong size")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.has(flagAck) {
		if c.leaving == leavingSoon {
			c.leaveLocked()
		}
		return nil
	}
	return c.queueLocked(appendPing(c.roomLocked(frameHeaderLength+8), flagAck, p))
}

// takeGoAway notes that the peer takes no further streams. Those it has not seen can be sent elsewhere.
func (c *Conn) takeGoAway(p []byte) error {
	if len(p) < 8 {
		return c.broken(FrameSizeError, "GOAWAY of a wrong size")
	}
	last, code := binary.BigEndian.Uint32(p)&streamIDMax, Code(binary.BigEndian.Uint32(p[4:]))
	if !c.client {
		return nil // what it has sent is served; it will open no more
	}
	var unseen []*Stream
	c.mu.Lock()
	c.leaving, c.unwelcome = leavingNow, true
	for id, s := range c.streams {
		if id > last {
			unseen = append(unseen, s)
			c.closeLocked(s, &Error{Code: code, Reason: "GOAWAY", Remote: true, Unsent: true}, true)
		}
	}
	c.leftLocked()
	c.mu.Unlock()
	for _, s := range unseen {
		s.tell()
	}
	return nil
}

// isIdleLocked says that nobody has opened the stream yet.
func (c *Conn) isIdleLocked(id uint32) bool {
	if c.client {
		return id%2 == 0 || id >= c.next
	}
	return id%2 == 0 || id > c.lastPeer
}

// rememberLocked notes the end of a stream.
func (c *Conn) rememberLocked(id uint32, local bool) {
	c.closed[c.closedAt] = closedStream{id, local}
	c.closedAt = (c.closedAt + 1) % closedKept
}

// wasClosedLocked says that a stream was open and is closed, as far as that is remembered.
func (c *Conn) wasClosedLocked(id uint32) (known, local bool) {
	for _, r := range c.closed {
		if r.id == id && id != 0 {
			return true, r.local
		}
	}
	return false, false
}

func (c *Conn) wasResetLocked(id uint32) bool {
	_, local := c.wasClosedLocked(id)
	return local
}

// refuseLocked resets a stream that does not exist.
func (c *Conn) refuseLocked(id uint32, code Code) error {
	if !c.client && !c.resets.take() {
		return c.broken(EnhanceYourCalm, "too many streams that end before their time")
	}
	c.rememberLocked(id, true)
	return c.queueLocked(appendReset(c.roomLocked(frameHeaderLength+4), id, code))
}

// resetStream ends a stream for a mistake of the peer.
func (c *Conn) resetStream(id uint32, code Code, reason string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[id]; s != nil {
		return c.failStreamLocked(s, code, reason)
	}
	return c.refuseLocked(id, code)
}

// failStreamLocked ends an open stream for a mistake of the peer.
func (c *Conn) failStreamLocked(s *Stream, code Code, reason string) error {
	c.closeLocked(s, &Error{Code: code, Reason: reason}, true)
	c.mu.Unlock()
	s.tell()
	c.mu.Lock()
	return c.refuseLocked(s.id, code)
}

// closeLocked takes a stream out of the connection. err is what its users see; nil when it ended as it should.
func (c *Conn) closeLocked(s *Stream, err *Error, local bool) {
	if s.closed {
		return
	}
	s.closed = true
	if s.id != 0 {
		delete(c.streams, s.id)
		c.rememberLocked(s.id, local)
	}
	if err != nil && s.failed == nil {
		s.failed = err
		if !s.remoteEnded || s.deaf {
			s.dropLocked()
		}
	}
	s.reader.wake()
	s.writer.wake()
	if s.gone != nil {
		close(s.gone)
		s.gone = nil
	}
	c.freeLocked(s)
}

// freeLocked gives a stream's place back when it is closed and nobody works for it.
func (c *Conn) freeLocked(s *Stream) {
	if !s.closed || s.working || s.freed {
		return
	}
	s.freed = true
	if c.active--; c.active == 0 {
		c.idleSince = time.Now()
	}
	c.leftLocked()
}

// endRemoteLocked notes that the peer has sent all of a stream.
func (c *Conn) endRemoteLocked(s *Stream) {
	s.remoteEnded = true
	if s.localEnded {
		c.closeLocked(s, nil, false)
	}
}

// Sending says that something queued has not left yet: answers of streams that are finished, maybe.
func (c *Conn) Sending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flushing || len(c.pending) > 0 && !c.shut
}

// Streams calls f for each stream that is at work.
func (c *Conn) Streams(f func(*Stream)) (n int) {
	c.mu.Lock()
	all := make([]*Stream, 0, len(c.streams))
	for _, s := range c.streams {
		all = append(all, s)
	}
	n = c.active
	c.mu.Unlock()
	for _, s := range all {
		f(s)
	}
	return n
}
