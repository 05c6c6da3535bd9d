package httpdoor

import (
	"bufio"
	"io"
	"net"
	"testing"
)

// What does one proxied request cost, client and endpoint included? The endpoint and the client are as cheap as can be. Allocations
// are the gate's: the plain path has none.
func BenchmarkProxiedRequest(b *testing.B) {
	answer := []byte("HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sun, 22 Nov 2026 13:11:48 GMT\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
	g := open(b, simple, "A", endpoint(b, func(c net.Conn, _ *bufio.Reader) {
		buf := make([]byte, 4096)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			c.Write(answer)
		}
	}))
	request := []byte("GET /users/1 HTTP/1.1\r\nHost: api.example\r\nUser-Agent: bench\r\nAccept: text/html,application/xhtml+xml\r\nAccept-Encoding: gzip, deflate, br\r\nCookie: session=abcdef0123456789\r\n\r\n")
	c, err := net.Dial("tcp", g.address)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		c.Write(request)
		if _, err := c.Read(buf); err != nil && err != io.EOF {
			b.Fatal(err)
		}
	}
}
