package httpdoor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// The same answers come to the gate and to nginx, both in front of the same endpoint. What the gate passes on, nginx must pass on too,
// and as the same answer: status, fields, body, whether the client can tell that it was cut, and whether the endpoint's connection is
// used again. The gate may only be the stricter of the two: refuse, cut, or give up a connection. Where it is not, answerAllowed says
// why that is right.
//
// Bytes come from the table of answers and from mutations of it by a fixed seed. NGINX_MUTATIONS says how many (the default takes a
// few seconds), NGINX_SEED where they start.
func TestAnswersAgainstNginx(t *testing.T) {
	t.Parallel()
	const lanes = 24
	var scripts [lanes]atomic.Pointer[answerScript]
	origin := crowd(t, scripted(scripts[:]))
	address := testenv.FreeAddress(t)
	var upstreams, locations, services, routes strings.Builder
	for i := range lanes { // each with a pool of its own, which keeps the one connection that is used
		fmt.Fprintf(&upstreams, "upstream lane%d { server %s max_fails=0; keepalive 1; }\n", i, origin)
		fmt.Fprintf(&locations, "location /%d/ { proxy_pass http://lane%d; }\n", i, i)
		fmt.Fprintf(&services, "  lane%d: {endpoints: [%s], retry: 0, outlier: {consecutive_failures: 0}}\n", i, origin)
		fmt.Fprintf(&routes, "  lane%d: {match: /%d/*, service: lane%d}\n", i, i, i)
	}
	testenv.Nginx(t, testenv.NginxConf{HTTP: fmt.Sprintf(`
  %s
  server {
    listen %s;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffer_size 128k; proxy_buffers 8 128k; proxy_busy_buffers_size 256k;
    proxy_pass_header Date; proxy_pass_header Server; proxy_max_temp_file_size 0;
    %s
  }`, upstreams.String(), address, locations.String())})
	g := open(t, "listeners: {web: {address: \"127.0.0.1:0\"}}\nservices:\n"+services.String()+"routes:\n"+routes.String())

	var seeds, refused []answerCase
	tableOfAnswers(func(request, text, want string) {
		c := answerCase{request: request, text: text}
		if c.text, c.end = strings.CutSuffix(text, "|"); strings.HasPrefix(want, "502") {
			refused = append(refused, c)
		} else {
			seeds = append(seeds, c)
		}
	})
	seeds = append(seeds, moreAnswers()...)
	cases := slices.Concat(seeds, refused)
	count, start := number(t, "NGINX_MUTATIONS", 2000), number(t, "NGINX_SEED", 1)
	for i := range count {
		cases = append(cases, mutateAnswer(rand.New(rand.NewPCG(uint64(start+i), 5)), seeds, refused))
	}

	work := make(chan answerCase)
	var group sync.WaitGroup
	var mu sync.Mutex
	passed, complete, kept, stricter, reasons := 0, 0, 0, 0, map[string]int{}
	for i := range lanes {
		group.Go(func() {
			ours, theirs := &asker{t: t, address: g.address, lane: i}, &asker{t: t, address: address, lane: i}
			defer ours.close()
			defer theirs.close()
			ours.rest()
			theirs.rest()
			for c := range work {
				var a, b answerSeen
				var differ string
				for patience := 20 * time.Millisecond; patience < time.Second; patience *= 5 { // a busy machine may look like an endpoint that leaves
					script := &answerScript{answerCase: c, patience: patience}
					scripts[i].Store(script)
					ours.asked, theirs.asked, theirs.silent = c.text, c.text, 4*patience // HTTP/0.9 is no answer to HEAD, an interim answer no final one
					a, b = ours.ask(c.request), theirs.ask(c.request)
					if differ = looser(a, b); differ == "" {
						break
					}
				}
				mu.Lock()
				if a.status > 0 && a.status != 502 {
					passed++
					if !a.cut {
						complete++
					}
				}
				if a.kept {
					kept++
				}
				if looser(b, a) != "" {
					stricter++
				}
				if a.confused {
					t.Errorf("%s %q: the next answer of the gate is not the one asked for", c.request, c.text)
				}
				if differ != "" {
					reason := answerAllowed(c, a, b)
					if reason == "" {
						t.Errorf("%s %q, closes %v: %s\n the gate passes on %v\nnginx passes on     %v", c.request, c.text, c.end, differ, a, b)
					}
					reasons[reason]++
				}
				mu.Unlock()
			}
		})
	}
	for _, c := range cases {
		work <- c
	}
	close(work)
	group.Wait()
	t.Logf("%d cases from seed %d: %d passed on, %d of them complete, %d connections kept, the gate is the stricter in %d; exceptions: %v", len(cases), start, passed, complete, kept, stricter, reasons)
	if passed < count/5 || kept < count/20 {
		t.Errorf("only %d answers were passed on of %d cases: the comparison says little", passed, len(cases))
	}
}

// answerCase is a request (method and version) and what the endpoint answers; end says that it closes then.
type answerCase struct {
	request, text string
	end           bool
}

// answerScript is a case for the endpoint, which keeps a connection that is not asked again for so long.
type answerScript struct {
	answerCase
	patience time.Duration
}

// scripted is an endpoint that answers /LANE/again with something good and its connection's number, and /LANE/ with what the lane says.
func scripted(lanes []atomic.Pointer[answerScript]) func(c net.Conn, r *bufio.Reader) {
	var conns atomic.Int64
	return func(c net.Conn, r *bufio.Reader) {
		number := conns.Add(1)
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_ = c.SetReadDeadline(time.Time{})
			if _, err := io.Copy(io.Discard, q.Body); err != nil {
				return
			}
			lane, rest, _ := strings.Cut(strings.TrimPrefix(q.URL.Path, "/"), "/")
			i, err := strconv.Atoi(lane)
			if err != nil || i >= len(lanes) {
				return
			}
			if rest == "again" {
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Number: %d\r\nContent-Length: 4\r\n\r\ngood", number)
				continue
			}
			script := lanes[i].Load()
			_, _ = io.WriteString(c, script.text)
			if script.end {
				return
			}
			_ = c.SetReadDeadline(time.Now().Add(script.patience))
		}
	}
}

// answerSeen is what a client sees of an answer, and what becomes of the connection to the endpoint.
type answerSeen struct {
	status   int // 0: none
	fields   string
	body     string
	cut      bool // the client can tell that something is missing
	kept     bool // the endpoint's connection serves the next request
	confused bool // the client's connection stays open, and has something else on it than the next answer
}

func (s answerSeen) String() string {
	body := s.body
	if len(body) > 100 {
		body = fmt.Sprintf("%s... (%d bytes)", body[:100], len(body))
	}
	return fmt.Sprintf("%d %.300q %q cut=%v kept=%v confused=%v", s.status, s.fields, body, s.cut, s.kept, s.confused)
}

// looser says in which way a is less strict than b, or another answer; "" when it is not.
func looser(a, b answerSeen) string {
	switch {
	case a.status == 502, a.cut && !a.kept, a.status == 0 && a == b:
		return ""
	case b.status == 502 || b.status == 0:
		return "passed on"
	case a.status != b.status:
		return "another status"
	case a.fields != b.fields:
		return "other fields"
	case a.body != b.body && !a.cut:
		return "another body"
	case !a.cut && b.cut:
		return "not seen to be cut"
	case a.kept && !b.kept:
		return "the endpoint's connection is used again"
	}
	return ""
}

// asker is a client of one lane.
type asker struct {
	t       testing.TB
	address string
	lane    int
	conn    net.Conn
	r       *bufio.Reader
	asked   string
	number  string        // of the endpoint's connection that was used last
	silent  time.Duration // how long a silence may be that is taken for no answer; 0: none may
}

func (a *asker) close() {
	if a.conn != nil {
		a.conn.Close()
		a.conn = nil
	}
}

func (a *asker) send(text string) {
	if a.conn == nil {
		c, err := net.Dial("tcp", a.address)
		if err != nil {
			a.t.Error(err)
			return
		}
		a.conn, a.r = c, bufio.NewReader(c)
	}
	_ = a.conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(a.conn, text)
}

// rest asks for something good, and says whether the connection had that on it and nothing else.
func (a *asker) rest() (open, confused bool) {
	open = a.conn != nil
	for range 2 {
		if a.send(fmt.Sprintf("GET /%d/again HTTP/1.1\r\nHost: a\r\n\r\n", a.lane)); a.conn == nil {
			return
		}
		resp, err := http.ReadResponse(a.r, nil)
		var body []byte
		if err == nil {
			body, err = io.ReadAll(resp.Body)
		}
		if err == nil && resp.StatusCode == 200 && string(body) == "good" {
			a.number = resp.Header.Get("X-Number")
			return
		}
		a.timely(err)
		open, confused = false, confused || err == nil || !ended(err)
		a.close()
	}
	a.t.Errorf("lane %d of %s answers no more", a.lane, a.address)
	return
}

// ended says that an error is how a connection ends between two answers.
func ended(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op)
}

func (a *asker) timely(err error) {
	var late net.Error
	if errors.As(err, &late) && late.Timeout() && a.silent == 0 {
		a.t.Errorf("lane %d of %s does not end: %q", a.lane, a.address, a.asked)
	}
}

// ask asks for what the lane's script says.
func (a *asker) ask(request string) (s answerSeen) {
	method, version, _ := strings.Cut(request, " ")
	fields, body := "", ""
	if version == "1.0" {
		fields = "Connection: keep-alive\r\n"
	}
	if method == "POST" {
		fields, body = fields+"Content-Length: 4\r\n", "body"
	}
	a.send(fmt.Sprintf("%s /%d/ HTTP/%s\r\nHost: a\r\n%s\r\n%s", method, a.lane, version, fields, body))
	before := a.number
	defer func() {
		if s.cut {
			a.close()
		}
		_, s.confused = a.rest()
		s.kept = a.number == before
	}()
	if a.conn == nil {
		return answerSeen{cut: true}
	}
	if a.silent > 0 {
		_ = a.conn.SetDeadline(time.Now().Add(a.silent))
	}
	for s.status < 200 {
		resp, err := http.ReadResponse(a.r, &http.Request{Method: method})
		if err != nil {
			a.timely(err)
			return answerSeen{cut: true}
		}
		if s.status = resp.StatusCode; s.status < 200 {
			continue
		}
		s.fields = fieldsOf(resp.Header)
		text, err := io.ReadAll(resp.Body)
		a.timely(err)
		s.body, s.cut = string(text), err != nil
		if resp.Close {
			a.close()
		}
	}
	return s
}

// fieldsOf gives the fields that either must pass on as they are.
func fieldsOf(h http.Header) string {
	var lines []string
	for name, values := range h {
		switch strings.ToLower(name) {
		case "connection", "keep-alive", "date", "server", "content-length", "transfer-encoding", "trailer", "proxy-connection", "te", "upgrade", "x-response-time", "server-timing", "x-request-id", "via":
			continue // each has its own
		}
		for _, v := range values {
			lines = append(lines, name+": "+v)
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// moreAnswers are such as nobody refuses.
func moreAnswers() []answerCase {
	const ok = "HTTP/1.1 200 OK\r\n"
	long := strings.Repeat("0123456789abcdef", 2500)
	return []answerCase{
		{"GET 1.1", ok + "Content-Type: text/plain\r\nX-Long: " + strings.Repeat("y", 9000) + "\r\nContent-Length: 4\r\n\r\ngood", false},
		{"GET 1.1", ok + "Content-Length: 40000\r\n\r\n" + long, false},
		{"GET 1.1", ok + "Content-Length: 40001\r\n\r\n" + long, true},
		{"GET 1.1", ok + "Transfer-Encoding: chunked\r\n\r\n9c40\r\n" + long + "\r\n0\r\n\r\n", false},
		{"GET 1.0", ok + "Transfer-Encoding: chunked\r\n\r\n9c40;a=b\r\n" + long + "\r\n0\r\nX-Sum: 1\r\n\r\n", false},
		{"GET 1.1", ok + "\r\n" + long, true},
		{"POST 1.1", "HTTP/1.1 201 Created\r\nLocation: /x\r\nContent-Length: 2\r\n\r\nok", false},
		{"POST 1.1", "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", true},
		{"GET 1.1", "HTTP/1.1 404 Not Found\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nETag: \"x\"\r\nContent-Length: 2\r\n\r\nno", false},
		{"GET 1.1", ok + "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\nX-Sum: 1\r\n\r\n", false},
		{"HEAD 1.1", ok + "Content-Type: text/plain\r\nContent-Length: 100\r\n\r\n", false},
		{"HEAD 1.0", ok + "Content-Length: 100\r\n\r\n", false},
		{"GET 1.1", "HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-3/9\r\nContent-Length: 4\r\n\r\ngood", false},
		{"GET 1.1", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\ngood", false},
		{"GET 1.1", "HTTP/1.0 200 OK\r\n\r\ngood", true},
		{"GET 1.1", "HTTP/1.1 302 Found\r\nLocation: http://b/\r\nContent-Length: 0\r\n\r\n", false},
		{"GET 1.1", "<html>HTTP/0.9</html>", true},
	}
}

// What mutations put between the lines of an answer.
var oddAnswerLines = append([]string{"HTTP/1.1 200 OK", "HTTP/1.1 100 Continue\r\n", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n", "HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified", "Content-Length: 3", "Content-Length: 4", "Content-Length: 4\r\nContent-Length: 4",
	"Set-Cookie: a=b", "Location: /x", "Connection: X", "Connection: close, x", "Keep-Alive: timeout=1", "0\r\n", "4\r\ngood", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: CHUNKED", "Status: 404", "X-Y: \x01", "X@Y: z", "X_Y: z"}, oddLines...)

// mutateAnswer changes one of the answers.
func mutateAnswer(random *rand.Rand, seeds, refused []answerCase) answerCase {
	from := seeds
	if random.IntN(6) == 0 {
		from = refused
	}
	c := from[random.IntN(len(from))]
	for len(c.text) > 50000 { // a huge one is looked at once
		c = from[random.IntN(len(from))]
	}
	if first, rest, found := strings.Cut(c.text, "\r\n"); found && random.IntN(2) == 0 { // a field more, and the answer may still be a good one
		c.text = first + "\r\n" + oddAnswerLines[random.IntN(len(oddAnswerLines))] + "\r\n" + rest
	} else {
		c.text = mutate(random, []string{c.text}, []string{c.text}, oddAnswerLines)
	}
	switch random.IntN(12) {
	case 0:
		c.text = c.text[:random.IntN(len(c.text)+1)]
	case 1:
		c.text += c.text
	case 2:
		c.text += oddBytes[random.IntN(len(oddBytes))]
	case 3:
		c.end = !c.end
	case 4:
		c.request = []string{"GET 1.1", "GET 1.0", "HEAD 1.1", "HEAD 1.0", "POST 1.1"}[random.IntN(5)]
	}
	return c
}

var (
	interimFirst = regexp.MustCompile(`^HTTP/1\.[01] 1`)
	tabLength    = regexp.MustCompile(`(?i)\n(content-length|transfer-encoding|connection):( *\t|[^\r]*\t *\r)`)
)

// answerAllowed says why the gate may pass an answer on that nginx does not, or not as it does. "" means that it may not.
func answerAllowed(c answerCase, ours, theirs answerSeen) string {
	switch {
	case interimFirst.MatchString(c.text):
		return "interim answers come before the final one (RFC 9110, 15.2); this nginx takes the first for it"
	case strings.HasPrefix(c.text, "HTTP/1.0") && ours.kept:
		return "HTTP/1.0 with keep-alive and a length lasts (RFC 9112, 9.3); nginx closes"
	case closeInside.MatchString(c.text):
		return "only the whole word close ends a connection (RFC 9112, 9.6); nginx looks for its letters"
	case tabLength.MatchString(c.text):
		return "a tab is white space around a value (RFC 9110, 5.6.3); nginx takes it for a part of what frames the body"
	case theirs.status == ours.status && theirs.body == ours.body && strings.Count(ours.fields, "Content-Type: ") > 1:
		return "fields that come twice, and frame nothing, are the client's to judge; nginx keeps one Content-Type"
	}
	return ""
}
