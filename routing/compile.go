package routing

import (
	"maps"
	"slices"

	"github.com/sluice-gateway/sluice/discovery"
)

// compile turns entries and tag routes into routes, resolves conflicts and
// indexes what is left. What it looks at one by one is what changed; over the
// rest it makes a few passes that look into nothing but the routes.
func (d *Draft) compile(before memory) {
	defaultsSame := d.prev != nil && d.pluginEntriesSame(before)
	if d.memory.defaults = before.defaults; !defaultsSame {
		d.pluginDefaults(before)
		d.changed = slices.AppendSeq(d.changed, d.memory.entries.ids()) // each is compiled again
	}
	c := &routeCompiler{deps: d.deps, defaults: d.memory.defaults, slots: newSlotTable(d.prev)}
	d.compileEntries(c, before)
	d.compileTags(c, before, defaultsSame)
	for _, kind := range []discovery.Kind{discovery.KindService, discovery.KindActive} {
		for name := range d.memory.entries[kind] {
			c.slots.of(name)
		}
	}
	c.slots.keep(d.memory.candidates)
	d.resolve(before)
	if !sameSlice(d.routes, d.memory.candidates) {
		c.slots.keep(d.routes) // last good versions that are no candidates
	}
	d.slots, d.nslots = c.slots.places()

	var old *index
	if d.prev != nil {
		old = d.prev.index
	}
	d.index = old.with(d.routes)
	d.collectConsumers(before)
	d.collectProblems()
	d.collectPins(before)
	d.collectOwnHeaders(before)
	d.memory.names = sortedKeys(d.slots)
	d.memory.refs, d.memory.routed = d.collectRefs()
}

// compileEntries compiles the documents that changed and brings what follows
// from them into the candidates and the list of faulty entries.
func (d *Draft) compileEntries(c *routeCompiler, before memory) {
	d.memory.faulty = maps.Clone(before.faulty)
	if d.memory.faulty == nil {
		d.memory.faulty = map[entryID]bool{}
	}
	var gone, come []*Route
	seen := make(map[entryID]bool, len(d.changed))
	for _, id := range d.changed {
		if seen[id] {
			continue
		}
		seen[id] = true
		if old := before.entries.get(id); old != nil && old.compiled != nil {
			gone = append(gone, old.compiled)
		}
		e := d.memory.entries.get(id)
		if e != nil {
			e = d.compileEntry(c, id, before)
		}
		if e != nil && e.compiled != nil {
			come = append(come, e.compiled)
		}
		if delete(d.memory.faulty, id); e != nil && e.faults != nil {
			d.memory.faulty[id] = true
		}
	}
	d.memory.candidates = exchange(before.candidates, gone, come)
}

// compileTags compiles the tag routes whose definition changed.
func (d *Draft) compileTags(c *routeCompiler, before memory, defaultsSame bool) {
	var gone, come []*Route
	for service, old := range before.tags {
		if t := d.memory.tags[service]; old.route != nil && t == nil {
			gone = append(gone, old.route)
		}
	}
	for service, t := range d.memory.tags {
		if !defaultsSame || !t.compiled() {
			t = t.compile(c, d.now)
			d.memory.tags[service] = t
		}
		var was *Route
		if old := before.tags[service]; old != nil {
			was = old.route
		}
		if was == t.route {
			continue
		}
		if was != nil {
			gone = append(gone, was)
		}
		if t.route != nil {
			come = append(come, t.route)
		}
	}
	d.memory.candidates = exchange(d.memory.candidates, gone, come)
}

// collectProblems lists what is wrong with documents and tags, one problem
// each.
func (d *Draft) collectProblems() {
	d.memory.problems = nil
	broken := map[string]bool{}
	add := func(p Problem) {
		d.memory.problems = append(d.memory.problems, p)
		broken[p.Key] = true
	}
	for id := range d.memory.faulty {
		add(d.memory.entries.get(id).problem())
	}
	for _, t := range d.memory.tags {
		if t.faults != nil {
			add(t.problem())
		}
	}
	for key, p := range d.memory.conflicts {
		if !broken[key] {
			d.memory.problems = append(d.memory.problems, p)
		}
	}
	for _, p := range d.memory.clashes {
		if !broken[p.Key] {
			d.memory.problems = append(d.memory.problems, p)
		}
	}
	sortProblems(d.memory.problems)
}

// compileEntry compiles the route of a document. A fault that only compiling
// can see makes the document as wrong as one that cannot be read.
func (d *Draft) compileEntry(c *routeCompiler, id entryID, before memory) *entry {
	e, old := d.memory.entries.get(id), before.entries.get(id)
	if id.kind != discovery.KindRoute {
		return e
	}
	ne := *e
	ne.compiled = nil
	for ne.route != nil {
		r, faults := c.compile(ne.good, ne.route)
		if faults == nil {
			ne.compiled = r
			break
		}
		if ne.faults != nil {
			break // the last good version does not compile any more
		}
		ne.faults = faults
		ne.fail(old, d.now)
	}
	if ne.compiled == nil {
		ne.good = nil
		ne.compiled = c.placeholder(ne.doc)
	}
	if ne.compiled != nil && ne.faults != nil && ne.compiled.State == RouteOK {
		ne.compiled = ne.compiled.withState(RouteLastGood)
	}
	d.memory.entries.set(id, &ne)
	return &ne
}

// pluginDefaults compiles the documents under plugins/.
func (d *Draft) pluginDefaults(before memory) {
	d.memory.defaults = make([]pluginDefault, d.deps.Plugins.Slots())
	for name, e := range d.memory.entries[discovery.KindPlugin] {
		id := entryID{discovery.KindPlugin, name}
		slot, ok := d.deps.Plugins.Slot(id.name)
		if !ok {
			ne := *e
			ne.faults = Faults{{Code: ProblemPlugin, Message: "unknown plugin; known are " + list(d.deps.Plugins.Names())}}
			if ne.since.IsZero() {
				ne.since = d.now
			}
			ne.good = nil
			d.memory.entries.set(id, &ne)
			continue
		}
		d.memory.defaults[slot] = d.pluginDefault(id, e, before)
	}
}

func (d *Draft) pluginDefault(id entryID, e *entry, before memory) pluginDefault {
	old := before.entries.get(id)
	ne := *e
	for ne.good != nil {
		if ne.disabled {
			d.memory.entries.set(id, &ne)
			return pluginDefault{disabled: true}
		}
		compiled, faults := d.deps.Plugins.Compile(Place{Key: ne.doc.Key}, id.name, ne.plugin)
		if faults == nil {
			d.memory.entries.set(id, &ne)
			return pluginDefault{compiled: compiled}
		}
		if ne.faults != nil {
			ne.good = nil
			break
		}
		for i := range faults {
			faults[i].Code = ProblemPlugin
		}
		ne.faults = faults
		ne.fail(old, d.now)
	}
	d.memory.entries.set(id, &ne)
	broken := d.prev == nil
	if slot, ok := d.deps.Plugins.Slot(id.name); ok && d.prev != nil {
		broken = before.defaults[slot].broken
	}
	return pluginDefault{broken: broken}
}

func (d *Draft) pluginEntriesSame(before memory) bool {
	return maps.Equal(before.entries[discovery.KindPlugin], d.memory.entries[discovery.KindPlugin])
}
