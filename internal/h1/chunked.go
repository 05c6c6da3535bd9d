package h1

import (
	"bytes"
	"math"
)

// Bounds of what stands around the payload of a chunked body.
const (
	chunkLineMax      = 256      // one chunk line without its line end
	chunkExtensionMax = 16 << 10 // all chunk extensions of a body together
	trailerBytesMax   = 8 << 10  // the trailer section with its empty line
	trailerFieldsMax  = 64
	chunkDigitsMax    = 16
)

// ChunkDecoder decodes one chunked body (RFC 9112, 7.1) as it arrives, in pieces of any size. The zero value is ready.
// It holds no input: payload is a view into what Next was given; only trailers are copied.
//
// A chunk line is hex digits (at most 16, less than 2^63) and extensions that follow the grammar and are forgotten, but
// without the "bad white space" that the grammar tolerates: nobody sends it, and net/http refuses it too. Line ends are
// CRLF. Bounds: 256 bytes per chunk line, 16 KiB of extensions per body, 8 KiB and 64 fields of trailers.
//
// Trailers obey the rules of fields. Those that frame a message or belong to the connection (Content-Length, Host,
// Transfer-Encoding, Connection, Upgrade, TE, Trailer, Expect, ...) are an attack: the body is refused. Those that route,
// carry credentials or say how to read the content (Authorization, Cookie, X-Forwarded-*, Content-Type, ...; RFC 9110,
// 6.5.1) are dropped.
type ChunkDecoder struct {
	state      chunkState
	digits     uint8  // of the current size
	size       uint64 // rest of the current chunk
	line       int    // bytes of the current chunk line
	extensions int    // bytes of all extensions
	err        *Error // final

	trailerBytes []byte // the trailer section
	trailers     []Field
}

type chunkState uint8

const (
	chunkSize      chunkState = iota // in the size
	chunkNameStart                   // behind ';'
	chunkName
	chunkValueStart // behind '='
	chunkValue
	chunkQuoted
	chunkQuotedPair // behind a backslash
	chunkQuotedEnd
	chunkLineEnd  // behind the CR of a chunk line
	chunkDataCR   // behind the payload
	chunkDataLF   // behind its CR
	chunkData     // in the payload; the states above take single bytes, see step
	chunkTrailers // in the trailer section
	chunkDone
)

var (
	errChunkSize        = &Error{BadFraming, "chunk size is not hex digits"}
	errChunkSizeLarge   = &Error{BadFraming, "chunk size is too large"}
	errChunkExtension   = &Error{BadFraming, "malformed chunk extension"}
	errChunkLine        = &Error{BadFraming, "chunk line does not end with CRLF"}
	errChunkEnd         = &Error{BadFraming, "chunk does not end with CRLF"}
	errChunkLineLong    = &Error{HeadTooLarge, "chunk line exceeds its bound"}
	errChunkExtensions  = &Error{HeadTooLarge, "chunk extensions exceed their bound"}
	errTrailersTooLarge = &Error{HeadTooLarge, "trailers exceed their bound"}
	errTrailersTooMany  = &Error{TooManyFields, "more trailers than allowed"}
	errTrailerForbidden = &Error{BadFraming, "trailer that only a head may carry"}
)

// Reset makes d ready for the next body, keeping its memory. Trailers die.
func (d *ChunkDecoder) Reset() {
	*d = ChunkDecoder{trailerBytes: d.trailerBytes[:0], trailers: d.trailers[:0]}
}

// Next looks at in, which follows what earlier calls consumed, and yields at most one piece of payload, a view into in.
// consumed bytes of in are done with, payload among them. Call until done; nothing consumed and not done means that
// more bytes are needed. done comes after the trailer section, never together with payload; what follows in in belongs
// to the next message. An error is final, an *Error, and comes without payload.
func (d *ChunkDecoder) Next(in []byte) (payload []byte, consumed int, done bool, err error) {
	if d.err != nil {
		return nil, 0, false, d.err
	}
	i := 0
	for i < len(in) && d.state < chunkData {
		if d.err = d.step(in[i]); d.err != nil {
			return nil, i, false, d.err
		}
		i++
	}
	switch d.state {
	case chunkData:
		if i == len(in) {
			return nil, i, false, nil
		}
		n := len(in) - i
		if uint64(n) >= d.size {
			n = int(d.size)
			d.state = chunkDataCR
		}
		d.size -= uint64(n)
		return in[i : i+n : i+n], i + n, false, nil
	case chunkTrailers:
		n, e := d.takeTrailers(in[i:])
		if e != nil {
			d.err = e
			return nil, i, false, e
		}
		i += n
	}
	return nil, i, d.state == chunkDone, nil
}

// step takes one byte of a chunk line or of the line end behind a chunk's payload.
func (d *ChunkDecoder) step(c byte) *Error {
	switch d.state {
	case chunkDataCR:
		if c != '\r' {
			return errChunkEnd
		}
		d.state = chunkDataLF
		return nil
	case chunkDataLF:
		if c != '\n' {
			return errChunkEnd
		}
		d.state = chunkSize
		return nil
	case chunkLineEnd:
		if c != '\n' {
			return errChunkLine
		}
		d.endLine()
		return nil
	}
	if c == '\r' {
		return d.lineReturn()
	}
	if c == '\n' {
		return errChunkLine
	}
	if d.line++; d.line > chunkLineMax {
		return errChunkLineLong
	}
	if d.state == chunkSize {
		return d.stepSize(c)
	}
	return d.stepExtension(c)
}

// stepSize takes a byte of the size, or the ';' behind it.
func (d *ChunkDecoder) stepSize(c byte) *Error {
	var digit byte
	switch {
	case classes[c]&(lowerHex|upperHex) == 0:
		if c != ';' || d.digits == 0 {
			return errChunkSize
		}
		return d.stepExtension(c)
	case c <= '9':
		digit = c - '0'
	default:
		digit = c | 0x20 - 'a' + 10
	}
	if d.digits++; d.digits > chunkDigitsMax {
		return errChunkSizeLarge
	}
	if d.size = d.size<<4 | uint64(digit); d.size > math.MaxInt64 {
		return errChunkSizeLarge
	}
	return nil
}

// stepExtension takes a byte of the extensions: *( ";" name [ "=" value ] ), the value a token or a quoted string.
func (d *ChunkDecoder) stepExtension(c byte) *Error {
	if d.extensions++; d.extensions > chunkExtensionMax {
		return errChunkExtensions
	}
	is, state := classes[c], d.state
	switch {
	case state == chunkQuotedPair && is&value != 0:
		d.state = chunkQuoted
	case state == chunkQuotedPair:
		return errChunkExtension
	case state == chunkQuoted && c == '"':
		d.state = chunkQuotedEnd
	case state == chunkQuoted && c == '\\':
		d.state = chunkQuotedPair
	case state == chunkQuoted && is&value != 0: // goes on
	case (state == chunkNameStart || state == chunkName) && is&token != 0:
		d.state = chunkName
	case (state == chunkValueStart || state == chunkValue) && is&token != 0:
		d.state = chunkValue
	case state == chunkName && c == '=':
		d.state = chunkValueStart
	case state == chunkValueStart && c == '"':
		d.state = chunkQuoted
	case c == ';' && (state == chunkSize || state == chunkName || state == chunkValue || state == chunkQuotedEnd):
		d.state = chunkNameStart
	default:
		return errChunkExtension
	}
	return nil
}

// lineReturn takes the CR of a chunk line.
func (d *ChunkDecoder) lineReturn() *Error {
	switch d.state {
	case chunkSize:
		if d.digits == 0 {
			return errChunkSize
		}
	case chunkName, chunkValue, chunkQuotedEnd:
	default:
		return errChunkExtension
	}
	d.state = chunkLineEnd
	return nil
}

// endLine takes the LF of a chunk line.
func (d *ChunkDecoder) endLine() {
	d.line, d.digits = 0, 0
	d.state = chunkData
	if d.size == 0 {
		d.state = chunkTrailers
	}
}

// takeTrailers copies the trailer section from in, and parses it when it is complete.
func (d *ChunkDecoder) takeTrailers(in []byte) (n int, err *Error) {
	if len(d.trailerBytes) == 0 && bytes.HasPrefix(in, []byte("\r\n")) { // the usual end: nothing to copy
		d.state = chunkDone
		return 2, nil
	}
	for n < len(in) {
		line := in[n:]
		lf := bytes.IndexByte(line, '\n')
		if lf >= 0 {
			line = line[:lf+1]
		}
		if len(d.trailerBytes)+len(line) > trailerBytesMax {
			return n, errTrailersTooLarge
		}
		d.trailerBytes = append(d.trailerBytes, line...)
		n += len(line)
		if lf < 0 {
			break
		}
		b := d.trailerBytes
		if len(b) < 2 || b[len(b)-2] != '\r' {
			return n, errBareLF
		}
		if len(b) == 2 || b[len(b)-3] == '\n' {
			d.state = chunkDone
			return n, d.parseTrailers()
		}
	}
	return n, nil
}

// parseTrailers parses the complete trailer section.
func (d *ChunkDecoder) parseTrailers() *Error {
	b := d.trailerBytes
	for i, count := 0, 0; i < len(b)-2; count++ {
		if count == trailerFieldsMax {
			return errTrailersTooMany
		}
		var f Field
		next, err := parseLine(b, i, &f)
		if err != nil {
			return err
		}
		if next == 0 {
			return errNoColon
		}
		i = next
		switch traits := known[f.Known].traits; {
		case traits&trailerRefused != 0:
			return errTrailerForbidden
		case traits&trailerDropped == 0:
			d.trailers = append(d.trailers, f)
		}
	}
	return nil
}

// Trailers gives the trailer fields, after done and until Reset; they do not depend on the input any more.
func (d *ChunkDecoder) Trailers() []Field { return d.trailers }
