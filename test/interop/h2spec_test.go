package interop

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	"github.com/summerwind/h2spec/hpack"
	"github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// exceptions are the cases of h2spec that fail, each with its reason.
var exceptions = map[string]string{
	"plain http2/3.5/2": "a connection in plain text that does not begin with the preface is HTTP/1, and is answered as such",
}

func TestH2spec(t *testing.T) {
	// h2spec wants its mistakes answered with an error although a response could be sent before they arrive: the endpoint gives
	// them time.
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-r.Context().Done():
		}
		fmt.Fprint(w, "hello")
	}))
	t.Cleanup(endpoint.Close)
	certificate := testenv.NewCertificate(t)
	addresses := start(t, fmt.Sprintf(`
listeners:
  plain: {address: "127.0.0.1:0"}
  secure: {address: "127.0.0.1:0", tls: {cert: %q, key: %q}}
services: {a: {endpoints: [%q]}}
routes: {all: {match: /*, service: a}}
access_log: none
`, certificate.CertFile, certificate.KeyFile, endpoint.Listener.Addr().String()))
	for _, listener := range []string{"plain", "secure"} {
		host, port, err := net.SplitHostPort(addresses[listener])
		if err != nil {
			t.Fatal(err)
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		c := &config.Config{Host: host, Port: number, Path: "/", Timeout: 2 * time.Second, MaxHeaderLen: 4000, Strict: true, TLS: listener == "secure", Insecure: true}
		passed, failed := 0, map[string]bool{}
		for _, group := range []*spec.TestGroup{generic.Spec(), http2.Spec(), hpack.Spec()} {
			group.Test(c)
			walk(group, func(id string, tc *spec.TestCase) {
				id = listener + " " + id
				switch r := tc.Result; {
				case r == nil:
				case r.Failed:
					failed[id] = true
					if exceptions[id] == "" {
						t.Errorf("%s: %s: %v", id, tc.Desc, r.Error)
					}
				case r.Skipped:
					t.Errorf("%s is skipped: %s", id, tc.Desc)
				default:
					passed++
				}
			})
		}
		for id := range exceptions {
			if strings.HasPrefix(id, listener) && !failed[id] {
				t.Errorf("%s passes: it is no exception any more", id)
			}
		}
		t.Logf("%s: %d of %d cases pass", listener, passed, passed+len(failed))
	}
}

// walk calls f for each case of a group, with its id as h2spec takes it on the command line.
func walk(g *spec.TestGroup, f func(id string, tc *spec.TestCase)) {
	for i, tc := range append(g.Tests, g.StrictTests...) {
		f(fmt.Sprintf("%s/%d", g.ID(), i+1), tc)
	}
	for _, inner := range g.Groups {
		walk(inner, f)
	}
}
