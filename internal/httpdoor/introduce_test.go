package httpdoor

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/proxyproto"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

var introductions = []string{
	"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n",
	string(proxyproto.Header{From: netip.MustParseAddrPort("192.0.2.7:12345"), To: netip.MustParseAddrPort("10.0.0.1:443")}.AppendTo(nil, proxyproto.V2)),
}

// TestProxyProtocol: the client's address in a trusted header counts everywhere.
func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	const behind = `
listeners: {web: {address: ":0", proxy_protocol: 127.0.0.0/8, limits: {connections_per_address: 2}}}
services: {s: {endpoints: ["$A"]}}
routes: {r: {match: "/*", service: s, policies: [{rate_limit: 2/d}]}}
`
	g := open(t, behind, "A", endpoint(t, echo))
	g.afterwards = append(g.afterwards, func(log string) {
		if !strings.Contains(log, `"client_address":"192.0.2.7"`) {
			t.Errorf("records without the client's address:\n%s", log)
		}
	})
	var open []*client
	for _, introduction := range introductions {
		c := g.dial()
		c.send(introduction + "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp, body := c.get("GET"); resp.StatusCode != 200 || !strings.Contains(body, "X-Forwarded-For: 192.0.2.7\r\n") {
			t.Errorf("%q: %d\n%s", introduction, resp.StatusCode, body)
		}
		open = append(open, c)
	}
	// The rate limit is the client's, and a load balancer that speaks for itself is another client.
	c := open[0]
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp, _ := c.get("GET"); resp.StatusCode != 429 {
		t.Errorf("a third request of the client: %d", resp.StatusCode)
	}
	own := g.dial()
	own.send("PROXY UNKNOWN\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp, body := own.get("GET"); resp.StatusCode != 200 || !strings.Contains(body, "X-Forwarded-For: 127.0.0.1\r\n") {
		t.Errorf("%d\n%s", resp.StatusCode, body)
	}
	own.Close()
	// So is the bound on connections.
	third := g.dial()
	third.send(introductions[0] + "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if got, _ := io.ReadAll(third.r); len(got) > 0 {
		t.Errorf("a third connection of the client: %q", got)
	}
	third.Close()
	for _, c := range open {
		c.Close()
	}
	testenv.Eventually(t, 5*time.Second, func() error {
		again := g.dial()
		defer again.Close()
		again.send(introductions[1] + "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if got, _ := io.ReadAll(io.LimitReader(again.r, 12)); string(got) != "HTTP/1.1 429" {
			return io.ErrUnexpectedEOF
		}
		return nil
	})
}

// TestProxyProtocolRefused: a trusted peer must begin with a header, and nobody else may.
func TestProxyProtocolRefused(t *testing.T) {
	t.Parallel()
	f := func(listener, sent, want string) {
		t.Helper()
		g := open(t, `
listeners: {web: {address: ":0", timeouts: {request_header: 200ms}`+listener+`}}
services: {s: {endpoints: ["$A"]}}
routes: {r: {match: "/*", service: s}}
trusted_proxies: 192.0.2.0/24
`, "A", endpoint(t, echo))
		c := g.dial()
		defer c.Close()
		c.send(sent)
		got, _ := io.ReadAll(c.r)
		if !strings.HasPrefix(string(got), want) || want == "" && len(got) > 0 {
			t.Errorf("%q after %q; want %q", got, sent, want)
		}
	}
	const request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n"
	const trusted = ", proxy_protocol: [127.0.0.1]"
	f(trusted, request, "")
	f(trusted, introductions[0]+introductions[1], "HTTP/1.1 400")
	f(trusted, introductions[0][:20], "") // the time of a request head is over
	f(trusted, "", "")
	f(trusted, "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n"+request, "")
	f("", introductions[0]+request, "HTTP/1.1 400")
	f("", introductions[1]+request, "HTTP/1.1 400")
	f(", proxy_protocol: [10.0.0.0/8]", introductions[0]+request, "HTTP/1.1 400")
	f(", proxy_protocol: [10.0.0.0/8]", request, "HTTP/1.1 200")
	f(trusted, introductions[0]+request, "HTTP/1.1 200")
}

// TestProxyProtocolBeforeTLS: the header stands outside of TLS, and the address in it may itself be that of a trusted proxy.
func TestProxyProtocolBeforeTLS(t *testing.T) {
	t.Parallel()
	certificate := testenv.NewCertificate(t, "localhost")
	g := open(t, `
listeners: {web: {address: ":0", tls: {cert: $CERT, key: $KEY}, proxy_protocol: [127.0.0.1]}}
services: {s: {endpoints: ["$A"]}}
routes: {r: {match: "/*", service: s}}
trusted_proxies: 192.0.2.0/24
`, "A", endpoint(t, echo), "CERT", certificate.CertFile, "KEY", certificate.KeyFile)
	nc, err := net.Dial("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, introductions[1]); err != nil {
		t.Fatal(err)
	}
	c := tls.Client(nc, &tls.Config{RootCAs: certificate.Pool, ServerName: "localhost"})
	_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n")
	got, _ := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200") || !strings.Contains(string(got), "X-Forwarded-For: 198.51.100.1, 192.0.2.7\r\n") {
		t.Errorf("%v\n%s", err, got)
	}
}

// A bug while the header is read costs that connection, and neither the process nor a place among the connections.
func TestPanicInAnIntroduction(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: ":0", proxy_protocol: [127.0.0.1], limits: {connections: 1}}}
services: {s: {endpoints: ["$A"]}}
routes: {r: {match: "/*", service: s}}
`, "A", endpoint(t, echo))
	g.door.options.Log = slog.New(slog.DiscardHandler) // the panics are meant
	g.door.Count()                                     // takes the lock that a connection will take
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.door.Serve(t.Context(), buggyListener{ln}, "web") }()
	for range 3 {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if got, err := io.ReadAll(c); len(got) > 0 || err != nil {
			t.Errorf("%q %v", got, err)
		}
		c.Close()
		testenv.Eventually(t, 10*time.Second, func() error {
			if n := g.door.Count(); n > 0 {
				return fmt.Errorf("%d connections are counted", n)
			}
			return nil
		})
	}
	ln.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	c := g.dial()
	c.send(introductions[0] + "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp, _ := c.get("GET"); resp.StatusCode != 200 {
		t.Error(resp.StatusCode)
	}
}

// buggyListener gives connections that cannot be read.
type buggyListener struct{ net.Listener }

func (l buggyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return buggy{c}, err
}

type buggy struct{ net.Conn }

func (buggy) Read([]byte) (int, error) { panic("BUG: made by a test") }
