package app

import (
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
)

func TestListenFault(t *testing.T) {
	t.Parallel()
	f := func(err error, want string) {
		t.Helper()
		got := listenFault("listener web (:80)", ":80", fmt.Errorf("listen: %w", err)).Error()
		if !strings.HasPrefix(got, "cannot open listener web (:80): listen: ") || !strings.HasSuffix(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	f(syscall.EADDRINUSE, "(ss -ltnp 'sport = :80' tells who has it)")
	f(syscall.EACCES, "(ports below 1024 need root, or once: setcap cap_net_bind_service=+ep on this program)")
	f(syscall.EADDRNOTAVAIL, "(no interface of this machine has this address)")
	f(net.UnknownNetworkError("x"), "unknown network x")
}
