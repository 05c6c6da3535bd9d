package poll

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// hasty reads without ever waiting, and passes on what it gets.
type hasty struct {
	c   *Conn
	got chan string
	buf [64]byte
}

func (h *hasty) Resume() {
	for {
		n, err := h.c.Read(h.buf[:])
		if n > 0 {
			h.got <- string(h.buf[:n])
		}
		switch err {
		case nil:
		case ErrNothing:
			if h.c.Detach() {
				return
			}
		default:
			h.got <- err.Error()
			if err != ErrInterrupted {
				return
			}
		}
	}
}

// A connection that never waits says that nothing is there, and its Server hears of all that is to be heard.
func TestNeverWait(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, Adopt)
	h := &hasty{c: c, got: make(chan string, 8)}
	if _, err := peer.Write([]byte("before")); err != nil {
		t.Fatal(err)
	}
	if err := c.Await(); err != nil {
		t.Fatal(err)
	}
	if !c.NeverWait(h) {
		t.Fatal("the own poller can do that")
	}
	if c.Detach() {
		t.Fatal("detached while there is something to read")
	}
	go h.Resume()
	hear := func(want string) {
		t.Helper()
		select {
		case got := <-h.got:
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("nothing came; want %q", want)
		}
	}
	hear("before")
	for i := range 300 {
		message := fmt.Sprint("message ", i)
		if _, err := peer.Write([]byte(message)); err != nil {
			t.Fatal(err)
		}
		hear(message)
	}
	c.Interrupt()
	hear(ErrInterrupted.Error())
	_ = peer.CloseWrite()
	hear(io.EOF.Error())
}

// The runtime's poller cannot do it, and says so.
func TestNeverWaitIsForTheOwnPoller(t *testing.T) {
	t.Parallel()
	c, _ := pair(t, New)
	if c.NeverWait(&hasty{c: c}) {
		t.Error("it can")
	}
}

// Close while it detaches: the Server hears of it, once, whatever comes first.
func TestCloseWhileItDetaches(t *testing.T) {
	t.Parallel()
	for i := range 300 {
		c, peer := pairNow(t, Adopt)
		h := &hasty{c: c, got: make(chan string, 8)}
		c.NeverWait(h)
		var both sync.WaitGroup
		both.Go(h.Resume)
		both.Go(func() {
			for range i % 20 {
				runtime.Gosched()
			}
			c.Close()
		})
		select {
		case got := <-h.got:
			if got != net.ErrClosed.Error() {
				t.Fatalf("got %q", got)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("nobody was told")
		}
		both.Wait()
		peer.Close()
		if len(h.got) > 0 {
			t.Fatal("it was told twice")
		}
	}
}

// The progress of a write that waits can be seen, and only that.
func TestSeeping(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		if _, err := c.Write([]byte("at once")); err != nil || c.Seeping() != 0 {
			t.Fatalf("%v; progress at %d", err, c.Seeping())
		}
		done := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, 32<<20))
			done <- err
		}()
		last, p := Instant(0), make([]byte, 1<<20)
		for range 3 {
			for limit := time.Now().Add(10 * time.Second); c.Seeping() == last; {
				if time.Now().After(limit) {
					t.Fatal("no progress is seen")
				}
				if _, err := io.ReadFull(peer, p); err != nil {
					t.Fatal(err)
				}
			}
			last = c.Seeping()
		}
		go func() { _, _ = io.Copy(io.Discard, peer) }() // ends with the connection
		if err := <-done; err != nil {
			t.Error(err)
		}
		if c.Seeping() <= last {
			t.Error("the end of the write is no progress")
		}
	})
}
