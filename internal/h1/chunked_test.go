package h1

import (
	"fmt"
	"strings"
	"testing"
)

// decoded is what a body decodes to.
type decoded struct {
	payload  string
	trailers string
	rest     string // behind the body
	done     bool
	err      error
}

// decode feeds in to a fresh decoder, in pieces of at most step bytes, each in memory of its own.
func decode(t *testing.T, in []byte, step int) (d decoded) {
	t.Helper()
	var c ChunkDecoder
	return decodeWith(t, &c, in, step)
}

func decodeWith(t *testing.T, c *ChunkDecoder, in []byte, step int) (d decoded) {
	t.Helper()
	var payload strings.Builder
	for start := 0; ; {
		piece := append([]byte(nil), in[start:min(start+step, len(in))]...)
		p, n, done, err := c.Next(piece)
		if n < 0 || n > len(piece) || len(p) > n || !inside(piece, p) {
			t.Fatalf("%q: consumed %d of %d, payload of %d", in, n, len(piece), len(p))
		}
		if (done || err != nil) && len(p) > 0 {
			t.Fatalf("%q: payload together with done or error", in)
		}
		payload.Write(p)
		start += n
		if err == nil && !done && n == 0 && start < len(in) {
			t.Fatalf("%q: stuck at %d", in, start)
		}
		if err != nil || done || n == 0 {
			d = decoded{payload: payload.String(), rest: string(in[start:]), done: done, err: err}
			for i := range piece {
				piece[i] = '#' // trailers must not depend on the input
			}
			break
		}
	}
	if _, _, done, err := c.Next([]byte("x")); d.err != nil && err != d.err || d.done && !done {
		t.Fatalf("%q: the end is not final: %v, %v", in, done, err)
	}
	if d.done {
		for _, f := range c.Trailers() {
			d.trailers += fmt.Sprintf("%s=%s;", f.Name, f.Value)
		}
	}
	return d
}

// decodeSplit decodes in pieces of several sizes and demands the same result.
func decodeSplit(t *testing.T, in []byte) decoded {
	t.Helper()
	whole := decode(t, in, max(len(in), 1))
	for _, step := range []int{1, 2, 3, 7, 64} {
		d := decode(t, in, step)
		if d.err != nil {
			d.rest = whole.rest // where exactly an error was met does not matter
		}
		if d != whole {
			t.Fatalf("%q: in pieces of %d: %+v, at once: %+v", in, step, d, whole)
		}
	}
	return whole
}

func TestChunkedAccepted(t *testing.T) {
	t.Parallel()
	f := func(in, payload, trailers string) {
		t.Helper()
		const next = "GET /next"
		d := decodeSplit(t, []byte(in+next))
		if want := (decoded{payload: payload, trailers: trailers, rest: next, done: true}); d != want {
			t.Errorf("%q:\n got %+v\nwant %+v", in, d, want)
		}
	}
	f("0\r\n\r\n", "", "")
	f("0000000000000000\r\n\r\n", "", "")
	f("5\r\nhello\r\n0\r\n\r\n", "hello", "")
	f("0000000000000005\r\nhello\r\n00\r\n\r\n", "hello", "")
	f("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", "")
	f("19\r\n0\r\n\r\n0\r\n\r\n5\r\nhello\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n0\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "")
	f("1000\r\n"+strings.Repeat("x", 4096)+"\r\n0\r\n\r\n", strings.Repeat("x", 4096), "")

	// Extensions.
	f("5;a\r\nhello\r\n0;b\r\n\r\n", "hello", "")
	f("5;a=b;c=\"d\\\" \\\\ ;=\t\xff\";e\r\nhello\r\n0\r\n\r\n", "hello", "")
	f("5;a=\"\"\r\nhello\r\n0\r\n\r\n", "hello", "")
	f("5;"+strings.Repeat("a", chunkLineMax-2)+"\r\nhello\r\n0\r\n\r\n", "hello", "")

	// Trailers.
	f("0\r\nX: y\r\n\r\n", "", "X=y;")
	f("1\r\na\r\n0\r\nX: y\r\nz: \t a b \t\r\nE:\r\n\r\n", "a", "X=y;z=a b;E=;")
	f("0\r\nAuthorization: x\r\nGrpc-Status: 0\r\nCookie: y\r\nX-Forwarded-For: z\r\nContent-Type: t\r\n\r\n", "", "Grpc-Status=0;")
	f("0\r\n"+strings.Repeat("X: y\r\n", trailerFieldsMax)+"\r\n", "", strings.Repeat("X=y;", trailerFieldsMax))
	f("0\r\nX: "+strings.Repeat("y", trailerBytesMax-7)+"\r\n\r\n", "", "X="+strings.Repeat("y", trailerBytesMax-7)+";")
}

func TestChunkedRefused(t *testing.T) {
	t.Parallel()
	f := func(in string, want *Error) {
		t.Helper()
		if d := decodeSplit(t, []byte(in)); d.err != error(want) || d.done {
			t.Errorf("%q: %+v, want %v", in, d, want)
		}
	}
	// Sizes.
	for _, size := range []string{"5 ", "5\t", "5 ;a", "5 a", "5 5", "\r\n", "x", "g", "0x5", "+5", "-5", " 5", "\t5", ";a", "5_0", "5,5", "5.", "\x005", "5\x00", "G5", "\xff"} {
		f(size+"\r\nhello\r\n0\r\n\r\n", errChunkSize)
	}
	f("00000000000000005\r\n", errChunkSizeLarge)
	f("8000000000000000\r\n", errChunkSizeLarge)
	f("ffffffffffffffff\r\n", errChunkSizeLarge)
	f("10000000000000000\r\n", errChunkSizeLarge)
	f("10000000000000005\r\nhello\r\n0\r\n\r\n", errChunkSizeLarge)

	// Line ends.
	f("5\nhello\r\n0\r\n\r\n", errChunkLine)
	f("5\rhello\r\n0\r\n\r\n", errChunkLine)
	f("5\r\rhello\r\n0\r\n\r\n", errChunkLine)
	f("5;a\nhello\r\n0\r\n\r\n", errChunkLine)
	f("\nhello", errChunkLine)
	f("5\r\nhello\n0\r\n\r\n", errChunkEnd)
	f("5\r\nhello\r0\r\n\r\n", errChunkEnd)
	f("5\r\nhello0\r\n\r\n", errChunkEnd)
	f("5\r\nhelloo\r\n0\r\n\r\n", errChunkEnd)
	f("5\r\nhell\r\n0\r\n\r\n", errChunkEnd)
	f("5\r\nhello\r\n\r\n0\r\n\r\n", errChunkSize)

	// Extensions.
	for _, extension := range []string{";", "; ", "; a", ";a ;b", ";a = b", ";a= b", ";a=\"b\" ", ";=", ";a=", ";a= ", ";a ", ";a=b ", ";a==b", ";a=b=c", ";a b", ";a=b c", ";a=\"b", ";a=\"b\\",
		";a=\"b\"c", ";a=b\"c\"", ";\"a\"", ";a=\"\x00\"", ";a=\"\x7f\"", ";a=\"\\\x00\"", ";\x00", ";a\x00", ";a=\x00", ";a=b\x00", ";a;", ";;a", ";a,b", ";a=(", ";a=b,",
		";a =\x00", ";a /"} {
		f("5"+extension+"\r\nhello\r\n0\r\n\r\n", errChunkExtension)
	}
	f("5;a=\"b\nc\"\r\nhello\r\n0\r\n\r\n", errChunkLine) // quoted line ends do not exist
	f("5;a\rb\r\nhello\r\n0\r\n\r\n", errChunkLine)
	f("5;"+strings.Repeat("a", chunkLineMax-1)+"\r\nhello\r\n0\r\n\r\n", errChunkLineLong)
	f(strings.Repeat("1;"+strings.Repeat("a", 200)+"\r\nx\r\n", 100)+"0\r\n\r\n", errChunkExtensions)

	// Trailers.
	f("0\r\n\n", errBareLF)
	f("0\r\nX: y\n\r\n", errBareLF)
	f("0\r\nX: y\r\n\n", errBareLF)
	f("0\r\nX: y\rZ: z\r\n\r\n", errBareCR)
	f("0\r\n X: y\r\n\r\n", errFold)
	f("0\r\nX: y\r\n z\r\n\r\n", errFold)
	f("0\r\nX : y\r\n\r\n", errNameSpace)
	f("0\r\nX\r\n\r\n", errNoColon)
	f("0\r\n\rX: y\r\n\r\n", errNoColon)
	f("0\r\n: y\r\n\r\n", errNameEmpty)
	f("0\r\nX: \x00\r\n\r\n", errValueInvalid)
	f("0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", errNameSpace) // a smuggled request is no trailer
	for _, name := range []string{"Content-Length", "transfer-encoding", "HOST", "Connection", "Upgrade", "TE", "Trailer", "Keep-Alive", "Expect"} {
		f("0\r\nX: y\r\n"+name+": 1\r\n\r\n", errTrailerForbidden)
	}
	f("0\r\n"+strings.Repeat("X: y\r\n", trailerFieldsMax+1)+"\r\n", errTrailersTooMany)
	f("0\r\nX: "+strings.Repeat("y", trailerBytesMax-6)+"\r\n\r\n", errTrailersTooLarge)
	f("0\r\nX: "+strings.Repeat("y", 2*trailerBytesMax), errTrailersTooLarge)
}

func TestChunkedIncomplete(t *testing.T) {
	t.Parallel()
	in := []byte("5;a=\"b\\c\";d\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n")
	for k := range len(in) {
		if d := decodeSplit(t, in[:k]); d.done || d.err != nil || !strings.HasPrefix("hello!", d.payload) || d.rest != "" {
			t.Fatalf("%q: %+v", in[:k], d)
		}
	}
}

func TestChunkDecoderReset(t *testing.T) {
	t.Parallel()
	var c ChunkDecoder
	for _, in := range []string{"5;a\r\nhello\r\n0\r\nX: y\r\nZ: z\r\n\r\n", "x", "5;a=\"", "5\r\nhel", "0\r\nX: y"} {
		decodeWith(t, &c, []byte(in), 3)
		c.Reset()
		d := decodeWith(t, &c, []byte("3\r\nabc\r\n0\r\nT: u\r\n\r\n"), 100)
		if want := (decoded{payload: "abc", trailers: "T=u;", done: true}); d != want {
			t.Errorf("after %q: %+v", in, d)
		}
		c.Reset()
	}
}

// Many small chunks with extensions below each bound must not add up to a refusal before the bound of all is reached.
func TestChunkExtensionsAddUp(t *testing.T) {
	t.Parallel()
	chunk := "1;" + strings.Repeat("a", 127) + "\r\nx\r\n" // 128 bytes of extension
	fits := strings.Repeat(chunk, chunkExtensionMax/128)
	if d := decodeSplit(t, []byte(fits+"0\r\n\r\n")); !d.done || len(d.payload) != chunkExtensionMax/128 {
		t.Errorf("%d bytes of payload, %v", len(d.payload), d.err)
	}
	if d := decodeSplit(t, []byte(fits+"1;a\r\nx\r\n0\r\n\r\n")); d.err != error(errChunkExtensions) {
		t.Errorf("%v", d.err)
	}
}
