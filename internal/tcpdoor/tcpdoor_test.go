package tcpdoor

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/menshen-gateway/menshen/internal/config"
	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/testenv"
	"github.com/menshen-gateway/menshen/internal/traffic/services"
	"github.com/menshen-gateway/menshen/internal/traffic/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nothing is what an endpoint keeps for a tcp service.
type nothing struct{}

func (nothing) Close() error { return nil }

// door is a Door under test with one listener, "raw".
type door struct {
	*Door
	t       *testing.T
	address string
	ln      net.Listener
	set     *upstream.Set
	log     *bytes.Buffer // of the access log; to be read after stop
	stop    func()
}

// serve opens a door for a config. change has a hand in the connections that it accepts.
func serve(t *testing.T, yaml string, change func(net.Conn) net.Conn) *door {
	t.Helper()
	c, err := config.Parse(config.File{Name: "test.yaml", Data: []byte(yaml)})
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	registry := upstream.NewRegistry(quiet)
	generation := registry.Begin()
	all, problems := services.Compile(c, generation, func(*services.Service, string) io.Closer { return nothing{} })
	tables, more := Compile(c, 1, all, observe.NewMetrics())
	if problems = append(problems, more...); len(problems) > 0 {
		t.Fatal(problems)
	}
	generation.Commit()
	d := &door{t: t, log: new(bytes.Buffer)}
	for _, s := range all { // the only one
		d.set = s.Set
	}
	access := observe.NewAccessLog(d.log)
	d.Door = New(Options{Tables: func() *Tables { return tables }, Log: quiet, Access: access})
	if d.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	d.address = d.ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- d.Serve(context.Background(), changing{d.ln, change}, "raw") }()
	d.stop = sync.OnceFunc(func() {
		d.ln.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = d.Drain(ctx, "")
		if err := <-served; err != nil {
			t.Error(err)
		}
		registry.Close()
		_ = access.Close()
	})
	t.Cleanup(d.stop)
	return d
}

type changing struct {
	net.Listener
	change func(net.Conn) net.Conn
}

func (l changing) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil && l.change != nil {
		c = l.change(c)
	}
	return c, err
}

// endpoint calls serve for each connection, in a goroutine of its own, and closes it then.
func endpoint(t *testing.T, serve func(net.Conn)) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); group.Wait() })
	return ln.Addr().String()
}

// repeat is an endpoint that says its name and then sends everything back.
func repeat(t *testing.T, name string) (address string) {
	t.Helper()
	return endpoint(t, func(c net.Conn) {
		_, _ = io.WriteString(c, name)
		_, _ = io.Copy(c, c)
	})
}

func (d *door) dial() net.Conn {
	d.t.Helper()
	c, err := net.Dial("tcp", d.address)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// hears reads so many bytes as want has.
func hears(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("heard %q, %v; want %q", got, err, want)
	}
}

// ended says that there is nothing more.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("the connection goes on: %q, %v", rest, err)
	}
}

const one = `
listeners: {raw: {address: "127.0.0.1:0", protocol: tcp, service: a%s}}
services: {a: {endpoints: [%s], outlier: {consecutive_failures: 0}}}
`

func TestRelays(t *testing.T) {
	t.Parallel()
	site := testenv.NewCertificate(t)
	for name, settings := range map[string]string{"plain": "", "TLS": fmt.Sprintf(", tls: {cert: %q, key: %q}", site.CertFile, site.KeyFile)} {
		d := serve(t, fmt.Sprintf(one, settings, repeat(t, "me")), nil)
		c := d.dial()
		half := c.(interface{ CloseWrite() error })
		if settings != "" {
			tc := tls.Client(c, &tls.Config{RootCAs: site.Pool, ServerName: "localhost"})
			c, half = tc, tc
		}
		hears(t, c, "me")
		long := strings.Repeat("0123456789", 50_000)
		go func() {
			_, _ = io.WriteString(c, long)
			_ = half.CloseWrite() // and the answer still comes
		}()
		hears(t, c, long)
		ended(t, c)
		d.stop()
		want := fmt.Sprintf(`"bytes_in":%d,"bytes_out":%d`, len(long), len(long)+2)
		if log := d.log.String(); !strings.Contains(log, want) || !strings.Contains(log, `"door":"tcp"`) || strings.Contains(log, "fault") {
			t.Errorf("%s: %s does not say %s", name, log, want)
		}
		if active := d.set.Status().Endpoints[0].Active; active != 0 {
			t.Errorf("%s: %d leases are left", name, active)
		}
	}
}

func TestConnectsElsewhere(t *testing.T) {
	t.Parallel()
	d := serve(t, fmt.Sprintf(one, "", testenv.FreeAddress(t)+", "+repeat(t, "me")), nil)
	for range 4 {
		hears(t, d.dial(), "me")
	}
	dead := serve(t, fmt.Sprintf(one, "", testenv.FreeAddress(t)), nil)
	ended(t, dead.dial())
	dead.stop()
	if log := dead.log.String(); !strings.Contains(log, `"fault":"connect_failed"`) {
		t.Error(log)
	}
	if active := dead.set.Status().Endpoints[0].Active; active != 0 {
		t.Errorf("%d leases are left", active)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, limits := range []string{"connections: 2", "connections_per_address: 2"} {
		d := serve(t, fmt.Sprintf(one, ", limits: {"+limits+"}", repeat(t, "me")), nil)
		first, second := d.dial(), d.dial()
		hears(t, first, "me")
		hears(t, second, "me")
		ended(t, d.dial())
		first.Close()
		testenv.Eventually(t, 20*time.Second, func() error {
			c := d.dial()
			defer c.Close()
			if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
				return fmt.Errorf("%s: a connection that has ended still counts", limits)
			}
			return nil
		})
	}
	site := testenv.NewCertificate(t)
	d := serve(t, fmt.Sprintf(one, fmt.Sprintf(", timeouts: {request_header: 100ms}, tls: {cert: %q, key: %q}", site.CertFile, site.KeyFile), repeat(t, "me")), nil)
	ended(t, d.dial()) // silent in its handshake
	c := d.dial()
	_, _ = io.WriteString(c, "no TLS at all\n")
	_, _ = io.Copy(io.Discard, c)
	if active := d.set.Status().Endpoints[0].Active; active != 0 {
		t.Errorf("%d leases for connections without a handshake", active)
	}
	idle := serve(t, fmt.Sprintf(one, ", timeouts: {idle: 100ms}", repeat(t, "me"))+"\n", nil)
	c = idle.dial()
	hears(t, c, "me")
	ended(t, c)
}

// Connections in which nothing moves need no goroutine on the own poller, and go on as if nothing had been; on the runtime's, too. It is not parallel, or it would count the
// goroutines of others.
func TestIdleConnections(t *testing.T) {
	const connections = 200
	for _, io := range []string{config.IOAuto, config.IONetpoll} {
		d := serve(t, fmt.Sprintf(one, ", io: "+io, repeat(t, "me")), nil)
		before := runtime.NumGoroutine()
		clients := make([]net.Conn, connections)
		for i := range clients {
			clients[i] = d.dial()
			hears(t, clients[i], "me")
		}
		if io == config.IOAuto && runtime.GOOS == "linux" {
			testenv.Eventually(t, 20*time.Second, func() error {
				if now := runtime.NumGoroutine() - connections; now > before+20 { // each has one in its endpoint
					return fmt.Errorf("%d idle connections have %d goroutines", connections, now-before)
				}
				return nil
			})
		}
		for i, c := range clients {
			message := fmt.Sprintf("still there, %d", i)
			if _, err := c.Write([]byte(message)); err != nil {
				t.Fatal(err)
			}
			hears(t, c, message)
			c.Close()
		}
		testenv.Eventually(t, 20*time.Second, func() error {
			if n := d.Count(); n > 0 {
				return fmt.Errorf("%d connections are left", n)
			}
			return nil
		})
		d.stop()
		if n := strings.Count(d.log.String(), "\n"); n != connections {
			t.Errorf("%s: %d records of %d connections", io, n, connections)
		}
	}
}

// A drain waits for connections that end by themselves, and cuts the others when its time is over.
func TestDrain(t *testing.T) {
	t.Parallel()
	d := serve(t, fmt.Sprintf(one, "", repeat(t, "me")), nil)
	ends, stays := d.dial(), d.dial()
	hears(t, ends, "me")
	hears(t, stays, "me")
	d.ln.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- d.Drain(ctx, "raw") }()
	_, _ = io.WriteString(ends, "still there")
	hears(t, ends, "still there")
	ends.Close()
	_, _ = io.WriteString(stays, "me too")
	hears(t, stays, "me too")
	select {
	case err := <-drained:
		t.Errorf("the drain is over while a connection lives: %v", err)
	default:
	}
	cancel()
	if err := <-drained; err == nil {
		t.Error("a drain that had to cut says nothing")
	}
	ended(t, stays)
}

// A connection that is not introduced yet, or has not shaken hands, is cut as well.
func TestDrainCutsWhoSaysNothing(t *testing.T) {
	t.Parallel()
	site := testenv.NewCertificate(t)
	for _, settings := range []string{", proxy_protocol: [127.0.0.1]", fmt.Sprintf(", tls: {cert: %q, key: %q}", site.CertFile, site.KeyFile)} {
		d := serve(t, fmt.Sprintf(one, ", timeouts: {request_header: 10m}"+settings, repeat(t, "me")), nil)
		silent := d.dial()
		testenv.Eventually(t, 20*time.Second, func() error {
			if d.Count() == 0 {
				return fmt.Errorf("not accepted yet")
			}
			return nil
		})
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := d.Drain(ctx, "raw"); err == nil {
			t.Errorf("%s: a drain that had to cut says nothing", settings)
		}
		ended(t, silent)
	}
}

// A bug costs one connection: not the process, no lease, and no place among the connections, also while the connection is introduced.
func TestPanicCostsOneConnection(t *testing.T) {
	t.Parallel()
	for settings, introduction := range map[string]string{"": "", ", proxy_protocol: [127.0.0.1]": "PROXY UNKNOWN\r\n"} {
		var mu sync.Mutex
		next := ""
		d := serve(t, fmt.Sprintf(one, ", limits: {connections: 1}"+settings, repeat(t, "me")), func(c net.Conn) net.Conn {
			mu.Lock()
			defer mu.Unlock()
			return buggy{c, next}
		})
		for _, where := range []string{"read", "write", ""} {
			mu.Lock()
			next = where
			mu.Unlock()
			c := d.dial()
			_, _ = io.WriteString(c, introduction+"x")
			if where == "" {
				hears(t, c, "mex")
				c.Close()
			}
			_, _ = io.Copy(io.Discard, c) // until it ends
			testenv.Eventually(t, 20*time.Second, func() error {
				if active, open := d.set.Status().Endpoints[0].Active, d.Count(); active != 0 || open != 0 {
					return fmt.Errorf("%d leases and %d connections are left", active, open)
				}
				return nil
			})
		}
	}
}

// buggy is a connection in which one method has a bug.
type buggy struct {
	net.Conn
	where string
}

func (b buggy) Read(p []byte) (int, error) {
	if b.where == "read" {
		panic("BUG: reading")
	}
	return b.Conn.Read(p)
}

func (b buggy) Write(p []byte) (int, error) {
	if b.where == "write" {
		panic("BUG: writing")
	}
	return b.Conn.Write(p)
}

func (b buggy) CloseWrite() error { return b.Conn.(*net.TCPConn).CloseWrite() }
