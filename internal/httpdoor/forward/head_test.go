package forward

import (
	"net/netip"
	"testing"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/h1"
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

// usualHop is that of a listener with the defaults.
func usualHop() Hop {
	return Hop{
		Add:       config.ForwardHeaders{XForwarded: true, RequestID: true, ResponseTime: true, ServerTiming: true},
		Peer:      netip.MustParseAddr("127.0.0.1"),
		RequestID: []byte("7d444840-9dc0-11d1-b245-5ffdce74fad2"),
	}
}

// What does writing the head for the endpoint cost?
func BenchmarkAppendRequest(b *testing.B) {
	for name, text := range map[string]string{"wrk": wrkRequest, "browser": browserRequest} {
		b.Run(name, func(b *testing.B) {
			var r h1.Request
			if _, err := r.Parse([]byte(text), h1.Limits{}); err != nil {
				b.Fatal(err)
			}
			dst := make([]byte, 0, 4096)
			hop := usualHop()
			b.ReportAllocs()
			for b.Loop() {
				o := RequestHead{Hop: &hop, Target: r.Target, Host: r.Host}
				dst = AppendRequest(dst[:0], &r, &o)
			}
		})
	}
}

// What does writing the head for the client cost?
func BenchmarkAppendResponse(b *testing.B) {
	var r h1.Response
	if _, err := r.Parse([]byte(wrkResponse), h1.Limits{}, []byte("GET")); err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 0, 4096)
	hop := usualHop()
	b.ReportAllocs()
	for b.Loop() {
		o := ResponseHead{Hop: &hop, Length: true, Total: 123456, Upstream: 98765}
		dst = AppendResponse(dst[:0], &r, &o)
	}
}

// Writing a head that fits allocates nothing.
func TestHeadsAllocateNothing(t *testing.T) {
	var request h1.Request
	var response h1.Response
	if _, err := request.Parse([]byte(browserRequest), h1.Limits{}); err != nil {
		t.Fatal(err)
	}
	if _, err := response.Parse([]byte(wrkResponse), h1.Limits{}, []byte("GET")); err != nil {
		t.Fatal(err)
	}
	dst, hop := make([]byte, 0, 4096), usualHop()
	n := testing.AllocsPerRun(100, func() {
		dst = AppendRequest(dst[:0], &request, &RequestHead{Hop: &hop, Target: request.Target, Host: request.Host})
		dst = AppendResponse(dst[:0], &response, &ResponseHead{Hop: &hop, Length: true, Total: 123456, Upstream: 98765})
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
