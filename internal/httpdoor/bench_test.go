package httpdoor

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
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

// streaming is a client of HTTP/2, and an endpoint of either version, that are as cheap as can be. ask sends n requests at once and reads
// the answers.
func streaming(t testing.TB, yaml string, n int) (ask func()) {
	address := endpoint(t, func(c net.Conn, r *bufio.Reader) {
		if first, _ := r.Peek(3); string(first) == "PRI" {
			answerStreams(c, r)
			return
		}
		answer := []byte("HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sun, 22 Nov 2026 13:11:48 GMT\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
		buf := make([]byte, 4096)
		for {
			if _, err := r.Read(buf); err != nil {
				return
			}
			c.Write(answer)
		}
	})
	g := open(t, yaml, "A", address)
	c, err := net.Dial("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	var block, frames bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	head := func() []byte {
		block.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "api.example"}, {":path", "/users/1"}, {"user-agent", "bench"},
			{"accept", "text/html,application/xhtml+xml"}, {"accept-encoding", "gzip, deflate, br"}, {"cookie", "session=abcdef0123456789"}} {
			encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		return block.Bytes()
	}
	framer := http2.NewFramer(&frames, nil)
	frames.WriteString(http2.ClientPreface)
	framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	framer.WriteWindowUpdate(0, 1<<30)
	c.Write(frames.Bytes())
	next := uint32(1)
	r := bufio.NewReaderSize(c, 64<<10)
	send := func(n int) {
		frames.Reset()
		for range n {
			framer.WriteHeaders(http2.HeadersFrameParam{StreamID: next, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
			next += 2
		}
		c.Write(frames.Bytes())
		for ended := 0; ended < n; {
			h, err := r.Peek(9)
			if err != nil {
				t.Fatal(err)
			}
			length := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
			if h[3] <= 1 && h[4]&1 != 0 {
				ended++
			}
			if h[3] == 3 || h[3] == 7 {
				t.Fatalf("frame %x", h)
			}
			r.Discard(9 + length)
		}
	}
	head()
	send(1) // fills the tables of the compression
	head()  // and from here on every head is the same
	return func() { send(n) }
}

// answerStreams is an endpoint of HTTP/2 that answers every stream alike and looks at nothing.
func answerStreams(c net.Conn, r *bufio.Reader) {
	var out bytes.Buffer
	framer := http2.NewFramer(&out, nil)
	framer.WriteSettings()
	framer.WriteSettingsAck()
	framer.WriteWindowUpdate(0, 1<<30)
	r.Discard(len(http2.ClientPreface))
	for {
		h, err := r.Peek(9)
		if err != nil {
			return
		}
		if h[3] == 1 && h[4]&1 != 0 {
			stream := binary.BigEndian.Uint32(h[5:])
			framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true})
			framer.WriteData(stream, true, hello)
		}
		if _, err := r.Discard(9 + (int(h[0])<<16 | int(h[1])<<8 | int(h[2]))); err != nil {
			return
		}
		if r.Buffered() == 0 {
			c.Write(out.Bytes())
			out.Reset()
		}
	}
}

var hello = []byte("hello")

// What does a request over HTTP/2 cost, and what does it allocate, when 16 come at once?
func BenchmarkStreams(b *testing.B) {
	for _, c := range []struct{ name, yaml string }{{"own answer", ownAnswer}, {"to HTTP 1", simple}, {"to HTTP 2", simple2}} {
		b.Run(c.name, func(b *testing.B) {
			const n = 16
			ask := streaming(b, c.yaml, n)
			ask()
			b.ReportAllocs()
			for range (b.N + n - 1) / n {
				ask()
			}
		})
	}
}

const ownAnswer = `
listeners: {web: {address: "127.0.0.1:0"}}
routes: {all: {match: /*, respond: {status: 200, body: hello}}}
`
