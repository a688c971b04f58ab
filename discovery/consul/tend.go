package consul

import (
	"context"
	"time"
)

const (
	tendEvery = 50 * time.Millisecond
	// explainIn is how long the list of checks has to show what a change of
	// the catalog was.
	explainIn = 50 * time.Millisecond
	// sweepMin, and sweepPerService for each shared service, bound how often
	// all of them are read again: a thousand reads a second at the most.
	sweepMin        = 100 * time.Millisecond
	sweepPerService = time.Millisecond
	// retriesPerTend bounds how many failed services are tried again at a
	// time, however many fail.
	retriesPerTend = 1
)

// tend does what is due by the clock: ends holds, reads again the services
// that share watches in slow rotation, tries failed ones again, and sweeps
// after a change that nothing explains.
func (s *Source) tend(ctx context.Context) {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.mu.Lock()
			s.tendHolds(now)
			s.tendShared(now)
			s.mu.Unlock()
		}
	}
}

func (s *Source) tendHolds(now time.Time) {
	for _, svc := range s.services {
		if svc.expire(now) {
			s.report.staleInstances = true
			s.touch(now)
		}
	}
	if s.catalog.expire(now) {
		s.report.staleAnnounced = true
		s.reconcile()
		s.touch(now)
	}
}

func (s *Source) tendShared(now time.Time) {
	retries := retriesPerTend
	for ref, svc := range s.services {
		if svc.direct || svc.queued != nowhere || svc.reading || svc.next.IsZero() || now.Before(svc.next) {
			continue
		}
		if svc.failed {
			if retries == 0 {
				continue
			}
			retries--
		}
		s.enqueueSlow(ref)
	}
	for dc, sh := range s.shared {
		switch {
		case sh.unexplained == 0 || now.Sub(sh.since) < explainIn:
		case sh.explained >= sh.unexplained:
			sh.unexplained = 0
		case now.Sub(sh.swept) >= max(sweepMin, time.Duration(len(s.services))*sweepPerService):
			s.sweep(dc, sh, now)
		}
	}
}
