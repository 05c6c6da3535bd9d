//go:build linux

package bench

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// loop serves many connections with one thread and epoll, level-triggered: the cheapest thing that still is Go, because the client's and the server's
// cost limits what a proxy between them can be asked.
type loop struct {
	epoll int
	peers map[int]*peer
	// opened is called for accepted connections, input for what arrives; false closes the connection. The bytes are valid during the call only.
	opened func(*peer)
	input  func(p *peer, data []byte) bool
	// discard says that what comes is only counted: input gets as many bytes of anything.
	discard func(p *peer) bool
	piece   []byte // what peers with more to send are sent, again and again
	failed  error  // ends run
}

// peer is one connection. The state fields are for the owner of the loop.
type peer struct {
	fd    int
	out   []byte // not yet taken by the kernel; never written to, so that it may be shared
	more  int    // bytes of loop.piece that follow out
	armed bool   // the loop waits for room to write

	kept  []byte // input of an unfinished message
	state int
	left  int
	sent  int64
}

func newLoop() (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &loop{epoll: fd, peers: make(map[int]*peer)}, nil
}

// add takes over a descriptor, which must not block.
func (l *loop) add(fd int) (*peer, error) {
	p := &peer{fd: fd}
	l.peers[fd] = p
	return p, unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func (l *loop) drop(p *peer) {
	delete(l.peers, p.fd)
	unix.Close(p.fd)
}

// send queues data; false means that the connection is broken. data must not change afterwards.
func (l *loop) send(p *peer, data []byte) bool {
	if len(p.out) > 0 {
		p.out = append(p.out[:len(p.out):len(p.out)], data...)
		return true
	}
	p.out = data
	return l.flush(p)
}

func (l *loop) flush(p *peer) bool {
	for len(p.out) > 0 || p.more > 0 {
		if len(p.out) == 0 {
			p.out = l.piece[:min(p.more, len(l.piece))]
			p.more -= len(p.out)
		}
		n, err := unix.Write(p.fd, p.out)
		switch err {
		case nil:
			p.out = p.out[n:]
			continue
		case unix.EINTR:
			continue
		case unix.EAGAIN:
		default:
			return false
		}
		break
	}
	if wait := len(p.out) > 0; wait != p.armed {
		p.armed = wait
		events := uint32(unix.EPOLLIN)
		if wait {
			events |= unix.EPOLLOUT
		}
		return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, p.fd, &unix.EpollEvent{Events: events, Fd: int32(p.fd)}) == nil
	}
	return true
}

// serve accepts connections at an address and runs until failed is set.
func (l *loop) serve(address string) error {
	listener, err := l.listen(address)
	if err != nil {
		return err
	}
	return l.run(listener, nil)
}

// listen opens a socket at an address.
func (l *loop) listen(address string) (*peer, error) {
	tcp, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(tcp.IP.To4())}); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return nil, err
	}
	return l.add(fd)
}

// run handles events until failed is set or over says so. listener may be nil.
func (l *loop) run(listener *peer, over func() bool) error {
	events := make([]unix.EpollEvent, 256)
	buffer := make([]byte, 64<<10)
	timeout := -1
	if over != nil {
		timeout = 1 // over may have requests to send
	}
	for l.failed == nil && (over == nil || !over()) {
		n, err := unix.EpollWait(l.epoll, events, timeout)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, event := range events[:max(n, 0)] {
			p := l.peers[int(event.Fd)]
			if p == nil {
				continue
			}
			if p == listener {
				l.accept(p.fd)
				continue
			}
			if !l.handle(p, event.Events, buffer) {
				l.drop(p)
			}
		}
	}
	return l.failed
}

func (l *loop) handle(p *peer, events uint32, buffer []byte) bool {
	if events&unix.EPOLLOUT != 0 && !l.flush(p) {
		return false
	}
	if events&^unix.EPOLLOUT == 0 {
		return true
	}
	if l.discard != nil && l.discard(p) {
		return l.drain(p, buffer)
	}
	n, err := unix.Read(p.fd, buffer)
	if err == unix.EAGAIN || err == unix.EINTR {
		return true
	}
	return err == nil && n > 0 && l.input(p, buffer[:n])
}

// drain has the kernel throw away what came, up to a megabyte, which spares the client the copy.
func (l *loop) drain(p *peer, buffer []byte) bool {
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(p.fd), 0, 1<<20, unix.MSG_TRUNC, 0, 0)
	if errno == unix.EAGAIN || errno == unix.EINTR {
		return true
	}
	for n := int(n); n > 0 && errno == 0; n -= len(buffer) {
		if !l.input(p, buffer[:min(n, len(buffer))]) {
			return false
		}
	}
	return errno == 0 && n > 0
}

func (l *loop) accept(listener int) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return // none left, or one that is gone already
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		p, err := l.add(fd)
		if err != nil {
			l.drop(p)
			continue
		}
		if l.opened != nil {
			l.opened(p)
		}
	}
}
