package sqldoor

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/identity"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// This file is what one address, and one consumer, may use up: sign-ins that are refused, sessions, and connections.

// attempts remembers from where sign-ins were refused lately. Only wrong names and passwords count: who breaks off, as health checks of load balancers do, is no guesser. The zero value
// is ready. Safe for any number of goroutines.
type attempts struct {
	mu    sync.Mutex
	froms map[from]*refusals
}

// from is where guesses come from: an address, or for IPv6 the 64 bits that one subscriber has.
type from struct {
	listener string
	network  netip.Prefix
}

// refusals counts within a time that begins with the first of them.
type refusals struct {
	count int
	since poll.Instant
}

// fromsMax bounds the table. When it is full, the next one pushes another out, which is looked for among froms that chance picks (roomTries of them): to be forgotten so, a guesser
// needs about that many addresses. All of the table is not looked through, because who has many addresses could have that done at each guess.
const (
	fromsMax  = 16384
	roomTries = 16
)

func fromOf(listener string, a netip.Addr) from {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	network, _ := a.WithZone("").Prefix(bits)
	return from{listener, network}
}

// note counts a refused sign-in.
func (t *attempts) note(f from, bound config.RateOrNone, now poll.Instant) {
	if bound.Count <= 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.froms[f]
	if r != nil && now.Sub(r.since) < bound.Per {
		r.count++
		return
	}
	if r == nil && len(t.froms) >= fromsMax {
		t.makeRoom(bound, now)
	}
	if t.froms == nil {
		t.froms = make(map[from]*refusals)
	}
	t.froms[f] = &refusals{1, now}
}

// makeRoom drops what is over among the few that it looks at, or else the one of them with the fewest refusals: those who are blocked stay so. t.mu is held.
func (t *attempts) makeRoom(bound config.RateOrNone, now poll.Instant) {
	var least from
	count, tries := 0, 0
	for f, r := range t.froms { // begins anywhere
		if now.Sub(r.since) >= bound.Per {
			delete(t.froms, f)
		} else if count == 0 || r.count < count {
			least, count = f, r.count
		}
		if tries++; tries == roomTries {
			break
		}
	}
	if len(t.froms) >= fromsMax {
		delete(t.froms, least)
	}
}

// blocked says for how long nobody is let in from there; 0 means that they are.
func (t *attempts) blocked(f from, bound config.RateOrNone, now poll.Instant) time.Duration {
	if bound.Count <= 0 {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.froms[f]
	switch {
	case r == nil:
		return 0
	case now.Sub(r.since) >= bound.Per:
		delete(t.froms, f)
		return 0
	case r.count < bound.Count:
		return 0
	}
	return bound.Per - now.Sub(r.since)
}

// guessed counts a sign-in that was refused.
func (s *session) guessed() {
	s.door.attempts.note(fromOf(s.Listener.Name, s.Peer), s.site.limits.SignInFailures, poll.Now())
}

// blocked gives the error for a client from whose address too many sign-ins were refused; nil when it may try.
func (s *session) blocked() *mysql.Error {
	wait := s.door.attempts.blocked(fromOf(s.Listener.Name, s.Peer), s.site.limits.SignInFailures, poll.Now())
	if wait == 0 {
		return nil
	}
	s.Series.Refused("sign_in_failures")
	return &mysql.Error{Code: 1129, State: "HY000", Message: fmt.Sprintf("Host '%s' is blocked because of too many refused sign-ins; try again in %d seconds", s.Peer, wait/time.Second+1)}
}

// admit counts the session for a consumer, in place of the one that it was counted for, if that may have one more.
func (s *session) admit(c *identity.Consumer) *mysql.Error {
	d := s.door
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.admitted == c.Name {
		return nil
	}
	if n := d.consumers[c.Name]; c.MaxSessions > 0 && n >= c.MaxSessions {
		return &mysql.Error{Code: 1226, State: "42000", Message: fmt.Sprintf("User '%s' has exceeded the 'max_user_connections' resource (current value: %d)", c.Name, c.MaxSessions)}
	}
	d.dismiss(s)
	if d.consumers == nil {
		d.consumers = make(map[string]int)
	}
	s.admitted = c.Name
	d.consumers[c.Name]++
	return nil
}

// dismiss takes back what admit counted. Door.mu is held.
func (d *Door) dismiss(s *session) {
	if s.admitted == "" {
		return
	}
	if d.consumers[s.admitted]--; d.consumers[s.admitted] <= 0 {
		delete(d.consumers, s.admitted)
	}
	s.admitted = ""
}

// connectionsMax is how many connections to one instance the sessions of the consumer may use, by the generation that the statement sees.
func (s *session) connectionsMax() int {
	if s.boundsOf != s.tables {
		s.boundsOf, s.connections = s.tables, 0
		if c, ok := s.tables.directory.Consumer(s.consumer.Name); ok {
			s.connections = c.MaxConnections
		}
	}
	return s.connections
}
