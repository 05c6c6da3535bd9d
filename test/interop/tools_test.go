package interop

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// tools is a gateway before an endpoint that sends back what it gets, and large bytes for GET.
func tools(t *testing.T) (addresses map[string]string, large []byte, ca string) {
	t.Helper()
	large = make([]byte, 5<<20)
	_, _ = rand.Read(large)
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			body, _ := io.ReadAll(r.Body)
			_, _ = w.Write(body)
		case r.URL.Path == "/large":
			_, _ = w.Write(large)
		default:
			fmt.Fprintf(w, "hello from %s", r.URL.Path)
		}
	}))
	t.Cleanup(endpoint.Close)
	c := testenv.NewCertificate(t)
	return start(t, fmt.Sprintf(`
listeners:
  plain: {address: "127.0.0.1:0"}
  secure: {address: "127.0.0.1:0", tls: {cert: %q, key: %q}}
services: {a: {endpoints: [%q]}}
routes: {all: {match: /*, service: a}}
access_log: none
`, c.CertFile, c.KeyFile, endpoint.Listener.Addr().String())), large, c.AuthorityFile
}

func run(t *testing.T, program string, arguments ...string) []byte {
	t.Helper()
	cmd := exec.Command(testenv.Lookup(t, program), arguments...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", program, strings.Join(arguments, " "), err, out, &stderr)
	}
	return out
}

func TestCurl(t *testing.T) {
	t.Parallel()
	addresses, large, ca := tools(t)
	upload := filepath.Join(t.TempDir(), "upload")
	if err := os.WriteFile(upload, large, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, how := range [][]string{
		{"--http2-prior-knowledge", "http://" + addresses["plain"]},
		{"--http2", "--cacert", ca, "https://" + addresses["secure"]},
	} {
		url := how[len(how)-1]
		f := func(path string, want []byte, more ...string) {
			t.Helper()
			arguments := append(append([]string{"-sS", "--max-time", "30", "-w", "%{stderr}%{http_version}"}, how[:len(how)-1]...), more...)
			cmd := exec.Command(testenv.Lookup(t, "curl"), append(arguments, url+path)...)
			var version bytes.Buffer
			cmd.Stderr = &version
			got, err := cmd.Output()
			if err != nil || !bytes.Equal(got, want) || version.String() != "2" {
				t.Errorf("%s %v: %d bytes, version %s, %v", path, how, len(got), &version, err)
			}
		}
		f("/x", []byte("hello from /x"))
		f("/large", large)
		f("/up", large, "--data-binary", "@"+upload)
		f("/up", large, "--data-binary", "@"+upload, "-H", "Expect: 100-continue")
		f("/none", nil, "--head", "-o", "/dev/null")
	}
	// HTTP/2 asked for by an upgrade was withdrawn (RFC 9113, 3.1): it stays HTTP/1.1.
	if got := run(t, "curl", "-sS", "--max-time", "30", "--http2", "-w", " %{http_version}", "http://"+addresses["plain"]+"/x"); string(got) != "hello from /x 1.1" {
		t.Errorf("upgrade: %q", got)
	}
}

func TestNghttp(t *testing.T) {
	t.Parallel()
	addresses, large, _ := tools(t)
	for _, url := range []string{"http://" + addresses["plain"], "https://" + addresses["secure"]} {
		if got := run(t, "nghttp", "-t", "30", "--no-dep", url+"/large"); !bytes.Equal(got, large) {
			t.Errorf("%s: %d bytes", url, len(got))
		}
		out := run(t, "nghttp", "-t", "30", "-nv", "-m", "20", url+"/x") // with its priorities
		if n := strings.Count(string(out), ":status: 200"); n != 20 {
			t.Errorf("%s: %d answers of 20:\n%s", url, n, out)
		}
	}
}

func TestH2load(t *testing.T) {
	t.Parallel()
	addresses, _, _ := tools(t)
	f := func(requests int, arguments ...string) {
		t.Helper()
		out := run(t, "h2load", append([]string{"-n", fmt.Sprint(requests)}, arguments...)...)
		if !regexp.MustCompile(fmt.Sprintf(`%d done, %d succeeded, 0 failed`, requests, requests)).Match(out) {
			t.Errorf("%v:\n%s", arguments, out)
		}
	}
	f(20000, "-c", "10", "-m", "50", "http://"+addresses["plain"]+"/x")
	f(5000, "-c", "10", "-m", "50", "https://"+addresses["secure"]+"/x")
	f(100, "-c", "4", "-m", "5", "https://"+addresses["secure"]+"/large")
	f(100, "-c", "4", "-m", "5", "-w", "16", "-W", "17", "http://"+addresses["plain"]+"/large") // with small windows
}
