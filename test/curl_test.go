package test

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// bigBytes is the size of the bodies that must not fit into any buffer on the way.
const bigBytes = 100 << 20

// big writes a file in which each block differs, and gives its digest.
func big(t testing.TB, path string, size int) [sha256.Size]byte {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	h := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, h), 1<<20)
	for n := 0; n < size; n += 16 {
		fmt.Fprintf(w, "%015d\n", n)
	}
	must(t, w.Flush())
	return [sha256.Size]byte(h.Sum(nil))
}

func digest(t testing.TB, path string) [sha256.Size]byte {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	must(t, err)
	return [sha256.Size]byte(h.Sum(nil))
}

// curl runs it quietly and gives what -w asked for.
func curl(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command(testenv.Lookup(t, "curl"), append([]string{"-sS", "--max-time", "120", "--noproxy", "*"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("curl %s: %v %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// pages runs nginx behind a gateway with a plain and a TLS listener.
func pages(t testing.TB) (g *gateway, n *testenv.Server, ca string) {
	t.Helper()
	cert := testenv.NewCertificate(t)
	n = testenv.Nginx(t, testenv.NginxConf{})
	g = start(t, fmt.Sprintf(`
admin: "127.0.0.1:0"
listeners:
  web: {address: "127.0.0.1:0"}
  tls: {address: "127.0.0.1:0", tls: {cert: %q, key: %q}}
services:
  pages: {endpoints: [%q]}
routes:
  pages: {match: /*, service: pages}
access_log: none
`, cert.CertFile, cert.KeyFile, n.Address))
	return g, n, cert.AuthorityFile
}

// A hundred megabytes go down and up unchanged, in plain text and over TLS.
func TestBigBodies(t *testing.T) {
	g, n, ca := pages(t)
	dir := testenv.Dir(t)
	source := filepath.Join(n.Dir, "html", "big")
	want := big(t, source, bigBytes)
	got := filepath.Join(dir, "got")
	for base, version := range map[string]string{g.url("web", ""): "1.1", "https://" + g.addresses["tls"]: "2"} {
		if out := curl(t, "--cacert", ca, "-o", got, "-w", "%{http_code} %{size_download} %{http_version}", base+"/big"); out != fmt.Sprintf("200 %d %s", bigBytes, version) {
			t.Errorf("download: %s", out)
		}
		if digest(t, got) != want {
			t.Errorf("%s: the download differs", base)
		}
		// curl asks with Expect: 100-continue before it sends so much.
		for name, more := range map[string][]string{"length": nil, "chunked": {"-H", "Transfer-Encoding: chunked"}, "unasked": {"-H", "Expect:"}} {
			out := curl(t, append(more, "--cacert", ca, "--expect100-timeout", "60", "-T", source, "-o", "/dev/null", "-w", "%{http_code}", base+"/files/"+name)...)
			if out != "201" && out != "204" {
				t.Errorf("upload %s: %s", name, out)
			}
			if digest(t, filepath.Join(n.Dir, "html", "files", name)) != want {
				t.Errorf("%s: the upload %s differs", base, name)
			}
		}
	}
}

func TestCurl(t *testing.T) {
	t.Parallel()
	g, _, ca := pages(t)
	url := func(path string) string { return g.url("web", path) }
	f := func(want string, args ...string) {
		t.Helper()
		if got := curl(t, args...); got != want {
			t.Errorf("curl %s gives %q, want %q", strings.Join(args, " "), got, want)
		}
	}
	const about = "%{http_code} %{http_version} %{size_download} %{num_connects}\n"
	f(string(testenv.Body("/100")), url("/100"))
	f(string(testenv.Body("/10k")), url("/chunked"))
	f("200 1.1 10240 1\n200 1.1 10240 0\n", "-o", "/dev/null", "-o", "/dev/null", "-w", about, url("/chunked"), url("/chunked"))
	f("200 1.1 0 1\n200 1.1 100 0\n", "-I", "-o", "/dev/null", "-w", about, url("/10k"), "--next", "-sS", "--noproxy", "*", "-o", "/dev/null", "-w", about, url("/100"))
	f("200 1.1 10240 1\n200 1.1 10240 1\n", "--http1.0", "-o", "/dev/null", "-o", "/dev/null", "-w", about, url("/10k"), url("/chunked"))
	f("200 1.1 10240 1\n200 1.1 100 0\n", "--http1.0", "-H", "Connection: keep-alive", "-o", "/dev/null", "-o", "/dev/null", "-w", about, url("/10k"), url("/100"))
	f("304 1.1 0 1\n404 1.1 0 0\n", "-o", "/dev/null", "-w", about, url("/status/304"), "--next", "-sS", "--noproxy", "*", "-o", "/dev/null", "-w", strings.Replace(about, "%{size_download}", "0", 1), url("/missing"))
	f("206 1.1 10 1\n", "-r", "100-109", "-o", "/dev/null", "-w", about, url("/10k"))
	f("200 1.1 100 1\n", "--http1.1", "--cacert", ca, "-o", "/dev/null", "-w", about, "https://"+g.addresses["tls"]+"/100")
	f("200 2 100 1\n", "--cacert", ca, "-o", "/dev/null", "-w", about, "https://"+g.addresses["tls"]+"/100")

	// The endpoint sees one hop more and nothing of the first hop's own.
	echo := curl(t, "-H", "Connection: close, X-Test", "-H", "X-Test: hop", "-H", "TE: trailers", "-H", "X-Request-Id: from-me", "-H", "Host: a.example", "-i", url("/echo/a%20b?q=1"))
	for _, want := range []string{"request: GET /echo/a%20b?q=1 HTTP/1.1\n", "host: a.example\n", "x-forwarded-for: 127.0.0.1\n", "x-forwarded-proto: http\n", "x-forwarded-host: a.example\n", "x-request-id: from-me\n",
		"\nx-test: \n", "\nX-Request-Id: from-me\r\n", "\nConnection: close\r\n", "\nX-Response-Time: ", "\nServer-Timing: "} {
		if !strings.Contains(echo, want) {
			t.Errorf("no %q in:\n%s", want, echo)
		}
	}
}

// What comes piece by piece is passed on piece by piece.
func TestStreamIsNotHeldBack(t *testing.T) {
	t.Parallel()
	step := make(chan string)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for s := range step {
			fmt.Fprintf(w, "data: %s\n\n", s)
			_ = http.NewResponseController(w).Flush()
		}
	})}
	go func() { _ = server.Serve(ln) }() // ends with Close
	defer server.Close()
	g := start(t, fmt.Sprintf("admin: 127.0.0.1:0\naccess_log: none\nlisteners: {web: {address: \"127.0.0.1:0\"}}\nroutes: {all: {match: /*, service: {endpoints: [%q]}}}\n", ln.Addr()))
	events := make(chan string, 1)
	go func() { // ends with the response
		defer close(events)
		resp, err := client(t).Get(g.url("web", "/events"))
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			if lines.Text() != "" {
				events <- lines.Text()
			}
		}
	}()
	for _, s := range []string{"one", "two", strings.Repeat("long", 10000), "four"} {
		step <- s
		timer := time.NewTimer(deadline)
		select {
		case got := <-events:
			if got != "data: "+s {
				t.Fatalf("the client sees %.40q, want %.40q", got, s)
			}
		case <-timer.C:
			t.Fatalf("%.40q does not reach the client", s)
		}
		timer.Stop()
	}
	close(step)
	if extra, more := <-events; more {
		t.Errorf("more: %q", extra)
	}
}
