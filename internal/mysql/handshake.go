package mysql

import "encoding/binary"

// NonceLen is the length of the random text that a password is scrambled with.
const NonceLen = 20

// Greeting is a server's first packet (protocol version 10). Decode copies, so nothing in it is a view.
type Greeting struct {
	Version      string
	ConnectionID uint32
	Nonce        [NonceLen]byte // no byte may be zero: old clients read it as text
	Capabilities Capability
	Collation    uint8
	Status       Status
	Plugin       string // the authentication that the nonce is meant for
	Extended     uint32 // MariaDB's extended capabilities; read for information, always appended as zero
}

// Decode reads a greeting's payload. An error packet is not a greeting: look at the first byte before.
func (g *Greeting) Decode(payload []byte) error {
	r := reader{b: payload}
	if v := r.uint8(); r.failed || v != 10 {
		return malformed("greeting of another protocol version")
	}
	*g = Greeting{Version: string(r.text()), ConnectionID: r.uint32()}
	copy(g.Nonce[:8], r.take(8))
	r.take(1)
	g.Capabilities = Capability(r.uint16())
	if r.failed {
		return malformed("greeting cut short")
	}
	if len(r.b) == 0 {
		return nil
	}
	g.Collation = r.uint8()
	g.Status = Status(r.uint16())
	g.Capabilities |= Capability(r.uint16()) << 16
	nonceLen := int(r.uint8())
	r.take(6)
	extended := r.uint32()
	if !g.Capabilities.Has(LongPassword) {
		g.Extended = extended
	}
	if g.Capabilities.Has(SecureConnection) {
		// At least 13 bytes, the last of which is a NUL that is not part of the nonce.
		rest := r.take(min(max(13, nonceLen-8), len(r.b)))
		if len(rest) < NonceLen-8 {
			return malformed("greeting with a short nonce")
		}
		copy(g.Nonce[8:], rest)
	}
	if g.Capabilities.Has(PluginAuth) {
		g.Plugin = string(r.textOrRest())
	}
	if r.failed {
		return malformed("greeting cut short")
	}
	return nil
}

// AppendTo appends the greeting's payload.
func (g *Greeting) AppendTo(dst []byte) []byte {
	dst = append(dst, 10)
	dst = appendText(dst, g.Version)
	dst = binary.LittleEndian.AppendUint32(dst, g.ConnectionID)
	dst = append(dst, g.Nonce[:8]...)
	dst = append(dst, 0)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(g.Capabilities))
	dst = append(dst, g.Collation)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(g.Status))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(g.Capabilities>>16))
	if g.Capabilities.Has(PluginAuth) {
		dst = append(dst, NonceLen+1)
	} else {
		dst = append(dst, 0)
	}
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	if g.Capabilities.Has(SecureConnection) {
		dst = append(append(dst, g.Nonce[8:]...), 0)
	}
	if g.Capabilities.Has(PluginAuth) {
		dst = appendText(dst, g.Plugin)
	}
	return dst
}

// SignIn is a client's answer to the greeting. With the TLS capability and nothing after the fixed part it only asks for
// TLS (see IsTLSRequest) and comes again inside it.
type SignIn struct {
	Capabilities Capability
	PacketMax    uint32
	Collation    uint8
	User         []byte // view
	Auth         []byte // view; the plugin's first answer
	Database     []byte // view; empty when none is named
	Plugin       []byte // view; empty when the client knows no plugins, which means mysql_native_password
	Attributes   []byte // view; key and value pairs, undecoded
	ZstdLevel    uint8  // the compression level that the client would like; 0 when not sent
}

// signInFixed is the length of the part that a TLS request consists of.
const signInFixed = 32

// IsTLSRequest says whether a payload is the short form of the sign-in that asks for TLS.
func IsTLSRequest(payload []byte) bool {
	return len(payload) == signInFixed && Capability(binary.LittleEndian.Uint32(payload)).Has(TLS)
}

// Decode reads the payload of a client's answer to the greeting (HandshakeResponse41). Clients from before MySQL 4.1 are
// refused.
func (s *SignIn) Decode(payload []byte) error {
	r := reader{b: payload}
	*s = SignIn{Capabilities: Capability(r.uint32())}
	if r.failed || !s.Capabilities.Has(Protocol41) {
		return malformed("sign-in of a client from before MySQL 4.1")
	}
	s.PacketMax = r.uint32()
	s.Collation = r.uint8()
	r.take(23)
	if len(r.b) == 0 && !r.failed && s.Capabilities.Has(TLS) {
		return nil
	}
	s.User = r.text()
	switch {
	case s.Capabilities.Has(PluginAuthLenenc):
		s.Auth = r.lenencBytes()
	case s.Capabilities.Has(SecureConnection):
		s.Auth = r.take(int(r.uint8()))
	default:
		s.Auth = r.textOrRest()
	}
	// libmysql announces a database without sending one when it has none: a packet that ends here is complete.
	if s.Capabilities.Has(ConnectWithDatabase) && len(r.b) > 0 {
		s.Database = r.textOrRest()
	}
	if s.Capabilities.Has(PluginAuth) && len(r.b) > 0 {
		s.Plugin = r.textOrRest()
	}
	if s.Capabilities.Has(ConnectAttributes) && len(r.b) > 0 {
		s.Attributes = r.lenencBytes()
	}
	if s.Capabilities.Has(CompressZstd) && len(r.b) > 0 {
		s.ZstdLevel = r.uint8()
	}
	if r.failed {
		return malformed("sign-in cut short")
	}
	return nil
}

// Attribute gives the value of a connection attribute; ok is false when it is not among them, or behind something that is no
// pair of names and values. The value is a view.
func Attribute(attributes []byte, name string) (value []byte, ok bool) {
	for r := (reader{b: attributes}); len(r.b) > 0; {
		key, value := r.lenencBytes(), r.lenencBytes()
		if r.failed {
			return nil, false
		}
		if string(key) == name {
			return value, true
		}
	}
	return nil, false
}

// AppendTLSRequest appends the short form that asks for TLS.
func (s *SignIn) AppendTLSRequest(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(s.Capabilities|TLS))
	dst = binary.LittleEndian.AppendUint32(dst, s.PacketMax)
	dst = append(dst, s.Collation)
	return append(dst, make([]byte, 23)...)
}

// AppendTo appends the sign-in's payload. Database and Attributes are sent when their capability is set; Plugin likewise.
func (s *SignIn) AppendTo(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(s.Capabilities))
	dst = binary.LittleEndian.AppendUint32(dst, s.PacketMax)
	dst = append(dst, s.Collation)
	dst = append(dst, make([]byte, 23)...)
	dst = appendText(dst, s.User)
	switch {
	case s.Capabilities.Has(PluginAuthLenenc):
		dst = AppendLenencString(dst, s.Auth)
	case s.Capabilities.Has(SecureConnection):
		dst = append(dst, byte(len(s.Auth)))
		dst = append(dst, s.Auth[:min(len(s.Auth), 255)]...)
	default:
		dst = appendText(dst, s.Auth)
	}
	if s.Capabilities.Has(ConnectWithDatabase) {
		dst = appendText(dst, s.Database)
	}
	if s.Capabilities.Has(PluginAuth) {
		dst = appendText(dst, s.Plugin)
	}
	if s.Capabilities.Has(ConnectAttributes) {
		dst = AppendLenencString(dst, s.Attributes)
	}
	if s.Capabilities.Has(CompressZstd) {
		dst = append(dst, s.ZstdLevel)
	}
	return dst
}

// AuthSwitch is a server's wish to authenticate with another plugin and a nonce of its own.
type AuthSwitch struct {
	Plugin string
	Nonce  []byte // view, without the closing NUL
}

// Decode reads the payload, whose first byte is 0xFE. A payload of that byte alone asks for the password of MySQL 3.23,
// which nobody should send: it is an error.
func (a *AuthSwitch) Decode(payload []byte) error {
	r := reader{b: payload}
	if r.uint8() != 0xfe || len(r.b) == 0 {
		return malformed("authentication switch")
	}
	*a = AuthSwitch{Plugin: string(r.textOrRest())}
	a.Nonce = r.rest()
	// 32 bytes are those of client_ed25519: any of them may be zero, and no NUL follows.
	if n := len(a.Nonce); n > 0 && n != Ed25519NonceLen && a.Nonce[n-1] == 0 {
		a.Nonce = a.Nonce[:n-1]
	}
	return nil
}

// AppendTo appends the payload.
func (a *AuthSwitch) AppendTo(dst []byte) []byte {
	dst = appendText(append(dst, 0xfe), a.Plugin)
	return append(append(dst, a.Nonce...), 0)
}

// AuthMore is the first byte of a packet with which a plugin goes on; its data follow.
const AuthMore = 0x01

// AppendAuthMore appends the payload of such a packet.
func AppendAuthMore[T ~string | ~[]byte](dst []byte, data T) []byte {
	return append(append(dst, AuthMore), data...)
}
