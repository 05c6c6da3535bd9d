package forward

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel gives up a connection that bundles streams when the other host is silent, and leaves one of HTTP/1 to its timeouts.
func TestSilentHostIsGivenUp(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for http2, want := range map[bool]time.Duration{true: goneAfter, false: 0} {
		c, err := (&Pool{http2: http2}).dialer().DialContext(context.Background(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		raw, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		if e := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT) }); e != nil || err != nil {
			t.Fatal(e, err)
		}
		if got != int(want.Milliseconds()) {
			t.Errorf("http2 %v: given up after %d ms, want %v", http2, got, want)
		}
		c.Close()
	}
}
