package poll

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// answering is a Handler that answers each piece with its own bytes, and can be told to stop.
type answering struct {
	c     *Conn
	buf   [64]byte
	seen  bytes.Buffer
	stop  byte // stops at this byte
	idles int
}

func (h *answering) Room() []byte { return h.buf[:] }

func (h *answering) Take(n int) bool {
	p := h.buf[:n]
	h.seen.Write(p)
	if n > 0 {
		h.c.Write(p)
	}
	return h.stop == 0 || !bytes.Contains(p, []byte{h.stop})
}

func (h *answering) Idle() Instant {
	h.idles++
	return Now()
}

// Whatever the timing, no piece is missed: a missed wake-up would show as a second's delay, twenty times.
func TestLoopMissesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		h := &answering{c: c}
		done := make(chan error, 1)
		c.ReadBefore(Now().Add(time.Minute))
		go func() { done <- c.Loop(h) }()
		peer.SetDeadline(time.Now().Add(20 * time.Second))
		got := make([]byte, 4096)
		for i := range 20_000 {
			p := got[:1+rand.IntN(200)] // often more than Room
			for j := range p {
				p[j] = byte(i)
			}
			want := bytes.Clone(p)
			if _, err := peer.Write(p); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(peer, p); err != nil || !bytes.Equal(p, want) {
				t.Fatalf("piece %d: %v", i, err)
			}
		}
		peer.Close()
		if err := <-done; err != io.EOF {
			t.Fatalf("got %v", err)
		}
	})
}

func TestLoopStopsWhenToldAndGoesOnLater(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		h := &answering{c: c, stop: '!'}
		c.ReadBefore(Now().Add(20 * time.Second))
		for range 3 {
			go peer.Write([]byte("a!"))
			if err := c.Loop(h); err != nil {
				t.Fatal(err)
			}
		}
		if h.seen.String() != "a!a!a!" {
			t.Fatalf("got %q", h.seen.String())
		}
	})
}

// Data and the end of file in one wake-up: the end is found after a second, not at the bound.
func TestLoopSeesAHalfClose(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		h := &answering{c: c}
		c.ReadBefore(Now().Add(time.Minute))
		peer.Write([]byte("bye"))
		peer.CloseWrite()
		if err := c.Loop(h); err != io.EOF || h.seen.String() != "bye" {
			t.Fatalf("%v %q", err, h.seen.String())
		}
	})
}

func TestLoopEndsAtItsBound(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		for _, bound := range []time.Duration{50 * time.Millisecond, 1300 * time.Millisecond} { // before and after the extra try
			c, _ := pair(t, open)
			h := &answering{c: c}
			c.ReadBefore(Now().Add(bound))
			began := time.Now()
			if err := c.Loop(h); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("got %v", err)
			}
			if d := time.Since(began); d < bound {
				t.Errorf("ended after %v, before its bound %v", d, bound)
			}
			if h.idles > 3 {
				t.Errorf("woke up %d times for nothing", h.idles)
			}
		}
	})
}

func TestLoopIsInterrupted(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		h := &answering{c: c}
		c.ReadBefore(Now().Add(time.Minute))
		for range 50 {
			done := make(chan error, 1)
			go func() { done <- c.Loop(h) }()
			c.Interrupt()
			if err := <-done; !errors.Is(err, ErrInterrupted) {
				t.Fatalf("got %v", err)
			}
		}
		peer.Close()
		if err := c.Loop(h); err != io.EOF {
			t.Fatalf("got %v", err)
		}
	})
}

// room is memory that is there all the time.
type room []byte

func (r room) Room() []byte { return r }

// noRoom must not be asked.
type noRoom struct{}

func (noRoom) Room() []byte { panic("memory for an answer that has not begun") }

// The answer may come before, while and after the asker falls asleep: it is never missed.
func TestAskMissesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		var group sync.WaitGroup
		defer group.Wait()
		group.Go(func() { io.Copy(peer, peer) })
		defer c.Close()
		buf := make([]byte, 8192)
		began := time.Now()
		for i := range 20_000 {
			c.ReadBefore(Now().Add(20 * time.Second))
			p := bytes.Repeat([]byte{byte(i)}, 1+i%3000)
			got, _, err := c.Ask(p, room(buf))
			for err == nil && got < len(p) {
				var n int
				n, err = c.Read(buf)
				got += n
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(began); d > 15*time.Second {
			t.Errorf("took %v: something waits for timers", d)
		}
	})
}

// A question that the kernel does not take at once.
func TestAskOfALongQuestion(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		const size = 32 << 20
		var group sync.WaitGroup
		defer group.Wait()
		group.Go(func() {
			if n, err := io.CopyBuffer(io.Discard, io.LimitReader(peer, size), make([]byte, 10_000)); n != size {
				t.Error(n, err)
			}
			peer.Write([]byte("ok"))
		})
		c.ReadBefore(Now().Add(20 * time.Second))
		buf := make([]byte, 8)
		if n, asked, err := c.Ask(make([]byte, size), room(buf)); err != nil || !asked || string(buf[:n]) != "ok" {
			t.Fatal(n, asked, err)
		}
	})
}

func TestAskFails(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		c.ReadBefore(Now().Add(30 * time.Millisecond))
		if _, asked, err := c.Ask([]byte("anybody?"), noRoom{}); !errors.Is(err, os.ErrDeadlineExceeded) || !asked {
			t.Fatalf("got %v, asked %v", err, asked)
		}
		c.ReadBefore(Now().Add(20 * time.Second))
		timer := time.AfterFunc(20*time.Millisecond, c.Interrupt)
		defer timer.Stop()
		if _, asked, err := c.Ask([]byte("anybody?"), noRoom{}); !errors.Is(err, ErrInterrupted) || !asked {
			t.Fatalf("got %v, asked %v", err, asked)
		}
		peer.SetLinger(0)
		peer.Close()
		for { // the reset may come with the first write or the next
			if n, _, err := c.Ask([]byte("x"), room(make([]byte, 1))); err != nil {
				break
			} else if n > 0 {
				t.Fatal("an answer of nobody")
			}
		}
	})
}

func TestShutdownWakesEverybody(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, _ := pair(t, open)
		h := &answering{c: c}
		done := make(chan error, 1)
		go func() { done <- c.Loop(h) }()
		c.Shutdown()
		if err := <-done; err == nil {
			t.Fatal("the loop should end")
		}
		if _, err := c.Write([]byte("x")); err == nil {
			t.Fatal("a write should fail")
		}
	})
}

// resumed is a Server that is a function.
type resumed func()

func (f resumed) Resume() { f() }

// Servers that wait for others do not hold them up, whoever of them comes first, with the loop and without it.
func TestServersDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		pair(t, open)
		const n = 100
		var began, ended sync.WaitGroup
		began.Add(n + 1)
		ended.Add(n + 1)
		one := resumed(func() {
			began.Done()
			began.Wait()
			ended.Done()
		})
		all := make([]Server, n)
		for i := range all {
			all[i] = one
		}
		Serve(all)
		Start(one)
		ended.Wait()
	})
}
