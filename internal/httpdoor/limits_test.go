package httpdoor

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// certificate writes a certificate for the names, signed by itself, and its key.
func certificate(t testing.TB, names ...string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	cert, key = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// secured is a raw TLS connection to the gate.
func (g *gate) secured(name string, state *tls.ConnectionState) *client {
	g.t.Helper()
	c := g.dial()
	tc := tls.Client(c.Conn, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		g.t.Fatal(err)
	}
	if state != nil {
		*state = tc.ConnectionState()
	}
	return &client{g.t, tc, bufio.NewReader(tc)}
}

const secure = `
listeners: {web: {address: "127.0.0.1:0", timeouts: {idle: 300ms, request_header: 300ms, request_body: 300ms}, limits: {body_bytes: 20MiB}, tls: {certificates: [{cert: $CERT1, key: $KEY1}, {cert: $CERT2, key: $KEY2}]}}}
services: {a: {endpoints: [$A]}}
routes: {all: {match: /*, service: a}, ping: {match: /ping, respond: {body: pong}}}
`

func openSecure(t testing.TB, a string) *gate {
	cert1, key1 := certificate(t, "one.example")
	cert2, key2 := certificate(t, "two.example", "*.wild.example")
	return open(t, secure, "CERT1", cert1, "KEY1", key1, "CERT2", cert2, "KEY2", key2, "A", a)
}

func TestTLSListener(t *testing.T) {
	t.Parallel()
	g := openSecure(t, endpoint(t, echo))
	for name, want := range map[string]string{"one.example": "one.example", "two.example": "two.example", "x.wild.example": "two.example", "other.example": "one.example", "": "one.example"} {
		var state tls.ConnectionState
		c := g.secured(name, &state)
		if got := state.PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("%s: certificate of %s", name, got)
		}
		for _, size := range []int{0, 1, 20_000, 500_000} { // on one connection, with a request behind each
			go fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%sGET /ping HTTP/1.1\r\nHost: a\r\n\r\n", size, strings.Repeat("b", size))
			if resp, body := c.get("POST"); resp.StatusCode != 200 || !strings.HasSuffix(body, "\n\n"+strings.Repeat("b", size)) || !strings.Contains(body, "X-Forwarded-Proto: https\r\n") {
				t.Fatalf("%d bytes: %d, %d bytes", size, resp.StatusCode, len(body))
			}
			if _, body := c.get("GET"); body != "pong" {
				t.Fatal(body)
			}
		}
		c.closed() // idle for too long
	}
}

func TestTLSRefusals(t *testing.T) {
	t.Parallel()
	g := openSecure(t, endpoint(t, echo))
	f := func(text string, want int) {
		t.Helper()
		c := g.secured("one.example", nil)
		c.send(text)
		if resp, _ := c.get("GET"); resp.StatusCode != want || !resp.Close {
			t.Errorf("%.40q: %d", text, resp.StatusCode)
		}
		c.closed()
	}
	f("GET / HTTP/1.1\r\nHost", 408)
	f("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab", 408)
	f("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000\r\n\r\nab", 408)
	f("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\nab", 413)
	f("nonsense\r\n\r\n", 400)
	silent := g.dial() // never begins its handshake
	silent.closed()
	plain := g.dial() // speaks no TLS
	plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	io.Copy(io.Discard, plain)
}

func TestTLSDrain(t *testing.T) {
	t.Parallel()
	g := openSecure(t, endpoint(t, echo))
	c := g.secured("one.example", nil)
	c.send("GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
	c.get("GET")
	began := time.Now()
	if err := g.door.Drain(context.Background(), ""); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 250*time.Millisecond { // less than its idle timeout
		t.Errorf("took %v", took)
	}
	c.closed()
}

// A gate in front of a TLS endpoint: verified, pooled, and the same as any other.
func TestTLSToEndpoints(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, "inner.example")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	dials := make(chan struct{}, 100)
	a := endpoint(t, func(c net.Conn, _ *bufio.Reader) {
		dials <- struct{}{}
		tc := tls.Server(unread{c}, &tls.Config{Certificates: []tls.Certificate{pair}})
		echo(tc, bufio.NewReader(tc))
	})
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
services:
  a: {endpoints: [$A], tls: {ca: $CERT, server_name: inner.example}}
  wrong: {endpoints: [$A], tls: {ca: $CERT, server_name: other.example}}
  slow: {endpoints: [$SLOW], tls: {ca: $CERT}, timeouts: {connect: 100ms}}
routes: {all: {match: /*, service: a}, wrong: {match: /wrong, service: wrong}, slow: {match: /slow, service: slow}}
`, "A", a, "CERT", cert, "SLOW", endpoint(t, func(c net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) }))
	c := g.dial()
	for _, size := range []int{0, 100, 20_000, 500_000} {
		go fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("b", size))
		if resp, body := c.get("POST"); resp.StatusCode != 200 || !strings.HasSuffix(body, "\n\n"+strings.Repeat("b", size)) {
			t.Fatalf("%d bytes: %d %.200s", size, resp.StatusCode, body)
		}
	}
	if n := len(dials); n != 1 {
		t.Errorf("%d connections for four requests", n)
	}
	if resp, body := g.ask("GET", "/wrong"); resp.StatusCode != 502 || !strings.Contains(body, "connect_failed") {
		t.Error(resp.StatusCode, body)
	}
	if resp, body := g.ask("GET", "/slow"); resp.StatusCode != 504 || !strings.Contains(body, "connect_timeout") {
		t.Error(resp.StatusCode, body)
	}
}

// unread hides a connection's other methods.
type unread struct{ net.Conn }

func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	f := func(limits string) {
		t.Helper()
		g := open(t, `
listeners: {web: {address: "127.0.0.1:0", limits: {`+limits+`}}}
routes: {ping: {match: /ping, respond: {body: pong}}}
`)
		ping := func(c *client) error {
			if _, err := io.WriteString(c, "GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
				return err
			}
			_, err := http.ReadResponse(c.r, nil)
			return err
		}
		one, two := g.dial(), g.dial()
		for _, c := range []*client{one, two} {
			if err := ping(c); err != nil {
				t.Fatal(err)
			}
		}
		if err := ping(g.dial()); err == nil {
			t.Errorf("%s: a third connection is served", limits)
		}
		one.Close()
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) { // until the gate has noticed
			if ping(g.dial()) == nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: a closed connection still counts", limits)
			}
		}
	}
	f("connections: 2")
	f("connections_per_address: 2")
}

func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0", timeouts: {idle: 150ms}}}
routes: {ping: {match: /ping, respond: {body: pong}}}
`)
	never, used := g.dial(), g.dial()
	for range 4 { // longer than the timeout in all
		used.send("GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
		used.get("GET")
		time.Sleep(80 * time.Millisecond) // shorter than it each time
	}
	began := time.Now()
	used.closed()
	never.closed()
	if took := time.Since(began); took > time.Second {
		t.Errorf("took %v", took)
	}
}

func TestNoTimeouts(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0", timeouts: {idle: 0s, request_header: 0s, request_body: 0s, write: 0s}}}
services: {a: {endpoints: [$A], timeouts: {connect: 0s, first_byte: 0s, idle: 0s}}}
routes: {all: {match: /*, service: a}}
`, "A", endpoint(t, echo))
	c := g.dial()
	for _, size := range []int{3, 100_000} {
		c.send("POST / HTTP/1.1\r\nHos")
		time.Sleep(20 * time.Millisecond) // so that the pieces come apart
		c.send(fmt.Sprintf("t: a\r\nContent-Length: %d\r\n\r\n", size))
		time.Sleep(20 * time.Millisecond) // the same
		c.send(strings.Repeat("x", size))
		if resp, _ := c.get("POST"); resp.StatusCode != 200 {
			t.Fatal(resp.StatusCode)
		}
	}
}

// A client that reads nothing is given up after the write timeout, and so is the endpoint's connection.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	given := make(chan struct{})
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0", timeouts: {write: 200ms}}}
services: {a: {endpoints: [$A]}}
routes: {all: {match: /*, service: a}}
`, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		defer close(given)
		http.ReadRequest(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		io.Copy(c, io.LimitReader(zero{}, 1e9))
	}))
	c := g.dial()
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	select {
	case <-given:
	case <-time.After(10 * time.Second):
		t.Fatal("the endpoint is still sending")
	}
}

// The memory for a body does not grow with it, in either direction.
func TestLongBodiesInFlatMemory(t *testing.T) {
	const size = 64 << 20
	piece := make([]byte, 1<<16)
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0", limits: {body_bytes: 1GiB}}}
services: {a: {endpoints: [$A]}}
routes: {all: {match: /*, service: a}}
`, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			n, _ := io.Copy(io.Discard, q.Body)
			if q.Header.Get("X-Chunked") != "" {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
				for range size >> 16 {
					io.WriteString(c, "10000\r\n")
					c.Write(piece)
					io.WriteString(c, "\r\n")
				}
				io.WriteString(c, "0\r\n\r\n")
				continue
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Got: %d\r\nContent-Length: %d\r\n\r\n", n, size)
			io.CopyN(c, zero{}, size)
		}
	}))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c := g.dial()
	for _, field := range []string{"", "X-Chunked: 1\r\n"} {
		go func() {
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\n%sContent-Length: %d\r\n\r\n", field, size)
			io.CopyN(c, zero{}, size)
		}()
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil || field == "" && resp.Header.Get("X-Got") != fmt.Sprint(size) {
			t.Fatal(n, err, resp.Header)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 { // pools may lose a buffer now and then
		t.Errorf("%d KiB allocated for %d MiB of bodies", grown>>10, 4*size>>20)
	}
}

func TestEarlyHints(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}))
	c := g.dial()
	for range 2 {
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp, _ := c.get("GET"); resp.StatusCode != 103 || resp.Header.Get("Link") != "</a.css>" || len(resp.Header) != 1 {
			t.Fatal(resp)
		}
		if resp, _ := c.get("GET"); resp.StatusCode != 102 {
			t.Fatal(resp)
		}
		if resp, body := c.get("GET"); resp.StatusCode != 200 || body != "ok" {
			t.Fatal(resp)
		}
	}
	c.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n") // which knows no such responses (RFC 9110, 15.2)
	if resp, body := c.get("GET"); resp.StatusCode != 200 || body != "ok" {
		t.Fatal(resp)
	}
	c.closed()
}

// A proxy must forward interim responses (RFC 9110, 15.2), also while the body is on its way and one of its own is due.
func TestInterimDuringUpload(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
			if q.Header.Get("Expect") != "" {
				io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			}
			body, err := io.ReadAll(q.Body)
			if err != nil {
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	}))
	f := func(expect string, before ...int) {
		t.Helper()
		c := g.dial()
		defer c.Close()
		for range 2 {
			c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + expect + "\r\n")
			for _, want := range before {
				if resp, _ := c.get("POST"); resp.StatusCode != want {
					t.Fatalf("%s: %d, want %d", expect, resp.StatusCode, want)
				}
			}
			c.send("5\r\nhello\r\n0\r\n\r\n")
			if resp, _ := c.get("POST"); resp.StatusCode != 103 {
				t.Fatalf("%s: %d behind the body", expect, resp.StatusCode)
			}
			if resp, body := c.get("POST"); resp.StatusCode != 200 || body != "hello" {
				t.Fatal(resp, body)
			}
		}
	}
	f("", 103)
	f("Expect: 100-continue\r\n", 103, 100)
	c := g.dial() // who leaves meanwhile leaves nothing behind
	c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	c.get("POST")
}

// A client may close its sending half when it has sent its request.
func TestHalfClosedClient(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, echo))
	for _, size := range []int{0, 10, 100_000} {
		c := g.dial()
		c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size)))
		c.Conn.(*net.TCPConn).CloseWrite()
		if resp, body := c.get("POST"); resp.StatusCode != 200 || !strings.HasSuffix(body, strings.Repeat("x", size)) {
			t.Fatal(resp.StatusCode)
		}
		c.closed()
	}
}

// An answer that comes before the request is complete, and does not mean the end of it.
func TestAnswerBeforeTheBody(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
			if n, err := io.Copy(io.Discard, q.Body); n != 300_000 || err != nil {
				return
			}
		}
	}))
	c := g.dial()
	for range 3 { // and both connections go on
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n")
		c.send(strings.Repeat("x", 100_000))
		if resp, body := c.get("POST"); resp.StatusCode != 200 || body != "early" || resp.Close {
			t.Fatal(resp.StatusCode, body)
		}
		c.send(strings.Repeat("x", 200_000))
	}
}
