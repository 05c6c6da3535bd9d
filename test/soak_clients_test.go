package test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// soakSession is one session of a client, with the client's model of it.
type soakSession struct {
	*soak
	client int
	conn   *sql.Conn
	random *rand.Rand
	next   *int // number of the client's next row or token; never used twice

	zone      string // "" is the default
	concat    int    // group_concat_max_len
	variable  string // @u; "" is NULL
	temporary bool
	tempToken string
	mine      []int // rows that this session wrote and was told so
	absent    map[int]bool
	last      int64 // LAST_INSERT_ID()
	fragile   bool  // a statement runs after whose error the model is not known
}

// soakErrors are what faults explain: MySQL's numbers.
var soakErrors = map[uint16]string{
	1290: "not the primary", 2013: "lost during a statement", 2006: "lost before", 2003: "nobody there", 1053: "ended by the gateway", 1317: "killed", 1040: "no connection free", 1205: "lock wait", 1213: "deadlock",
	1927: "killed", 1836: "read only", 1792: "read only", 1105: "LAST_INSERT_ID() went with a server",
}

// client opens sessions one after the other and says random things in each.
func (s *soak) client(ctx context.Context, db *sql.DB, client int, seed uint64, next int) {
	random := rand.New(rand.NewPCG(seed, uint64(client)))
	for ctx.Err() == nil {
		conn, err := db.Conn(ctx)
		if err != nil {
			if ctx.Err() == nil {
				s.failed("connect", err)
			}
			continue
		}
		one := &soakSession{soak: s, client: client, conn: conn, random: random, next: &next, concat: -1, absent: map[int]bool{}}
		s.sessions.Add(1)
		if err := one.live(ctx); err != nil {
			s.broken.Add(1)
			s.failed("session", err)
		}
		s.ids[client].Store(0)
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
		_ = conn.Close()
	}
}

// failed counts an error that faults explain, and reports any other one.
func (s *soak) failed(what string, err error) {
	name := ""
	var e *mysql.MySQLError
	var network net.Error
	switch {
	case errors.As(err, &e):
		if soakErrors[e.Number] != "" {
			name = strconv.Itoa(int(e.Number))
		}
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, mysql.ErrInvalidConn), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &network), errors.Is(err, sql.ErrConnDone):
		name = "connection"
	}
	if name == "" {
		s.wrong("%s: %v", what, err)
		name = "other"
	}
	s.mu.Lock()
	s.errors[name]++
	s.mu.Unlock()
}

// errWrong is the end of a session whose answer was wrong; it was reported.
var errWrong = errors.New("wrong answer")

func (o *soakSession) number() int { *o.next++; return *o.next }

// row asks for one row of text.
func (o *soakSession) row(query string, args ...any) ([]sql.NullString, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 80*time.Second)
	defer cancel()
	o.statements.Add(1)
	rows, err := o.conn.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("%.60s: %w", query, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range into {
		into[i] = &values[i]
	}
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return nil, fmt.Errorf("%.60s: %w", query, err)
		}
		return nil, nil
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	return values, rows.Err()
}

// exec runs a statement without rows.
func (o *soakSession) exec(query string, args ...any) (sql.Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 80*time.Second)
	defer cancel()
	o.statements.Add(1)
	r, err := o.conn.ExecContext(ctx, query, args...)
	if err != nil {
		err = fmt.Errorf("%.60s: %w", query, err)
	}
	return r, err
}

// want compares a row with what it must be; "NULL" stands for NULL.
func (o *soakSession) want(got []sql.NullString, query string, want ...string) error {
	same := len(got) == len(want)
	for i := 0; same && i < len(want); i++ {
		if got[i].Valid {
			same = got[i].String == want[i]
		} else {
			same = want[i] == "NULL"
		}
	}
	if !same {
		text := fmt.Sprint(got)
		o.wrong("client %d: %.200s: got %.300s, want %.300q", o.client, query, text, want)
		return errWrong
	}
	return nil
}

// expect asks, and compares.
func (o *soakSession) expect(query string, args []any, want ...string) error {
	got, err := o.row(query, args...)
	if err != nil {
		return err
	}
	return o.want(got, query, want...)
}

// refused expects an error of the server.
func (o *soakSession) refused(query string, code uint16) error {
	_, err := o.row(query)
	var e *mysql.MySQLError
	if errors.As(err, &e) && e.Number == code {
		return nil
	}
	if err == nil {
		o.wrong("client %d: %s: no error, want %d", o.client, query, code)
		return errWrong
	}
	return err
}

// live is the life of a session. The error is what ended it, nil when it ended by itself.
func (o *soakSession) live(ctx context.Context) (err error) {
	defer func() {
		if errors.Is(err, errWrong) {
			err = nil
		}
	}()
	if err := o.clean(); err != nil {
		return err
	}
	for range 5 + o.random.IntN(60) {
		if ctx.Err() != nil {
			return nil
		}
		if err := o.say(); err != nil && !o.survives(err) {
			return err
		}
		time.Sleep(time.Duration(o.random.IntN(20)) * time.Millisecond) // clients think: the test is about what is said, not about how fast
	}
	return nil
}

// survives says that the session goes on after an error, and that the client still knows what it should be like: with its settings, and without a transaction. A session that
// cannot be so has to be ended by the gateway.
func (o *soakSession) survives(err error) bool {
	var e *mysql.MySQLError
	if o.fragile || !errors.As(err, &e) {
		return false
	}
	o.failed("statement", err)
	o.survived.Add(1)
	_, err = o.exec("ROLLBACK")
	return err == nil
}

// clean checks that a new session has nothing of any other.
func (o *soakSession) clean() error {
	got, err := o.row("SELECT CONNECTION_ID()")
	if err != nil {
		return err
	}
	id, _ := strconv.ParseInt(got[0].String, 10, 64)
	o.ids[o.client].Store(id)
	token := soakToken(o.client, o.number())
	if err := o.expect("SELECT '"+token+"', @@time_zone, @@group_concat_max_len, @@sql_mode = @@global.sql_mode, @@autocommit, DATABASE(), LAST_INSERT_ID()", nil, token, "SYSTEM", "1048576", "1", "1", "soak", "0"); err != nil {
		return err
	}
	if o.random.IntN(8) == 0 {
		return o.expect("SELECT '"+token+"', @u", nil, token, "NULL")
	}
	if o.random.IntN(8) == 0 {
		return o.refused("SELECT * FROM mine_alone", 1146)
	}
	return nil
}

// say is one random thing.
func (o *soakSession) say() error {
	n := o.number()
	token := soakToken(o.client, n)
	switch o.random.IntN(30) {
	case 0, 1: // settings
		o.zone = fmt.Sprintf("+%02d:00", o.random.IntN(12))
		return o.change("SET time_zone = '" + o.zone + "'")
	case 2:
		o.concat = 1000 + o.random.IntN(5)
		return o.change(fmt.Sprintf("SET SESSION group_concat_max_len = %d, sql_mode = @@sql_mode", o.concat))
	case 3, 4, 5:
		return o.settings(token)
	case 6: // pins for the rest of the session
		if o.random.IntN(4) > 0 {
			return nil
		}
		o.variable = token
		return o.change("SET @u = '" + token + "'")
	case 7:
		if o.variable == "" {
			return nil
		}
		return o.expect("SELECT @u, '"+token+"'", nil, o.variable, token)
	case 8:
		if o.random.IntN(4) > 0 || o.temporary {
			return nil
		}
		if err := o.change("CREATE TEMPORARY TABLE mine_alone AS SELECT '" + token + "' AS token"); err != nil {
			return err
		}
		o.temporary, o.tempToken = true, token
		return nil
	case 9:
		if o.temporary {
			return o.expect("SELECT token FROM mine_alone", nil, o.tempToken)
		}
		return nil
	case 10, 11, 12:
		return o.insert(n, token)
	case 13, 14:
		return o.transaction()
	case 15, 16, 17:
		return o.own()
	case 18:
		big := strings.Repeat(token, 100_000/len(token))
		return o.expect("SELECT ?, REPEAT(?, ?)", []any{token, token, 100_000 / len(token)}, token, big)
	case 19:
		return o.refused([]string{"SELECT '" + token + "' FROM missing", "SELEKT"}[n%2], []uint16{1146, 1064}[n%2])
	case 20: // several results
		return o.several(token)
	case 21:
		o.fragile = true
		r, err := o.exec("INSERT INTO numbered (client) VALUES (?)", o.client)
		if err != nil {
			return err
		}
		o.fragile = false
		o.last, err = r.LastInsertId()
		return err
	case 22:
		return o.expect("SELECT LAST_INSERT_ID(), '"+token+"'", nil, strconv.FormatInt(o.last, 10), token)
	case 23:
		if id := o.ids[o.random.IntN(soakClients)].Load(); id != 0 && o.random.IntN(3) == 0 {
			_, err := o.exec(fmt.Sprintf([]string{"KILL %d", "KILL QUERY %d", "KILL QUERY %d", "KILL QUERY %d"}[n%4], id))
			var e *mysql.MySQLError
			if errors.As(err, &e) && e.Number == 1094 { // it has left
				return nil
			}
			return err
		}
		return nil
	case 24: // leaves in the middle of an answer
		if o.random.IntN(5) > 0 {
			return nil
		}
		ctx, cancel := context.WithCancel(context.Background())
		rows, err := o.conn.QueryContext(ctx, "SELECT seq, '"+token+"', REPEAT('x', 1000) FROM seq_1_to_100000")
		if err == nil {
			rows.Next()
			cancel()
			_ = rows.Close()
			return errWrong // not wrong: the session is over
		}
		cancel()
		return err
	case 25:
		return o.expect("/* menshen: primary */ SELECT ?, @@autocommit", []any{token}, token, "1")
	default:
		return o.expect([]string{"SELECT '" + token + "'", "SELECT CONCAT('" + token + "', '')"}[n%2], nil, token)
	}
}

// change changes the session.
func (o *soakSession) change(statement string) error {
	o.fragile = true
	_, err := o.exec(statement)
	o.fragile = err != nil
	return err
}

// settings compares the session's settings with the model.
func (o *soakSession) settings(token string) error {
	zone, concat := "SYSTEM", "1048576"
	if o.zone != "" {
		zone = o.zone
	}
	if o.concat >= 0 {
		concat = strconv.Itoa(o.concat)
	}
	if o.random.IntN(2) == 0 {
		return o.expect("SELECT ?, @@time_zone, @@group_concat_max_len, @@autocommit", []any{token}, token, zone, concat, "1")
	}
	return o.expect("SELECT '"+token+"', @@time_zone, @@group_concat_max_len, @@autocommit", nil, token, zone, concat, "1")
}

// insert writes one row.
func (o *soakSession) insert(n int, token string) (err error) {
	if o.random.IntN(2) == 0 {
		_, err = o.exec("INSERT INTO rows_of VALUES (?, ?, ?)", o.client, n, token)
	} else {
		_, err = o.exec(fmt.Sprintf("INSERT INTO rows_of VALUES (%d, %d, '%s')", o.client, n, token))
	}
	var e *mysql.MySQLError
	switch {
	case err == nil:
		o.wrote(n)
	case errors.As(err, &e) && e.Number == 1317:
		// Killed before it was sent, or by the server, which says so of a row only if it has not committed it: nothing is there, and nothing comes.
		o.killed.Add(1)
		o.note(false, n)
		o.absent[n] = true
	}
	return err // with any other error nobody knows
}

func (o *soakSession) wrote(rows ...int) {
	o.mine = append(o.mine, rows...)
	o.acknowledged.Add(int64(len(rows)))
	o.note(true, rows...)
}

func (o *soakSession) note(there bool, rows ...int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range rows {
		o.acked[soakRow(o.client, n)] = there
	}
}

// transaction writes some rows, and commits them or not.
func (o *soakSession) transaction() error {
	if _, err := o.exec("BEGIN"); err != nil {
		return err
	}
	var rows []int
	for range 1 + o.random.IntN(3) {
		n := o.number()
		rows = append(rows, n)
		if _, err := o.exec("INSERT INTO rows_of VALUES (?, ?, ?)", o.client, n, soakToken(o.client, n)); err != nil {
			o.note(false, rows...) // without a COMMIT there is nothing
			return err
		}
		if o.random.IntN(3) == 0 { // an error of a statement is none of the transaction
			if err := o.refused(fmt.Sprintf("INSERT INTO rows_of VALUES (%d, %d, 'again')", o.client, n), 1062); err != nil {
				o.note(false, rows...)
				return err
			}
		}
	}
	if err := o.expect("SELECT COUNT(*) FROM rows_of WHERE client = ? AND n >= ?", []any{o.client, rows[0]}, strconv.Itoa(len(rows))); err != nil {
		o.note(false, rows...)
		return err
	}
	if o.random.IntN(3) == 0 {
		o.note(false, rows...)
		for _, n := range rows {
			o.absent[n] = true
		}
		_, err := o.exec("ROLLBACK")
		return err
	}
	_, err := o.exec("COMMIT")
	if err == nil {
		o.wrote(rows...)
	}
	return err
}

// own reads the rows of this session: what it wrote is there, wherever it reads, and what it rolled back is not.
func (o *soakSession) own() error {
	if len(o.mine) == 0 && len(o.absent) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 80*time.Second)
	defer cancel()
	o.statements.Add(1)
	rows, err := o.conn.QueryContext(ctx, "SELECT client, n, token, @@server_id FROM rows_of WHERE client = ?", o.client)
	if err != nil {
		return err
	}
	defer rows.Close()
	there := map[int]bool{}
	server := 0
	for rows.Next() {
		var client, n int
		var token string
		if err := rows.Scan(&client, &n, &token, &server); err != nil {
			return err
		}
		if client != o.client || token != soakToken(client, n) {
			o.wrong("client %d got a row of client %d: %d, %s", o.client, client, n, token)
			return errWrong
		}
		there[n] = true
		if o.absent[n] {
			o.wrong("client %d: row %d was rolled back, and is on server %d", o.client, n, server)
			return errWrong
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, n := range o.mine {
		if !there[n] {
			o.wrong("client %d does not see its row %d on server %d", o.client, n, server)
			return errWrong
		}
	}
	return nil
}

// several asks for two results in one statement.
func (o *soakSession) several(token string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 80*time.Second)
	defer cancel()
	o.statements.Add(1)
	rows, err := o.conn.QueryContext(ctx, "SELECT '"+token+"', 1; SELECT '"+token+"', 2")
	if err != nil {
		return err
	}
	defer rows.Close()
	for want := 1; ; want++ {
		for rows.Next() {
			var got string
			var n int
			if err := rows.Scan(&got, &n); err != nil {
				return err
			}
			if got != token || n != want {
				o.wrong("client %d: result %d is %s, %d, want %s", o.client, want, got, n, token)
				return errWrong
			}
		}
		if !rows.NextResultSet() {
			if err := rows.Err(); err != nil {
				return err
			}
			if want != 2 {
				o.wrong("client %d: %d results, want 2", o.client, want)
				return errWrong
			}
			return nil
		}
	}
}
