package balance

import (
	"fmt"
	"sync/atomic"
	"time"
)

// States of an endpoint.
const (
	Healthy   = "healthy"
	Ejected   = "ejected"   // left out by passive ejection
	Unhealthy = "unhealthy" // its active check fails
	Draining  = "draining"  // left the table, finishing what it has
)

// trialPatience is how long a trial keeps others from being tried: its request
// may be a stream that goes on for hours.
const trialPatience = 5 * time.Second

// Endpoint is the live target for one instance of one service, with its
// counters. It outlives every table that names it. Safe for concurrent use.
//
// Moments are nanoseconds of the pool's clock, which starts at 1, so that 0
// is "never".
type Endpoint struct {
	group   *Group
	id      string
	address string
	// born is when slow start begins; 0 where there is none.
	born int64

	// until is when the ejection ends; 0 while not ejected. It stays set
	// after its time, until a trial succeeded.
	until atomic.Int64
	// trial is when the trial under way began; 0 while there is none.
	trial atomic.Int64
	// failing is the verdict of the active check; nil while it passes.
	failing atomic.Pointer[verdict]
	// drained is when the endpoint left the table; 0 while it is in.
	drained atomic.Int64

	// Guarded by group.mu.
	ejections int      // in a row, which decides the next one's length
	ejectedAt int64    // begin of the ejection
	ejectedBy ejection // why
	returned  int64    // when the last ejection ended

	// Guarded by the pool's lock.
	mark     uint64 // the Retain that last saw it in use
	retained bool   // a table that was swapped in has named it

	// The counters that every request writes stand on a cache line of their
	// own: scans of the fields above by other requests stay cheap.
	_        [64]byte
	inFlight atomic.Int64
	failures atomic.Int32
	made     atomic.Int64 // connections, for attempts
	reused   atomic.Int64
}

// verdict is what an active check found wrong.
type verdict struct {
	reason string
	since  int64
}

// ejection is why an endpoint was ejected.
type ejection struct {
	result   Result
	failures int32
	trial    bool
}

func (x ejection) String() string {
	switch {
	case x.trial:
		return "trial failed: " + x.result.String()
	case x.result == Unreachable:
		return x.result.String()
	}
	return fmt.Sprintf("%d failures in a row, the last: %s", x.failures, x.result)
}

// Service, ID and Address identify the endpoint; they never change.
func (e *Endpoint) Service() string { return e.group.name }

// ID is that of the instance.
func (e *Endpoint) ID() string { return e.id }

// Address is host:port.
func (e *Endpoint) Address() string { return e.address }

// InFlight is the number of attempts under way.
func (e *Endpoint) InFlight() int64 { return e.inFlight.Load() }

// Connected counts that an attempt had a connection, and whether that had
// served before.
func (e *Endpoint) Connected(reused bool) {
	if reused {
		e.reused.Add(1)
	} else {
		e.made.Add(1)
	}
}

// Connections is for how many attempts a connection was made, and for how many
// there was one.
func (e *Endpoint) Connections() (made, reused int64) { return e.made.Load(), e.reused.Load() }

// Status returns the state with its reason ("" while healthy) and since when
// (zero while healthy). An endpoint whose ejection has ended stays ejected
// until a trial succeeded.
func (e *Endpoint) Status() (state, reason string, since time.Time) {
	pool := e.group.pool
	if at := e.drained.Load(); at != 0 {
		return Draining, "not in the table any more", pool.moment(at)
	}
	if v := e.failing.Load(); v != nil {
		return Unhealthy, v.reason, pool.moment(v.since)
	}
	if e.until.Load() != 0 {
		e.group.mu.Lock()
		defer e.group.mu.Unlock()
		if e.until.Load() != 0 {
			return Ejected, e.ejectedBy.String(), pool.moment(e.ejectedAt)
		}
	}
	return Healthy, "", time.Time{}
}

// SetHealthy records the verdict of an active check. An endpoint that is not
// checked, or not any more, is healthy.
func (e *Endpoint) SetHealthy(ok bool, reason string) {
	g := e.group
	g.mu.Lock()
	defer g.mu.Unlock()
	old := e.failing.Load()
	switch {
	case ok && old == nil:
		return
	case ok:
		e.failing.Store(nil)
	case old == nil:
		e.failing.Store(&verdict{reason: reason, since: g.pool.now()})
	case old.reason != reason:
		e.failing.Store(&verdict{reason: reason, since: old.since})
		return // no change of who is fit
	default:
		return
	}
	g.epoch.Add(1)
}

// full says whether the endpoint has as many attempts under way as it may; a
// limit of 0 is none.
func (e *Endpoint) full(limit int) bool { return limit > 0 && e.inFlight.Load() >= int64(limit) }

// fit says whether the endpoint may be chosen at now. It may still lose the
// claim of a trial.
func (e *Endpoint) fit(now int64, ignoreEjected, ignoreUnhealthy bool) bool {
	if !ignoreUnhealthy && e.failing.Load() != nil {
		return false
	}
	if ignoreEjected {
		return true
	}
	until := e.until.Load()
	return until == 0 || until <= now && trialFree(e.trial.Load(), now)
}

func trialFree(began, now int64) bool {
	return began == 0 || now-began >= int64(trialPatience)
}

// claim takes an endpoint that was fit for one attempt, unless it has limit
// under way by now; 0 is no limit. Of the requests that come after an
// ejection's end one becomes the trial; the others are refused, unless
// ejections are ignored. trial is its moment, 0 for all but the trial.
func (e *Endpoint) claim(now int64, ignoreEjected bool, limit int64) (trial int64, ok bool) {
	if e.inFlight.Add(1) > limit && limit > 0 {
		e.release()
		return 0, false
	}
	// An ejection that is not over began after the caller looked: the request
	// goes, as it would have a moment earlier.
	if until := e.until.Load(); until != 0 && until <= now {
		began := e.trial.Load()
		if trialFree(began, now) && e.trial.CompareAndSwap(began, now) {
			trial = now
		} else if !ignoreEjected {
			e.release()
			return 0, false
		}
	}
	return trial, true
}

// release ends an attempt.
func (e *Endpoint) release() {
	if e.inFlight.Add(-1) == 0 && e.drained.Load() != 0 {
		e.group.pool.drop(e)
	}
}

// warmth is the share of its weight that the endpoint takes: from 0.1 at its
// birth to 1 after slowStart.
func (e *Endpoint) warmth(now int64, slowStart time.Duration) float64 {
	if e.born == 0 {
		return 1
	}
	age := float64(now-e.born) / float64(slowStart)
	return min(1, 0.1+0.9*max(0, age))
}
