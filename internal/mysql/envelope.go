package mysql

// With compression, the stream of frames is cut into envelopes, without regard to where frames begin: a header of 7 bytes and
// a payload that is compressed on its own. What is short is carried as it is.

// Compression is how the payloads of envelopes are compressed.
type Compression uint8

// The compressions.
const (
	Uncompressed Compression = iota // no envelopes at all
	Zlib
	Zstd // MySQL 8.0.18 and later; MariaDB does not know it
)

// String gives the name, as in the config.
func (c Compression) String() string {
	switch c {
	case Zlib:
		return "zlib"
	case Zstd:
		return "zstd"
	}
	return "off"
}

// ParseCompression reads a name of the config; anything unknown is Uncompressed.
func ParseCompression(s string) Compression {
	switch s {
	case "zlib":
		return Zlib
	case "zstd":
		return Zstd
	}
	return Uncompressed
}

// Capability is the one that asks for a compression.
func (c Compression) Capability() Capability {
	switch c {
	case Zlib:
		return Compress
	case Zstd:
		return CompressZstd
	}
	return 0
}

// CompressionOf gives the compression of a connection whose sides have agreed on c. MySQL takes zlib when both are there.
func CompressionOf(c Capability) Compression {
	switch {
	case c.Has(Compress):
		return Zlib
	case c.Has(CompressZstd):
		return Zstd
	}
	return Uncompressed
}

// EnvelopeLen is the length of an envelope's header.
const EnvelopeLen = 7

// CompressMin is the length of a payload below which MySQL does not try to compress it.
const CompressMin = 50

// Envelope is an envelope's header.
type Envelope struct {
	Length   int   // of the payload as it is sent, at most PayloadMax
	Sequence uint8 // counts the envelopes of one exchange, wraps around
	Inflated int   // length of what the payload decompresses to, at most PayloadMax; 0 when it is not compressed
}

// ParseEnvelope reads a header; ok is false when b is shorter than EnvelopeLen.
func ParseEnvelope(b []byte) (e Envelope, ok bool) {
	if len(b) < EnvelopeLen {
		return Envelope{}, false
	}
	return Envelope{int(b[0]) | int(b[1])<<8 | int(b[2])<<16, b[3], int(b[4]) | int(b[5])<<8 | int(b[6])<<16}, true
}

// AppendTo appends the header.
func (e Envelope) AppendTo(dst []byte) []byte {
	return append(dst, byte(e.Length), byte(e.Length>>8), byte(e.Length>>16), e.Sequence, byte(e.Inflated), byte(e.Inflated>>8), byte(e.Inflated>>16))
}

// Frames follows frames through a stream that arrives in pieces, and can number them anew. The zero value stands before a
// frame. It knows nothing of messages and answers: any stream of frames will do.
type Frames struct {
	left int
	head [HeaderLen]byte
	have int
	full bool // the last header's frame has PayloadMax bytes
}

// Continues says that the next frame goes on with the message of the one before. While Walk calls number, that is the frame that is numbered.
func (f *Frames) Continues() bool { return f.full }

// Between says that the stream stands between two frames.
func (f *Frames) Between() bool { return f.left == 0 && f.have == 0 }

// Left is the number of bytes of the present frame that are still to come.
func (f *Frames) Left() int { return f.left }

// Walk goes over b. For each header whose last byte, the number, is in b it calls number with it, and writes what that gives
// in its place.
func (f *Frames) Walk(b []byte, number func(sequence uint8) uint8) {
	for len(b) > 0 {
		if f.left > 0 {
			n := min(f.left, len(b))
			b = b[n:]
			f.left -= n
			continue
		}
		n := copy(f.head[f.have:], b)
		f.have += n
		if f.have == HeaderLen {
			if was := f.head[HeaderLen-1]; number != nil {
				if is := number(was); is != was { // b may be shared by those who change nothing
					b[n-1] = is
				}
			}
			f.left = int(f.head[0]) | int(f.head[1])<<8 | int(f.head[2])<<16
			f.full = f.left == PayloadMax
			f.have = 0
		}
		b = b[n:]
	}
}
