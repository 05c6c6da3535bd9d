package httpdoor

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/httpdoor/route"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// The same bytes go to the gate and to nginx, both in front of the same endpoint. What the gate passes on, nginx must pass on too, and
// as the same requests: the gate may only be the stricter of the two. Where it is not, allowed says why that is right.
//
// Bytes come from the table of refusals, from requests that are good, and from mutations of these by a fixed seed. NGINX_MUTATIONS
// says how many (the default takes two or three seconds), NGINX_SEED where they start.
func TestAgainstNginx(t *testing.T) {
	t.Parallel()
	origin := crowd(t, telling)
	address := testenv.FreeAddress(t)
	testenv.Nginx(t, testenv.NginxConf{HTTP: fmt.Sprintf(`
  upstream origin { server %s; keepalive 16; }
  server {
    listen %s; large_client_header_buffers 8 64k; client_header_timeout 5s; client_body_timeout 5s; client_body_in_single_buffer on;
    location / {
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; proxy_ignore_client_abort on;
      proxy_next_upstream_tries 2;
    }
  }`, origin, address)})
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0", limits: {header_bytes: 64KiB}}}
services: {a: {endpoints: [$A]}}
routes: {all: {match: /*, service: a}, asterisk: {match: {paths: ["~^.*$"]}, service: a}}
`, "A", origin)

	var texts []string
	refusedRequests(t, func(verdict, text string) string {
		texts = append(texts, text)
		return verdict
	})
	good, refused := goodRequests(), slices.Clone(texts)
	texts = append(texts, good...)
	count, start := number(t, "NGINX_MUTATIONS", 800), number(t, "NGINX_SEED", 1)
	for i := range count {
		texts = append(texts, mutate(rand.New(rand.NewPCG(uint64(start+i), 4)), good, refused, oddLines))
	}
	work := make(chan string)
	var lanes sync.WaitGroup
	var mu sync.Mutex
	passed, stricter, reasons := 0, 0, map[string]int{}
	for range 4 {
		lanes.Go(func() {
			for text := range work {
				text += "GET /after HTTP/1.1\r\nHost: a\r\n\r\n" // what is taken for a part of the request before it shows
				ours, theirs := told(t, g.address, text), told(t, address, text)
				mu.Lock()
				passed += len(ours)
				if len(theirs) > len(ours) {
					stricter++
				}
				for i, one := range ours {
					if i < len(theirs) && one == theirs[i] {
						continue
					}
					reason := allowed(text, one, i < len(theirs))
					if reason == "" {
						t.Errorf("%q:\n the gate passes on %q\nnginx passes on     %q", text, ours, theirs)
					}
					reasons[reason]++
					break
				}
				mu.Unlock()
			}
		})
	}
	for _, text := range texts {
		work <- text
	}
	close(work)
	lanes.Wait()
	t.Logf("%d cases, %d requests passed on, the gate is the stricter in %d; exceptions: %v", len(texts), passed, stricter, reasons)
	if passed < count/5 {
		t.Errorf("only %d requests were passed on of %d cases: the comparison says little", passed, len(texts))
	}
}

var (
	emptyHost   = regexp.MustCompile(`^[^\r]* HTTP/1\.0\r\n(?s:.*\n)?(?i:host):[ \t]*\r\n`)
	closeInside = regexp.MustCompile(`(?i)\nconnection:[^\r]*(close[^,\s]|[^,\s]close)`)
	hostTab     = regexp.MustCompile(`(?i)\n(host|content-length|transfer-encoding):( *\t|[^\r]*\t *\r)`)
)

// allowed says why the gate may pass a request on that nginx refuses, or (both) passes on in another form. "" means that it may not.
func allowed(text, request string, both bool) string {
	method, rest, _ := strings.Cut(request, " ")
	target, _, _ := strings.Cut(rest, " ")
	switch {
	case both:
		return ""
	case strings.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_") != "":
		return "a method is any token (RFC 9110, 9.1); nginx knows capital letters, - and _"
	case strings.Count(strings.ToLower(text), "\nexpect") > 1:
		return "a list may come in several lines (RFC 9110, 5.3); nginx refuses a second Expect"
	case emptyHost.MatchString(text):
		return "HTTP/1.0 may come with an empty Host, as it may with none (RFC 9112, 3.2)"
	case closeInside.MatchString(text):
		return "only the whole word close ends a connection (RFC 9112, 9.6); nginx looks for its letters"
	case hostTab.MatchString(text):
		return "a tab is white space around a value (RFC 9110, 5.6.3); nginx refuses it around Host and what frames a body. It is not passed on"
	case target == "*":
		return "OPTIONS * is asked of the server as a whole (RFC 9110, 9.3.7); nginx does not know it"
	}
	return ""
}

// crowd is endpoint for any number of connections.
func crowd(t testing.TB, serve func(c net.Conn, r *bufio.Reader)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var group sync.WaitGroup
	conns := map[net.Conn]bool{}
	group.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			group.Go(func() {
				serve(c, bufio.NewReader(c))
				c.Close()
				mu.Lock()
				delete(conns, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		group.Wait()
	})
	return ln.Addr().String()
}

// number reads an environment variable.
func number(t testing.TB, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// telling is an endpoint that answers with what it was asked: method, path in one form, query, host, body.
func telling(c net.Conn, r *bufio.Reader) {
	for {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		path, query, hasQuery := strings.Cut(q.RequestURI, "?")
		if normal, _, err := route.Normalize(nil, []byte(path)); err == nil && path != "*" {
			path = string(normal)
		}
		if hasQuery {
			path += "?" + query
		}
		host := strings.ToLower(q.Host)     // nginx passes it on without port and last dot
		if host == c.LocalAddr().String() { // HTTP/1.0 without Host: the gate puts the endpoint's address there, nginx nothing
			host = ""
		}
		if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
			host = host[:colon]
		}
		host = strings.TrimSuffix(host, ".")
		told := fmt.Sprintf("%s %s %s %q", q.Method, path, host, body)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Told: %s\r\nContent-Length: 0\r\n\r\n", base64.StdEncoding.EncodeToString([]byte(told)))
	}
}

// told sends bytes and gives the requests that reached the endpoint, up to the first refusal.
func told(t testing.TB, address, text string) (all []string) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		return nil
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	go func() { // either may answer and close before it has read all
		_, _ = io.WriteString(c, text)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	r := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
				t.Errorf("%s does not end: %q", address, text)
			}
			return all
		}
		if resp.StatusCode == 100 {
			continue
		}
		told, err := base64.StdEncoding.DecodeString(resp.Header.Get("X-Told"))
		if resp.StatusCode != 200 || err != nil || len(told) == 0 {
			return all
		}
		all = append(all, string(told))
	}
}

func goodRequests() []string {
	return []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /a/b;c?d=e%20f HTTP/1.1\r\nHost: a:80\r\nAccept: */*\r\nX-Long: " + strings.Repeat("y", 300) + "\r\n\r\n",
		"HEAD /h HTTP/1.1\r\nHost: A.Example\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n",
		"GET /old HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
		"GET http://a/abs?q HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS /o HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
		"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
		"POST /p HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
		"PUT /p HTTP/1.1\r\nHost: a\r\nContent-Length: 34\r\n\r\nGET /in HTTP/1.1\r\nHost: inside\r\n\r\n",
		"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y;z=\"q\"\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n",
		"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n22\r\nGET /in HTTP/1.1\r\nHost: inside\r\n\r\n\r\n0\r\n\r\n",
		"POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
		"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /k HTTP/1.1\r\nHost: a\r\nConnection: close, x-y\r\nX-Y: 1\r\n\r\n",
		"GET //a/./b/../c/%41%2e HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /u HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"DELETE /d HTTP/1.1\r\nHost: [::1]:8080\r\nCookie: a=b; c=d\r\n\r\n",
	}
}

// What mutations put in.
var (
	oddBytes = []string{"\r", "\n", "\r\n", "\n\r", "\r\n\r\n", "\x00", "\x0b", "\x0c", "\x7f", "\x80", "\xff", " ", "\t", ":", ",", ";", "=", "\"", "\\", "/", "..", "%", "%2f", "%00", "%0d%0a", "#", "?", "@", "[", "]", "_", "-", "+", "0", "1", "5", "9", "f", "x", "00", "0x",
		"HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "GET ", "chunked", "identity", "GET /x HTTP/1.1\r\nHost: x\r\n\r\n", "0\r\n\r\n"}
	oddLines = []string{"Content-Length: 5", "Content-Length: 0", "Content-Length: 05", "Content-Length: +5", "Content-Length: 5, 5", "Content-Length : 5", " Content-Length: 5", "Content-Length:\x0b5", "Content-Length: 6", "content-length: 5",
		"Content_Length: 5", "Transfer-Encoding: chunked", "Transfer-Encoding : chunked", "Transfer-Encoding: identity", "Transfer-Encoding: chunked, identity", "Transfer-Encoding: xchunked", "Transfer-Encoding:\tchunked", "Transfer_Encoding: chunked",
		"Transfer-Encoding: \"chunked\"", "Transfer-Encoding:", "TE: chunked", "Host: b", "Host: a", "Host:", "host: a b", "Connection: close", "Connection: Content-Length", "Connection: Host", "Connection: keep-alive", "Expect: 100-continue", "Expect: 200-ok", "X: y\r\n z", "X\r\nY: z", ": x", "X", "X Y: z",
		"Upgrade: h2c", "Upgrade: websocket", "Trailer: Content-Length"}
)

// mutate changes one of the texts in one to three places. odd are lines that it puts in.
func mutate(random *rand.Rand, good, refused, oddLines []string) string {
	seeds := good
	if random.IntN(4) == 0 {
		seeds = refused
	}
	text := []byte(seeds[random.IntN(len(seeds))])
	for range 1 + random.IntN(3) {
		if len(text) == 0 {
			break
		}
		at := random.IntN(len(text))
		odd := oddBytes[random.IntN(len(oddBytes))]
		lines := bytes.SplitAfter(text, []byte("\r\n"))
		line := random.IntN(len(lines))
		switch random.IntN(8) {
		case 0, 1: // put in
			text = append(text[:at:at], append([]byte(odd), text[at:]...)...)
		case 2: // put in place of
			text = append(text[:at:at], append([]byte(odd), text[at+1:]...)...)
		case 3: // take away
			text = append(text[:at:at], text[min(len(text), at+1+random.IntN(3)):]...)
		case 4: // a line twice
			lines = append(lines[:line:line], append([][]byte{lines[line]}, lines[line:]...)...)
			text = bytes.Join(lines, nil)
		case 5: // a line more, behind the first
			lines[0] = append(bytes.Clone(lines[0]), oddLines[random.IntN(len(oddLines))]+"\r\n"...)
			text = bytes.Join(lines, nil)
		case 6: // two lines in another order
			other := random.IntN(len(lines))
			lines[line], lines[other] = lines[other], lines[line]
			text = bytes.Join(lines, nil)
		case 7: // what surrounds a line's end
			if len(lines[line]) > 2 {
				lines[line] = append(bytes.Clone(lines[line][:len(lines[line])-2]), odd+"\r\n"...)
				text = bytes.Join(lines, nil)
			}
		}
	}
	return string(text)
}
