package mysql

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestLenenc(t *testing.T) {
	f := func(v uint64, want string) {
		t.Helper()
		b := AppendLenenc(nil, v)
		if hex.EncodeToString(b) != want {
			t.Errorf("%d is %x, want %s", v, b, want)
		}
		if got, n := Lenenc(b); got != v || n != len(b) {
			t.Errorf("%d comes back as %d (%d bytes)", v, got, n)
		}
		for cut := range len(b) {
			if _, n := Lenenc(b[:cut]); n != 0 {
				t.Errorf("%x is read as an integer", b[:cut])
			}
		}
	}
	f(0, "00")
	f(250, "fa")
	f(251, "fcfb00")
	f(1<<16-1, "fcffff")
	f(1<<16, "fd000001")
	f(1<<24-1, "fdffffff")
	f(1<<24, "fe0000000100000000")
	f(1<<64-1, "feffffffffffffffff")
	for _, b := range [][]byte{{0xfb}, {0xff}} {
		if _, n := Lenenc(b); n != 0 {
			t.Errorf("%x is read as an integer", b)
		}
	}
}

// Packets as real servers and clients sent them.
func TestGreetingsOfRealServers(t *testing.T) {
	f := func(dump string, want Greeting) {
		t.Helper()
		payload, err := hex.DecodeString(strings.ReplaceAll(dump, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		var g Greeting
		if err := g.Decode(payload); err != nil {
			t.Error(err)
		}
		if g != want {
			t.Errorf("got  %+v\nwant %+v", g, want)
		}
		for cut := range payload {
			var g Greeting
			if err := g.Decode(payload[:cut]); err != nil && !errors.Is(err, ErrMalformed) {
				t.Errorf("cut at %d: %v", cut, err)
			}
		}
	}
	// MySQL 8.0: caching_sha2_password, reserved bytes zero.
	f("0a 382e302e333600 0b000000 0102030405060708 00 ffff ff 0200 ffdf 15 00000000000000000000 090a0b0c0d0e0f1011121314 00 63616368696e675f736861325f70617373776f726400",
		Greeting{Version: "8.0.36", ConnectionID: 11, Nonce: nonce(), Capabilities: 0xdfffffff, Collation: 255, Status: Autocommit, Plugin: CachingSHA2})
	// MariaDB: the first capability missing, its own ones in the reserved bytes.
	f("0a 352e352e352d31302e31312e3139 00 0c000000 0102030405060708 00 fef7 08 0200 ff81 15 000000000000 1d000000 090a0b0c0d0e0f1011121314 00 6d7973716c5f6e61746976655f70617373776f726400",
		Greeting{Version: "5.5.5-10.11.19", ConnectionID: 12, Nonce: nonce(), Capabilities: 0x81fff7fe, Collation: 8, Status: Autocommit, Plugin: NativePassword, Extended: 0x1d})
}

func nonce() (n [NonceLen]byte) {
	for i := range n {
		n[i] = byte(i + 1)
	}
	return n
}

func TestRoundTrips(t *testing.T) {
	greeting := Greeting{Version: "5.7.44-Menshen", ConnectionID: 77, Nonce: nonce(), Capabilities: Offered, Collation: 45, Status: Autocommit, Plugin: CachingSHA2}
	var g Greeting
	if err := g.Decode(greeting.AppendTo(nil)); err != nil || g != greeting {
		t.Errorf("greeting: %+v, %v", g, err)
	}

	in := SignIn{PacketMax: 1 << 24, Collation: 33, User: []byte("app"), Auth: []byte("proof"), Database: []byte("shop"), Plugin: []byte(NativePassword), Attributes: []byte("\x01a\x01b")}
	for _, c := range []Capability{
		Protocol41 | SecureConnection,
		Protocol41 | SecureConnection | PluginAuth | ConnectWithDatabase,
		Protocol41 | PluginAuthLenenc | SecureConnection | PluginAuth | ConnectWithDatabase | ConnectAttributes,
	} {
		want := in
		want.Capabilities = c
		payload := want.AppendTo(nil)
		var got SignIn
		if err := got.Decode(payload); err != nil {
			t.Error(err)
		}
		if !c.Has(ConnectWithDatabase) {
			want.Database = nil
		}
		if !c.Has(PluginAuth) {
			want.Plugin = nil
		}
		if !c.Has(ConnectAttributes) {
			want.Attributes = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("sign-in with %s:\ngot  %+v\nwant %+v", c, got, want)
		}
		if request := want.AppendTLSRequest(nil); !IsTLSRequest(request) || IsTLSRequest(payload) {
			t.Errorf("TLS request: %x", request)
		}
	}

	change := AuthSwitch{Plugin: NativePassword, Nonce: []byte("01234567890123456789")}
	var a AuthSwitch
	if err := a.Decode(change.AppendTo(nil)); err != nil || !reflect.DeepEqual(a, change) {
		t.Errorf("switch: %+v, %v", a, err)
	}

	for _, c := range []Capability{0, SessionTrack, DeprecateEOF | SessionTrack} {
		ok := OK{Affected: 3, InsertID: 1 << 33, Status: Autocommit | InTransaction, Warnings: 2, Info: []byte("Records: 3")}
		var got OK
		if err := got.Decode(ok.AppendTo(nil, c), c); err != nil || !reflect.DeepEqual(got, ok) {
			t.Errorf("OK: %+v, %v", got, err)
		}
	}

	for _, e := range []Error{{1045, "28000", "Access denied"}, {1040, "", "Too many connections"}, {1, "HY000", ""}} {
		var got Error
		if err := got.Decode(e.AppendTo(nil)); err != nil || got != e {
			t.Errorf("ERR: %+v, %v", got, err)
		}
	}
	if text := (&Error{1045, "28000", "Access denied"}).Error(); text != "1045 (28000): Access denied" {
		t.Error(text)
	}

	user := ChangeUser{User: []byte("u"), Auth: []byte("proof"), Database: []byte("d"), Plugin: []byte(CachingSHA2), Collation: 45, Attributes: []byte("\x01a\x00")}
	all := SecureConnection | PluginAuth | ConnectAttributes
	var u ChangeUser
	if err := u.Decode(user.AppendTo(nil, all), all); err != nil || !reflect.DeepEqual(u, user) {
		t.Errorf("change user: %+v, %v", u, err)
	}

	column := Column{Schema: []byte("s"), Table: []byte("t"), OriginalTable: []byte("ot"), Name: []byte("n"), OriginalName: []byte("on"), Collation: 45, Length: 80, Type: TypeVarString, Flags: 1, Decimals: 31}
	var c Column
	if err := c.Decode(column.AppendTo(nil)); err != nil || !reflect.DeepEqual(c, column) {
		t.Errorf("column: %+v, %v", c, err)
	}

	prepared := Prepared{Statement: 9, Columns: 2, Parameters: 3, Warnings: 1}
	var p Prepared
	if err := p.Decode(prepared.AppendTo(nil)); err != nil || p != prepared {
		t.Errorf("prepared: %+v, %v", p, err)
	}
	if e, err := DecodeExecute(Execute{5, 1}.AppendTo(nil)); err != nil || e != (Execute{5, 1}) {
		t.Errorf("execute: %+v, %v", e, err)
	}
	if o, err := DecodeSetOption(AppendSetOption(nil, 1)); err != nil || o != 1 {
		t.Errorf("set option: %d, %v", o, err)
	}
}

func TestRefusals(t *testing.T) {
	f := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	f("greeting of version 9", new(Greeting).Decode([]byte("\x09text\x00")))
	f("empty greeting", new(Greeting).Decode(nil))
	f("sign-in of MySQL 3.23", new(SignIn).Decode([]byte{5, 0, 0, 0, 1, 'u', 0}))
	f("user name without end", new(SignIn).Decode(append((&SignIn{Capabilities: Protocol41}).AppendTLSRequest(nil)[:32:32], "user"...)))
	f("proof longer than the packet", new(SignIn).Decode(append((&SignIn{Capabilities: Protocol41 | SecureConnection}).AppendTLSRequest(nil)[:32:32], "u\x00\xffabc"...)))
	f("proof of 2^63 bytes", new(SignIn).Decode(append((&SignIn{Capabilities: Protocol41 | PluginAuthLenenc}).AppendTLSRequest(nil)[:32:32], "u\x00\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"...)))
	f("old authentication switch", new(AuthSwitch).Decode([]byte{0xfe}))
	f("OK cut short", new(OK).Decode([]byte{0, 1, 2, 3}, 0))
	f("ERR cut short", new(Error).Decode([]byte{0xff, 1}))
	f("column cut short", new(Column).Decode([]byte("\x03def\x01s")))
	f("prepare cut short", new(Prepared).Decode([]byte{0, 1, 0, 0, 0, 1}))
	_, err := DecodeExecute([]byte{byte(ComStmtExecute), 1, 2})
	f("execute cut short", err)
	_, err = DecodeSetOption([]byte{byte(ComSetOption), 7, 0})
	f("unknown option", err)
	_, err = DecodePublicKey([]byte("\x01no key"))
	f("no key", err)
}

func TestCommandNames(t *testing.T) {
	f := func(c Command, want string) {
		t.Helper()
		if c.String() != want {
			t.Errorf("%#x is %q, want %q", byte(c), c, want)
		}
	}
	f(ComQuit, "quit")
	f(ComQuery, "query")
	f(ComChangeUser, "change_user")
	f(ComStmtPrepare, "stmt_prepare")
	f(ComStmtFetch, "stmt_fetch")
	f(ComReset, "reset_connection")
	f(0x20, "unknown")
	f(0xff, "unknown")
}

func TestPasswords(t *testing.T) {
	n := nonce()
	for _, password := range []string{"", "secret", "пароль", strings.Repeat("x", 300)} {
		native, sha2 := NativeVerifier(password), SHA2Verifier(password)
		if !CheckNative(native, n[:], NativeScramble(password, n[:])) || !CheckSHA2(sha2, n[:], SHA2Scramble(password, n[:])) || !CheckSHA2Full(sha2, append([]byte(password), 0)) {
			t.Errorf("%q is refused", password)
		}
		for _, wrong := range []string{"", "Secret", "secret\x00", password + "x"} {
			if wrong == password {
				continue
			}
			if CheckNative(native, n[:], NativeScramble(wrong, n[:])) || CheckSHA2(sha2, n[:], SHA2Scramble(wrong, n[:])) || CheckSHA2Full(sha2, append([]byte(wrong), 0)) {
				t.Errorf("%q passes for %q", wrong, password)
			}
		}
		if CheckNative(native, n[1:], NativeScramble(password+"y", n[:])) || CheckSHA2(sha2, n[:], []byte("short")) || CheckNative(native, n[:], []byte("short")) {
			t.Errorf("nonsense passes for %q", password)
		}
	}
	// As MariaDB's PASSWORD('secret') shows it.
	if v := NativeVerifier("secret"); hex.EncodeToString(v[:]) != "14e65567abdb5135d0cfd9a70b3032c179a49ee7" {
		t.Errorf("native verifier %x", v)
	}

	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := AppendPublicKey(nil, &key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public, err := DecodePublicKey(payload)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := EncryptPassword(public, "secret", n[:])
	if err != nil {
		t.Fatal(err)
	}
	if open, err := DecryptPassword(key, sealed, n[:]); err != nil || string(open) != "secret\x00" {
		t.Errorf("%q, %v", open, err)
	}
	sealed[3] ^= 1
	if _, err := DecryptPassword(key, sealed, n[:]); !errors.Is(err, ErrMalformed) {
		t.Errorf("tampered: %v", err)
	}

	for range 100 {
		n, err := NewNonce(rand.Reader)
		if err != nil || bytes.ContainsAny(n[:], "\x00$") {
			t.Fatalf("%q, %v", n, err)
		}
	}
}

func TestMessage(t *testing.T) {
	f := func(size, frames int) {
		t.Helper()
		payload := bytes.Repeat([]byte{7}, size)
		packet, next := AppendPacket(nil, 250, payload)
		if int(next-250) != frames {
			t.Errorf("%d bytes: %d frames, want %d", size, next-250, frames)
		}
		for _, piece := range []int{1 << 30, 1 << 20, 4093} {
			m := Message{Sequence: 250}
			rest := append(packet[:len(packet):len(packet)], "the next one"...)
			for {
				n, done, err := m.Feed(rest[:min(piece, len(rest))])
				if err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
				if done {
					break
				}
				if n == 0 {
					t.Fatal("no progress")
				}
			}
			if string(rest) != "the next one" || m.Length() != int64(size) || m.Sequence != next {
				t.Errorf("%d bytes in pieces of %d: %d left, length %d, next %d", size, piece, len(rest), m.Length(), m.Sequence)
			}
		}
	}
	f(0, 1)
	f(1, 1)
	f(PayloadMax-1, 1)
	f(PayloadMax, 2)
	f(PayloadMax+1, 2)
	f(2*PayloadMax, 3)

	m := Message{}
	if _, _, err := m.Feed([]byte{1, 0, 0, 3, 9}); !errors.Is(err, ErrMalformed) {
		t.Errorf("frame out of order: %v", err)
	}
}
