package mysql

import (
	"bytes"
	"reflect"
	"testing"
)

// FuzzPacket: a message split into frames by AppendPacket is put together again by Message, however it arrives; any bytes
// at all are followed without a panic, never past their end, and in pieces as in one.
func FuzzPacket(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 14}, uint8(0), uint16(1))
	f.Add([]byte{0, 0, 0, 0}, uint8(0), uint16(3))
	f.Add([]byte{3, 0, 0, 1, 1, 2}, uint8(1), uint16(2))
	f.Fuzz(func(t *testing.T, b []byte, first uint8, piece uint16) {
		whole := Message{Sequence: first}
		n, done, err := whole.Feed(b)
		if n > len(b) || (done && err != nil) {
			t.Fatalf("consumed %d of %d, done %v, %v", n, len(b), done, err)
		}
		split := Message{Sequence: first}
		m, splitDone := 0, false
		var splitErr error
		for rest := b; len(rest) > 0 && !splitDone && splitErr == nil; {
			var k int
			k, splitDone, splitErr = split.Feed(rest[:min(int(piece)+1, len(rest))])
			m += k
			rest = rest[k:]
			if k == 0 && !splitDone && splitErr == nil {
				t.Fatal("no progress")
			}
		}
		if len(b) > 0 && (m != n || splitDone != done || (splitErr == nil) != (err == nil)) {
			t.Fatalf("in one: %d, %v, %v; in pieces: %d, %v, %v", n, done, err, m, splitDone, splitErr)
		}

		packet, next := AppendPacket(nil, first, b)
		again := Message{Sequence: first}
		if n, done, err := again.Feed(packet); err != nil || !done || n != len(packet) || again.Sequence != next || again.Length() != int64(len(b)) {
			t.Fatalf("own packet: %d, %v, %v", n, done, err)
		}
	})
}

// FuzzHandshake: what decodes is encoded to something that decodes to the same.
func FuzzHandshake(f *testing.F) {
	g := Greeting{Version: "8.0.36", Nonce: nonce(), Capabilities: Offered, Plugin: CachingSHA2}
	f.Add(g.AppendTo(nil))
	for _, c := range []Capability{Protocol41, Protocol41 | SecureConnection | ConnectWithDatabase, Offered} {
		s := SignIn{Capabilities: c, User: []byte("u"), Auth: []byte("01234567890123456789"), Database: []byte("d"), Plugin: []byte(NativePassword), Attributes: []byte("\x01a\x01b")}
		f.Add(s.AppendTo(nil))
		f.Add(s.AppendTLSRequest(nil))
	}
	f.Add((&AuthSwitch{Plugin: NativePassword, Nonce: []byte("nonce")}).AppendTo(nil))
	user := ChangeUser{User: []byte("u"), Plugin: []byte(NativePassword)}
	f.Add(user.AppendTo(nil, Offered))
	f.Fuzz(func(t *testing.T, b []byte) {
		var g, g2 Greeting
		if g.Decode(b) == nil {
			g.Capabilities |= LongPassword | SecureConnection | PluginAuth
			g.Extended = 0
			if err := g2.Decode(g.AppendTo(nil)); err != nil || g != g2 {
				t.Errorf("greeting %+v becomes %+v, %v", g, g2, err)
			}
		}
		var s, s2 SignIn
		if s.Decode(b) == nil && !(IsTLSRequest(b)) {
			if s.Capabilities.Has(PluginAuthLenenc) || s.Capabilities.Has(SecureConnection) {
				if err := s2.Decode(s.AppendTo(nil)); err != nil || !bytes.Equal(s.User, s2.User) || !bytes.Equal(s.Auth, s2.Auth) ||
					!bytes.Equal(s.Database, s2.Database) || !bytes.Equal(s.Plugin, s2.Plugin) || !bytes.Equal(s.Attributes, s2.Attributes) {
					t.Errorf("sign-in %+v becomes %+v, %v", s, s2, err)
				}
			}
		}
		if v, ok := Attribute(b, "a"); ok && len(v) >= len(b) {
			t.Errorf("an attribute of %d bytes out of %d", len(v), len(b))
		}
		var a, a2 AuthSwitch
		if a.Decode(b) == nil && len(a.Nonce) != Ed25519NonceLen-1 { // with its NUL that would be the other kind of nonce
			if err := a2.Decode(a.AppendTo(nil)); err != nil || !(a.Plugin == a2.Plugin && bytes.Equal(a.Nonce, a2.Nonce)) {
				t.Errorf("switch %+v becomes %+v, %v", a, a2, err)
			}
		}
		for _, c := range []Capability{0, SecureConnection, Offered} {
			var u, u2 ChangeUser
			if u.Decode(b, c) == nil {
				if err := u2.Decode(u.AppendTo(nil, c), c); err != nil || !bytes.Equal(u.User, u2.User) || !bytes.Equal(u.Auth, u2.Auth) {
					t.Errorf("change user %+v becomes %+v, %v", u, u2, err)
				}
			}
		}
		_, _ = DecodePublicKey(b)
	})
}

// FuzzAnswer: the decoders of answers never panic, and what decodes comes back.
func FuzzAnswer(f *testing.F) {
	ok := OK{Affected: 1, Info: []byte("info"), Changes: AppendStateChange(AppendSchemaChange(nil, "shop"))}
	f.Add(ok.AppendTo(nil, SessionTrack))
	f.Add(ok.AppendEnd(nil, DeprecateEOF))
	f.Add((&Error{1045, "28000", "no"}).AppendTo(nil))
	f.Add((&Column{Name: []byte("n")}).AppendTo(nil))
	f.Add((&Prepared{Statement: 1}).AppendTo(nil))
	f.Add(AppendSetOption(nil, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range []Capability{0, SessionTrack} {
			var o, o2 OK
			if o.Decode(b, c) == nil {
				if len(o.Changes) == 0 {
					o.Status &^= StateChanged
				}
				if err := o2.Decode(o.AppendTo(nil, c), c); err != nil || o.Affected != o2.Affected || !bytes.Equal(o.Info, o2.Info) || !bytes.Equal(o.Changes, o2.Changes) || o.Status != o2.Status {
					t.Errorf("OK %+v becomes %+v, %v", o, o2, err)
				}
			}
		}
		var e, e2 Error
		if e.Decode(b) == nil && (e.State != "" || len(e.Message) == 0 || e.Message[0] != '#') && len(e.Message) <= messageMax {
			if err := e2.Decode(e.AppendTo(nil)); err != nil || e != e2 {
				t.Errorf("ERR %+v becomes %+v, %v", e, e2, err)
			}
		}
		var c, c2 Column
		if c.Decode(b) == nil {
			if err := c2.Decode(c.AppendTo(nil)); err != nil || !bytes.Equal(c.Name, c2.Name) || c.Type != c2.Type {
				t.Errorf("column %+v becomes %+v, %v", c, c2, err)
			}
		}
		var p, p2 Prepared
		if p.Decode(b) == nil {
			if err := p2.Decode(p.AppendTo(nil)); err != nil || p != p2 {
				t.Errorf("prepared %+v becomes %+v, %v", p, p2, err)
			}
		}
		_, _ = DecodeExecute(b)
		_, _ = DecodeSetOption(b)
	})
}

// FuzzResponse: any bytes are followed without a panic, never past their end, and in pieces as in one.
func FuzzResponse(f *testing.F) {
	for _, c := range cases {
		for _, caps := range []Capability{0, DeprecateEOF} {
			build := answer(caps)
			c.build(build)
			if len(build.b) < 4096 {
				f.Add(build.b, byte(c.command), caps != 0, c.cursor, uint16(3))
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, command byte, deprecate, cursor bool, piece uint16) {
		var caps Capability
		if deprecate {
			caps = DeprecateEOF
		}
		var whole, split Response
		whole.Start(Command(command), caps, 1, cursor)
		split.Start(Command(command), caps, 1, cursor)
		n, err := whole.Feed(b)
		if n > len(b) {
			t.Fatalf("consumed %d of %d", n, len(b))
		}
		if err == nil && n < len(b) && !whole.Done() && !whole.WantsFile() {
			t.Fatalf("stopped at %d of %d", n, len(b))
		}
		m := 0
		var splitErr error
		for rest := b; len(rest) > 0 && splitErr == nil && !split.Done() && !split.WantsFile(); {
			var k int
			k, splitErr = split.Feed(rest[:min(int(piece)+1, len(rest))])
			if k == 0 && splitErr == nil {
				t.Fatal("no progress")
			}
			m += k
			rest = rest[k:]
		}
		if (err == nil) != (splitErr == nil) {
			t.Fatalf("in one: %v; in pieces: %v", err, splitErr)
		}
		if err != nil {
			if whole.AtBoundary() || split.AtBoundary() {
				t.Fatal("at a boundary after an error")
			}
			return
		}
		whole.head, split.head = [len(whole.head)]byte{}, [len(whole.head)]byte{}
		if m != n || !reflect.DeepEqual(whole, split) {
			t.Fatalf("in one: %d, %+v\nin pieces: %d, %+v", n, whole, m, split)
		}
	})
}
