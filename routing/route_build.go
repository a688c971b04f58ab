package routing

import (
	"slices"
	"time"
	"unique"

	"github.com/sluice-gateway/sluice/discovery"
)

// pluginDefault is the configuration of a plugin for every route that does
// not set its own.
type pluginDefault struct {
	disabled bool
	// broken: the document was wrong when the gateway started and no good
	// version is known. Whether routes were meant to be guarded by it cannot
	// be told, so those that would inherit it do not serve.
	broken   bool
	compiled any
}

// routeCompiler compiles routes under one set of plugin defaults.
type routeCompiler struct {
	deps     Deps
	defaults []pluginDefault // by plugin slot
	slots    *slotTable
}

// compile makes the Route of spec as doc says it. The faults are those that
// only compiling can see: patterns, plugins.
func (c *routeCompiler) compile(doc *discovery.Document, spec *RouteSpec) (*Route, Faults) {
	m, faults := compileMatcher(spec)
	plugins, inheritsBroken, pluginFaults := c.plugins(doc.Key, spec)
	if faults = append(faults, pluginFaults...); len(faults) > 0 {
		return nil, faults
	}
	r := &Route{
		Name: doc.Name, Source: doc.Source, Key: doc.Key,
		Revision: doc.Revision, Created: doc.Created,
		State: RouteOK, Spec: spec,
		ServiceName: spec.Service, Subset: spec.Subset,
		Timeout: c.deps.Defaults.Timeout, Retries: -1,
		Plugins: plugins, ownHeaders: ownHeaders(plugins), Counts: new(Counts), Host: spec.Host,
		slot: -1, matcher: m, signature: unique.Make(m.signature(spec.Priority)),
	}
	if spec.Timeout != nil {
		r.Timeout = time.Duration(*spec.Timeout)
	}
	if spec.Retries != nil {
		r.Retries = *spec.Retries
	}
	if r.ServiceName != "" {
		r.slot = c.slots.of(r.ServiceName)
	}
	if inheritsBroken {
		r.State = RouteInvalid
	}
	return r, nil
}

// plugins compiles the route's own configurations and fills the rest from
// the defaults. broken says that one of those is.
func (c *routeCompiler) plugins(key string, spec *RouteSpec) (out []any, broken bool, faults Faults) {
	out = make([]any, c.deps.Plugins.Slots())
	own := make([]bool, len(out))
	groups := map[string]string{} // the route's own plugin of each group
	for _, name := range sortedKeys(spec.Plugins) {
		config, field := spec.Plugins[name], "plugins."+name
		slot, ok := c.deps.Plugins.Slot(name)
		if !ok {
			faults = append(faults, Fault{Field: field, Code: ProblemPlugin,
				Message: "unknown plugin; known are " + list(c.deps.Plugins.Names())})
			continue
		}
		own[slot] = true
		if off, ok := config["disabled"].(bool); ok && len(config) == 1 {
			if !off {
				own[slot] = false // {"disabled": false} alone is the default's
			}
			continue
		}
		if group := c.deps.Plugins.Group(slot); group != "" {
			if other, ok := groups[group]; ok {
				faults = append(faults, Fault{Field: field, Code: ProblemPlugin,
					Message: "stands beside plugins." + other + "; a route uses one plugin for " + group})
			}
			groups[group] = name
		}
		compiled, fs := c.deps.Plugins.Compile(Place{Key: key, Field: field}, name, config)
		for i := range fs {
			fs[i].Code = ProblemPlugin
		}
		faults = append(faults, fs...)
		out[slot] = compiled
	}
	for slot, d := range c.defaults {
		switch {
		case d.disabled:
			out[slot] = nil
		case !own[slot] && groups[c.deps.Plugins.Group(slot)] == "":
			out[slot] = d.compiled
			broken = broken || d.broken
		}
	}
	if !slices.ContainsFunc(out, func(p any) bool { return p != nil }) {
		out = nil
	}
	return out, broken, faults
}

// ownHeaders lists what the plugins set and no client may.
func ownHeaders(plugins []any) []string {
	var names []string
	for _, p := range plugins {
		if o, ok := p.(HeaderOwner); ok {
			names = append(names, o.OwnHeaders()...)
		}
	}
	return names
}

// placeholder keeps the path of a broken route that never had a good version.
func (c *routeCompiler) placeholder(doc *discovery.Document) *Route {
	spec := salvage(doc.Value)
	if spec == nil {
		return nil
	}
	m, faults := compileMatcher(spec)
	if faults != nil {
		return nil
	}
	return &Route{
		Name: doc.Name, Source: doc.Source, Key: doc.Key,
		Revision: doc.Revision, Created: doc.Created,
		State: RouteInvalid, Spec: spec,
		Counts: new(Counts), Host: spec.Host,
		slot: -1, matcher: m, signature: unique.Make(m.signature(spec.Priority)),
	}
}

// withState returns r, or a copy of it in another state.
func (r *Route) withState(state string) *Route {
	if r.State == state {
		return r
	}
	c := *r
	c.State = state
	return &c
}

// slotTable gives each service name a place in Table.services. A name keeps
// its place from table to table for as long as anything names it, so that
// routes compiled earlier stay right.
type slotTable struct {
	byName map[string]int
	names  []string // by slot; "" for a place that is free
	used   []bool   // by slot
	free   []int
}

// newSlotTable continues from the places of prev.
func newSlotTable(prev *Table) *slotTable {
	s := &slotTable{byName: map[string]int{}}
	if prev == nil {
		return s
	}
	s.names, s.used = make([]string, len(prev.services)), make([]bool, len(prev.services))
	for name, i := range prev.slots {
		s.byName[name], s.names[i] = i, name
	}
	for i, name := range s.names {
		if name == "" {
			s.free = append(s.free, i)
		}
	}
	return s
}

// of returns the place of name and marks it used.
func (s *slotTable) of(name string) int {
	i, ok := s.byName[name]
	switch {
	case ok:
	case len(s.free) > 0:
		i = s.free[len(s.free)-1]
		s.free = s.free[:len(s.free)-1]
		s.byName[name], s.names[i] = i, name
	default:
		i = len(s.names)
		s.byName[name], s.names, s.used = i, append(s.names, name), append(s.used, false)
	}
	s.used[i] = true
	return i
}

// keep marks the places of routes compiled for this table or an earlier one.
func (s *slotTable) keep(routes []*Route) {
	for _, r := range routes {
		if r.slot >= 0 {
			s.used[r.slot] = true
		}
	}
}

// places returns the names in use with their places, and how many places
// there are. Places of names no longer used stay empty until a later table.
func (s *slotTable) places() (map[string]int, int) {
	out := make(map[string]int, len(s.byName))
	for name, i := range s.byName {
		if s.used[i] {
			out[name] = i
		}
	}
	return out, len(s.names)
}
