package balance

import "time"

// maxEjectionGrowth bounds an ejection's length, in BaseEjections.
const maxEjectionGrowth = 10

// learn takes what an attempt says about the endpoint. began is the moment of
// the trial that the attempt was, or 0. A trial that took so long that there
// has been another is an attempt like any.
func (p *picker) learn(e *Endpoint, r Result, began int64) {
	trial := began != 0 && e.trial.Load() == began
	switch {
	case r == Neutral:
	case r == Success:
		if e.failures.Load() != 0 { // spares the write on a shared cache line
			e.failures.Store(0)
		}
		if trial {
			e.readmit()
		}
	default:
		p.blame(e, ejection{result: r, failures: e.failures.Add(1), trial: trial})
	}
	if trial {
		e.trial.CompareAndSwap(began, 0)
	}
}

// blame ejects e if the failure is reason enough.
func (p *picker) blame(e *Endpoint, why ejection) {
	limit := p.policy.ConsecutiveFailures
	if !why.trial && why.result != Unreachable && (limit <= 0 || int(why.failures) < limit) {
		return
	}
	if p.maxEjected == 0 { // the policy has changed since e was ejected
		if why.trial {
			e.readmit()
		}
		return
	}
	if !why.trial && (e.until.Load() != 0 || p.census()&censusFull != 0) {
		return // the common case while a whole service fails: no lock
	}
	if p.eject(e, why) {
		p.group.pool.observer.Ejected(p.group.name, why.result.String())
	}
}

// eject leaves e out, if that leaves enough of the others in.
func (p *picker) eject(e *Endpoint, why ejection) bool {
	g := p.group
	g.mu.Lock()
	defer g.mu.Unlock()
	switch ejected := e.until.Load() != 0; {
	case why.trial && !ejected: // came back by registering anew meanwhile
		return false
	case !why.trial && (ejected || !p.mayEject(e)):
		return false
	}
	now := g.pool.now()
	base := p.policy.BaseEjection
	longest := maxEjectionGrowth * base
	if e.returned != 0 && now-e.returned >= int64(longest) {
		e.ejections = 0
	}
	length := base
	for range e.ejections {
		if length = min(2*length, longest); length == longest {
			break
		}
	}
	e.ejections++
	if !why.trial {
		e.ejectedAt = now
	}
	e.ejectedBy = why
	e.until.Store(now + int64(length))
	g.epoch.Add(1)
	return true
}

// mayEject says whether one more may go. The group's lock is held.
func (p *picker) mayEject(e *Endpoint) bool {
	ejected, othersFit := 0, false
	for i := range p.members {
		m := p.members[i].endpoint
		switch {
		case m.until.Load() != 0:
			ejected++
		case m != e && m.failing.Load() == nil:
			othersFit = true
		}
	}
	return othersFit && ejected < p.maxEjected
}

// readmit ends the ejection.
func (e *Endpoint) readmit() {
	g := e.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if e.until.Load() == 0 {
		return
	}
	e.returned = g.pool.now()
	e.failures.Store(0)
	e.until.Store(0)
	g.epoch.Add(1)
}

// maxEjected is how many of n members policy lets be ejected at once.
func maxEjected(policy *Policy, n int) int {
	if policy.BaseEjection <= 0 || policy.MaxEjectionPercent <= 0 {
		return 0
	}
	return min(n*policy.MaxEjectionPercent/100, n-1)
}

// What a picker knows about its members' fitness, as of an epoch of the
// group: the low bits of picker.known. The epoch stands above them.
const (
	censusTaken           = 1 << iota // there is one
	censusClean                       // every member is fit
	censusFull                        // no more may be ejected
	censusIgnoreEjected               // serve by ejected members too
	censusIgnoreUnhealthy             // serve by unhealthy members too
	censusBits            = 8
)

// census returns the flags above, counting the members only after some
// endpoint of the service has changed.
func (p *picker) census() uint64 {
	epoch := p.group.epoch.Load()
	if known := p.known.Load(); known>>censusBits == epoch && known&censusTaken != 0 {
		return known
	}
	var ejected, unhealthy int
	for i := range p.members {
		e := p.members[i].endpoint
		if e.until.Load() != 0 {
			ejected++
		}
		if e.failing.Load() != nil {
			unhealthy++
		}
	}
	known := epoch<<censusBits | censusTaken
	if ejected == 0 && unhealthy == 0 {
		known |= censusClean
	}
	if ejected >= p.maxEjected {
		known |= censusFull
	}
	ignoreEjected, ignoreUnhealthy := ejected > p.maxEjected, 2*(len(p.members)-unhealthy) < len(p.members)
	if !p.anyIn(ignoreEjected, ignoreUnhealthy) {
		ignoreEjected, ignoreUnhealthy = true, true
	}
	if ignoreEjected {
		known |= censusIgnoreEjected
	}
	if ignoreUnhealthy {
		known |= censusIgnoreUnhealthy
	}
	// The epoch was read before the members and grows after each change, so
	// that what is stored here is never taken for newer than it is.
	p.known.Store(known)
	return known
}

// anyIn says whether a member is fit without a trial.
func (p *picker) anyIn(ignoreEjected, ignoreUnhealthy bool) bool {
	for i := range p.members {
		e := p.members[i].endpoint
		if (ignoreEjected || e.until.Load() == 0) && (ignoreUnhealthy || e.failing.Load() == nil) {
			return true
		}
	}
	return false
}

// warmUntil is when the last slow start among members ends; 0 for none.
func warmUntil(members []member, slowStart time.Duration) int64 {
	var last int64
	if slowStart > 0 {
		for i := range members {
			if born := members[i].endpoint.born; born != 0 {
				last = max(last, born+int64(slowStart))
			}
		}
	}
	return last
}
