// Package poll is the I/O boundary that both doors stand on: a Conn is a stream connection whose owner is one ordinary
// goroutine (one reader and one writer at a time), with deadlines that cost nothing while they are not needed.
//
// A Conn is a net.Conn, so TLS, tunnels and the MySQL wire can stand on it. There are two kinds, which behave alike:
//
//   - New leaves the connection with the runtime's poller. On Linux, over a TCP or Unix socket, system calls are made without telling the
//     scheduler (they cannot block), and Loop and Ask spare the tries to read that end in nothing.
//   - Adopt takes the socket over to a poller of our own (loop), on Linux. It knows of each socket whether there is something to
//     receive, so nothing is tried in vain, and an idle connection can be without a goroutine (ServedBy) and be asked without a system
//     call whether it is still open (Quiet).
//
// It refuses to buffer: bytes go straight between the caller's slice and the kernel. Its goroutines are those of the loop; they end
// with the last adopted connection.
package poll

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrInterrupted is returned by Read and Await after Interrupt, and ErrNothing by Read after NeverWait when nothing has come. Both are a
// net.Error that passes, so that a TLS connection can be read on after them.
var (
	ErrInterrupted error = passing("read interrupted")
	ErrNothing     error = passing("nothing to read")
)

type passing string

func (p passing) Error() string { return string(p) }
func (passing) Timeout() bool   { return false }
func (passing) Temporary() bool { return true }

// missedEOF is the first part of a wait in Loop, after which one try is made.
const missedEOF = time.Second

var start = time.Now()

// Instant is a moment on the monotonic clock, in nanoseconds since the process started plus one second; zero means never.
type Instant int64

// Now reads the clock.
func Now() Instant { return Instant(time.Since(start)) + Instant(time.Second) }

// Add gives the moment d later. Never stays never, and so does any moment to which a zero or negative d is added: a
// timeout of zero is no timeout.
func (i Instant) Add(d time.Duration) Instant {
	if d <= 0 || i == 0 {
		return 0
	}
	return i + Instant(d)
}

// Sub gives the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Time gives the wall clock's idea of the moment.
func (i Instant) Time() time.Time { return start.Add(time.Duration(i) - time.Second) }

// InstantOf gives the moment of a wall clock's reading.
func InstantOf(t time.Time) Instant { return max(1, Instant(t.Sub(start))+Instant(time.Second)) }

// Earlier gives the earlier of two moments, of which zero is never.
func Earlier(a, b Instant) Instant {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// Conn is a stream connection. One goroutine may read while another writes; Interrupt and Close may come from any.
type Conn struct {
	net.Conn
	own *socket         // nil: not on the own poller
	raw syscall.RawConn // nil: every call goes to Conn as it is

	// Reading. Owned by the reading goroutine.
	bounded   Instant // what ReadBefore set: reads fail after it
	armedNow  bool    // the timer is set for bounded
	armed     Instant // when the runtime's timer will fire; may be earlier than bounded, never much later
	in        []byte
	inCount   int
	inError   error
	readOnce  func(fd uintptr) bool
	waitOnce  func(fd uintptr) bool
	interrupt atomic.Bool

	// Ask: the reading goroutine writes.
	question []byte
	asked    bool
	askOnce  func(fd uintptr) bool
	takeOnce func(fd uintptr) bool
	loop     Handler
	tried    bool // the first second of this wait is over
	silent   bool // Alive has found the connection silent
	lookOnce func(fd uintptr)

	// Writing. Owned by the writing goroutine.
	patience  time.Duration // longest time that the peer may refuse bytes; 0 is for ever
	out       []byte
	outCount  int
	outError  error
	blocked   bool // the kernel would not take all of it at once
	seen      int  // outCount when seep was noted
	seep      seep
	writeOnce func(fd uintptr) bool
}

// New makes a Conn over a connection. Over anything but a TCP or Unix socket on Linux it behaves as c does.
func New(c net.Conn) *Conn {
	pc := &Conn{Conn: c}
	if sc, ok := c.(syscall.Conn); ok && rawSupported {
		if raw, err := sc.SyscallConn(); err == nil {
			pc.raw = raw
			pc.readOnce = pc.tryRead
			pc.waitOnce = pc.tryWait
			pc.writeOnce = pc.tryWrite
			pc.askOnce = pc.tryAsk
			pc.lookOnce = pc.tryLook
		}
	}
	return pc
}

// ReadBefore bounds all following reads: they fail with os.ErrDeadlineExceeded after t. Zero means never. It sets no
// timer: a timer that is armed for an earlier moment is left alone and set right when it fires, so a busy connection sets
// one about once in its idle timeout and not once a request.
func (c *Conn) ReadBefore(t Instant) {
	if s := c.own; s != nil {
		s.bounded, s.fresh = t, false
		return
	}
	c.bounded, c.armedNow = t, false
}

// ReadBeforeSince is ReadBefore for a caller that has just read the clock: it saves another reading.
func (c *Conn) ReadBeforeSince(now, t Instant) {
	if s := c.own; s != nil {
		s.bounded, s.fresh = t, true
		s.arm(now)
		return
	}
	c.bounded, c.armedNow = t, true
	c.arm(now, t)
}

// SetReadDeadline bounds reads as net.Conn's does.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if c.own != nil {
		return c.own.SetReadDeadline(t)
	}
	if t.IsZero() {
		c.bounded = 0
	} else {
		c.bounded = InstantOf(t)
	}
	c.armed = c.bounded
	return c.Conn.SetReadDeadline(t)
}

// SetDeadline bounds reads and writes as net.Conn's does.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.Conn.SetWriteDeadline(t)
}

// WritePatience bounds how long the peer may refuse bytes in one Write; zero is for ever. Writes that the kernel takes at
// once never set a timer.
func (c *Conn) WritePatience(d time.Duration) {
	if c.own != nil {
		c.own.patience = d
		return
	}
	c.patience = d
}

// Interrupt makes the present or next Read or Await fail with ErrInterrupted, once.
func (c *Conn) Interrupt() {
	if c.own != nil {
		c.own.interrupt()
		return
	}
	c.interrupt.Store(true)
	c.expire()
}

// expire moves only the runtime's timer; the reader finds that its own bound has not passed and looks at the flag.
func (c *Conn) expire() { _ = c.Conn.SetReadDeadline(time.Unix(1, 0)) }

// arm makes sure that the timer fires no later than want (and is left alone when it fires somewhat earlier). now may be
// slightly old.
func (c *Conn) arm(now, want Instant) {
	if want == 0 {
		if c.armed != 0 {
			c.armed = 0
			_ = c.Conn.SetReadDeadline(time.Time{})
		}
		return
	}
	slack := (want - now) / 8
	if c.armed > now && c.armed <= want+slack {
		return
	}
	c.armed = want
	_ = c.Conn.SetReadDeadline(want.Time())
}

// Read reads what there is, waiting for the first byte.
func (c *Conn) Read(p []byte) (int, error) {
	if c.own != nil {
		return c.own.Read(p)
	}
	if c.raw == nil {
		return c.plainRead(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	c.in = p
	err := c.wait(c.readOnce)
	n, inError := c.inCount, c.inError
	c.in, c.inCount, c.inError = nil, 0, nil
	if err != nil {
		return 0, err
	}
	return n, inError
}

// Await waits until there is something to read, without reading it. Where that cannot be known it returns at once; on the
// own poller also after a read that filled its slice, or when what woke it was read meanwhile: a Read then waits.
func (c *Conn) Await() error {
	if c.own != nil {
		return c.own.await()
	}
	if c.raw == nil {
		return nil
	}
	return c.wait(c.waitOnce)
}

// Room is who has memory to read into.
type Room interface {
	// Room gives the memory. It is asked when there may be something to read.
	Room() []byte
}

// Ask writes p, waits for the answer to begin, and reads what is there of it into the memory that it then asks r for. Beside Write
// and Read it saves the try to read before the wait, which behind a proxy nearly always is in vain, and which may not be left out
// otherwise: the poller forgets earlier wake-ups when a wait begins. Here the wait begins, in the poller's eyes, before the
// first byte is written, so nothing that comes in answer can be missed. Nobody else may write meanwhile. With an error, asked says that all
// of p was written.
func (c *Conn) Ask(p []byte, r Room) (n int, asked bool, err error) {
	if c.own != nil {
		return c.own.ask(p, r)
	}
	if asked, err = c.writeAwait(p); err == nil {
		n, err = c.Read(r.Room())
	}
	return n, asked, err
}

// writeAwait is Ask up to the read, where the runtime's poller waits.
func (c *Conn) writeAwait(p []byte) (asked bool, err error) {
	if c.raw == nil {
		_, err = c.Write(p)
		return err == nil, err
	}
	c.question, c.asked = p, false
	c.outCount, c.outError = 0, nil
	err = c.wait(c.askOnce)
	rest := c.question
	c.question = nil
	switch {
	case c.outError != nil:
		return false, c.outError
	case len(rest) > 0 && c.asked: // the kernel did not take all of it
		if _, err := c.Write(rest); err != nil {
			return false, err
		}
		return true, c.Await()
	}
	return len(rest) == 0, err
}

// Handler is what Loop serves a connection with.
type Handler interface {
	Room
	// Take is told that n bytes were read into Room, or none: then nothing had come after all, and the memory can be let go.
	// It says whether Loop is to go on.
	Take(n int) (goOn bool)
	// Idle is told that Loop is going to wait, and gives a recent reading of the clock.
	Idle() (now Instant)
}

// Loop reads and hands over what comes, until the handler says to stop, the connection ends (io.EOF) or fails. Beside a
// loop of Reads it saves the try to read before each wait: for the poller all of the loop is one wait, so nothing that
// comes meanwhile is missed. The handler must not read from the connection, and must not close it: both wait for the loop.
//
// One thing would be missed: an end of file that came in one wake-up with data. So the first second of a wait is cut, and
// one try made; only a peer that half-closes notices.
func (c *Conn) Loop(h Handler) error {
	if c.own != nil {
		return c.own.run(h)
	}
	c.loop = h
	if c.takeOnce == nil {
		c.takeOnce = c.tryTake
	}
	defer func() { c.loop = nil }()
	for {
		c.inError = nil
		if c.interrupted() {
			return ErrInterrupted
		}
		err := c.raw.Read(c.takeOnce)
		if err == nil {
			err, c.inError = c.inError, nil
			return err
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if c.interrupted() {
			return ErrInterrupted
		}
		now := Now()
		if c.bounded != 0 && now >= c.bounded {
			return os.ErrDeadlineExceeded
		}
		c.tried = true
		c.armed = 1
		c.arm(now, c.bounded)
	}
}

// CanLoop says whether Loop works on this connection.
func (c *Conn) CanLoop() bool { return c.raw != nil || c.own != nil }

// ErrDetached is returned by Loop when the connection was left to its Server: the caller has lost it, and may not even look at it.
var ErrDetached = errors.New("detached")

// Socket is what a Conn on the own poller stands on: its Conn.Conn.
type Socket interface {
	net.Conn
	syscall.Conn
	onLoop()
}

// Server serves a connection that no goroutine waits for.
type Server interface {
	// Resume is called, in some goroutine, when there is something to read or to be told. It is to call Loop.
	Resume()
}

// ServedBy makes Loop return ErrDetached where it would wait, on the own poller: an idle connection costs no goroutine. It
// says false where that cannot be.
func (c *Conn) ServedBy(s Server) bool {
	if c.own == nil {
		return false
	}
	c.own.server = s
	return true
}

// NeverWait makes Read fail with ErrNothing where it would wait, and gives the connection to s by Detach, for good. It is for who reads through TLS, which
// cannot be asked whether it holds something, but says so when it does not have to wait. It says false where that cannot be: on the
// runtime's poller.
func (c *Conn) NeverWait(s Server) bool {
	if !c.ServedBy(s) {
		return false
	}
	c.own.hasty = true
	return true
}

// Detach leaves the connection to its Server, as Loop does where it would wait. After true the caller has lost it. False: there is something to read or to
// be told.
func (c *Conn) Detach() bool { return c.own.detach() }

// Seeping gives the last moment at which the peer took a part of a Write that had to wait for it; zero is never. It may be asked from any goroutine.
func (c *Conn) Seeping() Instant {
	if c.own != nil {
		return c.own.seep.last()
	}
	return c.seep.last()
}

// seep notes the progress of a Write that waits. The zero value has seen none.
type seep struct{ at atomic.Int64 }

func (s *seep) last() Instant { return Instant(s.at.Load()) }
func (s *seep) note()         { s.at.Store(int64(Now())) }

// wait runs once under the poller until it says true, a bound passes, or Interrupt comes. once must try before it says
// false the first time: the poller forgets earlier wake-ups when a wait begins.
func (c *Conn) wait(once func(uintptr) bool) error {
	if !c.armedNow && (c.bounded != 0 || c.armed != 0) {
		c.arm(Now(), c.bounded)
	}
	c.armedNow = false
	if c.interrupted() {
		return ErrInterrupted
	}
	for {
		err := c.raw.Read(once)
		if err == nil {
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if c.interrupted() {
			return ErrInterrupted
		}
		if c.bounded != 0 && Now() >= c.bounded {
			return os.ErrDeadlineExceeded
		}
		// The timer was set for an earlier bound: wait for the real one.
		c.armed = c.bounded
		if c.bounded == 0 {
			_ = c.Conn.SetReadDeadline(time.Time{})
		} else {
			_ = c.Conn.SetReadDeadline(c.bounded.Time())
		}
		if c.interrupted() { // it came between the timer's firing and its new setting
			return ErrInterrupted
		}
	}
}

// interrupted takes a pending Interrupt. It is asked after each setting of the timer, because that may have undone the
// setting that Interrupt made.
func (c *Conn) interrupted() bool {
	if !c.interrupt.Load() {
		return false
	}
	c.interrupt.Store(false)
	c.armed = 1 // somewhere in the past: set it anew next time
	return true
}

// Uninterrupt takes back an Interrupt that no read has seen.
func (c *Conn) Uninterrupt() {
	if c.own != nil {
		c.own.uninterrupt()
		return
	}
	c.interrupted()
}

func (c *Conn) plainRead(p []byte) (int, error) {
	for {
		if c.bounded != 0 || c.armed != 0 {
			c.arm(Now(), c.bounded)
		}
		if c.interrupted() {
			return 0, ErrInterrupted
		}
		n, err := c.Conn.Read(p)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		c.armed = 1
		if c.bounded != 0 && Now() >= c.bounded {
			return n, err
		}
	}
}

// Write writes all of p.
func (c *Conn) Write(p []byte) (int, error) {
	if c.own != nil {
		return c.own.Write(p)
	}
	if c.raw == nil {
		if c.patience > 0 {
			_ = c.Conn.SetWriteDeadline(time.Now().Add(c.patience))
		}
		return c.Conn.Write(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	c.out, c.outCount, c.outError, c.blocked, c.seen = p, 0, nil, false, 0
	err := c.raw.Write(c.writeOnce)
	n, outError := c.outCount, c.outError
	c.out = nil
	if c.blocked {
		if n > c.seen {
			c.seep.note()
		}
		if c.patience > 0 {
			_ = c.Conn.SetWriteDeadline(time.Time{})
		}
	}
	if err == nil {
		err = outError
	}
	return n, err
}

// Shutdown ends the connection in both directions, from any goroutine and without waiting for anybody. Close must still
// follow.
func (c *Conn) Shutdown() {
	if c.own != nil {
		_ = c.own.shutdownBoth()
		return
	}
	if !c.shutdown() {
		_ = c.Conn.Close()
	}
}

// Alive says whether the connection is open and silent, as an idle connection must be: false when the peer has closed it
// or has sent something that nobody asked for. The kernel is asked.
func (c *Conn) Alive() bool {
	if c.own != nil {
		return c.own.alive(true)
	}
	return c.stillSilent()
}

// Quiet is Alive without asking the kernel where the poller knows: all but what came in the last moment, since the loop
// looked.
func (c *Conn) Quiet() bool {
	if c.own != nil {
		return c.own.alive(false)
	}
	return c.stillSilent()
}

// Recent gives the moment at which the own poller last saw something come, on any connection: for whoever was woken by it, when
// that came. It saves a reading of the clock. Elsewhere it is Now.
func (c *Conn) Recent() Instant {
	if c.own != nil {
		return c.own.recent()
	}
	return Now()
}

// Control lends the descriptor to f, and says whether there is one. It takes no lock, so it may run beside reads and writes.
func (c *Conn) Control(f func(fd uintptr)) bool {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	return err == nil && raw.Control(f) == nil
}

// CloseWrite closes the writing half when the connection underneath can.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
