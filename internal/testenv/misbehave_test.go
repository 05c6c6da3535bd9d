package testenv

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dial connects, with a deadline that turns a hang into a failure; closed at cleanup.
func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func say(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Fatalf("heard %q, %v; want %q", got[:n], err, want)
	}
}

// echo answers each "x" with "y".
var echo = Conversation{{Until: "x", Send: "y", Again: true}}

func TestCutterForwardsAndPassesHalfClose(t *testing.T) {
	t.Parallel()
	s := NewScript(t, Conversation{{Until: "end", Send: "over"}, {Bytes: 1 << 20, Send: "never"}})
	c := NewCutter(t, s.Address)
	conn := dial(t, c.Address)
	say(t, conn, "the end")
	hear(t, conn, "over")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(conn); len(rest) != 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	if c.Accepted() != 1 || string(s.Received(0)) != "the end" {
		t.Errorf("%d accepted, received %q", c.Accepted(), s.Received(0))
	}
	Eventually(t, 10*time.Second, func() error {
		if n := c.Connections(); n != 0 {
			return fmt.Errorf("%d connections open", n)
		}
		return nil
	})
}

func TestCutterCutsAndRestores(t *testing.T) {
	t.Parallel()
	s := NewScript(t, echo)
	c := NewCutter(t, s.Address)
	conn := dial(t, c.Address)
	say(t, conn, "x")
	hear(t, conn, "y")
	c.Cut()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("cut connection: %v", err)
	}
	if _, err := net.Dial("tcp", c.Address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("while cut: %v", err)
	}
	c.Restore(t)
	conn = dial(t, c.Address)
	say(t, conn, "x")
	hear(t, conn, "y")
	c.Reset()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset connection: %v", err)
	}
	conn = dial(t, c.Address)
	say(t, conn, "x")
	hear(t, conn, "y")
}

func TestCutterPausesAndDelays(t *testing.T) {
	t.Parallel()
	s := NewScript(t, echo)
	c := NewCutter(t, s.Address)
	conn := dial(t, c.Address)
	c.Pause()
	say(t, conn, "x")
	if err := conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := conn.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("paused, and heard: %v", err)
	}
	if got := s.Received(0); len(got) != 0 {
		t.Errorf("paused, and received %q", got)
	}
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c.Resume()
	hear(t, conn, "y")
	const delay = 20 * time.Millisecond
	c.Delay(delay)
	start := time.Now()
	say(t, conn, "x")
	hear(t, conn, "y")
	// Not more than one delay is certain: the reader of the first byte may have looked before Delay was called.
	if took := time.Since(start); took < delay {
		t.Errorf("took %s, with %s in each direction", took, delay)
	}
}

func TestCutterPausedConnectionCanBeCut(t *testing.T) {
	t.Parallel()
	s := NewScript(t, echo)
	c := NewCutter(t, s.Address)
	conn := dial(t, c.Address)
	c.Pause()
	say(t, conn, "x")
	Eventually(t, 10*time.Second, func() error {
		if c.Connections() == 0 {
			return errors.New("not accepted")
		}
		return nil
	})
	c.Cut()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a cut connection gave data")
	}
}

func TestCutterWithoutTargetResets(t *testing.T) {
	t.Parallel()
	c := NewCutter(t, FreeAddress(t))
	conn, err := net.Dial("tcp", c.Address)
	if err != nil {
		return // the reset may overtake the end of connect
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("no target: %v", err)
	}
}

func TestScriptAnswersRequestsOneAfterAnother(t *testing.T) {
	t.Parallel()
	s := NewScript(t, Answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"))
	conn := dial(t, s.Address)
	reader := bufio.NewReader(conn)
	for range 3 {
		say(t, conn, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
		res, err := http.ReadResponse(reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); string(body) != "hi" || err != nil {
			t.Errorf("%q, %v", body, err)
		}
	}
	if n := strings.Count(string(s.Await(t, 0, "GET /a")), "GET /a"); n != 3 {
		t.Errorf("%d requests recorded", n)
	}
}

func TestScriptMisbehavesPerConnection(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	s := NewScript(t,
		Conversation{{Until: blankLine, Send: "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", Close: true}},
		Conversation{{Bytes: 4, Send: "then", Reset: true}},
		Conversation{{Send: "greeting", Piece: 3}, {Gate: gate, Send: "later"}},
		Conversation{{Close: true}},
	)
	conn := dial(t, s.Address)
	say(t, conn, "GET / HTTP/1.1\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); string(body) != "short" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", body, err)
	}
	conn = dial(t, s.Address)
	say(t, conn, "1234")
	if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset: %v", err)
	}
	conn = dial(t, s.Address)
	hear(t, conn, "greeting")
	close(gate)
	hear(t, conn, "later")
	for range 2 { // the last conversation serves all others
		conn = dial(t, s.Address)
		if rest, err := io.ReadAll(conn); len(rest) != 0 || err != nil {
			t.Errorf("close: %q, %v", rest, err)
		}
	}
	Eventually(t, 10*time.Second, func() error {
		if s.Connections() != 5 || !s.Ended(0) || !s.Ended(1) || !s.Ended(4) || s.Ended(2) || s.Ended(9) {
			return fmt.Errorf("%d connections, ended %v", s.Connections(), []bool{s.Ended(0), s.Ended(1), s.Ended(2), s.Ended(4), s.Ended(9)})
		}
		return nil
	})
	if got := s.Received(9); got != nil {
		t.Errorf("a connection that never was: %q", got)
	}
}
