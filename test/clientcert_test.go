package test

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// headerServer is an endpoint that answers with the header fields that it saw, as JSON.
func headerServer(t testing.TB) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(r.Header)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// certified is a client that shows a certificate (nil: none) and trusts everybody.
func certified(t testing.TB, own *testenv.Certificate, version uint16, http2 bool) *http.Client {
	h := client(t)
	config := &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version}
	if own != nil { // whatever authorities the server names
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own.Pair, nil }
	}
	transport := h.Transport.(*http.Transport)
	transport.TLSClientConfig, transport.ForceAttemptHTTP2 = config, http2
	return h
}

func seen(t testing.TB, body []byte) http.Header {
	t.Helper()
	var h http.Header
	if err := json.Unmarshal(body, &h); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	return h
}

// Who comes in, in which version, and what the endpoint, the policies and the record learn of them.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	site := testenv.NewCertificate(t, "127.0.0.1", "gate.example")
	root := testenv.NewAuthority(t, "Root")
	between := root.Below(t, "Between")
	good := between.Issue(t, nil, "app.example")
	direct := root.Issue(t, nil, "direct.example")
	expired := root.Issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "expired.example")
	early := root.Issue(t, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, "early.example")
	server := root.Issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "server.example")
	stranger := testenv.NewAuthority(t, "Root").Issue(t, nil, "app.example")
	orphan := between.Issue(t, nil, "orphan.example")
	orphan.Pair.Certificate = orphan.Pair.Certificate[:1] // does not show who stands between

	log := filepath.Join(testenv.Dir(t), "access.log")
	g := start(t, fmt.Sprintf(`
admin: "127.0.0.1:0"
access_log: %s
listeners:
  required: {address: "127.0.0.1:0", headers: {client_cert_chain: true}, tls: {cert: %[2]q, key: %[3]q, client_auth: %[4]q}}
  optional: {address: "127.0.0.1:0", tls: {cert: %[2]q, key: %[3]q, client_auth: {ca: %[4]q, mode: optional}}}
  silent:   {address: "127.0.0.1:0", headers: {client_cert: false}, tls: {cert: %[2]q, key: %[3]q, client_auth: %[4]q}}
  never:    {address: "127.0.0.1:0", tls: {cert: %[2]q, key: %[3]q}}
  plain:    {address: "127.0.0.1:0"}
  raw:      {address: "127.0.0.1:0", protocol: tcp, service: a, tls: {cert: %[2]q, key: %[3]q, client_auth: %[4]q}}
services: {a: {endpoints: [%[5]q]}}
routes: {all: {match: /*, service: a, policies: [{headers: {request: {set: {X-Subject: "{client.certificate.subject}", X-Print: "{client.certificate.fingerprint}"}}}}]}}
`, log, site.CertFile, site.KeyFile, root.File, headerServer(t)))

	item := func(raw []byte) string { return ":" + base64.StdEncoding.EncodeToString(raw) + ":" }
	wanted := 0
	ask := func(listener string, own *testenv.Certificate, version uint16, http2 bool) (http.Header, error) {
		t.Helper()
		r, err := http.NewRequest("GET", "https://"+g.addresses[listener]+"/", nil)
		must(t, err)
		for _, name := range []string{"Client-Cert", "client_cert", "Client-Cert-Chain", "Client_Cert_Chain", "Client-Cert_Chain"} {
			r.Header[name] = []string{":Zm9yZ2Vk:"}
		}
		r.Header.Set("X-Subject", "forged")
		if listener == "plain" {
			r.URL.Scheme = "http"
		}
		c := certified(t, own, version, http2)
		defer c.CloseIdleConnections() // a tcp listener records a connection when it ends
		resp, err := c.Do(r)
		if err != nil {
			return nil, err
		}
		status, body := drain(t, resp)
		if wanted++; status != 200 || http2 != (resp.ProtoMajor == 2) {
			t.Errorf("%s: %d %s", listener, status, resp.Proto)
		}
		return seen(t, body), nil
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, http2 := range []bool{false, true} {
			in := func(listener string, own *testenv.Certificate, cert, chain string) {
				t.Helper()
				at := fmt.Sprintf("%s over %s, HTTP/2 %v", listener, tls.VersionName(version), http2)
				h, err := ask(listener, own, version, http2)
				if err != nil {
					t.Errorf("%s: %v", at, err)
					return
				}
				if h.Get("Client-Cert") != cert || h.Get("Client-Cert-Chain") != chain {
					t.Errorf("%s: the endpoint saw %q, chain %q; want %q, %q", at, h.Get("Client-Cert"), h.Get("Client-Cert-Chain"), cert, chain)
				}
				subject, print := "", ""
				if own != nil && listener != "never" {
					sum := sha256.Sum256(own.Pair.Certificate[0])
					subject, print = "CN="+own.Pair.Leaf.Subject.CommonName, hex.EncodeToString(sum[:])
				}
				if h.Get("X-Subject") != subject || h.Get("X-Print") != print {
					t.Errorf("%s: templates gave %q and %q, want %q and %q", at, h.Get("X-Subject"), h.Get("X-Print"), subject, print)
				}
				for name, values := range h {
					if strings.Contains(strings.Join(values, ""), "Zm9yZ2Vk") {
						t.Errorf("%s: a forged %s came through", at, name)
					}
				}
			}
			out := func(listener string, own *testenv.Certificate, why string) {
				t.Helper()
				if h, err := ask(listener, own, version, http2); err == nil {
					t.Errorf("%s over %s lets in one %s: %v", listener, tls.VersionName(version), why, h)
				}
			}
			leaf := item(good.Pair.Certificate[0])
			in("required", good, leaf, item(good.Pair.Certificate[1]))
			in("required", direct, item(direct.Pair.Certificate[0]), "")
			in("optional", good, leaf, "")
			in("optional", nil, "", "")
			in("silent", good, "", "")
			in("never", good, "", "")
			out("required", nil, "without a certificate")
			for _, listener := range []string{"required", "optional", "silent"} {
				out(listener, expired, "that has expired")
				out(listener, early, "from the future")
				out(listener, server, "for servers only")
				out(listener, stranger, "of a stranger")
				out(listener, orphan, "without its chain")
			}
		}
	}
	if h, err := ask("plain", nil, 0, false); err != nil || h.Get("Client-Cert") != "" || h.Get("Client-Cert-Chain") != "" {
		t.Errorf("in plain text: %v %v", h, err)
	}
	before := wanted
	if _, err := ask("raw", nil, 0, false); err == nil {
		t.Error("the tcp listener lets in one without a certificate")
	}
	if _, err := ask("raw", good, 0, false); err != nil {
		t.Error(err)
	}
	if wanted != before+1 {
		t.Errorf("%d answers through the tcp listener", wanted-before)
	}

	// curl, which takes its certificate from files.
	curl, err := exec.Command("curl", "-sS", "--max-time", "20", "--cacert", site.AuthorityFile, "--cert", good.CertFile, "--key", good.KeyFile, "https://"+g.addresses["required"]+"/").CombinedOutput()
	if h := seen(t, curl); err != nil || h.Get("Client-Cert") != item(good.Pair.Certificate[0]) {
		t.Errorf("curl: %v %s", err, curl)
	}
	for range 2 {
		if out, err := exec.Command("curl", "-sS", "--max-time", "20", "--cacert", site.AuthorityFile, "https://"+g.addresses["required"]+"/").CombinedOutput(); err == nil {
			t.Errorf("curl without a certificate: %s", out)
		}
	}
	subjects := map[string]int{}
	for _, r := range records(t, log, wanted+1) {
		subject, _ := r["client_certificate"].(string)
		subjects[fmt.Sprint(r["listener"], " ", subject)]++
	}
	for _, want := range []string{"required CN=app.example", "required CN=direct.example", "optional CN=app.example", "optional ", "silent CN=app.example", "never ", "plain ", "raw CN=app.example"} {
		if subjects[want] == 0 {
			t.Errorf("no record of %q: %v", want, subjects)
		}
	}
}

// Authorities come and go while connections stay: who is trusted still goes on, who is not is told so and has to come again.
func TestClientAuthoritiesChange(t *testing.T) {
	t.Parallel()
	site, old, next := testenv.NewCertificate(t, "127.0.0.1"), testenv.NewAuthority(t, "Old"), testenv.NewAuthority(t, "Next")
	dir := testenv.Dir(t)
	ca := filepath.Join(dir, "clients.pem")
	trust := func(all ...*testenv.Authority) {
		t.Helper()
		var text bytes.Buffer
		for _, a := range all {
			text.WriteString(read(t, a.File))
		}
		write(t, ca+".new", text.String())
		must(t, os.Rename(ca+".new", ca))
	}
	trust(old)
	config := func(auth string) string {
		return fmt.Sprintf(`
admin: "127.0.0.1:0"
access_log: none
listeners: {web: {address: "127.0.0.1:0", tls: {cert: %q, key: %q%s}}}
services: {a: {endpoints: [%q]}}
routes: {all: {match: /*, service: a}}
`, site.CertFile, site.KeyFile, auth, headerServer(t))
	}
	write(t, filepath.Join(dir, "menshen.yaml"), config(", client_auth: "+ca))
	g := startAt(t, filepath.Join(dir, "menshen.yaml"))
	url := "https://" + g.addresses["web"] + "/"
	reload := func(change func()) {
		t.Helper()
		before := g.reloads("success")
		change()
		g.reloaded(before)
	}
	type visitor struct {
		*http.Client
		dials func() int
	}
	var clients []visitor
	f := func(i, status, dials int) {
		t.Helper()
		c := clients[i]
		resp, err := c.Get(url)
		if err != nil {
			if status != 0 {
				t.Errorf("client %d: %v", i, err)
			}
			return
		}
		got, body := drain(t, resp)
		if got != status || c.dials() != dials {
			t.Errorf("client %d: %d on connection %d, want %d on %d: %s", i, got, c.dials(), status, dials, body)
		}
		if cert := status == 200 && seen(t, body).Get("Client-Cert") != ""; status == 200 && !cert {
			t.Errorf("client %d: no certificate is passed on", i)
		}
	}
	for _, http2 := range []bool{false, true} { // 0 and 1: the old authority; 2 and 3: the next
		c := certified(t, old.Issue(t, nil, "old.example"), 0, http2)
		c.Transport.(*http.Transport).TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(10) // sessions must not outlive trust
		clients = append(clients, visitor{c, counting(c)})
	}
	for _, http2 := range []bool{false, true} {
		c := certified(t, next.Issue(t, nil, "next.example"), 0, http2)
		clients = append(clients, visitor{c, counting(c)})
	}
	f(0, 200, 1)
	f(1, 200, 1)
	f(2, 0, 0) // not yet
	reload(func() { trust(old, next) })
	f(0, 200, 1) // goes on
	f(1, 200, 1)
	at2 := clients[2].dials()
	f(2, 200, at2+1)
	f(3, 200, 1)
	reload(func() { trust(next) })
	f(0, 421, 1) // its connection is there still, but not its authority
	f(1, 421, 1)
	f(2, 200, at2+1)
	f(3, 200, 1)
	f(0, 0, 0) // and with a new one, even one that resumes its session, it does not come in
	clients[1].CloseIdleConnections()
	f(1, 0, 0)

	// A listener that begins to ask: who came before has no certificate, and needs another connection.
	reload(func() { g.write(config("")) })
	nobody := certified(t, nil, 0, false)
	if status, _ := fetch(t, nobody, url); status != 200 {
		t.Errorf("without client_auth: %d", status)
	}
	reload(func() { g.write(config(fmt.Sprintf(", client_auth: {ca: %s, mode: optional}", ca))) })
	if status, _ := fetch(t, nobody, url); status != 200 {
		t.Errorf("with an optional certificate: %d", status)
	}
	reload(func() { g.write(config(", client_auth: " + ca)) })
	if status, body := fetch(t, nobody, url); status != 421 || !strings.Contains(string(body), "misdirected") {
		t.Errorf("without a certificate, on an old connection: %d %s", status, body)
	}
	if _, err := nobody.Get(url); err == nil {
		t.Error("without a certificate, on a new connection: let in")
	}

	// A file that holds no authority leaves the last ones in service.
	failures := g.reloads("failure")
	write(t, ca, "nothing\n")
	testenv.Eventually(t, deadline, func() error {
		if g.reloads("failure") == failures {
			return fmt.Errorf("the broken file was not noticed")
		}
		return nil
	})
	if s := g.state(); len(s.LastReload.Problems) != 1 || s.LastReload.Problems[0].Path != "listeners.web.tls.client_auth.ca" {
		t.Errorf("last_reload: %+v", s.LastReload)
	}
	f(3, 200, 1)
}

// A connection belongs to the names of the certificate that was shown on it (RFC 9110, 15.5.20).
func TestMisdirectedRequests(t *testing.T) {
	t.Parallel()
	a, b, c := testenv.NewCertificate(t, "a.example", "shared.example"), testenv.NewCertificate(t, "b.example", "*.wild.example", "shared.example"), testenv.NewCertificate(t, "c.example")
	g := start(t, fmt.Sprintf(`
listeners:
  web: {address: "127.0.0.1:0", tls: {cert: %q, key: %q, certificates: [{cert: %q, key: %q}, {cert: %q, key: %q}]}}
  one: {address: "127.0.0.1:0", tls: {cert: %[1]q, key: %[2]q}}
routes: {who: {match: /*, respond: {body: gateway}}}
access_log: none
`, a.CertFile, a.KeyFile, b.CertFile, b.KeyFile, c.CertFile, c.KeyFile))
	f := func(listener, name, host string, want int) {
		t.Helper()
		for _, http2 := range []bool{false, true} {
			h := certified(t, nil, 0, http2)
			h.Transport.(*http.Transport).TLSClientConfig.ServerName = name
			r, err := http.NewRequest("GET", "https://"+g.addresses[listener]+"/", nil)
			must(t, err)
			r.Host = host
			resp, err := h.Do(r)
			must(t, err)
			if status, _ := drain(t, resp); status != want || !http2 && resp.Close != (want == 421) {
				t.Errorf("SNI %q, Host %q, HTTP/2 %v: %d, close %v; want %d", name, host, http2, status, resp.Close, want)
			}
		}
	}
	f("web", "a.example", "a.example", 200)
	f("web", "A.example", "a.EXAMPLE:443", 200)
	f("web", "a.example", "b.example", 421)
	f("web", "a.example", "b.example:443", 421)
	f("web", "b.example", "a.example", 421)
	f("web", "b.example", "x.wild.example", 200)   // the same certificate: browsers may join connections
	f("web", "y.wild.example", "b.example", 200)   //
	f("web", "a.example", "x.wild.example", 421)   //
	f("web", "a.example", "x.y.wild.example", 200) // a wildcard stands for one label: nobody's name
	f("web", "shared.example", "b.example", 200)   // two certificates have the name: either may have been shown
	f("web", "shared.example", "c.example", 421)
	f("web", "other.example", "a.example", 200) // was shown the first
	f("web", "other.example", "b.example", 421)
	f("web", "b.example", "other.example", 200) // nobody's name
	f("web", "b.example", "127.0.0.1", 200)
	f("web", "b.example", "[::1]:443", 200)
	f("web", "127.0.0.1", "b.example", 200) // no name was asked for, so there is nothing to go by
	f("one", "a.example", "b.example", 200)
}
