package consul

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/sluice-gateway/sluice/discovery"
)

// shared is what the two watches of one datacenter found: which services to
// read again. Source.mu guards it.
type shared struct {
	explained uint64              // index of the last change to the checks
	services  map[string][]string // the catalog: name to tags
	// unexplained is a catalog index at which nothing in the catalog's text
	// changed. Unless the checks changed there too, some instance did that
	// neither list shows: one without a check, or its tags or address.
	unexplained uint64
	since       time.Time
	swept       time.Time
}

// manyNodes is how many nodes are looked up singly after one wake.
const manyNodes = 16

// share makes the datacenters with shared watches those of dcs.
func (s *Source) share(dcs []string) {
	maps.DeleteFunc(s.shared, func(dc string, _ *shared) bool { return !slices.Contains(dcs, dc) })
	for _, dc := range dcs {
		if s.shared[dc] == nil {
			s.shared[dc] = &shared{}
		}
	}
}

// askCatalog asks for the names and tags of a datacenter.
func (s *Source) askCatalog(w watch) func(*api.QueryOptions) (answer, error) {
	dc := w.ref.Datacenter
	announces := dc == "" && s.cfg.SelfRegisteredRoutes
	return func(q *api.QueryOptions) (answer, error) {
		all, meta, err := s.client.Catalog().Services(q)
		if err != nil {
			return answer{}, err
		}
		if announces && meta.ResultsFilteredByACLs {
			return answer{}, errFiltered
		}
		return answer{
			index: meta.LastIndex,
			items: len(all) / 4,
			take: func(now time.Time, _ bool) {
				s.tableIndex(w, meta.LastIndex, now)
				if announces {
					s.takeAnnouncements(all, meta.LastIndex, now)
				}
				if sh := s.shared[dc]; sh != nil {
					s.takeCatalog(dc, sh, all, meta.LastIndex, now)
				}
			},
		}, nil
	}
}

func (s *Source) takeAnnouncements(all map[string][]string, index uint64, now time.Time) {
	settled := s.catalog.settled
	if s.catalog.apply(announcements(all, s.cfg.TagPrefix), index, now, s.timing.hold) {
		s.report.staleAnnounced = true
		s.reconcile()
		s.touch(now)
	} else if !settled {
		s.wake()
	}
}

// takeCatalog reads again the services whose entry changed.
func (s *Source) takeCatalog(dc string, sh *shared, all map[string][]string, index uint64, now time.Time) {
	first := sh.services == nil
	changed := false
	for name, tags := range all {
		tags = sorted(tags)
		all[name] = tags
		if old, ok := sh.services[name]; !ok || !slices.Equal(old, tags) {
			changed = true
			if !first {
				s.enqueue(discovery.ServiceRef{Name: name, Datacenter: dc})
			}
		}
	}
	for name := range sh.services {
		if _, ok := all[name]; !ok {
			changed = true
			s.enqueue(discovery.ServiceRef{Name: name, Datacenter: dc})
		}
	}
	sh.services = all
	if all == nil {
		sh.services = map[string][]string{}
	}
	if !changed || first {
		sh.unexplained, sh.since = index, now
	}
}

// check is the part of a health check that says whether anything changed.
type check struct {
	Node        string
	CheckID     string
	ServiceName string
	ModifyIndex uint64
}

type checkKey struct{ node, id string }

// askChecks asks for every check of a datacenter. The list it compares with
// belongs to the one goroutine that follows the watch.
func (s *Source) askChecks(w watch) func(*api.QueryOptions) (answer, error) {
	dc := w.ref.Datacenter
	var known map[checkKey]check
	var last uint64
	return func(q *api.QueryOptions) (answer, error) {
		var list []check
		meta, err := s.client.Raw().Query("/v1/health/state/any", &list, q)
		if err != nil {
			return answer{}, err
		}
		services, nodes := map[string]bool{}, map[string]bool{}
		found := make(map[checkKey]check, len(list))
		for _, c := range list {
			found[checkKey{c.Node, c.CheckID}] = c
		}
		all := known == nil || meta.LastIndex < last
		if !all {
			diffChecks(known, found, services, nodes)
			all = !s.addNodes(q.Context(), dc, services, nodes)
		}
		known, last = found, meta.LastIndex
		return answer{
			index: meta.LastIndex,
			items: len(list),
			take: func(now time.Time, again bool) {
				s.tableIndex(w, meta.LastIndex, now)
				sh := s.shared[dc]
				if sh == nil {
					return
				}
				// Removing an instance without a check moves the index of the
				// list and nothing in it, so the index alone explains nothing.
				if len(services)+len(nodes) > 0 {
					sh.explained = meta.LastIndex
				}
				if all || again {
					s.sweep(dc, sh, now)
					return
				}
				for name := range services {
					s.enqueue(discovery.ServiceRef{Name: name, Datacenter: dc})
				}
				s.enqueueNodes(dc, nodes)
			},
		}, nil
	}
}

// diffChecks adds the services and nodes whose checks came, went or changed.
func diffChecks(old, now map[checkKey]check, services, nodes map[string]bool) {
	add := func(c check) {
		if c.ServiceName != "" {
			services[c.ServiceName] = true
		} else {
			nodes[c.Node] = true
		}
	}
	for k, c := range now {
		was, ok := old[k]
		if ok && was == c {
			continue
		}
		add(c)
		if ok && was.ServiceName != c.ServiceName {
			add(was)
		}
	}
	for k, c := range old {
		if _, ok := now[k]; !ok {
			add(c)
		}
	}
}

// addNodes adds the services of nodes, whose own checks decide for all of
// them. It says whether it could.
func (s *Source) addNodes(ctx context.Context, dc string, services, nodes map[string]bool) bool {
	if len(nodes) > manyNodes {
		return false
	}
	for node := range nodes {
		q := (&api.QueryOptions{Datacenter: dc}).WithContext(ctx)
		s.counts.queries.Add(1)
		list, _, err := s.client.Catalog().NodeServiceList(node, q)
		if err != nil {
			s.counts.failures.Add(1)
			return false
		}
		if list == nil {
			continue // the node is gone
		}
		for _, svc := range list.Services {
			services[svc.Service] = true
		}
	}
	return true
}

// enqueueNodes reads again the services with known instances on nodes: one
// that has left its node is no longer listed there.
func (s *Source) enqueueNodes(dc string, nodes map[string]bool) {
	if len(nodes) == 0 {
		return
	}
	for ref, svc := range s.services {
		if ref.Datacenter == dc && slices.ContainsFunc(svc.instances, func(in discovery.Instance) bool {
			node, _, _ := strings.Cut(in.ID, "/")
			return nodes[node]
		}) {
			s.enqueue(ref)
		}
	}
}
