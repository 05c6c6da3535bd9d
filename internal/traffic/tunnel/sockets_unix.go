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
		// The poller's own error (closed, deadline) comes first: opErr is then that of the attempt before it waited.
		if err := src.Read(read); err != nil {
			return true, d.readError(err)
		}
		if opErr == io.EOF {
			return true, nil
		}
		if opErr != nil {
			return true, d.readError(opErr)
		}
		err := dst.Write(write)
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
