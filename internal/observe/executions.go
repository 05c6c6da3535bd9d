package observe

import (
	"math"
	"sync/atomic"
	"time"
)

// Executions counts what became of all statements with one normalised text: how many, how long they took, what they moved. The zero value is empty. It is safe for any
// number of goroutines. A text that is rare has one set of counters; one that is common gets a set for each stripe, so that processors do not fight for them.
type Executions struct {
	first   executionCells
	stripes [stripesMax]atomic.Pointer[executionCells]
}

// stripedAfter is how many executions a text must have before it is counted in stripes: a set of counters has 256 bytes, and most texts are rare.
const stripedAfter = 512

type executionCells struct {
	total    histogram
	errors   atomic.Uint64
	rows     atomic.Uint64
	affected atomic.Uint64
	bytesIn  atomic.Uint64
	bytesOut atomic.Uint64
	longest  atomic.Int64
	last     atomic.Int64 // Unix nanoseconds, up to lastSlack too early
	_        [64]byte
}

// lastSlack is how exact "last seen" is: a store for each execution is saved.
const lastSlack = int64(time.Millisecond)

// Execution is one execution of a statement. Negative numbers count as zero.
type Execution struct {
	Begun    time.Time
	Total    time.Duration
	Rows     uint64 // sent to the client
	Affected uint64 // by the OK packet
	BytesIn  int64
	BytesOut int64
	Failed   bool
}

// Observe counts one execution. It allocates nothing but the counters of a stripe, once, and takes no lock.
func (e *Executions) Observe(x *Execution) {
	c := &e.first
	if c.total.buckets[bucketOf(x.Total)].Load() >= stripedAfter {
		c = cellsOf(&e.stripes[stripe()])
	}
	c.total.observe(x.Total)
	if x.Failed {
		c.errors.Add(1)
	}
	if x.Rows > 0 {
		c.rows.Add(x.Rows)
	}
	if x.Affected > 0 {
		c.affected.Add(x.Affected)
	}
	if x.BytesIn > 0 {
		c.bytesIn.Add(uint64(x.BytesIn))
	}
	if x.BytesOut > 0 {
		c.bytesOut.Add(uint64(x.BytesOut))
	}
	rise(&c.longest, int64(x.Total), 0)
	rise(&c.last, x.Begun.UnixNano(), lastSlack)
}

// rise makes v at least to, unless it is within slack of it already.
func rise(v *atomic.Int64, to, slack int64) {
	for old := v.Load(); old < to-slack; old = v.Load() {
		if v.CompareAndSwap(old, to) {
			return
		}
	}
}

// ExecutionSum is what an Executions has counted.
type ExecutionSum struct {
	Count, Errors, Rows, Affected, BytesIn, BytesOut uint64

	Total   time.Duration // of all executions together
	Longest time.Duration
	Last    time.Time // when the last one began; zero when there was none
	buckets [len(bucketBounds) + 1]uint64
}

// Sum gives what was counted so far. Executions that are counted at the same time may be in it in part.
func (e *Executions) Sum() (s ExecutionSum) {
	last := int64(0)
	add := func(c *executionCells) {
		var h histogramSum
		h.add(&c.total)
		for i, n := range h.buckets {
			s.buckets[i] += n
			s.Count += n
		}
		s.Total += time.Duration(h.sum)
		s.Errors += c.errors.Load()
		s.Rows += c.rows.Load()
		s.Affected += c.affected.Load()
		s.BytesIn += c.bytesIn.Load()
		s.BytesOut += c.bytesOut.Load()
		s.Longest = max(s.Longest, time.Duration(c.longest.Load()))
		last = max(last, c.last.Load())
	}
	add(&e.first)
	for i := range e.stripes {
		if c := e.stripes[i].Load(); c != nil {
			add(c)
		}
	}
	if last > 0 {
		s.Last = time.Unix(0, last)
	}
	return s
}

// Last gives when the last execution began, in Unix nanoseconds, within a millisecond; 0 when there was none.
func (e *Executions) Last() int64 {
	last := e.first.last.Load()
	for i := range e.stripes {
		if c := e.stripes[i].Load(); c != nil {
			last = max(last, c.last.Load())
		}
	}
	return last
}

// Absorb adds what others have counted.
func (e *Executions) Absorb(s *ExecutionSum) {
	c := &e.first
	for i, n := range s.buckets {
		c.total.buckets[i].Add(n)
	}
	c.total.sum.Add(uint64(s.Total))
	c.errors.Add(s.Errors)
	c.rows.Add(s.Rows)
	c.affected.Add(s.Affected)
	c.bytesIn.Add(s.BytesIn)
	c.bytesOut.Add(s.BytesOut)
	rise(&c.longest, int64(s.Longest), 0)
	if !s.Last.IsZero() {
		rise(&c.last, s.Last.UnixNano(), 0)
	}
}

// Mean is the average time of an execution; 0 when there was none.
func (s *ExecutionSum) Mean() time.Duration {
	if s.Count == 0 {
		return 0
	}
	return s.Total / time.Duration(s.Count)
}

// Quantile gives a bound that a share q of the executions did not pass: the upper bound of the histogram's bucket in which it lies, or Longest when that is lower.
func (s *ExecutionSum) Quantile(q float64) time.Duration {
	want := max(1, uint64(math.Ceil(q*float64(s.Count)))) // of two, 99 % are both
	seen := uint64(0)
	for i, bound := range bucketBounds {
		if seen += s.buckets[i]; seen >= want {
			return min(bound, s.Longest)
		}
	}
	return s.Longest
}

// Bucket is the executions that took longer than the bound of the bucket before it, and at most Bound; Bound is 0 for the last one, which has none.
type Bucket struct {
	Bound time.Duration
	Count uint64
}

// Buckets gives the histogram, also its empty buckets.
func (s *ExecutionSum) Buckets() []Bucket {
	all := make([]Bucket, len(s.buckets))
	for i, n := range s.buckets {
		all[i].Count = n
		if i < len(bucketBounds) {
			all[i].Bound = bucketBounds[i]
		}
	}
	return all
}
