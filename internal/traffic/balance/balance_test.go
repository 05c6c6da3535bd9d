package balance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// idle makes candidates without load.
func idle(weights ...int) []Candidate {
	list := make([]Candidate, len(weights))
	for i, w := range weights {
		list[i] = Candidate{Weight: w, ID: Key(fmt.Sprintf("10.0.0.%d:80", i+1)), Load: new(Load)}
	}
	return list
}

// draw chooses n times without keeping any request active, and gives the counts.
func draw(b *Balancer, random *rand.Rand, n int) []int {
	counts := make([]int, b.Len())
	for range n {
		counts[b.Choose(Call{Random: random.Uint64(), Hash: random.Uint64(), Hashed: true})]++
	}
	return counts
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 42)) }

// proportional fails unless each count is within six standard deviations of its weight's share.
func proportional(t *testing.T, counts, weights []int) {
	t.Helper()
	n, total := 0, 0
	for i := range counts {
		n, total = n+counts[i], total+weights[i]
	}
	for i := range counts {
		p := float64(weights[i]) / float64(total)
		want, bound := p*float64(n), 6*math.Sqrt(float64(n)*p*(1-p))
		if math.Abs(float64(counts[i])-want) > bound {
			t.Errorf("candidate %d of weights %v was chosen %d times, not %.0f±%.0f", i, weights, counts[i], want, bound)
		}
	}
}

func TestRoundRobinOrder(t *testing.T) {
	t.Parallel()
	f := func(weights []int, want string) {
		t.Helper()
		b := New(RoundRobin, idle(weights...), nil)
		var got strings.Builder
		for range want {
			got.WriteByte('a' + byte(b.Choose(Call{})))
		}
		if got.String() != want {
			t.Errorf("weights %v: %s, not %s", weights, got.String(), want)
		}
	}
	f([]int{1}, "aaa")
	f([]int{1, 1, 1}, "abcabc")
	f([]int{7, 7}, "abab")
	f([]int{5, 1, 1}, "aabacaaaabacaa") // nginx's own example
	f([]int{10, 2, 2}, "aabacaaaabacaa")
	f([]int{2, 1}, "abaaba")
	f([]int{1, 0, 1}, "acac")
	f([]int{0, 3, -1}, "bbb")
}

func TestRoundRobinIsExactPerRound(t *testing.T) {
	t.Parallel()
	weights := []int{1, 2, 3, 40, 5, 60, 700}
	b, total := New(RoundRobin, idle(weights...), nil), 811
	if len(b.schedule) != total {
		t.Fatalf("the schedule has %d places", len(b.schedule))
	}
	if counts := draw(b, seeded(1), 3*total); !slices.Equal(counts, []int{3, 6, 9, 120, 15, 180, 2100}) {
		t.Errorf("three rounds: %v", counts)
	}
}

// Weights whose exact schedule would be too long get a sequence that is as even: at no time is a candidate more than a few
// places away from its share.
func TestRoundRobinWithoutScheduleStaysEven(t *testing.T) {
	t.Parallel()
	weights := []int{1_000_003, 499_979, 77_777, 1}
	b := New(RoundRobin, idle(weights...), nil)
	if b.schedule != nil {
		t.Fatal("there is a schedule")
	}
	total, counts := 0, make([]int, len(weights))
	for _, w := range weights {
		total += w
	}
	for k := 1; k <= 200_000; k++ {
		counts[b.Choose(Call{})]++
		for i := range counts {
			want := float64(k) * float64(weights[i]) / float64(total)
			if math.Abs(float64(counts[i])-want) > 6 { // log2(200000)/3 is the sequence's discrepancy
				t.Fatalf("after %d choices candidate %d has %d, not %.1f", k, i, counts[i], want)
			}
		}
	}
}

func TestRoundRobinGoesOnAcrossBalancers(t *testing.T) {
	t.Parallel()
	var cursor atomic.Uint64
	candidates, got := idle(1, 1, 1), ""
	for range 6 {
		got += string(rune('a' + New(RoundRobin, slices.Clone(candidates), &cursor).Choose(Call{})))
	}
	if got != "abcabc" {
		t.Errorf("six balancers: %s", got)
	}
}

func TestShares(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]int{{1, 1, 1}, {3, 1}, {1, 2, 3, 4, 5, 6, 7}, {0, 5, 0, 1}, {100, 1, 1, 1, 1, 1}} {
		for _, a := range []Algorithm{Random, Hash, LeastConnections, LeastLatency} {
			if (a == LeastConnections || a == LeastLatency) && len(weights) > scanMax {
				continue // two draws compare equal at rest: the tests with load judge them
			}
			t.Run(fmt.Sprint(a, weights), func(t *testing.T) {
				t.Parallel()
				proportional(t, draw(New(a, idle(weights...), nil), seeded(7), 60_000), weights)
			})
		}
	}
}

func TestHashWithoutKeyDraws(t *testing.T) {
	t.Parallel()
	b, random, counts := New(Hash, idle(1, 3), nil), seeded(3), make([]int, 2)
	for range 20_000 {
		counts[b.Choose(Call{Random: random.Uint64(), Hash: 12345})]++
	}
	proportional(t, counts, []int{1, 3})
}

func TestNothingToChoose(t *testing.T) {
	t.Parallel()
	for _, a := range []Algorithm{"", RoundRobin, LeastConnections, LeastLatency, Random, Hash} {
		f := func(what string, c []Candidate, call Call) {
			t.Helper()
			call.Hashed = true
			if i := New(a, c, nil).Choose(call); i != -1 {
				t.Errorf("%s, %s: chose %d", a, what, i)
			}
		}
		f("empty", nil, Call{})
		f("weight 0", idle(0, 0), Call{})
		f("skipped", idle(1), Call{Skip: []int{0}})
		f("all skipped", idle(1, 2, 0), Call{Skip: []int{1, 0}})
		full := idle(1, 1, 1, 1, 1, 1)
		for i := range full {
			full[i].Max = 1
			full[i].Load.Acquire(1)
		}
		f("full", full, Call{Random: 99})
	}
}

// The share of a candidate that cannot be used goes to all others, by weight, and not to one neighbour.
func TestSkippedShareIsSpread(t *testing.T) {
	t.Parallel()
	for _, a := range []Algorithm{RoundRobin, Random, Hash, LeastConnections} {
		for _, byLoad := range []bool{false, true} {
			candidates := idle(1, 5, 1, 2)
			var skip []int
			if byLoad {
				candidates[1].Max = 1
				candidates[1].Load.Acquire(0)
			} else {
				skip = []int{1}
			}
			b, random, counts := New(a, candidates, nil), seeded(11), make([]int, 4)
			for range 40_000 {
				counts[b.Choose(Call{Random: random.Uint64(), Hash: random.Uint64(), Hashed: true, Skip: skip})]++
			}
			// The round robin's own turns are exact, so the sum is at least as even as drawn ones.
			proportional(t, counts, []int{1, 0, 1, 2})
		}
	}
}

// simulate runs requests that last for an exponential time with the candidate's mean, arrivals at rate 1 per unit, and gives how
// many each candidate served.
func simulate(b *Balancer, means []float64, n int, random *rand.Rand) (served []int) {
	type running struct {
		ends float64
		took float64
		at   int
	}
	var active []running
	served = make([]int, len(means))
	clock := 0.0
	for range n {
		clock += random.ExpFloat64()
		active = slices.DeleteFunc(active, func(r running) bool {
			if r.ends > clock {
				return false
			}
			load := b.candidates[r.at].Load
			load.Release()
			load.Observe(int64(r.ends*1e6), time.Duration(r.took*1e6), false)
			return true
		})
		i := b.Choose(Call{Random: random.Uint64(), Now: int64(clock * 1e6)})
		b.candidates[i].Load.Acquire(0)
		took := means[i] * random.ExpFloat64()
		active = append(active, running{clock + took, took, i})
		served[i]++
	}
	for _, r := range active {
		b.candidates[r.at].Load.Release()
	}
	return served
}

func TestLeastConnectionsAvoidsTheSlow(t *testing.T) {
	t.Parallel()
	f := func(weights []int, means []float64, slow int, most float64) {
		t.Helper()
		served := simulate(New(LeastConnections, idle(weights...), nil), means, 20_000, seeded(5))
		if share := float64(served[slow]) / 20_000; share > most {
			t.Errorf("weights %v, times %v: served %v", weights, means, served)
		}
	}
	f([]int{1, 1, 1}, []float64{2, 2, 20}, 2, 0.12)                               // full scan; equal shares would be 0.33
	f([]int{1, 1, 1, 1, 1, 1, 1, 1}, []float64{4, 4, 4, 4, 4, 4, 4, 40}, 7, 0.06) // two choices; equal shares would be 0.125
}

func TestLeastConnectionsKeepsWeightsUnderLoad(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]int{{3, 1}, {4, 2, 2, 1, 1, 1, 1}} {
		candidates := idle(weights...)
		b, random, total := New(LeastConnections, candidates, nil), seeded(9), 0
		for _, w := range weights {
			total += w
		}
		for range 100 * total { // requests that never end
			candidates[b.Choose(Call{Random: random.Uint64()})].Load.Acquire(0)
		}
		for i, w := range weights {
			if got := candidates[i].Load.Active(); math.Abs(float64(got-100*w)) > float64(12*w) {
				t.Errorf("weights %v: candidate %d has %d active, not about %d", weights, i, got, 100*w)
			}
		}
	}
}

func TestLeastLatencyPrefersTheFast(t *testing.T) {
	t.Parallel()
	f := func(means []float64, fast []int, least float64) {
		t.Helper()
		served := simulate(New(LeastLatency, idle(slices.Repeat([]int{1}, len(means))...), nil), means, 20_000, seeded(13))
		sum := 0
		for _, i := range fast {
			sum += served[i]
		}
		if share := float64(sum) / 20_000; share < least {
			t.Errorf("times %v: served %v", means, served)
		}
	}
	f([]float64{1, 20}, []int{0}, 0.9)
	f([]float64{2, 2, 60}, []int{0, 1}, 0.95)
	f([]float64{2, 2, 2, 2, 100, 100}, []int{0, 1, 2, 3}, 0.85)
}

const second = int64(time.Second)

func TestLeastLatency(t *testing.T) {
	t.Parallel()
	setUp := func(latencies ...time.Duration) ([]Candidate, *Balancer) {
		candidates := idle(slices.Repeat([]int{1}, len(latencies))...)
		for i, l := range latencies {
			candidates[i].Load.Observe(second, l, false)
		}
		return candidates, New(LeastLatency, candidates, nil)
	}
	expect := func(what string, b *Balancer, now int64, want int) {
		t.Helper()
		for seed := range uint64(20) {
			if got := b.Choose(Call{Random: mix(seed), Now: now}); got != want {
				t.Fatalf("%s: chose %d, not %d", what, got, want)
			}
		}
	}
	ms := time.Millisecond

	_, b := setUp(20*ms, 5*ms, 10*ms)
	expect("the fastest", b, second, 1)

	c, b := setUp(20*ms, 5*ms, 10*ms)
	c[1].Load.Acquire(0)
	c[1].Load.Acquire(0)
	expect("active requests count", b, second, 2)

	_, b = setUp(20*ms, 0, 10*ms)
	expect("the unprobed is tried", b, second, 1)

	c, b = setUp(20*ms, 0, 10*ms)
	c[1].Load.Acquire(0)
	expect("but by one request at a time", b, second, 2)

	c, b = setUp(20*ms, 25*ms)
	c[0].Load.Observe(second, 100*time.Microsecond, true)
	expect("an instant failure is slow", b, second, 1)

	c, b = setUp(20*time.Second, 25*time.Second)
	c[0].Load.Observe(second, time.Microsecond, true)
	expect("also among slow peers", b, second, 1)

	c, b = setUp(0, 10*ms)
	c[0].Load.Observe(second, 0, true)
	expect("also without any answer before", b, second, 1)

	c, b = setUp(100*ms, 10*ms)
	for s := range int64(40) { // only 1 is asked, and stays at 10 ms
		c[1].Load.Observe((2+s)*second, 10*ms, false)
	}
	expect("the slow one is asked again some time", b, 41*second, 0)
	c[0].Load.Acquire(0)
	expect("by one request", b, 41*second, 1)

	c, _ = setUp(10*ms, 10*ms)
	c[0].Weight, c[1].Weight = 1, 3
	c[1].Load.Observe(second, 20*ms, false)
	expect("weights divide", New(LeastLatency, c, nil), second, 1)
}

func TestLoadAverages(t *testing.T) {
	t.Parallel()
	var l Load
	expect := func(want time.Duration) {
		t.Helper()
		if got := l.Latency(); math.Abs(float64(got-want)) > float64(want)/100 {
			t.Errorf("latency %s, not %s", got, want)
		}
	}
	if l.Latency() != 0 {
		t.Error("an endpoint that never answered has a latency")
	}
	l.Observe(second, 0, false) // unknown
	if l.Latency() != 0 {
		t.Error("an unknown latency counted")
	}
	l.Observe(second, 100*time.Millisecond, false)
	expect(100 * time.Millisecond)
	l.Observe(second, time.Millisecond, false) // no time has passed
	expect(100 * time.Millisecond)
	l.Observe(11*second, time.Millisecond, false) // 1/e of the old is left after the decay time
	expect(37420 * time.Microsecond)
	l.Observe(12*second, time.Second, false) // a peak counts at once
	expect(time.Second)
	l.Observe(12*second, time.Millisecond, true)
	expect(2 * time.Second)
	for range 10 {
		l.Observe(12*second, time.Millisecond, true)
	}
	expect(penaltyMax)
}

func TestLoadBound(t *testing.T) {
	t.Parallel()
	var l Load
	for n, want := range []bool{true, true, false, false} {
		if l.Acquire(2) != want {
			t.Errorf("with a bound of 2, the %d. request is let in: %v", n+1, !want)
		}
	}
	l.Release()
	if !l.Acquire(2) || !l.Acquire(0) || l.Active() != 3 {
		t.Error("a released place cannot be taken")
	}
}

// owners gives the candidate's ID for each key.
func owners(candidates []Candidate, keys int, skip ...int) []uint64 {
	b, list := New(Hash, candidates, nil), make([]uint64, keys)
	for k := range list {
		list[k] = candidates[b.Choose(Call{Hash: Key(fmt.Sprintf("client-%d", k)), Hashed: true, Skip: skip})].ID
	}
	return list
}

func moved(a, b []uint64) (n int) {
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

func TestHashMovesOnlyWhatItMust(t *testing.T) {
	t.Parallel()
	const keys = 20_000
	ten := idle(1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	before := owners(slices.Clone(ten), keys)

	if n := moved(before, owners(slices.Clone(ten), keys)); n != 0 {
		t.Errorf("%d keys moved without a change", n)
	}
	reversed := slices.Clone(ten)
	slices.Reverse(reversed)
	if n := moved(before, owners(reversed, keys)); n != 0 {
		t.Errorf("%d keys moved by another order", n)
	}
	after := owners(slices.Clone(ten[:9]), keys) // the last one left
	counts := map[uint64]int{}
	for k := range before {
		if before[k] != ten[9].ID && after[k] != before[k] {
			t.Fatal("a key of an endpoint that stayed moved")
		}
		if before[k] == ten[9].ID {
			counts[after[k]]++
		}
	}
	for id, n := range counts { // about 2000 keys over 9
		if n < 150 || n > 300 {
			t.Errorf("%x inherited %d keys", id, n)
		}
	}
	if n := moved(after, owners(slices.Clone(ten[:9]), keys, []int{}...)); n != 0 {
		t.Errorf("%d keys moved", n)
	}
	if got := owners(slices.Clone(ten), keys, 9); moved(after, got) != 0 {
		t.Error("skipping an endpoint is not the same as its absence")
	}
	heavier := slices.Clone(ten)
	heavier[3].Weight = 2
	grown := owners(heavier, keys)
	for k := range before {
		if grown[k] != before[k] && grown[k] != ten[3].ID {
			t.Fatal("a key moved to an endpoint whose weight did not grow")
		}
	}
	if n := moved(before, grown); n < keys*6/100 || n > keys*11/100 { // from 1/10 to 2/11: 8.2 %
		t.Errorf("%d keys moved to the one that grew", n)
	}
}

func TestKeyIsForEver(t *testing.T) {
	t.Parallel()
	// Changing these moves every client of every user to another endpoint.
	for key, want := range map[string]uint64{"": 0xefd01f60ba992926, "a": 0x82a2a958a9bece5b, "10.0.0.1:80": 0x5ed8f8275e47a14a} {
		if got := Key(key); got != want {
			t.Errorf("Key(%q) = %#x", key, got)
		}
		if Key([]byte(key)) != Key(key) {
			t.Errorf("Key(%q) depends on the type", key)
		}
	}
}

func TestAlgorithmNames(t *testing.T) {
	t.Parallel()
	for _, a := range []Algorithm{"", RoundRobin, LeastConnections, LeastLatency, Random, Hash} {
		if !a.Valid() {
			t.Errorf("%q is refused", a)
		}
	}
	for _, a := range []Algorithm{"roundrobin", "ROUND_ROBIN", "first"} {
		if a.Valid() {
			t.Errorf("%q is accepted", a)
		}
	}
}

func TestChooseAllocatesNothing(t *testing.T) {
	skip := []int{2}
	for _, a := range []Algorithm{RoundRobin, LeastConnections, LeastLatency, Random, Hash} {
		for _, n := range []int{3, 40} {
			candidates := idle(slices.Repeat([]int{2}, n)...)
			candidates[0].Weight = 1
			b, random := New(a, candidates, nil), seeded(1)
			if allocs := testing.AllocsPerRun(100, func() {
				b.Choose(Call{Random: random.Uint64(), Now: second, Hash: random.Uint64(), Hashed: true, Skip: skip})
			}); allocs != 0 {
				t.Errorf("%s over %d: %v allocations", a, n, allocs)
			}
		}
	}
}

// What does a choice cost, by algorithm and number of endpoints?
func BenchmarkChoose(b *testing.B) {
	for _, a := range []Algorithm{RoundRobin, LeastConnections, LeastLatency, Random, Hash} {
		for _, n := range []int{2, 10, 100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", a, n), func(b *testing.B) {
				candidates := idle(slices.Repeat([]int{2}, n)...)
				candidates[0].Weight = 1
				for i := range candidates {
					candidates[i].Load.Observe(second, time.Duration(i+1)*time.Millisecond, false)
				}
				balancer, random := New(a, candidates, nil), seeded(1)
				b.ReportAllocs()
				for b.Loop() {
					balancer.Choose(Call{Random: random.Uint64(), Now: second, Hash: random.Uint64(), Hashed: true})
				}
			})
		}
	}
}
