package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/group"
)

// Probe is an active check: it signs in and leaves. A sign-in rather than a look at the greeting, because servers block
// hosts whose connections end early too often. An instance that answers with an error of its own (too many connections, wrong
// password) is alive: the client of the session that meets the error should read it.
func Probe(ctx context.Context, address string, s *Settings, facts *Facts) error {
	c, err := Open(ctx, address, s, Session{}, facts)
	if err != nil {
		var refused *mysql.Error
		if errors.As(err, &refused) {
			return nil
		}
		return cause(err)
	}
	defer c.Close()
	return c.Write(quit)
}

// Gone says that an error is certain about an instance: it does not listen, or has closed the connection. What only took too long says nothing
// certain, nor does what went wrong on this side.
func Gone(err error) bool {
	var refused *mysql.Error
	return !errors.As(err, &refused) && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF))
}

// cause leaves out what is the same in all errors of checks.
func cause(err error) error {
	if cause := fault.Of(err).Cause; cause != nil {
		return cause
	}
	return err
}

// Observer asks one instance for its role in a group, over a connection that it keeps: a check costs two statements instead of a sign-in. The zero value
// is ready. Safe for any number of goroutines; checks follow each other.
type Observer struct {
	mu     sync.Mutex
	conn   *Conn
	with   *Settings // that conn is signed in with
	closed bool

	overrides atomic.Bool // see Overrides
}

// Overrides says that the login may write while the instance is read-only, as the newest connection was told.
func (ob *Observer) Overrides() bool { return ob.overrides.Load() }

// observerLife is for how long a connection is kept: a new sign-in now and then notices an instance that takes no more of them.
const observerLife = time.Minute

// Observe makes one check. What it could not find out is said in the observation.
func (ob *Observer) Observe(ctx context.Context, address string, s *Settings, facts *Facts) group.Observation {
	ob.mu.Lock()
	defer ob.mu.Unlock()
	o := group.Observation{Began: time.Now()}
	kept := ob.conn != nil
	if kept && (ob.with != s || poll.Now().Sub(ob.conn.Opened) > observerLife) {
		ob.drop(true)
		kept = false
	}
	err := ob.ask(ctx, address, s, facts, &o)
	if err != nil && kept && ob.conn == nil && ctx.Err() == nil { // the connection was old: that says nothing yet
		o = group.Observation{Began: time.Now()}
		err = ob.ask(ctx, address, s, facts, &o)
	}
	if o.At = time.Now(); err != nil {
		o.Gone = ctx.Err() == nil && Gone(err)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		o.Err = cause(err)
	}
	return o
}

// ask signs in, if need be, and asks. With an error other than the instance's own there is no connection afterwards. ob.mu is held.
func (ob *Observer) ask(ctx context.Context, address string, s *Settings, facts *Facts, o *group.Observation) error {
	fresh := false
	if ob.conn == nil {
		c, err := Open(ctx, address, s, Session{}, facts)
		if err != nil {
			return err
		}
		c.Opened = poll.Now()
		ob.conn, ob.with, fresh = c, s, true
	}
	c := ob.conn
	stop := context.AfterFunc(ctx, func() { c.Interrupt() })
	err := c.observe(o)
	if fresh && err == nil { // rights count from the sign-in on
		var overrides bool
		overrides, err = c.overrides()
		ob.overrides.Store(overrides)
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	c.Release()
	if err != nil || ob.closed {
		ob.drop(false)
	}
	return err
}

// Close closes the connection that is kept, after the check that runs.
func (ob *Observer) Close() {
	ob.mu.Lock()
	defer ob.mu.Unlock()
	ob.closed = true
	if ob.conn != nil {
		ob.drop(true)
	}
}

// drop closes the connection. ob.mu is held.
func (ob *Observer) drop(well bool) {
	if well {
		ob.conn.sayQuit()
	}
	_ = ob.conn.Close()
	ob.conn = nil
}

// What is asked. gtid_current_pos is the last transaction in each domain; the other two name further servers that wrote in them.
const (
	roleMariaDB = "SELECT @@global.read_only, @@global.server_id, @@global.gtid_current_pos, @@global.gtid_binlog_state, @@global.gtid_slave_pos"
	roleMySQL   = "SELECT @@global.read_only, @@global.server_id, @@global.gtid_executed" // super_read_only implies read_only

	sourcesMariaDB  = "SHOW ALL SLAVES STATUS"
	sourcesMySQL    = "SHOW REPLICA STATUS" // since 8.0.22
	sourcesMySQLOld = "SHOW SLAVE STATUS"
)

// Error numbers.
const (
	errorSyntax = 1064
	errorDenied = 1227 // a right is missing
)

// observe asks for role, position and replication status.
func (c *Conn) observe(o *group.Observation) error {
	role, columns, sources := roleMySQL, 3, sourcesMySQL
	if c.MariaDB() {
		role, columns, sources = roleMariaDB, 5, sourcesMariaDB
	}
	t, err := c.table(role)
	if err != nil {
		return err
	}
	if len(t.rows) != 1 || len(t.names) != columns {
		return fmt.Errorf("%w: no answer to %q", mysql.ErrMalformed, role)
	}
	row := t.rows[0]
	// 0 or OFF; newer servers have more ways to be read-only than one.
	o.Writable = string(row[0]) == "0" || strings.EqualFold(string(row[0]), "OFF")
	id, _ := strconv.ParseUint(string(row[1]), 10, 32)
	o.ServerID = uint32(id)
	if c.MariaDB() {
		o.Position, err = group.ParseMariaDB(string(row[2]), string(row[3]), string(row[4]))
	} else {
		o.Position, err = group.ParseMySQL(string(row[2]))
	}
	if err != nil {
		return err
	}

	t, err = c.table(sources)
	var refused *mysql.Error
	if errors.As(err, &refused) && refused.Code == errorSyntax && !c.MariaDB() {
		t, err = c.table(sourcesMySQLOld)
	}
	if errors.As(err, &refused) {
		o.SourceErr = refused
		if refused.Code == errorDenied {
			o.SourceErr = fmt.Errorf("%w: %s", ErrMayNotSee, refused.Message)
		}
		return nil
	}
	if err != nil {
		return err
	}
	o.Sources = t.sources()
	return nil
}

// overrides asks whether the login may write while the instance is read-only. What cannot be found out is no.
func (c *Conn) overrides() (bool, error) {
	t, err := c.table("SHOW GRANTS") // of the login and its role
	var refused *mysql.Error
	if errors.As(err, &refused) {
		return false, nil
	}
	for _, row := range t.rows {
		if len(row) > 0 && writesReadOnly(string(row[0]), c.Version) {
			return true, err
		}
	}
	return false, err
}

// writesReadOnly says that a line of SHOW GRANTS holds a right that read_only does not bind.
func writesReadOnly(grant, version string) bool {
	rights, ok := strings.CutPrefix(grant, "GRANT ")
	rights, _, global := strings.Cut(rights, " ON *.* TO ")
	if !ok || !global {
		return false
	}
	for right := range strings.SplitSeq(rights, ",") {
		switch strings.TrimSpace(right) {
		case "ALL PRIVILEGES", "READ_ONLY ADMIN", "READ ONLY ADMIN", "CONNECTION_ADMIN":
			return true
		case "SUPER": // MariaDB 10.11 has made a right of its own of it
			major, rest, _ := strings.Cut(strings.TrimPrefix(version, "5.5.5-"), ".")
			minor, _, _ := strings.Cut(rest, ".")
			x, _ := strconv.Atoi(major)
			y, _ := strconv.Atoi(minor)
			if !strings.Contains(version, "MariaDB") || x < 10 || x == 10 && y < 11 {
				return true
			}
		}
	}
	return false
}

// ErrMayNotSee says that a login lacks the right to see the state of replication.
var ErrMayNotSee = errors.New("the login may not see the replication status")

// table is a small result.
type table struct {
	names []string
	rows  [][][]byte
}

// tableMax bounds a table: sets of GTIDs may have many gaps.
const tableMax = 1 << 20

// table runs a query of the gateway's own and reads all of its result. A *mysql.Error leaves the connection usable, every other one does not.
func (c *Conn) table(query string) (table, error) {
	c.Mark()
	defer c.ask()()
	if err := c.Write(mysql.AppendCommand(nil, mysql.ComQuery, query)); err != nil {
		return table{}, ownLost(err)
	}
	var r mysql.Response
	r.Start(mysql.ComQuery, c.Capabilities, 1, false)
	var all []byte
	for !r.Done() {
		if len(c.Buffered()) == 0 {
			if err := c.Fill(); err != nil {
				return table{}, ownLost(err)
			}
		}
		n, err := r.Feed(c.Buffered())
		if err == nil && (r.WantsFile() || len(all)+n > tableMax) {
			err = mysql.ErrMalformed
		}
		if err != nil {
			return table{}, ownLost(err)
		}
		all = append(all, c.Buffered()[:n]...)
		c.Skip(n)
	}
	if len(c.Buffered()) > 0 || r.Settled && r.Status&mysql.MoreResults != 0 {
		return table{}, ownLost(mysql.ErrMalformed)
	}
	t, err := parseTable(all, c.Capabilities)
	var refused *mysql.Error
	if err != nil && !errors.As(err, &refused) {
		err = ownLost(err)
	}
	return t, err
}

// parseTable reads the packets of a complete answer to a query. It is strict about what it needs and blind to the rest.
func parseTable(all []byte, caps mysql.Capability) (t table, err error) {
	columns, messages := 0, 0
	eof := !caps.Has(mysql.DeprecateEOF)
	for len(all) > 0 {
		h, ok := mysql.ParseHeader(all)
		if !ok || len(all) < mysql.HeaderLen+h.Length || h.Length == 0 {
			return table{}, mysql.ErrMalformed
		}
		payload := all[mysql.HeaderLen : mysql.HeaderLen+h.Length]
		all = all[mysql.HeaderLen+h.Length:]
		switch {
		case mysql.IsError(payload) && (messages == 0 || messages > columns):
			e := new(mysql.Error)
			if err := e.Decode(payload); err != nil {
				return table{}, err
			}
			return table{}, e
		case messages == 0:
			n, used := mysql.Lenenc(payload)
			if used != len(payload) || n == 0 || n > columnsMax {
				return table{}, mysql.ErrMalformed // an OK, for one: the query has no result
			}
			columns = int(n)
		case messages <= columns:
			const name = 4 // after catalog, schema, table and its original name
			row, _ := mysql.DecodeRow(payload, name+1)
			if row == nil {
				return table{}, mysql.ErrMalformed
			}
			t.names = append(t.names, string(row[name]))
		case messages == columns+1 && eof:
			if payload[0] != 0xfe {
				return table{}, mysql.ErrMalformed
			}
		case payload[0] == 0xfe && h.Length < 9+0xffff: // the end: a row that begins like that is 16 MB long
			return t, nil
		default:
			row, ok := mysql.DecodeRow(payload, columns)
			if !ok {
				return table{}, mysql.ErrMalformed
			}
			t.rows = append(t.rows, row)
		}
		messages++
	}
	return table{}, mysql.ErrMalformed
}

// columnsMax is more than any status has.
const columnsMax = 1000

// sources reads the replication status: the same in the words of MariaDB, of MySQL, and of older ones.
func (t table) sources() (all []group.Source) {
	for _, row := range t.rows {
		value := func(names ...string) (string, bool) {
			for i, have := range t.names {
				for _, name := range names {
					if strings.EqualFold(have, name) {
						return string(row[i]), row[i] != nil
					}
				}
			}
			return "", false
		}
		first := func(names ...string) string { v, _ := value(names...); return v }
		s := group.Source{Name: first("Connection_name", "Channel_Name")}
		if host := first("Source_Host", "Master_Host"); host != "" {
			s.Address = net.JoinHostPort(host, first("Source_Port", "Master_Port"))
		}
		id, _ := strconv.ParseUint(first("Source_Server_Id", "Master_Server_Id"), 10, 32)
		s.ServerID = uint32(id)
		switch first("Replica_IO_Running", "Slave_IO_Running") {
		case "Yes":
			s.IO = group.Connected
		case "No", "":
		default: // Connecting, Preparing
			s.IO = group.Connecting
		}
		s.SQL = first("Replica_SQL_Running", "Slave_SQL_Running") == "Yes"
		if behind, ok := value("Seconds_Behind_Source", "Seconds_Behind_Master"); ok {
			n, err := strconv.ParseUint(behind, 10, 32)
			s.Behind, s.Measured = time.Duration(n)*time.Second, err == nil
		}
		s.Problem = first("Last_SQL_Error")
		if s.SQL || s.Problem == "" {
			s.Problem = first("Last_IO_Error")
		}
		s.Problem = strings.ToValidUTF8(s.Problem[:min(len(s.Problem), 200)], "?")
		all = append(all, s)
	}
	return all
}
