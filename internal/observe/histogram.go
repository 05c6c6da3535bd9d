package observe

import (
	"sync/atomic"
	"time"
)

// bucketBounds are the upper bounds of the duration buckets: from a quarter of a millisecond, about what a local answer takes,
// to half a minute, beyond which only time-outs happen.
var bucketBounds = [...]time.Duration{
	250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second,
	10 * time.Second, 30 * time.Second,
}

// histogram counts durations; the last bucket has no bound. The zero value is empty. Its count is the sum of its
// buckets, so that one atomic add fewer is needed and a scrape never sees the two disagree.
type histogram struct {
	buckets [len(bucketBounds) + 1]atomic.Uint64
	sum     atomic.Uint64 // nanoseconds
}

func (h *histogram) observe(d time.Duration) {
	h.buckets[bucketOf(d)].Add(1)
	h.sum.Add(uint64(max(d, 0)))
}

// bucketOf gives the bucket that a duration belongs to.
func bucketOf(d time.Duration) int {
	i := 0
	for i < len(bucketBounds) && d > bucketBounds[i] {
		i++
	}
	return i
}

// histogramSum is the sum of histograms, for a scrape.
type histogramSum struct {
	buckets [len(bucketBounds) + 1]uint64
	sum     uint64
}

func (s *histogramSum) add(h *histogram) {
	for i := range h.buckets {
		s.buckets[i] += h.buckets[i].Load()
	}
	s.sum += h.sum.Load()
}

// export gives count, sum in seconds, and cumulative buckets as client_golang wants them.
func (s *histogramSum) export() (count uint64, sum float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(bucketBounds))
	for i, bound := range bucketBounds {
		count += s.buckets[i]
		buckets[bound.Seconds()] = count
	}
	count += s.buckets[len(bucketBounds)]
	return count, time.Duration(s.sum).Seconds(), buckets
}
