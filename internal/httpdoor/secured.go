package httpdoor

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h1"
	"github.com/menshen-gateway/menshen/internal/tlsconfig"
)

// secured is what is known of the TLS side of a client's connection; the streams of an HTTP/2 connection share it. All but
// judged is set by the handshake and never changed.
type secured struct {
	serverName   string                // SNI, in lower case; "" when the client named nobody
	verified     [][]*x509.Certificate // chains of the client's certificate; nil: it has none
	certificates []*x509.Certificate   // the first chain, without the authority at its end
	subject      string                // of the certificate, for records

	// judged is the configuration under which the certificate, or its absence, was last found good. A reload makes another one.
	judged atomic.Pointer[tls.Config]
}

func newSecured(state tls.ConnectionState, under *tls.Config) *secured {
	t := &secured{serverName: strings.ToLower(state.ServerName), verified: state.VerifiedChains}
	t.judged.Store(under)
	if len(t.verified) > 0 {
		chain := t.verified[0]
		t.certificates = chain[:max(1, len(chain)-1)]
		t.subject = chain[0].Subject.String()
	}
	return t
}

// good says whether the connection may be used under the present configuration: its certificate must come from an authority
// that is trusted now, and must not be missing where one is required.
func (t *secured) good(now *tls.Config) bool {
	before := t.judged.Load()
	if before == now {
		return true
	}
	switch {
	case now.ClientCAs == nil:
	case len(t.verified) == 0:
		if tlsconfig.RequiresClient(now) {
			return false
		}
	case before.ClientCAs != nil && before.ClientCAs.Equal(now.ClientCAs):
	case !tlsconfig.StillTrusted(now, t.verified):
		return false
	}
	t.judged.Store(now)
	return true
}

// client gives the client's certificate and those between it and an authority; nil when there is none, or when the listener
// does not ask for one any more.
func (t *secured) client(s *site) []*x509.Certificate {
	if t == nil || s.tls == nil || s.tls.ClientCAs == nil {
		return nil
	}
	return t.certificates
}

// misdirected refuses a request that does not belong on its connection (RFC 9110, 15.5.20): the listener has a certificate
// for its host, but it is not the one with which this connection was made; or a reload has changed whom the listener trusts, and
// the client has to show its certificate anew. Clients answer 421 with another connection.
func (x *exchange) misdirected() *fault.Fault {
	t, s := x.conn.tls, x.site
	switch {
	case s.tls == nil: // the listener was one of TLS when the connection began
	case !t.good(s.tls):
		return fault.New(fault.Misdirected, "this connection has no client certificate that is trusted here")
	case t.serverName != "" && s.certificates != nil && s.certificates.elsewhere(t.serverName, x.request.Host):
		return fault.New(fault.Misdirected, "this host has a certificate of its own, and so needs a connection of its own")
	}
	return nil
}

// certificateNames says which of a listener's certificates cover a name: indexes into tls.Config.Certificates, by the name in
// lower case, or by ".example.com" for *.example.com.
type certificateNames map[string][]int

// namesOf gives nil for a listener that has only one certificate.
func namesOf(c *tls.Config) certificateNames {
	if c == nil || len(c.Certificates) < 2 {
		return nil
	}
	names := certificateNames{}
	for i, one := range c.Certificates {
		if one.Leaf == nil {
			continue
		}
		for _, name := range one.Leaf.DNSNames {
			name = strings.TrimPrefix(strings.ToLower(name), "*")
			names[name] = append(names[name], i)
		}
	}
	return names
}

// covering gives the certificates for a name in lower case.
func (n certificateNames) covering(name string) []int {
	all := n[name]
	if dot := strings.IndexByte(name, '.'); dot > 0 { // a wildcard stands for one label
		if wild := n[name[dot:]]; len(wild) > 0 {
			all = append(slices.Clip(all), wild...)
		}
	}
	return all
}

// elsewhere says that a host has certificates, and none of them can be the one that a client saw who asked for serverName.
func (n certificateNames) elsewhere(serverName string, host []byte) bool {
	if end := bytes.LastIndexByte(host, ':'); end >= 0 && bytes.IndexByte(host[end:], ']') < 0 {
		host = host[:end]
	}
	if h1.EqualFold(host, serverName) {
		return false
	}
	wanted := n.covering(strings.ToLower(string(host)))
	if len(wanted) == 0 || net.ParseIP(string(host)) != nil {
		return false
	}
	shown := n.covering(serverName)
	if len(shown) == 0 {
		shown = []int{0} // which serves names that none covers
	}
	return !slices.ContainsFunc(wanted, func(i int) bool { return slices.Contains(shown, i) })
}

// answerPlainly answers a client that begins with HTTP where TLS is spoken, as people do who type a URL. err is that of the handshake; for
// any other it does nothing.
func answerPlainly(err error) {
	var plain tls.RecordHeaderError
	if !errors.As(err, &plain) || plain.Conn == nil {
		return
	}
	for i, b := range plain.RecordHeader[:4] { // the first letters of a method
		if (b < 'A' || b > 'Z') && (i < 3 || b != ' ') {
			return
		}
	}
	const document = `{"type":"urn:menshen:fault:bad_request","title":"Bad Request","status":400,"detail":"this listener speaks TLS: its URLs begin with https"}`
	_, _ = fmt.Fprintf(plain.Conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(document), document)
}
