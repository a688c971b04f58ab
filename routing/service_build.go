package routing

import (
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// serviceInputs is all that a compiled service depends on. Two services with
// the same inputs are the same service, so it is taken over as it is.
type serviceInputs struct {
	doc       *discovery.Document
	active    *entry
	pins      []string
	instances []answer
}

// answer is what the registry says of one name.
type answer struct {
	instances []discovery.Instance
	known     bool
}

func (a serviceInputs) same(b serviceInputs) bool {
	return a.doc == b.doc && a.active == b.active && slices.Equal(a.pins, b.pins) &&
		slices.EqualFunc(a.instances, b.instances, func(x, y answer) bool {
			return x.known == y.known && sameSlice(x.instances, y.instances)
		})
}

// service returns the named service with the instances of the snapshot: that
// of the table before, if nothing it depends on changed.
func (d *Draft) service(name string) *Service {
	var before *Service
	if d.prev != nil {
		before = d.prev.Service(name)
	}
	if d.unchanged && before != nil && d.sameAnswers(before) {
		return before
	}
	spec := d.serviceSpec(name)
	in := serviceInputs{
		active: d.memory.entries.get(entryID{discovery.KindActive, name}),
		pins:   d.memory.pins[name],
	}
	if e := d.memory.entries.get(entryID{discovery.KindService, name}); e != nil {
		in.doc = e.good
	}
	for _, ref := range refsOf(name, spec) {
		i, ok := d.lookup(ref)
		in.instances = append(in.instances, answer{i, ok})
	}
	if before != nil && before.inputs.same(in) {
		return before
	}
	s := d.compileService(name, spec, in, before)
	s.inputs = in
	return s
}

// lookup returns the passing instances of ref and whether any source has an
// answer for it.
func (d *Draft) lookup(ref discovery.ServiceRef) ([]discovery.Instance, bool) {
	for _, m := range d.instances {
		if in, ok := m[ref]; ok {
			return in, true
		}
	}
	return nil, false
}

// sameAnswers says whether the registry says of s what it said before.
func (d *Draft) sameAnswers(s *Service) bool {
	for i, ref := range s.Refs {
		in, known := d.lookup(ref)
		if was := s.inputs.instances[i]; was.known != known || !sameSlice(was.instances, in) {
			return false
		}
	}
	return true
}

// compileService makes the service: policy, subsets with their pickers, and
// which of them serve.
func (d *Draft) compileService(name string, spec *ServiceSpec, in serviceInputs, before *Service) *Service {
	s := &Service{Name: name, Spec: spec, Group: d.deps.Pool.Group(name), Refs: refsOf(name, spec)}
	if in.doc != nil {
		s.Source, s.Key, s.Revision = in.doc.Source, in.doc.Key, in.doc.Revision
	}
	s.policies(spec, d.deps.Defaults)

	g := gather(name, spec, d.lookup)
	all := g.all()
	if len(all) == 0 && before != nil && spec != nil && spec.OnEmpty == "last_known" {
		all, s.LastKnown = before.All.Instances, len(before.All.Instances) > 0
		g = gathered{base: all, known: g.known}
	}
	minReady := 1
	if spec != nil && spec.MinReady != nil {
		minReady = *spec.MinReady
	}
	s.choice = d.choose(name, before, minReady, func(subset string) (int, bool) {
		return len(g.subset(subset, spec)), g.known
	})

	policy := policyOf(spec)
	s.All = d.subset(s, "", all, policy)
	s.subsets = map[string]*Subset{}
	for _, sub := range s.subsetNames(in) {
		s.subsets[sub] = d.subset(s, sub, g.subset(sub, spec), policy)
	}
	by := ""
	if spec != nil {
		by = spec.SplitBy
		if stand, ok := strings.CutPrefix(spec.OnEmpty, "subset "); ok {
			s.standIn = s.subsets[stand]
		}
	}
	s.split = newSplit(name, by, s.choice.serving, s.subsets)
	return s
}

// subsetNames lists the colours that anything may ask for: those declared,
// pinned by routes, in the choice in effect or the one that waits, and the
// stand-in.
func (s *Service) subsetNames(in serviceInputs) []string {
	names := slices.Clone(in.pins)
	if s.Spec != nil {
		for n := range s.Spec.Subsets {
			names = append(names, n)
		}
		if stand, ok := strings.CutPrefix(s.Spec.OnEmpty, "subset "); ok {
			names = append(names, stand)
		}
	}
	for _, part := range s.choice.serving {
		names = append(names, part.Subset)
	}
	if in.active != nil {
		for _, part := range in.active.active {
			names = append(names, part.Subset)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// subset makes the picker over instances.
func (d *Draft) subset(s *Service, name string, instances []discovery.Instance, policy balance.Policy) *Subset {
	sub := &Subset{Name: name, Instances: instances}
	members := make([]balance.Member, 0, len(instances))
	sub.Endpoints = make([]*balance.Endpoint, 0, len(instances))
	for _, in := range instances {
		e := d.deps.Pool.Endpoint(s.Name, in)
		sub.Endpoints = append(sub.Endpoints, e)
		members = append(members, balance.Member{Endpoint: e, Weight: in.Weight})
	}
	sub.Picker = balance.NewPicker(s.Group, policy, members)
	return sub
}

// Subset returns the named colour, or nil where nothing asks for it.
func (s *Service) Subset(name string) *Subset {
	if name == "" {
		return s.All
	}
	return s.subsets[name]
}

// Subsets returns the colours by name. The map must not be changed.
func (s *Service) Subsets() map[string]*Subset { return s.subsets }

// or returns *p, or def where p is nil.
func or[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}

// orDuration returns *p, or def where p is nil.
func orDuration(p *Duration, def time.Duration) time.Duration {
	if p == nil {
		return def
	}
	return time.Duration(*p)
}
