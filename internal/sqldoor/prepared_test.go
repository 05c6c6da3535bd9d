package sqldoor

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// A large statement that was prepared on a replica does not stay there: its first execution takes it to the primary.
func TestLargePreparedStatementsOfReplicas(t *testing.T) {
	_, g := split(t, "read_from: replicas")
	c, r := g.session(t), connect(t, g, 0, "shop")
	const parameters = 65000
	text := "SELECT COUNT(*) FROM users WHERE id IN (?" + strings.Repeat(",?", parameters-1) + ") OR 1"
	arguments := make([]any, parameters)
	for i := range arguments {
		arguments[i] = 1 << 30
	}
	var s *sql.Stmt
	if got := g.went(t, 1, func() {
		var err error
		if s, err = c.PrepareContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}); got != "replica" {
		t.Fatalf("it was prepared on: %s", got)
	}
	if got := g.went(t, 1, func() { wantAnswer(t, c, "SELECT name FROM users WHERE id = 1", "ada|\n") }); got != "replica" {
		t.Errorf("a read after it went to: %s", got)
	}
	if got := g.went(t, 3, func() {
		for range 2 {
			if got := answerOf(s.QueryContext(t.Context(), arguments...)); got != "3|\n" {
				t.Errorf("it gave %q", got)
			}
		}
		wantAnswer(t, c, "SELECT name FROM users WHERE id = 2", "grace|\n")
	}); got != "write, write, pinned" { // they do not fit a buffer
		t.Errorf("executions, and a read after them, went to: %s", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wantAnswer(t, c, "SELECT n FROM me", "0|\n")

	// NULLs alone need no types, and could go to a replica.
	a, _ := r.ask(mysql.ComStmtPrepare, text)
	nulls := string(binary.LittleEndian.AppendUint32(nil, a.Prepared.Statement)) + "\x00\x01\x00\x00\x00" + strings.Repeat("\xff", parameters/8) + "\x00"
	for range 2 {
		if a, all, err := r.whole(mysql.ComStmtExecute, nulls); err != nil || a.Code != 0 || !bytes.Contains(all, []byte("\x00\x00\x03\x00\x00")) {
			t.Errorf("of NULLs: error %d, %v, %q", a.Code, err, all)
		}
	}
	if a, all, err := r.whole(mysql.ComQuery, "SELECT n FROM me"); err != nil || !bytes.Contains(all, []byte("\x010")) {
		t.Errorf("behind it: error %d, %v, %q", a.Code, err, all)
	}
}

// What cannot be passed on of long data is told, and sent again it comes alone.
func TestLostLongData(t *testing.T) {
	g := open(t, pooled(mariadb(t).Addr, "max_connections: 1, queue_timeout: 300ms"))
	r, other := connect(t, g, 0, "shop"), g.session(t)
	a, _ := r.ask(mysql.ComStmtPrepare, "SELECT ?")
	id := string(binary.LittleEndian.AppendUint32(nil, a.Prepared.Statement))
	data := func(s string) { r.send(mysql.ComStmtLongData, id+"\x00\x00"+s) }
	execute := func(code uint16, want string) {
		t.Helper()
		a, all, err := r.whole(mysql.ComStmtExecute, id+"\x00\x01\x00\x00\x00\x00\x01\xfc\x00")
		if err != nil || a.Code != code || !bytes.Contains(all, []byte(want)) {
			t.Errorf("error %d, %v, %q; want %q in it", a.Code, err, all, want)
		}
	}
	waits := func(n int) {
		t.Helper()
		testenv.Eventually(t, 5*time.Second, func() error {
			if got := g.stats().Waiting; got != n {
				return fmt.Errorf("%d wait", got)
			}
			return nil
		})
	}
	wantAnswer(t, other, "BEGIN", "")
	data("first")
	waits(1)
	waits(0)
	wantAnswer(t, other, "COMMIT", "")
	data("second")
	execute(1105, "")
	data("first")
	data("second")
	execute(0, "\x0bfirstsecond")

	// The second part is lost, with the first one there.
	data("first")
	s := g.numbered(number(other))
	for one := range g.All() {
		if one != s {
			testenv.Eventually(t, 5*time.Second, func() error {
				if g.stats().Idle != 0 || one.waiting.Load() != 0 {
					return fmt.Errorf("it did not come")
				}
				return nil
			})
			one.newest.broken = true
			one.halt() // it sees that, and all that was before
		}
	}
	data("second")
	execute(1105, "")
	if got := ask(other, "SELECT 1"); got != "1|\n" {
		t.Errorf("the connection is held: %s", got)
	}
	data("first")
	data("second")
	execute(0, "\x0bfirstsecond")
}

// The same text prepared twice is two statements: what one has open is not the other's.
func TestSameTextPreparedTwice(t *testing.T) {
	g := open(t, pooled(mariadb(t).Addr, "max_connections: 1"))
	r := connect(t, g, 0, "shop")
	var ids [2]string
	for i := range ids {
		a, _ := r.ask(mysql.ComStmtPrepare, "SELECT CONCAT('<', ?, '>') FROM users")
		ids[i] = string(binary.LittleEndian.AppendUint32(nil, a.Prepared.Statement))
	}
	execute := func(id, flags, rest, want string) {
		t.Helper()
		a, all, err := r.whole(mysql.ComStmtExecute, id+flags+"\x01\x00\x00\x00\x00\x01\xfc\x00"+rest)
		if err != nil || a.Code != 0 || !bytes.Contains(all, []byte(want)) {
			t.Errorf("error %d, %v, %q; want %q in it", a.Code, err, all, want)
		}
	}
	for range 2 {
		r.send(mysql.ComStmtLongData, ids[0]+"\x00\x00first")
		execute(ids[1], "\x00", "\x06second", "<second>")
		execute(ids[0], "\x00", "", "<first>")
	}

	// A cursor of one is not closed by the other.
	r.send(mysql.ComStmtExecute, ids[0]+"\x01\x01\x00\x00\x00\x00\x01\xfc\x00\x05first")
	if a, _ := r.follow(mysql.ComStmtExecute, true); a.Status&mysql.CursorExists == 0 {
		t.Fatal("no cursor")
	}
	execute(ids[1], "\x00", "\x06second", "<second>")
	if a, all, err := r.whole(mysql.ComStmtFetch, ids[0]+"\x01\x00\x00\x00"); err != nil || a.Code != 0 || !bytes.Contains(all, []byte("<first>")) {
		t.Errorf("fetch: error %d, %v, %q", a.Code, err, all)
	}
}
