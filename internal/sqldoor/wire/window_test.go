package wire

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/menshen-gateway/menshen/internal/mysql"
)

// framed is frames in a zstd payload that declares a window, as a client sends them; only the first part of the payload.
func framed(t testing.TB, content []byte, window, part int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	for rest := content; len(rest) > 0; { // in pieces, or the encoder would take a window that fits
		n := min(len(rest), 100)
		if len(rest) > 1<<20 {
			n = 1 << 20
		}
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var h zstd.Header
	if err := h.Decode(b.Bytes()); err != nil || h.WindowSize != uint64(window) {
		t.Fatalf("the frame declares %d, not %d: %v", h.WindowSize, window, err)
	}
	out := mysql.Envelope{Length: b.Len(), Inflated: len(content)}.AppendTo(nil)
	return append(out, b.Bytes()[:min(b.Len(), part)]...)
}

const whole = 1 << 30

// long is text that is quick to make and to compress.
func long(n int, r *rand.Rand) []byte { return bytes.Repeat(text(min(n, 10_000), r), n/10_000+1)[:n] }

func TestWindows(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	f := func(size, window int, class *windows, want error) {
		t.Helper()
		content, _ := mysql.AppendPacket(nil, 0, long(size, r))
		sent := framed(t, content, window, whole)
		e := &envelopes{under: duplex{bytes.NewReader(sent), nil}, how: mysql.Zstd}
		one := make([]byte, 1)
		if _, err := io.ReadFull(e, one); !errors.Is(err, want) || want == nil && err != nil {
			t.Fatalf("%d bytes, window %d: %v, want %v", size, window, err, want)
		}
		if want != nil {
			if e.left != 0 || e.r != e.w {
				t.Error("the payload was not read to its end")
			}
			return
		}
		if got := e.inflater.(*zstdReader).of; got != class {
			t.Errorf("%d bytes, window %d: class of %d", size, window, got.size)
		}
		rest, err := io.ReadAll(e)
		if err != nil || !bytes.Equal(append(one, rest...), content) {
			t.Errorf("%d bytes, window %d: %d came, %v", size, window, len(rest), err)
		}
	}
	small, medium, large := clientWindows[0], clientWindows[1], clientWindows[2]
	f(500, 2<<20, small, nil) // what it inflates to is shorter than its window
	f(500, 128<<20, small, nil)
	f(100_000, 2<<20, small, nil)
	f(1<<20, 2<<20, medium, nil)
	f(1<<20, 16<<20, medium, nil)
	f(9<<20, 2<<20, medium, nil)
	f(9<<20, 4<<20, large, nil)
	f(7<<20, 64<<20, large, nil)
	f(9<<20, 16<<20, nil, ErrWindow)
}

// A decoder that is in use is counted until its payload has ended, has turned out broken, or its connection is over.
func TestWindowsAreGivenBack(t *testing.T) {
	of := clientWindows[2]
	content, _ := mysql.AppendPacket(nil, 0, long(5<<20, rand.New(rand.NewPCG(2, 2))))
	all := framed(t, content, 8<<20, whole)
	for name, sent := range map[string][]byte{"whole": all, "cut": all[:len(all)-10]} {
		e := &envelopes{under: duplex{bytes.NewReader(sent), nil}, how: mysql.Zstd}
		if _, err := io.ReadFull(e, make([]byte, 100)); err != nil || len(of.places) != 1 {
			t.Fatalf("%s: %v, %d in use", name, err, len(of.places))
		}
		if _, err := io.Copy(io.Discard, e); (err == nil) != (name == "whole") {
			t.Errorf("%s: %v", name, err)
		}
		if len(of.places) != 0 {
			t.Errorf("%s: %d in use", name, len(of.places))
		}
	}
	e := &envelopes{under: duplex{bytes.NewReader(all), nil}, how: mysql.Zstd}
	if _, err := io.ReadFull(e, make([]byte, 100)); err != nil || len(of.places) != 1 {
		t.Fatal(err)
	}
	c := &Conn{envelopes: e}
	c.End()
	c.End()
	if len(of.places) != 0 {
		t.Errorf("%d in use", len(of.places))
	}

	few := newWindows(1<<20, 1)
	few.wait = 10 * time.Millisecond
	one := few.get()
	if few.get() != nil {
		t.Error("more than there are")
	}
	one.put()
	if few.get() == nil {
		t.Error("less than there are")
	}
}

// However many clients stop in the middle of a payload that announces much, what they hold is bounded.
func TestStoppedPayloadsHoldLittle(t *testing.T) {
	content, _ := mysql.AppendPacket(nil, 0, text(100_000, rand.New(rand.NewPCG(3, 3))))
	before := heap()
	var held []*envelopes
	begin := func(sent []byte) {
		r, w := io.Pipe()
		defer w.Close()
		go func() { _, _ = w.Write(sent) }()
		e := &envelopes{under: duplex{r, nil}, how: mysql.Zstd}
		if _, err := io.ReadFull(e, make([]byte, 50)); err != nil {
			t.Fatal(err)
		}
		held = append(held, e)
	}
	sent := framed(t, content, 8<<20, 60_000)
	for range 200 {
		begin(sent)
	}
	if n := (heap() - before) / 200; n > 400<<10 {
		t.Errorf("%d bytes each", n)
	}
	if len(clientWindows[1].places)+len(clientWindows[2].places) != 0 {
		t.Error("short payloads take places of long ones")
	}
	runtime.KeepAlive(held)
}

func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
