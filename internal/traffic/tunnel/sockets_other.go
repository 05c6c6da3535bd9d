//go:build !unix

package tunnel

// relaySockets has no form for this system: relayAny does all.
func (d *direction) relaySockets() (relayed bool, err error) { return false, nil }
