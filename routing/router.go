package routing

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/routing/balance"
	"golang.org/x/time/rate"
)

// Swaps are as fast as changes come, up to a burst; a storm is coalesced to
// this many a second.
const (
	swapsPerSecond = 10
	swapBurst      = 5
)

// settleTimeout bounds how long new documents wait for the first answer
// about the instances they name.
const settleTimeout = time.Second

// Feed is where snapshots come from: a discovery.Hub.
type Feed interface {
	Changed() <-chan struct{}
	Snapshot() discovery.Snapshot
}

// Watcher is told which instances the routes need: the Consul source.
type Watcher interface {
	// Want replaces the set of names to follow.
	Want([]discovery.ServiceRef)
	// Settled is closed once each of refs has been answered, or has failed,
	// since it was wanted.
	Settled([]discovery.ServiceRef) <-chan struct{}
}

// Router follows a feed and owns the table in force.
type Router struct {
	feed    Feed
	watcher Watcher // nil where no source needs to be told
	deps    Deps
	log     *slog.Logger
	onSwap  []func(old, new *Table)

	table   atomic.Pointer[Table]
	limiter *rate.Limiter

	// Held documents: what the newest ones name is being asked for. giveUp
	// and heldSeen are zero while none is held.
	wanted   []discovery.ServiceRef
	settled  <-chan struct{}
	giveUp   time.Time
	heldSeen time.Time // when the first change among them was seen
}

// NewRouter makes a router with an empty table. watcher may be nil. Each of
// onSwap is called after every swap, from the goroutine of Run; old is nil
// the first time.
func NewRouter(feed Feed, watcher Watcher, deps Deps, log *slog.Logger, onSwap ...func(old, new *Table)) *Router {
	return &Router{
		feed: feed, watcher: watcher, deps: deps, log: log, onSwap: onSwap,
		limiter: rate.NewLimiter(swapsPerSecond, swapBurst),
	}
}

// Table returns the table in force; nil before the first. Safe for
// concurrent use.
func (r *Router) Table() *Table { return r.table.Load() }

// Run builds and swaps tables until ctx ends.
func (r *Router) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(r.untilDue())
		select {
		case <-ctx.Done():
			return nil
		case <-r.feed.Changed():
		case <-r.settled:
			r.settled = nil
		case <-timer.C:
		}
		if err := r.limiter.Wait(ctx); err != nil {
			return nil // ctx ended
		}
		r.follow()
	}
}

// untilDue is how long until time alone asks for a new table: a grace period
// ends, or held documents have waited long enough.
func (r *Router) untilDue() time.Duration {
	due := time.Time{}
	if t := r.table.Load(); t != nil {
		due = t.memory.expires
	}
	if r.settled != nil && (due.IsZero() || r.giveUp.Before(due)) {
		due = r.giveUp
	}
	if due.IsZero() {
		return time.Hour
	}
	return max(0, due.Sub(r.deps.Now()))
}

// follow builds the table of the newest snapshot and swaps it in.
//
// Documents that name instances nobody has asked for yet wait, as the whole
// that they came as, until those are known or settleTimeout is over: a route
// that moves to another service must not answer 503 until the registry has
// answered. Changes of instances do not wait with them.
func (r *Router) follow() {
	prev := r.table.Load()
	snap := r.feed.Snapshot()
	if !r.heldSeen.IsZero() {
		snap.Seen = r.heldSeen
	}
	draft := Read(prev, snap, r.deps)
	if r.watcher != nil && r.ask(prev, draft) {
		r.heldSeen = snap.Seen
		if draft = r.withOldDocuments(prev, snap); draft == nil {
			return
		}
	} else {
		r.giveUp, r.heldSeen = time.Time{}, time.Time{}
	}
	next := draft.Table()
	r.table.Store(next)
	if r.watcher != nil && r.settled == nil && (prev == nil || !sameSlice(prev.memory.refs, draft.Refs())) {
		r.watcher.Want(draft.Refs()) // what only prev needed is let go
	}
	r.deps.Pool.Retain(inUse(next), serviceNames(next))
	r.logSwap(prev, next)
	for _, f := range r.onSwap {
		f(prev, next)
	}
}

// ask wants what draft needs beside what prev needs, and says whether draft
// has to wait for it.
func (r *Router) ask(prev *Table, draft *Draft) (held bool) {
	if prev == nil || draft.unchanged {
		if prev == nil || !slices.Equal(draft.Refs(), r.wanted) { // what was held has been taken back
			r.wanted = draft.Refs()
			r.watcher.Want(r.wanted)
		}
		r.settled = nil
		return false
	}
	if !slices.Equal(draft.Refs(), r.wanted) { // other documents than those that wait
		fresh := slices.DeleteFunc(slices.Clone(draft.Refs()), func(ref discovery.ServiceRef) bool {
			return slices.Contains(prev.memory.refs, ref)
		})
		r.wanted = slices.Clone(draft.Refs())
		if len(fresh) == 0 {
			r.settled = nil
			return false
		}
		union := append(slices.Clone(prev.memory.refs), fresh...)
		r.watcher.Want(union)
		r.settled = r.watcher.Settled(fresh)
		if r.giveUp.IsZero() {
			r.giveUp = r.deps.Now().Add(settleTimeout)
		}
	}
	if r.settled == nil {
		return false
	}
	select {
	case <-r.settled:
		r.settled = nil
		return false
	default:
	}
	if !r.deps.Now().Before(r.giveUp) {
		r.log.Warn("a service that routes name is not known yet; going on without it", "waited", settleTimeout)
		r.settled = nil
		return false
	}
	return true
}

// withOldDocuments drafts snap with the documents of prev, or returns nil if
// that changes nothing.
func (r *Router) withOldDocuments(prev *Table, snap discovery.Snapshot) *Draft {
	old := discovery.Snapshot{States: make(map[string]discovery.State, len(snap.States))}
	changed := false
	for name, st := range snap.States {
		was, ok := prev.snapshot.State(name)
		if st.Documents != nil {
			if !ok {
				continue
			}
			st = was
		} else if st.Revision != was.Revision || st.Seen != was.Seen {
			changed = true
			if old.Seen.IsZero() || st.Seen.Before(old.Seen) {
				old.Seen = st.Seen
			}
		}
		old.States[name] = st
	}
	if !changed {
		return nil
	}
	return Read(prev, old, r.deps)
}

func inUse(t *Table) func(func(*balance.Endpoint) bool) {
	return func(yield func(*balance.Endpoint) bool) {
		for _, s := range t.listed {
			for _, e := range s.All.Endpoints {
				if !yield(e) {
					return
				}
			}
		}
	}
}

func serviceNames(t *Table) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range t.slots {
			if !yield(name) {
				return
			}
		}
	}
}

// logSwap says what is new to a person: problems and held flips.
func (r *Router) logSwap(prev, next *Table) {
	known := map[string]bool{}
	held := map[string]bool{}
	if prev != nil {
		for _, p := range prev.problems {
			known[p.Key+p.Message] = true
		}
		for _, h := range prev.held {
			held[h.Service+h.Wanted+h.Reason] = true
		}
	}
	for _, p := range next.problems {
		if !known[p.Key+p.Message] {
			r.log.Warn("document is not serving as written", "key", p.Key, "revision", p.Revision,
				"code", p.Code, "problem", p.Message, "serving", p.Serving)
		}
	}
	for _, h := range next.held {
		if !held[h.Service+h.Wanted+h.Reason] {
			r.log.Warn("flip is held", "service", h.Service, "wanted", h.Wanted,
				"serving", fmt.Sprintf("%q", h.Serving), "reason", h.Reason)
		}
	}
	r.log.Debug("table swapped", "generation", next.Generation, "revision", next.Revision, "routes", len(next.routes))
}
