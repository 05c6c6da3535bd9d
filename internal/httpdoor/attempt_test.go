package httpdoor

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/httpdoor/forward"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/testenv"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// Requests that wait for an endpoint have no goroutine. They are answered, each with its own; timed out; broken off with their clients told; and
// a second request that its client has sent meanwhile waits for its turn.
func TestPendingRequestHasNoGoroutine(t *testing.T) { // not parallel: it counts goroutines
	if runtime.GOOS != "linux" || os.Getenv("MENSHEN_TEST_IO") != "" {
		t.Skip("this is the own poller's")
	}
	var asked atomic.Int32
	release := make(chan struct{})
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
services: {a: {endpoints: [$A], retry: 0}, hasty: {endpoints: [$A], retry: 0, timeouts: {first_byte: 300ms}}}
routes: {all: {match: /*, service: a}, hasty: {match: /hasty, service: hasty}}
`, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			body, _ := io.ReadAll(q.Body)
			if asked.Add(1); q.URL.Path != "/2" {
				<-release
			}
			answer := q.URL.Path + string(body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
		}
	}))
	alone := func(want int32) {
		t.Helper()
		dump := make([]byte, 4<<20)
		testenv.Eventually(t, 10*time.Second, func() error {
			if n := asked.Load(); n < want {
				return fmt.Errorf("the endpoint was asked %d times instead of %d", n, want)
			}
			if n := strings.Count(string(dump[:runtime.Stack(dump, true)]), "httpdoor.(*conn).Resume("); n > 0 {
				return fmt.Errorf("%d goroutines serve clients", n)
			}
			return nil
		})
	}
	all := make([]*client, 20)
	for i := range all {
		all[i] = g.dial()
	}
	for range 3 { // on new connections to the endpoint, then on old ones
		asked.Store(0)
		for i, c := range all {
			c.send(fmt.Sprintf("POST /%dx HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n%03d", i, i))
		}
		alone(20)
		for _, c := range all[:5] {
			c.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
		}
		alone(20)
		for range all {
			release <- struct{}{}
		}
		for i, c := range all {
			if resp, body := c.get("POST"); resp.StatusCode != 200 || body != fmt.Sprintf("/%dx%03d", i, i) {
				t.Fatalf("client %d got %d %q", i, resp.StatusCode, body)
			}
		}
		for _, c := range all[:5] {
			if resp, body := c.get("GET"); resp.StatusCode != 200 || body != "/2" {
				t.Fatalf("%d %q", resp.StatusCode, body)
			}
		}
	}

	all[0].send("GET /hasty HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp, _ := all[0].get("GET"); resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("%d after the time for an answer", resp.StatusCode)
	}

	asked.Store(0)
	for _, c := range all {
		c.send("GET /1x HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	alone(20)
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = g.door.Drain(over, "") // cuts them
	for _, c := range all {
		if resp, _ := c.get("GET"); resp.StatusCode != http.StatusServiceUnavailable || !resp.Close {
			t.Errorf("%d for a request that was cut, close %v", resp.StatusCode, resp.Close)
		}
	}
	close(release)
}

// Nor have the streams of an HTTP/2 connection: they are answered, each with its own; timed out; given up by their clients; and broken off with
// their clients told.
func TestPendingStreamHasNoGoroutine(t *testing.T) { // not parallel: it counts goroutines
	if runtime.GOOS != "linux" || os.Getenv("MENSHEN_TEST_IO") != "" {
		t.Skip("this is the own poller's")
	}
	var asked, left atomic.Int32
	release := make(chan struct{})
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
services: {a: {endpoints: [$A], retry: 0}, hasty: {endpoints: [$A], retry: 0, timeouts: {first_byte: 300ms}}}
routes: {all: {match: /*, service: a}, hasty: {match: /hasty, service: hasty}}
`, "A", webServer(t, func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		asked.Add(1)
		select {
		case <-release:
			fmt.Fprint(w, q.URL.Path+string(body))
		case <-q.Context().Done():
			left.Add(1)
		}
	}))
	client := over2(t)
	alone := func(want int32) {
		t.Helper()
		dump := make([]byte, 4<<20)
		testenv.Eventually(t, 10*time.Second, func() error {
			if n := asked.Load(); n < want {
				return fmt.Errorf("the endpoint was asked %d times instead of %d", n, want)
			}
			if n := strings.Count(string(dump[:runtime.Stack(dump, true)]), "httpdoor.(*conn).runStream("); n > 0 {
				return fmt.Errorf("%d goroutines serve streams", n)
			}
			return nil
		})
	}
	const streams = 20
	got := make(chan string, streams)
	ask := func(ctx context.Context, path string) {
		for i := range streams {
			go func() { // ends with the answer, for which the test waits
				q, _ := http.NewRequestWithContext(ctx, "POST", fmt.Sprintf("http://%s/%s%d", g.address, path, i), strings.NewReader("!"))
				resp, err := client.Do(q)
				if err != nil {
					got <- "gone"
					return
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				got <- fmt.Sprint(resp.StatusCode, " ", resp.StatusCode == 200 && err == nil && string(body) == q.URL.Path+"!")
			}()
		}
	}
	want := func(what string) {
		t.Helper()
		for range streams {
			if s := <-got; s != what {
				t.Errorf("%q instead of %q", s, what)
			}
		}
	}
	for range 3 { // on new connections to the endpoint, then on old ones
		asked.Store(0)
		ask(context.Background(), "a")
		alone(streams)
		for range streams {
			release <- struct{}{}
		}
		want("200 true")
	}

	if resp, err := client.Get("http://" + g.address + "/hasty"); err != nil || resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("%v, %v after the time for an answer", resp, err)
	}

	asked.Store(0)
	left.Store(0)
	ctx, cancel := context.WithCancel(context.Background())
	ask(ctx, "b")
	alone(streams)
	cancel()
	want("gone")
	testenv.Eventually(t, 10*time.Second, func() error {
		if n := left.Load(); n < streams {
			return fmt.Errorf("the endpoint knows of %d requests that were given up, not of %d", n, streams)
		}
		return nil
	})

	asked.Store(0)
	ask(context.Background(), "c")
	alone(streams)
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = g.door.Drain(over, "") // cuts them
	want("503 false")
}

// A panic that breaks an attempt off gives back the lease and closes the connection to the endpoint.
func TestPanicEndsTheAttempt(t *testing.T) {
	t.Parallel()
	left := make(chan struct{})
	g := open(t, simple, "A", endpoint(t, func(_ net.Conn, r *bufio.Reader) {
		_, _ = r.ReadByte()
		close(left)
	}))
	g.door.options.Log = slog.New(slog.DiscardHandler) // the panic is meant
	set := g.tables.targets["a"].Set
	lease, err := set.Pick(upstream.Request{})
	if err != nil {
		t.Fatal(err)
	}
	up, f := lease.Endpoint.Pool.(*forward.Pool).Dial(0, poll.Adopt)
	if f != nil {
		t.Fatal(f)
	}
	g.door.bug("boom", &exchange{trial: trial{lease: lease, up: up}})
	<-left
	if e := set.Status().Endpoints[0]; e.Active != 0 {
		t.Errorf("%d requests active at the end", e.Active)
	}
}

// A body leaves behind its head whatever their lengths are, and however the endpoint sends them: the head may grow by more than was left free for it.
func TestBodiesBehindGrownHeads(t *testing.T) {
	t.Parallel()
	config := func(more string) string { return strings.Replace(simple, "service: a}", "service: a"+more+"}", 1) }
	a := endpoint(t, func(c net.Conn, r *bufio.Reader) {
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			var length, split int
			_, _ = fmt.Sscanf(q.URL.Path, "/%d/%d", &length, &split)
			answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", length, pattern(length))
			_, _ = io.WriteString(c, answer[:min(split, len(answer))])
			if split < len(answer) {
				runtime.Gosched()
				_, _ = io.WriteString(c, answer[split:])
			}
		}
	})
	for name, g := range map[string]*gate{
		"plain": open(t, config(""), "A", a),
		"grown": open(t, config(", policies: [{headers: {response: {set: {X-Long: "+strings.Repeat("x", 1000)+"}}}}]"), "A", a),
	} {
		c := g.dial()
		for _, length := range []int{0, 1, joinMin - 1, joinMin, joinMin + 1, 10_000, 14_000, 15_000, 15_500, 16_000, 16_384, 17_000, 70_000, 140_000} {
			for _, split := range []int{10, 60, 5_000, 1 << 20} {
				c.send(fmt.Sprintf("GET /%d/%d HTTP/1.1\r\nHost: a\r\n\r\n", length, split))
				if resp, body := c.get("GET"); resp.StatusCode != 200 || body != pattern(length) {
					t.Fatalf("%s: %d, %d bytes instead of %d (split at %d)", name, resp.StatusCode, len(body), length, split)
				}
			}
		}
	}
}

// pattern is text of a length in which no place looks like another nearby.
func pattern(length int) string {
	var b strings.Builder
	for i := 0; b.Len() < length; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.String()[:length]
}
