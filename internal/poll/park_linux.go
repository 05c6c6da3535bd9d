//go:build !race

package poll

import (
	"sync/atomic"
	"unsafe"
)

// parker is a place for one goroutine to sleep in. A wake that comes first makes the next sleep return at once. There is at most one
// wake for each sleep.
//
// It stands directly on the scheduler, because a channel costs twice as much, and falling asleep and waking up is half of what is left of
// the poller's work. The two functions have kept their form for ten years and are promised to keep it (go.dev/issue/67401).
//
// Proof of what is unsafe here: word is 0 (nobody), awake, or the address of a sleeping goroutine's descriptor, which the runtime never
// frees. commit runs on the scheduler's stack when the goroutine is already marked as waiting, so whoever sees the address may make
// it ready; it is made ready exactly once, by the one that changes the word from the address to 0.
type parker struct{ word atomic.Uintptr }

const awake = 1

func (p *parker) init() {}

// sleep waits for a wake.
func (p *parker) sleep() {
	gopark(commit, unsafe.Pointer(&p.word), waitIO, traceNet, 2)
	p.word.CompareAndSwap(awake, 0)
}

// wake ends a sleep.
func (p *parker) wake() {
	for {
		w := p.word.Load()
		if w == 0 {
			if p.word.CompareAndSwap(0, awake) {
				return
			}
			continue
		}
		if p.word.CompareAndSwap(w, 0) {
			goready(w, 1)
			return
		}
	}
}

// commit notes the goroutine that falls asleep, unless a wake was first.
//
//go:nosplit
func commit(g uintptr, word unsafe.Pointer) bool {
	return atomic.CompareAndSwapUintptr((*uintptr)(word), 0, g)
}

const (
	waitIO   = 2 // "IO wait" in goroutine dumps
	traceNet = 2
)

//go:linkname gopark runtime.gopark
func gopark(commit func(g uintptr, lock unsafe.Pointer) bool, lock unsafe.Pointer, reason, traceReason byte, traceSkip int)

//go:linkname goready runtime.goready
func goready(g uintptr, traceSkip int)
