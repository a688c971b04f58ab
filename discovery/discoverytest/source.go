package discoverytest

import (
	"context"
	"sync"

	"github.com/sluice-gateway/sluice/discovery"
)

// Source is a discovery.Source that says what the test tells it to, in that
// order, from the goroutine that runs it. What is said before Run waits for
// it. Its methods may be called from any goroutine and do not block.
type Source struct {
	name string

	mu    sync.Mutex
	steps []step
	more  chan struct{}
}

// step speaks to the sink; an error ends Run with it.
type step func(discovery.Sink) error

// NewSource returns a source of that name.
func NewSource(name string) *Source {
	return &Source{name: name, more: make(chan struct{}, 1)}
}

// Name returns the name given to NewSource.
func (s *Source) Name() string { return s.name }

// Report makes the source report a state.
func (s *Source) Report(state discovery.State) {
	s.say(func(sink discovery.Sink) error { sink.Report(state); return nil })
}

// Contact makes the source record a contact, or a failed one.
func (s *Source) Contact(err error) {
	s.say(func(sink discovery.Sink) error { sink.Contact(err); return nil })
}

// Fail makes Run return err, which must not be nil.
func (s *Source) Fail(err error) {
	s.say(func(discovery.Sink) error { return err })
}

func (s *Source) say(what step) {
	s.mu.Lock()
	s.steps = append(s.steps, what)
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *Source) take() []step {
	s.mu.Lock()
	defer s.mu.Unlock()
	steps := s.steps
	s.steps = nil
	return steps
}

// Run implements discovery.Source.
func (s *Source) Run(ctx context.Context, sink discovery.Sink) error {
	for {
		for _, say := range s.take() {
			if err := say(sink); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.more:
		}
	}
}
