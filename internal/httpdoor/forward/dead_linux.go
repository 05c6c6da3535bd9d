package forward

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unacknowledged has the kernel give a connection up when the other host has acknowledged nothing for so long.
func unacknowledged(c syscall.RawConn, most time.Duration) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(most.Milliseconds()))
	}); e != nil {
		return e
	}
	return err
}
