package upstream

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/traffic/balance"
	"github.com/menshen-gateway/menshen/internal/traffic/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a registry with its log.
type house struct {
	*Registry
	mu  sync.Mutex
	log bytes.Buffer
}

func (h *house) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.log.Write(p)
}

// logged gives the lines since the last call, without their time.
func (h *house) logged() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	lines := strings.Split(strings.TrimSuffix(h.log.String(), "\n"), "\n")
	h.log.Reset()
	if lines[0] == "" {
		return nil
	}
	return lines
}

func newHouse(t testing.TB) *house {
	h := &house{}
	h.Registry = NewRegistry(slog.New(slog.NewTextHandler(h, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	t.Cleanup(h.Close)
	return h
}

// commit publishes a generation of the given sets and returns them.
func (h *house) commit(specs ...Spec) []*Set {
	g := h.Begin()
	defer g.Abort()
	sets := make([]*Set, len(specs))
	for i := range specs {
		sets[i] = g.Set(specs[i])
	}
	g.Commit()
	return sets
}

// users is a spec with endpoints a:1, b:1, ... of the given weights.
func users(weights ...int) Spec {
	s := Spec{Name: "users", PanicThreshold: 0.5}
	for i, w := range weights {
		s.Endpoints = append(s.Endpoints, EndpointSpec{Address: string(rune('a'+i)) + ":1", Weight: w})
	}
	return s
}

func pick(t testing.TB, s *Set, p Request) Lease {
	t.Helper()
	l, err := s.Pick(p)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// picks gives the addresses' letters of n requests that succeed.
func picks(t testing.TB, s *Set, n int) string {
	t.Helper()
	var b strings.Builder
	for range n {
		l := pick(t, s, Request{})
		l.Done(Outcome{})
		b.WriteByte(l.Endpoint.Address[0])
	}
	return b.String()
}

// failing ends n leases on one endpoint as failures.
func failing(t testing.TB, s *Set, address string, n int) {
	t.Helper()
	for i := range s.members {
		if e := s.members[i].endpoint; e.Address == address {
			for range n {
				e.load.Acquire(0)
				Lease{Endpoint: e, set: s}.Done(Outcome{Failed: true})
			}
			return
		}
	}
	t.Fatalf("no endpoint %s", address)
}

func status(t testing.TB, s *Set, address string) EndpointStatus {
	t.Helper()
	for _, e := range s.Status().Endpoints {
		if e.Address == address {
			return e
		}
	}
	t.Fatalf("no endpoint %s", address)
	panic("unreachable")
}

func wantKind(t testing.TB, err error, kind fault.Kind, words string) {
	t.Helper()
	var f *fault.Fault
	if !errors.As(err, &f) || f.Kind != kind || !f.Unsent || !strings.Contains(f.Error(), words) {
		t.Errorf("error %v, not %s with %q", err, kind, words)
	}
}

func TestPickFollowsTheAlgorithm(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	spec := users(2, 1, 0)
	if got := picks(t, h.commit(spec)[0], 9); got != "abaabaaba" {
		t.Errorf("round robin: %s", got)
	}
	spec.Balance = balance.Hash
	s := h.commit(spec)[0]
	for key := range uint64(50) {
		to := func(p Request) *Endpoint {
			l := pick(t, s, p)
			l.Done(Outcome{})
			return l.Endpoint
		}
		first := to(Request{Hash: key, Hashed: true})
		if again := to(Request{Hash: key, Hashed: true}); again != first {
			t.Fatalf("key %d went to %s and %s", key, first.Address, again.Address)
		}
		if other := to(Request{Hash: key, Hashed: true, Exclude: first}); other == first {
			t.Fatalf("key %d went to the excluded %s", key, first.Address)
		}
	}
	spec.Balance = balance.LeastLatency
	s = h.commit(spec)[0]
	for range 200 {
		l := pick(t, s, Request{})
		l.Done(Outcome{Latency: map[string]time.Duration{"a:1": time.Second, "b:1": time.Millisecond}[l.Endpoint.Address]})
	}
	if got := strings.Count(picks(t, s, 100), "b"); got != 100 {
		t.Errorf("least latency: the fast one got %d of 100", got)
	}
}

func TestPickRefuses(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	f := func(spec Spec, kind fault.Kind, words string) {
		t.Helper()
		spec.Name = words
		_, err := h.commit(spec)[0].Pick(Request{})
		wantKind(t, err, kind, words)
	}
	f(users(), fault.NoEndpoint, "no endpoints")
	f(users(0, 0), fault.NoEndpoint, "weight 0")
	f(users(-1), fault.NoEndpoint, "weight 0")
}

func TestExclude(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	s := h.commit(users(1, 1, 1))[0]
	e := s.Endpoints()
	for range 30 {
		if got := pick(t, s, Request{Exclude: e[0]}).Endpoint; got == e[0] {
			t.Fatal("the excluded endpoint was chosen")
		}
		if got := pick(t, s, Request{Exclude: e[0], Tried: e[1:2]}).Endpoint; got != e[2] {
			t.Fatalf("%s was chosen, though c:1 is the only one that was not tried", got.Address)
		}
		if got := pick(t, s, Request{Exclude: e[0], Tried: e}).Endpoint; got == e[0] {
			t.Fatal("all were tried, and then the last one was chosen again")
		}
	}
	one := h.commit(users(1))[0]
	if got := pick(t, one, Request{Exclude: one.Endpoints()[0]}).Endpoint; got != e[0] {
		t.Error("the only endpoint must be chosen again")
	}
	stranger := &Endpoint{Address: "x:1"}
	pick(t, one, Request{Exclude: stranger}).Done(Outcome{})
}

// A retry must not take the place of the endpoint that it avoids when the others are merely full.
func TestExcludeWithFullOthers(t *testing.T) {
	t.Parallel()
	spec := users(1, 1)
	spec.MaxConnections = 1
	s := newHouse(t).commit(spec)[0]
	first, second := pick(t, s, Request{}), pick(t, s, Request{})
	first.Done(Outcome{Failed: true})
	_, err := s.Pick(Request{Exclude: first.Endpoint})
	wantKind(t, err, fault.Limited, "")
	second.Done(Outcome{})
	if got := pick(t, s, Request{Exclude: first.Endpoint}).Endpoint; got != second.Endpoint {
		t.Error("the excluded one was chosen")
	}
}

func TestMaxConnections(t *testing.T) {
	t.Parallel()
	for _, a := range []balance.Algorithm{balance.RoundRobin, balance.LeastConnections, balance.LeastLatency, balance.Random, balance.Hash} {
		spec := users(1, 5, 1)
		spec.Balance, spec.MaxConnections = a, 7
		s := newHouse(t).commit(spec)[0]
		leases := make(chan Lease, 100)
		var refused atomic.Int64
		var g sync.WaitGroup
		for w := range 10 {
			g.Go(func() {
				for i := range 10 {
					l, err := s.Pick(Request{Hash: uint64(w*10 + i), Hashed: true})
					if err != nil {
						wantKind(t, err, fault.Limited, "")
						refused.Add(1)
						continue
					}
					leases <- l
				}
			})
		}
		g.Wait()
		if len(leases) != 21 || refused.Load() != 79 || s.Status().Limited != 79 {
			t.Errorf("%s: %d leases, %d refused", a, len(leases), refused.Load())
		}
		for _, e := range s.Endpoints() {
			if e.Active() != 7 {
				t.Errorf("%s: %s has %d active", a, e.Address, e.Active())
			}
		}
		(<-leases).Done(Outcome{})
		pick(t, s, Request{})
	}
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	s := newHouse(t).commit(users(1))[0]
	pick(t, s, Request{}).Done(Outcome{Latency: 20 * time.Millisecond})
	pick(t, s, Request{}).Done(Outcome{Failed: true, Latency: time.Millisecond})
	pick(t, s, Request{}).Done(Outcome{Ignored: true, Failed: true, Latency: time.Hour})
	open := pick(t, s, Request{})
	e := status(t, s, "a:1")
	if e.Requests != 2 || e.Failures != 1 || e.Active != 1 || e.Latency != time.Second {
		t.Errorf("%+v", e)
	}
	open.Done(Outcome{})
	if e := open.Endpoint; e.Active() != 0 || e.failures.Load() != 0 {
		t.Error("a success does not end the failures in a row")
	}
	Lease{}.Done(Outcome{})
}

func ejecting(weights ...int) Spec {
	s := users(weights...)
	s.Outlier = OutlierSettings{ConsecutiveFailures: 3, Ejection: 10 * time.Second, EjectionMax: 35 * time.Second}
	return s
}

func TestEjection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		s := h.commit(ejecting(1, 1, 1))[0]

		failing(t, s, "a:1", 2)
		picks(t, s, 3) // a success in between
		failing(t, s, "a:1", 2)
		if !status(t, s, "a:1").Healthy {
			t.Fatal("ejected without three failures in a row")
		}
		failing(t, s, "a:1", 1)
		e := status(t, s, "a:1")
		if e.Healthy || !e.Ejected || e.Reason != "ejected for 10s: 3 failures in a row" || e.Since != time.Now() {
			t.Errorf("%+v", e)
		}
		if got := picks(t, s, 10); strings.Contains(got, "a") {
			t.Errorf("the ejected one is still chosen: %s", got)
		}
		failing(t, s, "a:1", 5) // late answers change nothing
		if got := h.logged(); len(got) != 1 || got[0] != `level=WARN msg="endpoint ejected" service=users endpoint=a:1 reason="ejected for 10s: 3 failures in a row"` {
			t.Errorf("log: %q", got)
		}
		time.Sleep(10*time.Second + time.Nanosecond)
		synctest.Wait()
		if got := picks(t, s, 3); !strings.Contains(got, "a") || !status(t, s, "a:1").Healthy {
			t.Errorf("it is not back: %s", got)
		}
		if got := h.logged(); len(got) != 1 || !strings.Contains(got[0], "endpoint readmitted") {
			t.Errorf("log: %q", got)
		}
	})
}

func TestEjectionsGrowAndDecay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newHouse(t).commit(ejecting(1, 1, 1))[0]
		lasts := func(want time.Duration) {
			t.Helper()
			failing(t, s, "a:1", 3)
			start := time.Now()
			time.Sleep(want - time.Nanosecond)
			synctest.Wait()
			if status(t, s, "a:1").Healthy {
				t.Fatalf("back before %s", want)
			}
			time.Sleep(2 * time.Nanosecond)
			synctest.Wait()
			if !status(t, s, "a:1").Healthy {
				t.Fatalf("not back after %s", time.Since(start))
			}
		}
		sec := time.Second
		lasts(10 * sec)
		lasts(20 * sec)
		lasts(30 * sec)
		lasts(35 * sec) // the longest
		lasts(35 * sec)
		time.Sleep(20 * sec) // two clean times of 10 s forgive two ejections
		lasts(30 * sec)
		time.Sleep(time.Hour)
		lasts(10 * sec)
		if n := status(t, s, "a:1").Ejections; n != 7 {
			t.Errorf("%d ejections", n)
		}
	})
}

// The count of failures in a row goes on through the ejection: an endpoint that is still broken goes again at once.
func TestStillBrokenIsEjectedByOneFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newHouse(t).commit(ejecting(1, 1, 1))[0]
		failing(t, s, "a:1", 3)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		failing(t, s, "a:1", 1)
		if e := status(t, s, "a:1"); !strings.HasPrefix(e.Reason, "ejected for ") || !strings.HasSuffix(e.Reason, ": 4 failures in a row") {
			t.Errorf("%+v", e)
		}
	})
}

func TestNoEjectionUnlessAsked(t *testing.T) {
	t.Parallel()
	s := newHouse(t).commit(users(1, 1))[0]
	failing(t, s, "a:1", 1000)
	if !status(t, s, "a:1").Healthy {
		t.Error("ejected")
	}
}

func TestPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		s := h.commit(ejecting(1, 1, 1, 1, 0))[0]
		failing(t, s, "a:1", 3)
		failing(t, s, "b:1", 3)
		if st := s.Status(); st.Panic || st.Available != 2 || st.Total != 4 {
			t.Errorf("half is not fewer than half: %+v", st)
		}
		if got := picks(t, s, 20); strings.ContainsAny(got, "ab") {
			t.Errorf("chosen: %s", got)
		}
		h.logged()
		failing(t, s, "c:1", 3)
		if got := picks(t, s, 8); strings.Count(got, "a") != 2 || strings.Contains(got, "e") {
			t.Errorf("in panic all with a weight are used: %s", got)
		}
		if st := s.Status(); !st.Panic || st.PanicPicks != 8 || st.Available != 1 {
			t.Errorf("%+v", st)
		}
		log := h.logged()
		if len(log) != 2 || !strings.Contains(log[1], "health is ignored") || !strings.Contains(log[1], "available=1 endpoints=4") {
			t.Errorf("log: %q", log)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if st := s.Status(); st.Panic || st.Available != 4 {
			t.Errorf("%+v", st)
		}
		if log := h.logged(); len(slices.DeleteFunc(log, func(l string) bool { return !strings.Contains(l, "enough healthy") })) != 1 {
			t.Errorf("log: %q", log)
		}
	})
}

func TestWithoutPanicAllMayBeOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		spec := ejecting(1, 1)
		spec.PanicThreshold = 0
		s := newHouse(t).commit(spec)[0]
		failing(t, s, "a:1", 3)
		failing(t, s, "b:1", 3)
		_, err := s.Pick(Request{})
		wantKind(t, err, fault.NoEndpoint, "users: no endpoint is healthy (a:1: ejected for 10s: 3 failures in a row; b:1: ")
		if s.Status().NoEndpoint != 1 {
			t.Error("not counted")
		}
	})
}

func TestOnlyEndpointIsUsedInPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newHouse(t).commit(ejecting(1))[0]
		failing(t, s, "a:1", 10)
		if got := picks(t, s, 3); got != "aaa" {
			t.Errorf("chosen: %s", got)
		}
	})
}

func TestRetryBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		spec := users(1)
		spec.RetryBudget = 0.2
		s := newHouse(t).commit(spec)[0]
		allowed := func() (n int) {
			for range 1000 {
				if s.AllowRetry() {
					picks(t, s, 1) // the retry
					n++
				}
			}
			return n
		}
		if n := allowed(); n != 30 {
			t.Errorf("without traffic %d retries are allowed, not 3 a second", n)
		}
		time.Sleep(11 * time.Second)
		for range 10 {
			picks(t, s, 100)
			time.Sleep(time.Second)
		}
		// The first of these seconds has just left the window.
		if n := allowed(); n != 180 {
			t.Errorf("after 1000 requests %d retries are allowed", n)
		}
		time.Sleep(11 * time.Second)
		if n := allowed(); n != 30 {
			t.Errorf("old requests still count: %d", n)
		}
		if st := s.Status(); st.RetriesAllowed != 240 || st.RetriesAllowed+st.RetriesRejected != 3000 {
			t.Errorf("%+v", st)
		}
	})
}

// 3 retries a second are always allowed, also in the middle of a window.
func TestRetryFloorIsSteady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newHouse(t).commit(users(1))[0]
		for range 60 {
			for range 3 {
				if !s.AllowRetry() {
					t.Fatal("refused")
				}
			}
			time.Sleep(time.Second)
		}
	})
}

// The budget is the service's: a reload that replaces the endpoints, or the settings of their connections, keeps both the
// requests and the retries of the last seconds. It once kept the retries alone, and refused all until they were forgotten.
func TestRetryBudgetSurvivesNewEndpoints(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		spec := users(1, 1)
		spec.RetryBudget = 0.5
		old := h.commit(spec)[0]
		leases := []Lease{pick(t, old, Request{}), pick(t, old, Request{})} // end after their endpoints have left
		picks(t, old, 998)
		retries := func(s *Set, most int) (n int) {
			for n < most && s.AllowRetry() {
				picks(t, s, 1)
				n++
			}
			return n
		}
		if n := retries(old, 100); n != 100 {
			t.Fatalf("%d retries for 998 requests", n)
		}
		spec.Identity = "other"
		s := h.commit(spec)[0]
		for _, l := range leases {
			l.Done(Outcome{})
		}
		if n := retries(s, 200); n != 200 {
			t.Errorf("%d more retries for 1000 requests, want 200", n)
		}
		if n := retries(old, 1000); n != 200 { // the old generation shares the budget
			t.Errorf("%d more retries for 1000 requests, want 200", n)
		}
		time.Sleep(11 * time.Second)
		if n := retries(s, 1000); n != budgetFloor*budgetWindow {
			t.Errorf("old requests still count: %d", n)
		}
	})
}

// A retry counts neither as a request of its own nor twice.
func TestRetriesDoNotFeedTheBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		spec := users(1)
		spec.RetryBudget = 0.5
		s := newHouse(t).commit(spec)[0]
		picks(t, s, 1000)
		n := 0
		for s.AllowRetry() {
			picks(t, s, 1)
			n++
		}
		if n != 500 {
			t.Errorf("%d retries for 1000 requests", n)
		}
	})
}

// answers is a probe for each address.
type answers struct {
	mu  sync.Mutex
	err map[string]error
}

func (a *answers) set(address string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil {
		a.err = map[string]error{}
	}
	a.err[address] = err
}

func (a *answers) probe(_ context.Context, address string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.err[address]
}

func checking(a *answers, weights ...int) Spec {
	s := ejecting(weights...)
	s.Probe, s.Health = a.probe, health.Settings{Interval: time.Second, Rise: 2, Fall: 3}
	return s
}

func TestActiveChecks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		defer h.Close()
		var a answers
		s := h.commit(checking(&a, 1, 1, 0))[0]
		if e := status(t, s, "a:1"); !e.Healthy || e.Reason != "not checked yet" {
			t.Errorf("%+v", e)
		}
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if e := status(t, s, "a:1"); !e.Healthy || e.Reason != "active: passed (1 in a row)" {
			t.Errorf("%+v", e)
		}
		if e := status(t, s, "c:1"); e.Reason != "active: passed (1 in a row); weight 0: takes no traffic" {
			t.Errorf("%+v", e)
		}
		before := time.Now()
		a.set("a:1", errors.New("connection refused"))
		time.Sleep(4 * time.Second)
		synctest.Wait()
		e := status(t, s, "a:1")
		if e.Healthy || e.Ejected || !strings.HasPrefix(e.Reason, "active: connection refused (") || !e.Since.After(before) || e.Checks < 4 || e.LastCheck.Before(e.Since) {
			t.Errorf("%+v", e)
		}
		if got := picks(t, s, 4); got != "bbbb" {
			t.Errorf("chosen: %s", got)
		}
		if log := h.logged(); len(log) != 1 || log[0] != `level=WARN msg="endpoint unhealthy" service=users endpoint=a:1 reason="active: connection refused (3 in a row)"` {
			t.Errorf("log: %q", log)
		}
		a.set("a:1", nil)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := picks(t, s, 4); strings.Count(got, "a") != 2 {
			t.Errorf("chosen: %s", got)
		}
		if log := h.logged(); len(log) != 1 || log[0] != `level=INFO msg="endpoint healthy" service=users endpoint=a:1 reason="active: passed (2 in a row)"` {
			t.Errorf("log: %q", log)
		}
	})
}

func TestAPassingCheckEndsAnEjection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		defer h.Close()
		var a answers
		s := h.commit(checking(&a, 1, 1, 1))[0]
		time.Sleep(500 * time.Millisecond)
		failing(t, s, "a:1", 3)
		if status(t, s, "a:1").Healthy {
			t.Fatal("not ejected")
		}
		time.Sleep(1200 * time.Millisecond)
		synctest.Wait()
		if !status(t, s, "a:1").Healthy {
			t.Error("still ejected after a passing check")
		}
		if log := h.logged(); len(log) != 2 || !strings.Contains(log[1], "an active check passed") {
			t.Errorf("log: %q", log)
		}
		// A check that fails ends nothing, and both reasons are told.
		a.set("a:1", errors.New("status 500"))
		failing(t, s, "a:1", 3)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if e := status(t, s, "a:1"); e.Healthy || !strings.HasPrefix(e.Reason, "ejected for 20s: 4 failures in a row; active: status 500 (") {
			t.Errorf("%+v", e)
		}
	})
}

// A check that was under way when the ejection began says nothing about the time after it.
func TestAnOlderCheckDoesNotEndAnEjection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		defer h.Close()
		spec := ejecting(1, 1, 1)
		spec.Health = health.Settings{Interval: time.Second, Timeout: time.Minute}
		spec.Probe = func(ctx context.Context, _ string) error { time.Sleep(5 * time.Second); return nil }
		s := h.commit(spec)[0]
		time.Sleep(2 * time.Second) // the first check began in the first 100 ms
		failing(t, s, "a:1", 3)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if e := status(t, s, "a:1"); e.Healthy || e.Checks != 1 {
			t.Errorf("%+v", e)
		}
	})
}

func TestSetOfOneNameIsOne(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	sets := h.commit(users(1), users(1, 1))
	if sets[0] != sets[1] || sets[0].Name() != "users" {
		t.Error("two sets of one name in one generation")
	}
	twice := users(1, 2)
	twice.Name = "twice"
	twice.Endpoints = append(twice.Endpoints, EndpointSpec{Address: "a:1", Weight: 3})
	if s := h.commit(twice)[0]; len(s.Endpoints()) != 2 || status(t, s, "a:1").Weight != 4 {
		t.Error("one address twice is not one endpoint")
	}
}

func TestStatusIsSortedAndComplete(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	z, a := users(1), users(3)
	z.Name, a.Name = "z", "a"
	a.Balance = balance.Hash
	a.Endpoints[0].Labels = map[string]string{"zone": "1"}
	h.commit(z, a)
	st := h.Status()
	if len(st) != 2 || st[0].Name != "a" || st[1].Name != "z" || st[0].Balance != balance.Hash || st[1].Balance != balance.RoundRobin {
		t.Fatalf("%+v", st)
	}
	if e := st[0].Endpoints[0]; e.Weight != 3 || e.Labels["zone"] != "1" || e.Since.IsZero() {
		t.Errorf("%+v", e)
	}
}
