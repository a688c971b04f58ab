package routing

import (
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// Table is all routes and services at one moment: what a request sees from
// its start to its end. It is immutable.
type Table struct {
	// Generation counts tables of this process, from 1.
	Generation uint64
	// Revision is the etcd revision this table stands for.
	Revision int64
	// Built is when it was built; Seen when the change that led to it was seen.
	Built, Seen time.Time

	routes   []*Route       // by name
	services []*Service     // by slot; nil where no name has the slot
	listed   []*Service     // by name
	slots    map[string]int // service name to its place in services
	index    *index

	problems []Problem
	held     []Held
	active   map[string]string
	// choices are those decided, of services without a route too: what a
	// restart should know.
	choices   map[string]string
	undecided []string

	snapshot discovery.Snapshot
	memory   memory
}

// Held says that a flip waits and why.
type Held struct {
	Service string `json:"service"`
	// Wanted and Serving are active values: "green", "blue=90,green=10", or
	// "" for all instances.
	Wanted  string    `json:"wanted"`
	Serving string    `json:"serving"`
	Reason  string    `json:"reason"`
	Since   time.Time `json:"since"`
}

// Routes returns every route by name. The slice must not be changed.
func (t *Table) Routes() []*Route { return t.routes }

// Services returns every service that a route or a document names, by name.
// The slice must not be changed.
func (t *Table) Services() []*Service { return t.listed }

// Service returns the named service, or nil.
func (t *Table) Service(name string) *Service {
	i, ok := t.slots[name]
	if !ok {
		return nil
	}
	return t.services[i]
}

// Problems returns the problems by key. The slice must not be changed.
func (t *Table) Problems() []Problem { return t.problems }

// Held returns the flips that wait. The slice must not be changed.
func (t *Table) Held() []Held { return t.held }

// Active returns the active value in effect by service; services without one
// or without a route are absent, and so are those of Undecided. The map must
// not be changed.
func (t *Table) Active() map[string]string { return t.active }

// Undecided returns the services with a route and an active key about whose
// instances the registry has not answered yet, by name. The slice must not be
// changed.
func (t *Table) Undecided() []string { return t.undecided }

// ChangedSource names the source whose change led from old, which may be
// nil, to t; where several changed, the one whose change was seen first.
func (t *Table) ChangedSource(old *Table) string {
	for name, st := range t.snapshot.States {
		if !st.Seen.IsZero() && st.Seen.Equal(t.Seen) {
			return name
		}
	}
	for name, st := range t.snapshot.States {
		if old == nil || !old.snapshot.States[name].Seen.Equal(st.Seen) {
			return name
		}
	}
	return "time"
}

// Knows says whether the named source had delivered when t was built.
func (t *Table) Knows(source string) bool {
	_, ok := t.snapshot.State(source)
	return ok
}

// Snapshot returns what t was built from.
func (t *Table) Snapshot() discovery.Snapshot { return t.snapshot }
