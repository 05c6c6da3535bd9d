// Package tcpdoor relays the connections of tcp listeners to services, with the same balancing and health as the HTTP
// door. One connection can be read top to bottom in relay and over. A connection is one goroutine until both sides are connected; from then on it is a tunnel, which on the own
// poller has a goroutine only while bytes move.
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
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/listener"
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
	generation uint64
	service    *services.Service
	tls        *tls.Config
	rules      listener.Rules
	handshake  time.Duration
	idle       time.Duration
	open       func(net.Conn) *poll.Conn
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
		s := &site{
			generation: generation, service: all[l.Service.Name], tls: serverTLS, rules: listener.RulesOf(name, l, m),
			handshake: time.Duration(l.Timeouts.RequestHeader), idle: time.Duration(l.Timeouts.Idle), open: poll.Adopt,
		}
		if l.IO == config.IONetpoll {
			s.open = poll.New
		}
		t.sites[name] = s
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
	*listener.Hall[*conn]
	options Options
}

type conn struct {
	listener.Entry
	door       *Door
	site       *site
	client     net.Conn
	ctx        context.Context // until it is a tunnel
	cancel     context.CancelFunc
	introduced atomic.Bool // nothing is read any more without ctx
	tunnelled  atomic.Pointer[tunnel.Tunnel]

	// Owned by who serves it: Begin's goroutine, or the tunnel when it is over.
	began  poll.Instant
	record observe.Record
	lease  upstream.Lease // zero: none is held
}

// New makes a Door.
func New(o Options) *Door {
	d := &Door{options: o}
	d.Hall = listener.New(listener.Options[*conn]{Open: d.open, Log: o.Log})
	return d
}

// open makes a connection of one that was accepted.
func (d *Door) open(nc net.Conn, name string) (*conn, *listener.Rules) {
	s := d.options.Tables().sites[name]
	if s == nil {
		return nil, nil
	}
	c := &conn{door: d, site: s, client: s.open(nc)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, &s.rules
}

// Begin serves the connection until it is a tunnel, or has ended.
func (c *conn) Begin() {
	left := false
	defer func() {
		if r := recover(); r != nil {
			c.door.bug(c, r, debug.Stack())
		}
		if !left {
			c.end()
		}
	}()
	if c.door.Introduce(c, c.client, &c.site.rules) {
		c.introduced.Store(true)
		left = c.relay()
	}
}

// bug reports a broken invariant that a connection ran into.
func (d *Door) bug(c *conn, r any, stack []byte) {
	d.options.Log.Error("BUG: panic while relaying a connection", "panic", fmt.Sprint(r), "listener", c.Listener.Name, "stack", string(stack))
}

// end gives back what the connection has.
func (c *conn) end() {
	c.lease.Done(upstream.Outcome{Ignored: true}) // unless it was given back with something better
	c.Refuse()
	c.door.Leave(c)
}

// Refuse closes the connection.
func (c *conn) Refuse() {
	c.cancel()
	_ = c.client.Close()
}

// Retire does nothing: what is relayed has no place where it could be interrupted.
func (c *conn) Retire() {}

// Cut ends the connection.
func (c *conn) Cut() {
	c.cancel()
	if t := c.tunnelled.Load(); t != nil {
		t.Cut(context.Canceled)
	}
	if !c.introduced.Load() {
		_ = c.client.SetReadDeadline(time.Unix(1, 0))
	}
}

// relay is the life of a connection up to its tunnel: sign the client in to TLS, find an endpoint. left says that the connection is a tunnel's, and that the caller may not even
// look at it: the rest is over's.
func (c *conn) relay() (left bool) {
	s, d, record := c.site, c.door, &c.record
	c.began = poll.Now()
	*record = observe.Record{Time: c.began.Time(), Door: observe.DoorTCP, Listener: c.Listener.Name, ClientAddress: c.Peer, Service: s.service.Name, Generation: s.generation}
	client := c.client
	if s.tls != nil {
		tc := tls.Server(client, s.tls)
		handshake, done := timeout(c.ctx, s.handshake)
		err := tc.HandshakeContext(handshake)
		done()
		if err != nil {
			c.Series.Refused("tls_handshake")
			return false
		}
		client = tc
		if chains := tc.ConnectionState().VerifiedChains; len(chains) > 0 {
			record.ClientCertificate = chains[0][0].Subject.String()
		}
	}
	up, lease, f := d.connect(c.ctx, c, s, record)
	if f != nil {
		record.Fault = f.Kind.String()
		d.options.Log.Debug("cannot relay a connection", "listener", c.Listener.Name, "error", f.Error())
		c.write()
		return false
	}
	c.lease = lease
	record.Upstream = poll.Now().Sub(c.began)
	idle := s.idle
	if s.service.TimeoutIdle == 0 || idle == 0 {
		idle = max(idle, s.service.TimeoutIdle)
	}
	t := tunnel.New(client, up, idle, c.over)
	c.tunnelled.Store(t)
	t.Start()
	return true
}

// over is the end of the tunnel.
func (c *conn) over(end tunnel.Result) {
	defer c.end()
	defer func() {
		if r := recover(); r != nil {
			c.door.bug(c, r, debug.Stack())
		}
	}()
	var bug *tunnel.Bug
	if errors.As(end.Err, &bug) {
		c.door.bug(c, bug.Value, bug.Stack)
		return
	}
	c.record.BytesIn, c.record.BytesOut = end.There, end.Back
	c.Series.Relayed(end.There, end.Back)
	c.write()
	// What ends a relayed connection, and whose doing it was, cannot be told from outside.
	c.lease.Done(upstream.Outcome{Latency: c.record.Upstream, Ignored: end.Err != nil})
	c.lease = upstream.Lease{}
}

// write writes the access record.
func (c *conn) write() {
	c.record.Total = poll.Now().Sub(c.began)
	if access := c.door.options.Access; access != nil {
		access.Write(&c.record)
	}
}

// connect finds an endpoint that takes the connection. Nothing was sent, so any failure may be tried elsewhere.
func (d *Door) connect(ctx context.Context, c *conn, s *site, record *observe.Record) (net.Conn, upstream.Lease, *fault.Fault) {
	pick := upstream.Request{}
	if s.service.HashKey != "" { // of a connection only the client's address is known
		b := c.Peer.As16()
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
	if up, err = dial(ctx, s, lease.Endpoint.Address, c.Addresses(c.client)); err != nil {
		outcome = upstream.Outcome{Failed: ctx.Err() == nil, Ignored: ctx.Err() != nil}
		return nil, err
	}
	return up, nil
}

func dial(ctx context.Context, at *site, address string, client proxyproto.Header) (net.Conn, error) {
	s := at.service
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
	up := at.open(nc)
	if s.TLS == nil {
		return up, nil
	}
	tc := tls.Client(up, tlsconfig.ForAddress(s.TLS, address))
	if err := tc.HandshakeContext(ctx); err != nil {
		up.Close()
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
