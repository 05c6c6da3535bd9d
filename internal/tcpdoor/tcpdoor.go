// Package tcpdoor relays the connections of tcp listeners to services, with the same balancing and health as the HTTP
// door. One connection can be read top to bottom in relay. A connection is one goroutine, and a second one for its other
// direction.
//
// Locks: Door.mu guards the set of open connections and is held for nothing else.
//
// It refuses to look at what it relays.
package tcpdoor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/proxyproto"
	"github.com/menshen-gateway/menshen/internal/tlsconfig"
	"github.com/menshen-gateway/menshen/internal/traffic/balance"
	"github.com/menshen-gateway/menshen/internal/traffic/services"
	"github.com/menshen-gateway/menshen/internal/traffic/tunnel"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// Tables is the tcp part of one generation. It is immutable.
type Tables struct {
	Generation uint64
	sites      map[string]*site
}

// site is what one listener serves.
type site struct {
	generation  uint64
	service     *services.Service
	tls         *tls.Config
	proxies     proxyproto.Trust // whose connections begin with a PROXY protocol header
	connections int
	alike       int // per client address
	handshake   time.Duration
	idle        time.Duration
	series      *observe.ListenerSeries
}

// Compile makes the Tables of a config whose services are compiled.
func Compile(c *config.Config, generation uint64, all map[string]*services.Service, m *observe.Metrics) (*Tables, config.Problems) {
	t := &Tables{Generation: generation, sites: map[string]*site{}}
	var problems config.Problems
	for name, l := range c.Listeners {
		if l.Protocol != config.ProtocolTCP {
			continue
		}
		serverTLS, unusable := tlsconfig.Server(l.TLS)
		for _, p := range unusable {
			problems = append(problems, c.Problem(strings.TrimSuffix("listeners."+name+".tls."+p.Field, "."), "%s", p.Message))
		}
		t.sites[name] = &site{
			generation: generation, service: all[l.Service.Name], tls: serverTLS, proxies: l.ProxyProtocol,
			connections: l.Limits.Connections, alike: l.Limits.ConnectionsPerAddress,
			handshake: time.Duration(l.Timeouts.RequestHeader), idle: time.Duration(l.Timeouts.Idle),
			series: m.Listener(name, string(l.Protocol)),
		}
	}
	return t, problems
}

// Options are what a Door needs. All fields must be set.
type Options struct {
	Tables func() *Tables
	Log    *slog.Logger
	Access *observe.AccessLog
}

// Door relays the connections of any number of listeners.
type Door struct {
	options Options
	group   sync.WaitGroup

	mu    sync.Mutex
	conns map[*conn]struct{}
}

type conn struct {
	listener string
	client   net.Conn
	from, to netip.AddrPort // the client's address and the one that it asked for; guarded by Door.mu until they are known
	cancel   context.CancelFunc
}

// New makes a Door.
func New(o Options) *Door { return &Door{options: o, conns: map[*conn]struct{}{}} }

// Serve accepts connections for the named listener until ln is closed or ctx ends. Connections go on after it returns.
func (d *Door) Serve(ctx context.Context, ln net.Listener, listener string) error {
	delay := time.Duration(0)
	for {
		nc, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return nil
			}
			delay = min(max(2*delay, 5*time.Millisecond), time.Second) // out of descriptors: do not spin
			d.options.Log.Warn("cannot accept a connection", "listener", listener, "error", err, "retry_in", delay)
			select {
			case <-time.After(delay):
			case <-ctx.Done():
				return nil
			}
			continue
		}
		delay = 0
		d.accept(nc, listener)
	}
}

func (d *Door) accept(nc net.Conn, listener string) {
	s := d.options.Tables().sites[listener]
	if s == nil { // the listener left the config a moment ago
		nc.Close()
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &conn{listener: listener, client: nc, cancel: cancel}
	from, to := addressOf(nc.RemoteAddr()), addressOf(nc.LocalAddr())
	announced := s.proxies.Has(from.Addr()) // then it is introduced first, and counted as the client's
	if !announced {
		c.from, c.to = from, to
	}
	d.mu.Lock()
	refused := ""
	switch all, alike := d.alike(c, s); {
	case s.connections > 0 && all >= s.connections:
		refused = "connections"
	case !announced && s.alike > 0 && alike >= s.alike:
		refused = "connections_per_address"
	default:
		d.conns[c] = struct{}{}
		d.group.Add(1)
	}
	d.mu.Unlock()
	if refused != "" {
		s.series.Refused(refused)
		cancel()
		nc.Close()
		return
	}
	s.series.Accepted()
	go func() { // ends with the connection; Drain waits for it
		defer d.group.Done()
		defer func() {
			if r := recover(); r != nil {
				d.options.Log.Error("BUG: panic while relaying a connection", "panic", fmt.Sprint(r), "listener", listener)
			}
			cancel()
			nc.Close()
			s.series.Closed()
			d.mu.Lock()
			delete(d.conns, c)
			d.mu.Unlock()
		}()
		if announced && !d.introduce(ctx, c, s, from, to) {
			return
		}
		d.relay(ctx, c, s)
	}()
}

// alike counts the other connections of c's listener, and of these those of its client's address; nothing when there is no bound. Door.mu
// is held.
func (d *Door) alike(c *conn, s *site) (all, alike int) {
	if s.connections <= 0 && s.alike <= 0 {
		return 0, 0
	}
	for other := range d.conns {
		if other != c && other.listener == c.listener {
			all++
			if other.from.IsValid() && other.from.Addr() == c.from.Addr() {
				alike++
			}
		}
	}
	return all, alike
}

// introduce reads the PROXY protocol header with which a trusted load balancer begins a connection. It says whether the
// connection goes on.
func (d *Door) introduce(ctx context.Context, c *conn, s *site, from, to netip.AddrPort) bool {
	ctx, done := timeout(ctx, s.handshake)
	defer done()
	stop := context.AfterFunc(ctx, func() { _ = c.client.SetReadDeadline(time.Unix(1, 0)) })
	h, err := proxyproto.Read(c.client)
	if err != nil || !stop() {
		s.series.Refused("proxy_protocol")
		d.options.Log.Debug("no PROXY protocol header", "listener", c.listener, "peer", from.Addr(), "error", err)
		return false
	}
	if h.Known() {
		from, to = h.From, h.To
	}
	d.mu.Lock()
	c.from, c.to = from, to
	_, alike := d.alike(c, s)
	many := h.Known() && s.alike > 0 && alike >= s.alike
	if many {
		c.from = netip.AddrPort{} // nobody's, for those who count
	}
	d.mu.Unlock()
	if many {
		s.series.Refused("connections_per_address")
		return false
	}
	return true
}

// addressOf gives an address in its shortest form; the zero value for what is no TCP address.
func addressOf(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		at := tcp.AddrPort()
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return netip.AddrPort{}
}

// relay is the whole life of one connection: sign the client in to TLS, find an endpoint, copy both ways, write the record.
func (d *Door) relay(ctx context.Context, c *conn, s *site) {
	began := poll.Now()
	record := observe.Record{Time: began.Time(), Door: observe.DoorTCP, Listener: c.listener, ClientAddress: c.from.Addr(), Service: s.service.Name, Generation: s.generation}
	client := c.client
	if s.tls != nil {
		tc := tls.Server(client, s.tls)
		handshake, done := timeout(ctx, s.handshake)
		err := tc.HandshakeContext(handshake)
		done()
		if err != nil {
			s.series.Refused("tls_handshake")
			return
		}
		client = tc
		if chains := tc.ConnectionState().VerifiedChains; len(chains) > 0 {
			record.ClientCertificate = chains[0][0].Subject.String()
		}
	}
	up, lease, f := d.connect(ctx, c, s, &record)
	if f != nil {
		record.Fault = f.Kind.String()
		d.options.Log.Debug("cannot relay a connection", "listener", c.listener, "error", f.Error())
	} else {
		record.Upstream = poll.Now().Sub(began)
		idle := s.idle
		if s.service.TimeoutIdle == 0 || idle == 0 {
			idle = max(idle, s.service.TimeoutIdle)
		}
		outcome := upstream.Outcome{Ignored: true}
		defer func() { lease.Done(outcome) }() // also when a panic passes by: the lease must not outlive it
		in, out, err := tunnel.Copy(ctx, client, up, idle, nil)
		record.BytesIn, record.BytesOut = in, out
		// What ends a relayed connection, and whose doing it was, cannot be told from outside.
		outcome = upstream.Outcome{Latency: record.Upstream, Ignored: err != nil}
		s.series.Relayed(in, out)
	}
	record.Total = poll.Now().Sub(began)
	if d.options.Access != nil {
		d.options.Access.Write(&record)
	}
}

// connect finds an endpoint that takes the connection. Nothing was sent, so any failure may be tried elsewhere.
func (d *Door) connect(ctx context.Context, c *conn, s *site, record *observe.Record) (net.Conn, upstream.Lease, *fault.Fault) {
	pick := upstream.Request{}
	if s.service.HashKey != "" { // of a connection only the client's address is known
		b := c.from.Addr().As16()
		pick.Hash, pick.Hashed = balance.Key(b[:]), true
	}
	var last *fault.Fault
	for {
		lease, err := s.service.Set.Pick(pick)
		if err != nil {
			if last != nil {
				return nil, lease, last
			}
			return nil, lease, fault.Of(err)
		}
		if lease.Endpoint == pick.Exclude { // there is no other
			lease.Done(upstream.Outcome{Ignored: true})
			return nil, lease, last
		}
		record.Endpoint = lease.Endpoint.Address
		up, err := dialLeased(ctx, c, s, lease)
		if err == nil {
			return up, lease, nil
		}
		last = fault.Wrap(fault.ConnectFailed, "the service could not be reached", err)
		if ctx.Err() != nil || record.Retries >= s.service.Retries || !s.service.Set.AllowRetry() {
			return nil, lease, last
		}
		record.Retries++
		if pick.Exclude != nil {
			pick.Tried = append(pick.Tried, pick.Exclude)
		}
		pick.Exclude = lease.Endpoint
	}
}

// dialLeased connects to the endpoint of a lease, which is given back unless it succeeds.
func dialLeased(ctx context.Context, c *conn, s *site, lease upstream.Lease) (up net.Conn, err error) {
	outcome := upstream.Outcome{Ignored: true}
	defer func() {
		if up == nil {
			lease.Done(outcome)
		}
	}()
	if up, err = dial(ctx, s.service, lease.Endpoint.Address, proxyproto.Header{From: c.from, To: c.to}); err != nil {
		outcome = upstream.Outcome{Failed: ctx.Err() == nil, Ignored: ctx.Err() != nil}
		return nil, err
	}
	return up, nil
}

func dial(ctx context.Context, s *services.Service, address string, client proxyproto.Header) (net.Conn, error) {
	ctx, cancel := timeout(ctx, s.TimeoutConnect)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect %s (%s): %w", s.Name, address, err)
	}
	if s.ProxyProtocol != 0 { // outside of TLS
		if _, err := nc.Write(client.AppendTo(nil, s.ProxyProtocol)); err != nil {
			nc.Close()
			return nil, fmt.Errorf("connect %s (%s): PROXY protocol: %w", s.Name, address, err)
		}
	}
	if s.TLS == nil {
		return nc, nil
	}
	tc := tls.Client(nc, tlsconfig.ForAddress(s.TLS, address))
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("connect %s (%s): tls: %w", s.Name, address, err)
	}
	return tc, nil
}

func timeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d > 0 {
		return context.WithTimeout(ctx, d)
	}
	return context.WithCancel(ctx)
}

// Drain waits until the connections of a listener have ended by themselves, and cuts those that are left when ctx ends:
// what is relayed has no place where it could be interrupted. An empty name means all listeners.
func (d *Door) Drain(ctx context.Context, listener string) error { return d.Retire(listener)(ctx) }

// Retire is the first half of Drain: it notes whose connections they are, and wait does the rest. A listener that begins
// to serve under the same name in between has nothing to do with it.
func (d *Door) Retire(listener string) (wait func(context.Context) error) {
	left := d.open(listener)
	return func(ctx context.Context) error {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			if left = d.stillOpen(left); len(left) == 0 {
				return ctx.Err()
			}
			<-tick.C
			if ctx.Err() != nil {
				for _, c := range left {
					c.cancel()
				}
			}
		}
	}
}

// stillOpen gives those of the connections that have not ended.
func (d *Door) stillOpen(conns []*conn) []*conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(conns, func(c *conn) bool {
		_, open := d.conns[c]
		return !open
	})
}

func (d *Door) open(listener string) []*conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []*conn
	for c := range d.conns {
		if listener == "" || c.listener == listener {
			all = append(all, c)
		}
	}
	return all
}
