package httpdoor

import (
	"errors"
	"slices"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/httpdoor/forward"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/traffic/tunnel"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// passage is what is left of a connection's last exchange while it is a tunnel. An exchange with its buffers would be most of what a tunnel takes.
type passage struct {
	conn   *conn
	up     *forward.Conn
	lease  upstream.Lease
	series *observe.HTTPSeries
	began  poll.Instant
	record observe.Record // but for what is known at the end
}

// beginTunnel passes the endpoint's consent to change the protocol on to the client, with what either has sent already. The rest comes when all that
// was called for the request has returned (conn.tunnel).
func (x *exchange) beginTunnel() {
	t := &x.trial
	x.keep, x.tunnelling = false, true
	x.status = 101
	head := forward.ResponseHead{Hop: &x.hop, Upgrade: true, Total: x.total(), Upstream: x.upstream}
	if e := &x.policy.ToClient; x.policing && !e.Empty() {
		head.Removal, head.Extra = forward.Removal{Removes: e.Removes, Firsts: e.Firsts()}, e.Lines()
	}
	x.out = forward.AppendResponse(x.out[:0], &x.response, &head)
	x.out = append(x.out, t.up.Leftover()...)
	if x.fault = x.flush(); x.fault == nil && x.w > x.r { // the client did not wait for the answer
		if err := t.up.Write(x.in[x.r:x.w]); err != nil {
			x.fault = fault.Wrap(fault.UpstreamBroken, "the service closed the tunnel", err)
		} else {
			x.bytesIn += int64(x.w - x.r)
			x.r = x.w
		}
	}
	if x.fault != nil {
		x.tunnelling = false
		t.up.Close()
		t.lease.Done(upstream.Outcome{})
		t.up, t.lease = nil, upstream.Lease{}
	}
}

// tunnel relays bytes in both directions until both ends have closed, or nothing moves for the idle timeout. The lease lasts as long. The connection belongs to
// the tunnel from here on: whoever calls this may not even look at it.
func (c *conn) tunnel() {
	x := c.x
	p := &passage{conn: c, up: x.trial.up, lease: x.trial.lease, series: x.series(), began: x.began}
	x.account(&p.record)
	own(&p.record)
	idle := max(x.share.target.TimeoutIdle, x.site.timeoutIdle)
	x.trial.up, x.trial.lease = nil, upstream.Lease{}
	p.up.Slim()
	x.release()
	c.x = nil
	t := tunnel.New(c.net, p.up.NetConn(), idle, p.over)
	c.tunnelled.Store(t)
	t.Start()
}

// own takes a record's views into buffers that others get out of them, in one piece of memory.
func own(r *observe.Record) {
	views := []*[]byte{&r.RequestID, &r.Method, &r.Host, &r.Path, &r.UserAgent}
	size := 0
	for _, v := range views {
		size += len(*v)
	}
	all := make([]byte, 0, size)
	for _, v := range views {
		all = append(all, *v...)
		*v = slices.Clip(all[len(all)-len(*v):])
	}
}

// over is the end of the tunnel, of its access record and of the connection.
func (p *passage) over(end tunnel.Result) {
	c, r := p.conn, &p.record
	defer c.door.Leave(c)
	defer func() {
		if r := recover(); r != nil {
			c.door.bug(r, nil)
		}
	}()
	p.lease.Done(upstream.Outcome{})
	p.up.Close()
	var bug *tunnel.Bug
	if errors.As(end.Err, &bug) {
		p.series.Observe(0, 0, 0, 0, 0, 0, fault.Internal.String())
		c.door.reportBug(bug.Value, bug.Stack, string(r.RequestID), r.Route)
		return
	}
	r.Total = poll.Now().Sub(p.began)
	r.BytesIn += end.There
	r.BytesOut += end.Back
	p.series.Observe(r.Status, r.Total, r.Upstream, r.BytesIn, r.BytesOut, r.Retries, "")
	if access := c.door.options.Access; access != nil {
		access.Write(r)
	}
}
