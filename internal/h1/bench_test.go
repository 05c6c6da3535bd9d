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

// The heads of the end-to-end benchmark (client and endpoint of bench/), and what a browser sends.
const (
	wrkRequest = "GET /100 HTTP/1.1\r\n" +
		"Host: 127.0.0.1:41234\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" +
		"Accept: text/html,application/json;q=0.9,*/*;q=0.8\r\n" +
		"Accept-Encoding: gzip, deflate, br\r\n" +
		"Accept-Language: en-US,en;q=0.5\r\n" +
		"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n" +
		"X-Request-Id: 7d444840-9dc0-11d1-b245-5ffdce74fad2\r\n\r\n"
	wrkResponse = "HTTP/1.1 200 OK\r\n" +
		"Server: origin\r\n" +
		"Date: Sun, 22 Nov 2026 12:00:00 GMT\r\n" +
		"Content-Type: application/json\r\n" +
		"Content-Length: 100\r\n" +
		"Cache-Control: private, max-age=0\r\n" +
		"ETag: \"5f1b-4a\"\r\n" +
		"Vary: Accept-Encoding\r\n" +
		"X-Origin: 1\r\n\r\n"
	browserRequest = "GET /app/orders/4711?tab=open&page=2 HTTP/1.1\r\n" +
		"Host: shop.example.com\r\n" +
		"Connection: keep-alive\r\n" +
		"sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n" +
		"sec-ch-ua-mobile: ?0\r\n" +
		"sec-ch-ua-platform: \"Linux\"\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n" +
		"Sec-Fetch-Site: same-origin\r\n" +
		"Sec-Fetch-Mode: navigate\r\n" +
		"Sec-Fetch-Dest: document\r\n" +
		"Referer: https://shop.example.com/app/orders\r\n" +
		"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
		"Accept-Language: de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7\r\n" +
		"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; _ga=GA1.1.1234567890.1700000000\r\n\r\n"
)

func BenchmarkRequestParse(b *testing.B) {
	for name, text := range map[string]string{"usual": usualRequest, "wrk": wrkRequest, "browser": browserRequest} {
		b.Run(name, func(b *testing.B) {
			buf := []byte(text)
			var r Request
			b.SetBytes(int64(len(buf)))
			b.ReportAllocs()
			for b.Loop() {
				if n, err := r.Parse(buf, Limits{}); n != len(buf) || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func BenchmarkResponseParse(b *testing.B) {
	for name, text := range map[string]string{"usual": usualResponse, "wrk": wrkResponse + strings.Repeat("x", 100)} {
		b.Run(name, func(b *testing.B) {
			buf, method := []byte(text), []byte("GET")
			length := strings.Index(text, "\r\n\r\n") + 4
			var r Response
			b.SetBytes(int64(length))
			b.ReportAllocs()
			for b.Loop() {
				if n, err := r.Parse(buf, Limits{}, method); n != length || err != nil {
					b.Fatal(n, err)
				}
			}
		})
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
