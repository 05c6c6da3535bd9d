package sqldoor

import (
	"errors"
	"slices"
	"strings"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/sqldoor/scan"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// This file is about a write that meets the old primary of a group in the moment between its read_only = 1 and the check that sees that. The instance refuses it and has done
// nothing, so it waits for the new primary as if there had been none, and is sent again.
//
// Only rows are written so: servers look whether they are read-only before they touch any, and again when they waited for a lock. A definition may have happened all the same:
// MariaDB 10.11 executes an ALTER TABLE that waited for FLUSH TABLES WITH READ LOCK, and then says 1290.

// keeps says that the statement, which is about to be sent, should stay in the client's buffer until its answer begins, because it may have to be sent again. It is a first, cheap look.
func (s *session) keeps() bool {
	st := &s.st
	d := st.database
	return d != nil && len(d.instances) > 1 && !st.ReadOnly && st.whole && s.link.role == classPrimary && !st.Effects.Has(anything) &&
		s.pins.set == 0 && !s.unsure && s.status&(mysql.InTransaction|mysql.Autocommit) == mysql.Autocommit
}

// repeatable is the second look, at a statement that was refused.
func (s *session) repeatable() bool {
	st := &s.st
	if st.pinsOf() != 0 || st.Effects.Has(scan.ReadsLastInsertID|scan.SetsLastInsertID) { // it may have taken a lock, or moved a sequence
		return false
	}
	kind := st.Kind
	if st.Statements > 1 && st.command == mysql.ComQuery { // the server stops at the first one that fails
		text := s.client.Buffered()[mysql.HeaderLen+1 : st.kept]
		for kind = scan.Empty; kind == scan.Empty && len(text) > 0; {
			end, next, exact := scan.Split(text, &s.mode)
			if !exact {
				return false
			}
			kind = scan.Classify(text[:end], &s.mode).Kind
			text = text[next:]
		}
	}
	switch kind {
	case scan.Insert, scan.Replace, scan.Update, scan.Delete, scan.LoadData:
		return poll.Now() < st.database.patience(st.begun)
	}
	return false
}

// errDeposed says that an instance refused the statement because it is read-only, and has done nothing of it.
var errDeposed = errors.New("the instance is read-only")

// taken looks at the beginning of a primary's answer to a statement that is kept, before any of it goes to the client. over says that this was all of the answer, and is passed on.
func (s *session) taken() (over bool, err error) {
	l, st := s.link, &s.st
	if err := l.Need(mysql.HeaderLen + 1); err != nil {
		return false, s.lost(err)
	}
	if !mysql.IsError(l.Buffered()[mysql.HeaderLen:]) { // nothing more may come: a request for a file whose name is empty
		s.drop()
		return false, nil
	}
	if err := l.Need(mysql.HeaderLen + 3); err != nil {
		return false, s.lost(err)
	}
	b := l.Buffered()
	h, _ := mysql.ParseHeader(b)
	if uint16(b[mysql.HeaderLen+1])|uint16(b[mysql.HeaderLen+2])<<8 != codeOption || mysql.HeaderLen+h.Length > poll.SmallBuffer {
		s.drop()
		return false, nil
	}
	if err := l.Need(mysql.HeaderLen + h.Length); err != nil {
		return false, s.lost(err)
	}
	refusal := slices.Clone(l.Buffered()[:mysql.HeaderLen+h.Length])
	var e mysql.Error
	if e.Decode(refusal[mysql.HeaderLen:]) != nil || !sinceReadOnly(&e) || len(l.Buffered()) > len(refusal) || !s.repeatable() {
		s.drop()
		return false, nil
	}
	l.Skip(len(refusal))
	l.refusedWrite()
	only, err := l.OnlyError(e.Code)
	switch {
	case err != nil:
		s.drop()
		s.logFault("ask what a refused statement has done", err)
		s.breakLink(true)
		return true, &e
	case only:
		l.Warned = backend.Nobody
		return false, errDeposed
	}
	s.drop()
	if _, err := s.response.Feed(refusal); err != nil {
		return false, s.lost(err)
	}
	st.answered, st.out = true, st.out+int64(len(refusal))
	if err := s.client.Write(refusal); err != nil {
		s.breakLink(false)
		return true, fault.Wrap(s.shutBy(fault.ClientGone), "the client left", err)
	}
	return true, nil
}

// codeOption is ER_OPTION_PREVENTS_STATEMENT: some option of the server's, not always read_only, forbids the statement.
const codeOption = 1290

// sinceReadOnly says that the error is due to read_only or super_read_only.
func sinceReadOnly(e *mysql.Error) bool {
	text := strings.ReplaceAll(strings.ToLower(e.Message), "_", "-")
	return e.Code == codeOption && (strings.Contains(text, "--read-only") || strings.Contains(text, "--super-read-only"))
}

// repeat gets a statement ready to be sent again that failed with errDeposed: it waits for a primary, and takes the session there.
func (s *session) repeat(prefix int) error {
	st, d := &s.st, s.st.database
	if s.link != nil {
		s.settle(false)
		s.unlink(upstream.Outcome{Ignored: true})
	}
	st.message, st.in, st.consumed, st.kept, st.prefix = mysql.Message{}, 0, false, 0, prefix
	d.pause(s.stop, d.patience(st.begun))
	if err := s.ensure(); err != nil {
		return err
	}
	return s.bring()
}
