// Package memo remembers what was found out about tokens until it no longer
// holds: a verified signature, an introspection endpoint's answer. What it
// takes is bounded in bytes; the entry that was used longest ago goes first.
// Tokens themselves are not kept, only digests of them.
package memo

import (
	"crypto/sha256"
	"sync"
	"time"
)

// Key names an entry.
type Key [sha256.Size]byte

// Of derives the key of a text within the scope of k. The scope's length is
// fixed, so that no two pairs of scope and text are the same bytes.
func (k Key) Of(text string) Key {
	buf := make([]byte, 0, 2<<10) // on the stack; most tokens fit
	buf = append(buf, k[:]...)
	buf = append(buf, text...)
	return sha256.Sum256(buf)
}

// shards share the work, so that no two requests wait for each other but by
// chance.
const shards = 32

// Memo is a bounded map whose entries expire. Safe for concurrent use.
type Memo[V any] struct {
	shards [shards]shard[V]
}

// New makes a memo of at most maxBytes, as the costs given to Put add up.
func New[V any](maxBytes int) *Memo[V] {
	m := &Memo[V]{}
	for i := range m.shards {
		s := &m.shards[i]
		s.room = maxBytes / shards
		s.entries = map[Key]*entry[V]{}
		s.ring.prev, s.ring.next = &s.ring, &s.ring
	}
	return m
}

// shard is a part of the memo, with its entries in the order of their use.
type shard[V any] struct {
	mu      sync.Mutex
	entries map[Key]*entry[V]
	ring    entry[V] // ring.next was used last, ring.prev longest ago
	room    int
}

type entry[V any] struct {
	key        Key
	value      V
	cost       int
	expires    time.Time
	prev, next *entry[V]
}

// Get returns what was put under key, unless it has expired or had to go.
func (m *Memo[V]) Get(key Key, now time.Time) (V, bool) {
	s := &m.shards[key[0]%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	switch {
	case e == nil:
		var none V
		return none, false
	case !now.Before(e.expires):
		s.remove(e)
		var none V
		return none, false
	}
	e.unlink()
	s.link(e)
	return e.value, true
}

// Put remembers value until expires. cost is what it takes, in bytes.
func (m *Memo[V]) Put(key Key, value V, cost int, expires time.Time) {
	s := &m.shards[key[0]%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.entries[key]; old != nil {
		s.remove(old)
	}
	for s.room < cost && s.ring.prev != &s.ring {
		s.remove(s.ring.prev)
	}
	if s.room < cost {
		return
	}
	e := &entry[V]{key: key, value: value, cost: cost, expires: expires}
	s.entries[key] = e
	s.room -= cost
	s.link(e)
}

// Len is the number of entries, expired ones included.
func (m *Memo[V]) Len() int {
	n := 0
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += len(s.entries)
		s.mu.Unlock()
	}
	return n
}

func (s *shard[V]) link(e *entry[V]) {
	e.prev, e.next = &s.ring, s.ring.next
	e.prev.next, e.next.prev = e, e
}

func (e *entry[V]) unlink() { e.prev.next, e.next.prev = e.next, e.prev }

func (s *shard[V]) remove(e *entry[V]) {
	e.unlink()
	delete(s.entries, e.key)
	s.room += e.cost
}
