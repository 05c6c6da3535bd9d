package app

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// handle is a listening socket as one accept loop sees it: detach ends the loop, as closing would, and leaves the socket
// open for the next one. Connections that wait in the socket's queue stay there.
type handle struct {
	net.Listener
	detached atomic.Bool
}

func newHandle(ln net.Listener) *handle {
	if d, ok := ln.(interface{ SetDeadline(time.Time) error }); ok {
		_ = d.SetDeadline(time.Time{})
	}
	return &handle{Listener: ln}
}

// Accept waits for a connection.
func (h *handle) Accept() (net.Conn, error) {
	c, err := h.Listener.Accept()
	if err != nil && h.detached.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, net.ErrClosed
	}
	return c, err
}

// Close leaves the socket open: it is app's to close.
func (h *handle) Close() error {
	h.detach()
	return nil
}

func (h *handle) detach() {
	if h.detached.Swap(true) {
		return // the socket may serve another loop by now
	}
	if d, ok := h.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		_ = d.SetDeadline(time.Unix(1, 0))
	}
}
