package sqldoor

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/menshen-gateway/menshen/internal/observe"
	"github.com/menshen-gateway/menshen/internal/sqldoor/scan"
)

// This file is the statistics of statements: which texts there are, and what became of them. A digest is a normalised text in a database. Statements find theirs without a lock
// and without allocating; only a text that was not seen before takes the mutex.
//
// There is a bound on the number of digests (config: digests.max) and on the bytes of their texts. Beyond either, the sixteenth that was not seen for longest makes room, and what
// it had counted goes to its database's row "(other)", so that sums stay right. The same row counts statements that are odd or too long to have a digest.

// digest is one text. It never changes but for its counters.
type digest struct {
	hash     uint64 // of text and database
	print    uint64 // of text
	text     string
	database string // "": outside of any
	first    time.Time
	observe.Executions

	facts atomic.Pointer[knownFacts] // of the text, once they are known

	gone atomic.Bool            // it left the table: what is counted from now on would be lost
	next atomic.Pointer[digest] // with the same place in the table
}

// The sizes of the table.
const (
	digestPlaces   = 1 << 14
	digestBytesMax = 32 << 20 // of texts; one alone has at most 64 KiB
	digestOthers   = 512      // databases with a row "(other)" of their own
)

// digests is the table. The zero value is empty and ready. Safe for any number of goroutines.
type digests struct {
	places [digestPlaces]atomic.Pointer[digest]

	mu     sync.Mutex // held while the table changes
	count  int
	bytes  int // of texts
	others map[string]*digest
}

// prints are for looking up digests: what is kept of them is nothing.
var prints = sync.Pool{New: func() any { return &scan.Print{SlotsMax: 1} }}

// of gives the digest of a statement. whole says that text is all of it.
func (t *digests) of(text []byte, whole bool, m *scan.Mode, database string, most int) *digest {
	if !whole {
		return t.other(database)
	}
	p := prints.Get().(*scan.Print)
	defer prints.Put(p)
	p.Scan(text, m)
	if p.Opaque {
		return t.other(database)
	}
	h := mix(p.Hash, database)
	if d := t.find(h, p.Text, database); d != nil {
		return d
	}
	if reveals(p) {
		return t.other(database)
	}
	return t.add(h, p.Hash, string(p.Text), database, most)
}

// reveals says that a text without literals may hold a password all the same: one in the wrong quotes is a name, one without any is a word. Servers refuse such statements, but whoever has
// mistyped one says it again with the same password.
func reveals(p *scan.Print) bool {
	for rest := p.Text; ; {
		at := indexFold(rest, "identified by ")
		if at < 0 {
			break
		}
		if rest = rest[at+len("identified by "):]; !bytes.HasPrefix(rest, []byte("?")) && indexFold(rest[:min(len(rest), len("password"))], "password") < 0 && indexFold(rest[:min(len(rest), len("random"))], "random") < 0 {
			return true
		}
	}
	if bytes.IndexByte(p.Text, '"') < 0 {
		return false
	}
	first, _, _ := bytes.Cut(p.Text, []byte{' '})
	switch string(first) {
	case "select", "insert", "update", "delete", "replace", "with":
		if !p.Multi {
			return false
		}
	}
	return contains(p.Text, "password", "identified")
}

// indexFold gives where a text in small letters first occurs, in any case; -1 when it does not.
func indexFold(text []byte, small string) int {
	for i := 0; i+len(small) <= len(text); i++ {
		if text[i]|0x20 == small[0] && strings.EqualFold(string(text[i:i+len(small)]), small) {
			return i
		}
	}
	return -1
}

// current gives the digest itself, or the one that counts for its text since it left the table.
func (t *digests) current(d *digest, most int) *digest {
	switch {
	case d == nil || !d.gone.Load():
		return d
	case d.print == 0:
		return t.other(d.database)
	}
	return t.add(d.hash, d.print, d.text, d.database, most)
}

// mix makes the hash of a text in a database. FNV's step is enough: the texts' own hash is good, and names are few and not strangers'.
func mix(h uint64, database string) uint64 {
	for i := range len(database) {
		h = (h ^ uint64(database[i])) * 0x100000001b3
	}
	return h ^ h>>29
}

// find compares texts: two of them may have one hash, by chance or on purpose.
func (t *digests) find(h uint64, text []byte, database string) *digest {
	for d := t.places[h%digestPlaces].Load(); d != nil; d = d.next.Load() {
		if d.hash == h && d.database == database && d.text == string(text) {
			return d
		}
	}
	return nil
}

// add gives the digest of a text that find did not find.
func (t *digests) add(h, print uint64, text, database string, most int) *digest {
	t.mu.Lock()
	defer t.mu.Unlock()
	place := &t.places[h%digestPlaces]
	for d := place.Load(); d != nil; d = d.next.Load() {
		if d.hash == h && d.database == database && d.text == text {
			return d // somebody else was quicker
		}
	}
	if t.count >= most || t.bytes+len(text) > digestBytesMax {
		t.evict(most, len(text))
	}
	d := &digest{hash: h, print: print, text: text, database: database, first: time.Now()}
	d.next.Store(place.Load())
	place.Store(d)
	t.count++
	t.bytes += len(text)
	return d
}

// evict makes room for a text: sixteenths of the digests go until it is there, those first that were not seen for longest. One that was never counted was made just now.
// t.mu is held.
func (t *digests) evict(most, room int) {
	type aged struct {
		*digest
		last int64
	}
	all := make([]aged, 0, t.count)
	for i := range t.places {
		for d := t.places[i].Load(); d != nil; d = d.next.Load() {
			all = append(all, aged{d, max(d.Last(), d.first.UnixNano())})
		}
	}
	slices.SortFunc(all, func(a, b aged) int { return cmp.Compare(a.last, b.last) })
	for i, d := range all {
		if i >= max(1, len(all)/16) && t.count < most && t.bytes+room <= digestBytesMax {
			return
		}
		t.remove(d.digest)
		sum := d.Sum()
		t.otherLocked(d.database).Absorb(&sum)
	}
}

// remove takes a digest out of the table. Who has found it before may still count in it. t.mu is held.
func (t *digests) remove(d *digest) {
	at := &t.places[d.hash%digestPlaces]
	for at.Load() != d {
		at = &at.Load().next
	}
	at.Store(d.next.Load())
	d.gone.Store(true)
	t.count--
	t.bytes -= len(d.text)
}

// other gives the row of all statements in a database that have no digest.
func (t *digests) other(database string) *digest {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.otherLocked(database)
}

func (t *digests) otherLocked(database string) *digest {
	d := t.others[database]
	if d == nil {
		if t.others == nil {
			t.others = make(map[string]*digest)
		}
		if len(t.others) >= digestOthers {
			database = observe.Other
		}
		if d = t.others[database]; d == nil {
			d = &digest{text: observe.Other, database: database, first: time.Now()}
			t.others[database] = d
		}
	}
	return d
}

// reset empties the table.
func (t *digests) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.places {
		for d := t.places[i].Load(); d != nil; d = d.next.Load() {
			d.gone.Store(true)
		}
		t.places[i].Store(nil)
	}
	for _, d := range t.others {
		d.gone.Store(true)
	}
	t.others, t.count, t.bytes = nil, 0, 0
}

// knownFacts is what a text says, read as in mode.
type knownFacts struct {
	mode scan.Mode
	scan.Facts
}

// classify gives the facts of the running statement's text. Its digest remembers them, which saves half of the time that looking at a statement takes: facts do not depend on literals (the
// scanner's fuzz test compares those of texts and of their prints), but for the place of a name; kinds that have one are read anew. A text that is read in two ways keeps the first.
func (s *session) classify(text []byte) scan.Facts {
	d := s.st.digest
	if d == nil || d.print == 0 {
		return scan.Classify(text, &s.mode)
	}
	known := d.facts.Load()
	if known != nil && known.mode == s.mode {
		return known.Facts
	}
	facts := scan.Classify(text, &s.mode)
	switch facts.Kind {
	case scan.Use, scan.Kill, scan.ShowMenshen, scan.Prepare, scan.Execute, scan.Deallocate, scan.Savepoint, scan.ReleaseSavepoint, scan.RollbackTo: // Name may be there or not, wherever it is
	default:
		if known == nil && facts.Name == (scan.Span{}) {
			d.facts.Store(&knownFacts{s.mode, facts})
		}
	}
	return facts
}

// size is how many digests there are.
func (t *digests) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

// id is the digest's name for people: the fingerprint of its text.
func (d *digest) id() string {
	if d.print == 0 {
		return ""
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], d.print)
	return hex.EncodeToString(b[:])
}

// Digests gives the statistics of statements, the ones that took most time together first. in chooses; nil takes all. Digests that were never counted are left out.
func (d *Door) Digests(in func(database, text string) bool) []observe.DigestStatus {
	t := &d.digests
	t.mu.Lock()
	all := make([]*digest, 0, t.count+len(t.others))
	for i := range t.places {
		for d := t.places[i].Load(); d != nil; d = d.next.Load() {
			all = append(all, d)
		}
	}
	for _, d := range t.others {
		all = append(all, d)
	}
	t.mu.Unlock()
	out := make([]observe.DigestStatus, 0, len(all))
	for _, d := range all {
		if in != nil && !in(d.database, d.text) {
			continue
		}
		if sum := d.Sum(); sum.Count > 0 {
			out = append(out, observe.DigestStatus{ID: d.id(), Database: d.database, Text: d.text, First: d.first, ExecutionSum: sum})
		}
	}
	slices.SortFunc(out, func(a, b observe.DigestStatus) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(a.Database, b.Database), cmp.Compare(a.Text, b.Text))
	})
	return out
}

// ResetDigests forgets all statistics of statements.
func (d *Door) ResetDigests() { d.digests.reset() }
