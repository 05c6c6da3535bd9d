package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/menshen-gateway/menshen/internal/mysql"
)

// This file bounds the memory in which zstd payloads are inflated. A frame says how far back it refers, its window, and that much is held until its payload has come to its end, which
// a client can put off. So a frame gets a window no larger than what it inflates to is long, and the larger ones are counted for the whole process. Instances are not bound so:
// their number is.

// ErrCompressed says that a compressed payload cannot be read. ErrWindow and ErrWindows say why; nothing else was wrong then, and the payload was read to its end.
var (
	ErrCompressed = errors.New("compressed payload")
	ErrWindow     = fmt.Errorf("%w: window larger than %d MiB", ErrCompressed, windowMax>>20)
	ErrWindows    = fmt.Errorf("%w: all windows are in use", ErrCompressed)
)

// windowMax is the largest window of a client: that of zstd's level 19. MySQL's and MariaDB's clients have level 3 unless they are told otherwise, whose window is 2 MiB.
const windowMax = 8 << 20

// windowWait is how long a client waits until another one's window is free.
const windowWait = 5 * time.Second

// windows is decoders for windows up to a size.
type windows struct {
	size   int
	places chan struct{} // one for each decoder in use; nil: they are not counted
	wait   time.Duration // for a place
	pool   sync.Pool
}

// clientWindows are the sizes for clients: those that are counted are 256 MiB together.
var clientWindows = [...]*windows{newWindows(128<<10, 0), newWindows(2<<20, 64), newWindows(windowMax, 16)}

// instanceWindows is for instances. No honest payload needs a larger window than it is long.
var instanceWindows = newWindows(mysql.PayloadMax+1, 0)

func newWindows(size, most int) *windows {
	w := &windows{size: size, wait: windowWait}
	if most > 0 {
		w.places = make(chan struct{}, most)
	}
	w.pool.New = func() any {
		// Concurrency 1 starts no goroutines.
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(mysql.PayloadMax+1), zstd.WithDecoderMaxWindow(uint64(size)))
		if err != nil {
			panic("BUG: " + err.Error())
		}
		return &zstdReader{Decoder: d, of: w}
	}
	return w
}

// get gives a decoder, or nil when there is none for too long.
func (w *windows) get() *zstdReader {
	if w.places != nil {
		select {
		case w.places <- struct{}{}:
		default:
			timer := time.NewTimer(w.wait)
			defer timer.Stop()
			select {
			case w.places <- struct{}{}:
			case <-timer.C:
				return nil
			}
		}
	}
	return w.pool.Get().(*zstdReader)
}

// zstdReader is a decoder of a size.
type zstdReader struct {
	*zstd.Decoder
	of *windows
}

func (z *zstdReader) begin(r io.Reader) error { return z.Reset(r) }

func (z *zstdReader) put() {
	_ = z.Reset(nil)
	z.of.pool.Put(z)
	z.drop()
}

func (z *zstdReader) drop() {
	if z.of.places != nil {
		<-z.of.places
	}
}

// beginZstd begins a zstd payload.
func (e *envelopes) beginZstd() error {
	all := io.Reader((*payload)(e))
	class := instanceWindows
	if !e.asks {
		head, window, err := e.frameHeader()
		if err != nil {
			return err
		}
		all = io.MultiReader(bytes.NewReader(head), all)
		class = nil
		for _, c := range clientWindows {
			if window <= uint64(c.size) {
				class = c
				break
			}
		}
		if class == nil {
			return e.skip(ErrWindow)
		}
	}
	z := class.get()
	if z == nil {
		return e.skip(ErrWindows)
	}
	e.inflater = z
	return z.begin(all)
}

// Parts of a frame's header (RFC 8878, 3.1.1.1).
const (
	frameMagic    = 4
	frameHeadMax  = frameMagic + 1 + 1 + 4 + 8
	singleSegment = 1 << 5 // there is no window descriptor: the window is the content's length
)

// frameHeader reads the header of the first frame, and gives the window that it needs: the one that it declares, or less when all that the payload inflates to is shorter. In that
// case the header that it gives declares the smaller one, since decoders make room for what is declared.
func (e *envelopes) frameHeader() (head []byte, window uint64, err error) {
	head = make([]byte, 0, frameHeadMax)
	for len(head) < frameHeadMax {
		b, err := (*payload)(e).ReadByte()
		if err == io.EOF { // a frame may be shorter than the largest header
			break
		}
		if err != nil {
			return nil, 0, err
		}
		head = append(head, b)
	}
	var h zstd.Header
	if err := h.Decode(head); err != nil || h.Skippable {
		return nil, 0, e.broken(fmt.Errorf("no zstd frame: %w", err))
	}
	length := uint64(e.inflated)
	switch {
	case h.SingleSegment && h.FrameContentSize > length:
		return nil, 0, e.broken(errors.New("longer than announced"))
	case h.SingleSegment:
		return head, h.FrameContentSize, nil
	case h.WindowSize > length:
		exponent := max(bits.Len64(length-1), 10)
		head[frameMagic+1] = byte(exponent-10) << 3
		return head, 1 << exponent, nil
	}
	return head, h.WindowSize, nil
}

// skip reads the present payload to its end, so that its sender listens, and gives the error for it.
func (e *envelopes) skip(why error) error {
	for (*payload)(e).ready() == nil {
		n := min(e.w-e.r, e.left)
		e.r += n
		e.left -= n
	}
	return e.broken(why)
}

// End gives back what a payload holds that was not read to its end. Whoever has the connection calls it last.
func (c *Conn) End() {
	if c.envelopes != nil && c.envelopes.inflater != nil {
		c.envelopes.inflater.drop()
		c.envelopes.inflater = nil
	}
}
