package h1

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unsafe"
)

// summary shows everything that a request head says, in one line.
func (r *Request) summary() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s %s 1.%d host=%s", r.Method, r.Path, r.Minor, r.Host)
	if r.HasQuery {
		fmt.Fprintf(&s, " query=%s", r.Query)
	}
	if r.Scheme != nil {
		fmt.Fprintf(&s, " scheme=%s", r.Scheme)
	}
	r.Head.summary(&s)
	if r.ExpectContinue {
		s.WriteString(" expect")
	}
	return s.String()
}

func (h *Head) summary(s *strings.Builder) {
	if h.ContentLength >= 0 {
		fmt.Fprintf(s, " length=%d", h.ContentLength)
	}
	if h.Chunked {
		s.WriteString(" chunked")
	}
	if h.Close {
		s.WriteString(" close")
	}
	if h.Upgrade != nil {
		fmt.Fprintf(s, " upgrade=%s", h.Upgrade)
	}
	if h.ConnectionNames {
		s.WriteString(" names")
		for _, name := range h.viewNominated[:h.nominated] {
			fmt.Fprintf(s, ":%s", name)
		}
	}
}

// outcome is the result of parsing in at once. It also parses every prefix, with a fresh parser and with one that sees
// the bytes trickle in, and demands the same outcome.
func outcome(t *testing.T, in []byte, parse func(r any, b []byte) (int, error), fresh func() any) (any, int, error) {
	t.Helper()
	whole := fresh()
	n, err := parse(whole, in)
	if n < 0 || n > len(in) {
		t.Fatalf("%q: n = %d of %d", in, n, len(in))
	}
	trickle, settled := fresh(), false
	for k := range len(in) + 1 {
		n2, err2 := parse(fresh(), in[:k])
		if err2 != nil && err2 != err || n2 != 0 && (n2 != n || err2 != nil || k < n) || err2 == nil && n2 == 0 && err == nil && n > 0 && k >= n {
			t.Fatalf("%q: first %d bytes give %d, %v; all give %d, %v", in, k, n2, err2, n, err)
		}
		if settled {
			continue
		}
		moved := append(make([]byte, 0, k+1), in[:k]...)
		n3, err3 := parse(trickle, moved)
		if n3 != 0 || err3 != nil || k == len(in) {
			settled = true
			// In a head that is never complete an error may be noticed later when it trickles, but not differently.
			if n3 != n || err3 != err && (err3 != nil || bytes.Contains(in, []byte("\r\n\r\n"))) {
				t.Fatalf("%q: trickled to %d bytes gives %d, %v; at once %d, %v", in, k, n3, err3, n, err)
			}
		}
	}
	return whole, n, err
}

func requestOutcome(t *testing.T, in string, lim Limits) (*Request, int, error) {
	t.Helper()
	r, n, err := outcome(t, []byte(in), func(r any, b []byte) (int, error) { return r.(*Request).Parse(b, lim) },
		func() any { return new(Request) })
	return r.(*Request), n, err
}

func TestRequestAccepted(t *testing.T) {
	t.Parallel()
	f := func(in, want string) {
		t.Helper()
		const next = "GET /pipelined"
		r, n, err := requestOutcome(t, in+next, Limits{})
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
		compareRequest(t, []byte(in+next), n, r)
	}
	f("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / 1.1 host=a")
	f("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / 1.1 host=a") // one empty line before
	f("M-SEARCH!#$%&'*+.^_`|~ / HTTP/1.1\r\nHost: a\r\n\r\n", "M-SEARCH!#$%&'*+.^_`|~ / 1.1 host=a")
	f("get / HTTP/1.1\r\nhost: a\r\n\r\n", "get / 1.1 host=a") // methods have case, names do not

	// Versions and persistence.
	f("GET / HTTP/1.0\r\n\r\n", "GET / 1.0 host= close")
	f("GET / HTTP/1.0\r\nHost:\r\n\r\n", "GET / 1.0 host= close")
	f("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", "GET / 1.0 host=a")
	f("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n", "GET / 1.0 host=a close")
	f("GET / HTTP/1.1\r\nHost: a\r\nConnection: CLOSE\r\n\r\n", "GET / 1.1 host=a close")
	f("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", "GET / 1.1 host=a")
	f("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a\r\nConnection: ,, \t close ,\r\n\r\n", "GET / 1.1 host=a close names:x-a")
	f("GET / HTTP/1.1\r\nHost: a\r\nConnection:\r\n\r\n", "GET / 1.1 host=a")
	f("GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: close\r\n\r\n", "GET / 1.1 host=a")

	// Targets.
	f("GET /a/b;c=d:@!$&'()*+,=-._~%41%2f?x=1&y=/?:@ HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /a/b;c=d:@!$&'()*+,=-._~%41%2f 1.1 host=a query=x=1&y=/?:@")
	f("GET /a? HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a 1.1 host=a query=")
	f("GET /a|[]^?|[]^{}`\\100% HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a|[]^ 1.1 host=a query=|[]^{}`\\100%") // as browsers send
	f("GET //a//../b HTTP/1.1\r\nHost: a\r\n\r\n", "GET //a//../b 1.1 host=a")                             // normalising is not ours
	f("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * 1.1 host=a")
	f("OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS / 1.1 host=a")
	f("CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443\r\n\r\n", "CONNECT  1.1 host=a.b:443")
	f("CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n", "CONNECT  1.1 host=[::1]:443")
	f("CONNECT a:1 HTTP/1.0\r\n\r\n", "CONNECT  1.0 host=a:1 close")
	f("GET http://A.b:80/c?d HTTP/1.1\r\nHost: a.B:80\r\n\r\n", "GET /c 1.1 host=A.b:80 query=d scheme=http")
	f("GET HTTPS://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET / 1.1 host=a scheme=HTTPS")
	f("GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n", "GET / 1.1 host=a query=b scheme=http")
	f("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * 1.1 host=a scheme=http")
	f("OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS / 1.1 host=a scheme=http")
	f("OPTIONS http://a? HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS / 1.1 host=a query= scheme=http")
	f("GET http://a/ HTTP/1.0\r\n\r\n", "GET / 1.0 host=a scheme=http close")

	// Hosts.
	f("GET / HTTP/1.1\r\nHost: A-b_c.d~e.:8080\r\n\r\n", "GET / 1.1 host=A-b_c.d~e.:8080")
	f("GET / HTTP/1.1\r\nHost: 127.0.0.1:0\r\n\r\n", "GET / 1.1 host=127.0.0.1:0")
	f("GET / HTTP/1.1\r\nHost: [2001:db8::1]:65535\r\n\r\n", "GET / 1.1 host=[2001:db8::1]:65535")
	f("GET / HTTP/1.1\r\nHost: [::ffff:1.2.3.4]\r\n\r\n", "GET / 1.1 host=[::ffff:1.2.3.4]")

	// Framing.
	f("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "POST / 1.1 host=a length=0")
	f("POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH:\t999999999999999999 \t\r\n\r\n", "POST / 1.1 host=a length=999999999999999999")
	f("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", "POST / 1.1 host=a chunked")
	f("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n", "POST / 1.1 host=a length=5 expect")
	f("POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", "POST / 1.0 host=a length=5 close")
	f("POST / HTTP/1.1\r\nHost: a\r\nExpect: a-pony\r\n\r\n", "POST / 1.1 host=a")

	// Upgrades and names in Connection.
	f("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n", "GET / 1.1 host=a upgrade=websocket")
	f("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "GET / 1.1 host=a")
	f("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n", "GET / 1.1 host=a")
	f("GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "GET / 1.0 host=a close")
	f("GET / HTTP/1.1\r\nHost: a\r\nConnection: TE, Transfer-Encoding, x-one,X-Two\r\n\r\n", "GET / 1.1 host=a names:x-one:X-Two")

	// Fields.
	f("GET / HTTP/1.1\r\nHost: a\r\nX:\r\nY: \t \r\nZ: a\tb \xe2\x82\xac\xff: c\r\n\r\n", "GET / 1.1 host=a")
	f("GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n", "GET / 1.1 host=a")
}

func TestRequestRefused(t *testing.T) {
	t.Parallel()
	f := func(in string, want *Error) {
		t.Helper()
		r, n, err := requestOutcome(t, in, Limits{})
		if err != error(want) || n != 0 {
			t.Errorf("%q: %d, %v, want %v; %s", in, n, err, want, r.summary())
		}
	}
	get := func(fields string) string { return "GET / HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n" }
	target := func(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n" }
	hostIs := func(host string) string { return "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }

	// The request line.
	f("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", errLeadingLines)
	f("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", errBareLF)
	f("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", errBareCR)
	f(" GET / HTTP/1.1\r\nHost: a\r\n\r\n", errMethodEmpty)
	f("\x00", errMethodEmpty)
	f("\x16\x03\x01\x02\x00\x01", errMethodEmpty) // TLS on a plaintext port, noticed at once
	f("GE\x00T / HTTP/1.1\r\n", errMethodInvalid)
	f("GET\t/ HTTP/1.1\r\n", errMethodInvalid)
	f("G@T / HTTP/1.1\r\n", errMethodInvalid)
	f("G\xc3\x89T / HTTP/1.1\r\n", errMethodInvalid)
	f("GET: / HTTP/1.1\r\n", errMethodInvalid)
	f(strings.Repeat("A", 33), errMethodLong)
	f("GET\r\n\r\n", errRequestLine)
	f("GET\n", errBareLF)
	f("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", errTargetEmpty)
	f("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", errRequestLine)
	f("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", errRequestLine)
	f("GET / HTTP/1.1\t\r\nHost: a\r\n\r\n", errRequestLine)
	f("GET / HTTP/1.1\nHost: a\r\n\r\n", errBareLF)
	f("GET / HTTP/1.1\n\n", errBareLF)
	f("GET / HTTP/1.1\rHost: a\r\n\r\n", errBareCR)
	f("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", errBareCR)

	// Versions.
	f("GET /\r\n", errVersionMissing) // HTTP/0.9
	f("GET /?q\r\n", errVersionMissing)
	f("GET \r\n", errVersionMissing)
	f("GET /\n", errBareLF)
	f("GET /\rX", errBareCR)
	f("GET / \r\n", errVersion)
	f("GET / HTTP/0.9\r\nHost: a\r\n\r\n", errVersion)
	f("GET / HTTP/1.2\r\nHost: a\r\n\r\n", errVersion)
	f("GET / HTTP/2.0\r\nHost: a\r\n\r\n", errVersion)
	f("GET / HTTP/3\r\nHost: a\r\n\r\n", errVersion)
	f("GET / HTTP/1\r\nHost: a\r\n\r\n", errVersion)
	f("GET / HTTP/1.\r\nHost: a\r\n\r\n", errVersion)
	f("GET / HTTP/11.1\r\nHost: a\r\n\r\n", errVersion)
	f("GET / HTTP/1.10\r\nHost: a\r\n\r\n", errVersion)
	f("GET / HTTP/1.1.1\r\nHost: a\r\n\r\n", errRequestLine)
	f("GET / http/1.1\r\nHost: a\r\n\r\n", errRequestLine)
	f("GET / HTTP 1.1\r\nHost: a\r\n\r\n", errRequestLine)
	f("GET / HTTPS/1.1\r\nHost: a\r\n\r\n", errRequestLine)
	f("GET / FTP/1.1\r\nHost: a\r\n\r\n", errRequestLine)
	f("GET / HTTP/+1.1\r\nHost: a\r\n\r\n", errRequestLine)
	f("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ErrPreface)
	f("PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n", errVersion)
	f("PRI * HTTP/1.1\r\nHost: a\r\n\r\n", errTargetAsterisk)

	// Targets.
	f(target("/a b"), errRequestLine)
	f(target("/a\tb"), errTargetInvalid)
	f(target("/a\x00b"), errTargetInvalid)
	f(target("/a\x7fb"), errTargetInvalid)
	f(target("/\xc3\xa4"), errTargetInvalid)
	f(target("/?\xc3\xa4"), errTargetInvalid)
	f(target("/a#b"), errTargetInvalid)
	f(target("/a?b#c"), errTargetInvalid)
	f(target("/\\a"), errTargetInvalid)
	for _, c := range `"<>{}` + "`" {
		f(target("/"+string(c)), errTargetInvalid)
	}
	for _, c := range `"<>` {
		f(target("/?"+string(c)), errTargetInvalid)
	}
	f(target("/%"), errTargetEscape)
	f(target("/%4"), errTargetEscape)
	f(target("/%4g"), errTargetEscape)
	f(target("/%%41"), errTargetEscape)
	f(target("*"), errTargetAsterisk)
	f(target("*a"), errTargetInvalid)
	f("OPTIONS ** HTTP/1.1\r\nHost: a\r\n\r\n", errTargetInvalid)
	f("OPTIONS *?a HTTP/1.1\r\nHost: a\r\n\r\n", errTargetInvalid)
	f(target("a"), errTargetForm)
	f(target("a:80"), errTargetForm)
	f(target("host:80"), errTargetForm)
	f(target("?a"), errTargetForm)
	f(target("ftp://a/"), errTargetForm)
	f(target("httpx://a/"), errTargetForm)
	f(target("http:a"), errTargetForm)
	f(target("http:/a"), errTargetForm)
	f(target("http:///a"), errTargetAuthority)
	f(target("http://"), errTargetAuthority)
	f(target("http://u@a/"), errTargetAuthority)
	f(target("http://a:b@c/"), errTargetAuthority)
	f(target("http://a:/"), errTargetAuthority)
	f(target("http://a:65536/"), errTargetAuthority)
	f(target("http://a%41/"), errTargetAuthority)
	f(target("http://a#b"), errTargetAuthority)
	f(target("http://a\\b/"), errTargetAuthority)
	f(target("http://[::1/"), errTargetAuthority)
	f(target("http://b/"), errHostDisagrees)
	f(target("http://a:80/"), errHostDisagrees)
	f("GET http://a/ HTTP/1.1\r\n\r\n", errHostMissing)
	f("GET http://a/ HTTP/1.1\r\nHost:\r\n\r\n", errHostInvalid)
	f("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", errTargetConnect)
	f("CONNECT * HTTP/1.1\r\nHost: a\r\n\r\n", errTargetConnect)
	f("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", errTargetConnect)
	f("CONNECT [::1] HTTP/1.1\r\nHost: [::1]\r\n\r\n", errTargetConnect)
	f("CONNECT http://a:80/ HTTP/1.1\r\nHost: a:80\r\n\r\n", errTargetAuthority)
	f("CONNECT a:80/ HTTP/1.1\r\nHost: a:80\r\n\r\n", errTargetAuthority)
	f("CONNECT a:80 HTTP/1.1\r\nHost: b:80\r\n\r\n", errHostDisagrees)

	// Hosts.
	f("GET / HTTP/1.1\r\n\r\n", errHostMissing)
	f(hostIs(""), errHostInvalid)
	f(get("Host: a\r\n"), errHostTwice)
	f(get("hOST: b\r\n"), errHostTwice)
	f("GET / HTTP/1.0\r\nHost:\r\nHost:\r\n\r\n", errHostTwice)
	for _, host := range []string{"a b", "a,b", "a/b", "a?b", "a#b", "u@a", "a:", "a:b", "a:-1", "a:65536", "a:000001", "a:1:2",
		":80", "::1", "a\tb", "a\xffb", "a%41", "a;b", "a'b", `"a"`, "a\\b", "http://a", "[]", "[a", "a]", "[::1]a", "[::1]:", "[1.2.3.4]",
		"[::1%25eth0]", ".a", "a..", "a..b", "..", ".", "[v1.a]", "[1:2:3:4:5:6:7:8:9]", "[::1::2]", "*"} {
		f(hostIs(host), errHostInvalid)
	}

	// Fields.
	f("GET / HTTP/1.1\r\n Host: a\r\n\r\n", errFold) // before the first field
	f("GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", errFold)
	f(get("X: a\r\n b\r\n"), errFold)
	f(get("X: a\r\n\tb\r\n"), errFold)
	f(get("X: a\r\n \r\n"), errFold)
	f(get("X : a\r\n"), errNameSpace)
	f(get("X\t: a\r\n"), errNameSpace)
	f(get("X Y: a\r\n"), errNameSpace)
	f(get(": a\r\n"), errNameEmpty)
	f(get("X\r\n"), errNoColon)
	f(get("X\n"), errBareLF)
	for _, c := range []string{"\x00", "\x01", "\x0b", "\x1f", "\x7f", "\x80", "\xff", "(", ")", ",", "/", ";", "<", "=", ">", "?", "@", "[", "\\", "]", "{", "}", `"`} {
		f(get("X"+c+"Y: a\r\n"), errNameInvalid)
		f(get(c+"X: a\r\n"), errNameInvalid)
	}
	for c := range 0x20 {
		if c == '\t' || c == '\n' || c == '\r' {
			continue
		}
		f(get("X: a"+string(rune(c))+"b\r\n"), errValueInvalid)
		f(get("X: some longer value "+string(rune(c))+"\r\n"), errValueInvalid)
	}
	f(get("X: a\x7f\r\n"), errValueInvalid)
	f(get("X: a\n"), errBareLF)
	f(get("X: a\nY: b\r\n"), errBareLF)
	f(get("X: a\rY: b\r\n"), errBareCR)
	f(get("X: a\r\r\n"), errBareCR)
	f("GET / HTTP/1.1\r\nHost: a\r\n\n", errBareLF)
	f("GET / HTTP/1.1\r\nHost: a\n\r\n", errBareLF)
	f("GET / HTTP/1.1\r\nHost: a\n\n", errBareLF)
	f("GET / HTTP/1.1\r\nHost: a\r\n\rX", errBareCR)

	// Framing.
	for _, length := range []string{"", "-1", "+1", "1 1", "1,1", "1, 1", "0x10", "1e3", "1.0", "1;", "a", "00", "01", "0001", "٣",
		"1000000000000000000", "9223372036854775808", "18446744073709551616", strings.Repeat("9", 100)} {
		f(get("Content-Length: "+length+"\r\n"), errLengthInvalid)
	}
	f(get("Content-Length: 1\r\nContent-Length: 1\r\n"), errLengthTwice)
	f(get("Content-Length: 1\r\nContent-Length: 2\r\n"), errLengthTwice)
	f(get("Content-Length: 0\r\nX: y\r\ncontent-length: 0\r\n"), errLengthTwice)
	f(get("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), errLengthAndCoding)
	f(get("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n"), errLengthAndCoding)
	f(get("Transfer-Encoding: identity\r\nContent-Length: 1\r\n"), errLengthAndCoding)
	f(get("Transfer-Encoding:\r\nContent-Length: 1\r\n"), errLengthAndCoding)
	f(get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), errCodingTwice)
	f(get("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"), errCodingTwice)
	for _, coding := range []string{"", "identity", "gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "chunked,", ",chunked",
		"xchunked", "chunkedx", "chunked;q=1", `"chunked"`, "chun ked", "c\thunked"} {
		f(get("Transfer-Encoding: "+coding+"\r\n"), errCodingNotOffered)
	}
	f(get("Transfer-Encoding: \x0bchunked\r\n"), errValueInvalid)
	f(get("Transfer-Encoding : chunked\r\n"), errNameSpace)
	f(get("Transfer-Encoding\x00: chunked\r\n"), errNameInvalid)
	f(get("X: y\nTransfer-Encoding: chunked\r\n"), errBareLF)
	f("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", errCodingInHTTP10)

	// Connection.
	for _, name := range []string{"Host", "content-length", "Authorization", "Cookie", "X-Forwarded-For", "forwarded", "Via", "Expect"} {
		f(get("Connection: close, "+name+"\r\n"), errOptionForbidden)
	}
	f(get("Connection: a b\r\n"), errOptionInvalid)
	f(get("Connection: close; x\r\n"), errOptionInvalid)
	f(get("Connection: \"close\"\r\n"), errOptionInvalid)
	f(get("Connection: "+strings.Repeat("x,", nominatedMax)+"x\r\n"), errOptionsTooMany)
	f(get("Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n"), errUpgradeTwice)
}

func TestRequestLimits(t *testing.T) {
	t.Parallel()
	f := func(in string, lim Limits, want *Error) {
		t.Helper()
		_, n, err := requestOutcome(t, in, lim)
		if want == nil && (err != nil || n != len(in)) || want != nil && err != error(want) {
			t.Errorf("%q with %+v: %d, %v, want %v", in, lim, n, err, want)
		}
	}
	in := "GET /12345 HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"
	line := strings.Index(in, "\r\n")
	f(in, Limits{HeadBytes: len(in)}, nil)
	f(in, Limits{HeadBytes: len(in) - 1}, errHeadTooLarge)
	f(in, Limits{HeadBytes: line + 3}, errHeadTooLarge)
	f(in[:len(in)-1], Limits{HeadBytes: len(in) - 1}, errHeadTooLarge)
	f(in, Limits{LineBytes: line}, nil)
	f(in, Limits{LineBytes: line - 1}, errTargetTooLong)
	f("\r\n"+in, Limits{LineBytes: line}, nil)
	f("\r\n"+in, Limits{LineBytes: line - 1}, errTargetTooLong)
	f(in, Limits{HeadBytes: line}, errTargetTooLong)
	f(in, Limits{HeadBytes: line + 2}, errHeadTooLarge)
	f(in, Limits{Fields: 2}, nil)
	f(in, Limits{Fields: 1}, errTooManyFields)
	f("GET /"+strings.Repeat("a", 2000), Limits{HeadBytes: 1000}, errTargetTooLong)
	f("GET /"+strings.Repeat("a", 200), Limits{LineBytes: 100}, errTargetTooLong)
	f("GET / HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("a", 2000), Limits{HeadBytes: 1000}, errHeadTooLarge)
	f("GET / HTTP/1.1\r\nHost: a\r\n"+strings.Repeat("X: y\r\n", 127)+"\r\n", Limits{}, nil)
	f("GET / HTTP/1.1\r\nHost: a\r\n"+strings.Repeat("X: y\r\n", 128)+"\r\n", Limits{}, errTooManyFields)
	f("GET / HTTP/1.1\r\nHost: a\r\nConnection: "+strings.Repeat(",", 500)+"\r\n\r\n", Limits{}, nil)
	f(in, Limits{HeadBytes: -1, LineBytes: -1, Fields: -1}, nil)
}

func TestIncompleteIsNoError(t *testing.T) {
	t.Parallel()
	in := []byte(usualRequest)
	for k := range len(in) {
		var r Request
		if n, err := r.Parse(in[:k], Limits{}); n != 0 || err != nil {
			t.Fatalf("%q: %d, %v", in[:k], n, err)
		}
	}
}

// A head that trickles in must not be parsed again for each byte.
func TestTrickleIsLinear(t *testing.T) {
	t.Parallel()
	in := []byte("GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n", 100) + "\r\n")
	var r Request
	parses := 0
	for k := range len(in) {
		if r.again(in[:k]) {
			parses++
		}
		if n, err := r.Parse(in[:k], Limits{}); n != 0 || err != nil {
			t.Fatalf("%d: %d, %v", k, n, err)
		}
	}
	if parses > 16 {
		t.Errorf("%d parses of %d bytes that came one by one", parses, len(in))
	}
}

func TestReuseAfterIncompleteNeedsReset(t *testing.T) {
	t.Parallel()
	var r Request
	if n, err := r.Parse([]byte("POST /first HTTP/1.1\r\nHost: first\r\nContent-Length: 5\r\n"), Limits{}); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	r.Reset()
	in := []byte("GET /second HTTP/1.1\r\nHost: second\r\nX-A: a\r\nX-B: bbbbbbbbbbbbbbbbbbb\r\n\r\n")
	if n, err := r.Parse(in, Limits{}); n != len(in) || err != nil {
		t.Fatal(n, err)
	}
	if got, want := r.summary(), "GET /second 1.1 host=second"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(r.Fields) != 3 {
		t.Errorf("%d fields, want 3", len(r.Fields))
	}
}

func TestFieldsAreViewsInOrder(t *testing.T) {
	t.Parallel()
	in := []byte("GET / HTTP/1.1\r\nHost:a\r\nx-A: \t b c \t\r\nX-a:\r\nCOOKIE: d\r\n\r\n")
	var r Request
	if _, err := r.Parse(in, Limits{}); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, f := range r.Fields {
		fmt.Fprintf(&got, "%s=%s(%s) ", f.Name, f.Value, f.Known)
		if !inside(in, f.Name) || !inside(in, f.Value) {
			t.Errorf("field %s is no view", f.Name)
		}
	}
	if want := "Host=a(host) x-A=b c() X-a=() COOKIE=d(cookie) "; got.String() != want {
		t.Errorf("got %s, want %s", got.String(), want)
	}
	if v, ok := r.Lookup("X-A"); !ok || string(v) != "b c" {
		t.Errorf("Lookup(X-A) = %q, %v", v, ok)
	}
	if v, ok := r.Lookup("X-B"); ok || v != nil {
		t.Errorf("Lookup(X-B) = %q, %v", v, ok)
	}
	if v := r.Get(KnownCookie); string(v) != "d" {
		t.Errorf("Get(KnownCookie) = %q", v)
	}
	if v := r.Get(KnownVia); v != nil {
		t.Errorf("Get(KnownVia) = %q", v)
	}
	if cap(r.Method) != len(r.Method) || cap(r.Fields[1].Value) != len(r.Fields[1].Value) {
		t.Error("append to a view would overwrite the buffer")
	}
}

func TestHopByHop(t *testing.T) {
	t.Parallel()
	in := "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Secret\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nTE: trailers\r\n" +
		"Trailer: x\r\nTransfer-Encoding: chunked\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nProxy-Authorization: x\r\nProxy-Authenticate: x\r\n" +
		"x-sECRET: 1\r\nX-Secre: 2\r\nCookie: c\r\nVia: v\r\n\r\n"
	r, _, err := requestOutcome(t, in, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, f := range r.Fields {
		if !r.HopByHop(f) {
			kept = append(kept, string(f.Name))
		}
	}
	if got, want := strings.Join(kept, " "), "Host Trailer X-Secre Cookie Via"; got != want {
		t.Errorf("kept %s, want %s", got, want)
	}
}

// inside says whether view lies within buf.
func inside(buf, view []byte) bool {
	if len(view) == 0 {
		return true
	}
	start, at := uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&view[0]))
	return at >= start && at+uintptr(len(view)) <= start+uintptr(len(buf))
}

func TestValidIPv6(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3:4:5:6:1.2.3.4", "::1.2.3.4",
		"1::1.2.3.4", "ABCD:ef01::", "", ":", ":::", "1", "1:", ":1", "1:2", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::1::",
		"12345::", "1::g", "::1.2.3", "::1.2.3.4.5", "::1.2.3.256", "::01.2.3.4", "::1.2.3.4:5", "1.2.3.4", "1.2.3.4::", "1:2:3:4:5:6:7:1.2.3.4",
		"::1.2.3.", "::.1.2.3", "1:::2", "::1:", ":1::", "1::2:"} {
		a, err := netip.ParseAddr(s)
		if want := err == nil && a.Is6(); validIPv6([]byte(s)) != want {
			t.Errorf("validIPv6(%q) = %v, want %v", s, !want, want)
		}
	}
}

func FuzzIPv6(f *testing.F) {
	f.Add("1:2:3:4:5:6:1.2.3.4")
	f.Add("::ffff:0.0.0.0")
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "%") {
			return // zones are not for hosts
		}
		a, err := netip.ParseAddr(s)
		if want := err == nil && a.Is6(); validIPv6([]byte(s)) != want {
			t.Errorf("validIPv6(%q) = %v, want %v", s, !want, want)
		}
	})
}

func TestErrorWords(t *testing.T) {
	t.Parallel()
	if got, want := errHostTwice.Error(), "bad syntax: more than one Host"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for k := BadSyntax; k <= NotImplemented; k++ {
		if strings.HasPrefix(k.String(), "kind") {
			t.Errorf("kind %d has no name", k)
		}
	}
	if got := ErrorKind(99).String(); got != "kind 99" {
		t.Errorf("got %q", got)
	}
}

func TestKnownNames(t *testing.T) {
	t.Parallel()
	for k := KnownNone + 1; k < KnownAlias; k++ {
		name := k.String()
		if name == "" || name != strings.ToLower(name) {
			t.Fatalf("known name %d is %q", k, name)
		}
		for _, written := range []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:]} {
			if got := lookupKnown([]byte(written)); got != k {
				t.Errorf("%s is %v", written, got)
			}
		}
		for _, other := range []string{name + "x", name[1:], name[:len(name)-1] + "_", bytesFlip(name)} {
			if got := lookupKnown([]byte(other)); got == k {
				t.Errorf("%s is %v", other, got)
			}
		}
		if alias := strings.Replace(name, "-", "_", 1); alias != name {
			for _, written := range []string{alias, strings.ToUpper(alias), strings.ReplaceAll(name, "-", "_")} {
				if got := lookupKnown([]byte(written)); got != KnownAlias {
					t.Errorf("%s is %v, not an alias", written, got)
				}
			}
		}
	}
	for name, want := range map[string]Known{
		"X-Forwarded-Port": KnownXForwarded, "x-forwarded-SSL": KnownXForwarded, "X-Forwarded-x": KnownXForwarded, "X-Forwarded-For-The-Longest-Of-Names": KnownXForwarded, "X-Forwarded-For_": KnownXForwarded,
		"X_Forwarded_Port": KnownAlias, "X-Forwarded_Prefix": KnownAlias, "x_forwarded-for_the_longest_of_names": KnownAlias,
		"X-Forwarded-": KnownNone, "X-Forwarded": KnownNone, "X-ForwardedxPort": KnownNone, "Y-Forwarded-Port": KnownNone, "X\rForwarded\rPort": KnownNone, "": KnownNone,
	} {
		if got := lookupKnown([]byte(name)); got != want {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
	if got := Known(200).String(); got != "" {
		t.Errorf("Known(200) is %q", got)
	}
}

// bytesFlip gives a token that differs from name in one bit of its last byte.
func bytesFlip(name string) string {
	b := bytes.Clone([]byte(name))
	b[len(b)-1] ^= 0x40
	return string(b)
}
