package httpdoor

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// over2 is a client that speaks HTTP/2 in plain text with prior knowledge.
func over2(t testing.TB) *http.Client {
	transport := &http2.Transport{AllowHTTP: true, DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// webServer is an endpoint that net/http serves, in HTTP/1.1 and in HTTP/2 with prior knowledge.
func webServer(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

const simple2 = `
listeners: {web: {address: "127.0.0.1:0"}}
services: {a: {endpoints: [$A], protocol: h2c}}
routes: {all: {match: /*, service: a}}
`

// each runs f with clients and endpoints of both versions.
func each(t *testing.T, handler http.HandlerFunc, f func(t *testing.T, g *gate, client *http.Client, from, to string)) {
	for _, from := range []string{"HTTP/1.1", "HTTP/2.0"} {
		for _, to := range []string{"HTTP/1.1", "HTTP/2.0"} {
			if from == "HTTP/1.1" && to == from {
				continue // the rest of the tests
			}
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				config, client := simple, over2(t)
				if to == "HTTP/2.0" {
					config = simple2
				}
				if from == "HTTP/1.1" {
					transport := new(http.Transport)
					t.Cleanup(transport.CloseIdleConnections)
					client = &http.Client{Transport: transport, Timeout: 20 * time.Second}
				}
				f(t, open(t, config, "A", webServer(t, handler)), client, from, to)
			})
		}
	}
}

func TestHTTP2Messages(t *testing.T) {
	t.Parallel()
	each(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read: %v", err)
		}
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Proto", r.Proto)
		w.Header().Set("X-Cookie", r.Header.Get("Cookie"))
		w.WriteHeader(201)
		fmt.Fprintf(w, "%s %s %d %v", r.Method, r.Host, len(body), r.Trailer)
		w.Header().Set("X-Sum", "12")
	}, func(t *testing.T, g *gate, client *http.Client, from, to string) {
		f := func(method string, body io.Reader, want string) {
			t.Helper()
			r, err := http.NewRequest(method, "http://"+g.address+"/users/1", body)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = "api.example"
			r.Header.Set("Cookie", "a=1; b=2")
			if body != nil && r.ContentLength <= 0 {
				r.Trailer = http.Header{"X-End": {"yes"}}
			}
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || string(got) != want {
				t.Errorf("%s: %q, %v, want %q", method, got, err, want)
			}
			if resp.Proto != from || resp.StatusCode != 201 || resp.Header.Get("X-Proto") != to || resp.Header.Get("X-Cookie") != "a=1; b=2" || method != "HEAD" && resp.Trailer.Get("X-Sum") != "12" {
				t.Errorf("%s: %v %v", method, resp, resp.Trailer)
			}
		}
		f("GET", nil, "GET api.example 0 map[]")
		f("POST", strings.NewReader("hello"), "POST api.example 5 map[]")
		f("POST", bytes.NewReader(make([]byte, 3<<20)), "POST api.example 3145728 map[]")
		f("POST", io.LimitReader(endless{}, 5<<20), "POST api.example 5242880 map[X-End:[yes]]")
		f("HEAD", nil, "")
		g.afterwards = append(g.afterwards, func(log string) {
			if strings.Count(log, `"`+from+`"`) != 5 {
				t.Errorf("access log:\n%s", log)
			}
		})
	})
}

// endless is a body without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i)
	}
	return len(p), nil
}

func TestHTTP2ManyStreams(t *testing.T) {
	t.Parallel()
	each(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex() // net/http reads no request body in HTTP/1.1 once it answers
		io.Copy(w, r.Body)
	}, func(t *testing.T, g *gate, client *http.Client, _, _ string) {
		var group sync.WaitGroup
		for i := range 100 {
			group.Go(func() {
				sent := bytes.Repeat([]byte{byte(i)}, i*7000)
				resp, err := client.Post("http://"+g.address+"/users/1", "text/plain", struct{ io.Reader }{bytes.NewReader(sent)})
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, sent) {
					t.Errorf("%d: %d bytes, %v", i, len(got), err)
				}
			})
		}
		group.Wait()
	})
}
