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
)

// This file is what the gateway answers about itself: SHOW MENSHEN, SHOW PROCESSLIST, CONNECTION_ID() and KILL. A consumer sees its own sessions, and ends its own.

// shown is what others may read of a session.
type shown struct{ consumer, database string }

func (s *session) show() {
	if now := (shown{s.consumer.Name, s.database}); s.shown.Load() == nil || *s.shown.Load() != now {
		s.shown.Store(&now)
	}
}

// rowsMax bounds an answer.
const rowsMax = 10000

// table answers with rows of text.
func (s *session) table(columns []string, rows [][]string) (goOn bool) {
	return s.tableOf(mysql.Column{Type: mysql.TypeVarString, Collation: 45, Length: 4096}, columns, rows)
}

// unsigned is what CONNECTION_ID() is: clients make a number of it.
var unsigned = mysql.Column{Type: mysql.TypeLong, Collation: 63, Length: 10, Flags: 1 | 32 | 128} // NOT NULL, UNSIGNED, BINARY

// tableOf is table with columns of another type.
func (s *session) tableOf(c mysql.Column, columns []string, rows [][]string) (goOn bool) {
	seq := s.st.message.Sequence
	var out, payload []byte
	add := func(p []byte) { out, seq = mysql.AppendPacket(out, seq, p) }
	end := mysql.OK{Status: s.status}
	add(mysql.AppendLenenc(nil, uint64(len(columns))))
	for _, name := range columns {
		c.Name = []byte(name)
		add(c.AppendTo(nil))
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
	// For ROW_COUNT() and the like this was a statement.
	s.traces.last, s.traces.found = spot{}, spot{}
	return s.client.Write(out) == nil
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
		switch strings.ToUpper(st.name) {
		case "SESSIONS":
			return true, s.discard() && s.showSessions()
		case "POOLS":
			return true, s.discard() && s.showPools()
		case "INSTANCES":
			return true, s.discard() && s.showInstances()
		case "STATUS":
			return true, s.discard() && s.showStatus()
		}
		return true, s.discard() && s.refuse(errorShow)
	case scan.Select:
		if text = bytes.TrimRight(bytes.TrimSpace(text), "; "); st.Effects.Has(scan.ReadsConnectionID) && bytes.EqualFold(text, connectionID) {
			name := string(text[len("SELECT "):])
			return true, s.discard() && s.tableOf(unsigned, []string{name}, [][]string{{strconv.Itoa(int(s.id))}})
		}
	}
	return false, false
}

var connectionID = []byte("SELECT CONNECTION_ID()")

// own gives the sessions of the session's consumer, by number.
func (s *session) own() (all []*session) {
	d := s.door
	d.mu.Lock()
	for sv := range d.serving {
		for o := range sv.sessions {
			all = append(all, o)
		}
	}
	d.mu.Unlock()
	all = slices.DeleteFunc(all, func(o *session) bool {
		about := o.shown.Load()
		return about == nil || about.consumer != s.consumer.Name
	})
	slices.SortFunc(all, func(a, b *session) int { return int(int64(a.id) - int64(b.id)) })
	return all
}

// running gives the command that a session is busy with, and since when; "" when it is idle.
func (s *session) running() (command string, age time.Duration) {
	begun := s.waiting.Load()
	if begun == 0 {
		return "", 0
	}
	return mysql.Command(s.command.Load()).String(), max(poll.Now().Sub(poll.Instant(begun)), 0)
}

func (s *session) showSessions() bool {
	var rows [][]string
	for _, o := range s.own() {
		about := o.shown.Load()
		command, age := o.running()
		row := []string{strconv.Itoa(int(o.id)), about.consumer, o.address.String(), about.database, command, seconds(age), "", "", ""}
		o.mu.Lock()
		held := o.closer != nil
		var pins []string
		for i := range pinCount {
			if o.pins.has(i) {
				pins = append(pins, i.String())
			}
		}
		_, since, pinned := o.pins.oldest()
		o.mu.Unlock()
		if held {
			row[6] = "1"
		} else {
			row[6] = "0"
		}
		if pinned {
			row[7], row[8] = strings.Join(pins, ", "), seconds(since)
		}
		rows = append(rows, row)
	}
	return s.table([]string{"Id", "Consumer", "Address", "Database", "Command", "Seconds", "Connection", "Pins", "Pinned_seconds"}, rows)
}

func (s *session) showProcesses() bool {
	var rows [][]string
	for _, o := range s.own() {
		about := o.shown.Load()
		command, age := o.running()
		state := "executing"
		if command == "" {
			command, state = "Sleep", ""
		}
		rows = append(rows, []string{strconv.Itoa(int(o.id)), about.consumer, o.address.String(), about.database, command, strconv.Itoa(int(age / time.Second)), state, ""})
	}
	return s.table([]string{"Id", "User", "Host", "db", "Command", "Time", "State", "Info"}, rows)
}

func (s *session) showPools() bool {
	var rows [][]string
	for _, name := range s.tables.names {
		d := s.tables.databases[name]
		for _, in := range d.instances {
			p := in.pool.Stats()
			row := []string{name}
			for _, n := range []int{p.Open, p.Open - p.Idle, p.Idle, p.Waiting, d.limits.Connections, int(p.Waited), int(p.Late)} {
				row = append(row, strconv.Itoa(n))
			}
			rows = append(rows, append(row, in.address))
		}
	}
	return s.table([]string{"Database", "Open", "Used", "Idle", "Waiting", "Max", "Waited", "Timed_out", "Instance"}, rows)
}

func (s *session) showInstances() bool {
	var rows [][]string
	for _, name := range s.tables.names {
		d := s.tables.databases[name]
		for _, in := range d.instances {
			version, _, _ := in.pool.Known()
			st := in.endpoint.Status()
			rows = append(rows, []string{name, version, strconv.FormatBool(st.Healthy), strconv.Itoa(int(st.Active)), in.address, st.Role, st.Reason})
		}
	}
	return s.table([]string{"Database", "Version", "Healthy", "Used", "Instance", "Role", "Reason"}, rows)
}

func (s *session) showStatus() bool {
	rows := [][]string{{"Sessions", strconv.Itoa(s.door.Sessions())}, {"Generation", strconv.FormatUint(s.tables.Generation, 10)}}
	for i := range pinCount {
		if n := s.door.pinned[i].Load(); n > 0 {
			rows = append(rows, []string{"Pinned: " + i.String(), strconv.FormatInt(n, 10)})
		}
	}
	return s.table([]string{"Name", "Value"}, rows)
}

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
		victim.kill()
	} else if err != nil {
		s.logFault("kill a statement", err)
		return s.refuseFor(err)
	}
	return s.sendOK(s.st.message.Sequence)
}

// target is where a session's connection can be interrupted.
type target struct {
	address  string
	settings *backend.Settings
	thread   uint32
}

// interruptTime bounds a KILL QUERY at an instance.
const interruptTime = 5 * time.Second

// interrupt ends the statement that the session runs on an instance, if it runs one. It may be called from any goroutine. Until it has returned the session cannot give
// its connection to others, and after it the connection is closed instead: a KILL QUERY that comes late hits the next statement on it.
func (s *session) interrupt() error {
	s.using.Lock()
	defer s.using.Unlock()
	if s.victim == nil || s.waiting.Load() == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), interruptTime)
	defer cancel()
	c, err := backend.Open(ctx, s.victim.address, s.victim.settings, backend.Session{}, nil)
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

// status is for metrics.
func (d *Door) status() (s observe.SQLStatus) {
	s.Pins = make(map[string]int64)
	for i := range pinCount {
		if n := d.pinned[i].Load(); n > 0 {
			s.Pins[i.String()] = n
		}
	}
	tables := d.o.Tables()
	if tables == nil {
		return s
	}
	for _, name := range tables.names {
		sum := observe.SQLPool{Database: name}
		for _, in := range tables.databases[name].instances {
			p := in.pool.Stats()
			sum.Open, sum.Idle, sum.Waiting = sum.Open+p.Open, sum.Idle+p.Idle, sum.Waiting+p.Waiting
			sum.Waits, sum.Timeouts = sum.Waits+p.Waited, sum.Timeouts+p.Late
		}
		s.Pools = append(s.Pools, sum)
	}
	return s
}
