package pause

import (
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// None of these is parallel: they change what all goroutines share.

// compute calls Moment until it is told to stop, and longer than anybody should wait.
func compute(stop <-chan struct{}) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		for range callsMin {
			Moment()
		}
		select {
		case <-stop:
			return
		default:
		}
	}
}

// TestMomentServesSockets: on one processor, answers to requests over a socket come while another goroutine computes, and much sooner than
// after the 10 ms for which Go lets it.
func TestMomentServesSockets(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("pipes that can be waited for are needed")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // ends with the connection
		c, err := ln.Accept()
		if err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	end := Begin()
	defer end()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { compute(stop); close(stopped) }()
	const trips = 20 // each needs the processor twice
	began := time.Now()
	for range trips {
		letter := []byte("x")
		if _, err := c.Write(letter); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, letter); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	close(stop)
	<-stopped
	if took > trips*5*time.Millisecond {
		t.Errorf("%d round trips beside a computation took %v", trips, took)
	}
}

// TestMomentBySeveral: loads may run at the same time, and end in any order.
func TestMomentBySeveral(t *testing.T) {
	one, two := Begin(), Begin()
	stop := make(chan struct{})
	done := make(chan struct{}, 3)
	for range cap(done) {
		go func() { compute(stop); done <- struct{}{} }()
	}
	one()
	if !serving.Load() || bell == nil {
		t.Error("the first end ended it for the second")
	}
	two()
	if serving.Load() || bell != nil {
		t.Error("the last end did not end it")
	}
	three := Begin()
	defer three()
	close(stop)
	for range cap(done) {
		<-done
	}
}

// TestMomentCostsNothing to those who do not serve, and does not allocate for those who do.
func TestMomentCostsNothing(t *testing.T) {
	before := last.Load()
	for range 10 * callsMin {
		Moment()
	}
	if last.Load() != before {
		t.Error("a pause without Begin")
	}
	defer Begin()()
	if n := testing.AllocsPerRun(100, func() {
		last.Store(0) // the next pause is due
		for range callsMin {
			Moment()
		}
	}); n > 1 { // the closure of the wait
		t.Errorf("%v allocations for a pause", n)
	}
	if last.Load() == before {
		t.Error("no pause after Begin")
	}
}

func TestBesideLendsOneThread(t *testing.T) {
	t.Setenv("GOMAXPROCS", "1") // what is given back
	before := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(before)
	f := func(want int) {
		t.Helper()
		if got := runtime.GOMAXPROCS(0); got != want {
			t.Errorf("%d threads, want %d", got, want)
		}
	}
	Beside(func() { f(1) }) // nobody to be beside
	end := Begin()
	Beside(func() {
		f(2)
		Beside(func() { f(2) })
		f(2)
	})
	f(1)
	runtime.GOMAXPROCS(2)
	Beside(func() { f(2) })
	f(2)
	end()
}
