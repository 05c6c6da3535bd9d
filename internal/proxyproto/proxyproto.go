// Package proxyproto is the PROXY protocol as bytes, in both directions: the header with which a load balancer begins a
// connection, to say whose connection it relays (version 1, a line of text, and version 2, binary; haproxy.org,
// doc/proxy-protocol.txt). It owns no socket and no clock: Missing says how many bytes still belong to a header, so that a
// reader takes no byte too many, and Read does that over any io.Reader.
//
// It refuses to guess: there is no way to ask whether a connection perhaps begins with a header. Who trusts a peer must
// get one from it, and nobody else may be believed (Trust), since anybody can write any address into one.
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// ErrMalformed is in the chain of every error about a header's bytes.
var ErrMalformed = errors.New("malformed PROXY protocol header")

type malformed string

func (m malformed) Error() string { return ErrMalformed.Error() + ": " + string(m) }
func (m malformed) Unwrap() error { return ErrMalformed }

// Version is a version of the protocol. Zero is none.
type Version uint8

// The versions.
const (
	V1 Version = 1
	V2 Version = 2
)

// ParseVersion reads the words of the config: "v1", "v2", and anything else for none.
func ParseVersion(s string) Version {
	switch s {
	case "v1":
		return V1
	case "v2":
		return V2
	}
	return 0
}

// Header is what a header says. The zero value says nothing of a client: the peer speaks for itself (a health check), or
// for a client that has no IP address. Then the connection's own addresses count.
type Header struct {
	From, To netip.AddrPort // of the relayed connection; IPv4 addresses are never in their IPv6 form
}

// Known says whether the header tells an address at all.
func (h Header) Known() bool { return h.From.IsValid() }

// Trust is whose headers are believed. Nil trusts nobody.
type Trust []netip.Prefix

// Has says whether a peer is among them.
func (t Trust) Has(peer netip.Addr) bool {
	if len(t) == 0 {
		return false
	}
	peer = peer.Unmap().WithZone("")
	return slices.ContainsFunc(t, func(p netip.Prefix) bool { return p.Contains(peer) })
}

const (
	signature = "\r\n\r\n\x00\r\nQUIT\n" // of version 2; no line of any other protocol
	word      = "PROXY "                 // of version 1
	unknown   = "PROXY UNKNOWN"

	// shortest is "PROXY UNKNOWN\r\n". The fixed part of version 2 is one byte longer.
	shortest = len(unknown) + 2
	fixed    = 16

	// lineMax is the longest line of version 1 that the specification allows.
	lineMax = 107

	// BytesMax is the longest header that is read. Version 2 could announce 64 KiB; what load balancers send in addition to addresses
	// (names, identities, a TLS certificate) fits in this.
	BytesMax = 16 << 10
)

// Missing gives the number of bytes after b that certainly belong to the header too; 0 means that it is complete. It is an error
// when b does not begin a header. It never asks for a byte that follows a well-formed header.
func Missing(b []byte) (int, error) {
	switch {
	case strings.HasPrefix(signature, string(b[:min(len(b), len(signature))])):
		if len(b) < fixed {
			return max(shortest, min(fixed, len(b)+1)) - len(b), nil
		}
		n := fixed + int(binary.BigEndian.Uint16(b[14:]))
		switch {
		case n > BytesMax:
			return 0, malformed("too long")
		case n < len(b):
			return 0, malformed("bytes after its end")
		}
		return n - len(b), nil
	case strings.HasPrefix(word, string(b[:min(len(b), len(word))])):
		return missingOfLine(b)
	}
	return 0, malformed("another protocol")
}

func missingOfLine(b []byte) (int, error) {
	if len(b) < shortest {
		return shortest - len(b), nil
	}
	end := bytes.IndexByte(b, '\n')
	switch {
	case end == len(b)-1:
		return 0, nil
	case end >= 0:
		return 0, malformed("line too short")
	case b[len(b)-1] == '\r':
		return 1, nil
	}
	n := 2
	if !bytes.HasPrefix(b, []byte(unknown)) { // each field that has not begun takes a space and a byte
		spaces := bytes.Count(b, []byte{' '})
		n += 2 * max(0, 5-spaces)
		if b[len(b)-1] == ' ' {
			n++
		}
	}
	if len(b)+n > lineMax {
		return 0, malformed("line too long")
	}
	return n, nil
}

// Read reads one header and not a byte more. The caller bounds the time. An error of the reader is returned as it is; a
// stream that ends inside the header is io.ErrUnexpectedEOF, or io.EOF before its first byte.
func Read(r io.Reader) (Header, error) {
	var room [256]byte
	b := room[:0]
	for {
		n, err := Missing(b)
		if err != nil {
			return Header{}, err
		}
		if n == 0 {
			return Parse(b)
		}
		b = slices.Grow(b, n)
		got, err := r.Read(b[len(b) : len(b)+n])
		b = b[:len(b)+got]
		if err != nil && (got == 0 || err != io.EOF) {
			if err == io.EOF && len(b) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return Header{}, err
		}
	}
}

// Parse reads a complete header (see Missing).
func Parse(b []byte) (Header, error) {
	if bytes.HasPrefix(b, []byte(signature)) {
		return parseV2(b)
	}
	return parseV1(b)
}

func parseV1(b []byte) (Header, error) {
	line, ok := strings.CutSuffix(string(b), "\r\n")
	if !ok || len(b) > lineMax {
		return Header{}, malformed("line without an end")
	}
	if strings.ContainsAny(line, "\r\n\x00") {
		return Header{}, malformed("control characters")
	}
	if rest, ok := strings.CutPrefix(line, unknown); ok && (rest == "" || rest[0] == ' ') {
		return Header{}, nil // what follows is to be ignored
	}
	fields := strings.Split(line, " ")
	if len(fields) != 6 || fields[0] != "PROXY" || fields[1] != "TCP4" && fields[1] != "TCP6" {
		return Header{}, malformed("line of another form")
	}
	from, ok1 := addressV1(fields[2], fields[4], fields[1] == "TCP4")
	to, ok2 := addressV1(fields[3], fields[5], fields[1] == "TCP4")
	if !ok1 || !ok2 {
		return Header{}, malformed("address")
	}
	return Header{from, to}, nil
}

func addressV1(host, port string, v4 bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(host)
	if err != nil || a.Is4() != v4 || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(p, 10) != port { // no leading zeros
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), true
}

// The parts of version 2.
const (
	commandLocal = 0x20
	commandProxy = 0x21

	familyNone, familyV4, familyV6, familyUnix = 0, 1, 2, 3

	lengthV4, lengthV6, lengthUnix = 12, 36, 216

	tlvChecksum = 0x03
)

func parseV2(b []byte) (Header, error) {
	if len(b) < fixed || int(binary.BigEndian.Uint16(b[14:])) != len(b)-fixed {
		return Header{}, malformed("length")
	}
	switch b[12] {
	case commandLocal:
		return Header{}, nil // the rest is to be ignored, whatever it is
	case commandProxy:
	default:
		return Header{}, malformed(fmt.Sprintf("version and command %#x", b[12]))
	}
	family, transport := b[13]>>4, b[13]&0x0f
	if family > familyUnix || transport > 2 || (family == familyNone) != (transport == 0) {
		return Header{}, malformed(fmt.Sprintf("family %#x", b[13]))
	}
	rest, h := b[fixed:], Header{}
	length := [...]int{familyNone: 0, familyV4: lengthV4, familyV6: lengthV6, familyUnix: lengthUnix}[family]
	if len(rest) < length {
		return Header{}, malformed("addresses cut short")
	}
	switch a := rest[:length]; family {
	case familyNone:
		return h, nil // what follows is to be ignored
	case familyV4:
		h.From = netip.AddrPortFrom(netip.AddrFrom4([4]byte(a[0:4])), binary.BigEndian.Uint16(a[8:]))
		h.To = netip.AddrPortFrom(netip.AddrFrom4([4]byte(a[4:8])), binary.BigEndian.Uint16(a[10:]))
	case familyV6:
		h.From = netip.AddrPortFrom(netip.AddrFrom16([16]byte(a[0:16])).Unmap(), binary.BigEndian.Uint16(a[32:]))
		h.To = netip.AddrPortFrom(netip.AddrFrom16([16]byte(a[16:32])).Unmap(), binary.BigEndian.Uint16(a[34:]))
	}
	if err := extensions(b, fixed+length); err != nil {
		return Header{}, err
	}
	return h, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// extensions walks over the TLVs from the offset at on, and compares the checksum if one is there.
func extensions(b []byte, at int) error {
	summed := false
	for at < len(b) {
		if len(b)-at < 3 {
			return malformed("extension cut short")
		}
		kind, length := b[at], int(binary.BigEndian.Uint16(b[at+1:]))
		at += 3
		if length > len(b)-at {
			return malformed("extension cut short")
		}
		if kind == tlvChecksum {
			if length != 4 || summed {
				return malformed("checksum")
			}
			summed = true
			// The sum is over the whole header, with zeros in its own place.
			sum := crc32.Update(0, castagnoli, b[:at])
			sum = crc32.Update(sum, castagnoli, make([]byte, 4))
			sum = crc32.Update(sum, castagnoli, b[at+4:])
			if binary.BigEndian.Uint32(b[at:]) != sum {
				return malformed("wrong checksum")
			}
		}
		at += length
	}
	return nil
}

// AppendTo appends the header in a version; the zero version appends nothing. A header that knows no address says so
// (UNKNOWN, LOCAL). When only one of the addresses is IPv4, both are written in the form of IPv6.
func (h Header) AppendTo(dst []byte, v Version) []byte {
	from, to := h.From, h.To
	if !to.IsValid() {
		to = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		if from.Addr().Is6() {
			to = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
		}
	}
	from = netip.AddrPortFrom(from.Addr().WithZone(""), from.Port())
	to = netip.AddrPortFrom(to.Addr().WithZone(""), to.Port())
	v4 := from.Addr().Is4() && to.Addr().Is4()
	if h.Known() && !v4 {
		from = netip.AddrPortFrom(netip.AddrFrom16(from.Addr().As16()), from.Port())
		to = netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
	}
	switch {
	case v == V1 && !h.Known():
		return append(dst, unknown+"\r\n"...)
	case v == V1:
		name := "TCP6 "
		if v4 {
			name = "TCP4 "
		}
		dst = append(append(dst, word...), name...)
		dst = append(from.Addr().AppendTo(dst), ' ')
		dst = append(to.Addr().AppendTo(dst), ' ')
		dst = append(strconv.AppendUint(dst, uint64(from.Port()), 10), ' ')
		return append(strconv.AppendUint(dst, uint64(to.Port()), 10), "\r\n"...)
	case v != V2:
		return dst
	case !h.Known():
		return append(append(dst, signature...), commandLocal, 0, 0, 0)
	case v4:
		dst = append(append(dst, signature...), commandProxy, familyV4<<4|1, 0, lengthV4)
	default:
		dst = append(append(dst, signature...), commandProxy, familyV6<<4|1, 0, lengthV6)
	}
	dst = append(append(dst, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	dst = binary.BigEndian.AppendUint16(dst, from.Port())
	return binary.BigEndian.AppendUint16(dst, to.Port())
}
