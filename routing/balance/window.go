package balance

import "sync/atomic"

// windowBuckets is how many ticks a window remembers.
const windowBuckets = 20

// window counts events by tick, lock-free, and forgets what is older than
// windowBuckets ticks. Each bucket holds its tick above its count, so that a
// bucket of another time counts for nothing. The caller decides how long a
// tick is.
type window struct {
	buckets [windowBuckets]atomic.Uint64
}

// add counts one event. An add that is late by a whole window may wipe a
// newer bucket: an error of a few events that nothing here minds.
func (w *window) add(tick uint32) {
	b := &w.buckets[tick%windowBuckets]
	for {
		old := b.Load()
		if uint32(old>>32) == tick {
			b.Add(1)
			return
		}
		if b.CompareAndSwap(old, uint64(tick)<<32|1) {
			return
		}
	}
}

// undo takes back an add of the same tick.
func (w *window) undo(tick uint32) {
	b := &w.buckets[tick%windowBuckets]
	for {
		old := b.Load()
		if uint32(old>>32) != tick || uint32(old) == 0 || b.CompareAndSwap(old, old-1) {
			return
		}
	}
}

// at is the count of one tick.
func (w *window) at(tick uint32) uint64 {
	b := w.buckets[tick%windowBuckets].Load()
	if uint32(b>>32) != tick {
		return 0
	}
	return uint64(uint32(b))
}

// sum is the count of the ticks ticks that end with tick.
func (w *window) sum(tick uint32, ticks int) uint64 {
	var n uint64
	for i := range ticks {
		n += w.at(tick - uint32(i))
	}
	return n
}

func (w *window) clear() {
	for i := range w.buckets {
		w.buckets[i].Store(0)
	}
}
