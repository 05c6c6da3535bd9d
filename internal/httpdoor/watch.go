package httpdoor

import (
	"time"

	"github.com/menshen-gateway/menshen/internal/poll"
)

// watchInterval is how often the watcher looks. It looks at a request that is at the same endpoint as the time before.
const watchInterval = time.Second

// taken stands where the connection to an endpoint stood that was interrupted from outside: its owner must not use it again.
var taken poll.Conn

// watch starts the watcher, which gives up requests whose client has left while an endpoint thinks: the request itself would
// notice only when it writes to the client. One goroutine for all connections keeps timers and system calls away from requests, and
// streams have no need of it, because their bundle reads. A client that has closed the connection looks like one that has closed its sending half and
// wants its answer all the same, so what happens then is a setting; once the answer has begun, the watcher leaves it alone. Door.mu is held.
func (d *Door) watch() {
	stop := make(chan struct{})
	d.stopWatch = stop
	go func() { // ends by unwatch, when the last connection has ended
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				for _, c := range d.waiting() {
					c.look()
				}
			}
		}
	}()
}

// unwatch stops the watcher. Door.mu is held.
func (d *Door) unwatch() {
	close(d.stopWatch)
	d.stopWatch = nil
}

// waiting gives the connections that wait for the same endpoint as at the last look.
func (d *Door) waiting() (all []*conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := range d.listeners {
		for c := range l.conns {
			up := c.endpoint.Load()
			if up != nil && up == c.watched {
				all = append(all, c)
			}
			c.watched = up
		}
	}
	return all
}

// look gives the request up if its client has reset the connection, or with client_gone: abort closed it or its sending half.
func (c *conn) look() {
	s := c.door.options.Tables().sites[c.listening.name]
	if s == nil || !peerGone(c.poll, !s.finishes) {
		return
	}
	c.left.Store(true) // before the interruption, which says why by it
	c.interrupt(&c.endpoint)
}
