package h1

import (
	"fmt"
	"strings"
	"testing"
)

func (r *Response) summary() string {
	var s strings.Builder
	fmt.Fprintf(&s, "1.%d %d %s", r.Minor, r.Status, r.Reason)
	r.Head.summary(&s)
	if r.NoBody {
		s.WriteString(" nobody")
	}
	return s.String()
}

func responseOutcome(t *testing.T, in, method string, lim Limits) (*Response, int, error) {
	t.Helper()
	r, n, err := outcome(t, []byte(in), func(r any, b []byte) (int, error) { return r.(*Response).Parse(b, lim, []byte(method)) },
		func() any { return new(Response) })
	return r.(*Response), n, err
}

func TestResponseAccepted(t *testing.T) {
	t.Parallel()
	f := func(method, in, want string) {
		t.Helper()
		const body = "HTTP/1.1 200 in the body\r\n"
		r, n, err := responseOutcome(t, in+body, method, Limits{})
		if err != nil {
			t.Errorf("%q: %v", in, err)
			return
		}
		if n != len(in) {
			t.Errorf("%q: length %d, want %d", in, n, len(in))
		}
		if got := r.summary(); got != want {
			t.Errorf("%q:\n got %s\nwant %s", in, got, want)
		}
		compareResponse(t, []byte(in+body), n, method, r)
	}
	f("GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "1.1 200 OK length=5")
	f("GET", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "1.1 200  length=0")
	f("GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "1.1 200  length=0") // no space: many servers
	f("GET", "HTTP/1.1 999 a\tb \xe4 c \r\nContent-Length: 0\r\n\r\n", "1.1 999 a\tb \xe4 c  length=0")
	f("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n", "1.1 200 OK chunked")

	// Until the connection closes.
	f("GET", "HTTP/1.1 200 OK\r\n\r\n", "1.1 200 OK close")
	f("GET", "HTTP/1.0 200 OK\r\n\r\n", "1.0 200 OK close")
	f("GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", "1.0 200 OK close")
	f("GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n", "1.0 200 OK length=3")
	f("GET", "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", "1.0 200 OK length=3 close")
	f("GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n", "1.1 200 OK length=3 close")

	// No body, whatever is declared.
	f("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "1.1 200 OK length=0 nobody")
	f("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1.1 200 OK length=0 nobody")
	f("HEAD", "HTTP/1.1 200 OK\r\n\r\n", "1.1 200 OK length=0 nobody")
	f("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "1.1 304 Not Modified length=0 nobody")
	f("GET", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", "1.1 304 Not Modified length=0 nobody")
	f("GET", "HTTP/1.1 204 No Content\r\n\r\n", "1.1 204 No Content length=0 nobody")
	f("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "1.1 204 No Content length=0 nobody")
	f("GET", "HTTP/1.1 100 Continue\r\n\r\n", "1.1 100 Continue length=0 nobody")
	f("GET", "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n", "1.1 103 Early Hints length=0 nobody")
	f("GET", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "1.1 101 Switching Protocols length=0 upgrade=websocket nobody")
	f("CONNECT", "HTTP/1.1 200 OK\r\n\r\n", "1.1 200 OK length=0 nobody")
	f("CONNECT", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "1.1 200 OK length=0 nobody")
	f("CONNECT", "HTTP/1.1 407 No\r\nContent-Length: 5\r\n\r\n", "1.1 407 No length=5")
	f("head", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "1.1 200 OK length=5") // another method
	f("GET", "HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\n", "1.1 205 Reset Content length=5")

	f("GET", "HTTP/1.1 200 OK\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n", "1.1 200 OK chunked")
	f("GET", "HTTP/1.1 200 OK\r\nHost: a\r\nContent-Length: 1\r\nConnection: x-a\r\n\r\n", "1.1 200 OK length=1 names:x-a")
}

func TestResponseRefused(t *testing.T) {
	t.Parallel()
	g := func(method, in string, want *Error) {
		t.Helper()
		r, n, err := responseOutcome(t, in, method, Limits{})
		if err != error(want) || n != 0 {
			t.Errorf("%q: %d, %v, want %v; %s", in, n, err, want, r.summary())
		}
	}
	f := func(in string, want *Error) { t.Helper(); g("GET", in, want) }
	f("\r\nHTTP/1.1 200 OK\r\n\r\n", errVersion)
	f("\nHTTP/1.1 200 OK\r\n\r\n", errBareLF)
	f(" HTTP/1.1 200 OK\r\n\r\n", errStatusLine)
	f("<html>", errStatusLine) // HTTP/0.9
	f("ICY 200 OK\r\n\r\n", errStatusLine)
	f("http/1.1 200 OK\r\n\r\n", errStatusLine)
	f("HTTP/1.1\r\n\r\n", errStatusLine)
	f("HTTP/1.1\n\n", errBareLF)
	f("HTTP/1.1\t200 OK\r\n\r\n", errStatusLine)
	f("HTTP/1.2 200 OK\r\n\r\n", errVersion)
	f("HTTP/2.0 200 OK\r\n\r\n", errVersion)
	f("HTTP/2 200 OK\r\n\r\n", errVersion)
	f("HTTP/1.10 200 OK\r\n\r\n", errVersion)
	f("HTTP/1.1  200 OK\r\n\r\n", errStatus)
	f("HTTP/1.1 \r\n\r\n", errStatus)
	f("HTTP/1.1 2\r\n\r\n", errStatus)
	f("HTTP/1.1 20 OK\r\n\r\n", errStatus)
	f("HTTP/1.1 099 OK\r\n\r\n", errStatus)
	f("HTTP/1.1 000 OK\r\n\r\n", errStatus)
	f("HTTP/1.1 2000 OK\r\n\r\n", errStatus)
	f("HTTP/1.1 2x0 OK\r\n\r\n", errStatus)
	f("HTTP/1.1 -20 OK\r\n\r\n", errStatus)
	f("HTTP/1.1 200OK\r\n\r\n", errStatus)
	f("HTTP/1.1 200\tOK\r\n\r\n", errStatus)
	f("HTTP/1.1 200\n\r\n", errBareLF)
	f("HTTP/1.1 200 OK\n\n", errBareLF)
	f("HTTP/1.1 200 O\rK\r\n\r\n", errBareCR)
	f("HTTP/1.1 200 O\x00K\r\n\r\n", errReasonInvalid)
	f("HTTP/1.1 200 O\x7fK\r\n\r\n", errReasonInvalid)
	f("HTTP/1.1 200 O\x1b", errReasonInvalid)

	ok := func(fields string) string { return "HTTP/1.1 200 OK\r\n" + fields + "\r\n" }
	f(ok(" X: y\r\n"), errFold)
	f(ok("X: y\r\n z\r\n"), errFold)
	f(ok("X : y\r\n"), errNameSpace)
	f(ok("X: \x00\r\n"), errValueInvalid)
	f(ok("X: y\n"), errBareLF)
	f(ok("X: y\rZ: z\r\n"), errBareCR)
	f(ok("Content-Length: 5\r\nContent-Length: 5\r\n"), errLengthTwice)
	f(ok("Content-Length: 5, 5\r\n"), errLengthInvalid)
	f(ok("Content-Length: -5\r\n"), errLengthInvalid)
	f(ok("Content-Length: 99999999999999999999\r\n"), errLengthInvalid)
	f(ok("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), errLengthAndCoding)
	f(ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), errCodingTwice)
	f(ok("Transfer-Encoding: gzip, chunked\r\n"), errCodingOther)
	f(ok("Transfer-Encoding: identity\r\n"), errCodingOther)
	f(ok("Transfer-Encoding: xchunked\r\n"), errCodingOther)
	f(ok("Host: a\r\nHost: b\r\n"), errHostTwice)
	f(ok("Connection: Content-Length\r\n"), errOptionForbidden)
	f("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", errCodingInHTTP10)

	// Malformed framing is refused even where there is no body, and 1xx and 204 may not declare one.
	g("HEAD", ok("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), errLengthAndCoding)
	g("HEAD", ok("Content-Length: x\r\n"), errLengthInvalid)
	f("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: gzip\r\n\r\n", errCodingOther)
	f("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", errBodyImpossible)
	f("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", errBodyImpossible)
	f("HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n", errBodyImpossible)
	f("HTTP/1.1 101 Switching Protocols\r\nTransfer-Encoding: chunked\r\n\r\n", errBodyImpossible)
	g("CONNECT", ok("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), errLengthAndCoding)
}

func TestResponseLimits(t *testing.T) {
	t.Parallel()
	f := func(in string, lim Limits, want *Error) {
		t.Helper()
		_, n, err := responseOutcome(t, in, "GET", lim)
		if want == nil && (err != nil || n != len(in)) || want != nil && err != error(want) {
			t.Errorf("%q with %+v: %d, %v, want %v", in, lim, n, err, want)
		}
	}
	in := "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\n"
	f(in, Limits{HeadBytes: len(in), Fields: 2, LineBytes: 1}, nil)
	f(in, Limits{HeadBytes: len(in) - 1}, errHeadTooLarge)
	f(in, Limits{Fields: 1}, errTooManyFields)
	f("HTTP/1.1 200 "+strings.Repeat("a", 2000), Limits{HeadBytes: 1000}, errHeadTooLarge)
}

// One value serves one message after the other: nothing of the first may show in the second.
func TestReuse(t *testing.T) {
	t.Parallel()
	var r Response
	first := "HTTP/1.0 101 X\r\nConnection: upgrade, a\r\nUpgrade: b\r\nHost: c\r\n\r\n"
	if _, err := r.Parse([]byte(first), Limits{}, nil); err != nil {
		t.Fatal(err)
	}
	in := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	if _, err := r.Parse([]byte(in), Limits{}, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := r.summary(), "1.1 200 OK chunked"; got != want || len(r.Fields) != 1 || r.viewHost != nil {
		t.Errorf("got %s with %d fields, want %s", got, len(r.Fields), want)
	}
	if _, err := r.Parse([]byte("HTTP/1.1 200 OK\r\nX\r\n"), Limits{}, nil); err == nil {
		t.Fatal("no error")
	}
	if _, err := r.Parse([]byte(in), Limits{}, nil); err != nil || r.summary() != "1.1 200 OK chunked" {
		t.Errorf("after an error: %v, %s", err, r.summary())
	}
}
