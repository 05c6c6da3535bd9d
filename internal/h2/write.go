package h2

import (
	"runtime"

	"github.com/menshen-gateway/menshen/internal/poll"
)

// roomLocked gives pending with room for n more bytes, so that appending stays in pooled memory most of the time.
func (c *Conn) roomLocked(n int) []byte {
	switch {
	case c.pending == nil && n <= poll.SmallBuffer:
		c.pending = poll.GetSmall()[:0]
	case cap(c.pending)-len(c.pending) < n && len(c.pending)+n <= poll.LargeBuffer:
		large := append(poll.GetLarge()[:0], c.pending...)
		poll.Put(c.pending)
		c.pending = large
	}
	return c.pending
}

// queueLocked makes pending what it was with a frame that waits for nobody.
func (c *Conn) queueLocked(pending []byte) error {
	c.pending = pending
	if len(pending) > pendingFlood {
		return c.broken(EnhanceYourCalm, "the peer makes us answer and does not read")
	}
	return nil
}

// creditLocked notes that n bytes of received data are used up, and tells the peer now and then.
func (c *Conn) creditLocked(n int) {
	if c.owed += n; c.owed >= c.limits.ConnectionWindow/2 && c.failed == nil {
		c.pending = appendWindowUpdate(c.roomLocked(frameHeaderLength+4), 0, c.owed)
		c.recvWindow += c.owed
		c.owed = 0
	}
}

// startFlush has another goroutine send what is queued, if nobody does already. The lock is held.
func (c *Conn) startFlush() {
	if c.flushing || c.shut || len(c.pending) == 0 && !c.finishing {
		return
	}
	c.flushing = true
	poll.Start((*flusher)(c)) // ends when nothing is queued or the connection is broken; Serve waits for it
}

// flusher is a Conn as one who sends what is queued.
type flusher Conn

// Resume sends until nothing is queued.
func (f *flusher) Resume() {
	c := (*Conn)(f)
	c.mu.Lock()
	c.flushOnLocked(1 << 30)
	c.mu.Unlock()
}

// flushLocked sends what is queued, unless somebody is sending already and so will send this too. The lock is let go of
// meanwhile.
func (c *Conn) flushLocked() {
	if c.flushing || c.shut || len(c.pending) == 0 {
		return
	}
	// Others that can run now may have something to send, too: one write, and one TLS record, for all of them instead of one for
	// each (processor time for a request with TLS: 12.6 instead of 22.7 µs with 64 streams on a connection, 16.0 instead of 22.6 with 4).
	// Those of whom the poller knows are served before a goroutine that starts now; the others get their turn in Gosched. With nobody else to run
	// this costs next to nothing.
	if c.active > 1 && poll.Busy() {
		c.startFlush()
		return
	}
	c.flushing = true
	if c.active > 1 {
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	if !c.flushOnLocked(flushRounds) {
		c.flushing = false
		c.startFlush()
	}
}

// flushOnLocked is the turn of the one who sends. It says whether everything is sent.
func (c *Conn) flushOnLocked(rounds int) (done bool) {
	for ; len(c.pending) > 0; rounds-- {
		if rounds == 0 {
			return false
		}
		out := c.pending
		c.pending, c.spare = c.spare, nil
		c.mu.Unlock()
		_, err := c.nc.Write(out)
		c.mu.Lock()
		if c.spare == nil && cap(out) == poll.SmallBuffer {
			c.spare = out[:0]
		} else {
			poll.Put(out)
		}
		if err != nil {
			poll.Put(c.pending)
			c.pending = nil
			c.endLocked(&Error{Code: ConnectError, Remote: true, Connection: true, Cause: err})
			c.hangUpLocked()
		}
		c.room.Broadcast()
	}
	if c.finishing && !c.shut {
		c.shut = true
		c.mu.Unlock()
		if half, ok := c.nc.(interface{ CloseWrite() error }); ok && !c.client {
			_ = half.CloseWrite()
		} else {
			c.hangup()
		}
		c.mu.Lock()
	}
	c.flushing = false
	c.room.Broadcast()
	return true
}
