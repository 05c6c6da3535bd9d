package httpdoor

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// moody is an endpoint that misbehaves in every way it knows, by the toss of a coin.
func moody(c net.Conn, r *bufio.Reader) {
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	for {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		name := q.Header.Get("X-Name")
		good := fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Name: %s\r\nContent-Length: %d\r\n\r\n%s", name, len(name), name)
		switch random.IntN(14) {
		case 0: // leaves without a word
			return
		case 1: // answers early, and leaves
			io.WriteString(c, good)
			return
		case 2: // answers early, and goes on
			io.WriteString(c, good)
			io.Copy(io.Discard, q.Body)
			continue
		case 3: // refuses early
			fmt.Fprintf(c, "HTTP/1.1 403 No\r\nX-Name: %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", name)
			return
		case 4: // half a head
			io.WriteString(c, good[:20+random.IntN(20)])
			return
		case 5: // half a body
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Name: %s\r\nContent-Length: 100000\r\n\r\nhalf", name)
			return
		case 6: // chunks that end in nonsense
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Name: %s\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nnonsense\r\n", name)
			return
		case 7: // another protocol
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
		case 8: // takes its time in the middle of the body
			io.CopyN(io.Discard, q.Body, 1000)
			time.Sleep(10 * time.Millisecond) // slow on purpose
		case 9: // hints first
			io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
		}
		if _, err := io.Copy(io.Discard, q.Body); err != nil {
			return
		}
		switch random.IntN(4) {
		case 0:
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Name: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", name, len(name), name)
		case 1: // until it closes
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Name: %s\r\n\r\n%s", name, name)
			return
		case 2: // a long one
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Name: %s\r\nContent-Length: 200000\r\n\r\n%s", name, strings.Repeat("x", 200_000))
		default:
			io.WriteString(c, good)
		}
	}
}

// Moody endpoints and clients that leave whenever they like: nobody gets another's answer, and nothing is left behind.
func TestChaos(t *testing.T) {
	t.Parallel()
	for _, io := range []string{"netpoll", "epoll"} {
		t.Run(io, func(t *testing.T) {
			t.Parallel()
			chaos(t, io)
		})
	}
}

func chaos(t *testing.T, io string) {
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0", io: $IO, timeouts: {request_body: 1s, request_header: 1s}}}
services: {a: {endpoints: [$A, $B], outlier: {consecutive_failures: 0}, timeouts: {first_byte: 500ms, idle: 1s}}}
routes: {all: {match: /*, service: a}}
`, "IO", io, "A", endpoint(t, moody), "B", endpoint(t, moody))
	rounds := 20
	if testing.Short() {
		rounds = 10
	}
	var clients sync.WaitGroup
	for i := range 24 {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 3))
			for j := range rounds {
				if err := g.tantrum(random, fmt.Sprintf("%d-%d", i, j)); err != nil {
					t.Errorf("client %d, round %d: %v", i, j, err)
					return
				}
			}
		})
	}
	clients.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := g.door.Drain(ctx, ""); err != nil {
		t.Errorf("drain: %v", err)
	}
	testenv.Eventually(t, 10*time.Second, func() error { // Drain does not know of a connection that is accepted after its client left
		for _, e := range g.tables.targets["a"].Set.Status().Endpoints {
			if e.Active != 0 {
				return fmt.Errorf("%s: %d requests active at the end", e.Address, e.Active)
			}
		}
		return nil
	})
}

// tantrum has a few requests on one connection, which it may leave at any time. What it gets must be its own.
func (g *gate) tantrum(random *rand.Rand, name string) error {
	nc, err := net.Dial("tcp", g.address)
	if err != nil {
		return err
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(nc)
	for i := range 1 + random.IntN(5) {
		mine := name + "-" + strconv.Itoa(i)
		method := []string{"GET", "POST", "PUT", "HEAD"}[random.IntN(4)]
		var text bytes.Buffer
		fmt.Fprintf(&text, "%s / HTTP/1.1\r\nHost: a\r\nX-Name: %s\r\n", method, mine)
		if random.IntN(6) == 0 {
			text.WriteString("Expect: 100-continue\r\n")
		}
		body := strings.Repeat("b", []int{0, 10, 15_000, 100_000, 400_000}[random.IntN(5)])
		switch {
		case method == "GET" || method == "HEAD" || body == "":
			text.WriteString("\r\n")
		case random.IntN(2) == 0:
			fmt.Fprintf(&text, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
		default:
			fmt.Fprintf(&text, "Content-Length: %d\r\n\r\n%s", len(body), body)
		}
		leave := random.IntN(6) == 0
		if leave {
			text.Truncate(1 + random.IntN(text.Len()))
		}
		written := make(chan struct{})
		go func() { // fails when the gate refuses the rest
			defer close(written)
			nc.Write(text.Bytes())
		}()
		if leave {
			<-written
			return nil
		}
		done, err := answer(r, method, mine)
		if err != nil || done {
			nc.Close()
			<-written
			return err
		}
		<-written
	}
	return nil
}

// answer reads the response to a request named mine; done says that the connection is over.
func answer(r *bufio.Reader, method, mine string) (done bool, err error) {
	for {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			if err, ok := err.(net.Error); ok && err.Timeout() {
				return true, fmt.Errorf("%s: no answer: %w", method, err)
			}
			return true, nil
		}
		if resp.StatusCode < 200 {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		if err, ok := err.(net.Error); ok && err.Timeout() {
			return true, fmt.Errorf("%s: half an answer: %w", method, err)
		}
		if resp.StatusCode < 500 && resp.Header.Get("X-Name") != mine {
			return true, fmt.Errorf("%s: %d, the answer of %q to %q: %.200s", method, resp.StatusCode, resp.Header.Get("X-Name"), mine, body)
		}
		if s := string(body); err == nil && method != "HEAD" && resp.StatusCode == 200 && s != mine && len(s) != 200_000 {
			return true, fmt.Errorf("%s: %d bytes of %q to %q: %.200s", method, len(s), resp.Header.Get("X-Name"), mine, body)
		}
		return err != nil || resp.Close, nil
	}
}

// A drain under traffic ends soon, and cuts no answer.
func TestDrainUnderTraffic(t *testing.T) {
	t.Parallel()
	f := func(g *gate, dial func() *client) {
		t.Helper()
		var clients sync.WaitGroup
		ready := make(chan struct{}, 1000)
		for i := range 30 {
			c := dial()
			clients.Go(func() {
				defer c.Close()
				isReady := sync.OnceFunc(func() { ready <- struct{}{} })
				defer isReady()
				random := rand.New(rand.NewPCG(uint64(i), 5))
				for j := range 100_000 {
					if j == 3 {
						isReady()
					}
					size := []int{0, 10, 30_000}[random.IntN(3)]
					go fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("b", size))
					resp, err := http.ReadResponse(c.r, nil)
					if err != nil {
						return // between two requests
					}
					if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 {
						t.Errorf("request %d: %d %v: %.200s", j, resp.StatusCode, err, b)
						return
					}
					if resp.Close {
						return
					}
					if random.IntN(4) == 0 {
						time.Sleep(time.Duration(random.IntN(3)) * time.Millisecond) // a client that takes its time
					}
				}
			})
		}
		for range 30 {
			<-ready
		}
		began := time.Now()
		if err := g.door.Drain(context.Background(), "web"); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 900*time.Millisecond {
			t.Errorf("the drain took %v", took)
		}
		clients.Wait()
	}
	g := open(t, simple, "A", endpoint(t, echo))
	f(g, g.dial)
	cert, key := certificate(t, "one.example")
	s := open(t, strings.Replace(simple, `"127.0.0.1:0"`, `"127.0.0.1:0", tls: {cert: $CERT, key: $KEY}`, 1), "CERT", cert, "KEY", key, "A", endpoint(t, echo))
	f(s, func() *client { return s.secured("one.example", nil) })
}
