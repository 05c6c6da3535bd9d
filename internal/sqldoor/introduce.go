package sqldoor

import (
	"net"
	"net/netip"
	"time"

	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/proxyproto"
)

// introduce reads the PROXY protocol header with which a trusted load balancer begins a connection: from here on the client is
// the one that it names. It comes before our greeting. It says whether there is going to be a session.
func (s *session) introduce() bool {
	l := s.listener
	s.client.ReadBefore(poll.Now().Add(time.Duration(l.timeouts.RequestHeader)))
	h, err := proxyproto.Read(s.client.Plain())
	if err != nil {
		s.series.Refused("proxy_protocol")
		s.door.o.Log.Debug("no PROXY protocol header", "listener", s.serving.listener, "peer", s.address, "error", err)
		return false
	}
	if !h.Known() { // the load balancer speaks for itself
		return true
	}
	s.introduced = &h
	s.address = h.From.Addr()
	d, most := s.door, l.limits.ConnectionsPerAddress
	d.mu.Lock()
	many := most > 0 && d.open(s.serving.listener, s.address) >= most
	if !many {
		s.serving.addresses[s.address]++
		s.counted = true
	}
	d.mu.Unlock()
	if many {
		s.series.Refused("connections_per_address")
		s.decline(errorTooMany)
	}
	return !many
}

// addresses gives both ends of the client's connection, as instances are told them.
func (s *session) addresses() proxyproto.Header {
	if s.introduced != nil {
		return *s.introduced
	}
	return proxyproto.Header{From: socketAddress(s.client.RemoteAddr()), To: socketAddress(s.client.LocalAddr())}
}

func socketAddress(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		at := tcp.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return netip.AddrPort{}
}
