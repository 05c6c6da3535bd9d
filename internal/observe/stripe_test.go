package observe

import (
	"runtime"
	"testing"
	"time"
)

// A dropped token gives its stripe back, or in time all processors would come to share one.
func TestTokensReturnTheirStripe(t *testing.T) {
	alive := func() (n int) {
		tokensOn.mu.Lock()
		defer tokensOn.mu.Unlock()
		for i, tokens := range tokensOn.n {
			if tokens < 0 || i >= stripes && tokens > 0 {
				t.Fatalf("stripe %d of %d has %d tokens", i, stripes, tokens)
			}
			n += tokens
		}
		return n
	}
	const made = 3 * stripesMax
	for range made {
		if s := tokenPool.New().(*token); s.index < 0 || s.index >= stripes {
			t.Fatalf("stripe %d of %d", s.index, stripes)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); alive() >= made; {
		if time.Now().After(deadline) {
			t.Fatalf("%d tokens are alive", alive())
		}
		runtime.GC()
		runtime.Gosched()
	}
}
