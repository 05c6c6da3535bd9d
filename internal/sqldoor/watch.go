package sqldoor

import (
	"time"

	"github.com/menshen-gateway/menshen/internal/poll"
)

// watchInterval is how often the watcher looks, and how long a statement must have run to be looked at.
const watchInterval = time.Second

// watch starts the watcher, which ends the sessions of clients that left while their statement runs, because the session itself
// waits for the instance and would notice only at the next write; and the wait for a primary that hangs and was replaced. One goroutine for all sessions keeps timers and extra system
// calls away from statements. Door.mu is held.
func (d *Door) watch() {
	if d.stopWatch != nil {
		return
	}
	stop := make(chan struct{})
	d.stopWatch = stop
	go func() { // ends by unwatch, when the last session has left
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				d.look()
			}
		}
	}()
}

// unwatch stops the watcher. Door.mu is held.
func (d *Door) unwatch() {
	close(d.stopWatch)
	d.stopWatch = nil
}

func (d *Door) look() {
	now := poll.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	for sv := range d.serving {
		for s := range sv.sessions {
			if begun := s.waiting.Load(); begun == 0 || now.Sub(poll.Instant(begun)) < watchInterval {
				continue
			}
			if s.client.PeerGone() {
				s.abandon()
			} else {
				s.rescue()
			}
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
