package poll

import (
	"io"
	"os"
	"syscall"
	"time"
	"unsafe"
)

const rawSupported = true

// tryRead is one receive. It says false when the poller should wait.
//
// RawSyscall and not Syscall: the socket is non-blocking, so the call returns at once and the scheduler need not know
// (measured in a relay: 3 % of the CPU time of a request). c.in outlives the call because c is held by its reader.
func (c *Conn) tryRead(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&c.in[0])), uintptr(len(c.in)), syscall.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			c.inCount = int(n)
			if n == 0 {
				c.inError = io.EOF
			}
			return true
		case syscall.EAGAIN:
			return false
		case syscall.EINTR:
		default:
			c.inError = os.NewSyscallError("recvfrom", errno)
			return true
		}
	}
}

// tryWait looks without taking.
func (c *Conn) tryWait(fd uintptr) bool {
	return peek(fd) != syscall.EAGAIN
}

// tryAsk sends at its first call and then says to wait.
func (c *Conn) tryAsk(fd uintptr) bool {
	if c.asked {
		return true
	}
	c.asked = true
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&c.question[0])), uintptr(len(c.question)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			c.question = c.question[n:]
			return len(c.question) > 0
		case syscall.EAGAIN:
			return true
		case syscall.EINTR:
		default:
			c.outError = os.NewSyscallError("sendto", errno)
			return true
		}
	}
}

// tryTake is one turn of Loop.
func (c *Conn) tryTake(fd uintptr) bool {
	for {
		c.in = c.loop.Room()
		n, errno := c.receive(fd)
		if errno != 0 && errno != syscall.EAGAIN {
			c.inError = os.NewSyscallError("recvfrom", errno)
		} else if errno == 0 && n == 0 {
			c.inError = io.EOF
		}
		room := len(c.in)
		c.in = nil
		if !c.loop.Take(n) || c.inError != nil {
			return true
		}
		if n < room {
			break
		}
	}
	now := c.loop.Idle()
	want := c.bounded
	if !c.tried {
		want = Earlier(want, now+Instant(missedEOF))
	}
	c.tried = false
	c.arm(now, want)
	if c.interrupt.Load() { // the timer's new setting may have undone that of Interrupt
		c.expire()
	}
	return false
}

// receive is one receive into c.in.
func (c *Conn) receive(fd uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&c.in[0])), uintptr(len(c.in)), syscall.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// tryWrite sends until all is sent or the kernel takes no more. Then the peer's patience is measured, afresh after each part
// that it takes. The wait must follow the failed try in one call of the poller: a new call would forget a wake-up between.
func (c *Conn) tryWrite(fd uintptr) bool {
	for {
		p := c.out[c.outCount:]
		n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			c.outCount += int(n)
			if c.outCount == len(c.out) {
				return true
			}
		case syscall.EAGAIN:
			c.blocked = true
			if c.outCount > c.seen {
				c.seen = c.outCount
				c.seep.note()
			}
			if c.patience > 0 {
				_ = c.Conn.SetWriteDeadline(time.Now().Add(c.patience))
			}
			return false
		case syscall.EINTR:
		default:
			c.outError = os.NewSyscallError("sendto", errno)
			return true
		}
	}
}

// peek looks for a byte without taking it: 0 when there is one or the end of file, EAGAIN when there is neither.
func peek(fd uintptr) syscall.Errno {
	var b [1]byte
	for {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		if errno != syscall.EINTR {
			return errno
		}
	}
}

// shutdown does Shutdown's work if it can.
func (c *Conn) shutdown() bool {
	return c.raw != nil && c.raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) }) == nil
}

// stillSilent does Alive's work.
func (c *Conn) stillSilent() bool {
	if c.raw == nil {
		return true
	}
	c.silent = false
	return c.raw.Control(c.lookOnce) == nil && c.silent
}

// tryLook notes whether the connection is open and silent.
func (c *Conn) tryLook(fd uintptr) { c.silent = peek(fd) == syscall.EAGAIN }
