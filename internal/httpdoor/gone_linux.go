package httpdoor

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peerGone asks whether the peer has reset the connection, or with half for the end of the stream, also behind bytes that nobody has read: a TLS client says goodbye first. It takes no lock
// of the connection, so it may run beside a read.
func peerGone(c net.Conn, half bool) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		ask := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(ask, 0)
		gone = err == nil && n > 0 && ask[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 || half && n > 0 && ask[0].Revents&unix.POLLRDHUP != 0
	})
	return err == nil && gone
}
