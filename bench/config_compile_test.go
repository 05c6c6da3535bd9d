//go:build linux

package bench

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkConfigCompile asks: how long does a configuration with many routes take, from its file to a snapshot that could serve? `menshen check` does all of
// that and exits, so it is what a reload costs, plus the start of a process (the row with 10 routes shows how much that is).
func BenchmarkConfigCompile(b *testing.B) {
	builds := gateways(b)
	if len(builds) == 0 {
		b.Skip("no gateway to measure")
	}
	core, _ := cores(b)
	var text strings.Builder
	text.WriteString("| binary | routes | file | wall, median | CPU, median | memory, most |\n|---|---|---|---|---|---|\n")
	for _, g := range builds {
		for _, routes := range []int{10, 1_000, 10_000} {
			configuration := manyRoutes(routes)
			path := writeFile(b, "menshen.yaml", configuration)
			var wall, cpu, memory []float64
			for range *flagRounds {
				cmd := pinned(b, core, g.path, "check", "-c", path)
				start := time.Now()
				out, err := cmd.CombinedOutput()
				if err != nil {
					b.Fatalf("%v\n%s", err, out)
				}
				wall = append(wall, float64(time.Since(start)))
				cpu = append(cpu, float64(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()))
				memory = append(memory, float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss))
			}
			fmt.Fprintf(&text, "| %s | %d | %d KiB | %s | %s | %.0f MiB |\n", g.label, routes, len(configuration)>>10,
				time.Duration(median(wall)).Round(time.Millisecond), time.Duration(median(cpu)).Round(time.Millisecond), slices.Max(memory)/1024)
		}
	}
	report(b, "config-compile", text.String())
}

// manyRoutes is a configuration as a company with many services has it: hosts with a few dozen routes each, of the usual kinds.
func manyRoutes(n int) string {
	return "listeners: {web: {address: \"127.0.0.1:0\"}}\nservices:\n" + servicesOf() + "routes:\n" + routesOf(n) + "access_log: none\n"
}

func servicesOf() string {
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "  s%d: {endpoints: [127.0.0.1:%d, 127.0.0.1:%d]}\n", i, 20000+2*i, 20001+2*i)
	}
	return b.String()
}

func routesOf(n int) string {
	var b strings.Builder
	for i := range n {
		host := fmt.Sprintf("h%d.example.com", i/40)
		match := fmt.Sprintf("%s/api/v1/thing%d/*", host, i%40)
		switch i % 4 {
		case 1:
			match = fmt.Sprintf("GET %s/things/{id}/part%d", host, i%40)
		case 2:
			match = fmt.Sprintf("%s/exact/page%d", host, i%40)
		}
		fmt.Fprintf(&b, "  r%d: {match: %q, service: s%d}\n", i, match, i%100)
	}
	return b.String()
}
