package httpdoor

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"testing"
)

// answering is an endpoint and a client that are as cheap as can be. ask sends one request and reads the answer.
func answering(t testing.TB, yaml string) (ask func()) {
	answer := []byte("HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sun, 22 Nov 2026 13:11:48 GMT\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
	g := open(t, yaml, "A", endpoint(t, func(c net.Conn, _ *bufio.Reader) {
		buf := make([]byte, 4096)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			c.Write(answer)
		}
	}))
	request := []byte("GET /users/1 HTTP/1.1\r\nHost: api.example\r\nUser-Agent: bench\r\nAccept: text/html,application/xhtml+xml\r\nAccept-Encoding: gzip, deflate, br\r\nCookie: session=abcdef0123456789\r\nX-API-Key: k\r\nOrigin: https://shop.example\r\n\r\n")
	c, err := net.Dial("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	buf := make([]byte, 4096)
	return func() {
		c.Write(request)
		n, err := c.Read(buf)
		if err != nil && err != io.EOF || !bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 200")) {
			t.Fatalf("%v %s", err, buf[:n])
		}
	}
}

const withPolicies = `
listeners: {web: {address: "127.0.0.1:0"}}
services: {a: {endpoints: [$A]}}
routes:
  all:
    match: /*
    service: a
    policies:
      - cors: {origins: ["https://shop.example"], credentials: true}
      - api_key: {}
      - rate_limit: {rate: 1000000/s, key: consumer}
      - headers: {request: {set: {X-From: menshen}, remove: [X-Internal-*]}, response: {set: {Strict-Transport-Security: max-age=31536000}, remove: [Server]}}
consumers: {app: {groups: [shop], api_keys: k}}
`

// What does one proxied request cost, client and endpoint included, and what do the four policies add?
func BenchmarkProxiedRequest(b *testing.B) {
	for _, c := range []struct{ name, yaml string }{{"plain", simple}, {"policies", withPolicies}} {
		b.Run(c.name, func(b *testing.B) {
			ask := answering(b, c.yaml)
			b.ReportAllocs()
			for b.Loop() {
				ask()
			}
		})
	}
}

// A proxied request allocates nothing, nor does one through the four policies.
func TestRequestsAllocateNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes pools forget")
	}
	for name, yaml := range map[string]string{"plain": simple, "policies": withPolicies} {
		ask := answering(t, yaml)
		for range 10 {
			ask()
		}
		if n := testing.AllocsPerRun(200, ask); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
