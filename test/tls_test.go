package test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// tlsClient trusts a certificate's authority, and nobody else.
func tlsClient(t testing.TB, c *testenv.Certificate) *http.Client {
	h := client(t)
	h.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: c.Pool}
	return h
}

// presented gives the name in the certificate that a listener shows for a server name.
func presented(t testing.TB, address, name string) string {
	t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{ServerName: name, InsecureSkipVerify: true}) // the test looks at the name itself
	must(t, err)
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestCertificateBySNI(t *testing.T) {
	t.Parallel()
	a, b := testenv.NewCertificate(t, "a.example"), testenv.NewCertificate(t, "b.example", "*.b.example")
	g := start(t, fmt.Sprintf(`
admin: "127.0.0.1:0"
listeners:
  tls: {address: "127.0.0.1:0", tls: {cert: %q, key: %q, certificates: [{cert: %q, key: %q}]}}
  new: {address: "127.0.0.1:0", tls: {cert: %q, key: %q, min_version: "1.3"}}
routes: {who: {match: /who, respond: {body: gateway}}}
access_log: none
`, a.CertFile, a.KeyFile, b.CertFile, b.KeyFile, a.CertFile, a.KeyFile))
	for name, want := range map[string]string{"a.example": "a.example", "b.example": "b.example", "x.b.example": "b.example", "other.example": "a.example", "": "a.example"} {
		if got := presented(t, g.addresses["tls"], name); got != want {
			t.Errorf("SNI %q gets the certificate of %s, want %s", name, got, want)
		}
	}
	c, err := tls.Dial("tcp", g.addresses["new"], &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil {
		c.Close()
		t.Error("min_version 1.3 lets a TLS 1.2 client in")
	}
}

// Certificate files are replaced, as a renewal does it: new connections see the new one, old connections go on.
func TestCertificateFilesChange(t *testing.T) {
	t.Parallel()
	before, after := testenv.NewCertificate(t, "before.example", "127.0.0.1"), testenv.NewCertificate(t, "after.example", "127.0.0.1")
	dir := testenv.Dir(t)
	put := func(c *testenv.Certificate) {
		for to, from := range map[string]string{"site.pem": c.CertFile, "site.key": c.KeyFile} {
			write(t, filepath.Join(dir, to+".new"), read(t, from))
			must(t, os.Rename(filepath.Join(dir, to+".new"), filepath.Join(dir, to)))
		}
	}
	put(before)
	write(t, filepath.Join(dir, "menshen.yaml"), `
admin: "127.0.0.1:0"
listeners: {tls: {address: "127.0.0.1:0", tls: {cert: site.pem, key: site.key}}}
routes: {who: {match: /who, respond: {body: gateway}}}
access_log: none
`)
	g := startAt(t, filepath.Join(dir, "menshen.yaml"))
	url := "https://" + g.addresses["tls"] + "/who"
	old := tlsClient(t, before)
	dials := counting(old)
	if status, _ := fetch(t, old, url); status != 200 {
		t.Fatalf("at first: %d", status)
	}
	put(after)
	testenv.Eventually(t, deadline, func() error {
		if got := presented(t, g.addresses["tls"], ""); got != "after.example" {
			return fmt.Errorf("new connections still see %s", got)
		}
		return nil
	})
	if status, _ := fetch(t, tlsClient(t, after), url); status != 200 {
		t.Errorf("with the new certificate: %d", status)
	}
	if status, _ := fetch(t, old, url); status != 200 || dials() != 1 {
		t.Errorf("the old connection: %d, %d dials", status, dials())
	}

	// A certificate that cannot be used leaves the last one in service.
	failures := g.reloads("failure")
	write(t, filepath.Join(dir, "site.pem"), "not a certificate\n")
	testenv.Eventually(t, deadline, func() error {
		if g.reloads("failure") == failures {
			return fmt.Errorf("the broken file was not noticed")
		}
		return nil
	})
	if got := presented(t, g.addresses["tls"], ""); got != "after.example" {
		t.Errorf("after a broken file new connections see %s", got)
	}
	s := g.state()
	if s.LastReload.OK || len(s.LastReload.Problems) != 1 || s.LastReload.Problems[0].Path != "listeners.tls.tls.cert" {
		t.Errorf("last_reload: %+v", s.LastReload)
	}
	put(before)
	testenv.Eventually(t, deadline, func() error {
		if got := presented(t, g.addresses["tls"], ""); got != "before.example" {
			return fmt.Errorf("after the repair new connections see %s", got)
		}
		return nil
	})
}

func TestTLSToEndpoints(t *testing.T) {
	t.Parallel()
	cert, stranger := testenv.NewCertificate(t, "backend.example", "127.0.0.1"), testenv.NewCertificate(t)
	n := testenv.Nginx(t, testenv.NginxConf{TLS: cert})
	g := start(t, fmt.Sprintf(`
admin: "127.0.0.1:0"
listeners:
  web: {address: "127.0.0.1:0"}
  raw: {address: "127.0.0.1:0", protocol: tcp, service: good}
services:
  good:     {endpoints: [%[1]q], tls: {ca: %[2]q}, health_check: /healthz}
  named:    {endpoints: [%[1]q], tls: {ca: %[2]q, server_name: backend.example}}
  misnamed: {endpoints: [%[1]q], tls: {ca: %[2]q, server_name: other.example}}
  wrong:    {endpoints: [%[1]q], tls: {ca: %[3]q}}
  system:   {endpoints: [%[1]q], tls: true}
  trusting: {endpoints: [%[1]q], tls: {insecure_skip_verify: true}}
  plain:    {endpoints: [%[4]q], tls: {ca: %[2]q}}
routes:
  good:     {match: /good/*, service: good, rewrite: {strip_prefix: /good}}
  named:    {match: /named/*, service: named, rewrite: {strip_prefix: /named}}
  misnamed: {match: /misnamed/*, service: misnamed}
  wrong:    {match: /wrong/*, service: wrong}
  system:   {match: /system/*, service: system}
  trusting: {match: /trusting/*, service: trusting, rewrite: {strip_prefix: /trusting}}
  plain:    {match: /plain/*, service: plain}
access_log: none
`, n.AddressTLS, cert.AuthorityFile, stranger.AuthorityFile, n.Address))
	c := client(t)
	for path, want := range map[string]int{"/good/10k": 200, "/named/10k": 200, "/trusting/10k": 200, "/misnamed/10k": 502, "/wrong/10k": 502, "/system/10k": 502, "/plain/10k": 502} {
		status, body := fetch(t, c, g.url("web", path))
		if status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
		switch {
		case status == 200 && string(body) != string(testenv.Body("/10k")):
			t.Errorf("%s: the body differs", path)
		case status == 502 && !strings.Contains(string(body), "connect_failed"):
			t.Errorf("%s: the problem is not named: %s", path, body)
		}
	}
	if status, body := fetch(t, c, g.url("raw", "/10k")); status != 200 || string(body) != string(testenv.Body("/10k")) {
		t.Errorf("through the tcp listener: %d, %d bytes", status, len(body))
	}
}
