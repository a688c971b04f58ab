package balance

import (
	"cmp"
	"math"
	"slices"
)

// schedule lays the members out in turns by weight, each member's turns
// spread evenly: of weights 5, 1, 1 the five do not come in a row. It returns
// nil where all weigh the same: then the members themselves are the turns.
//
// A schedule has at most the greater of 1,024 and eight times the members
// turns; greater totals are scaled down, the lightest to one turn.
func schedule(members []member) []int32 {
	var divisor, total int
	for i := range members {
		w := int(members[i].weight)
		divisor = gcd(divisor, w)
		total += w
	}
	if len(members) == 0 || total == divisor*len(members) {
		return nil
	}
	limit := max(1024, 8*len(members))
	scale := 1 / float64(divisor)
	if total/divisor > limit {
		scale = float64(limit-len(members)) / float64(total)
	}

	type turn struct {
		at     float64
		member int32
	}
	turns := make([]turn, 0, min(total/divisor, limit))
	for i := range members {
		count := max(1, int(math.Round(members[i].weight*scale)))
		// Members of one weight would all have their turns at the same
		// points; a phase of its own keeps each apart.
		phase := (float64(i) + 0.5) / float64(len(members))
		for k := range count {
			turns = append(turns, turn{(float64(k) + phase) / float64(count), int32(i)})
		}
	}
	slices.SortFunc(turns, func(a, b turn) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.member, b.member))
	})
	slots := make([]int32, len(turns))
	for i := range turns {
		slots[i] = turns[i].member
	}
	return slots
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
