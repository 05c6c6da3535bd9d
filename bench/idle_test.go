//go:build linux

package bench

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// BenchmarkIdle asks: how much memory does a connection take that has nothing to say? Each has had one answer, one after the other, so that few
// connections to the origin are needed; the slope from the first thousand to the last is its share. Then a burst on half of them at once: what is left of that?
func BenchmarkIdle(b *testing.B) {
	subjectCore, loadCore := cores(b)
	origin, _ := startOrigin(b, loadCore)
	// A subject needs two descriptors for a connection in a burst, and some of its own.
	all := min(10_000, (descriptors(b)-300)/2)
	if all < 2_000 {
		b.Skipf("only %d descriptors", descriptors(b))
	}
	var text strings.Builder
	for _, kind := range []struct {
		name string
		all  int
		tls  *certificate
	}{{"plain text", all, nil}, {"TLS 1.3", all / 2, newCertificate(b)}} {
		to := front{origin: origin, tls: kind.tls}
		subjects := []subject{nginxProxy(b, subjectCore, "nginx", to), haproxyHTTP(b, subjectCore, to)}
		for _, g := range gateways(b) {
			subjects = append(subjects, menshenHTTP(b, subjectCore, g, to))
		}
		if kind.tls == nil {
			subjects = append(subjects, caddyHTTP(b, subjectCore, to)...)
		}
		progress("idle: %d connections, %s", kind.all, kind.name)
		fmt.Fprintf(&text, "### %d idle connections, %s\n\n| subject | resident at start | with 1,000 | with all | each | after a burst |\n|---|---|---|---|---|---|\n", kind.all, kind.name)
		for _, s := range subjects {
			first := memoryOf(b, s.pid)
			hold, burst := holders(b, loadCore, s, kind.tls != nil)
			hold(1_000)
			thousand := settled(b, s.pid)
			hold(kind.all)
			full := settled(b, s.pid)
			after := "-"
			if burst != nil {
				burst(kind.all / 2)
				after = fmt.Sprintf("%.1f MiB", mebibytes(settled(b, s.pid).now))
			}
			fmt.Fprintf(&text, "| %s | %.1f MiB | %.1f MiB | %.1f MiB | %.2f KiB | %s |\n", s.name, mebibytes(first.now), mebibytes(thousand.now), mebibytes(full.now),
				float64(full.now-thousand.now)/float64(kind.all-1_000)/1024, after)
		}
		text.WriteString("\n")
	}
	report(b, "idle", text.String(), "nginx", "haproxy", "caddy")
}

// holders start the client and give what has it hold a number of connections, and ask on many at once; the client of TLS cannot.
func holders(b *testing.B, core int, s subject, secure bool) (hold, burst func(int)) {
	b.Helper()
	if !secure {
		w := startWeb(b, core, s, time.Second)
		return func(n int) { w.do("hold", n) }, func(n int) { w.do("burst", n) }
	}
	cmd := role(b, core, "tls-client", "-address", s.address, "-hold")
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		input.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewReader(output)
	return func(n int) {
		b.Helper()
		fmt.Fprintln(input, n)
		if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintln(n) {
			b.Fatalf("client of %s: %q, %v", s.name, line, err)
		}
	}, nil
}
