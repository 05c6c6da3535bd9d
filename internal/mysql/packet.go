package mysql

// A message is cut into frames: a header of 4 bytes (payload length in 3, sequence number in 1) and the payload. A frame
// with the full PayloadMax bytes is followed by another one of the same message, which may be empty.

// HeaderLen is the length of a frame's header.
const HeaderLen = 4

// PayloadMax is the most that one frame carries.
const PayloadMax = 1<<24 - 1

// Header is a frame's header.
type Header struct {
	Length   int   // of the payload, at most PayloadMax
	Sequence uint8 // counts the frames of one exchange, wraps around
}

// ParseHeader reads a header; ok is false when b is shorter than HeaderLen.
func ParseHeader(b []byte) (h Header, ok bool) {
	if len(b) < HeaderLen {
		return Header{}, false
	}
	return Header{int(b[0]) | int(b[1])<<8 | int(b[2])<<16, b[3]}, true
}

// AppendTo appends the header.
func (h Header) AppendTo(dst []byte) []byte {
	return append(dst, byte(h.Length), byte(h.Length>>8), byte(h.Length>>16), h.Sequence)
}

// AppendPacket appends payload as one message, in as many frames as it needs, and gives the sequence number that follows.
func AppendPacket(dst []byte, sequence uint8, payload []byte) (out []byte, next uint8) {
	for len(payload) >= PayloadMax {
		dst = Header{PayloadMax, sequence}.AppendTo(dst)
		dst = append(dst, payload[:PayloadMax]...)
		payload = payload[PayloadMax:]
		sequence++
	}
	dst = Header{len(payload), sequence}.AppendTo(dst)
	return append(dst, payload...), sequence + 1
}

// Message follows one message through a stream that arrives in pieces. Start it with the zero value and the sequence
// number expected first.
type Message struct {
	Sequence uint8 // expected of the next frame

	left   int // bytes of the current frame still to come
	header [HeaderLen]byte
	have   int // bytes of the header gathered
	full   bool
	ended  bool
	length int64
}

// Feed consumes the bytes of b that belong to the message and says whether it is complete. Frames out of order are an
// error.
func (m *Message) Feed(b []byte) (n int, done bool, err error) {
	for !m.ended {
		if m.left > 0 {
			take := min(m.left, len(b)-n)
			n += take
			m.left -= take
			if m.left > 0 {
				return n, false, nil
			}
			m.ended = !m.full
			continue
		}
		take := copy(m.header[m.have:], b[n:])
		n += take
		m.have += take
		h, ok := ParseHeader(m.header[:m.have])
		if !ok {
			return n, false, nil
		}
		if h.Sequence != m.Sequence {
			return n, false, malformed("frame out of order")
		}
		m.Sequence++
		m.have = 0
		m.left = h.Length
		m.length += int64(h.Length)
		m.full = h.Length == PayloadMax
		m.ended = h.Length == 0
	}
	return n, true, nil
}

// Length is the number of payload bytes announced so far.
func (m *Message) Length() int64 { return m.length }
