package sqldoor

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/wire"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

// scripted is a connection without a socket: each read gives the next of its texts, writes go nowhere.
type scripted struct {
	texts [][]byte
	next  int
}

func (c *scripted) Read(b []byte) (int, error) {
	n := copy(b, c.texts[c.next])
	c.next = (c.next + 1) % len(c.texts)
	return n, nil
}
func (c *scripted) Write(b []byte) (int, error)      { return len(b), nil }
func (c *scripted) Close() error                     { return nil }
func (c *scripted) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *scripted) SetDeadline(time.Time) error      { return nil }
func (c *scripted) SetReadDeadline(time.Time) error  { return nil }
func (c *scripted) SetWriteDeadline(time.Time) error { return nil }

var _ io.ReadWriter = (*scripted)(nil)

// The gateway's own work for a point select: all but system calls, the poller and the scheduler. A session is signed in over sockets, and then has its connections exchanged
// for some without.
func BenchmarkStatement(b *testing.B) {
	for _, way := range []struct {
		name   string
		shared bool
	}{{"held", false}, {"pooled", true}} {
		b.Run(way.name, func(b *testing.B) {
			f := newFake(b, func(f *fake) { f.greeting.Capabilities &^= mysql.Framing; f.settings = way.shared })
			answer := rowsAnswer(1, "a value of a hundred and twenty bytes, which is about as much as rows have: names, an address, a number or two, some dates..")
			f.answer("SELECT c FROM t WHERE id = 1000000", answer)
			g := open(b, shop(f.ln.Addr().String()), func(d *Door) { d.o.Access = nil })
			r := connect(b, g, 0, "shop")
			packet := mysql.AppendCommand(nil, mysql.ComQuery, "SELECT c FROM t WHERE id = 1000000")
			r.statement(packet, new(mysql.Response))
			s := g.sessionsOf("")[0]
			testenv.Eventually(b, 5*time.Second, func() error {
				if !s.idle.Load() {
					return errors.New("the session does not rest")
				}
				return nil
			})
			texts := [][]byte{packet, mysql.AppendCommand(nil, mysql.ComQuery, "SELECT c FROM t WHERE id = 1004711"), mysql.AppendCommand(nil, mysql.ComQuery, "SELECT c FROM t WHERE id = 1009999")}
			client, link := s.client, s.near.Conn
			s.client, s.near.Conn = wire.On(poll.New(&scripted{texts: texts})), wire.On(poll.New(&scripted{texts: [][]byte{answer}}))
			b.ReportAllocs()
			for b.Loop() {
				if s.await() != more {
					b.Fatal("nothing to do")
				}
				if sent, _ := s.one(); !sent || s.awaitAnswer() != nil || !s.conclude(nil) {
					b.Fatal("the session is over")
				}
				s.record()
			}
			b.StopTimer()
			s.client, s.near.Conn = client, link
			s.resting = true
		})
	}
}

// Sessions that wait for answers have no goroutine, are found by Cut all the same, and go on when their answers come.
func TestRunningStatementHasNoGoroutine(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getenv("MENSHEN_TEST_IO") != "" {
		t.Skip("this is the own poller's")
	}
	f := newFake(t, func(f *fake) { f.greeting.Capabilities &^= mysql.Framing })
	f.answer("SELECT 1", rowsAnswer(1, "1"))
	g := open(t, shop(f.ln.Addr().String()))
	all := make([]*raw, 20)
	for i := range all {
		all[i] = connect(t, g, 0, "shop")
		all[i].ask(mysql.ComQuery, "SELECT 1")
	}
	wait := func() {
		f.mu.Lock() // the instance does not answer
		defer f.mu.Unlock()
		for _, r := range all {
			r.send(mysql.ComQuery, "SELECT 1")
		}
		testenv.Eventually(t, 10*time.Second, func() error {
			for _, s := range g.sessionsOf("") {
				if s.waiting.Load() == 0 {
					return fmt.Errorf("session %d has not begun its statement", s.id)
				}
			}
			return nil
		})
		awaitServed(t, 0)
		for _, s := range g.sessionsOf("") {
			if s.id == all[0].ThreadID {
				s.Cut()
			}
		}
		all[0].expectEnd()
		all = all[1:]
	}
	for range 3 {
		wait()
		for _, r := range all {
			r.follow(mysql.ComQuery, false)
		}
		awaitServed(t, 0)
	}
}
