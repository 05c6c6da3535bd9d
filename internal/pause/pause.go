// Package pause lets a long computation be polite to those who serve meanwhile: Moment, called often, lets everybody else go first
// ten thousand times a second. The computation is the loading of a configuration, and those who serve are the goroutines of
// connections.
//
// Go by itself would not do it. A goroutine that computes is stopped for others after 10 ms; and as long as any goroutine can run, the
// scheduler of a processor does not look at sockets, so runtime.Gosched alone helps only those whom nobody needs to wake. So Moment
// waits for a byte that it has just sent to itself through a pipe: the scheduler then finds nothing to run, looks at all
// sockets, and finds this byte among what else has come.
//
// It refuses to be a scheduler: there is one priority, and it is lower than everybody's.
package pause

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// every is how long others wait at most, if all goes well. A pause costs 2 to 3 µs.
	every = 100 * time.Microsecond
	// callsMin is how many calls of Moment share one look at the clock, which costs more than the call.
	callsMin = 16
)

var (
	serving atomic.Bool // somebody is between Begin and its end
	calls   atomic.Uint32
	last    atomic.Int64 // the end of the last pause, in nanoseconds since start
	start   = time.Now()

	mu    sync.Mutex // guards what follows
	users int
	bell  *pipe // nil: the system has no pipes that can be waited for, or nobody is between Begin and its end
	lent  int   // those inside Beside with whom a second processor is
)

// Begin makes Moment and Beside do what they are for, until end is called. Without it they do nothing: a command that only
// computes has nobody to be polite to.
func Begin() (end func()) {
	mu.Lock()
	defer mu.Unlock()
	if users++; users == 1 {
		bell = newPipe()
		serving.Store(true)
	}
	return func() {
		mu.Lock()
		defer mu.Unlock()
		if users--; users > 0 {
			return
		}
		serving.Store(false)
		bell.close()
		bell = nil
	}
}

// Moment lets others go first, if the last pause was not just now. It is made to be called every few microseconds. Any goroutine may
// call it, also under a lock that those who serve do not wait for.
func Moment() {
	if calls.Add(1)%callsMin != 0 || !serving.Load() {
		return
	}
	if int64(time.Since(start))-last.Load() < int64(every) {
		return
	}
	if mu.TryLock() { // somebody else's pause serves as well
		bell.wait()
		mu.Unlock()
	}
	// Whoever was woken by what came stands in the queue now.
	runtime.Gosched()
	last.Store(int64(time.Since(start)))
}

// Names gives the keys of a map in order, with pauses: 10,000 take 2 ms.
func Names[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		Moment()
		return strings.Compare(a, b)
	})
	return names
}

// Beside runs f, which computes for long and cannot pause. Where Go uses one processor only, it has it use two threads meanwhile, so that the
// kernel divides the processor: requests wait for 10 ms now and then, and not until f is done.
func Beside(f func()) {
	if !serving.Load() {
		f()
		return
	}
	if lend() {
		defer giveBack()
	}
	f()
}

func lend() bool {
	mu.Lock()
	defer mu.Unlock()
	if lent == 0 && runtime.GOMAXPROCS(0) > 1 {
		return false
	}
	if lent++; lent == 1 {
		runtime.GOMAXPROCS(2)
	}
	return true
}

func giveBack() {
	mu.Lock()
	defer mu.Unlock()
	if lent--; lent > 0 {
		return
	}
	if os.Getenv("GOMAXPROCS") != "" {
		runtime.GOMAXPROCS(1)
	} else {
		runtime.SetDefaultGOMAXPROCS() // follows changes of the machine again, which setting a number has ended
	}
}

// pipe is where a goroutine sends itself a byte.
type pipe struct {
	in, out *os.File
	raw     syscall.RawConn // of out
	tried   bool
	sent    bool
	letter  [1]byte
}

// newPipe gives nil where that cannot be.
func newPipe() *pipe {
	out, in, err := os.Pipe()
	if err != nil {
		return nil
	}
	p := &pipe{in: in, out: out}
	if p.raw, err = out.SyscallConn(); err == nil {
		err = out.SetReadDeadline(time.Time{}) // refused when the scheduler does not look after it
	}
	if err != nil {
		p.close()
		return nil
	}
	return p
}

func (p *pipe) close() {
	if p != nil {
		_ = p.in.Close()
		_ = p.out.Close()
	}
}

// wait sends a byte and waits for it.
func (p *pipe) wait() {
	if p == nil {
		return
	}
	p.tried, p.sent = false, false
	// The first try says that there is nothing yet, although there is: that makes it a wait.
	_ = p.raw.Read(func(uintptr) bool {
		if p.tried {
			return true
		}
		p.tried = true
		n, _ := p.in.Write(p.letter[:])
		p.sent = n == 1
		return !p.sent
	})
	if p.sent {
		_, _ = p.out.Read(p.letter[:])
	}
}
