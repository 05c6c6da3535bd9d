// Package wire is one end of a MySQL connection: frames of package mysql over a connection of package poll. It adds what a
// relay needs and no more: a read buffer that comes from a pool and goes back when the connection is idle, messages of the
// sign-in as a whole, and TLS in the middle of a conversation.
//
// A Conn belongs to one goroutine, or to none after Await has left it to its server. Close, Interrupt and PeerGone may come from
// any other. Buffered gives views into the read buffer; they die with the next Fill, Need, Skip or Release.
//
// It knows nothing of commands and answers.
package wire

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// ErrTooLarge says that a message does not fit the bound of its reader.
var ErrTooLarge = errors.New("message too large")

// idleBuffer is what a TLS connection holds while it waits for a command; a plain one holds nothing.
const idleBuffer = 512

// outKept is the largest room for a small message that is kept: enough for an OK, not for a greeting, which is sent once.
const outKept = 64

// Conn is one end of a MySQL connection. Make it with New.
type Conn struct {
	poll   *poll.Conn
	stream io.ReadWriter // poll, or TLS over it, or envelopes over either
	tls    *tls.Conn     // nil without TLS

	envelopes *envelopes // stream, with compression; nil without it

	buf  []byte // nil while idle
	r, w int    // unread bytes are buf[r:w]
	full bool   // the last read filled the buffer: a larger one pays

	own   bool         // on the own poller
	since poll.Instant // a reading of the clock for the next wait; 0: none

	idle *[idleBuffer]byte // see there; nil until it is needed

	out []byte // for small messages; kept
}

// New makes a Conn over a connection, which belongs to it from now on: c itself may be closed already (see poll.Adopt).
func New(c net.Conn) *Conn { return On(poll.Adopt(c)) }

// On makes a Conn over a connection that is on some poller.
func On(p *poll.Conn) *Conn {
	_, own := p.Conn.(poll.Socket)
	return &Conn{poll: p, stream: p, own: own}
}

// prefixed is a connection whose first bytes were read already.
type prefixed struct {
	*poll.Conn
	pre []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.pre) > 0 {
		n := copy(b, p.pre)
		p.pre = p.pre[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// ServeTLS goes on in TLS, as the server. What was read after the request for TLS is the beginning of TLS: it is never
// taken for plain text.
func (c *Conn) ServeTLS(config *tls.Config) error {
	return c.secure(tls.Server(&prefixed{c.poll, c.takeBuffered()}, config))
}

// AskTLS goes on in TLS, as the client.
func (c *Conn) AskTLS(config *tls.Config) error {
	if c.r != c.w {
		return errors.New("the server spoke before TLS began")
	}
	return c.secure(tls.Client(c.poll, config))
}

func (c *Conn) secure(t *tls.Conn) error {
	if err := t.Handshake(); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	c.tls, c.stream = t, t
	return nil
}

func (c *Conn) takeBuffered() []byte {
	pre := append([]byte(nil), c.buf[c.r:c.w]...)
	c.r = c.w
	c.Release()
	return pre
}

// TLS gives the state of TLS; ok is false without it.
func (c *Conn) TLS() (state tls.ConnectionState, ok bool) {
	if c.tls == nil {
		return state, false
	}
	return c.tls.ConnectionState(), true
}

// ReadBefore bounds all following reads; zero is never.
func (c *Conn) ReadBefore(t poll.Instant) {
	c.since = 0
	c.poll.ReadBefore(t)
}

// ReadBeforeSince is ReadBefore for a caller that has just read the clock, and goes on to Await: it saves another reading.
func (c *Conn) ReadBeforeSince(now, t poll.Instant) {
	c.since = now
	c.poll.ReadBefore(t)
}

// Recent gives when the poller last saw something come: for whoever was woken by it, when that came.
func (c *Conn) Recent() poll.Instant { return c.poll.Recent() }

// WritePatience bounds how long the peer may refuse bytes; zero is for ever.
func (c *Conn) WritePatience(d time.Duration) { c.poll.WritePatience(d) }

// Interrupt makes the present or next read fail with poll.ErrInterrupted, once. The connection can be read on after it, under
// TLS too (see there).
func (c *Conn) Interrupt() { c.poll.Interrupt() }

// Alive says that the connection is open and silent, as one that nobody waits on must be.
func (c *Conn) Alive() bool { return c.r == c.w && !c.envelopes.pending() && c.poll.Alive() }

// PeerGone says that the peer has certainly closed the connection. It looks without taking anything.
func (c *Conn) PeerGone() bool { return peerGone(c.poll) }

// Close closes the connection at once.
func (c *Conn) Close() error { return c.poll.Close() }

// Buffered gives the bytes that were read and not skipped yet.
func (c *Conn) Buffered() []byte { return c.buf[c.r:c.w] }

// Skip drops the first n of them.
func (c *Conn) Skip(n int) { c.r += n }

// Lend gives the buffer back when it is empty, in the middle of a command.
func (c *Conn) Lend() {
	if c.buf != nil && c.r == c.w {
		poll.Put(c.buf) // leaves the idle buffer alone: it has another capacity
		c.buf, c.r, c.w, c.full = nil, 0, 0, false
	}
}

// Release is Lend between commands.
func (c *Conn) Release() {
	c.Lend()
	if c.envelopes != nil && c.r == c.w {
		c.envelopes.release()
	}
}

// ServedBy makes Await give the connection to s where it would wait, if it is plain and on a poller that can do so.
func (c *Conn) ServedBy(s poll.Server) {
	if c.tls == nil && c.envelopes == nil {
		c.poll.ServedBy(s)
	}
}

// Await waits until something is buffered. It holds no buffer meanwhile, or a small one under TLS, which cannot be
// asked whether it holds something. So who waits long holds little, and when many wait, the one buffer that they all get in turn stays in the processor's cache.
// poll.ErrDetached: nothing was there, and the Server has the connection from now on. It is to
// call Await again when it is resumed; the caller may not even look at the connection.
func (c *Conn) Await() error {
	if c.r != c.w {
		return nil
	}
	c.Release()
	if c.own && c.tls == nil && c.envelopes == nil {
		return c.poll.Loop((*arrival)(c))
	}
	if c.tls == nil {
		if !c.envelopes.pending() {
			if err := c.poll.Await(); err != nil {
				return err
			}
		}
		return c.Fill()
	}
	if c.idle == nil {
		c.idle = new([idleBuffer]byte)
	}
	c.buf = c.idle[:]
	return c.Fill()
}

// AwaitAnswer is Await for who has just asked for something, and for whom a buffer under TLS is not too much.
func (c *Conn) AwaitAnswer() error {
	if c.tls != nil && c.r == c.w {
		return c.Fill()
	}
	return c.Await()
}

// arrival is a Conn that waits under the poller's Loop, up to the first bytes.
type arrival Conn

func (a *arrival) Room() []byte {
	if a.buf == nil {
		a.buf = poll.GetSmall()
	}
	return a.buf
}

func (a *arrival) Take(n int) (goOn bool) {
	a.w, a.full = n, n == len(a.buf)
	if n == 0 {
		(*Conn)(a).Release()
	}
	return n == 0
}

// Idle gives the reading of the clock once only; where the poller needs it again it reads it itself.
func (a *arrival) Idle() (now poll.Instant) {
	now, a.since = a.since, 0
	return now
}

// Fill reads at least one byte more. A buffer that was filled to its end is exchanged for a larger one; a buffer full of
// unread bytes is ErrTooLarge.
func (c *Conn) Fill() error {
	if c.r == c.w {
		c.r, c.w = 0, 0
		if c.full || c.buf == nil {
			c.grow()
		}
	}
	if c.w == len(c.buf) {
		if c.r > 0 {
			c.w = copy(c.buf, c.buf[c.r:c.w])
			c.r = 0
		} else if !c.grow() {
			return ErrTooLarge
		}
	}
	n, err := c.stream.Read(c.buf[c.w:])
	c.w += n
	c.full = c.w == len(c.buf)
	if n > 0 {
		return nil
	}
	return err
}

// grow takes the next larger buffer; false when there is none.
func (c *Conn) grow() bool {
	var larger []byte
	switch {
	case len(c.buf) < poll.SmallBuffer:
		larger = poll.GetSmall()
	case len(c.buf) < poll.LargeBuffer:
		larger = poll.GetLarge()
	default:
		return false
	}
	c.w = copy(larger, c.buf[c.r:c.w])
	c.r = 0
	poll.Put(c.buf)
	c.buf = larger
	return true
}

// Need waits until n bytes are buffered; n is at most poll.SmallBuffer.
func (c *Conn) Need(n int) error {
	for c.w-c.r < n {
		if err := c.Fill(); err != nil {
			if errors.Is(err, io.EOF) && c.w > c.r {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// ReadMessage reads a whole message of at most limit bytes, for sign-in and small answers. The payload is a copy. Its first frame
// must have the given number; next is the number that follows.
func (c *Conn) ReadMessage(sequence uint8, limit int) (payload []byte, next uint8, err error) {
	for {
		if err := c.Need(mysql.HeaderLen); err != nil {
			return nil, 0, err
		}
		h, _ := mysql.ParseHeader(c.Buffered())
		if h.Sequence != sequence {
			return nil, 0, fmt.Errorf("%w: frame %d instead of %d", mysql.ErrMalformed, h.Sequence, sequence)
		}
		sequence++
		if len(payload)+h.Length > limit {
			return nil, 0, ErrTooLarge
		}
		c.Skip(mysql.HeaderLen)
		for left := h.Length; left > 0; {
			if c.r == c.w {
				if err := c.Fill(); err != nil {
					if errors.Is(err, io.EOF) {
						err = io.ErrUnexpectedEOF
					}
					return nil, 0, err
				}
			}
			part := c.Buffered()
			part = part[:min(len(part), left)]
			payload = append(payload, part...)
			c.Skip(len(part))
			left -= len(part)
		}
		if h.Length < mysql.PayloadMax {
			return payload, sequence, nil
		}
	}
}

// Write writes all of p.
func (c *Conn) Write(p []byte) error {
	_, err := c.stream.Write(p)
	return err
}

// Message is what WriteMessage sends: any payload of package mysql.
type Message func(dst []byte) []byte

// WriteMessage sends one message that is shorter than a frame.
func (c *Conn) WriteMessage(sequence uint8, m Message) error {
	out := m(append(c.out[:0], 0, 0, 0, sequence))
	n := len(out) - mysql.HeaderLen
	out[0], out[1], out[2] = byte(n), byte(n>>8), byte(n>>16)
	if cap(out) <= outKept {
		c.out = out[:0]
	}
	return c.Write(out)
}
