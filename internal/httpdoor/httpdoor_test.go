package httpdoor

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/httpdoor/forward"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/identity"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/traffic/services"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gate is a Door under test with one listener, "web".
type gate struct {
	t       testing.TB
	address string
	door    *Door
	access  *lockedBuffer
	tables  *Tables

	afterwards []func(accessLog string) // called when the door has stopped
}

// lockedBuffer is what a test reads after the writer has stopped.
type lockedBuffer struct{ bytes.Buffer }

// open serves a config's listener "web" on a free port. $NAME in the text is replaced by the values.
func open(t testing.TB, yaml string, values ...string) *gate {
	t.Helper()
	return openChanged(t, func(*Tables) {}, yaml, values...)
}

// openChanged is open with tables that change has had a hand in.
func openChanged(t testing.TB, change func(*Tables), yaml string, values ...string) *gate {
	t.Helper()
	for i := 0; i+1 < len(values); i += 2 {
		yaml = strings.ReplaceAll(yaml, "$"+values[i], values[i+1])
	}
	c, err := config.Parse(config.File{Name: "test.yaml", Data: []byte(yaml)})
	if err != nil {
		t.Fatalf("config:\n%v", err)
	}
	if io := os.Getenv("MENSHEN_TEST_IO"); io != "" { // the whole suite on the other poller
		for _, l := range c.Listeners {
			l.IO = io
		}
	}
	level := slog.LevelError
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	metrics := observe.NewMetrics()
	registry := upstream.NewRegistry(log)
	generation := registry.Begin()
	all, problems := services.Compile(c, generation, forward.NewPool)
	consumers, more := identity.Compile(c)
	problems = append(problems, more...)
	states := policy.NewStates().Begin()
	tables, more := Compile(Source{Config: c, Generation: 1, Services: all, Consumers: consumers, Policies: states, Metrics: metrics})
	if problems = append(problems, more...); len(problems) > 0 {
		t.Fatalf("compile:\n%v", problems)
	}
	generation.Commit()
	states.Commit()
	change(tables)
	g := &gate{t: t, access: &lockedBuffer{}, tables: tables}
	access := observe.NewAccessLog(g.access)
	g.door = New(Options{Tables: func() *Tables { return tables }, Log: log, Access: access})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.address = ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- g.door.Serve(context.Background(), ln, "web") }()
	t.Cleanup(func() {
		ln.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := g.door.Drain(ctx, ""); err != nil {
			t.Errorf("drain: %v", err)
		}
		registry.Close()
		access.Close()
		for _, f := range g.afterwards {
			f(g.access.String())
		}
		if t.Failed() && g.access.Len() > 0 {
			t.Logf("access log:\n%s", g.access.String())
		}
	})
	return g
}

// upstreamFunc is an endpoint that is driven by hand: it is called once for each connection.
func endpoint(t testing.TB, serve func(c net.Conn, r *bufio.Reader)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	conns := make(chan net.Conn, 1000)
	go func() {
		defer close(done)
		var running []chan struct{}
		for {
			c, err := ln.Accept()
			if err != nil {
				break
			}
			conns <- c
			end := make(chan struct{})
			running = append(running, end)
			go func() {
				defer close(end)
				defer c.Close()
				serve(c, bufio.NewReader(c))
			}()
		}
		for _, end := range running {
			<-end
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		for {
			select {
			case c := <-conns:
				c.Close()
			case <-done:
				return
			}
		}
	})
	return ln.Addr().String()
}

// echo answers each request with what it received: request line, fields and body as the response's body.
func echo(c net.Conn, r *bufio.Reader) {
	for {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "%s %s\nHost: %s\n", q.Method, q.RequestURI, q.Host)
		q.Header.Write(&b)
		for name, values := range q.Trailer {
			fmt.Fprintf(&b, "trailer %s: %s\n", name, values)
		}
		fmt.Fprintf(&b, "\n%s", body)
		if q.Method == "HEAD" {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", b.Len())
			continue
		}
		if q.Header.Get("X-Chunked") != "" {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nX-Sum: 42\r\n\r\n", b.Len(), b.String())
			continue
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", b.Len(), b.String())
	}
}

// client is a raw connection to the gate.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func (g *gate) dial() *client {
	g.t.Helper()
	c, err := net.Dial("tcp", g.address)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{g.t, c, bufio.NewReader(c)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// get reads one response; method matters for HEAD.
func (c *client) get(method string) (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("response: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("body: %v", err)
	}
	return resp, string(body)
}

// closed says that the gate closes the connection now, with nothing more to read.
func (c *client) closed() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		c.t.Errorf("the connection should be closed; read %q, %v", rest, err)
	}
}

const simple = `
listeners: {web: {address: "127.0.0.1:0"}}
services: {a: {endpoints: [$A]}}
routes: {all: {match: /*, service: a}}
`

func TestProxiesARequest(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, echo))
	c := g.dial()
	for range 3 { // on one connection
		c.send("GET /users/1?x=y HTTP/1.1\r\nHost: api.example\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nX-Forwarded-For: 6.6.6.6\r\nKeep-Alive: 5\r\nTE: trailers, deflate\r\nAccept: */*\r\n\r\n")
		resp, body := c.get("GET")
		if resp.StatusCode != 200 || !strings.HasPrefix(body, "GET /users/1?x=y\nHost: api.example\n") {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		for _, want := range []string{"X-Forwarded-For: 127.0.0.1\r\n", "X-Forwarded-Proto: http\r\n", "X-Forwarded-Host: api.example\r\n", "X-Request-Id: ", "Te: trailers\r\n", "Accept: */*\r\n"} {
			if !strings.Contains(body, want) {
				t.Errorf("the endpoint did not see %q:\n%s", want, body)
			}
		}
		for _, wrong := range []string{"X-Mine", "Keep-Alive", "6.6.6.6", "Connection"} {
			if strings.Contains(body, wrong) {
				t.Errorf("the endpoint saw %q:\n%s", wrong, body)
			}
		}
		for _, name := range []string{"X-Request-Id", "X-Response-Time", "Server-Timing", "Date"} {
			if resp.Header.Get(name) == "" {
				t.Errorf("no %s in the response", name)
			}
		}
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, echo))
	c := g.dial()
	var all strings.Builder
	for i := range 50 {
		fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", i)
	}
	c.send(all.String())
	for i := range 50 {
		if _, body := c.get("POST"); !strings.HasPrefix(body, fmt.Sprintf("POST /%d\n", i)) || !strings.HasSuffix(body, "\n\nabc") {
			t.Fatalf("response %d: %s", i, body)
		}
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, echo))
	f := func(size int, chunked bool) {
		t.Helper()
		payload := strings.Repeat("0123456789abcdef", size/16+1)[:size]
		c := g.dial()
		for range 2 {
			if chunked {
				go func() {
					fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n")
					for rest := payload; len(rest) > 0; {
						n := min(len(rest), 7000)
						fmt.Fprintf(c, "%x;ext=1\r\n%s\r\n", n, rest[:n])
						rest = rest[n:]
					}
					fmt.Fprintf(c, "0\r\nX-T: end\r\n\r\n")
				}()
			} else {
				go fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(payload), payload)
			}
			resp, body := c.get("POST")
			if resp.StatusCode != 200 || !strings.HasSuffix(body, "\n\n"+payload) {
				t.Fatalf("size %d chunked %v: %d, %d bytes", size, chunked, resp.StatusCode, len(body))
			}
			if chunked && !strings.Contains(body, "trailer X-T: [end]") {
				t.Errorf("the trailer was lost: %.300s", body)
			}
		}
	}
	for _, size := range []int{0, 1, 100, 16 << 10, 16<<10 + 1, 70 << 10, 1 << 20, 5 << 20} {
		f(size, false)
		f(size, true)
	}
}

func TestChunkedResponseWithTrailers(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, echo))
	c := g.dial()
	c.send("GET / HTTP/1.1\r\nHost: a\r\nX-Chunked: 1\r\n\r\n")
	resp, body := c.get("GET")
	if !strings.HasPrefix(body, "GET /\n") || resp.Trailer.Get("X-Sum") != "42" {
		t.Fatalf("%s %v", body, resp.Trailer)
	}
	c.send("GET / HTTP/1.0\r\nHost: a\r\nX-Chunked: 1\r\n\r\n") // the end of the connection is the end of the body
	if resp, body = c.get("GET"); !strings.HasPrefix(body, "GET /\n") || len(resp.TransferEncoding) > 0 {
		t.Fatalf("%s %v", body, resp.TransferEncoding)
	}
	c.closed()
}

func TestHead(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, echo))
	c := g.dial()
	c.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp, body := c.get("HEAD"); resp.ContentLength <= 0 || body != "" {
		t.Fatal(resp, body)
	}
	if _, body := c.get("GET"); !strings.HasPrefix(body, "GET /second\n") {
		t.Fatal(body)
	}
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if q.Header.Get("Expect") != "100-continue" {
			fmt.Fprint(c, "HTTP/1.1 500 No Expect\r\nContent-Length: 0\r\n\r\n")
			return
		}
		switch q.URL.Path {
		case "/yes":
			fmt.Fprint(c, "HTTP/1.1 100 Continue\r\n\r\n")
		case "/no":
			fmt.Fprint(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
			return
		}
		body, _ := io.ReadAll(q.Body)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	}))
	for _, path := range []string{"/yes", "/silent"} { // an endpoint that never answers the expectation holds nobody up
		c := g.dial()
		c.send("POST " + path + " HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
		if line, err := c.r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatal(path, line, err)
		}
		c.r.ReadString('\n')
		c.send("body")
		if resp, body := c.get("POST"); resp.StatusCode != 200 || body != "body" {
			t.Fatal(path, resp.StatusCode, body)
		}
	}
	c := g.dial()
	c.send("POST /no HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
	if resp, _ := c.get("POST"); resp.StatusCode != 413 || !resp.Close {
		t.Fatal(resp)
	}
	c.closed()
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0", limits: {header_bytes: 8KiB, headers: 20, body_bytes: 100}, timeouts: {request_header: 200ms, request_body: 200ms}}}
services: {a: {endpoints: [$A]}}
routes: {all: {match: GET /*, service: a}, post: {match: POST /p, service: a}}
`, "A", endpoint(t, echo))
	f := func(bytes string, want int) {
		t.Helper()
		c := g.dial()
		c.send(bytes)
		resp, body := c.get("GET")
		if resp.StatusCode != want || resp.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(body, `"request_id":"`) {
			t.Errorf("%.60q: %d %s, want %d", bytes, resp.StatusCode, body, want)
		}
		if want == 404 || want == 405 && !strings.HasPrefix(bytes, "CONNECT") { // the connection goes on
			c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if resp, _ := c.get("GET"); resp.StatusCode != 200 {
				t.Errorf("%.60q: the connection is not usable: %d", bytes, resp.StatusCode)
			}
			return
		}
		if !resp.Close {
			t.Errorf("%.60q: no Connection: close", bytes)
		}
		c.closed()
	}
	f("GET / HTTP/1.1\r\n\r\n", 400)                                                                          // no Host
	f("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400)                                                    // two
	f("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400)                 // ambiguous
	f("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400) // ambiguous
	f("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400)
	f("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", 400)
	f("GET / HTTP/1.1\nHost: a\n\n", 400)
	f("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400)
	f("GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", 400)
	f("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400)
	f("POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400) // bad chunk size
	f("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505)
	f("POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501)
	f("GET /"+strings.Repeat("x", 9000)+" HTTP/1.1\r\nHost: a\r\n\r\n", 414)
	f("GET / HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("x", 9000)+"\r\n\r\n", 431)
	f("GET / HTTP/1.1\r\nHost: a\r\n"+strings.Repeat("X: 1\r\n", 30)+"\r\n", 431)
	f("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n", 413)
	f("POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n66\r\n"+strings.Repeat("x", 0x66)+"\r\n0\r\n\r\n", 413)
	f("GET / HTTP/1.1\r\nHost: a\r\nX-Slow", 408)
	f("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", 408)
	f("DELETE /p HTTP/1.1\r\nHost: a\r\n\r\n", 405)
	f("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405)
	f("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405)
	f("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404)
}

func TestUpstreamFailures(t *testing.T) {
	t.Parallel()
	closedPort := func() string {
		ln, _ := net.Listen("tcp", "127.0.0.1:0")
		defer ln.Close()
		return ln.Addr().String()
	}()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
services:
  down: {endpoints: [$DOWN], outlier: {consecutive_failures: 0}}
  slow: {endpoints: [$SLOW], timeouts: {first_byte: 100ms}, outlier: {consecutive_failures: 0}}
  broken: {endpoints: [$BROKEN], outlier: {consecutive_failures: 0}}
  nonsense: {endpoints: [$NONSENSE], outlier: {consecutive_failures: 0}}
  cut: {endpoints: [$CUT], outlier: {consecutive_failures: 0}}
routes:
  down: {match: /down, service: down}
  slow: {match: /slow, service: slow}
  route-timeout: {match: /total, service: slow, timeout: 50ms}
  broken: {match: /broken, service: broken}
  nonsense: {match: /nonsense, service: nonsense}
  cut: {match: /cut, service: cut}
`, "DOWN", closedPort,
		"SLOW", endpoint(t, func(c net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) }),
		"BROKEN", endpoint(t, func(c net.Conn, r *bufio.Reader) { http.ReadRequest(r) }),
		"NONSENSE", endpoint(t, func(c net.Conn, r *bufio.Reader) { http.ReadRequest(r); io.WriteString(c, "SSH-2.0-x\r\n\r\n") }),
		"CUT", endpoint(t, func(c net.Conn, r *bufio.Reader) {
			http.ReadRequest(r)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		}))
	f := func(path string, want int, fault string) {
		t.Helper()
		c := g.dial()
		c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
		resp, body := c.get("GET")
		if resp.StatusCode != want || !strings.Contains(body, "fault:"+fault+`"`) {
			t.Errorf("%s: %d %s, want %d %s", path, resp.StatusCode, body, want, fault)
		}
	}
	f("/down", 502, "connect_failed")
	f("/slow", 504, "upstream_timeout")
	f("/total", 504, "upstream_timeout")
	f("/broken", 502, "upstream_broken")
	f("/nonsense", 502, "upstream_broken")
	c := g.dial()
	c.send("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); string(body) != "half" || err == nil { // a cut response must not look whole
		t.Errorf("%q %v", body, err)
	}
}

func TestRetriesOnAnotherEndpoint(t *testing.T) {
	t.Parallel()
	broken := endpoint(t, func(c net.Conn, r *bufio.Reader) { http.ReadRequest(r) })
	good := endpoint(t, echo)
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
services: {a: {endpoints: [$BROKEN, $GOOD], outlier: {consecutive_failures: 0}}}
routes: {all: {match: /*, service: a}}
`, "BROKEN", broken, "GOOD", good)
	c := g.dial()
	failed := 0
	for range 10 {
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp, body := c.get("GET"); resp.StatusCode != 200 {
			t.Fatal(resp.StatusCode, body)
		}
	}
	for range 10 { // a POST may have been acted on: it is not sent twice
		c := g.dial()
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
		if resp, _ := c.get("POST"); resp.StatusCode == 502 {
			failed++
		}
	}
	if failed == 0 || failed == 10 {
		t.Errorf("%d of 10 POSTs failed, want about half", failed)
	}
}

// An endpoint that closes its idle connections must not be noticed by clients.
func TestStaleConnection(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, q.Body)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") // and closes
	}))
	c := g.dial()
	for i := range 100 {
		method := []string{"GET", "PUT"}[i%2]
		c.send(method + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
		if resp, body := c.get(method); resp.StatusCode != 200 {
			t.Fatal(i, resp.StatusCode, body)
		}
	}
}

func TestRespondAndRedirect(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
routes:
  ping: {match: GET /ping, respond: {status: 200, body: pong}}
  old: {match: /old/*, redirect: {to: "/new/{*}", status: 308}}
`)
	c := g.dial()
	c.send("GET /ping HTTP/1.1\r\nHost: a\r\n\r\nHEAD /ping HTTP/1.1\r\nHost: a\r\n\r\nPOST /old/x/y?z HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
	if resp, body := c.get("GET"); body != "pong" || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Fatal(resp, body)
	}
	if resp, body := c.get("HEAD"); body != "" || resp.ContentLength != 4 {
		t.Fatal(resp, body)
	}
	if resp, _ := c.get("POST"); resp.StatusCode != 308 || resp.Header.Get("Location") != "/new/x/y?z" {
		t.Fatal(resp)
	}
	if resp, body := c.get("GET"); body != "pong" || resp.Header.Get("Connection") != "keep-alive" {
		t.Fatal(resp, body)
	}
}

func TestRewrite(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
services: {a: {endpoints: [$A]}}
routes:
  strip: {match: /api/*, service: a, rewrite: {strip_prefix: /api}}
  path: {match: "/u/{id}", service: a, rewrite: {path: "/users/{id}/profile", host: internal.example}}
`, "A", endpoint(t, echo))
	f := func(path, want string) {
		t.Helper()
		c := g.dial()
		c.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, body := c.get("GET"); !strings.HasPrefix(body, want) {
			t.Errorf("%s: %s", path, body)
		}
	}
	f("/api/users?x=1", "GET /users?x=1\nHost: a\n")
	f("/api", "GET /\nHost: a\n")
	f("/u/7?x", "GET /users/7/profile?x\nHost: internal.example\n")
	f("//api/./users/%7Ex", "GET /users/~x\n") // normalised before it is matched, and forwarded as matched
}

func TestTrustedProxies(t *testing.T) {
	t.Parallel()
	g := open(t, simple+`
trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]
`, "A", endpoint(t, echo))
	c := g.dial()
	c.send("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9, 1.2.3.4\r\nX-Forwarded-For: 10.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: front\r\nX-Request-Id: abc-1\r\n\r\n")
	resp, body := c.get("GET")
	for _, want := range []string{"X-Forwarded-For: 9.9.9.9, 1.2.3.4\r\n", "X-Forwarded-For: 10.1.1.1, 127.0.0.1\r\n", "X-Forwarded-Proto: https\r\n", "X-Forwarded-Host: front\r\n", "X-Request-Id: abc-1\r\n"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q:\n%s", want, body)
		}
	}
	if resp.Header.Get("X-Request-Id") != "abc-1" {
		t.Error(resp.Header)
	}
	c.Close()
}

func TestTunnel(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		q, err := http.ReadRequest(r)
		if err != nil || q.Header.Get("Upgrade") != "websocket" || q.Header.Get("Connection") != "Upgrade" {
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX-A: 1\r\n\r\nearly")
		io.Copy(c, r)
	}))
	c := g.dial()
	c.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\neager")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "websocket" || resp.Header.Get("X-A") != "1" {
		t.Fatal(resp, err)
	}
	got := make([]byte, 10)
	if _, err := io.ReadFull(c.r, got); err != nil || string(got) != "earlyeager" {
		t.Fatalf("%q %v", got, err)
	}
	for i := range 100 {
		msg := fmt.Sprintf("message %3d", i)
		c.send(msg)
		got = make([]byte, len(msg))
		if _, err := io.ReadFull(c.r, got); err != nil || string(got) != msg {
			t.Fatalf("%q %v", got, err)
		}
	}
	c.Conn.(*net.TCPConn).CloseWrite()
	c.closed()
}

func TestEarlyResponseToALongBody(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
	}))
	for range 5 {
		c := g.dial()
		go func() {
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 50<<20)
			io.Copy(c, io.LimitReader(zero{}, 50<<20)) // fails when the gate gives up, as it should
		}()
		if resp, body := c.get("POST"); resp.StatusCode != 403 || body != "no" {
			t.Fatal(resp.StatusCode, body)
		}
		c.Close()
	}
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestDrainLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	started := make(chan struct{})
	g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		close(started)
		<-release
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
	}))
	idle := g.dial()
	idle.send("GET /ping HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n")
	idle.get("GET")
	silent := g.dial()
	busy := g.dial()
	busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-started
	drained := make(chan error, 1)
	go func() { drained <- g.door.Drain(context.Background(), "") }()
	silent.closed()
	close(release)
	if resp, body := busy.get("GET"); body != "done" || !resp.Close {
		t.Fatal(resp, body)
	}
	busy.closed()
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
}
