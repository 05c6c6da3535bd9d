package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/traffic/balance"
	"github.com/menshen-gateway/menshen/internal/traffic/health"
)

// Requests go on while 1,000 generations come and go. Each request must find an endpoint of the generation it pinned,
// nothing may be closed twice, and nothing may be left.
func TestThousandReloadsUnderLoad(t *testing.T) {
	h := newHouse(t)
	var opened, closed atomic.Int64
	spec := func(generation int) Spec {
		s := Spec{
			Name: "users", PanicThreshold: 0.5, RetryBudget: 0.2, MaxConnections: 50,
			Balance: []balance.Algorithm{balance.RoundRobin, balance.LeastConnections, balance.LeastLatency, balance.Random, balance.Hash}[generation%5],
			Outlier: OutlierSettings{ConsecutiveFailures: 5, Ejection: 3 * time.Millisecond, EjectionMax: 20 * time.Millisecond},
			Health:  health.Settings{Interval: 2 * time.Millisecond, Rise: 1, Fall: 1},
			NewPool: func(*Endpoint) io.Closer {
				opened.Add(1)
				return closer(func() error { closed.Add(1); return nil })
			},
			Identity: fmt.Sprint(generation / 100),
		}
		var n atomic.Int64
		s.Probe = func(context.Context, string) error {
			if n.Add(1)%5 == 0 {
				return errors.New("now and then")
			}
			return nil
		}
		for i := range 8 + generation%5 {
			s.Endpoints = append(s.Endpoints, EndpointSpec{Address: fmt.Sprintf("10.0.0.%d:80", (i+generation/10)%20), Weight: 1 + i%3})
		}
		return s
	}
	var current atomic.Pointer[Set]
	current.Store(h.commit(spec(0))[0])
	stop := make(chan struct{})
	var served, none atomic.Int64
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			var last Lease
			for i := uint64(w); ; i++ {
				select {
				case <-stop:
					last.Done(Outcome{Ignored: true})
					return
				default:
				}
				s := current.Load()
				l, err := s.Pick(Request{Hash: i * 0x9E3779B97F4A7C15, Hashed: true, Exclude: last.Endpoint})
				if err != nil {
					none.Add(1)
					t.Error(err)
					return
				}
				if i%11 == 0 {
					s.AllowRetry()
				}
				last.Done(Outcome{Failed: i%7 == 0, Latency: time.Millisecond})
				last = l
				served.Add(1)
				if i%64 == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	for generation := 1; generation <= 1000; generation++ {
		g := h.Begin()
		s := g.Set(spec(generation))
		if generation%10 == 3 {
			g.Abort()
			continue
		}
		g.Commit()
		current.Store(s)
		if generation%50 == 0 {
			h.Status()
		}
	}
	close(stop)
	workers.Wait()
	for _, e := range current.Load().Endpoints() {
		if e.Active() != 0 {
			t.Errorf("%s has %d active", e.Address, e.Active())
		}
	}
	if len(h.endpoints) != len(current.Load().members) || len(h.groups) != 1 {
		t.Errorf("the registry holds %d endpoints and %d groups", len(h.endpoints), len(h.groups))
	}
	h.Close()
	if opened.Load() != closed.Load() || opened.Load() == 0 {
		t.Errorf("%d pools opened, %d closed", opened.Load(), closed.Load())
	}
	t.Logf("%d requests, %d without an endpoint, %d pools", served.Load(), none.Load(), opened.Load())
}

type closer func() error

func (f closer) Close() error { return f() }

func TestPickAndDoneAllocateNothing(t *testing.T) {
	for _, a := range []balance.Algorithm{balance.RoundRobin, balance.LeastConnections, balance.LeastLatency, balance.Random, balance.Hash} {
		spec := ejecting(1, 2, 3, 1, 1, 1)
		spec.Balance, spec.MaxConnections = a, 100
		s := newHouse(t).commit(spec)[0]
		if n := testing.AllocsPerRun(1000, func() {
			l, err := s.Pick(Request{Hash: 7, Hashed: true})
			if err != nil {
				t.Fatal(err)
			}
			l.Done(Outcome{Latency: time.Millisecond})
		}); n != 0 {
			t.Errorf("%s: %v allocations", a, n)
		}
	}
}

// What does choosing an endpoint add to a request? The bound is 100 ns for the default algorithm on one core.
func BenchmarkPickDone(b *testing.B) {
	for _, a := range []balance.Algorithm{balance.RoundRobin, balance.LeastConnections, balance.LeastLatency, balance.Random, balance.Hash} {
		spec := ejecting(1, 1, 1, 1)
		spec.Balance = a
		b.Run(string(a), func(b *testing.B) {
			s := newHouse(b).commit(spec)[0]
			b.ReportAllocs()
			for b.Loop() {
				l, _ := s.Pick(Request{Hash: 7, Hashed: true})
				l.Done(Outcome{Latency: time.Millisecond})
			}
		})
	}
	b.Run("parallel", func(b *testing.B) {
		s := newHouse(b).commit(ejecting(1, 1, 1, 1))[0]
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				l, _ := s.Pick(Request{})
				l.Done(Outcome{Latency: time.Millisecond})
			}
		})
	})
}

// What does a reload cost that changes nothing? Each of 1,000 services has four endpoints.
func BenchmarkCommit(b *testing.B) {
	specs := make([]Spec, 1000)
	for i := range specs {
		specs[i] = ejecting(1, 1, 1, 1)
		specs[i].Name = fmt.Sprint("service-", i)
	}
	h := newHouse(b)
	for b.Loop() {
		h.commit(specs...)
	}
}
