package limit

import (
	"hash/maphash"
	"sync"
	"time"
)

const (
	// shardCount spreads keys over locks, so that cores do not wait for each
	// other.
	shardCount = 64
	// windowBytes bounds what one window remembers: some 200,000 keys, or
	// fewer where a sliding window has a long log.
	windowBytes = 32 << 20
	// entryBytes is about what one key costs beside its own text and its log.
	entryBytes = 160
)

// Window counts the requests of every key against one rule, in this process.
// It is safe for concurrent use, through Local.
type Window struct {
	rule            Rule
	interval, slack int64 // of buckets, nanoseconds
	seed            maphash.Seed
	// start is when the window was made, and origin the same since the Unix
	// epoch: the clock's steps after that do not matter.
	start  time.Time
	origin int64
	shards [shardCount]shard
}

// NewWindow makes a window in which no key has made a request.
func NewWindow(rule Rule) *Window {
	w := &Window{rule: rule, seed: maphash.MakeSeed(), start: time.Now()}
	w.origin = w.start.UnixNano()
	if rule.Algorithm == TokenBucket || rule.Algorithm == LeakyBucket {
		w.interval, w.slack = rule.interval(1), rule.slack(1)
	}
	return w
}

// shard is the keys that share a lock.
type shard struct {
	mu   sync.Mutex
	keys map[string]*entry
	// first and last are the ends of the queue that entries wait in to be
	// looked at: whether they are still of use, and whether they were used
	// since the last time ("second chance"). A queue by the time of use would
	// have to be written at each use, which costs more on several cores than
	// all the rest.
	first, last *entry
	bytes       int
	_           [64]byte // a cache line of its own
}

// entry is what is known of one key.
type entry struct {
	key        string
	prev, next *entry
	// used says that it was, since it was last looked at.
	used bool
	// at is, by algorithm: when a bucket will be full again (token) or have
	// sent everything (leaky); the start of a fixed window; where the log
	// begins.
	at int64
	// count is how many requests a fixed window or a log holds.
	count int
	// log is a ring of the times of a sliding window's requests.
	log []int64
}

func (w *Window) shard(key []byte) *shard {
	return &w.shards[maphash.Bytes(w.seed, key)%shardCount]
}

// now is t on the window's clock.
func (w *Window) now(t time.Time) int64 { return w.origin + int64(t.Sub(w.start)) }

// of returns the entry of key.
func (s *shard) of(w *Window, key []byte, now int64) *entry {
	e := s.keys[string(key)]
	if e != nil {
		if !e.used { // not to write what is there already
			e.used = true
		}
		return e
	}
	if s.keys == nil {
		s.keys = map[string]*entry{}
	}
	s.sweep(w, now)
	e = &entry{key: string(key)}
	s.keys[e.key] = e
	s.link(e)
	s.grow(e, entryBytes+len(key))
	return e
}

// sweep looks at two entries for each that comes, and lets go of those that
// have become as good as new: what is kept follows what is used.
func (s *shard) sweep(w *Window, now int64) {
	for range 2 {
		switch e := s.last; {
		case e == nil:
			return
		case w.spent(e, now):
			s.remove(e)
		default:
			s.unlink(e)
			s.link(e)
		}
	}
}

// grow counts n more bytes for e, and makes room for them: whoever was not
// used for a whole round goes.
func (s *shard) grow(e *entry, n int) {
	for s.bytes += n; s.bytes > windowBytes/shardCount && s.first != s.last; {
		old := s.last
		if old != e && !old.used {
			s.remove(old)
			continue
		}
		old.used = false
		s.unlink(old)
		s.link(old)
	}
}

func (s *shard) link(e *entry) {
	e.prev, e.next = nil, s.first
	if s.first != nil {
		s.first.prev = e
	} else {
		s.last = e
	}
	s.first = e
}

func (s *shard) unlink(e *entry) {
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		s.first = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		s.last = e.prev
	}
}

func (s *shard) remove(e *entry) {
	s.unlink(e)
	delete(s.keys, e.key)
	s.bytes -= entryBytes + len(e.key) + 8*len(e.log)
}

// look brings e up to now. A request fits if refused is not above zero;
// otherwise that is how long it would not. delay is how long one that fits
// has to wait.
func (w *Window) look(e *entry, now int64) (refused, delay int64) {
	switch w.rule.Algorithm {
	case FixedWindow:
		if start := now - now%int64(w.rule.Per); start > e.at {
			e.at, e.count = start, 0
		}
		if e.count < w.rule.Requests {
			return 0, 0
		}
		return e.at + int64(w.rule.Per) - now, 0
	case SlidingWindow:
		for e.count > 0 && e.log[e.at] <= now-int64(w.rule.Per) {
			e.at, e.count = (e.at+1)%int64(len(e.log)), e.count-1
		}
		if e.count < w.rule.Requests {
			return 0, 0
		}
		return e.log[e.at] + int64(w.rule.Per) - now, 0
	default:
		ahead := max(e.at-now, 0)
		if w.rule.Algorithm == LeakyBucket {
			delay = ahead
		}
		return ahead - w.slack, delay
	}
}

// take counts a request that fits, and returns what is left after it and for
// how long.
func (w *Window) take(s *shard, e *entry, now int64) (left int, reset int64) {
	switch w.rule.Algorithm {
	case FixedWindow:
		e.count++
		return w.rule.Requests - e.count, e.at + int64(w.rule.Per) - now
	case SlidingWindow:
		w.note(s, e, now)
		return w.rule.Requests - e.count, e.log[e.at] + int64(w.rule.Per) - now
	default:
		e.at = max(e.at, now) + w.interval
		ahead := e.at - now
		if ahead <= w.slack {
			left = int((w.slack-ahead)/w.interval) + 1
		}
		return left, ahead
	}
}

// note writes a request into the log of a sliding window.
func (w *Window) note(s *shard, e *entry, now int64) {
	if e.count == len(e.log) {
		grown := make([]int64, min(max(2*len(e.log), 4), w.rule.Requests))
		for i := range e.count {
			grown[i] = e.log[(int(e.at)+i)%len(e.log)]
		}
		n := 8 * (len(grown) - len(e.log))
		e.log, e.at = grown, 0
		s.grow(e, n)
	}
	if e.count > 0 { // the clock was read before the lock was taken
		now = max(now, e.log[(int(e.at)+e.count-1)%len(e.log)])
	}
	e.log[(int(e.at)+e.count)%len(e.log)] = now
	e.count++
}

// spent says that e is as good as a key that was never seen.
func (w *Window) spent(e *entry, now int64) bool {
	switch w.rule.Algorithm {
	case FixedWindow:
		return e.at+int64(w.rule.Per) <= now
	case SlidingWindow:
		return e.count == 0 || e.log[(int(e.at)+e.count-1)%len(e.log)] <= now-int64(w.rule.Per)
	}
	return e.at <= now
}
