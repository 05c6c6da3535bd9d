package poll

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// loop is the own poller: an epoll instance for the sockets that were adopted, and one goroutine that asks it. The epoll
// instance is itself registered with the runtime's poller, so that the goroutine waits there as any other does and no thread is
// blocked. There is one in a process, as long as there is a socket to look after.
//
// Sockets that have an owner waiting are told (raise). Those that nobody waits for, because their owner has detached itself,
// get a goroutine. Most of them need none of their own: one that has just finished with its own socket takes the next
// (take), which saves falling asleep and waking up, and runs on a stack that is still in the cache. What is left after all
// others had their turn gets new ones. Servers without a socket can be among them (Serve).
type loop struct {
	epfd   int
	file   *os.File // epfd, for the runtime's poller
	events [128]syscall.EpollEvent
	looked atomic.Int64 // the Instant of the last turn that found something

	found []*socket   // by the turn that is under way: detached sockets with something to do
	some  atomic.Bool // ready is not empty: for a look without the lock

	mu      sync.Mutex // guards what follows; it is a leaf
	ready   []Server   // of detached sockets with something to do, the oldest at head
	head    int
	resting []*worker // the last one was the last to work
	stopped bool
}

// worker is a goroutine that resumes servers.
type worker struct {
	parker
	server Server // what it was woken for; nil ends it
}

// restingMax bounds the workers that are kept for the next burst: at most 8 MiB of stacks. With 128, under 512 busy connections,
// 4 % of the time went into growing the stacks of new ones.
const restingMax = 1024

var (
	loopMu      sync.Mutex
	theLoop     atomic.Pointer[loop] // changed under loopMu; nil while there are no sockets
	loopSockets int
	generations uint32
)

// The sockets by their descriptors. The loop finds a socket here and not by a pointer in the event: an event may be
// older than the end of its socket.
const slotsBits = 10

type slots [1 << slotsBits]atomic.Pointer[socket]

var (
	slotTable [4 << 10]atomic.Pointer[slots] // for four million descriptors
	slotMu    sync.Mutex
)

// slot gives the place of a descriptor; nil when it is beyond the table.
func slot(fd int) *atomic.Pointer[socket] {
	if fd>>slotsBits >= len(slotTable) {
		return nil
	}
	at := &slotTable[fd>>slotsBits]
	s := at.Load()
	if s == nil {
		slotMu.Lock()
		if s = at.Load(); s == nil {
			s = new(slots)
			at.Store(s)
		}
		slotMu.Unlock()
	}
	return &s[fd&(1<<slotsBits-1)]
}

const epollET = 1 << 31

// register puts a socket under the loop, which is started for the first one.
func register(s *socket) error {
	place := slot(s.fd)
	if place == nil {
		return syscall.EMFILE
	}
	loopMu.Lock()
	defer loopMu.Unlock()
	l := theLoop.Load()
	if l == nil {
		var err error
		if l, err = startLoop(); err != nil {
			return err
		}
		theLoop.Store(l)
	}
	generations++
	s.loop, s.generation = l, generations
	place.Store(s)
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | syscall.EPOLLPRI | epollET, Fd: int32(s.fd), Pad: int32(s.generation)}
	if err := syscall.EpollCtl(l.epfd, syscall.EPOLL_CTL_ADD, s.fd, &event); err != nil {
		place.Store(nil)
		if loopSockets == 0 {
			stopLoop()
		}
		return os.NewSyscallError("epoll_ctl", err)
	}
	loopSockets++
	return nil
}

// unregister closes the descriptor of a socket that nobody uses any more. Closing takes it out of epoll too.
func unregister(s *socket) {
	if s.timer != nil {
		s.timer.Stop()
	}
	slot(s.fd).Store(nil) // before the number can be given to another
	_ = syscall.Close(s.fd)
	loopMu.Lock()
	defer loopMu.Unlock()
	if loopSockets--; loopSockets == 0 {
		stopLoop()
	}
}

func startLoop() (*loop, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // or the runtime's poller would not take it
		syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	l := &loop{epfd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	// Without the runtime's poller under it nothing would ever be told; this asks whether it is there.
	if err := l.file.SetReadDeadline(time.Time{}); err != nil {
		l.file.Close()
		return nil, err
	}
	raw, err := l.file.SyscallConn()
	if err != nil {
		l.file.Close()
		return nil, err
	}
	go func() { // ends when stopLoop closes the file
		// One wait of the runtime's poller for ever: no wake-up between two turns is forgotten.
		_ = raw.Read(func(uintptr) bool { l.turn(); return false })
	}()
	return l, nil
}

func stopLoop() {
	l := theLoop.Swap(nil)
	l.file.Close()
	l.mu.Lock()
	resting := l.resting
	l.resting, l.stopped = nil, true
	l.mu.Unlock()
	for _, w := range resting {
		w.wake()
	}
}

// turn hands out all events that are there.
func (l *loop) turn() {
	for {
		n := l.poll()
		if n > 0 {
			l.looked.Store(int64(Now()))
		}
		woken := 0
		for i := range l.events[:n] {
			e := &l.events[i]
			s := slot(int(e.Fd)).Load()
			if s == nil || int32(s.generation) != e.Pad {
				continue
			}
			woken += s.raise(bitsOf(e.Events), l)
		}
		l.put()
		if woken == 0 {
			if s := l.take(); s != nil {
				l.start(s)
				woken = 1
			}
		}
		l.share(woken > 0)
		if n < len(l.events) {
			return
		}
	}
}

// share gives what is ready to workers: to those that are awake already, as far as they take it.
func (l *loop) share(awake bool) {
	if awake && l.some.Load() {
		runtime.Gosched() // they take most of it
	}
	for s := l.take(); s != nil; s = l.take() {
		l.start(s)
	}
}

// Serve resumes servers as if they had sockets for which something has come: most of them one after the other in the same goroutine, which saves
// making new ones, but none waits for another that waits. Where there is no loop, each gets a goroutine.
func Serve(all []Server) {
	l := theLoop.Load()
	if l == nil {
		for _, s := range all {
			go s.Resume() // ends when the server says so
		}
		return
	}
	l.mu.Lock()
	l.ready = append(l.ready, all...)
	l.some.Store(true)
	l.mu.Unlock()
	if s := l.take(); s != nil {
		l.start(s)
	}
	l.share(true)
}

// Start resumes a server in a goroutine of its own: one that has rested, if there is one, whose stack has grown already.
func Start(s Server) {
	if l := theLoop.Load(); l != nil {
		l.start(s)
	} else {
		go s.Resume() // ends when the server says so
	}
}

// Busy says that there are servers to be resumed. Whoever is Started now comes after most of them.
func Busy() bool {
	l := theLoop.Load()
	return l != nil && l.some.Load()
}

// bitsOf translates an event.
func bitsOf(events uint32) uint32 {
	bits := uint32(0)
	if events&(syscall.EPOLLIN|syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		bits |= readable
	}
	if events&syscall.EPOLLPRI != 0 {
		bits |= urgent | readable
	}
	if events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		bits |= ended
	}
	if events&(syscall.EPOLLOUT|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		bits |= writable
	}
	return bits
}

// poll asks epoll without waiting.
func (l *loop) poll() int {
	for {
		n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.epfd), uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case syscall.EINTR:
		default: // the loop is being stopped
			return 0
		}
	}
}

// start gives a server a worker.
func (l *loop) start(s Server) {
	l.mu.Lock()
	n := len(l.resting)
	if n == 0 {
		l.mu.Unlock()
		go l.work(s)
		return
	}
	w := l.resting[n-1]
	l.resting[n-1] = nil
	l.resting = l.resting[:n-1]
	l.mu.Unlock()
	w.server = s
	w.wake()
}

// work resumes servers. It runs in a goroutine of its own, which ends when there is nothing to do and enough others rest, and
// with the loop.
func (l *loop) work(s Server) {
	var w *worker
	for {
		for s != nil {
			s.Resume()
			s = l.take()
		}
		if w == nil {
			w = new(worker)
			w.init()
		}
		if !l.rest(w) {
			return
		}
		s, w.server = w.server, nil
		if s == nil {
			return
		}
	}
}

// rest waits until the worker has something to do. It says false when it is not needed.
func (l *loop) rest(w *worker) bool {
	l.mu.Lock()
	if l.stopped || len(l.resting) >= restingMax {
		l.mu.Unlock()
		return false
	}
	l.resting = append(l.resting, w)
	l.mu.Unlock()
	w.sleep()
	return true
}

// put queues what the turn has found.
func (l *loop) put() {
	if len(l.found) == 0 {
		return
	}
	l.mu.Lock()
	for _, s := range l.found {
		l.ready = append(l.ready, s.server)
	}
	l.some.Store(true)
	l.mu.Unlock()
	clear(l.found)
	l.found = l.found[:0]
}

// take takes the oldest server that is ready; nil when there is none.
func (l *loop) take() Server {
	if !l.some.Load() {
		return nil
	}
	l.mu.Lock()
	if l.head == len(l.ready) { // somebody was faster
		l.mu.Unlock()
		return nil
	}
	s := l.ready[l.head]
	l.ready[l.head] = nil
	if l.head++; l.head == len(l.ready) {
		l.ready, l.head = l.ready[:0], 0
		l.some.Store(false)
	}
	l.mu.Unlock()
	return s
}
