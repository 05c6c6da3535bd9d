package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Probe asks an address (host:port) whether it is well; an error says why it is not, in words for a status page. It
// ends when ctx does and leaves nothing behind.
type Probe func(ctx context.Context, address string) error

// TCP is a probe that is content when a connection is accepted. preamble, if any, is sent before it is closed.
func TCP(preamble []byte) Probe {
	return func(ctx context.Context, address string) error {
		conn, err := dial(preamble)(ctx, "tcp", address)
		if err != nil {
			return inWords(err)
		}
		return conn.Close()
	}
}

// dial connects and sends the preamble: with an endpoint that expects a PROXY protocol header, nothing goes without.
func dial(preamble []byte) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil || len(preamble) == 0 {
			return conn, err
		}
		if _, err := conn.Write(preamble); err != nil { // a few bytes into an empty socket buffer: it cannot block
			_ = conn.Close()
			return nil, err
		}
		return conn, nil
	}
}

// HTTPOptions say what an HTTP probe asks and which answers are good.
type HTTPOptions struct {
	Path   string      // with an optional query; default "/"
	Host   string      // Host header; default the address
	Status StatusSet   // the zero set means 200-399
	TLS    *tls.Config // nil means plain text; the name to verify is TLS.ServerName, else the address's host
	HTTP2  bool        // the endpoint speaks HTTP/2 only: negotiated with TLS, else with prior knowledge

	Preamble []byte // sent before all else, outside of TLS
}

// probeHeadBytes and probeBodyBytes bound what an endpoint can make a check read.
const (
	probeHeadBytes = 64 << 10
	probeBodyBytes = 64 << 10
)

// HTTP is a probe that sends a GET request on a connection of its own and judges the status. It follows no redirect (a
// 302 to a login page is an answer of the endpoint, not of where it points) and uses no proxy.
func HTTP(o HTTPOptions) Probe {
	scheme := "http"
	transport := &http.Transport{
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: probeHeadBytes,
		DialContext:            dial(o.Preamble),
	}
	if o.TLS != nil {
		scheme = "https"
		transport.TLSClientConfig = o.TLS.Clone()
		transport.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	if o.HTTP2 {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetHTTP2(o.TLS != nil)
		transport.Protocols.SetUnencryptedHTTP2(o.TLS == nil)
		if o.TLS != nil {
			transport.TLSClientConfig.NextProtos = []string{"h2"}
		}
	}
	path, query, _ := strings.Cut(o.Path, "?")
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return func(ctx context.Context, address string) error {
		r := &http.Request{
			Method: http.MethodGet,
			// Opaque sends the path as it was written, without decoding and encoding it again.
			URL:    &url.URL{Scheme: scheme, Host: address, Opaque: path, RawQuery: query},
			Host:   o.Host,
			Header: http.Header{"User-Agent": {"menshen-health"}, "Accept": {"*/*"}},
			Close:  true,
		}
		response, err := transport.RoundTrip(r.WithContext(ctx))
		if err != nil {
			return inWords(err)
		}
		defer response.Body.Close()
		// Reading the body to its end spares the endpoint a broken pipe in its log.
		_, _ = io.CopyN(io.Discard, response.Body, probeBodyBytes)
		if !o.Status.Contains(response.StatusCode) {
			return fmt.Errorf("status %d, not %s", response.StatusCode, o.Status)
		}
		return nil
	}
}

// StatusSet is a set of HTTP status codes. The zero value stands for 200-399.
type StatusSet struct{ ranges []statusRange }

type statusRange struct{ from, to int }

// statusRangesMax is above what anybody needs to name single codes.
const statusRangesMax = 64

// ParseStatus reads a comma-separated list of codes and ranges: "200", "200-299,418". Empty means 200-399.
func ParseStatus(s string) (StatusSet, error) {
	var set StatusSet
	if strings.TrimSpace(s) == "" {
		return set, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		from, ok1 := statusCode(low)
		to, ok2 := statusCode(high)
		if !ok1 || !ok2 || from > to {
			return StatusSet{}, fmt.Errorf("%q is not a status code (100 to 599) or a range of them such as 200-299", part)
		}
		if len(set.ranges) == statusRangesMax {
			return StatusSet{}, fmt.Errorf("more than %d status codes and ranges", statusRangesMax)
		}
		set.ranges = append(set.ranges, statusRange{from, to})
	}
	return set, nil
}

func statusCode(s string) (int, bool) {
	s = strings.TrimSpace(s)
	if len(s) != 3 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 100 && n <= 599
}

// Contains says whether a status code is in the set.
func (s StatusSet) Contains(code int) bool {
	if s.ranges == nil {
		return code >= 200 && code <= 399
	}
	for _, r := range s.ranges {
		if code >= r.from && code <= r.to {
			return true
		}
	}
	return false
}

// String gives the set as ParseStatus reads it.
func (s StatusSet) String() string {
	if s.ranges == nil {
		return "200-399"
	}
	var b strings.Builder
	for i, r := range s.ranges {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(r.from))
		if r.to != r.from {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(r.to))
		}
	}
	return b.String()
}

// inWords shortens the errors of the net package to what a status page needs: the address is beside it anyway.
func inWords(err error) error {
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var errno syscall.Errno
	switch {
	case errors.As(err, &dns):
		return wording{"cannot resolve " + strconv.Quote(dns.Name) + ": " + dns.Err, err}
	case errors.As(err, &certificate):
		return wording{"certificate refused: " + certificate.Err.Error(), err}
	case errors.As(err, &errno): // "connection refused", "no route to host"
		return wording{errno.Error(), err}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return wording{"connection closed without an answer", err}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return wording{"no answer in time", err}
	}
	return err
}

type wording struct {
	words string
	cause error
}

func (w wording) Error() string { return w.words }
func (w wording) Unwrap() error { return w.cause }
