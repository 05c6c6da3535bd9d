package test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// TestChaos breaks everything around the gateway but one endpoint at a time of four, reloads it every second, and lets well
// and badly behaved clients ask all the while. It lasts 40 s, or as long as CHAOS says (CHAOS=3m); CHAOS_SEED replays a
// schedule of faults, which a failure prints.
//
// What must hold always, whatever breaks:
//   - Every whole request gets an answer within chaosPatience, and never a closed connection instead.
//   - An answer with 200 is the endpoint's own answer to this very request: its token in the header, and a body that is the token
//     over and over, to the last byte. What broke off does not look whole, and what there is of it is a prefix of the right one.
//   - The only other answers are 502, 503 and 504, as problem documents of the gateway, and an endpoint's own 503.
//   - No POST is executed twice, none of which the client sent only a part is executed at all, and each that was answered with 200
//     was executed once. The endpoints keep a journal that outlives them.
//   - /number, which each reload changes, is what was in effect when it was asked for, or came meanwhile.
//
// What must hold as far as the gateway promises it. An endpoint is in trouble from just before a fault until the fault is mended and
// the gateway says that the endpoint is in rotation again; the harness keeps these times itself. An endpoint that the configuration
// drains (weight 0) or leaves out counts as well. From there:
//   - A GET or a short PUT with one retry is answered with 200 when at most one of the four endpoints was in trouble at any time
//     during the request: the first attempt may meet that one, the second cannot. (Two that are in trouble one after the other within
//     one request count as two.)
//   - A GET with three retries is answered with 200 when at least one of the four was well during all of the request.
//   - A POST is answered with 200 when none of its three endpoints was in trouble: no retry is promised to it. A tunnel
//     is opened when at most one of three was.
//   - A body or a tunnel breaks off, and an endpoint's own 503 comes, only when the very endpoint that it came from was broken (not: drained)
//     during the request. What an endpoint answers is passed on and not tried again, 503 too.
//
// The budget of retries is 100 % and panic_threshold at most 25 %, so that neither limits these promises.
// The machine may be slower than the timeouts. So each endpoint is asked without the gateway as well, and one that takes longer than half
// a first_byte timeout counts as in trouble for that time and 3 s beyond it. What is excused is counted and printed.
//
// At the end, settled, the gateway has no more goroutines, descriptors and heap than at a settled start.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 40 seconds")
	}
	lasts, seed := 40*time.Second, uint64(time.Now().UnixNano())
	if text := os.Getenv("CHAOS"); text != "" {
		var err error
		lasts, err = time.ParseDuration(text)
		must(t, err)
	}
	if text := os.Getenv("CHAOS_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		must(t, err)
	}
	t.Logf("CHAOS=%s CHAOS_SEED=%d", lasts, seed)
	c := newChaos(t, seed)
	c.g = start(t, c.config(0), "GOGC=50")

	c.run(8*time.Second, seed) // pools and buffers have what they will have
	before := c.settled()
	warm := c.requests.Load()
	c.run(lasts-8*time.Second, seed+1)
	after := c.settled()
	c.judge()

	t.Logf("%d requests (%d before the measured start), %d answered with 200, %d excused, %d clients vanished, %d messages through tunnels; slowest %s (%s)",
		c.requests.Load(), warm, c.answered.Load(), c.excused, c.vanished.Load(), c.messages.Load(), c.slowest, c.slowestWho)
	t.Logf("%d faults (%s), %d reloads, %d refused ones; slowest return to rotation %s; slow probes %d; before %+v, after %+v", c.faults, c.kinds(), c.applied.Load(), c.refused, c.recovery, c.stalls, before, after)
	if after.goroutines > before.goroutines+5 {
		t.Errorf("goroutines grow: %d, then %d", before.goroutines, after.goroutines)
	}
	if after.descriptors > before.descriptors+5 {
		t.Errorf("descriptors grow: %d, then %d", before.descriptors, after.descriptors)
	}
	if after.heap > before.heap+before.heap/4+4<<20 {
		t.Errorf("the heap grows: %d, then %d", before.heap, after.heap)
	}
	if c.answered.Load() < c.requests.Load()/2 {
		t.Errorf("the test tests little: only %d of %d requests were answered", c.answered.Load(), c.requests.Load())
	}
}

// chaos is the state of the test.
type chaos struct {
	t         *testing.T
	g         *gateway
	endpoints []*chaosEndpoint
	random    *rand.Rand // of the schedule
	journals  string
	posts     ledger
	began     time.Time
	started   int // clients so far

	requests, answered, vanished, messages atomic.Int64
	applied, applying                      atomic.Int64 // configs: the last that is in effect, the last that was offered

	mu         sync.Mutex // guards all below
	troubles   []trouble
	suspicions []suspicion
	failures   int
	slowest    time.Duration
	slowestWho string
	recovery   time.Duration
	faults     int
	byKind     map[string]int
	refused    int
	excused    int
	stalls     int
}

// chaosEndpoint is one of the four. Endpoint 0 is nginx; it has no part in POSTs and tunnels.
type chaosEndpoint struct {
	name    string
	real    string          // where it listens
	address string          // where the gateway finds it
	cutter  *testenv.Cutter // between the two; nil for some
	process *testenv.Process
	start   func() *testenv.Process
	weight  int // as configured; 0 drains, -1 leaves it out. Guarded by chaos.mu
}

// trouble is a time in which an endpoint cannot be counted on.
type trouble struct {
	endpoint int
	kind     string
	from, to time.Time // to is zero while it lasts
	breaks   bool      // also what it is about to answer
}

// suspicion is an answer that is right only when there was trouble. It is judged at the end, when all is known.
type suspicion struct {
	text      string
	from, to  time.Time
	backend   string    // the endpoint that must have been broken; when empty, guarantee counts
	guarantee guarantee // what was promised
}

func newChaos(t *testing.T, seed uint64) *chaos {
	c := &chaos{t: t, random: rand.New(rand.NewPCG(seed, 0)), journals: testenv.Dir(t), began: time.Now(), byKind: map[string]int{}}
	c.posts.sent = map[string]execution{}
	n0 := &chaosEndpoint{name: "n0", real: testenv.FreeAddress(t), weight: 1}
	n0.address = n0.real
	n0.start = func() *testenv.Process {
		return testenv.Nginx(t, testenv.NginxConf{Name: "n0", Address: n0.real, Server: chaosNginx()}).Process
	}
	c.endpoints = append(c.endpoints, n0)
	for i := 1; i <= 3; i++ {
		e := &chaosEndpoint{name: fmt.Sprintf("r%d", i), real: testenv.FreeAddress(t), weight: 1}
		e.address = e.real
		if i > 1 {
			e.cutter = testenv.NewCutter(t, e.real)
			e.address = e.cutter.Address
		}
		e.start = func() *testenv.Process {
			return startChaosServer(t, e.name, e.real, filepath.Join(c.journals, e.name))
		}
		c.endpoints = append(c.endpoints, e)
	}
	for _, e := range c.endpoints {
		e.process = e.start()
	}
	return c
}

// config is what is in effect after the n-th reload.
func (c *chaos) config(n int64) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := func(endpoints []*chaosEndpoint) string {
		var words []string
		for i, e := range endpoints {
			if e.weight >= 0 {
				words = append(words, fmt.Sprintf("{address: %q, weight: %d}", e.address, e.weight*(1+int(n+int64(i))%4)))
			}
		}
		return strings.Join(words, ", ")
	}
	more := []string{"health_check: {path: /healthz, interval: 300ms, timeout: 1s, rise: 1, fall: 2}", "health_check: {interval: 500ms}", "balance: random"}[n/3%3]
	if n%2 == 1 && !strings.HasPrefix(more, "balance") {
		more += ", balance: " + []string{"round_robin", "least_connections", "least_latency", "random", "{algorithm: hash, key: path}"}[n/2%5]
	}
	more += fmt.Sprintf(", panic_threshold: %d%%, outlier: {consecutive_failures: %d, ejection: 500ms, ejection_max: 2s}, retry: {attempts: 1, budget: 100%%}, timeouts: {connect: 2s, first_byte: %dms, idle: %ds}, connections: {max_idle_per_endpoint: %d}",
		n%2*25, 2+n%4, 1000+n%4*500, 4+n%3, 1+n%3*50)
	number := fmt.Sprintf("number: {match: /number, respond: {body: \"%d\"}}\n  new%d: {match: /new/%d/*, service: pages}", n, n%7, n)
	timeout := ""
	if n%4 == 1 {
		timeout = ", timeout: 1m"
	}
	return fmt.Sprintf(`
admin: "127.0.0.1:0"
access_log: {to: none}
log: {level: warn}
listeners:
  web: {address: "127.0.0.1:0", timeouts: {idle: %ds}, headers: {via: %t}, limits: {requests_per_connection: %d}}
services:
  pages:  {endpoints: [%s], %s}
  writes: {endpoints: [%s], %s}
routes:
  one:  {match: /one/*, service: pages%s}
  all:  {match: /all/*, service: pages, retry: 3}
  post: {match: /post/*, service: writes}
  ws:   {match: /ws, service: writes}
  %s
`, 60+n%3, n%2 == 0, n%3/2*20, list(c.endpoints), more, list(c.endpoints[1:]), more, timeout, number)
}

// run lets the load, the reloads and the faults go for some time. Everything is whole when it returns.
func (c *chaos) run(lasts time.Duration, seed uint64) {
	c.t.Helper()
	quit := make(chan struct{})
	var group, load sync.WaitGroup
	stop := sync.OnceFunc(func() { close(quit); load.Wait(); group.Wait() })
	c.t.Cleanup(stop)
	c.clients(&load, quit, seed)
	stopReloads := make(chan struct{})
	group.Go(func() { c.reloads(stopReloads) })
	group.Go(func() { c.probe(quit) })
	func() {
		defer close(stopReloads)
		for end := time.Now().Add(lasts); time.Now().Before(end) && !c.failed(); {
			c.round()
		}
	}()
	stop()
}

func (c *chaos) failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failures >= 5
}

// wrong reports what is never right.
func (c *chaos) wrong(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failures++; c.failures <= 5 {
		c.t.Errorf("%s: "+format, append([]any{c.when(time.Now())}, args...)...)
	}
}

func (c *chaos) when(t time.Time) string { return fmt.Sprintf("%.3fs", t.Sub(c.began).Seconds()) }

func (c *chaos) suspect(s suspicion) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.suspicions = append(c.suspicions, s)
}

func (c *chaos) longest(d time.Duration, who string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d > c.slowest {
		c.slowest, c.slowestWho = d, who
	}
}

// fault is one thing that breaks, in one endpoint.
type fault struct {
	endpoint int
	kind     string
	lasts    time.Duration
}

// round breaks one to three endpoints for a while, mends them and waits until the gateway uses them again.
func (c *chaos) round() {
	c.t.Helper()
	few := 1
	switch n := c.random.IntN(20); {
	case n >= 13:
		few = 3
	case n >= 8:
		few = 2
	}
	var faults []fault
	for _, i := range c.random.Perm(4)[:few] {
		kinds := []string{"kill", "kill", "stop", "stop", "drain", "remove"}
		if e := c.endpoints[i]; e.cutter != nil {
			kinds = append(kinds, "cut", "cut", "reset", "reset", "pause", "pause", "delay")
		} else if i == 0 {
			kinds = append(kinds, "quit", "quit")
		}
		if i > 0 {
			kinds = append(kinds, "sick")
		}
		lasts := time.Duration(50+c.random.IntN(500)) * time.Millisecond
		if c.random.IntN(3) == 0 { // beyond first_byte
			lasts = time.Duration(1000+c.random.IntN(2000)) * time.Millisecond
		}
		faults = append(faults, fault{i, kinds[c.random.IntN(len(kinds))], lasts})
	}
	pause := time.Duration(c.random.IntN(400)) * time.Millisecond
	for _, f := range faults {
		c.breaks(f)
	}
	began := time.Now()
	for _, f := range faults {
		time.Sleep(time.Until(began.Add(f.lasts))) // how long a fault lasts is what is asked for
		c.mend(f)
	}
	mended := time.Now()
	c.recovered(faults)
	c.mu.Lock()
	c.recovery = max(c.recovery, time.Since(mended))
	c.mu.Unlock()
	time.Sleep(pause) // a time in which nothing is broken
}

// breaks begins a fault. The trouble begins before.
func (c *chaos) breaks(f fault) {
	c.t.Helper()
	e := c.endpoints[f.endpoint]
	c.mu.Lock()
	c.faults++
	c.byKind[f.kind]++
	if f.kind != "delay" {
		c.troubles = append(c.troubles, trouble{endpoint: f.endpoint, kind: f.kind, from: time.Now(), breaks: f.kind != "drain" && f.kind != "remove"})
	}
	switch f.kind {
	case "drain":
		e.weight = 0
	case "remove":
		e.weight = -1
	}
	c.mu.Unlock()
	switch f.kind {
	case "kill":
		e.process.Kill()
	case "quit":
		must(c.t, e.process.Signal(syscall.SIGQUIT)) // nginx finishes what it has begun
	case "stop":
		must(c.t, e.process.Signal(syscall.SIGSTOP))
	case "cut":
		e.cutter.Cut()
	case "reset":
		e.cutter.Reset()
	case "pause":
		e.cutter.Pause()
	case "delay":
		e.cutter.Delay(time.Millisecond) // for each 32 KiB: the largest upload still comes well within first_byte
	case "sick":
		write(c.t, filepath.Join(c.journals, e.name+chaosSick), "")
	}
}

// mend ends a fault.
func (c *chaos) mend(f fault) {
	c.t.Helper()
	e := c.endpoints[f.endpoint]
	switch f.kind {
	case "kill":
		e.process = e.start()
	case "quit":
		e.process.Kill() // unless it has ended
		e.process = e.start()
	case "stop":
		must(c.t, e.process.Signal(syscall.SIGCONT))
	case "cut":
		e.cutter.Restore(c.t)
	case "pause":
		e.cutter.Resume()
	case "delay":
		e.cutter.Delay(0)
	case "sick":
		must(c.t, os.Remove(filepath.Join(c.journals, e.name+chaosSick)))
	case "drain", "remove":
		c.mu.Lock()
		e.weight = 1
		c.mu.Unlock()
		n := c.applying.Load()
		testenv.Eventually(c.t, deadline, func() error {
			if c.applied.Load() <= n { // one that was made after this moment
				return fmt.Errorf("no reload")
			}
			return nil
		})
	}
}

// recovered waits until the endpoints are in rotation, and stay there for as long as a request of before may take to fail.
func (c *chaos) recovered(faults []fault) {
	c.t.Helper()
	var since time.Time
	testenv.Eventually(c.t, deadline, func() error {
		for _, service := range []string{"pages", "writes"} {
			state := c.g.endpoints(service)
			for _, f := range faults {
				if f.endpoint == 0 && service == "writes" {
					continue
				}
				if e := state[c.endpoints[f.endpoint].address]; !e.Healthy || e.Ejected {
					since = time.Time{}
					return fmt.Errorf("after %q %s is not in rotation: %+v", f.kind, c.endpoints[f.endpoint].name, e)
				}
			}
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) < 300*time.Millisecond {
			return fmt.Errorf("not for long enough")
		}
		return nil
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.troubles {
		if t := &c.troubles[i]; t.to.IsZero() {
			t.to = time.Now()
		}
	}
}

// reloads changes the configuration every second, in each way there is, and offers broken ones between. The file always says what
// was applied, so that no way takes back what another did.
func (c *chaos) reloads(stop <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if i%4 == 3 {
			c.offerBroken(i)
			continue
		}
		n := c.applying.Add(1)
		text := c.config(n)
		if i%3 == 0 {
			if status, body := c.apply(text); status != 200 {
				c.wrong("configuration %d is refused: %d %s", n, status, body)
			}
		}
		if err := c.replace(text); err != nil {
			c.wrong("%v", err)
			return
		}
		if i%3 == 1 {
			_ = c.g.Signal(syscall.SIGHUP)
		}
		if !c.shows(n) {
			c.wrong("configuration %d is not in effect after %s", n, deadline)
			return
		}
		c.applied.Store(n)
	}
}

func (c *chaos) replace(text string) error {
	if err := os.WriteFile(c.g.config+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(c.g.config+".new", c.g.config)
}

// offerBroken sees to it that a broken configuration changes nothing, which /number and all else show.
func (c *chaos) offerBroken(i int) {
	c.mu.Lock()
	c.refused++
	c.mu.Unlock()
	broken := []string{"listeners: {web: {adress: 1}}", "routes: {a: {match: /*, service: nobody}}", "{", "listeners: {web: {address: \"127.0.0.1:0\"}}\nservices: {a: {endpoints: []}}"}[i/4%4]
	if i%8 == 3 {
		if status, body := c.apply(broken); status != 422 {
			c.wrong("a broken configuration gives %d %s", status, body)
		}
		return
	}
	if err := c.replace(broken); err != nil {
		c.wrong("%v", err)
	}
	_ = c.g.Signal(syscall.SIGHUP)
}

func (c *chaos) apply(text string) (int, []byte) {
	response, err := http.Post(c.g.url("admin", "/api/v1/config"), "application/yaml", strings.NewReader(text))
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, body
}

// shows waits until a new connection sees configuration n.
func (c *chaos) shows(n int64) bool {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: deadline}
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(5 * time.Millisecond) { // polling
		response, err := client.Get(c.g.url("web", "/number"))
		if err != nil {
			c.wrong("GET /number: %v", err)
			return false
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if string(body) == strconv.FormatInt(n, 10) {
			return true
		}
	}
	return false
}

// probe asks each endpoint without the gateway. Slowness that no fault explains is the machine's: no promise holds then.
func (c *chaos) probe(quit <-chan struct{}) {
	const slow = 500 * time.Millisecond // half the shortest first_byte
	var group sync.WaitGroup
	defer group.Wait()
	for i, e := range c.endpoints {
		group.Go(func() {
			tick := time.NewTicker(200 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-quit:
					return
				case <-tick.C:
				}
				from := time.Now()
				probeOnce(e.real)
				if took := time.Since(from); took > slow {
					c.mu.Lock()
					if !c.troubledLocked(i, from, time.Now(), false) {
						c.stalls++
						c.troubles = append(c.troubles, trouble{endpoint: i, kind: "slow machine", from: from, to: time.Now().Add(3 * time.Second), breaks: took > 3*time.Second})
					}
					c.mu.Unlock()
				}
			}
		})
	}
}

func probeOnce(address string) {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	_, _ = c.Read(make([]byte, 1))
}

func (c *chaos) troubledLocked(endpoint int, from, to time.Time, broken bool) bool {
	for _, t := range c.troubles {
		if t.endpoint == endpoint && t.from.Before(to) && (t.to.IsZero() || t.to.After(from)) && (t.breaks || !broken) {
			return true
		}
	}
	return false
}

// settled gives what the gateway holds when it serves nothing, without the services and their idle connections.
func (c *chaos) settled() weight {
	c.t.Helper()
	bare := "admin: \"127.0.0.1:0\"\naccess_log: {to: none}\nlog: {level: warn}\nlisteners: {web: {address: \"127.0.0.1:0\"}}\nroutes: {number: {match: /number, respond: {body: \"0\"}}}\n"
	c.g.apply(bare)
	w := c.g.weigh(func() { c.g.apply(bare) })
	c.g.apply(c.config(c.applying.Load()))
	return w
}

// judge decides about what was right only in trouble, and reads the journals.
func (c *chaos) judge() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	shown := 0
	for _, s := range c.suspicions {
		var ok bool
		if s.backend != "" {
			for i, e := range c.endpoints {
				ok = ok || e.name == s.backend && c.troubledLocked(i, s.from, s.to, true)
			}
		} else {
			in := 0
			for i := s.guarantee.first; i <= s.guarantee.last; i++ {
				if c.troubledLocked(i, s.from, s.to, false) {
					in++
				}
			}
			ok = in > s.guarantee.spared
		}
		if ok {
			c.excused++
			continue
		}
		if shown++; shown <= 8 {
			c.t.Errorf("%s to %s: %s", c.when(s.from), c.when(s.to), s.text)
			for _, t := range c.troubles {
				if t.from.Before(s.to.Add(time.Second)) && (t.to.IsZero() || t.to.After(s.from.Add(-5*time.Second))) {
					c.t.Logf("   trouble of %s: %s from %s to %s", c.endpoints[t.endpoint].name, t.kind, c.when(t.from), c.when(t.to))
				}
			}
		}
	}
	if shown > 0 {
		c.t.Errorf("%d requests that could be answered were not", shown)
	}
	c.posts.judge(c.t, c.journals)
}

func (c *chaos) kinds() string {
	var words []string
	for _, kind := range []string{"kill", "quit", "stop", "cut", "reset", "pause", "delay", "sick", "drain", "remove"} {
		words = append(words, fmt.Sprintf("%s %d", kind, c.byKind[kind]))
	}
	return strings.Join(words, ", ")
}

// execution is what is known of a POST.
type execution uint8

const (
	unknown execution = iota // at most once
	yes                      // once
	no                       // not at all
)

// ledger is what the clients know of their POSTs, by token.
type ledger struct {
	mu   sync.Mutex
	sent map[string]execution
}

func (l *ledger) never(token string)   { l.answered(token, no) }
func (l *ledger) unknown(token string) { l.answered(token, unknown) }

func (l *ledger) answered(token string, e execution) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent[token] = e
}

// judge compares the clients' ledger with the endpoints' journals.
func (l *ledger) judge(t *testing.T, journals string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	executed := map[string]int{}
	files, err := filepath.Glob(filepath.Join(journals, "*"))
	must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		for line := range bytes.Lines(text) {
			words := strings.Fields(string(line))
			switch words[0] {
			case "POST":
				executed[words[1]]++
			case "BAD":
				t.Errorf("%s: %s", filepath.Base(file), line)
			}
		}
	}
	count := map[execution]int{}
	for token, e := range l.sent {
		count[e]++
		n := executed[token]
		if n > 1 || e == yes && n != 1 || e == no && n != 0 {
			t.Errorf("the POST %s was executed %d times; known of it: %d", token, n, e)
		}
		delete(executed, token)
	}
	for token := range executed {
		t.Errorf("the POST %s was executed, and nobody sent it", token)
	}
	t.Logf("POSTs: %d answered with 200 and executed once, %d of unknown fate and executed at most once, %d cut short and not executed", count[yes], count[unknown], count[no])
}
