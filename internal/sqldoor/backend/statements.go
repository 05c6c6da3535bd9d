package backend

import (
	"encoding/binary"
	"errors"

	"github.com/menshen-gateway/menshen/internal/mysql"
)

// Statement is a prepared statement on a connection. Sessions share it when text, schema and the settings that texts are read by are the same.
type Statement struct {
	ID    uint32 // the instance's
	Open  bool   // it has a cursor or long data: it belongs to the session that has the connection
	Bound []byte // the parameters' types that the instance knows, two bytes each; nil: not known

	text, schema, reading string
	used                  uint64
}

// statementsMax bounds the statements that a connection keeps prepared; the one unused for longest goes.
const statementsMax = 64

// Find gives the statement of a text, prepared under a schema and the settings of reading (see Vars.Reading); nil when there is none. One that is Open belongs to another
// number of the session's: the same text prepared twice is two statements.
func (c *Conn) Find(text, schema, reading string) *Statement {
	for _, s := range c.statements {
		if !s.Open && s.text == text && s.schema == schema && s.reading == reading {
			c.uses++
			s.used = c.uses
			return s
		}
	}
	return nil
}

// Keep notes that the instance has prepared a statement. One that had its place is closed.
func (c *Conn) Keep(id uint32, text, schema, reading string) (*Statement, error) {
	place := -1
	for i, s := range c.statements {
		same := s.text == text && s.schema == schema && s.reading == reading
		if !s.Open && (same || len(c.statements) >= statementsMax && (place < 0 || s.used < c.statements[place].used)) {
			if place = i; same {
				break
			}
		}
	}
	c.uses++
	s := &Statement{ID: id, text: text, schema: schema, reading: reading, used: c.uses}
	if place < 0 {
		c.statements = append(c.statements, s)
		return s, nil
	}
	old := c.statements[place]
	c.statements[place] = s
	return s, c.closeStatement(old.ID)
}

// Forget closes a statement.
func (c *Conn) Forget(s *Statement) error {
	for i := range c.statements {
		if c.statements[i] == s {
			c.statements = append(c.statements[:i], c.statements[i+1:]...)
			return c.closeStatement(s.ID)
		}
	}
	return nil
}

// Reset makes the instance drop a statement's cursor and long data.
func (c *Conn) Reset(s *Statement) error {
	return c.doAgain(mysql.ComStmtReset, string(binary.LittleEndian.AppendUint32(nil, s.ID)))
}

// doAgain is Do for what a KILL QUERY must not end: that was for the session's statement, which is still to come, and has its own way to hear of it.
func (c *Conn) doAgain(command mysql.Command, argument string) error {
	err := c.Do(command, argument)
	if refused := new(mysql.Error); errors.As(err, &refused) && refused.Code == codeInterrupted {
		err = c.Do(command, argument)
	}
	return err
}

func (c *Conn) closeStatement(id uint32) error {
	var argument [4]byte
	binary.LittleEndian.PutUint32(argument[:], id)
	if err := c.Write(mysql.AppendCommand(nil, mysql.ComStmtClose, argument[:])); err != nil {
		return ownLost(err)
	}
	return nil
}

// Prepare prepares a text for a session that did so on another connection. A *mysql.Error leaves the connection usable, every other one does not.
func (c *Conn) Prepare(text, schema, reading string, parameters uint16) (*Statement, error) {
	c.Mark()
	defer c.ask()()
	if err := c.Write(mysql.AppendCommand(nil, mysql.ComStmtPrepare, text)); err != nil {
		return nil, ownLost(err)
	}
	if err := c.Need(mysql.HeaderLen + 1); err != nil {
		return nil, ownLost(err)
	}
	if mysql.IsError(c.Buffered()[mysql.HeaderLen:]) {
		payload, _, err := c.ReadMessage(1, answerMax)
		e := new(mysql.Error)
		if err == nil {
			err = e.Decode(payload)
		}
		if err != nil {
			return nil, ownLost(err)
		}
		c.Warned = Nobody
		return nil, e
	}
	var r mysql.Response
	r.Start(mysql.ComStmtPrepare, c.Capabilities, 1, false)
	for !r.Done() {
		if len(c.Buffered()) == 0 {
			if err := c.Fill(); err != nil {
				return nil, ownLost(err)
			}
		}
		n, err := r.Feed(c.Buffered())
		if err != nil {
			return nil, ownLost(err)
		}
		c.Skip(n)
	}
	if len(c.Buffered()) > 0 || r.Code != 0 || r.Prepared.Parameters != parameters {
		return nil, ownLost(mysql.ErrMalformed)
	}
	if r.Prepared.Warnings > 0 {
		c.Warned = Nobody
	}
	return c.Keep(r.Prepared.Statement, text, schema, reading)
}

// PrepareUnder is Prepare under the settings and the schema that the session had then, if the connection has others now. then and now may be nil when they are
// not known; ok is false when the settings cannot be made.
func (c *Conn) PrepareUnder(then, now *Vars, text, schema, reading string, parameters uint16) (s *Statement, ok bool, err error) {
	back := c.Schema
	if schema == back && then.Reading() == now.Reading() {
		s, err = c.Prepare(text, schema, reading, parameters)
		return s, true, err
	}
	if then == nil || now == nil || then.List != now.List || schema != back && (schema == "" || back == "") {
		return nil, false, nil
	}
	under := now.reading(then)
	there, here := now.appendSets(nil, under), under.appendSets(nil, now)
	do := func(sets []byte, schema string, differs bool) error {
		if len(sets) > 0 {
			if err := c.doAgain(mysql.ComQuery, "SET "+string(sets)); err != nil {
				return err
			}
		}
		if differs {
			return c.doAgain(mysql.ComInitDB, schema)
		}
		return nil
	}
	if err = do(there, schema, schema != back); err == nil {
		s, err = c.Prepare(text, schema, reading, parameters)
		if again := do(here, back, schema != back); again != nil {
			s, err = nil, ownLost(errors.New(again.Error())) // not its *mysql.Error: the connection is of no more use
		}
	} else { // a schema that is gone: rare enough to close the connection for
		err = ownLost(errors.New(err.Error()))
	}
	return s, true, err
}

// readingNames are the variables that decide how a text is read when it is prepared; all others count when it is executed.
var readingNames = [...]string{"sql_mode", "old_mode", "character_set_client", "character_set_connection", "collation_connection"}

// Reading stands for the settings that decide how a text is read. Nil has "".
func (v *Vars) Reading() string {
	if v == nil {
		return ""
	}
	var all string
	for _, name := range readingNames {
		all += v.Value(name) + "\n"
	}
	return all
}

// reading gives v with the settings of then that decide how a text is read.
func (v *Vars) reading(then *Vars) *Vars {
	out := &Vars{List: v.List, values: append([]string(nil), v.values...), null: append([]bool(nil), v.null...)}
	for _, name := range readingNames {
		if i, ok := v.List.index[name]; ok {
			out.values[i], out.null[i] = then.values[i], then.null[i]
		}
	}
	return out
}
