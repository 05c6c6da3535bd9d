package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// Step is one thing that a scripted server does on a connection: wait for something, then say something, then perhaps end. The zero Step does nothing.
type Step struct {
	// Until waits until this text has arrived after what the step before consumed; "" does not wait.
	Until string
	// Bytes waits for this many further bytes.
	Bytes int
	// Gate waits until the channel is closed.
	Gate <-chan struct{}
	// Delay waits that long before Send.
	Delay time.Duration
	// Send is written as it is.
	Send string
	// Piece splits Send into writes of this many bytes, 1ms apart, so that the peer sees it in pieces; 0 writes it at once.
	Piece int
	// Close ends the connection in order (FIN); Reset ends it at once (RST). After the last step without either, the server reads on until the peer closes.
	Close, Reset bool
	// Again goes back to the first step of the connection.
	Again bool
}

// Conversation is what a scripted server does on one connection.
type Conversation []Step

// blankLine ends a request head.
const blankLine = "\r\n\r\n"

// Answer waits for a request head and sends raw, over and over on a kept connection.
func Answer(raw string) Conversation { return Conversation{{Until: blankLine, Send: raw, Again: true}} }

// AnswerAndClose waits for a request head, sends raw and closes.
func AnswerAndClose(raw string) Conversation {
	return Conversation{{Until: blankLine, Send: raw, Close: true}}
}

// Script is a server of plain TCP that does what its conversations say, whatever the client thinks of it, and records all that it receives. It is safe
// for concurrent use.
//
// One goroutine accepts and one serves each connection; cleanup closes everything and waits for them.
type Script struct {
	Address string
	URL     string // http://Address

	talk  []Conversation
	done  chan struct{} // closed at cleanup
	tasks sync.WaitGroup

	mu       sync.Mutex // guards all below
	received [][]byte   // by connection, in the order of accept
	ended    []bool     // the peer closed, or the script did
	conns    map[net.Conn]struct{}
}

// NewScript starts a server: the first connection gets the first conversation, and so on; the last one serves all further connections. Without any the
// server reads and says nothing.
func NewScript(t testing.TB, talk ...Conversation) *Script {
	t.Helper()
	if len(talk) == 0 {
		talk = []Conversation{nil}
	}
	// Not FreeAddress: the socket is ours from the start.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Script{
		Address: ln.Addr().String(), URL: "http://" + ln.Addr().String(),
		talk: talk, done: make(chan struct{}), conns: make(map[net.Conn]struct{}),
	}
	s.tasks.Go(func() { s.accept(ln) })
	t.Cleanup(func() {
		close(s.done)
		ln.Close()
		s.mu.Lock()
		for conn := range s.conns {
			conn.Close()
		}
		s.mu.Unlock()
		s.tasks.Wait()
	})
	return s
}

// Connections returns how many connections were accepted so far.
func (s *Script) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.received)
}

// Received returns a copy of what arrived on a connection so far, counted from 0; nil when there was no such connection yet.
func (s *Script) Received(connection int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if connection >= len(s.received) {
		return nil
	}
	return slices.Clone(s.received[connection])
}

// Ended tells whether a connection was accepted and is over.
func (s *Script) Ended(connection int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return connection < len(s.ended) && s.ended[connection]
}

// Await polls until the text has arrived on a connection, and returns all that arrived there.
func (s *Script) Await(t testing.TB, connection int, text string) []byte {
	t.Helper()
	var got []byte
	Eventually(t, 10*time.Second, func() error {
		got = s.Received(connection)
		if !bytes.Contains(got, []byte(text)) {
			return fmt.Errorf("connection %d of %d has not received %q: %q", connection, s.Connections(), text, got)
		}
		return nil
	})
	return got
}

// accept ends when its listener is closed.
func (s *Script) accept(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		s.mu.Lock()
		n := len(s.received)
		s.received, s.ended = append(s.received, nil), append(s.ended, false)
		s.conns[conn] = struct{}{}
		s.mu.Unlock()
		s.tasks.Go(func() {
			s.serve(n, conn)
			conn.Close()
			s.mu.Lock()
			defer s.mu.Unlock()
			s.ended[n] = true
			delete(s.conns, conn)
		})
	}
}

// serve plays one conversation.
func (s *Script) serve(n int, conn net.Conn) {
	talk := s.talk[min(n, len(s.talk)-1)]
	consumed := 0
	for i := 0; i < len(talk); i++ {
		step := talk[i]
		if step.Until != "" && !s.read(n, conn, func(all []byte) bool {
			at := bytes.Index(all[consumed:], []byte(step.Until))
			if at < 0 {
				return false
			}
			consumed += at + len(step.Until)
			return true
		}) {
			return
		}
		if step.Bytes > 0 {
			consumed += step.Bytes
			if !s.read(n, conn, func(all []byte) bool { return len(all) >= consumed }) {
				return
			}
		}
		if !s.pause(step.Gate, step.Delay) || !s.send(conn, step) {
			return
		}
		switch {
		case step.Reset:
			reset(conn)
			return
		case step.Close:
			return
		case step.Again:
			i = -1
		}
	}
	s.read(n, conn, func([]byte) bool { return false })
}

// read records what arrives until enough says so; false means that the connection ended before.
func (s *Script) read(n int, conn net.Conn, enough func(all []byte) bool) bool {
	buffer := make([]byte, 32<<10)
	for {
		s.mu.Lock()
		ok := enough(s.received[n])
		s.mu.Unlock()
		if ok {
			return true
		}
		got, err := conn.Read(buffer)
		s.mu.Lock()
		s.received[n] = append(s.received[n], buffer[:got]...)
		s.mu.Unlock()
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			return enough(s.received[n])
		}
	}
}

// pause waits for the gate, then for the delay; false means that the test is over.
func (s *Script) pause(gate <-chan struct{}, delay time.Duration) bool {
	if gate != nil {
		select {
		case <-gate:
		case <-s.done:
			return false
		}
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.done:
			return false
		}
	}
	return true
}

// send writes what a step says; false means that the peer is gone.
func (s *Script) send(conn net.Conn, step Step) bool {
	if step.Piece <= 0 {
		_, err := io.WriteString(conn, step.Send)
		return err == nil
	}
	for piece := range slices.Chunk([]byte(step.Send), step.Piece) {
		if _, err := conn.Write(piece); err != nil || !s.pause(nil, time.Millisecond) {
			return false
		}
	}
	return true
}

// isEnd tells an orderly end of stream from a failure.
func isEnd(err error) bool { return errors.Is(err, io.EOF) }
