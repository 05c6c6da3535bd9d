package httpdoor

import (
	"bytes"
	"errors"
	"net/netip"
	"os"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/httpdoor/forward"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/httpdoor/route"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/traffic/balance"
)

// serve reads a request and carries it to its access record. It says whether the connection may carry another.
func (x *exchange) serve() (keep bool) {
	s := x.conn.pin() // one generation for the whole request
	if !x.readHead(s) {
		return false
	}
	x.trial.mayLeave = x.conn.stream != nil
	return x.answerAndRecord(s)
}

// carry is serve for a request that whole has found to be here already. When it says no, the request may be pending.
func (x *exchange) carry(s *site) (keep bool) {
	x.accept(s, x.headTo-x.headFrom)
	x.trial.mayLeave = x.conn.polled
	return x.answerAndRecord(s)
}

// answerAndRecord is the life of one request, top to bottom, once its head is there. Where a request waits for an endpoint without a
// goroutine (it is pending then), it ends early, and conn.awaitAnswer goes on.
func (x *exchange) answerAndRecord(s *site) (keep bool) {
	c := x.conn
	c.served++
	if c.draining() || s.requestsMax > 0 && c.served >= s.requestsMax {
		x.keep = false
	}
	f := x.dispatch()
	if f == answerPending {
		x.pending = true
		return false
	}
	return x.conclude(f)
}

// conclude is the end of that life: f is what went wrong, if anything did.
func (x *exchange) conclude(f *fault.Fault) (keep bool) {
	if f != nil {
		x.fail(f)
	}
	if x.tunnelling {
		return false // its record comes at the end of the tunnel
	}
	if x.keep && !x.body.complete {
		x.drain()
		x.ticked = false
	}
	x.record()
	if x.keep {
		x.keepLeftover()
	}
	return x.keep
}

// dispatch finds the route and has its target answer. A fault means that no response was sent, or not all of it.
func (x *exchange) dispatch() *fault.Fault {
	r, s := &x.request, x.site
	if string(r.Method) == "CONNECT" || string(r.Method) == "TRACE" {
		x.allow = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
		if r.Method[0] == 'C' {
			x.keep = false // what a hasty client sends into the tunnel that it does not get is no request (RFC 9931, 5)
		}
		return fault.New(fault.MethodNotAllowed, "this gateway does not serve "+string(r.Method))
	}

	if x.conn.tls != nil {
		if f := x.misdirected(); f != nil {
			return f
		}
	}

	// What is matched is what is forwarded: the path is normalised first.
	path, changed, err := route.Normalize(x.normal[:0], r.Path)
	if err != nil {
		return fault.Wrap(fault.BadRequest, err.Error(), err)
	}
	if changed {
		x.normal = path
	}
	x.path = path
	x.match = route.Request{Method: r.Method, Host: r.Host, Path: path, Query: r.Query, Header: r}
	verdict := s.routes.Match(&x.match, &x.captures)
	if verdict.Rule >= 0 {
		if all := route.Readings(path); all != 0 && len(s.bound[verdict.Rule].shares) > 0 {
			if other, _ := s.readElsewhere(x.match, verdict.Rule, all); other >= 0 {
				return fault.New(fault.BadRequest, "the path can be read in two ways: decoded, or without ;parameters, it is another route's")
			}
		}
		x.route = s.bound[verdict.Rule]
		if x.route.timeout > 0 {
			x.deadline = x.began.Add(x.route.timeout)
		}
		if x.call {
			x.deadline = poll.Earlier(x.deadline, x.began.Add(x.callTimeout()))
		}
	}
	if s.policed {
		if done, f := x.police(verdict.Rule); done {
			return f
		}
	}
	switch b := x.route; {
	case verdict.NotAllowed:
		x.allow = verdict.Allow
		return fault.New(fault.MethodNotAllowed, "the resource does not have this method")
	case verdict.Rule < 0:
		return fault.New(fault.NoRoute, "no route matches this request")
	case r.ContentLength > s.bodyBytes && s.bodyBytes > 0:
		return fault.New(fault.TooLarge, "the request body is larger than allowed")
	case b.respond != nil:
		x.answer(b.respond.status, b.respond.fields, b.respond.body)
		return nil
	case b.redirect != nil:
		fields := append(make([]byte, 0, 256), "Location: "...)
		fields, f := x.appendLocation(fields, b.redirect)
		if f != nil {
			return f
		}
		x.answer(b.redirect.status, append(fields, '\r', '\n'), nil)
		return nil
	case len(b.shares) == 0: // every service of the split has weight 0
		return fault.New(fault.NoEndpoint, "no service takes this route's traffic")
	}
	return x.forward()
}

// upgrades says that the request asks for another protocol that we tunnel. HTTP/2 in clear text is none (RFC 9113, 3.1
// withdrew that way), and a body would be in the tunnel's way.
func (x *exchange) upgrades() bool {
	u := x.request.Upgrade
	return len(u) > 0 && x.conn.stream == nil && x.request.Minor > 0 && x.body.framing == bodyNone && !h1.ContainsToken(u, "h2c") && !h1.ContainsToken(u, "TLS/1.0")
}

// noHop adds nothing to a head.
var noHop forward.Hop

// relayInterim passes a 1xx response on (103 Early Hints, say).
func (x *exchange) relayInterim() *fault.Fault {
	if x.pumping != nil { // which may be about to say 100 (Continue)
		x.interim.Lock()
		defer x.interim.Unlock()
	}
	x.out = forward.AppendResponse(x.out[:0], &x.response, &forward.ResponseHead{Hop: &noHop, Total: -1, Upstream: -1})
	if f := x.headDone(false); f != nil {
		return f
	}
	return x.flush()
}

// relay sends the response to the client: its head, and its body as it comes.
func (x *exchange) relay(up *forward.Conn) *fault.Fault {
	resp, c := &x.response, x.conn
	c.hold(&c.relayed, up.Poll())
	defer c.hold(&c.relayed, nil)
	head := forward.ResponseHead{Hop: &x.hop, Total: x.total(), Upstream: x.upstream, Date: date(x.now)}
	x.answered()
	chunked := false
	switch {
	case resp.NoBody:
		head.Length = resp.Status != 204 // which has none (RFC 9110, 8.6)
	case resp.Chunked || resp.ContentLength < 0:
		if x.request.Minor == 0 {
			x.keep = false // HTTP/1.0: the end of the connection is the end of the body
		} else {
			chunked = c.stream == nil
		}
	default:
		head.Length = true
	}
	if c.draining() || x.pumping == nil && !x.drainable() {
		x.keep = false
	}
	// With a pump still running the connection may turn out to be unusable; saying so is decided now.
	head.Chunked, head.Close, head.KeepAlive = chunked, !x.keep, x.keep && x.request.Minor == 0
	if e := &x.policy.ToClient; x.policing && !e.Empty() {
		head.Removal, head.Extra = forward.Removal{Removes: e.Removes, Firsts: e.Firsts()}, e.Lines()
	}
	x.status = resp.Status
	c.torn = !chunked && !head.Length && c.stream == nil
	x.out = forward.AppendResponse(x.out[:0], resp, &head)
	up.StartBody(resp) // may exchange the buffer that the head lies in
	if f := x.headDone(up.Done()); f != nil {
		return x.abandon(up, f)
	}
	for {
		if !up.Buffered() && !up.Done() { // what follows has to be waited for: let go what there is
			if f := x.flush(); f != nil {
				return x.abandon(up, f)
			}
		}
		piece, f := up.Body(x.share.target.TimeoutIdle, x.deadline)
		if f != nil {
			_ = x.flush()
			x.headSent = true
			return x.abandon(up, f)
		}
		if len(piece) == 0 {
			break
		}
		f = nil
		if whole := x.joined(up, piece, chunked); whole != nil {
			f = x.write(whole)
		} else {
			f = x.send(piece, chunked)
		}
		if f != nil {
			return x.abandon(up, f)
		}
	}
	if f := x.bodyDone(chunked, up.Trailers()); f != nil {
		return x.abandon(up, f)
	}
	c.torn = false
	_, sent := x.joinPump(up, resp.Status < 400 && !resp.Close)
	c.hold(&c.relayed, nil) // before somebody else may have it
	if sent && !c.left.Load() && !c.claimed && x.body.complete && !resp.Close && up.Clean() {
		up.Put(x.now)
	} else {
		up.Close()
	}
	return nil
}

// headDone says that x.out holds a head, and whether nothing follows it. On an HTTP/1 connection it leaves in one write with what
// follows; a stream takes it over.
func (x *exchange) headDone(last bool) *fault.Fault {
	if x.conn.stream == nil {
		return nil
	}
	return x.streamHead(last)
}

// bodyDone sends what is queued and the end of the response.
func (x *exchange) bodyDone(chunked bool, trailers []h1.Field) *fault.Fault {
	if x.conn.stream != nil {
		return x.streamEnd(trailers)
	}
	if chunked {
		x.out = h1.AppendLastChunk(x.out, trailers)
	}
	return x.flush()
}

// abandon gives a response up half way.
func (x *exchange) abandon(up *forward.Conn, f *fault.Fault) *fault.Fault {
	if own, _ := x.joinPump(up, false); own != nil && own.Kind != fault.UpstreamBroken && f.Kind == fault.Draining {
		f = own // it was the pump that interrupted
	}
	up.Close()
	return f
}

// joinMin is the least piece that is not copied behind the head.
const joinMin = 2 << 10

// joined puts what is queued before a long piece of the body, where the endpoint's head was: they leave in one write. It gives nil when that cannot be.
func (x *exchange) joined(up *forward.Conn, piece []byte, chunked bool) []byte {
	if chunked || len(piece) < joinMin || x.conn.stream != nil {
		return nil
	}
	whole := up.Prepend(x.out, piece)
	if whole != nil {
		x.out = x.out[:0]
	}
	return whole
}

// send queues a piece of the body, or sends it at once when it is long.
func (x *exchange) send(piece []byte, chunked bool) *fault.Fault {
	if len(x.out)+len(piece)+frameRoom > cap(x.out) {
		if f := x.flush(); f != nil {
			return f
		}
	}
	if !chunked {
		if len(piece) > cap(x.out) {
			return x.write(piece)
		}
		x.out = append(x.out, piece...)
		return nil
	}
	if len(piece)+frameRoom > cap(x.out) {
		poll.Put(x.out)
		x.out = poll.GetLarge()[:0]
		for len(piece)+frameRoom > cap(x.out) { // a piece is at most as long as the buffer it was read into
			part := piece[:cap(x.out)-frameRoom]
			if f := x.send(part, true); f != nil {
				return f
			}
			piece = piece[len(part):]
			if f := x.flush(); f != nil {
				return f
			}
		}
	}
	x.out = h1.AppendChunkHeader(x.out, len(piece))
	x.out = append(x.out, piece...)
	x.out = append(x.out, '\r', '\n')
	return nil
}

// flush sends what is queued.
func (x *exchange) flush() *fault.Fault {
	if len(x.out) == 0 && x.conn.stream == nil {
		return nil
	}
	f := x.write(x.out)
	x.out = x.out[:0]
	return f
}

func (x *exchange) write(p []byte) *fault.Fault {
	if x.status >= 200 || x.status == 101 {
		x.headSent = true
	}
	n, err := x.conn.net.Write(p)
	x.bytesOut += int64(n)
	if err != nil {
		x.keep = false
		return fault.Wrap(fault.ClientGone, "the client left before its response was complete", err)
	}
	return nil
}

// answer sends a response of the gateway's own. fields are ready lines.
func (x *exchange) answer(status int, fields, body []byte) {
	x.status = status
	if x.conn.draining() || !x.drainable() {
		x.keep = false
	}
	out := h1.AppendStatusLine(x.out[:0], status)
	out = x.appendFields(out, fields)
	out = append(out, "Date: "...)
	out = append(out, date(x.now)...)
	out = append(out, '\r', '\n')
	if status != 204 && status != 304 {
		out = append(out, "Content-Length: "...)
		out = appendInt(out, len(body))
		out = append(out, '\r', '\n')
	}
	switch {
	case !x.keep:
		out = append(out, "Connection: close\r\n"...)
	case x.request.Minor == 0:
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	out = x.hop.AppendOwn(out, x.total(), x.upstream)
	x.out = append(out, '\r', '\n')
	if string(x.request.Method) == "HEAD" || status == 204 || status == 304 {
		body = nil
	}
	f := x.headDone(len(body) == 0)
	if f == nil {
		x.out = append(x.out, body...)
		f = x.bodyDone(false, nil)
	}
	if f != nil {
		x.fault = f
	}
}

// readHead reads the head of the next request. It says false when there is none, or when what came is refused; then the
// answer is sent.
func (x *exchange) readHead(s *site) bool {
	c := x.conn
	incomplete := false
	var headBefore poll.Instant
	for {
		if x.w > x.r {
			n, err := x.request.Parse(x.in[x.r:x.w], s.limits)
			if err == h1.ErrPreface && c.mayBundle(s) {
				c.preface = true
				return false
			}
			if err != nil {
				return x.refuseHead(s, headFault(err))
			}
			if n > 0 {
				x.accept(s, n)
				return true
			}
			if !incomplete {
				incomplete = true
				headBefore = poll.Now().Add(s.timeoutHead)
			}
		}
		x.makeRoom(s)
		if incomplete {
			c.poll.ReadBefore(headBefore)
		}
		n, err := c.net.Read(x.in[x.w:])
		if n > 0 {
			x.w += n
			continue
		}
		if errors.Is(err, poll.ErrInterrupted) { // a drain meant the wait before this request
			continue
		}
		if incomplete && errors.Is(err, os.ErrDeadlineExceeded) {
			return x.refuseHead(s, fault.New(fault.RequestTimeout, "the request head took too long to arrive"))
		}
		return false // closed between requests, or in the middle of a head: nobody is there to be answered
	}
}

// accept begins the request whose head of n bytes was parsed.
func (x *exchange) accept(s *site, n int) {
	x.begin(s, max(x.conn.last, x.conn.poll.Recent())) // when it came; but the one before it ended first
	x.headFrom, x.headTo = x.r, x.r+n
	x.r += n
	x.bytesIn += int64(n)
}

// whole says that the next request is here from head to body, and that answering it will not need another read from the
// client. Everything else (a refusal too, for it lingers) is left to serve, which parses the head again.
func (x *exchange) whole(s *site) bool {
	n, err := x.request.Parse(x.in[x.r:x.w], s.limits)
	if err != nil || n == 0 {
		return false
	}
	r := &x.request
	if r.Chunked || r.ContentLength > int64(x.w-x.r-n) || len(r.Upgrade) > 0 || r.ContentLength > 0 && r.ExpectContinue {
		x.request.Reset()
		return false
	}
	x.headFrom, x.headTo = x.r, x.r+n
	return true
}

// refuseHead answers a request that cannot be understood, and ends the connection: nobody knows where the next one
// would begin.
func (x *exchange) refuseHead(s *site, f *fault.Fault) bool {
	x.request.Reset()
	x.begin(s, poll.Now())
	x.bytesIn = int64(x.w - x.r)
	x.keep, x.refused = false, true
	x.fail(f)
	x.record()
	return false
}

// makeRoom makes sure that there is room to read behind w.
func (x *exchange) makeRoom(s *site) {
	if x.r == x.w {
		x.r, x.w = 0, 0
	}
	if x.w < len(x.in) {
		return
	}
	if x.r > 0 {
		x.w = copy(x.in, x.in[x.r:x.w])
		x.r = 0
		return
	}
	bigger := make([]byte, min(2*len(x.in), s.limits.HeadBytes+1024)) // the parser refuses a head beyond the bound
	copy(bigger, x.in[:x.w])
	poll.Put(x.in)
	x.in = bigger
}

// appendLocation appends where a redirect leads. The request's query goes along, unless the template has one of its own.
func (x *exchange) appendLocation(dst []byte, r *redirect) ([]byte, *fault.Fault) {
	to := r.to.Append(nil, x.value)
	if r.path { // not //another.host, whatever was captured
		var f *fault.Fault
		if to, f = settlePath(to); f != nil {
			return nil, f
		}
	}
	dst = append(dst, to...)
	if r.keepQuery && x.request.HasQuery {
		dst = append(dst, '?')
		dst = append(dst, x.request.Query...)
	}
	return dst, nil
}

// settlePath judges what a template has made of the path at the start of target, as all paths are judged: what was captured may be dots or begin
// with a slash where the template goes on. ~^/show(?P<id>.*)$ and /users/{id}, asked for /show../admin, would be out of /users.
func settlePath(target []byte) ([]byte, *fault.Fault) {
	end := bytes.IndexAny(target, "?#") // a Location may have a fragment
	if end < 0 {
		end = len(target)
	}
	for segment := range bytes.SplitSeq(target[:end], []byte{'/'}) {
		if string(segment) == "." || string(segment) == ".." {
			return nil, fault.Wrap(fault.BadRequest, errDotsMade.Error(), errDotsMade)
		}
	}
	path, changed, err := route.Normalize(nil, target[:end])
	if err != nil {
		return nil, fault.Wrap(fault.BadRequest, err.Error(), err)
	}
	if changed {
		target = append(path, target[end:]...)
	}
	return target, nil
}

var errDotsMade = errors.New("path has a dot segment when it is rewritten")

// appendTarget prepares the path and query as the endpoint sees them.
func (x *exchange) appendTarget() (f *fault.Fault) {
	path := x.path
	x.target = x.target[:0]
	own := false // the template has a query
	if w := x.route.rewrite; w != nil {
		if w.stripPrefix != "" && len(path) >= len(w.stripPrefix) && string(path[:len(w.stripPrefix)]) == w.stripPrefix {
			if rest := path[len(w.stripPrefix):]; len(rest) == 0 || rest[0] == '/' { // a prefix ends at a segment's end
				path = rest
			}
		}
		if w.path != nil {
			if x.target, f = settlePath(w.path.Append(x.target, x.value)); f != nil {
				return f
			}
			path, own = nil, w.query
		}
	}
	if len(path) == 0 && len(x.target) == 0 {
		x.target = append(x.target, '/')
	}
	x.target = append(x.target, path...)
	if query, has := x.query(); has && !own {
		x.target = append(x.target, '?')
		x.target = append(x.target, query...)
	}
	return nil
}

// value gives what a template may name: a capture, or else a part of the request.
func (x *exchange) value(name string) []byte {
	if name == "*" {
		return x.captures.Star()
	}
	if v, ok := x.captures.Get(name); ok {
		return v
	}
	switch name {
	case "host":
		return x.request.Host
	case "path":
		return x.path
	case "query":
		query, _ := x.query()
		return query
	case "scheme":
		if x.conn.secure {
			return []byte("https")
		}
		return []byte("http")
	}
	return nil
}

// hash is the balancer's hash of the part of the request that the service names; without that part, of the client's address.
func (x *exchange) hash(key forward.HashKey) uint64 {
	switch key.Kind {
	case forward.Path:
		return balance.Key(x.path)
	case forward.Header:
		if v, ok := x.request.Lookup(key.Name); ok {
			return balance.Key(v)
		}
	case forward.Cookie:
		if v, ok := policy.Cookie(&x.request, key.Name); ok {
			return balance.Key(v)
		}
	}
	return hashAddress(x.client)
}

func hashAddress(a netip.Addr) uint64 {
	b := a.As16()
	return balance.Key(b[:])
}
