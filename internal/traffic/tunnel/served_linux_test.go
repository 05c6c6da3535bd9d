package tunnel

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// served runs a test over the kinds of connection that need no goroutine.
func served(t *testing.T, f func(t *testing.T, w wrap)) {
	for name, w := range map[string]wrap{"adopted": adopted, "tls": securedAdopted} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, w)
		})
	}
}

// echo sends back what comes until it ends.
func echo(c net.Conn) {
	_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	_ = c.(interface{ CloseWrite() error }).CloseWrite()
}

// A thousand tunnels in which nobody speaks need no goroutine. It is not parallel, or it would count those of others.
func TestIdleTunnelsHoldNoGoroutine(t *testing.T) {
	tunnels := 1000
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil && files.Cur < 5000 {
		tunnels = int(files.Cur) / 5
	}
	before := runtime.NumGoroutine()
	rigs := make([]*rig, tunnels)
	p := make([]byte, 8)
	for i := range rigs {
		w := adopted
		if i%20 == 0 {
			w = securedAdopted
		}
		rigs[i] = newRig(t, w, patience)
		for _, way := range [][2]net.Conn{{rigs[i].client, rigs[i].server}, {rigs[i].server, rigs[i].client}} {
			if _, err := way[0].Write(p); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(way[1], p); err != nil {
				t.Fatal(err)
			}
		}
	}
	testenv.Eventually(t, patience, func() error {
		// The poller's own one, and those that it keeps for the next burst.
		if now := runtime.NumGoroutine(); now > before+20 {
			return fmt.Errorf("%d idle tunnels hold %d goroutines", tunnels, now-before)
		}
		return nil
	})
	for _, r := range rigs {
		r.cut(errors.New("enough"))
	}
	for _, r := range rigs {
		if got := r.wait(t); got.There != 8 || got.Back != 8 {
			t.Fatalf("the tunnel gave %+v", got)
		}
	}
}

// Messages with pauses of all lengths, so that they come before, while and after the tunnel falls idle. None may be left lying, and none may be lost.
func TestNothingIsLeftLyingWhileItFallsIdle(t *testing.T) {
	t.Parallel()
	served(t, func(t *testing.T, w wrap) {
		const tunnels, messages = 24, 400
		var group sync.WaitGroup
		for i := range tunnels {
			r := newRig(t, w, 0)
			group.Go(func() { echo(r.server) })
			group.Go(func() {
				random := rand.New(rand.NewPCG(uint64(i), 11))
				message, got := make([]byte, 300), make([]byte, 300)
				for n := range messages {
					size := 1 + random.IntN(len(message))
					binary.LittleEndian.PutUint16(message[:2], uint16(n))
					if _, err := r.client.Write(message[:size]); err != nil {
						t.Errorf("message %d: %v", n, err)
						return
					}
					if _, err := io.ReadFull(r.client, got[:size]); err != nil || !bytes.Equal(got[:size], message[:size]) {
						t.Errorf("message %d came back as another, or not: %v", n, err)
						return
					}
					for range random.IntN(30) { // a pause about as long as falling asleep takes
						runtime.Gosched()
					}
				}
				_ = r.client.(interface{ CloseWrite() error }).CloseWrite()
				if _, err := r.client.Read(got); err != io.EOF {
					t.Errorf("instead of the end came %v", err)
				}
			})
			group.Go(func() {
				if got := <-r.done; got.Err != nil || got.There != got.Back || got.There < messages {
					t.Errorf("the tunnel gave %+v", got)
				}
			})
		}
		group.Wait()
	})
}

// Whoever ends it, and whenever, the tunnel tells its end once, both sides are closed, and nothing arrives that was not sent.
func TestItEndsOnceWheneverItEnds(t *testing.T) {
	t.Parallel()
	served(t, func(t *testing.T, w wrap) {
		const tunnels = 120
		limit := make(chan struct{}, 16)
		var group sync.WaitGroup
		for i := range tunnels {
			limit <- struct{}{}
			r := newRig(t, w, 0)
			group.Go(func() {
				defer func() { <-limit }()
				random := rand.New(rand.NewPCG(uint64(i), 5))
				cause, way := errors.New("enough"), random.IntN(6)
				var sent, received atomic.Int64
				var both sync.WaitGroup
				both.Go(func() { echo(r.server); r.server.Close() })
				both.Go(func() {
					n, _ := io.Copy(io.Discard, struct{ io.Reader }{r.client})
					received.Store(n)
					if way != 0 { // else the end is the other's to pass on
						r.client.Close()
					}
				})
				p := make([]byte, 1+random.IntN(100<<10))
				for range random.IntN(4) {
					n, err := r.client.Write(p)
					sent.Add(int64(n))
					if err != nil {
						break
					}
				}
				for range random.IntN(200) {
					runtime.Gosched()
				}
				switch way {
				case 0:
					_ = r.client.(interface{ CloseWrite() error }).CloseWrite()
				case 1:
					r.client.Close()
				case 2:
					r.server.Close()
				case 3:
					both.Go(func() { r.cut(cause) })
					r.cut(cause)
				case 4: // both at once
					both.Go(func() { r.client.Close() })
					r.server.Close()
				case 5:
					both.Go(func() { r.cut(cause) })
					r.client.Close()
				}
				got := <-r.done
				both.Wait()
				if way == 0 && (got.Err != nil || got.There != sent.Load() || got.Back != received.Load() || got.There != got.Back) {
					t.Errorf("an orderly end: %+v, %d were sent and %d came", got, sent.Load(), received.Load())
				}
				if way == 3 && got.Err != cause {
					t.Errorf("cut: %+v", got)
				}
				if got.There > sent.Load() || received.Load() > got.Back || got.Back > got.There {
					t.Errorf("way %d: %+v, %d were sent and %d came", way, got, sent.Load(), received.Load())
				}
				if len(r.done) > 0 {
					t.Errorf("way %d: it ended twice", way)
				}
			})
		}
		group.Wait()
	})
}

// Slow readers on both sides at once: no more is read for them than one buffer, the other direction is not held up, and in the end all of it arrives.
func TestSlowReadersHoldUpWhoeverSends(t *testing.T) {
	t.Parallel()
	served(t, func(t *testing.T, w wrap) {
		small := func(t testing.TB, client, server net.Conn) (net.Conn, net.Conn) {
			for _, c := range []net.Conn{client, server} {
				_ = c.(*net.TCPConn).SetReadBuffer(64 << 10)
				_ = c.(*net.TCPConn).SetWriteBuffer(64 << 10)
			}
			return w(t, client, server)
		}
		const size = 8 << 20
		r := newRig(t, small, patience)
		var sent [2]atomic.Int64
		var group sync.WaitGroup
		sides := []net.Conn{r.client, r.server}
		for i, c := range sides {
			group.Go(func() {
				p := make([]byte, 16<<10)
				for sent[i].Load() < size {
					for at := range p {
						p[at] = byte((int(sent[i].Load()) + at) * 7 >> (i + 3))
					}
					n, err := c.Write(p)
					sent[i].Add(int64(n))
					if err != nil {
						t.Error(err)
						return
					}
				}
				_ = c.(interface{ CloseWrite() error }).CloseWrite()
			})
		}
		// Nobody reads: both get stuck.
		last := [2]int64{-1, -1}
		testenv.Eventually(t, patience, func() error {
			time.Sleep(50 * time.Millisecond) // that nothing moves can only be seen by waiting
			now := [2]int64{sent[0].Load(), sent[1].Load()}
			if was := last; now != was {
				last = now
				return fmt.Errorf("%v bytes were sent, then %v", was, now)
			}
			return nil
		})
		if last[0] > size/2 || last[1] > size/2 {
			t.Errorf("%v bytes have gone to nobody", last)
		}
		for i, c := range sides { // first all of one direction, then of the other
			p, at := make([]byte, 32<<10), 0
			for {
				n, err := c.Read(p)
				for _, b := range p[:n] {
					if b != byte(at*7>>(1-i+3)) {
						t.Fatalf("byte %d is another", at)
					}
					at++
				}
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if at != size {
				t.Errorf("%d bytes have come, of %d", at, size)
			}
		}
		group.Wait()
		if got := r.wait(t); got != (Result{size, size, nil}) {
			t.Errorf("the tunnel gave %+v", got)
		}
	})
}

// Under TLS, many records may come in one piece, or one record in many, and in either case the poller hears of pieces and not of records.
func TestRecordsInPieces(t *testing.T) {
	t.Parallel()
	raw, a := pair(t)
	server, b := pair(t)
	cut := &pieces{Conn: raw}
	defer server.Close()
	defer raw.Close()
	client, secure := secured(t, cut, poll.Adopt(a))
	_, done := relay(secure, poll.Adopt(b), patience)
	_ = server.SetDeadline(time.Now().Add(patience))
	random := rand.New(rand.NewPCG(1, 2))
	got := make([]byte, 40<<10)
	for i := range 60 {
		cut.hold(true)
		size := 0
		for range 1 + random.IntN(20) {
			p := bytes.Repeat([]byte{byte(i)}, 1+random.IntN(1500))
			size += len(p)
			if _, err := client.Write(p); err != nil {
				t.Fatal(err)
			}
		}
		if i%2 == 0 {
			cut.hold(false) // all records at once
		} else {
			cut.trickle(random)
		}
		if _, err := io.ReadFull(server, got[:size]); err != nil || bytes.Count(got[:size], []byte{byte(i)}) != size {
			t.Fatalf("burst %d of %d bytes: %v", i, size, err)
		}
	}
	client.(*tls.Conn).Close()
	if n, err := server.Read(got); err != io.EOF {
		t.Errorf("%d bytes, %v", n, err)
	}
	server.Close()
	if got := <-done; got.Err != nil {
		t.Errorf("the tunnel gave %+v", got)
	}
}

// pieces is a connection that keeps what is written, and sends it in other pieces.
type pieces struct {
	net.Conn
	held bool
	kept []byte
}

func (c *pieces) Write(p []byte) (int, error) {
	if c.held {
		c.kept = append(c.kept, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *pieces) hold(yes bool) {
	if c.held = yes; !yes {
		_, _ = c.Conn.Write(c.kept)
		c.kept = nil
	}
}

func (c *pieces) trickle(random *rand.Rand) {
	c.held = false
	for len(c.kept) > 0 {
		n := min(len(c.kept), 1+random.IntN(700))
		_, _ = c.Conn.Write(c.kept[:n])
		c.kept = c.kept[n:]
		for range random.IntN(20) {
			runtime.Gosched()
		}
	}
}

// A bug in a goroutine of the poller ends its tunnel, and is told.
func TestABugEndsItsTunnel(t *testing.T) {
	t.Parallel()
	client, a := pair(t)
	server, b := pair(t)
	defer client.Close()
	defer server.Close()
	_, done := relay(poll.Adopt(a), buggy{b}, patience)
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	got := <-done
	var bug *Bug
	if !errors.As(got.Err, &bug) || bug.Value != "BUG: writing" || !bytes.Contains(bug.Stack, []byte("buggy")) {
		t.Errorf("the tunnel gave %+v", got)
	}
	for _, c := range []net.Conn{client, server} {
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("the connection is still open: %v", err)
		}
	}
}

type buggy struct{ net.Conn }

func (buggy) Write([]byte) (int, error) { panic("BUG: writing") }

// A tunnel may be cut before it starts, and long after its end.
func TestCutAtOddTimes(t *testing.T) {
	t.Parallel()
	served(t, func(t *testing.T, w wrap) {
		client, a := pair(t)
		server, b := pair(t)
		client, a = w(t, client, a)
		server, b = w(t, server, b)
		defer client.Close()
		defer server.Close()
		done := make(chan Result, 2)
		tunnel := New(a, b, time.Minute, func(r Result) { done <- r })
		cause := errors.New("enough")
		tunnel.Cut(cause)
		tunnel.Start()
		if got := <-done; got != (Result{0, 0, cause}) {
			t.Errorf("the tunnel gave %+v", got)
		}
		tunnel.Cut(errors.New("once more"))
		if len(done) > 0 {
			t.Errorf("it ended twice: %+v", <-done)
		}
	})
}
