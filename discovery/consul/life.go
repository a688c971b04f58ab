package consul

import "time"

// An agent that lost its state answers "none" for everything until services
// have registered again. The index of one service shows that only while the
// new life is young: soon the indexes of all that registers have passed the
// one at which a quiet service stood. The indexes of the catalog and of the
// list of checks count every change in a datacenter, so their fall is what
// tells, for every service there.

// backGrace is how long after an outage an empty answer waits for the catalog
// to say whether the state was lost: every watch is back within backoffCap.
const backGrace = backoffCap + 200*time.Millisecond

// tableIndex notes the index of a watch over a whole datacenter. The caller
// holds mu.
func (s *Source) tableIndex(w watch, index uint64, now time.Time) {
	last := s.tables[w]
	s.tables[w] = index
	if index >= last {
		return
	}
	dc := w.ref.Datacenter
	s.fell[dc] = now
	s.log.Warn("consul lost state: empty answers are held back",
		"watch", w.String(), "index", index, "before", last, "for", s.timing.hold)
	for ref, svc := range s.services {
		if ref.Datacenter == dc && !svc.heldUntil.IsZero() {
			svc.heldUntil = s.keep(dc, svc.seen)
		}
	}
}

// keep is until when an empty answer is held back from a service of a
// datacenter that last had instances when seen. One that has had some since
// the agent came back has lost them in the new life: that holds nothing. The
// caller holds mu.
func (s *Source) keep(dc string, seen time.Time) time.Time {
	fell := s.fell[dc]
	if seen.After(s.back) && seen.After(fell) {
		return time.Time{}
	}
	until := s.back.Add(backGrace)
	if held := fell.Add(s.timing.hold); !fell.IsZero() && held.After(until) {
		until = held
	}
	return until
}
