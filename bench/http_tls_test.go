//go:build linux

package bench

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// BenchmarkHTTPTLS asks: what does TLS 1.3 to the client cost, for a request on a kept connection and for a new connection, full or resumed?
//
// Everybody has the same certificate (P-256) and the same cipher, AES-128-GCM. The handshakes use X25519. The origin is plain text.
func BenchmarkHTTPTLS(b *testing.B) {
	subjectCore, loadCore := cores(b)
	wrk := testenv.Lookup(b, "wrk")
	origin, originPID := startOrigin(b, loadCore)
	to := front{origin: origin, tls: newCertificate(b)}
	subjects := []subject{nginxProxy(b, subjectCore, "nginx", to), haproxyHTTP(b, subjectCore, to)}
	for _, g := range gateways(b) {
		subjects = append(subjects, menshenHTTP(b, subjectCore, g, to))
	}
	for i := range subjects {
		subjects[i].tls = true
		sameCipher(b, subjects[i])
	}
	var text strings.Builder
	for _, body := range []string{"100", "10k"} {
		progress("http-tls: body %s", body)
		visits := tour(b, subjects, *flagRounds, func(s subject) visit {
			return wrkVisit(b, wrk, s, subjectCore, loadCore, originPID, "64", body)
		})
		fmt.Fprintf(&text, "### 64 kept connections, body %s, %d rounds of %s\n\n%s\n", body, *flagRounds, *flagVisit, table(subjects, visits, "nginx", "request"))
	}
	for _, kind := range []string{"full", "resumed"} {
		progress("http-tls: handshakes, %s", kind)
		visits := tour(b, subjects, *flagRounds, func(s subject) visit { return handshakes(b, s, subjectCore, loadCore, originPID, kind == "resumed") })
		fmt.Fprintf(&text, "### Handshakes, %s, each with one request, %d rounds of %s\n\n%s\n", kind, *flagRounds, *flagVisit/2, table(subjects, visits, "nginx", "handshake"))
	}
	report(b, "http-tls", text.String(), "nginx", "haproxy", "wrk")
}

// sameCipher fails when a subject chooses otherwise.
func sameCipher(b testing.TB, s subject) {
	b.Helper()
	c, err := tls.Dial("tcp", s.address, clientTLS())
	if err != nil {
		b.Fatalf("%s: %v", s.name, err)
	}
	defer c.Close()
	if state := c.ConnectionState(); state.CipherSuite != cipher || state.Version != tls.VersionTLS13 {
		b.Fatalf("%s speaks %s with %s", s.name, tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite))
	}
}

// handshakes is a visit in which the unit is a connection: TCP, TLS, one small request, close.
func handshakes(b *testing.B, s subject, subjectCore, loadCore, origin int, resume bool) visit {
	b.Helper()
	return handshakesFor(b, s, subjectCore, loadCore, origin, resume, *flagVisit/2)
}

func handshakesFor(b testing.TB, s subject, subjectCore, loadCore, origin int, resume bool, length time.Duration) visit {
	b.Helper()
	cmd := role(b, loadCore, "tls-client", "-address", s.address, fmt.Sprintf("-resume=%v", resume), "-length", length.String())
	cmd.Stderr = os.Stderr
	m := startMeter(b, subjectCore, s.pid, origin)
	out, err := cmd.Output()
	var v visit
	m.stop(b, &v)
	var done tlsReport
	if err == nil {
		err = json.Unmarshal(out, &done)
	}
	if err != nil {
		b.Fatalf("client of %s: %v\n%s", s.name, err, out)
	}
	v.requests, v.elapsed, v.p50, v.p99 = float64(done.Handshakes), done.Elapsed, done.P50, done.P99
	if resume { // the first of each worker cannot be
		v.errors = max(0, done.Handshakes-done.Resumed-8)
	} else {
		v.errors = done.Resumed
	}
	return v
}
