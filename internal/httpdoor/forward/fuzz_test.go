package forward

import (
	"bytes"
	"net/netip"
	"strconv"
	"testing"

	"github.com/menshen-gateway/menshen/internal/h1"
)

// What AppendRequest and AppendResponse copy in runs of lines must read as if each field was thought about and written by itself.

// options makes a Hop and a Removal of the bits of n.
func options(n uint32) (*Hop, Removal) {
	bit := func(i int) bool { return n>>i&1 != 0 }
	h := usualHop()
	h.Add.XForwarded, h.Add.Forwarded, h.Add.Via = bit(0), bit(1), bit(2)
	h.Add.ResponseTime, h.Add.ServerTiming = bit(3), bit(4)
	h.Trusted, h.TLS = bit(5), bit(6)
	if bit(7) {
		h.RequestID = nil
	}
	if bit(8) {
		h.Peer = netip.MustParseAddr("2001:db8::1")
	}
	if !bit(9) {
		return &h, Removal{}
	}
	return &h, Removal{Firsts: 1 << ('x' & 31), Removes: func(f h1.Field) bool { return len(f.Name) < 4 }}
}

func FuzzAppendRequest(f *testing.F) {
	for n := range uint32(10) {
		f.Add([]byte(wrkRequest), uint32(1)<<n)
		f.Add([]byte(browserRequest), uint32(1)<<n)
	}
	for _, fields := range []string{
		"X-Forwarded-For: 1.2.3.4\r\nA: b\r\nX-Forwarded-For: 5.6.7.8\r\nX-Forwarded-Proto: https\r\nForwarded: for=a\r\nVia: 1.0 b\r\nC: d\r\nVia: 1.1 c\r\n",
		"Connection: x-a, te\r\nX-A: b\r\nTE: trailers\r\nB: c\r\nX-B: d\r\n",
		"A:b\r\nB: c \r\nC:\t d\r\nD: e\r\nX_F: g\r\nX_Forwarded_For: h\r\nE:\r\nExpect: 100-continue\r\nClient-Cert: x\r\nX-Real-IP: y\r\nX-Forwarded-Port: 1\r\nx-forwarded-prefix: /z\r\n",
	} {
		f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\n"+fields+"Transfer-Encoding: chunked\r\n\r\n"), uint32(0x3ff))
		f.Add([]byte("GET / HTTP/1.0\r\nHost: a\r\n"+fields+"\r\n"), uint32(0x01f))
	}
	f.Fuzz(func(t *testing.T, in []byte, n uint32) {
		var r h1.Request
		if length, err := r.Parse(in, h1.Limits{}); length == 0 || err != nil {
			return
		}
		o := RequestHead{Target: r.Target, Host: r.Host, Chunked: r.Chunked, Declare: n>>10&1 != 0, Upgrade: r.Upgrade, Extra: []byte("X-Extra: 1\r\n")}
		o.Hop, o.Removal = options(n)
		if got, want := AppendRequest(nil, &r, &o), plainRequest(nil, &r, &o); !bytes.Equal(got, want) {
			t.Fatalf("%q becomes\n%q, want\n%q", in, got, want)
		}
	})
}

func FuzzAppendResponse(f *testing.F) {
	for n := range uint32(10) {
		f.Add([]byte(wrkResponse), uint32(1)<<n)
	}
	for _, line := range []string{"HTTP/1.1 200 OK", "HTTP/1.0 404 Not Found", "HTTP/1.1 299", "HTTP/1.1 299 ", "HTTP/1.1 101 Switching Protocols", "HTTP/1.1 103 Early Hints"} {
		f.Add([]byte(line+"\r\nA:b\r\nB: c\r\nConnection: x-a\r\nX-A: c\r\nVia: 1.1 a\r\nX-Response-Time: 5ms\r\nX-Request-Id: a\r\nUpgrade: b\r\nVia: 1.1 b\r\n\r\n"), uint32(0x3ff))
		f.Add([]byte(line+"\r\n\r\n"), uint32(0))
	}
	f.Fuzz(func(t *testing.T, in []byte, n uint32) {
		var r h1.Response
		if length, err := r.Parse(in, h1.Limits{}, []byte("GET")); length == 0 || err != nil {
			return
		}
		o := ResponseHead{Chunked: r.Chunked, Length: n>>10&1 != 0, Close: n>>11&1 != 0, KeepAlive: n>>12&1 != 0, Upgrade: n>>13&1 != 0,
			Total: 1234567, Upstream: -1, Date: []byte("Sun, 22 Nov 2026 12:00:00 GMT"), Extra: []byte("X-Extra: 1\r\n")}
		o.Hop, o.Removal = options(n)
		if got, want := AppendResponse(nil, &r, &o), plainResponse(nil, &r, &o); !bytes.Equal(got, want) {
			t.Fatalf("%q becomes\n%q, want\n%q", in, got, want)
		}
	})
}

// plainRequest is AppendRequest field by field.
func plainRequest(dst []byte, r *h1.Request, o *RequestHead) []byte {
	dst = append(dst, r.Method...)
	dst = append(dst, ' ')
	dst = append(dst, o.Target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, o.Host...)
	dst = append(dst, '\r', '\n')
	var forwardedFor, forwarded, via []byte // what a trusted proxy said, in its last field; earlier ones are copied
	var proto, host bool
	for i := range r.Fields {
		f := &r.Fields[i]
		switch f.Known {
		case h1.KnownNone:
			if r.ConnectionNames && r.HopByHop(*f) {
				continue
			}
			if o.Removal.of(f) {
				continue
			}
		case h1.KnownHost, h1.KnownConnection, h1.KnownTransferEncoding, h1.KnownUpgrade, h1.KnownKeepAlive, h1.KnownProxyConnection, h1.KnownProxyAuthorization, h1.KnownHTTP2Settings:
			continue
		case h1.KnownTE:
			if h1.ContainsToken(f.Value, "trailers") {
				dst = append(dst, "TE: trailers\r\n"...)
			}
			continue
		case h1.KnownExpect:
			if !r.ExpectContinue {
				continue
			}
		case h1.KnownXRequestID:
			if len(o.RequestID) > 0 {
				continue
			}
		case h1.KnownClientCert, h1.KnownClientCertChain: // only ours is true (RFC 9440, 2.4), whoever sends it
			continue
		case h1.KnownXForwardedFor:
			if !o.Trusted {
				continue
			}
			if o.Add.XForwarded {
				dst = appendJoined(dst, "X-Forwarded-For: ", &forwardedFor, f.Value)
				continue
			}
		case h1.KnownXRealIP: // some services believe it as they do X-Forwarded-For
			if !o.Trusted {
				continue
			}
		case h1.KnownXForwarded:
			if !o.Trusted || o.Removal.of(f) {
				continue
			}
		case h1.KnownXForwardedProto:
			if !o.Trusted {
				continue
			}
			proto = true
		case h1.KnownXForwardedHost:
			if !o.Trusted {
				continue
			}
			host = true
		case h1.KnownForwarded:
			if !o.Trusted {
				continue
			}
			if o.Add.Forwarded {
				dst = appendJoined(dst, "Forwarded: ", &forwarded, f.Value)
				continue
			}
		case h1.KnownVia:
			if o.Add.Via {
				dst = appendJoined(dst, "Via: ", &via, f.Value)
				continue
			}
		default:
			if r.ConnectionNames && r.HopByHop(*f) {
				continue
			}
			if o.Removal.of(f) {
				continue
			}
		}
		dst = f.AppendTo(dst)
	}
	if o.Chunked {
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	}
	if o.Declare {
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, int64(o.Length), 10)
		dst = append(dst, '\r', '\n')
	}
	if len(o.Upgrade) > 0 {
		dst = append(dst, "Connection: Upgrade\r\nUpgrade: "...)
		dst = append(dst, o.Upgrade...)
		dst = append(dst, '\r', '\n')
	}
	if o.Add.XForwarded {
		dst = appendPrior(dst, "X-Forwarded-For: ", forwardedFor)
		dst = o.Peer.AppendTo(dst)
		dst = append(dst, '\r', '\n')
		if !proto {
			if o.TLS {
				dst = append(dst, "X-Forwarded-Proto: https\r\n"...)
			} else {
				dst = append(dst, "X-Forwarded-Proto: http\r\n"...)
			}
		}
		if !host && len(r.Host) > 0 {
			dst = append(dst, "X-Forwarded-Host: "...)
			dst = append(dst, r.Host...)
			dst = append(dst, '\r', '\n')
		}
	}
	if o.Add.Forwarded {
		dst = appendPrior(dst, "Forwarded: ", forwarded)
		dst = o.appendForwarded(dst, r.Host)
	}
	if o.Add.Via {
		dst = appendPrior(dst, "Via: ", via)
		dst = appendVia(dst, r.Minor)
	}
	if len(o.RequestID) > 0 {
		dst = append(dst, "X-Request-Id: "...)
		dst = append(dst, o.RequestID...)
		dst = append(dst, '\r', '\n')
	}
	if len(o.Certificates) > 0 {
		dst = o.appendCertificates(dst)
	}
	dst = append(dst, o.Extra...)
	return append(dst, '\r', '\n')
}

// plainResponse is AppendResponse field by field.
func plainResponse(dst []byte, r *h1.Response, o *ResponseHead) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(r.Status), 10)
	dst = append(dst, ' ')
	dst = append(dst, r.Reason...)
	dst = append(dst, '\r', '\n')
	var via []byte
	dated := r.Status < 200
	for i := range r.Fields {
		f := &r.Fields[i]
		switch f.Known {
		case h1.KnownConnection, h1.KnownTransferEncoding, h1.KnownKeepAlive, h1.KnownProxyConnection, h1.KnownTE:
			continue
		case h1.KnownUpgrade:
			if !o.Upgrade {
				continue
			}
		case h1.KnownContentLength:
			if !o.Length {
				continue
			}
		case h1.KnownDate:
			dated = true
		case h1.KnownXRequestID:
			if len(o.RequestID) > 0 {
				continue
			}
		case h1.KnownXResponseTime:
			if o.Add.ResponseTime {
				continue
			}
		case h1.KnownVia:
			if o.Add.Via {
				dst = appendJoined(dst, "Via: ", &via, f.Value)
				continue
			}
		default:
			if r.ConnectionNames && r.HopByHop(*f) {
				continue
			}
			if o.Removal.of(f) {
				continue
			}
		}
		dst = f.AppendTo(dst)
	}
	if !dated {
		dst = append(dst, "Date: "...)
		dst = append(dst, o.Date...)
		dst = append(dst, '\r', '\n')
	}
	switch {
	case o.Upgrade:
		dst = append(dst, "Connection: Upgrade\r\n"...)
	case o.Close:
		dst = append(dst, "Connection: close\r\n"...)
	case o.KeepAlive:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	if o.Chunked {
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	}
	if o.Add.Via {
		dst = appendPrior(dst, "Via: ", via)
		dst = appendVia(dst, r.Minor)
	}
	dst = o.Hop.AppendOwn(dst, o.Total, o.Upstream)
	dst = append(dst, o.Extra...)
	return append(dst, '\r', '\n')
}
