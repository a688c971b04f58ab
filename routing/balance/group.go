package balance

import (
	"sync"
	"sync/atomic"
	"time"
)

// The retry budget looks back ten seconds, and lets through a few retries
// whatever the traffic: one request a minute may be retried too.
const (
	budgetTick    = time.Second
	budgetTicks   = 10
	budgetMinimum = 10
)

// probeEvery is the shortest time between two probes of an open circuit.
const probeEvery = time.Second

// defaultWindow is the breaker's window where the policy names none.
const defaultWindow = 10 * time.Second

// Group is the live state of one service as a whole: what is in flight, the
// retry budget, the circuit breaker. Safe for concurrent use.
type Group struct {
	name string
	pool *Pool

	// epoch grows after every change of who is fit.
	epoch atomic.Uint64
	// probeAt is when the open circuit lets the next probe through; 0 while
	// it is closed.
	probeAt atomic.Int64

	// mu guards changes of state of the group and its endpoints.
	mu sync.Mutex

	// Guarded by the pool's lock.
	endpoints map[endpointKey]*Endpoint
	mark      uint64

	_        [64]byte // what every request writes stands apart
	inFlight atomic.Int64

	requests, retries window // of the retry budget
	total, failed     window // of the breaker
}

// Begin counts a request towards the retry budget. Call it once per request,
// before the first attempt.
func (g *Group) Begin() { g.requests.add(tick(g.pool.now(), budgetTick)) }

// AllowRetry spends from the retry budget and says whether a retry may go:
// retries of the last ten seconds stay within budgetPercent of the requests
// of that time, or within ten where that is more. A budget of 0 allows none.
func (g *Group) AllowRetry(budgetPercent int) bool {
	if budgetPercent <= 0 {
		return false
	}
	now := tick(g.pool.now(), budgetTick)
	budget := max(budgetMinimum, g.requests.sum(now, budgetTicks)*uint64(budgetPercent)/100)
	if g.retries.sum(now, budgetTicks) >= budget {
		return false
	}
	// Spend first and look again: of many at once none overdraws.
	g.retries.add(now)
	if g.retries.sum(now, budgetTicks) > budget {
		g.retries.undo(now)
		return false
	}
	return true
}

// InFlight is the number of attempts under way to the service.
func (g *Group) InFlight() int64 { return g.inFlight.Load() }

// CircuitOpen says whether the breaker is open, also while it probes.
func (g *Group) CircuitOpen() bool { return g.probeAt.Load() != 0 }

// admit asks the breaker whether an attempt may go. probe is not 0 where the
// attempt is a probe of the open circuit.
func (g *Group) admit(p *Policy) (probe int64, err error) {
	at := g.probeAt.Load()
	switch {
	case at == 0:
		return 0, nil
	case p.ErrorPercent <= 0: // the policy has changed since it opened
		g.closeCircuit()
		return 0, nil
	}
	now := g.pool.now()
	probe = now + int64(probeEvery)
	if now < at || !g.probeAt.CompareAndSwap(at, probe) {
		return 0, ErrCircuitOpen
	}
	return probe, nil
}

// giveBack lets another request be the probe that could not go.
func (g *Group) giveBack(probe int64) {
	if probe != 0 {
		g.probeAt.CompareAndSwap(probe, g.pool.now())
	}
}

// record takes the result of an attempt into the breaker.
func (g *Group) record(p *Policy, r Result, probe int64) {
	if p.ErrorPercent <= 0 || r == Neutral {
		return
	}
	if probe != 0 {
		if r == Success {
			g.closeCircuit()
		} else {
			g.probeAt.CompareAndSwap(probe, g.pool.now()+int64(max(p.OpenFor, probeEvery)))
		}
		return
	}
	width := p.Window
	if width <= 0 {
		width = defaultWindow
	}
	now := g.pool.now()
	t := tick(now, max(1, width/windowBuckets))
	g.total.add(t)
	if r == Success {
		return
	}
	g.failed.add(t)
	if g.probeAt.Load() == 0 && g.tripped(p, t) {
		g.mu.Lock()
		opened := g.probeAt.CompareAndSwap(0, now+int64(max(1, p.OpenFor)))
		g.mu.Unlock()
		if opened {
			g.pool.observer.Circuit(g.name, true)
		}
	}
}

// tripped says whether enough of the recent attempts failed. Beside the whole
// window it looks at its newer parts, down to two buckets: a service that
// fails all of a sudden must not be called for as long as it takes to
// outweigh the good time before.
func (g *Group) tripped(p *Policy, t uint32) bool {
	var total, failed uint64
	for i := range uint32(windowBuckets) {
		total += g.total.at(t - i)
		failed += g.failed.at(t - i)
		if i > 0 && total >= uint64(max(1, p.MinRequests)) && failed*100 >= total*uint64(p.ErrorPercent) {
			return true
		}
	}
	return false
}

// closeCircuit forgets what opened the circuit.
func (g *Group) closeCircuit() {
	g.mu.Lock()
	closed := g.probeAt.Load() != 0
	if closed {
		g.total.clear()
		g.failed.clear()
		g.probeAt.Store(0)
	}
	g.mu.Unlock()
	if closed {
		g.pool.observer.Circuit(g.name, false)
	}
}

// tick numbers the stretches of width that moments fall into.
func tick(now int64, width time.Duration) uint32 { return uint32(now / int64(width)) }
