package poll

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// onBoth runs a test on the runtime's poller and on the own one.
func onBoth(t *testing.T, f func(t *testing.T, open func(net.Conn) *Conn)) {
	t.Helper()
	for name, open := range map[string]func(net.Conn) *Conn{"netpoll": New, "epoll": Adopt} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, open)
		})
	}
}

// pair gives both ends of a TCP connection, the first as a Conn.
func pair(t testing.TB, open func(net.Conn) *Conn) (*Conn, *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := open(nc)
	t.Cleanup(func() { c.Close(); peer.Close() })
	return c, peer.(*net.TCPConn)
}

func TestReadsWhatWasSent(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		buf := make([]byte, 64)
		for i := range 100 {
			msg := bytes.Repeat([]byte{byte(i)}, 1+i%70)
			go peer.Write(msg)
			var got []byte
			for len(got) < len(msg) {
				n, err := c.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, buf[:n]...)
			}
			if !bytes.Equal(got, msg) {
				t.Fatalf("message %d: got %v", i, got)
			}
		}
	})
}

func TestReadBeforeFails(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		buf := make([]byte, 64)
		peer.Write([]byte("x"))
		if n, err := c.Read(buf); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		c.ReadBefore(Now().Add(30 * time.Millisecond))
		if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		c.ReadBefore(Now().Add(time.Minute)) // a later bound takes the failure back
		peer.Write([]byte("y"))
		if n, err := c.Read(buf); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	})
}

// A timer armed early for a short bound must not fail a read with a later bound.
func TestEarlyTimerIsNotATimeout(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		buf := make([]byte, 64)
		peer.Write([]byte("x"))
		c.ReadBefore(Now().Add(20 * time.Millisecond))
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
		c.ReadBefore(Now().Add(time.Minute))
		timer := time.AfterFunc(60*time.Millisecond, func() { peer.Write([]byte("y")) })
		defer timer.Stop()
		if n, err := c.Read(buf); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	})
}

// Data and the end of file in one wake-up: the end must still be seen.
func TestHalfCloseWithData(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		for range 20 {
			c, peer := pair(t, open)
			peer.Write([]byte("bye"))
			peer.CloseWrite()
			c.ReadBefore(Now().Add(20 * time.Second))
			got, err := io.ReadAll(c)
			if err != nil || string(got) != "bye" {
				t.Fatalf("%q %v", got, err)
			}
			c.Close()
			if testing.Short() {
				break
			}
		}
	})
}

func TestAwait(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		buf := make([]byte, 64)
		peer.Write([]byte("one"))
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
		c.ReadBefore(Now().Add(20 * time.Millisecond))
		if err := c.Await(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		c.ReadBefore(Now().Add(time.Minute))
		timer := time.AfterFunc(20*time.Millisecond, func() { peer.Write([]byte("two")) })
		defer timer.Stop()
		if err := c.Await(); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(buf); err != nil || string(buf[:n]) != "two" {
			t.Fatal(n, err)
		}
	})
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		buf := make([]byte, 64)
		c.ReadBefore(Now().Add(time.Minute))
		for range 50 {
			done := make(chan error, 1)
			go func() { _, err := c.Read(buf); done <- err }()
			c.Interrupt()
			if err := <-done; !errors.Is(err, ErrInterrupted) {
				t.Fatalf("got %v", err)
			}
		}
		peer.Write([]byte("x"))
		if n, err := c.Read(buf); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	})
}

func TestWritePatience(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		c.WritePatience(50 * time.Millisecond)
		big := make([]byte, 64<<20)
		n, err := c.Write(big)
		if !errors.Is(err, os.ErrDeadlineExceeded) || n == len(big) {
			t.Fatalf("wrote %d, %v", n, err)
		}
		go io.Copy(io.Discard, peer)
		if _, err := c.Write(make([]byte, 8<<20)); err != nil {
			t.Fatal(err) // the peer reads again: a past timeout leaves no trace
		}
	})
}

// A reader that stops and goes: every wait for room in the socket must end when there is room, not at the next occasion.
func TestLongWritesToASlowReader(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		c.WritePatience(20 * time.Second)
		const total = 256 << 20
		done := make(chan error, 1)
		go func() {
			n, err := io.CopyBuffer(io.Discard, io.LimitReader(peer, total), make([]byte, 3000))
			if err == nil && n != total {
				err = io.ErrUnexpectedEOF
			}
			done <- err
		}()
		p := make([]byte, 100_000)
		for sent := 0; sent < total; {
			n, err := c.Write(p[:min(len(p), total-sent)])
			if err != nil {
				t.Fatal(err)
			}
			sent += n
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestAlive(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		if !c.Alive() {
			t.Fatal("a silent open connection must be alive")
		}
		peer.Write([]byte("x"))
		c.ReadBefore(Now().Add(time.Minute))
		if err := c.Await(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 8)
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
		peer.Close()
		if err := c.Await(); err != nil {
			t.Fatal(err)
		}
		if c.Alive() {
			t.Fatal("a closed connection must not be alive")
		}
	})
}

func BenchmarkPingPong(b *testing.B) {
	c, peer := pair(b, New)
	p := New(peer)
	go func() {
		buf := make([]byte, 512)
		for {
			n, err := p.Read(buf)
			if err != nil {
				return
			}
			p.Write(buf[:n])
		}
	}()
	msg, buf := make([]byte, 400), make([]byte, 512)
	b.ReportAllocs()
	for b.Loop() {
		c.Write(msg)
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// An Interrupt that comes while Loop prepares to wait must not be undone by the timer that Loop then sets.
func TestInterruptBeforeLoopWaits(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, _ := pair(t, open)
		if !c.CanLoop() {
			t.Skip("no Loop here")
		}
		c.ReadBefore(Now().Add(time.Minute))
		h := &interrupting{c: c}
		began := time.Now()
		if err := c.Loop(h); !errors.Is(err, ErrInterrupted) {
			t.Fatalf("got %v", err)
		}
		if took := time.Since(began); took > missedEOF/2 {
			t.Fatalf("took %v", took)
		}
	})
}

type interrupting struct {
	c   *Conn
	buf [64]byte
}

func (i *interrupting) Room() []byte  { return i.buf[:] }
func (i *interrupting) Take(int) bool { return true }
func (i *interrupting) Idle() Instant { i.c.Interrupt(); return Now() }

// Data and the end of file in one wake-up, or two: the loop hands over the one and returns the other.
func TestLoopSeesAHalfCloseWithData(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		for range 5 {
			c, peer := pair(t, open)
			if !c.CanLoop() {
				t.Skip("no Loop here")
			}
			peer.Write([]byte("bye"))
			peer.CloseWrite()
			h := &counting{}
			if err := c.Loop(h); err != io.EOF || h.n != 3 {
				t.Fatalf("%v after %d bytes", err, h.n)
			}
		}
	})
}

type counting struct {
	buf [64]byte
	n   int
}

func (h *counting) Room() []byte    { return h.buf[:] }
func (h *counting) Take(n int) bool { h.n += n; return true }
func (h *counting) Idle() Instant   { return Now() }
