package wire

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// envelopes is the compressed form of a connection, between the frames and the socket or TLS. Whoever reads and writes
// frames above it notices nothing, with one exception, which is its business too: with compression, servers and clients number
// the frames inside of envelopes as it happens (after each flush they go on with the number of the envelope, and nobody
// checks), while without it every frame counts. So frames from an instance, those of a client's file, and
// what follows the first frame of a long command, get the numbers here that they would have had.
//
// What is read is inflated as it is asked for: no announced length allocates anything. Between commands no buffer is held.
type envelopes struct {
	under  io.ReadWriter
	how    mysql.Compression
	asks   bool // our end sends the commands
	frugal bool // under has a buffer of its own, and waits: a buffer is taken only after a header has come

	outer  uint8 // number of the next envelope, in either direction
	inner  uint8 // number of the next frame to be read, if they are counted
	counts bool
	last   uint8 // number of the frame written last
	turned bool  // something was read since

	read, written mysql.Frames

	raw      []byte // nil while idle
	r, w     int    // unread bytes are raw[r:w]
	head     [mysql.EnvelopeLen]byte
	have     int // bytes of it gathered
	left     int // bytes of the present payload that are still to be read
	inflated int // bytes still to come out of it
	inflater inflater
	err      error // why no more can be read

	small [mysql.EnvelopeLen + mysql.CompressMin]byte
}

// inflater decompresses one payload after another.
type inflater interface {
	io.Reader
	begin(io.Reader) error
	put()  // back to its pool
	drop() // it is of no more use
}

type zlibReader struct{ io.ReadCloser }

func (z *zlibReader) begin(r io.Reader) (err error) {
	if z.ReadCloser == nil {
		z.ReadCloser, err = zlib.NewReader(r)
		return err
	}
	return z.ReadCloser.(zlib.Resetter).Reset(r, nil)
}

func (z *zlibReader) put() { zlibReaders.Put(z) }

func (z *zlibReader) drop() {}

var zlibReaders = sync.Pool{New: func() any { return new(zlibReader) }}

// Compress goes on in envelopes; asks says that our end sends the commands. It follows the OK of the sign-in.
func (c *Conn) Compress(how mysql.Compression, asks bool) {
	if how == mysql.Uncompressed {
		return
	}
	pre := c.takeBuffered()
	c.envelopes = &envelopes{under: c.stream, how: how, asks: asks, counts: asks, frugal: c.tls != nil, turned: true}
	c.stream = c.envelopes
	if len(pre) > 0 {
		c.envelopes.raw = pre
		c.envelopes.w = len(pre)
	}
}

// Number makes the frames that are read from here on count up from next, whatever their numbers are; it changes nothing
// without compression. Uncounted ends it.
func (c *Conn) Number(next uint8) {
	if c.envelopes != nil {
		c.envelopes.counts, c.envelopes.inner = true, next
	}
}

// Uncounted ends Number.
func (c *Conn) Uncounted() {
	if c.envelopes != nil {
		c.envelopes.counts = c.envelopes.asks
	}
}

// pending says that something can be read that was read from the socket already.
func (e *envelopes) pending() bool { return e != nil && (e.r < e.w || e.inflater != nil) }

// release gives the buffer back. It is called between commands.
func (e *envelopes) release() {
	if e.raw != nil && e.r == e.w {
		poll.Put(e.raw)
		e.raw, e.r, e.w = nil, 0, 0
	}
	if !e.asks && e.read.Between() {
		e.outer = 1 // what is said now is read as the answer to the next command
	}
}

func (e *envelopes) Read(p []byte) (n int, err error) {
	if len(p) == 0 || e.err != nil {
		return 0, e.err
	}
	for e.left == 0 && e.inflater == nil {
		if err := e.open(); err != nil {
			return 0, err
		}
	}
	if e.inflater != nil {
		n, err = e.inflate(p)
	} else {
		n, err = e.take(p)
	}
	e.read.Walk(p[:n], func(sequence uint8) uint8 {
		e.turned = true
		if e.counts || e.read.Continues() { // libmariadb numbers all frames of a long command 0
			sequence = e.inner
		}
		e.inner = sequence + 1
		return sequence
	})
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// open reads the next envelope's header.
func (e *envelopes) open() error {
	for e.have < mysql.EnvelopeLen {
		if e.r == e.w && !e.frugal {
			if err := e.fill(); err != nil {
				return e.cut(err, e.have > 0)
			}
		}
		var n int
		var err error
		if e.r < e.w {
			n = copy(e.head[e.have:], e.raw[e.r:e.w])
			e.r += n
		} else {
			n, err = e.under.Read(e.head[e.have:])
		}
		if e.have += n; n == 0 && err != nil {
			return e.cut(err, e.have > 0)
		}
	}
	e.have = 0
	h, _ := mysql.ParseEnvelope(e.head[:])
	switch {
	case h.Sequence == 0 && !e.asks && e.read.Between():
		e.outer = 0
	case h.Sequence != e.outer:
		return fmt.Errorf("%w: envelope %d instead of %d", mysql.ErrMalformed, h.Sequence, e.outer)
	}
	if h.Length == 0 {
		return fmt.Errorf("%w: empty envelope", mysql.ErrMalformed)
	}
	e.outer++
	e.left, e.inflated = h.Length, h.Inflated
	if h.Inflated == 0 {
		return nil
	}
	if e.how == mysql.Zlib {
		e.inflater = zlibReaders.Get().(*zlibReader)
		err := e.inflater.begin((*payload)(e))
		if err != nil {
			return e.broken(err)
		}
		return nil
	}
	if err := e.beginZstd(); err != nil {
		return e.broken(err)
	}
	return nil
}

// cut is the end of the stream, which inside of an envelope is unexpected.
func (e *envelopes) cut(err error, inside bool) error {
	if inside && errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// fill reads some bytes into the empty buffer.
func (e *envelopes) fill() error {
	if len(e.raw) < poll.SmallBuffer { // none, or what Compress found
		e.raw = poll.GetSmall()
	}
	n, err := e.under.Read(e.raw)
	e.r, e.w = 0, n
	if n > 0 {
		return nil
	}
	return err
}

// take reads from a payload that is not compressed. What is longer than the buffer does not go through it.
func (e *envelopes) take(p []byte) (n int, err error) {
	p = p[:min(len(p), e.left)]
	if e.r == e.w && len(p) < poll.SmallBuffer {
		if err := e.fill(); err != nil {
			return 0, e.cut(err, true)
		}
	}
	if e.r < e.w {
		n = copy(p, e.raw[e.r:e.w])
		e.r += n
	} else if n, err = e.under.Read(p); n == 0 {
		return 0, e.cut(err, true)
	}
	e.left -= n
	return n, nil
}

// inflate reads from a payload that is compressed, and looks at its end: it must be as long as it was said to be.
func (e *envelopes) inflate(p []byte) (n int, err error) {
	p = p[:min(len(p), e.inflated)]
	for n == 0 && err == nil {
		n, err = e.inflater.Read(p)
	}
	e.inflated -= n
	if err != nil && (err != io.EOF || e.inflated > 0) {
		return n, e.broken(err)
	}
	if e.inflated > 0 {
		return n, nil
	}
	for more := 0; err == nil; {
		var beyond [1]byte
		if more, err = e.inflater.Read(beyond[:]); more > 0 {
			return n, e.broken(errors.New("longer than announced"))
		}
	}
	if err != io.EOF || e.left > 0 {
		return n, e.broken(err)
	}
	e.inflater.put()
	e.inflater = nil
	return n, nil
}

// broken is what became of a payload that could not be inflated. The connection is of no more use; its state is dropped.
func (e *envelopes) broken(err error) error {
	if e.inflater != nil {
		e.inflater.drop()
	}
	e.inflater, e.left, e.inflated = nil, 0, 0
	if e.err == nil {
		e.err = fmt.Errorf("%w: %w: %w", mysql.ErrMalformed, ErrCompressed, err)
	}
	return e.err
}

// payload is the present payload as it is sent, for an inflater. It ends where the payload does.
type payload envelopes

func (s *payload) ready() error {
	e := (*envelopes)(s)
	if e.left == 0 {
		return io.EOF
	}
	for e.r == e.w {
		// An inflater cannot go on after an error. To be interrupted is only for those who wait for something to begin.
		if err := e.fill(); err != nil && !errors.Is(err, poll.ErrInterrupted) {
			if e.err = e.cut(err, true); e.err == nil {
				e.err = io.ErrNoProgress
			}
			return e.err
		}
	}
	return nil
}

func (s *payload) Read(p []byte) (int, error) {
	if err := s.ready(); err != nil {
		return 0, err
	}
	n := copy(p[:min(len(p), s.left)], s.raw[s.r:s.w])
	s.r += n
	s.left -= n
	return n, nil
}

// ReadByte keeps inflaters from buffering, and so from reading too far.
func (s *payload) ReadByte() (byte, error) {
	if err := s.ready(); err != nil {
		return 0, err
	}
	b := s.raw[s.r]
	s.r++
	s.left--
	return b, nil
}

// pieceMax is what one envelope that we send carries at most: a bound on the buffer.
const pieceMax = 64 << 10

// deflater is what sending a piece takes. It is held only while one is compressed and sent.
type deflater struct {
	zlib *zlib.Writer
	zstd *zstd.Encoder
	out  []byte
}

func (d *deflater) Write(p []byte) (int, error) {
	d.out = append(d.out, p...)
	return len(p), nil
}

var deflaters = sync.Pool{New: func() any { return &deflater{out: make([]byte, 0, pieceMax+256)} }}

// deflate appends a compressed payload; nil when it would not be shorter.
func (d *deflater) deflate(how mysql.Compression, p []byte) bool {
	before := len(d.out)
	switch {
	case how == mysql.Zlib && d.zlib == nil:
		d.zlib, _ = zlib.NewWriterLevel(d, zlib.BestSpeed)
	case how == mysql.Zlib:
		d.zlib.Reset(d)
	case d.zstd == nil:
		d.zstd, _ = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(pieceMax), zstd.WithLowerEncoderMem(true))
	}
	if how == mysql.Zlib {
		_, err1 := d.zlib.Write(p)
		err2 := d.zlib.Close()
		return err1 == nil && err2 == nil && len(d.out)-before < len(p)
	}
	d.out = d.zstd.EncodeAll(p, d.out)
	return len(d.out)-before < len(p)
}

// Write sends frames, in as many envelopes as it takes. A command begins a new one, and the count of envelopes: it must begin with a
// whole header.
func (e *envelopes) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		rest := p[sent:]
		if e.asks && e.written.Between() && len(rest) >= mysql.HeaderLen && e.begins(rest[3]) {
			e.outer = 0
		}
		n := e.piece(rest)
		if err := e.send(rest[:n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// begins says whether a frame of that number is the first one of a command: only a message of hundreds of frames comes to
// 0 in another way.
func (e *envelopes) begins(sequence uint8) bool { return sequence == 0 && (e.turned || e.last != 255) }

// piece gives how much of p goes into the next envelope, and takes note of the frames in it.
func (e *envelopes) piece(p []byte) int {
	n := min(len(p), pieceMax)
	if !e.asks {
		return n
	}
	for at := 0; at < n; { // frame by frame, since another command may follow
		if at > 0 && e.written.Between() && len(p)-at >= mysql.HeaderLen && e.begins(p[at+3]) {
			return at
		}
		step := 1
		if left := e.written.Left(); left > 0 {
			step = min(left, n-at)
		}
		e.written.Walk(p[at:at+step], func(sequence uint8) uint8 {
			e.last, e.inner, e.turned = sequence, sequence+1, false
			return sequence
		})
		at += step
	}
	return n
}

// send sends one envelope.
func (e *envelopes) send(p []byte) error {
	if len(p) < mysql.CompressMin {
		h := mysql.Envelope{Length: len(p), Sequence: e.outer}
		e.outer++
		_, err := e.under.Write(append(h.AppendTo(e.small[:0]), p...))
		return err
	}
	d := deflaters.Get().(*deflater)
	defer deflaters.Put(d)
	var none [mysql.EnvelopeLen]byte
	d.out = append(d.out[:0], none[:]...)
	h := mysql.Envelope{Sequence: e.outer, Inflated: len(p)}
	if !d.deflate(e.how, p) {
		d.out = append(d.out[:mysql.EnvelopeLen], p...)
		h.Inflated = 0
	}
	h.Length = len(d.out) - mysql.EnvelopeLen
	h.AppendTo(d.out[:0])
	e.outer++
	_, err := e.under.Write(d.out)
	return err
}
