package sqldoor

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/proxyproto"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// introduced signs in behind a header.
func introduced(g *gate, version proxyproto.Version, from string, client *tls.Config) (*backend.Conn, error) {
	g.t.Helper()
	s := &backend.Settings{User: "app", Password: "apple", Connect: 10 * time.Second, Proxy: version, TLS: client}
	want := backend.Session{Capabilities: mysql.MultiResults | mysql.PrepareMultiResults, Schema: "shop"}
	if from != "" {
		want.Client = proxyproto.Header{From: netip.MustParseAddrPort(from), To: netip.MustParseAddrPort("10.0.0.1:3306")}
	}
	c, err := backend.Open(g.t.Context(), g.Addr, s, want, nil)
	if err == nil {
		g.t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

// TestProxyProtocol goes through a trusted load balancer to a MariaDB that expects headers itself: it sees the clients.
func TestProxyProtocol(t *testing.T) {
	config, certificate := serverTLS(t)
	client := &tls.Config{RootCAs: certificate.Pool, ServerName: "localhost"}
	db := mariadb(t, "--proxy-protocol-networks=127.0.0.1")
	for version, word := range map[proxyproto.Version]string{proxyproto.V1: "v1", proxyproto.V2: "v2"} {
		yaml := strings.ReplaceAll(shop(db.Addr, ", proxy_protocol: [127.0.0.1]"), "login:", "proxy_protocol: "+word+"\n    pool: {share: session}\n    login:")
		g := open(t, yaml, func(d *Door) { d.o.TLS = func(string) *tls.Config { return config } })
		seen := func() (hosts []string) {
			rows, err := db.Open(t, "root", "").Query("SELECT host FROM information_schema.processlist WHERE user = 'gate'")
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			for rows.Next() {
				var host string
				_ = rows.Scan(&host)
				hosts = append(hosts, host)
			}
			return hosts
		}
		for i, secure := range []*tls.Config{nil, client} {
			from := fmt.Sprintf("192.0.2.7:1234%d", i)
			c, err := introduced(g, version, from, secure)
			if err != nil {
				t.Fatalf("%s: %v", word, err)
			}
			r := &raw{Conn: c, t: t, caps: c.Capabilities}
			if a, _ := r.ask(mysql.ComQuery, "SELECT 1"); a.Rows != 1 {
				t.Errorf("%s: %+v", word, a)
			}
			if hosts := seen(); !slices.Contains(hosts, from) {
				t.Errorf("%s: the instance sees %q, not %s", word, hosts, from)
			}
		}
		// A load balancer that speaks for itself is the client; so is the gateway's health check.
		c, err := introduced(g, version, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if a, _ := (&raw{Conn: c, t: t, caps: c.Capabilities}).ask(mysql.ComQuery, "SELECT 1"); a.Rows != 1 {
			t.Errorf("%s: %+v", word, a)
		}
		if hosts := seen(); len(hosts) < 3 || !slices.ContainsFunc(hosts, func(h string) bool { return strings.HasPrefix(h, "127.0.0.1:") }) {
			t.Errorf("%s: the instance sees %q", word, hosts)
		}
		testenv.Eventually(t, 5*time.Second, func() error {
			if log := g.access.String(); !strings.Contains(log, `"client_address":"192.0.2.7"`) {
				return fmt.Errorf("records:\n%s", log)
			}
			return nil
		})
		_, err = introduced(g, version, "192.0.2.9:1", nil)
		if err != nil {
			t.Error(err)
		}
	}
}

// TestProxyProtocolRefused: a trusted peer must begin with a header, and nobody else is listened to.
func TestProxyProtocolRefused(t *testing.T) {
	g := open(t, shop(testenv.FreeAddress(t), ", proxy_protocol: [127.0.0.1], timeouts: {request_header: 200ms}, limits: {connections_per_address: 1}"))
	f := func(sent, want string) {
		t.Helper()
		before := g.Sessions()
		c, err := net.Dial("tcp", g.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c, sent)
		if got, _ := io.ReadAll(c); !strings.Contains(string(got), want) || want == "" && len(got) > 0 {
			t.Errorf("%q after %q; want %q", got, sent, want)
		}
		testenv.Eventually(t, 5*time.Second, func() error { // it counts for its address until it has left
			if n := g.Sessions(); n > before {
				return fmt.Errorf("%d sessions, %d before", n, before)
			}
			return nil
		})
	}
	const client = "PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n"
	f("", "") // a client that waits for the greeting, as all do
	f("GET / HTTP/1.1\r\n\r\n", "")
	f(client[:10], "")
	f(client+client, mysql.CachingSHA2) // the second one is no sign-in
	f(client, mysql.CachingSHA2)
	held, err := net.Dial("tcp", g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	_, _ = io.WriteString(held, client)
	readMessage(t, held)
	f(client, "Too many connections")
	f("PROXY TCP4 192.0.2.8 10.0.0.1 12345 443\r\n", mysql.CachingSHA2)

	g = open(t, shop(testenv.FreeAddress(t), ", proxy_protocol: [10.0.0.0/8], timeouts: {request_header: 200ms}"))
	f(client, mysql.CachingSHA2) // greeted, and then its header is a malformed sign-in
}
