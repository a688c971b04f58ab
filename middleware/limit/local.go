package limit

import "time"

// MaxRules is how many rules are held together.
const MaxRules = 8

// Local holds the requests of each key to several rules, in this process. It
// is safe for concurrent use.
type Local struct{ windows []*Window }

// NewLocal makes a limiter of at most MaxRules windows, in the order of Sort:
// those who share windows lock them in one order.
func NewLocal(windows ...*Window) *Local { return &Local{windows} }

// Take counts a request of key at t, if it fits within every rule.
func (l *Local) Take(t time.Time, key []byte) (d Decision) {
	var held [MaxRules]struct {
		*shard
		*entry
		now int64
	}
	d.Allowed = true
	for i, w := range l.windows {
		h := &held[i]
		h.shard, h.now = w.shard(key), w.now(t)
		h.mu.Lock()
		h.entry = h.of(w, key, h.now)
		refused, delay := w.look(h.entry, h.now)
		d.Wait = max(d.Wait, time.Duration(delay))
		if refused > 0 {
			d.Allowed = false
			if after := time.Duration(refused); after > d.RetryAfter {
				d.Rule, d.RetryAfter, d.Reset = i, after, after
			}
		}
	}
	for i, w := range l.windows {
		h := &held[i]
		if d.Allowed {
			left, reset := w.take(h.shard, h.entry, h.now)
			if i == 0 || left < d.Remaining {
				d.Rule, d.Remaining, d.Reset = i, left, time.Duration(reset)
			}
		}
		h.mu.Unlock()
	}
	if !d.Allowed {
		d.Wait = 0
	}
	return d
}
