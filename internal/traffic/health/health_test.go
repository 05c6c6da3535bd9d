package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestState(t *testing.T) {
	t.Parallel()
	// Answers: + passed, - failed. Verdicts after each: H healthy, u unhealthy.
	f := func(rise, fall int, answers, want string) {
		t.Helper()
		var s State
		got, healthy := "", true
		for _, a := range answers {
			var err error
			if a == '-' {
				err = errors.New("down")
			}
			changed := s.Record(err, rise, fall)
			if changed != (s.Healthy() != healthy) {
				t.Errorf("%s: changed is %v after %s", answers, changed, got)
			}
			healthy = s.Healthy()
			got += map[bool]string{true: "H", false: "u"}[healthy]
		}
		if got != want {
			t.Errorf("rise %d, fall %d: %s gives %s, not %s", rise, fall, answers, got, want)
		}
	}
	f(2, 3, "++++", "HHHH")
	f(2, 3, "-", "u")   // the first answer decides alone
	f(2, 3, "-+", "uu") // and is taken back like any other
	f(2, 3, "-++", "uuH")
	f(2, 3, "+--+---", "HHHHHHu") // only in a row
	f(2, 3, "+---+-++", "HHHuuuuH")
	f(1, 1, "+-+-", "HuHu")
	f(3, 2, "+--++-+++", "HHuuuuuuH")
}

func TestInARow(t *testing.T) {
	t.Parallel()
	var s State
	var got []int
	for _, err := range []error{nil, nil, errors.New("x"), errors.New("x"), errors.New("y"), nil} {
		s.Record(err, 2, 3)
		got = append(got, s.InARow())
	}
	if !slices.Equal(got, []int{1, 2, 1, 2, 3, 1}) {
		t.Errorf("in a row: %v", got)
	}
}

// checks collects the reports of a checker that runs in the bubble.
type checks struct {
	*Checker
	cancel context.CancelFunc

	mu      sync.Mutex
	reports []Report
	problem error // what answer gives
}

// answer is a probe that gives c.problem.
func (c *checks) answer(context.Context, string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.problem
}

// becomes changes the answer, and gives and forgets the reports so far.
func (c *checks) becomes(problem error) []Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	reports := c.reports
	c.problem, c.reports = problem, nil
	return reports
}

// run starts a checker; a nil probe is answer.
func run(p Probe, s Settings) *checks {
	c := &checks{}
	if p == nil {
		p = c.answer
	}
	c.Checker = NewChecker("a:1", p, s, func(r Report) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.reports = append(c.reports, r)
	})
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(context.Background())
	go c.Run(ctx) // ends by cancel; the bubble waits for it
	return c
}

func TestCheckerFollowsItsSettings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := run(nil, Settings{Interval: 10 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3})
		defer c.cancel()

		time.Sleep(time.Second) // a tenth of the interval
		synctest.Wait()
		problem := errors.New("broken")
		if r := c.becomes(problem); len(r) != 1 || !r[0].Healthy || !r[0].First || r[0].Changed {
			t.Fatalf("after a tenth of an interval: %+v", r)
		}
		time.Sleep(100 * time.Second)
		synctest.Wait()
		failures := c.becomes(nil)
		if len(failures) < 9 || len(failures) > 11 {
			t.Errorf("asked %d times in ten intervals", len(failures))
		}
		for i, r := range failures {
			if want := i < 2; r.Healthy != want || r.Changed != (i == 2) || r.InARow != i+1 || r.Err != problem || r.First {
				t.Errorf("failure %d: %+v", i+1, r)
			}
		}
		time.Sleep(25 * time.Second)
		synctest.Wait()
		if r := c.becomes(nil); len(r) < 2 || r[0].Healthy || !r[1].Healthy || !r[1].Changed {
			t.Errorf("it did not rise: %+v", r)
		}
		c.cancel()
		time.Sleep(time.Minute)
		synctest.Wait()
		if r := c.becomes(nil); len(r) != 0 {
			t.Errorf("it asks on after its end: %+v", r)
		}
	})
}

// Intervals must differ, or all endpoints are asked at the same moment for ever.
func TestJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const interval = 10 * time.Second
		c := run(nil, Settings{Interval: interval})
		defer c.cancel()
		time.Sleep(200 * interval)
		synctest.Wait()
		different := map[time.Duration]bool{}
		for i := 1; i < len(c.reports); i++ {
			d := c.reports[i].Started.Sub(c.reports[i-1].Started)
			if d < interval*9/10 || d > interval*11/10 {
				t.Fatalf("an interval of %s", d)
			}
			different[d] = true
		}
		if len(different) < 100 {
			t.Errorf("only %d different intervals", len(different))
		}
	})
}

func TestTimeoutIsAFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := run(func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return fmt.Errorf("read tcp 1.2.3.4: %w", ctx.Err())
		}, Settings{Interval: 2 * time.Second, Timeout: 1500 * time.Millisecond})
		defer c.cancel()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if len(c.reports) < 8 {
			t.Fatalf("%d checks in ten intervals", len(c.reports))
		}
		if r := c.reports[0]; r.Healthy || r.Err.Error() != "no answer within 1.5s" {
			t.Errorf("%+v", r)
		}
	})
}

// A check that is slower than its interval must not make the next one follow without a pause.
func TestSlowChecksDoNotPile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int32
		c := run(func(ctx context.Context, _ string) error {
			if running.Add(1) > 1 {
				t.Error("two checks at once")
			}
			<-ctx.Done()
			running.Add(-1)
			return ctx.Err()
		}, Settings{Interval: time.Second, Timeout: 10 * time.Second})
		defer c.cancel()
		time.Sleep(101 * time.Second)
		synctest.Wait()
		if n := len(c.reports); n < 9 || n > 10 {
			t.Errorf("%d checks", n)
		}
	})
}

func TestEndCutsARunningCheck(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := run(func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }, Settings{Timeout: time.Hour})
		time.Sleep(time.Second)
		c.cancel()
		synctest.Wait() // the bubble fails if the loop does not end
		if len(c.reports) != 0 {
			t.Errorf("being stopped was reported as the endpoint's failure: %+v", c.reports)
		}
	})
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ok := func(context.Context, string) error { return nil }
		bad := func(context.Context, string) error { return errors.New("bad") }
		c := run(ok, Settings{Interval: time.Hour})
		defer c.cancel()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(c.reports) != 1 {
			t.Fatalf("%d checks", len(c.reports))
		}
		for range 1000 { // reloads with the same settings neither hasten nor delay
			c.Update(bad, Settings{Interval: time.Hour})
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if len(c.reports) != 1 {
			t.Fatalf("%d checks after the same settings came again", len(c.reports))
		}
		c.Update(bad, Settings{Interval: time.Second, Fall: 1})
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if len(c.reports) != 2 || c.reports[1].Healthy {
			t.Errorf("the shorter interval or the new probe does not count yet: %+v", c.reports)
		}
	})
}
