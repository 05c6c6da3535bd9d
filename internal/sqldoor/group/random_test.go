package group

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

// world is three servers, an operator who does what operators do, and a gateway that checks them one at a time and writes where the
// decision says. The operator promotes only when the primary is read-only or was seen to fail, but servers fail and come back as they like: the one
// that was first configured as a primary comes back writable.
type world struct {
	t       *testing.T
	random  *rand.Rand
	now     time.Time
	group   *Group
	servers map[string]*server
	d       Decision
	log     []string
	quiet   int // rounds of checks since something happened
}

type server struct {
	name     string
	state    byte // up, silent, gone: 'u', 's', 'g'
	writable bool
	follows  string          // "" for nobody
	promoted bool            // an operator made it writable
	native   bool            // comes back writable
	has      map[string]bool // writes
	last     uint64
	wrote    map[uint32]uint64 // server id to its last transaction here
}

var names = []string{"a", "b", "c"}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1e9, 0), servers: map[string]*server{}, group: New(Settings{Members: names, MaxLag: 2 * time.Second})}
	for i, name := range names {
		s := &server{name: name, state: 'u', writable: i == 0, native: i == 0, has: map[string]bool{}, wrote: map[uint32]uint64{}}
		if i > 0 {
			s.follows = "a"
		}
		w.servers[name] = s
	}
	return w
}

func (w *world) note(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.log[max(0, len(w.log)-60):], "\n"))
}

// replicate lets every replica catch up.
func (w *world) replicate() {
	for range names {
		for _, s := range w.servers {
			if from := w.servers[s.follows]; from != nil && s.state == 'u' && from.state == 'u' && from.last > s.last {
				maps.Copy(s.has, from.has)
				maps.Copy(s.wrote, from.wrote)
				s.last = from.last
			}
		}
	}
}

func (w *world) position(s *server) Position {
	var all []string
	for id, last := range s.wrote {
		all = append(all, fmt.Sprintf("0-%d-%d", id, last))
	}
	p, err := ParseMariaDB(strings.Join(all, ","))
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// check is one check of one server, and the write that a client sends after it.
func (w *world) check(name string) {
	s := w.servers[name]
	o := Observation{Began: w.now, ServerID: ids[name]}
	switch w.now = w.now.Add(time.Millisecond); s.state {
	case 's':
		o.Err = errors.New("no answer")
	case 'g':
		o.Err, o.Gone = errors.New("refused"), true
	default:
		o.Writable, o.Position = s.writable, w.position(s)
		if s.follows != "" {
			source := Source{Address: s.follows, ServerID: ids[s.follows], IO: Connecting, SQL: true}
			if w.servers[s.follows].state == 'u' {
				source.IO, source.Measured = Connected, true
			}
			o.Sources = []Source{source}
		}
	}
	o.At = w.now
	w.group.Observe(name, o)
	before := w.d
	w.d = w.group.Decide(w.now)
	w.note("check %s %c writable=%v follows %q last=%d: %s %s (%s)", name, s.state, s.writable, s.follows, s.last, w.d.State, w.d.Primary, w.d.Reason)
	w.judge(before)
	if p := w.servers[w.d.Primary]; w.d.State == Ready && p.state == 'u' && p.writable {
		p.last++
		p.wrote[ids[p.name]] = p.last
		p.has[fmt.Sprintf("%s-%d", p.name, p.last)] = true
	}
}

// judge holds the decision against the world.
func (w *world) judge(before Decision) {
	w.t.Helper()
	if w.d.State == Ready {
		p := w.servers[w.d.Primary]
		if m := w.group.members[w.d.Primary]; !m.good.Writable || m.gone() {
			w.fail("%s is the primary, but was not seen so", p.name)
		}
		if w.d.Took != "" && !p.promoted {
			for id := range w.servers[w.d.Took].has {
				if !p.has[id] {
					w.fail("nobody promoted %s, which lacks %s of %s", p.name, id, w.d.Took)
				}
			}
		}
	}
	var writers, readers []string
	for _, name := range names {
		if s := w.servers[name]; s.state == 'u' && s.writable {
			writers = append(writers, name)
		}
	}
	for _, v := range w.d.Instances {
		if v.Reads {
			readers = append(readers, v.Address)
		}
	}
	if len(writers) > 1 && w.d.State == Ready && w.quiet >= 1 {
		w.fail("%v are writable, and %s is the primary", writers, w.d.Primary)
	}
	if len(writers) > 1 && w.d.State != Split && w.quiet >= 4 {
		w.fail("%v are writable, and that was not found out", writers)
	}
	if len(writers) == 1 && w.d.State != Ready && w.quiet >= 5 && w.servers[writers[0]].promoted && w.akin(writers[0]) && w.group.replaced[writers[0]] == "" {
		w.fail("%s was promoted, and that was not found out", writers[0])
	}
	if len(writers) == 0 && w.d.State == Ready && w.quiet >= 4 {
		w.fail("nothing is writable, and %s is the primary", w.d.Primary)
	}
	for _, name := range readers {
		if s := w.servers[name]; s.writable && s.state == 'u' && w.quiet >= 1 {
			w.fail("%s is a readable replica, and is writable", name)
		}
	}
	_ = before
}

// akin says that a server shares a write with the last primary.
func (w *world) akin(name string) bool {
	last := w.servers[w.group.incumbent]
	if last == nil {
		return false
	}
	for id := range w.servers[name].has {
		if last.has[id] {
			return true
		}
	}
	return false
}

// act is one thing that happens.
func (w *world) act() {
	s := w.servers[names[w.random.IntN(3)]]
	other := w.servers[names[w.random.IntN(3)]]
	w.quiet = 0
	switch w.random.IntN(7) {
	case 0:
		s.state = 'g'
		w.note("%s is killed", s.name)
	case 1:
		s.state = 's'
		w.note("%s hangs", s.name)
	case 2, 3:
		if s.state == 'g' { // by its configuration file
			s.writable, s.promoted = s.native, false // it replicates from where it did before
		}
		s.state = 'u'
		w.note("%s is up", s.name)
	case 4: // a switchover by the book
		p := w.servers[w.d.Primary]
		if p == nil || p.state != 'u' || !p.writable || s == p || s.state != 'u' || s.follows == "" {
			return
		}
		p.writable = false
		w.replicate()
		if s.last < p.last { // it does not follow the primary
			p.writable = true
			return
		}
		s.follows, s.writable, s.promoted = "", true, true
		w.note("switchover from %s to %s", p.name, s.name)
		if w.random.IntN(2) == 0 {
			p.follows = s.name
		}
	case 5: // a failover by the book
		for _, o := range w.servers {
			if o.state == 'u' && (o.writable || o.last > s.last) {
				return
			}
		}
		if s.state == 'u' {
			s.follows, s.writable, s.promoted = "", true, true
			w.note("%s is promoted", s.name)
		}
	case 6: // a replica is repointed, or an old primary made one: with what the other one does not have it is built anew
		if s != other && s.state == 'u' && other.state == 'u' && other.writable && other.name == w.d.Primary {
			s.follows, s.writable, s.promoted = other.name, false, false
			s.has, s.wrote, s.last = maps.Clone(other.has), maps.Clone(other.wrote), other.last
			w.note("%s follows %s", s.name, other.name)
		}
	}
}

func TestRandomLives(t *testing.T) {
	t.Parallel()
	splits, failovers, refused := 0, 0, 0
	lives := uint64(20)
	if os.Getenv("MENSHEN_TEST_LONG") != "" {
		lives = 4000
	}
	for seed := range lives {
		w := newWorld(t, seed)
		w.note("seed %d", seed)
		was := Starting
		for range 300 {
			if w.random.IntN(8) == 0 {
				w.act()
			}
			if w.random.IntN(3) > 0 {
				w.replicate()
			}
			for _, i := range w.random.Perm(3) {
				w.check(names[i])
				if w.d.Took != "" {
					failovers++
				}
				if w.d.State == Split && was != Split {
					splits++
				}
				if strings.Contains(w.d.Reason, "has not followed it since") {
					refused++
				}
				was = w.d.State
			}
			w.quiet++
			w.now = w.now.Add(time.Second)
		}
	}
	if splits < 3 || failovers < 3 || refused < 3 {
		t.Errorf("too little happened: %d splits, %d failovers, %d checks with an old primary", splits, failovers, refused)
	}
	t.Logf("%d splits, %d failovers, %d checks with an old primary", splits, failovers, refused)
}
