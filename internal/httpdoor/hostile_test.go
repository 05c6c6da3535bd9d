package httpdoor

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// The response's head is written before its buffer is exchanged for a large one: nobody else's bytes may appear in it.
func TestHeadsOfLongResponsesAreTheirOwn(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("x", 100<<10)
	g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Path: %s\r\nX-Long: %s\r\nContent-Length: %d\r\n\r\n%s", q.URL.Path, strings.Repeat(q.URL.Path, 200), len(body), body)
		}
	}))
	var clients sync.WaitGroup
	for i := range 16 {
		c := g.dial()
		clients.Go(func() {
			for j := range 30 {
				path := fmt.Sprintf("/%03d/%03d", i, j)
				fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path)
				resp, err := http.ReadResponse(c.r, nil)
				if err != nil {
					t.Error(err)
					return
				}
				n, err := io.Copy(io.Discard, resp.Body)
				if resp.Header.Get("X-Path") != path || resp.Header.Get("X-Long") != strings.Repeat(path, 200) || n != int64(len(body)) || err != nil {
					t.Errorf("%s: %v %d %v", path, resp.Header, n, err)
					return
				}
			}
		})
	}
	clients.Wait()
}

// The second attempt's head is parsed from its start, whatever the first endpoint had sent of its own.
func TestRetryAfterHalfAHead(t *testing.T) {
	t.Parallel()
	half := endpoint(t, func(c net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Long: "+strings.Repeat("y", 150))
	})
	good := endpoint(t, func(c net.Conn, r *bufio.Reader) {
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n"+strings.Repeat("x", 200))
		}
	})
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
services: {a: {endpoints: [$HALF, $GOOD], outlier: {consecutive_failures: 0}, timeouts: {first_byte: 2s}}}
routes: {all: {match: /*, service: a}}
`, "HALF", half, "GOOD", good)
	for range 4 {
		if resp, body := g.ask("GET", "/"); resp.StatusCode != 200 || len(body) != 200 {
			t.Fatal(resp.StatusCode, body)
		}
	}
}

// The time that an endpoint has for its answer begins when it has the whole request.
func TestFirstByteCountsFromTheRequestsEnd(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
services:
  a: {endpoints: [$A], timeouts: {first_byte: 150ms}, outlier: {consecutive_failures: 0}}
  mute: {endpoints: [$MUTE], timeouts: {first_byte: 150ms}, outlier: {consecutive_failures: 0}}
routes: {all: {match: /*, service: a}, mute: {match: /mute, service: mute}}
`, "A", endpoint(t, echo), "MUTE", endpoint(t, func(c net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) }))
	slowly := func(c *client, path string, size int) (*http.Response, string) {
		t.Helper()
		c.send(fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", path, size))
		for part := range 4 {
			time.Sleep(100 * time.Millisecond) // the client's slowness is the subject
			c.send(strings.Repeat("x", size/4+size%4*(part/3)))
		}
		return c.get("PUT")
	}
	for _, size := range []int{4, 100 << 10} { // read whole, and sent by the pump
		c := g.dial()
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.get("GET") // so that there is an idle connection to the endpoint
		if resp, _ := slowly(c, "/", size); resp.StatusCode != 200 {
			t.Errorf("%d bytes, slowly: %d", size, resp.StatusCode)
		}
		began := time.Now()
		if resp, body := slowly(g.dial(), "/mute", size); resp.StatusCode != 504 || !strings.Contains(body, "upstream_timeout") {
			t.Errorf("%d bytes to a mute endpoint: %d %s", size, resp.StatusCode, body)
		}
		if took := time.Since(began); took < 540*time.Millisecond || took > 2*time.Second {
			t.Errorf("%d bytes to a mute endpoint: %v", size, took)
		}
	}
}

// An endpoint that switches protocols unasked in the middle of an upload: the pump must have ended when the answer is sent.
func TestUnaskedSwitchDuringUpload(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
		io.Copy(io.Discard, r)
	}))
	for range 5 {
		c := g.dial()
		c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc")
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 100 {
				if _, err := c.Write(bytes.Repeat([]byte("y"), 1000)); err != nil {
					return
				}
			}
		}()
		if resp, _ := c.get("POST"); resp.StatusCode != 502 {
			t.Fatal(resp.StatusCode)
		}
		<-done
		c.Close()
	}
}

// A connection that ends while the client has sent further requests must not be reset under the last response.
func TestRequestsBeyondTheLastOne(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0", limits: {requests_per_connection: 10}}}
services: {a: {endpoints: [$A]}}
routes: {all: {match: /*, service: a}}
`, "A", endpoint(t, echo))
	for range 5 {
		c := g.dial()
		c.send(strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\nX-Fill: "+strings.Repeat("z", 500)+"\r\n\r\n", 300))
		time.Sleep(20 * time.Millisecond) // a client that reads late
		for i := range 10 {
			resp, err := http.ReadResponse(c.r, nil)
			if err != nil {
				t.Fatalf("response %d: %v", i, err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.Close != (i == 9) {
				t.Fatalf("response %d: %v, close %v", i, err, resp.Close)
			}
		}
		c.closed()
		c.Close()
	}
}

// What an endpoint sends beyond its response must never become somebody's response.
func TestExcessBytesNeverPoison(t *testing.T) {
	t.Parallel()
	const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	f := func(name, method, first, later string) {
		t.Helper()
		sent := make(chan struct{}, 1)
		g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
			for {
				q, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				if q.URL.Path == "/bad" {
					io.WriteString(c, first)
					time.Sleep(100 * time.Microsecond) // so that it comes alone
					io.WriteString(c, later)
					sent <- struct{}{}
					continue
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
			}
		}))
		c := g.dial()
		for i := range 100 {
			c.send(method + " /bad HTTP/1.1\r\nHost: a\r\n\r\n")
			c.get(method)
			<-sent // what is late is there now, and the connection's last use is not yet long ago
			c.send("GET /good HTTP/1.1\r\nHost: a\r\n\r\n")
			if resp, body := c.get("GET"); body != "good" && resp.StatusCode != 502 {
				t.Errorf("%s, round %d: %d %s", name, i, resp.StatusCode, body)
				return
			}
		}
	}
	f("lying length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"+poison, "")
	f("end of chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"+poison, "")
	f("204", "GET", "HTTP/1.1 204 No Content\r\n\r\n"+poison, "")
	f("HEAD", "HEAD", fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(poison)), poison)
}

// 200 clients, each pipelining requests with random bodies: every response is that of its request.
func TestManyClientsGetTheirOwnAnswers(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
services: {a: {endpoints: [$A, $B]}}
routes: {all: {match: /*, service: a}, here: {match: /here, respond: {body: here}}}
`, "A", endpoint(t, mirror), "B", endpoint(t, mirror))
	clients, rounds := 200, 6
	if testing.Short() {
		clients = 40
	}
	var group sync.WaitGroup
	for i := range clients {
		c := g.dial()
		c.SetDeadline(time.Now().Add(100 * time.Second))
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 7))
			for range rounds {
				if err := c.conversation(random, strconv.Itoa(i)); err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
			}
			c.Close()
		})
	}
	group.Wait()
}

// mirror answers with the request's path and body, now with a length, now in chunks.
func mirror(c net.Conn, r *bufio.Reader) {
	for {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		switch {
		case q.Method == "HEAD":
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Path: %s\r\nContent-Length: %d\r\n\r\n", q.URL.Path, len(body))
		case len(body)%3 == 1:
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Path: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", q.URL.Path, len(body), body)
		default:
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Path: %s\r\nContent-Length: %d\r\n\r\n%s", q.URL.Path, len(body), body)
		}
	}
}

// conversation sends up to ten requests without waiting, in random pieces, and checks their answers.
func (c *client) conversation(random *rand.Rand, name string) error {
	type asked struct{ method, path, body string }
	var all []asked
	var text bytes.Buffer
	for i := range 1 + random.IntN(10) {
		q := asked{method: []string{"GET", "POST", "PUT", "HEAD"}[random.IntN(4)], path: fmt.Sprintf("/%s/%d/%d", name, i, random.Uint32())}
		if random.IntN(8) == 0 && (q.method == "GET" || q.method == "HEAD") {
			q.path = "/here"
		}
		if q.method == "POST" || q.method == "PUT" {
			size := []int{0, 1, 100, 5000, 20_000, 150_000}[random.IntN(6)]
			q.body = strings.Repeat(q.path+",", size/len(q.path)+1)[:size]
		}
		fmt.Fprintf(&text, "%s %s HTTP/1.1\r\nHost: a\r\n", q.method, q.path)
		if len(q.body)%2 == 1 {
			fmt.Fprintf(&text, "Transfer-Encoding: chunked\r\n\r\n")
			for rest := q.body; len(rest) > 0; {
				n := 1 + random.IntN(len(rest))
				fmt.Fprintf(&text, "%x\r\n%s\r\n", n, rest[:n])
				rest = rest[n:]
			}
			fmt.Fprintf(&text, "0\r\n\r\n")
		} else {
			fmt.Fprintf(&text, "Content-Length: %d\r\n\r\n%s", len(q.body), q.body)
		}
		all = append(all, q)
	}
	written := make(chan error, 1)
	go func() {
		for text.Len() > 0 {
			if _, err := c.Write(text.Next(1 + random.IntN(text.Len()))); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	for i, q := range all {
		resp, err := http.ReadResponse(c.r, &http.Request{Method: q.method})
		if err != nil {
			return fmt.Errorf("response %d to %s %s: %w", i, q.method, q.path, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		wantPath, wantBody := q.path, q.body
		if q.path == "/here" {
			wantPath, wantBody = "", "here"
		}
		if q.method == "HEAD" {
			wantBody = ""
		}
		if resp.StatusCode != 200 || resp.Header.Get("X-Path") != wantPath || string(body) != wantBody {
			return fmt.Errorf("response %d to %s %s (%d bytes): %d %s, %d bytes", i, q.method, q.path, len(q.body), resp.StatusCode, resp.Header.Get("X-Path"), len(body))
		}
	}
	return <-written
}

// A stranger who trickles a body must not hold the buffers of one that streams.
func TestMemoryOfSlowUploads(t *testing.T) {
	g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) }))
	const clients = 100
	conns := make([]*client, clients)
	for i := range conns {
		conns[i] = g.dial()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, c := range conns {
		c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
	}
	for range 3 {
		time.Sleep(50 * time.Millisecond) // trickled on purpose: each piece is to be read alone
		for _, c := range conns {
			c.send("1\r\na\r\n")
		}
	}
	time.Sleep(50 * time.Millisecond) // as above
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / clients; each > 100<<10 {
		t.Errorf("%d KiB for each slow upload", each>>10)
	}
	for _, c := range conns {
		c.Close()
	}
}

// A broken invariant costs one connection: not the gateway, not the endpoint's count of requests, not the drain.
func TestPanicCostsOneConnection(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
services: {a: {endpoints: [$A]}}
routes: {all: {match: /*, service: a}, here: {match: /here, respond: {body: here}}}
`, "A", endpoint(t, echo))
	g.door.options.Log = slog.New(slog.DiscardHandler) // the panics are meant
	g.door.Count()                                     // takes the lock that a connection will take
	set := g.tables.targets["a"].Set
	lease, err := set.Pick(upstream.Request{})
	if err != nil {
		t.Fatal(err)
	}
	pool := lease.Endpoint.Pool
	lease.Endpoint.Pool = panicking{} // not what forward expects
	defer pool.Close()
	lease.Done(upstream.Outcome{Ignored: true})
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nx"} {
		c := g.dial()
		c.send(text)
		if got, err := io.ReadAll(c.r); len(got) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%q %v", got, err)
		}
	}
	if resp, _ := g.ask("GET", "/here"); resp.StatusCode != 200 {
		t.Error(resp.StatusCode)
	}
	if err := g.door.Drain(context.Background(), ""); err != nil {
		t.Error(err)
	}
	if e := set.Status().Endpoints[0]; e.Active != 0 {
		t.Errorf("%d requests active at the end", e.Active)
	}
}

type panicking struct{}

func (panicking) Close() error { return nil }

// An endpoint that closes without saying so: what may not be sent twice is not sent where nobody listens any more.
func TestUnannouncedCloseBeforeAPost(t *testing.T) {
	t.Parallel()
	closing := make(chan net.Conn, 1)
	g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, q.Body)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		time.Sleep(100 * time.Microsecond) // closes when the gate has just put the connection back, unannounced
		c.Close()
		closing <- c
	}))
	c := g.dial()
	for i := range 40 {
		size := 1 + i%2*100_000
		c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size)))
		if resp, body := c.get("POST"); resp.StatusCode != 200 {
			t.Fatal(i, resp.StatusCode, body)
		}
		<-closing
	}
}

// What a request's sender may not say to the endpoint.
func TestRequestFieldsThatStopHere(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, echo))
	_, body := g.ask("GET", "/", "Connection: Upgrade, HTTP2-Settings, X-Mine", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", "X-Mine: 1", "x-mine: 2",
		"X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6", "Proxy-Connection: close", "Proxy-Authorization: Basic eA==", "X-Request-Id: not plain", "X-Forwarded-Port: 1", "X-Forwarded-Prefix: /p", "x-forwarded-ssl: on", "X_Forwarded_Scheme: https", "X-Forwarded-Server-Of-A-Name-That-Is-Long: s")
	for _, wrong := range []string{"-Port", "-Prefix", "-Ssl", "_Scheme", "-Server", "Http2-Settings", "Upgrade", "Connection", "X-Mine", "X-Real-Ip", "6.6.6.6", "Proxy-", "not plain"} {
		if strings.Contains(body, wrong) {
			t.Errorf("the endpoint saw %q:\n%s", wrong, body)
		}
	}
	if _, body = g.ask("GET", "/", "Connection: HTTP2-Settings", "HTTP2-Settings: AA"); strings.Contains(body, "Http2-Settings") {
		t.Errorf("the endpoint saw the settings:\n%s", body)
	}
	trusting := open(t, simple+"trusted_proxies: [127.0.0.1/32]\n", "A", endpoint(t, echo))
	if _, body := trusting.ask("GET", "/", "X-Real-IP: 6.6.6.6"); !strings.Contains(body, "X-Real-Ip: 6.6.6.6") {
		t.Errorf("a trusted proxy's word is lost:\n%s", body)
	}
	if _, body := trusting.ask("GET", "/", "X-Forwarded-Port: 444", "X-Forwarded-Prefix: /p"); !strings.Contains(body, "X-Forwarded-Port: 444") || !strings.Contains(body, "X-Forwarded-Prefix: /p") {
		t.Errorf("a trusted proxy's word is lost:\n%s", body)
	}
	setting := open(t, strings.Replace(simple, `"127.0.0.1:0"`, `"127.0.0.1:0", policies: [{headers: {request: {set: {X-Forwarded-Prefix: /ours}}}}]`, 1)+"trusted_proxies: [127.0.0.1/32]\n", "A", endpoint(t, echo))
	if _, body := setting.ask("GET", "/", "X-Forwarded-Prefix: /p"); !strings.Contains(body, "X-Forwarded-Prefix: /ours") || strings.Contains(body, "/p\n") {
		t.Errorf("not the prefix of the policy:\n%s", body)
	}
}

// An upgrade that the endpoint refuses is an ordinary exchange, and so is what follows it.
func TestRefusedUpgrade(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, echo))
	c := g.dial()
	for range 2 {
		c.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp, body := c.get("GET"); resp.StatusCode != 200 || !strings.Contains(body, "Upgrade: websocket") {
			t.Fatal(resp.StatusCode, body)
		}
		if _, body := c.get("GET"); !strings.HasPrefix(body, "GET /next\n") {
			t.Fatal(body)
		}
	}
	c.send("POST /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc") // not with a body
	if _, body := c.get("POST"); strings.Contains(body, "Upgrade") || !strings.HasSuffix(body, "\n\nabc") {
		t.Fatal(body)
	}
}

// A client's mistake in the middle of its answer is recorded as that, not as the gateway's stop.
func TestMistakeBehindAnEarlyAnswer(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		io.Copy(io.Discard, r)
	}))
	c := g.dial()
	c.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	c.send("nonsense\r\n")
	if body, err := io.ReadAll(resp.Body); string(body) != "half" || err == nil {
		t.Fatalf("%q %v", body, err)
	}
	c.Close()
	if err := g.door.Drain(context.Background(), ""); err != nil {
		t.Fatal(err)
	}
	g.door.options.Access.Close()
	if record := g.access.String(); !strings.Contains(record, `"fault":"bad_request"`) {
		t.Error(record)
	}
}

// An endpoint that sends a second response a moment after the one it was asked for must not answer the next request with it.
func TestLateExcessNeverAnswersTheNextRequest(t *testing.T) {
	t.Parallel()
	answered, lied := make(chan struct{}), make(chan struct{})
	first := true
	g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
			if first { // connections come one after the other
				first = false
				<-answered
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
				close(lied)
			}
		}
	}))
	c := g.dial()
	for i := range 2 {
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, body := c.get("GET"); body != "good" {
			t.Fatalf("request %d was answered with %q", i, body)
		}
		if i == 0 {
			close(answered)
			<-lied
		}
	}
}
