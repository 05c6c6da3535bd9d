package httpdoor

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/fault"
	"github.com/menshen-gateway/menshen/internal/h1"
)

func TestIsCall(t *testing.T) {
	t.Parallel()
	f := func(contentType string, want bool) {
		t.Helper()
		if got := isCall([]byte(contentType)); got != want {
			t.Errorf("%q: %v", contentType, got)
		}
	}
	f("application/grpc", true)
	f("Application/gRPC+proto", true)
	f("application/grpc;charset=utf-8", true)
	f("application/grpc-web", false) // another protocol, without trailers
	f("application/json", false)
	f("", false)
}

func TestCallTimeout(t *testing.T) {
	t.Parallel()
	f := func(value string, want time.Duration) {
		t.Helper()
		x := &exchange{}
		if _, err := x.request.Parse([]byte("GET / HTTP/1.1\r\nHost: a\r\nGrpc-Timeout: "+value+"\r\n\r\n"), h1.Limits{}); err != nil {
			t.Fatal(err)
		}
		if got := x.callTimeout(); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
	f("1S", time.Second)
	f("250m", 250*time.Millisecond)
	f("7u", 7*time.Microsecond)
	f("9n", 9)
	f("2M", 2*time.Minute)
	f("99999999H", 0) // beyond what a Duration holds: no bound
	f("0m", 1)        // has passed already
	f("", 0)
	f("S", 0)
	f("-1S", 0)
	f("1", 0)
	f("1s", 0)
	f("123456789S", 0)
}

func TestCallMessage(t *testing.T) {
	t.Parallel()
	if got := callMessage("100% no\nü"); got != "100%25 no%0A%C3%BC" {
		t.Errorf("%q", got)
	}
}

// The manual's table is what the code does.
func TestCallStatusManual(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/http2.md")
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 4 || !strings.Contains(cells[2], "`") {
			continue
		}
		status, _, _ := strings.Cut(strings.TrimSpace(cells[2]), " ")
		for kind := range strings.SplitSeq(cells[1], ",") {
			written[strings.Trim(kind, " `")] = status
		}
	}
	for k := fault.Internal; k <= fault.Draining; k++ {
		want := written[k.String()]
		if want == "" {
			want = written["the others"]
		}
		if got := callStatus(k); got != want && k != fault.ClientGone {
			t.Errorf("%s: %s, the manual says %s", k, got, want)
		}
	}
}
