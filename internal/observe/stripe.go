package observe

import (
	"math/bits"
	"runtime"
	"sync"
)

// stripesMax bounds the copies of each counter. More than eight buy little: few processors share a stripe then.
const stripesMax = 8

// stripes is the number of copies in use: the processors at start and one to spare, rounded up to a power of two. When
// GOMAXPROCS grows later, stripes are shared, which is slower but not wrong.
var stripes = min(stripesMax, 1<<bits.Len(uint(runtime.GOMAXPROCS(0))))

// token is the right to prefer a stripe. It fills a cache line, so that it is no part of a tiny allocation, for which
// no cleanup would run.
type token struct {
	index int
	_     [56]byte
}

// tokensOn counts the tokens alive for each stripe, so that a new one gets the stripe that fewest prefer.
var tokensOn struct {
	mu sync.Mutex
	n  [stripesMax]int
}

// tokenPool hands out tokens with affinity to the running processor, because sync.Pool does: a stripe then stays in
// that processor's cache. Get and Put cost about 8 ns; on two processors an Observe takes 45 ns so, and 180 ns when both
// write to one stripe. The pool drops tokens that nobody used for two garbage collections, and their stripe is free again.
var tokenPool = sync.Pool{New: func() any {
	tokensOn.mu.Lock()
	defer tokensOn.mu.Unlock()
	t := new(token)
	for i := range stripes {
		if tokensOn.n[i] < tokensOn.n[t.index] {
			t.index = i
		}
	}
	tokensOn.n[t.index]++
	runtime.AddCleanup(t, release, t.index)
	return t
}}

// release is called when the garbage collector has found a token that nobody holds.
func release(index int) {
	tokensOn.mu.Lock()
	defer tokensOn.mu.Unlock()
	tokensOn.n[index]--
}

// stripe gives the stripe to write to. It is a hint: two goroutines may be given the same one at the same time.
func stripe() int {
	t := tokenPool.Get().(*token)
	index := t.index
	tokenPool.Put(t)
	return index
}
