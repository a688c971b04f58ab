package state

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// saveGap is how long after a save the next one comes at the soonest.
const saveGap = time.Second

// Saver saves in the background: the newest state of each source, at most
// once a second, and what is left at the end. What cannot be written is tried
// again.
type Saver struct {
	store *Store
	log   *slog.Logger

	mu sync.Mutex
	// pending are the saves to make, by what they are for; a newer one takes
	// the place of the one before.
	pending map[string]func() error
	changed chan struct{}
	// failing is set while the last save failed; only Run's goroutine uses it.
	failing bool
}

// NewSaver returns a saver into store.
func NewSaver(store *Store, log *slog.Logger) *Saver {
	return &Saver{store: store, log: log, pending: map[string]func() error{}, changed: make(chan struct{}, 1)}
}

// Save takes the newest state of a source. It returns at once. A state that
// came from the store is not saved again.
func (s *Saver) Save(name string, st discovery.State) {
	if st.Stored {
		return
	}
	s.put(name+".state", func() error { return s.store.Save(name, st) })
}

// SaveExtra takes the newest bytes for a name, which must not change any
// more. It returns at once.
func (s *Saver) SaveExtra(name string, data []byte) {
	s.put(name+".extra", func() error { return s.store.SaveExtra(name, data) })
}

func (s *Saver) put(what string, save func() error) {
	s.mu.Lock()
	s.pending[what] = save
	s.mu.Unlock()
	s.wake()
}

func (s *Saver) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Run saves until ctx ends, and then once more what is left.
func (s *Saver) Run(ctx context.Context) error {
	defer s.flush()
	gap := time.NewTimer(0)
	defer gap.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		}
		s.flush()
		gap.Reset(saveGap)
		select {
		case <-ctx.Done():
			return nil
		case <-gap.C:
		}
	}
}

// flush makes the pending saves. One that failed is pending again, unless
// something newer is.
func (s *Saver) flush() {
	s.mu.Lock()
	pending := s.pending
	s.pending = map[string]func() error{}
	s.mu.Unlock()
	var failure error
	for _, what := range slices.Sorted(maps.Keys(pending)) {
		err := pending[what]()
		if err == nil {
			continue
		}
		failure = err
		s.mu.Lock()
		if s.pending[what] == nil {
			s.pending[what] = pending[what]
		}
		s.mu.Unlock()
		s.wake()
	}
	if failure != nil && !s.failing {
		s.log.Error("state is not saved; it is tried again every second", "error", failure)
	}
	if failure == nil && s.failing && len(pending) > 0 {
		s.log.Info("state is saved again")
	}
	if len(pending) > 0 {
		s.failing = failure != nil
	}
}
