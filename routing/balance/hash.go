package balance

import (
	"hash/fnv"
	"io"
	"math"
)

// The hashing kinds are weighted rendezvous hashing: every member gets a
// score for the key from hash(key, ID) and its weight, and the best one is
// it. A member that leaves or joins moves its own keys and no others; each
// owns keys by its exact weight; nothing is built, and gateways agree without
// a word. The price is a look at every member: about 1 µs for a hundred.
// (Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005.)

// seed gives each member the hash of its ID. Where registries share an ID,
// the address tells the members apart.
func seed(members []member) {
	for i := range members {
		e := members[i].endpoint
		h := fnv.New64a()
		_, _ = io.WriteString(h, e.id)
		if i > 0 && members[i-1].endpoint.id == e.id {
			_, _ = io.WriteString(h, e.address)
		}
		members[i].seed = mix(h.Sum64())
	}
}

// hashed takes the member that the key belongs to. A bounded choice passes
// over members that carry more than 1.25 times their share of what is under
// way, so that one hot key cannot drown an instance; its next best member is
// the same for every request. ("Consistent Hashing with Bounded Loads",
// Mirrokni, Thorup and Zadimoghaddam, 2016.)
func (v *view) hashed(bounded bool) int {
	var perWeight float64
	if bounded {
		perWeight = v.boundPerWeight()
	}
	best, least := -1, math.Inf(1)
	spare, spareLeast := -1, math.Inf(1) // in slow start, not yet its turn
	for i := range v.members {
		m := &v.members[i]
		h := mix(v.query.Hash ^ m.seed)
		u := (float64(h>>11) + 0.5) / (1 << 53)
		// The score is -ln(u)/weight, lowest wins. As -ln(u) is at least 1-u,
		// most members lose without a logarithm.
		if (1-u)/m.weight >= least || !v.fit(i) {
			continue
		}
		if bounded && float64(m.endpoint.inFlight.Load()) >= math.Ceil(perWeight*m.weight) {
			continue
		}
		score := -math.Log(u) / m.weight
		if w := v.warmth(i); w < 1 && unit(mix(h)) >= w {
			// Slow start by key: each moves to the new member once.
			if score < spareLeast {
				spare, spareLeast = i, score
			}
			continue
		}
		if score < least {
			best, least = i, score
		}
	}
	switch {
	case best >= 0:
		return best
	case spare >= 0 || !bounded:
		return spare
	}
	return v.hashed(false) // loads grew while we looked
}

// boundPerWeight is what a member may have under way per unit of weight. With
// the coming request counted in, it always leaves a member below its bound.
func (v *view) boundPerWeight() float64 {
	var weight float64
	load := 1.0
	for i := range v.members {
		if v.fit(i) {
			weight += v.members[i].weight
			load += float64(v.members[i].endpoint.inFlight.Load())
		}
	}
	if weight == 0 {
		return 0
	}
	return boundedLoad * load / weight
}

// mix spreads the bits of x (the finalizer of MurmurHash3).
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// unit maps a hash to [0,1).
func unit(h uint64) float64 { return float64(h>>11) / (1 << 53) }
