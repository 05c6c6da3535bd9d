package sqldoor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// idleGate is a gate before an instance that costs nothing, with some sessions that have done something.
func idleGate(t *testing.T, more string, sessions int, options ...func(*Door)) (*gate, []*raw) {
	t.Helper()
	f := newFake(t, func(f *fake) { f.greeting.Capabilities &^= mysql.Framing; f.settings = true })
	f.answer("SELECT 1", rowsAnswer(1, "1"))
	g := open(t, shop(f.ln.Addr().String(), more), options...)
	all := make([]*raw, sessions)
	for i := range all {
		all[i] = connect(t, g, 0, "shop")
		all[i].ask(mysql.ComQuery, "SELECT 1")
	}
	return g, all
}

// awaitServed waits until that many sessions have a goroutine.
func awaitServed(t *testing.T, want int) {
	t.Helper()
	dump := make([]byte, 4<<20)
	testenv.Eventually(t, 10*time.Second, func() error {
		if n := strings.Count(string(dump[:runtime.Stack(dump, true)]), "sqldoor.(*session).Resume("); n != want {
			return fmt.Errorf("%d goroutines serve sessions instead of %d", n, want)
		}
		return nil
	})
}

func (r *raw) expectEnd() {
	r.t.Helper()
	if err := r.Fill(); !errors.Is(err, io.EOF) {
		r.t.Errorf("the connection does not end: %v", err)
	}
}

func TestIdleSessionHasNoGoroutine(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getenv("MENSHEN_TEST_IO") != "" {
		t.Skip("this is the own poller's")
	}
	_, all := idleGate(t, "", 30)
	awaitServed(t, 0)
	for range 3 {
		for _, r := range all { // some at a time
			r.send(mysql.ComQuery, "SELECT 1")
		}
		for _, r := range all {
			r.follow(mysql.ComQuery, false)
		}
	}
	awaitServed(t, 0)
	half := mysql.AppendCommand(nil, mysql.ComQuery, "SELECT 1")
	for _, r := range all[:3] { // one whose command is under way needs it
		_ = r.Write(half[:7])
	}
	awaitServed(t, 3)
	for _, r := range all[:3] {
		_ = r.Write(half[7:])
		r.follow(mysql.ComQuery, false)
	}
	awaitServed(t, 0)
}

func TestIdleSessionGetsSeveralCommands(t *testing.T) {
	_, all := idleGate(t, "", 4)
	one := mysql.AppendCommand(nil, mysql.ComQuery, "SELECT 1")
	for _, r := range all {
		for _, cut := range []int{0, 1, 4, len(one) - 1, len(one)} { // where the second piece begins
			three := slicesOf(one, one, one)
			if err := r.Write(three[:len(one)+cut]); err != nil {
				t.Fatal(err)
			}
			r.follow(mysql.ComQuery, false)
			if err := r.Write(three[len(one)+cut:]); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if a, _ := r.follow(mysql.ComQuery, false); a.Code != 0 {
					t.Fatalf("error %d", a.Code)
				}
			}
		}
	}
}

func TestIdleSessionEnds(t *testing.T) {
	g, all := idleGate(t, "", 6)
	id := func(r *raw) string { return fmt.Sprint(r.ThreadID) }
	all[0].ask(mysql.ComQuery, "KILL "+id(all[1]))
	all[1].expectEnd()
	_ = all[2].Close()
	left := func(n int) {
		t.Helper()
		testenv.Eventually(t, 10*time.Second, func() error {
			if got := g.Sessions(); got != n {
				return fmt.Errorf("%d sessions instead of %d", got, n)
			}
			return nil
		})
	}
	left(4)
	all[3].send(mysql.ComQuit, "")
	all[3].expectEnd()
	left(3)
	_ = g.ln.Close()
	if err := g.Drain(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*raw{all[0], all[4], all[5]} {
		payload, _, err := r.ReadMessage(1, 1<<10)
		var e mysql.Error
		if err == nil {
			err = e.Decode(payload)
		}
		if err != nil || e.Code != 1053 {
			t.Errorf("an idle session is told %v, %v", &e, err)
		}
		r.expectEnd()
	}
	left(0)
}

func TestIdleSessionTimesOut(t *testing.T) {
	const idle = 400 * time.Millisecond
	g, all := idleGate(t, fmt.Sprintf(", timeouts: {idle: %s}", idle), 3)
	begun := time.Now()
	for time.Since(begun) < 2*idle { // a statement begins the time anew
		all[0].ask(mysql.ComQuery, "SELECT 1")
		time.Sleep(idle / 8) // the pace of the client under test
	}
	last := time.Now()
	if n := g.Sessions(); n != 1 {
		t.Errorf("%d sessions are left beside the one that was used", n-1)
	}
	all[0].expectEnd()
	if d := time.Since(last); d < idle*3/4 {
		t.Errorf("the session ended after %s", d)
	}
}

func TestPanicEndsOneSession(t *testing.T) {
	var armed atomic.Bool
	g, all := idleGate(t, "", 5, func(d *Door) {
		tables := d.o.Tables
		d.o.Tables = func() *Tables {
			if armed.CompareAndSwap(true, false) {
				panic("made by a test")
			}
			return tables()
		}
	})
	for i, r := range all[:3] {
		armed.Store(true)
		r.send(mysql.ComQuery, "SELECT 1")
		r.expectEnd()
		testenv.Eventually(t, 10*time.Second, func() error {
			if n := g.Sessions(); n != len(all)-1-i {
				return fmt.Errorf("%d sessions", n)
			}
			return nil
		})
	}
	for _, r := range all[3:] {
		r.ask(mysql.ComQuery, "SELECT 1")
	}
}
