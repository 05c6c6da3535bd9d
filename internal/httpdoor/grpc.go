package httpdoor

import (
	"bytes"
	"strconv"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h1"
)

// A call of gRPC is a request of HTTP/2 with a body of messages; its outcome stands in trailers. The gateway passes both on like
// others. It knows calls for two things: their deadline, and how to say that one has failed.

// isCall says whether a Content-Type is that of gRPC: application/grpc, application/grpc+proto, application/grpc;...
func isCall(contentType []byte) bool {
	const prefix = "application/grpc"
	if len(contentType) < len(prefix) || !h1.EqualFold(contentType[:len(prefix)], prefix) {
		return false
	}
	rest := contentType[len(prefix):]
	return len(rest) == 0 || rest[0] == '+' || rest[0] == ';' || rest[0] == ' '
}

// callTimeout is what the client allows the whole call to take; 0 when it does not say, or says it wrongly.
func (x *exchange) callTimeout() time.Duration {
	v, _ := x.request.Lookup("grpc-timeout")
	if len(v) < 2 || len(v) > 9 { // at most 8 digits and a unit
		return 0
	}
	var unit time.Duration
	switch v[len(v)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0
	}
	n, err := strconv.ParseUint(string(v[:len(v)-1]), 10, 32)
	if err != nil || time.Duration(n) > (1<<62)/unit {
		return 0
	}
	return max(1, time.Duration(n)*unit)
}

// callPatience bounds the client's silence in a call. In one that streams both ways, either side may be silent for long, so
// the endpoint's bound holds for both when it is the longer one. 0 is no bound.
func (x *exchange) callPatience() time.Duration {
	patience := x.site.timeoutBody
	if x.share != nil && patience > 0 {
		if idle := x.share.target.TimeoutIdle; idle == 0 || idle > patience {
			patience = idle
		}
	}
	return patience
}

// callStatus is the one place where a fault becomes a status of gRPC.
func callStatus(k fault.Kind) string {
	switch k {
	case fault.RequestTimeout, fault.UpstreamTimeout:
		return "4" // DEADLINE_EXCEEDED
	case fault.Forbidden:
		return "7" // PERMISSION_DENIED
	case fault.Limited, fault.TooLarge, fault.HeadersTooLarge:
		return "8" // RESOURCE_EXHAUSTED
	case fault.NoRoute, fault.MethodNotAllowed, fault.NotImplemented:
		return "12" // UNIMPLEMENTED
	case fault.Misdirected, fault.NoEndpoint, fault.ConnectFailed, fault.ConnectTimeout, fault.UpstreamBroken, fault.Draining:
		return "14" // UNAVAILABLE
	case fault.Unauthenticated:
		return "16" // UNAUTHENTICATED
	}
	return "13" // INTERNAL
}

// answerCall says that a call has failed before anything of its answer was sent: by a head that is trailers as well.
func (x *exchange) answerCall(f *fault.Fault, fields []byte) {
	x.status, x.keep = 200, false
	out := append(x.out[:0], "HTTP/1.1 200 OK\r\n"...)
	if at := bytes.Index(fields, []byte("\r\n")); at >= 0 && bytes.HasPrefix(fields, []byte("Content-Type:")) {
		fields = fields[at+2:] // the document's
	}
	out = append(out, "Content-Type: application/grpc\r\n"...)
	out = x.appendFields(out, fields)
	out = h1.AppendField(out, "Grpc-Status", callStatus(f.Kind))
	out = h1.AppendField(out, "Grpc-Message", callMessage(f.Public))
	out = append(out, "Date: "...)
	out = append(out, date(x.now)...)
	out = append(out, '\r', '\n')
	out = x.hop.AppendOwn(out, x.total(), x.upstream)
	x.out = append(out, '\r', '\n')
	f = x.headDone(true)
	if f == nil {
		f = x.bodyDone(false, nil)
	}
	if f != nil {
		x.fault = f
	}
}

// endCall says that a call has failed after a part of its answer was sent.
func (x *exchange) endCall(f *fault.Fault) {
	_ = x.bodyDone(false, []h1.Field{
		{Name: []byte("grpc-status"), Value: []byte(callStatus(f.Kind))},
		{Name: []byte("grpc-message"), Value: []byte(callMessage(f.Public))},
	})
}

// callMessage encodes a message: what is not printable, and %, in percent (the gRPC protocol over HTTP/2, Status-Message).
func callMessage(s string) string {
	const digits = "0123456789ABCDEF"
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			out = append(out, '%', digits[c>>4], digits[c&15])
		} else {
			out = append(out, c)
		}
	}
	return string(out)
}
