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

// BenchmarkHTTPProxy asks: how much processor time does one proxied HTTP/1.1 request cost, beside nginx, HAProxy and Caddy, and how far is everybody
// from a blind relay, which does nothing but the four system calls that nobody can do without?
//
// Everything is plain text on kept connections. The subject has core 0 to itself; wrk and the origin share core 1.
func BenchmarkHTTPProxy(b *testing.B) {
	subjectCore, loadCore := cores(b)
	wrk := testenv.Lookup(b, "wrk")
	origin, originPID := startOrigin(b, loadCore)
	to := front{origin: origin}

	plain := []subject{nginxProxy(b, subjectCore, "nginx", to), haproxyHTTP(b, subjectCore, to)}
	wide := to
	wide.nginx = nginxWide
	large := []subject{plain[0], nginxProxy(b, subjectCore, "nginx 16x32k", wide), plain[1]}
	for _, g := range gateways(b) {
		s := menshenHTTP(b, subjectCore, g, to)
		plain, large = append(plain, s), append(large, s)
	}
	// The floor, and nothing at all between: that shows how far client and server are from being the limit.
	others := append(caddyHTTP(b, subjectCore, to), blindRelay(b, subjectCore, origin), subject{name: "direct", address: origin})
	plain, large = append(plain, others...), append(large, others...)

	var text strings.Builder
	for connections := range strings.SplitSeq(*flagConnections, ",") {
		for body := range strings.SplitSeq(*flagBodies, ",") {
			subjects := plain
			if body == "1m" {
				subjects = large
			}
			progress("http-proxy: %s connections, body %s", connections, body)
			visits := tour(b, subjects, *flagRounds, func(s subject) visit {
				return wrkVisit(b, wrk, s, subjectCore, loadCore, originPID, connections, body)
			})
			fmt.Fprintf(&text, "### %s connections, body %s, %d rounds of %s\n\n%s\n", connections, body, *flagRounds, *flagVisit, table(subjects, visits, "nginx", "request"))
		}
	}
	report(b, "http-proxy", text.String(), "nginx", "haproxy", "caddy", "wrk")
}

// wrkVisit runs wrk once. The set-up of its connections is inside the measured time, for all subjects alike.
func wrkVisit(b *testing.B, wrk string, s subject, subjectCore, loadCore, origin int, connections, body string, more ...string) visit {
	b.Helper()
	seconds := strconv.Itoa(max(1, int(flagVisit.Round(time.Second).Seconds())))
	scheme := "http://"
	if s.tls {
		scheme = "https://"
	}
	arguments := append([]string{"-t1", "-c" + connections, "-d" + seconds + "s", "--latency", "--timeout", "10s",
		"-H", "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
		"-H", "Accept: text/html,application/json;q=0.9,*/*;q=0.8",
		"-H", "Accept-Encoding: gzip, deflate, br",
		"-H", "Accept-Language: en-US,en;q=0.5",
		"-H", "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
		"-H", "X-Request-Id: 7d444840-9dc0-11d1-b245-5ffdce74fad2"}, more...)
	cmd := pinned(b, loadCore, wrk, append(arguments, scheme+s.address+"/"+body)...)
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
