package balance

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync/atomic"
)

// Member is an endpoint with its weight in one picker.
type Member struct {
	Endpoint *Endpoint
	Weight   int
}

// Pick is one endpoint taken for one attempt. It is a value; call Done once.
type Pick struct {
	Endpoint *Endpoint

	from  *picker
	probe int64 // of the open circuit; 0 for none
	trial int64 // of the ejected endpoint; 0 for none
}

// Done gives the endpoint back and says what became of the attempt.
func (p Pick) Done(r Result) {
	if p.from == nil {
		return
	}
	p.from.learn(p.Endpoint, r, p.trial)
	g := p.from.group
	g.record(&p.from.policy, r, p.probe)
	g.inFlight.Add(-1)
	p.Endpoint.release()
}

// maxWeight keeps sums of weights far from overflow.
const maxWeight = 1<<31 - 1

// member is what a picker knows of a member.
type member struct {
	endpoint *Endpoint
	weight   float64
	seed     uint64 // of the hashing kinds
}

// picker is every kind of Picker: the kinds differ in choose only. What
// changes in it is a counter and a cache; the rest is immutable.
type picker struct {
	group      *Group
	policy     Policy
	members    []member // of weight above 0, by ID
	slots      []int32  // members in turn by weight; nil where all weigh the same
	maxEjected int
	warmUntil  int64

	known atomic.Uint64 // see census

	_    [64]byte
	turn atomic.Uint64 // of round_robin
}

// NewPicker makes a picker over members, which are endpoints of g's service,
// sorted by endpoint ID. Members of weight 0 and below are left out. An
// unknown or empty kind is round_robin.
func NewPicker(g *Group, p Policy, members []Member) Picker {
	k := &picker{group: g, policy: p, members: make([]member, 0, len(members))}
	for _, m := range members {
		if m.Weight > 0 {
			k.members = append(k.members, member{endpoint: m.Endpoint, weight: float64(min(m.Weight, maxWeight))})
		}
	}
	byID := func(a, b member) int { return cmp.Compare(a.endpoint.id, b.endpoint.id) }
	if !slices.IsSortedFunc(k.members, byID) {
		slices.SortStableFunc(k.members, byID)
	}
	switch p.Kind {
	case IPHash, ConsistentHash:
		seed(k.members)
	default:
		k.slots = schedule(k.members)
	}
	k.maxEjected = maxEjected(&k.policy, len(k.members))
	k.warmUntil = warmUntil(k.members, p.SlowStart)
	// Tables are swapped often: had every one its turns begin at the first
	// member, that would get more than its share.
	k.turn.Store(uint64(rand.Uint32()))
	return k
}

// Pick implements Picker.
func (p *picker) Pick(q Query) (Pick, error) {
	if len(p.members) == 0 {
		return Pick{}, ErrNoInstance
	}
	g := p.group
	n := g.inFlight.Add(1)
	if p.policy.MaxInFlight > 0 && n > int64(p.policy.MaxInFlight) {
		g.inFlight.Add(-1)
		return Pick{}, ErrOverloaded
	}
	probe, err := g.admit(&p.policy)
	if err != nil {
		g.inFlight.Add(-1)
		return Pick{}, err
	}
	// A choice is lost only where another request takes the same trial, or the
	// last place, at this very moment; another look tells.
	for range len(p.members) + 1 {
		v := p.look(q)
		i := v.preferred()
		if i < 0 {
			i = v.choose()
		}
		if i < 0 {
			break
		}
		e := p.members[i].endpoint
		if trial, ok := e.claim(v.now, v.ignoreEjected, int64(p.policy.MaxPerEndpoint)); ok {
			return Pick{Endpoint: e, from: p, probe: probe, trial: trial}, nil
		}
	}
	g.giveBack(probe)
	g.inFlight.Add(-1)
	if v := p.look(q); v.crowded() {
		return Pick{}, ErrOverloaded
	}
	return Pick{}, ErrNoInstance
}

// view is the members as one request sees them.
type view struct {
	*picker
	query Query
	now   int64
	// clean: every member is fit.
	clean, ignoreEjected, ignoreUnhealthy bool
	// warming: some members take less than their weight.
	warming bool
}

func (p *picker) look(q Query) view {
	known := p.census()
	v := view{
		picker:          p,
		query:           q,
		clean:           known&censusClean != 0,
		ignoreEjected:   known&censusIgnoreEjected != 0,
		ignoreUnhealthy: known&censusIgnoreUnhealthy != 0,
	}
	if !v.clean || p.warmUntil != 0 {
		v.now = p.group.pool.now()
		v.warming = v.now < p.warmUntil
	}
	return v
}

// fit says whether member i may be chosen.
func (v *view) fit(i int) bool {
	return !v.members[i].endpoint.full(v.policy.MaxPerEndpoint) && v.able(i)
}

// crowded says whether a member would be fit with less under way.
func (v *view) crowded() bool {
	for i := range v.members {
		if v.members[i].endpoint.full(v.policy.MaxPerEndpoint) && v.able(i) {
			return true
		}
	}
	return false
}

// able is fit, whatever member i has under way.
func (v *view) able(i int) bool {
	e := v.members[i].endpoint
	for _, t := range v.query.Tried {
		if t == e {
			return false
		}
	}
	return v.clean || e.fit(v.now, v.ignoreEjected, v.ignoreUnhealthy)
}

// warmth is the share of its weight that member i takes.
func (v *view) warmth(i int) float64 {
	if !v.warming {
		return 1
	}
	return v.members[i].endpoint.warmth(v.now, v.policy.SlowStart)
}

// preferred finds the member that the request asks for, if it is fit.
func (v *view) preferred() int {
	if v.query.Prefer == "" {
		return -1
	}
	i, _ := slices.BinarySearchFunc(v.members, v.query.Prefer, func(m member, id string) int {
		return cmp.Compare(m.endpoint.id, id)
	})
	for ; i < len(v.members) && v.members[i].endpoint.id == v.query.Prefer; i++ {
		if v.fit(i) {
			return i
		}
	}
	return -1
}
