package app

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// listenFault says why an address cannot be listened on, and what helps.
func listenFault(what, address string, err error) error {
	_, port, _ := net.SplitHostPort(address)
	hint := ""
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		hint = fmt.Sprintf(" (ss -ltnp 'sport = :%s' tells who has it)", port)
	case errors.Is(err, syscall.EACCES):
		hint = " (ports below 1024 need root, or once: setcap cap_net_bind_service=+ep on this program)"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		hint = " (no interface of this machine has this address)"
	}
	return fmt.Errorf("cannot open %s: %w%s", what, err, hint)
}
