package sqldoor

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/sqldoor/backend"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// This file walks through whole conversations, packet by packet, and has one thing go wrong in each place: on the client's side of the
// gateway, and between it and the instance. Whatever it is, the next session finds everything in order.

// sabotage is what happens to one packet.
type sabotage struct {
	name string
	lie  bool                                        // what arrives can be taken for a packet with another meaning, so other answers are right
	do   func(packet []byte) (out []byte, over bool) // over: the connection ends after it
}

var sabotages = []sabotage{
	{"the sender is gone before it", false, func(p []byte) ([]byte, bool) { return nil, true }},
	{"the sender is gone inside of its header", false, func(p []byte) ([]byte, bool) { return p[:2], true }},
	{"the sender is gone inside of it", false, func(p []byte) ([]byte, bool) { return p[:4+len(p[4:])/2], true }},
	{"the sender is gone after it", false, func(p []byte) ([]byte, bool) { return p, true }},
	{"it has another number", false, func(p []byte) ([]byte, bool) { p[3] += 3; return p, false }},
	{"it announces too much", false, func(p []byte) ([]byte, bool) { p[0]++; return p, true }},
	{"it announces 16 MB", false, func(p []byte) ([]byte, bool) { p[0], p[1], p[2] = 255, 255, 255; return p, true }},
	{"it announces too little", true, func(p []byte) ([]byte, bool) {
		if p[0] > 0 {
			p[0]--
		}
		return p, false
	}},
	{"it is empty", true, func(p []byte) ([]byte, bool) { return []byte{0, 0, 0, p[3]}, false }},
	{"it comes twice", true, func(p []byte) ([]byte, bool) { return append(p, p...), false }},
	{"something follows it", true, func(p []byte) ([]byte, bool) { return append(p, "\x01\x00\x00\x09x"...), false }},
	{"it begins with 0xff", true, first(0xff)},
	{"it begins with 0xfb", true, first(0xfb)},
	{"it begins with 0xfe", true, first(0xfe)},
	{"it begins with 0x00", true, first(0x00)},
}

func first(b byte) func([]byte) ([]byte, bool) {
	return func(p []byte) ([]byte, bool) {
		if len(p) > mysql.HeaderLen {
			p[mysql.HeaderLen] = b
		}
		return p, false
	}
}

// saboteur is a relay that knows where packets end.
type saboteur struct {
	addr  string
	group sync.WaitGroup

	mu    sync.Mutex
	armed *sabotage // nil: what comes passes
	back  bool      // the packet comes from the server
	after int       // packets that pass before it
	fired bool
	late  func() // called when it happens
	open  map[net.Conn]bool
}

// between puts a saboteur in front of a server. Only connections that choose a schema are meant: health checks do not.
func between(t *testing.T, server string) *saboteur {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &saboteur{addr: ln.Addr().String(), open: map[net.Conn]bool{}}
	s.group.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			s.mu.Lock()
			s.open[client], s.open[there] = true, true
			s.mu.Unlock()
			meant := new(sync.Once)
			known := make(chan struct{})
			know := func() { meant.Do(func() { close(known) }) }
			s.group.Go(func() { s.relay(client, there, false, known, know) })
			s.group.Go(func() { s.relay(there, client, true, known, know) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		s.mu.Lock()
		for c := range s.open {
			c.Close()
		}
		s.mu.Unlock()
		s.group.Wait()
	})
	return s
}

func (s *saboteur) relay(from, to net.Conn, back bool, known chan struct{}, know func()) {
	defer func() {
		from.Close()
		to.Close()
		s.mu.Lock()
		delete(s.open, from)
		delete(s.open, to)
		s.mu.Unlock()
	}()
	for {
		packet := make([]byte, mysql.HeaderLen)
		if _, err := io.ReadFull(from, packet); err != nil {
			return
		}
		h, _ := mysql.ParseHeader(packet)
		packet = append(packet, make([]byte, h.Length)...)
		if _, err := io.ReadFull(from, packet[mysql.HeaderLen:]); err != nil {
			return
		}
		if !back && bytes.Contains(packet, []byte("shop\x00")) {
			know()
		}
		out, over := packet, false
		select {
		case <-known:
			out, over = s.spoil(packet, back)
		default:
			if back { // a greeting
				out, over = s.spoil(packet, back)
			}
		}
		if _, err := to.Write(out); err != nil || over {
			return
		}
	}
}

func (s *saboteur) spoil(packet []byte, back bool) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.armed == nil || s.back != back {
		return packet, false
	}
	if s.after > 0 {
		s.after--
		return packet, false
	}
	a := s.armed
	s.armed, s.fired = nil, true
	s.late()
	return a.do(packet)
}

// arm says what is to happen, after how many packets from which side, and what to call when it does.
func (s *saboteur) arm(what *sabotage, back bool, after int, late func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed, s.back, s.after, s.fired = what, back, after, false
	s.late = late
}

// patience is how long a conversation may go on after something went wrong: some of it makes one side wait for the other.
const patience = 100 * time.Millisecond

// hangs is for how long a conversation may go on at all.
const hangs = 10 * time.Second

// disarm says whether the sabotage happened.
func (s *saboteur) disarm() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = nil
	return s.fired
}

// errWrong says that an answer was not what it had to be, though all packets were well.
var errWrong = errors.New("wrong answer")

// converse goes through a conversation that has a bit of everything, and stops at the first thing that goes wrong, or with
// ctx.
func converse(ctx context.Context, address string) error {
	caps := mysql.MultiResults | mysql.PrepareMultiResults | mysql.MultiStatements | mysql.LocalFiles
	s := &backend.Settings{User: "app", Password: "apple"}
	c, err := backend.Open(ctx, address, s, backend.Session{Capabilities: caps, Schema: "shop"}, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	var a mysql.Response
	ask := func(command mysql.Command, argument string, rows uint64) error {
		if err := c.Write(mysql.AppendCommand(nil, command, argument)); err != nil {
			return err
		}
		a.Start(command, caps, 1, command == mysql.ComStmtExecute)
		for !a.Done() {
			if len(c.Buffered()) == 0 {
				if err := c.Fill(); err != nil {
					return err
				}
			}
			n, err := a.Feed(c.Buffered())
			if err != nil {
				return err
			}
			c.Skip(n)
			if a.WantsFile() {
				file, next := mysql.AppendPacket(nil, a.Sequence, []byte("1\n2\n"))
				file, next = mysql.AppendPacket(file, next, nil)
				if err := c.Write(file); err != nil {
					return err
				}
				a.FileSent(next)
			}
		}
		if a.Code != 0 {
			return fmt.Errorf("%s %.20q: error %d", command, argument, a.Code)
		}
		if a.Rows != rows {
			return fmt.Errorf("%w: %s %.20q: %d rows, not %d", errWrong, command, argument, a.Rows, rows)
		}
		return nil
	}
	id := ""
	for _, step := range []func() error{
		func() error { return ask(mysql.ComQuery, "SELECT name FROM users LIMIT 3", 3) },
		func() error { return ask(mysql.ComQuery, "SELECT 1; DO 1; SELECT name FROM users LIMIT 2", 3) },
		func() error { return ask(mysql.ComStmtPrepare, "SELECT id, ? FROM users LIMIT 3", 0) },
		func() error {
			id = string([]byte{byte(a.Prepared.Statement), byte(a.Prepared.Statement >> 8), byte(a.Prepared.Statement >> 16), byte(a.Prepared.Statement >> 24)})
			if err := c.Write(mysql.AppendCommand(nil, mysql.ComStmtLongData, id+"\x00\x00long")); err != nil {
				return err
			}
			return ask(mysql.ComStmtExecute, id+"\x01\x01\x00\x00\x00\x00\x01\xfc\x00", 0)
		},
		func() error { return ask(mysql.ComStmtFetch, id+"\x02\x00\x00\x00", 2) },
		func() error { return ask(mysql.ComStmtReset, id, 0) },
		func() error { return c.Write(mysql.AppendCommand(nil, mysql.ComStmtClose, id)) },
		func() error { return ask(mysql.ComQuery, "BEGIN", 0) },
		func() error { return ask(mysql.ComQuery, "INSERT INTO walked VALUES (1)", 0) },
		func() error { return ask(mysql.ComQuery, "ROLLBACK", 0) },
		func() error { return ask(mysql.ComQuery, "LOAD DATA LOCAL INFILE 'x' INTO TABLE loaded", 0) },
		func() error { return ask(mysql.ComQuery, "SET time_zone = '+03:00', @pinned = 1", 0) },
		func() error { return ask(mysql.ComInitDB, "stock", 0) },
		func() error { return ask(mysql.ComInitDB, "shop", 0) },
		func() error { return ask(mysql.ComReset, "", 0) },
		func() error { return changeUser(c) },
		func() error { return ask(mysql.ComFieldList, "users\x00", 2) },
		func() error { return ask(mysql.ComPing, "", 0) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return c.Write(quit)
}

// changeUser signs in anew as the same user.
func changeUser(c *backend.Conn) error {
	in := mysql.ChangeUser{User: []byte("app"), Database: []byte("shop"), Plugin: []byte(mysql.NativePassword), Collation: 45}
	if err := c.WriteMessage(0, func(dst []byte) []byte { return in.AppendTo(dst, mysql.SecureConnection|mysql.PluginAuth) }); err != nil {
		return err
	}
	payload, seq, err := c.ReadMessage(1, 1000)
	if err != nil {
		return err
	}
	var change mysql.AuthSwitch
	if err := change.Decode(payload); err != nil {
		return err
	}
	if err := c.WriteMessage(seq, func(dst []byte) []byte { return append(dst, mysql.NativeScramble("apple", change.Nonce)...) }); err != nil {
		return err
	}
	payload, _, err = c.ReadMessage(seq+1, 1000)
	if err == nil && !mysql.IsOK(payload) {
		err = fmt.Errorf("change of user: %q", payload)
	}
	return err
}

// walk has each thing go wrong in each place, or in a short run in one of every so many places, each thing in others. lies says which
// things; the others come first, because only those leave the tables as they were. check is asked after each.
//
// A lie may leave a part of a packet behind in the instance's hands, on a connection that the gateway takes for well: whoever uses it next waits for an answer that does not come, until
// it leaves. Without a lie nobody may.
func walk(t *testing.T, s *saboteur, address string, lies, back bool, every int, root *sql.DB, check func(what string, lie bool)) {
	if os.Getenv("MENSHEN_WALK") != "" {
		every = 1
	}
	runs := 0
	for i := range sabotages {
		what := &sabotages[i]
		if what.lie != lies {
			continue
		}
		for at := i % every; ; at += every {
			name := fmt.Sprintf("packet %d (from the server: %v), %s", at, back, what.name)
			fired := false
			var err error
			for range 4 { // it may meet connections that the one before broke a moment ago
				ctx, cancel := context.WithTimeout(t.Context(), hangs)
				var stop *time.Timer
				s.arm(what, back, at, func() { stop = time.AfterFunc(patience, cancel) })
				err = converse(ctx, address)
				if fired = s.disarm(); fired {
					stop.Stop()
				}
				if errors.Is(ctx.Err(), context.DeadlineExceeded) && !what.lie {
					t.Errorf("%s: the conversation hangs", name)
				}
				cancel()
				if errors.Is(err, errWrong) && !what.lie {
					t.Errorf("%s: %v", name, err)
				}
				if fired || err == nil {
					break
				}
			}
			if !fired {
				if err != nil {
					t.Errorf("%s: nothing happened, and yet: %v", name, err)
				}
				break
			}
			runs++
			check(name, what.lie)
			if what.lie {
				continue // an answer that comes twice can be taken for that to BEGIN
			}
			if n := value[int](t, root, "SELECT COUNT(*) FROM shop.walked"); n != 0 {
				t.Errorf("%s: %d rows of transactions that were not committed", name, n)
			}
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d runs", runs)
}

// walked are the config, the tables and the checks of a walk.
func walked(t *testing.T, share string) (db *testenv.DB, config func(instance string) string) {
	db = mariadb(t)
	db.Exec(t, "CREATE TABLE shop.walked (i INT)", "CREATE TABLE shop.loaded (i INT)")
	return db, func(instance string) string {
		return strings.ReplaceAll(shop(instance), "login:", "pool: {share: "+share+", max_connections: 3, queue_timeout: 2s}\n    timeouts: {connect: 2s}\n    check_interval: 20ms\n    login:")
	}
}

// canary asks for something of its own through a session of its own: whatever happened before must not show.
func canary(t *testing.T, g *gate, what string, lie bool) {
	t.Helper()
	token := fmt.Sprintf("%q", what)
	bound := hangs
	if lie {
		bound *= 3
	}
	testenv.Eventually(t, bound, func() error { // the instance may have to be found well again
		db := g.one("app:apple", "shop")
		defer db.Close()
		ctx, cancel := context.WithTimeout(t.Context(), hangs)
		defer cancel()
		var got, zone string
		var pinned any
		err := db.QueryRowContext(ctx, "SELECT ?, @@time_zone, @pinned", token).Scan(&got, &zone, &pinned)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && !lie {
			t.Fatalf("%s: the next session hangs", what)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if got != token || zone != "SYSTEM" || pinned != nil {
			t.Fatalf("%s: the next session got %q, %q, %v", what, got, zone, pinned)
		}
		return nil
	})
}

// descriptors counts what is open; 0 where that cannot be known.
func descriptors() int {
	all, _ := os.ReadDir("/proc/self/fd")
	return len(all)
}

// settled waits until nothing of the walk is left: sessions, places in the pools, transactions, goroutines.
func settled(t *testing.T, g *gate, root *sql.DB, before, files int) {
	t.Helper()
	began := time.Now()
	defer func() { t.Log("settled after", time.Since(began)) }()
	testenv.Eventually(t, 20*time.Second, func() error {
		if n := g.Sessions(); n > 0 {
			return fmt.Errorf("%d sessions", n)
		}
		for _, d := range g.tables.Load().databases {
			if p := d.instances[0].pool.Stats(); p.Open != p.Idle || p.Waiting > 0 {
				return fmt.Errorf("pool of %s: %+v", d.name, p)
			}
		}
		var running int
		if err := root.QueryRow("SELECT COUNT(*) FROM information_schema.innodb_trx").Scan(&running); err != nil || running > 0 {
			return fmt.Errorf("%d transactions, %v", running, err)
		}
		if n := runtime.NumGoroutine(); n > before+20 { // those of the pools of drivers, and the relay's to idle connections
			return fmt.Errorf("%d goroutines, at first %d", n, before)
		}
		if n := descriptors(); n > files+20 {
			return fmt.Errorf("%d descriptors, at first %d", n, files)
		}
		return nil
	})
}

func TestWalkOfClients(t *testing.T) {
	db, config := walked(t, "transaction")
	g := open(t, config(db.Addr))
	s := between(t, g.Addr)
	root := db.Open(t, "root", "")
	before, files := runtime.NumGoroutine(), descriptors()
	for _, lies := range []bool{false, true} {
		for _, back := range []bool{false, true} {
			runs := 0
			walk(t, s, s.addr, lies, back, 5, root, func(what string, lie bool) {
				if runs++; runs%8 == 0 {
					canary(t, g, what, lie)
				}
			})
		}
	}
	canary(t, g, "the end", false)
	settled(t, g, root, before, files)
}

func TestWalkOfInstances(t *testing.T) {
	for _, share := range []string{"transaction", "session"} {
		t.Run(share, func(t *testing.T) {
			db, config := walked(t, share)
			s := between(t, db.Addr)
			root := db.Open(t, "root", "")
			g := open(t, config(s.addr))
			canary(t, g, "the beginning", false)
			before, files := runtime.NumGoroutine(), descriptors()
			for _, lies := range []bool{false, true} {
				walk(t, s, g.Addr, lies, false, 7, root, func(what string, lie bool) { canary(t, g, what, lie) })
				walk(t, s, g.Addr, lies, true, 61, root, func(what string, lie bool) { canary(t, g, what, lie) }) // most of them are the rows of its variables
			}
			settled(t, g, root, before, files)
		})
	}
}
