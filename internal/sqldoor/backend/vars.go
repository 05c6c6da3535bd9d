package backend

import (
	"errors"
	"fmt"
	"hash/maphash"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// Variables is the list of session variables that a flavour's connections are compared by. A session that sets any other one keeps its connection.
type Variables struct {
	names   []string
	numbers []bool // of names: written without quotes
	index   map[string]int
	ask     string

	mu    sync.Mutex
	known map[uint64]weak.Pointer[Vars] // those that somebody holds, by the hash of their values
}

// The order is that in which differences are set: character_set_connection resets collation_connection, and max_join_size resets sql_big_selects.
const (
	variablesBoth = `autocommit=n sql_mode time_zone foreign_key_checks=n unique_checks=n group_concat_max_len=n sql_safe_updates=n sql_select_limit=n max_join_size=n
sql_big_selects=n sql_notes=n sql_warnings=n sql_quote_show_create=n sql_buffer_result=n wait_timeout=n interactive_timeout=n net_read_timeout=n
net_write_timeout=n lock_wait_timeout=n innodb_lock_wait_timeout=n lc_time_names lc_messages div_precision_increment=n default_week_format=n default_storage_engine
completion_type low_priority_updates=n updatable_views_with_limit max_sort_length=n tmp_table_size=n max_heap_table_size=n sort_buffer_size=n join_buffer_size=n
read_buffer_size=n read_rnd_buffer_size=n max_error_count=n auto_increment_increment=n auto_increment_offset=n big_tables=n optimizer_search_depth=n
optimizer_prune_level=n optimizer_switch sql_auto_is_null=n session_track_schema=n session_track_state_change=n session_track_system_variables
session_track_transaction_info`
	variablesCharset = ` character_set_client character_set_results character_set_connection collation_connection`
	variablesMariaDB = ` tx_isolation tx_read_only=n max_statement_time=n check_constraint_checks=n old_mode innodb_strict_mode=n default_regex_flags max_recursive_iterations=n`
	variablesMySQL   = ` transaction_isolation transaction_read_only=n max_execution_time=n block_encryption_mode`
)

var (
	mariadbVariables = newVariables(variablesBoth + variablesMariaDB + variablesCharset)
	mysqlVariables   = newVariables(variablesBoth + variablesMySQL + variablesCharset)
)

func newVariables(list string) *Variables {
	v := &Variables{index: make(map[string]int), known: make(map[uint64]weak.Pointer[Vars])}
	ask := []byte("SELECT ")
	for i, field := range strings.Fields(list) {
		name, numeric := strings.CutSuffix(field, "=n")
		v.index[name] = i
		v.names, v.numbers = append(v.names, name), append(v.numbers, numeric)
		if i > 0 {
			ask = append(ask, ',')
		}
		ask = append(append(ask, "@@"...), name...)
	}
	v.ask = string(append(ask, systemZone...))
	return v
}

// systemZone asks what time_zone = SYSTEM means on the instance: what time it is there at two moments. Its name would not do: it is another one in winter than in summer.
const systemZone = ",CONCAT(CONVERT_TZ('2025-01-15 00:00:00','+00:00','SYSTEM'),CONVERT_TZ('2025-07-15 00:00:00','+00:00','SYSTEM'))"

// Tracks says whether a variable (in small letters) is one of those that are compared. Names of other flavours and old names count.
func (v *Variables) Tracks(name string) bool {
	switch name {
	case "names", "character set", "tx_isolation", "transaction_isolation", "tx_read_only", "transaction_read_only", "storage_engine":
		return true
	}
	_, ok := v.index[name]
	return ok
}

// Vars are the values of all the Variables, as the instance gave them. They are never changed. Nil is not known.
type Vars struct {
	List   *Variables
	values []string
	null   []bool

	forReading atomic.Pointer[Vars] // see ReadOnly
}

// seed is of the hashes in Variables.known.
var seed = maphash.MakeSeed()

// one gives the Vars with v's values that sessions hold already, or v. Sessions mostly have one of a few settings, and a set of values takes 2.4 KiB.
func (l *Variables) one(v *Vars) *Vars {
	var h maphash.Hash
	h.SetSeed(seed)
	for i, value := range v.values {
		if v.null[i] {
			_ = h.WriteByte(1)
		}
		_, _ = h.WriteString(value)
		_ = h.WriteByte(0)
	}
	sum := h.Sum64()
	l.mu.Lock()
	defer l.mu.Unlock()
	if there := l.known[sum].Value(); there != nil {
		if there.Equal(v) {
			return there
		}
		return v
	}
	l.known[sum] = weak.Make(v)
	runtime.AddCleanup(v, l.forget, sum)
	return v
}

// forget is called when nobody holds the Vars with that hash any more.
func (l *Variables) forget(sum uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[sum].Value() == nil {
		delete(l.known, sum)
	}
}

// Value gives the value of a variable; "" for one that is not in the list.
func (v *Vars) Value(name string) string {
	if i, ok := v.List.index[name]; ok {
		return v.values[i]
	}
	return ""
}

// differences counts what must be set to come from one to the other.
func (v *Vars) differences(to *Vars) int {
	switch {
	case v == to:
		return 0
	case v.List != to.List:
		return len(v.values)
	}
	n := 0
	for i := range v.values {
		if v.values[i] != to.values[i] || v.null[i] != to.null[i] {
			n++
		}
	}
	return n
}

// ReadOnly gives v as it is set on connections to replicas: with it whatever writes after all, in a function that a view calls for example, is refused by the
// server before anything of it is done (1792), also if the login may write to read-only servers. The same v gives the same pointer.
func (v *Vars) ReadOnly() *Vars {
	if r := v.forReading.Load(); r != nil {
		return r
	}
	i, ok := v.List.index["tx_read_only"]
	if !ok {
		i = v.List.index["transaction_read_only"]
	}
	r := &Vars{List: v.List, values: append([]string(nil), v.values...), null: v.null}
	r.values[i] = "1"
	if r.values[i] == v.values[i] {
		r = v
	}
	v.forReading.CompareAndSwap(nil, r)
	return v.forReading.Load()
}

// Equal says that nothing has to be set to come from one to the other.
func (v *Vars) Equal(to *Vars) bool {
	return v == to || v != nil && to != nil && v.List == to.List && v.differences(to) == 0
}

// appendSets appends assignments that turn v into to, parted by commas.
func (v *Vars) appendSets(dst []byte, to *Vars) []byte {
	charset, join := false, false
	for i, name := range v.List.names {
		same := v.values[i] == to.values[i] && v.null[i] == to.null[i]
		charset = charset || name == "character_set_connection" && !same
		join = join || name == "max_join_size" && !same
		if same && !(charset && name == "collation_connection") && !(join && name == "sql_big_selects") {
			continue // and none before it has changed it
		}
		if len(dst) > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, "@@session."...), name...), '=')
		switch {
		case to.null[i]:
			dst = append(dst, "NULL"...)
		case v.List.numbers[i]:
			dst = append(dst, to.values[i]...)
		default:
			dst = append(append(append(dst, '\''), to.values[i]...), '\'')
		}
	}
	return dst
}

// Rebase gives the settings of a session on another instance: what it changed since birth over what is usual there. It is nil when that cannot be said.
func (v *Vars) Rebase(birth, there *Vars) *Vars {
	if v.Equal(birth) {
		return there
	}
	if v.List != birth.List || v.List != there.List {
		return nil
	}
	out := &Vars{List: v.List, values: append([]string(nil), there.values...), null: append([]bool(nil), there.null...)}
	for i := range v.values {
		if v.values[i] != birth.values[i] || v.null[i] != birth.null[i] {
			out.values[i], out.null[i] = v.values[i], v.null[i]
		}
	}
	return v.List.one(out)
}

// plain says that a value can stand in a statement whatever the sql_mode and the character set, and was not sent in a character set of its own.
func plain(value []byte) bool {
	for _, c := range value {
		if c < ' ' || c > '~' || c == '\'' || c == '\\' || c == '"' {
			return false
		}
	}
	return true
}

// MariaDB says whether the instance is one, as far as its greeting tells.
func (c *Conn) MariaDB() bool { return strings.Contains(c.Version, "MariaDB") }

// ReadVars asks the instance for the values of all variables. Nil without an error says that they are not to be had: then nothing can be said about the
// connection's settings. A *mysql.Error leaves the connection usable, every other one does not.
func (c *Conn) ReadVars() (*Vars, error) {
	list := mysqlVariables
	if c.MariaDB() {
		list = mariadbVariables
	}
	row, ok, err := c.Row(list.ask, len(list.names)+1)
	if err != nil || !ok {
		return nil, err
	}
	c.zone = string(row[len(list.names)])
	row = row[:len(list.names)]
	v := &Vars{List: list, values: make([]string, len(row)), null: make([]bool, len(row))}
	for i, value := range row {
		if !plain(value) {
			return nil, nil
		}
		if v.null[i] = value == nil; list.numbers[i] && len(value) == 0 {
			return nil, nil
		}
		v.values[i] = string(value)
	}
	if v.Value("sql_auto_is_null") == "1" {
		return nil, nil // WHERE id IS NULL asks for the row that was inserted last, which is a connection's own
	}
	if c.Vars != nil && c.Vars.Equal(v) {
		return c.Vars, nil // the same pointer compares faster
	}
	return list.one(v), nil
}

// Bounds of what the gateway asks for itself.
const (
	answerMax = 64 << 10
	ownTime   = 10 // seconds
)

// ask begins something of the gateway's own: it is bounded, and its time counted.
func (c *Conn) ask() (done func()) {
	began := poll.Now()
	c.ReadBefore(began.Add(ownTime * 1e9))
	return func() {
		c.ReadBefore(0)
		c.Own += poll.Now().Sub(began)
	}
}

// Row runs a query of the gateway's own and gives its first row, nil for NULL; ok is false when there is no row. A *mysql.Error leaves the connection usable, every
// other one does not.
func (c *Conn) Row(query string, columns int) (row [][]byte, ok bool, err error) {
	row, ok, err = c.row(query, columns)
	if refused := new(mysql.Error); errors.As(err, &refused) && refused.Code == codeInterrupted {
		// A KILL QUERY was for the session's statement, which is over or still to come. What is asked here may be of others: the LAST_INSERT_ID() of who had the connection before.
		row, ok, err = c.row(query, columns)
	}
	return row, ok, err
}

// codeInterrupted is what a statement ends with after KILL QUERY.
const codeInterrupted = 1317

func (c *Conn) row(query string, columns int) (row [][]byte, ok bool, err error) {
	c.Mark()
	defer c.ask()()
	if err := c.Write(mysql.AppendCommand(nil, mysql.ComQuery, query)); err != nil {
		return nil, false, ownLost(err)
	}
	var r mysql.Response
	r.Start(mysql.ComQuery, c.Capabilities, 1, false)
	var all []byte
	for !r.Done() {
		if len(c.Buffered()) == 0 {
			if err := c.Fill(); err != nil {
				return nil, false, ownLost(err)
			}
		}
		n, err := r.Feed(c.Buffered())
		if err == nil && (r.WantsFile() || len(all)+n > answerMax) {
			err = mysql.ErrMalformed
		}
		if err != nil {
			return nil, false, ownLost(err)
		}
		all = append(all, c.Buffered()[:n]...)
		c.Skip(n)
	}
	if r.Settled {
		c.Status = r.Status
	}
	if r.Code != 0 || r.Warnings > 0 {
		c.Warned = Nobody
	}
	if len(c.Buffered()) > 0 || r.Settled && r.Status&mysql.MoreResults != 0 {
		return nil, false, ownLost(mysql.ErrMalformed)
	}
	return firstRow(all, columns, c.Capabilities)
}

// firstRow finds the first row in a complete answer to a query.
func firstRow(all []byte, columns int, caps mysql.Capability) (row [][]byte, ok bool, err error) {
	messages := 0
	skip := 1 + columns
	if !caps.Has(mysql.DeprecateEOF) {
		skip++
	}
	for len(all) > 0 {
		h, _ := mysql.ParseHeader(all)
		payload := all[mysql.HeaderLen : mysql.HeaderLen+h.Length]
		all = all[mysql.HeaderLen+h.Length:]
		switch {
		case mysql.IsError(payload) && (messages == 0 || messages >= skip):
			e := new(mysql.Error)
			if err := e.Decode(payload); err != nil {
				return nil, false, ownLost(err)
			}
			return nil, false, e
		case messages == 0:
			if n, _ := mysql.Lenenc(payload); n != uint64(columns) {
				return nil, false, nil
			}
		case messages == skip:
			if len(payload) > 0 && payload[0] == 0xfe { // the end: no small row begins like that
				return nil, false, nil
			}
			if row, ok = mysql.DecodeRow(payload, columns); !ok {
				return nil, false, nil
			}
			return row, true, nil
		}
		messages++
	}
	return nil, false, nil
}

// Do sends a small command of the gateway's own and waits for its OK. A *mysql.Error leaves the connection usable, every other one does not.
func (c *Conn) Do(command mysql.Command, argument string) error {
	c.Mark()
	defer c.ask()()
	err := c.Write(mysql.AppendCommand(nil, command, argument))
	var payload []byte
	if err == nil {
		payload, _, err = c.ReadMessage(1, answerMax)
	}
	if err != nil {
		return ownLost(err)
	}
	if mysql.IsError(payload) {
		c.Warned = Nobody
		e := new(mysql.Error)
		if err := e.Decode(payload); err != nil {
			return ownLost(err)
		}
		return e
	}
	var ok mysql.OK
	if err := ok.Decode(payload, c.Capabilities); err != nil {
		return ownLost(err)
	}
	if ok.Status&mysql.MoreResults != 0 || len(c.Buffered()) > 0 {
		return ownLost(mysql.ErrMalformed)
	}
	if ok.Warnings > 0 {
		c.Warned = Nobody
	}
	c.Status = ok.Status
	return nil
}

func ownLost(err error) error {
	return fault.Wrap(fault.UpstreamBroken, "connection lost", fmt.Errorf("ask the instance: %w", err))
}
