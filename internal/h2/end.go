package h2

// Drain lets the streams finish and then ends the connection. New streams that the peer opens before it knows are still
// served (RFC 9113, 6.8).
func (c *Conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving != staying || c.failed != nil {
		return
	}
	if c.client {
		c.leaving = leavingNow
		c.leftLocked()
		return
	}
	c.leaving = leavingSoon
	c.pending = appendGoAway(c.roomLocked(2*(frameHeaderLength+8)), streamIDMax, NoError, "")
	c.pending = appendPing(c.pending, 0, []byte("draining"))
	c.lookAgainLocked()
	c.startFlush()
}

// leaveLocked is the second half of Drain: the peer knows.
func (c *Conn) leaveLocked() {
	c.leaving = leavingNow
	if c.active > 0 {
		c.pending = appendGoAway(c.roomLocked(frameHeaderLength+8), c.lastAccepted, NoError, "")
	}
	c.leftLocked()
	c.startFlush()
}

// leftLocked ends the connection when it is leaving and has nothing left to do.
func (c *Conn) leftLocked() {
	if c.active == 0 && c.leaving == leavingNow && c.failed == nil {
		c.endLocked(&Error{Code: NoError, Reason: "the last stream has ended", Connection: true})
	}
}

// Close ends the connection and its streams at once.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.endLocked(&Error{Code: Cancel, Reason: "closed", Connection: true})
	c.mu.Unlock()
	c.hangup()
	return nil
}

// endLocked ends the connection: all streams fail, the peer is told why (unless it left), and what is queued is sent.
func (c *Conn) endLocked(e *Error) {
	if c.failed != nil {
		return
	}
	c.failed = e
	if c.client && !c.readyLocked() {
		close(c.ready)
	}
	var told []*Stream
	for _, s := range c.streams {
		own := *e
		own.Unsent = false
		told = append(told, s)
		c.closeLocked(s, &own, true)
	}
	c.room.Broadcast()
	if !e.Remote {
		c.pending = appendGoAway(c.roomLocked(frameHeaderLength+8+len(e.Reason)), c.lastAccepted, e.Code, e.Reason)
	}
	c.finishing = true
	c.lookAgainLocked()
	c.startFlush()
	c.mu.Unlock()
	for _, s := range told {
		s.tell()
	}
	c.mu.Lock()
}
