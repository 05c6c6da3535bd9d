package backend

import (
	"net"
	"slices"
	"testing"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/sqldoor/wire"
)

// A KILL QUERY that hits what surrounds the preparing of a statement costs neither that nor the connection.
func TestPrepareUnderIsKilled(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	done := make(chan []mysql.Command)
	go func() {
		var all []mysql.Command
		defer func() { done <- all }()
		c := wire.New(there)
		defer c.Close()
		ok := mysql.OK{Status: mysql.Autocommit}
		for last := mysql.ComSleep; ; {
			p, _, err := c.ReadMessage(0, answerMax)
			if err != nil {
				return
			}
			command := mysql.Command(p[0])
			all = append(all, command)
			write := func(dst []byte) []byte { return ok.AppendTo(dst, mysql.Framing) }
			switch {
			case command == mysql.ComStmtPrepare:
				write = func(dst []byte) []byte { return append(dst, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) }
			case command != last: // the first of its kind in a row
				e := &mysql.Error{Code: codeInterrupted, State: "70100", Message: "killed"}
				write = e.AppendTo
			}
			last = command
			if c.WriteMessage(1, write) != nil {
				return
			}
		}
	}()
	c := &Conn{Conn: wire.New(here), Capabilities: mysql.Framing, Schema: "now"}
	l := newVariables("sql_mode")
	then, now := vars(l, "ANSI"), vars(l, "")
	s, ok, err := c.PrepareUnder(then, now, "DO 1", "then", then.Reading(), 0)
	if err != nil || !ok || s == nil || s.ID != 7 || c.Find("DO 1", "then", then.Reading()) != s {
		t.Errorf("%v, %v, %v", s, ok, err)
	} else if err := c.Reset(s); err != nil {
		t.Errorf("reset: %v", err)
	}
	s.Open = true
	if c.Find("DO 1", "then", then.Reading()) != nil {
		t.Error("a statement was found that is open")
	}
	_ = c.Close()
	q, i := mysql.ComQuery, mysql.ComInitDB
	if got := <-done; !slices.Equal(got, []mysql.Command{q, q, i, i, mysql.ComStmtPrepare, q, q, i, i, mysql.ComStmtReset, mysql.ComStmtReset}) {
		t.Errorf("it was sent: %v", got)
	}
}
