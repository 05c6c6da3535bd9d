//go:build linux

package bench

import (
	"net"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// blindRelay is the floor under every proxy: it moves bytes between each client connection and an upstream connection of its own, and looks at none of them.
// One recv and one send in each direction is all that happens for a request.
func blindRelay(b testing.TB, core int, to string) subject {
	b.Helper()
	address := testenv.FreeAddress(b)
	p := testenv.Start(b, role(b, core, "relay", address, to))
	awaitAddress(b, p, address)
	return subject{name: "blind relay", address: address, pid: p.PID}
}

// runRelay is written like C: one thread, level-triggered epoll, raw system calls that the scheduler does not hear of, tables by descriptor.
func runRelay(arguments []string) error {
	upstream, err := net.ResolveTCPAddr("tcp4", arguments[1])
	if err != nil {
		return err
	}
	l, err := newLoop()
	if err != nil {
		return err
	}
	r := &blind{loop: l, to: unix.SockaddrInet4{Port: upstream.Port, Addr: [4]byte(upstream.IP.To4())}}
	listener, err := l.listen(arguments[0])
	if err != nil {
		return err
	}
	return r.run(listener.fd)
}

type blind struct {
	loop  *loop
	to    unix.SockaddrInet4
	sides [1 << 16]side // by descriptor
}

type side struct {
	other int    // 0: not open
	rest  []byte // what the other side sent and the kernel did not take yet
}

func (r *blind) run(listener int) error {
	events := make([]unix.EpollEvent, 256)
	buffer := make([]byte, 256<<10)
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(r.loop.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return errno
		}
		if errno != 0 {
			continue
		}
		for _, event := range events[:n] {
			fd := int(event.Fd)
			switch {
			case fd == listener:
				r.accept(listener)
			case r.sides[fd].other == 0: // closed earlier in this batch
			case !r.handle(fd, event.Events, buffer):
				r.drop(fd)
			}
		}
	}
}

// accept connects upstream at once, and waits for it: opening is not what is measured.
func (r *blind) accept(listener int) {
	for {
		client, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		server, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(server, &r.to)
		}
		if err != nil || client >= len(r.sides) || server >= len(r.sides) {
			unix.Close(client)
			unix.Close(server)
			continue
		}
		_ = unix.SetNonblock(server, true)
		for fd, other := range map[int]int{client: server, server: client} {
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			r.sides[fd] = side{other: other}
			r.wait(fd, unix.EPOLL_CTL_ADD, unix.EPOLLIN)
		}
	}
}

func (r *blind) wait(fd, operation int, events uint32) {
	_ = unix.EpollCtl(r.loop.epoll, operation, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

func (r *blind) handle(fd int, events uint32, buffer []byte) bool {
	s := &r.sides[fd]
	if events&unix.EPOLLOUT != 0 {
		n, errno := send(fd, s.rest)
		if errno != 0 && errno != unix.EAGAIN {
			return false
		}
		if s.rest = s.rest[n:]; len(s.rest) == 0 {
			r.wait(fd, unix.EPOLL_CTL_MOD, unix.EPOLLIN)
			r.wait(s.other, unix.EPOLL_CTL_MOD, unix.EPOLLIN)
		}
	}
	if events&^unix.EPOLLOUT == 0 {
		return true
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&buffer[0])), uintptr(len(buffer)), 0, 0, 0)
	if errno == unix.EAGAIN {
		return true
	}
	if errno != 0 || n == 0 {
		return false
	}
	sent, errno := send(s.other, buffer[:n])
	if errno != 0 && errno != unix.EAGAIN {
		return false
	}
	if rest := buffer[sent:n]; len(rest) > 0 { // this side is not read until the other has taken it
		o := &r.sides[s.other]
		o.rest = append([]byte(nil), rest...)
		r.wait(s.other, unix.EPOLL_CTL_MOD, unix.EPOLLOUT)
		r.wait(fd, unix.EPOLL_CTL_MOD, 0)
	}
	return true
}

func send(fd int, data []byte) (int, syscall.Errno) {
	if len(data) == 0 {
		return 0, 0
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)), unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func (r *blind) drop(fd int) {
	other := r.sides[fd].other
	for _, fd := range []int{fd, other} {
		r.sides[fd] = side{}
		unix.Close(fd)
	}
}
