package sqldoor

import (
	"bytes"
	"errors"
	"strings"
	"time"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/sqldoor/scan"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// This file is the read/write split: which statements go to a replica (destination), which replica (toReplica), and what becomes of one that the replica cannot answer
// (again). Everything else goes to the primary.
//
// A session has a replica's connection for one statement only: nothing is ever pinned to it. Its settings there are those that it has on the primary, exactly, but for
// one: the connection is read-only, so that nothing can be written to a replica even by a function that a view calls.

// destination is where a statement goes: to a replica, or to the primary and why.
type destination uint8

const (
	byDefault     destination = iota // a read, but with read_from: primary
	replica                          // a replica answers
	becauseWrites                    // it writes, locks, calls what is not built in, or is not understood
	becauseHint                      // /* menshen: primary */
	becauseState                     // it asks for the session's own state, or for what each instance answers in its own way
	becauseOpen                      // a transaction is open, or autocommit is off
	becausePinned                    // something pins the session to its connection
	becauseCursor                    // it opens a cursor
	becauseWrote                     // what the session wrote is not known to be on a replica
	becauseNone                      // no replica is in rotation
	becauseFailed                    // the replica did not answer, or by an error that the primary may not give
	becauseNear                      // read_from: nearest, and that is the primary
	becauseOther                     // not a statement
	destinationCount
)

var destinationNames = [destinationCount]string{"default", "replica", "write", "hint", "state", "transaction", "pinned", "cursor", "own write", "no replica", "replica failed", "nearest", "command"}

// String gives the name in records and metrics; the set of names is fixed.
func (d destination) String() string { return destinationNames[d] }

// destination says where the statement goes, from what it is and what the session is in the middle of. Whether a replica can be had, and has what the session wrote, is
// for toReplica to find out.
func (s *session) destination(d *database) destination {
	st := &s.st
	switch st.command {
	case mysql.ComQuery, mysql.ComStmtPrepare, mysql.ComStmtExecute:
	default:
		return becauseOther
	}
	switch {
	case !st.ReadOnly, st.Effects.Has(anything), st.long, !st.whole:
		return becauseWrites
	case st.Hint == scan.Primary:
		return becauseHint
	case !st.Replica(), st.Kind != scan.Select && st.Statements == 1, ownTables(d.schema):
		return becauseState
	case s.inTransaction(), s.pins.has(pinTransaction), s.status&mysql.Autocommit == 0: // READ ONLY transactions too: what else comes in them may need the primary
		return becauseOpen
	case s.link != nil, s.pins.set != 0, s.vars == nil:
		return becausePinned
	case st.cursor:
		return becauseCursor
	case d.readFrom == readPrimary && st.Hint != scan.Replica:
		return byDefault
	}
	return replica
}

// ownTables says that each instance fills the schema's tables itself.
func ownTables(schema string) bool {
	switch len(schema) {
	case len("sys"), len("mysql"), len("information_schema"): // and performance_schema
		return strings.EqualFold(schema, "sys") || strings.EqualFold(schema, "mysql") || strings.EqualFold(schema, "information_schema") || strings.EqualFold(schema, "performance_schema")
	}
	return false
}

// reach gets a connection to where the statement goes.
func (s *session) reach(text []byte) error {
	d, st := s.st.database, &s.st
	if d == nil || len(d.instances) == 1 {
		return s.ensure()
	}
	if asks(st.Effects) && s.link == nil {
		if only, _, _ := s.traces.where(st.Effects); only != nil {
			for _, in := range d.instances {
				if in.pool == only.Pool() && !d.still(in, classPrimary) {
					return s.askReplica(d, in, only)
				}
			}
		}
	}
	if st.to = s.destination(d); st.to == replica || st.to == byDefault && !d.writable() {
		if st.to = s.toReplica(d, text); st.to == replica {
			return nil
		}
	}
	return s.ensure()
}

// writable says that the group has a primary.
func (d *database) writable() bool {
	for _, in := range d.instances {
		if d.still(in, classPrimary) {
			return true
		}
	}
	return false
}

// arrive takes a connection to a replica for a session that comes to a database, with no statement yet, while that has no primary: it may want to read. What the settings
// are is learned there, then. It says false when the primary must be asked, or waited for.
func (s *session) arrive(d *database, schema string) bool {
	comes := s.st.command == 0 || s.st.command == mysql.ComInitDB || s.st.command == mysql.ComChangeUser || s.st.Kind == scan.Use
	if !comes || !d.shared || s.pins.set != 0 || d.writable() {
		return false
	}
	in, lease, ok := d.reader()
	if !ok {
		return false
	}
	if _, err := s.takeFrom(d, in, lease, classReplica|classFormer, schema); err != nil {
		s.logFault("connect to a replica", err)
		s.unlink(upstream.Outcome{Ignored: true})
		return false
	}
	s.link.reads = true
	if s.link.Vars == nil { // it cannot be shared, and nothing is pinned here
		s.unpin(pinUnshared)
		s.unlink(upstream.Outcome{Ignored: true})
		return false
	}
	return true
}

// reachMax is how long a read waits on a replica for the writes of its session, before it goes to the primary.
const reachMax = 100 * time.Millisecond

// toReplica takes a connection to a replica that has what the session wrote. It gives replica, or why the statement has to go to the primary: there is no error
// for want of a replica.
func (s *session) toReplica(d *database, text []byte) destination {
	var must *backend.Position // the replica must have all of it
	if since := s.sees(d); since != 0 {
		if must = s.written(d, since); must == nil {
			return becauseWrote
		}
	}
	why := becauseNone
	var tried *upstream.Endpoint
	for range d.instances {
		in, lease, ok := d.replica(tried)
		if !ok && tried == nil && (s.st.Hint == scan.Replica || !d.writable()) {
			in, lease, ok = d.reader()
		}
		if !ok {
			break
		}
		tried = in.endpoint
		switch {
		case d.still(in, classPrimary):
			lease.Done(upstream.Outcome{Ignored: true})
			return becauseNear
		case !s.readsAlike(in, text):
			lease.Done(upstream.Outcome{Ignored: true})
			why = becauseState
			continue
		case s.elsewhen(in):
			lease.Done(upstream.Outcome{Ignored: true})
			why = becauseState
			continue
		case s.unfit(d, in):
			lease.Done(upstream.Outcome{Ignored: true})
			why = becauseFailed
			continue
		}
		var patience time.Duration
		if must != nil && !in.pool.Reached(must) {
			if patience = in.pool.Patience(poll.Now(), reachMax); patience == 0 {
				lease.Done(upstream.Outcome{Ignored: true})
				why = becauseWrote
				continue
			}
		}
		why = becauseFailed
		if !s.takeReplica(d, in, lease) {
			continue
		}
		if s.elsewhen(in) { // now that there is a connection it is known
			s.release()
			why = becauseState
			continue
		}
		if patience == 0 {
			return replica
		}
		switch has, err := s.link.Reach(&in.pool.Progress, must, patience); {
		case err != nil:
			s.lostReplica(err)
		case has:
			return replica
		default:
			s.release()
			if why = becauseWrote; patience == reachMax {
				return why
			}
		}
	}
	return why
}

// sees gives the moment up to which the session's next read must find all that was written, by itself or with consistency: strong by anybody; 0 when there is none.
func (s *session) sees(d *database) poll.Instant {
	switch {
	case d.consistency == config.ConsistencyStrong:
		return poll.Now()
	case d.consistency == config.ConsistencySession && s.writes != nil && s.writes.lost:
		return poll.Now() // it may come about at any moment, and what the primary has shown must not go away again
	case d.consistency == config.ConsistencySession && s.writes != nil:
		return s.writes.at
	}
	return 0
}

// writes is what is known of a session's own writes, and of replicas that cannot answer it.
type writes struct {
	at       poll.Instant      // when it wrote last, or may have; 0: never
	position *backend.Position // that holds them; nil: not known
	of       *keeper           // the group whose position that is
	from     *instance         // its primary, which said so
	until    poll.Instant      // up to when it holds them
	lost     bool              // the answer to one never came: nobody knows whether, and when, it is executed

	refused [4]refusal // the last ones
	next    int        // the oldest of these
}

// refusal is a replica that did not take the session's settings or schema.
type refusal struct {
	by     *backend.Pool
	vars   *backend.Vars
	schema string
	at     poll.Instant
}

// unfit says that the replica has just refused what the session would be set to there: to try it again for each read would cost a connection each time.
func (s *session) unfit(d *database, in *instance) bool {
	if s.writes == nil {
		return false
	}
	for i := range s.writes.refused {
		if r := &s.writes.refused[i]; r.by == in.pool && r.vars == s.vars && r.schema == d.schema && poll.Now().Sub(r.at) < time.Second {
			return true
		}
	}
	return false
}

// refuses notes that.
func (s *session) refuses(d *database, in *instance, err error) {
	if answered := new(mysql.Error); !errors.As(err, &answered) {
		return
	}
	if s.writes == nil {
		s.writes = new(writes)
	}
	w := s.writes
	w.refused[w.next] = refusal{in.pool, s.vars, d.schema, poll.Now()}
	w.next = (w.next + 1) % len(w.refused)
}

// noteWrite is called after a statement on the primary: if it wrote, or may have, later reads must find that. A read that a replica refused may have written too, and so may any other of a database
// that is known to have such reads, unless it ran on a replica. lost says that its answer did not come.
func (s *session) noteWrite(lost bool) {
	st := &s.st
	veiled := st.to == becauseFailed || (st.Kind == scan.Select || st.Statements > 1) && st.to != replica && st.database != nil && st.database.keeper.veiled.Load()
	if st.ReadOnly && !st.Effects.Has(anything) && !st.long && !veiled || st.command != mysql.ComQuery && st.command != mysql.ComStmtExecute {
		return
	}
	if st.Statements == 1 && !st.Effects.Has(anything) && !s.pins.has(pinTransaction) && !s.unsure {
		switch st.Kind {
		case scan.Begin, scan.Set, scan.Commit, scan.Rollback, scan.Savepoint:
			return // no transaction was open that they could have committed
		}
	}
	if s.writes == nil {
		s.writes = new(writes)
	}
	s.writes.at = poll.Now()
	s.writes.lost = s.writes.lost || lost
}

// written gives a position that holds all that the session wrote up to a moment, and all that others did whose answers had come by then; nil when it cannot be known
// now. The primary is asked, unless somebody has asked it since: what was written meanwhile is in the answer too, which does no harm. (To ask for @@last_gtid after
// each write would cost those who never read.)
func (s *session) written(d *database, since poll.Instant) *backend.Position {
	if s.writes == nil {
		s.writes = new(writes)
	}
	w := s.writes
	if w.position != nil && w.of == d.keeper && w.until == since && (d.still(w.from, classPrimary) || !d.writable()) {
		return w.position // of a primary that was replaced it may be one that no replica ever reaches
	}
	var at *backend.Position
	for _, in := range d.instances {
		if !d.still(in, classPrimary) {
			continue
		}
		w.from = in
		if at = in.pool.Written(since); at != nil {
			break
		}
		c := in.pool.TakeIdle(backend.Want{Key: s.key(), Schema: d.schema, Vars: s.vars, Session: s.id, Prefer: s.near})
		if c == nil {
			break // the primary can answer the statement as soon as it could say where its writes are
		}
		var err error
		if at, err = c.AskWritten(&in.pool.Progress); err != nil {
			s.logFault("ask for the position of writes", err)
			in.pool.Drop(c)
		} else {
			in.pool.Give(c)
		}
		break
	}
	w.position, w.of, w.until = at, d.keeper, since
	return at
}

// readsAlike says that an instance reads the statement as the one whose version the session knows: another version runs other executable comments.
func (s *session) readsAlike(in *instance, text []byte) bool {
	if version, _, known := in.pool.Known(); !known || version == s.knows {
		return true
	}
	if p := s.st.prepared; p != nil {
		text = []byte(p.text)
	}
	return !bytes.Contains(text, []byte("/*!")) && !bytes.Contains(text, []byte("/*M!"))
}

// elsewhen says that the instance is in another time zone than the one whose settings the session has, and that it matters: time_zone is SYSTEM. An instance whose zone is not known yet is in none.
func (s *session) elsewhen(in *instance) bool {
	if s.vars.Value("time_zone") != "SYSTEM" {
		return false
	}
	here, there := s.varsOf.Zone(), in.pool.Zone()
	return here != there && here != "" && there != ""
}

// takeReplica makes a replica's connection the session's, with its settings. The lease is the session's, or done, when it returns.
func (s *session) takeReplica(d *database, in *instance, lease upstream.Lease) bool {
	vars := s.vars.ReadOnly()
	want := backend.Want{Key: s.key(), Schema: d.schema, Vars: vars, Session: s.id, Prefer: s.traces.last.conn, Waited: &s.st.queue, Consumer: s.consumer.Name, Max: s.connectionsMax()}
	ours, outcome := true, upstream.Outcome{Ignored: true}
	defer func() {
		if ours { // also when a panic passes by: the lease must not outlive it
			lease.Done(outcome)
		}
	}()
	var conn *backend.Conn
	for {
		var err error
		if conn, err = in.pool.Take(s.stop, d.limits, want); err != nil {
			return false
		}
		if conn == nil {
			if conn, err = s.openTo(in, want); err != nil {
				if s.stoppedBy() != nil {
					return false
				}
				s.logFault("connect to a replica", err)
				s.refuses(d, in, err)
				var answered *mysql.Error
				failed := !errors.As(err, &answered) && fault.Of(err).Kind != fault.UpstreamBroken // that is one without a form of answers that the client speaks
				if outcome = (upstream.Outcome{Failed: failed, Ignored: !failed}); failed {
					d.failedToConnect(in, err)
				}
				return false
			}
		}
		if poll.Now().Sub(conn.Used) < staleAfter || conn.Alive() {
			break
		}
		in.pool.Drop(conn) // servers close idle connections: that is no failure
	}
	ours = false
	return s.adoptReplica(d, in, lease, conn)
}

// adoptReplica is the rest of takeReplica.
func (s *session) adoptReplica(d *database, in *instance, lease upstream.Lease, conn *backend.Conn) bool {
	vars := s.vars.ReadOnly()
	s.held = link{Conn: conn, in: in, role: classReplica, pool: in.pool, home: in.home, lease: lease, settings: in.settings, reads: true}
	s.link = &s.held
	if !s.setCloser(conn) || conn.Vars == nil || conn.Vars.List != vars.List {
		s.unlink(upstream.Outcome{Ignored: true})
		return false
	}
	if err := conn.Adopt(s.stop, s.id, vars, d.schema, nil, false); err != nil {
		if s.stoppedBy() == nil { // otherwise the error may be that of a KILL
			s.refuses(d, in, err)
		}
		s.lostReplica(err)
		return false
	}
	return true
}

// lostReplica closes a replica's connection after an error of the gateway's own work there.
func (s *session) lostReplica(err error) {
	s.logFault("read from a replica", err)
	var answered *mysql.Error
	broken := !errors.As(err, &answered)
	if broken {
		s.link.pool.SetReached(nil) // it may come back as another one
	}
	s.unlink(upstream.Outcome{Failed: broken, Ignored: !broken})
}

// askReplica is for a statement that asks what became of an earlier one, which a replica answered: only that connection knows.
func (s *session) askReplica(d *database, in *instance, only *backend.Conn) error {
	e := s.st.Effects
	other := scan.ReadsVariables | scan.ReadsUserVariables | scan.ReadsConnectionID | scan.ReadsLogin | scan.ReadsLastInsertID | anything
	if s.st.Kind != scan.ShowDiagnostics {
		other |= scan.AsksInstance
	}
	if !s.st.ReadOnly || e.Has(other) || s.vars == nil {
		return s.forgotten(d)
	}
	conn, err := in.pool.Take(s.stop, d.limits, backend.Want{Key: s.key(), Schema: d.schema, Session: s.id, Prefer: only, Only: true})
	if err != nil || !s.adoptReplica(d, in, upstream.Lease{}, conn) {
		return s.otherwise(s.forgotten(d))
	}
	if !s.traces.answers(conn, s.id, e) {
		s.release()
		return s.forgotten(d)
	}
	s.st.to = replica
	return nil
}

// errElsewhere says that a replica gave no answer, and that the primary may be asked.
var errElsewhere = errors.New("the replica gave no answer")

// codeReadOnlyTransaction is what a server says to a write in a transaction that is read-only, as all are on replicas.
const codeReadOnlyTransaction = 1792

// elsewhere are the errors of a replica that the primary may not give.
func elsewhere(code uint16) bool {
	switch code {
	case 1290, codeReadOnlyTransaction, 1836, // it is read-only
		1044, 1045, 1049, 1054, 1109, 1142, 1143, 1146, 1176, 1305, 1356, 1370, // it lacks a name or a right, perhaps because it is behind
		1053, 1077, 1927, // it stops
		1040, 1203, 1226: // it is full
		return true
	}
	return false
}

// accepted looks at the beginning of a replica's answer before any of it goes to the client. The statement is dropped from the client's buffer, unless it
// has to go elsewhere.
func (s *session) accepted() error {
	l := s.link
	if err := l.Need(mysql.HeaderLen + 3); err != nil {
		return s.lost(err)
	}
	b := l.Buffered()
	h, _ := mysql.ParseHeader(b)
	whole := mysql.HeaderLen + h.Length
	code := uint16(b[mysql.HeaderLen+1]) | uint16(b[mysql.HeaderLen+2])<<8
	if mysql.IsError(b[mysql.HeaderLen:]) && elsewhere(code) && whole <= poll.SmallBuffer { // no server's is longer
		if code == codeReadOnlyTransaction {
			s.st.database.keeper.veiled.Store(true)
		}
		l.Warned = backend.Nobody
		if err := l.Need(whole); err != nil {
			return s.lost(err)
		}
		l.Skip(whole)
		return errElsewhere
	}
	s.drop()
	return nil
}

// drop takes a statement from the client's buffer that was kept there for another instance.
func (s *session) drop() {
	s.client.Skip(s.st.kept)
	s.st.kept = 0
}

// again gets ready to send a statement to the primary that a replica did not answer: nothing of the answer has gone to the client, and the statement is whole in the
// client's buffer. Reads may be sent twice, and on this connection nothing else can have been done. It says false for any other statement.
func (s *session) again(prefix int, refused bool) bool {
	st := &s.st
	if st.to != replica || !refused {
		s.drop()
		return false
	}
	if s.link != nil && len(s.link.Buffered()) == 0 {
		s.settle(false) // an error tells no status
	}
	s.unlink(upstream.Outcome{Ignored: true})
	st.to = becauseFailed
	st.message, st.in, st.consumed, st.kept, st.prefix = mysql.Message{}, 0, false, 0, prefix
	return true
}

// afterRead is after for a replica's answer: nothing is left there but what tells of the statement.
func (s *session) afterRead() {
	s.traces.ran(s.link.Conn, s.id, &s.st.judgement, &s.response)
	s.traces.pool = s.link.pool
	if asks(s.st.Effects) {
		s.pin(pinDiagnostics) // from now on it asks the primary, which knows for longer
	}
}

// countSplit counts where the statement went, and gives that for the access record.
func (s *session) countSplit() string {
	d := s.st.database
	if d == nil || len(d.instances) == 1 || s.st.endpoint == "" {
		return ""
	}
	d.keeper.went[s.st.to].Add(1)
	return s.st.to.String()
}

// splits gives the counts for metrics.
func (d *Door) splits() (all []observe.SQLSplit) {
	tables := d.o.Tables()
	if tables == nil {
		return nil
	}
	for _, name := range tables.names[:min(len(tables.names), observe.DatabasesMax)] {
		db := tables.databases[name]
		for to := range destinationCount {
			if n := db.keeper.went[to].Load(); n > 0 {
				all = append(all, observe.SQLSplit{Database: name, To: to.String(), Statements: n})
			}
		}
	}
	return all
}
