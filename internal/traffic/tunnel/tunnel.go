// Package tunnel relays bytes between two connections, both ways, until both directions have ended: for WebSockets after
// their upgrade and for plain TCP. It looks at no byte and keeps none.
//
// A direction whose source is on the own poller (poll.Adopt), plain or under TLS, holds neither buffer nor goroutine while nothing comes: the poller finds it a
// goroutine, and so a hundred thousand idle tunnels cost their memory only. A reader that is slow holds up the direction towards it, with one buffer and one
// goroutine, and nothing more is read for it. Any other source costs one goroutine and a small buffer.
//
// Goroutines: those of the poller, or one for a direction, and one that cuts. A Tunnel has told its end (over) when none of them is left. Locks: Tunnel.mu is a leaf.
package tunnel

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/poll"
)

// ErrIdle is the error of a Result when nothing moved in either direction for the idle time.
var ErrIdle = errors.New("tunnel: nothing moved in either direction for the idle time")

// Bug is the error of a Result when a direction has panicked.
type Bug struct {
	Value any
	Stack []byte
}

// Error tells what the panic was about.
func (b *Bug) Error() string { return fmt.Sprintf("tunnel: panic: %v", b.Value) }

// Result is how a tunnel ended.
type Result struct {
	There, Back int64 // bytes written to b and to a
	Err         error // what ended it; nil is the orderly end of both directions
}

const (
	// bufferBytes is what one read takes at most.
	bufferBytes = 32 << 10
	// waitBytes is the buffer that a direction holds while it waits with a goroutine.
	waitBytes = 2 << 10
)

var buffers = sync.Pool{New: func() any { return new([bufferBytes]byte) }}

// Tunnel is two connections and the bytes between them. Its methods may be called from any goroutine.
type Tunnel struct {
	idle        time.Duration
	over        func(Result)
	there, back direction
	moved       atomic.Int64 // the Instant at which bytes last moved

	mu    sync.Mutex
	parts int         // goroutines and directions that use the connections
	timer *time.Timer // nil without an idle time
	ended bool
	err   error // the first; what follows from closing the connections is no news
}

// New makes a tunnel between a and b, which nobody else may use once it has started. over is told the end, once, when
// both connections are closed, in some goroutine.
//
// The end of one direction is passed on as a half-close (CloseWrite, for TLS close_notify) while the other goes on; a
// connection that cannot be half-closed is closed. An error in one direction ends both. Byte progress in either direction,
// also part of a blocked write where the system is Linux, restarts the idle time; 0 means no bound. When it passes, or with Cut,
// both connections are closed. Their deadlines are cleared: the idle time takes their place.
func New(a, b net.Conn, idle time.Duration, over func(Result)) *Tunnel {
	t := &Tunnel{idle: idle, over: over, parts: 2}
	from, to := endOf(a), endOf(b)
	for _, e := range []*end{&from, &to} { // here, where nobody can have cut it yet, which sets one
		_ = e.SetDeadline(time.Time{}) // fails on a closed connection only, as the first read will
		if e.poll != nil {
			e.poll.ReadBefore(0)
			e.poll.WritePatience(0)
		}
	}
	t.there = direction{Tunnel: t, src: from, dst: to, from: "a", to: "b"}
	t.back = direction{Tunnel: t, src: to, dst: from, from: "b", to: "a"}
	return t
}

// Start begins to relay, and waits for nothing.
func (t *Tunnel) Start() {
	t.progress(poll.Now())
	t.mu.Lock()
	if t.idle > 0 && !t.ended {
		t.timer = time.AfterFunc(t.idle, t.watch)
	}
	t.mu.Unlock()
	// Both know what they are before the first of them runs: it may end the other.
	there, back := t.there.prepare(), t.back.prepare()
	t.there.start(there)
	t.back.start(back)
}

// Cut ends the tunnel, whatever it does: both connections are closed, and why is the error of its Result. It does not wait for that. A tunnel that has ended is left alone.
func (t *Tunnel) Cut(why error) {
	if t.end(why) {
		go t.close() // under TLS it may take a while to say goodbye; over waits for it
	}
}

func (t *Tunnel) progress(now poll.Instant) { t.moved.Store(int64(now)) }

// watch is the timer: instead of a deadline for each read and write it looks once per idle time whether anything moved.
func (t *Tunnel) watch() {
	last := t.there.src.seeping(t.back.src.seeping(poll.Instant(t.moved.Load())))
	t.mu.Lock()
	if quiet := poll.Now().Sub(last); !t.ended && quiet < t.idle {
		t.timer.Reset(t.idle - quiet)
		t.mu.Unlock()
		return
	}
	t.mu.Unlock()
	t.fail(ErrIdle)
}

// fail ends the tunnel for a reason.
func (t *Tunnel) fail(err error) {
	if t.end(err) {
		t.close()
	}
}

// end notes why the tunnel ends, unless it has ended. The caller, if it is the first, is one part more until it has closed the connections.
func (t *Tunnel) end(err error) (first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return false
	}
	t.ended, t.err = true, err
	t.parts++
	if t.timer != nil {
		t.timer.Stop()
	}
	return true
}

// close closes both at the same time: a peer that takes no goodbye must not hold up the other.
func (t *Tunnel) close() {
	var back sync.WaitGroup
	back.Go(t.back.src.close)
	t.there.src.close()
	back.Wait()
	t.leave()
}

// leave is the end of a part. That of the last direction is an orderly end, if nothing else was one.
func (t *Tunnel) leave() {
	t.mu.Lock()
	t.parts--
	left, ended := t.parts, t.ended
	t.mu.Unlock()
	switch {
	case left > 0:
	case !ended:
		t.fail(nil) // which leaves once more
	default:
		t.over(Result{There: t.there.count, Back: t.back.count, Err: t.err})
	}
}

// end is one of the two connections.
type end struct {
	net.Conn
	poll *poll.Conn // what Conn is, or TLS stands on; nil where it is nothing that we know
	tls  bool
}

func endOf(c net.Conn) end {
	switch c := c.(type) {
	case *poll.Conn:
		return end{Conn: c, poll: c}
	case *tls.Conn:
		p, _ := c.NetConn().(*poll.Conn)
		return end{Conn: c, poll: p, tls: true}
	}
	return end{Conn: c}
}

// goodbye is how long a peer may take to read what is being written when its connection is closed.
const goodbye = time.Second

// close closes the connection. Under TLS that is a write behind others, which have no bound of their own: also reads write, when the peer asks for new keys.
func (e *end) close() {
	if e.tls && e.poll != nil {
		_ = e.poll.SetWriteDeadline(time.Now().Add(goodbye)) // wakes who waits; Close sets another one for itself
	}
	_ = e.Close() // nothing is left to write: an error here has no consequence
}

// seeping gives the last progress of a blocked write, if it is later than another moment, which it gives otherwise.
func (e *end) seeping(than poll.Instant) poll.Instant {
	if e.poll == nil {
		return than
	}
	if at := e.poll.Seeping(); at != 0 {
		than = max(than, at)
	}
	return than
}

// direction is one half of a tunnel. It is the poller's Server for its source.
type direction struct {
	*Tunnel
	dst, src end
	from, to string // for errors
	served   bool   // by the poller
	count    int64  // bytes written to dst
}

// prepare says whether the poller is to be asked for a goroutine when something comes: what TLS holds already would not be noticed.
func (d *direction) prepare() (detach bool) {
	d.served = d.src.poll != nil && d.src.poll.NeverWait(d)
	return d.served && !d.src.tls
}

func (d *direction) start(detach bool) {
	if !detach || !d.src.poll.Detach() {
		go d.Resume() // ends with its direction, at the latest when the connections are closed, or when nothing is there and the poller has it
	}
}

// Resume relays until the direction has ended, or until the poller has it.
func (d *direction) Resume() {
	left := false
	defer func() {
		if left {
			return // somebody else may be relaying by now
		}
		if broken := recover(); broken != nil { // a bug is the door's to count: here it would end the process
			d.fail(&Bug{broken, debug.Stack()})
		}
		d.leave()
	}()
	var err error
	if d.served {
		left, err = d.relay()
	} else {
		err = d.relayWaiting()
	}
	if !left {
		d.finish(err)
	}
}

// finish passes the end of the direction on.
func (d *direction) finish(err error) {
	if err == io.EOF {
		half, ok := d.dst.Conn.(interface{ CloseWrite() error })
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

// relay relays what there is. left says that there is nothing, and that the direction is not ours any more.
func (d *direction) relay() (left bool, err error) {
	buffer := buffers.Get().(*[bufferBytes]byte)
	now := d.src.poll.Recent() // reading the clock would cost as much as all of this but the system calls
	for {
		n, err := d.src.Read(buffer[:])
		if n > 0 {
			if now == 0 {
				now = poll.Now()
			}
			d.progress(now)
			now = 0
			if err := d.write(buffer[:n]); err != nil {
				buffers.Put(buffer)
				return false, err
			}
		}
		switch err {
		case nil, poll.ErrInterrupted: // which was meant for something that is over
			continue
		case poll.ErrNothing:
			buffers.Put(buffer)
			if d.src.poll.Detach() {
				return true, nil
			}
			buffer = buffers.Get().(*[bufferBytes]byte)
			continue
		case io.EOF:
		default:
			err = d.readError(err)
		}
		buffers.Put(buffer)
		return false, err
	}
}

// relayWaiting works on every net.Conn. It waits with a small buffer and takes a large one when that is not enough.
func (d *direction) relayWaiting() error {
	small := make([]byte, waitBytes)
	for {
		n, err := d.src.Read(small)
		more := n == len(small) && err == nil
		if err := d.pass(small[:n], err); err != nil {
			return err
		}
		if more {
			if err := d.relayBurst(); err != nil {
				return err
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
		d.progress(poll.Now())
		if err := d.write(data); err != nil {
			return err
		}
		d.progress(poll.Now())
	}
	if readErr == poll.ErrInterrupted {
		return nil
	}
	if readErr == nil || readErr == io.EOF {
		return readErr
	}
	return d.readError(readErr)
}

func (d *direction) write(data []byte) error {
	n, err := d.dst.Write(data)
	d.count += int64(n)
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
