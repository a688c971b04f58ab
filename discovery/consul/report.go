package consul

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// report is what has been handed over and what has changed since.
type report struct {
	instances map[discovery.ServiceRef][]discovery.Instance // last reported; immutable
	announced map[string][]string                           // last reported; immutable
	made      bool

	staleInstances, staleAnnounced bool
	seen                           time.Time // of the first change not yet reported
}

// touch notes that a change was seen now. The caller holds mu.
func (s *Source) touch(now time.Time) {
	s.counts.changes.Add(1)
	if s.report.seen.IsZero() {
		s.report.seen = now
	}
	s.wake()
}

// publish hands over the state whenever something changed. Being the only
// one to do so it keeps the order, and what happens while it is at work goes
// into one report.
func (s *Source) publish(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
		s.mu.Lock()
		state, due := s.state(time.Now())
		settled := s.takeSettled()
		s.mu.Unlock()
		if due {
			s.sink.Report(state)
		}
		for _, w := range settled {
			close(w.done)
		}
	}
}

// state builds what is to be reported, if anything is. The first report
// waits until it can be whole.
func (s *Source) state(now time.Time) (discovery.State, bool) {
	r := &s.report
	if !r.made {
		asks := s.cfg.SelfRegisteredRoutes || len(s.services) > 0
		if asks && (!s.answered || s.pending() > 0) {
			return discovery.State{}, false
		}
		r.staleInstances, r.staleAnnounced = true, true
		if r.seen.IsZero() {
			r.seen = now
		}
	}
	if !r.staleInstances && !r.staleAnnounced {
		return discovery.State{}, false
	}
	if r.staleInstances {
		r.instances = make(map[discovery.ServiceRef][]discovery.Instance, len(s.services))
		for ref, svc := range s.services {
			if svc.known {
				r.instances[ref] = svc.instances
			}
		}
	}
	if r.staleAnnounced {
		r.announced = maps.Clone(s.catalog.announced)
	}
	st := discovery.State{
		Revision:  int64(s.catalog.index),
		Instances: r.instances,
		Announced: r.announced,
		Seen:      r.seen,
	}
	for _, svc := range s.services {
		st.Revision = max(st.Revision, int64(svc.index))
	}
	s.remembered = discovery.State{}
	r.made, r.staleInstances, r.staleAnnounced, r.seen = true, false, false, time.Time{}
	return st, true
}

// takeSettled removes the waiters whose services are settled. An answer that
// waits for the first report does not count yet.
func (s *Source) takeSettled() []waiter {
	if len(s.waiters) == 0 || (!s.report.made && s.pending() > 0) {
		return nil
	}
	var done []waiter
	s.waiters = slices.DeleteFunc(s.waiters, func(w waiter) bool {
		for _, r := range w.refs {
			if svc, ok := s.services[r]; ok && !svc.settled {
				return false
			}
		}
		done = append(done, w)
		return true
	})
	return done
}
