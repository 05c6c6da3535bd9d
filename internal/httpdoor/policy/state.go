package policy

import (
	"reflect"
	"sync"
)

// States holds what policies remember across reloads (the counts of a limit), by key. A state lives as long as some policy of
// the generation in service leases it; then it is left to the garbage collector: whoever still serves by an older
// generation may go on using it. A state that has to be closed does not exist yet.
//
// Locks: building is held by the open generation; mu guards held, for moments only.
type States struct {
	building sync.Mutex

	mu   sync.Mutex
	held map[string]any
}

// NewStates makes an empty registry.
func NewStates() *States { return &States{held: map[string]any{}} }

// Len is the number of states that are held.
func (s *States) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held)
}

// Generation collects the leases of one configuration. Nothing that is held changes before Commit. It is for one goroutine.
type Generation struct {
	states *States
	ended  bool
	leased map[string]lease
}

type lease struct {
	state    any
	settings any
	place    string
}

// Begin opens a generation; it waits while another one is open. Each must end with Commit or Abort; an Abort after Commit does
// nothing.
func (s *States) Begin() *Generation {
	s.building.Lock()
	return &Generation{states: s, leased: map[string]lease{}}
}

// Commit holds what the generation leased, and nothing else.
func (g *Generation) Commit() {
	if g.ended {
		return
	}
	held := make(map[string]any, len(g.leased))
	for key, l := range g.leased {
		held[key] = l.state
	}
	g.states.mu.Lock()
	g.states.held = held
	g.states.mu.Unlock()
	g.end()
}

// Abort drops the generation.
func (g *Generation) Abort() {
	if !g.ended {
		g.end()
	}
}

func (g *Generation) end() {
	g.ended = true
	g.states.building.Unlock()
}

// State leases the state of a policy under a key: the one that is held from the generation before, or a fresh one. Policies of
// one kind that give the same key share it; then their settings, which are compared, must be equal: place says where they
// are others, "" when all is well. What would make an old state useless (another unit of counting) belongs into the key.
func State[T any](e *Env, key string, settings any, fresh func() *T) (state *T, place string) {
	g := e.States
	key = e.kind + " " + key
	if l, leased := g.leased[key]; leased {
		if !reflect.DeepEqual(l.settings, settings) {
			return l.state.(*T), l.place
		}
		return l.state.(*T), ""
	}
	g.states.mu.Lock()
	old, _ := g.states.held[key].(*T)
	g.states.mu.Unlock()
	if old == nil {
		old = fresh()
	}
	g.leased[key] = lease{old, settings, e.Place}
	return old, ""
}
