// Package testenv starts real servers for tests and benchmarks: nginx, MariaDB and HAProxy, each on private ports of 127.0.0.1 with a private
// directory, and never a service of the system. It also has the fakes that misbehave on purpose: Cutter (a network that can be cut, paused and
// slowed) and Script (an upstream that says exactly the bytes it was told to).
//
// Whatever is started here ends with the test that started it. It also ends when the test binary is killed -9 or times out: a small shell process, the
// watchdog, holds the reading end of a pipe, and kills every process group that is still registered when the pipe closes. So no goroutine or
// locked thread of the test binary is needed, and leak checks stay clean once cleanups have run.
//
// A program that is not installed skips the test and names the Debian package; with CI=true in the environment it fails the test instead, so that a
// continuous integration run cannot pass by testing nothing.
//
// Only tests and benchmarks may import this package.
package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// packages names the Debian package of each program that tests look for.
var packages = map[string]string{
	"nginx":              "nginx",
	"haproxy":            "haproxy",
	"mariadbd":           "mariadb-server",
	"mariadb-install-db": "mariadb-server",
	"mariadb":            "mariadb-client",
	"curl":               "curl",
	"wrk":                "wrk",
	"h2load":             "nghttp2-client",
	"caddy":              "caddy",
	"taskset":            "util-linux",
	"sh":                 "dash",
}

// sbin is where servers live that the PATH of an ordinary user does not reach.
var sbin = []string{"/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin", "/opt/homebrew/sbin"}

// Find returns the path of a program in PATH or in one of the usual folders of servers. The error says which package has it.
func Find(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return filepath.Abs(path)
	}
	for _, folder := range sbin {
		if path, err := exec.LookPath(filepath.Join(folder, program)); err == nil {
			return path, nil
		}
	}
	hint := ""
	if p := packages[program]; p != "" {
		hint = fmt.Sprintf(" (Debian package %s; scripts/install-test-servers.sh installs it)", p)
	}
	return "", fmt.Errorf("%s is not installed%s", program, hint)
}

// Lookup returns the path of a program. It skips the test when the program is missing, or fails it when CI=true.
func Lookup(t testing.TB, program string) string {
	t.Helper()
	path, err := Find(program)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

// Eventually calls f until it returns nil, and fails the test with f's last error when the deadline has passed. f runs in the caller's goroutine, at
// least once, with short pauses that grow to 50ms.
func Eventually(t testing.TB, deadline time.Duration, f func() error) {
	t.Helper()
	if err := poll(deadline, f); err != nil {
		t.Fatalf("after %s still: %v", deadline, err)
	}
}

// poll is Eventually without a test to fail.
func poll(deadline time.Duration, f func() error) error {
	end := time.Now().Add(deadline)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := f()
		if err == nil || !time.Now().Before(end) {
			return err
		}
		time.Sleep(pause)
	}
}

// Dir makes a directory with a short path for the files of one server: t.TempDir repeats the test's name, and a Unix socket path must stay
// below 108 bytes. It is removed at cleanup, and by the watchdog when the test binary dies.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", dirPrefix)
	if err != nil {
		t.Fatal(err)
	}
	guard.add(t, 'd', dir)
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
		guard.drop('d', dir)
	})
	return dir
}

// dirPrefix starts the name of every directory made here; the watchdog removes nothing else.
const dirPrefix = "menshen-t-"

// write puts a file into a server's directory and returns its path.
func write(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// tail returns the last lines of a log, at most n of them.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
