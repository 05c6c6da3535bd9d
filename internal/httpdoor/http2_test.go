package httpdoor

import (
	"bytes"
	"context"
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
	"golang.org/x/net/http2/hpack"
)

// over2 is a client that speaks HTTP/2 in plain text with prior knowledge.
func over2(t testing.TB) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
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

// Refusals and faults over HTTP/2 are answers like others, and the connection serves on.
func TestHTTP2Refusals(t *testing.T) {
	t.Parallel()
	g := open(t, `
listeners: {web: {address: "127.0.0.1:0", limits: {header_bytes: 4KiB, headers: 20, body_bytes: 10KiB}}}
services: {a: {endpoints: [$A]}, dead: {endpoints: ["127.0.0.1:1"], protocol: h2c}, slow: {endpoints: [$A], protocol: h2c, timeouts: {first_byte: 100ms}}}
routes: {all: {match: /a/*, service: a}, dead: {match: /dead, service: dead}, slow: {match: /slow, service: slow}, one: {match: GET /one, respond: 204}}
`, "A", webServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
		}
	}))
	client := over2(t)
	f := func(method, target string, status int, kind string, change ...func(*http.Request)) {
		t.Helper()
		r, err := http.NewRequest(method, "http://"+g.address+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range change {
			c(r)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Errorf("%s %s: %v", method, target, err)
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != status || !strings.Contains(string(body), kind) {
			t.Errorf("%s %s: %d %q, %v, want %d %s", method, target, resp.StatusCode, body, err, status, kind)
		}
	}
	many := func(r *http.Request) {
		for i := range 30 {
			r.Header.Set(fmt.Sprintf("X-%d", i), "y")
		}
	}
	f("GET", "/nothing", 404, "no_route")
	f("GET", "/one", 204, "")
	f("POST", "/one", 405, "method_not_allowed")
	f("GET", "/a/", 400, "bad_request", func(r *http.Request) { r.URL.Opaque = "/a/%zz" })
	f("GET", "/a/", 400, "bad_request", func(r *http.Request) { r.URL.Opaque = "/a/../../b" })
	f("GET", "/a/", 431, "headers_too_large", many)
	f("TRACE", "/a/", 405, "method_not_allowed")
	f("POST", "/a/", 413, "too_large", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(io.LimitReader(endless{}, 20000)), 20000 })
	f("POST", "/a/", 413, "too_large", func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(io.LimitReader(endless{}, 20000)), -1 })
	f("GET", "/dead", 502, "connect_failed")
	f("GET", "/slow", 504, "upstream_timeout")
	f("GET", "/a/", 200, "")
}

// A client that gives a stream up ends what is done for it, whatever the endpoint speaks; an endpoint that gives up ends the client's.
func TestHTTP2Resets(t *testing.T) {
	t.Parallel()
	type moments struct{ began, ended chan struct{} }
	seen := map[string]moments{} // by the endpoint's version: the tests run side by side, and one must not take another's moment
	for _, to := range []string{"HTTP/1.1", "HTTP/2.0"} {
		seen[to] = moments{make(chan struct{}, 10), make(chan struct{}, 10)}
	}
	each(t, func(w http.ResponseWriter, r *http.Request) {
		began, ended := seen[r.Proto].began, seen[r.Proto].ended
		switch r.URL.Path {
		case "/waits":
			began <- struct{}{}
			<-r.Context().Done()
			ended <- struct{}{}
		case "/streams":
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			began <- struct{}{}
			<-r.Context().Done()
			ended <- struct{}{}
		case "/breaks":
			fmt.Fprint(w, "half")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}, func(t *testing.T, g *gate, client *http.Client, from, to string) {
		resp, err := client.Get("http://" + g.address + "/breaks")
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err == nil && resp.StatusCode != 502 {
			t.Errorf("a broken answer looks whole: %q", body)
		}
		resp.Body.Close()
		if from == "HTTP/1.1" {
			return // a client of HTTP/1 that leaves is noticed when something is sent to it
		}
		for _, path := range []string{"/waits", "/streams"} {
			ctx, cancel := context.WithCancel(context.Background())
			r, err := http.NewRequestWithContext(ctx, "GET", "http://"+g.address+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				if resp, err := client.Do(r); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}()
			select {
			case <-seen[to].began:
			case <-done:
				t.Fatalf("%s: answered before the endpoint has begun", path)
			}
			cancel()
			<-done
			select {
			case <-seen[to].ended:
			case <-time.After(10 * time.Second):
				t.Errorf("%s: the endpoint is not told", path)
			}
		}
		g.afterwards = append(g.afterwards, func(log string) {
			if n := strings.Count(log, `"fault":"client_gone"`); n != 2 {
				t.Errorf("%d records of clients that left, want 2", n)
			}
		})
	})
}

// An upload that the endpoint does not want ends with the answer, and the connection serves on.
func TestHTTP2EarlyAnswer(t *testing.T) {
	t.Parallel()
	each(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(403)
		fmt.Fprint(w, "no")
	}, func(t *testing.T, g *gate, client *http.Client, from, to string) {
		if from == "HTTP/1.1" {
			return // as ever
		}
		for range 3 {
			r, w := io.Pipe()
			go func() { // ends when the body is closed
				for {
					if _, err := w.Write(make([]byte, 10000)); err != nil {
						return
					}
				}
			}()
			resp, err := client.Post("http://"+g.address+"/", "text/plain", r)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "no" || resp.StatusCode != 403 {
				t.Errorf("%d %q, %v", resp.StatusCode, body, err)
			}
			resp.Body.Close()
			r.Close()
		}
	})
}

// While the door drains, requests that run are answered, and the connection ends.
func TestHTTP2Drain(t *testing.T) {
	t.Parallel()
	began, release := make(chan struct{}, 10), make(chan struct{})
	g := open(t, simple2, "A", webServer(t, func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-release
		fmt.Fprint(w, "late")
	}))
	client := over2(t)
	got := make(chan string, 5)
	for range 5 {
		go func() {
			resp, err := client.Get("http://" + g.address + "/")
			if err != nil {
				got <- err.Error()
				return
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			got <- resp.Status + " " + string(body)
		}()
	}
	for range 5 {
		<-began
	}
	drained := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	wait := g.door.Retire("web")
	go func() { drained <- wait(ctx) }()
	close(release)
	for range 5 {
		if s := <-got; s != "200 OK late" {
			t.Error(s)
		}
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// A drain whose time is over tells the clients of requests that wait, and ends.
func TestHTTP2DrainInVain(t *testing.T) {
	t.Parallel()
	began := make(chan struct{}, 1)
	g := open(t, simple2, "A", webServer(t, func(w http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-r.Context().Done()
	}))
	client := over2(t)
	got := make(chan int, 1)
	go func() {
		resp, err := client.Get("http://" + g.address + "/")
		if err != nil {
			got <- 0
			return
		}
		resp.Body.Close()
		got <- resp.StatusCode
	}()
	<-began
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = g.door.Drain(ctx, "web")
	if status := <-got; status != 503 {
		t.Errorf("%d", status)
	}
}

// Nor does a client hold it up that reads no more of its answer.
func TestHTTP2DrainOfASlowReader(t *testing.T) {
	t.Parallel()
	g := open(t, simple2, "A", webServer(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, endless{}) }))
	c, err := net.Dial("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, http2.ClientPreface)
	framer := http2.NewFramer(c, nil)
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	_ = framer.WriteWindowUpdate(0, 1<<30)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/"}} {
		_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 30 { // in which time the buffers on the way become full
		if _, err := io.ReadFull(c, make([]byte, 100<<10)); err != nil {
			t.Fatal(err)
		}
		<-tick.C
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	began := time.Now()
	_ = g.door.Drain(ctx, "web")
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("it took %s", d)
	}
}

func TestHTTP2Off(t *testing.T) {
	t.Parallel()
	g := open(t, strings.Replace(simple, `"127.0.0.1:0"`, `"127.0.0.1:0", limits: {http2: {streams: 0}}`, 1), "A", endpoint(t, echo))
	if resp, err := over2(t).Get("http://" + g.address + "/"); err == nil {
		t.Errorf("answered: %v", resp)
	}
	c, err := net.Dial("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	if answer, _ := io.ReadAll(c); !strings.HasPrefix(string(answer), "HTTP/1.1 505 ") {
		t.Errorf("%q", answer)
	}
}

// A client that ignores our settings is told that its head is too large.
func TestHTTP2LongHeads(t *testing.T) {
	t.Parallel()
	g := open(t, strings.Replace(simple, `"127.0.0.1:0"`, `"127.0.0.1:0", limits: {header_bytes: 4KiB}`, 1), "A", endpoint(t, echo))
	c, err := net.Dial("tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	framer := http2.NewFramer(c, c)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	fmt.Fprint(c, http2.ClientPreface)
	_ = framer.WriteSettings()
	f := func(stream uint32, path, value, want string) {
		t.Helper()
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		for _, field := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", path}, {"x", value}} {
			_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1], Sensitive: true})
		}
		_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				t.Fatalf("stream %d: %v", stream, err)
			}
			if head, ok := frame.(*http2.MetaHeadersFrame); ok {
				if got := head.PseudoValue("status"); got != want || head.StreamID != stream {
					t.Errorf("stream %d: %s, want %s", head.StreamID, got, want)
				}
				return
			}
		}
	}
	f(1, "/", strings.Repeat("y", 4500), "431")
	f(3, "/"+strings.Repeat("y", 4500), "z", "414")
	f(5, "/", "z", "200")
}
