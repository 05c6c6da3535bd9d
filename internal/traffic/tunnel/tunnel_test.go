package tunnel

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/menshen-gateway/menshen/internal/poll"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what should happen at once; only a broken test waits for it.
const patience = 20 * time.Second

// relay starts a tunnel, and gives where its end will be told.
func relay(a, b net.Conn, idle time.Duration) (*Tunnel, chan Result) {
	done := make(chan Result, 2) // a second result would be a bug
	t := New(a, b, idle, func(r Result) { done <- r })
	t.Start()
	return t, done
}

// rig is a client and a server with a tunnel between them.
type rig struct {
	client, server net.Conn
	done           chan Result
	cut            func(error)
}

func (r *rig) wait(t *testing.T) Result {
	t.Helper()
	select {
	case got := <-r.done:
		return got
	case <-time.After(patience):
		t.Fatal("the tunnel did not end")
		panic("unreachable")
	}
}

type wrap func(t testing.TB, client, server net.Conn) (net.Conn, net.Conn)

func plain(_ testing.TB, client, server net.Conn) (net.Conn, net.Conn) { return client, server }

func polled(_ testing.TB, client, server net.Conn) (net.Conn, net.Conn) {
	return client, poll.New(server)
}

func adopted(_ testing.TB, client, server net.Conn) (net.Conn, net.Conn) {
	return client, poll.Adopt(server)
}

// hidden takes the socket's type away, so that the general path is used without TLS.
func hidden(_ testing.TB, client, server net.Conn) (net.Conn, net.Conn) {
	type conn interface {
		net.Conn
		CloseWrite() error
	}
	return client, struct{ conn }{server.(conn)}
}

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"x.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

func secured(t testing.TB, client, server net.Conn) (net.Conn, net.Conn) {
	c := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	s := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{certificate()}})
	errs := make(chan error, 1)
	go func() { errs <- s.Handshake() }()
	if err := errors.Join(c.Handshake(), <-errs); err != nil {
		t.Fatal(err)
	}
	return c, s
}

func securedAdopted(t testing.TB, client, server net.Conn) (net.Conn, net.Conn) {
	return secured(t, client, poll.Adopt(server))
}

// pair gives the two ends of a TCP connection.
func pair(t testing.TB) (dialed, accepted net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := make(chan net.Conn, 1)
	go func() {
		conn, _ := ln.Accept()
		c <- conn
	}()
	if dialed, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if accepted = <-c; accepted == nil {
		t.Fatal("not accepted")
	}
	return dialed, accepted
}

func newRig(t testing.TB, w wrap, idle time.Duration) *rig {
	t.Helper()
	client, a := pair(t)
	server, b := pair(t)
	r := &rig{}
	r.client, a = w(t, client, a)
	r.server, b = w(t, server, b)
	tunnel, done := relay(a, b, idle)
	r.cut, r.done = tunnel.Cut, done
	t.Cleanup(func() {
		r.cut(nil)
		client.Close()
		server.Close()
	})
	_ = client.SetDeadline(time.Now().Add(patience))
	_ = server.SetDeadline(time.Now().Add(patience))
	return r
}

// each runs a test over every kind of connection.
func each(t *testing.T, f func(t *testing.T, w wrap)) {
	for name, w := range map[string]wrap{"sockets": plain, "polled": polled, "adopted": adopted, "wrapped": hidden, "tls": secured, "tls adopted": securedAdopted} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, w)
		})
	}
}

func TestBothDirectionsArriveWhole(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w wrap) {
		const size = 24<<20 + 7
		r := newRig(t, w, patience)
		payload := func(seed byte) []byte {
			p := make([]byte, size)
			for i := range p {
				p[i] = byte(i*7+i>>9) ^ seed
			}
			return p
		}
		up, down := payload(1), payload(2)
		send := func(c net.Conn, p []byte) {
			if _, err := c.Write(p); err != nil {
				t.Error(err)
			}
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Error(err)
			}
		}
		check := func(c net.Conn, want []byte) {
			h := sha256.New()
			n, err := io.Copy(h, c)
			if err != nil || n != int64(len(want)) || !bytes.Equal(h.Sum(nil), sum(want)) {
				t.Errorf("got %d of %d bytes, or others: %v", n, len(want), err)
			}
		}
		var g sync.WaitGroup
		g.Go(func() { send(r.client, up) })
		g.Go(func() { send(r.server, down) })
		g.Go(func() { check(r.server, up) })
		g.Go(func() { check(r.client, down) })
		g.Wait()
		if got := r.wait(t); got != (Result{size, size, nil}) {
			t.Errorf("the tunnel gave %+v", got)
		}
	})
}

func sum(p []byte) []byte {
	h := sha256.Sum256(p)
	return h[:]
}

func TestHalfCloseLeavesTheOtherDirectionOpen(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w wrap) {
		r := newRig(t, w, patience)
		if _, err := io.WriteString(r.client, "question"); err != nil {
			t.Fatal(err)
		}
		if err := r.client.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r.server); err != nil || string(got) != "question" {
			t.Fatalf("server got %q, %v", got, err)
		}
		// The server has seen the end and answers only now.
		if _, err := io.WriteString(r.server, "answer"); err != nil {
			t.Fatal(err)
		}
		r.server.Close()
		if got, err := io.ReadAll(r.client); err != nil || string(got) != "answer" {
			t.Fatalf("client got %q, %v", got, err)
		}
		if got := r.wait(t); got != (Result{8, 6, nil}) {
			t.Errorf("the tunnel gave %+v", got)
		}
	})
}

func TestIdleClosesBoth(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w wrap) {
		const idle = 50 * time.Millisecond
		start := time.Now()
		r := newRig(t, w, idle)
		got := r.wait(t)
		if !errors.Is(got.Err, ErrIdle) || time.Since(start) < idle {
			t.Errorf("the tunnel gave %+v after %s", got, time.Since(start))
		}
		for _, c := range []net.Conn{r.client, r.server} {
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, syscall.ETIMEDOUT) {
				t.Errorf("the connection is still open: %v", err)
			}
		}
	})
}

func TestTrafficInOneDirectionKeepsItOpen(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w wrap) {
		const idle = 200 * time.Millisecond
		r := newRig(t, w, idle)
		buffer := make([]byte, 1)
		longest := time.Duration(0)
		for start, moved := time.Now(), time.Now(); time.Since(start) < 3*idle; moved = time.Now() {
			_, err := r.server.Write(buffer)
			if err == nil {
				_, err = io.ReadFull(r.client, buffer)
			}
			longest = max(longest, time.Since(moved))
			if err != nil && longest > idle/2 {
				t.Skipf("this machine stood still for %s, which is what the idle time is for", longest)
			}
			if err != nil {
				t.Fatalf("%v; the longest pause was %s", err, longest)
			}
		}
		r.client.Close()
		r.wait(t)
	})
}

// The same without real time: the pipe's ends are tied to the bubble's clock.
func TestIdleCountsFromTheLastByte(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, a := net.Pipe()
		b, server := net.Pipe()
		_, done := relay(a, b, time.Minute)
		start := time.Now()
		for range 10 {
			time.Sleep(50 * time.Second)
			go client.Write([]byte("x"))
			if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		got := <-done
		if got.There != 10 || !errors.Is(got.Err, ErrIdle) || time.Since(start) != 10*50*time.Second+time.Minute {
			t.Errorf("the tunnel gave %+v after %s", got, time.Since(start))
		}
	})
}

// A connection that cannot be half-closed learns of the end by being closed.
func TestWithoutHalfCloseTheEndOfOneIsTheEndOfBoth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, a := net.Pipe()
		b, server := net.Pipe()
		go func() {
			io.WriteString(client, "last words")
			client.Close()
		}()
		read := make(chan string, 1)
		go func() {
			p, _ := io.ReadAll(server)
			read <- string(p)
		}()
		_, done := relay(a, b, 0)
		if got := <-done; got != (Result{10, 0, nil}) || <-read != "last words" {
			t.Errorf("the tunnel gave %+v", got)
		}
	})
}

func TestABlockedWriteIsIdle(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w wrap) {
		r := newRig(t, w, 100*time.Millisecond)
		var sent atomic.Int64
		go func() { // ends when the tunnel closes
			p := make([]byte, 1<<20)
			for {
				n, err := r.client.Write(p)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		}()
		if got := r.wait(t); !errors.Is(got.Err, ErrIdle) || got.There == 0 {
			t.Errorf("the tunnel gave %+v", got)
		}
	})
}

// A reader that takes a little at a time is slow, not idle: parts of a blocked write count as progress.
func TestASlowReaderIsNotIdle(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only on Linux the progress of a blocked write is known")
	}
	for name, w := range map[string]wrap{"polled": polled, "adopted": adopted, "tls": securedAdopted} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The kernel tells of room when a third of its buffer is free, which is five of the reads below: on a slow machine they are 60 ms apart.
			const idle = 450 * time.Millisecond
			r := newRig(t, w, idle)
			go func() { // ends when the tunnel closes
				p := make([]byte, 1<<20)
				for {
					if _, err := r.client.Write(p); err != nil {
						return
					}
				}
			}()
			tick := time.NewTicker(idle / 45)
			defer tick.Stop()
			p := make([]byte, 256<<10)
			longest := time.Duration(0)
			for start, read := time.Now(), time.Now(); time.Since(start) < 5*idle; <-tick.C {
				_, err := io.ReadFull(r.server, p)
				longest, read = max(longest, time.Since(read)), time.Now()
				if err != nil && longest > idle/2 {
					t.Skipf("this machine stood still for %s, which is what the idle time is for", longest)
				}
				if err != nil {
					t.Fatalf("%v; the longest pause was %s", err, longest)
				}
			}
			r.cut(errors.New("enough"))
			r.wait(t)
		})
	}
}

func TestCutEndsIt(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w wrap) {
		r := newRig(t, w, 0)
		if _, err := io.WriteString(r.client, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r.server, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		cause := errors.New("draining")
		r.cut(cause)
		if got := r.wait(t); got != (Result{1, 0, cause}) {
			t.Errorf("the tunnel gave %+v", got)
		}
	})
}

func TestResetEndsBoth(t *testing.T) {
	t.Parallel()
	for _, w := range []wrap{plain, hidden} {
		r := newRig(t, w, patience)
		if _, err := io.WriteString(r.client, "x"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r.server, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		_ = r.client.(*net.TCPConn).SetLinger(0)
		r.client.Close()
		if got := r.wait(t); !errors.Is(got.Err, syscall.ECONNRESET) || got.There != 1 {
			t.Errorf("the tunnel gave %+v", got)
		}
		if _, err := r.server.Read(make([]byte, 1)); err == nil {
			t.Error("the other side is still open")
		}
	}
}

// What the doors use to bound reads while they speak HTTP must not end the tunnel.
func TestEarlierDeadlinesAreCleared(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w wrap) {
		r := newRig(t, func(t testing.TB, client, server net.Conn) (net.Conn, net.Conn) {
			client, server = w(t, client, server)
			if p, ok := server.(*poll.Conn); ok {
				p.ReadBefore(poll.Now().Add(time.Millisecond))
			}
			_ = server.SetDeadline(time.Now().Add(time.Millisecond))
			return client, server
		}, patience)
		for start := time.Now(); time.Since(start) < 20*time.Millisecond; {
			if _, err := io.WriteString(r.client, "x"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(r.server, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestAClosedSide(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w wrap) {
		client, a := pair(t)
		server, b := pair(t)
		client, a = w(t, client, a)
		server, b = w(t, server, b)
		defer client.Close()
		defer server.Close()
		b.Close()
		_, done := relay(a, b, patience)
		if got := <-done; got.There != 0 || !errors.Is(got.Err, net.ErrClosed) {
			t.Errorf("the tunnel gave %+v", got)
		}
	})
}

// An idle tunnel between sockets must hold no buffer: only then do many of them cost little.
func TestIdleSocketsHoldNoBuffer(t *testing.T) {
	made := buffers.New
	var out atomic.Int64
	buffers = sync.Pool{New: func() any { out.Add(1); return made() }}
	for range 100 {
		buffers.Put(buffers.Get())
	}
	if out.Swap(0) > 2 {
		t.Skip("the race detector's pools forget on purpose")
	}
	const tunnels = 64
	rigs := make([]*rig, tunnels)
	for i := range rigs {
		rigs[i] = newRig(t, []wrap{plain, adopted}[i%2], patience)
		p := make([]byte, 8)
		for range 3 {
			if _, err := rigs[i].client.Write(p); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(rigs[i].server, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := out.Load(); n > tunnels/2 { // a garbage collection may cost some
		t.Errorf("%d idle tunnels made %d buffers", tunnels, n)
	}
}
