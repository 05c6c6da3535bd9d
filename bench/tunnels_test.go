//go:build linux

package bench

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkTunnels asks: how much memory does a WebSocket take that waits, and what does a message of 64 bytes cost that is echoed through one of many?
// All tunnels of all subjects stand at the same time; messages go through those of one subject in turn, 64 at a time, so that each tunnel is cold when its
// next message comes.
func BenchmarkTunnels(b *testing.B) {
	subjectCore, loadCore := cores(b)
	origin, originPID := startOrigin(b, loadCore)
	to := front{origin: origin}
	subjects := []subject{nginxProxy(b, subjectCore, "nginx", to), haproxyHTTP(b, subjectCore, to)}
	for _, g := range gateways(b) {
		subjects = append(subjects, menshenHTTP(b, subjectCore, g, to))
	}
	// The origin holds all of them.
	all := min(5_000, (descriptors(b)-300)/len(subjects))
	clients := make(map[string]*web)
	var held strings.Builder
	held.WriteString("| subject | resident with 500 | with all | each | after the messages |\n|---|---|---|---|---|\n")
	var before []memory
	progress("tunnels: %d for each subject", all)
	for _, s := range subjects {
		w := startWeb(b, loadCore, s, *flagVisit/2)
		clients[s.name] = w
		w.do("tunnels", 500)
		few := settled(b, s.pid)
		w.do("tunnels", all)
		before = append(before, few, settled(b, s.pid))
	}
	visits := tour(b, subjects, *flagRounds, func(s subject) visit {
		m := startMeter(b, subjectCore, s.pid, originPID)
		r := clients[s.name].do("echo", 64)
		var v visit
		m.stop(b, &v)
		v.requests, v.elapsed, v.p50, v.p99 = float64(r.Requests), r.Elapsed, r.P50, r.P99
		return v
	})
	for i, s := range subjects {
		few, full := before[2*i], before[2*i+1]
		fmt.Fprintf(&held, "| %s | %.1f MiB | %.1f MiB | %.2f KiB | %.1f MiB |\n", s.name, mebibytes(few.now), mebibytes(full.now),
			float64(full.now-few.now)/float64(all-500)/1024, mebibytes(settled(b, s.pid).now))
	}
	report(b, "tunnels", fmt.Sprintf("### %d tunnels for each subject, %d rounds of %s\n\n%s\n%s\n", all, *flagRounds, *flagVisit/2,
		table(subjects, visits, "nginx", "message"), held.String()), "nginx", "haproxy")
}
