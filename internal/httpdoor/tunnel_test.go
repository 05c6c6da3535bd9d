package httpdoor

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// upgrade asks for a tunnel to an endpoint that agrees.
func (g *gate) upgrade(c *client) *client {
	g.t.Helper()
	c.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUser-Agent: tester\r\n\r\n")
	if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != 101 {
		g.t.Fatal(resp, err)
	}
	return c
}

// say sends a message through a tunnel whose endpoint repeats it.
func (c *client) say(message string) error {
	if _, err := io.WriteString(c, message); err != nil {
		return err
	}
	got := make([]byte, len(message))
	if _, err := io.ReadFull(c.r, got); err != nil || string(got) != message {
		return fmt.Errorf("%q came back as %q: %w", message, got, err)
	}
	return nil
}

// agree is an endpoint that becomes a tunnel and repeats what comes.
func agree(c net.Conn, r *bufio.Reader) {
	if _, err := http.ReadRequest(r); err != nil {
		return
	}
	io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
	io.Copy(c, r)
}

// Tunnels in which nothing moves have neither goroutine nor exchange, by TLS or without, and go on as if nothing had been. Each leaves one record, with what its request said, although the
// request's memory has served others meanwhile. It is not parallel, or it would count the goroutines of others.
func TestIdleTunnels(t *testing.T) {
	const tunnels = 200
	if runtime.GOOS != "linux" || os.Getenv("MENSHEN_TEST_IO") == config.IONetpoll {
		t.Skip("there is no own poller here")
	}
	a := endpoint(t, agree)
	cert, key := certificate(t, "a.example")
	patient := open(t, strings.ReplaceAll(secure, "300ms", "20s"), "CERT1", cert, "KEY1", key, "CERT2", cert, "KEY2", key, "A", a)
	for name, g := range map[string]*gate{"plain": open(t, simple, "A", a), "secure": patient} {
		before := runtime.NumGoroutine()
		clients := make([]*client, tunnels)
		for i := range clients {
			if name == "plain" {
				clients[i] = g.upgrade(g.dial())
			} else {
				clients[i] = g.upgrade(g.secured("a.example", nil))
			}
			if err := clients[i].say("hello"); err != nil {
				t.Fatal(err)
			}
		}
		testenv.Eventually(t, 20*time.Second, func() error {
			if now := runtime.NumGoroutine() - tunnels; now > before+20 { // each has one in its endpoint
				return fmt.Errorf("%s: %d idle tunnels have %d goroutines", name, tunnels, now-before)
			}
			return nil
		})
		for i, c := range clients {
			if err := c.say(fmt.Sprintf("still there, %d", i)); err != nil {
				t.Fatalf("%s: tunnel %d: %v", name, i, err)
			}
			c.Close()
		}
		testenv.Eventually(t, 20*time.Second, func() error {
			if n := g.door.Count(); n > 0 {
				return fmt.Errorf("%d connections are left", n)
			}
			return nil
		})
		g.afterwards = append(g.afterwards, func(log string) {
			if records := strings.Count(log, `"path":"/ws"`); records != tunnels || strings.Count(log, `"status":101`) != tunnels || strings.Count(log, `tester`) != tunnels {
				t.Errorf("%s: %d records of %d tunnels:\n%s", name, records, tunnels, log[:min(len(log), 1000)])
			}
		})
	}
}

// A drain waits for tunnels, and when its time is over it cuts those that are left, whether something moves in them or not; the endpoint's side is closed too.
func TestDrainCutsTunnels(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{}, 2)
	g := open(t, simple, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		agree(c, r)
		gone <- struct{}{}
	}))
	idle, busy := g.upgrade(g.dial()), g.upgrade(g.dial())
	go func() { // until it is cut
		p := make([]byte, 64<<10)
		for {
			if _, err := busy.Write(p); err != nil {
				return
			}
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	drained := make(chan error, 1)
	go func() { drained <- g.door.Drain(ctx, "") }()
	if err := idle.say("while it drains"); err != nil {
		t.Error(err)
	}
	select {
	case err := <-drained:
		t.Errorf("the drain is over while tunnels live: %v", err)
	default:
	}
	cancel()
	if err := <-drained; err == nil {
		t.Error("a drain that had to cut says nothing")
	}
	idle.closed()
	<-gone
	<-gone
}

// A tunnel in which nothing moves for the idle time ends on both sides.
func TestTunnelEndsIdle(t *testing.T) {
	t.Parallel()
	g := openChanged(t, func(tables *Tables) {
		for _, s := range tables.sites {
			s.timeoutIdle = 100 * time.Millisecond
			for _, b := range s.bound {
				for i := range b.shares {
					b.shares[i].target.TimeoutIdle = 100 * time.Millisecond
				}
			}
		}
	}, simple, "A", endpoint(t, agree))
	c := g.upgrade(g.dial())
	if err := c.say("x"); err != nil {
		t.Error(err)
	}
	c.closed()
}

// A bug while bytes pass costs one tunnel: no lease and no connection is left, and others go on.
func TestABugInATunnel(t *testing.T) {
	t.Parallel()
	for _, everywhere := range []bool{false, true} { // in a goroutine of the poller, or in the tunnel's own
		var opened atomic.Int32
		g := openChanged(t, func(tables *Tables) {
			open := func(nc net.Conn) *poll.Conn {
				if opened.Add(1)%2 == 1 && !everywhere { // the client's side, which comes first
					return poll.Adopt(nc)
				}
				return poll.New(passesNoBug{nc})
			}
			for _, s := range tables.sites {
				s.open = open
			}
		}, simple, "A", endpoint(t, agree))
		c := g.upgrade(g.dial())
		if err := c.say("fine"); err != nil {
			t.Error(err)
		}
		c.send("bug")
		_, _ = io.Copy(io.Discard, c) // until it ends
		testenv.Eventually(t, 20*time.Second, func() error {
			leases := 0
			for _, b := range g.tables.sites["web"].bound {
				for _, s := range b.shares {
					leases += int(s.target.Set.Status().Endpoints[0].Active)
				}
			}
			if n := g.door.Count(); n > 0 || leases > 0 {
				return fmt.Errorf("%d connections and %d leases are left", n, leases)
			}
			return nil
		})
		if err := g.upgrade(g.dial()).say("another"); err != nil {
			t.Error(err)
		}
		g.afterwards = append(g.afterwards, func(log string) {
			if strings.Count(log, `"status":101`) != 1 {
				t.Errorf("records of one tunnel that ended well:\n%s", log)
			}
		})
	}
}

// passesNoBug is a connection that does not survive to pass a bug on.
type passesNoBug struct{ net.Conn }

func (b passesNoBug) Write(p []byte) (int, error) {
	if string(p) == "bug" {
		panic("BUG: writing")
	}
	return b.Conn.Write(p)
}

func (b passesNoBug) CloseWrite() error { return b.Conn.(*net.TCPConn).CloseWrite() }
