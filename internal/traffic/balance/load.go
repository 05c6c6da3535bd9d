package balance

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// decay is the time in which an old latency loses all but 1/e of its influence.
	decay = 10 * time.Second
	// penaltyMin is the answer time that a failure counts for, at least: an endpoint that fails in no time must not look
	// fast. A failure also counts for twice what the endpoint had, up to penaltyMax, so that it falls behind peers that
	// are slow themselves.
	penaltyMin = time.Second
	penaltyMax = time.Minute

	tickBits = 16 // a tick of the latency stamps is 2^16 ns; their 32 bits wrap after 3 days, which only delays a decay
)

// Load is what one endpoint has to bear. The zero value is an idle endpoint that never answered. It is safe for use by
// many goroutines and must not be copied.
type Load struct {
	active atomic.Int64
	// latency is a float32 of microseconds (high half) and the tick at which it was measured (low half), in one word so
	// that both change together. 0 means no answer yet.
	latency atomic.Uint64
}

// Active is the number of requests that were acquired and not yet released.
func (l *Load) Active() int { return int(l.active.Load()) }

// Acquire counts one more active request, unless max (when above 0) are active already.
func (l *Load) Acquire(max int) bool {
	if max <= 0 {
		l.active.Add(1)
		return true
	}
	for {
		n := l.active.Load()
		if n >= int64(max) {
			return false
		}
		if l.active.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release takes back one Acquire.
func (l *Load) Release() { l.active.Add(-1) }

// Observe takes the latency of an answer into the moving average: a peak counts at once, a fast answer by the time that
// has passed since the last one. A latency of 0 is unknown and says nothing unless the request failed.
func (l *Load) Observe(now int64, latency time.Duration, failed bool) {
	if latency <= 0 && !failed {
		return
	}
	sample := float32(max(latency, 1)) / 1e3
	for {
		old := l.latency.Load()
		value, age := unpack(old, now)
		s := sample
		if failed {
			s = max(s, micros(penaltyMin), min(2*value, micros(penaltyMax)))
		}
		switch {
		case old == 0 || s > value:
			value = s
		case age == 0: // many answers in one tick: the first stands for them
			return
		default:
			w := float32(math.Exp(-float64(age) / float64(decay)))
			value = value*w + s*(1-w)
		}
		if l.latency.CompareAndSwap(old, pack(value, now)) {
			return
		}
	}
}

// Latency is the moving average of the answer times, as of the last answer; 0 when there was none.
func (l *Load) Latency() time.Duration {
	value, _ := unpack(l.latency.Load(), 0)
	return time.Duration(float64(value) * 1e3)
}

// cost is the expected wait in microseconds: the average, for each request that is active and the one to come.
//
// The average of an endpoint that nobody asks decays towards 0, so it is asked again some time: a slow one that became
// fast would otherwise never be known. The request that asks is the probe: until its answer is there the endpoint
// costs its old average again, so that one is sent and not a thousand. An endpoint without any answer is probed at once.
func (l *Load) cost(now int64) float64 {
	active := float64(l.active.Load())
	word := l.latency.Load()
	if word == 0 {
		if active == 0 {
			return 0
		}
		return float64(micros(penaltyMin)) * (active + 1)
	}
	value, age := unpack(word, now)
	if active == 0 && age > decay/1000 {
		return float64(value) * math.Exp(-float64(age)/float64(decay))
	}
	return float64(value) * (active + 1)
}

func micros(d time.Duration) float32 { return float32(d) / 1e3 }

func pack(value float32, now int64) uint64 {
	return uint64(math.Float32bits(value))<<32 | uint64(uint32(now>>tickBits))
}

func unpack(word uint64, now int64) (value float32, age time.Duration) {
	ticks := int32(uint32(now>>tickBits) - uint32(word)) // negative when another goroutine's clock reading was later
	return math.Float32frombits(uint32(word >> 32)), time.Duration(max(ticks, 0)) << tickBits
}
