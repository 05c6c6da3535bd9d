package wire

import (
	"bytes"
	"compress/zlib"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/menshen-gateway/menshen/internal/mysql"
	"github.com/menshen-gateway/menshen/internal/poll"
)

// duplex is what an end reads from and writes to.
type duplex struct {
	io.Reader
	io.Writer
}

var compressions = []mysql.Compression{mysql.Zlib, mysql.Zstd}

// text of n bytes that compresses more or less well.
func text(n int, r *rand.Rand) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + r.IntN(1+i%20))
	}
	return b
}

// frames makes a stream of frames with the numbers of one message each, and gives it with the payloads only.
func packets(numbers []uint8, size func(i int) int, r *rand.Rand) []byte {
	var b []byte
	for i, n := range numbers {
		b, _ = mysql.AppendPacket(b, n, text(size(i), r))
	}
	return b
}

func TestEnvelopesCarryWhatIsWritten(t *testing.T) {
	t.Parallel()
	for _, how := range compressions {
		for seed := range uint64(12) {
			r := rand.New(rand.NewPCG(seed, 1))
			var wire bytes.Buffer
			client := &envelopes{under: duplex{nil, &wire}, how: how, asks: true, counts: true, turned: true}
			var sent []byte
			for range 1 + r.IntN(5) {
				command := packets([]uint8{0, 1, 2}[:1+r.IntN(3)], func(int) int { return r.IntN([]int{10, 60, 3000, 200000}[r.IntN(4)]) }, r)
				sent = append(sent, command...)
				if n, err := client.Write(command); err != nil || n != len(command) {
					t.Fatal(n, err)
				}
			}
			var under io.Reader = &wire
			if seed%2 == 1 {
				under = iotest.HalfReader(under)
			}
			server := &envelopes{under: duplex{under, nil}, how: how, frugal: seed%4 > 1}
			got, err := io.ReadAll(pieces{server, r})
			if err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("%s, seed %d: %d of %d bytes, %v", how, seed, len(got), len(sent), err)
			}
			if server.inflater != nil || server.left != 0 {
				t.Fatal("something is left")
			}
			server.release()
			if server.raw != nil {
				t.Fatal("an idle connection holds a buffer")
			}
		}
	}
}

// pieces reads in pieces of any size.
type pieces struct {
	io.Reader
	r *rand.Rand
}

func (p pieces) Read(b []byte) (int, error) {
	return p.Reader.Read(b[:1+p.r.IntN(min(len(b), 1<<p.r.IntN(16)))])
}

// headers gives the numbers of the envelopes in a stream.
func headers(t *testing.T, b []byte) (all []uint8) {
	t.Helper()
	for len(b) > 0 {
		h, ok := mysql.ParseEnvelope(b)
		if !ok || len(b) < mysql.EnvelopeLen+h.Length {
			t.Fatalf("no envelope: %q", b)
		}
		all = append(all, h.Sequence)
		b = b[mysql.EnvelopeLen+h.Length:]
	}
	return all
}

// TestEnvelopesAreNumbered: each command begins anew, whatever is written together; an answer goes on, and so does what the command
// sends after it.
func TestEnvelopesAreNumbered(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	small := func(int) int { return 20 }
	var out bytes.Buffer
	in := new(bytes.Buffer)
	e := &envelopes{under: duplex{in, &out}, how: mysql.Zlib, asks: true, counts: true, turned: true}
	f := func(what string, b []byte, want ...uint8) {
		t.Helper()
		out.Reset()
		if _, err := e.Write(b); err != nil {
			t.Fatal(err)
		}
		if got := headers(t, out.Bytes()); !bytes.Equal(got, want) {
			t.Errorf("%s: envelopes %d, want %d", what, got, want)
		}
	}
	f("a command", packets([]uint8{0}, small, r), 0)
	f("three commands at once", packets([]uint8{0, 0, 0}, small, r), 0, 0, 0)
	f("a long command", packets([]uint8{0}, func(int) int { return 3 * pieceMax }, r), 0, 1, 2, 3)
	for i, n := range []uint8{4, 5} { // the answer, with whatever numbers inside
		frame := packets([]uint8{200 + uint8(i)}, small, r)
		in.Write(append(mysql.Envelope{Length: len(frame), Sequence: n}.AppendTo(nil), frame...))
	}
	got := make([]byte, 48)
	if _, err := io.ReadFull(e, got); err != nil || got[3] != 1 || got[24+3] != 2 {
		t.Errorf("%v, frames %d and %d", err, got[3], got[24+3])
	}
	f("a file", packets([]uint8{3, 4}, small, r), 6)
	var many []uint8
	for i := range 600 {
		many = append(many, uint8(5+i))
	}
	f("a long file", packets(many, small, r), 7)
	f("a command after it", packets([]uint8{0}, small, r), 0)
	in.Write(append(mysql.Envelope{Length: 24, Sequence: 3}.AppendTo(nil), packets([]uint8{1}, small, r)...))
	if _, err := e.Read(got); !errors.Is(err, mysql.ErrMalformed) {
		t.Errorf("an envelope out of order: %v", err)
	}
}

// libmariadb numbers every frame of a command 0 when it compresses. Those that go on with a message are numbered on, and nothing else is.
func TestLongCommandIsNumbered(t *testing.T) {
	t.Parallel()
	var frames []byte
	for _, length := range []int{mysql.PayloadMax, mysql.PayloadMax, 5, 7} { // one command of three frames, and another one
		frames = append(mysql.Header{Length: length}.AppendTo(frames), make([]byte, length)...)
	}
	in := new(bytes.Buffer)
	for n := uint8(0); len(frames) > 0; n++ {
		piece := frames[:min(len(frames), mysql.PayloadMax-1000)]
		frames = frames[len(piece):]
		in.Write(append(mysql.Envelope{Length: len(piece), Sequence: n}.AppendTo(nil), piece...))
	}
	e := &envelopes{under: duplex{in, io.Discard}, how: mysql.Zlib, turned: true}
	got, err := io.ReadAll(io.MultiReader(e))
	if err != nil {
		t.Fatal(err)
	}
	var numbers []uint8
	for len(got) > 0 {
		h, _ := mysql.ParseHeader(got)
		numbers = append(numbers, h.Sequence)
		got = got[mysql.HeaderLen+h.Length:]
	}
	if want := []uint8{0, 1, 2, 0}; !bytes.Equal(numbers, want) {
		t.Errorf("frames %d, want %d", numbers, want)
	}
}

// deflated makes an envelope whose announced length may be a lie.
func deflated(content string, announced int, sequence uint8, more string) string {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	_, _ = io.WriteString(z, content)
	_ = z.Close()
	b.WriteString(more)
	return string(mysql.Envelope{Length: b.Len(), Sequence: sequence, Inflated: announced}.AppendTo(nil)) + b.String()
}

func TestEnvelopesRefused(t *testing.T) {
	t.Parallel()
	content := "\x50\x00\x00\x00" + strings.Repeat("a", 0x50)
	f := func(what, sent, want string) {
		t.Helper()
		for _, slow := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader} {
			e := &envelopes{under: duplex{slow(strings.NewReader(sent)), nil}, how: mysql.Zlib}
			got, err := io.ReadAll(e)
			if want == "" && (err != nil || string(got) != content) {
				t.Errorf("%s: %q, %v", what, got, err)
			}
			if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s: %d bytes, %v; want %q", what, len(got), err, want)
			}
		}
	}
	whole := deflated(content, len(content), 0, "")
	f("honest", whole, "")
	f("longer than announced", deflated(content, len(content)-1, 0, ""), "malformed")
	f("shorter than announced", deflated(content, len(content)+1, 0, ""), "malformed")
	f("with something behind it", deflated(content, len(content), 0, "x"), "malformed")
	f("no compression at all", string(mysql.Envelope{Length: 5, Inflated: 60}.AppendTo(nil))+"hello", "malformed")
	f("empty", string(mysql.Envelope{}.AppendTo(nil)), "empty envelope")
	f("out of order", deflated(content, len(content), 1, ""), "envelope 1 instead of 0")
	f("a second one of the same number", string(mysql.Envelope{Length: 1}.AppendTo(nil))+"x"+string(mysql.Envelope{Length: 1}.AppendTo(nil))+"y", "envelope 0 instead of 1")
	f("wrong checksum", whole[:len(whole)-1]+"\x00", "malformed")
	for n := 1; n < len(whole); n++ {
		f("cut", whole[:n], "unexpected EOF")
	}
}

// TestBombs: what a payload would inflate to is bounded by what it announces, and nothing is allocated for that.
func TestBombs(t *testing.T) {
	bomb := deflated(strings.Repeat("\x00", mysql.PayloadMax+100), mysql.PayloadMax, 0, "")
	p := make([]byte, 1000)
	e := &envelopes{under: duplex{strings.NewReader(bomb), nil}, how: mysql.Zlib}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	total := 0
	for {
		n, err := e.Read(p)
		if total += n; err != nil {
			break
		}
	}
	runtime.ReadMemStats(&after)
	if total != mysql.PayloadMax {
		t.Errorf("%d bytes", total)
	}
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 1<<20 {
		t.Errorf("%d bytes allocated for one payload", allocated)
	}
}

// TestCompressedConn: a Conn in envelopes waits, knows what is left, and holds nothing while it is idle.
func TestCompressedConn(t *testing.T) {
	t.Parallel()
	for _, how := range compressions {
		ours, there := pair(t)
		theirs := New(there)
		ours.Compress(how, false)
		theirs.Compress(how, true)
		long := text(300000, rand.New(rand.NewPCG(3, 3)))
		command, _ := mysql.AppendPacket(nil, 0, long)
		done := make(chan error, 1)
		go func() {
			err := theirs.Write(command)
			if err == nil {
				err = theirs.Write(mysql.AppendCommand(nil, mysql.ComPing, ""))
			}
			done <- err
		}()
		if err := ours.Await(); err != nil {
			t.Fatal(err)
		}
		payload, _, err := ours.ReadMessage(0, 1<<20)
		if err != nil || !bytes.Equal(payload, long) {
			t.Fatal(len(payload), err)
		}
		if err := ours.Await(); err != nil {
			t.Fatal(err)
		}
		if payload, _, err = ours.ReadMessage(0, 10); err != nil || string(payload) != "\x0e" {
			t.Fatalf("%q, %v", payload, err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		ours.Release()
		if !ours.Alive() || ours.buf != nil || ours.envelopes.raw != nil {
			t.Error("an idle connection holds something")
		}
		// An answer in small pieces is numbered as one, and an unasked one as the answer to the next command.
		for i := range 3 {
			if err := ours.WriteMessage(uint8(i+1), func(dst []byte) []byte { return append(dst, "answer"...) }); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 3 {
			if payload, _, err := theirs.ReadMessage(uint8(i+1), 10); err != nil || string(payload) != "answer" {
				t.Fatalf("%q, %v", payload, err)
			}
		}
		ours.Release()
		_ = ours.WriteMessage(1, func(dst []byte) []byte { return append(dst, "bye"...) })
		_ = theirs.Write(mysql.AppendCommand(nil, mysql.ComPing, ""))
		if payload, _, err := theirs.ReadMessage(1, 10); err != nil || string(payload) != "bye" {
			t.Fatalf("%q, %v", payload, err)
		}
	}
}

// TestCompressedConnIsInterrupted: to be interrupted in the middle of a payload breaks nothing.
func TestCompressedConnIsInterrupted(t *testing.T) {
	t.Parallel()
	ours, there := pair(t)
	ours.Compress(mysql.Zlib, false)
	content, _ := mysql.AppendPacket(nil, 0, text(10000, rand.New(rand.NewPCG(5, 5))))
	sent := deflated(string(content), len(content), 0, "")
	if _, err := io.WriteString(there, sent[:len(sent)-2000]); err != nil {
		t.Fatal(err)
	}
	go func() {
		ours.Interrupt()
		_, _ = io.WriteString(there, sent[len(sent)-2000:])
	}()
	for len(ours.Buffered()) < len(content) {
		if err := ours.Fill(); err != nil && !errors.Is(err, poll.ErrInterrupted) {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(ours.Buffered(), content) {
		t.Error("something else came")
	}
}

// FuzzEnvelopes: any bytes are read without a panic and without end, and nothing is read past an announced length.
func FuzzEnvelopes(f *testing.F) {
	content := "\x50\x00\x00\x00" + strings.Repeat("a", 0x50)
	f.Add([]byte(deflated(content, len(content), 0, "")), false, false)
	f.Add([]byte(deflated(content, 1000, 0, "x")), true, false)
	var wire bytes.Buffer
	e := &envelopes{under: duplex{nil, &wire}, how: mysql.Zstd, asks: true, turned: true}
	_, _ = e.Write([]byte(content))
	_, _ = e.Write([]byte(content[:20]))
	f.Add(wire.Bytes(), false, true)
	f.Fuzz(func(t *testing.T, b []byte, asks, zstd bool) {
		how := mysql.Zlib
		if zstd {
			how = mysql.Zstd
		}
		most := 0 // what the headers announce, if they are headers
		for i := range b {
			if h, ok := mysql.ParseEnvelope(b[i:]); ok {
				most = max(most, h.Inflated)
			}
		}
		e := &envelopes{under: duplex{bytes.NewReader(b), nil}, how: how, asks: asks, counts: asks}
		n, err := io.Copy(io.Discard, io.LimitReader(e, 64<<20))
		if err == nil && e.inflater != nil {
			t.Error("the end came in the middle of a payload")
		}
		if int(n) > len(b)+most*(len(b)/mysql.EnvelopeLen+1) {
			t.Errorf("%d bytes came out of %d", n, len(b))
		}
	})
}
