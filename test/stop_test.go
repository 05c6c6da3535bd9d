package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

const stopConfig = `
admin: "127.0.0.1:0"
listeners:
  web: {address: "127.0.0.1:0", drain_timeout: %s}
  raw: {address: "127.0.0.1:0", drain_timeout: %s, protocol: tcp, service: slow}
services:
  slow: {endpoints: [%q]}
routes:
  all: {match: /*, service: slow}
access_log: none
`

func TestStopLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	slow, release := slowServer(t)
	g := start(t, fmt.Sprintf(stopConfig, "30s", "30s", slow))
	idle := client(t)
	fetch(t, idle, g.url("web", "/"))
	web, raw := beginSlow(t, g.url("web", "")), beginSlow(t, g.url("raw", "/close"))
	if status, _ := fetch(t, http.DefaultClient, g.url("admin", "/readyz")); status != 200 {
		t.Errorf("/readyz says %d before", status)
	}
	must(t, g.Signal(syscall.SIGTERM))
	testenv.Eventually(t, deadline, func() error {
		status, body := fetch(t, http.DefaultClient, g.url("admin", "/readyz"))
		if status != 503 || !strings.Contains(string(body), "stopping") {
			return fmt.Errorf("/readyz says %d %s", status, body)
		}
		return nil
	})
	if status, _ := fetch(t, http.DefaultClient, g.url("admin", "/healthz")); status != 200 {
		t.Errorf("/healthz says %d while it drains", status)
	}
	refused(t, g.addresses["web"])
	refused(t, g.addresses["raw"])
	// What asks for a change now is told so at once, and does not keep the process.
	if status, body := g.post("/api/v1/reload", ""); status != 409 || !strings.Contains(string(body), "stopping") {
		t.Errorf("a reload while it stops: %d %s", status, body)
	}
	must(t, g.Signal(syscall.SIGHUP))
	close(release)
	endSlow(t, web)
	endSlow(t, raw)
	ended(t, g, 0)
}

func TestStopCutsWhatTakesTooLong(t *testing.T) {
	t.Parallel()
	slow, _ := slowServer(t)
	g := start(t, fmt.Sprintf(stopConfig, "300ms", "300ms", slow))
	web, raw := beginSlow(t, g.url("web", "")), beginSlow(t, g.url("raw", ""))
	began := time.Now()
	must(t, g.Signal(syscall.SIGTERM))
	ended(t, g, 0)
	if took := time.Since(began); took < 250*time.Millisecond || took > 10*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	for _, resp := range []*http.Response{web, raw} {
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("a request that was cut looks whole: %q", body)
		}
	}
	if log := g.log(); strings.Count(log, "connections were cut") != 2 {
		t.Errorf("the cut is not logged for both listeners:\n%s", log)
	}
}

func TestSecondSignalStopsAtOnce(t *testing.T) {
	t.Parallel()
	slow, _ := slowServer(t)
	g := start(t, fmt.Sprintf(stopConfig, "1h", "1h", slow))
	beginSlow(t, g.url("web", ""))
	must(t, g.Signal(syscall.SIGTERM))
	refused(t, g.addresses["web"])
	must(t, g.Signal(syscall.SIGHUP)) // comes too late, and must not stand in the way
	must(t, g.Signal(syscall.SIGTERM))
	ended(t, g, 128+int(syscall.SIGTERM))
}

// A tunnel has no end that could be waited for: it is cut when drain_timeout is over.
func TestStopCutsTunnels(t *testing.T) {
	t.Parallel()
	echo := echoServer(t)
	g := start(t, fmt.Sprintf(stopConfig, "300ms", "300ms", echo))
	ws, err := dialTunnel(g.url("web", "/ws"))
	must(t, err)
	defer ws.CloseNow()
	must(t, ping(ws, "before"))
	must(t, g.Signal(syscall.SIGTERM))
	ended(t, g, 0)
	if err := ping(ws, "after"); err == nil {
		t.Error("the tunnel outlives the gateway")
	}
}

// SIGINT is what a terminal's Ctrl-C sends.
func TestInterruptStops(t *testing.T) {
	t.Parallel()
	g := start(t, "admin: 127.0.0.1:0\nlisteners: {web: {address: \"127.0.0.1:0\"}}\nroutes: {ping: {match: /ping, respond: 204}}\n")
	must(t, g.Signal(syscall.SIGINT))
	ended(t, g, 0)
	if log := g.log(); !strings.Contains(log, `"msg":"stopped"`) {
		t.Errorf("the log does not say that it stopped:\n%s", log)
	}
}

// ended waits for the process and compares its exit code.
func ended(t *testing.T, g *gateway, exit int) {
	t.Helper()
	timer := time.NewTimer(deadline)
	defer timer.Stop()
	select {
	case <-g.Done():
	case <-timer.C:
		t.Fatal("the gateway does not end")
	}
	if g.Exit() != exit {
		t.Fatalf("exit code %d, want %d:\n%s", g.Exit(), exit, tail(g.log(), 40))
	}
}

// echoServer speaks WebSocket at every path and says back what it hears.
func echoServer(t testing.TB) (address string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			kind, message, err := c.Read(context.Background())
			if err != nil || c.Write(context.Background(), kind, message) != nil {
				return
			}
		}
	})}
	go func() { _ = server.Serve(ln) }() // ends with Close
	t.Cleanup(func() { server.Close() })
	return ln.Addr().String()
}

func dialTunnel(url string) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	c, _, err := websocket.Dial(ctx, url, nil)
	return c, err
}

// ping sends a message through a tunnel and waits for its echo.
func ping(c *websocket.Conn, message string) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
		return err
	}
	_, back, err := c.Read(ctx)
	if err == nil && string(back) != message {
		err = fmt.Errorf("sent %q, got %q back", message, back)
	}
	return err
}
