package listener

import (
	"net"
	"net/netip"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/proxyproto"
)

// Rules are what the config says of a listener's connections, whatever they speak.
type Rules struct {
	Connections  int              // open at a time; 0: no bound
	PerAddress   int              // of them, for one client address
	Proxies      proxyproto.Trust // whose connections begin with a PROXY protocol header
	Introduction time.Duration    // how long that may take; 0: no bound
	Series       *observe.ListenerSeries
}

// RulesOf gives the rules of a listener.
func RulesOf(name string, l *config.Listener, m *observe.Metrics) Rules {
	return Rules{
		Connections: l.Limits.Connections, PerAddress: l.Limits.ConnectionsPerAddress,
		Proxies: l.ProxyProtocol, Introduction: time.Duration(l.Timeouts.RequestHeader),
		Series: m.Listener(name, string(l.Protocol)),
	}
}

// Entry is what a Hall keeps of a connection. What is exported is set before Begin; Peer changes once, in Introduce.
type Entry struct {
	Listener *Listener
	Series   *observe.ListenerSeries
	Peer     netip.Addr // the client's side; behind a trusted load balancer what its PROXY protocol header says

	introduced *proxyproto.Header // nil: by nobody
	announced  bool               // it begins with a header
	counted    bool               // in Listener.alike; guarded by Hall.mu
}

func (e *Entry) entry() *Entry { return e }

// Introduce reads the PROXY protocol header with which a trusted load balancer begins a connection, if it is one: from here on
// the client is the one that it names. nc is the connection without TLS. It says whether the connection goes on; if not, it is
// counted as refused, and the door ends it.
func (h *Hall[C]) Introduce(c C, nc net.Conn, r *Rules) bool {
	e := c.entry()
	if !e.announced {
		return true
	}
	if r.Introduction > 0 {
		_ = nc.SetReadDeadline(time.Now().Add(r.Introduction))
	}
	header, err := proxyproto.Read(nc)
	if err != nil {
		r.Series.Refused(notIntroduced)
		h.options.Log.Debug("no PROXY protocol header", "listener", e.Listener.Name, "peer", e.Peer, "error", err)
		return false
	}
	_ = nc.SetReadDeadline(time.Time{})
	if !header.Known() { // the load balancer speaks for itself
		return true
	}
	e.introduced, e.Peer = &header, header.From.Addr()
	h.mu.Lock()
	room := h.countAlike(e, r)
	h.mu.Unlock()
	if !room {
		r.Series.Refused(tooManyAlike)
		c.Refuse()
	}
	return room
}

// Addresses gives both ends of the client's connection, as peers are told them. nc is the connection.
func (e *Entry) Addresses(nc net.Conn) proxyproto.Header {
	if e.introduced != nil {
		return *e.introduced
	}
	return proxyproto.Header{From: addressOf(nc.RemoteAddr()), To: addressOf(nc.LocalAddr())}
}

// addressOf gives an address in its shortest form; the zero value for what is no TCP address.
func addressOf(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		at := tcp.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return netip.AddrPort{}
}
