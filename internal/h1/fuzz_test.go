package h1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"reflect"
	"strings"
	"testing"
)

// Every fuzz target checks the invariants (no panic, lengths and views inside the input, the same outcome however the
// input is split, the same message after encoding it again) and compares with net/http: what is accepted here must be
// accepted there, and mean the same. The exceptions, where net/http is stricter or different:
//
//   - an empty line before a request: net/http's server tolerates none
//   - Trailer: Content-Length, Host and the like: net/http refuses the announcement, we refuse the trailer when it comes
//   - Pragma: no-cache: net/http invents a Cache-Control
//   - 1xx and 204 with Content-Length: 0, HEAD and 304: net/http reports the declared length, we say NoBody
//   - more trailers than fit its read buffer, and bodies of mostly chunk lines: net/http refuses earlier

var requestSeeds = []string{
	usualRequest,
	"\r\nPOST /a/b;c?d=%41 HTTP/1.1\r\nHost: a:80\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\nT: u\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\nTrailer: Content-Length\r\n\r\n",
	"GET http://A.b:80/c?d HTTP/1.1\r\nHost: a.B:80\r\nConnection: close, x-y,\r\nX-Y:\tz \r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
	"OPTIONS https://a HTTP/1.1\r\nHost: a\r\n\r\n",
	"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
	"GET / HTTP/1.0\r\nConnection: keep-alive\r\nPragma: no-cache\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
	"GET / HTTP/1.1\nHost: a\n\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: z\r\n\r\n",
	"GET /|[]^?|[]{}^`\\% HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}

func FuzzRequest(f *testing.F) {
	for _, seed := range requestSeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 4096 {
			return
		}
		r, n, err := requestOutcome(t, string(in), Limits{})
		if err != nil || n == 0 {
			return
		}
		views := [][]byte{r.Method, r.Target, r.Scheme, r.Query, r.Host, r.Upgrade}
		if string(r.Path) != "*" {
			views = append(views, r.Path)
		}
		// requestOutcome parsed a copy; views must lie in what was given.
		again := new(Request)
		if n2, err := again.Parse(in, Limits{}); n2 != n || err != nil {
			t.Fatalf("parsed again: %d, %v", n2, err)
		}
		for i, view := range [][]byte{again.Method, again.Target, again.Scheme, again.Query, again.Host, again.Upgrade} {
			if !inside(in[:n], view) || !bytes.Equal(view, views[i]) {
				t.Fatalf("view %d is outside", i)
			}
		}
		checkFields(t, in[:n], again.Fields)

		encoded := fmt.Appendf(nil, "%s %s HTTP/1.%d\r\n", again.Method, again.Target, again.Minor)
		for _, field := range again.Fields {
			encoded = field.AppendTo(encoded)
		}
		encoded = append(encoded, "\r\n"...)
		third := new(Request)
		if n3, err := third.Parse(encoded, Limits{}); n3 != len(encoded) || err != nil || third.summary() != again.summary() {
			t.Fatalf("encoded again as %q: %d, %v", encoded, n3, err)
		}
		compareRequest(t, in, n, again)
	})
}

// checkFields checks that fields are views into head and of the right shape.
func checkFields(t *testing.T, head []byte, fields []Field) {
	t.Helper()
	for _, field := range fields {
		if !inside(head, field.Name) || !inside(head, field.Value) || !ValidName(field.Name) || !ValidValue(field.Value) ||
			len(trim(field.Value)) != len(field.Value) || field.Known != lookupKnown(field.Name) {
			t.Fatalf("field %q: %q", field.Name, field.Value)
		}
	}
}

func compareRequest(t *testing.T, in []byte, n int, r *Request) {
	t.Helper()
	theirs, err := http.ReadRequest(bufio.NewReaderSize(bytes.NewReader(bytes.TrimPrefix(in, []byte("\r\n"))), 64<<10))
	if err != nil {
		if r.Chunked && r.Get(KnownTrailer) != nil && strings.Contains(err.Error(), "bad trailer key") {
			return
		}
		t.Fatalf("%q: accepted, but net/http says %v", in, err)
	}
	length := r.ContentLength
	if length < 0 && !r.Chunked {
		length = 0
	}
	if theirs.Method != string(r.Method) || theirs.RequestURI != string(r.Target) || theirs.ProtoMajor != 1 || theirs.ProtoMinor != int(r.Minor) ||
		theirs.Host != string(r.Host) || theirs.ContentLength != length || (theirs.TransferEncoding != nil) != r.Chunked || theirs.Close != r.Close {
		t.Fatalf("%q: %s, net/http: %+v", in, r.summary(), theirs)
	}
	if r.Path != nil && string(r.Path) != "*" {
		path, query := theirs.URL.EscapedPath(), theirs.URL.RawQuery
		if path == "" {
			path = "/"
		}
		if unescape(path) != unescape(string(r.Path)) || query != string(r.Query) || (query != "" || theirs.URL.ForceQuery) != r.HasQuery {
			t.Fatalf("%q: path %s query %s, net/http: %s, %s", in, r.Path, r.Query, path, query)
		}
	}
	compareFields(t, in, r.Fields, theirs.Header)
	if r.Chunked {
		compareBody(t, in[n:], theirs.Body, func() http.Header { return theirs.Trailer })
	}
}

// unescape decodes percent escapes, which net/http prints differently from what it read.
func unescape(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		var c byte
		if path[i] == '%' {
			if _, err := fmt.Sscanf(path[i+1:i+3], "%02x", &c); err == nil {
				b.WriteByte(c)
				i += 2
				continue
			}
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

// compareFields compares all fields but those that net/http takes out or makes up.
func compareFields(t *testing.T, in []byte, fields []Field, theirs http.Header) {
	t.Helper()
	ours := http.Header{}
	for _, field := range fields {
		ours.Add(textproto.CanonicalMIMEHeaderKey(string(field.Name)), string(field.Value))
	}
	if theirs.Values("Connection") == nil {
		delete(ours, "Connection") // net/http removes it from responses when it says close
	}
	for _, h := range []http.Header{ours, theirs} {
		if h.Get("Pragma") != "" {
			delete(h, "Cache-Control")
		}
		for _, name := range []string{"Host", "Transfer-Encoding", "Trailer", "Content-Length"} {
			delete(h, name)
		}
	}
	if len(ours)+len(theirs) > 0 && !reflect.DeepEqual(ours, theirs) {
		t.Fatalf("%q: fields %v, net/http: %v", in, ours, theirs)
	}
}

// compareBody compares the chunked body in with what net/http reads, when we can decode it.
func compareBody(t *testing.T, in []byte, body io.Reader, trailer func() http.Header) {
	t.Helper()
	var c ChunkDecoder
	d := decodeWith(t, &c, in, max(len(in), 1))
	if !d.done {
		return
	}
	theirs, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("%q: body accepted, but net/http says %v", in, err)
	}
	if string(theirs) != d.payload {
		t.Fatalf("%q: body %q, net/http: %q", in, d.payload, theirs)
	}
	for _, field := range c.Trailers() {
		if values := trailer().Values(string(field.Name)); !contains(values, string(field.Value)) {
			t.Fatalf("%q: trailer %s: %s, net/http: %v", in, field.Name, field.Value, values)
		}
	}
}

func contains(values []string, value string) bool {
	for _, v := range values {
		if v == value {
			return true
		}
	}
	return false
}

// What the fast scan of a line accepts, the plain one accepts too, and understands in the same way; and a known name is the one that
// a comparison with all of them finds.
func FuzzLine(f *testing.F) {
	for _, seed := range []string{
		"Host: a\r\n\r\n", "accept-ENCODING: gzip, br\r\nX: y\r\n", "Sec-Fetch-Site: same-origin\r\n\r\n", "X:y\r\n", "X: \r\n", "X: y \r\n", "X:  y\r\n", "X: y\tz\r\n",
		"X_Y: z\r\nA: b\r\n", "X(Y: z\r\n\r\n", "X: \xff~\xff\x7f\r\n", "X: ~\xff~~\r\n\r\n", "Proxy-Authorization: x\r\n\r\n", "Upgrade-Insecure-Requests: 1\r\n\r\n",
		"no colon\r\nX: y\r\n", "A: b\nC: d\r\n", "A: b\rC: d\r\n", "content_length: 5\r\n\r\n", "\xa4ost: a\r\n\r\n", "Ho\x13t: a\r\n\r\n", "\r: a\r\n", "A:\r\r\n",
	} {
		f.Add([]byte(seed), uint8(0))
		f.Add([]byte(seed), uint8(3))
		f.Add([]byte(seed+"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), uint8(0))
	}
	f.Fuzz(func(t *testing.T, in []byte, from uint8) {
		i := int(from)
		if i > len(in) {
			return
		}
		var fast, plain Field
		next := fast.parseUsual(in, i)
		want, err := parseLine(in, i, &plain)
		if want > 0 {
			if known := compareKnown(plain.Name); known != plain.Known {
				t.Fatalf("%q is %v, not %v", plain.Name, plain.Known, known)
			}
		}
		if next == 0 {
			return
		}
		if next != want || err != nil || !bytes.Equal(fast.Name, plain.Name) || !bytes.Equal(fast.Value, plain.Value) || fast.Known != plain.Known {
			t.Fatalf("%q from %d: %d %q %q %v, plain: %d %q %q %v %v", in, i, next, fast.Name, fast.Value, fast.Known, want, plain.Name, plain.Value, plain.Known, err)
		}
		if verbatim := bytes.Equal(in[i:next], fast.AppendTo(nil)); verbatim && int(fast.at) != i || !verbatim && fast.at != 0 || plain.at != 0 {
			t.Fatalf("%q from %d: at %d", in, i, fast.at)
		}
	})
}

// compareKnown is lookupKnown as one would write it first.
func compareKnown(name []byte) Known {
	for k := KnownNone + 1; k < KnownAlias; k++ {
		if EqualFold(name, k.String()) {
			return k
		}
	}
	const family = "x-forwarded-"
	inFamily := len(name) > len(family)
	if inFamily && EqualFold(name[:len(family)], family) {
		return KnownXForwarded
	}
	for k := KnownNone + 1; k < KnownAlias; k++ {
		if EqualName(name, k.String()) {
			return KnownAlias
		}
	}
	if inFamily && EqualName(name[:len(family)], family) {
		return KnownAlias
	}
	return KnownNone
}

var responseSeeds = []string{
	usualResponse,
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n5;x\r\nhello\r\n0\r\nT: u\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
	"HTTP/1.0 200\r\nConnection: keep-alive\r\n\r\n",
	"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
	"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
	"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
	"HTTP/1.1 200 OK\nX: y\n\n",
	"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
	"HTTP/1.1  200 OK\r\n\r\n",
	"ICY 200 OK\r\n\r\n",
	"HTTP/2 200\r\n\r\n",
}

func FuzzResponse(f *testing.F) {
	for _, seed := range responseSeeds {
		for method := range uint8(3) {
			f.Add([]byte(seed), method)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, which uint8) {
		if len(in) > 4096 {
			return
		}
		method := []string{"GET", "HEAD", "CONNECT"}[which%3]
		_, n, err := responseOutcome(t, string(in), method, Limits{})
		if err != nil || n == 0 {
			return
		}
		r := new(Response)
		if n2, err := r.Parse(in, Limits{}, []byte(method)); n2 != n || err != nil {
			t.Fatalf("parsed again: %d, %v", n2, err)
		}
		for _, view := range [][]byte{r.Reason, r.Upgrade} {
			if !inside(in[:n], view) {
				t.Fatalf("view %q is outside", view)
			}
		}
		checkFields(t, in[:n], r.Fields)

		encoded := fmt.Appendf(nil, "HTTP/1.%d %d %s\r\n", r.Minor, r.Status, r.Reason)
		for _, field := range r.Fields {
			encoded = field.AppendTo(encoded)
		}
		encoded = append(encoded, "\r\n"...)
		again := new(Response)
		if n3, err := again.Parse(encoded, Limits{}, []byte(method)); n3 != len(encoded) || err != nil || again.summary() != r.summary() {
			t.Fatalf("encoded again as %q: %d, %v", encoded, n3, err)
		}
		compareResponse(t, in, n, method, r)
	})
}

func compareResponse(t *testing.T, in []byte, n int, method string, r *Response) {
	t.Helper()
	theirs, err := http.ReadResponse(bufio.NewReaderSize(bytes.NewReader(in), 64<<10), &http.Request{Method: method})
	if err != nil {
		if r.Get(KnownTrailer) != nil && strings.Contains(err.Error(), "bad trailer key") {
			return
		}
		t.Fatalf("%q: accepted, but net/http says %v", in, err)
	}
	if theirs.StatusCode != r.Status || theirs.ProtoMajor != 1 || theirs.ProtoMinor != int(r.Minor) {
		t.Fatalf("%q: %s, net/http: %+v", in, r.summary(), theirs)
	}
	if !r.NoBody && (theirs.ContentLength != r.ContentLength || (theirs.TransferEncoding != nil) != r.Chunked || theirs.Close != r.Close) {
		t.Fatalf("%q: %s, net/http: %+v", in, r.summary(), theirs)
	}
	compareFields(t, in, r.Fields, theirs.Header)
	if r.Chunked {
		compareBody(t, in[n:], theirs.Body, func() http.Header { return theirs.Trailer })
	}
}

func FuzzChunked(f *testing.F) {
	for _, seed := range []string{
		"5\r\nhello\r\n0\r\n\r\n",
		"5;a=b;c=\"d\\\"\";e\r\nhello\r\nA;b=c\r\n0123456789\r\n0\r\nX: y\r\nCookie: z\r\n\r\nGET /",
		"00000000000000005\r\n", "ffffffffffffffff\r\n", "0x5\r\nhello\r\n0\r\n\r\n", "5\nhello\n0\n\n", "5\r\nhello\r\n\r\n0\r\n\r\n",
		"0\r\nContent-Length: 5\r\n\r\n", "0\r\n X: y\r\n\r\n", "1;\na\r\nx\r\n0\r\n\r\n", "2\r\nab0\r\n\r\n",
	} {
		f.Add([]byte(seed), uint16(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint16) {
		d := decodeSplit(t, in)
		other := decode(t, in, int(step)+1)
		if other.err != nil {
			other.rest = d.rest
		}
		if d != other {
			t.Fatalf("%q: in pieces of %d: %+v, at once: %+v", in, int(step)+1, other, d)
		}
		if !d.done {
			return
		}
		// Encoded again by us, it decodes to the same.
		var c ChunkDecoder
		decodeWith(t, &c, in, max(len(in), 1))
		var encoded []byte
		if len(d.payload) > 0 {
			encoded = AppendChunkHeader(encoded, len(d.payload))
			encoded = append(encoded, d.payload...)
			encoded = append(encoded, "\r\n"...)
		}
		encoded = AppendLastChunk(encoded, c.Trailers())
		if again := decode(t, encoded, len(encoded)); again.payload != d.payload || again.trailers != d.trailers || !again.done || again.rest != "" {
			t.Fatalf("%q encoded again as %q: %+v", in, encoded, again)
		}
		if len(in) > 4096 {
			return // net/http bounds what is not payload differently
		}
		head := []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		theirs, err := http.ReadResponse(bufio.NewReaderSize(bytes.NewReader(append(head, in...)), 64<<10), nil)
		if err != nil {
			t.Fatal(err)
		}
		compareBody(t, in, theirs.Body, func() http.Header { return theirs.Trailer })
	})
}
