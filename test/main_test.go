// Package test drives the whole binary: built once, with the race detector, and run between real peers (nginx, MariaDB,
// curl) on private ports. What a user types and sees at the command line stands in script/*.txt; what moves bytes is
// Go, one file for each promise: reloads, listeners, stopping, refusals, TLS, bodies, endpoints that fail, records.
//
// Nothing here sleeps: what takes its time is polled with testenv.Eventually.
package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// binary is the gateway under test.
var binary string

func TestMain(m *testing.M) {
	if arguments := os.Getenv(chaosEndpointVariable); arguments != "" { // the chaos test runs this binary as an endpoint
		os.Exit(serveChaos(arguments))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "menshen-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "menshen")
	build := exec.Command("go", "build", "-race", "-pgo=off", "-ldflags", "-X main.version=v0.0.0-test", "-o", binary, "../cmd/menshen")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the gateway: %v\n%s", err, out)
		return 2
	}
	return m.Run()
}

// deadline is how long anything may take that ought to happen at once: the machine may be busy with other tests.
const deadline = 20 * time.Second

// gateway is a running menshen.
type gateway struct {
	*testenv.Process
	t         testing.TB
	config    string            // path of its configuration
	addresses map[string]string // as the ready line gave them
	stdout    string            // path
	stderr    string            // path
}

// start runs the gateway with a configuration and waits for its ready line. The configuration needs an admin address for
// most of what the gateway's methods do.
func start(t testing.TB, config string, env ...string) *gateway {
	t.Helper()
	dir := testenv.Dir(t)
	path := filepath.Join(dir, "menshen.yaml")
	write(t, path, config)
	return startAt(t, path, env...)
}

// startAt is start with a configuration that is there already.
func startAt(t testing.TB, path string, env ...string) *gateway {
	t.Helper()
	dir := testenv.Dir(t)
	g := &gateway{t: t, config: path, stdout: filepath.Join(dir, "stdout"), stderr: filepath.Join(dir, "stderr")}
	cmd := exec.Command(binary, "run", "-c", path)
	cmd.Env = append(append(os.Environ(), "GORACE=halt_on_error=1 atexit_sleep_ms=0"), env...)
	stdout, err := os.Create(g.stdout)
	must(t, err)
	defer stdout.Close()
	stderr, err := os.Create(g.stderr)
	must(t, err)
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	t.Cleanup(func() { // after the process has ended: Start's own cleanup runs before this one
		log := g.log()
		for _, bad := range []string{"DATA RACE", "BUG", "panic:"} {
			if strings.Contains(log, bad) {
				t.Errorf("the gateway's log has %q:\n%s", bad, log)
				return
			}
		}
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", tail(log, 60))
		}
	})
	g.Process = testenv.Start(t, cmd)
	testenv.Eventually(t, 60*time.Second, func() error {
		select {
		case <-g.Done():
			t.Fatalf("the gateway ended with exit code %d:\n%s", g.Exit(), g.log())
		default:
		}
		line, _, whole := strings.Cut(read(t, g.stdout), "\n")
		if !whole {
			return fmt.Errorf("no ready line")
		}
		_, list, _ := strings.Cut(line, " ready: ")
		g.addresses = map[string]string{}
		for _, field := range strings.Fields(list) {
			name, address, _ := strings.Cut(field, "=")
			g.addresses[name] = address
		}
		return nil
	})
	return g
}

// url gives the address of something on an http listener.
func (g *gateway) url(listener, path string) string { return "http://" + g.addresses[listener] + path }

// log is what the gateway wrote to standard error.
func (g *gateway) log() string { return read(g.t, g.stderr) }

// write replaces the configuration's file, as an editor would: a new file under the old name.
func (g *gateway) write(config string) {
	g.t.Helper()
	write(g.t, g.config+".new", config)
	must(g.t, os.Rename(g.config+".new", g.config))
}

// state is GET /api/v1/config.
type state struct {
	Generation uint64
	SHA256     string
	Source     string
	LastReload struct {
		OK       bool
		Error    string
		Problems []problem
	} `json:"last_reload"`
	Config map[string]any
}

type problem struct {
	File, Path, Message string
	Line, Column        int
}

// state asks the admin API what is in service.
func (g *gateway) state() (s state) {
	g.t.Helper()
	g.admin("/api/v1/config", &s)
	return s
}

// admin reads a JSON document of the admin API.
func (g *gateway) admin(path string, into any) {
	g.t.Helper()
	status, body := fetch(g.t, http.DefaultClient, g.url("admin", path))
	if status != 200 {
		g.t.Fatalf("GET %s: %d %s", path, status, body)
	}
	must(g.t, json.Unmarshal(body, into))
}

// post sends something to the admin API.
func (g *gateway) post(path, body string) (int, []byte) {
	g.t.Helper()
	resp, err := http.Post(g.url("admin", path), "application/yaml", strings.NewReader(body))
	must(g.t, err)
	return drain(g.t, resp)
}

// apply posts a configuration and expects it to be taken.
func (g *gateway) apply(config string) {
	g.t.Helper()
	if status, body := g.post("/api/v1/config", config); status != 200 {
		g.t.Fatalf("the configuration is refused: %d %s", status, body)
	}
}

// hup sends SIGHUP and waits until the reload is done.
func (g *gateway) hup() {
	g.t.Helper()
	before := g.reloads("success")
	must(g.t, g.Signal(syscall.SIGHUP))
	g.reloaded(before)
}

// reloaded waits until there were more than before successful reloads.
func (g *gateway) reloaded(before float64) {
	g.t.Helper()
	testenv.Eventually(g.t, deadline, func() error {
		if now := g.reloads("success"); now <= before {
			return fmt.Errorf("no reload: %v successful ones so far", now)
		}
		return nil
	})
}

func (g *gateway) reloads(result string) float64 {
	g.t.Helper()
	return g.metrics()[`menshen_reloads_total{result="`+result+`"}`]
}

// metrics scrapes all metrics, by name and labels as they are printed. A line that cannot be read fails the test.
func (g *gateway) metrics() map[string]float64 {
	g.t.Helper()
	status, body := fetch(g.t, http.DefaultClient, g.url("admin", "/metrics"))
	if status != 200 {
		g.t.Fatalf("GET /metrics: %d", status)
	}
	all := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			g.t.Fatalf("metric %q: %v", line, err)
		}
		all[line[:at]] = value
	}
	return all
}

// client is an HTTP client with connections of its own, closed at cleanup. Redirects are not followed, nothing is decoded,
// and it uses one connection at a time.
func client(t testing.TB) *http.Client {
	tr := &http.Transport{MaxConnsPerHost: 1, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 60 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// counting makes a client count the connections that it opens.
func counting(c *http.Client) (dials func() int) {
	n := make(chan int, 1)
	n <- 0
	c.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		n <- 1 + <-n
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return func() int {
		v := <-n
		n <- v
		return v
	}
}

// fetch gets a URL.
func fetch(t testing.TB, c *http.Client, url string) (int, []byte) {
	t.Helper()
	resp, err := c.Get(url)
	must(t, err)
	return drain(t, resp)
}

// drain reads a response to its end.
func drain(t testing.TB, resp *http.Response) (int, []byte) {
	t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, body
}

// menshen runs a command to its end.
func menshen(t testing.TB, args ...string) (exit int, stdout, stderr string) {
	t.Helper()
	var out, log bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	cmd.Stdout, cmd.Stderr = &out, &log
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("menshen %v does not end", args)
	}
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), log.String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
