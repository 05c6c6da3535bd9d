package upstream

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	budgetWindow = 10 // seconds
	budgetFloor  = 3  // retries per second that are always allowed
)

// budget counts requests and retries of the last seconds. The zero value is ready.
type budget struct {
	attempts counter // ended leases, those of retries included

	mu       sync.Mutex // retries are rare
	retries  counter    // changed under mu only
	allowed  atomic.Uint64
	rejected atomic.Uint64
}

func (b *budget) request(now int64) { b.attempts.add(now) }

func (b *budget) retry(now int64, fraction float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	retries := b.retries.sum(now)
	requests := max(b.attempts.sum(now)-retries, 0)
	if float64(retries+1) > max(budgetFloor*budgetWindow, fraction*float64(requests)) {
		b.rejected.Add(1)
		return false
	}
	b.retries.add(now)
	b.allowed.Add(1)
	return true
}

// counter counts events per second in a ring of the last seconds. A word holds the second (high half) and the count
// (low half), so that a new second takes over its place in one step.
type counter struct {
	seconds [16]atomic.Uint64 // a power of two above budgetWindow
}

func (c *counter) add(now int64) {
	second := uint64(now / int64(time.Second))
	place := &c.seconds[second%uint64(len(c.seconds))]
	for {
		word := place.Load()
		switch {
		case word>>32 == second:
			place.Add(1)
			return
		case word>>32 > second: // a goroutine that slept since it read the clock: too old to count
			return
		case place.CompareAndSwap(word, second<<32|1):
			return
		}
	}
}

// sum gives the events of the current second and the ones before it in the window.
func (c *counter) sum(now int64) int64 {
	second := int64(now / int64(time.Second))
	var n int64
	for i := range c.seconds {
		word := c.seconds[i].Load()
		if at := int64(word >> 32); at > second-budgetWindow && at <= second {
			n += int64(uint32(word))
		}
	}
	return n
}
