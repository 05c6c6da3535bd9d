//go:build unix

package wire

import (
	"syscall"

	"github.com/menshen-gateway/menshen/internal/poll"
)

// peerGone peeks for the end of the stream.
func peerGone(c *poll.Conn) (gone bool) {
	return c.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = err == nil && n == 0 || err == syscall.ECONNRESET
	}) && gone
}
