package route

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/url"
	"path"
	"strings"
	"testing"
)

func TestNormalize(t *testing.T) {
	t.Parallel()
	f := func(in, want string) {
		t.Helper()
		out, changed, err := Normalize(nil, []byte(in))
		if err != nil || string(out) != want || changed != (in != want) {
			t.Errorf("%q: got %q, %v, %v, want %q", in, out, changed, err, want)
		}
	}
	f("", "/")
	f("/", "/")
	f("*", "*")
	f("/a/b-c_d.e~f/", "/a/b-c_d.e~f/")
	f("/a:@!$&'()*+,;=b", "/a:@!$&'()*+,;=b")
	// Dot segments.
	f("/.", "/")
	f("/./", "/")
	f("/a/.", "/a/")
	f("/a/./b", "/a/b")
	f("/a/..", "/")
	f("/a/../", "/")
	f("/a/../b", "/b")
	f("/a/b/..", "/a/")
	f("/a/b/../../c", "/c")
	f("/a/%2e%2E/b", "/b")
	f("/a/.%2e/b", "/b")
	f("/a/%2e/b", "/a/b")
	f("/.well-known/x", "/.well-known/x")
	f("/a/.../b", "/a/.../b")
	f("/a/..b/c..", "/a/..b/c..")
	// Slashes.
	f("//", "/")
	f("//a///b//", "/a/b/")
	f("/a//../b", "/b") // merged before it is resolved
	f("/a/..//b", "/b")
	// Escapes.
	f("/%61%7e%2D", "/a~-")
	f("/a%2fb%5c%2F", "/a%2Fb%5C%2F")
	f("/%c3%a9", "/%C3%A9")
	f("/\xc3\xa9", "/%C3%A9")
	f("/%20%3f%23%25", "/%20%3F%23%25")
	f("/%252e%252e/", "/%252e%252e/") // decoded once
	f("/@scope%2fname", "/@scope%2Fname")
	f("/a%2F.b", "/a%2F.b")
	f("/a;x=1/b", "/a;x=1/b")

	refuse := func(in string, want error) {
		t.Helper()
		if out, _, err := Normalize(nil, []byte(in)); !errors.Is(err, want) || out != nil {
			t.Errorf("%q: got %q, %v, want %v", in, out, err, want)
		}
	}
	refuse("*a", ErrPathForm)
	refuse("a/b", ErrPathForm)
	refuse("/..", ErrPathAboveRoot)
	refuse("/a/../..", ErrPathAboveRoot)
	refuse("/%2e%2e/a", ErrPathAboveRoot)
	refuse("//../a", ErrPathAboveRoot)
	refuse("/%", ErrPathEscape)
	refuse("/%2", ErrPathEscape)
	refuse("/%zz", ErrPathEscape)
	refuse("/%2g/a", ErrPathEscape)
	refuse("/%/2e", ErrPathEscape)
	refuse("/%00", ErrPathControl)
	refuse("/a%0d%0aX:1", ErrPathControl)
	refuse("/%7f", ErrPathControl)
	refuse("/a b", ErrPathControl)
	refuse("/a\x00", ErrPathControl)
	refuse("/a\x7f", ErrPathControl)
	refuse("/a\tb", ErrPathControl)
	refuse(`/a\b`, ErrPathBackslash)
	refuse(`/..\b`, ErrPathBackslash)
	refuse("/a?b", ErrPathCharacter)
	refuse("/a#b", ErrPathCharacter)
	refuse("/a/..%2fb", ErrPathHiddenDot)
	refuse("/a/b%5c..", ErrPathHiddenDot)
	refuse("/a/b%2f%2e%2e%2fc", ErrPathHiddenDot)
	refuse("/a/..;x=1/b", ErrPathHiddenDot)
	refuse("/a/.;/b", ErrPathHiddenDot)
	refuse("/a%2f..;/b", ErrPathHiddenDot)
}

func TestNormalizeReturnsPlainPathsThemselves(t *testing.T) {
	plain := []byte("/api/v1/users/7/orders.json")
	escaped := []byte("/a%2Fb/.well-known")
	for _, in := range [][]byte{plain, escaped} {
		out, changed, err := Normalize(make([]byte, 0, 64), in)
		if err != nil || changed || &out[0] != &in[0] {
			t.Errorf("%s: not itself", in)
		}
	}
	dst, odd := make([]byte, 0, 64), []byte("/a//b/%7e")
	if n := testing.AllocsPerRun(100, func() {
		_, _, _ = Normalize(dst, plain)
		_, _, _ = Normalize(dst, odd)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// checkNormalize holds for every input.
func checkNormalize(t *testing.T, in []byte) {
	t.Helper()
	kept := bytes.Clone(in)
	out, changed, err := Normalize(make([]byte, 0, 8), in)
	if !bytes.Equal(in, kept) {
		t.Fatalf("%q: the input was written to", kept)
	}
	if err != nil {
		if out != nil || changed {
			t.Fatalf("%q: %q beside an error", in, out)
		}
		return
	}
	if changed == bytes.Equal(in, out) || len(out) > 3*len(in)+1 {
		t.Fatalf("%q: %q, changed is %v", in, out, changed)
	}
	again, changed, err := Normalize(nil, out)
	if err != nil || changed || !bytes.Equal(again, out) {
		t.Fatalf("%q: %q is no fixed point: %q, %v", in, out, again, err)
	}
	s := string(out)
	if s == "*" {
		return
	}
	if s[0] != '/' || strings.Contains(s, "//") || strings.ContainsAny(s, "\\?# \x00\r\n\x7f") || !isASCII(s) {
		t.Fatalf("%q: %q is unsafe", in, s)
	}
	for _, segment := range strings.Split(s, "/") {
		if segment == "." || segment == ".." {
			t.Fatalf("%q: %q has a dot segment", in, s)
		}
	}
	// What a server behind makes of it stays under the root, however it decodes and whatever it takes for a slash; and it reads
	// the same text as in the original.
	plain, err := url.PathUnescape(s)
	if err != nil {
		t.Fatalf("%q: %q does not decode: %v", in, s, err)
	}
	for _, segment := range strings.FieldsFunc(plain, func(r rune) bool { return r == '/' || r == '\\' }) {
		if name, _, _ := strings.Cut(segment, ";"); name == ".." {
			t.Fatalf("%q: %q decodes to a climb", in, s)
		}
	}
	original, err := url.PathUnescape(string(in))
	if err != nil {
		t.Fatalf("%q was accepted, but does not decode: %v", in, err)
	}
	upper := strings.ToUpper(string(in))
	if len(in) > 0 && !strings.Contains(upper, "%2F") && !strings.Contains(upper, "%5C") && path.Clean(original) != path.Clean(plain) {
		t.Fatalf("%q: %q is another path", in, s)
	}
}

var normalizePieces = []string{"/", "/", ".", "..", "a", "b", "%2e", "%2E", "%2f", "%2F", "%5c", "%61", "%c3%A9", "\xc3", ";", "%25", "%", "%2", " ", "\\", "*", "{", "~", "%7f", "?"}

func TestNormalizeProperties(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 50_000 {
		var in []byte
		pieces := normalizePieces[:15+r.IntN(len(normalizePieces)-15)]
		if r.IntN(10) > 0 {
			in = append(in, '/')
		}
		for range r.IntN(8) {
			in = append(in, pick(r, pieces)...)
		}
		checkNormalize(t, in)
	}
}

func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"", "/", "/a/./../b//c", "/%2e%2E/%2f", "/a%5c..", "/..;x", "*", "/\xff%00", "/%C3%a9/~", "/%252e/"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) { checkNormalize(t, in) })
}
