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
			svc.heldUntil = s.keep(dc)
		}
	}
}

// keep is until when empty answers of a datacenter are held back. The caller
// holds mu.
func (s *Source) keep(dc string) time.Time {
	until := s.back.Add(backGrace)
	if fell, ok := s.fell[dc]; ok && fell.Add(s.timing.hold).After(until) {
		until = fell.Add(s.timing.hold)
	}
	return until
}
