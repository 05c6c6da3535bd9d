package observe

import (
	"runtime"
	"sync"
	"testing"
)

// Each processor has its stripe, and more processors than at start share those that there are.
func TestStripesByProcessor(t *testing.T) {
	if stripes > stripesMax || stripes < min(stripesMax, runtime.GOMAXPROCS(0)) || stripes&(stripes-1) != 0 {
		t.Fatalf("%d stripes for %d processors", stripes, runtime.GOMAXPROCS(0))
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4 * stripesMax))
	var group sync.WaitGroup
	for range 8 * stripesMax {
		group.Go(func() {
			for range 1000 {
				if s := stripe(); s < 0 || s >= stripes {
					t.Errorf("stripe %d of %d", s, stripes)
					return
				}
				runtime.Gosched()
			}
		})
	}
	group.Wait()
}
