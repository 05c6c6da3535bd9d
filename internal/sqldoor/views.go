package sqldoor

import (
	"cmp"
	"slices"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// This file is what the door tells of itself: to SHOW MENSHEN, to the admin API, and to metrics.

// shown is what others may read of a session.
type shown struct{ consumer, database, program string }

// show tells others what the session is now.
func (s *session) show() { s.showAs(s.shown.Load().program) }

// showAs is show for a client that has just said what it calls itself. The name is kept nowhere else.
func (s *session) showAs(program string) {
	if now := (shown{s.consumer.Name, s.database, program}); s.shown.Load() == nil || *s.shown.Load() != now {
		s.shown.Store(&now)
	}
}

// sessions gives the sessions that have signed in, by number; with a consumer, only its own.
func (d *Door) sessionsOf(consumer string) (all []*session) {
	all = slices.DeleteFunc(slices.Collect(d.All()), func(o *session) bool {
		about := o.shown.Load()
		return about == nil || consumer != "" && about.consumer != consumer
	})
	slices.SortFunc(all, func(a, b *session) int { return cmp.Compare(a.id, b.id) })
	return all
}

// view is what can be seen of a session from other goroutines.
func (s *session) view() observe.SQLSession {
	about := s.shown.Load()
	v := observe.SQLSession{ID: s.id, Listener: s.Listener.Name, Consumer: about.consumer, Address: s.Peer, Database: about.database, Program: about.program}
	if begun := s.waiting.Load(); begun != 0 {
		v.Command, v.Running = mysql.Command(s.command.Load()).String(), max(poll.Now().Sub(poll.Instant(begun)), 0)
		switch d := s.doing.Load(); mysql.Command(s.command.Load()) {
		case mysql.ComQuery, mysql.ComStmtPrepare, mysql.ComStmtExecute:
			if d != nil {
				v.Statement = d.text
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closer != nil {
		v.Instance = s.where
	}
	now := poll.Now()
	for i := range pinCount {
		if s.pins.has(i) {
			v.Pins = append(v.Pins, observe.SQLPin{Reason: i.String(), Age: max(now.Sub(s.pins.since[i]), 0)})
		}
	}
	return v
}

// oldest is the age of the pin that has been there longest.
func oldest(pins []observe.SQLPin) (age time.Duration) {
	for _, p := range pins {
		age = max(age, p.Age)
	}
	return age
}

// OpenSessions gives the sessions of clients that have signed in, at most a number of them, and how many there are.
func (d *Door) OpenSessions(most int) (some []observe.SQLSession, total int) {
	all := d.sessionsOf("")
	some = make([]observe.SQLSession, 0, min(most, len(all)))
	for _, s := range all[:min(most, len(all))] {
		some = append(some, s.view())
	}
	return some, len(all)
}

// Pools gives the state of the pool of each instance, in the order of databases and instances.
func (d *Door) Pools() (all []observe.SQLPool) {
	tables := d.o.Tables()
	if tables == nil {
		return nil
	}
	for _, name := range tables.names {
		db := tables.databases[name]
		for _, in := range db.instances {
			p := in.pool.Stats()
			all = append(all, observe.SQLPool{Database: name, Instance: in.address, Open: p.Open, Idle: p.Idle, Waiting: p.Waiting, Max: db.limits.Connections, MinIdle: db.limits.MinIdle,
				Waits: p.Waited, Timeouts: p.Late})
		}
	}
	return all
}

// status is for metrics.
func (d *Door) status() (s observe.SQLStatus) {
	s.Pins = make(map[string]int64)
	for i := range pinCount {
		if n := d.pinned[i].Load(); n > 0 {
			s.Pins[i.String()] = n
		}
	}
	s.Splits = d.splits()
	s.Groups = d.groups()
	s.Digests = d.digests.size()
	s.Slow = d.o.Slow.Status()
	for _, p := range d.Pools() { // metrics are by database
		if last := len(s.Pools) - 1; last >= 0 && s.Pools[last].Database == p.Database {
			sum := &s.Pools[last]
			sum.Open, sum.Idle, sum.Waiting, sum.Max = sum.Open+p.Open, sum.Idle+p.Idle, sum.Waiting+p.Waiting, sum.Max+p.Max
			sum.Waits, sum.Timeouts = sum.Waits+p.Waits, sum.Timeouts+p.Timeouts
			continue
		}
		s.Pools = append(s.Pools, p)
	}
	return s
}
