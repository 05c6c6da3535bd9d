package h2

import (
	"bytes"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"

	"github.com/menshen-gateway/menshen/internal/h1"
)

// canned is a connection that gives bytes and takes all.
type canned struct {
	net.Conn
	in *bytes.Reader
}

func (c canned) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c canned) Write(p []byte) (int, error) { return len(p), nil }
func (c canned) Close() error                { return nil }

// seeds are conversations that end well.
func seeds(f *testing.F, server bool) {
	var sent bytes.Buffer
	p := newPeer(f, nil)
	p.Framer = http2.NewFramer(&sent, nil)
	p.AllowIllegalWrites = true
	_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	if server {
		p.head(1, false, append(post[:8:8], "cookie", "a=b", "content-length", "5")...)
		_ = p.WriteDataPadded(1, true, []byte("hello"), make([]byte, 3))
		_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: p.block(get...), Priority: http2.PriorityParam{StreamDep: 1}})
		_ = p.WriteContinuation(3, true, p.block("x", "y"))
		p.head(3, true, "x", "z")
	} else {
		p.head(1, false, ":status", "103")
		p.head(1, false, ":status", "200", "content-length", "5")
		_ = p.WriteData(1, false, []byte("hello"))
		p.head(1, true, "grpc-status", "0")
	}
	_ = p.WritePing(false, [8]byte{1})
	_ = p.WriteWindowUpdate(0, 100)
	_ = p.WriteRSTStream(1, http2.ErrCodeCancel)
	_ = p.WriteGoAway(1, http2.ErrCodeNo, []byte("x"))
	f.Add(sent.Bytes())
}

// FuzzServer plays arbitrary bytes of a client: nothing panics or hangs, and every head is cut, or one that a parser can judge.
func FuzzServer(f *testing.F) {
	seeds(f, true)
	f.Fuzz(func(t *testing.T, in []byte) {
		c := NewServer(canned{in: bytes.NewReader(in)}, func() {}, wide, func(s *Stream) {
			go func() {
				text, err := io.ReadAll(s)
				var r h1.Request
				if n, refused := r.Parse(text, h1.Limits{HeadBytes: wide.HeadBytes}); err == nil && n == 0 && refused == nil {
					t.Errorf("an unfinished head: %q", text)
				}
				_ = s.Head([]byte("HTTP/1.1 200 OK\r\nA: b\r\n\r\n"), false)
				_ = s.End(nil, s.Trailers(), 0)
				s.Finish(InternalError)
			}()
		}, nil)
		_ = c.Serve([]byte(Preface))
	})
}

// FuzzClient plays arbitrary bytes of a server.
func FuzzClient(f *testing.F) {
	seeds(f, false)
	f.Fuzz(func(t *testing.T, in []byte) {
		c := NewClient(canned{in: bytes.NewReader(in)}, func() {}, "http", wide)
		s := c.Reserve(10)
		if err := s.Head([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), true); err != nil {
			t.Fatal(err)
		}
		_ = c.Serve(nil)
		_, _ = io.ReadAll(s)
		_ = s.Trailers()
		s.Finish(Cancel)
	})
}
