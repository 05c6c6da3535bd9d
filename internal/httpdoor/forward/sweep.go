package forward

import "github.com/menshen-gateway/menshen/internal/poll"

// Sweep closes the connections that have been idle for too long. Get would do so with those that it meets; this is for an endpoint
// that nobody asks any more. Those of HTTP/2 close themselves.
func (p *Pool) Sweep() {
	now := poll.Now()
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now.Sub(p.idle[n].idleSince) > idleTimeout { // the last used is at the end
		n++
	}
	old := append([]*Conn(nil), p.idle[:n]...)
	kept := copy(p.idle, p.idle[n:])
	clear(p.idle[kept:])
	p.idle = p.idle[:kept]
	p.mu.Unlock()
	for _, c := range old {
		c.Close()
	}
}
