package consul

import (
	"cmp"
	"maps"
	"slices"

	"github.com/sluice-gateway/sluice/discovery"
)

// budget divides the connections. Every holder sends one query at a time, so
// the sum of holders is the most that is ever open.
type budget struct {
	readers int // read again what a shared watch says has changed
	watches int // blocking queries: services, catalogs, lists of checks
}

// registrarConnections is what the gateway's own registration takes.
const registrarConnections = 2

// closingConnections are left free for those that are closed here while the
// agent has not noticed yet.
const closingConnections = 2

// sourceConnections is the limit of the source's own transport.
func sourceConnections(connections int) int {
	return connections - registrarConnections - closingConnections
}

func divide(connections int) budget {
	left := sourceConnections(connections)
	readers := min(max(left/6, 2), 10)
	return budget{readers: readers, watches: left - readers}
}

// plan is which services have a blocking query of their own, and the
// datacenters ("" is the agent's) whose other services share two watches.
type plan struct {
	direct map[discovery.ServiceRef]bool
	shared []string
}

// makePlan fits refs into a number of blocking queries. While they do not
// fit, the datacenter with the most services goes over to shared watches;
// what is left then goes to services of the shared datacenters, first to
// those that have a query now, so that a plan changes little with its refs.
// catalog says that the agent's own catalog is watched in any case.
func makePlan(refs []discovery.ServiceRef, has func(discovery.ServiceRef) bool, watches int, catalog bool) plan {
	if catalog {
		watches--
	}
	byDC := make(map[string][]discovery.ServiceRef)
	for _, r := range refs {
		byDC[r.Datacenter] = append(byDC[r.Datacenter], r)
	}
	order := slices.SortedFunc(maps.Keys(byDC), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(byDC[b]), len(byDC[a])), cmp.Compare(a, b))
	})
	p := plan{direct: make(map[discovery.ServiceRef]bool)}
	need := len(refs)
	var bare, rest []discovery.ServiceRef // without and with shared watches
	for _, dc := range order {
		if need <= watches {
			break
		}
		cost := 2
		if dc == "" && catalog {
			cost = 1
		}
		need -= len(byDC[dc])
		// With more datacenters than queries the last ones have no watch
		// either: what finds no query of its own is read in rotation alone.
		if watches >= cost {
			watches -= cost
			p.shared = append(p.shared, dc)
			rest = append(rest, byDC[dc]...)
		} else {
			bare = append(bare, byDC[dc]...)
		}
		delete(byDC, dc)
	}
	rest = append(bare, rest...)
	for _, group := range byDC {
		for _, r := range group {
			p.direct[r] = true
		}
	}
	free := watches - len(p.direct)
	for _, want := range []bool{true, false} {
		for _, r := range rest {
			if free > 0 && has(r) == want {
				p.direct[r] = true
				free--
			}
		}
	}
	return p
}
