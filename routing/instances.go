package routing

import (
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/discovery"
)

// refsOf lists the registry names whose instances the service uses: its own
// in every datacenter, and those of subsets that are services themselves.
func refsOf(name string, spec *ServiceSpec) []discovery.ServiceRef {
	if spec == nil {
		return []discovery.ServiceRef{{Name: name}}
	}
	if spec.fixed() {
		return nil
	}
	var refs []discovery.ServiceRef
	add := func(service string) {
		for _, dc := range spec.datacenters() {
			ref := discovery.ServiceRef{Name: service, Datacenter: dc}
			if !slices.Contains(refs, ref) {
				refs = append(refs, ref)
			}
		}
	}
	add(spec.consulName(name))
	for _, sub := range sortedKeys(spec.Subsets) {
		if c := spec.Subsets[sub].Consul; c != "" {
			add(c)
		}
	}
	return refs
}

func (s *ServiceSpec) fixed() bool { return len(s.Targets) > 0 || s.URL != "" }

func (s *ServiceSpec) datacenters() []string {
	if len(s.Datacenters) == 0 {
		return []string{""}
	}
	return s.Datacenters
}

func (s *ServiceSpec) consulName(name string) string {
	if s.Consul != "" {
		return s.Consul
	}
	return name
}

// targets turns fixed addresses into instances; the address is the ID.
func (s *ServiceSpec) targets() []discovery.Instance {
	var out []discovery.Instance
	if s.URL != "" {
		if u, err := url.Parse(s.URL); err == nil {
			address := u.Host
			if u.Port() == "" {
				port := "80"
				if u.Scheme == "https" {
					port = "443"
				}
				address = net.JoinHostPort(u.Hostname(), port)
			}
			out = append(out, discovery.Instance{ID: address, Address: address, Weight: 1})
		}
	}
	for _, t := range s.Targets {
		weight := 1
		if t.Weight != nil {
			weight = *t.Weight
		}
		tags := slices.Sorted(slices.Values(t.Tags))
		out = append(out, discovery.Instance{ID: t.Address, Address: t.Address, Weight: weight, Tags: tags})
	}
	slices.SortFunc(out, func(a, b discovery.Instance) int { return strings.Compare(a.ID, b.ID) })
	return slices.CompactFunc(out, func(a, b discovery.Instance) bool { return a.ID == b.ID })
}

// gathered is the instances of a service, before they are split by colour.
type gathered struct {
	base    []discovery.Instance            // of the service's own name
	foreign map[string][]discovery.Instance // of subsets that are services themselves
	known   bool                            // every registry name has been answered
}

// gather collects the instances of the service as the registry has them.
func gather(name string, spec *ServiceSpec, lookup func(discovery.ServiceRef) ([]discovery.Instance, bool)) gathered {
	g := gathered{known: true}
	if spec == nil {
		g.base, g.known = lookup(discovery.ServiceRef{Name: name})
		return g
	}
	if spec.fixed() {
		g.base = spec.targets()
		return g
	}
	// The first datacenter with a passing instance serves.
	first := func(service string) []discovery.Instance {
		for _, dc := range spec.datacenters() {
			in, ok := lookup(discovery.ServiceRef{Name: service, Datacenter: dc})
			if !ok {
				g.known = false
			}
			if in = withTags(in, spec.Tags, nil); len(in) > 0 {
				return in
			}
		}
		return nil
	}
	g.base = first(spec.consulName(name))
	for _, sub := range sortedKeys(spec.Subsets) {
		if c := spec.Subsets[sub].Consul; c != "" {
			if g.foreign == nil {
				g.foreign = map[string][]discovery.Instance{}
			}
			g.foreign[sub] = first(c)
		}
	}
	return g
}

// all is every instance once, sorted by ID.
func (g gathered) all() []discovery.Instance {
	if len(g.foreign) == 0 {
		return g.base
	}
	out := slices.Clone(g.base)
	for _, sub := range sortedKeys(g.foreign) {
		out = append(out, g.foreign[sub]...)
	}
	slices.SortStableFunc(out, func(a, b discovery.Instance) int { return strings.Compare(a.ID, b.ID) })
	return slices.CompactFunc(out, func(a, b discovery.Instance) bool { return a.ID == b.ID })
}

// subset returns the instances of the named colour: those its document says,
// or by default those that carry the name as a tag.
func (g gathered) subset(name string, spec *ServiceSpec) []discovery.Instance {
	if spec != nil {
		if s, ok := spec.Subsets[name]; ok {
			from := g.base
			if s.Consul != "" {
				from = g.foreign[name]
			}
			return withTags(from, s.Tags, s.Meta)
		}
	}
	return withTags(g.all(), []string{name}, nil)
}

// withTags returns the instances that carry all tags and all meta; the very
// slice where none was left out.
func withTags(in []discovery.Instance, tags []string, meta map[string]string) []discovery.Instance {
	if len(tags) == 0 && len(meta) == 0 {
		return in
	}
	fits := func(i discovery.Instance) bool {
		for _, t := range tags {
			if !slices.Contains(i.Tags, t) {
				return false
			}
		}
		for k, v := range meta {
			if i.Meta[k] != v {
				return false
			}
		}
		return true
	}
	var out []discovery.Instance
	for _, i := range in {
		if fits(i) {
			out = append(out, i)
		}
	}
	return out
}
