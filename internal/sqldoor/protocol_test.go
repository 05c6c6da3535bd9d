package sqldoor

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// raw is a client that speaks packets.
type raw struct {
	*backend.Conn
	t    testing.TB
	caps mysql.Capability

	nonce     []byte // of the last change of user
	collation uint16 // for the next one; 0 is 45
}

func connect(t testing.TB, g *gate, caps mysql.Capability, database string) *raw {
	t.Helper()
	caps |= mysql.MultiResults | mysql.PrepareMultiResults
	s := &backend.Settings{User: "app", Password: "apple", Connect: 10 * time.Second}
	c, err := backend.Open(t.Context(), g.Addr, s, backend.Session{Capabilities: caps, Schema: database}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &raw{Conn: c, t: t, caps: caps}
}

// send sends a command.
func (r *raw) send(c mysql.Command, argument string) {
	r.t.Helper()
	if err := r.Write(mysql.AppendCommand(nil, c, argument)); err != nil {
		r.t.Fatal(err)
	}
}

// follow reads the answer to a command and gives its end.
func (r *raw) follow(c mysql.Command, cursor bool) (answer mysql.Response, first []byte) {
	r.t.Helper()
	answer.Start(c, r.caps, 1, cursor)
	for !answer.Done() && !answer.WantsFile() {
		if len(r.Buffered()) == 0 {
			if err := r.Fill(); err != nil {
				r.t.Fatalf("answer to %s: %v", c, err)
			}
		}
		n, err := answer.Feed(r.Buffered())
		if err != nil {
			r.t.Fatalf("answer to %s: %v (%q)", c, err, r.Buffered())
		}
		if first == nil {
			first = bytes.Clone(r.Buffered()[:min(n, 64)])
		}
		r.Skip(n)
	}
	return answer, first
}

func (r *raw) ask(c mysql.Command, argument string) (mysql.Response, []byte) {
	r.t.Helper()
	r.send(c, argument)
	return r.follow(c, false)
}

func TestCommands(t *testing.T) {
	db := mariadb(t)
	g := open(t, shop(db.Addr))
	testenv.Eventually(t, 10*time.Second, func() error { // until both databases' instance is known
		if c := greetingOf(t, g.Addr).Capabilities; !c.Has(mysql.Framing) {
			return fmt.Errorf("the greeting offers %s", c)
		}
		return nil
	})
	for _, caps := range []mysql.Capability{0, mysql.DeprecateEOF, mysql.SessionTrack | mysql.DeprecateEOF} {
		t.Run(fmt.Sprintf("capabilities %s", caps), func(t *testing.T) {
			r := connect(t, g, caps, "shop")
			want := func(c mysql.Command, argument string, code uint16) mysql.Response {
				t.Helper()
				a, first := r.ask(c, argument)
				if a.Code != code {
					t.Errorf("%s %q: error %d, want %d (%q)", c, argument, a.Code, code, first)
				}
				return a
			}
			want(mysql.ComPing, "", 0)
			tracked := func(c mysql.Command, argument, changes string) {
				t.Helper()
				var ok mysql.OK
				_, first := r.ask(c, argument)
				if err := ok.Decode(first[mysql.HeaderLen:], caps); err != nil {
					t.Errorf("%s: %v", argument, err)
				}
				if !caps.Has(mysql.SessionTrack) {
					changes = ""
				}
				if string(ok.Changes) != changes {
					t.Errorf("%s: tracked %q, want %q", argument, ok.Changes, changes)
				}
			}
			tracked(mysql.ComInitDB, "stock", "\x01\x06\x05stock") // by its name here; its schema is stock_0
			tracked(mysql.ComQuery, "USE shop", "\x01\x05\x04shop")
			tracked(mysql.ComQuery, "SET session_track_schema = 0, session_track_state_change = 1", "\x02\x011")
			tracked(mysql.ComQuery, "USE stock", "\x02\x011")
			tracked(mysql.ComQuery, "SET session_track_schema = 1, session_track_state_change = 0", "\x02\x011")
			tracked(mysql.ComInitDB, "stock", "\x01\x06\x05stock")
			if a := want(mysql.ComQuery, "SELECT id FROM items", 0); a.Rows != 1 {
				t.Errorf("%d rows", a.Rows)
			}
			want(mysql.ComInitDB, "nothing", 1049)
			want(mysql.ComInitDB, "shop", 0)
			if a := want(mysql.ComFieldList, "users\x00%", 0); a.Rows != 2 {
				t.Errorf("field list has %d fields", a.Rows)
			}
			want(mysql.ComFieldList, "nothing\x00%", 1146)
			if _, first := r.ask(mysql.ComStatistics, ""); !bytes.Contains(first, []byte("Uptime")) {
				t.Errorf("statistics: %q", first)
			}
			want(mysql.ComProcessInfo, "", 0)
			want(mysql.ComProcessKill, "\xff\xff\x00\x00", 1094)
			want(mysql.ComQuery, "SELECT 1; SELECT 2", 1064)
			want(mysql.ComSetOption, "\x00\x00", 0)
			if a := want(mysql.ComQuery, "SELECT 1; SELECT 2", 0); a.Rows != 2 {
				t.Errorf("%d rows of two statements", a.Rows)
			}
			want(mysql.ComSetOption, "\x01\x00", 0)
			want(mysql.ComQuery, "SELECT 1; SELECT 2", 1064)
			for _, c := range []mysql.Command{mysql.ComSleep, mysql.ComCreateDB, mysql.ComShutdown, mysql.ComConnect, mysql.ComTime, mysql.ComBinlogDump, mysql.ComRegisterReplica, mysql.ComDaemon, 0x20, 0xfa, 0xfe, 0xff} {
				want(c, "argument", 1047)
			}

			// Prepared statements: long data, execute, cursor, reset, close.
			a := want(mysql.ComStmtPrepare, "SELECT id, ? FROM users ORDER BY id", 0)
			id := binary.LittleEndian.AppendUint32(nil, a.Prepared.Statement)
			if a.Prepared.Columns != 2 || a.Prepared.Parameters != 1 {
				t.Errorf("prepared: %+v", a.Prepared)
			}
			r.send(mysql.ComStmtLongData, string(id)+"\x00\x00"+"long ")
			r.send(mysql.ComStmtLongData, string(id)+"\x00\x00"+"data")
			execute := func(flags byte) string { return string(id) + string([]byte{flags, 1, 0, 0, 0, 0, 1, 252, 0}) }
			if a = want(mysql.ComStmtExecute, execute(0), 0); a.Rows != 3 {
				t.Errorf("execute: %d rows", a.Rows)
			}
			want(mysql.ComStmtReset, string(id), 0)
			r.send(mysql.ComStmtLongData, string(id)+"\x00\x00"+"x")
			r.send(mysql.ComStmtExecute, execute(1))
			if a, _ = r.follow(mysql.ComStmtExecute, true); a.Status&mysql.CursorExists == 0 || a.Rows != 0 {
				t.Errorf("no cursor: status %b, %d rows", a.Status, a.Rows)
			}
			if a = want(mysql.ComStmtFetch, string(id)+"\x02\x00\x00\x00", 0); a.Rows != 2 || a.Status&mysql.LastRowSent != 0 {
				t.Errorf("fetch: %d rows, status %b", a.Rows, a.Status)
			}
			if a = want(mysql.ComStmtFetch, string(id)+"\x02\x00\x00\x00", 0); a.Rows != 1 || a.Status&mysql.LastRowSent == 0 {
				t.Errorf("last fetch: %d rows, status %b", a.Rows, a.Status)
			}
			r.send(mysql.ComStmtClose, string(id))
			want(mysql.ComStmtExecute, execute(0), 1243)
			// MariaDB's clients do not wait for a number.
			r.send(mysql.ComStmtPrepare, "SELECT ?, ?")
			r.send(mysql.ComStmtExecute, "\xff\xff\xff\xff\x00\x01\x00\x00\x00\x03\x01\x03\x00\x03\x00")
			if a, _ = r.follow(mysql.ComStmtPrepare, false); a.Prepared.Parameters != 2 {
				t.Errorf("prepared: %+v", a.Prepared)
			}
			if a, _ = r.follow(mysql.ComStmtExecute, false); a.Rows != 1 {
				t.Errorf("execute of the newest statement: error %d, %d rows", a.Code, a.Rows)
			}
			want(mysql.ComStmtReset, "\xff\xff\xff\xff", 0)
			want(mysql.ComStmtPrepare, "SELEKT", 1064)
			want(mysql.ComStmtExecute, "\xff\xff\xff\xff\x00\x01\x00\x00\x00", 1243)
			want(mysql.ComStmtPrepare, "USE shop", 1295)
			want(mysql.ComStmtPrepare, "KILL 1", 1295)
			want(mysql.ComStmtPrepare, "SELEKT", 1064)

			// Session state goes away with a reset, and with another user.
			want(mysql.ComQuery, "SET @x = 1", 0)
			want(mysql.ComReset, "", 0)
			if a = want(mysql.ComQuery, "SELECT 1 FROM DUAL WHERE @x IS NULL", 0); a.Rows != 1 {
				t.Error("a user variable outlived a reset")
			}
			want(mysql.ComQuery, "CREATE TEMPORARY TABLE private (i INT)", 0)
			r.changeUser("other", "orange", "shop", 0)
			want(mysql.ComQuery, "SELECT * FROM private", 1146)
			// libmariadb proves itself at once, over the nonce that it was given last.
			in := mysql.ChangeUser{User: []byte("app"), Database: []byte("shop"), Plugin: []byte(mysql.NativePassword), Collation: 45, Auth: mysql.NativeScramble("apple", r.nonce)}
			if err := r.WriteMessage(0, func(dst []byte) []byte { return in.AppendTo(dst, mysql.SecureConnection|mysql.PluginAuth) }); err != nil {
				t.Fatal(err)
			}
			if payload, _, err := r.ReadMessage(1, 1000); err != nil || !mysql.IsOK(payload) {
				t.Errorf("change of user without a new nonce: %q, %v", payload, err)
			}
			for collation, charset := range map[uint16]string{8: "latin1", 309: "utf8mb4", 576: "utf8mb3", 608: "utf8mb4", 1032: "latin1", 1057: "utf8mb3", 1248: "utf8mb4", 2049: "utf8mb3", 2304: "utf8mb4"} {
				r.collation = collation
				r.changeUser("other", "orange", "shop", 0)
				if a = want(mysql.ComQuery, "SELECT 1 FROM DUAL WHERE @@character_set_client = '"+charset+"'", 0); a.Rows != 1 {
					t.Errorf("collation %d is not of %s", collation, charset)
				}
			}
			r.changeUser("other", "wrong", "shop", 1045)
			expectEOF(t, r)
		})
	}
}

// changeUser goes through COM_CHANGE_USER.
func (r *raw) changeUser(user, password, database string, code uint16) {
	r.t.Helper()
	caps := mysql.SecureConnection | mysql.PluginAuth
	in := mysql.ChangeUser{User: []byte(user), Database: []byte(database), Plugin: []byte(mysql.NativePassword), Collation: cmp.Or(r.collation, 45)}
	if err := r.WriteMessage(0, func(dst []byte) []byte { return in.AppendTo(dst, caps) }); err != nil {
		r.t.Fatal(err)
	}
	payload, seq, err := r.ReadMessage(1, 1000)
	var change mysql.AuthSwitch
	if err == nil {
		err = change.Decode(payload)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.nonce = append([]byte(nil), change.Nonce...)
	if err := r.WriteMessage(seq, func(dst []byte) []byte { return append(dst, mysql.NativeScramble(password, change.Nonce)...) }); err != nil {
		r.t.Fatal(err)
	}
	payload, _, err = r.ReadMessage(seq+1, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	var e mysql.Error
	if code == 0 && !mysql.IsOK(payload) || code != 0 && (e.Decode(payload) != nil || e.Code != code) {
		r.t.Errorf("change user: %q, want error %d", payload, code)
	}
	if code == 0 && r.caps.Has(mysql.SessionTrack) && !bytes.HasSuffix(payload, []byte(database)) {
		r.t.Errorf("change user: %q tells no schema", payload)
	}
}

func expectEOF(t testing.TB, r *raw) {
	t.Helper()
	if err := r.Fill(); !errors.Is(err, io.EOF) && !strings.Contains(fmt.Sprint(err), "reset") {
		t.Errorf("the connection goes on: %v", err)
	}
}

// A session without a database gets on without an instance as long as it can.
func TestWithoutDatabaseAndInstance(t *testing.T) {
	g := open(t, shop(testenv.FreeAddress(t)))
	r := connect(t, g, 0, "")
	for _, c := range []mysql.Command{mysql.ComPing, mysql.ComReset} {
		if a, _ := r.ask(c, ""); a.Code != 0 {
			t.Errorf("%s: %d", c, a.Code)
		}
	}
	if a, _ := r.ask(mysql.ComSetOption, "\x00\x00"); a.Code != 0 {
		t.Errorf("set option: %d", a.Code)
	}
	if a, _ := r.ask(mysql.ComSetOption, "\x05\x00"); a.Code != 1047 {
		t.Errorf("set option 5: %d", a.Code)
	}
	for range 2 {
		if a, _ := r.ask(mysql.ComQuery, "SELECT 1"); a.Code != 2003 {
			t.Errorf("query: %d", a.Code)
		}
		if a, _ := r.ask(mysql.ComInitDB, "shop"); a.Code != 2003 {
			t.Errorf("use: %d", a.Code)
		}
	}
	// A large statement is read to its end before its error is sent.
	r.sendLarge(40 << 20)
	if a, _ := r.followAfter(mysql.ComQuery, 3); a.Code != 2003 {
		t.Errorf("large statement: %d", a.Code)
	}
}

func (r *raw) sendLarge(size int) {
	r.t.Helper()
	b, _ := mysql.AppendPacket(nil, 0, append([]byte{byte(mysql.ComQuery)}, bytes.Repeat([]byte(" "), size)...))
	if err := r.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) followAfter(c mysql.Command, sequence uint8) (a mysql.Response, err error) {
	a.Start(c, r.caps, sequence, false)
	for !a.Done() {
		if err := r.Fill(); err != nil {
			r.t.Fatal(err)
		}
		n, err := a.Feed(r.Buffered())
		if err != nil {
			r.t.Fatal(err)
		}
		r.Skip(n)
	}
	return a, nil
}

func TestBrokenPackets(t *testing.T) {
	g := open(t, shop(mariadb(t).Addr))
	f := func(name string, packet []byte, code uint16) {
		t.Helper()
		r := connect(t, g, 0, "shop")
		if err := r.Write(packet); err != nil {
			t.Fatal(err)
		}
		payload, _, err := r.ReadMessage(packet[3]+1, 1000)
		var e mysql.Error
		if err == nil {
			err = e.Decode(payload)
		}
		if err != nil || e.Code != code {
			t.Errorf("%s: %v, %v", name, &e, err)
		}
		expectEOF(t, r)
	}
	f("wrong number", []byte{1, 0, 0, 5, byte(mysql.ComPing)}, 1156)
	f("empty", []byte{0, 0, 0, 0}, 1835)
	f("change user cut short", []byte{3, 0, 0, 0, byte(mysql.ComChangeUser), 'a', 'b'}, 1835)

	// Frames of one statement out of order: the instance never sees the second one.
	r := connect(t, g, 0, "shop")
	b := mysql.Header{Length: mysql.PayloadMax, Sequence: 0}.AppendTo(nil)
	b = append(append(b, byte(mysql.ComQuery)), bytes.Repeat([]byte(" "), mysql.PayloadMax-1)...)
	b = append(mysql.Header{Length: 1, Sequence: 7}.AppendTo(b), 'x')
	if err := r.Write(b); err != nil {
		t.Fatal(err)
	}
	payload, _, err := r.ReadMessage(1, 1000)
	if err != nil || !mysql.IsError(payload) {
		t.Errorf("frames out of order: %q, %v", payload, err)
	}
	expectEOF(t, r)

	// Sign-ins that are none.
	for _, b := range [][]byte{{0, 0, 0, 1}, {4, 0, 0, 1, 0, 0, 0, 0}, {255, 255, 255, 1}, bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 20)} {
		c, err := net.Dial("tcp", g.Addr)
		if err != nil {
			t.Fatal(err)
		}
		readMessage(t, c)
		_, _ = c.Write(b)
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		rest, err := io.ReadAll(c)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			t.Errorf("%.10q: the connection stays open", b)
		}
		if len(rest) > 200 {
			t.Errorf("%.10q: %q", b, rest)
		}
		_ = c.Close()
	}
}

// A client that vanishes after each single byte of a whole conversation leaves nothing behind.
func TestClientVanishesAtEveryStep(t *testing.T) {
	db := mariadb(t)
	g := open(t, shop(db.Addr))
	commands := slicesOf(
		mysql.AppendCommand(nil, mysql.ComQuery, "BEGIN"),
		mysql.AppendCommand(nil, mysql.ComQuery, "INSERT INTO users (name) VALUES ('vanished')"),
		mysql.AppendCommand(nil, mysql.ComStmtPrepare, "SELECT ?"),
		mysql.AppendCommand(nil, mysql.ComStmtLongData, "\x01\x00\x00\x00\x00\x00data"),
		mysql.AppendCommand(nil, mysql.ComStmtExecute, "\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01\xfc\x00"),
		mysql.AppendCommand(nil, mysql.ComInitDB, "stock"),
	)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	walk := func(cut int) (more bool) {
		c, err := net.Dial("tcp", g.Addr)
		if err != nil {
			t.Error(err)
			return false
		}
		defer c.Close()
		var greeting mysql.Greeting
		if err := greeting.Decode(readMessage(t, c)); err != nil {
			t.Error(err)
			return false
		}
		signIn, _ := mysql.AppendPacket(nil, 1, signInFor(&greeting, "app", "apple", "shop").AppendTo(nil))
		all := append(signIn, commands...)
		_, _ = c.Write(all[:min(cut, len(all))])
		return cut < len(all)
	}
	for cut := 0; walk(cut); cut += 3 {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			walk(cut + 1)
			walk(cut + 2)
		})
	}
	wg.Wait()
	root := db.Open(t, "root", "")
	testenv.Eventually(t, 20*time.Second, func() error {
		var n, running int
		if err := root.QueryRow("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'gate'").Scan(&n); err != nil {
			return err
		}
		if err := root.QueryRow("SELECT COUNT(*) FROM information_schema.innodb_trx").Scan(&running); err != nil {
			return err
		}
		tables := g.tables.Load()
		shop, stock := tables.databases["shop"].instances[0].pool.Stats(), tables.databases["stock"].instances[0].pool.Stats()
		idle := shop.Idle + stock.Idle
		if s := g.Sessions(); n > idle+2 || s > 0 || running > 0 || shop.Open+stock.Open != idle { // two may be health checks
			return fmt.Errorf("%d connections to the instance, %d sessions, %d transactions, pools %+v %+v", n, s, running, shop, stock)
		}
		return nil
	})
	if n := value[int](t, root, "SELECT COUNT(*) FROM shop.users WHERE name = 'vanished'"); n != 0 {
		t.Errorf("%d rows of broken off transactions", n)
	}
}

func slicesOf(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// fake is an instance that plays a fixed conversation, cut short after a number of bytes.
type fake struct {
	ln       net.Listener
	cut      atomic.Int64
	hangUp   bool   // after a known answer
	hangsUp  string // the statement after whose answer it does
	settings bool   // it knows its variables, so that its connections are shared
	greeting mysql.Greeting
	reply    func(statement string) []byte // to what is not in answers; nil, or a nil answer: OK

	mu      sync.Mutex
	answers map[string][]byte // by statement; sequence numbers from 1
}

func (f *fake) answer(statement string, b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[statement] = b
}

// newFake starts a fake; before changes it before that.
func newFake(t testing.TB, before func(*fake)) *fake {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{ln: ln, answers: make(map[string][]byte)}
	f.cut.Store(1 << 40)
	f.greeting = mysql.Greeting{Version: "8.0.99-fake", ConnectionID: 1, Capabilities: mysql.Offered, Collation: 45, Status: mysql.Autocommit, Plugin: mysql.NativePassword}
	for i := range f.greeting.Nonce {
		f.greeting.Nonce[i] = 'n'
	}
	before(f)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				f.serve(c)
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return f
}

func (f *fake) serve(c net.Conn) {
	left := f.cut.Load()
	send := func(b []byte) bool {
		n := min(int64(len(b)), left)
		left -= n
		_, err := c.Write(b[:n])
		return err == nil && n == int64(len(b))
	}
	buf := make([]byte, 64<<10)
	read := func() []byte {
		if _, err := io.ReadFull(c, buf[:4]); err != nil {
			return nil
		}
		h, _ := mysql.ParseHeader(buf)
		if h.Length > len(buf)-4 {
			return nil
		}
		if _, err := io.ReadFull(c, buf[4:4+h.Length]); err != nil {
			return nil
		}
		return buf[4 : 4+h.Length]
	}
	hello, _ := mysql.AppendPacket(nil, 0, f.greeting.AppendTo(nil))
	if !send(hello) || read() == nil {
		return
	}
	ok := mysql.OK{Status: mysql.Autocommit}
	welcome, _ := mysql.AppendPacket(nil, 2, ok.AppendTo(nil, 0))
	fine, _ := mysql.AppendPacket(nil, 1, ok.AppendTo(nil, 0))
	if !send(welcome) {
		return
	}
	for {
		p := read()
		if len(p) == 0 || mysql.Command(p[0]) == mysql.ComQuit {
			return
		}
		f.mu.Lock()
		answer, known := f.answers[string(p[1:])]
		f.mu.Unlock()
		if !known {
			answer = fine
			if f.settings && strings.HasPrefix(string(p[1:]), "SELECT @@autocommit") {
				answer = settingsAnswer(string(p[1:]))
			} else if f.reply != nil {
				if b := f.reply(string(p[1:])); b != nil {
					answer = b
				}
			}
		}
		if !send(answer) || known && (f.hangUp || string(p[1:]) == f.hangsUp) {
			return
		}
	}
}

// settingsAnswer gives a value to each variable that is asked for.
func settingsAnswer(query string) []byte {
	var b, row []byte
	next := uint8(1)
	add := func(payload []byte) { b, next = mysql.AppendPacket(b, next, payload) }
	names := append(strings.Split(query, ",@@"), "the time zone")
	c := mysql.Column{Name: []byte("c"), Type: mysql.TypeVarString, Collation: 45}
	end := mysql.OK{Status: mysql.Autocommit}
	add([]byte{byte(len(names))})
	for _, name := range names {
		add(c.AppendTo(nil))
		value := "1"
		switch {
		case strings.Contains(name, "sql_auto_is_null"):
			value = "0"
		case strings.Contains(name, "sql_mode"):
			value = ""
		case strings.Contains(name, "character_set"):
			value = "utf8mb4"
		}
		row = mysql.AppendLenencString(row, value)
	}
	add(end.AppendEnd(nil, 0))
	add(row)
	add(end.AppendEnd(nil, 0))
	return b
}

func rowsAnswer(rows int, text string) []byte {
	var b []byte
	next := uint8(1)
	add := func(payload []byte) { b, next = mysql.AppendPacket(b, next, payload) }
	c := mysql.Column{Name: []byte("c"), Type: mysql.TypeVarString, Collation: 45}
	end := mysql.OK{Status: mysql.Autocommit}
	add([]byte{1})
	add(c.AppendTo(nil))
	add(end.AppendEnd(nil, 0))
	for range rows {
		add(mysql.AppendLenencString(nil, text))
	}
	add(end.AppendEnd(nil, 0))
	return b
}

// An instance that breaks off after each single byte of a conversation: the client gets its rows, an error, or the end, never
// nonsense, and nothing is left behind.
func TestInstanceVanishesAtEveryStep(t *testing.T) {
	f := newFake(t, func(f *fake) { f.greeting.Capabilities &^= mysql.Framing })
	f.answer("SELECT rows", rowsAnswer(3, "value"))
	whole := int64(0)
	g := open(t, shop(f.ln.Addr().String()))
	testenv.Eventually(t, 10*time.Second, func() error { // the first health check decides at once
		for _, s := range g.registry.Status() {
			if s.Endpoints[0].Checks == 0 {
				return errors.New("not checked yet")
			}
		}
		return nil
	})
	for cut := int64(1); ; cut++ {
		f.cut.Store(cut)
		db := g.one("app:apple", "shop")
		rows, err := db.Query("SELECT rows")
		if err == nil {
			n := 0
			for rows.Next() {
				var s string
				if err := rows.Scan(&s); err != nil || s != "value" {
					t.Errorf("cut at %d: row %q, %v", cut, s, err)
				}
				n++
			}
			if err = rows.Err(); err == nil {
				if n != 3 {
					t.Errorf("cut at %d: %d rows and no error", cut, n)
				}
				whole = cut
			}
			_ = rows.Close()
		}
		_ = db.Close()
		if err != nil && strings.Contains(err.Error(), "no healthy instance") { // on a slow machine, by checks that were cut too
			f.cut.Store(1 << 40)
			testenv.Eventually(t, 30*time.Second, func() error { return g.one("app:apple", "shop").Ping() })
			cut--
			continue
		}
		if c := code(err); c != 0 && c != 2003 && c != 2013 && c != -1 {
			t.Errorf("cut at %d: %v", cut, err)
		}
		if whole > 0 {
			break
		}
		if cut > 1000 {
			t.Fatalf("the whole conversation fails too: %v", err)
		}
	}
}

// An instance whose answer makes no sense: the session ends, and the client gets what came before.
func TestInstanceSpeaksNonsense(t *testing.T) {
	// It hangs up because a length that was changed has everybody wait for the rest.
	f := newFake(t, func(f *fake) { f.hangUp = true; f.greeting.Capabilities &^= mysql.Framing })
	g := open(t, shop(f.ln.Addr().String()))
	good := rowsAnswer(2, "value")
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x5a
		f.answer("SELECT nonsense", append(bad, "\x07\x00\x00\x09surplus"...))
		db := g.one("app:apple", "shop")
		if rows, err := db.Query("SELECT nonsense"); err == nil {
			for rows.Next() {
			}
			_ = rows.Close()
		}
		_ = db.Close()
	}
	testenv.Eventually(t, 10*time.Second, func() error {
		if n := g.Sessions(); n > 0 {
			return fmt.Errorf("%d sessions", n)
		}
		return nil
	})
}

// A large result passes with flat memory, and a slow reader slows the instance down instead of filling the gateway.
func TestLargeResultInFlatMemory(t *testing.T) {
	g := open(t, shop(mariadb(t).Addr))
	r := connect(t, g, 0, "shop")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	rows := 300
	if !testing.Short() {
		rows = 1024
	}
	r.send(mysql.ComQuery, fmt.Sprintf("SELECT REPEAT('x', 1000000) FROM seq_1_to_%d", rows))
	a, _ := r.follow(mysql.ComQuery, false)
	runtime.ReadMemStats(&after)
	if int(a.Rows) != rows {
		t.Errorf("%d rows", a.Rows)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
		t.Errorf("%d bytes allocated for %d MB", grown, rows)
	}
	g.logged(`"command":"query"`)
}

// A client that does not read its rows is cut off after its time, and the instance is let go.
func TestClientThatDoesNotRead(t *testing.T) {
	db := mariadb(t)
	g := open(t, shop(db.Addr, ", timeouts: {write: 500ms}"))
	c := dial(t, g)
	if _, err := c.Write(mysql.AppendCommand(nil, mysql.ComQuery, "SELECT REPEAT('x', 1000000) FROM seq_1_to_1000")); err != nil {
		t.Fatal(err)
	}
	g.logged(`"fault":"client_gone"`)
	root := db.Open(t, "root", "")
	testenv.Eventually(t, 20*time.Second, func() error {
		var n int
		if err := root.QueryRow("SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'gate' AND command = 'Query'").Scan(&n); err != nil || n+g.Sessions() > 0 {
			return fmt.Errorf("%d statements, %d sessions, %v", n, g.Sessions(), err)
		}
		return nil
	})
}

func TestLargeStatementInFlatMemory(t *testing.T) {
	g := open(t, shop(mariadb(t).Addr))
	r := connect(t, g, 0, "shop")
	text := append([]byte{byte(mysql.ComQuery)}, "SELECT LENGTH('"...)
	text = append(text, bytes.Repeat([]byte("y"), 60<<20)...)
	packet, next := mysql.AppendPacket(nil, 0, append(text, "')"...))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if err := r.Write(packet); err != nil {
		t.Fatal(err)
	}
	if a, _ := r.followAfter(mysql.ComQuery, next); a.Rows != 1 {
		t.Errorf("%d rows, error %d", a.Rows, a.Code)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d bytes allocated for a statement of 60 MiB", grown)
	}
}
