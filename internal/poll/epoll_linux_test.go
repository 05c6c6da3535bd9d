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

	"go.uber.org/goleak"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Idle connections have no goroutine, and none of them is forgotten.
func TestDetachedConnectionsMissNothing(t *testing.T) {
	t.Parallel()
	const connections, pieces = 50, 400
	var group sync.WaitGroup
	for i := range connections {
		c, peer := pair(t, Adopt)
		c.ReadBefore(Now().Add(time.Minute))
		e := &plainEcho{c: c, ended: make(chan error, 1)}
		c.ServedBy(e)
		go e.Resume()
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			peer.SetDeadline(time.Now().Add(20 * time.Second))
			for j := range pieces {
				p := bytes.Repeat([]byte{byte(j)}, 1+random.IntN(700))
				want := bytes.Clone(p)
				if random.IntN(8) == 0 {
					c.Interrupt()
				}
				if _, err := peer.Write(p); err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadFull(peer, p); err != nil || !bytes.Equal(p, want) {
					t.Errorf("connection %d, piece %d: %v", i, j, err)
					return
				}
			}
			peer.Close()
			if err := <-e.ended; err != io.EOF {
				t.Errorf("ended with %v", err)
			}
		})
	}
	group.Wait()
}

// plainEcho is a detached connection that answers each piece with its own bytes. busy is not atomic on purpose: the race
// detector shows it when two goroutines serve at a time.
type plainEcho struct {
	c     *Conn
	buf   [256]byte
	busy  int
	ended chan error
}

func (e *plainEcho) Resume() {
	for {
		e.busy++
		switch err := e.c.Loop(e); {
		case err == ErrDetached:
			return
		case errors.Is(err, ErrInterrupted):
		default:
			e.c.Close()
			e.ended <- err
			return
		}
	}
}

func (e *plainEcho) Room() []byte { return e.buf[:] }

func (e *plainEcho) Take(n int) bool {
	e.busy++
	if n > 0 {
		e.c.Write(e.buf[:n])
	}
	return true
}

func (e *plainEcho) Idle() Instant { return Now() }

// The bound of a connection that has no goroutine ends it all the same.
func TestDetachedConnectionEndsAtItsBound(t *testing.T) {
	t.Parallel()
	c, _ := pair(t, Adopt)
	c.ReadBefore(Now().Add(50 * time.Millisecond))
	e := &plainEcho{c: c, ended: make(chan error, 1)}
	c.ServedBy(e)
	e.Resume()
	if err := <-e.ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

// Closed, shut down and interrupted from elsewhere while it has no goroutine.
func TestDetachedConnectionIsTold(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Conn){"close": func(c *Conn) { c.Close() }, "shutdown": (*Conn).Shutdown} {
		c, _ := pair(t, Adopt)
		e := &plainEcho{c: c, ended: make(chan error, 1)}
		c.ServedBy(e)
		e.Resume()
		c.Interrupt()
		end(c)
		if err := <-e.ended; err == nil {
			t.Errorf("%s: ended without a reason", name)
		}
	}
}

// A panic of a handler must not keep the descriptor open.
func TestPanicOfAHandlerLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, Adopt)
	peer.Write([]byte("x"))
	func() {
		defer func() { recover() }()
		c.Loop(panicking{})
	}()
	c.Close()
	peer.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := peer.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Fatalf("the connection is still open: %v", err)
	}
}

type panicking struct{}

func (panicking) Room() []byte  { return make([]byte, 8) }
func (panicking) Take(int) bool { panic("on purpose") }
func (panicking) Idle() Instant { return Now() }

// What the poller knows without a system call: the peer spoke, or left.
func TestQuiet(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, Adopt)
	if !c.Quiet() || !c.Alive() {
		t.Fatal("a silent open connection is quiet")
	}
	noisy := func() error {
		if c.Quiet() {
			return errors.New("still quiet")
		}
		return nil
	}
	peer.Write([]byte("excess"))
	testenv.Eventually(t, 10*time.Second, noisy)
	buf := make([]byte, 6) // exactly what there is: whether more came is not known, so the kernel is asked
	if _, err := io.ReadFull(c, buf); err != nil {
		t.Fatal(err)
	}
	if !c.Quiet() {
		t.Fatal("all was read")
	}
	peer.CloseWrite()
	testenv.Eventually(t, 10*time.Second, noisy)
	if c.Alive() {
		t.Fatal("a closed connection must not be alive")
	}
}

// A new connection gets the number of a descriptor that was just closed, again and again, while events of the old one are under way.
func TestNumbersAreReused(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 200 {
				peer, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				peer.Write([]byte("first"))
				peer.SetDeadline(time.Now().Add(20 * time.Second))
				if b, err := io.ReadAll(peer); err != nil || string(b) != "first" {
					t.Errorf("%q %v", b, err)
				}
				peer.Close()
			}
		})
		group.Go(func() {
			buf := make([]byte, 64)
			for range 200 {
				nc, err := ln.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				c := Adopt(nc)
				c.ReadBefore(Now().Add(20 * time.Second))
				n, err := c.Read(buf)
				if err != nil {
					t.Error(err)
				}
				c.Write(buf[:n])
				c.Close()
			}
		})
	}
	group.Wait()
}

// Everything at once, on many processors: questions and answers with early and late timers, interrupts, half-closes, and closes from
// elsewhere. Whoever waits is told; a missed wake-up would show as a test that does not end.
func TestStorm(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		seconds := 1
		if os.Getenv("MENSHEN_SOAK") != "" {
			seconds = 60
		}
		until := time.Now().Add(time.Duration(seconds) * time.Second)
		var group sync.WaitGroup
		for i := range 16 {
			group.Go(func() {
				random := rand.New(rand.NewPCG(uint64(i), 2))
				for time.Now().Before(until) {
					storm(t, random, open)
				}
			})
		}
		group.Wait()
	})
}

func storm(t *testing.T, random *rand.Rand, open func(net.Conn) *Conn) {
	c, peer := pairNow(t, open)
	var group sync.WaitGroup
	defer group.Wait() // after both ends are closed
	defer c.Close()
	defer peer.Close()
	group.Go(func() { io.Copy(peer, peer); peer.CloseWrite() })
	buf := make([]byte, 2048)
	c.WritePatience(10 * time.Second)
	end := random.IntN(4)
	for range 1 + random.IntN(60) {
		c.ReadBefore(Now().Add(10 * time.Second))
		if random.IntN(10) == 0 { // nothing will come: the bound must end it
			c.ReadBefore(Now().Add(time.Duration(1+random.IntN(3000)) * time.Microsecond))
			if err := nothing(c); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("await: %v", err)
				return
			}
			c.ReadBefore(Now().Add(10 * time.Second))
		}
		if random.IntN(10) == 0 {
			group.Go(c.Interrupt)
			if err := nothing(c); !errors.Is(err, ErrInterrupted) {
				t.Errorf("interrupt: %v", err)
				return
			}
		}
		p := buf[:1+random.IntN(len(buf))]
		left := len(p)
		var err error
		if random.IntN(2) == 0 {
			var n int
			n, _, err = c.Ask(p, room(buf[:1+random.IntN(len(p))]))
			left -= n
		} else {
			_, err = c.Write(p)
		}
		for left > 0 && err == nil {
			var n int
			n, err = c.Read(buf[:min(left, 1+random.IntN(len(buf)))])
			left -= n
		}
		if err != nil {
			t.Errorf("echo: %v", err)
			return
		}
	}
	c.ReadBefore(Now().Add(10 * time.Second))
	switch end {
	case 0: // the peer half-closes after us
		c.CloseWrite()
		if _, err := c.Read(buf); err != io.EOF {
			t.Errorf("half-close: %v", err)
		}
	case 1: // closed under a read
		group.Go(func() { c.Close() })
		if _, err := c.Read(buf); err == nil {
			t.Error("a closed connection gave something")
		}
	case 2:
		group.Go(c.Shutdown)
		if _, err := c.Read(buf); err == nil {
			t.Error("a connection that was shut down gave something")
		}
	case 3: // reset
		peer.SetLinger(0)
		peer.Close()
		if _, err := c.Read(buf); err == nil {
			t.Error("a reset connection gave something")
		}
	}
}

// nothing waits for what does not come.
func nothing(c *Conn) error {
	if err := c.Await(); err != nil {
		return err
	}
	n, err := c.Read(make([]byte, 1)) // Await may be early
	if n > 0 {
		err = errors.New("something came")
	}
	return err
}

// pairNow is pair without a cleanup at the end of the test.
func pairNow(t testing.TB, open func(net.Conn) *Conn) (*Conn, *net.TCPConn) {
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
	return open(nc), peer.(*net.TCPConn)
}

// Deadlines as net.Conn has them: also for a call that waits already, and taken back.
func TestDeadlinesOfOthers(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, open func(net.Conn) *Conn) {
		c, peer := pair(t, open)
		buf := make([]byte, 8)
		nc := c.Conn
		done := make(chan error, 1)
		go func() { _, err := nc.Read(buf); done <- err }()
		nc.SetReadDeadline(time.Unix(1, 0))
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		peer.Write([]byte("x"))
		if _, err := nc.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a deadline that has passed: %v", err)
		}
		nc.SetDeadline(time.Time{})
		if n, err := nc.Read(buf); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		nc.SetWriteDeadline(time.Now().Add(30 * time.Millisecond))
		if _, err := nc.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("write: %v", err)
		}
	})
}

// No allocation for a question and its answer.
func TestQuestionsAllocateNothing(t *testing.T) {
	for name, open := range map[string]func(net.Conn) *Conn{"netpoll": New, "epoll": Adopt} {
		c, peer := pair(t, open)
		go io.CopyBuffer(struct{ io.Writer }{peer}, struct{ io.Reader }{peer}, make([]byte, 512))
		p, answer := []byte("question"), new(answering)
		if n := testing.AllocsPerRun(200, func() {
			now := Now()
			c.ReadBeforeSince(now, now.Add(time.Minute))
			if _, _, err := c.Ask(p, answer); err != nil {
				t.Fatal(err)
			}
		}); n > 0.5 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
