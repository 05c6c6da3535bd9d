//go:build linux

package bench

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// BenchmarkHTTPProxy asks: how much processor time does one proxied HTTP/1.1 request cost, beside nginx and HAProxy?
//
// Everything is plain text on kept connections. The subject has core 0 to itself; wrk and the origin share core 1.
func BenchmarkHTTPProxy(b *testing.B) {
	subjectCore, loadCore := cores(b)
	wrk := testenv.Lookup(b, "wrk")
	origin := testenv.FreeAddress(b)
	originProcess := testenv.Start(b, role(b, loadCore, "origin", origin))
	awaitAddress(b, originProcess, origin)

	plain := []subject{nginxProxy(b, subjectCore, "nginx", origin, ""), haproxyHTTP(b, subjectCore, origin)}
	large := []subject{plain[0], nginxProxy(b, subjectCore, "nginx 16x32k", origin, "proxy_buffers 16 32k; proxy_buffer_size 32k; proxy_busy_buffers_size 256k;"), plain[1]}
	for _, g := range gateways(b) {
		s := menshenHTTP(b, subjectCore, g, origin)
		plain, large = append(plain, s), append(large, s)
	}
	// Without anything between: shows how far client and server are from being the limit.
	direct := subject{name: "direct", address: origin}
	plain, large = append(plain, direct), append(large, direct)

	var text strings.Builder
	for connections := range strings.SplitSeq(*flagConnections, ",") {
		for body := range strings.SplitSeq(*flagBodies, ",") {
			subjects := plain
			if body == "1m" {
				subjects = large
			}
			progress("http-proxy: %s connections, body %s", connections, body)
			visits := tour(b, subjects, *flagRounds, func(s subject) visit {
				return wrkVisit(b, wrk, s, subjectCore, loadCore, originProcess.PID, connections, body)
			})
			fmt.Fprintf(&text, "### %s connections, body %s, %d rounds of %s\n\n%s\n", connections, body, *flagRounds, *flagVisit, table(subjects, visits, "nginx", "request"))
		}
	}
	report(b, "http-proxy", text.String(), "nginx", "haproxy", "wrk")
}

func nginxProxy(b *testing.B, core int, name, origin, extra string) subject {
	b.Helper()
	program := testenv.Lookup(b, "nginx")
	dir, address := testenv.Dir(b), testenv.FreeAddress(b)
	var temporary strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temporary, "%s_temp_path %s/%s; ", kind, dir, kind)
	}
	conf := writeFile(b, "nginx.conf", fmt.Sprintf(`
daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
worker_rlimit_nofile 8192;
events { worker_connections 4096; multi_accept on; }
http {
  %[2]s
  access_log off; keepalive_requests 1000000000; keepalive_timeout 75;
  upstream origin { server %[3]s; keepalive 1024; keepalive_requests 1000000000; }
  server {
    listen %[4]s backlog=4096;
    location / {
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; %[5]s
    }
  }
}
`, dir, temporary.String(), origin, address, extra))
	p := testenv.Start(b, pinned(b, core, program, "-p", dir, "-c", conf, "-e", dir+"/error.log"))
	awaitAddress(b, p, address)
	return subject{name, address, p.PID}
}

func haproxyHTTP(b *testing.B, core int, origin string) subject {
	b.Helper()
	program := testenv.Lookup(b, "haproxy")
	address := testenv.FreeAddress(b)
	conf := writeFile(b, "haproxy.cfg", fmt.Sprintf(`
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 75s
  timeout server 60s
  option forwardfor
  http-reuse always
listen web
  bind %s
  server origin %s
`, address, origin))
	p := testenv.Start(b, pinned(b, core, program, "-db", "-f", conf))
	awaitAddress(b, p, address)
	return subject{"haproxy", address, p.PID}
}

// menshenHTTP runs the gateway as it comes, without an access log, as the peers run. It keeps as many idle connections as nginx.
func menshenHTTP(b *testing.B, core int, g build, origin string) subject {
	b.Helper()
	address := testenv.FreeAddress(b)
	p := startGateway(b, core, g, address, fmt.Sprintf(`
listeners: {web: {address: %q}}
services:
  origin: {endpoints: [%q], connections: {max_idle_per_endpoint: 1024}}
routes: {all: {match: "/*", service: origin}}
access_log: none
log: {level: warn}
`, address, origin))
	return subject{g.label, address, p.PID}
}

// wrkVisit runs wrk once. The set-up of its connections is inside the measured time, for all subjects alike.
func wrkVisit(b *testing.B, wrk string, s subject, subjectCore, loadCore, origin int, connections, body string) visit {
	b.Helper()
	seconds := strconv.Itoa(max(1, int(flagVisit.Round(time.Second).Seconds())))
	cmd := pinned(b, loadCore, wrk, "-t1", "-c"+connections, "-d"+seconds+"s", "--latency", "--timeout", "10s",
		"-H", "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
		"-H", "Accept: text/html,application/json;q=0.9,*/*;q=0.8",
		"-H", "Accept-Encoding: gzip, deflate, br",
		"-H", "Accept-Language: en-US,en;q=0.5",
		"-H", "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
		"-H", "X-Request-Id: 7d444840-9dc0-11d1-b245-5ffdce74fad2",
		"http://"+s.address+"/"+body)
	m := startMeter(b, subjectCore, s.pid, origin)
	out, err := run(cmd)
	var v visit
	m.stop(b, &v)
	if err != nil {
		b.Fatalf("wrk: %v\n%s", err, out)
	}
	if err := parseWrk(out, &v); err != nil {
		b.Fatalf("wrk: %v\n%s", err, out)
	}
	return v
}

// run runs a command and returns all it printed; it is killed when it takes far too long.
func run(cmd *exec.Cmd) (string, error) {
	timeout, cancel := context.WithTimeout(context.Background(), time.Minute+10**flagVisit)
	defer cancel()
	bounded := exec.CommandContext(timeout, cmd.Path, cmd.Args[1:]...)
	bounded.Env, bounded.Stdin = cmd.Env, cmd.Stdin
	out, err := bounded.CombinedOutput()
	return string(out), err
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in ([0-9.]+)(ms|s|m)`)
	wrkPart     = regexp.MustCompile(`(?m)^\s+(50|99)%\s+([0-9.]+)(us|ms|s|m)$`)
	wrkSocket   = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	wrkStatus   = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
)

// parseWrk reads the report of wrk.
func parseWrk(out string, v *visit) error {
	total := wrkRequests.FindStringSubmatch(out)
	if total == nil {
		return fmt.Errorf("no count of requests")
	}
	var err error
	if v.requests, err = strconv.ParseFloat(total[1], 64); err != nil {
		return err
	}
	if v.elapsed, err = time.ParseDuration(total[2] + total[3]); err != nil {
		return err
	}
	for _, part := range wrkPart.FindAllStringSubmatch(out, -1) {
		d, err := time.ParseDuration(part[2] + part[3])
		if err != nil {
			return err
		}
		if part[1] == "50" {
			v.p50 = d
		} else {
			v.p99 = d
		}
	}
	for _, expression := range []*regexp.Regexp{wrkSocket, wrkStatus} {
		if found := expression.FindStringSubmatch(out); found != nil {
			for _, word := range found[1:] {
				n, err := strconv.Atoi(word)
				if err != nil {
					return err
				}
				v.errors += n
			}
		}
	}
	return nil
}
