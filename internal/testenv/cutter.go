package testenv

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Cutter is a network in miniature: it forwards TCP connections to a target until it is told to misbehave. The zero value is not usable; see NewCutter.
// Its methods may be called from several goroutines, at any time.
//
// Two goroutines per connection, one per direction, and one that accepts; all end with the connection or at cleanup, which waits for them.
type Cutter struct {
	Address string // where to connect to

	target string
	tasks  sync.WaitGroup

	mu       sync.Mutex // guards all below
	listener net.Listener
	pairs    map[*pair]struct{}
	gate     chan struct{} // closed while bytes may flow; replaced by Pause
	delay    time.Duration
	accepted int
	closed   bool
}

// pair is one forwarded connection. client is set before it is known to others, server once the target has answered.
type pair struct {
	client, server net.Conn
	ended          chan struct{} // closed by the one who takes the pair out of Cutter.pairs
}

// NewCutter starts a cutter in front of target ("host:port") that forwards untouched.
func NewCutter(t testing.TB, target string) *Cutter {
	t.Helper()
	c := &Cutter{Address: FreeAddress(t), target: target, pairs: make(map[*pair]struct{}), gate: make(chan struct{})}
	close(c.gate)
	if err := c.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		c.Cut()
		c.tasks.Wait()
	})
	return c
}

// Cut resets all connections and refuses new ones, like a host whose server died.
func (c *Cutter) Cut() {
	c.mu.Lock()
	ln := c.listener
	c.listener = nil
	c.mu.Unlock()
	if ln != nil {
		// A child that is being forked holds a copy of the listener until it execs, and the kernel would go on accepting: not now.
		syscall.ForkLock.RLock()
		ln.Close()
		syscall.ForkLock.RUnlock()
	}
	c.Reset()
}

// Restore accepts connections again after Cut.
func (c *Cutter) Restore(t testing.TB) {
	t.Helper()
	// A child that another test is forking may hold a copy of the old listener for a moment.
	Eventually(t, 10*time.Second, c.listen)
}

// Reset resets all connections (RST); new ones are accepted.
func (c *Cutter) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p := range c.pairs {
		c.endLocked(p, true)
	}
}

// Pause stops the flow in both directions, like a cable that was pulled: connections stay open, new ones are accepted, nothing arrives.
func (c *Cutter) Pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.gate:
		c.gate = make(chan struct{})
	default: // is paused
	}
}

// Resume lets the bytes flow again after Pause; what was sent meanwhile arrives.
func (c *Cutter) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.gate:
	default:
		close(c.gate)
	}
}

// Delay makes each piece of data (at most 32 KiB) wait before it is passed on, in each direction; 0 ends that. It counts from the next piece.
func (c *Cutter) Delay(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delay = d
}

// Connections returns how many connections are open now.
func (c *Cutter) Connections() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pairs)
}

// Accepted returns how many connections were ever accepted.
func (c *Cutter) Accepted() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.accepted
}

// listen opens the listener unless it is open, or the test is over.
func (c *Cutter) listen() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listener != nil || c.closed {
		return nil
	}
	ln, err := net.Listen("tcp", c.Address)
	if err != nil {
		return err
	}
	c.listener = ln
	c.tasks.Go(func() { c.accept(ln) })
	return nil
}

// accept ends when its listener is closed.
func (c *Cutter) accept(ln net.Listener) {
	for {
		client, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		p := &pair{client: client, ended: make(chan struct{})}
		c.mu.Lock()
		if c.listener != ln { // cut meanwhile
			c.mu.Unlock()
			reset(client)
			continue
		}
		c.accepted++
		c.pairs[p] = struct{}{}
		c.tasks.Go(func() { c.serve(p) })
		c.mu.Unlock()
	}
}

// serve connects to the target and copies both ways.
func (c *Cutter) serve(p *pair) {
	server, err := net.DialTimeout("tcp", c.target, 10*time.Second)
	c.mu.Lock()
	if _, alive := c.pairs[p]; !alive || err != nil {
		if err == nil {
			reset(server)
		}
		c.endLocked(p, true)
		c.mu.Unlock()
		return
	}
	p.server = server
	c.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { c.copy(p, p.server, p.client) })
	both.Go(func() { c.copy(p, p.client, p.server) })
	both.Wait()
	c.end(p, false)
}

// copy passes bytes on until an end of stream, which is passed on as well, or an error, which ends the pair.
func (c *Cutter) copy(p *pair, to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if !c.wait(p) {
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				c.end(p, true)
				return
			}
		}
		if err != nil {
			if half, ok := to.(*net.TCPConn); ok && isEnd(err) {
				_ = half.CloseWrite()
				return
			}
			c.end(p, true)
			return
		}
	}
}

// wait blocks for the delay and while the cutter is paused; false means the pair has ended.
func (c *Cutter) wait(p *pair) bool {
	c.mu.Lock()
	delay := c.delay
	c.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.ended:
			return false
		}
	}
	for {
		c.mu.Lock()
		gate := c.gate
		c.mu.Unlock()
		select {
		case <-gate:
			return true
		case <-p.ended:
			return false
		}
	}
}

func (c *Cutter) end(p *pair, hard bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(p, hard)
}

// endLocked closes a pair once. c.mu is held.
func (c *Cutter) endLocked(p *pair, hard bool) {
	if _, alive := c.pairs[p]; !alive {
		return
	}
	delete(c.pairs, p)
	close(p.ended)
	for _, conn := range []net.Conn{p.client, p.server} {
		if conn == nil {
			continue
		}
		if hard {
			reset(conn)
		} else {
			conn.Close()
		}
	}
}

// reset closes a connection with RST instead of FIN.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}
