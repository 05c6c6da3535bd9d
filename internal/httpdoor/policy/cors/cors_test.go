package cors

import (
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy/policytest"
)

func TestActualRequests(t *testing.T) {
	t.Parallel()
	f := func(settings, origin, want string) {
		t.Helper()
		var fields []string
		if origin != "" {
			fields = []string{"Origin: " + origin}
		}
		x := policytest.Request(t, "GET /", fields...)
		if got := policytest.Must(t, Kind, settings, "").Request(x); got != policy.Continue {
			t.Fatalf("outcome %d", got)
		}
		// What the endpoint says of CORS must not come beside what the gateway says.
		got := policytest.Answered(x, "X-A: 1", "Access-Control-Allow-Origin: https://evil.example", "Vary: Accept")
		if got = strings.TrimPrefix(got, "X-A: 1; "); got != want {
			t.Errorf("%s from %q: got %s, want %s", settings, origin, got, want)
		}
	}
	const a, upstream = `{origins: ["https://a.example", "http://b.example:80", "HTTPS://C.example:443", "https://d.example:8443", "null"]}`, "Access-Control-Allow-Origin: https://evil.example; "
	allowed := func(origin string) string {
		return "Vary: Accept; Vary: Origin; Access-Control-Allow-Origin: " + origin
	}
	f(a, "", upstream+"Vary: Accept; Vary: Origin")
	f(a, "https://a.example", allowed("https://a.example"))
	f(a, "HTTPS://A.Example", allowed("HTTPS://A.Example"))
	f(a, "http://b.example", allowed("http://b.example"))
	f(a, "https://c.example", allowed("https://c.example"))
	f(a, "https://d.example:8443", allowed("https://d.example:8443"))
	f(a, "null", allowed("null"))
	for _, other := range []string{"http://a.example", "https://a.example:444", "https://a.example.evil", "https://xa.example", "https://d.example", "a.example", "https://a.example/", strings.Repeat("x", 300)} {
		f(a, other, "Vary: Accept; Vary: Origin")
	}
	f(`"https://a.example"`, "null", "Vary: Accept; Vary: Origin")
	const re = `{origins: ["~https://.*[.]b[.]example", "~^https://c[0-9]+[.]example$"]}`
	f(re, "https://x.b.example", allowed("https://x.b.example"))
	f(re, "https://x.b.example.evil", "Vary: Accept; Vary: Origin") // the whole origin must match, with or without anchors
	f(re, "evil-https://x.b.example", "Vary: Accept; Vary: Origin")
	f(re, "https://c12.example", allowed("https://c12.example"))
	f(`"*"`, "", "Vary: Accept; Access-Control-Allow-Origin: *")
	f(`"*"`, "https://x.example", "Vary: Accept; Access-Control-Allow-Origin: *")
	f(`{origins: "https://a.example", credentials: true, expose: [X-A, X-B]}`, "https://a.example",
		allowed("https://a.example")+"; Access-Control-Allow-Credentials: true; Access-Control-Expose-Headers: X-A, X-B")
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	f := func(settings, want string, fields ...string) {
		t.Helper()
		x := policytest.Request(t, "OPTIONS /", append([]string{"Origin: https://a.example", "Access-Control-Request-Method: PUT"}, fields...)...)
		if got := policytest.Must(t, Kind, settings, "").Request(x); got != policy.Answered || x.Status != 204 || len(x.Body) > 0 {
			t.Fatalf("outcome %d, status %d", got, x.Status)
		}
		got := strings.TrimPrefix(policytest.Answered(x), "Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
		if got != want {
			t.Errorf("%s: got %s, want %s", settings, got, want)
		}
	}
	const one = `; Access-Control-Allow-Origin: https://a.example`
	f(`"https://a.example"`, one+"; Access-Control-Max-Age: 600; Access-Control-Allow-Methods: PUT; Access-Control-Allow-Headers: x-a", "Access-Control-Request-Headers: x-a")
	f(`"https://a.example"`, one+"; Access-Control-Max-Age: 600; Access-Control-Allow-Methods: PUT")
	f(`"https://b.example"`, "")
	f(`"*"`, "; Access-Control-Allow-Origin: *; Access-Control-Max-Age: 600; Access-Control-Allow-Methods: PUT")
	f(`{origins: "https://a.example", methods: [GET, POST], headers: [X-A], credentials: true, max_age: 0, expose: [X-C]}`,
		one+"; Access-Control-Allow-Credentials: true; Access-Control-Max-Age: 0; Access-Control-Allow-Methods: GET, POST; Access-Control-Allow-Headers: X-A", "Access-Control-Request-Headers: x-b")
	const private = "Access-Control-Request-Private-Network: true"
	f(`{origins: "https://a.example", private_network: true}`, one+"; Access-Control-Max-Age: 600; Access-Control-Allow-Methods: PUT; Access-Control-Allow-Private-Network: true", private)
	f(`"https://a.example"`, one+"; Access-Control-Max-Age: 600; Access-Control-Allow-Methods: PUT", private)

	for _, fields := range [][]string{{"Origin: https://a.example"}, {"Access-Control-Request-Method: PUT"}, {"Origin: https://a.example", "Access-Control-Request-Method: P U T"}} {
		x := policytest.Request(t, "OPTIONS /", fields...)
		if got := policytest.Must(t, Kind, `"*"`, "").Request(x); got != policy.Continue {
			t.Errorf("%v is no preflight", fields)
		}
	}
}

func TestRefusesSettings(t *testing.T) {
	t.Parallel()
	f := func(settings, want string) {
		t.Helper()
		if p, got := policytest.Compile(Kind, settings, ""); p != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %s, want %s", settings, got, want)
		}
	}
	f(`{}`, ".origins: is missing")
	f(`{origins: []}`, ".origins: is empty")
	f(`{origins: "*", credentials: true}`, ".credentials: with origins: * any site could act")
	f(`{origins: ["*", "https://a.example"]}`, ".origins: has * beside other origins")
	f(`{origins: "~("}`, `.origins[0]: "~(" is no regular expression`)
	f(`{origins: "~"}`, `.origins[0]: "~" is no regular expression`)
	for _, origin := range []string{"a.example", "https://", "https://a.example/", "https://a.example/x", "https://u@a.example", "https://*.a.example", "https://a b", "//a.example"} {
		f(`{origins: ["`+origin+`"]}`, `.origins[0]: "`+origin+`" is no origin`)
	}
	f(`{origins: "*", methods: [get]}`, ".methods")
	f(`{origins: "*", headers: ["a b"]}`, ".headers")
	f(`{origins: "*", max_age: -1s}`, ".max_age")
}

func TestAllocatesNothing(t *testing.T) {
	for _, settings := range []string{`"*"`, `{origins: ["https://x.example", "https://a.example"], credentials: true}`, `"~https://.*[.]example"`} {
		p := policytest.Must(t, Kind, settings, "")
		x := policytest.Request(t, "GET /", "Origin: https://a.example")
		if n := testing.AllocsPerRun(100, func() {
			x.ToClient.Reset()
			p.Request(x)
		}); n != 0 {
			t.Errorf("%s: %v allocations", settings, n)
		}
	}
}

// Only what is listed is ever allowed, whatever an origin looks like.
func FuzzOrigin(f *testing.F) {
	for _, origin := range []string{"https://a.example", "https://x.b.example", "null", "", "https://a.example.evil", "\xff"} {
		f.Add(origin)
	}
	p := policytest.Must(f, Kind, `{origins: ["https://a.example", "~https://[a-z]+[.]b[.]example"]}`, "").(*cors)
	f.Fuzz(func(t *testing.T, origin string) {
		lower := strings.ToLower(origin)
		name, found := strings.CutPrefix(lower, "https://")
		stem, sub := strings.CutSuffix(name, ".b.example")
		want := lower == "https://a.example" || found && sub && stem != "" && strings.Trim(stem, "abcdefghijklmnopqrstuvwxyz") == ""
		if got := p.allows([]byte(origin)); got != (want && isASCII(origin)) {
			t.Errorf("%q: %v", origin, got)
		}
	})
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
