package httpdoor

import "github.com/menshen-gateway/menshen/internal/poll"

// taken stands where the connection to an endpoint stood that was interrupted from outside: its owner must not use it again.
var taken poll.Conn

// watch gives up requests whose client has left while an endpoint thinks: the request itself would
// notice only when it writes to the client. One goroutine for all connections keeps timers and system calls away from requests, and
// streams have no need of it, because their bundle reads. A client that has closed the connection looks like one that has closed its sending half and
// wants its answer all the same, so what happens then is a setting; once the answer has begun, it is left alone. A request is looked at
// that is at the same endpoint as the time before.
func (d *Door) watch() {
	var waiting []*conn
	for c := range d.All() {
		up := c.endpoint.Load()
		if up != nil && up == c.watched {
			waiting = append(waiting, c)
		}
		c.watched = up
	}
	for _, c := range waiting {
		c.look()
	}
}

// look gives the request up if its client has reset the connection, or with client_gone: abort closed it or its sending half.
func (c *conn) look() {
	s := c.door.options.Tables().sites[c.Listener.Name]
	if s == nil || !peerGone(c.poll, !s.finishes) {
		return
	}
	c.left.Store(true) // before the interruption, which says why by it
	c.interrupt(&c.endpoint)
}
