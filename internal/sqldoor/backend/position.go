package backend

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/poll"
)

// Position is how far the stream of a group's writes has come somewhere: with MariaDB the last GTID of each domain, with MySQL a set of GTIDs, which is
// compared as a text only. It is never changed.
type Position struct {
	text  string
	gtids []gtid // nil with MySQL
}

// gtid is the last of a domain. The server's number in it does not matter: within a domain numbers only grow.
type gtid struct{ domain, number uint64 }

// positionMax bounds a position's text: it becomes part of a statement.
const positionMax = 16 << 10

// ParsePosition reads @@gtid_binlog_pos and @@gtid_slave_pos ("0-1-100,1-2-7") or, with mariadb false, gtid_executed. Nil is no position: the text is
// empty (nothing is logged), or not understood.
func ParsePosition(text string, mariadb bool) *Position {
	if text == "" || len(text) > positionMax {
		return nil
	}
	p := &Position{text: text}
	if !mariadb {
		for i := range len(text) {
			switch c := text[i]; {
			case c >= '0' && c <= '9', c|0x20 >= 'a' && c|0x20 <= 'z', c == '-', c == ':', c == ',', c == '\n', c == ' ', c == '_':
			default:
				return nil
			}
		}
		return p
	}
	for one := range strings.SplitSeq(text, ",") {
		domain, rest, _ := strings.Cut(one, "-")
		server, number, ok := strings.Cut(rest, "-")
		d, err := strconv.ParseUint(domain, 10, 32)
		_, err2 := strconv.ParseUint(server, 10, 32)
		n, err3 := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil || err2 != nil || err3 != nil {
			return nil
		}
		p.gtids = append(p.gtids, gtid{d, n})
	}
	return p
}

// String gives the text as the server gave it.
func (p *Position) String() string { return p.text }

// Covers says that whatever q holds is in p too. Nil covers nothing and is covered by nothing; false may also mean that it cannot be told.
func (p *Position) Covers(q *Position) bool {
	if p == nil || q == nil {
		return false
	}
	if p == q || p.text == q.text {
		return true
	}
	if q.gtids == nil {
		return false
	}
next:
	for _, b := range q.gtids {
		for _, a := range p.gtids {
			if a.domain == b.domain && a.number >= b.number {
				continue next
			}
		}
		return false
	}
	return true
}

// Progress is what is known of an instance's position. The zero value knows nothing. It is safe for any number of goroutines.
type Progress struct {
	written atomic.Pointer[written]
	reached atomic.Pointer[Position]
	behind  atomic.Int64 // a poll.Instant, see Patience; 0 when nobody has waited in vain
}

// written is where the writes of a primary were.
type written struct {
	position *Position
	since    poll.Instant // all writes whose answers had come by then are within
}

// Written gives a position that holds all writes whose answers had come by the moment of wrote; nil when none is known.
func (p *Progress) Written(wrote poll.Instant) *Position {
	if w := p.written.Load(); w != nil && w.since >= wrote {
		return w.position
	}
	return nil
}

// SetWritten notes where the writes of a primary were when it was asked; since is from before the question.
func (p *Progress) SetWritten(at *Position, since poll.Instant) {
	for {
		old := p.written.Load()
		if at == nil || old != nil && old.since >= since || p.written.CompareAndSwap(old, &written{at, since}) {
			return
		}
	}
}

// Reached says that the instance is known to have all of a position.
func (p *Progress) Reached(at *Position) bool { return p.reached.Load().Covers(at) }

// SetReached notes where a replica is; nil that it is not known any more, because it may have been set up anew.
func (p *Progress) SetReached(at *Position) { p.reached.Store(at) }

// Patience gives how long it is worth waiting on the instance for a position: full, unless somebody has waited there in vain. From then on one at a time waits, every now and then
// and for a fifth of that, until it comes in time; 0 for all others.
func (p *Progress) Patience(now poll.Instant, full time.Duration) time.Duration {
	next := p.behind.Load()
	switch {
	case next == 0:
		return full
	case poll.Instant(next) <= now && p.behind.CompareAndSwap(next, int64(now.Add(lookEvery))):
		return full / 5
	}
	return 0
}

// lookEvery is how often it is tried whether an instance that was behind still is.
const lookEvery = 50 * time.Millisecond

// AskWritten asks a primary where its writes are. An error leaves the connection usable only if it is a *mysql.Error; nil without an error says that it
// does not log, or logs without GTIDs.
func (c *Conn) AskWritten(p *Progress) (*Position, error) {
	since := poll.Now()
	query := "SELECT @@global.gtid_executed"
	if c.MariaDB() {
		query = "SELECT @@global.gtid_binlog_pos"
	}
	row, ok, err := c.Row(query, 1)
	if err != nil || !ok {
		return nil, err
	}
	at := ParsePosition(string(row[0]), c.MariaDB())
	p.SetWritten(at, since)
	return at, nil
}

// Reach waits on a replica until it has all of a position, but no longer than bound, and says whether it has. An error leaves the connection usable only if it is a
// *mysql.Error.
func (c *Conn) Reach(p *Progress, at *Position, bound time.Duration) (bool, error) {
	if (at.gtids != nil) != c.MariaDB() {
		return false, nil // another product's
	}
	call := "WAIT_FOR_EXECUTED_GTID_SET('" + at.text + "'," + strconv.FormatFloat(bound.Seconds(), 'f', 3, 64) + ")"
	where := "NULL" // of use only where positions can be compared
	if c.MariaDB() {
		call = "MASTER_GTID_WAIT" + call[strings.IndexByte(call, '('):]
		where = "@@global.gtid_slave_pos"
	}
	row, ok, err := c.Row("SELECT "+call+","+where, 2)
	if err != nil || !ok {
		return false, err
	}
	there := ParsePosition(string(row[1]), c.MariaDB()) // as it was before the wait, or after it
	if string(row[0]) != "0" {                          // -1 and 1: in vain; NULL: it is no replica
		p.behind.Store(int64(poll.Now().Add(lookEvery)))
		if there != nil {
			p.reached.Store(there) // others may need less
		}
		return false, nil
	}
	p.behind.Store(0)
	switch {
	case there.Covers(at):
		p.reached.Store(there)
	case !p.Reached(at):
		p.reached.Store(at)
	}
	return true, nil
}
