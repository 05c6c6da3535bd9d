package h2

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/menshen-gateway/menshen/internal/h1"
)

// What the encoder writes, with its shortcuts, is what went in, whatever came before: heads that repeat, change, grow and shrink, and a peer that
// changes the size of its table between them.
func TestEncoderAgainstDecoder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		e := newEncoder()
		var got []string
		d := hpack.NewDecoder(headerTableSize, func(f hpack.HeaderField) { got = append(got, f.Name+": "+f.Value) })
		value := func() string {
			switch r.IntN(8) {
			case 0:
				return strings.Repeat("long", r.IntN(1500))
			case 1:
				return ""
			case 2:
				return fmt.Sprint(r.Uint64())
			}
			return fmt.Sprint("v", r.IntN(3))
		}
		names := []string{"Server", "Date", "Vary", "X-Request-Id", "content-length", "ETag", "X-Own", "x-own-2", "Connection", "SERVER", "Set-Cookie", "RATELIMIT"}
		for range 40 {
			if r.IntN(8) == 0 {
				size := []uint32{0, 64, 200, 4096, 100_000}[r.IntN(5)]
				e.resize(size)
				d.SetAllowedMaxDynamicTableSize(headerTableSize)
			}
			got = nil
			var want []string
			text := "HTTP/1.1 200 OK\r\n"
			want = append(want, ":status: 200")
			var fields []h1.Field
			trailers := r.IntN(6) == 0
			if trailers {
				want = nil
			}
			for range r.IntN(50) {
				name, v := names[r.IntN(len(names))], value()
				if r.IntN(3) > 0 { // most heads are alike
					name, v = names[len(fields)%len(names)], "same"
				}
				fields = append(fields, h1.Field{Name: []byte(name), Value: []byte(v)})
				text += name + ": " + v + "\r\n"
				if name != "Connection" {
					want = append(want, strings.ToLower(name)+": "+v)
				}
			}
			if trailers {
				e.trailers(fields)
			} else {
				e.response([]byte(text + "\r\n"))
			}
			if _, err := d.Write(e.out); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if err := d.Close(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d: got\n%q\nwant\n%q", seed, got, want)
			}
		}
		kept := 0
		for _, l := range e.lines {
			kept += len(l.line)
		}
		if kept > linesKept*lineBytesKept {
			t.Errorf("%d bytes are kept", kept)
		}
	}
}

func TestEncoderRequests(t *testing.T) {
	t.Parallel()
	e := newEncoder()
	var got []string
	d := hpack.NewDecoder(headerTableSize, func(f hpack.HeaderField) { got = append(got, f.Name+": "+f.Value) })
	f := func(text string, head bool, want ...string) {
		t.Helper()
		got = nil
		if e.request([]byte(text), "https") != head {
			t.Errorf("HEAD is not %v", head)
		}
		if _, err := d.Write(e.out); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	long := "/" + strings.Repeat("x", 100)
	for range 3 {
		f("GET / HTTP/1.1\r\nHost: a\r\nAccept: b\r\n\r\n", false, ":method: GET", ":scheme: https", ":authority: a", ":path: /", "accept: b")
		f("HEAD "+long+" HTTP/1.1\r\nHost: a\r\nCookie: c=d\r\nTE: trailers\r\n\r\n", true, ":method: HEAD", ":scheme: https", ":authority: a", ":path: "+long, "cookie: c=d", "te: trailers")
	}
}

func BenchmarkEncodeResponse(b *testing.B) {
	e := newEncoder()
	head := []byte("HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 100\r\n" +
		"Cache-Control: private, max-age=0\r\nETag: \"5f1b-4a\"\r\nVary: Accept-Encoding\r\nX-Origin: 1\r\nX-Request-Id: 7d444840-9dc0-11d1-b245-5ffdce74fad2\r\n" +
		"X-Response-Time: 0.123ms\r\nServer-Timing: upstream;dur=0.101\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		e.response(head)
	}
}
