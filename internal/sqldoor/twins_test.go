package sqldoor

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/menshen-gateway/menshen/internal/testenv"
)

// twins are a session through the gateway and one of its own on a server that nobody shares: they are told the same, and their answers must be equal.
type twins struct {
	*pairs
	name         string // in errors
	random       *rand.Rand
	ours, theirs *sql.Conn
	prepared     [2]map[string]*sql.Stmt // with keep
	history      []string
}

// pairs is what all the twins of a test have in common.
type pairs struct {
	t               *testing.T
	seed            uint64
	through, direct *sql.DB
	keep            bool // statements with arguments stay prepared

	mu             sync.Mutex
	asked, refused int
	stop           bool // after the first difference
}

// beside makes pairs of sessions through a gate and on a plain server.
func (g *gate) beside(t *testing.T, plain *testenv.DB, seed uint64) *pairs {
	t.Helper()
	direct, err := sql.Open("mysql", plain.DSN("gate:secret", "shop")+"?multiStatements=true")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = direct.Close() })
	direct.SetMaxIdleConns(0)
	through := g.pool("app:apple", "shop", "multiStatements=true")
	through.SetMaxIdleConns(0)
	t.Logf("seed %d", seed)
	return &pairs{t: t, seed: seed, through: through, direct: direct}
}

// meet opens the sessions of a pair; nil says that it could not, and that the test has failed.
func (p *pairs) meet(name string, random *rand.Rand) *twins {
	w := &twins{pairs: p, name: name, random: random, prepared: [2]map[string]*sql.Stmt{{}, {}}}
	for db, c := range map[*sql.DB]**sql.Conn{p.through: &w.ours, p.direct: &w.theirs} {
		var err error
		if *c, err = db.Conn(context.Background()); err != nil {
			p.t.Error(err)
			return nil
		}
	}
	return w
}

// part ends both sessions.
func (w *twins) part() {
	for _, c := range []*sql.Conn{w.ours, w.theirs} {
		_ = c.Raw(func(any) error { return errBad })
		_ = c.Close()
	}
}

// both says a statement to both. It is false when the answers differ, which fails the test and ends it for all pairs, or when the gateway refused.
func (w *twins) both(statement string, args ...any) (same bool) {
	w.mu.Lock()
	w.asked++
	over := w.stop
	w.mu.Unlock()
	if over {
		return false
	}
	w.history = append(w.history, fmt.Sprint(statement, args))
	got, want := w.say(0, w.ours, statement, args), w.say(1, w.theirs, statement, args)
	if got == want {
		return true
	}
	if got == "error 1105" { // what cannot be known any more; an error on both sides, so that both go on from the same
		ask(w.ours, "SELECT bad")
		ask(w.theirs, "SELECT bad")
		w.mu.Lock()
		w.refused++
		w.mu.Unlock()
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stop {
		w.t.Errorf("%s: %s%q\nafter %q", w.name, differ(got, want), args, w.history[max(0, len(w.history)-20):])
	}
	w.stop = true
	return false
}

// say gives the answer of one of the two.
func (w *twins) say(n int, c *sql.Conn, statement string, args []any) string {
	if !w.keep || len(args) == 0 {
		return ask(c, statement, args...)
	}
	if w.prepared[n][statement] == nil {
		st, err := c.PrepareContext(context.Background(), statement)
		if err != nil {
			return fmt.Sprint("error ", code(err))
		}
		w.prepared[n][statement] = st
	}
	return answerOf(w.prepared[n][statement].Query(args...))
}
