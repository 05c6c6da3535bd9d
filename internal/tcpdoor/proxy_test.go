package tcpdoor

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/proxyproto"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// echo is an endpoint that reads a PROXY protocol header from every connection (from health checks too), over TLS if it has a
// certificate says what the header said, and sends back what follows. heard tells each header.
func echo(t *testing.T, certificate *tls.Config) (address string, heard chan proxyproto.Header) {
	t.Helper()
	heard = make(chan proxyproto.Header, 1000)
	return endpoint(t, func(c net.Conn) {
		h, err := proxyproto.Read(c)
		if err == io.EOF { // a connection that ended before it had begun
			return
		}
		if err != nil {
			t.Errorf("the endpoint got no header: %v", err)
			return
		}
		heard <- h
		if certificate != nil {
			c = tls.Server(c, certificate)
		}
		fmt.Fprintf(c, "%v %v;", h.From, h.To)
		_, _ = io.Copy(c, c)
	}), heard
}

// ask sends and gives all that comes back.
func ask(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	_, _ = io.WriteString(c, text)
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	got, _ := io.ReadAll(c)
	return string(got)
}

func TestProxyProtocolBothWays(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"v1", "v2"} {
		endpoint, heard := echo(t, nil)
		d := serve(t, fmt.Sprintf(`
listeners:
  raw: {address: ":0", protocol: tcp, proxy_protocol: [127.0.0.1], service: {endpoints: [%q], proxy_protocol: %s, health_check: {interval: 10ms}}}
`, endpoint, version), nil)
		if h := <-heard; h.Known() {
			t.Errorf("a health check speaks for %v", h)
		}
		f := func(introduction, want string) {
			t.Helper()
			if got := ask(t, d.dial(), introduction+"hello"); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, ";hello") {
				t.Errorf("%s: %q, want %q", version, got, want)
			}
		}
		f("PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n", "192.0.2.7:12345 10.0.0.1:443;")
		f("PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n", "[2001:db8::7]:12345 [2001:db8::1]:443;")
		f(string(proxyproto.Header{From: netip.MustParseAddrPort("192.0.2.8:1")}.AppendTo(nil, proxyproto.V2)), "192.0.2.8:1 0.0.0.0:0;")
		f("PROXY UNKNOWN\r\n", "127.0.0.1:") // the load balancer itself
		if got := ask(t, d.dial(), "hello, who is there?"); got != "" {
			t.Errorf("without a header: %q", got)
		}
		d.stop()
		if log := d.log.String(); !strings.Contains(log, `"client_address":"192.0.2.7"`) || !strings.Contains(log, `"client_address":"2001:db8::7"`) {
			t.Errorf("records:\n%s", log)
		}
	}
}

func TestProxyProtocolOutTellsThePeer(t *testing.T) {
	t.Parallel()
	endpoint, _ := echo(t, nil)
	d := serve(t, fmt.Sprintf(`
listeners: {raw: {address: ":0", protocol: tcp, service: {endpoints: [%q], proxy_protocol: v2}}}
`, endpoint), nil)
	c := d.dial()
	if got, want := ask(t, c, "PROXY UNKNOWN\r\n"), fmt.Sprintf("%s %s;PROXY UNKNOWN\r\n", c.LocalAddr(), c.RemoteAddr()); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestProxyProtocolOutsideOfTLS(t *testing.T) {
	t.Parallel()
	certificate := testenv.NewCertificate(t)
	pair, err := tls.LoadX509KeyPair(certificate.CertFile, certificate.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	server := &tls.Config{Certificates: []tls.Certificate{pair}}
	endpoint, _ := echo(t, server)
	d := serve(t, fmt.Sprintf(`
listeners: {raw: {address: ":0", protocol: tcp, proxy_protocol: [127.0.0.0/8], tls: {cert: %q, key: %q}, service: {endpoints: [%q], proxy_protocol: v1, tls: {ca: %q}}}}
`, certificate.CertFile, certificate.KeyFile, endpoint, certificate.AuthorityFile), nil)
	c := d.dial()
	_, _ = io.WriteString(c, "PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n")
	secure := tls.Client(c, &tls.Config{RootCAs: certificate.Pool, ServerName: "localhost"})
	if got := ask(t, secure, "hello"); got != "192.0.2.7:12345 10.0.0.1:443;hello" {
		t.Errorf("%q", got)
	}
}

// TestProxyProtocolBounds: the bound on a client's connections is the named client's, and a header may take only so long.
func TestProxyProtocolBounds(t *testing.T) {
	t.Parallel()
	endpoint, _ := echo(t, nil)
	d := serve(t, fmt.Sprintf(`
listeners: {raw: {address: ":0", protocol: tcp, proxy_protocol: [127.0.0.1], timeouts: {request_header: 200ms}, limits: {connections_per_address: 1, connections: 3},
  service: {endpoints: [%q], proxy_protocol: v1}}}
`, endpoint), nil)
	hold := func(client string) net.Conn {
		c := d.dial()
		_, _ = fmt.Fprintf(c, "PROXY TCP4 %s 10.0.0.1 1 2\r\n", client)
		_, err := io.ReadFull(c, make([]byte, len(client)))
		if err != nil {
			t.Fatalf("%s: %v", client, err)
		}
		return c
	}
	admitted := func(client string) {
		t.Helper()
		testenv.Eventually(t, 5*time.Second, func() error {
			c := d.dial()
			defer c.Close()
			if got := ask(t, c, "PROXY TCP4 "+client+" 10.0.0.1 3 2\r\n"); !strings.HasPrefix(got, client+":3") {
				return fmt.Errorf("%q", got)
			}
			return nil
		})
	}
	first, second := hold("192.0.2.1"), hold("192.0.2.2")
	if got := ask(t, d.dial(), "PROXY TCP4 192.0.2.1 10.0.0.1 3 2\r\n"); got != "" {
		t.Errorf("a second connection of the client: %q", got)
	}
	// Those that say nothing count among all, until their time is over.
	silent := d.dial()
	admitted("192.0.2.3")
	if got, _ := io.ReadAll(silent); len(got) > 0 {
		t.Errorf("%q", got)
	}
	first.Close()
	admitted("192.0.2.1")
	second.Close()
}
