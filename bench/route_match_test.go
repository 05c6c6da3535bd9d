//go:build linux

package bench

import (
	"os"
	"os/exec"
	"testing"
)

// BenchmarkRouteMatch asks: how long does it take to find the route among 10, 1,000 and 100,000? The figures are those of the benchmarks in the route
// package, which knows its own cases; here they are only recorded with the others.
func BenchmarkRouteMatch(b *testing.B) {
	const folder = "../internal/httpdoor/route"
	if _, err := os.Stat(folder); err != nil {
		b.Skip("no route package in this tree")
	}
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", ".", "-benchmem", "-count", "3", "-timeout", "10m", ".")
	cmd.Dir = folder
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	report(b, "route-match", "```\n"+string(out)+"```\n")
}
