package poll

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// The state of a socket, one word. The loop and others set bits (raise), the reader and the writer take them away.
//
// readable is taken away before each receive, so what comes afterwards sets it again: a receive that gives less than was asked
// for has emptied the socket, and the next need not be tried before the bit is back (epoll is edge-triggered). ended means
// that a receive will not find the socket empty: nothing more comes to set readable.
const (
	readable    uint32 = 1 << iota // since the last receive something came, or the end
	ended                          // the peer has sent its last byte, or the connection is broken
	writable                       // since the last send that was refused there is room
	halt                           // Interrupt
	readTimer                      // the reader's timer has fired
	writeTimer                     // the writer's
	readBound                      // SetReadDeadline has set a bound
	writeBound                     // SetWriteDeadline
	closed                         // Close
	readParked                     // the reader sleeps
	writeParked                    // the writer sleeps
	detached                       // no reader: the next thing to do gets a goroutine
	urgent                         // the peer has sent urgent data, at which receives stop short: they prove nothing any more
	abrupt                         // SetLinger(0): Close is to break the connection off, not to end it

	wakesReader = readable | ended | halt | readTimer | closed
	wakesWriter = writable | writeTimer | closed
)

// socket is a connection under the loop. It is the net.Conn of a Conn.
type socket struct {
	state      atomic.Uint32
	users      atomic.Int32 // calls that use fd, and one for being open
	fd         int
	generation uint32 // tells it from others with the same number
	loop       *loop
	server     Server // gets the socket when it was detached

	// Reading. Owned by the reading goroutine.
	reader  parker
	bounded Instant
	armed   Instant // when the timer fires, at the latest
	timer   *time.Timer
	fresh   bool // the timer is set for bounded
	hasty   bool // reads fail where they would wait

	// Writing. Owned by the writing goroutine.
	patience    time.Duration
	writer      parker
	writerTimer *time.Timer
	seep        seep

	readDeadline  atomic.Int64 // an Instant, with readBound
	writeDeadline atomic.Int64
	local, remote net.Addr
}

// Adopt is New on the own poller where that is possible: over a plain TCP or Unix socket on Linux. The
// connection then belongs to the Conn, and c is closed (its socket is not).
func Adopt(c net.Conn) *Conn {
	s := adopt(c)
	if s == nil {
		return New(c)
	}
	return &Conn{Conn: s, own: s}
}

func adopt(c net.Conn) *socket {
	switch c.(type) {
	case *net.TCPConn, *net.UnixConn:
	default:
		return nil
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	fd := -1
	err = raw.Control(func(old uintptr) {
		if n, _, errno := syscall.RawSyscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0); errno == 0 {
			fd = int(n)
		}
	})
	if err != nil || fd < 0 {
		return nil
	}
	s := &socket{fd: fd, local: c.LocalAddr(), remote: c.RemoteAddr()}
	s.users.Store(1)
	s.reader.init()
	s.writer.init()
	if register(s) != nil {
		syscall.Close(fd)
		return nil
	}
	c.Close() // the runtime's poller lets go of it
	return s
}

// raise sets bits, and wakes those who wait for them. It says how many goroutines it woke. A detached socket
// is left to by, whose turn it is, or else gets a goroutine at once.
func (s *socket) raise(bits uint32, by *loop) (woken int) {
	for {
		old := s.state.Load()
		now := old | bits
		if now&wakesReader != 0 {
			now &^= readParked | detached
		}
		if now&wakesWriter != 0 {
			now &^= writeParked
		}
		if now == old {
			return 0
		}
		if !s.state.CompareAndSwap(old, now) {
			continue
		}
		left := old &^ now
		if left&readParked != 0 {
			s.reader.wake()
			woken++
		}
		if left&writeParked != 0 {
			s.writer.wake()
			woken++
		}
		if left&detached != 0 {
			if by != nil {
				by.found = append(by.found, s)
			} else {
				s.loop.start(s.server)
			}
		}
		return woken
	}
}

// enter begins a use of fd. It says false when the socket is closed.
func (s *socket) enter() bool {
	for {
		n := s.users.Load()
		if n == 0 || s.state.Load()&closed != 0 {
			return false
		}
		if s.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *socket) leave() {
	if s.users.Add(-1) == 0 {
		unregister(s)
	}
}

// Close ends all calls, present and future. The descriptor is closed when the last of them is over.
func (s *socket) Close() error {
	if s.state.Or(closed)&closed != 0 {
		return net.ErrClosed
	}
	s.raise(closed, nil)
	if s.users.Load() > 1 && s.state.Load()&abrupt == 0 { // whoever uses it now may go on for long
		_ = syscall.Shutdown(s.fd, syscall.SHUT_RDWR)
	}
	s.leave()
	return nil
}

// check looks at what may forbid to read, or to wait: all but data and its end.
func (s *socket) check(state uint32) error {
	if state&closed != 0 {
		return net.ErrClosed
	}
	if state&halt != 0 {
		s.state.And(^halt)
		return ErrInterrupted
	}
	if state&readTimer != 0 {
		s.state.And(^readTimer)
		s.armed, s.fresh = 0, false
		if b := s.bound(); b != 0 && Now() >= b {
			return os.ErrDeadlineExceeded
		}
	}
	if state&readBound != 0 {
		if d := Instant(s.readDeadline.Load()); d != 0 && Now() >= d {
			return os.ErrDeadlineExceeded
		}
	}
	return nil
}

// unusual are the bits that check looks at.
const unusual = halt | readTimer | readBound | closed

// bound is the earlier of the reader's own bound and the deadline that others may set.
func (s *socket) bound() Instant {
	return Earlier(s.bounded, Instant(s.readDeadline.Load()))
}

// arm makes sure that the timer fires not much later than the bound. One that is set for an earlier moment is left
// alone: a busy connection sets it about once in its idle time. now may be slightly old; 0 is unknown.
func (s *socket) arm(now Instant) {
	b := s.bound()
	if b == 0 {
		return
	}
	if now == 0 {
		now = Now()
	}
	if s.armed > now && s.armed <= b+(b-now)/8 {
		return
	}
	s.armed = b
	if s.timer == nil {
		s.timer = time.AfterFunc(b.Sub(now), func() { s.raise(readTimer, nil) })
	} else {
		s.timer.Reset(b.Sub(now))
	}
}

// awaitReadable waits until there is something to receive. The caller has entered.
func (s *socket) awaitReadable() error {
	for {
		old := s.state.Load()
		if old&unusual != 0 {
			if err := s.check(old); err != nil {
				return err
			}
			old = s.state.Load()
		}
		if old&(readable|ended) != 0 {
			return nil
		}
		if s.hasty {
			return ErrNothing
		}
		if !s.fresh {
			s.arm(0)
			s.fresh = true
		}
		if old&(unusual&^readBound) == 0 && s.state.CompareAndSwap(old, old|readParked) {
			s.reader.sleep()
		}
	}
}

// receive is one receive; EAGAIN when there was nothing. See the state for the order of things.
func (s *socket) receive(p []byte) (int, error) {
	state := s.state.Load()
	if state&readable != 0 {
		s.state.And(^readable)
	}
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), syscall.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			if n == 0 {
				s.state.Or(ended)
				return 0, io.EOF
			}
			if int(n) == len(p) || state&urgent != 0 {
				s.state.Or(readable)
			}
			return int(n), nil
		case syscall.EAGAIN:
			if s.state.Load()&ended != 0 { // not as it seemed: nobody may turn round in a circle for it
				s.state.And(^ended)
			}
			return 0, syscall.EAGAIN
		case syscall.EINTR:
		default:
			return 0, os.NewSyscallError("recvfrom", errno)
		}
	}
}

// Read reads what there is, waiting for the first byte.
func (s *socket) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if !s.enter() {
		return 0, net.ErrClosed
	}
	for {
		err := s.awaitReadable()
		if err != nil {
			s.leave()
			return 0, err
		}
		n, err := s.receive(p)
		if err != syscall.EAGAIN {
			s.leave() // not deferred, here and in ask and Write: that would be an eighth of their cost
			return n, err
		}
	}
}

// await is Conn's Await.
func (s *socket) await() error {
	if !s.enter() {
		return net.ErrClosed
	}
	defer s.leave()
	return s.awaitReadable()
}

// ask is Conn's Ask.
func (s *socket) ask(p []byte, r Room) (n int, asked bool, err error) {
	if !s.enter() {
		return 0, false, net.ErrClosed
	}
	if state := s.state.Load(); state&unusual != 0 {
		err = s.check(state)
	}
	if err == nil {
		_, err = s.send(p)
		asked = err == nil
	}
	for err == nil {
		if err = s.awaitReadable(); err != nil {
			break
		}
		if n, err = s.receive(r.Room()); err != syscall.EAGAIN {
			break
		}
		err = nil
	}
	s.leave()
	return n, asked, err
}

// run is Conn's Loop.
func (s *socket) run(h Handler) error {
	inside := s.enter()
	if !inside {
		return net.ErrClosed
	}
	defer func() { // also when the handler panics
		if inside {
			s.leave()
		}
	}()
	for {
		old := s.state.Load()
		if old&unusual != 0 {
			if err := s.check(old); err != nil {
				return err
			}
			old = s.state.Load()
		}
		if old&(readable|ended) != 0 {
			n, err := s.receive(h.Room())
			if err == syscall.EAGAIN {
				err = nil
			}
			if !h.Take(n) || err != nil {
				return err
			}
			continue
		}
		s.arm(h.Idle())
		s.fresh = true
		old = s.state.Load()
		switch {
		case old&(readable|ended|unusual&^readBound) != 0:
		case s.server != nil:
			s.leave()
			inside = false
			if s.state.CompareAndSwap(old, old|detached) {
				return ErrDetached // somebody else may be serving it by now
			}
			if inside = s.enter(); !inside {
				return net.ErrClosed
			}
		case s.state.CompareAndSwap(old, old|readParked):
			s.reader.sleep()
		}
	}
}

// detach is Conn's Detach.
func (s *socket) detach() bool {
	if !s.fresh {
		s.arm(0)
		s.fresh = true
	}
	for {
		old := s.state.Load()
		if old&wakesReader != 0 {
			return false
		}
		if s.state.CompareAndSwap(old, old|detached) {
			return true // somebody else may be serving it by now
		}
	}
}

// Write writes all of p.
func (s *socket) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if !s.enter() {
		return 0, net.ErrClosed
	}
	n, err := s.send(p)
	s.leave()
	return n, err
}

// send sends all of p. The peer's patience is measured afresh after each part that it takes.
func (s *socket) send(p []byte) (sent int, err error) {
	if s.state.Load()&writeBound != 0 {
		if d := Instant(s.writeDeadline.Load()); d != 0 && Now() >= d {
			return 0, os.ErrDeadlineExceeded
		}
	}
	waited, seen := false, 0
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(&p[sent])), uintptr(len(p)-sent), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			if sent += int(n); sent == len(p) {
				if waited {
					s.seep.note()
				}
				return sent, nil
			}
		case syscall.EAGAIN:
			if sent > seen {
				seen = sent
				s.seep.note()
			}
			waited = true
			if s.state.Load()&writable != 0 { // it may be old: only a try that fails after it is gone says that there is no room
				s.state.And(^writable)
				continue
			}
			if err := s.awaitWritable(); err != nil {
				return sent, err
			}
		case syscall.EINTR:
		default:
			return sent, os.NewSyscallError("sendto", errno)
		}
	}
}

// awaitWritable waits until there is room. Its timer is set anew for each wait: that is rare.
func (s *socket) awaitWritable() error {
	before := Instant(0)
	if s.patience > 0 {
		before = Now().Add(s.patience)
	}
	armed := false
	defer func() {
		if armed {
			s.writerTimer.Stop()
		}
	}()
	for {
		old := s.state.Load()
		switch {
		case old&closed != 0:
			return net.ErrClosed
		case old&writable != 0:
			return nil
		}
		bound := Earlier(before, Instant(s.writeDeadline.Load()))
		if bound != 0 {
			now := Now()
			if now >= bound {
				return os.ErrDeadlineExceeded
			}
			if old&writeTimer != 0 {
				s.state.And(^writeTimer)
				armed = false
				continue
			}
			if !armed {
				armed = true
				if s.writerTimer == nil {
					s.writerTimer = time.AfterFunc(bound.Sub(now), func() { s.raise(writeTimer, nil) })
				} else {
					s.writerTimer.Reset(bound.Sub(now))
				}
			}
		}
		if s.state.CompareAndSwap(old, old|writeParked) {
			s.writer.sleep()
		}
	}
}

// alive says whether the connection is open and silent. What came since the loop's last turn is not known yet, unless the
// kernel is asked.
func (s *socket) alive(ask bool) bool {
	state := s.state.Load()
	if state&(closed|ended) != 0 {
		return false
	}
	if state&readable == 0 && !ask {
		return true
	}
	if !s.enter() {
		return false
	}
	defer s.leave()
	// The bit goes away only when nothing is there: it may be what somebody is woken by.
	if peek(uintptr(s.fd)) != syscall.EAGAIN {
		s.raise(readable, nil)
		return false
	}
	if s.state.Load()&readable != 0 {
		s.state.And(^readable)
		if peek(uintptr(s.fd)) != syscall.EAGAIN { // it came just now
			s.raise(readable, nil)
			return false
		}
	}
	return true
}

func (s *socket) shutdown(how int) error {
	if !s.enter() {
		return net.ErrClosed
	}
	defer s.leave()
	return os.NewSyscallError("shutdown", syscall.Shutdown(s.fd, how))
}

func (s *socket) onLoop() {}

// recent is Conn's Recent.
func (s *socket) recent() Instant { return max(Instant(s.loop.looked.Load()), 1) }

func (s *socket) shutdownBoth() error { return s.shutdown(syscall.SHUT_RDWR) }

func (s *socket) interrupt()   { s.raise(halt, nil) }
func (s *socket) uninterrupt() { s.state.And(^halt) }

// CloseWrite ends the writing half.
func (s *socket) CloseWrite() error { return s.shutdown(syscall.SHUT_WR) }

// SetLinger says what Close does with what was not sent, as net.TCPConn's does.
func (s *socket) SetLinger(seconds int) error {
	if !s.enter() {
		return net.ErrClosed
	}
	defer s.leave()
	l := syscall.Linger{Linger: int32(max(seconds, 0))}
	if seconds >= 0 {
		l.Onoff = 1
	}
	if seconds == 0 {
		s.state.Or(abrupt)
	} else {
		s.state.And(^abrupt)
	}
	return os.NewSyscallError("setsockopt", syscall.SetsockoptLinger(s.fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &l))
}

// LocalAddr is the socket's own address.
func (s *socket) LocalAddr() net.Addr { return s.local }

// RemoteAddr is the peer's address.
func (s *socket) RemoteAddr() net.Addr { return s.remote }

// SetDeadline bounds reads and writes, also those that wait already.
func (s *socket) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

// SetReadDeadline bounds reads, also one that waits already.
func (s *socket) SetReadDeadline(t time.Time) error {
	s.setDeadline(&s.readDeadline, readBound, readTimer, t)
	return nil
}

// SetWriteDeadline bounds writes, also one that waits already.
func (s *socket) SetWriteDeadline(t time.Time) error {
	s.setDeadline(&s.writeDeadline, writeBound, writeTimer, t)
	return nil
}

func (s *socket) setDeadline(at *atomic.Int64, has, look uint32, t time.Time) {
	if t.IsZero() {
		if at.Swap(0) == 0 {
			return
		}
		s.state.And(^has)
	} else {
		at.Store(int64(InstantOf(t)))
		s.state.Or(has)
	}
	s.raise(look, nil)
}

// SyscallConn lends the descriptor, as net.TCPConn's does.
func (s *socket) SyscallConn() (syscall.RawConn, error) { return rawSocket{s}, nil }

type rawSocket struct{ s *socket }

// Control calls f with the descriptor.
func (r rawSocket) Control(f func(uintptr)) error {
	if !r.s.enter() {
		return net.ErrClosed
	}
	defer r.s.leave()
	f(uintptr(r.s.fd))
	return nil
}

// Read calls f until it says true, and waits in between until there is something to read.
func (r rawSocket) Read(f func(uintptr) bool) error {
	s := r.s
	if !s.enter() {
		return net.ErrClosed
	}
	defer s.leave()
	for {
		if state := s.state.Load(); state&unusual != 0 {
			if err := s.check(state); err != nil {
				return err
			}
		}
		had := s.state.And(^readable)
		if f(uintptr(s.fd)) {
			s.state.Or(readable) // whether f left something is not known
			return nil
		}
		if had&ended != 0 { // it was tried, and there was nothing
			s.state.And(^ended)
		}
		if err := s.awaitReadable(); err != nil {
			return err
		}
	}
}

// Write calls f until it says true, and waits in between until there is room.
func (r rawSocket) Write(f func(uintptr) bool) error {
	s := r.s
	if !s.enter() {
		return net.ErrClosed
	}
	defer s.leave()
	for {
		s.state.And(^writable)
		if f(uintptr(s.fd)) {
			s.state.Or(writable)
			return nil
		}
		if err := s.awaitWritable(); err != nil {
			return err
		}
	}
}
