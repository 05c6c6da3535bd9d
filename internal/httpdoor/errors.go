package httpdoor

import (
	"strconv"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h1"
)

// statusOf is the one place where a fault becomes an HTTP status. 0 means that nobody is there to read it.
func statusOf(k fault.Kind) int {
	switch k {
	case fault.BadRequest:
		return 400
	case fault.Unauthenticated:
		return 401
	case fault.Forbidden:
		return 403
	case fault.NoRoute:
		return 404
	case fault.MethodNotAllowed:
		return 405
	case fault.RequestTimeout:
		return 408
	case fault.TooLarge:
		return 413
	case fault.TargetTooLong:
		return 414
	case fault.Misdirected:
		return 421
	case fault.Limited:
		return 429
	case fault.HeadersTooLarge:
		return 431
	case fault.NotImplemented:
		return 501
	case fault.ConnectFailed, fault.UpstreamBroken:
		return 502
	case fault.NoEndpoint, fault.Draining:
		return 503
	case fault.ConnectTimeout, fault.UpstreamTimeout:
		return 504
	case fault.UnsupportedVersion:
		return 505
	case fault.ClientGone:
		return 0
	}
	return 500
}

// headFault is what a refused head means for the client.
func headFault(err error) *fault.Fault {
	kind, public := fault.BadRequest, "the request cannot be understood"
	if e, ok := err.(*h1.Error); ok {
		public = e.Reason
		switch e.Kind {
		case h1.TargetTooLong:
			kind = fault.TargetTooLong
		case h1.HeadTooLarge, h1.TooManyFields:
			kind = fault.HeadersTooLarge
		case h1.BadVersion:
			kind = fault.UnsupportedVersion
		case h1.NotImplemented:
			kind = fault.NotImplemented
		}
	}
	return fault.Wrap(kind, public, err)
}

// appendProblem appends a problem document (RFC 9457). Its texts are ours and need no escaping but quotes.
func appendProblem(dst []byte, status int, f *fault.Fault, requestID []byte) []byte {
	dst = append(dst, `{"type":"urn:menshen:fault:`...)
	dst = append(dst, f.Kind.String()...)
	dst = append(dst, `","title":"`...)
	dst = append(dst, h1.Reason(status)...)
	dst = append(dst, `","status":`...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, `,"detail":`...)
	dst = strconv.AppendQuote(dst, f.Public)
	if len(requestID) > 0 {
		dst = append(dst, `,"request_id":"`...)
		dst = append(dst, requestID...)
		dst = append(dst, '"')
	}
	return append(dst, "}\n"...)
}

// reportsPerSecond bounds what failing requests write to the log; each of them has its access record anyway.
const reportsPerSecond = 10

// report logs why a request failed by the fault of an endpoint or the gateway.
func (d *Door) report(x *exchange, f *fault.Fault) {
	second := int64(x.now) / int64(time.Second)
	d.reportMu.Lock()
	if d.reportSecond != second {
		d.reportSecond, d.reported = second, 0
	}
	d.reported++
	n := d.reported
	d.reportMu.Unlock()
	switch {
	case n < reportsPerSecond:
		routeName := ""
		if x.route != nil {
			routeName = x.route.name
		}
		d.options.Log.Warn("request failed", "route", routeName, "request_id", string(x.requestID), "error", f.Error())
	case n == reportsPerSecond:
		d.options.Log.Warn("more requests failed within this second; see the access log")
	}
}

// fail answers with a fault, or cuts the connection when the client has seen a part of the response already: a
// truncated response must not look complete.
func (x *exchange) fail(f *fault.Fault) {
	if f.Kind == fault.Draining && x.conn.left.Load() { // what was interrupted, was so because of that
		f = fault.Wrap(fault.ClientGone, "the client gave the request up", f)
	}
	x.fault = f
	status := statusOf(f.Kind)
	if x.policing && x.policy.Fault == f && x.policy.Status != 0 { // the configuration chose it
		status = x.policy.Status
	}
	if x.headSent || status == 0 {
		x.keep = false
		switch {
		case !x.headSent:
			x.status = 0
		case x.call && status != 0:
			x.endCall(f)
		}
		return
	}
	switch f.Kind {
	case fault.RequestTimeout, fault.BadRequest, fault.TooLarge: // a client that sends such things is not trusted to frame its next request
		x.keep = false
	case fault.Misdirected: // the next one is welcome on another connection
		x.keep = false
	}
	var document [1024]byte
	body := appendProblem(document[:0], status, f, x.requestID)
	fields := append(make([]byte, 0, 128), "Content-Type: application/problem+json\r\nCache-Control: no-store\r\n"...)
	if f.Kind == fault.MethodNotAllowed && x.allow != "" {
		fields = h1.AppendField(fields, "Allow", x.allow)
	}
	if f.RetryWait > 0 {
		fields = h1.AppendField(fields, "Retry-After", strconv.Itoa(f.RetryWait))
	}
	if x.call {
		x.answerCall(f, fields)
	} else {
		x.answer(status, fields, body)
	}
	// What broke inside is for the log; what a client did wrong is in its access record already.
	if f.Kind.Blame() != fault.Client {
		x.conn.door.report(x, f)
	}
}
