//go:build linux

package bench

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// BenchmarkLargeBody asks: what does a gigabyte cost on its way through, down and up, and does it stay out of memory?
func BenchmarkLargeBody(b *testing.B) {
	subjectCore, loadCore := cores(b)
	origin, originPID := startOrigin(b, loadCore)
	to := front{origin: origin, nginx: nginxWide + " proxy_max_temp_file_size 0; proxy_request_buffering off; client_body_buffer_size 256k;"}
	subjects := []subject{nginxProxy(b, subjectCore, "nginx 16x32k", to), haproxyHTTP(b, subjectCore, to)}
	for _, g := range gateways(b) {
		subjects = append(subjects, menshenHTTP(b, subjectCore, g, to))
	}
	subjects = append(subjects, blindRelay(b, subjectCore, origin), subject{name: "direct", address: origin})
	const bodies = 2 // at a time
	before, clients := make(map[string]memory), make(map[string]*web)
	for _, s := range subjects {
		clients[s.name] = startWeb(b, loadCore, s, time.Second)
		clients[s.name].do("hold", bodies)
		before[s.name] = memoryOf(b, s.pid)
	}
	var text strings.Builder
	for _, step := range []struct{ name, words string }{{"get", "down"}, {"post", "up"}} {
		progress("large-body: %s", step.words)
		visits := tour(b, subjects, *flagRounds, func(s subject) visit {
			m := startMeter(b, subjectCore, s.pid, originPID)
			r := clients[s.name].do(step.name, bodies)
			var v visit
			m.stop(b, &v)
			v.requests, v.elapsed, v.p50, v.p99 = float64(r.Bytes)/(1<<20), r.Elapsed, r.P50, r.Max
			return v
		})
		fmt.Fprintf(&text, "### 1 GiB %s, %d at a time, %d rounds; p50 and p99 are those of a whole body\n\n%s\n", step.words, bodies, *flagRounds,
			table(subjects, visits, "nginx 16x32k", "MiB"))
	}
	text.WriteString("| subject | resident before | most ever |\n|---|---|---|\n")
	for _, s := range subjects {
		if s.pid != 0 {
			fmt.Fprintf(&text, "| %s | %.1f MiB | %.1f MiB |\n", s.name, mebibytes(before[s.name].now), mebibytes(memoryOf(b, s.pid).most))
		}
	}
	report(b, "large-body", text.String(), "nginx", "haproxy")
}
