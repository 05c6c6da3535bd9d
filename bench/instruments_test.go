//go:build linux

package bench

import (
	"net/http"
	"testing"
	"time"
)

// More tests of the measuring instruments: those of the scenarios that wrk cannot serve.

func TestH2loadReportIsRead(t *testing.T) {
	t.Parallel()
	const out = `finished in 1.01s, 31061.50 req/s, 5.03MB/s
requests: 31372 total, 31372 started, 31300 done, 31290 succeeded, 10 failed, 5 errored, 1 timeout
status codes: 31280 2xx, 0 3xx, 10 4xx, 0 5xx
traffic: 5.08MB (5324567) total, 1.02MB (1067890) headers (space savings 88.12%), 2.98MB (3130000) data
                     min         max         mean         sd        +/- sd
time for request:      321us     21.11ms      8.40ms      1.20ms    91.20%
time for connect:     3.01ms     11.20ms      7.11ms      3.10ms    50.00%
`
	var v visit
	if err := parseH2load(out, &v); err != nil {
		t.Fatal(err)
	}
	want := visit{requests: 31300, elapsed: 1010 * time.Millisecond, p50: 8400 * time.Microsecond, errors: 26}
	if v != want {
		t.Errorf("%+v, want %+v", v, want)
	}
	if err := parseH2load("requests: none", &v); err == nil {
		t.Error("no report, and no error")
	}
}

func TestStatusField(t *testing.T) {
	t.Parallel()
	const status = "Name:\tmenshen\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n"
	if n, err := statusField(status, "VmRSS"); n != 1<<20 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := statusField(status, "Name"); err == nil {
		t.Error("a field that is no size, and no error")
	}
}

// The web client talks to the origin through the blind relay: all three do what they say, or none of the steps would end.
func TestWebClientOriginAndRelayUnderstandEachOther(t *testing.T) {
	t.Parallel()
	subjectCore, loadCore := cores(t)
	origin, _ := startOrigin(t, loadCore)
	s := blindRelay(t, subjectCore, origin)
	f := func(step string, n, requests int, bytes int64) {
		t.Helper()
		w := startWeb(t, loadCore, s, 50*time.Millisecond)
		if r := w.do(step, n); r.Requests != requests || r.Bytes != bytes || r.Failed != 0 || r.Closed != 0 {
			t.Errorf("%s %d: %+v", step, n, r)
		}
	}
	f("hold", 3, 3, 300)
	f("get", 1, 1, largeBody)
	f("post", 1, 1, largeBody)
	w := startWeb(t, loadCore, s, 50*time.Millisecond)
	w.do("hold", 5)
	if r := w.do("burst", 4); r.Requests != 4 {
		t.Errorf("burst: %+v", r)
	}
	w = startWeb(t, loadCore, s, 50*time.Millisecond)
	if r := w.do("tunnels", 5); r.Requests != 5 {
		t.Errorf("tunnels: %+v", r)
	}
	if r := w.do("echo", 3); r.Requests < 3 || r.P50 == 0 || r.P99 < r.P50 {
		t.Errorf("echo: %+v", r)
	}
	w = startWeb(t, loadCore, s, 100*time.Millisecond)
	if r := w.do("pace", 500); r.Requests == 0 || len(r.Samples) != r.Requests || r.Failed != 0 {
		t.Errorf("pace: %d requests, %d samples, %d failed", r.Requests, len(r.Samples), r.Failed)
	}
}

func TestPeersPassRequestsOn(t *testing.T) {
	t.Parallel()
	subjectCore, loadCore := cores(t)
	origin, _ := startOrigin(t, loadCore)
	to := front{origin: origin}
	subjects := append(caddyHTTP(t, subjectCore, to), nginxProxy(t, subjectCore, "nginx", to), haproxyHTTP(t, subjectCore, to), blindRelay(t, subjectCore, origin))
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, s := range subjects {
		response, err := client.Get("http://" + s.address + "/100")
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
			continue
		}
		response.Body.Close()
		if response.StatusCode != 200 || response.Header.Get("X-Origin") != "1" {
			t.Errorf("%s: %d", s.name, response.StatusCode)
		}
	}
}

func TestTLSClientResumes(t *testing.T) {
	t.Parallel()
	subjectCore, loadCore := cores(t)
	origin, originPID := startOrigin(t, loadCore)
	s := nginxProxy(t, subjectCore, "nginx", front{origin: origin, tls: newCertificate(t)})
	sameCipher(t, s)
	for _, resume := range []bool{false, true} {
		v := handshakesFor(t, s, subjectCore, loadCore, originPID, resume, 100*time.Millisecond)
		if v.requests == 0 || v.errors != 0 || v.cpu == 0 {
			t.Errorf("resume %v: %+v", resume, v)
		}
	}
}
