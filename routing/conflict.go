package routing

import (
	"cmp"
	"slices"
	"strings"
	"unique"
)

// byName orders routes of one table; no two are equal.
func byName(a, b *Route) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Key, b.Key))
}

// exchange returns routes, which are in order, without gone and with come;
// the very slice where both are empty. It sorts gone and come.
func exchange(routes, gone, come []*Route) []*Route {
	if len(gone)+len(come) == 0 {
		return routes
	}
	slices.SortFunc(gone, byName)
	slices.SortFunc(come, byName)
	kept := make([]*Route, 0, len(routes))
	for _, r := range gone {
		i, found := slices.BinarySearchFunc(routes, r, byName)
		kept = append(kept, routes[:i]...)
		if found {
			i++
		}
		routes = routes[i:]
	}
	kept = append(kept, routes...)
	if len(come) == 0 {
		return kept
	}
	out := make([]*Route, 0, len(kept)+len(come))
	for _, r := range come {
		i, _ := slices.BinarySearchFunc(kept, r, byName)
		out = append(append(out, kept[:i]...), r)
		kept = kept[i:]
	}
	return append(out, kept...)
}

// precedes orders routes with the same match: the first of them has it. Any
// good route wins over the placeholder of a broken one, then the stronger
// source, then the older key.
func precedes(a, b *Route) int {
	return cmp.Or(
		cmp.Compare(placeholderRank(a), placeholderRank(b)),
		cmp.Compare(sourceRank(a.Source), sourceRank(b.Source)),
		cmp.Compare(a.Created, b.Created),
		cmp.Compare(a.Key, b.Key))
}

// resolve fills d.routes from the candidates: of routes with the same match
// one stays; the others are conflicts, and what they served before goes on if
// nothing else has its match.
func (d *Draft) resolve(before memory) {
	candidates := d.memory.candidates
	if d.prev != nil && sameSlice(candidates, before.candidates) {
		d.routes, d.memory.conflicts = d.prev.routes, before.conflicts
		return
	}
	d.memory.conflicts = map[string]Problem{}
	taken := make(map[unique.Handle[string]]*Route, len(candidates))
	for _, r := range candidates {
		if holder := taken[r.signature]; holder == nil || precedes(r, holder) < 0 {
			taken[r.signature] = r
		}
	}
	if len(taken) == len(candidates) {
		d.routes = candidates
		return
	}
	var losers []*Route
	for _, r := range candidates {
		if taken[r.signature] == r {
			d.routes = append(d.routes, r)
		} else {
			losers = append(losers, r)
		}
	}
	slices.SortFunc(losers, precedes)
	served := d.servedBefore(losers)
	for _, r := range losers {
		holder := taken[r.signature]
		p := Problem{Key: r.Key, Revision: r.Revision, Code: ProblemConflict, Since: d.now, Serving: ServingNothing,
			Message: "path: " + holder.Key + " already has this match (hosts, path, methods, predicates and priority); the older key stays"}
		if known, ok := before.conflicts[r.Key]; ok {
			p.Since = known.Since
		}
		if old := served[r.Key]; old != nil && old.State != RouteInvalid && taken[old.signature] == nil {
			last := old.withState(RouteLastGood)
			taken[old.signature] = last
			d.routes = append(d.routes, last)
			p.Serving = ServingLastGood
		}
		d.memory.conflicts[r.Key] = p
	}
	slices.SortFunc(d.routes, byName)
}

// servedBefore finds what the losers' keys served in the table before.
func (d *Draft) servedBefore(losers []*Route) map[string]*Route {
	if d.prev == nil {
		return nil
	}
	want := make(map[string]*Route, len(losers))
	for _, r := range losers {
		want[r.Key] = nil
	}
	for _, r := range d.prev.routes {
		if _, ok := want[r.Key]; ok {
			want[r.Key] = r
		}
	}
	return want
}

// placeholderRank lets any good route win over the placeholder of a broken one.
func placeholderRank(r *Route) int {
	if r.State == RouteInvalid {
		return 1
	}
	return 0
}

func sortProblems(ps []Problem) {
	slices.SortFunc(ps, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Code, b.Code))
	})
}
