package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// pair gives a Conn and the other end of its socket.
func pair(t *testing.T) (*Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	there, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	here, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := New(here)
	t.Cleanup(func() { _ = c.Close(); _ = there.Close() })
	return c, there
}

func TestReadMessage(t *testing.T) {
	c, there := pair(t)
	long := bytes.Repeat([]byte("abcdefghij"), 20000)
	go func() {
		b, next := mysql.AppendPacket(nil, 3, long)
		b, _ = mysql.AppendPacket(b, next, []byte("short"))
		b, _ = mysql.AppendPacket(b, 0, nil)
		b, _ = mysql.AppendPacket(b, 9, []byte("out of order"))
		_, _ = there.Write(b)
	}()
	payload, next, err := c.ReadMessage(3, 1<<20)
	if err != nil || next != 4 || !bytes.Equal(payload, long) {
		t.Fatalf("%d bytes, next %d, %v", len(payload), next, err)
	}
	if payload, next, err = c.ReadMessage(next, 10); err != nil || string(payload) != "short" || next != 5 {
		t.Fatalf("%q, next %d, %v", payload, next, err)
	}
	if payload, _, err = c.ReadMessage(0, 10); err != nil || len(payload) != 0 {
		t.Fatalf("%q, %v", payload, err)
	}
	if _, _, err = c.ReadMessage(1, 100); !errors.Is(err, mysql.ErrMalformed) {
		t.Errorf("out of order: %v", err)
	}
}

func TestReadMessageBounds(t *testing.T) {
	c, there := pair(t)
	_, _ = there.Write([]byte{255, 255, 255, 0, 1, 2, 3})
	if _, _, err := c.ReadMessage(0, 1000); !errors.Is(err, ErrTooLarge) {
		t.Errorf("announced 16 MB: %v", err)
	}
	c, there = pair(t)
	_, _ = there.Write([]byte{9, 0, 0, 0, 1, 2, 3})
	_ = there.Close()
	if _, _, err := c.ReadMessage(0, 1000); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut short: %v", err)
	}
}

func TestFillIsBounded(t *testing.T) {
	c, there := pair(t)
	go func() { _, _ = there.Write(make([]byte, 2*poll.LargeBuffer)) }()
	var err error
	for err == nil {
		err = c.Fill()
	}
	if !errors.Is(err, ErrTooLarge) || len(c.Buffered()) != poll.LargeBuffer {
		t.Errorf("%d bytes buffered, %v", len(c.Buffered()), err)
	}
	c.Skip(len(c.Buffered()))
	c.Release()
	if c.buf != nil {
		t.Error("an idle connection holds a buffer")
	}
}

func TestPeerGone(t *testing.T) {
	c, there := pair(t)
	if c.PeerGone() || !c.Alive() {
		t.Error("gone at once")
	}
	_, _ = there.Write([]byte("x"))
	_ = there.Close()
	if c.PeerGone() {
		t.Error("gone, though something is left to read")
	}
	if err := c.Fill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Await(); err != nil { // there is something buffered
		t.Fatal(err)
	}
	c.Skip(1)
	if err := c.Await(); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if !c.PeerGone() || c.Alive() {
		t.Error("not gone")
	}
}
