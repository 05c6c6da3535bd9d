package httpdoor

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/listener"
)

// A client that resets its connection while an endpoint thinks gives the request up there, too. One that closes it, or only its sending half, does so
// with client_gone: abort, but not once its answer has begun.
func TestClientLeavesWhileTheEndpointThinks(t *testing.T) {
	t.Parallel()
	site, key := certificate(t, "one.example")
	asked, gone := make(chan struct{}, 10), make(chan struct{}, 10)
	answer := make(chan struct{}, 10)
	a := endpoint(t, func(c net.Conn, r *bufio.Reader) {
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if q.URL.Path == "/begins" {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngo")
			}
			closed := make(chan struct{})
			go func() {
				defer close(closed)
				_, _ = r.Peek(1)
			}()
			asked <- struct{}{}
			select {
			case <-closed:
				gone <- struct{}{}
				return
			case <-answer:
				if q.URL.Path == "/begins" {
					io.WriteString(c, "od")
				} else {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ngood")
				}
				return
			}
		}
	})
	config := func(more string) string { return strings.Replace(simple, `"127.0.0.1:0"`, `"127.0.0.1:0"`+more, 1) }
	abort, finish := open(t, config(", client_gone: abort"), "A", a), open(t, config(""), "A", a)
	secure := open(t, config(", client_gone: abort, tls: {cert: "+site+", key: "+key+"}"), "A", a)
	for _, g := range []*gate{abort, finish, secure} {
		g.afterwards = append(g.afterwards, func(log string) {
			if !strings.Contains(log, `"status":0,"fault":"client_gone"`) {
				t.Errorf("no record of a client that left: %s", log)
			}
		})
	}
	is := func(what chan struct{}, name string) {
		t.Helper()
		select {
		case <-what:
		case <-time.After(10 * time.Second):
			t.Fatalf("the endpoint was not %s", name)
		}
	}
	f := func(c *client, path string, leave func() error) {
		t.Helper()
		c.send("GET " + path + " HTTP/1.1\r\nHost: one.example\r\n\r\n")
		is(asked, "asked")
		if err := leave(); err != nil {
			t.Fatal(err)
		}
	}
	c := abort.dial()
	f(c, "/", c.Close)
	is(gone, "left alone")
	c = abort.dial()
	f(c, "/", c.Conn.(*net.TCPConn).CloseWrite)
	is(gone, "left alone by a client that closed its sending half")
	if rest, err := io.ReadAll(c.r); len(rest) > 0 || err != nil {
		t.Errorf("%q %v", rest, err)
	}
	c = secure.secured("one.example", nil)
	f(c, "/", c.Conn.(*tls.Conn).CloseWrite) // a goodbye that nobody reads
	c.Conn.(*tls.Conn).NetConn().Close()
	is(gone, "left alone by a client with TLS")

	c = finish.dial()
	f(c, "/", func() error {
		if err := c.Conn.(*net.TCPConn).SetLinger(0); err != nil {
			return err
		}
		return c.Close()
	})
	is(gone, "left alone by a client that reset the connection")

	c, d := finish.dial(), abort.dial()
	f(c, "/", c.Conn.(*net.TCPConn).CloseWrite)
	f(d, "/begins", d.Conn.(*net.TCPConn).CloseWrite)
	select {
	case <-gone:
		t.Error("a request that should have been left to end was given up")
	case <-time.After(2*listener.WatchInterval + listener.WatchInterval/2): // the watcher has looked twice: that nothing happens can only be waited for
	}
	answer <- struct{}{}
	answer <- struct{}{}
	for _, one := range []*client{c, d} {
		if resp, body := one.get("GET"); resp.StatusCode != 200 || body != "good" {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
	}
}

// A client that is refused and neither reads on nor goes away does not hold up a drain.
func TestDrainDoesNotLinger(t *testing.T) {
	t.Parallel()
	g := open(t, simple, "A", endpoint(t, echo))
	before, after := g.dial(), g.dial()
	before.send("nonsense\r\n\r\n")
	if resp, _ := before.get("GET"); resp.StatusCode != 400 {
		t.Error(resp.StatusCode)
	}
	began := time.Now()
	if err := g.door.Drain(context.Background(), ""); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("a drain took %s", took)
	}
	after.closed()
}
