package upstream

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/traffic/balance"
	"github.com/menshen-gateway/menshen/internal/traffic/health"
)

const writer, reader Class = 1, 2

func TestClasses(t *testing.T) {
	t.Parallel()
	s := newHouse(t).commit(users(1, 1, 1))[0]
	e := s.Endpoints()
	f := func(c Class, n int, want string) {
		t.Helper()
		got := ""
		for range n {
			l := pick(t, s, Request{Class: c})
			l.Done(Outcome{})
			got += l.Endpoint.Address[:1]
		}
		if got != want {
			t.Errorf("class %d: %s, not %s", c, got, want)
		}
	}
	_, err := s.Pick(Request{Class: writer})
	wantKind(t, err, fault.NoEndpoint, "")
	f(0, 3, "abc") // without classes nothing changes

	e[0].Assign(Standing{Class: writer, Role: "primary", Reason: "writable"})
	e[1].Assign(Standing{Class: reader, Role: "replica", Reason: "fresh", Lag: time.Second, LagKnown: true})
	f(writer, 2, "aa")
	f(reader, 2, "bb")
	e[2].Assign(Standing{Class: reader})
	if got := pick(t, s, Request{Class: reader, Exclude: e[1]}).Endpoint; got != e[2] {
		t.Errorf("%s was excluded", got.Address)
	}
	seen := map[string]int{}
	for range 30 {
		seen[pick(t, s, Request{Class: reader | writer}).Endpoint.Address]++
	}
	if seen["a:1"] != 10 || seen["b:1"] != 10 {
		t.Errorf("either class: %v", seen)
	}
	if st := status(t, s, "b:1"); st.Role != "replica" || st.Reason != "fresh" || st.Lag != time.Second || !st.LagKnown {
		t.Errorf("%+v", st)
	}
	e[0].Assign(Standing{Role: "unreachable"})
	_, err = s.Pick(Request{Class: writer})
	wantKind(t, err, fault.NoEndpoint, "a:1")
	if e[0].Class() != 0 || e[1].Class() != reader {
		t.Error("classes are wrong")
	}
	if _, err = s.Pick(Request{Class: 1 << classes}); err == nil {
		t.Error("a class that there is not")
	}
}

// An endpoint that its checks or requests keep out is not chosen for its class, also when too few are left.
func TestClassesAndHealth(t *testing.T) {
	t.Parallel()
	spec := ejecting(1, 1)
	spec.PanicThreshold = 1
	s := newHouse(t).commit(spec)[0]
	for _, e := range s.Endpoints() {
		e.Assign(Standing{Class: reader})
	}
	failing(t, s, "a:1", 3)
	for range 10 {
		l := pick(t, s, Request{Class: reader})
		l.Done(Outcome{})
		if l.Endpoint.Address != "b:1" {
			t.Fatal("the ejected one is chosen")
		}
	}
	if s.Status().PanicPicks != 0 {
		t.Error("health was ignored")
	}
}

// Whoever watches misses no change between a failed Pick and the wait.
func TestWatch(t *testing.T) {
	t.Parallel()
	s := newHouse(t).commit(users(1, 1))[0]
	e := s.Endpoints()
	var waiters sync.WaitGroup
	var found atomic.Int64
	for range 8 {
		waiters.Go(func() {
			for range 200 {
				for {
					changed := s.Watch()
					l, err := s.Pick(Request{Class: writer})
					if err == nil {
						l.Done(Outcome{})
						found.Add(1)
						break
					}
					<-changed
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		waiters.Wait()
		close(done)
	}()
	for i := 0; ; i++ {
		e[i%2].Assign(Standing{Class: writer})
		e[i%2].Assign(Standing{})
		select {
		case <-done:
			return
		default:
		}
		if found.Load() > 1000 { // they may be between two changes for ever: let them go
			e[0].Assign(Standing{Class: writer})
			<-done
			return
		}
	}
}

func TestShared(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	made := 0
	first := func() any { made++; return &made }
	a := h.commit(users(1))[0].Shared(first)
	b := h.commit(users(1, 1))[0].Shared(first)
	if a != b || made != 1 {
		t.Error("it is not shared across generations")
	}
	other := users(1)
	other.Name = "other"
	h.commit(other)
	if c := h.commit(users(1))[0].Shared(first); made != 2 || c == nil {
		t.Error("it outlives its set")
	}
}

// A check that was asked for comes soon, but those who ask cannot make it run all the time.
func TestCheckSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var checks atomic.Int64
		spec := users(1)
		spec.Health = health.Settings{Interval: 10 * time.Second, Rise: 1, Fall: 1}
		spec.Probe = func(context.Context, string) error {
			checks.Add(1)
			return errors.New("no")
		}
		s := newHouse(t).commit(spec)[0]
		e := s.Endpoints()[0]
		time.Sleep(time.Second + time.Millisecond) // the first check comes within a tenth of the interval
		synctest.Wait()
		if checks.Load() != 1 {
			t.Fatalf("%d checks", checks.Load())
		}
		e.Check()
		time.Sleep(time.Second + time.Millisecond) // not earlier than a tenth of the interval after the last
		synctest.Wait()
		if checks.Load() != 2 {
			t.Errorf("%d checks", checks.Load())
		}
		for range 1000 {
			e.Check()
			time.Sleep(time.Millisecond) // a second, in fake time
			synctest.Wait()
		}
		if n := checks.Load(); n < 3 || n > 4 {
			t.Errorf("%d checks", n)
		}
	})
}

func TestPickOfAClassAllocatesNothing(t *testing.T) {
	spec := users(1, 1, 1)
	spec.Balance = balance.LeastLatency
	s := newHouse(t).commit(spec)[0]
	for i, e := range s.Endpoints() {
		e.Assign(Standing{Class: Class(1 + min(i, 1))})
	}
	if n := testing.AllocsPerRun(1000, func() {
		l, err := s.Pick(Request{Class: reader})
		if err != nil {
			t.Fatal(err)
		}
		l.Done(Outcome{Latency: time.Millisecond})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
