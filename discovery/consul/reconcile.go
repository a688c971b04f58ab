package consul

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// reconcile makes the services those that are wanted or announced, and the
// running watches those of the plan. The caller holds mu.
func (s *Source) reconcile() {
	follow := maps.Clone(s.wanted)
	for name := range s.catalog.announced {
		follow[discovery.ServiceRef{Name: name}] = true
	}
	for ref, svc := range s.services {
		if !follow[ref] {
			delete(s.services, ref)
			delete(s.failing, watch{kindService, ref})
			if svc.known {
				s.report.staleInstances = true
				s.touch(time.Now())
			}
		}
	}
	for ref := range follow {
		if s.services[ref] == nil {
			s.services[ref] = &service{instances: s.remembered.Instances[ref], index: uint64(s.remembered.Revision)}
		}
	}
	if s.ctx == nil {
		return
	}
	p := makePlan(s.sortedRefs(), func(r discovery.ServiceRef) bool { return s.services[r].direct },
		s.budget.watches, s.cfg.SelfRegisteredRoutes)
	s.share(p.shared)
	s.run(p)
}

// run starts and stops watches until they are those of p.
func (s *Source) run(p plan) {
	want := make(map[watch]bool, len(p.direct)+2)
	if s.cfg.SelfRegisteredRoutes {
		want[watch{kind: kindCatalog}] = true
	}
	for _, dc := range p.shared {
		want[watch{kindCatalog, discovery.ServiceRef{Datacenter: dc}}] = true
		want[watch{kindChecks, discovery.ServiceRef{Datacenter: dc}}] = true
	}
	for ref := range p.direct {
		want[watch{kindService, ref}] = true
	}
	for w, stop := range s.running {
		if !want[w] {
			stop()
			delete(s.running, w)
			delete(s.failing, w)
		}
	}
	for ref, svc := range s.services {
		was := svc.direct
		svc.direct = p.direct[ref]
		fresh := !svc.known && svc.next.IsZero() && !svc.reading
		if !svc.direct && (was || fresh) {
			s.enqueue(ref)
		}
	}
	for w := range want {
		if s.running[w] == nil {
			ctx, stop := context.WithCancel(s.ctx)
			s.running[w] = stop
			s.group.Go(func() { s.follow(ctx, w) })
		}
	}
}

func (s *Source) sortedRefs() []discovery.ServiceRef {
	return slices.SortedFunc(maps.Keys(s.services), func(a, b discovery.ServiceRef) int {
		return cmp.Or(cmp.Compare(a.Datacenter, b.Datacenter), cmp.Compare(a.Name, b.Name))
	})
}
