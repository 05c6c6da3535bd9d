package forward

import (
	"net"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/poll"
)

// An endpoint that nobody asks any more keeps no connections for long.
func TestSweep(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := &Pool{address: ln.Addr().String(), idleMax: 10}
	now := poll.Now()
	var peers []net.Conn
	for _, age := range []time.Duration{2 * idleTimeout, idleTimeout + time.Second, idleTimeout - 10*time.Second, 0} {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		peer, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		_ = peer.SetReadDeadline(time.Now().Add(20 * time.Second))
		peers = append(peers, peer)
		c := &Conn{poll: poll.New(nc), pool: p}
		c.net = c.poll
		p.idle = append(p.idle, c) // Put would close the oldest
		c.idleSince = now - poll.Instant(age)
	}
	p.Sweep()
	if len(p.idle) != 2 {
		t.Errorf("%d connections are left, want 2", len(p.idle))
	}
	for i, peer := range peers[:2] {
		if n, err := peer.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Errorf("connection %d is still open", i)
		}
	}
	if c := p.Get(now, false); c == nil || !c.Reused {
		t.Error("the youngest is gone, too")
	} else {
		c.Close()
	}
	p.Sweep()
	if err := p.Close(); err != nil || len(p.idle) != 0 {
		t.Error(err)
	}
	p.Sweep()
}
