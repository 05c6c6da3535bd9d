package h1

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestAppendStatusLine(t *testing.T) {
	t.Parallel()
	f := func(status int, want string) {
		t.Helper()
		if got := string(AppendStatusLine([]byte("x"), status)); got != "x"+want {
			t.Errorf("%d: got %q, want %q", status, got, want)
		}
	}
	f(200, "HTTP/1.1 200 OK\r\n")
	f(100, "HTTP/1.1 100 Continue\r\n")
	f(511, "HTTP/1.1 511 Network Authentication Required\r\n")
	f(599, "HTTP/1.1 599 \r\n")
	f(999, "HTTP/1.1 999 \r\n")
	f(299, "HTTP/1.1 299 \r\n")
	for _, status := range []int{-1, 0, 99, 1000, 1 << 40} {
		f(status, "HTTP/1.1 500 Internal Server Error\r\n")
	}
	for status := range 1000 {
		want := http.StatusText(status)
		switch status { // renamed by RFC 9110
		case 413:
			want = "Content Too Large"
		case 414:
			want = "URI Too Long"
		case 416:
			want = "Range Not Satisfiable"
		case 422:
			want = "Unprocessable Content"
		case 418: // a joke
			want = ""
		}
		if got := Reason(status); got != want {
			t.Errorf("%d: %q, want %q", status, got, want)
		}
	}
}

func TestAppendField(t *testing.T) {
	t.Parallel()
	f := func(name, value, want string) {
		t.Helper()
		if got := string(AppendField([]byte("x"), name, value)); got != "x"+want {
			t.Errorf("%q: %q: got %q, want %q", name, value, got, want)
		}
		if got := string(AppendField([]byte("x"), []byte(name), []byte(value))); got != "x"+want {
			t.Errorf("as bytes, %q: %q: got %q, want %q", name, value, got, want)
		}
	}
	f("A", "b", "A: b\r\n")
	f("A", "", "A: \r\n")
	f("A-b_1", "tab\tand \xff", "A-b_1: tab\tand \xff\r\n")
	f("", "b", "")
	for _, name := range []string{"A B", "A:", "A\r\nB", "A\x00", "Ä", " A", "A "} {
		f(name, "b", "")
	}
	for _, bad := range []string{"\r", "\n", "\r\n", "\x00", "\x7f", "\x1b"} {
		for _, value := range []string{bad, "a" + bad, bad + "a", "12345678" + bad, "1234567" + bad + "9", "\t\t" + bad + "\t", "12345678\t" + bad + "12345678"} {
			f("A", value, "")
		}
	}
}

// The fast scan of values must find what the table says, wherever the byte stands.
func TestSkipValue(t *testing.T) {
	t.Parallel()
	for size := range 20 {
		for at := range size {
			for c := range 256 {
				b := []byte(strings.Repeat("\x80", size)) // 0x80 provokes carries
				b[at] = byte(c)
				want := size
				if classes[byte(c)]&value == 0 {
					want = at
				}
				if got := skipValue(b, 0); got != want {
					t.Fatalf("%q: %d, want %d", b, got, want)
				}
				if got := skipValue(string(b), 0); got != want {
					t.Fatalf("string %q: %d, want %d", b, got, want)
				}
			}
		}
	}
}

// The fast scan of a line must take every line of the usual form and no byte that is out of place, wherever it stands.
func TestParseUsual(t *testing.T) {
	t.Parallel()
	const behind = "Next-Line: with enough bytes\r\n\r\n"
	for _, name := range []string{"X", "Host", "X-Seven", "X-Eight8", "Cookie", "Content-Length", "Accept-Language", "X-Forwarded-Proto", "Proxy-Authorization", "Sec-Websocket-Extension", "Upgrade-Insecure-Requests"} {
		for _, value := range []string{"", "a", "a b", "1234567", "12345678", "123456789", strings.Repeat("\xff}", 9)} {
			line := name + ": " + value + "\r\n"
			var fast, plain Field
			next := fast.parseUsual([]byte(line+behind), 0)
			if usual := value != ""; (next == len(line)) != usual || !usual && next != 0 {
				t.Errorf("%q: %d", line, next)
			}
			for at := range len(line) {
				for c := range 256 {
					b := []byte(line + behind)
					b[at] = byte(c)
					next := fast.parseUsual(b, 0)
					if next == 0 {
						continue
					}
					if want, err := parseLine(b, 0, &plain); next != want || err != nil || string(fast.Name) != string(plain.Name) || string(fast.Value) != string(plain.Value) || fast.Known != plain.Known {
						t.Fatalf("%q: %d %+v, plain: %d %+v %v", b, next, fast, want, plain, err)
					}
				}
			}
		}
	}
}

func TestAppendChunks(t *testing.T) {
	t.Parallel()
	f := func(size int, want string) {
		t.Helper()
		if got := string(AppendChunkHeader(nil, size)); got != want {
			t.Errorf("%d: got %q, want %q", size, got, want)
		}
	}
	f(1, "1\r\n")
	f(255, "ff\r\n")
	f(4096, "1000\r\n")
	if got := string(AppendLastChunk(nil, nil)); got != "0\r\n\r\n" {
		t.Errorf("got %q", got)
	}
	trailers := []Field{{Name: []byte("A"), Value: []byte("b")}, {Name: []byte("C")}}
	if got := string(AppendLastChunk(nil, trailers)); got != "0\r\nA: b\r\nC: \r\n\r\n" {
		t.Errorf("got %q", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("an empty chunk would end the body, but was written")
		}
	}()
	AppendChunkHeader(nil, 0)
}

func TestAppendDate(t *testing.T) {
	t.Parallel()
	f := func(at time.Time) {
		t.Helper()
		if got, want := string(AppendDate(nil, at)), at.UTC().Format(http.TimeFormat); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(time.Date(1994, 11, 6, 8, 49, 37, 999, time.UTC))
	f(time.Date(2026, 2, 28, 23, 59, 59, 0, time.FixedZone("", -3600)))
	f(time.Unix(0, 0))
}

func TestContainsToken(t *testing.T) {
	t.Parallel()
	f := func(value, token string, want bool) {
		t.Helper()
		if got := ContainsToken([]byte(value), token); got != want {
			t.Errorf("%q in %q: %v", token, value, got)
		}
	}
	f("gzip", "gzip", true)
	f("br , GZip\t", "gzip", true)
	f(",,a,,gzip,", "gzip", true)
	f("gzip;q=0", "gzip", false)
	f("xgzip", "gzip", false)
	f("gzipx", "gzip", false)
	f("g zip", "gzip", false)
	f("", "gzip", false)
	f("gzip", "gzi", false)
}

func TestEqualFold(t *testing.T) {
	t.Parallel()
	f := func(a, b string, want bool) {
		t.Helper()
		if got := EqualFold([]byte(a), b); got != want {
			t.Errorf("%q, %q: %v", a, b, got)
		}
	}
	f("", "", true)
	f("aBz-09", "AbZ-09", true)
	f("a", "ab", false)
	f("@", "`", false)
	f("[", "{", false)
	f("K", "\u212a", false) // the Kelvin sign is no K
}
