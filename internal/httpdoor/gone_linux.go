package httpdoor

import (
	"golang.org/x/sys/unix"

	"github.com/menshen-gateway/menshen/internal/poll"
)

// peerGone asks whether the peer has reset the connection, or with half for the end of the stream, also behind bytes that nobody has read: a TLS client says goodbye first.
func peerGone(c *poll.Conn, half bool) (gone bool) {
	return c.Control(func(fd uintptr) {
		ask := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(ask, 0)
		gone = err == nil && n > 0 && ask[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 || half && n > 0 && ask[0].Revents&unix.POLLRDHUP != 0
	}) && gone
}
