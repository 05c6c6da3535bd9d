package app

import (
	"runtime"
	"testing"
)

// Not parallel: it changes what all goroutines share.
func TestMakeRoomLendsOneThread(t *testing.T) {
	t.Setenv("GOMAXPROCS", "1") // what is given back
	before := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(before)
	f := func(want int) {
		t.Helper()
		if got := runtime.GOMAXPROCS(0); got != want {
			t.Errorf("%d threads, want %d", got, want)
		}
	}
	one := makeRoom()
	f(2)
	two := makeRoom()
	one()
	f(2)
	two()
	f(1)
	runtime.GOMAXPROCS(2)
	makeRoom()()
	f(2)
}
