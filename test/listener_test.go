package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// slowServer answers GET /slow in two halves: the second when release is closed. Behind GET /close/slow it closes.
func slowServer(t *testing.T) (address string, release chan struct{}) {
	release = make(chan struct{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/slow") {
			fmt.Fprint(w, "ok")
			return
		}
		if strings.HasPrefix(r.URL.Path, "/close") {
			w.Header().Set("Connection", "close")
		}
		fmt.Fprint(w, "first ")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-release:
			fmt.Fprint(w, "second")
		case <-r.Context().Done():
		}
	})}
	go func() { _ = server.Serve(ln) }() // ends with Close
	t.Cleanup(func() { server.Close() })
	return ln.Addr().String(), release
}

// beginSlow gets /slow and returns when the first half is there.
func beginSlow(t *testing.T, base string) *http.Response {
	t.Helper()
	resp, err := client(t).Get(base + "/slow")
	must(t, err)
	first := make([]byte, 6)
	if _, err := io.ReadFull(resp.Body, first); err != nil {
		t.Fatal(err)
	}
	return resp
}

func endSlow(t *testing.T, resp *http.Response) {
	t.Helper()
	if status, body := drain(t, resp); status != 200 || string(body) != "second" {
		t.Errorf("the request in flight ended with %d %q", status, body)
	}
}

// refused waits until nobody listens at an address.
func refused(t *testing.T, address string) {
	t.Helper()
	testenv.Eventually(t, deadline, func() error {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return nil
		}
		c.Close()
		return fmt.Errorf("%s still accepts connections", address)
	})
}

// The listener that did not change keeps its connections, whatever happens to the others.
func TestListenersChangeByReload(t *testing.T) {
	t.Parallel()
	slow, release := slowServer(t)
	keep, first, second, tcp, adminFirst, adminSecond := testenv.FreeAddress(t), testenv.FreeAddress(t), testenv.FreeAddress(t), testenv.FreeAddress(t),
		testenv.FreeAddress(t), testenv.FreeAddress(t)
	config := func(admin string, listeners ...string) string {
		return fmt.Sprintf(`
admin: %q
listeners:
  keep: {address: %q}
  %s
services:
  slow: {endpoints: [%q]}
routes:
  all: {match: /*, service: slow}
  who: {match: /who, respond: {body: gateway}}
access_log: none
`, admin, keep, strings.Join(listeners, "\n  "), slow)
	}
	g := start(t, config(adminFirst, fmt.Sprintf("other: {address: %q}", first)))
	kept := client(t)
	dials := counting(kept)
	ask := func(listener string) {
		t.Helper()
		if status, body := fetch(t, client(t), "http://"+listener+"/who"); status != 200 || string(body) != "gateway" {
			t.Fatalf("%s answers %d %q", listener, status, body)
		}
		if status, body := fetch(t, kept, "http://"+keep+"/who"); status != 200 || string(body) != "gateway" {
			t.Fatalf("the listener that stayed answers %d %q", status, body)
		}
	}
	ask(first)
	inFlight := beginSlow(t, "http://"+keep)
	onOther := beginSlow(t, "http://"+first)

	// The address changes: the new one is open when the reload has succeeded, the old one refuses, its request goes on.
	g.apply(config(adminFirst, fmt.Sprintf("other: {address: %q}", second)))
	ask(second)
	refused(t, first)

	// Added, and in the same reload the old address is taken by a listener of another name and protocol.
	g.apply(config(adminFirst, fmt.Sprintf("other: {address: %q}", second), fmt.Sprintf("relay: {address: %q, protocol: tcp, service: slow}", tcp)))
	ask(second)
	if status, body := fetch(t, client(t), "http://"+tcp+"/hello"); status != 200 || string(body) != "ok" {
		t.Fatalf("the new tcp listener answers %d %q", status, body)
	}

	// Renamed: the socket is handed over, and never closed in between.
	queue, err := net.Dial("tcp", second)
	must(t, err)
	defer queue.Close()
	g.apply(config(adminFirst, fmt.Sprintf("renamed: {address: %q}", second), fmt.Sprintf("relay: {address: %q, protocol: tcp, service: slow}", tcp)))
	ask(second)

	// The protocols of two listeners change places.
	g.apply(config(adminFirst, fmt.Sprintf("renamed: {address: %q, protocol: tcp, service: slow}", second), fmt.Sprintf("relay: {address: %q}", tcp)))
	ask(tcp)
	if status, body := fetch(t, client(t), "http://"+second+"/who"); status != 200 || string(body) != "ok" {
		t.Fatalf("the listener that became tcp answers %d %q", status, body)
	}

	// The addresses of two listeners change places.
	g.apply(config(adminFirst, fmt.Sprintf("renamed: {address: %q, protocol: tcp, service: slow}", tcp), fmt.Sprintf("relay: {address: %q}", second)))
	ask(second)

	// The admin address moves, by the API's own hand; that request is answered.
	g.apply(config(adminSecond))
	g.addresses["admin"] = adminSecond
	refused(t, adminFirst)
	refused(t, second)
	refused(t, tcp)
	ask(keep)
	if s := g.state(); !s.LastReload.OK || s.Source != "admin API" {
		t.Errorf("state after the last reload: %+v", s)
	}

	close(release)
	endSlow(t, inFlight)
	endSlow(t, onOther)
	if n := dials(); n != 1 {
		t.Errorf("the client of the unchanged listener had to connect %d times", n)
	}
}

// A listener is removed and comes back while a request of the first one is still drained: when that time is up, only
// what belonged to the first is cut.
func TestListenerComesBackWhileItDrains(t *testing.T) {
	t.Parallel()
	slow, release := slowServer(t)
	address := testenv.FreeAddress(t)
	config := func(listener string) string {
		return fmt.Sprintf(`
admin: "127.0.0.1:0"
listeners:
  keep: {address: "127.0.0.1:0"}
  %s
services:
  slow: {endpoints: [%q]}
routes:
  all: {match: /*, service: slow}
access_log: none
`, listener, slow)
	}
	for _, protocol := range []string{"http", "tcp, service: slow"} {
		listener := fmt.Sprintf("web: {address: %q, drain_timeout: 1s, protocol: %s}", address, protocol)
		g := start(t, config(listener))
		old := beginSlow(t, "http://"+address)
		g.apply(config(""))
		refused(t, address)
		g.apply(config(listener))
		young := beginSlow(t, "http://"+address)
		if _, err := io.ReadAll(old.Body); err == nil {
			t.Errorf("%s: a request is not cut at the end of drain_timeout", protocol)
		}
		testenv.Eventually(t, deadline, func() error {
			if !strings.Contains(g.log(), "connections were cut") {
				return fmt.Errorf("the cut is not logged")
			}
			return nil
		})
		if status, body := fetch(t, client(t), "http://"+address+"/"); status != 200 || string(body) != "ok" {
			t.Errorf("%s: the listener answers %d %q", protocol, status, body)
		}
		release <- struct{}{}
		endSlow(t, young)
		g.Kill()
	}
}

// A listener gets certificates by reload: its open connections go on in plain text, new ones must sign in to TLS.
func TestListenerStartsToSpeakTLS(t *testing.T) {
	t.Parallel()
	cert := testenv.NewCertificate(t)
	address := testenv.FreeAddress(t)
	config := func(more string) string {
		return fmt.Sprintf(`
admin: "127.0.0.1:0"
listeners: {web: {address: %q%s}}
routes: {who: {match: /who, respond: {body: gateway}}}
access_log: none
`, address, more)
	}
	g := start(t, config(""))
	plain := client(t)
	dials := counting(plain)
	fetch(t, plain, "http://"+address+"/who")
	g.apply(config(fmt.Sprintf(", tls: {cert: %q, key: %q}", cert.CertFile, cert.KeyFile)))
	if status, _ := fetch(t, plain, "http://"+address+"/who"); status != 200 || dials() != 1 {
		t.Errorf("the open connection answers %d after %d dials", status, dials())
	}
	secure := tlsClient(t, cert)
	if status, _ := fetch(t, secure, "https://"+address+"/who"); status != 200 {
		t.Errorf("over TLS: %d", status)
	}
	c, err := net.Dial("tcp", address)
	must(t, err)
	defer c.Close()
	fmt.Fprintf(c, "GET /who HTTP/1.1\r\nHost: a\r\n\r\n")
	_ = c.SetReadDeadline(time.Now().Add(deadline))
	if line, _ := bufio.NewReader(c).ReadString('\n'); strings.Contains(line, "200") {
		t.Errorf("plain text is served on a TLS listener: %q", line)
	}
}

// A reload whose new address is taken changes nothing.
func TestReloadPortTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	config := func(more string) string {
		return "admin: 127.0.0.1:0\naccess_log: none\nroutes: {who: {match: /who, respond: {body: gateway}}}\nlisteners:\n  web: {address: \"127.0.0.1:0\"}\n" + more
	}
	g := start(t, config(""))
	added := testenv.FreeAddress(t)
	status, body := g.post("/api/v1/config", config(fmt.Sprintf("  aaa: {address: %q}\n  second: {address: %q}\n", added, taken.Addr())))
	if status != 409 || !strings.Contains(string(body), "second") {
		t.Errorf("POST gives %d %s", status, body)
	}
	refused(t, added) // opened before the other one failed
	if s := g.state(); s.Generation != 1 || s.LastReload.OK || !strings.Contains(s.LastReload.Error, "second") {
		t.Errorf("state: %+v", s)
	}
	if status, _ := fetch(t, client(t), g.url("web", "/who")); status != 200 {
		t.Errorf("the old configuration answers %d", status)
	}
}
