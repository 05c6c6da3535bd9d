package apikey

import (
	"bytes"
	"net/url"
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy/policytest"
)

const consumers = `{app: {groups: [b, a], api_keys: [one, "sha256:3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"]}, "x.y": {api_keys: "a+b c&=%"}}`

func TestWhose(t *testing.T) {
	t.Parallel()
	// want is the request as the endpoint sees it, after a "?query" if there is one; "401" and the challenge for a refusal.
	f := func(settings, line, want string, fields ...string) {
		t.Helper()
		x := policytest.Request(t, line, fields...)
		got := ""
		switch outcome := policytest.Must(t, Kind, settings, consumers).Request(x); outcome {
		case policy.Continue:
			if x.HasQuery {
				got = "?" + string(x.Query) + " "
			}
			got += policytest.Forwarded(x)
		case policy.Refused:
			if x.Fault.Kind != fault.Unauthenticated {
				t.Errorf("%v", x.Fault)
			}
			got = "401 " + strings.TrimPrefix(policytest.Answered(x), "WWW-Authenticate: ")
			if x.Consumer != nil {
				t.Error("refused as somebody")
			}
		default:
			t.Fatal(outcome)
		}
		if got != want {
			t.Errorf("%s, %s %q:\n got %s\nwant %s", settings, line, fields, got, want)
		}
	}
	const app = "X-Consumer-Name: app; X-Consumer-Groups: a,b"
	const noKey, badBearer = `401 ApiKey realm="menshen"`, `401 Bearer realm="menshen", error="invalid_token"`

	f(`{}`, "GET /", "X-A: 1; "+app, "X-API-Key: one", "X-A: 1")
	f(`{}`, "GET /", app, "x-api-key: two", "X-Consumer-Name: root", "x-consumer-groups: wheel", "X-Consumer-Id: 0")
	f(`{}`, "GET /", noKey)
	f(`{}`, "GET /", noKey, "X-API-Key: three")
	f(`{}`, "GET /", noKey, "X-API-Key:")
	f(`{}`, "GET /", noKey, "X-API-Key: one", "X-API-Key: one") // whose is it?
	f(`{}`, "GET /", noKey, "X-API-Key: sha256:3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3")
	f(`{}`, "GET /?X-API-Key=one", noKey, "Authorization: Bearer one", "Cookie: X-API-Key=one")
	f(`"header:X-Key"`, "GET /", app, "X-Key: one")
	f(`{anonymous: true}`, "GET /", "X-A: 1", "X-A: 1", "X-Consumer-Name: root")
	f(`{anonymous: true}`, "GET /", noKey, "X-API-Key: three") // a mistake, not nobody
	f(`{anonymous: true}`, "GET /", app, "X-API-Key: one")

	f(`bearer`, "GET /", app, "Authorization: Bearer one")
	f(`bearer`, "GET /", app, "Authorization: bearer   one")
	f(`bearer`, "GET /", `401 Bearer realm="menshen"`)
	f(`bearer`, "GET /", `401 Bearer realm="menshen"`, "Authorization: Basic b25l")
	f(`bearer`, "GET /", badBearer, "Authorization: Bearer three")
	f(`bearer`, "GET /", badBearer, "Authorization: Bearer")
	f(`bearer`, "GET /", badBearer, "Authorization: Bearer one", "Authorization: Bearer one")
	f(`{in: bearer, anonymous: true}`, "GET /", "Authorization: Basic b25l", "Authorization: Basic b25l")

	f(`"query:key"`, "GET /?key=one", app)
	f(`"query:key"`, "GET /?a=1&key=one&b=2", "?a=1&b=2 "+app)
	f(`"query:key"`, "GET /?key=one&b=2", "?b=2 "+app)
	f(`"query:key"`, "GET /?a=1&key=one", "?a=1 "+app)
	f(`"query:key"`, "GET /?a=%41&k%65y=%6fne&&b", "?a=%41&&b "+app)
	f(`"query:key"`, "GET /?key=a%2Bb+c%26%3d%25", "X-Consumer-Name: x.y")
	f(`"query:key"`, "GET /?key=one&key=one", noKey)
	f(`"query:key"`, "GET /?keys=one&xkey=one", noKey)
	f(`"query:key"`, "GET /?key", noKey)
	f(`"query:key"`, "GET /?key=%", noKey)
	f(`{in: "query:key", anonymous: true}`, "GET /?", "? ")

	f(`"cookie:key"`, "GET /", app, "Cookie: key=one")
	f(`"cookie:key"`, "GET /", "Cookie: a=1; b=2; c=3; "+app, "Cookie: a=1; key=one;b=2", "Cookie: c=3")
	f(`"cookie:key"`, "GET /", noKey, "Cookie: xkey=one; key")
	f(`"cookie:key"`, "GET /", noKey, "Cookie: key=one; key=two")
}

func TestRefusesSettings(t *testing.T) {
	t.Parallel()
	f := func(settings, want string) {
		t.Helper()
		if p, got := policytest.Compile(Kind, settings, ""); p != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %s, want %s", settings, got, want)
		}
	}
	for _, in := range []string{"header", "header:", "header:a b", "header:Host", "header:Content-Length", "query:", "query:a&b", "cookie:", "cookie:a=b", "bearer:x", "body", ""} {
		f(`{in: "`+in+`"}`, `.in: "`+in+`" is no place of a key (accepted: header:NAME, query:NAME, cookie:NAME or bearer)`)
	}
	f(`{anonymous: maybe}`, ".anonymous: is the text")
	f(`{keys: [a]}`, ".keys: unknown key")
}

func TestAllocatesNothing(t *testing.T) {
	p := policytest.Must(t, Kind, `{}`, consumers)
	x := policytest.Request(t, "GET /", "X-API-Key: one")
	if n := testing.AllocsPerRun(100, func() {
		x.ToEndpoint.Reset()
		p.Request(x)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The other parameters stay as they are, byte for byte, and none that a server would read as the key is left.
func FuzzQuery(f *testing.F) {
	for _, query := range []string{"", "key=one", "a&key=1&&b=&key", "k%65y=x", "%=%&key=%zz", "key=&key=", "&&&"} {
		f.Add(query)
	}
	k := policytest.Must(f, Kind, `"query:key"`, "").(*apiKey)
	f.Fuzz(func(t *testing.T, query string) {
		x := &policy.Exchange{Query: []byte(query), HasQuery: true}
		_, found, _ := k.take(x)
		if left, err := url.ParseQuery(string(x.Query)); err == nil && left.Has("key") {
			t.Errorf("%q: %q is left", query, x.Query)
		}
		var want [][]byte
		for part := range bytes.SplitSeq([]byte(query), []byte("&")) {
			name, _, _ := bytes.Cut(part, []byte("="))
			if decoded, err := url.QueryUnescape(string(name)); err != nil && string(unescape(name)) == "key" {
				return // only we can read it
			} else if decoded != "key" || err != nil {
				want = append(want, part)
			}
		}
		if !found && string(x.Query) != query {
			t.Errorf("%q became %q without a key", query, x.Query)
		}
		if found && strings.Trim(string(bytes.Join(want, []byte("&"))), "&") != strings.Trim(string(x.Query), "&") {
			t.Errorf("%q became %q", query, x.Query)
		}
	})
}
