package routing

import (
	"cmp"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/discovery"
)

// index finds the routes of a request without looking at the others. It is
// immutable.
//
// Each host that routes name has a trie over path segments. Finding a route
// costs one map look-up for the host (one more for each dot in it, where
// there are wildcards) and one for each segment. Only where static segments
// and parameters stand side by side may a walk turn back; each node is seen
// at most once, so the cost is bounded by the routes that could match and
// never grows with the length of the path.
type index struct {
	exact map[string]*hostIndex
	wild  map[string]*hostIndex // by what follows the "*": ".example.com"
	any   *hostIndex

	routes []*Route // all of them, by name
}

// hostIndex is the routes of one host.
type hostIndex struct {
	host string    // as written, "" for any
	root *pathNode // stands before the first segment
}

// pathNode is a place in a trie, after some segments of a path.
type pathNode struct {
	static children
	param  *pathNode
	// exact are the routes that end here, rest those with a catch-all here;
	// both in the order in which they are tried.
	exact, rest []*Route
}

// children finds the next node by a static segment: few of them by looking at
// each, many through a map.
type children struct {
	names  []string
	nodes  []*pathNode
	byName map[string]*pathNode // once there are more than fewChildren
}

const fewChildren = 6

func (c *children) get(name string) *pathNode {
	if c.byName != nil {
		return c.byName[name]
	}
	for i, n := range c.names {
		if n == name {
			return c.nodes[i]
		}
	}
	return nil
}

func (c *children) put(name string, n *pathNode) {
	if c.byName == nil && len(c.names) < fewChildren {
		c.names, c.nodes = append(c.names, name), append(c.nodes, n)
		return
	}
	if c.byName == nil {
		c.byName = make(map[string]*pathNode, 4*fewChildren)
		for i, old := range c.names {
			c.byName[old] = c.nodes[i]
		}
		c.names, c.nodes = nil, nil
	}
	c.byName[name] = n
}

// buildIndex builds an index over routes, which stay in it.
func buildIndex(routes []*Route) *index {
	byHost := make(map[string][]*Route)
	for _, r := range routes {
		for _, h := range r.matcher.hostsOrAny() {
			byHost[h] = append(byHost[h], r)
		}
	}
	x := &index{routes: routes, exact: make(map[string]*hostIndex, len(byHost)), wild: make(map[string]*hostIndex)}
	for host, rs := range byHost {
		x.put(host, &hostIndex{host: host, root: buildTrie(rs)})
	}
	return x
}

// put sets the routes of host as written; nil takes the host out.
func (x *index) put(host string, h *hostIndex) {
	hosts, key := x.place(host)
	switch {
	case hosts == nil:
		x.any = h
	case h == nil:
		delete(hosts, key)
	default:
		hosts[key] = h
	}
}

// get returns the routes of host as written, or nil.
func (x *index) get(host string) *hostIndex {
	if hosts, key := x.place(host); hosts != nil {
		return hosts[key]
	}
	return x.any
}

// place says where the host stands; nil is any.
func (x *index) place(host string) (hosts map[string]*hostIndex, key string) {
	suffix, wild := strings.CutPrefix(host, "*")
	switch {
	case host == "":
		return nil, ""
	case wild:
		return x.wild, suffix
	}
	return x.exact, host
}

func buildTrie(routes []*Route) *pathNode {
	root := &pathNode{}
	var ties []*[]*Route
	for _, r := range routes {
		list := root.place(r)
		if *list = append(*list, r); len(*list) == 2 {
			ties = append(ties, list)
		}
	}
	for _, list := range ties {
		slices.SortFunc(*list, inOrder)
	}
	return root
}

// place returns the list where the path of r leads from the root n.
func (n *pathNode) place(r *Route) *[]*Route {
	p := &r.matcher.path
	for i := range p.segments {
		s := &p.segments[i]
		next := n.param
		if s.param == "" {
			next = n.static.get(s.match)
		}
		if next == nil {
			next = &pathNode{}
			if s.param == "" {
				n.static.put(s.match, next)
			} else {
				n.param = next
			}
		}
		n = next
	}
	if p.rest != "" {
		return &n.rest
	}
	return &n.exact
}

// Rules by which one route goes before another, in their order.
const (
	ruleHost       = "host"
	rulePath       = "path"
	rulePriority   = "priority"
	rulePredicates = "predicates"
	ruleSource     = "source"
	ruleAge        = "age"
)

// compareRoutes orders routes of the same host and the same shape of path,
// and names the rule that decided. No two routes are equal: the name is last.
func compareRoutes(a, b *Route) (int, string) {
	if c := cmp.Compare(b.priority(), a.priority()); c != 0 {
		return c, rulePriority
	}
	if c := cmp.Compare(b.matcher.predicates, a.matcher.predicates); c != 0 {
		return c, rulePredicates
	}
	if c := cmp.Compare(sourceRank(a.Source), sourceRank(b.Source)); c != 0 {
		return c, ruleSource
	}
	return cmp.Or(
		cmp.Compare(a.Created, b.Created),
		cmp.Compare(a.Key, b.Key),
		cmp.Compare(a.Name, b.Name),
	), ruleAge
}

func inOrder(a, b *Route) int {
	c, _ := compareRoutes(a, b)
	return c
}

func (r *Route) priority() int {
	if r.Spec == nil {
		return 0
	}
	return r.Spec.Priority
}

// sourceRank puts what an operator wrote before what a service announced.
func sourceRank(source string) int {
	switch source {
	case discovery.SourceEtcd:
		return 0
	case discovery.SourceFile:
		return 1
	default:
		return 2
	}
}
