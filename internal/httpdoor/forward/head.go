package forward

import (
	"crypto/x509"
	"encoding/base64"
	"net/netip"
	"strconv"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/h1"
)

// Hop is what the gateway knows of its own hop and writes into heads.
type Hop struct {
	Add       config.ForwardHeaders
	Peer      netip.Addr // who connected to us
	Trusted   bool       // the peer is a trusted proxy: what it says of earlier hops is kept
	TLS       bool       // the client's side is https
	RequestID []byte     // made or passed on; empty: none
	// The client's certificate, verified, and behind it the authorities between it and the trusted one; nil: none.
	Certificates []*x509.Certificate
}

// RequestHead is what changes in a request's head on the way to the endpoint.
type RequestHead struct {
	*Hop
	Target  []byte // path and query in origin form
	Host    []byte
	Chunked bool // the body goes in chunks
	Declare bool // the request does not say how long its body is, but Length does
	Length  int
	Upgrade []byte
	Removal
	Extra []byte // further field lines, each ending in CRLF
}

// Removal says which fields policies take away. The zero value takes none.
type Removal struct {
	Removes func(h1.Field) bool
	// Firsts has a bit for the first byte, modulo 32, of each name that Removes may be true for: most fields need no call.
	Firsts uint32
}

func (r *Removal) of(f *h1.Field) bool {
	return r.Firsts != 0 && (len(f.Name) == 0 || r.Firsts&(1<<(f.Name[0]&31)) != 0) && r.Removes(*f)
}

// The fields that AppendRequest and AppendResponse think about, a bit for each. The others are copied, unless policies or
// Connection name fields: then each is thought about.
const (
	requestSpecial = 1<<h1.KnownHost | 1<<h1.KnownConnection | 1<<h1.KnownTransferEncoding | 1<<h1.KnownUpgrade | 1<<h1.KnownKeepAlive |
		1<<h1.KnownProxyConnection | 1<<h1.KnownProxyAuthorization | 1<<h1.KnownHTTP2Settings | 1<<h1.KnownTE | 1<<h1.KnownExpect |
		1<<h1.KnownXRequestID | 1<<h1.KnownClientCert | 1<<h1.KnownClientCertChain | 1<<h1.KnownXForwardedFor | 1<<h1.KnownXRealIP |
		1<<h1.KnownXForwarded | 1<<h1.KnownXForwardedProto | 1<<h1.KnownXForwardedHost | 1<<h1.KnownForwarded | 1<<h1.KnownVia
	responseSpecial = 1<<h1.KnownConnection | 1<<h1.KnownTransferEncoding | 1<<h1.KnownKeepAlive | 1<<h1.KnownProxyConnection |
		1<<h1.KnownTE | 1<<h1.KnownUpgrade | 1<<h1.KnownContentLength | 1<<h1.KnownXRequestID | 1<<h1.KnownXResponseTime | 1<<h1.KnownVia
	everyField = 1<<64 - 1
)

// AppendRequest appends the request's head as the endpoint sees it: HTTP/1.1, without the fields that concern the client's
// connection only (RFC 9110, 7.6.1), framed anew, with the forwarding fields.
func AppendRequest(dst []byte, r *h1.Request, o *RequestHead) []byte {
	dst = append(dst, r.Method...)
	dst = append(dst, ' ')
	dst = append(dst, o.Target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, o.Host...)
	dst = append(dst, '\r', '\n')
	var forwardedFor, forwarded, via []byte // what a trusted proxy said, in its last field; earlier ones are copied
	var proto, host bool
	special := uint64(requestSpecial)
	if r.ConnectionNames || o.Firsts != 0 {
		special = everyField
	}
	run := r.Run()
	for i := range r.Fields {
		f := &r.Fields[i]
		if special>>f.Known&1 == 0 {
			if !run.Extend(f) {
				dst = run.Append(dst, f)
			}
			continue
		}
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
				dst = append(run.Flush(dst), "TE: trailers\r\n"...)
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
				dst = appendJoined(run.Flush(dst), "X-Forwarded-For: ", &forwardedFor, f.Value)
				continue
			}
		case h1.KnownXRealIP: // some services believe it as they do X-Forwarded-For
			if !o.Trusted {
				continue
			}
		case h1.KnownXForwarded: // -Port, -Prefix, -Ssl and the like: frameworks make links and redirects of them
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
				dst = appendJoined(run.Flush(dst), "Forwarded: ", &forwarded, f.Value)
				continue
			}
		case h1.KnownVia:
			if o.Add.Via {
				dst = appendJoined(run.Flush(dst), "Via: ", &via, f.Value)
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
		dst = run.Append(dst, f)
	}
	dst = run.Flush(dst)
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

// appendJoined keeps the value of a list field for the line that we complete at the end; a value kept before is written
// out as a line of its own, which means the same (RFC 9110, 5.3).
func appendJoined(dst []byte, name string, kept *[]byte, value []byte) []byte {
	if *kept != nil {
		dst = append(dst, name...)
		dst = append(dst, *kept...)
		dst = append(dst, '\r', '\n')
	}
	*kept = value
	return dst
}

func appendPrior(dst []byte, name string, prior []byte) []byte {
	dst = append(dst, name...)
	if len(prior) > 0 {
		dst = append(dst, prior...)
		dst = append(dst, ',', ' ')
	}
	return dst
}

// appendCertificates appends the client's certificate and those between it and the trusted one, as byte sequences of
// structured fields (RFC 9440, 2).
func (h *Hop) appendCertificates(dst []byte) []byte {
	if h.Add.ClientCert {
		dst = append(dst, "Client-Cert: "...)
		dst = appendByteSequence(dst, h.Certificates[0].Raw)
		dst = append(dst, '\r', '\n')
	}
	if h.Add.ClientChain && len(h.Certificates) > 1 {
		dst = append(dst, "Client-Cert-Chain: "...)
		for i, c := range h.Certificates[1:] {
			if i > 0 {
				dst = append(dst, ',', ' ')
			}
			dst = appendByteSequence(dst, c.Raw)
		}
		dst = append(dst, '\r', '\n')
	}
	return dst
}

// appendByteSequence appends bytes as RFC 9651, 3.3.5 writes them.
func appendByteSequence(dst, raw []byte) []byte {
	dst = append(dst, ':')
	dst = base64.StdEncoding.AppendEncode(dst, raw)
	return append(dst, ':')
}

// appendForwarded appends our element of Forwarded (RFC 7239, 4): an IPv6 address stands in quotes and brackets.
func (h *Hop) appendForwarded(dst, host []byte) []byte {
	dst = append(dst, "for="...)
	if h.Peer.Is4() {
		dst = h.Peer.AppendTo(dst)
	} else {
		dst = append(dst, `"[`...)
		dst = h.Peer.AppendTo(dst)
		dst = append(dst, `]"`...)
	}
	if len(host) > 0 { // quoted: it may hold a colon. The parser let no quote or backslash into a host.
		dst = append(dst, `;host="`...)
		dst = append(dst, host...)
		dst = append(dst, '"')
	}
	if h.TLS {
		return append(dst, ";proto=https\r\n"...)
	}
	return append(dst, ";proto=http\r\n"...)
}

func appendVia(dst []byte, minor uint8) []byte {
	if minor == 0 {
		return append(dst, "1.0 menshen\r\n"...)
	}
	return append(dst, "1.1 menshen\r\n"...)
}

// ResponseHead is what changes in a response's head on the way to the client.
type ResponseHead struct {
	*Hop
	Chunked   bool // the body goes in chunks (not known in advance, and the client speaks HTTP/1.1)
	Close     bool // this is the connection's last response
	KeepAlive bool // say so: the client speaks HTTP/1.0 and asked for it
	Upgrade   bool // 101: the fields Connection and Upgrade concern the tunnel and are passed on
	Length    bool // pass Content-Length on
	Total     time.Duration
	Upstream  time.Duration
	Date      []byte // for a response without one (RFC 9110, 6.6.1)
	Removal
	Extra []byte
}

// AppendResponse appends the response's head as the client sees it.
func AppendResponse(dst []byte, r *h1.Response, o *ResponseHead) []byte {
	var via []byte
	special := uint64(responseSpecial)
	if r.ConnectionNames || o.Firsts != 0 {
		special = everyField
	}
	dst, run := r.StatusRun(dst)
	for i := range r.Fields {
		f := &r.Fields[i]
		if special>>f.Known&1 == 0 {
			if !run.Extend(f) {
				dst = run.Append(dst, f)
			}
			continue
		}
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
				dst = appendJoined(run.Flush(dst), "Via: ", &via, f.Value)
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
		dst = run.Append(dst, f)
	}
	dst = run.Flush(dst)
	if r.Status >= 200 && !r.Has(h1.KnownDate) {
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

// AppendOwn appends the fields that every response of the gateway carries, its own ones too: the request's id and the times.
// upstream is negative when no endpoint took part.
func (h *Hop) AppendOwn(dst []byte, total, upstream time.Duration) []byte {
	if len(h.RequestID) > 0 {
		dst = append(dst, "X-Request-Id: "...)
		dst = append(dst, h.RequestID...)
		dst = append(dst, '\r', '\n')
	}
	if h.Add.ResponseTime && total >= 0 {
		dst = append(dst, "X-Response-Time: "...)
		dst = appendMilliseconds(dst, total)
		dst = append(dst, "ms\r\n"...)
	}
	if h.Add.ServerTiming && upstream >= 0 {
		dst = append(dst, "Server-Timing: upstream;dur="...)
		dst = appendMilliseconds(dst, upstream)
		dst = append(dst, '\r', '\n')
	}
	return dst
}

// appendMilliseconds appends d, which is not negative, as milliseconds with three decimals.
func appendMilliseconds(dst []byte, d time.Duration) []byte {
	us := uint64(d) / uint64(time.Microsecond)
	dst = strconv.AppendUint(dst, us/1000, 10)
	rest := us % 1000
	return append(dst, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
}
