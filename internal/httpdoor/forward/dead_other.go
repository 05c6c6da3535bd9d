//go:build !linux

package forward

import (
	"syscall"
	"time"
)

// unacknowledged leaves the matter to the system's own patience.
func unacknowledged(syscall.RawConn, time.Duration) error { return nil }
