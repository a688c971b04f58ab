package balance

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Sizes of least_request: up to fewMembers all are compared, beyond that
// sampledMembers of them, drawn by weight.
const (
	fewMembers     = 32
	sampledMembers = 8
)

// boundedLoad is how far above the mean consistent_hash loads a member.
const boundedLoad = 1.25

// choose returns a fit member by the picker's kind, or -1 if there is none.
func (v *view) choose() int {
	switch v.policy.Kind {
	case LeastRequest:
		return v.leastRequest()
	case P2C:
		return v.leastOf(2)
	case Random:
		return v.random()
	case IPHash:
		return v.hashed(false)
	case ConsistentHash:
		return v.hashed(true)
	}
	return v.roundRobin()
}

// slot is the member whose turn is k.
func (p *picker) slot(k uint64) int {
	if p.slots == nil {
		return int(k % uint64(len(p.members)))
	}
	return int(p.slots[k%uint64(len(p.slots))])
}

// draws is how many turns are tried before anyFit ends the search: enough
// for every member to have had one.
func (p *picker) draws() int { return max(2*len(p.members), len(p.slots)) }

// roundRobin takes turns. A turn of a member that is out is skipped with a
// turn of its own, so that the others share it by weight; if it went to the
// next in line, that one would carry double.
func (v *view) roundRobin() int {
	for range v.draws() {
		if i := v.slot(v.turn.Add(1)); v.fit(i) && v.awake(i) {
			return i
		}
	}
	return v.anyFit()
}

// random draws by weight.
func (v *view) random() int {
	for range v.draws() {
		if i := v.slot(rand.Uint64()); v.fit(i) && v.awake(i) {
			return i
		}
	}
	return v.anyFit()
}

// awake lets a member in slow start through as often as its share says.
func (v *view) awake(i int) bool {
	w := v.warmth(i)
	return w >= 1 || rand.Float64() < w
}

// anyFit finds a fit member where draws did not.
func (v *view) anyFit() int {
	n := len(v.members)
	start := rand.IntN(n)
	for k := range n {
		if i := (start + k) % n; v.fit(i) {
			return i
		}
	}
	return -1
}

// load is what member i has under way, by weight.
func (v *view) load(i int) float64 {
	m := &v.members[i]
	return float64(m.endpoint.inFlight.Load()) / (m.weight * v.warmth(i))
}

// leastRequest takes the member with the least under way for its weight; of
// equals each as often as its weight says.
func (v *view) leastRequest() int {
	if len(v.members) > fewMembers {
		return v.leastOf(sampledMembers)
	}
	best, least, ties := -1, math.Inf(1), 0.0
	for i := range v.members {
		if !v.fit(i) {
			continue
		}
		w := v.members[i].weight * v.warmth(i)
		switch load := v.load(i); {
		case load < least:
			best, least, ties = i, load, w
		case load == least:
			ties += w
			if rand.Float64()*ties < w {
				best = i
			}
		}
	}
	return best
}

// leastOf draws n different members by weight and takes the one with the
// least under way for its weight; of equals the first drawn.
func (v *view) leastOf(n int) int {
	best := v.random()
	if best < 0 {
		return -1
	}
	least := v.load(best)
	var drawn [sampledMembers]int
	drawn[0] = best
	for k := 1; k < n; k++ {
		i := v.another(drawn[:k])
		if i < 0 {
			break
		}
		drawn[k] = i
		if load := v.load(i); load < least {
			best, least = i, load
		}
	}
	return best
}

// another draws a member that is not among drawn, or -1 if there is none.
func (v *view) another(drawn []int) int {
	for range 4 {
		if i := v.random(); !slices.Contains(drawn, i) {
			return i
		}
	}
	n := len(v.members)
	start := rand.IntN(n)
	for k := range n {
		if i := (start + k) % n; v.fit(i) && !slices.Contains(drawn, i) {
			return i
		}
	}
	return -1
}
