package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// SourceStatus is how one source stands.
type SourceStatus struct {
	Name string `json:"name"`
	// Up is whether the last contact was an answer.
	Up bool `json:"up"`
	// LastAnswer is when the registry last answered; zero for never.
	LastAnswer time.Time `json:"last_answer"`
	// Error is why the last contact failed; "" while up.
	Error string `json:"error,omitempty"`
	// Revision is that of the newest state.
	Revision int64 `json:"revision"`
	// Delivered is set once a state came, from the registry or from the
	// state directory (Stored).
	Delivered bool `json:"delivered"`
	Stored    bool `json:"stored,omitempty"`
}

// Hub runs the sources and holds the newest state of each. Whoever builds
// tables waits on Changed and takes a Snapshot: everything that arrived since
// the last one is in it, so a slow builder sees fewer, newer snapshots and
// never a queue. A state is taken or left as a whole, so that what one etcd
// revision wrote is never split.
//
// Its methods are safe for concurrent use.
type Hub struct {
	log     *slog.Logger
	sources []Source
	changed chan struct{}

	mu     sync.Mutex
	states map[string]State
	status map[string]*SourceStatus
	seen   time.Time
	// fallback holds the stored states that have not been needed yet.
	fallback map[string]State
}

// NewHub makes a hub over sources, each of a different name.
func NewHub(log *slog.Logger, sources ...Source) *Hub {
	h := &Hub{
		log:     log,
		sources: sources,
		changed: make(chan struct{}, 1),
		states:  make(map[string]State, len(sources)),
		status:  make(map[string]*SourceStatus, len(sources)),

		fallback: make(map[string]State, len(sources)),
	}
	for _, s := range sources {
		h.status[s.Name()] = &SourceStatus{Name: s.Name()}
	}
	return h
}

// fallbackAfter is how long a source may stay silent at start before its
// stored state serves in its place.
const fallbackAfter = time.Second

// Fallback gives a source a state, as the state directory kept it, to serve
// from if its registry is away at start: when its first contact fails, or
// says nothing for a second. Call it before Run.
func (h *Hub) Fallback(source string, st State) {
	st.Stored = true
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fallback[source] = st
}

// fallBack serves the stored state of source if it has delivered nothing.
func (h *Hub) fallBack(source string) {
	h.mu.Lock()
	st, needed := h.fallback[source]
	delete(h.fallback, source)
	if _, delivered := h.states[source]; delivered {
		needed = false
	}
	if needed {
		h.keep(source, st) // before the registry can: its state is newer
	}
	h.mu.Unlock()
	if needed {
		h.log.Warn("source is away at start; serving its stored state", "source", source, "revision", st.Revision)
		h.tell()
	}
}

// Run runs every source until ctx ends or one of them fails for good.
func (h *Hub) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-time.After(fallbackAfter):
			for _, s := range h.sources {
				h.fallBack(s.Name())
			}
		}
		return nil
	})
	for _, s := range h.sources {
		g.Go(func() error {
			if err := s.Run(ctx, sink{h, s.Name()}); err != nil {
				return fmt.Errorf("source %s: %w", s.Name(), err)
			}
			return nil
		})
	}
	return g.Wait()
}

// Changed receives after a report that no Snapshot has seen.
func (h *Hub) Changed() <-chan struct{} { return h.changed }

// Snapshot returns the newest state of every source.
func (h *Hub) Snapshot() Snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Snapshot{States: make(map[string]State, len(h.states)), Seen: h.seen}
	for name, st := range h.states {
		s.States[name] = st
	}
	h.seen = time.Time{}
	return s
}

// Delivered says whether every source has a state, from its registry or from
// the state directory.
func (h *Hub) Delivered() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, st := range h.status {
		if !st.Delivered {
			return false
		}
	}
	return true
}

// Status returns how each source stands, by name.
func (h *Hub) Status() []SourceStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]SourceStatus, 0, len(h.status))
	for _, st := range h.status {
		out = append(out, *st)
	}
	slices.SortFunc(out, func(a, b SourceStatus) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (h *Hub) report(source string, st State) {
	h.mu.Lock()
	h.keep(source, st)
	h.mu.Unlock()
	h.tell()
}

// keep takes st as the newest state of source. The caller holds mu.
func (h *Hub) keep(source string, st State) {
	old := h.states[source]
	st.carried = !st.Stored && (old.Stored || old.carried)
	st.Instances = carryOver(old, st)
	h.states[source] = st
	delete(h.fallback, source)
	if s := h.status[source]; s != nil {
		s.Revision, s.Delivered, s.Stored = st.Revision, true, st.Stored
	}
	if !st.Seen.IsZero() && (h.seen.IsZero() || st.Seen.Before(h.seen)) {
		h.seen = st.Seen
	}
}

// tell wakes the builder.
func (h *Hub) tell() {
	select {
	case h.changed <- struct{}{}:
	default: // the builder is already due; it will find this state too
	}
}

// carryOver keeps, from a stored state, the instances of services that the
// registry has not answered for yet: its first answers must not empty the
// others.
func carryOver(old, st State) map[ServiceRef][]Instance {
	if !st.carried {
		return st.Instances
	}
	merged := maps.Clone(old.Instances)
	if merged == nil {
		return st.Instances
	}
	maps.Copy(merged, st.Instances)
	return merged
}

func (h *Hub) contact(source string, err error) {
	h.mu.Lock()
	s := h.status[source]
	was, silent := s.Up, s.Error == ""
	s.Up = err == nil
	if err == nil {
		s.LastAnswer, s.Error = time.Now(), ""
	} else {
		s.Error = err.Error()
	}
	h.mu.Unlock()
	switch {
	case err == nil && !was:
		h.log.Info("source is up", "source", source)
	case err != nil && (was || silent): // once per outage
		h.log.Warn("source is away; what is known serves on", "source", source, "error", err)
	}
	if err != nil {
		h.fallBack(source)
	}
}

// sink is one source's end of the hub.
type sink struct {
	hub    *Hub
	source string
}

func (s sink) Report(st State)   { s.hub.report(s.source, st) }
func (s sink) Contact(err error) { s.hub.contact(s.source, err) }
