package balance

import (
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// States of an endpoint.
const (
	Healthy   = "healthy"
	Ejected   = "ejected"   // left out by passive ejection
	Unhealthy = "unhealthy" // its active check fails
	Draining  = "draining"  // left the table, finishing what it has
)

// Endpoint is the live target for one instance of one service, with its
// counters. It outlives every table that names it. Safe for concurrent use.
type Endpoint struct {
	service string
	id      string
	address string
}

// Service, ID and Address identify the endpoint; they never change.
func (e *Endpoint) Service() string { return e.service }
func (e *Endpoint) ID() string      { return e.id }
func (e *Endpoint) Address() string { return e.address }

// InFlight is the number of attempts under way.
func (e *Endpoint) InFlight() int64 { return 0 }

// Status returns the state with its reason ("" while healthy) and since when.
func (e *Endpoint) Status() (state, reason string, since time.Time) {
	return Healthy, "", time.Time{}
}

// SetHealthy records the verdict of an active check.
func (e *Endpoint) SetHealthy(ok bool, reason string) {}

// Pick is one endpoint taken for one attempt. It is a value; call Done once.
type Pick struct {
	Endpoint *Endpoint
}

// Done gives the endpoint back and says what became of the attempt.
func (p Pick) Done(r Result) {}

// Group is the live state of one service as a whole.
type Group struct{ name string }

// Begin counts a request towards the retry budget; AllowRetry spends from it
// and says whether a retry may go.
func (g *Group) Begin()                            {}
func (g *Group) AllowRetry(budgetPercent int) bool { return true }
func (g *Group) InFlight() int64                   { return 0 }
func (g *Group) CircuitOpen() bool                 { return false }

// Member is an endpoint with its weight in one picker.
type Member struct {
	Endpoint *Endpoint
	Weight   int
}

// NewPicker makes a picker over members, sorted by endpoint ID.
func NewPicker(g *Group, p Policy, members []Member) Picker { return nil }

// Pool owns endpoints and groups by name. Safe for concurrent use.
type Pool struct{}

// NewPool makes an empty pool.
func NewPool() *Pool { return &Pool{} }

// Group returns the live state of the named service, made when first asked for.
func (p *Pool) Group(service string) *Group { return nil }

// Endpoint returns the live endpoint for an instance, made when first asked
// for. An instance that comes back under the same ID and address gets the
// endpoint it had.
func (p *Pool) Endpoint(service string, in discovery.Instance) *Endpoint { return nil }

// Retain is called after a table was swapped in: endpoints that are not in
// use drain and are dropped once nothing is in flight; groups of services not
// named are dropped.
func (p *Pool) Retain(inUse func(yield func(*Endpoint) bool), services func(yield func(string) bool)) {
}
