package h1

import (
	"testing"
	"time"
)

// Nothing allocates in steady state, refusals included: a hostile client must not feed the garbage collector.
func TestAllocations(t *testing.T) {
	f := func(what string, run func()) {
		t.Helper()
		run() // the slice of fields is made once
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
	var (
		request  Request
		response Response
		decoder  ChunkDecoder
		dst      = make([]byte, 0, 4096)
		get      = []byte("GET")
	)
	for what, in := range map[string][]byte{
		"usual request":        []byte(usualRequest),
		"absolute target":      []byte("GET http://[::1]:80/?a HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close, x-a, x-b\r\nUpgrade: c\r\n\r\n"),
		"two Content-Length":   []byte("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"),
		"bare LF":              []byte("GET / HTTP/1.1\nHost: a\n\n"),
		"TLS":                  []byte("\x16\x03\x01"),
		"incomplete":           []byte(usualRequest[:300]),
		"invalid IPv6 address": []byte("GET / HTTP/1.1\r\nHost: [::1::2]\r\n\r\n"),
	} {
		f(what, func() { _, _ = request.Parse(in, Limits{}) })
	}
	in := []byte(usualResponse)
	f("usual response", func() { _, _ = response.Parse(in, Limits{}, get) })
	f("trickling response", func() {
		for n := range in {
			_, _ = response.Parse(in[:n+1], Limits{}, get)
		}
	})
	f("asking", func() {
		for _, field := range response.Fields {
			_ = response.HopByHop(field)
		}
		_, _ = response.Lookup("x-unknown")
		_ = response.Get(KnownConnection)
	})
	body := []byte("5;a=\"b\"\r\nhello\r\n0\r\nX: y\r\nZ: z\r\n\r\n")
	f("chunked body with trailers", func() {
		decoder.Reset()
		for in := body; ; {
			_, n, done, err := decoder.Next(in)
			if done || err != nil {
				break
			}
			in = in[n:]
		}
	})
	value, now := []byte("text/plain"), time.Now()
	f("encoding", func() {
		dst = AppendStatusLine(dst[:0], 200)
		dst = AppendStatusLine(dst, 299)
		dst = AppendField(dst, "Content-Type", value)
		dst = AppendField(dst, value, "x")
		dst = append(dst, "Date: "...)
		dst = AppendDate(dst, now)
		for _, field := range response.Fields {
			dst = field.AppendTo(dst)
		}
		dst = AppendChunkHeader(dst, 4096)
		dst = AppendLastChunk(dst, response.Fields)
	})
}
