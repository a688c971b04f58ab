package discovery

import "time"

// Snapshot is the latest state of every source at one moment. It is
// immutable. A source that has delivered nothing yet is absent.
type Snapshot struct {
	// States is keyed by the source's name.
	States map[string]State
	// Seen is the earliest moment at which a change in this snapshot, not in
	// the one before, was seen.
	Seen time.Time
}

// State returns what the named source last reported and whether it has
// reported at all.
func (s Snapshot) State(source string) (State, bool) {
	st, ok := s.States[source]
	return st, ok
}
