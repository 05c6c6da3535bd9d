package sqldoor

import (
	"strings"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/sqldoor/scan"
)

// This file is what a session knows beside its connection: what its statements are (scan reads them), what they leave behind, and on which connection the traces of
// the last ones are.

// judgement is what a statement's text tells.
type judgement struct {
	scan.Facts
	refusal *mysql.Error // it cannot be run here
	name    string       // Use, Kill, ShowMenshen: see scan.Facts.Name; without quotes
	rest    string       // ShowMenshen, and all of a Flush: what follows the name
	set     setting
	long    bool // only its beginning was read
	spends  bool // it leaves its connection in a state that no pin describes: then it is not given back
}

// setting is what a SET does to the session's connection beyond the variables that are compared.
type setting struct {
	pins   uint32 // 1 << pinSetting, ...
	insert bool   // it sets LAST_INSERT_ID()
}

// anything are the effects after which nothing is known about the connection.
const anything = scan.UnknownEffect | scan.CallsUnknown

// judge reads a statement. whole says that text is all of it.
func (s *session) judge(text []byte, whole bool) (j judgement) {
	m := &s.mode
	j.Facts = s.classify(text)
	if !whole {
		j.long = true
		j.Effects |= scan.UnknownEffect
		if j.Kind == scan.Use || j.Kind == scan.Kill || j.Kind == scan.ShowMenshen {
			j.refusal = &errorMalformed
		}
		return j
	}
	if (j.Effects.Has(scan.ReadsVariables) || j.Kind == scan.Show) && contains(text, "last_gtid") && !s.pins.has(pinUnshared) {
		j.refusal = &errorLastGTID // it belongs to whoever wrote last on the connection
		return j
	}
	all := text
	j.spends = j.Effects.Has(scan.ReleasesConnection) || j.Effects.Has(scan.CommitsImplicitly) && contains(text, "database", "schema")
	if j.Statements > 1 {
		if text = s.onlyOne(all); text == nil {
			s.judgeMany(all, &j)
			return j
		}
		j.Facts = scan.Classify(text, m)
	}
	switch j.Kind {
	case scan.Use:
		if j.Effects.Has(scan.UnknownEffect) || j.Name.End == 0 {
			j.refusal = &errorUseMore
			return j
		}
		ok := false
		if j.name, ok = s.onlyName(text, j.Name); !ok {
			j.refusal = &errorUseMore
		}
	case scan.ShowMenshen:
		j.name, j.rest = string(text[j.Name.Start:j.Name.End]), string(text[j.Name.End:])
	case scan.Flush:
		j.rest = string(text)
	case scan.Kill:
		if j.name = string(text[j.Name.Start:j.Name.End]); !s.ends(text[j.Name.End:]) || s.killsOther(text[:j.Name.Start]) {
			j.name = "" // an expression, a user's name, or the number of a statement
		}
	case scan.Set:
		j.set = s.judgeSet(text, j.Effects)
	}
	if j.Effects.Has(scan.SetsLastInsertID) && contains(text, "nextval", "setval", "next") {
		j.set.pins |= 1 << pinSequence
	}
	if j.Effects.Has(scan.ReadsLastInsertID) && contains(text, "lastval", "previous") && !s.pins.has(pinSequence) {
		j.refusal = &errorSequence
	}
	return j
}

// onlyOne gives the one statement of a text whose other statements are comments; nil when there are several.
func (s *session) onlyOne(text []byte) (one []byte) {
	for at := 0; at < len(text); {
		end, next, exact := scan.Split(text[at:], &s.mode)
		if scan.Classify(text[at:at+end], &s.mode).Kind != scan.Empty {
			if one != nil || !exact {
				return nil
			}
			one = text[at : at+end]
		}
		at += next
	}
	return one
}

// judgeMany judges several statements in one text: those that the gateway must see alone are refused.
func (s *session) judgeMany(text []byte, j *judgement) {
	const asking = scan.ReadsRowCount | scan.ReadsFoundRows | scan.ReadsDiagnostics
	var asked, known scan.Effect // what is asked of statements before the text; what those in it have made anew
	for at := 0; at < len(text); {
		end, next, _ := scan.Split(text[at:], &s.mode)
		one := scan.Classify(text[at:at+end], &s.mode)
		switch one.Kind {
		case scan.Use:
			j.refusal = &errorUseMore
		case scan.Kill:
			j.refusal = &errorKillMore
		case scan.ShowMenshen, scan.ShowProcesses:
			j.refusal = &errorShowMore
		case scan.Savepoint:
			j.set.pins |= 1 << pinSavepoint
		case scan.XA:
			if !one.Effects.Has(scan.AsksInstance) { // XA RECOVER
				j.set.pins |= 1 << pinXA
			}
		case scan.SetRole:
			j.set.pins |= 1 << pinRole
		case scan.Set:
			set := s.judgeSet(text[at:at+end], one.Effects)
			j.set.pins |= set.pins
			j.set.insert = j.set.insert || set.insert
		}
		asked |= one.Effects & asking &^ known
		if !one.Effects.Has(anything) {
			known |= makesKnown(&one)
		}
		at += next
	}
	j.Effects = j.Effects&^asking | asked
	if j.Effects.Has(scan.SetsLastInsertID|scan.ReadsLastInsertID) && contains(text, "nextval", "setval", "next", "lastval", "previous") {
		j.Effects |= scan.UnknownEffect
	}
	j.Kind = scan.Unknown
}

// makesKnown gives what can be asked after a statement in a text, whatever was before it. GET DIAGNOSTICS leaves ROW_COUNT() as it was, and so does what may stand for it:
// EXECUTE, SET STATEMENT, CALL.
func makesKnown(one *scan.Facts) scan.Effect {
	switch one.Kind {
	case scan.Select:
		if one.Values {
			return scan.ReadsRowCount
		}
		return scan.ReadsRowCount | scan.ReadsFoundRows
	case scan.Insert, scan.Update, scan.Delete, scan.Replace:
		return scan.ReadsRowCount | scan.ReadsDiagnostics // they use tables, so the list is emptied
	case scan.Set, scan.Do, scan.Begin, scan.Commit, scan.Rollback, scan.Savepoint, scan.ReleaseSavepoint, scan.RollbackTo, scan.LockTables, scan.UnlockTables,
		scan.Show, scan.ShowDiagnostics, scan.Explain, scan.Describe:
		return scan.ReadsRowCount
	}
	return 0
}

// onlyName reads the name of a USE, and makes sure that nothing stands behind it.
func (s *session) onlyName(text []byte, at scan.Span) (name string, ok bool) {
	raw := text[at.Start:at.End]
	if len(raw) == 0 || !s.ends(text[at.End:]) {
		return "", false
	}
	if q := raw[0]; q == '`' || q == '"' {
		return strings.ReplaceAll(string(raw[1:len(raw)-1]), string([]byte{q, q}), string(q)), len(raw) > 2
	}
	return string(raw), true
}

// ends says that nothing but white space, comments and semicolons is in the rest of a text.
func (s *session) ends(rest []byte) bool {
	var sc scan.Scanner
	sc.Reset(rest, &s.mode)
	for {
		switch sc.Next().Kind {
		case scan.Space, scan.Comment, scan.Semicolon:
		case scan.End:
			return true
		default:
			return false
		}
	}
}

// killsOther says whether a KILL, of which this is what stands before its number, is MariaDB's KILL QUERY ID or KILL USER.
func (s *session) killsOther(text []byte) bool {
	var sc scan.Scanner
	sc.Reset(text, &s.mode)
	for {
		switch t := sc.Next(); t.Kind {
		case scan.Word:
			if word := string(text[t.Start:t.End]); strings.EqualFold(word, "id") || strings.EqualFold(word, "user") {
				return true
			}
		case scan.End:
			return false
		}
	}
}

// judgeSet says what a SET does that comparing variables does not show.
func (s *session) judgeSet(text []byte, effects scan.Effect) (set setting) {
	if !effects.Has(scan.SetsVariables) {
		return set // only global or user variables
	}
	var room [8]scan.Setting
	all, understood := scan.AppendSettings(room[:0], text, &s.mode)
	if !understood {
		set.pins |= 1 << pinSetting
	}
	for i := range all {
		switch all[i].Scope {
		case scan.TransactionScope:
			set.pins |= 1 << pinNextTransaction
			continue
		case scan.SessionScope:
		default:
			continue
		}
		name := strings.ToLower(strings.Trim(string(all[i].Name), "`\""))
		switch name {
		case "last_insert_id", "identity":
			set.insert = true
			continue
		case "tx_isolation", "transaction_isolation", "tx_read_only", "transaction_read_only":
			if len(all) > 1 || !s.forSession(text) { // without the word it is for the next transaction only
				set.pins |= 1 << pinNextTransaction
			}
		}
		if s.vars == nil || !s.vars.List.Tracks(name) {
			set.pins |= 1 << pinSetting
		}
	}
	return set
}

// forSession says whether a SET of one variable says that it is for the session.
func (s *session) forSession(text []byte) bool {
	var sc scan.Scanner
	sc.Reset(text, &s.mode)
	for first := true; ; {
		t := sc.Next()
		switch word := string(text[t.Start:t.End]); {
		case t.Kind == scan.Space, t.Kind == scan.Comment:
		case first:
			first = false // SET
		case t.Kind == scan.Word:
			return strings.EqualFold(word, "session") || strings.EqualFold(word, "local")
		default:
			return t.Kind == scan.SysVar && (strings.EqualFold(word, "@@session") || strings.EqualFold(word, "@@local"))
		}
	}
}

// contains says whether one of the words, in small letters, occurs in the text in any case.
func contains(text []byte, words ...string) bool {
	for _, w := range words {
		for i := 0; i+len(w) <= len(text); i++ {
			if text[i]|0x20 == w[0] && strings.EqualFold(string(text[i:i+len(w)]), w) {
				return true
			}
		}
	}
	return false
}

// learn takes over how the session's statements are to be read.
func (s *session) learn(version string) {
	s.knows = version
	m := scan.Mode{MariaDB: strings.Contains(version, "MariaDB"), Version: versionNumber(version)}
	if s.vars != nil {
		m.SetSQLMode(s.vars.Value("sql_mode"))
		if m.Charset = scan.CharsetNamed(s.vars.Value("character_set_client")); m.Charset == nil {
			m.Foreign = true
		}
	}
	s.mode = m
}

// mariadbPrefix is what MariaDB's greeting puts before its version, so that old replicas of MySQL's take it for one of theirs.
const mariadbPrefix = "5.5.5-"

// versionNumber reads 10.11.6-MariaDB as 101106 and 8.0.36 as 80036.
func versionNumber(version string) uint32 {
	version = strings.TrimPrefix(version, mariadbPrefix)
	var n, part uint32
	parts := 0
	for i := 0; i <= len(version) && parts < 3; i++ {
		if i < len(version) && version[i] >= '0' && version[i] <= '9' {
			part = part*10 + uint32(version[i]-'0')
			continue
		}
		n, part = n*100+part, 0
		parts++
		if i < len(version) && version[i] != '.' {
			break
		}
	}
	if parts < 3 {
		return 0
	}
	return n
}

// spot is a moment on a connection: as long as its turn is the same, nobody but the session has used it since.
type spot struct {
	conn *backend.Conn
	turn uint64
}

func here(c *backend.Conn) spot { return spot{c, c.Turn()} }

// traces is where the effects of the session's last statements can be asked for.
type traces struct {
	pool     *backend.Pool // of last
	last     spot          // the last statement: ROW_COUNT(); empty when that was the gateway's own
	counted  bool          // ROW_COUNT() is known to be count: the last statement failed, or the gateway itself answered it
	count    int
	found    spot            // the last one with rows: FOUND_ROWS()
	warned   bool            // the list of warnings and errors may hold something
	warnedOn *backend.Conn   // where that is; nil: it is not known any more
	insert   *backend.Insert // LAST_INSERT_ID(); nil: 0
}

// asks says whether a statement asks for traces of earlier ones, other than LAST_INSERT_ID().
func asks(e scan.Effect) bool {
	return e.Has(scan.ReadsRowCount | scan.ReadsFoundRows | scan.ReadsDiagnostics)
}

// where gives the connection that alone can answer what a statement asks for; quiet says that any with an empty list of warnings can. ok is false when none can.
func (t *traces) where(e scan.Effect) (only *backend.Conn, quiet, ok bool) {
	ok = true
	need := func(c *backend.Conn) {
		ok = ok && c != nil && (only == nil || only == c)
		only = c
	}
	if e.Has(scan.ReadsRowCount) {
		need(t.last.conn)
	}
	if e.Has(scan.ReadsFoundRows) {
		need(t.found.conn)
	}
	if e.Has(scan.ReadsDiagnostics) {
		if quiet = !t.warned; !quiet {
			need(t.warnedOn)
		}
	}
	return only, quiet, ok
}

// answers says whether the connection can answer what a statement asks for.
func (t *traces) answers(c *backend.Conn, session uint32, e scan.Effect) bool {
	switch {
	case e.Has(scan.ReadsRowCount) && t.last != here(c), e.Has(scan.ReadsFoundRows) && t.found != here(c):
		return false
	case e.Has(scan.ReadsDiagnostics) && t.warned:
		return c == t.warnedOn && c.Warned == session
	case e.Has(scan.ReadsDiagnostics):
		return c.Warned == 0
	}
	return true
}

// own notes that the gateway itself answered a statement, and what ROW_COUNT() is after it: -1 for rows and errors.
func (t *traces) own(count int) { t.last, t.counted, t.count = spot{}, true, count }

// ran notes where a statement left its traces.
func (t *traces) ran(c *backend.Conn, session uint32, j *judgement, r *mysql.Response) {
	if j.Kind == scan.GetDiagnostics && j.Statements == 1 && r.Code == 0 {
		return // it leaves everything as it was, wherever that is
	}
	t.last, t.counted, t.count = here(c), r.Code != 0, -1
	mayWarn := j.Statements > 1 || j.Effects.Has(anything)
	switch {
	case j.Kind == scan.Select && !j.Values && j.Statements == 1 && r.Code == 0 && r.Settled:
		t.found = t.last
	case t.found != t.last:
		t.found = spot{} // it may have changed FOUND_ROWS(), and that of before is elsewhere
	}
	switch {
	case r.Code != 0 || r.Warnings > 0 && !j.Effects.Has(scan.ReadsDiagnostics):
		t.warned, t.warnedOn, c.Warned = true, c, session
	case t.warned && (t.warnedOn != c || c.Warned != session), !t.warned && c.Warned != 0 && mayWarn:
		t.warned, t.warnedOn = true, nil // this statement may have emptied the list, or filled it, or not
	case mayWarn:
		t.warned, t.warnedOn, c.Warned = true, c, session
	}
	switch j.Kind {
	case scan.Insert, scan.Update, scan.Delete, scan.Replace:
		if r.Code == 0 && r.Warnings == 0 && r.Settled && !j.Effects.Has(anything) {
			t.warned, c.Warned = false, 0 // they use tables, so the list was emptied
		}
	}
}

// makes says whether a statement may have changed LAST_INSERT_ID().
func (j *judgement) makes(r *mysql.Response) bool {
	switch {
	case r.InsertID != 0, j.set.insert, j.Effects.Has(scan.SetsLastInsertID | anything), j.Statements > 1:
		return true
	}
	switch j.Kind {
	case scan.Insert, scan.Replace:
		return r.Code != 0 || r.Rows > 0 // the answer of a plain success tells
	case scan.LoadData, scan.Call, scan.Definition:
		return true
	}
	return false
}

// pinsOf gives the pins that a statement brings.
func (j *judgement) pinsOf() (set uint32) {
	e := j.Effects
	for _, p := range [...]struct {
		effect scan.Effect
		pin    pin
	}{
		{scan.UnknownEffect, pinUnknown}, {scan.CallsUnknown, pinRoutine}, {scan.CreatesTemporary, pinTemporary}, {scan.TakesUserLock, pinUserLock},
		{scan.SetsUserVariables | scan.ReadsUserVariables, pinVariables}, {scan.PreparesStatement, pinSQLPrepared}, {scan.CalculatesFoundRows, pinFoundRows},
		{scan.ReadsConnectionID, pinConnectionID}, {scan.ReadsRowCount | scan.ReadsFoundRows, pinDiagnostics},
	} {
		if e.Has(p.effect) {
			set |= 1 << p.pin
		}
	}
	switch {
	case j.long:
		set = set&^(1<<pinUnknown) | 1<<pinLong
	case e.Has(scan.LocksTables) && j.Kind == scan.LockTables:
		set |= 1 << pinTables
	case e.Has(scan.LocksTables):
		set |= 1 << pinLocks
	case j.Kind == scan.XA:
		set |= 1 << pinXA
	case j.Kind == scan.SetRole:
		set |= 1 << pinRole
	}
	return set | j.set.pins
}
