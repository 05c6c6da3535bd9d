package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ask runs a probe with a bound that only a broken test reaches.
func ask(t *testing.T, p Probe, address string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return p(ctx, address)
}

func serve(t *testing.T, secure bool, f http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(f)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

// refused gives an address that nobody listens on.
func refused(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func wantError(t *testing.T, err error, words string) {
	t.Helper()
	switch {
	case err == nil && words != "":
		t.Errorf("no error, but expected %q", words)
	case err != nil && (words == "" || !strings.Contains(err.Error(), words)):
		t.Errorf("error %q, expected %q", err, words)
	}
}

func TestHTTPProbe(t *testing.T) {
	t.Parallel()
	var host, agent string
	s := serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		host, agent = r.Host, r.UserAgent()
		switch r.RequestURI {
		case "/ok?full=1":
		case "/teapot":
			w.WriteHeader(http.StatusTeapot)
		case "/away":
			http.Redirect(w, r, "/broken", http.StatusFound)
		case "/a%2Fb":
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	address := s.Listener.Addr().String()
	f := func(o HTTPOptions, status, words string) {
		t.Helper()
		var err error
		if o.Status, err = ParseStatus(status); err != nil {
			t.Fatal(err)
		}
		wantError(t, ask(t, HTTP(o), address), words)
	}
	f(HTTPOptions{Path: "/ok?full=1"}, "", "")
	if host != address || agent != "menshen-health" {
		t.Errorf("host %q, agent %q", host, agent)
	}
	f(HTTPOptions{Path: "/ok?full=1", Host: "api.example.com"}, "200", "")
	if host != "api.example.com" {
		t.Errorf("host %q", host)
	}
	f(HTTPOptions{Path: "/away"}, "", "") // a redirect is not followed
	f(HTTPOptions{Path: "/away"}, "200-299", "status 302, not 200-299")
	f(HTTPOptions{Path: "/teapot"}, "", "status 418, not 200-399")
	f(HTTPOptions{Path: "/teapot"}, "200-299,418", "")
	f(HTTPOptions{Path: "/a%2Fb"}, "204", "")
	f(HTTPOptions{}, "", "status 500")
}

func TestHTTPProbeOverTLS(t *testing.T) {
	t.Parallel()
	s := serve(t, true, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 || r.TLS == nil {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	address := s.Listener.Addr().String()
	f := func(c *tls.Config, words string) {
		t.Helper()
		wantError(t, ask(t, HTTP(HTTPOptions{TLS: c}), address), words)
	}
	f(&tls.Config{RootCAs: roots}, "")
	f(&tls.Config{RootCAs: roots, ServerName: "example.com"}, "")
	f(&tls.Config{RootCAs: roots, ServerName: "other.test"}, "certificate refused")
	f(&tls.Config{}, "certificate refused")
	f(&tls.Config{InsecureSkipVerify: true}, "")
	f(nil, "status 400") // plain text to a TLS port
}

func TestProbesSayWhy(t *testing.T) {
	t.Parallel()
	dead := refused(t)
	for _, p := range []Probe{TCP(nil), HTTP(HTTPOptions{})} {
		err := ask(t, p, dead)
		if err == nil || err.Error() != "connection refused" || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("nobody listens: %v", err)
		}
		if ask(t, p, "no port") == nil {
			t.Error("an address without a port is well")
		}
	}

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // ends with the listener: accepts and hangs up
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1<<10))
			c.Close()
		}
	}()
	wantError(t, ask(t, TCP(nil), ln.Addr().String()), "")
	wantError(t, ask(t, HTTP(HTTPOptions{}), ln.Addr().String()), "connection closed without an answer")
}

// An endpoint must not be able to keep a check, or its memory, busy.
func TestHTTPProbeIsBounded(t *testing.T) {
	t.Parallel()
	s := serve(t, false, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/silent":
			<-r.Context().Done()
		case "/endless":
			for p := make([]byte, 1<<10); ; {
				if _, err := w.Write(p); err != nil {
					return
				}
			}
		case "/head":
			w.Header().Set("X-Long", strings.Repeat("x", 2*probeHeadBytes))
		}
	})
	address := s.Listener.Addr().String()
	wantError(t, ask(t, HTTP(HTTPOptions{Path: "/endless"}), address), "")
	wantError(t, ask(t, HTTP(HTTPOptions{Path: "/head"}), address), "exceeded")

	c := NewChecker(address, HTTP(HTTPOptions{Path: "/silent"}), Settings{Timeout: 50 * time.Millisecond}, nil)
	wantError(t, c.check(context.Background(), c.task.Load()), "no answer within 50ms")
}

func TestParseStatus(t *testing.T) {
	t.Parallel()
	f := func(s, want string, in, out int) {
		t.Helper()
		set, err := ParseStatus(s)
		if err != nil {
			t.Errorf("%q: %v", s, err)
			return
		}
		if set.String() != want || !set.Contains(in) || set.Contains(out) {
			t.Errorf("%q: %s, contains %d: %v, contains %d: %v", s, set, in, set.Contains(in), out, set.Contains(out))
		}
	}
	f("", "200-399", 399, 400)
	f("200", "200", 200, 201)
	f("200-299,418", "200-299,418", 418, 417)
	f(" 200 - 204 , 301 ", "200-204,301", 204, 205)
	f("100-599", "100-599", 599, 600)

	refuse := func(s string) {
		t.Helper()
		if set, err := ParseStatus(s); err == nil {
			t.Errorf("%q is accepted as %s", s, set)
		}
	}
	for _, s := range []string{"abc", "20", "2000", "99", "600", "299-200", "200-", "-200", "200,", ",200", "200-299-399", "+200", "0x0", "2xx", strings.Repeat("200,", 70) + "200"} {
		refuse(s)
	}
}

func FuzzParseStatus(f *testing.F) {
	for _, s := range []string{"", "200", "200-299,418", " 200 - 204 ", "299-200", "2xx", ","} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		set, err := ParseStatus(s)
		if err != nil {
			return
		}
		again, err := ParseStatus(set.String())
		if err != nil || again.String() != set.String() {
			t.Errorf("%q is %s, and that %s: %v", s, set, again, err)
		}
	})
}

func TestHTTP2Probe(t *testing.T) {
	t.Parallel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.RequestURI != "/healthz?a=b" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	for _, secure := range []bool{false, true} {
		s := httptest.NewUnstartedServer(handler)
		s.Config.Protocols = new(http.Protocols)
		o := HTTPOptions{Path: "/healthz?a=b", HTTP2: true}
		if secure {
			s.EnableHTTP2 = true
			s.Config.Protocols.SetHTTP2(true)
			s.StartTLS()
			o.TLS = &tls.Config{InsecureSkipVerify: true}
		} else {
			s.Config.Protocols.SetUnencryptedHTTP2(true)
			s.Start()
		}
		t.Cleanup(s.Close)
		wantError(t, ask(t, HTTP(o), s.Listener.Addr().String()), "")
	}
}

// What an endpoint expects before all else, checks send too.
func TestProbesSendThePreamble(t *testing.T) {
	t.Parallel()
	const preamble = "PROXY UNKNOWN\r\n"
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	got := make(chan string)
	go func() { // two checks
		for range 2 {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			text := make([]byte, len(preamble))
			_, _ = io.ReadFull(c, text)
			got <- string(text)
			_, _ = c.Read(make([]byte, 1<<10))
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
			c.Close()
		}
	}()
	for _, p := range []Probe{TCP([]byte(preamble)), HTTP(HTTPOptions{Preamble: []byte(preamble)})} {
		answer := make(chan error, 1)
		go func() { answer <- ask(t, p, ln.Addr().String()) }()
		if text := <-got; text != preamble {
			t.Errorf("%q", text)
		}
		if err := <-answer; err != nil {
			t.Error(err)
		}
	}
}
