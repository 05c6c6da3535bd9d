package sqldoor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/sqldoor/scan"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

// This file is what the gateway answers to statements about itself: SHOW MENSHEN, FLUSH MENSHEN, SHOW PROCESSLIST, CONNECTION_ID() and KILL. A consumer sees its own sessions, and ends
// its own. What there is to tell is in views.go.

// ownStatus is the status that an answer of the gateway's own tells: that of the session. What the last answer of the instance said of itself is left out: further results, rows or
// parameters, of which a client would wait for more, or a slow query that used no index.
func (s *session) ownStatus() mysql.Status {
	return s.status & (mysql.InTransaction | mysql.ReadOnly | mysql.Autocommit | mysql.NoBackslash | ansiQuotes)
}

// ansiQuotes is in the status of MariaDB's sessions with ANSI_QUOTES.
const ansiQuotes mysql.Status = 1 << 15

// rowsMax bounds an answer.
const rowsMax = 10000

// table answers with rows of text.
func (s *session) table(columns []string, rows [][]string) (goOn bool) {
	return s.tableOf(words, columns, rows)
}

// words is what all columns are that are no numbers.
var words = mysql.Column{Type: mysql.TypeVarString, Collation: 45, Length: 4096}

// unsigned is what CONNECTION_ID() is: clients make a number of it.
var unsigned = mysql.Column{Type: mysql.TypeLong, Collation: 63, Length: 10, Flags: 1 | 32 | 128} // NOT NULL, UNSIGNED, BINARY

// signed is what ROW_COUNT() is.
var signed = mysql.Column{Type: mysql.TypeLongLong, Collation: 63, Length: 21, Flags: 1 | 128}

// tableOf is table with columns of another type. Numbers are those that are numbers all the same.
func (s *session) tableOf(c mysql.Column, columns []string, rows [][]string, numbers ...string) (goOn bool) {
	seq := s.st.message.Sequence
	var out, payload []byte
	add := func(p []byte) { out, seq = mysql.AppendPacket(out, seq, p) }
	end := mysql.OK{Status: s.ownStatus()}
	add(mysql.AppendLenenc(nil, uint64(len(columns))))
	for _, name := range columns {
		column := c
		if slices.Contains(numbers, name) {
			column = signed
		}
		column.Name = []byte(name)
		add(column.AppendTo(nil))
	}
	if !s.capabilities.Has(mysql.DeprecateEOF) {
		add(end.AppendEnd(nil, s.capabilities))
	}
	for _, row := range rows[:min(len(rows), rowsMax)] {
		payload = payload[:0]
		for _, v := range row {
			payload = mysql.AppendLenencString(payload, v)
		}
		add(payload)
	}
	add(end.AppendEnd(nil, s.capabilities))
	s.st.out += int64(len(out))
	s.traces.found = spot{}
	s.traces.own(-1)
	return s.client.Write(out) == nil
}

// ofGateway says that no instance is needed for a statement, however it is to be read: an operator comes when there is none.
func ofGateway(k scan.Statement) bool {
	return k == scan.Kill || k == scan.ShowMenshen || k == scan.ShowProcesses
}

// local answers what only the gateway knows. answered is false for all that goes to an instance.
func (s *session) local(text []byte) (answered, goOn bool) {
	st := &s.st
	switch st.Kind {
	case scan.Kill:
		return true, s.discard() && s.killStatement(st.name, st.QueryOnly)
	case scan.ShowProcesses:
		return true, s.discard() && s.showProcesses()
	case scan.ShowMenshen:
		return true, s.discard() && s.showMenshen(st.name, st.rest)
	case scan.Flush:
		if what, ours := s.flushes(st.rest); ours {
			return true, s.discard() && s.flush(what)
		}
	case scan.Select:
		text = bytes.TrimRight(bytes.TrimSpace(text), "; ")
		switch {
		case st.Effects.Has(scan.ReadsConnectionID) && bytes.EqualFold(text, connectionID):
			name := string(text[len("SELECT "):])
			return true, s.discard() && s.tableOf(unsigned, []string{name}, [][]string{{strconv.Itoa(int(s.id))}})
		case st.Effects.Has(scan.ReadsRowCount) && bytes.EqualFold(text, rowCount) && s.traces.counted:
			name, count := string(text[len("SELECT "):]), strconv.Itoa(s.traces.count)
			return true, s.discard() && s.tableOf(signed, []string{name}, [][]string{{count}})
		}
	}
	return false, false
}

var (
	connectionID = []byte("SELECT CONNECTION_ID()")
	rowCount     = []byte("SELECT ROW_COUNT()")
)

// own gives the sessions of the session's consumer, by number.
func (s *session) own() []*session { return s.door.sessionsOf(s.consumer.Name) }

// listing is what SHOW MENSHEN answers.
type listing struct {
	columns []string
	rows    [][]string
	key     int // the column that LIKE looks at
}

func (l *listing) add(values ...string) { l.rows = append(l.rows, values) }

// topics are what SHOW MENSHEN knows.
var topics = map[string]func(*session) listing{
	"CONFIG": (*session).listConfig, "DIGESTS": (*session).listDigests, "INSTANCES": (*session).listInstances, "POOLS": (*session).listPools,
	"SESSIONS": (*session).listSessions, "STATUS": (*session).listStatus,
}

// showMenshen is SHOW MENSHEN topic [LIKE 'pattern'] [LIMIT number].
func (s *session) showMenshen(topic, rest string) bool {
	list := topics[strings.ToUpper(topic)]
	pattern, limit, ok := s.clauses([]byte(rest))
	if list == nil || !ok {
		return s.refuse(errorShow)
	}
	l := list(s)
	if pattern != nil {
		l.rows = slices.DeleteFunc(l.rows, func(row []string) bool { return !like(row[l.key], *pattern) })
	}
	return s.table(l.columns, l.rows[:min(len(l.rows), limit)])
}

// clauses reads what follows the topic. pattern is nil without LIKE.
func (s *session) clauses(rest []byte) (pattern *string, limit int, ok bool) {
	limit = rowsMax
	var sc scan.Scanner
	sc.Reset(rest, &s.mode)
	next := func() (scan.Kind, string) {
		for {
			t := sc.Next()
			switch t.Kind {
			case scan.Space, scan.Comment:
				continue
			}
			return t.Kind, string(scan.AppendValue(nil, rest, t, &s.mode))
		}
	}
	kind, text := next()
	if kind == scan.Word && strings.EqualFold(text, "LIKE") {
		if kind, text = next(); kind != scan.Text {
			return nil, 0, false
		}
		word := text
		pattern = &word
		kind, text = next()
	}
	if kind == scan.Word && strings.EqualFold(text, "LIMIT") {
		if kind, text = next(); kind != scan.Integer {
			return nil, 0, false
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, 0, false
		}
		limit = int(min(n, rowsMax))
		kind, _ = next()
	}
	for kind == scan.Semicolon {
		kind, _ = next()
	}
	return pattern, limit, kind == scan.End
}

// like matches as LIKE does, in any case: % is any text, _ any character, and a backslash takes both at their word.
func like(text, pattern string) bool {
	t, p := []rune(strings.ToLower(text)), []rune(strings.ToLower(pattern))
	star, from := -1, 0 // the last %, and where what it stands for ends so far
	i, j := 0, 0
	for i < len(t) {
		switch {
		case j < len(p) && p[j] == '%':
			star, from = j, i
			j++
			continue
		case j+1 < len(p) && p[j] == '\\' && p[j+1] == t[i]:
			i, j = i+1, j+2
			continue
		case j < len(p) && (p[j] == '_' || p[j] == t[i] && p[j] != '\\'):
			i, j = i+1, j+1
			continue
		case star < 0:
			return false
		}
		from++
		i, j = from, star+1
	}
	for j < len(p) && p[j] == '%' {
		j++
	}
	return j == len(p)
}

// flushes reads FLUSH MENSHEN what. ours is false for every other FLUSH.
func (s *session) flushes(text string) (what string, ours bool) {
	var words []string
	var sc scan.Scanner
	b := []byte(text)
	sc.Reset(b, &s.mode)
	for {
		switch t := sc.Next(); t.Kind {
		case scan.Space, scan.Comment, scan.Semicolon:
		case scan.End:
			ours = len(words) >= 2 && strings.EqualFold(words[1], "MENSHEN")
			if ours && len(words) == 3 {
				what = strings.ToUpper(words[2])
			}
			return what, ours
		default:
			words = append(words, string(b[t.Start:t.End]))
		}
	}
}

func (s *session) flush(what string) bool {
	if what != "DIGESTS" {
		return s.refuse(errorFlush)
	}
	s.door.ResetDigests()
	return s.sendOK(s.st.message.Sequence)
}

func (s *session) listSessions() listing {
	l := listing{key: 3, columns: []string{"Id", "Consumer", "Address", "Database", "Command", "Seconds", "Connection", "Pins", "Pinned_seconds", "Instance", "Statement", "Program", "State"}}
	for _, o := range s.own() {
		v := o.view()
		connection, pinned := "0", ""
		if v.Instance != "" {
			connection = "1"
		}
		var pins []string
		for _, p := range v.Pins {
			pins = append(pins, p.Reason)
		}
		if len(pins) > 0 {
			pinned = seconds(oldest(v.Pins))
		}
		l.add(strconv.Itoa(int(v.ID)), v.Consumer, v.Address.String(), v.Database, v.Command, seconds(v.Running), connection, strings.Join(pins, ", "), pinned, v.Instance, shorten(v.Statement), v.Program, s.state(o, &v))
	}
	return l
}

// state says what a session does that is seen as v: "" between statements. A statement without a connection waits for one, or for an instance that it could lead to; those that ask are
// answered by the gateway. It is made up of what is known anyway, so that who waits need not say so.
func (s *session) state(o *session, v *observe.SQLSession) string {
	d := s.tables.databases[v.Database]
	if v.Database == "" {
		d = s.tables.home()
	}
	switch {
	case v.Command == "":
		return ""
	case v.Instance != "" || o == s || d == nil:
		return "executing"
	case !d.writable():
		return "waiting for a primary"
	}
	return "waiting for a connection"
}

func (s *session) showProcesses() bool {
	var rows [][]string
	for _, o := range s.own() {
		v := o.view()
		command := v.Command
		if command == "" {
			command = "Sleep"
		}
		rows = append(rows, []string{strconv.Itoa(int(v.ID)), v.Consumer, v.Address.String(), v.Database, command, strconv.Itoa(int(v.Running / time.Second)), s.state(o, &v), shorten(v.Statement)})
	}
	return s.tableOf(words, []string{"Id", "User", "Host", "db", "Command", "Time", "State", "Info"}, rows, "Id", "Time")
}

func (s *session) listPools() listing {
	l := listing{columns: []string{"Database", "Open", "Used", "Idle", "Waiting", "Max", "Waited", "Timed_out", "Instance", "Min_idle"}}
	for _, p := range s.door.Pools() {
		row := []string{p.Database}
		for _, n := range []int{p.Open, p.Open - p.Idle, p.Idle, p.Waiting, p.Max, int(p.Waits), int(p.Timeouts)} {
			row = append(row, strconv.Itoa(n))
		}
		l.add(append(row, p.Instance, strconv.Itoa(p.MinIdle))...)
	}
	return l
}

func (s *session) listInstances() listing {
	l := listing{columns: []string{"Database", "Version", "Healthy", "Used", "Instance", "Role", "Lag", "Reason", "Warning"}}
	for _, name := range s.tables.names {
		d := s.tables.databases[name]
		for _, in := range d.instances {
			version, _, _ := in.pool.Known()
			st := in.endpoint.Status()
			lag, warning := "", ""
			if len(d.instances) > 1 && in.observer.Overrides() {
				warning = "the login may write although the instance is read-only"
			}
			if st.LagKnown {
				lag = seconds(st.Lag)
			}
			l.add(name, strings.TrimPrefix(version, mariadbPrefix), strconv.FormatBool(st.Healthy), strconv.Itoa(int(st.Active)), in.address, st.Role, lag, st.Reason, warning)
		}
	}
	return l
}

func (s *session) listStatus() listing {
	l := listing{columns: []string{"Name", "Value"}}
	d := s.door
	l.add("Sessions", strconv.Itoa(d.Count()))
	l.add("Generation", strconv.FormatUint(s.tables.Generation, 10))
	l.add("Uptime_seconds", strconv.Itoa(int(poll.Now().Sub(d.began)/time.Second)))
	l.add("Digests", strconv.Itoa(d.digests.size()))
	slow := ""
	if s.tables.slow.on {
		slow = s.tables.slow.threshold.String()
	}
	l.add("Slow_log_threshold", slow)
	for i := range pinCount {
		if n := d.pinned[i].Load(); n > 0 {
			l.add("Pinned: "+i.String(), strconv.FormatInt(n, 10))
		}
	}
	return l
}

func (s *session) listConfig() listing {
	l := listing{columns: []string{"Path", "Value"}}
	for _, c := range s.tables.config.Settings() {
		l.add(c.Path, c.Value)
	}
	return l
}

func (s *session) listDigests() listing {
	l := listing{key: 18, columns: []string{"Digest", "Database", "Count", "Errors", "Total_seconds", "Mean_ms", "P50_ms", "P95_ms", "P99_ms", "Max_ms", "Rows", "Affected", "Bytes_in", "Bytes_out",
		"First_seen", "Last_seen", "Histogram", "Length", "Text"}}
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	for _, d := range s.door.Digests(nil) {
		l.add(d.ID, d.Database, number(d.Count), number(d.Errors), seconds(d.Total), milliseconds(d.Mean()), milliseconds(d.Quantile(0.5)), milliseconds(d.Quantile(0.95)), milliseconds(d.Quantile(0.99)),
			milliseconds(d.Longest), number(d.Rows), number(d.Affected), number(d.BytesIn), number(d.BytesOut), moment(d.First), moment(d.Last), histogram(d.Buckets()), strconv.Itoa(len(d.Text)), shorten(d.Text))
	}
	return l
}

// shownMax is how much of a statement is shown. Texts without literals can have 64 KiB.
const shownMax = 4096

func shorten(text string) string {
	if len(text) <= shownMax {
		return text
	}
	return strings.ToValidUTF8(text[:shownMax], "") + "..."
}

// histogram lists the buckets that are not empty, each by its upper bound: 0.5ms:12 1ms:3 +Inf:1.
func histogram(all []observe.Bucket) string {
	var b strings.Builder
	for _, bucket := range all {
		if bucket.Count == 0 {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		bound := "+Inf"
		if bucket.Bound > 0 {
			bound = bucket.Bound.String()
		}
		fmt.Fprintf(&b, "%s:%d", bound, bucket.Count)
	}
	return b.String()
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") }

func milliseconds(d time.Duration) string { return strconv.FormatFloat(float64(d)/1e6, 'f', 3, 64) }

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }

// killStatement is KILL [QUERY] by the gateway's number.
func (s *session) killStatement(id string, queryOnly bool) (goOn bool) {
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return s.refuse(errorKill)
	}
	return s.killSession(uint32(n), queryOnly)
}

// killProcess is COM_PROCESS_KILL.
func (s *session) killProcess(argument []byte) (goOn bool) {
	if len(argument) < 4 {
		return s.refuse(errorMalformed)
	}
	return s.killSession(binary.LittleEndian.Uint32(argument), false)
}

func (s *session) killSession(id uint32, queryOnly bool) (goOn bool) {
	if id == s.id {
		s.refuse(errorInterrupted)
		return queryOnly
	}
	own := s.own() // others are as if they were not
	i := slices.IndexFunc(own, func(o *session) bool { return o.id == id })
	if i < 0 {
		return s.refuse(mysql.Error{Code: 1094, State: "HY000", Message: fmt.Sprintf("Unknown thread id: %d", id)})
	}
	victim := own[i]
	err := victim.interrupt()
	if !queryOnly {
		victim.Cut()
	} else if err != nil {
		s.logFault("kill a statement", err)
		return s.refuseFor(err)
	}
	return s.sendOK(s.st.message.Sequence)
}

// target is where a session's connection can be interrupted.
type target struct {
	in     *instance
	role   upstream.Class // see link
	thread uint32
}

// interruptTime bounds a KILL QUERY at an instance.
const interruptTime = 5 * time.Second

// unsent waits until whoever killed the statement has done so: the session may be pinned to its connection, where the next statement must not be hit. It gives the error for the client.
func (s *session) unsent() error {
	s.using.Lock()
	defer s.using.Unlock()
	return &errorInterrupted
}

// interrupt ends the session's statement, if there is one: where it runs, or before it is sent. It may be called from any goroutine. Until it has returned the session
// cannot give its connection to others, and after it the connection is closed instead: a KILL QUERY that comes late hits the next statement on it.
func (s *session) interrupt() error {
	s.using.Lock()
	defer s.using.Unlock()
	if s.waiting.Load() == 0 || s.command.Load() == 0 { // without a command it is signing in
		return nil
	}
	s.halt()
	if s.victim == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), interruptTime)
	defer cancel()
	c, err := backend.Open(ctx, s.victim.in.address, s.victim.in.settings, backend.Session{}, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	s.doomed = true
	err = c.Do(mysql.ComQuery, "KILL QUERY "+strconv.FormatUint(uint64(s.victim.thread), 10))
	var refused *mysql.Error
	if errors.As(err, &refused) && refused.Code == 1094 { // it is over
		return nil
	}
	_ = c.Write(quit)
	return err
}
