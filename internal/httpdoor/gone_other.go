//go:build !linux

package httpdoor

import "github.com/menshen-gateway/menshen/internal/poll"

// peerGone cannot tell here: a client that left is noticed when something is written to it.
func peerGone(*poll.Conn, bool) bool { return false }
