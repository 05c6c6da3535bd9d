// Package mysql is the MySQL client/server protocol as bytes, in both directions: frames, greeting and sign-in, commands,
// answers, and the boundaries of result sets. There is one file for each family of messages, with decode and append side
// by side. The package owns no socket, no clock and no goroutine, and it trusts nobody: every decoder takes any bytes and
// answers with a value or with an error that wraps ErrMalformed.
//
// The two types that a relay lives on are Message, which follows the frames of one message, and Response, which follows a
// whole answer (columns, rows, several results) and says where it ends without looking into the rows.
//
// Decoded values are views into the given payload unless their comment says that they are copies. All types may be
// reused; none may be used by two goroutines at once.
//
// What is not here, on purpose: SQL, values of rows, sockets, error texts of the gateway.
package mysql

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed is in the chain of every error that a decoder gives.
var ErrMalformed = errors.New("malformed MySQL packet")

// malformed is an ErrMalformed that says what was being read.
type malformed string

func (m malformed) Error() string { return ErrMalformed.Error() + ": " + string(m) }
func (m malformed) Unwrap() error { return ErrMalformed }

// reader walks over a payload. The first read past the end makes it fail, and every later read gives zero values, so a
// decoder reads all its fields in a row and asks once.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n < 0 || n > len(r.b) {
		r.failed = true
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) uint8() uint8 {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if v := r.take(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if v := r.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

// text reads a NUL-terminated string.
func (r *reader) text() []byte {
	if r.failed {
		return nil
	}
	for i, c := range r.b {
		if c == 0 {
			v := r.b[:i:i]
			r.b = r.b[i+1:]
			return v
		}
	}
	r.failed = true
	return nil
}

// textOrRest reads a NUL-terminated string, or all that is left when no NUL follows: several clients leave the last one out.
func (r *reader) textOrRest() []byte {
	if r.failed {
		return nil
	}
	for _, c := range r.b {
		if c == 0 {
			return r.text()
		}
	}
	return r.rest()
}

func (r *reader) rest() []byte { return r.take(len(r.b)) }

// lenenc reads a length-encoded integer. 0xFB (NULL) and 0xFF are no integers.
func (r *reader) lenenc() uint64 {
	v, n := Lenenc(r.b)
	if r.failed || n == 0 {
		r.failed = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// lenencBytes reads a length-encoded string.
func (r *reader) lenencBytes() []byte {
	n := r.lenenc()
	if n > uint64(len(r.b)) {
		r.failed = true
		return nil
	}
	return r.take(int(n))
}

// Lenenc reads a length-encoded integer at the start of b and gives the number of bytes that it takes; 0 when b is too
// short, or starts with 0xFB (NULL in a row) or 0xFF (an error).
func Lenenc(b []byte) (v uint64, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	switch c := b[0]; {
	case c < 0xfb:
		return uint64(c), 1
	case c == 0xfc && len(b) >= 3:
		return uint64(binary.LittleEndian.Uint16(b[1:])), 3
	case c == 0xfd && len(b) >= 4:
		return uint64(b[1]) | uint64(b[2])<<8 | uint64(b[3])<<16, 4
	case c == 0xfe && len(b) >= 9:
		return binary.LittleEndian.Uint64(b[1:]), 9
	}
	return 0, 0
}

// AppendLenenc appends a length-encoded integer.
func AppendLenenc(dst []byte, v uint64) []byte {
	switch {
	case v < 0xfb:
		return append(dst, byte(v))
	case v < 1<<16:
		return append(dst, 0xfc, byte(v), byte(v>>8))
	case v < 1<<24:
		return append(dst, 0xfd, byte(v), byte(v>>8), byte(v>>16))
	}
	return binary.LittleEndian.AppendUint64(append(dst, 0xfe), v)
}

// AppendLenencString appends a length-encoded string.
func AppendLenencString[T ~string | ~[]byte](dst []byte, s T) []byte {
	return append(AppendLenenc(dst, uint64(len(s))), s...)
}

// appendText appends a NUL-terminated string; what follows a NUL inside s is cut off, because it would be read as the
// next field.
func appendText[T ~string | ~[]byte](dst []byte, s T) []byte {
	for i := range len(s) {
		if s[i] == 0 {
			s = s[:i]
			break
		}
	}
	return append(append(dst, s...), 0)
}
