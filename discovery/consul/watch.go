package consul

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"

	"github.com/sluice-gateway/sluice/discovery"
)

// kind is what a blocking query asks for.
type kind uint8

const (
	kindService kind = iota // the passing instances of ref
	kindCatalog             // the services of ref.Datacenter and their tags
	kindChecks              // every check of ref.Datacenter
)

// watch names one thing that is asked for.
type watch struct {
	kind kind
	ref  discovery.ServiceRef
}

func (w watch) String() string {
	switch w.kind {
	case kindCatalog:
		return "catalog of " + datacenter(w.ref.Datacenter)
	case kindChecks:
		return "checks of " + datacenter(w.ref.Datacenter)
	}
	return "service " + w.ref.String()
}

func datacenter(name string) string {
	if name == "" {
		return "the agent's datacenter"
	}
	return "datacenter " + name
}

// How often one watch may wake: every wakeEvery after a burst, and less often
// where the answer is long, since each wake carries the whole of it.
const (
	wakeEvery   = 10 * time.Millisecond
	wakeBurst   = 10
	wakePerItem = 25 * time.Microsecond
)

// loggedFailures is how many refused watches are logged one by one; beyond
// that they have one cause.
const loggedFailures = 10

// answer is a good answer: take applies it to the source, under mu; again
// says that the watch was failing before.
type answer struct {
	index uint64
	items int
	take  func(now time.Time, again bool)
}

// follow asks for w by blocking queries until ctx ends.
func (s *Source) follow(ctx context.Context, w watch) {
	ask := s.question(w)
	limit := rate.NewLimiter(rate.Every(wakeEvery), wakeBurst)
	var (
		index uint64 // 0 asks at once
		retry backoff
	)
	for limit.Wait(ctx) == nil {
		a, err := s.ask(ctx, index, w.ref.Datacenter, ask)
		now := time.Now()
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			s.fail(w, err)
			index = 0
			if !retry.wait(ctx) {
				return
			}
			continue
		}
		retry.reset()
		s.mu.Lock()
		if ctx.Err() != nil { // stopped by reconcile, under mu
			s.mu.Unlock()
			return
		}
		again := s.contact(w)
		if index == 0 || a.index != index {
			a.take(now, again)
		}
		s.mu.Unlock()
		if a.index < index {
			index = 0
		} else {
			index = a.index
		}
		limit.SetLimit(rate.Every(max(wakeEvery, time.Duration(a.items)*wakePerItem)))
	}
}

// question is how to ask for w.
func (s *Source) question(w watch) func(*api.QueryOptions) (answer, error) {
	switch w.kind {
	case kindCatalog:
		return s.askCatalog(w)
	case kindChecks:
		return s.askChecks(w)
	}
	return s.askService(w.ref)
}

// ask sends one query with its own deadline.
func (s *Source) ask(ctx context.Context, index uint64, dc string, ask func(*api.QueryOptions) (answer, error)) (answer, error) {
	q := &api.QueryOptions{WaitIndex: index, Datacenter: dc}
	limit := s.timing.read
	if index > 0 {
		q.WaitTime = between(s.timing.waitLow, s.timing.waitHigh)
		// The agent adds up to a sixteenth of the wait.
		limit = q.WaitTime + q.WaitTime/16 + s.timing.slack
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s.counts.queries.Add(1)
	a, err := ask(q.WithContext(ctx))
	if err == nil && a.index == 0 {
		err = errNoIndex
	}
	if err != nil {
		s.counts.failures.Add(1)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %s: %w", limit.Round(time.Millisecond), err)
		}
	}
	return a, err
}

// askService asks for the passing instances of ref. An agent answers a
// blocking query for them from its streaming backend, which does not say when
// ACLs thin out an answer and keeps its own count of indexes; asking for an
// order by distance is what its classic backend alone can do.
func (s *Source) askService(ref discovery.ServiceRef) func(*api.QueryOptions) (answer, error) {
	return func(q *api.QueryOptions) (answer, error) {
		q.Near = "_agent"
		entries, meta, err := s.client.Health().Service(ref.Name, "", true, q)
		if err != nil {
			return answer{}, err
		}
		if meta.ResultsFilteredByACLs {
			return answer{}, errFiltered
		}
		return answer{
			index: meta.LastIndex,
			items: len(entries),
			take: func(now time.Time, _ bool) {
				svc := s.services[ref]
				if svc == nil {
					return
				}
				settled := svc.settled
				if svc.apply(instances(entries), meta.LastIndex, now, s.keep(ref.Datacenter, svc.seen), s.timing.hold) {
					s.report.staleInstances = true
					s.touch(now)
				} else if !settled {
					s.wake()
				}
			},
		}, nil
	}
}

// contact notes a good answer to w and says whether w was failing before.
// The caller holds mu.
func (s *Source) contact(w watch) bool {
	again := s.failing[w]
	delete(s.failing, w)
	if s.lost {
		s.lost, s.back = false, time.Now()
		s.log.Info("consul answers again")
	}
	if !s.answered {
		s.answered = true
		s.wake()
	}
	s.sink.Contact(nil)
	return again
}

// fail notes that w got no good answer. Nothing known changes.
func (s *Source) fail(w watch, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	svc := s.services[w.ref]
	if s.running[w] == nil && (w.kind != kindService || svc == nil) {
		return // nobody asks any more
	}
	switch {
	case w.kind == kindService && svc != nil && !svc.settled:
		svc.settled = true
		s.wake()
	case w.kind == kindCatalog && w.ref.Datacenter == "" && !s.catalog.settled:
		s.catalog.settled = true
		s.wake()
	}
	first := !s.failing[w]
	s.failing[w] = true
	err = advise(fmt.Errorf("ask consul for the %s: %w", w, err))
	if refused(err) {
		if first && len(s.failing) <= loggedFailures {
			s.log.Warn("consul gave no usable answer, what is known stays", "error", err)
		}
		if len(s.failing) < s.watches() {
			return
		}
	}
	if !s.lost {
		s.lost = true
		s.log.Warn("consul is out of reach, what is known stays", "error", err)
	}
	s.sink.Contact(err)
}

// watches is how many things are asked for. The caller holds mu.
func (s *Source) watches() int {
	n := len(s.running)
	for _, svc := range s.services {
		if !svc.direct {
			n++
		}
	}
	return n
}
