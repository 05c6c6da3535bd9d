package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pool counts its closes.
type pool struct {
	closed atomic.Int32
	err    error
}

func (p *pool) Close() error { p.closed.Add(1); return p.err }

func TestReload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		defer h.Close()
		var a answers
		pools := map[string]*pool{}
		spec := func(identity string, weights ...int) Spec {
			s := checking(&a, weights...)
			s.Identity = identity
			s.NewPool = func(e *Endpoint) io.Closer {
				key := identity + e.Address
				if pools[key] != nil {
					t.Errorf("a second pool for %s", key)
				}
				pools[key] = &pool{}
				return pools[key]
			}
			return s
		}
		a.set("a:1", errors.New("down"))
		one := h.commit(spec("x", 1, 1, 1))[0]
		time.Sleep(5 * time.Second)
		synctest.Wait()
		lease := pick(t, one, Request{})
		lease.Done(Outcome{Latency: time.Second})
		lease = pick(t, one, Request{}) // stays open over the reloads
		checks := status(t, one, "a:1").Checks

		// Other weights, one less, and other settings: what stays keeps all.
		two := spec("x", 5, 2)
		two.Health.Interval = time.Minute
		s := h.commit(two)[0]
		if s == one || !slices.Equal(s.Endpoints(), one.Endpoints()[:2]) {
			t.Error("the endpoints are other ones")
		}
		e := status(t, s, "a:1")
		if e.Healthy || e.Checks != checks || e.Weight != 5 || e.Retired {
			t.Errorf("%+v", e)
		}
		c := one.Endpoints()[2]
		if !c.Retired() || pools["xc:1"].closed.Load() != 1 || pools["xa:1"].closed.Load() != 0 {
			t.Error("the one that left did not retire, or another did")
		}
		checks = c.Status().Checks
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if c.Status().Checks != checks {
			t.Error("the one that left is still checked")
		}
		// The old set sees what happens to endpoints that stayed.
		a.set("a:1", nil)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if got := picks(t, one, 30); !strings.Contains(got, "a") || !strings.Contains(got, "c") {
			t.Errorf("the old generation chose %s", got)
		}

		// Another identity makes others of all.
		s = h.commit(spec("y", 1, 1))[0]
		for _, e := range one.Endpoints() {
			if !e.Retired() || e.Pool.(*pool).closed.Load() != 1 {
				t.Errorf("%s did not retire once", e.Address)
			}
		}
		if e := status(t, s, "a:1"); e.Checks != 0 || e.Requests != 0 {
			t.Errorf("%+v", e)
		}
		lease.Done(Outcome{Failed: true})

		h.commit()
		if len(h.Status()) != 0 || !s.Endpoints()[0].Retired() || len(h.groups) != 0 || len(h.endpoints) != 0 {
			t.Error("an empty generation leaves something")
		}
	})
}

func TestAbortChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		defer h.Close()
		var a answers
		s := h.commit(checking(&a, 1, 1))[0]
		time.Sleep(time.Second)
		synctest.Wait()
		before := fmt.Sprint(h.Status())

		p := &pool{}
		other := checking(&a, 7, 7, 7)
		other.Outlier = OutlierSettings{}
		other.NewPool = func(*Endpoint) io.Closer { return p }
		g := h.Begin()
		made := g.Set(other)
		extra := other
		extra.Name, extra.Endpoints = "more", nil
		g.Set(extra)
		g.Abort()
		g.Abort()
		g.Commit()
		if got := fmt.Sprint(h.Status()); got != before {
			t.Errorf("before: %s\nafter:  %s", before, got)
		}
		if p.closed.Load() != 1 || !made.Endpoints()[2].Retired() || s.Endpoints()[0].Retired() {
			t.Error("what the generation made did not retire, or something else did")
		}
		pick(t, made, Request{}).Done(Outcome{}) // harmless
		h.commit(checking(&a, 1, 1))             // and the next one can begin
	})
}

func TestChecksAndEjectionCanBeSwitchedOffAndOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		defer h.Close()
		var a answers
		a.set("a:1", errors.New("down"))
		s := h.commit(checking(&a, 1, 1, 1, 1))[0]
		time.Sleep(time.Second)
		synctest.Wait()
		failing(t, s, "b:1", 3)
		if st := s.Status(); st.Available != 2 {
			t.Fatalf("%+v", st)
		}
		s = h.commit(users(1, 1, 1, 1))[0]
		if st := s.Status(); st.Available != 4 || st.Endpoints[0].Reason != "no active checks" {
			t.Errorf("nobody would ever admit them again: %+v", st)
		}
		s = h.commit(checking(&a, 1, 1, 1, 1))[0]
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if st := s.Status(); st.Available != 3 || st.Endpoints[0].Reason != "active: down (1 in a row)" {
			t.Errorf("%+v", st)
		}
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		p := &pool{err: errors.New("stuck")}
		spec := ejecting(1, 1, 1)
		spec.Probe = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		spec.Health.Timeout = time.Hour
		spec.NewPool = func(e *Endpoint) io.Closer {
			if e.Address == "a:1" {
				return p
			}
			return nil
		}
		s := h.commit(spec)[0]
		failing(t, s, "b:1", 3)
		time.Sleep(time.Second)
		g := h.Begin()
		late := g.Set(users(1, 1, 1, 1))
		h.Close()
		h.Close()
		g.Commit()
		if p.closed.Load() != 1 || !s.Endpoints()[1].Retired() || !late.Endpoints()[3].Retired() || len(h.Status()) != 0 {
			t.Error("something is left")
		}
		pick(t, s, Request{}).Done(Outcome{Failed: true})
		failing(t, s, "c:1", 3)
		if log := strings.Join(h.logged(), "\n"); !strings.Contains(log, "stuck") || strings.Contains(log, "c:1") {
			t.Errorf("log: %s", log)
		}
		time.Sleep(time.Hour) // no timer may be left
	})
}
