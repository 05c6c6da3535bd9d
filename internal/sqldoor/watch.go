package sqldoor

import (
	"github.com/menshen-gateway/menshen/internal/listener"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// watch ends the sessions of clients that left while their statement runs, because the session itself
// waits for the instance and would notice only at the next write; and the wait for a primary that hangs and was replaced. One goroutine for all sessions keeps timers and extra system
// calls away from statements.
func (d *Door) watch() {
	now := poll.Now()
	for s := range d.All() {
		if begun := s.waiting.Load(); begun == 0 || now.Sub(poll.Instant(begun)) < listener.WatchInterval {
			continue
		}
		if s.client.PeerGone() {
			s.abandon()
		} else {
			s.rescue()
		}
	}
}

// rescue closes the session's connection if it leads to a primary that was replaced and does not answer: the statement fails, and the session may go on. What that
// instance would say later must not count any more.
func (s *session) rescue() {
	if !s.using.TryLock() { // it is changing hands, or being interrupted: look again later
		return
	}
	defer s.using.Unlock()
	if v := s.victim; v == nil || v.role != classPrimary || !v.in.keeper.stranded(v.in) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closer != nil {
		s.doomed = true // nobody else gets the connection
		_ = s.closer.Close()
	}
}
