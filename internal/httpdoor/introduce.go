package httpdoor

import (
	"net/netip"

	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/proxyproto"
)

// introduce reads the PROXY protocol header with which a trusted load balancer begins a connection: from here on the client is
// the one that it names. It says whether the connection goes on.
func (c *conn) introduce() bool {
	s := c.pin()
	c.poll.ReadBefore(poll.Now().Add(s.timeoutHead))
	h, err := proxyproto.Read(c.poll)
	if err != nil {
		s.connectionsSeries.Refused("proxy_protocol")
		c.door.options.Log.Debug("no PROXY protocol header", "listener", c.listening.name, "peer", c.peer, "error", err)
		return false
	}
	if !h.Known() { // the load balancer speaks for itself
		return true
	}
	c.peer = h.From.Addr()
	if !c.door.count(c, s.connectionsAlike) {
		s.connectionsSeries.Refused("connections_per_address")
		return false
	}
	return true
}

// count counts a connection with those of its client's address; false when there are too many.
func (d *Door) count(c *conn, most int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if most > 0 && c.listening.alike[c.peer] >= most {
		return false
	}
	c.listening.alike[c.peer]++
	c.counted = c.peer
	return true
}

// uncount takes that back. Door.mu is held.
func (c *conn) uncount() {
	if c.counted == (netip.Addr{}) {
		return
	}
	alike := c.listening.alike
	if alike[c.counted]--; alike[c.counted] <= 0 {
		delete(alike, c.counted)
	}
}
