package httpdoor

import (
	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h2"
	"github.com/menshen-gateway/menshen/internal/httpdoor/forward"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// trial is the attempt at an endpoint, and what it has to know of those before it.
type trial struct {
	pick     upstream.Request
	first    *fault.Fault   // what went wrong with the first attempt
	lease    upstream.Lease // zero: none is held
	up       *forward.Conn  // nil: none is used
	began    poll.Instant
	before   poll.Instant // the head of the answer must be there
	unheard  int          // new connections on which the endpoint did not act
	mayLeave bool         // the answer may be waited for without a goroutine
}

// answerPending is no fault: the request was sent, and its answer is waited for without a goroutine. That is so for most requests, for it saves falling asleep
// and waking up, on a stack that has left the cache meanwhile: 0.3 of 8 microseconds, and all of the stack where endpoints are slow.
var answerPending = new(fault.Fault)

// forward has an endpoint answer, and another one when the first failed safely.
func (x *exchange) forward() *fault.Fault {
	if f := x.takeWhole(); f != nil {
		return f
	}
	x.share = x.route.choose()
	if f := x.appendTarget(); f != nil {
		return f
	}
	if key := x.share.target.Key; key.Kind != forward.NoKey {
		x.trial.pick.Hash, x.trial.pick.Hashed = x.hash(key), true
	}
	return x.try()
}

// try asks endpoints, one after the other, until one has answered or no other may be asked.
func (x *exchange) try() *fault.Fault {
	t := &x.trial
	for {
		lease, err := x.share.target.Set.Pick(t.pick)
		if err != nil {
			if t.first != nil { // nobody else is left to try: what happened to the first attempt says more
				return t.first
			}
			f := *fault.Of(err)
			f.Kind = fault.NoEndpoint // that endpoints are full is not the client's doing
			return &f
		}
		if lease.Endpoint == t.pick.Exclude { // there is no other: asking it again would only double the client's wait
			lease.Done(upstream.Outcome{Ignored: true})
			return t.first
		}
		x.endpoint, t.lease = lease.Endpoint, lease
		f := x.attempt()
		if f == answerPending {
			return f
		}
		if over, f := x.judge(f); over {
			return f
		}
	}
}

// judge says whether the attempt that ended in f, or well, was the last, and how the request ends then.
func (x *exchange) judge(f *fault.Fault) (over bool, _ *fault.Fault) {
	t := &x.trial
	if f == nil {
		return true, nil
	}
	if t.first == nil {
		t.first = f
	}
	if !x.mayRetry(f) {
		return true, f
	}
	x.retries++
	if t.pick.Exclude != nil {
		t.pick.Tried = append(t.pick.Tried, t.pick.Exclude)
	}
	t.pick.Exclude = x.endpoint
	return false, nil
}

// mayRetry decides from blame, method, body and budget alone.
func (x *exchange) mayRetry(f *fault.Fault) bool {
	switch {
	case x.headSent, f.Kind.Blame() != fault.Upstream, x.retries >= x.share.retries:
		return false
	case x.deadline != 0 && poll.Now() >= x.deadline:
		return false
	case !x.replayable():
		return false
	case !f.Unsent && !idempotent(x.request.Method):
		return false
	}
	return x.share.target.Set.AllowRetry()
}

// replayable says that the body, if there is one, is still whole.
func (x *exchange) replayable() bool {
	return x.body.framing == bodyNone || x.body.whole != nil || x.body.received == 0 && !x.body.complete && x.body.spill == nil
}

// bodyUnsent says that the request has a body of which nothing was sent: without it nobody can have acted on the request.
func (x *exchange) bodyUnsent() bool {
	return x.body.framing != bodyNone && x.body.whole == nil && x.body.received == 0
}

// idempotent lists the methods that may be sent twice (RFC 9110, 9.2.2).
func idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE":
		return true
	}
	return false
}

// attempt asks one endpoint and relays its answer.
func (x *exchange) attempt() *fault.Fault {
	t := &x.trial
	t.began, t.unheard = x.now, 0
	if x.asked {
		t.began = x.tick()
	} else {
		x.asked, x.upstream = true, 0
	}
	t.up = t.lease.Endpoint.Pool.(*forward.Pool).Get(t.began, !idempotent(x.request.Method))
	f := x.ask()
	if f == answerPending {
		return f
	}
	return x.settle(f)
}

// settle is the second half of an attempt: the head of the answer is there, or f says why not.
func (x *exchange) settle(f *fault.Fault) *fault.Fault {
	t := &x.trial
	x.upstream += x.now.Sub(t.began)
	outcome := upstream.Outcome{}
	if f == nil {
		outcome.Latency = max(1, x.now.Sub(t.began))
		outcome.Failed = x.response.Status >= 502 && x.response.Status <= 504
		if x.response.Status == 101 {
			x.beginTunnel()
			return nil
		}
		f = x.relay(t.up)
	} else if t.up != nil {
		t.up.Close()
	}
	if f != nil {
		outcome.Failed = f.Kind.Blame() == fault.Upstream
		outcome.Ignored = !outcome.Failed
	}
	x.tick()
	x.ticked = f == nil
	outcome.Ended = x.now.Time()
	lease := t.lease
	t.up, t.lease = nil, upstream.Lease{}
	lease.Done(outcome)
	return f
}

// forsake ends an attempt that a panic has broken off: neither lease nor connection may outlive it.
func (x *exchange) forsake() {
	t := &x.trial
	lease := t.lease
	t.lease = upstream.Lease{}
	lease.Done(upstream.Outcome{Ignored: true})
	if t.up != nil {
		t.up.Abort() // not Close: somebody may be sending on it, and the buffers are his
		t.up = nil
	}
}

// ask sends the request and reads the head of the final response. Interim responses are passed on.
func (x *exchange) ask() *fault.Fault {
	t, c := &x.trial, x.conn
	for {
		if t.up == nil {
			up, f := t.lease.Endpoint.Pool.(*forward.Pool).Dial(x.deadline, x.site.open)
			x.tick()
			if f != nil {
				return f
			}
			t.up = up
		}
		t.up.WritePatience(x.share.target.TimeoutIdle)
		c.hold(&c.endpoint, t.up.Poll())
		f := x.exchangeHeads()
		if f == answerPending {
			return f
		}
		if again, f := x.heard(f); !again {
			return f
		}
	}
}

// heard is told that the final head is there, or why not. It says whether the endpoint is to be asked again, on a new connection.
func (x *exchange) heard(f *fault.Fault) (again bool, _ *fault.Fault) {
	t, c := &x.trial, x.conn
	c.hold(&c.endpoint, nil)
	if f == nil {
		x.now = max(x.now, t.up.Poll().Recent()) // when the answer came
		return false, nil
	}
	x.tick()
	// An idle connection that the endpoint closed just before we used it says nothing about the endpoint. Nor does a stream that
	// it has not acted on (GOAWAY, REFUSED_STREAM), when that happens once.
	if !t.up.Reused {
		t.unheard++
	}
	if !t.up.Reused && (!f.Unsent || t.unheard > 1) || f.Kind != fault.UpstreamBroken || x.headSent || !x.replayable() || !f.Unsent && !x.bodyUnsent() && !idempotent(x.request.Method) {
		return false, f
	}
	t.up.Close()
	t.up = nil
	return true, nil
}

// awaitAnswer waits for the answer to the pending request, and carries that to its end. left says that the poller has the connection, and
// calls Resume: it is not ours any more, not even to look at. keep says that the connection may carry another request.
func (c *conn) awaitAnswer() (left, keep bool) {
	x := c.x
	left, f := x.trial.up.AwaitAnswer()
	if left {
		return true, false
	}
	x.pending, x.trial.mayLeave = false, false
	if f == nil {
		f = x.readHeads()
	}
	again, f := x.heard(f)
	if again {
		f = x.ask()
	}
	over, f := x.judge(x.settle(f))
	if !over {
		f = x.try()
	}
	return false, x.conclude(f)
}

// exchangeHeads writes the request (its head and, when it was read whole, its body in one write) and reads response heads until
// the final one.
func (x *exchange) exchangeHeads() *fault.Fault {
	r, t, up := &x.request, &x.trial, x.trial.up
	x.response.Reset() // an attempt may have left half a head
	head := forward.RequestHead{Hop: &x.hop, Target: x.target, Host: r.Host, Chunked: x.body.unmeasured(), Declare: x.body.declare, Length: len(x.body.whole)}
	if w := x.route.rewrite; w != nil && w.host != "" {
		head.Host = []byte(w.host)
	}
	if x.upgrades() {
		head.Upgrade = r.Upgrade
	}
	if e := &x.policy.ToEndpoint; x.policing && !e.Empty() {
		head.Removal, head.Extra = forward.Removal{Removes: e.Removes, Firsts: e.Firsts()}, e.Lines()
	}
	if len(head.Host) == 0 { // HTTP/1.0 without Host
		head.Host = []byte(x.endpoint.Address)
	}
	x.out = forward.AppendRequest(x.out[:0], r, &head)
	t.before = poll.Earlier(x.now.Add(x.share.target.TimeoutFirst), x.deadline)
	opening := forward.Opening{Head: x.out, Whole: x.body.whole, More: !x.body.complete, Chunked: x.body.unmeasured(), Now: x.now, Before: t.before}
	if x.conn.stream == nil {
		opening.Spare = x.in[x.w:] // nothing is read from the client before the answer is passed on, but into other memory
	}
	if t.mayLeave {
		opening.Server = x.conn
	}
	err := up.Open(opening)
	x.out = x.out[:0]
	if err == forward.ErrPending {
		return answerPending
	}
	if f, ok := err.(*fault.Fault); ok { // the answer did not come
		return f
	}
	if err != nil {
		f := fault.Wrap(fault.UpstreamBroken, "the service closed the connection before it had the whole request", err)
		f.Unsent = up.Reused && x.body.framing == bodyNone || h2.Unsent(err) // nothing of an unfinished head can have been acted on
		return f
	}
	if !x.body.complete {
		x.startPump(up)
		t.before = x.answerBefore(poll.Now())
	}
	return x.readHeads()
}

// readHeads reads response heads until the final one.
func (x *exchange) readHeads() *fault.Fault {
	r, t, up := &x.request, &x.trial, x.trial.up
	for {
		f := up.ReadHead(&x.response, r.Method, t.before)
		if f != nil {
			if f.Kind == fault.UpstreamTimeout && x.pumping != nil {
				now := poll.Now()
				if t.before = x.answerBefore(now); t.before > now { // the body took its time
					continue
				}
			}
			if own, _ := x.joinPump(up, false); own != nil && own.Kind != fault.UpstreamBroken {
				return own
			}
			return f
		}
		switch status := x.response.Status; {
		case status == 100:
			x.relayContinue()
		case status == 101:
			if !x.upgrades() {
				x.joinPump(up, false)
				return fault.New(fault.UpstreamBroken, "the service changed the protocol without being asked")
			}
			return nil
		case status < 200:
			if r.Minor > 0 {
				if f := x.relayInterim(); f != nil {
					x.joinPump(up, false)
					return f
				}
			}
		default:
			return nil
		}
	}
}
