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

// budget counts the retries of the last seconds. The zero value is ready.
type budget struct {
	mu       sync.Mutex // retries are rare
	retries  window     // changed under mu only
	left     window     // leases of endpoints that have retired since
	allowed  atomic.Uint64
	rejected atomic.Uint64
}

// retry takes one retry. attempts are the leases that ended in the window, those of retries among them.
func (b *budget) retry(now, attempts int64, fraction float64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	retries := b.retries.sum(now)
	requests := max(attempts-retries, 0)
	if float64(retries+1) > max(budgetFloor*budgetWindow, fraction*float64(requests)) {
		b.rejected.Add(1)
		return false
	}
	b.retries.add(now)
	b.allowed.Add(1)
	return true
}

// window counts events per second in a ring of the last seconds. A word holds the second (high half) and the count
// (low half), so that a new second takes over its place in one step.
type window struct {
	seconds [16]atomic.Uint64 // a power of two above budgetWindow
}

func (w *window) add(now int64) { w.addAt(uint64(now/int64(time.Second)), 1) }

func (w *window) addAt(second, n uint64) {
	place := &w.seconds[second%uint64(len(w.seconds))]
	for {
		word := place.Load()
		switch {
		case word>>32 == second:
			place.Add(n)
			return
		case word>>32 > second: // a goroutine that slept since it read the clock: too old to count
			return
		case place.CompareAndSwap(word, second<<32|n):
			return
		}
	}
}

// addAll adds what another window holds.
func (w *window) addAll(from *window) {
	for i := range from.seconds {
		if word := from.seconds[i].Load(); word != 0 {
			w.addAt(word>>32, uint64(uint32(word)))
		}
	}
}

// sum gives the events of the current second and the ones before it in the window.
func (w *window) sum(now int64) int64 {
	second := int64(now / int64(time.Second))
	var n int64
	for i := range w.seconds {
		word := w.seconds[i].Load()
		if at := int64(word >> 32); at > second-budgetWindow && at <= second {
			n += int64(uint32(word))
		}
	}
	return n
}
