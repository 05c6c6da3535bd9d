//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// webReport is what the web client prints after each step.
type webReport struct {
	Requests      int
	Bytes         int64 // of bodies, both ways
	Elapsed       time.Duration
	P50, P99, Max time.Duration
	Samples       []webSample // of pace
	Closed        int         // connections that the subject ended between two requests
	Failed        int         // requests without an answer
}

// webSample is one request of pace: when it was sent, on the clock of the machine, and how long its answer took.
type webSample struct {
	At   int64 // nanoseconds since 1970
	Took time.Duration
}

// webClient is an HTTP client that costs little, and can what wrk cannot: hold connections, count huge bodies without copying them, speak through tunnels,
// and send at a steady pace. It does one step for each line of its standard input, which says what and with which number, and prints a webReport.
//
//	hold N       have N connections open, each of which has had one answer
//	burst N      ask on N of them at once, and wait for all answers
//	get N        N connections fetch largePath, once each, at the same time
//	post N       the same in the other direction
//	tunnels N    have N WebSockets open
//	echo N       send messages through the tunnels in turn, N at a time, for -length
//	pace N       send N requests a second on 32 connections, for -length
type webClient struct {
	*loop
	to     unix.SockaddrInet4
	host   string
	length time.Duration
	report webReport
	began  time.Time
	took   []time.Duration
	idle   []*peer // connections without a request
	busy   int     // answers that are waited for
	buffer []byte
}

// runWebClient does the steps until its input ends.
func runWebClient(arguments []string) error {
	set := flag.NewFlagSet("web-client", flag.ContinueOnError)
	address := set.String("address", "", "host:port of the subject")
	length := set.Duration("length", time.Second, "how long steps with a length take")
	if err := set.Parse(arguments); err != nil {
		return err
	}
	tcp, err := net.ResolveTCPAddr("tcp4", *address)
	if err != nil {
		return err
	}
	l, err := newLoop()
	if err != nil {
		return err
	}
	c := &webClient{loop: l, to: unix.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(tcp.IP.To4())}, host: *address, length: *length, buffer: make([]byte, 64<<10)}
	l.piece = bytes.Repeat([]byte("x"), 256<<10)
	steps := map[string]func(int) error{
		"hold": c.hold, "burst": c.burst, "get": c.get, "post": c.post, "tunnels": c.tunnels, "echo": c.echo, "pace": c.pace,
	}
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		var step string
		var n int
		if _, err := fmt.Sscan(input.Text(), &step, &n); err != nil || steps[step] == nil {
			return fmt.Errorf("no step: %q", input.Text())
		}
		c.report, c.began, c.took = webReport{}, time.Now(), c.took[:0]
		if err := steps[step](n); err != nil {
			return fmt.Errorf("%s: %w", step, err)
		}
		c.report.Elapsed = time.Since(c.began)
		if n := len(c.took); n > 0 {
			slices.Sort(c.took)
			c.report.P50, c.report.P99, c.report.Max = c.took[n/2], c.took[(n-1)*99/100], c.took[n-1]
		}
		if err := json.NewEncoder(os.Stdout).Encode(&c.report); err != nil {
			return err
		}
	}
	return input.Err()
}

// open connects, and waits for it.
func (c *webClient) open() (*peer, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &c.to); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	return c.add(fd)
}

// openAll opens connections until there are n.
func (c *webClient) openAll(n int, each func(*peer) error) error {
	for len(c.peers) < n {
		p, err := c.open()
		if err == nil {
			err = each(p)
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", len(c.peers), err)
		}
	}
	return nil
}

func (c *webClient) head(method, path, more string) []byte {
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"+
		"Accept: text/html,application/json;q=0.9,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.5\r\n"+
		"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n%s\r\n", method, path, c.host, more)
}

// ask sends a request and notes when.
func (c *webClient) ask(p *peer, request []byte) error {
	p.sent, p.left, p.kept = time.Now().UnixNano(), -1, p.kept[:0]
	c.busy++
	if !c.send(p, request) {
		return errors.New("connection lost while sending")
	}
	return nil
}

// answered notes what came; left is -1 until the head is whole. It says whether the answer is.
func (c *webClient) answered(p *peer, data []byte) (bool, error) {
	if p.left < 0 {
		p.kept = append(p.kept, data...)
		end := bytes.Index(p.kept, []byte("\r\n\r\n")) + 4
		if end < 4 {
			return false, nil
		}
		head := p.kept[:end]
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 200")) {
			return false, fmt.Errorf("answer: %q", head)
		}
		length, err := strconv.Atoi(originField(head, "content-length"))
		if err != nil {
			return false, fmt.Errorf("answer without length: %q", head)
		}
		p.left, data = length, p.kept[end:]
	}
	p.left -= len(data)
	c.report.Bytes += int64(len(data))
	if p.left > 0 {
		return false, nil
	}
	c.done(p)
	return true, nil
}

func (c *webClient) done(p *peer) {
	c.busy--
	c.report.Requests++
	c.took = append(c.took, time.Duration(time.Now().UnixNano()-p.sent))
	p.sent = 0
}

// wait runs the loop until no answer is missing, which takes at most a minute.
func (c *webClient) wait() error {
	end := time.Now().Add(time.Minute)
	n := len(c.peers)
	if err := c.run(nil, func() bool { return c.busy == 0 || time.Now().After(end) || len(c.peers) < n }); err != nil {
		return err
	}
	if c.busy > 0 {
		return fmt.Errorf("%d answers are missing, %d connections were closed", c.busy, n-len(c.peers))
	}
	return nil
}

// expect makes the loop read answers until each is whole.
func (c *webClient) expect() {
	c.input = func(p *peer, data []byte) bool {
		if p.sent == 0 {
			c.failed = fmt.Errorf("bytes without a request: %q", data)
			return false
		}
		_, err := c.answered(p, data)
		c.failed = err
		return err == nil
	}
}

// hold asks on one connection after the other, so that the subject needs few connections of its own.
func (c *webClient) hold(n int) error {
	c.expect()
	request := c.head("GET", "/100", "")
	return c.openAll(n, func(p *peer) error {
		if err := c.ask(p, request); err != nil {
			return err
		}
		return c.wait()
	})
}

func (c *webClient) burst(n int) error {
	c.expect()
	request := c.head("GET", "/100", "")
	for _, p := range c.peers {
		if n--; n < 0 {
			break
		}
		if err := c.ask(p, request); err != nil {
			return err
		}
	}
	return c.wait()
}

func (c *webClient) get(n int) error { return c.transfer(n, c.head("GET", largePath, ""), 0) }

func (c *webClient) post(n int) error {
	return c.transfer(n, c.head("POST", largePath, fmt.Sprintf("Content-Length: %d\r\n", largeBody)), largeBody)
}

// transfer has the kernel throw away what comes after the heads.
func (c *webClient) transfer(n int, request []byte, more int) error {
	c.expect()
	c.discard = func(p *peer) bool { return p.left > 0 }
	defer func() { c.discard = nil }()
	if err := c.openAll(n, func(*peer) error { return nil }); err != nil {
		return err
	}
	for _, p := range c.peers {
		p.more = more
		if err := c.ask(p, request); err != nil {
			return err
		}
	}
	err := c.wait()
	c.report.Bytes += int64(n) * int64(more)
	return err
}

// message is a text of 64 bytes from a client. Its mask is all zeros, so that it reads the same in both directions.
var message = append([]byte{0x81, 0x80 | 64, 0, 0, 0, 0}, bytes.Repeat([]byte("m"), 64)...)

func (c *webClient) tunnels(n int) error {
	request := c.head("GET", "/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
	c.input = func(p *peer, data []byte) bool {
		p.kept = append(p.kept, data...)
		if bytes.HasSuffix(p.kept, []byte("\r\n\r\n")) {
			if !bytes.HasPrefix(p.kept, []byte("HTTP/1.1 101")) {
				c.failed = fmt.Errorf("no tunnel: %q", p.kept)
				return false
			}
			p.kept = p.kept[:0]
			c.done(p)
		}
		return true
	}
	return c.openAll(n, func(p *peer) error {
		if err := c.ask(p, request); err != nil {
			return err
		}
		return c.wait()
	})
}

func (c *webClient) echo(n int) error {
	c.idle = c.idle[:0]
	for _, p := range c.peers {
		c.idle = append(c.idle, p)
	}
	over, want, next := false, len(message)-4, 0
	turn := func() bool {
		p := c.idle[next%len(c.idle)]
		next++
		if p.sent != 0 { // still on its way, a whole turn later: the subject is stuck
			return false
		}
		if err := c.ask(p, message); err != nil {
			return false
		}
		p.left = want
		return true
	}
	c.input = func(p *peer, data []byte) bool {
		if p.left -= len(data); p.left > 0 {
			return true
		}
		if p.left < 0 || p.sent == 0 {
			c.failed = fmt.Errorf("bytes without a message: %q", data)
			return false
		}
		c.done(p)
		if !over && !turn() {
			c.failed = errors.New("a tunnel is stuck")
		}
		return true
	}
	for range min(n, len(c.idle)) {
		if !turn() {
			return errors.New("a tunnel is lost")
		}
	}
	end := time.Now().Add(c.length)
	if err := c.run(nil, func() bool { return time.Now().After(end) }); err != nil {
		return err
	}
	over = true
	return c.wait()
}

// pace sends requests at fixed times, whether or not earlier ones were answered: what is slow is counted as often as it is met. A connection that the
// subject closes is opened again.
func (c *webClient) pace(n int) error {
	request := c.head("GET", "/100", "")
	waiting := make(map[*peer]bool)
	c.idle = c.idle[:0]
	c.input = func(p *peer, data []byte) bool {
		sent := p.sent
		if sent == 0 {
			c.failed = fmt.Errorf("bytes without a request: %q", data)
			return false
		}
		closes := bytes.Contains(data, []byte("onnection: close\r\n"))
		whole, err := c.answered(p, data)
		if err != nil {
			c.failed = err
			return false
		}
		if whole {
			delete(waiting, p)
			c.report.Samples = append(c.report.Samples, webSample{sent, time.Duration(time.Now().UnixNano() - sent)})
			if closes {
				c.report.Closed++
				return false
			}
			c.idle = append(c.idle, p)
		}
		return true
	}
	fetch := func() (*peer, error) {
		for len(c.idle) > 0 {
			p := c.idle[0]
			c.idle = c.idle[1:]
			if c.peers[p.fd] == p {
				return p, nil
			}
			c.report.Closed++
		}
		return c.open()
	}
	for range 32 {
		p, err := c.open()
		if err != nil {
			return err
		}
		c.idle = append(c.idle, p)
	}
	sent := 0
	err := c.run(nil, func() bool {
		elapsed := time.Since(c.began)
		for ; sent < int(elapsed.Seconds()*float64(n)); sent++ {
			p, err := fetch()
			if err == nil {
				waiting[p] = true
				err = c.ask(p, request)
			}
			if err != nil {
				c.report.Failed++
			}
		}
		return elapsed >= c.length
	})
	if err != nil {
		return err
	}
	end := time.Now().Add(time.Second) // the last answers may be on their way
	if err := c.run(nil, func() bool { return c.busy == 0 || time.Now().After(end) }); err != nil {
		return err
	}
	for p := range waiting { // lost, or too slow to be counted
		if c.peers[p.fd] != p {
			c.report.Failed++
		}
	}
	c.busy = 0
	return nil
}

// web is a running web client.
type web struct {
	t     testing.TB
	name  string
	input *os.File
	lines *bufio.Reader
}

// startWeb starts a client for a subject; it ends with the benchmark.
func startWeb(t testing.TB, core int, s subject, length time.Duration) *web {
	t.Helper()
	cmd := role(t, core, "web-client", "-address", s.address, "-length", length.String())
	cmd.Stderr = os.Stderr
	stdin, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	output, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout = stdin, stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	stdout.Close()
	t.Cleanup(func() {
		input.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		output.Close()
	})
	return &web{t, s.name, input, bufio.NewReader(output)}
}

// begin starts a step; finish waits for its end.
func (w *web) begin(step string, n int) {
	w.t.Helper()
	if _, err := fmt.Fprintf(w.input, "%s %d\n", step, n); err != nil {
		w.t.Fatalf("client of %s: %v", w.name, err)
	}
}

func (w *web) finish() webReport {
	w.t.Helper()
	line, err := w.lines.ReadBytes('\n')
	if err != nil {
		w.t.Fatalf("client of %s: %v", w.name, err)
	}
	var r webReport
	if err := json.Unmarshal(line, &r); err != nil {
		w.t.Fatalf("client of %s: %v: %s", w.name, err, line)
	}
	return r
}

func (w *web) do(step string, n int) webReport {
	w.t.Helper()
	w.begin(step, n)
	return w.finish()
}
