//go:build linux

package bench

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// BenchmarkReload asks: how long does it take from a changed file with 10,000 routes to the first request that sees the change, and what do other
// requests notice? Menshen watches its file, and is also told by a signal, as nginx and HAProxy are. Meanwhile a client sends 1,000 requests a second.
func BenchmarkReload(b *testing.B) {
	subjectCore, loadCore := cores(b)
	origin, _ := startOrigin(b, loadCore)
	to := front{origin: origin}
	type row struct {
		took, before, late, worst []float64
		closed, failed            int
	}
	subjects := []reloadable{nginxReload(b, subjectCore, to), haproxyReload(b, subjectCore, to)}
	for _, g := range gateways(b) {
		subjects = append(subjects, menshenReload(b, subjectCore, g, to, false), menshenReload(b, subjectCore, g, to, true))
	}
	rows := make([]row, len(subjects))
	clients := make([]*web, len(subjects))
	const length, quiet = 3 * time.Second, time.Second
	pin(b, os.Getpid(), loadCore) // what asks for the new route here is none of the subject's business
	defer unpin(b, subjectCore, loadCore)
	for i, s := range subjects {
		clients[i] = startWeb(b, loadCore, s.subject, length)
	}
	for round := range *flagRounds {
		for i := range subjects {
			s, r := &subjects[i], &rows[i]
			progress("reload: %s", s.name)
			path := fmt.Sprintf("/new/%d", round)
			clients[i].begin("pace", 1000)
			text := []byte(s.text(path))
			time.Sleep(quiet) // latency without a reload is measured first
			began := time.Now()
			if err := os.WriteFile(s.file, text, 0o600); err != nil {
				b.Fatal(err)
			}
			if s.tell != nil {
				s.tell()
			}
			r.took = append(r.took, micros(s.until(b, path).Sub(began))/1000)
			done := clients[i].finish()
			var before, during []time.Duration
			for _, sample := range done.Samples {
				if sample.At < began.UnixNano() {
					before = append(before, sample.Took)
				} else {
					during = append(during, sample.Took)
				}
			}
			slices.Sort(before)
			slices.Sort(during)
			at := func(all []time.Duration, share float64) float64 {
				return micros(all[int(float64(len(all)-1)*share)]) / 1000
			}
			r.before, r.late, r.worst = append(r.before, at(before, 0.99)), append(r.late, at(during, 0.99)), append(r.worst, at(during, 1))
			r.closed += done.Closed
			r.failed += done.Failed
		}
	}
	var text strings.Builder
	fmt.Fprintf(&text, "10,000 routes, %d reloads of each under 1,000 requests a second; medians, latencies in ms, \"after\" is the two seconds from the change on.\n\n"+
		"| subject | ms until effective | p99 before | p99 after | slowest after, median | slowest after, ever | connections closed | requests lost |\n|---|---|---|---|---|---|---|---|\n", *flagRounds)
	for i, r := range rows {
		fmt.Fprintf(&text, "| %s | %.0f | %.2f | %.2f | %.1f | %.1f | %d | %d |\n", subjects[i].name, median(r.took), median(r.before), median(r.late), median(r.worst),
			slices.Max(r.worst), r.closed, r.failed)
	}
	report(b, "reload", text.String()+"\n", "nginx", "haproxy")
}

// unpin lets this process run on both cores again.
func unpin(b *testing.B, cores ...int) {
	b.Helper()
	var set unix.CPUSet
	for _, core := range cores {
		set.Set(core)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		b.Fatal(err)
	}
	for _, task := range tasks {
		if tid, err := strconv.Atoi(task.Name()); err == nil {
			_ = unix.SchedSetaffinity(tid, &set) // it may have ended
		}
	}
}

// reloadable is a subject whose file is changed so that it serves one path more, of which no version before knew.
type reloadable struct {
	subject
	file string
	text func(path string) string
	tell func()
}

// until asks for a path, each time on a connection of its own, until the answer is the new route's.
func (s *reloadable) until(b *testing.B, path string) time.Time {
	b.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) { // asking without a pause would be load
		response, err := client.Get("http://" + s.address + path)
		if err != nil {
			continue // counted by the client with a steady pace
		}
		response.Body.Close()
		if response.StatusCode == 418 {
			return time.Now()
		}
	}
	b.Fatalf("%s does not serve %s", s.name, path)
	return time.Time{}
}

const reloadRoutes = 10_000

func menshenReload(b *testing.B, core int, g build, to front, tell bool) reloadable {
	b.Helper()
	address := testenv.FreeAddress(b)
	text := func(path string) string {
		return menshenConf(address, fmt.Sprintf("  new: {match: %q, respond: 418}\n", path)+routesOf(reloadRoutes), front{origin: to.origin, menshenServices: servicesOf()})
	}
	file := writeFile(b, "menshen.yaml", text("/never"))
	p := testenv.Start(b, pinned(b, core, g.path, "run", "-c", file))
	awaitAddress(b, p, address)
	r := reloadable{subject{name: g.label + ", file watched", address: address, pid: p.PID}, file, text, nil}
	if tell {
		r.name = g.label + ", SIGHUP"
		r.tell = func() { _ = p.Signal(syscall.SIGHUP) }
	}
	return r
}

// nginxReload has a server for each host and its routes as locations: the same 10,000.
func nginxReload(b *testing.B, core int, to front) reloadable {
	b.Helper()
	program := testenv.Lookup(b, "nginx")
	dir, address := testenv.Dir(b), testenv.FreeAddress(b)
	text := func(path string) string {
		with := to
		var servers strings.Builder
		servers.WriteString("server_names_hash_max_size 4096; server_names_hash_bucket_size 128;\n")
		for host := range reloadRoutes / 40 {
			fmt.Fprintf(&servers, "server { listen %s; server_name h%d.example.com;\n", address, host)
			for i := range 40 {
				match := fmt.Sprintf("/api/v1/thing%d/", i)
				switch i % 4 {
				case 1:
					match = fmt.Sprintf("~ ^/things/[^/]+/part%d$", i)
				case 2:
					match = fmt.Sprintf("= /exact/page%d", i)
				}
				fmt.Fprintf(&servers, "location %s { proxy_pass http://origin; }\n", match)
			}
			servers.WriteString("}\n")
		}
		with.nginxServer = fmt.Sprintf("location = %s { return 418; }", path)
		with.nginxServers = servers.String()
		return nginxConf(dir, address, "daemon off; worker_processes 1;", with)
	}
	file := writeFile(b, "nginx.conf", text("/never"))
	p := testenv.Start(b, pinned(b, core, program, "-p", dir, "-c", file, "-e", dir+"/error.log"))
	awaitAddress(b, p, address)
	return reloadable{subject{name: "nginx -s reload", address: address, pid: p.PID}, file, text, func() { _ = p.Signal(syscall.SIGHUP) }}
}

// haproxyReload has the routes in a map, by host and beginning of the path: the form in which HAProxy can hold so many.
func haproxyReload(b *testing.B, core int, to front) reloadable {
	b.Helper()
	program := testenv.Lookup(b, "haproxy")
	address := testenv.FreeAddress(b)
	var entries strings.Builder
	for i := range reloadRoutes {
		fmt.Fprintf(&entries, "h%d.example.com/api/v1/thing%d/ origin\n", i/40, i%40)
	}
	routes := writeFile(b, "routes.map", entries.String())
	text := func(path string) string {
		rules := fmt.Sprintf("http-request return status 418 content-type text/plain string new if { path %s }\n  use_backend %%[base,map_beg(%s,origin)]", path, routes)
		return strings.Replace(haproxyConf(address, rules, to), "listen web", "backend origin\n  server origin "+to.origin+"\nlisten web", 1)
	}
	file := writeFile(b, "haproxy.cfg", text("/never"))
	p := testenv.Start(b, pinned(b, core, program, "-W", "-db", "-f", file))
	awaitAddress(b, p, address)
	return reloadable{subject{name: "haproxy, SIGUSR2", address: address, pid: p.PID}, file, text, func() { _ = p.Signal(syscall.SIGUSR2) }}
}
