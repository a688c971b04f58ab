package consul

import (
	"context"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// sweep reads every service of dc again.
func (s *Source) sweep(dc string, sh *shared, now time.Time) {
	s.counts.sweeps.Add(1)
	sh.swept, sh.unexplained = now, 0
	for ref, svc := range s.services {
		if ref.Datacenter == dc && !svc.direct {
			s.enqueueSlow(ref)
		}
	}
}

// enqueue has ref read again by the readers, before all that a sweep or the
// rotation has queued: something says that it changed. A service that has its
// own query, or that nobody follows, is left alone. The caller holds mu.
func (s *Source) enqueue(ref discovery.ServiceRef) { s.push(&s.urgent, ref, inUrgent) }

// enqueueSlow has ref read again when nothing more urgent is to be read. The
// caller holds mu.
func (s *Source) enqueueSlow(ref discovery.ServiceRef) { s.push(&s.slow, ref, inSlow) }

// place is the queue in which a service stands.
type place uint8

const (
	nowhere place = iota
	inSlow
	inUrgent
)

func (s *Source) push(queue *[]discovery.ServiceRef, ref discovery.ServiceRef, to place) {
	svc := s.services[ref]
	switch {
	case svc == nil || svc.direct || svc.queued >= to:
	case svc.reading:
		svc.again = true
	default:
		// An entry left behind in the slow queue is skipped there.
		svc.queued = to
		*queue = append(*queue, ref)
		signal(s.more)
	}
}

// dequeue takes the next service to read.
func (s *Source) dequeue() (discovery.ServiceRef, *service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.urgent)+len(s.slow) > 0 {
		queue, from := &s.urgent, inUrgent
		if len(s.urgent) == 0 {
			queue, from = &s.slow, inSlow
		}
		ref := (*queue)[0]
		*queue = (*queue)[1:]
		svc := s.services[ref]
		if svc == nil || svc.queued != from {
			continue // dropped, or read already
		}
		svc.queued = nowhere
		if svc.direct {
			continue
		}
		svc.reading = true
		if len(s.urgent)+len(s.slow) > 0 {
			signal(s.more)
		}
		return ref, svc
	}
	return discovery.ServiceRef{}, nil
}

// readQueue reads queued services, one at a time, until ctx ends.
func (s *Source) readQueue(ctx context.Context) {
	var retry backoff
	for {
		ref, svc := s.dequeue()
		if svc == nil {
			select {
			case <-ctx.Done():
				return
			case <-s.more:
			}
			continue
		}
		s.counts.rereads.Add(1)
		a, err := s.ask(ctx, 0, ref.Datacenter, s.askService(ref))
		if ctx.Err() != nil {
			return
		}
		s.readDone(ref, svc, a, err)
		// An agent that is away is asked by each reader at its own pace, not
		// once for each service.
		if err == nil || refused(err) {
			retry.reset()
		} else if !retry.wait(ctx) {
			return
		}
	}
}

// readDone takes what a reader got for svc.
func (s *Source) readDone(ref discovery.ServiceRef, svc *service, a answer, err error) {
	w := watch{kindService, ref}
	if err != nil {
		s.mu.Lock()
		current := s.services[ref] == svc && !svc.direct
		s.mu.Unlock()
		if current {
			s.fail(w, err)
		}
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	again := svc.again
	svc.reading, svc.again = false, false
	if s.services[ref] != svc || svc.direct {
		return
	}
	svc.failed = err != nil
	if err == nil {
		s.contact(w)
		a.take(now, false)
		svc.retry.reset()
		svc.next = now.Add(between(s.timing.rotateLow, s.timing.rotateHigh))
	} else {
		svc.next = now.Add(svc.retry.next())
	}
	if again {
		s.enqueue(ref)
	}
}
