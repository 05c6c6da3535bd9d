// Package balance chooses one of several candidates: smooth weighted round robin, least connections, least latency,
// weighted random, and weighted consistent hashing. A [Balancer] is an immutable choice of candidates and an algorithm;
// what changes while it is in use are the candidates' [Load] counters and the round robin cursor, all atomics, so that
// Choose takes no lock and allocates nothing.
//
// The package is pure: random bits and the time are arguments, so a choice can be replayed from a seed. It knows
// nothing of health, retries or addresses: whoever builds a Balancer passes only the candidates that may be used.
package balance

import (
	"math"
	"math/bits"
	"sync/atomic"
)

// Algorithm names a way to choose. The empty name is RoundRobin.
type Algorithm string

// The algorithms, by the names that the configuration uses.
const (
	// RoundRobin takes each candidate in turn; heavier ones more often, spread evenly instead of in a row.
	RoundRobin Algorithm = "round_robin"
	// LeastConnections takes the candidate with the fewest active requests for its weight: the best of all when there
	// are at most four, else the better of two that are drawn by weight.
	LeastConnections Algorithm = "least_connections"
	// LeastLatency takes the candidate whose recent answers were fastest, counting its active requests (peak EWMA).
	LeastLatency Algorithm = "least_latency"
	// Random draws by weight.
	Random Algorithm = "random"
	// Hash sends one key to one candidate for as long as that one may be used (weighted rendezvous hashing).
	Hash Algorithm = "hash"
)

// Valid says whether the name is known.
func (a Algorithm) Valid() bool {
	switch a {
	case "", RoundRobin, LeastConnections, LeastLatency, Random, Hash:
		return true
	}
	return false
}

const (
	// scanMax is the number of candidates up to which all are compared. Two random choices are within a few percent of
	// that for larger numbers, and do not send every gateway to the same best one.
	scanMax = 4
	// scheduleCost bounds the work to compute an exact round robin schedule (its length times the candidates), because
	// it is computed at each change of health. Above it a low-discrepancy sequence takes the schedule's place.
	scheduleCost = 1 << 20
	// weightMax keeps every product of weights and counts far from overflow.
	weightMax = 1 << 30
)

// Candidate is what a Balancer knows of an endpoint.
type Candidate struct {
	Weight int    // share against the others' weights; 0 or less is never chosen
	ID     uint64 // stable identity, for Hash: the same endpoint has the same ID in every gateway and generation
	Load   *Load  // shared with every other Balancer that knows the same endpoint; must not be nil
	Max    int    // active requests at which it is passed over; 0 means no bound
}

// Call is what one choice depends on besides the loads.
type Call struct {
	Random uint64 // 64 fresh random bits; RoundRobin needs none
	Now    int64  // nanoseconds on any monotonic clock, the same that Load.Observe is given; LeastLatency only
	Hash   uint64 // hash of the request's key, see Key; Hash only
	Hashed bool   // there is a key; without one Hash draws at random
	Skip   []int  // indexes that must not be chosen
}

// Balancer chooses among fixed candidates. It is safe for use by many goroutines.
type Balancer struct {
	algorithm  Algorithm
	candidates []Candidate
	shares     shares
	schedule   []uint16 // exact round robin order; nil when weights are equal or the schedule would be too long
	cursor     *atomic.Uint64
}

// New makes a balancer. The cursor is the place in the round robin; passing the one of a previous balancer makes the
// turn go on where it was instead of at the first candidate again. nil starts a new one. The slice is kept.
func New(a Algorithm, candidates []Candidate, cursor *atomic.Uint64) *Balancer {
	if cursor == nil {
		cursor = new(atomic.Uint64)
	}
	for i := range candidates {
		candidates[i].Weight = min(max(candidates[i].Weight, 0), weightMax)
	}
	b := &Balancer{algorithm: a, candidates: candidates, shares: sharesOf(candidates), cursor: cursor}
	if (a == RoundRobin || a == "") && b.shares.cumulative != nil && b.shares.total > 0 {
		b.schedule = smooth(candidates)
	}
	return b
}

// Len gives the number of candidates.
func (b *Balancer) Len() int { return len(b.candidates) }

// Choose gives the index of a candidate, or -1 when each is skipped, full, or of weight 0. The caller takes it with
// Load.Acquire, which may fail when another caller was faster; then it chooses again.
func (b *Balancer) Choose(c Call) int {
	if b.shares.total == 0 {
		return -1
	}
	switch b.algorithm {
	case LeastConnections, LeastLatency:
		return b.least(c)
	case Hash:
		if c.Hashed {
			return b.rendezvous(c)
		}
	case Random:
	default:
		k := b.cursor.Add(1) - 1
		if i := b.turn(k); b.usable(i, c.Skip) {
			return i
		}
		c.Random = mix(k) // no two choices have the same
		return b.any(c)
	}
	if i := b.shares.at(c.Random); b.usable(i, c.Skip) {
		return i
	}
	return b.any(c)
}

func (b *Balancer) usable(i int, skip []int) bool {
	c := &b.candidates[i]
	if c.Weight == 0 || c.Max > 0 && c.Load.Active() >= c.Max {
		return false
	}
	for _, s := range skip {
		if s == i {
			return false
		}
	}
	return true
}

// any draws by weight among the usable candidates. It is the way out for every algorithm whose first choice cannot be
// used: taking the next one instead would give all of the missing one's share to a single neighbour.
func (b *Balancer) any(c Call) int {
	var total uint64
	chosen, random := -1, c.Random
	for i := range b.candidates {
		if !b.usable(i, c.Skip) {
			continue
		}
		w := uint64(b.candidates[i].Weight)
		total += w
		random = mix(random + 1)
		if hi, _ := bits.Mul64(random, total); hi < w { // a reservoir of one: the i-th wins with w/total
			chosen = i
		}
	}
	return chosen
}

// turn is the k-th in the round robin.
func (b *Balancer) turn(k uint64) int {
	switch {
	case b.shares.cumulative == nil:
		return int(k % uint64(len(b.candidates)))
	case b.schedule != nil:
		return int(b.schedule[k%uint64(len(b.schedule))])
	}
	// Multiples of the golden ratio, modulo 1, fill the unit interval more evenly than any other sequence, so each
	// candidate comes up at nearly constant distances, whatever the weights.
	return b.shares.at(k * 0x9E3779B97F4A7C15)
}

// least compares costs: of all candidates when there are few, else of two drawn by weight (power of two choices).
func (b *Balancer) least(c Call) int {
	n := len(b.candidates)
	if n <= scanMax {
		return b.scan(c)
	}
	i := b.shares.at(c.Random)
	r := mix(c.Random)
	j := b.shares.at(r)
	if i == j { // a heavy one drew itself: compare it with any other
		hi, _ := bits.Mul64(mix(r), uint64(n-1))
		j = (i + 1 + int(hi)) % n
	}
	iOK, jOK := b.usable(i, c.Skip), b.usable(j, c.Skip)
	switch {
	case iOK && jOK:
		if b.cost(j, c.Now) < b.cost(i, c.Now) {
			return j
		}
		return i
	case iOK:
		return i
	case jOK:
		return j
	}
	return b.scan(c)
}

// scan finds the least cost among all usable candidates; equals are drawn by weight.
func (b *Balancer) scan(c Call) int {
	chosen, least, random := -1, math.Inf(1), c.Random
	var tied uint64
	for i := range b.candidates {
		if !b.usable(i, c.Skip) {
			continue
		}
		w := uint64(b.candidates[i].Weight)
		switch cost := b.cost(i, c.Now); {
		case cost < least || chosen < 0:
			chosen, least, tied = i, cost, w
		case cost == least:
			tied += w
			random = mix(random + 1)
			if hi, _ := bits.Mul64(random, tied); hi < w {
				chosen = i
			}
		}
	}
	return chosen
}

// cost is what least compares. Without active requests every candidate costs 0 connections, so an idle service is
// shared by weight; as it fills, the active requests approach the weights' proportions.
func (b *Balancer) cost(i int, now int64) float64 {
	c := &b.candidates[i]
	if b.algorithm == LeastLatency {
		return c.Load.cost(now) / float64(c.Weight)
	}
	return float64(c.Load.Active()) / float64(c.Weight)
}

// rendezvous gives each candidate a number from key and identity, and takes the best: when a candidate leaves, only its
// own keys move, each to its second best; when one joins, it only takes keys. A number is the time at which a Poisson
// process with the candidate's weight as its rate first fires, so candidate i wins with probability weight/total.
// It looks at all candidates, about 2 ns each; a ring or a table would look up faster and move more keys.
func (b *Balancer) rendezvous(c Call) int {
	chosen, first := -1, math.Inf(1)
	for i := range b.candidates {
		if !b.usable(i, c.Skip) {
			continue
		}
		w := float64(b.candidates[i].Weight)
		u := (float64(mix(c.Hash^b.candidates[i].ID)>>11) + 0.5) / (1 << 53) // in (0,1)
		if 1-u >= first*w {                                                  // -ln u >= 1-u: it cannot win, so spare the logarithm
			continue
		}
		if t := -math.Log(u) / w; t < first {
			chosen, first = i, t
		}
	}
	return chosen
}

// Key hashes a request's key for Call.Hash and a name for Candidate.ID. It is the same in every process and version, so
// that several gateways agree.
func Key[T ~string | ~[]byte](key T) uint64 {
	h := uint64(0xcbf29ce484222325) // FNV-1a, then mixed: FNV alone hardly changes the high bits of short keys
	for i := 0; i < len(key); i++ {
		h ^= uint64(key[i])
		h *= 0x100000001b3
	}
	return mix(h)
}

// mix is the finalizer of MurmurHash3: each bit of x changes about half of the result's.
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return x
}

// shares draws by weight.
type shares struct {
	cumulative []uint64 // sums of the weights up to and including each candidate; nil when all are equal
	total      uint64   // sum of the weights, or the number of candidates when cumulative is nil
}

func sharesOf(candidates []Candidate) shares {
	s := shares{cumulative: make([]uint64, len(candidates))}
	equal := true
	for i := range candidates {
		s.total += uint64(candidates[i].Weight)
		s.cumulative[i] = s.total
		equal = equal && candidates[i].Weight == candidates[0].Weight
	}
	if equal && s.total > 0 {
		return shares{total: uint64(len(candidates))}
	}
	return s
}

// at gives the candidate at x/2^64 of the whole. The total must not be 0.
func (s *shares) at(x uint64) int {
	hi, _ := bits.Mul64(x, s.total)
	if s.cumulative == nil {
		return int(hi)
	}
	lo, n := 0, len(s.cumulative)
	for n > 1 { // the first whose sum is above hi
		half := n / 2
		if s.cumulative[lo+half-1] <= hi {
			lo += half
		}
		n -= half
	}
	return lo
}

// smooth computes nginx's smooth weighted round robin: at each step all currents grow by their weights, the greatest is
// taken and pays the total. Weights 5, 1, 1 give a a b a c a a. nil when that would be too much work. At least one weight must
// be above 0.
func smooth(candidates []Candidate) []uint16 {
	divisor := 0
	for i := range candidates {
		divisor = gcd(candidates[i].Weight, divisor)
	}
	total, n := 0, len(candidates)
	for i := range candidates {
		total += candidates[i].Weight / divisor
	}
	if n > math.MaxUint16 || total > scheduleCost/n {
		return nil
	}
	schedule, current := make([]uint16, total), make([]int, n)
	for k := range schedule {
		best := 0
		for i := range candidates {
			current[i] += candidates[i].Weight / divisor
			if current[i] > current[best] {
				best = i
			}
		}
		current[best] -= total
		schedule[k] = uint16(best)
	}
	return schedule
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
