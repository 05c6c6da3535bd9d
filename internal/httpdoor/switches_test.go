package httpdoor

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// Every header that the gate adds can be switched, on and off.
func TestHeaderSwitches(t *testing.T) {
	t.Parallel()
	f := func(headers, more, request string, endpointSees, endpointMisses, clientSees, clientMisses []string) {
		t.Helper()
		g := open(t, strings.Replace(simple, `"127.0.0.1:0"`, `"127.0.0.1:0", headers: {`+headers+`}`, 1)+more, "A", endpoint(t, echo))
		c := g.dial()
		c.send("GET / HTTP/1.1\r\nHost: api.example:80\r\n" + request + "\r\n")
		resp, body := c.get("GET")
		var b strings.Builder
		resp.Header.Write(&b)
		for _, want := range endpointSees {
			if !strings.Contains(body, want) {
				t.Errorf("{%s}: the endpoint did not see %q:\n%s", headers, want, body)
			}
		}
		for _, wrong := range endpointMisses {
			if strings.Contains(body, wrong) {
				t.Errorf("{%s}: the endpoint saw %q:\n%s", headers, wrong, body)
			}
		}
		for _, want := range clientSees {
			if !strings.Contains(b.String(), want) {
				t.Errorf("{%s}: the client did not see %q:\n%s", headers, want, b.String())
			}
		}
		for _, wrong := range clientMisses {
			if strings.Contains(b.String(), wrong) {
				t.Errorf("{%s}: the client saw %q:\n%s", headers, wrong, b.String())
			}
		}
	}
	trusted := "\ntrusted_proxies: [127.0.0.0/8]\n"
	f("forwarded: true", "", "Forwarded: for=6.6.6.6\r\n",
		[]string{"Forwarded: for=127.0.0.1;host=\"api.example:80\";proto=http\r\n"}, []string{"6.6.6.6"}, nil, nil)
	f("forwarded: true", trusted, "Forwarded: for=9.9.9.9\r\n",
		[]string{"Forwarded: for=9.9.9.9, for=127.0.0.1;"}, nil, nil, nil)
	f("via: true", "", "Via: 1.0 front\r\n",
		[]string{"Via: 1.0 front, 1.1 menshen\r\n"}, nil, []string{"Via: 1.1 menshen\r\n"}, nil)
	f("via: false", "", "", nil, []string{"Via:", "Forwarded: for"}, nil, []string{"Via:"})
	f("x_forwarded: false", "", "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n",
		nil, []string{"X-Forwarded-"}, nil, nil) // a stranger's word is dropped all the same
	f("request_id: false, response_time: false, server_timing: false", "", "",
		nil, []string{"X-Request-Id"}, nil, []string{"X-Request-Id", "X-Response-Time", "Server-Timing"})
	f("response_time: true, server_timing: true", "", "", nil, nil, []string{"X-Response-Time: ", "Server-Timing: upstream;dur="}, nil)
}

// The hash balancer sends equal keys to one endpoint, different ones to several; a request without the key goes by its
// client's address.
func TestHashKeys(t *testing.T) {
	t.Parallel()
	named := func(name string) string {
		return endpoint(t, func(c net.Conn, r *bufio.Reader) {
			for {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"+name)
			}
		})
	}
	a, b, d := named("a"), named("b"), named("d")
	f := func(key string, request func(i int) string, spread bool) {
		t.Helper()
		g := open(t, strings.Replace(simple, "[$A]", "[$A, $B, $D], balance: {algorithm: hash, key: \""+key+"\"}", 1), "A", a, "B", b, "D", d)
		c := g.dial()
		seen := map[string]bool{}
		for i := range 30 {
			first := ""
			for range 3 {
				c.send(request(i))
				_, body := c.get("GET")
				if first == "" {
					first = body
				}
				if body != first {
					t.Fatalf("%s: request %d went to %s and to %s", key, i, first, body)
				}
			}
			seen[first] = true
		}
		if (len(seen) > 1) != spread {
			t.Errorf("%s: thirty keys went to %d endpoints", key, len(seen))
		}
	}
	get := func(path, fields string) string { return "GET " + path + " HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n" }
	f("path", func(i int) string { return get(fmt.Sprintf("/%d", i), "") }, true)
	f("header:X-User", func(i int) string { return get("/", fmt.Sprintf("X-User: u%d\r\n", i)) }, true)
	f("cookie:session", func(i int) string { return get("/", fmt.Sprintf("Cookie: a=b; session=s%d; z=1\r\n", i)) }, true)
	f("client_address", func(i int) string { return get(fmt.Sprintf("/%d", i), "") }, false)
	f("header:X-User", func(i int) string { return get(fmt.Sprintf("/%d", i), "") }, false)
}

// Who speaks HTTP where TLS is spoken is told so; others are not spoken to.
func TestPlainTextWhereTLSIs(t *testing.T) {
	t.Parallel()
	certificate := testenv.NewCertificate(t, "localhost")
	g := open(t, strings.Replace(simple, `"127.0.0.1:0"`, `"127.0.0.1:0", tls: {cert: $CERT, key: $KEY}`, 1), "CERT", certificate.CertFile, "KEY", certificate.KeyFile, "A", endpoint(t, echo))
	f := func(text, want string) {
		t.Helper()
		c := g.dial()
		defer c.Close()
		c.send(text)
		answer, _ := io.ReadAll(c.r)
		if !strings.Contains(string(answer), want) || want == "" && len(answer) > 0 {
			t.Errorf("%q: %q, want %q", text, answer, want)
		}
	}
	f("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n")
	f("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy", "its URLs begin with https")
	f("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n")
	f("SSH-2.0-x\r\n", "")
	f("\x00\x01\x02\x03\x04\x05\x06", "")
}
