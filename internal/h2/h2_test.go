package h2

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/menshen-gateway/menshen/internal/h1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var wide = Limits{
	Streams: 100, Window: 64 << 10, ConnectionWindow: 128 << 10, HeadBytes: 16 << 10, Continuations: 16,
	Resets: Rate{50, time.Hour}, Idle: Rate{50, time.Hour}, TimeoutHead: 10 * time.Second, TimeoutIdle: time.Minute,
}

// peer is the other end of a connection under test, driven by hand with a framer that is not ours.
type peer struct {
	*http2.Framer
	t       testing.TB
	nc      net.Conn
	encoded bytes.Buffer
	encoder *hpack.Encoder
}

func newPeer(t testing.TB, nc net.Conn) *peer {
	p := &peer{Framer: http2.NewFramer(nc, nc), t: t, nc: nc}
	p.AllowIllegalWrites = true
	p.encoder = hpack.NewEncoder(&p.encoded)
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return p
}

// block encodes fields, given as name and value in turn.
func (p *peer) block(fields ...string) []byte {
	p.encoded.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(p.encoded.Bytes())
}

// head sends a whole head.
func (p *peer) head(stream uint32, end bool, fields ...string) {
	_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: p.block(fields...), EndStream: end, EndHeaders: true})
}

var get = []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}
var post = []string{":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/"}

// next reads the next frame that is not about settings or windows; nil at the end of the connection.
func (p *peer) next() http2.Frame {
	p.t.Helper()
	for {
		f, err := p.ReadFrame()
		if err != nil {
			p.t.Logf("the connection ended: %v", err)
			return nil
		}
		switch f.(type) {
		case *http2.SettingsFrame, *http2.WindowUpdateFrame:
			continue
		}
		return f
	}
}

// wantReset reads until the stream is reset.
func (p *peer) wantReset(stream uint32, code http2.ErrCode) {
	p.t.Helper()
	for {
		switch f := p.next().(type) {
		case nil:
			p.t.Errorf("the connection ended; want a reset with %v", code)
			return
		case *http2.RSTStreamFrame:
			if f.StreamID != stream || f.ErrCode != code {
				p.t.Errorf("stream %d is reset with %v, want %d with %v", f.StreamID, f.ErrCode, stream, code)
			}
			return
		case *http2.GoAwayFrame:
			p.t.Errorf("the connection ends with %v (%s), want a reset with %v", f.ErrCode, f.DebugData(), code)
			return
		}
	}
}

// wantGoAway reads until the connection is ended.
func (p *peer) wantGoAway(code http2.ErrCode) {
	p.t.Helper()
	for {
		switch f := p.next().(type) {
		case nil:
			p.t.Errorf("the connection ended without a word, want GOAWAY with %v", code)
			return
		case *http2.GoAwayFrame:
			if f.ErrCode != code {
				p.t.Errorf("the connection ends with %v (%s), want %v", f.ErrCode, f.DebugData(), code)
			}
			return
		}
	}
}

// wantText reads a response's body until the stream ends.
func (p *peer) wantText(stream uint32, want string) {
	p.t.Helper()
	var got []byte
	for {
		switch f := p.next().(type) {
		case nil:
			p.t.Errorf("the connection ended after %q", got)
			return
		case *http2.DataFrame:
			got = append(got, f.Data()...)
			if f.StreamEnded() {
				if string(got) != want || f.StreamID != stream {
					p.t.Errorf("stream %d: %q, want %d: %q", f.StreamID, got, stream, want)
				}
				return
			}
		case *http2.GoAwayFrame:
			p.t.Errorf("the connection ends with %v (%s), want %q", f.ErrCode, f.DebugData(), want)
			return
		case *http2.RSTStreamFrame:
			p.t.Errorf("stream %d is reset with %v, want %q", f.StreamID, f.ErrCode, want)
			return
		}
	}
}

// echo answers with what it reads, head and all.
func echo(s *Stream) {
	text, err := io.ReadAll(s)
	if err != nil {
		s.Finish(InternalError)
		return
	}
	_ = s.Head([]byte("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"), false)
	_ = s.End(text, nil, 0)
	s.Finish(InternalError)
}

// serve runs a server with a handler and gives its peer, which has sent the preface. Each test reads what it cares about; what it
// writes does not wait for that.
func serve(t testing.TB, l Limits, handler func(*Stream)) *peer {
	t.Helper()
	ours, theirs := net.Pipe()
	c := NewServer(ours, func() { ours.Close() }, l, func(s *Stream) { go handler(s) }, nil)
	done := make(chan error, 1)
	go func() { done <- c.Serve(nil) }()
	buffered := newBuffered(theirs)
	t.Cleanup(func() {
		buffered.Close()
		<-done
	})
	p := newPeer(t, buffered)
	_, _ = buffered.Write([]byte(Preface))
	_ = p.WriteSettings()
	return p
}

// buffered is an end of a pipe whose writes do not wait.
type buffered struct {
	net.Conn
	mu      sync.Mutex
	more    sync.Cond
	pending []byte
	closed  bool
	done    chan struct{}
}

func newBuffered(nc net.Conn) *buffered {
	b := &buffered{Conn: nc, done: make(chan struct{})}
	b.more.L = &b.mu
	go func() { // ends with Close, or with the pipe
		defer close(b.done)
		for {
			b.mu.Lock()
			for len(b.pending) == 0 && !b.closed {
				b.more.Wait()
			}
			out := b.pending
			b.pending = nil
			b.mu.Unlock()
			if len(out) == 0 {
				return
			}
			if _, err := b.Conn.Write(out); err != nil {
				return
			}
		}
	}()
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending = append(b.pending, p...)
	b.more.Signal()
	return len(p), nil
}

func (b *buffered) Close() error {
	b.mu.Lock()
	b.closed = true
	b.more.Signal()
	b.mu.Unlock()
	err := b.Conn.Close()
	<-b.done
	return err
}

// A head becomes text that a parser of HTTP/1.1 reads.
func TestRequestText(t *testing.T) {
	t.Parallel()
	f := func(want string, fields ...string) {
		t.Helper()
		p := serve(t, wide, echo)
		p.head(1, true, fields...)
		p.wantText(1, strings.ReplaceAll(want, "\n", "\r\n"))
	}
	f("GET / HTTP/1.1\nhost: a\n\n", get...)
	f("GET /x?y HTTP/1.1\nhost: a:1\n\n", ":path", "/x?y", ":authority", "a:1", ":scheme", "https", ":method", "GET")
	f("OPTIONS * HTTP/1.1\nhost: a\n\n", ":method", "OPTIONS", ":scheme", "http", ":authority", "a", ":path", "*")
	f("CONNECT a:443 HTTP/1.1\nhost: a:443\n\n", ":method", "CONNECT", ":authority", "a:443")
	f("GET / HTTP/1.1\nhost: b\n\n", ":method", "GET", ":scheme", "http", ":path", "/", "host", "b")
	f("GET / HTTP/1.1\nhost: a\nx: 1\ncookie: a=1; b=2; c=3\n\n", append(get[:8:8], "cookie", "a=1", "x", "1", "host", "a", "cookie", "b=2; c=3")...)
	f("GET / HTTP/1.1\nhost: a\nte: trailers\nx: \nx: \xff\n\n", append(get[:8:8], "te", "trailers", "x", "", "x", "\xff")...)
}

// A malformed request costs its stream, and nothing else.
func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	f := func(what string, fields ...string) {
		t.Helper()
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := serve(t, wide, echo)
			p.head(1, true, fields...)
			p.wantReset(1, http2.ErrCodeProtocol)
			p.head(3, true, get...)
			p.wantText(3, "GET / HTTP/1.1\r\nhost: a\r\n\r\n")
		})
	}
	with := func(fields ...string) []string { return append(get[:8:8], fields...) }
	f("no method", get[2:]...)
	f("no scheme", ":method", "GET", ":authority", "a", ":path", "/")
	f("no path", get[:6]...)
	f("empty path", ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "")
	f("URL in place of a path", ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "http://b/")
	f("request line in a method", ":method", "GET /b HTTP/1.1\r\nx:", ":scheme", "http", ":authority", "a", ":path", "/")
	f("space in a path", ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/ HTTP/1.1")
	f("line break in a path", ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/\r\nx: y")
	f("line break in an authority", ":method", "GET", ":scheme", "http", ":authority", "a\r\nx: y", ":path", "/")
	f("unknown scheme", ":method", "GET", ":scheme", "ftp", ":authority", "a", ":path", "/")
	f("pseudo-field twice", with(":path", "/b")...)
	f("pseudo-field of responses", append([]string{":status", "200"}, get...)...)
	f("unknown pseudo-field", append([]string{":x", "200"}, get...)...)
	f("extended CONNECT", ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/")
	f("CONNECT with a path", ":method", "CONNECT", ":authority", "a:1", ":path", "/")
	f("pseudo-field behind others", ":method", "GET", ":scheme", "http", ":authority", "a", "x", "y", ":path", "/")
	f("capital", with("X-A", "b")...)
	f("space in a name", with("x a", "b")...)
	f("empty name", with("", "b")...)
	f("line break in a value", with("x", "b\r\ny: z")...)
	f("NUL in a value", with("x", "b\x00")...)
	f("space before a value", with("x", " b")...)
	f("space behind a value", with("x", "b\t")...)
	f("connection", with("connection", "close")...)
	f("transfer-encoding", with("transfer-encoding", "chunked")...)
	f("upgrade", with("upgrade", "h2c")...)
	f("keep-alive", with("keep-alive", "1")...)
	f("proxy-connection", with("proxy-connection", "close")...)
	f("te", with("te", "gzip")...)
	f("host is not the authority", with("host", "b")...)
	f("host twice", ":method", "GET", ":scheme", "http", ":path", "/", "host", "b", "host", "b")
	f("content-length twice", with("content-length", "0", "content-length", "0")...)
	f("content-length that is no number", with("content-length", "+1")...)
	f("content-length without a body", with("content-length", "1")...)
}

func TestBodies(t *testing.T) {
	t.Parallel()
	f := func(what string, send func(p *peer), check func(p *peer)) {
		t.Helper()
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := serve(t, wide, echo)
			send(p)
			check(p)
		})
	}
	const head = "POST / HTTP/1.1\r\nhost: a\r\n\r\n"
	text := func(want string) func(*peer) { return func(p *peer) { p.t.Helper(); p.wantText(1, head+want) } }
	reset := func(code http2.ErrCode) func(*peer) { return func(p *peer) { p.t.Helper(); p.wantReset(1, code) } }
	f("pieces", func(p *peer) {
		p.head(1, false, post...)
		_ = p.WriteData(1, false, []byte("hel"))
		_ = p.WriteDataPadded(1, true, []byte("lo"), make([]byte, 9))
	}, text("hello"))
	f("trailers", func(p *peer) {
		p.head(1, false, post...)
		_ = p.WriteData(1, false, []byte("hello"))
		p.head(1, true, "x", "y")
	}, text("hello"))
	f("trailers that frame", func(p *peer) {
		p.head(1, false, post...)
		p.head(1, true, "content-length", "5")
	}, reset(http2.ErrCodeProtocol))
	f("trailers with a pseudo-field", func(p *peer) {
		p.head(1, false, post...)
		p.head(1, true, ":path", "/b")
	}, reset(http2.ErrCodeProtocol))
	f("shorter than declared", func(p *peer) {
		p.head(1, false, append(post[:8:8], "content-length", "6")...)
		_ = p.WriteData(1, true, []byte("hello"))
	}, reset(http2.ErrCodeProtocol))
	f("longer than declared", func(p *peer) {
		p.head(1, false, append(post[:8:8], "content-length", "4")...)
		_ = p.WriteData(1, false, []byte("hello"))
	}, reset(http2.ErrCodeProtocol))
	f("more than the window", func(p *peer) {
		p.head(1, false, post...)
		for range 5 { // the settings are not acknowledged, but bind from the start: they are larger than the default
			_ = p.WriteData(1, false, make([]byte, 16384))
		}
	}, func(p *peer) { p.t.Helper(); drainedOr(p, http2.ErrCodeFlowControl) })
}

// drainedOr accepts that the reader was fast enough to keep the window open.
func drainedOr(p *peer, code http2.ErrCode) {
	p.t.Helper()
	_ = p.WriteData(1, true, nil)
	for {
		switch f := p.next().(type) {
		case nil:
			p.t.Error("the connection ended")
			return
		case *http2.RSTStreamFrame:
			if f.ErrCode != code {
				p.t.Errorf("reset with %v", f.ErrCode)
			}
			return
		case *http2.HeadersFrame, *http2.MetaHeadersFrame:
			return
		}
	}
}

// What a peer can make us do without end, ends.
func TestFloods(t *testing.T) {
	t.Parallel()
	f := func(what string, code http2.ErrCode, send func(p *peer)) {
		t.Helper()
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := serve(t, wide, func(s *Stream) {
				_, _ = io.ReadAll(s)
				s.Finish(Cancel)
			})
			send(p)
			p.wantGoAway(code)
		})
	}
	calm := http2.ErrCodeEnhanceYourCalm
	f("rapid reset", calm, func(p *peer) {
		for i := range uint32(100) {
			p.head(2*i+1, true, get...)
			_ = p.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
		}
	})
	f("resets that we are made to send", calm, func(p *peer) {
		for i := range uint32(100) {
			p.head(2*i+1, false, post...)
			_ = p.WriteWindowUpdate(2*i+1, 0)
		}
	})
	f("malformed requests", calm, func(p *peer) {
		for i := range uint32(100) {
			p.head(2*i+1, true, "x", "y")
		}
	})
	f("pings", calm, func(p *peer) {
		for range 100 {
			_ = p.WritePing(false, [8]byte{})
		}
	})
	f("settings", calm, func(p *peer) {
		for range 100 {
			_ = p.WriteSettings()
		}
	})
	f("priorities", calm, func(p *peer) {
		for range 100 {
			_ = p.WritePriority(1, http2.PriorityParam{StreamDep: 3})
		}
	})
	f("unknown frames", calm, func(p *peer) {
		for range 100 {
			_ = p.WriteRawFrame(0x77, 0, 0, nil)
		}
	})
	f("empty data", calm, func(p *peer) {
		p.head(1, false, post...)
		for range 100 {
			_ = p.WriteData(1, false, nil)
		}
	})
	f("continuations", calm, func(p *peer) {
		_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(get...)})
		for range 20 {
			_ = p.WriteContinuation(1, false, nil)
		}
	})
	f("a head without end", calm, func(p *peer) {
		_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(get...)})
		for range 5 {
			_ = p.WriteContinuation(1, false, p.block("x", strings.Repeat("\xff", 8000)))
		}
	})
	f("a field longer than any", http2.ErrCodeCompression, func(p *peer) {
		block := p.block("x", strings.Repeat("a", 50000))
		_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:16000]})
		for rest := block[16000:]; len(rest) > 0; {
			n := min(len(rest), 16000)
			_ = p.WriteContinuation(1, n == len(rest), rest[:n])
			rest = rest[n:]
		}
	})
}

// Thousands of references to one long field cost a byte each: they are decoded, because the table must stay right, and forgotten.
func TestHeadThatGrows(t *testing.T) {
	t.Parallel()
	p := serve(t, wide, func(s *Stream) {
		if text, _ := io.ReadAll(s); len(text) > wide.HeadBytes+4000 {
			t.Errorf("%d bytes of text", len(text))
		}
		s.Finish(Cancel)
	})
	block := append(p.block(append(get[:8:8], "x", strings.Repeat("y", 3000))...), bytes.Repeat([]byte{0x80 | 62}, 10000)...)
	_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true})
	p.wantReset(1, http2.ErrCodeCancel)
	p.head(3, true, get...)
	p.wantReset(3, http2.ErrCodeCancel)
}

// A head that is too long is cut for its reader, who can say so.
func TestLongHead(t *testing.T) {
	t.Parallel()
	read := make(chan error, 1)
	p := serve(t, wide, func(s *Stream) {
		var r h1.Request
		text, _ := io.ReadAll(s)
		_, err := r.Parse(text, h1.Limits{HeadBytes: wide.HeadBytes})
		read <- err
		s.Finish(Cancel)
	})
	p.head(1, true, append(get[:8:8], "x", strings.Repeat("a", 9000), "y", strings.Repeat("b", 9000))...)
	var e *h1.Error
	if err := <-read; !errors.As(err, &e) || e.Kind != h1.HeadTooLarge {
		t.Errorf("%v, want head too large", err)
	}
}

// A stream counts until its work is done, even when the client has given it up.
func TestStreamsAtWork(t *testing.T) {
	t.Parallel()
	l := wide
	l.Streams = 3
	release := make(chan struct{})
	p := serve(t, l, func(s *Stream) {
		<-release
		s.Finish(Cancel)
	})
	for i := range uint32(3) {
		p.head(2*i+1, true, get...)
		_ = p.WriteRSTStream(2*i+1, http2.ErrCodeCancel)
	}
	p.head(7, true, get...)
	p.wantReset(7, http2.ErrCodeRefusedStream)
	close(release)
	for id := uint32(9); ; id += 2 { // there is room soon
		p.head(id, true, get...)
		if f, ok := p.next().(*http2.RSTStreamFrame); !ok || f.ErrCode == http2.ErrCodeCancel {
			break
		}
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	f := func(what string, code http2.ErrCode, after time.Duration, send func(p *peer)) {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := serve(t, wide, echo)
				began := time.Now()
				send(p)
				p.wantGoAway(code)
				if took := time.Since(began); took < after || took > after+2*time.Second {
					t.Errorf("%v, want %v", took, after)
				}
			})
		})
	}
	f("idle", http2.ErrCodeNo, wide.TimeoutIdle, func(p *peer) {})
	f("idle after a request", http2.ErrCodeNo, wide.TimeoutIdle+20*time.Second, func(p *peer) {
		time.Sleep(20 * time.Second) // of the bubble
		p.head(1, true, get...)
	})
	f("pings do not keep a connection open", http2.ErrCodeNo, wide.TimeoutIdle, func(p *peer) {
		for range 9 {
			time.Sleep(5 * time.Second) // of the bubble
			_ = p.WritePing(false, [8]byte{})
		}
	})
	f("a head that is not finished", http2.ErrCodeEnhanceYourCalm, wide.TimeoutHead, func(p *peer) {
		_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(get...)})
	})
	t.Run("no preface", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			c := NewServer(ours, func() { ours.Close() }, wide, nil, nil)
			go func() { _ = c.Serve([]byte("PRI")) }()
			began := time.Now()
			newPeer(t, theirs).wantGoAway(http2.ErrCodeEnhanceYourCalm)
			if took := time.Since(began); took != wide.TimeoutHead {
				t.Errorf("%v", took)
			}
			theirs.Close()
			synctest.Wait()
		})
	})
}

// A drained connection finishes what it has, takes what was under way, and ends.
func TestDrain(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	release, accepted := make(chan struct{}), make(chan struct{}, 10)
	c := NewServer(ours, func() { ours.Close() }, wide, func(s *Stream) {
		accepted <- struct{}{}
		go func() {
			<-release
			echo(s)
		}()
	}, nil)
	done := make(chan error, 1)
	go func() { done <- c.Serve([]byte(Preface)) }()
	b := newBuffered(theirs)
	defer b.Close()
	p := newPeer(t, b)
	_ = p.WriteSettings()
	p.head(1, true, get...)
	<-accepted
	c.Drain()
	if f, ok := p.next().(*http2.GoAwayFrame); !ok || f.LastStreamID != 1<<31-1 || f.ErrCode != http2.ErrCodeNo {
		t.Errorf("first: %v", f)
	}
	ping, ok := p.next().(*http2.PingFrame)
	if !ok {
		t.Fatal("no ping")
	}
	p.head(3, true, get...) // sent before the client knew
	<-accepted
	_ = p.WritePing(true, ping.Data)
	if f, ok := p.next().(*http2.GoAwayFrame); !ok || f.LastStreamID != 3 || f.ErrCode != http2.ErrCodeNo {
		t.Errorf("second: %v", f)
	}
	p.head(5, true, get...)
	p.wantReset(5, http2.ErrCodeRefusedStream)
	close(release)
	ended := 0
	for ended < 2 {
		switch f := p.next().(type) {
		case nil:
			t.Fatal("the connection ended before its streams")
		case *http2.DataFrame:
			if f.StreamEnded() {
				ended++
			}
		}
	}
	p.wantGoAway(http2.ErrCodeNo)
	b.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The client's side against a server that is driven by hand.
func TestClient(t *testing.T) {
	t.Parallel()
	const request = "GET /x HTTP/1.1\r\nHost: a\r\nX-Y: z\r\nConnection: close\r\n\r\n"
	f := func(what string, answer func(p *peer), check func(t *testing.T, c *Conn, s *Stream)) {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ours, theirs := net.Pipe()
			c := NewClient(ours, func() { ours.Close() }, "https", wide)
			done := make(chan error, 1)
			go func() { done <- c.Serve(nil) }()
			b := newBuffered(theirs)
			p := newPeer(t, b)
			_, _ = io.ReadFull(b, make([]byte, len(Preface)))
			_ = p.WriteSettings()
			s := c.Reserve(10)
			if s == nil {
				t.Fatal("no place")
			}
			answered := make(chan struct{})
			go func() {
				defer close(answered)
				h, ok := p.next().(*http2.MetaHeadersFrame)
				if !ok || h.StreamID != 1 || h.PseudoValue("method") != "GET" || h.PseudoValue("scheme") != "https" || h.PseudoValue("authority") != "a" || h.PseudoValue("path") != "/x" || len(h.RegularFields()) != 1 || h.RegularFields()[0].Name != "x-y" || !h.StreamEnded() {
					t.Errorf("request: %v", h)
				}
				answer(p)
			}()
			if err := s.Head([]byte(request), true); err != nil {
				t.Fatal(err)
			}
			_ = s.Flush()
			check(t, c, s)
			s.Finish(Cancel)
			<-answered
			_ = c.Close()
			b.Close()
			<-done
		})
	}
	text := func(want string, trailers int) func(*testing.T, *Conn, *Stream) {
		return func(t *testing.T, _ *Conn, s *Stream) {
			t.Helper()
			got, err := io.ReadAll(s)
			if err != nil || string(got) != want || len(s.Trailers()) != trailers {
				t.Errorf("%q %v, %v", got, s.Trailers(), err)
			}
		}
	}
	fails := func(code Code, remote, unsent bool) func(*testing.T, *Conn, *Stream) {
		return func(t *testing.T, _ *Conn, s *Stream) {
			t.Helper()
			got, err := io.ReadAll(s)
			var e *Error
			if !errors.As(err, &e) || e.Code != code || e.Remote != remote || Unsent(err) != unsent {
				t.Errorf("%q, %v, want %v", got, err, code)
			}
		}
	}
	f("interim, head, body, trailers", func(p *peer) {
		p.head(1, false, ":status", "103", "link", "b")
		p.head(1, false, ":status", "200", "a", "b")
		_ = p.WriteData(1, false, []byte("hello"))
		p.head(1, true, "grpc-status", "0")
	}, text("HTTP/1.1 103 Early Hints\r\nlink: b\r\n\r\nHTTP/1.1 200 OK\r\na: b\r\n\r\nhello", 1))
	f("head only", func(p *peer) { p.head(1, true, ":status", "404", "grpc-status", "0") }, text("HTTP/1.1 404 Not Found\r\ngrpc-status: 0\r\n\r\n", 0))
	f("refused", func(p *peer) { _ = p.WriteRSTStream(1, http2.ErrCodeRefusedStream) }, fails(RefusedStream, true, true))
	f("reset", func(p *peer) { _ = p.WriteRSTStream(1, http2.ErrCodeInternal) }, fails(InternalError, true, false))
	f("not seen by a server that leaves", func(p *peer) { _ = p.WriteGoAway(0, http2.ErrCodeNo, nil) }, fails(NoError, true, true))
	f("seen by a server that leaves", func(p *peer) {
		_ = p.WriteGoAway(1, http2.ErrCodeNo, nil)
		p.head(1, true, ":status", "204")
	}, func(t *testing.T, c *Conn, s *Stream) {
		text("HTTP/1.1 204 No Content\r\n\r\n", 0)(t, c, s)
		if c.Usable() || c.Reserve(10) != nil {
			t.Error("a connection that the server leaves takes streams")
		}
	})
	f("no status", func(p *peer) { p.head(1, true, "a", "b") }, fails(ProtocolError, false, false))
	f("two statuses", func(p *peer) { p.head(1, true, ":status", "200", ":status", "200") }, fails(ProtocolError, false, false))
	f("another protocol", func(p *peer) { p.head(1, false, ":status", "101") }, fails(ProtocolError, false, false))
	f("an interim response that ends", func(p *peer) { p.head(1, true, ":status", "103") }, fails(ProtocolError, false, false))
	f("a field for HTTP/1", func(p *peer) { p.head(1, true, ":status", "200", "transfer-encoding", "chunked") }, fails(ProtocolError, false, false))
	f("data before the head", func(p *peer) { _ = p.WriteData(1, true, []byte("x")) }, fails(ProtocolError, false, false))
	f("shorter than declared", func(p *peer) {
		p.head(1, false, ":status", "200", "content-length", "2")
		_ = p.WriteData(1, true, []byte("x"))
	}, fails(ProtocolError, false, false))
	f("a body where none may be", func(p *peer) {
		p.head(1, false, ":status", "304", "content-length", "2")
		_ = p.WriteData(1, true, []byte("x"))
	}, fails(ProtocolError, false, false))
	f("a push", func(p *peer) {
		_ = p.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
	}, fails(ProtocolError, false, false))
	f("an answer to nobody", func(p *peer) { p.head(3, true, ":status", "200") }, fails(ProtocolError, false, false))
	f("nothing in time", func(p *peer) {}, func(t *testing.T, _ *Conn, s *Stream) {
		_ = s.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
}

// A writer waits for the peer's windows, until its deadline.
func TestWriteWaitsForWindows(t *testing.T) {
	t.Parallel()
	wrote := make(chan error, 1)
	p := serve(t, wide, func(s *Stream) {
		_ = s.Head([]byte("HTTP/1.1 200 OK\r\n\r\n"), false)
		_, err := s.Write(make([]byte, 200_000))
		wrote <- err
		_ = s.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		_, err = s.Write([]byte("x"))
		wrote <- err
		s.Finish(Cancel)
	})
	p.head(1, true, get...)
	got := 0
	for got < 65535 {
		if f, ok := p.next().(*http2.DataFrame); ok {
			got += len(f.Data())
		}
	}
	select {
	case err := <-wrote:
		t.Errorf("written beyond the window: %v", err)
	default:
	}
	_ = p.WriteWindowUpdate(0, 200_000-65535)
	_ = p.WriteWindowUpdate(1, 100_000)
	_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 200_000 - 100_000})
	for got < 200_000 {
		switch f := p.next().(type) {
		case nil:
			t.Fatalf("the connection ended after %d bytes", got)
		case *http2.DataFrame:
			got += len(f.Data())
		}
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	if err := <-wrote; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v, want a timeout", err)
	}
	p.wantReset(1, http2.ErrCodeCancel)
}

// A peer that makes us answer and does not read loses its connection.
func TestPeerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	l := wide
	l.Idle = Rate{}
	ours, theirs := net.Pipe()
	c := NewServer(ours, func() { ours.Close() }, l, nil, nil)
	done := make(chan error, 1)
	go func() { done <- c.Serve([]byte(Preface)) }()
	p := newPeer(t, theirs)
	for err := p.WriteSettings(); err == nil; {
		err = p.WritePing(false, [8]byte{})
	}
	theirs.Close()
	var e *Error
	if err := <-done; !errors.As(err, &e) || e.Code != EnhanceYourCalm {
		t.Errorf("%v", err)
	}
}
