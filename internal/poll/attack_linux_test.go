package poll

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// Urgent data cuts a read short although more is there (tcp(7)); nothing tells of the rest again.
func TestUrgentDataHidesNothing(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, Adopt)
	raw, err := peer.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		peer.Write([]byte("before"))
		if err := raw.Control(func(fd uintptr) { err = syscall.Sendto(int(fd), []byte{'!'}, syscall.MSG_OOB, nil) }); err != nil {
			t.Fatal(err)
		}
		peer.Write([]byte("after"))
		c.ReadBefore(Now().Add(5 * time.Second))
		buf, got := make([]byte, 64), ""
		for len(got) < len("beforeafter") {
			n, err := c.Read(buf)
			if err != nil {
				t.Fatalf("round %d: %q, %v", i, got, err)
			}
			got += string(buf[:n])
		}
	}
}

// A connection that is closed so that the peer sees a break must not say goodbye, also when somebody else looks at it just then.
func TestResetIsNoGoodbye(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, Adopt)
	raw, err := c.own.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	peer.SetDeadline(time.Now().Add(10 * time.Second))
	if err := c.own.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(uintptr) { c.own.Close() }); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("got %v, want a reset", err)
	}
}

// Whoever asks whether a connection is alive must not take the wake-up of the one that waits on it.
func TestAliveTakesNoWakeUp(t *testing.T) {
	t.Parallel()
	c, peer := pair(t, Adopt)
	var stop atomic.Bool
	var group sync.WaitGroup
	defer group.Wait()
	defer stop.Store(true)
	for range 2 {
		group.Go(func() {
			for !stop.Load() {
				c.Alive()
				runtime.Gosched()
			}
		})
	}
	buf := make([]byte, 64)
	for i := range 1000 {
		peer.Write([]byte("a"))
		c.ReadBefore(Now().Add(5 * time.Second))
		if n, err := c.Read(buf); n != 1 || err != nil {
			t.Fatalf("round %d: %d bytes, %v", i, n, err)
		}
	}
}

// served is an echo that is in the hands of one goroutine at a time, and ends once.
type served struct {
	c      *Conn
	t      *testing.T
	inside atomic.Int32
	ended  atomic.Int32
	over   chan struct{}
	buf    [128]byte
}

func (s *served) Resume() {
	if s.inside.Add(1) != 1 {
		s.t.Error("two goroutines have one connection")
	}
	for {
		err := s.c.Loop(s)
		if err == ErrDetached {
			return
		}
		if errors.Is(err, ErrInterrupted) {
			continue
		}
		s.c.Close()
		s.inside.Add(-1)
		if s.ended.Add(1) != 1 {
			s.t.Error("ended twice")
		}
		close(s.over)
		return
	}
}

func (s *served) Room() []byte {
	s.enter()
	return s.buf[:]
}

func (s *served) Take(n int) bool {
	if n > 0 {
		s.c.Write(s.buf[:n])
	}
	return true
}

// Idle is the last thing before the connection may be lost.
func (s *served) Idle() Instant {
	now := Now()
	s.enter()
	s.c.ReadBefore(now.Add(10 * time.Second))
	s.inside.Store(0)
	return now
}

// enter takes the connection back, when it is not lost after Idle.
func (s *served) enter() { s.inside.Store(1) }

// Detached connections under everything that may end or wake them: each ends, once, and is in one goroutine at a time.
func TestDetachedStorm(t *testing.T) {
	t.Parallel()
	seconds := 1
	if os.Getenv("MENSHEN_SOAK") != "" {
		seconds = 60
	}
	until := time.Now().Add(time.Duration(seconds) * time.Second)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 3))
			for time.Now().Before(until) && !t.Failed() {
				detachedStorm(t, random)
			}
		})
	}
	group.Wait()
}

func detachedStorm(t *testing.T, random *rand.Rand) {
	c, peer := pairNow(t, Adopt)
	defer peer.Close()
	s := &served{c: c, t: t, over: make(chan struct{})}
	c.ServedBy(s)
	go s.Resume() // ends when the connection is idle
	peer.SetDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 512)
	for range random.IntN(40) {
		p := buf[:1+random.IntN(len(buf))]
		if _, err := peer.Write(p); err != nil {
			t.Errorf("write: %v", err)
			return
		}
		if random.IntN(4) == 0 {
			c.Interrupt()
		}
		if _, err := io.ReadFull(peer, p); err != nil {
			t.Errorf("echo: %v", err)
			return
		}
	}
	var group sync.WaitGroup
	defer group.Wait()
	for range 1 + random.IntN(3) {
		switch random.IntN(5) {
		case 0:
			group.Go(func() { c.Close() })
		case 1:
			group.Go(c.Shutdown)
		case 2:
			group.Go(func() { peer.CloseWrite() })
		case 3:
			group.Go(func() { peer.SetLinger(0); peer.Close() })
		case 4:
			group.Go(func() { c.SetReadDeadline(time.Now()) })
		}
		if random.IntN(2) == 0 {
			group.Go(c.Interrupt)
		}
	}
	select {
	case <-s.over:
	case <-time.After(8 * time.Second): // less than its idle time
		t.Errorf("the connection was forgotten: state %b, %d users", c.own.state.Load(), c.own.users.Load())
	}
}

// Sockets and pollers are given back. It is not parallel: no other test has any meanwhile.
func TestDescriptorsComeBack(t *testing.T) {
	count := func() (n int) {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		for _, fd := range all {
			to, _ := os.Readlink("/proc/self/fd/" + fd.Name())
			if strings.HasPrefix(to, "socket:") || strings.Contains(to, "eventpoll") {
				n++
			}
		}
		return n
	}
	detachedStorm(t, rand.New(rand.NewPCG(0, 4))) // the runtime's own poller is there from now on
	before := count()
	random := rand.New(rand.NewPCG(1, 4))
	for range 50 {
		detachedStorm(t, random)
		storm(t, random, Adopt)
	}
	testenv.Eventually(t, 10*time.Second, func() error {
		if after := count(); after > before {
			return fmt.Errorf("%d descriptors, %d before", after, before)
		}
		return nil
	})
}
