package sqldoor

import (
	"testing"
	"unsafe"

	"github.com/menshen-gateway/menshen/internal/poll"
	"github.com/menshen-gateway/menshen/internal/sqldoor/wire"
)

// Ten thousand idle sessions hold little but these, and a stack of 4 KiB each where they need a goroutine (see Resume). The bounds are size classes of Go's allocator: one byte more costs the next class. A session that
// needs another one is worth a thought: what only a running statement needs can be borrowed for it.
func TestIdleSessionAllocation(t *testing.T) {
	for _, one := range []struct {
		name      string
		size, max uintptr
	}{
		{"session", unsafe.Sizeof(session{}), 1408},
		{"wire.Conn", unsafe.Sizeof(wire.Conn{}), 128},
		{"poll.Conn", unsafe.Sizeof(poll.Conn{}), 320},
	} {
		if one.size > one.max {
			t.Errorf("%s has %d bytes, at most %d are meant", one.name, one.size, one.max)
		}
		t.Logf("%s: %d of %d bytes", one.name, one.size, one.max)
	}
}
