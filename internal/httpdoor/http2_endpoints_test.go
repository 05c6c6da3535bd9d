package httpdoor

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Many requests at once share few connections, never more on one than the endpoint allows, from its first moment on: an endpoint
// takes a stream too many for a mistake.
func TestHTTP2EndpointAllowsStreams(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ allowed, connsMost int }{{10, 51}, {100, 6}, {1000, 6}} {
		t.Run(strconv.Itoa(c.allowed), func(t *testing.T) {
			t.Parallel()
			const requests = 500
			var conns, waiting atomic.Int64
			all := make(chan struct{})
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if waiting.Add(1) == requests {
					close(all)
				}
				select {
				case <-all:
				case <-time.After(10 * time.Second):
					t.Error("not all requests are here at once")
				}
			}))
			s.Config.Protocols = new(http.Protocols)
			s.Config.Protocols.SetUnencryptedHTTP2(true)
			s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: c.allowed}
			s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
				if state == http.StateNew {
					conns.Add(1)
				}
			}
			s.Start()
			defer s.Close()
			g := open(t, simple2, "A", s.Listener.Addr().String())
			client := over2(t)
			var group sync.WaitGroup
			for range requests {
				group.Go(func() {
					resp, err := client.Post("http://"+g.address+"/", "text/plain", strings.NewReader("x"))
					if err != nil {
						t.Error(err)
						return
					}
					resp.Body.Close()
					if resp.StatusCode != 200 {
						t.Errorf("status %d", resp.StatusCode)
					}
				})
			}
			group.Wait()
			t.Logf("%d requests at once: %d connections", requests, conns.Load())
			if n := conns.Load(); n > int64(c.connsMost) {
				t.Errorf("%d connections, want at most %d", n, c.connsMost)
			}
		})
	}
}

// bundlePeer is an endpoint that speaks HTTP/2 by hand: answer is called for each request, with the number of its connection.
func bundlePeer(t *testing.T, answer func(p *bundleEnd, conn int, h *http2.MetaHeadersFrame)) (address string) {
	var conns atomic.Int64
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	var opened []net.Conn
	group.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			opened = append(opened, c)
			mu.Unlock()
			group.Go(func() {
				defer c.Close()
				if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
					return
				}
				p := &bundleEnd{Framer: http2.NewFramer(c, c)}
				p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
				number := int(conns.Add(1))
				_ = p.WriteSettings()
				for {
					f, err := p.ReadFrame()
					if err != nil {
						return
					}
					switch f := f.(type) {
					case *http2.SettingsFrame:
						if !f.IsAck() {
							_ = p.WriteSettingsAck()
						}
					case *http2.MetaHeadersFrame:
						answer(p, number, f)
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, c := range opened {
			c.Close()
		}
		mu.Unlock()
		group.Wait()
	})
	return ln.Addr().String()
}

// bundleEnd is the endpoint's side of one connection.
type bundleEnd struct {
	*http2.Framer
	unanswered []uint32
}

// respond answers a stream with the number of the connection as the body.
func (p *bundleEnd) respond(stream uint32, conn int) {
	_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true}) // :status 200
	_ = p.WriteData(stream, true, fmt.Append(nil, conn))
}

// ask2 asks n times at once and gives the answers, counted: "200 1", "502".
func ask2(t *testing.T, g *gate, method string, n int) map[string]int {
	t.Helper()
	client := over2(t)
	answers := make(chan string, n)
	for i := range n {
		go func() {
			r, err := http.NewRequest(method, fmt.Sprintf("http://%s/%d", g.address, i), nil)
			if err != nil {
				answers <- err.Error()
				return
			}
			if method == "POST" {
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader("x")), 1
			}
			resp, err := client.Do(r)
			if err != nil {
				answers <- err.Error()
				return
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			switch {
			case err != nil:
				answers <- fmt.Sprintf("%d cut", resp.StatusCode)
			case resp.StatusCode != 200:
				answers <- strconv.Itoa(resp.StatusCode)
			default:
				answers <- fmt.Sprintf("200 %s", body)
			}
		}()
	}
	counted := map[string]int{}
	for range n {
		counted[<-answers]++
	}
	return counted
}

func wantAnswers(t *testing.T, what string, got map[string]int, want map[string]int) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// An endpoint that leaves (GOAWAY) answers the streams up to the one it names; those behind it go elsewhere, whatever their method
// (RFC 9113, 6.8), and what was on its way is answered.
func TestHTTP2EndpointLeaves(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "POST"} {
		g := open(t, simple2, "A", bundlePeer(t, func(p *bundleEnd, conn int, h *http2.MetaHeadersFrame) {
			if conn > 1 {
				p.respond(h.StreamID, conn)
				return
			}
			if p.unanswered = append(p.unanswered, h.StreamID); len(p.unanswered) < 10 {
				return
			}
			_ = p.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil) // says first that it is going to leave
			_ = p.WriteGoAway(p.unanswered[3], http2.ErrCodeNo, nil)
			for _, stream := range p.unanswered[:4] {
				p.respond(stream, conn)
			}
		}))
		wantAnswers(t, method, ask2(t, g, method, 10), map[string]int{"200 1": 4, "200 2": 6})
	}
}

// A stream that the endpoint refuses is asked again; one that it resets leaves the others alone.
func TestHTTP2EndpointResets(t *testing.T) {
	t.Parallel()
	g := open(t, strings.Replace(simple2, "h2c}", "h2c, retry: 0}", 1), "A", bundlePeer(t, func(p *bundleEnd, conn int, h *http2.MetaHeadersFrame) {
		if p.unanswered = append(p.unanswered, h.StreamID); conn == 1 && len(p.unanswered) < 20 {
			return
		}
		for i, stream := range p.unanswered {
			switch {
			case conn == 1 && i%4 == 0:
				_ = p.WriteRSTStream(stream, http2.ErrCodeInternal)
			case conn == 1 && i%4 == 1:
				_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true})
				_ = p.WriteRSTStream(stream, http2.ErrCodeCancel)
			default:
				p.respond(stream, conn)
			}
		}
		p.unanswered = nil
	}))
	for _, when := range []string{"reset", "the connection serves on"} {
		// Of the streams that are reset after their heads, some heads have been passed on by then.
		if got := ask2(t, g, "POST", 20); got["200 1"] != 10 || got["502"] < 5 || got["502"]+got["200 cut"] != 10 {
			t.Errorf("%s: %v, want 10 answers, and of 10 streams that are reset at least 5 without a head", when, got)
		}
	}
}

// An endpoint that refuses streams has not acted on them: they are asked again, whatever their method, and all on the one connection
// that is opened beside the one that refuses. The first connection stands before: requests that come all at once, and first, may
// open a second one anyway.
func TestHTTP2EndpointRefuses(t *testing.T) {
	t.Parallel()
	g := open(t, simple2, "A", bundlePeer(t, func(p *bundleEnd, conn int, h *http2.MetaHeadersFrame) {
		if p.unanswered = append(p.unanswered, h.StreamID); conn == 1 && h.StreamID > 5 && len(p.unanswered) <= 20 {
			_ = p.WriteRSTStream(h.StreamID, http2.ErrCodeRefusedStream)
			return
		}
		p.respond(h.StreamID, conn)
	}))
	wantAnswers(t, "first", ask2(t, g, "POST", 1), map[string]int{"200 1": 1})
	if got := ask2(t, g, "POST", 40); got["200 1"]+got["200 2"] != 40 {
		t.Errorf("%v, want 40 answers by connections 1 and 2", got)
	}
}

// An endpoint that refuses everything, on each connection, gets a few of them and no more.
func TestHTTP2EndpointRefusesAll(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	refused := map[int]int{} // by connection
	g := open(t, simple2, "A", bundlePeer(t, func(p *bundleEnd, conn int, h *http2.MetaHeadersFrame) {
		if conn == 1 && h.StreamID == 1 {
			p.respond(h.StreamID, conn)
			return
		}
		mu.Lock()
		refused[conn]++
		mu.Unlock()
		_ = p.WriteRSTStream(h.StreamID, http2.ErrCodeRefusedStream)
	}))
	wantAnswers(t, "first", ask2(t, g, "POST", 1), map[string]int{"200 1": 1})
	for range 5 {
		wantAnswers(t, "then", ask2(t, g, "POST", 40), map[string]int{"502": 40})
	}
	mu.Lock()
	defer mu.Unlock()
	if len(refused) > 4 {
		t.Errorf("streams refused by connection: %v, want at most 4 connections", refused)
	}
}

// An endpoint that is silent on a whole connection may be gone: what comes next is asked on another one.
func TestHTTP2EndpointSilent(t *testing.T) {
	t.Parallel()
	g := open(t, strings.Replace(simple2, "h2c}", "h2c, retry: 0, timeouts: {first_byte: 300ms}}", 1), "A", bundlePeer(t, func(p *bundleEnd, conn int, h *http2.MetaHeadersFrame) {
		if conn > 1 || h.StreamID == 1 {
			p.respond(h.StreamID, conn)
		}
	}))
	wantAnswers(t, "first", ask2(t, g, "GET", 1), map[string]int{"200 1": 1})
	wantAnswers(t, "silent", ask2(t, g, "GET", 3), map[string]int{"504": 3})
	wantAnswers(t, "then", ask2(t, g, "GET", 3), map[string]int{"200 2": 3})
}
