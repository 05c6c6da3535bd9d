package h1

import (
	"strings"
	"testing"
)

// What does a usual head cost? The request has 400 bytes and 8 fields, the response 8 fields.
const (
	usualRequest = "GET /api/v1/users/4711/orders?limit=20&page=3 HTTP/1.1\r\n" +
		"Host: gateway.example.com\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n" +
		"Accept-Encoding: gzip, deflate, br\r\n" +
		"Accept-Language: en-US,en;q=0.5\r\n" +
		"Cookie: session=3f9c2b1d8e7a; theme=dark\r\n" +
		"X-Request-Id: 7b4a0c52f1e94d6c\r\n" +
		"Connection: keep-alive\r\n\r\n"
	usualResponse = "HTTP/1.1 200 OK\r\n" +
		"Server: nginx/1.22.1\r\n" +
		"Date: Sun, 22 Nov 2026 10:00:00 GMT\r\n" +
		"Content-Type: application/json; charset=utf-8\r\n" +
		"Content-Length: 100\r\n" +
		"Last-Modified: Sat, 21 Nov 2026 08:12:31 GMT\r\n" +
		"ETag: \"673f1b2f-64\"\r\n" +
		"Cache-Control: public, max-age=3600, stale-while-revalidate=60\r\n" +
		"Connection: keep-alive\r\n\r\n"
)

func BenchmarkRequestParse(b *testing.B) {
	buf := []byte(usualRequest)
	var r Request
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if n, err := r.Parse(buf, Limits{}); n != len(buf) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkResponseParse(b *testing.B) {
	buf, method := []byte(usualResponse), []byte("GET")
	var r Response
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if n, err := r.Parse(buf, Limits{}, method); n != len(buf) || err != nil {
			b.Fatal(n, err)
		}
	}
}

// What does a head cost that arrives one byte at a time? It must stay in proportion to its length.
func BenchmarkRequestTrickle(b *testing.B) {
	buf := []byte(usualRequest)
	var r Request
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		for n := range len(buf) {
			if _, err := r.Parse(buf[:n+1], Limits{}); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// What does decoding add to a body in chunks of 4 KiB?
func BenchmarkChunked(b *testing.B) {
	body := []byte(strings.Repeat("1000\r\n"+strings.Repeat("x", 4096)+"\r\n", 16) + "0\r\n\r\n")
	var d ChunkDecoder
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		d.Reset()
		in := body
		for {
			_, n, done, err := d.Next(in)
			if err != nil {
				b.Fatal(err)
			}
			if in = in[n:]; done {
				break
			}
		}
	}
}

// What does a response head of the gateway's own cost?
func BenchmarkAppendHead(b *testing.B) {
	dst := make([]byte, 0, 512)
	value := []byte("application/json; charset=utf-8")
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendStatusLine(dst[:0], 200)
		for range 8 {
			dst = AppendField(dst, "Content-Type", value)
		}
	}
}
