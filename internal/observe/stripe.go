package observe

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
)

// stripesMax bounds the copies of each counter. More than eight buys little: a stripe is shared by few processors then.
const stripesMax = 8

// stripes is the number of copies in use: the processors at start, rounded up to a power of two. When GOMAXPROCS grows
// later, stripes are shared, which is slower but not wrong.
var stripes = uint32(min(stripesMax, 1<<bits.Len(uint(runtime.GOMAXPROCS(0)-1))))

type token struct{ index uint32 }

var (
	tokens     [stripesMax]token
	tokensUsed atomic.Uint32

	// tokenPool hands out tokens with affinity to the running processor, because sync.Pool does. That makes a stripe
	// mostly local (about 8 ns for Get and Put) where a random or per-connection choice would move cache lines.
	tokenPool = sync.Pool{New: func() any { return &tokens[(tokensUsed.Add(1)-1)%stripes] }}
)

// stripe gives the stripe to write to. It is a hint: two goroutines may be given the same one at the same time.
func stripe() uint32 {
	t := tokenPool.Get().(*token)
	index := t.index
	tokenPool.Put(t)
	return index
}
