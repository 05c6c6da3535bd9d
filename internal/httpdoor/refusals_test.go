package httpdoor

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

var rewriteTexts = flag.Bool("rewrite", false, "write what was seen into the golden texts")

// refusedRequests reads testdata/refusals.txt, and has each judge one case; with -rewrite what it says is written back.
func refusedRequests(t testing.TB, judge func(verdict, text string) string) {
	t.Helper()
	const file = "testdata/refusals.txt"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	prefix := ""
	var out bytes.Buffer
	for line := range strings.Lines(string(data)) {
		quote := strings.IndexByte(line, '"')
		if quote < 0 || strings.HasPrefix(line, "#") {
			out.WriteString(line)
			continue
		}
		text, err := strconv.Unquote(strings.TrimSpace(line[quote:]))
		if err != nil {
			t.Fatalf("%s: %.100s: %v", file, line, err)
		}
		verdict := strings.TrimSpace(line[:quote])
		if verdict == "@" {
			prefix = text
			out.WriteString(line)
			continue
		}
		fmt.Fprintf(&out, "%s %s", judge(verdict, prefix+text), line[quote:])
	}
	if *rewriteTexts {
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Every refusal of a request: bytes in, status, fault, state of the connection.
func TestRequestsRefused(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0", limits: {header_bytes: 2KiB, headers: 20, body_bytes: 100}}}
services: {a: {endpoints: [$A]}}
routes: {get: {match: GET /get, respond: 200}, root: {match: /, service: a}, deep: {match: /a/*, service: a}}
`, "A", endpoint(t, echo))
	cases := 0
	refusedRequests(t, func(verdict, text string) string {
		cases++
		got := g.refusal(text)
		if got != verdict && !*rewriteTexts {
			t.Errorf("%.200q:\n got %s\nwant %s", text, got, verdict)
		}
		return got
	})
	if cases < 400 {
		t.Errorf("only %d cases", cases)
	}
}

// refusal says what becomes of bytes: "400 bad_request closed".
func (g *gate) refusal(text string) string {
	g.t.Helper()
	c := g.dial()
	defer c.Close()
	c.send(text)
	if strings.HasPrefix(text, "PRI * HTTP/2.0\r\n\r\n") { // is answered in HTTP/2: a bad preface ends the connection
		answer, err := io.ReadAll(c.r)
		if _, rest, found := bytes.Cut(answer, []byte("HTTP/1.1")); found || err != nil && !errors.Is(err, net.ErrClosed) {
			return fmt.Sprintf("answered with %q, %v", rest, err)
		}
		return "nothing"
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return "nothing"
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	_, fault, _ := strings.Cut(string(body), "urn:menshen:fault:")
	fault, _, _ = strings.Cut(fault, `"`)
	if resp.StatusCode >= 400 && (fault == "" || resp.Header.Get("Content-Type") != "application/problem+json" || resp.Header.Get("Content-Length") == "") {
		return fmt.Sprintf("%d without a document: %v %s", resp.StatusCode, resp.Header, body)
	}
	state := "open"
	if resp.Close {
		state = "closed"
		if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
			state = fmt.Sprintf("then %q, %v", rest, err)
		}
	} else {
		c.send("GET /get HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != 200 {
			state = fmt.Sprintf("then %v", err)
		}
	}
	return fmt.Sprintf("%d %s %s", resp.StatusCode, fault, state)
}

// What a client sees of an endpoint's answer, and whether the endpoint is asked again on the same connection. An answer in
// doubt is refused whole, or seen to be cut; its connection is not used again.
func TestAnswersRefused(t *testing.T) {
	t.Parallel()
	var present atomic.Pointer[string]
	var conns atomic.Int64
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0"}}
services: {a: {endpoints: [$A], retry: 0, outlier: {consecutive_failures: 0}, timeouts: {first_byte: 2s, idle: 2s}}}
routes: {all: {match: /*, service: a}}
`, "A", endpoint(t, func(c net.Conn, r *bufio.Reader) {
		number := conns.Add(1)
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if _, err := io.Copy(io.Discard, q.Body); err != nil {
				return
			}
			if q.URL.Path == "/again" {
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Number: %d\r\nContent-Length: 4\r\n\r\ngood", number)
				continue
			}
			text, end := strings.CutSuffix(*present.Load(), "|")
			io.WriteString(c, text)
			if end {
				return
			}
		}
	}))
	c := g.dial() // one connection for all, as long as it lasts: what is asked on it comes in that order to the pool
	// want is what the client sees (status, body, how it ends), the state of its connection, and that of the endpoint's.
	f := func(request, text, want string) {
		t.Helper()
		method, version, _ := strings.Cut(request, " ")
		_, before := c.again()
		present.Store(&text)
		keep := ""
		if version == "1.0" {
			keep = "Connection: keep-alive\r\n"
		}
		fmt.Fprintf(c, "%s / HTTP/%s\r\nHost: a\r\n%s\r\n", method, version, keep)
		got := c.outcome(method)
		open, after := c.again()
		if got += ", closed"; open {
			got = strings.TrimSuffix(got, "closed") + "open"
		} else {
			c = g.dial()
			_, after = c.again()
		}
		if after == before {
			got += "; kept"
		} else {
			got += "; new"
		}
		if got != want {
			t.Errorf("%s %q:\n got %s\nwant %s", request, text, got, want)
		}
	}
	tableOfAnswers(f)
}

// tableOfAnswers has f look at each of the answers that matter: request is a method and a version; text is what the endpoint sends, a |
// at its end: and closes; want is what becomes of it, in the words of TestAnswersRefused.
func tableOfAnswers(f func(request, text, want string)) {
	const good = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
	const (
		refused = "502 upstream_broken, open; new"
		ok      = "HTTP/1.1 200 OK\r\n"
	)
	// Good ones, to know that the test can tell.
	f("GET 1.1", good, `200 "good", open; kept`)
	f("GET 1.1", ok+"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n", `200 "good", open; kept`)
	f("GET 1.0", ok+"Content-Length: 4\r\n\r\ngood", `200 "good", open; kept`)
	f("GET 1.0", ok+"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n", `200 "good", closed; kept`)
	f("GET 1.1", ok+"\r\ngood|", `200 "good", open; new`)
	f("GET 1.0", ok+"\r\ngood|", `200 "good", closed; new`)
	f("GET 1.1", "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\ngood", `200 "good", open; new`)
	f("GET 1.1", ok+"Connection: close\r\nContent-Length: 4\r\n\r\ngood", `200 "good", open; new`)

	// Without a body, whatever the fields say (RFC 9112, 6.3).
	f("HEAD 1.1", ok+"Content-Length: 4\r\n\r\n", `200 "" length 4, open; kept`)
	f("HEAD 1.1", ok+"Transfer-Encoding: chunked\r\n\r\n", `200 "", open; kept`)
	f("HEAD 1.1", ok+"\r\n", `200 "", open; kept`)
	f("HEAD 1.1", ok+"Content-Length: 4\r\n\r\ngood", `200 "" length 4, open; new`)
	f("GET 1.1", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", `304 "" length 4, open; kept`)
	f("GET 1.1", "HTTP/1.1 304 Not Modified\r\n\r\ngood", `304 "", open; new`)
	f("GET 1.1", "HTTP/1.1 204 No Content\r\n\r\n", `204 "", open; kept`)
	f("GET 1.1", "HTTP/1.1 204 No Content\r\n\r\ngood", `204 "", open; new`)
	f("GET 1.1", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", `204 "", open; kept`)
	f("GET 1.1", "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", `205 "" length 0, open; kept`)

	// More than was announced.
	f("GET 1.1", good+"x", `200 "good", open; new`)
	f("GET 1.1", good+good, `200 "good", open; new`)
	f("GET 1.1", ok+"Content-Length: 0\r\n\r\n"+good, `200 "" length 0, open; new`)
	f("GET 1.1", ok+"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n\r\n", `200 "good", open; new`)

	// Less: seen as cut, in each version.
	f("GET 1.1", ok+"Content-Length: 5\r\n\r\ngood|", `200 "good" cut, closed; new`)
	f("GET 1.0", ok+"Content-Length: 5\r\n\r\ngood|", `200 "good" cut, closed; new`)
	f("GET 1.1", ok+"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n|", `200 "good" cut, closed; new`)
	f("GET 1.1", ok+"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n|", `200 "good" cut, closed; new`)
	f("GET 1.0", ok+"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n|", `200 "good" cut, closed; new`)
	f("GET 1.1", ok+"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\nx\r\n", `200 "good" cut, closed; new`)
	f("GET 1.1", ok+"Transfer-Encoding: chunked\r\n\r\n4\r\ngoodx\r\n", `200 "good" cut, closed; new`)
	f("GET 1.0", ok+"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\nx\r\n", `200 "good" cut, closed; new`)
	f("GET 1.1", ok+"Transfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\nContent-Length: 4\r\n\r\n", `200 "good" cut, closed; new`)
	f("GET 1.0", ok+"Transfer-Encoding: chunked\r\n\r\n|", `200 "" cut, closed; new`)
	f("GET 1.1", ok+"Content-Length: 5|", refused)
	f("GET 1.1", ok+"|", refused)
	f("GET 1.1", "|", refused)
	f("GET 1.1", "HTTP|", refused)

	// Framing that could be read in two ways.
	for _, fields := range []string{
		"Content-Length: 4\r\nContent-Length: 5\r\n", "Content-Length: 4\r\nContent-Length: 4\r\n", "Content-Length: 4, 4\r\n", "Content-Length: +4\r\n", "Content-Length: 0x4\r\n",
		"Content-Length: -4\r\n", "Content-Length: \r\n", "Content-Length: 99999999999999999999\r\n", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
		"Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: chunked, chunked\r\n", "Transfer-Encoding: xchunked\r\n", "Transfer-Encoding: identity\r\nContent-Length: 4\r\n",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding : chunked\r\n", "Content-Length : 4\r\n", "X: 1\r\n Content-Length: 4\r\n", "X: a\nContent-Length: 4\r\n",
		"X: \x00\r\nContent-Length: 4\r\n", "X: a\rb\r\nContent-Length: 4\r\n", "X\r\nContent-Length: 4\r\n", ": x\r\nContent-Length: 4\r\n", "\x00: x\r\nContent-Length: 4\r\n",
	} {
		f("GET 1.1", ok+fields+"\r\ngood", refused)
	}
	f("GET 1.1", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n", refused)
	f("HEAD 1.1", ok+"Content-Length: 4\r\nContent-Length: 5\r\n\r\n", "502 upstream_broken, open; new")
	f("GET 1.1", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", refused)
	f("GET 1.1", "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n", refused)
	f("GET 1.1", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n", refused)

	// The status line.
	for _, line := range []string{"HTTP/1.1 200 OK\n", "HTTP/1.1 20 OK\r\n", "HTTP/1.1 2000 OK\r\n", "HTTP/1.1 -20 OK\r\n", "HTTP/1.1 099 OK\r\n", "HTTP/1.1  200 OK\r\n", "HTTP/1.1\t200 OK\r\n",
		"HTTP/2.0 200 OK\r\n", "HTTP/1.2 200 OK\r\n", "http/1.1 200 OK\r\n", "ICY 200 OK\r\n", "\r\nHTTP/1.1 200 OK\r\n", " HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 O\x00K\r\n", "SSH-2.0-x\r\n", "\x15\x03\x01\x00\x02\x02\x50", "x"} {
		f("GET 1.1", line+"Content-Length: 4\r\n\r\ngood|", refused)
	}

	// Interim answers, and those that are none.
	f("GET 1.1", "HTTP/1.1 100 Continue\r\n\r\n"+good, `200 "good", open; kept`)
	f("GET 1.0", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"+good, `200 "good", open; kept`)
	f("GET 1.1", "HTTP/1.1 103 Early Hints\r\nContent-Length: 4\r\n\r\ngood"+good, refused)
	f("GET 1.1", "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n"+good, refused)
	f("GET 1.1", "HTTP/1.1 100 Continue\r\n\r\n|", refused)
	f("GET 1.1", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", refused)
	f("GET 1.1", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 30)+good, `200 "good", open; kept`)

	// Too much.
	f("GET 1.1", ok+"X: "+strings.Repeat("x", 200<<10)+"\r\n\r\n|", refused)
	f("GET 1.1", ok+strings.Repeat("X: x\r\n", 600)+"Content-Length: 4\r\n\r\ngood|", refused)
	f("GET 1.1", "HTTP/1.1 200 "+strings.Repeat("x", 200<<10)+"\r\nContent-Length: 4\r\n\r\ngood|", refused)
}

// again asks for something good and says on which connection the endpoint served it; open is false when there is no answer.
func (c *client) again() (open bool, number string) {
	c.t.Helper()
	fmt.Fprintf(c, "GET /again HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return false, ""
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "good" {
		c.t.Errorf("the next request is answered with %d %q, %v", resp.StatusCode, body, err)
	}
	return true, resp.Header.Get("X-Number")
}

// outcome reads an answer and says what it is.
func (c *client) outcome(method string) string {
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	for err == nil && resp.StatusCode < 200 {
		resp, err = http.ReadResponse(c.r, &http.Request{Method: method})
	}
	if err != nil {
		return fmt.Sprintf("no answer: %v", err)
	}
	body, cut := io.ReadAll(resp.Body)
	got := fmt.Sprintf("%d %q", resp.StatusCode, body)
	if _, fault, found := strings.Cut(string(body), "urn:menshen:fault:"); found || resp.StatusCode == 502 {
		fault, _, _ = strings.Cut(fault, `"`)
		if method == "HEAD" {
			fault = "upstream_broken"
		}
		got = fmt.Sprintf("%d %s", resp.StatusCode, fault)
	} else if len(body) == 0 && resp.Header.Get("Content-Length") != "" {
		got += " length " + resp.Header.Get("Content-Length")
	}
	if cut != nil {
		got += " cut"
	}
	return got
}
