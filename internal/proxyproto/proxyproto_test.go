package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
)

func header(from, to string) Header {
	return Header{netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)}
}

// v2 makes a header of version 2 from its parts.
func v2(command, family byte, body ...byte) string {
	b := append([]byte(signature), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return string(append(b, body...))
}

var body4 = []byte{192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb}

func body6() []byte {
	b := append(netip.MustParseAddr("2001:db8::7").AsSlice(), netip.MustParseAddr("2001:db8::1").AsSlice()...)
	return append(b, 0x30, 0x39, 0x01, 0xbb)
}

// summed is body4 with a checksum behind another extension; delta falsifies it.
func summed(delta uint32) string {
	body := append(bytes.Clone(body4), 0x02, 0, 3, 'a', '.', 'b', tlvChecksum, 0, 4, 0, 0, 0, 0, 0x04, 0, 0)
	b := []byte(v2(commandProxy, 0x11, body...))
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) + delta
	binary.BigEndian.PutUint32(b[len(b)-7:], sum)
	return string(b)
}

// good are headers, and what they say.
func good() map[string]Header {
	v4 := header("192.0.2.7:12345", "10.0.0.1:443")
	v6 := header("[2001:db8::7]:12345", "[2001:db8::1]:443")
	return map[string]Header{
		"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n":            v4,
		"PROXY TCP4 255.255.255.255 1.1.1.1 65535 0\r\n":         header("255.255.255.255:65535", "1.1.1.1:0"),
		"PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n":       v6,
		"PROXY TCP6 :: :: 0 0\r\n":                               header("[::]:0", "[::]:0"),
		"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:a00:1 12345 443\r\n": v4,
		"PROXY UNKNOWN\r\n":                                      {},
		"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n": {},
		v2(commandLocal, 0):                                                     {},
		v2(commandLocal, 0x11, body4...):                                        {},
		v2(commandLocal, 0xff, 1, 2, 3):                                         {},
		v2(commandProxy, 0x11, body4...):                                        v4,
		v2(commandProxy, 0x12, body4...):                                        v4,
		v2(commandProxy, 0x21, body6()...):                                      v6,
		v2(commandProxy, 0x31, make([]byte, 216)...):                            {},
		v2(commandProxy, 0):                                                     {},
		v2(commandProxy, 0, 1, 2, 3):                                            {},
		v2(commandProxy, 0x11, append(bytes.Clone(body4), 0xea, 0, 2, 1, 2)...): v4,
		v2(commandProxy, 0x11, append(bytes.Clone(body4), append([]byte{0x04, 0x30, 0}, make([]byte, 0x3000)...)...)...): v4,
		summed(0): v4,
	}
}

// TestReadTakesExactlyTheHeader reads each header in pieces of all kinds, with and without bytes behind it.
func TestReadTakesExactlyTheHeader(t *testing.T) {
	t.Parallel()
	for text, want := range good() {
		for name, slow := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "halves": iotest.HalfReader, "end with data": iotest.DataErrReader,
		} {
			for _, behind := range []string{"", "GET / HTTP/1.1\r\n\r\n", "PROXY UNKNOWN\r\n", "\n"} {
				under := strings.NewReader(text + behind)
				if name == "end with data" {
					under = strings.NewReader(text)
					behind = ""
				}
				got, err := Read(slow(under))
				rest, _ := io.ReadAll(under)
				if err != nil || got != want || string(rest) != behind {
					t.Errorf("%q (%s): %v, %v, left %q; want %v, %q", text, name, got, err, rest, want, behind)
				}
			}
		}
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	f := func(text, want string) {
		t.Helper()
		got, err := Read(strings.NewReader(text))
		if err == nil || !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), want) || got != (Header{}) {
			t.Errorf("%q: %v, %v; want %q", text, got, err, want)
		}
	}
	f("GET / HTTP/1.1\r\n\r\n", "another protocol")
	f("\r\n\r\n\r\nGET / HTTP/1.1", "another protocol")
	f("\x16\x03\x01\x02\x00", "another protocol")
	f("proxy TCP4 192.0.2.7 10.0.0.1 12345 443\r\n", "another protocol")
	f("PROXY TCP4\r\nGET / HTTP", "line too short")
	f("PROXY TCP4 192.0.2.7 10.0.0.1 12345\r\nGET /", "line too short")
	f("PROXY TCP4 192.0.2.7 10.0.0.1 12345 443 1\r\n", "another form")
	f("PROXY  TCP4 192.0.2.7 10.0.0.1 12345 443\r\n", "another form")
	f("PROXY UDP4 192.0.2.7 10.0.0.1 12345 443\r\n", "another form")
	f("PROXY UNKNOWNX\r\n", "another form")
	f("PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\n", "line without an end")
	f("PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\r\n", "control characters")
	f("PROXY UNKNOWN \r \r\n", "control characters")
	f("PROXY UNKNOWN \x00 \r\n", "control characters")
	f("PROXY TCP4 192.0.2.7 10.0.0.1 12345 65536\r\n", "address")
	f("PROXY TCP4 192.0.2.7 10.0.0.1 012345 443\r\n", "address")
	f("PROXY TCP4 192.0.2.7 10.0.0.1 +1234 443\r\n", "address")
	f("PROXY TCP4 192.0.2.07 10.0.0.1 12345 443\r\n", "address")
	f("PROXY TCP4 2001:db8::7 2001:db8::1 12345 443\r\n", "address")
	f("PROXY TCP6 192.0.2.7 10.0.0.1 12345 443\r\n", "address")
	f("PROXY TCP6 fe80::1%eth0 fe80::2 12345 443\r\n", "address")
	f("PROXY TCP4 host 10.0.0.1 12345 443\r\n", "address")
	f("PROXY TCP6 "+strings.Repeat("f", 200)+" :: 1 1\r\n", "line too long")
	f("PROXY UNKNOWN "+strings.Repeat("x", 200)+"\r\n", "line too long")
	f(v2(0x11, 0x11, body4...), "version and command")
	f(v2(0x22, 0x11, body4...), "version and command")
	f(v2(commandProxy, 0x41, body4...), "family")
	f(v2(commandProxy, 0x13, body4...), "family")
	f(v2(commandProxy, 0x10, body4...), "family")
	f(v2(commandProxy, 0x01, body4...), "family")
	f(v2(commandProxy, 0x11, body4[:11]...), "addresses cut short")
	f(v2(commandProxy, 0x21, body4...), "addresses cut short")
	f(v2(commandProxy, 0x31, make([]byte, 215)...), "addresses cut short")
	f(v2(commandProxy, 0x11, append(bytes.Clone(body4), 1, 0)...), "extension cut short")
	f(v2(commandProxy, 0x11, append(bytes.Clone(body4), 1, 0, 2, 9)...), "extension cut short")
	f(v2(commandProxy, 0x11, append(bytes.Clone(body4), tlvChecksum, 0, 3, 0, 0, 0)...), "checksum")
	f(v2(commandProxy, 0x11, append(bytes.Clone(body4), make([]byte, BytesMax)...)...), "too long")
	f(summed(1), "wrong checksum")
}

func TestReadCutShort(t *testing.T) {
	t.Parallel()
	for text := range good() {
		for n := range min(len(text), 300) {
			_, err := Read(strings.NewReader(text[:n]))
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if err != want {
				t.Errorf("%q cut after %d: %v, want %v", text, n, err, want)
			}
		}
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	f := func(h Header, v Version, want string) {
		t.Helper()
		if got := string(h.AppendTo(nil, v)); got != want {
			t.Errorf("%v in version %d: %q, want %q", h, v, got, want)
		}
	}
	v4 := header("192.0.2.7:12345", "10.0.0.1:443")
	f(v4, V1, "PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n")
	f(v4, V2, v2(commandProxy, 0x11, body4...))
	f(v4, 0, "")
	f(header("[2001:db8::7]:12345", "[2001:db8::1]:443"), V1, "PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n")
	f(header("[2001:db8::7]:12345", "[2001:db8::1]:443"), V2, v2(commandProxy, 0x21, body6()...))
	f(header("[fe80::7%eth0]:1", "[fe80::1%eth0]:2"), V1, "PROXY TCP6 fe80::7 fe80::1 1 2\r\n")
	f(header("192.0.2.7:1", "[2001:db8::1]:2"), V1, "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n")
	f(Header{From: v4.From}, V1, "PROXY TCP4 192.0.2.7 0.0.0.0 12345 0\r\n")
	f(Header{}, V1, "PROXY UNKNOWN\r\n")
	f(Header{}, V2, v2(commandLocal, 0))
}

func TestTrust(t *testing.T) {
	t.Parallel()
	trust := Trust{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10")}
	f := func(trust Trust, peer string, want bool) {
		t.Helper()
		if got := trust.Has(netip.MustParseAddr(peer)); got != want {
			t.Errorf("%v has %s: %v", trust, peer, got)
		}
	}
	f(trust, "10.1.2.3", true)
	f(trust, "::ffff:10.1.2.3", true)
	f(trust, "fe80::1%eth0", true)
	f(trust, "11.1.2.3", false)
	f(nil, "10.1.2.3", false)
	if trust.Has(netip.Addr{}) || (Trust{netip.MustParsePrefix("::/0")}).Has(netip.Addr{}) {
		t.Error("a peer without an address is trusted")
	}
}

// FuzzRead: no input panics, the reader takes no byte behind a header, and what was read is written and read again.
func FuzzRead(f *testing.F) {
	for text := range good() {
		f.Add([]byte(text))
	}
	f.Add([]byte("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n\r\n\r\n\x00\r\nQUIT\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		h, err := Read(r)
		if err != nil {
			return
		}
		if used := len(b) - r.Len(); used > BytesMax {
			t.Fatalf("%d bytes", used)
		} else if n, err := Missing(b[:used]); n != 0 || err != nil {
			t.Fatalf("%q: %d bytes missing, %v", b[:used], n, err)
		}
		if h.From.Addr().Is4In6() || h.To.Addr().Is4In6() {
			t.Fatalf("%v in the form of IPv6", h)
		}
		for _, v := range []Version{V1, V2} {
			again := h.AppendTo(nil, v)
			if got, err := Read(bytes.NewReader(again)); err != nil || got != h {
				t.Fatalf("version %d: %q reads as %v, %v; want %v", v, again, got, err, h)
			}
		}
	})
}
