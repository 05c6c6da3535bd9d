//go:build unix

package tunnel

import (
	"io"
	"net"
	"syscall"

	"github.com/menshen-gateway/menshen/internal/poll"
)

// relaySockets relays between two plain sockets. It reads and writes inside the runtime poller's callbacks: the buffer
// is taken for the attempt to read and given back when there was nothing, at no further system call, and a blocked write
// shows each part that went through. It says false when a side is something else.
func (d *direction) relaySockets() (relayed bool, err error) {
	src, dst := socket(d.src), socket(d.dst)
	if src == nil || dst == nil {
		return false, nil
	}
	adopted := adoptedBy(d.src)
	if adopted != nil {
		adopted.ReadBefore(0) // the idle time takes the place of these, too
	}
	if to := adoptedBy(d.dst); to != nil {
		to.WritePatience(0)
	}
	var (
		buffer *[bufferBytes]byte
		unsent []byte // view of buffer
		opErr  error
	)
	read := func(fd uintptr) bool {
		buffer = buffers.Get().(*[bufferBytes]byte)
		var n int
		n, opErr = again(syscall.Read, fd, buffer[:])
		if opErr == nil && n > 0 {
			unsent = buffer[:n]
			d.progress()
			return true
		}
		buffers.Put(buffer)
		buffer = nil
		if opErr == nil {
			opErr = io.EOF
		}
		return opErr != syscall.EAGAIN
	}
	write := func(fd uintptr) bool {
		for len(unsent) > 0 {
			var n int
			n, opErr = again(syscall.Write, fd, unsent)
			if opErr != nil {
				return opErr != syscall.EAGAIN
			}
			unsent = unsent[n:]
			d.count += int64(n)
			d.progress()
		}
		return true
	}
	for {
		var err error
		if adopted != nil {
			if err = adopted.Await(); err == nil {
				buffer = buffers.Get().(*[bufferBytes]byte)
				var n int
				n, opErr = adopted.Read(buffer[:])
				if unsent = buffer[:n]; n > 0 {
					opErr = nil
					d.progress()
				} else {
					buffers.Put(buffer)
					buffer = nil
				}
			}
		} else {
			// The poller's own error (closed, deadline) comes first: opErr is then that of the attempt before it waited.
			err = src.Read(read)
		}
		if err != nil {
			return true, d.readError(err)
		}
		if opErr == io.EOF {
			return true, nil
		}
		if opErr != nil {
			return true, d.readError(opErr)
		}
		err = dst.Write(write)
		buffers.Put(buffer)
		buffer = nil
		if err == nil {
			err = opErr
		}
		if err != nil {
			return true, d.writeError(err)
		}
	}
}

// adoptedBy gives a connection whose poller knows whether there is something to read, so that no read has to be tried in vain before
// each wait (processor time for a message through one of 4,000 tunnels, beside nginx: 1.14 instead of 1.21); nil for others.
func adoptedBy(c net.Conn) *poll.Conn {
	if p, ok := c.(*poll.Conn); ok {
		if _, ok := p.Conn.(poll.Socket); ok {
			return p
		}
	}
	return nil
}

// socket gives the raw form of a TCP or Unix socket, and nil for everything else: a type that wraps one may hold bytes
// of its own or see them pass. A poll.Conn does neither.
func socket(c net.Conn) syscall.RawConn {
	if p, ok := c.(*poll.Conn); ok {
		c = p.Conn
	}
	var raw syscall.RawConn
	var err error
	switch c := c.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		raw, err = c.SyscallConn()
	case poll.Socket:
		raw, err = c.SyscallConn()
	}
	if err != nil {
		return nil
	}
	return raw
}

// again repeats a call that a signal interrupted.
func again(call func(int, []byte) (int, error), fd uintptr, p []byte) (int, error) {
	for {
		n, err := call(int(fd), p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}
