package discoverytest

import (
	"slices"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// TB is the part of testing.TB that awaiting needs.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Sink is a discovery.Sink that records. The zero value is ready. Its methods
// may be called from any goroutine.
type Sink struct {
	mu       sync.Mutex
	states   []discovery.State
	contacts []error
	changed  chan struct{}
}

// Report implements discovery.Sink.
func (s *Sink) Report(state discovery.State) {
	s.record(func() { s.states = append(s.states, state) })
}

// Contact implements discovery.Sink.
func (s *Sink) Contact(err error) {
	s.record(func() { s.contacts = append(s.contacts, err) })
}

func (s *Sink) record(what func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what()
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// States returns every state reported so far.
func (s *Sink) States() []discovery.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.states)
}

// Last returns the newest state and whether there is one.
func (s *Sink) Last() (discovery.State, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.states) == 0 {
		return discovery.State{}, false
	}
	return s.states[len(s.states)-1], true
}

// Contacts returns every contact recorded so far.
func (s *Sink) Contacts() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.contacts)
}

// Await returns the newest state as soon as good holds for it, and fails the
// test with what was awaited after timeout.
func (s *Sink) Await(t TB, timeout time.Duration, what string, good func(discovery.State) bool) discovery.State {
	t.Helper()
	var out discovery.State
	s.until(t, timeout, what, func() bool {
		if len(s.states) == 0 {
			return false
		}
		out = s.states[len(s.states)-1]
		return good(out)
	})
	return out
}

// AwaitContact returns once a contact recorded at index from or later is
// good, with the index behind it: the from of the next call.
func (s *Sink) AwaitContact(t TB, timeout time.Duration, what string, from int, good func(error) bool) int {
	t.Helper()
	next := from
	s.until(t, timeout, what, func() bool {
		for ; next < len(s.contacts); next++ {
			if good(s.contacts[next]) {
				next++
				return true
			}
		}
		return false
	})
	return next
}

// until looks after every record until done holds; done runs under the lock.
func (s *Sink) until(t TB, timeout time.Duration, what string, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		ok := done()
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("waited %s in vain for: %s", timeout, what)
			return
		}
	}
}
