package ratelimit

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// Table holds one word for each key. It is bounded: a table that is full forgets the keys that say least, first those that
// say nothing any more. Keys are held as 64-bit hashes with a secret seed, so that no client can aim at another's count, and
// so that a key costs the same whatever its length.
//
// Locks: a shard's mutex is held for reading while a word is changed and for writing while keys come and go, so no count gets lost.
type Table struct {
	seed   maphash.Seed
	shards [shardCount]shard
}

const shardCount = 16

type shard struct {
	mu    sync.RWMutex
	words map[uint64]*atomic.Int64
	_     [32]byte // a shard for each pair of cache lines
}

// NewTable makes an empty table.
func NewTable() *Table {
	return &Table{seed: maphash.MakeSeed()}
}

// Len is the number of keys that are held.
func (t *Table) Len() int {
	n := 0
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.RLock()
		n += len(s.words)
		s.mu.RUnlock()
	}
	return n
}

// hash gives a key's hash. kind keeps keys of different kinds apart.
func hash[T []byte | string](t *Table, kind keyKind, key T) uint64 {
	return maphash.String(t.seed, string(key)) ^ (uint64(kind)+1)*0x9e3779b97f4a7c15
}

// take counts a request of a key. entries bounds the table. It does not allocate for a key that is held.
func (t *Table) take(a algorithm, key uint64, now int64, entries int) verdict {
	s := &t.shards[key%shardCount]
	s.mu.RLock()
	if word := s.words[key]; word != nil {
		v := change(word, a, now)
		s.mu.RUnlock()
		return v
	}
	s.mu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	word := s.words[key]
	if word == nil {
		if most := max(1, entries/shardCount); len(s.words) >= most {
			s.forget(a, now, most)
		}
		if s.words == nil { // most of ten thousand limits may never be met
			s.words = map[uint64]*atomic.Int64{}
		}
		word = new(atomic.Int64)
		s.words[key] = word
	}
	return change(word, a, now)
}

// change takes from a word. The shard's lock is held.
func change(word *atomic.Int64, a algorithm, now int64) verdict {
	for {
		old := word.Load()
		next, v := a.take(old, now)
		if next == old || word.CompareAndSwap(old, next) {
			return v
		}
	}
}

// sample is how many keys are looked at to make room for one.
const sample = 16

// forget makes room in a full shard: of a few keys it drops all that say nothing any more, or else the one that says least. The
// order of a Go map is random, and clients do not see it.
func (s *shard) forget(a algorithm, now int64, most int) {
	for len(s.words) >= most {
		seen, least, victim := 0, int64(0), uint64(0)
		for key, word := range s.words {
			debt := a.debt(word.Load(), now)
			if debt <= 0 {
				delete(s.words, key)
			}
			if seen == 0 || debt < least {
				least, victim = debt, key
			}
			if seen++; seen == sample {
				break
			}
		}
		delete(s.words, victim)
	}
}
