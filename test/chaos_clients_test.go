package test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// This file has the clients of the chaos test. Each speaks HTTP/1.1 over a socket of its own, because a library would retry,
// reconnect and forgive.

// chaosPatience is how long any request may take, whatever happens to the endpoints: four attempts that time out after 2.5 s each,
// and the machine's own slowness.
const chaosPatience = 40 * time.Second

// guarantee says when a request must be answered with 200; see trouble.
type guarantee struct {
	first, last int // the endpoints of the service
	spared      int // it must be answered when at most so many of them were in trouble during the request
}

var (
	guaranteeOne  = guarantee{0, 3, 1} // idempotent, one retry
	guaranteeAll  = guarantee{0, 3, 3} // idempotent, three retries
	guaranteePost = guarantee{1, 3, 0} // not idempotent: a retry is not promised
)

// ask is a request as a client remembers it.
type ask struct {
	method, token string
	size          int // of the response's body
	raw           string
	body          string
	guarantee     guarantee
	from          time.Time
}

// chaosClient is one client: a goroutine with its own random numbers and its own connection.
type chaosClient struct {
	c      *chaos
	kind   string
	name   string // unique
	random *rand.Rand
	n      int
	conn   *net.TCPConn
	r      *bufio.Reader
}

// clients starts the load. quit ends it; all are waited for through group.
func (c *chaos) clients(group *sync.WaitGroup, quit <-chan struct{}, seed uint64) {
	kinds := []struct {
		name string
		pace time.Duration
		act  func(*chaosClient)
	}{
		{"kept", 20 * time.Millisecond, (*chaosClient).kept},
		{"kept", 20 * time.Millisecond, (*chaosClient).kept},
		{"kept", 20 * time.Millisecond, (*chaosClient).kept},
		{"kept", 20 * time.Millisecond, (*chaosClient).kept},
		{"kept", 20 * time.Millisecond, (*chaosClient).kept},
		{"fresh", 30 * time.Millisecond, (*chaosClient).fresh},
		{"half", 40 * time.Millisecond, (*chaosClient).half},
		{"pipe", 50 * time.Millisecond, (*chaosClient).pipelined},
		{"pipe", 50 * time.Millisecond, (*chaosClient).pipelined},
		{"trickle", 50 * time.Millisecond, (*chaosClient).trickle},
		{"trickle", 50 * time.Millisecond, (*chaosClient).trickle},
		{"sip", 50 * time.Millisecond, (*chaosClient).sip},
		{"vanish", 30 * time.Millisecond, (*chaosClient).vanish},
		{"vanish", 30 * time.Millisecond, (*chaosClient).vanish},
		{"post", 20 * time.Millisecond, (*chaosClient).post},
		{"post", 20 * time.Millisecond, (*chaosClient).post},
		{"post", 20 * time.Millisecond, (*chaosClient).post},
		{"post", 20 * time.Millisecond, (*chaosClient).post},
		{"post", 20 * time.Millisecond, (*chaosClient).post},
		{"put", 30 * time.Millisecond, (*chaosClient).put},
		{"tunnel", 50 * time.Millisecond, (*chaosClient).tunnel},
		{"tunnel", 50 * time.Millisecond, (*chaosClient).tunnel},
		{"number", 50 * time.Millisecond, (*chaosClient).number},
	}
	for i, kind := range kinds {
		c.started++
		l := &chaosClient{c: c, kind: kind.name, name: fmt.Sprintf("%02d%02d", c.started%100, i), random: rand.New(rand.NewPCG(seed, uint64(i)))}
		group.Go(func() {
			tick := time.NewTicker(kind.pace)
			defer tick.Stop()
			defer l.hangUp()
			for {
				select {
				case <-quit:
					return
				case <-tick.C:
					kind.act(l)
				}
			}
		})
	}
}

// token makes a token that no other request has: 16 bytes.
func (l *chaosClient) token(kind byte) string {
	l.n++
	return fmt.Sprintf("%c%s%011d", kind, l.name, l.n)
}

func (l *chaosClient) dial() bool {
	if l.conn != nil {
		_ = l.conn.SetDeadline(time.Now().Add(chaosPatience))
		return true
	}
	c, err := net.Dial("tcp", l.c.g.addresses["web"])
	if err != nil {
		l.c.wrong("the gateway does not accept: %v", err)
		return false
	}
	l.conn, l.r = c.(*net.TCPConn), bufio.NewReader(c)
	_ = l.conn.SetDeadline(time.Now().Add(chaosPatience))
	return true
}

func (l *chaosClient) hangUp() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// reset leaves without a word.
func (l *chaosClient) reset() {
	if l.conn != nil {
		_ = l.conn.SetLinger(0)
		l.hangUp()
	}
}

// get makes a GET of one of the two guarantees. Large ones are rare.
func (l *chaosClient) get(most int, more string) ask {
	size := chaosSizes[0]
	for size < most && l.random.IntN(3) == 0 {
		size = chaosSizes[min(len(chaosSizes)-1, 1+l.random.IntN(len(chaosSizes)))]
	}
	if size > most {
		size = most
	}
	a := ask{method: "GET", token: l.token('g'), size: size, guarantee: guaranteeOne}
	prefix := "one"
	if l.random.IntN(2) == 0 {
		prefix, a.guarantee = "all", guaranteeAll
	}
	framing := []string{"length", "chunked", "early", "slow", "last", "close"}[l.random.IntN(6)]
	a.raw = fmt.Sprintf("GET /%s/%d?token=%s&f=%s&think=%d HTTP/1.1\r\nHost: chaos.example\r\n%s\r\n", prefix, size, a.token, framing, l.think(), more)
	return a
}

// think is how many milliseconds an endpoint lets pass between doing and answering. Mostly none.
func (l *chaosClient) think() int { return max(0, l.random.IntN(300)-150) }

// send writes a request whole. An error is no failure yet: the answer tells.
func (l *chaosClient) send(a *ask) {
	a.from = time.Now()
	_, _ = io.WriteString(l.conn, a.raw+a.body)
}

// kept stays on one connection.
func (l *chaosClient) kept() {
	if !l.dial() {
		return
	}
	a := l.get(1<<20, "")
	if l.random.IntN(8) == 0 {
		a.method, a.raw = "HEAD", "HEAD"+a.raw[len("GET"):]
	}
	l.send(&a)
	l.receive(&a, l.r)
}

func (l *chaosClient) fresh() {
	if !l.dial() {
		return
	}
	a := l.get(64<<10, "Connection: close\r\n")
	l.send(&a)
	l.receive(&a, l.r)
	l.hangUp()
}

// half closes its half of the connection behind the request, and is answered all the same.
func (l *chaosClient) half() {
	if !l.dial() {
		return
	}
	a := l.get(1<<20, "")
	l.send(&a)
	_ = l.conn.CloseWrite()
	l.receive(&a, l.r)
	l.hangUp()
}

// pipelined sends several requests before it reads the first answer. POSTs stand between them.
func (l *chaosClient) pipelined() {
	if !l.dial() {
		return
	}
	asks := make([]ask, 2+l.random.IntN(5))
	var all strings.Builder
	for i := range asks {
		if l.random.IntN(4) == 0 {
			asks[i] = l.newPost(1000, false)
		} else {
			asks[i] = l.get(4<<10, "")
		}
		all.WriteString(asks[i].raw + asks[i].body)
	}
	from := time.Now()
	_, _ = io.WriteString(l.conn, all.String())
	for i := range asks {
		asks[i].from = from
		if l.conn == nil { // an answer before said that it is the last
			if asks[i].method == "POST" {
				l.c.posts.unknown(asks[i].token)
			}
			continue
		}
		l.receive(&asks[i], l.r)
	}
}

// trickle sends heads and bodies a few bytes at a time.
func (l *chaosClient) trickle() {
	if !l.dial() {
		return
	}
	a := l.get(4<<10, "X-Long: "+strings.Repeat("x", 200)+"\r\n")
	if l.random.IntN(2) == 0 {
		a = l.newPost(2000, l.random.IntN(2) == 0)
	}
	a.from = time.Now()
	for all := []byte(a.raw + a.body); len(all) > 0; {
		n := min(len(all), 1+l.random.IntN(150))
		if _, err := l.conn.Write(all[:n]); err != nil {
			break
		}
		all = all[n:]
		time.Sleep(time.Duration(l.random.IntN(20)) * time.Millisecond) // a slow client is what is asked for
	}
	l.receive(&a, l.r)
}

// sipper reads a little at a time.
type sipper struct{ r io.Reader }

func (s sipper) Read(p []byte) (int, error) {
	time.Sleep(2 * time.Millisecond) // a slow reader is what is asked for
	return s.r.Read(p[:min(len(p), 8<<10)])
}

// sip reads a long answer slowly, with a receive buffer that does not hide it.
func (l *chaosClient) sip() {
	l.hangUp()
	if !l.dial() {
		return
	}
	_ = l.conn.SetReadBuffer(64 << 10)
	a := l.get(1<<20, "")
	l.send(&a)
	l.receive(&a, bufio.NewReader(sipper{l.r}))
	l.hangUp()
}

// vanish leaves at the worst moments: within a head, within a body, before the answer, within it.
func (l *chaosClient) vanish() {
	if !l.dial() {
		return
	}
	defer func() {
		if l.random.IntN(2) == 0 {
			l.reset()
		}
		l.hangUp()
	}()
	switch l.random.IntN(5) {
	case 0:
		a := l.get(4<<10, "")
		_, _ = io.WriteString(l.conn, a.raw[:1+l.random.IntN(len(a.raw)-1)])
	case 1: // what is not whole is never executed
		a := l.newPost(20000, l.random.IntN(2) == 0)
		l.c.posts.never(a.token)
		_, _ = io.WriteString(l.conn, a.raw+a.body[:l.random.IntN(len(a.body))])
	case 2:
		a := l.newPost(100, false)
		l.c.posts.unknown(a.token)
		l.send(&a)
	case 3:
		a := l.get(64<<10, "")
		l.send(&a)
	default:
		a := l.get(1<<20, "")
		l.send(&a)
		_, _ = io.CopyN(io.Discard, l.conn, int64(l.random.IntN(a.size+200)))
	}
	l.c.vanished.Add(1)
}

// newPost makes a POST with a body of up to most bytes, with a length or in chunks.
func (l *chaosClient) newPost(most int, chunked bool) ask {
	a := ask{method: "POST", token: l.token('p'), size: 16, guarantee: guaranteePost}
	text := chaosText(a.token, 1+l.random.IntN(most))
	more := fmt.Sprintf("Content-Length: %d\r\n", len(text))
	a.body = text
	if chunked {
		more = "Transfer-Encoding: chunked\r\n"
		var b strings.Builder
		for rest := text; len(rest) > 0; {
			n := min(len(rest), 1+l.random.IntN(30000))
			fmt.Fprintf(&b, "%x\r\n%s\r\n", n, rest[:n])
			rest = rest[n:]
		}
		b.WriteString("0\r\n\r\n")
		a.body = b.String()
	}
	a.raw = fmt.Sprintf("POST /post/x?token=%s&think=%d HTTP/1.1\r\nHost: chaos.example\r\n%s\r\n", a.token, l.think(), more)
	return a
}

// post sends small and large bodies on a kept connection.
func (l *chaosClient) post() {
	if !l.dial() {
		return
	}
	most := 500
	switch l.random.IntN(16) {
	case 0:
		most = 3 << 20
	case 1, 2, 3:
		most = 300 << 10
	}
	a := l.newPost(most, l.random.IntN(3) == 0)
	if l.random.IntN(5) > 0 {
		l.send(&a)
		l.receive(&a, l.r)
		return
	}
	// This one waits for 100 (Continue), or for an answer that makes its body needless.
	a.from = time.Now()
	_, _ = io.WriteString(l.conn, strings.TrimSuffix(a.raw, "\r\n")+"Expect: 100-continue\r\n\r\n")
	if line, err := l.r.Peek(len("HTTP/1.1 100")); err == nil && string(line) == "HTTP/1.1 100" {
		_, _ = io.WriteString(l.conn, a.body)
		l.receive(&a, l.r)
		return
	}
	l.receive(&a, l.r)
	l.hangUp() // whether the body is awaited is nobody's guess
}

// put is idempotent and has a short body: it is promised a retry like a GET.
func (l *chaosClient) put() {
	if !l.dial() {
		return
	}
	a := ask{method: "PUT", token: l.token('u'), size: 16, guarantee: guaranteeOne}
	a.body = chaosText(a.token, 1+l.random.IntN(2000))
	a.raw = fmt.Sprintf("PUT /one/16?token=%s HTTP/1.1\r\nHost: chaos.example\r\nContent-Length: %d\r\n\r\n", a.token, len(a.body))
	l.send(&a)
	l.receive(&a, l.r)
}

// receive reads the answer and judges it.
func (l *chaosClient) receive(a *ask, r *bufio.Reader) {
	c := l.c
	c.requests.Add(1)
	executed := unknown
	defer func() {
		if a.method == "POST" {
			c.posts.answered(a.token, executed)
		}
	}()
	what := func() string {
		return fmt.Sprintf("%s %s (%d bytes of %s)", a.method, strings.Fields(a.raw)[1], a.size, l.kind)
	}
	request := &http.Request{Method: a.method}
	response, err := http.ReadResponse(r, request)
	for err == nil && response.StatusCode < 200 {
		response, err = http.ReadResponse(r, request)
	}
	if err != nil { // whatever happens to endpoints, the gateway answers
		c.wrong("%s: no answer after %s: %v", what(), time.Since(a.from), err)
		l.hangUp()
		return
	}
	body, err := io.ReadAll(response.Body)
	to := time.Now()
	if err != nil || response.Close {
		defer l.hangUp()
	}
	backend := response.Header.Get("X-Backend")
	want := chaosText(a.token, a.size)
	if a.method == "HEAD" {
		want = ""
	}
	c.longest(to.Sub(a.from), l.kind+" from "+backend)
	switch status := response.StatusCode; {
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.wrong("%s: the body hangs: %d of %d bytes after %s from %s", what(), len(body), a.size, to.Sub(a.from), backend)
	case status == 200 && response.Header.Get("X-Token") != a.token:
		c.wrong("%s: answered with %q of another", what(), response.Header.Get("X-Token"))
	case status == 200 && err != nil:
		executed = yes
		if !strings.HasPrefix(want, string(body)) {
			c.wrong("%s: a broken body of another", what())
		}
		c.suspect(suspicion{text: fmt.Sprintf("%s: the body from %s broke off after %d bytes: %v", what(), backend, len(body), err), from: a.from, to: to, backend: backend})
	case status == 200 && string(body) != want:
		c.wrong("%s: %d bytes that look complete, and are not its own: %.100q from %s", what(), len(body), body, backend)
	case status == 200:
		executed = yes
		c.answered.Add(1)
	case status == 503 && backend != "" && len(body) == 0 && response.Header.Get("X-Token") == a.token:
		c.suspect(suspicion{text: fmt.Sprintf("%s: 503 of %s", what(), backend), from: a.from, to: to, backend: backend})
	case status >= 502 && status <= 504 && a.method == "HEAD" && backend == "":
		c.suspect(suspicion{text: fmt.Sprintf("%s: %d after %s", what(), status, to.Sub(a.from)), from: a.from, to: to, guarantee: a.guarantee})
	case status >= 502 && status <= 504 && response.Header.Get("Content-Type") == "application/problem+json" && bytes.HasSuffix(body, []byte("}\n")):
		c.suspect(suspicion{text: fmt.Sprintf("%s: %d after %s: %s", what(), status, to.Sub(a.from), body), from: a.from, to: to, guarantee: a.guarantee})
	default:
		c.wrong("%s: %s %.300q", what(), response.Status, body)
	}
}

// tunnel opens a WebSocket's tunnel, has some messages echoed, and closes its half first.
func (l *chaosClient) tunnel() {
	l.hangUp()
	if !l.dial() {
		return
	}
	defer l.hangUp()
	c, from, token := l.c, time.Now(), l.token('t')
	fmt.Fprintf(l.conn, "GET /ws?token=%s HTTP/1.1\r\nHost: chaos.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", token)
	response, err := http.ReadResponse(l.r, nil)
	if err != nil {
		c.wrong("tunnel %s: no answer after %s: %v", token, time.Since(from), err)
		return
	}
	if response.StatusCode >= 502 && response.StatusCode <= 504 {
		c.suspect(suspicion{text: fmt.Sprintf("tunnel %s: %s", token, response.Status), from: from, to: time.Now(), guarantee: guarantee{1, 3, 1}})
		return
	}
	if response.StatusCode != 101 || response.Header.Get("X-Token") != token {
		c.wrong("tunnel %s: %s for %s", token, response.Status, response.Header.Get("X-Token"))
		return
	}
	backend := response.Header.Get("X-Backend")
	broke := func(err error) {
		c.suspect(suspicion{text: fmt.Sprintf("tunnel %s to %s: %v", token, backend, err), from: from, to: time.Now(), backend: backend})
	}
	for i := range 1 + l.random.IntN(20) {
		message := chaosText(token+strconv.Itoa(i), 1+l.random.IntN(20000))
		if _, err := io.WriteString(l.conn, message); err != nil {
			broke(err)
			return
		}
		back := make([]byte, len(message))
		if n, err := io.ReadFull(l.r, back); err != nil {
			if string(back[:n]) != message[:n] {
				c.wrong("tunnel %s: what came back is not what was sent", token)
			}
			broke(err)
			return
		}
		if string(back) != message {
			c.wrong("tunnel %s: what came back is not what was sent", token)
		}
		c.messages.Add(1)
		time.Sleep(time.Duration(l.random.IntN(50)) * time.Millisecond) // silence between messages is what is asked for
	}
	if l.random.IntN(3) == 0 { // leaves within the tunnel
		l.reset()
		return
	}
	_ = l.conn.CloseWrite()
	if rest, err := io.ReadAll(l.r); err != nil || string(rest) != "bye" {
		broke(fmt.Errorf("after the half close %q, %v", rest, err))
	}
}

// number asks for what a reload changes: it is what was in effect when the request was made, or what came during it.
func (l *chaosClient) number() {
	if !l.dial() {
		return
	}
	least := l.c.applied.Load()
	_, _ = io.WriteString(l.conn, "GET /number HTTP/1.1\r\nHost: chaos.example\r\n\r\n")
	response, err := http.ReadResponse(l.r, nil)
	if err != nil {
		l.c.wrong("GET /number: %v", err)
		l.hangUp()
		return
	}
	body, err := io.ReadAll(response.Body)
	most := l.c.applying.Load()
	n, _ := strconv.ParseInt(string(body), 10, 64)
	if err != nil || response.StatusCode != 200 || n < least || n > most {
		l.c.wrong("GET /number: %s %q, %v; want from %d to %d", response.Status, body, err, least, most)
	}
	if err != nil || response.Close {
		l.hangUp()
	}
	l.c.requests.Add(1)
	l.c.answered.Add(1)
}
