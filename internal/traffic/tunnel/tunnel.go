// Package tunnel relays bytes between two connections, both ways, until both directions have ended: for WebSockets after
// their upgrade and for plain TCP. It looks at no byte and keeps none: a direction in which nothing flows holds no
// buffer when its sides are plain sockets, so that a hundred thousand idle tunnels cost their goroutines only.
//
// Goroutines: two per tunnel, the caller's and one that Copy starts and waits for.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

var errPanic = errors.New("tunnel: panic")

// ErrIdle is the error of Copy when nothing moved in either direction for the idle time.
var ErrIdle = errors.New("tunnel: nothing moved in either direction for the idle time")

const (
	// bufferBytes is what one read takes at most.
	bufferBytes = 32 << 10
	// waitBytes is the buffer that a direction holds while it waits on a connection that is not a plain socket
	// (TLS keeps its own record buffer, and gives the rest of a record without waiting).
	waitBytes = 2 << 10
)

var buffers = sync.Pool{New: func() any { return new([bufferBytes]byte) }}

// Copy relays until both directions have ended, closes both connections, and gives the bytes that were written to b and to
// a. pre goes to b before anything that is read from a: bytes of a that were read together with a request's head.
//
// The end of one direction is passed on as a half-close (CloseWrite, for TLS close_notify) while the other goes on; a
// connection that cannot be half-closed is closed. An error in one direction ends both. Byte progress in either direction,
// also part of a blocked write on plain sockets, restarts the idle time; 0 means no bound. When it passes, or when ctx
// ends, both connections are closed and the error is ErrIdle or the context's cause. An orderly end of both directions
// gives nil.
//
// Copy must be the only user of both connections. It clears their deadlines: the idle time takes their place.
func Copy(ctx context.Context, a, b net.Conn, idle time.Duration, pre []byte) (aToB, bToA int64, err error) {
	t := &tunnel{a: a, b: b, idle: idle, epoch: time.Now()}
	_, _ = a.SetDeadline(time.Time{}), b.SetDeadline(time.Time{}) // fails on a closed connection only, as the first read will
	stop := context.AfterFunc(ctx, func() { t.fail(context.Cause(ctx)) })
	defer stop()
	if idle > 0 {
		t.mu.Lock() // watch must not run before the timer is stored
		t.timer = time.AfterFunc(idle, t.watch)
		t.mu.Unlock()
	}
	there := direction{tunnel: t, dst: b, src: a, from: "a", to: "b"}
	back := direction{tunnel: t, dst: a, src: b, from: "b", to: "a"}
	done := make(chan any)
	go func() { // ends with its direction; fail and the return below end it by closing the connections
		defer func() {
			broken := recover() // a bug is the caller's to count: here it would end the process
			if broken != nil {
				t.fail(errPanic)
			}
			done <- broken
		}()
		back.run(nil)
	}()
	whole := false
	defer func() {
		if !whole { // a panic passes by
			t.fail(errPanic)
		}
		broken := <-done
		t.fail(nil)
		if aToB, bToA, err = there.count, back.count, t.err; broken != nil {
			panic(broken)
		}
	}()
	there.run(pre)
	whole = true
	return 0, 0, nil // filled in above, when the other direction has ended too
}

// tunnel is what both directions share.
type tunnel struct {
	a, b  net.Conn
	idle  time.Duration
	epoch time.Time
	moved atomic.Int64 // when bytes last moved, in nanoseconds since epoch

	mu    sync.Mutex
	timer *time.Timer // nil without an idle time
	ended bool
	err   error // the first; what follows from closing the connections is no news
}

func (t *tunnel) progress() {
	if t.idle > 0 {
		t.moved.Store(int64(time.Since(t.epoch)))
	}
}

// watch is the timer: instead of a deadline for each read and write it looks once per idle time whether anything moved.
func (t *tunnel) watch() {
	t.mu.Lock()
	quiet := time.Since(t.epoch) - time.Duration(t.moved.Load())
	if !t.ended && quiet < t.idle {
		t.timer.Reset(t.idle - quiet)
		t.mu.Unlock()
		return
	}
	t.mu.Unlock()
	t.fail(ErrIdle)
}

// fail ends the tunnel: it keeps the first error and closes both connections. nil is the orderly end.
func (t *tunnel) fail(err error) {
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return
	}
	t.ended, t.err = true, err
	if t.timer != nil {
		t.timer.Stop()
	}
	t.mu.Unlock()
	_ = t.a.Close() // nothing is left to write: an error here has no consequence
	_ = t.b.Close()
}

// direction is one half of a tunnel.
type direction struct {
	*tunnel
	dst, src net.Conn
	from, to string // for errors
	count    int64  // bytes written to dst
}

func (d *direction) run(pre []byte) {
	err := d.relay(pre)
	if err == nil {
		half, ok := d.dst.(interface{ CloseWrite() error })
		if !ok {
			d.fail(nil) // only closing can tell dst that no more will come
			return
		}
		if err = half.CloseWrite(); err != nil {
			err = d.writeError(err)
		}
	}
	if err != nil {
		d.fail(err)
	}
}

func (d *direction) relay(pre []byte) error {
	if len(pre) > 0 {
		if err := d.write(pre); err != nil {
			return err
		}
	}
	if relayed, err := d.relaySockets(); relayed {
		return err
	}
	return d.relayAny()
}

// relayAny works on every net.Conn. It waits with a small buffer and takes a large one when that is not enough.
func (d *direction) relayAny() error {
	small := make([]byte, waitBytes)
	for {
		n, err := d.src.Read(small)
		more := n == len(small) && err == nil
		if err := d.pass(small[:n], err); err != nil {
			return orderly(err)
		}
		if more {
			if err := d.relayBurst(); err != nil {
				return orderly(err)
			}
		}
	}
}

// relayBurst relays with a large buffer for as long as reads fill at least a small one.
func (d *direction) relayBurst() error {
	large := buffers.Get().(*[bufferBytes]byte)
	defer buffers.Put(large)
	for {
		n, err := d.src.Read(large[:])
		if err := d.pass(large[:n], err); err != nil {
			return err
		}
		if n < waitBytes {
			return nil
		}
	}
}

// pass writes what a read gave and then returns the read's error.
func (d *direction) pass(data []byte, readErr error) error {
	if len(data) > 0 {
		d.progress()
		if err := d.write(data); err != nil {
			return err
		}
	}
	if readErr == nil || readErr == io.EOF {
		return readErr
	}
	return d.readError(readErr)
}

func (d *direction) write(data []byte) error {
	n, err := d.dst.Write(data)
	d.count += int64(n)
	if n > 0 {
		d.progress()
	}
	if err != nil {
		return d.writeError(err)
	}
	return nil
}

func (d *direction) readError(err error) error {
	return fmt.Errorf("tunnel: read from %s: %w", d.from, err)
}
func (d *direction) writeError(err error) error {
	return fmt.Errorf("tunnel: write to %s: %w", d.to, err)
}

// orderly makes the end of a stream no error.
func orderly(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
