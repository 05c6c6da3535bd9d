package h2

import "encoding/binary"

// The frame types (RFC 9113, 6).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameReset        = 0x3
	frameSettings     = 0x4
	framePushPromise  = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9
)

// The flags.
const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// The settings (RFC 9113, 6.5.2).
const (
	settingHeaderTableSize        = 0x1
	settingEnablePush             = 0x2
	settingStreams                = 0x3
	settingWindow                 = 0x4
	settingFrameSize              = 0x5
	settingHeaderListSize         = 0x6
	settingNoOldPriorities        = 0x9 // RFC 9218, 2.1
	frameHeaderLength             = 9
	frameSizeMax                  = 16 << 10 // what we take, and what every peer must take: we never send more
	windowInitial                 = 65535
	windowMax                     = 1<<31 - 1
	headerTableSize               = 4096
	streamIDMax            uint32 = 1<<31 - 1
)

// frame is a frame's head.
type frame struct {
	length int
	kind   byte
	flags  byte
	stream uint32
}

func parseFrame(b []byte) frame {
	return frame{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind:   b[3],
		flags:  b[4],
		stream: binary.BigEndian.Uint32(b[5:]) & streamIDMax,
	}
}

func (f frame) has(flag byte) bool { return f.flags&flag != 0 }

func appendFrame(dst []byte, length int, kind, flags byte, stream uint32) []byte {
	dst = append(dst, byte(length>>16), byte(length>>8), byte(length), kind, flags)
	return binary.BigEndian.AppendUint32(dst, stream)
}

func appendReset(dst []byte, stream uint32, code Code) []byte {
	dst = appendFrame(dst, 4, frameReset, 0, stream)
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}

func appendWindowUpdate(dst []byte, stream uint32, n int) []byte {
	dst = appendFrame(dst, 4, frameWindowUpdate, 0, stream)
	return binary.BigEndian.AppendUint32(dst, uint32(n))
}

func appendGoAway(dst []byte, last uint32, code Code, debug string) []byte {
	dst = appendFrame(dst, 8+len(debug), frameGoAway, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, last)
	dst = binary.BigEndian.AppendUint32(dst, uint32(code))
	return append(dst, debug...)
}

func appendPing(dst []byte, flags byte, data []byte) []byte {
	dst = appendFrame(dst, 8, framePing, flags, 0)
	return append(dst, data[:8]...)
}

// setting is one entry of a SETTINGS frame.
type setting struct {
	id    uint16
	value uint32
}

func appendSettings(dst []byte, settings ...setting) []byte {
	dst = appendFrame(dst, 6*len(settings), frameSettings, 0, 0)
	for _, s := range settings {
		dst = binary.BigEndian.AppendUint16(dst, s.id)
		dst = binary.BigEndian.AppendUint32(dst, s.value)
	}
	return dst
}

// unpad takes the padding off a payload, and says whether there was as much as it said.
func unpad(f frame, p []byte) (rest []byte, ok bool) {
	if !f.has(flagPadded) {
		return p, true
	}
	if len(p) == 0 || int(p[0]) > len(p)-1 {
		return nil, false
	}
	return p[1 : len(p)-int(p[0])], true
}
