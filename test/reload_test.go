package test

import (
	"bufio"
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// A thousand reloads under load: no request, tunnel or session may notice, and nothing may grow.
func TestThousandReloads(t *testing.T) {
	one, two := testenv.Nginx(t, testenv.NginxConf{Name: "one"}), testenv.Nginx(t, testenv.NginxConf{Name: "two"})
	db := testenv.MariaDB(t)
	db.Exec(t, "CREATE DATABASE shop", "CREATE TABLE shop.seen (id INT PRIMARY KEY AUTO_INCREMENT, who INT)",
		"CREATE USER menshen@'%' IDENTIFIED BY 'inner'", "GRANT ALL ON shop.* TO menshen@'%'")
	echo := echoServer(t)
	extra := testenv.FreeAddress(t)

	// Each variant differs in what a reload can change beside the traffic, and n in what the traffic itself stands on.
	config := func(n int) string {
		var b strings.Builder
		fmt.Fprintf(&b, `
admin: "127.0.0.1:0"
access_log: {to: none}
log: {level: error}
listeners:
  web: {address: "127.0.0.1:0", timeouts: {idle: %ds}}
  sql: {address: "127.0.0.1:0", protocol: mysql, default_database: shop}
services:
  pages: {endpoints: [%q, {address: %q, weight: %d}], health_check: {path: /healthz, interval: 1s}}
  echo:  {endpoints: [%q]}
routes:
  pages: {match: /*, service: pages}
  echo:  {match: /ws, service: echo}
  number: {match: /number, respond: {body: "%d"}}
databases:
  shop: {login: {user: menshen, password: inner}, shards: {s0: {primary: %q}}}
consumers:
  app: {mysql: {password: outer}}
`, 60+n%3, one.Address, two.Address, 1+n%4, echo, n, db.Addr)
		switch n % 5 {
		case 1:
			fmt.Fprintf(&b, "  more%d: {mysql: {password: p%d}}\n", n, n)
		case 2: // a listener, a route and a service with checks come and go
			return strings.NewReplacer("\nservices:\n", fmt.Sprintf("\n  extra: {address: %q}\nservices:\n  new%d: {endpoints: [%q], health_check: /healthz}\n", extra, n, two.Address),
				"\nroutes:\n", fmt.Sprintf("\nroutes:\n  new%d: {match: /new%d, service: new%d}\n", n, n, n)).Replace(b.String())
		case 3: // ... the listener as tcp
			return strings.Replace(b.String(), "\nservices:\n", fmt.Sprintf("\n  extra: {address: %q, protocol: tcp, service: echo}\nservices:\n", extra), 1)
		}
		return b.String()
	}
	g := start(t, config(0), "GOGC=50")
	l := &load{g: g, t: t, bodies: []string{"/100", "/10k", "/chunked"}}

	n, reloads := 0, 0
	reload := func() {
		t.Helper()
		n++
		reloads++
		switch text := config(n); {
		case n%25 == 0: // through the file alone; the watcher takes a tenth of a second
			before := g.reloads("success")
			g.write(text)
			g.reloaded(before)
		case n%25 == 1: // a broken one between
			if status, body := g.post("/api/v1/config", "listeners: {web: {adress: 1}}"); status != 422 {
				t.Fatalf("a broken config gives %d %s", status, body)
			}
			g.apply(text)
		case n%10 == 2: // back to the file
			g.hup()
		default:
			g.apply(text)
		}
	}

	// Warm: pools, buffers and metrics have what they will have.
	l.start()
	for range 60 {
		reload()
	}
	l.stop()
	before := g.weigh(func() { g.apply(config(0)) })
	l.start()
	for reloads = 0; reloads < 1000; {
		reload()
	}
	l.stop()
	after := g.weigh(func() { g.apply(config(0)) })

	if got := l.requests.Load(); got < 2000 {
		t.Errorf("only %d requests were made meanwhile", got)
	}
	t.Logf("%d requests, %d messages, %d statements over %d generations; before %+v, after %+v", l.requests.Load(), l.messages.Load(), l.statements.Load(),
		g.state().Generation, before, after)
	if after.goroutines > before.goroutines+20 {
		t.Errorf("goroutines grow: %d, then %d", before.goroutines, after.goroutines)
	}
	if after.descriptors > before.descriptors+20 {
		t.Errorf("descriptors grow: %d, then %d", before.descriptors, after.descriptors)
	}
	if after.heap > before.heap+before.heap/2+4<<20 {
		t.Errorf("the heap grows: %d, then %d", before.heap, after.heap)
	}
	if g.reloads("failure") == 0 {
		t.Error("the broken configs are not counted")
	}
}

// weight is what a process holds.
type weight struct{ goroutines, descriptors, heap int }

// weigh takes the least of several looks, because what waits for the garbage collector is no growth. churn makes garbage.
func (g *gateway) weigh(churn func()) weight {
	g.t.Helper()
	testenv.Eventually(g.t, deadline, func() error {
		for name, open := range g.metrics() {
			if strings.HasPrefix(name, "menshen_connections_open") && open > 0 {
				return fmt.Errorf("%s is %v", name, open)
			}
		}
		return nil
	})
	var w weight
	least := func(v *int, sample float64) {
		if *v == 0 || int(sample) < *v {
			*v = int(sample)
		}
	}
	for range 40 {
		churn()
		m := g.metrics()
		least(&w.goroutines, m["go_goroutines"])
		least(&w.descriptors, m["process_open_fds"])
		least(&w.heap, m["go_memstats_heap_alloc_bytes"])
	}
	return w
}

// load is traffic of every kind that must not notice a reload.
type load struct {
	g      *gateway
	t      *testing.T
	bodies []string

	requests, messages, statements atomic.Int64
	failures                       atomic.Int64
	quit                           chan struct{}
	running                        sync.WaitGroup
}

// failed notes a request that failed; the first few are told.
func (l *load) failed(format string, args ...any) {
	if l.failures.Add(1) <= 5 {
		l.t.Errorf(format, args...)
	}
}

func (l *load) start() {
	l.t.Helper()
	l.quit = make(chan struct{})
	l.t.Cleanup(l.stop) // before the gateway goes
	for i := range 2 {
		l.running.Go(func() { l.keepAlive(i) })
	}
	l.running.Go(l.newConnections)
	l.running.Go(l.tunnel)
	l.running.Go(l.newTunnels)
	for i := range 2 {
		l.running.Go(func() { l.session(i) })
	}
}

// stop may be called again.
func (l *load) stop() {
	select {
	case <-l.quit:
	default:
		close(l.quit)
	}
	l.running.Wait()
}

// each calls f with 0, 1, 2, ... fifty times a second: the load is there to be disturbed, not to fill the machine. It
// ends with stop, with the first failure of any, or when f says so.
func (l *load) each(f func(n int) bool) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := 0; l.failures.Load() == 0; n++ {
		select {
		case <-l.quit:
			return
		case <-tick.C:
			if !f(n) {
				return
			}
		}
	}
}

// keepAlive stays on one connection for all its requests. It is no http.Client, which would hide a connection that is closed
// between two requests.
func (l *load) keepAlive(i int) {
	c, err := net.Dial("tcp", l.g.addresses["web"])
	if err != nil {
		l.failed("%v", err)
		return
	}
	defer c.Close()
	r := bufio.NewReader(c)
	ask := func(method, path string, body, want []byte) bool {
		_ = c.SetDeadline(time.Now().Add(deadline))
		request := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
		if _, err := io.WriteString(c, request); err != nil {
			l.failed("%s %s: %v", method, path, err)
			return false
		}
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			l.failed("%s %s: %v", method, path, err)
			return false
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode/100 != 2 || resp.Close || !bytes.Equal(got, want) {
			l.failed("%s %s: %s, %d bytes, close %t, %v", method, path, resp.Status, len(got), resp.Close, err)
			return false
		}
		l.requests.Add(1)
		return true
	}
	l.each(func(n int) bool {
		path := l.bodies[(n+i)%len(l.bodies)]
		if n%4 == 1 && !ask("PUT", fmt.Sprintf("/files/%d", i), bytes.Repeat([]byte{byte('a' + i)}, 3000), nil) {
			return false
		}
		return ask("GET", path, nil, testenv.Body(strings.Replace(path, "chunked", "10k", 1)))
	})
}

func (l *load) newConnections() {
	c := client(l.t)
	c.Transport.(*http.Transport).DisableKeepAlives = true
	l.each(func(n int) bool {
		l.get(c, l.bodies[n%len(l.bodies)])
		return true
	})
}

func (l *load) get(c *http.Client, path string) {
	resp, err := c.Get(l.g.url("web", path))
	if err != nil {
		l.failed("GET %s: %v", path, err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	want := testenv.Body(strings.Replace(path, "chunked", "10k", 1))
	if err != nil || resp.StatusCode != 200 || !bytes.Equal(body, want) {
		l.failed("GET %s: %d, %d bytes, %v", path, resp.StatusCode, len(body), err)
	}
	l.requests.Add(1)
}

// tunnel is one WebSocket for all the time.
func (l *load) tunnel() {
	ws, err := dialTunnel(l.g.url("web", "/ws"))
	if err != nil {
		l.failed("WebSocket: %v", err)
		return
	}
	defer ws.CloseNow()
	l.each(func(n int) bool {
		if err := ping(ws, fmt.Sprint(n)); err != nil {
			l.failed("message %d of a tunnel: %v", n, err)
			return false
		}
		l.messages.Add(1)
		return true
	})
}

func (l *load) newTunnels() {
	l.each(func(int) bool {
		ws, err := dialTunnel(l.g.url("web", "/ws"))
		if err == nil {
			err = ping(ws, "hello")
			_ = ws.CloseNow()
		}
		if err != nil {
			l.failed("a new tunnel: %v", err)
			return false
		}
		l.messages.Add(1)
		return true
	})
}

// session is one SQL session for all the time, in and out of transactions.
func (l *load) session(i int) {
	db, err := sql.Open("mysql", fmt.Sprintf("app:outer@tcp(%s)/shop", l.g.addresses["sql"]))
	if err != nil {
		l.failed("%v", err)
		return
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	var first, id int
	if err := db.QueryRow("SELECT CONNECTION_ID()").Scan(&first); err != nil {
		l.failed("session: %v", err)
		return
	}
	prepared, err := db.Prepare("SELECT ? + 1")
	if err != nil {
		l.failed("prepare: %v", err)
		return
	}
	defer prepared.Close()
	l.each(func(n int) bool {
		var sum int
		if err := prepared.QueryRow(n).Scan(&sum); err != nil || sum != n+1 {
			l.failed("statement %d: %d, %v", n, sum, err)
			return false
		}
		if err := l.transaction(db, i); err != nil {
			l.failed("transaction %d: %v", n, err)
			return false
		}
		l.statements.Add(3)
		return true
	})
	if err := db.QueryRow("SELECT CONNECTION_ID()").Scan(&id); err != nil || id != first {
		l.failed("the session %d became %d: %v", first, id, err)
	}
}

func (l *load) transaction(db *sql.DB, who int) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	_, err = tx.Exec("INSERT INTO seen (who) VALUES (?)", who)
	return errors.Join(err, tx.Rollback())
}

// A file that changes while its change is being read is read again: the last word wins.
func TestLastChangeOfTheFileWins(t *testing.T) {
	t.Parallel()
	config := func(n int) string {
		return fmt.Sprintf("admin: 127.0.0.1:0\naccess_log: none\nlisteners: {web: {address: \"127.0.0.1:0\"}}\nroutes: {number: {match: /number, respond: {body: \"%d\"}}}\n", n)
	}
	g := start(t, config(0))
	c := client(t)
	n := 0
	for range 5 {
		for range 100 {
			n++
			g.write(config(n))
		}
		testenv.Eventually(t, deadline, func() error {
			if _, body := fetch(t, c, g.url("web", "/number")); string(body) != fmt.Sprint(n) {
				return fmt.Errorf("it serves %s, the file says %d", body, n)
			}
			return nil
		})
	}
}

// The access log lies in the config's folder and is written to all the time: the config is still noticed, and the records
// are not.
func TestWatcherBesideAnAccessLog(t *testing.T) {
	t.Parallel()
	dir := testenv.Dir(t)
	config := func(n int) string {
		return fmt.Sprintf("admin: 127.0.0.1:0\naccess_log: %s/access.log\nlisteners: {web: {address: \"127.0.0.1:0\"}}\nroutes: {number: {match: /number, respond: {body: \"%d\"}}}\n", dir, n)
	}
	write(t, filepath.Join(dir, "menshen.yaml"), config(0))
	g := startAt(t, filepath.Join(dir, "menshen.yaml"))
	var busy sync.WaitGroup
	quit := make(chan struct{})
	busy.Go(func() {
		f, err := os.OpenFile(filepath.Join(dir, "other.log"), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		for {
			select {
			case <-quit:
				return
			default:
				_, _ = f.WriteAt([]byte("noise"), 0)
				runtime.Gosched()
			}
		}
	})
	defer busy.Wait()
	defer close(quit)
	c := client(t)
	g.write(config(1))
	testenv.Eventually(t, deadline, func() error {
		if _, body := fetch(t, c, g.url("web", "/number")); string(body) != "1" {
			return fmt.Errorf("it serves %s", body)
		}
		return nil
	})
}

// A mounted ConfigMap: the config is a link to a link, and a change moves the inner one.
func TestWatcherFollowsLinks(t *testing.T) {
	t.Parallel()
	dir := testenv.Dir(t)
	put := func(version string) {
		must(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		write(t, filepath.Join(dir, version, "menshen.yaml"), fmt.Sprintf("admin: 127.0.0.1:0\naccess_log: none\nlisteners: {web: {address: \"127.0.0.1:0\"}}\nroutes: {number: {match: /number, respond: {body: %q}}}\n", version))
		must(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
		must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	put("v1")
	must(t, os.Mkdir(filepath.Join(dir, "mount"), 0o700))
	must(t, os.Symlink(filepath.Join(dir, "..data", "menshen.yaml"), filepath.Join(dir, "menshen.yaml")))
	g := startAt(t, filepath.Join(dir, "menshen.yaml"))
	c := client(t)
	serves := func(version string) {
		t.Helper()
		testenv.Eventually(t, deadline, func() error {
			if _, body := fetch(t, c, g.url("web", "/number")); string(body) != version {
				return fmt.Errorf("it serves %s, not %s", body, version)
			}
			return nil
		})
	}
	serves("v1")
	put("v2")
	serves("v2")
	put("v3")
	serves("v3")
}

// A folder is one config: a file that is added to it counts, and so does one that goes.
func TestFolderChanges(t *testing.T) {
	t.Parallel()
	dir := testenv.Dir(t)
	write(t, filepath.Join(dir, "base.yaml"), "admin: 127.0.0.1:0\naccess_log: none\nlisteners: {web: {address: \"127.0.0.1:0\"}}\nroutes: {base: {match: /base, respond: 204}}\n")
	g := startAt(t, dir)
	c := client(t)
	status := func(path string, want int) {
		t.Helper()
		testenv.Eventually(t, deadline, func() error {
			if got, _ := fetch(t, c, g.url("web", path)); got != want {
				return fmt.Errorf("%s answers %d, want %d", path, got, want)
			}
			return nil
		})
	}
	status("/base", 204)
	status("/more", 404)
	write(t, filepath.Join(dir, "more.yaml"), "routes: {more: {match: /more, respond: 204}}\n")
	status("/more", 204)
	must(t, os.Remove(filepath.Join(dir, "more.yaml")))
	status("/more", 404)
	status("/base", 204)
}

// What was applied through the admin API stays when a file that it names is renewed, and goes when the config's own file
// is changed or SIGHUP asks for it.
func TestAppliedConfigAndFiles(t *testing.T) {
	t.Parallel()
	before, after := testenv.NewCertificate(t, "before.example"), testenv.NewCertificate(t, "after.example")
	config := func(body string) string {
		return fmt.Sprintf("admin: 127.0.0.1:0\naccess_log: none\nlisteners: {web: {address: \"127.0.0.1:0\"}, tls: {address: \"127.0.0.1:0\", tls: {cert: %q, key: %q}}}\nroutes: {who: {match: /who, respond: {body: %s}}}\n",
			before.CertFile, before.KeyFile, body)
	}
	g := start(t, config("file"))
	c := client(t)
	serves := func(want string) {
		t.Helper()
		testenv.Eventually(t, deadline, func() error {
			if _, body := fetch(t, c, g.url("web", "/who")); string(body) != want {
				return fmt.Errorf("it serves %s, not %s", body, want)
			}
			return nil
		})
	}
	g.apply(config("api"))
	serves("api")
	renewed := read(t, after.CertFile)
	key := read(t, after.KeyFile)
	write(t, before.KeyFile, key)
	write(t, before.CertFile, renewed)
	testenv.Eventually(t, deadline, func() error {
		if got := presented(t, g.addresses["tls"], ""); got != "after.example" {
			return fmt.Errorf("new connections still see %s", got)
		}
		return nil
	})
	serves("api")
	g.hup()
	serves("file")
	g.apply(config("api"))
	serves("api")
	g.write(config("changed"))
	serves("changed")
}
