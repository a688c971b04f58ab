package routing

import (
	"maps"
	"slices"
)

// fewChanges is up to how many routes may differ for an index to be made from
// the one before; for more a new one is cheaper.
const fewChanges = 32

// with returns the index of routes, which are in order: x itself where they
// are those of x, a copy of x with other nodes on the way to each route that
// came or went, or a new one. x may be nil.
func (x *index) with(routes []*Route) *index {
	if x == nil {
		return buildIndex(routes)
	}
	gone, come := differences(x.routes, routes)
	switch n := len(gone) + len(come); {
	case n == 0:
		return x
	case n > fewChanges:
		return buildIndex(routes)
	}
	next := &index{exact: maps.Clone(x.exact), wild: maps.Clone(x.wild), any: x.any, routes: routes}
	for _, r := range gone {
		next.edit(r, func(list []*Route) []*Route {
			return slices.DeleteFunc(slices.Clone(list), func(o *Route) bool { return o == r })
		})
	}
	for _, r := range come {
		next.edit(r, func(list []*Route) []*Route {
			list = append(slices.Clone(list), r)
			slices.SortFunc(list, inOrder)
			return list
		})
	}
	return next
}

// differences returns the routes that only a has and those that only b has;
// both are in order.
func differences(a, b []*Route) (onlyA, onlyB []*Route) {
	for len(a) > 0 && len(b) > 0 {
		if a[0] == b[0] {
			a, b = a[1:], b[1:]
			continue
		}
		order := byName(a[0], b[0])
		if order <= 0 {
			onlyA, a = append(onlyA, a[0]), a[1:]
		}
		if order >= 0 {
			onlyB, b = append(onlyB, b[0]), b[1:]
		}
	}
	return append(onlyA, a...), append(onlyB, b...)
}

// edit lets change make another list of the one where r stands or will stand,
// under each host of r.
func (x *index) edit(r *Route, change func([]*Route) []*Route) {
	for _, host := range r.matcher.hostsOrAny() {
		h := x.get(host)
		if h == nil {
			h = &hostIndex{host: host}
		}
		root := h.root.with(&r.matcher.path, 0, change)
		if root == nil {
			x.put(host, nil)
			continue
		}
		x.put(host, &hostIndex{host: host, root: root})
	}
}

// with returns a copy of n, which may be nil, with another list where path
// leads from its segment at on; nil where that leaves nothing. The nodes off
// the way are shared.
func (n *pathNode) with(path *pattern, at int, change func([]*Route) []*Route) *pathNode {
	c := &pathNode{}
	if n != nil {
		*c = *n
	}
	switch {
	case at < len(path.segments) && path.segments[at].param != "":
		c.param = c.param.with(path, at+1, change)
	case at < len(path.segments):
		name := path.segments[at].match
		c.static = c.static.with(name, c.static.get(name).with(path, at+1, change))
	case path.rest != "":
		c.rest = change(c.rest)
	default:
		c.exact = change(c.exact)
	}
	if c.static.len() == 0 && c.param == nil && len(c.exact) == 0 && len(c.rest) == 0 {
		return nil
	}
	return c
}

func (c *children) len() int { return max(len(c.names), len(c.byName)) }

// with returns a copy of c in which name leads to n, or nowhere if n is nil.
func (c children) with(name string, n *pathNode) children {
	out := children{byName: maps.Clone(c.byName)}
	if c.byName == nil {
		for i, old := range c.names {
			if old != name {
				out.put(old, c.nodes[i])
			}
		}
	}
	if n != nil {
		out.put(name, n)
	} else {
		delete(out.byName, name)
	}
	return out
}
