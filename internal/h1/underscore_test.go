package h1

import (
	"strings"
	"testing"
)

// Names with underscores, under each rule: what is left of the fields, in their order, or the refusal.
func TestUnderscores(t *testing.T) {
	t.Parallel()
	f := func(rule Underscores, fields, want string) {
		t.Helper()
		text := "POST / HTTP/1.1\r\nHost: a\r\n" + strings.ReplaceAll(fields, "|", "\r\n") + "\r\n\r\n"
		var r Request
		n, err := r.Parse([]byte(text), Limits{Underscores: rule})
		got := ""
		switch {
		case err != nil:
			got = err.Error()
		case n != len(text):
			t.Errorf("%s: %d of %d bytes", fields, n, len(text))
		default:
			for _, field := range r.Fields[1:] {
				got += "|" + string(field.Name)
			}
			got = strings.TrimPrefix(got, "|")
		}
		if got != want {
			t.Errorf("%d %s: %q, want %q", rule, fields, got, want)
		}
	}
	const all = "X-A: 1|X_Forwarded_For: 6.6.6.6|x_forwarded-FOR: 6.6.6.6|Content_Length: 9|transfer_encoding: chunked|X_Mine: 1|_: 1|X-B: 1|Client_Cert: :AA==:"
	f(UnderscoresSafe, all, "X-A|X_Mine|_|X-B")
	f(UnderscoresDrop, all, "X-A|X-B")
	f(UnderscoresAllow, all, "X-A|X_Forwarded_For|x_forwarded-FOR|Content_Length|transfer_encoding|X_Mine|_|X-B|Client_Cert")
	f(UnderscoresRefuse, all, "bad syntax: underscore in a field name")
	f(UnderscoresRefuse, "X-A: 1|X-B: a_b", "X-A|X-B")
	f(UnderscoresRefuse, "X_Mine: 1", "bad syntax: underscore in a field name")
	for _, rule := range []Underscores{UnderscoresSafe, UnderscoresDrop, UnderscoresAllow} { // dropped or not, they must be fields
		f(rule, "Content_Length : 9", "bad syntax: space in or after a field name")
		f(rule, "Content_Length: 9\n", "bad syntax: line ends with LF instead of CRLF")
		f(rule, "Content-Length: 0|Content_Length: 9|Content-Length: 0", "bad framing: more than one Content-Length")
	}
}

// An endpoint's fields are its own affair; trailers that stand for others are dropped as those are.
func TestUnderscoresElsewhere(t *testing.T) {
	t.Parallel()
	var r Response
	if n, err := r.Parse([]byte("HTTP/1.1 200 OK\r\nContent_Length: 9\r\nX_A: 1\r\n\r\n"), Limits{}, []byte("GET")); n == 0 || err != nil || len(r.Fields) != 2 || r.ContentLength >= 0 {
		t.Errorf("%d %v %v", n, err, r.Fields)
	}
	var d ChunkDecoder
	text := "0\r\nX_Forwarded_For: 6.6.6.6\r\nX_A: 1\r\n\r\n"
	if _, n, done, err := d.Next([]byte(text)); n != len(text) || !done || err != nil || len(d.Trailers()) != 1 || string(d.Trailers()[0].Name) != "X_A" {
		t.Errorf("%d %v %v %v", n, done, err, d.Trailers())
	}
}
