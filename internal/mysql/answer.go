package mysql

import "encoding/binary"

// The first bytes that tell answers apart.
const (
	okByte        = 0x00
	localFileByte = 0xfb
	eofByte       = 0xfe
	errByte       = 0xff
)

// OK is a success, or with DeprecateEOF the end of rows.
type OK struct {
	Affected, InsertID uint64
	Status             Status
	Warnings           uint16
	Info               []byte // view; text for people
	Changes            []byte // view; session state changes, undecoded; see AppendSchemaChange
}

// IsOK says whether a payload is an OK packet (not one that ends rows).
func IsOK(payload []byte) bool { return len(payload) > 0 && payload[0] == okByte }

// Decode reads the payload of an OK packet with either first byte.
func (o *OK) Decode(payload []byte, c Capability) error {
	r := reader{b: payload}
	if b := r.uint8(); r.failed || b != okByte && b != eofByte {
		return malformed("OK packet")
	}
	*o = OK{Affected: r.lenenc(), InsertID: r.lenenc(), Status: Status(r.uint16()), Warnings: r.uint16()}
	if len(r.b) > 0 {
		if c.Has(SessionTrack) {
			o.Info = r.lenencBytes()
			if o.Status&StateChanged != 0 && len(r.b) > 0 {
				o.Changes = r.lenencBytes()
			}
		} else {
			o.Info = r.rest()
		}
	}
	if r.failed {
		return malformed("OK packet cut short")
	}
	return nil
}

// AppendTo appends the payload of an OK packet that answers a command. Changes are told to who can read them, and StateChanged is set by that alone.
func (o *OK) AppendTo(dst []byte, c Capability) []byte { return o.appendTo(append(dst, okByte), c) }

func (o *OK) appendTo(dst []byte, c Capability) []byte {
	dst = AppendLenenc(dst, o.Affected)
	dst = AppendLenenc(dst, o.InsertID)
	changed := c.Has(SessionTrack) && len(o.Changes) > 0
	status := o.Status &^ StateChanged
	if changed {
		status |= StateChanged
	}
	dst = binary.LittleEndian.AppendUint16(dst, uint16(status))
	dst = binary.LittleEndian.AppendUint16(dst, o.Warnings)
	switch {
	case changed:
		dst = AppendLenencString(AppendLenencString(dst, o.Info), o.Changes)
	case len(o.Info) == 0:
	case c.Has(SessionTrack):
		dst = AppendLenencString(dst, o.Info)
	default:
		dst = append(dst, o.Info...)
	}
	return dst
}

// Kinds of session state changes.
const (
	changeSchema = 1
	changeState  = 2
)

// AppendSchemaChange appends to OK.Changes that another schema was chosen.
func AppendSchemaChange(dst []byte, schema string) []byte {
	value := AppendLenencString(nil, schema)
	return AppendLenencString(append(dst, changeSchema), value)
}

// AppendStateChange appends to OK.Changes that some of the session's state changed, whatever it is.
func AppendStateChange(dst []byte) []byte { return append(dst, changeState, 1, '1') }

// AppendEnd appends the payload that ends columns or rows: an EOF packet, or with DeprecateEOF an OK packet under EOF's
// first byte.
func (o *OK) AppendEnd(dst []byte, c Capability) []byte {
	if c.Has(DeprecateEOF) {
		return o.appendTo(append(dst, eofByte), c)
	}
	dst = binary.LittleEndian.AppendUint16(append(dst, eofByte), o.Warnings)
	return binary.LittleEndian.AppendUint16(dst, uint16(o.Status))
}

// Error is an ERR packet: a MySQL error number, its SQLSTATE and a message. It is a Go error.
type Error struct {
	Code    uint16
	State   string // five characters; empty before the capabilities are settled
	Message string
}

// Error gives "1045 (28000): Access denied ...", as clients print it.
func (e *Error) Error() string {
	text := make([]byte, 0, 16+len(e.Message))
	text = appendDecimal(text, e.Code)
	if e.State != "" {
		text = append(append(append(text, " ("...), e.State...), ')')
	}
	return string(append(append(text, ": "...), e.Message...))
}

func appendDecimal(dst []byte, v uint16) []byte {
	if v >= 10 {
		dst = appendDecimal(dst, v/10)
	}
	return append(dst, '0'+byte(v%10))
}

// IsError says whether a payload is an ERR packet.
func IsError(payload []byte) bool { return len(payload) > 0 && payload[0] == errByte }

// Decode reads the payload of an ERR packet; strings are copies. The SQLSTATE is there when its marker is.
func (e *Error) Decode(payload []byte) error {
	r := reader{b: payload}
	if r.uint8() != errByte {
		return malformed("ERR packet")
	}
	*e = Error{Code: r.uint16()}
	if r.failed {
		return malformed("ERR packet cut short")
	}
	if len(r.b) >= 6 && r.b[0] == '#' {
		e.State = string(r.b[1:6])
		r.b = r.b[6:]
	}
	e.Message = string(r.rest())
	return nil
}

// messageMax is the longest message that MySQL itself sends.
const messageMax = 512

// AppendTo appends the payload. A State that is not five characters long is left out, which is the form of the packet before
// the greeting was answered.
func (e *Error) AppendTo(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint16(append(dst, errByte), e.Code)
	if len(e.State) == 5 {
		dst = append(append(dst, '#'), e.State...)
	}
	return append(dst, e.Message[:min(len(e.Message), messageMax)]...)
}
