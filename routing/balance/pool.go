package balance

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// Observer hears of what metrics and logs want to know. Its methods are
// called from the request path, rarely; they must not block.
type Observer interface {
	// Ejected: an instance of the service was left out. The reason is the
	// result that decided: Result.String.
	Ejected(service, reason string)
	// Circuit: the service's breaker opened or closed.
	Circuit(service string, open bool)
}

// Option sets up a pool.
type Option func(*Pool)

// WithObserver has o hear of what happens in the pool.
func WithObserver(o Observer) Option { return func(p *Pool) { p.observer = o } }

// Pool owns endpoints and groups by name. Safe for concurrent use; Endpoint,
// Group and Retain are meant for the one goroutine that builds tables.
type Pool struct {
	observer Observer
	start    time.Time

	mu     sync.Mutex
	groups map[string]*Group
	size   int // endpoints in all groups
	mark   uint64
}

// endpointKey is what makes two reports the same endpoint within a service.
type endpointKey struct{ id, address string }

// NewPool makes an empty pool.
func NewPool(opts ...Option) *Pool {
	p := &Pool{observer: silent{}, start: time.Now(), groups: map[string]*Group{}}
	for _, o := range opts {
		o(p)
	}
	return p
}

// Group returns the live state of the named service, made when first asked for.
func (p *Pool) Group(service string) *Group {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.group(service)
}

func (p *Pool) group(service string) *Group {
	g := p.groups[service]
	if g == nil {
		g = &Group{name: service, pool: p, endpoints: map[endpointKey]*Endpoint{}}
		p.groups[service] = g
	}
	return g
}

// Endpoint returns the live endpoint for an instance, made when first asked
// for. An instance that comes back under the same ID and address while it
// still finishes requests gets the endpoint it had.
//
// A new endpoint starts slowly, where the policy asks for that, only if the
// service has others in the table: at the start of the gateway nobody is new.
func (p *Pool) Endpoint(service string, in discovery.Instance) *Endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.group(service)
	key := endpointKey{in.ID, in.Address}
	if e := g.endpoints[key]; e != nil {
		return e
	}
	e := &Endpoint{group: g, id: in.ID, address: in.Address}
	for _, other := range g.endpoints {
		if other.retained && other.drained.Load() == 0 {
			e.born = p.now()
			break
		}
	}
	g.endpoints[key] = e
	p.size++
	return e
}

// Endpoints returns the endpoints of a service by ID, those that drain
// included.
func (p *Pool) Endpoints(service string) []*Endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.groups[service]
	if g == nil {
		return nil
	}
	out := make([]*Endpoint, 0, len(g.endpoints))
	for _, e := range g.endpoints {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b *Endpoint) int {
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.address, b.address))
	})
	return out
}

// Retain is called after a table was swapped in: endpoints that are not in
// use drain and are dropped once nothing is in flight; groups of services not
// named are dropped once they have no endpoint.
func (p *Pool) Retain(inUse func(yield func(*Endpoint) bool), services func(yield func(string) bool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mark++
	seen := 0
	for e := range inUse {
		if e.mark == p.mark {
			continue
		}
		e.mark, e.retained = p.mark, true
		seen++
		if e.drained.Load() != 0 {
			p.revive(e)
		}
	}
	if seen != p.size { // otherwise nobody left, which is the common case
		for _, g := range p.groups {
			for _, e := range g.endpoints {
				if e.mark != p.mark {
					p.drain(e)
				}
			}
		}
	}
	named := 0
	for name := range services {
		if g := p.groups[name]; g != nil && g.mark != p.mark {
			g.mark = p.mark
			named++
		}
	}
	if named != len(p.groups) {
		for name, g := range p.groups {
			if g.mark != p.mark && len(g.endpoints) == 0 {
				delete(p.groups, name)
			}
		}
	}
}

// revive takes an endpoint back that had left the table. It may have been
// dropped between the build that found it and now. Its registry speaks for it
// anew, as for one that was dropped and made again: it is not ejected.
func (p *Pool) revive(e *Endpoint) {
	e.drained.Store(0)
	key := endpointKey{e.id, e.address}
	if e.group.endpoints[key] == nil {
		p.size++
	}
	e.group.endpoints[key] = e
	e.readmit()
}

// drain marks an endpoint that left the table, and drops it if it is idle.
func (p *Pool) drain(e *Endpoint) {
	e.drained.CompareAndSwap(0, p.now())
	if e.inFlight.Load() == 0 { // else the last release drops it
		p.remove(e)
	}
}

// drop forgets a drained endpoint that finished its last request.
func (p *Pool) drop(e *Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.drained.Load() != 0 && e.inFlight.Load() == 0 {
		p.remove(e)
	}
}

func (p *Pool) remove(e *Endpoint) {
	key := endpointKey{e.id, e.address}
	if e.group.endpoints[key] == e {
		delete(e.group.endpoints, key)
		p.size--
	}
}

// now is the pool's clock: monotonic nanoseconds from 1.
func (p *Pool) now() int64 { return 1 + int64(time.Since(p.start)) }

// moment turns a reading of the clock into a time of day.
func (p *Pool) moment(at int64) time.Time { return p.start.Add(time.Duration(at - 1)) }

// silent is the observer of a pool that has none.
type silent struct{}

func (silent) Ejected(string, string) {}
func (silent) Circuit(string, bool)   {}
