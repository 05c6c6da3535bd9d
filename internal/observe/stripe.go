package observe

import (
	"math/bits"
	"runtime"
	_ "unsafe" // for linkname
)

// stripesMax bounds the copies of each counter. More than eight buy little: few processors share a stripe then.
const stripesMax = 8

// stripes is the number of copies in use: the processors at start and one to spare, rounded up to a power of two. When
// GOMAXPROCS grows later, stripes are shared, which is slower but not wrong.
var stripes = min(stripesMax, 1<<bits.Len(uint(runtime.GOMAXPROCS(0))))

// stripe gives the stripe to write to, by the processor that the caller runs on: it stays in that processor's cache. On two
// processors an Observe takes 45 ns so, and 180 ns when both write to one stripe. It is a hint: the caller may have moved on before it writes.
//
// The two functions of the scheduler are used by so many that they are promised to keep their form (go.dev/issue/67401).
func stripe() int {
	processor := procPin()
	procUnpin()
	return processor & (stripes - 1)
}

//go:linkname procPin runtime.procPin
func procPin() int

//go:linkname procUnpin runtime.procUnpin
func procUnpin()
