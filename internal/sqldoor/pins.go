package sqldoor

import (
	"time"

	"github.com/menshen-gateway/menshen/internal/poll"
)

// pin is a reason why a session keeps its connection between statements.
type pin uint8

// The pins. Those that say no end stay until the client resets its connection, changes its user or leaves.
const (
	pinTransaction     pin = iota // until it ends
	pinSavepoint                  // SAVEPOINT with autocommit = 0, before a transaction has begun, until it has ended
	pinTemporary                  // CREATE TEMPORARY TABLE
	pinTables                     // LOCK TABLES, until UNLOCK TABLES
	pinLocks                      // other locks: HANDLER OPEN, BACKUP LOCK, FLUSH TABLES WITH READ LOCK
	pinUserLock                   // GET_LOCK
	pinVariables                  // user variables
	pinCursor                     // cursors and long data of prepared statements, until they are closed or reset
	pinSQLPrepared                // PREPARE
	pinFoundRows                  // SQL_CALC_FOUND_ROWS, until the next statement
	pinSetting                    // SET of what is not compared, or to a value that cannot be repeated
	pinUnread                     // a SET or DROP DATABASE whose warnings can still be read, until the next statement
	pinNextTransaction            // SET TRANSACTION, until the end of a transaction
	pinRoutine                    // a procedure or a function that is not built in ran
	pinSequence                   // NEXTVAL: LASTVAL belongs to the connection
	pinConnectionID               // CONNECTION_ID() was asked for
	pinDiagnostics                // the client asks what became of earlier statements
	pinXA                         // XA
	pinRole                       // SET ROLE
	pinLong                       // a statement too long to be judged
	pinUnknown                    // a statement that is not understood
	pinUnshared                   // pool.share: session, or an instance whose settings are not to be known
	pinCount
)

var pinNames = [pinCount]string{"transaction", "savepoint", "temporary table", "LOCK TABLES", "lock", "user lock", "user variable", "cursor or long data", "PREPARE", "SQL_CALC_FOUND_ROWS",
	"setting", "warnings of a SET", "SET TRANSACTION", "procedure or function", "sequence", "CONNECTION_ID", "ROW_COUNT or FOUND_ROWS", "XA", "role", "long statement",
	"statement not understood", "not shared"}

func (p pin) String() string { return pinNames[p] }

// pins are the reasons that a session has, and since when. The session's goroutine changes them under session.mu; it may read them without.
type pins struct {
	set   uint32
	since [pinCount]poll.Instant
}

func (p *pins) has(which pin) bool { return p.set&(1<<which) != 0 }

// oldest gives the pin that has been there longest.
func (p *pins) oldest() (which pin, age time.Duration, ok bool) {
	var since poll.Instant
	for i := range pinCount {
		if p.has(i) && (!ok || p.since[i] < since) {
			which, since, ok = i, p.since[i], true
		}
	}
	return which, poll.Now().Sub(since), ok
}

// lasting are the pins that go with the connection: a session that has one cannot go on with another. A transaction is looked at by itself.
const lasting = 1<<pinCount - 1 - 1<<pinTransaction - 1<<pinFoundRows - 1<<pinConnectionID - 1<<pinDiagnostics - 1<<pinUnshared

func (s *session) pin(which pin) {
	if s.pins.has(which) {
		return
	}
	s.mu.Lock()
	s.pins.set |= 1 << which
	s.pins.since[which] = poll.Now()
	s.mu.Unlock()
	s.door.pinned[which].Add(1)
}

func (s *session) unpin(which pin) {
	if !s.pins.has(which) {
		return
	}
	s.mu.Lock()
	s.pins.set &^= 1 << which
	s.mu.Unlock()
	s.door.pinned[which].Add(-1)
}

func (s *session) unpinAll() {
	for i := range pinCount {
		s.unpin(i)
	}
}

// pinned says why the session cannot go on with another connection, apart from a transaction; "" means that it can.
func (s *session) pinned() string {
	if s.pins.set&lasting != 0 {
		for i := range pinCount {
			if s.pins.has(i) && lasting&(1<<i) != 0 {
				return i.String()
			}
		}
	}
	return ""
}
