package mysql

import (
	"bytes"
	"testing"
)

func TestCompressionOf(t *testing.T) {
	t.Parallel()
	f := func(c Capability, want Compression, name string) {
		t.Helper()
		if got := CompressionOf(c); got != want || got.String() != name || ParseCompression(name) != want {
			t.Errorf("%s: %s, want %s", c, got, want)
		}
		if got := want.Capability(); got != 0 && !c.Has(got) {
			t.Errorf("%s asks for %s", want, got)
		}
	}
	f(0, Uncompressed, "off")
	f(Compress, Zlib, "zlib")
	f(CompressZstd, Zstd, "zstd")
	f(Compress|CompressZstd, Zlib, "zlib")
}

func TestEnvelope(t *testing.T) {
	t.Parallel()
	for _, e := range []Envelope{{}, {Length: 1, Sequence: 255}, {PayloadMax, 7, PayloadMax}, {Length: 0x030201, Inflated: 0x060504}} {
		b := e.AppendTo(nil)
		if got, ok := ParseEnvelope(b); !ok || got != e || len(b) != EnvelopeLen {
			t.Errorf("%+v reads as %+v", e, got)
		}
		if _, ok := ParseEnvelope(b[:EnvelopeLen-1]); ok {
			t.Error("a header cut short")
		}
	}
}

// FuzzFrames: frames are found in pieces as in one, whatever they are, and renumbered in place without another change.
func FuzzFrames(f *testing.F) {
	b, _ := AppendPacket(nil, 3, []byte("hello"))
	b, _ = AppendPacket(b, 4, nil)
	f.Add(b, uint8(1))
	f.Add(b[:7], uint8(3))
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		number := func() func(uint8) uint8 {
			next := uint8(9)
			return func(uint8) uint8 { next++; return next }
		}
		var one, many Frames
		whole := bytes.Clone(b)
		one.Walk(whole, number())
		parts, count := bytes.Clone(b), number()
		for rest := parts; len(rest) > 0; {
			n := min(len(rest), int(piece)+1)
			many.Walk(rest[:n], count)
			rest = rest[n:]
		}
		if !bytes.Equal(whole, parts) || one.Between() != many.Between() || one.Left() != many.Left() {
			t.Errorf("in one %q, in pieces %q", whole, parts)
		}
		var plain Frames
		same := bytes.Clone(b)
		plain.Walk(same, func(s uint8) uint8 { return s })
		if !bytes.Equal(same, b) {
			t.Error("a walk that changes nothing changed something")
		}
		next := uint8(9)
		for at := 0; at+HeaderLen <= len(b); {
			next++
			h, _ := ParseHeader(b[at:])
			if whole[at+3] != next {
				t.Fatalf("frame at %d has number %d, want %d", at, whole[at+3], next)
			}
			at += HeaderLen + h.Length
		}
	})
}
