//go:build linux

package bench

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// BenchmarkHTTP2 asks: what does a request over HTTP/2 cost, with TLS 1.3 and with prior knowledge in plain text, on few connections with many streams
// and on many with few? Towards the origin everybody speaks HTTP/1.1.
func BenchmarkHTTP2(b *testing.B) {
	subjectCore, loadCore := cores(b)
	h2load := testenv.Lookup(b, "h2load")
	origin, originPID := startOrigin(b, loadCore)
	var text strings.Builder
	for _, kind := range []struct {
		name string
		tls  *certificate
	}{{"TLS 1.3", newCertificate(b)}, {"plain text", nil}} {
		to := front{origin: origin, tls: kind.tls, h2: true}
		subjects := []subject{nginxProxy(b, subjectCore, "nginx", to), haproxyHTTP(b, subjectCore, to)}
		for _, g := range gateways(b) {
			subjects = append(subjects, menshenHTTP(b, subjectCore, g, to))
		}
		for i := range subjects {
			subjects[i].tls = kind.tls != nil
		}
		for _, load := range [][2]int{{4, 64}, {64, 4}} {
			progress("http2: %s, %d connections with %d streams", kind.name, load[0], load[1])
			visits := tour(b, subjects, *flagRounds, func(s subject) visit {
				return h2loadVisit(b, h2load, s, subjectCore, loadCore, originPID, load[0], load[1], "100")
			})
			fmt.Fprintf(&text, "### %s, %d connections with %d streams each, body 100, %d rounds of %s\n\n%s\n", kind.name, load[0], load[1], *flagRounds, *flagVisit,
				table(subjects, visits, "nginx", "request"))
		}
	}
	report(b, "http2", text.String(), "nginx", "haproxy", "h2load")
}

// h2loadVisit runs h2load once, with the header fields that wrk sends. It knows no percentiles: what it calls the mean stands as the median.
func h2loadVisit(b *testing.B, h2load string, s subject, subjectCore, loadCore, origin, connections, streams int, body string) visit {
	b.Helper()
	scheme := "http://"
	if s.tls {
		scheme = "https://"
	}
	seconds := strconv.Itoa(max(1, int(flagVisit.Round(time.Second).Seconds())))
	cmd := pinned(b, loadCore, h2load, "-t1", "-c", strconv.Itoa(connections), "-m", strconv.Itoa(streams), "-D", seconds,
		"--tls13-ciphers="+cipherName, "--groups=X25519",
		"-H", "user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
		"-H", "accept: text/html,application/json;q=0.9,*/*;q=0.8",
		"-H", "accept-encoding: gzip, deflate, br",
		"-H", "accept-language: en-US,en;q=0.5",
		"-H", "cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
		"-H", "x-request-id: 7d444840-9dc0-11d1-b245-5ffdce74fad2",
		scheme+s.address+"/"+body)
	m := startMeter(b, subjectCore, s.pid, origin)
	out, err := run(cmd)
	var v visit
	m.stop(b, &v)
	if err == nil {
		err = parseH2load(out, &v)
	}
	if err != nil {
		b.Fatalf("h2load at %s: %v\n%s", s.name, err, out)
	}
	return v
}

var (
	h2loadFinished = regexp.MustCompile(`finished in ([0-9.]+(?:us|ms|s|m)),`)
	h2loadRequests = regexp.MustCompile(`requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
	h2loadStatus   = regexp.MustCompile(`status codes: (\d+) 2xx`)
	h2loadTime     = regexp.MustCompile(`time for request:\s+\S+\s+\S+\s+([0-9.]+(?:us|ms|s|m))`)
)

// parseH2load reads the report of h2load.
func parseH2load(out string, v *visit) error {
	finished, requests := h2loadFinished.FindStringSubmatch(out), h2loadRequests.FindStringSubmatch(out)
	status, mean := h2loadStatus.FindStringSubmatch(out), h2loadTime.FindStringSubmatch(out)
	if finished == nil || requests == nil || status == nil || mean == nil {
		return fmt.Errorf("no report")
	}
	var err error
	if v.elapsed, err = time.ParseDuration(finished[1]); err != nil {
		return err
	}
	if v.p50, err = time.ParseDuration(mean[1]); err != nil {
		return err
	}
	var n [5]int
	for i := range n {
		if n[i], err = strconv.Atoi(requests[1+i]); err != nil {
			return err
		}
	}
	good, err := strconv.Atoi(status[1])
	v.requests, v.errors = float64(n[0]), n[2]+n[3]+n[4]+max(0, n[1]-good)
	return err
}
