package backend

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// vars makes settings in which all values are the same.
func vars(l *Variables, value string) *Vars {
	v := &Vars{List: l, values: make([]string, len(l.names)), null: make([]bool, len(l.names))}
	for i := range v.values {
		v.values[i] = value
	}
	return v
}

// Sessions with the same settings hold the same Vars, and what nobody holds is forgotten.
func TestVarsAreShared(t *testing.T) {
	l := newVariables("a b=n")
	first := l.one(vars(l, "1"))
	if l.one(vars(l, "1")) != first {
		t.Error("the same values are held twice")
	}
	other := vars(l, "1")
	other.null[1] = true
	if l.one(other) == first {
		t.Error("NULL is taken for a value")
	}
	if l.one(vars(l, "2")) == first {
		t.Error("other values are the same")
	}
	// Values must not run into each other.
	split, joined := vars(l, ""), vars(l, "")
	split.values[0], split.values[1], joined.values[0] = "x", "y", "xy"
	if l.one(split) == l.one(joined) {
		t.Error("x, y is taken for xy")
	}
	runtime.KeepAlive(first)
	testenv.Eventually(t, 10*time.Second, func() error {
		runtime.GC()
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.known) > 0 {
			return errors.New("settings that nobody holds are remembered")
		}
		return nil
	})
}
