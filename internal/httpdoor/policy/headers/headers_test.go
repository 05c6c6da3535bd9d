package headers

import (
	"strings"
	"testing"

	"github.com/menshen-gateway/menshen/internal/httpdoor/policy"
	"github.com/menshen-gateway/menshen/internal/httpdoor/policy/policytest"
	"github.com/menshen-gateway/menshen/internal/identity"
)

func TestEdits(t *testing.T) {
	t.Parallel()
	f := func(settings, wantRequest, wantResponse string) {
		t.Helper()
		x := policytest.Request(t, "GET /users/7/a/b", "X-A: 1", "X-B: 2", "x-a: 3", "Content-Type: text/plain", "X-Internal-Id: 5")
		x.Consumer = &identity.Consumer{Name: "app"}
		if got := policytest.Must(t, Kind, settings, "").Request(x); got != policy.Continue {
			t.Fatal(got)
		}
		if got := policytest.Forwarded(x); got != wantRequest {
			t.Errorf("%s: request\n got %s\nwant %s", settings, got, wantRequest)
		}
		if got := policytest.Answered(x, "Server: nginx", "X-B: 2"); got != wantResponse {
			t.Errorf("%s: response\n got %s\nwant %s", settings, got, wantResponse)
		}
	}
	const request, response = "X-A: 1; X-B: 2; x-a: 3; Content-Type: text/plain; X-Internal-Id: 5", "Server: nginx; X-B: 2"
	f(`{request: {set: {X-A: "4"}}}`, "X-B: 2; Content-Type: text/plain; X-Internal-Id: 5; X-A: 4", response)
	f(`{request: {add: {X-A: "4"}}}`, request+"; X-A: 4", response)
	f(`{request: {remove: [x-A, X-Internal-*]}}`, "X-B: 2; Content-Type: text/plain", response)
	f(`{request: {remove: X-A, add: {X-A: "4"}}}`, "X-B: 2; Content-Type: text/plain; X-Internal-Id: 5; X-A: 4", response)
	f(`{response: {remove: [server], set: {X-B: "{{}}"}, add: {X-C: "a b"}}}`, request, "X-B: {}; X-C: a b")
	f(`{request: {set: {X-P: "{path.id}/{path.*}", X-U: "u={consumer.name}", X-R: "{request.id}", X-C: "{client.address}"}}}`,
		request+"; X-C: 192.0.2.7; X-P: 7/a/b; X-R: id-1; X-U: u=app", response)
	f(`{response: {add: {X-P: "{path.id}"}}}`, request, response+"; X-P: 7")
}

// A value that comes out empty leaves the field out, and what the client sent does not stand in for it.
func TestEmptyValues(t *testing.T) {
	t.Parallel()
	x := policytest.Request(t, "GET /else", "X-User: root", "X-A: 1")
	policytest.Must(t, Kind, `{request: {set: {X-User: "{consumer.name}", X-Id: "{path.id}"}}}`, "").Request(x)
	if got := policytest.Forwarded(x); got != "X-A: 1" {
		t.Error(got)
	}
}

// The last word stands: policies see the edits of those before them.
func TestSeveral(t *testing.T) {
	t.Parallel()
	x := policytest.Request(t, "GET /", "X-A: 0")
	for _, settings := range []string{`{request: {set: {X-A: "1", X-B: "1"}}}`, `{request: {add: {X-A: "2"}, remove: [X-B]}}`, `{request: {add: {X-B: "3"}}}`} {
		policytest.Must(t, Kind, settings, "").Request(x)
	}
	if got := policytest.Forwarded(x); got != "X-A: 1; X-A: 2; X-B: 3" {
		t.Error(got)
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
	f(`{}`, ": changes nothing")
	f(`{request: {}}`, ": changes nothing")
	for _, name := range []string{"Content-Length", "transfer-encoding", "Connection", "Upgrade", "TE", "Trailer", "Keep-Alive"} {
		f(`{request: {set: {`+name+`: "1"}}}`, `.request.set.`+name+`: "`+name+`" frames the message`)
		f(`{response: {remove: [`+name+`]}}`, `.response.remove[0]: "`+name+`" frames the message`)
	}
	f(`{request: {set: {Host: a}}}`, `.request.set.Host: "Host" is written by Menshen (accepted: rewrite`)
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "Via", "X-Request-Id", "Expect"} {
		f(`{request: {add: {`+name+`: a}}}`, `.request.add.`+name+`: "`+name+`" is written by Menshen (accepted: headers`)
	}
	for _, name := range []string{"Date", "Via", "X-Response-Time"} {
		f(`{response: {remove: [X-A, `+name+`]}}`, `.response.remove[1]: "`+name+`" is written by Menshen`)
	}
	f(`{request: {remove: ["*"]}}`, `.request.remove[0]: "*" is no header name`)
	f(`{request: {set: {X-*: a}}}`, `.request.set.X-*: "X-*" is no header name`)
	f(`{request: {set: {a b: a}}}`, `.request.set.a b: "a b" is no header name`)
	f(`{request: {remove: ["a b"]}}`, `.request.remove[0]: "a b" is no header name`)
	f(`{request: {set: {X-A: "a\nb"}}}`, `.request.set.X-A: "a\nb" holds a control character`)
	f(`{request: {set: {X-A: "{path.idd}"}}}`, `.request.set.X-A: "{path.idd}" uses {path.idd}, which is not known here (did you mean {path.id}?`)
	f(`{request: {set: {X-A: "{"}}}`, `.request.set.X-A: "{" has a { without its }`)
	f(`{reqest: {set: {X-A: a}}}`, `.reqest: unknown key (accepted: request, response; nearest: request)`)
}

func TestAllocatesNothing(t *testing.T) {
	for _, settings := range []string{
		`{request: {set: {X-A: "1"}, remove: [X-B, X-C-*]}, response: {set: {X-D: "1"}, add: {X-E: "2"}}}`,
		`{request: {set: {X-P: "{path.id}", X-C: "{client.address}"}}}`, // templates do not, either
	} {
		p := policytest.Must(t, Kind, settings, "")
		x := policytest.Request(t, "GET /users/7/a")
		if n := testing.AllocsPerRun(100, func() {
			x.ToEndpoint.Reset()
			x.ToClient.Reset()
			p.Request(x)
		}); n != 0 {
			t.Errorf("%s: %v allocations", settings, n)
		}
	}
}
