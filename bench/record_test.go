//go:build linux

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// report prints a scenario's text and, with -record, appends it to results.md together with what is needed to judge it later.
func report(t testing.TB, scenario, text string, programs ...string) {
	t.Helper()
	entry := fmt.Sprintf("\n## %s, %s\n\n%s\n%s", time.Now().UTC().Format(time.DateOnly), scenario, surroundings(programs), text)
	fmt.Fprintln(os.Stderr, entry)
	if !*flagRecord {
		return
	}
	file, err := os.OpenFile("results.md", os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(entry); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// surroundings tells commit, machine and versions.
func surroundings(programs []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "commit %s; %s; %d processors; Linux %s; %s; load average after the run %s",
		output("git", "describe", "--tags", "--always", "--dirty"), cpuModel(), runtime.NumCPU(), output("uname", "-r"), runtime.Version(), loadAverage())
	for _, name := range programs {
		path, err := testenv.Find(name)
		if err != nil {
			continue
		}
		option := "--version"
		switch name {
		case "nginx", "haproxy", "wrk":
			option = "-v"
		case "caddy":
			option = "version"
		}
		out, _ := exec.Command(path, option).CombinedOutput() // wrk exits with 1 after its version
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		if name == "caddy" { // it only says the number
			first = "Caddy " + first
		}
		fmt.Fprintf(&b, "; %s", strings.TrimSpace(first))
	}
	return b.String() + "\n"
}

func output(program string, arguments ...string) string {
	out, err := exec.Command(program, arguments...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
