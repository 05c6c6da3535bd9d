package listener

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/proxyproto"
	"github.com/menshen-gateway/menshen/internal/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a door that says who came, and then nothing until its guest leaves. One that sends "bug" meets one.
type house struct {
	*Hall[*guest]
	rules atomic.Pointer[Rules]
	log   lockedBuffer
}

type guest struct {
	Entry
	house   *house
	nc      net.Conn
	retired atomic.Int32
	cuts    atomic.Int32
	stays   bool // until it was cut three times
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func open(t *testing.T, r Rules, watch func()) *house {
	t.Helper()
	h := &house{}
	r.Series = new(observe.ListenerSeries)
	h.rules.Store(&r)
	h.Hall = New(Options[*guest]{
		Log: slog.New(slog.NewTextHandler(&h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Open: func(nc net.Conn, listener string) (*guest, *Rules) {
			if listener == "gone" {
				return nil, nil
			}
			return &guest{house: h, nc: nc, stays: listener == "inn"}, h.rules.Load()
		},
		Watch: watch,
	})
	t.Cleanup(func() { h.drain(t) })
	return h
}

// drain ends everything at once.
func (h *house) drain(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = h.Drain(ctx, "")
	if n, open := h.Count(), h.rules.Load().Series.Open(); n != 0 || open != 0 || len(h.open) != 0 {
		t.Errorf("%d connections are left, %d are counted as open, %d listeners", n, open, len(h.open))
	}
}

func (g *guest) Begin() {
	defer g.house.Leave(g)
	defer g.nc.Close()
	defer func() { _ = recover() }()
	if !g.house.Introduce(g, g.nc, g.house.rules.Load()) {
		return
	}
	fmt.Fprintf(g.nc, "%s\n", g.Addresses(g.nc).From.Addr())
	text := make([]byte, 3)
	if _, err := io.ReadFull(g.nc, text); err == nil && string(text) == "bug" {
		panic("BUG: made by a test")
	}
	_, _ = io.Copy(io.Discard, g.nc)
}

func (g *guest) Refuse() {
	_, _ = io.WriteString(g.nc, "full\n")
	g.nc.Close()
}

func (g *guest) Retire() { g.retired.Add(1) }

func (g *guest) Cut() {
	if g.cuts.Add(1) >= 3 || !g.stays {
		g.nc.Close()
	}
}

// serve opens a listener of the house.
func (h *house) serve(t *testing.T, name string) (address string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(context.Background(), ln, name) }()
	stop = sync.OnceFunc(func() {
		ln.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

// visit connects, says something and gives the answer's first line.
func visit(t *testing.T, address, text string) (c net.Conn, answer string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(c, text)
	var line []byte
	for b := make([]byte, 1); ; line = append(line, b[0]) {
		if n, err := c.Read(b); n == 0 || b[0] == '\n' {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatal(err)
			}
			return c, string(line)
		}
	}
}

// has waits until there are n connections.
func (h *house) has(t *testing.T, n int) {
	t.Helper()
	testenv.Eventually(t, 10*time.Second, func() error {
		if have := h.Count(); have != n {
			return fmt.Errorf("%d connections instead of %d", have, n)
		}
		return nil
	})
}

const local = "127.0.0.1"

// The bounds are those of the listeners of one name together: of several sockets, and of one that has left but is still drained.
func TestBounds(t *testing.T) {
	t.Parallel()
	for _, r := range []Rules{{Connections: 3}, {PerAddress: 3}} {
		h := open(t, r, nil)
		first, stop := h.serve(t, "web")
		second, _ := h.serve(t, "web")
		other, _ := h.serve(t, "other")
		c, answer := visit(t, first, "")
		f := func(address, want string) {
			t.Helper()
			if _, got := visit(t, address, ""); got != want {
				t.Errorf("%+v: %q instead of %q", r, got, want)
			}
		}
		if answer != local {
			t.Errorf("%q", answer)
		}
		f(second, local)
		f(second, local)
		f(first, "full")
		f(second, "full")
		f(other, local)
		c.Close()
		h.has(t, 3)
		f(first, local)
		f(second, "full")
		stop()
		h.Retire("web")
		third, _ := h.serve(t, "web")
		f(third, "full")
		if open, want := h.rules.Load().Series.Open(), 4; open != want {
			t.Errorf("%d connections are counted as open instead of %d", open, want)
		}
	}
}

func TestListenerThatHasLeft(t *testing.T) {
	t.Parallel()
	h := open(t, Rules{}, nil)
	address, _ := h.serve(t, "gone")
	if _, got := visit(t, address, ""); got != "" || h.Count() != 0 {
		t.Errorf("%q, %d connections", got, h.Count())
	}
}

func TestIntroduction(t *testing.T) {
	t.Parallel()
	h := open(t, Rules{Proxies: proxyproto.Trust{netip.MustParsePrefix("127.0.0.0/8")}, PerAddress: 1, Connections: 3, Introduction: 100 * time.Millisecond}, nil)
	address, _ := h.serve(t, "web")
	f := func(text, want string) net.Conn {
		t.Helper()
		c, got := visit(t, address, text)
		if got != want {
			t.Errorf("%q: %q instead of %q", text, got, want)
		}
		return c
	}
	named := func(client string) string { return "PROXY TCP4 " + client + " 10.0.0.1 1 2\r\n" }
	first := f(named("192.0.2.1"), "192.0.2.1")
	f(named("192.0.2.1"), "full")
	f("hello, who is there?\r\n", "")
	f("", "") // says nothing, and its time passes
	h.has(t, 1)
	second := f("PROXY UNKNOWN\r\n", local) // the load balancer itself, which has no bound
	third := f("PROXY UNKNOWN\r\n", local)
	f(named("192.0.2.2"), "full") // in all
	for _, c := range []net.Conn{first, second, third} {
		c.Close()
	}
	h.has(t, 0)
	f(named("192.0.2.1"), "192.0.2.1")
	if log := h.log.String(); strings.Count(log, "no PROXY protocol header") != 2 || !strings.Contains(log, "listener=web peer=127.0.0.1") {
		t.Error(log)
	}
	// Nothing of the time for a header is left for what follows it.
	h.rules.Store(&Rules{Proxies: h.rules.Load().Proxies, Introduction: time.Minute, Series: h.rules.Load().Series})
	near, far := net.Pipe()
	defer far.Close()
	go io.WriteString(far, named("192.0.2.9"))
	g := &guest{house: h, nc: near, Entry: Entry{Listener: h.listener("web"), announced: true}}
	d := &deadlines{Conn: near}
	if !h.Introduce(g, d, h.rules.Load()) || len(d.set) != 2 || d.set[0].IsZero() || !d.set[1].IsZero() {
		t.Errorf("deadlines %v", d.set)
	}
}

type deadlines struct {
	net.Conn
	set []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return d.Conn.SetReadDeadline(t)
}

// A bug in what serves a connection costs no count: nothing of it is left in the books.
func TestPanicLeavesNoCount(t *testing.T) {
	t.Parallel()
	h := open(t, Rules{Connections: 1, PerAddress: 1}, func() {})
	address, _ := h.serve(t, "web")
	for range 3 {
		c, answer := visit(t, address, "")
		if answer != local {
			t.Fatalf("%q", answer)
		}
		_, _ = io.WriteString(c, "bug")
		_, _ = io.Copy(io.Discard, c)
		h.has(t, 0)
	}
	if n := h.rules.Load().Series.Open(); n != 0 {
		t.Errorf("%d connections are counted as open", n)
	}
}

func TestRetireAndDrain(t *testing.T) {
	t.Parallel()
	h := open(t, Rules{}, nil)
	web, stop := h.serve(t, "web")
	inn, _ := h.serve(t, "inn")
	ends, _ := visit(t, web, "")
	visit(t, web, "")
	visit(t, inn, "")
	stop()
	wait := h.Retire("web")
	again, _ := h.serve(t, "web") // another listener of the name
	visit(t, again, "")
	for g := range h.All() {
		if told, want := g.retired.Load() == 1, g.Listener.Retired(); told != want {
			t.Errorf("%s: told %v, retired %v", g.Listener.Name, told, want)
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() { done <- wait(ctx) }()
	ends.Close()
	h.has(t, 3)
	select {
	case err := <-done:
		t.Fatalf("the wait is over while a connection is open: %v", err)
	default:
	}
	why := errors.New("made by a test")
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("a wait that had to cut gives %v", err)
	}
	h.has(t, 2)
	if err := h.Drain(ctx, "nobody"); err != nil {
		t.Errorf("nothing was cut: %v", err)
	}
	if err := h.Drain(ctx, "inn"); !errors.Is(err, why) { // which leaves at the third cut
		t.Errorf("%v", err)
	}
	h.has(t, 1)
	if _, got := visit(t, inn, ""); got != local { // its socket is open all the same
		t.Errorf("%q", got)
	}
	for g := range h.All() {
		if g.Listener.Name == "inn" && g.retired.Load() == 0 {
			t.Error("a late connection was not told")
		}
	}
}

// The watcher is there while connections are, and a drain waits for it.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls, running atomic.Int32
		h := &house{}
		h.rules.Store(&Rules{})
		h.Hall = New(Options[*guest]{
			Log:  slog.New(slog.DiscardHandler),
			Open: func(nc net.Conn, _ string) (*guest, *Rules) { return &guest{house: h, nc: nc}, h.rules.Load() },
			Watch: func() {
				running.Store(1)
				time.Sleep(WatchInterval / 4) // it takes a while
				for range h.All() {
				}
				calls.Add(1)
				running.Store(0)
			},
		})
		l := h.listener("web")
		for range 2 {
			calls.Store(0)
			client, nc := net.Pipe()
			go io.Copy(io.Discard, client)
			h.accept(nc, l)
			time.Sleep(3*WatchInterval + WatchInterval/8) // of the bubble's clock: the third call has begun
			if n := calls.Load(); n != 2 || running.Load() != 1 {
				t.Errorf("watched %d times", n)
			}
			client.Close()
			synctest.Wait()
			if err := h.Retire("")(t.Context()); err != nil || running.Load() != 0 {
				t.Errorf("a drain does not wait for the watcher (%v)", err)
			}
			time.Sleep(5 * WatchInterval) // of the bubble's clock
			if n := calls.Load(); n != 3 {
				t.Errorf("watched %d times though nobody is there", n)
			}
		}
	})
}

// Accepts that fail do not take the CPU, and do not end the listener.
func TestAcceptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		s := New(Options[*guest]{Log: slog.New(slog.NewTextHandler(&log, nil))})
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		if err := s.Serve(ctx, failing{}, "web"); err != nil {
			t.Error(err)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) < 9 || len(lines) > 12 { // 5 ms, doubled up to a second
			t.Errorf("%d tries in 4 seconds", len(lines))
		}
		for _, want := range []string{`level=WARN msg="cannot accept a connection" listener=web`, syscall.EMFILE.Error(), "retry_in=5ms"} {
			if !strings.Contains(lines[0], want) {
				t.Errorf("%s does not say %s", lines[0], want)
			}
		}
	})
}

// failing is a listener that is out of descriptors.
type failing struct{ net.Listener }

func (failing) Accept() (net.Conn, error) {
	return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
}
func (failing) Close() error { return nil }
