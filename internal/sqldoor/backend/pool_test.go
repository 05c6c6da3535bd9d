package backend

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/wire"
)

// deaf is a connection that takes everything and says nothing.
type deaf struct{ net.Conn }

func (deaf) Write(p []byte) (int, error)      { return len(p), nil }
func (deaf) Close() error                     { return nil }
func (deaf) SetDeadline(time.Time) error      { return nil }
func (deaf) SetReadDeadline(time.Time) error  { return nil }
func (deaf) SetWriteDeadline(time.Time) error { return nil }

var forms = []Key{{Collation: 8}, {Collation: 45}}

// made is a connection as Open would give it.
func (p *Pool) made(want Want) *Conn {
	return &Conn{Conn: wire.New(deaf{}), Key: want.Key, Vars: new(Vars), pool: p, holder: want.holder(), Opened: poll.Now(), Used: poll.Now()}
}

// take1 is Take, and Open if that has to be.
func (p *Pool) take1(l Limits, want Want) (*Conn, error) {
	c, err := p.Take(nil, l, want)
	if c == nil && err == nil {
		c = p.made(want)
	}
	return c, err
}

func wantTaken(t *testing.T, c *Conn, err error) *Conn {
	t.Helper()
	if err != nil || c == nil {
		t.Fatalf("%v, %v", c, err)
	}
	return c
}

func TestQueueIsFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pool
		l := Limits{Connections: 1, Queue: time.Hour}
		c, err := p.take1(l, Want{Key: forms[0]})
		wantTaken(t, c, err)
		var order []int
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				c, err := p.take1(l, Want{Key: forms[i%2]}) // every second one can use no connection of those before it
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i)
				time.Sleep(time.Second) // in fake time
				p.Give(c)
			})
			synctest.Wait()
		}
		p.Give(c)
		wg.Wait()
		if !slices.Equal(order, []int{0, 1, 2, 3, 4, 5}) {
			t.Errorf("served in the order %v", order)
		}
		if s := p.Stats(); s.Open != 1 || s.Idle != 1 || s.Waiting != 0 || s.Waited != 6 || s.Late != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestConsumerHasNoMoreThanItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pool
		l := Limits{Connections: 3, Queue: time.Minute}
		greedy, other := Want{Key: forms[0], Consumer: "greedy", Max: 2}, Want{Key: forms[0], Consumer: "other", Max: 2}
		var held []*Conn
		for range 2 {
			c, err := p.take1(l, greedy)
			held = append(held, wantTaken(t, c, err))
		}
		got := make(chan *Conn, 3)
		for range 2 {
			go func() {
				c, err := p.take1(l, greedy)
				if err != nil {
					t.Error(err)
				}
				got <- c
			}()
			synctest.Wait()
		}
		// There is a place, which those who wait may not have. It does not wait for them.
		c, err := p.take1(l, other)
		wantTaken(t, c, err)
		go func() {
			c, err := p.take1(l, other) // the pool is at its bound: it waits behind the two
			if err != nil {
				t.Error(err)
			}
			got <- c
		}()
		synctest.Wait()
		if s := p.Stats(); s.Waiting != 3 || s.Open != 3 {
			t.Fatalf("%+v", s)
		}
		p.Give(c) // for the one behind: the two before it are still at their bound
		if again := <-got; again != c {
			t.Error("another connection")
		}
		p.Give(held[0])
		if again := <-got; again != held[0] {
			t.Error("another connection")
		}
		p.Drop(held[1])
		<-got
		if s := p.Stats(); s.Waiting != 0 || s.Open != 3 {
			t.Errorf("%+v", s)
		}
		// A permission that came to nothing counts no more.
		p.free("greedy")
		if c, err := p.Take(nil, l, greedy); c != nil || err != nil || p.used["greedy"] != 2 {
			t.Errorf("%v %v %v", c, err, p.used)
		}
		if _, err := p.Take(nil, Limits{Connections: 3}, greedy); fault.Of(err).Kind != fault.Limited {
			t.Errorf("beyond the bound: %v", err)
		}
	})
}

func TestRaisedLimitWakesThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pool
		l := Limits{Connections: 1, Queue: time.Minute}
		c, err := p.take1(l, Want{})
		wantTaken(t, c, err)
		got := make(chan *Conn)
		for range 3 {
			go func() {
				c, err := p.take1(l, Want{})
				if err != nil {
					t.Error(err)
				}
				got <- c
			}()
		}
		synctest.Wait()
		l.Connections = 3
		p.SetLimits(l)
		a, b := <-got, <-got
		synctest.Wait()
		if s := p.Stats(); s.Open != 3 || s.Waiting != 1 {
			t.Fatalf("%+v", s)
		}
		// Lowered, it shrinks as connections come back: the one that waits gets none before there are fewer.
		l.Connections = 1
		p.SetLimits(l)
		p.Give(a)
		p.Give(b)
		synctest.Wait()
		if s := p.Stats(); s.Open != 1 || s.Idle != 0 || s.Waiting != 1 {
			t.Fatalf("%+v", s)
		}
		p.Give(c)
		if <-got != c {
			t.Error("another connection")
		}
	})
}

// Who waits in vain, or leaves, is out of the queue, and what comes to it at that moment is not lost.
func TestQueueUnderFire(t *testing.T) {
	t.Parallel()
	var p Pool
	l := Limits{Connections: 4, Queue: 2 * time.Millisecond}
	var inUse [3]atomic.Int64
	var late, served atomic.Int64
	var wg sync.WaitGroup
	for w := range 24 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			for i := range 300 {
				limits := l
				limits.Connections += i / 50 % 2
				want := Want{Key: forms[random.IntN(2)], Consumer: fmt.Sprint(w % 3), Max: 2 * (w % 3)} // 0: no bound
				c, err := p.take1(limits, want)
				if err != nil {
					late.Add(1)
					continue
				}
				served.Add(1)
				if n := inUse[w%3].Add(1); w%3 > 0 && n > int64(want.Max) {
					t.Errorf("consumer %d has %d connections", w%3, n)
				}
				if random.IntN(4) == 0 {
					time.Sleep(time.Duration(random.IntN(300)) * time.Microsecond) // a statement that runs
				}
				inUse[w%3].Add(-1)
				if random.IntN(5) == 0 {
					p.Drop(c)
				} else {
					p.Give(c)
				}
			}
		})
	}
	wg.Wait()
	if s := p.Stats(); s.Waiting != 0 || s.Open != s.Idle || s.Open > 5 || len(p.used) > 0 || int64(s.Late) != late.Load() {
		t.Errorf("%+v, %v are counted, %d served, %d late", s, p.used, served.Load(), late.Load())
	}
	_ = p.Close()
	if s := p.Stats(); s.Open != 0 {
		t.Errorf("%+v", s)
	}
}

func TestTidyLeavesWhatIsKeptAhead(t *testing.T) {
	t.Parallel()
	var p Pool
	l := Limits{Connections: 10, Idle: time.Nanosecond, MinIdle: 2}
	var held []*Conn
	for i := range 6 {
		c, err := p.take1(l, Want{Key: forms[i%2]})
		held = append(held, wantTaken(t, c, err))
	}
	for _, c := range held {
		p.Give(c)
	}
	for _, c := range held {
		c.Used-- // a nanosecond is over
	}
	p.Tidy()
	if s := p.Stats(); s.Idle != 2 || p.idleOf(forms[1]) != 2 { // the form of the last Take
		t.Errorf("%+v", s)
	}
	p.SetLimits(Limits{Connections: 10, Lifetime: time.Nanosecond, MinIdle: 2})
	held[5].Opened -= 2
	held[3].Opened -= 2
	p.Tidy()
	if s := p.Stats(); s.Idle != 0 || s.Open != 0 {
		t.Errorf("%+v", s)
	}
}
