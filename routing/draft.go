package routing

import (
	"cmp"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"golang.org/x/sync/errgroup"
)

// memory is what a table remembers for the next build, so that only what
// changed is read and compiled again.
type memory struct {
	documents map[string]*discovery.Documents // by source
	entries   map[entryID]*entry
	tags      map[string]*tagRoute
	conflicts map[string]time.Time // by key, since when
	problems  []Problem            // of documents and tags, not of active keys
	defaults  []pluginDefault
	pins      map[string][]string // subsets that routes pin, by service

	consumers        *Consumers
	consumerDocs     int
	consumerProblems []Problem
	ownHeaders       []string
	refs             []discovery.ServiceRef
	names            []string  // of services, in order
	expires          time.Time // when a grace period ends; zero for none
}

// Draft is a snapshot whose documents have been read and whose routes are
// compiled and indexed, but whose services have not met their instances yet:
// between the two, Refs says which instances to ask for.
type Draft struct {
	deps Deps
	prev *Table
	snap discovery.Snapshot
	now  time.Time

	routes    []*Route
	index     *index
	slots     map[string]int
	nslots    int
	memory    memory
	unchanged bool // routes and services are those of prev

	changed   []entryID                                       // documents read anew
	instances []map[discovery.ServiceRef][]discovery.Instance // of every source that has any
}

// docSources are the sources of documents; the earlier wins where two name
// the same document.
func docSources() []string { return []string{discovery.SourceEtcd, discovery.SourceFile} }

// Read reads what changed in snap since prev, which may be nil.
func Read(prev *Table, snap discovery.Snapshot, deps Deps) *Draft {
	d := &Draft{deps: deps, prev: prev, snap: snap, now: deps.Now()}
	var before memory
	if prev != nil {
		before = prev.memory
	}
	for _, st := range snap.States {
		if st.Instances != nil {
			d.instances = append(d.instances, st.Instances)
		}
	}
	d.memory.documents = make(map[string]*discovery.Documents, 2)
	same := prev != nil
	for _, s := range docSources() {
		st, _ := snap.State(s)
		d.memory.documents[s] = st.Documents
		same = same && st.Documents == before.documents[s]
	}
	var tagsSame bool
	d.memory.tags, tagsSame, d.memory.expires = readTags(before.tags, snap, deps, d.now)
	if same && tagsSame {
		expires := d.memory.expires
		d.routes, d.index, d.slots, d.nslots = prev.routes, prev.index, prev.slots, len(prev.services)
		tags := d.memory.tags
		d.memory, d.unchanged = before, true
		d.memory.expires, d.memory.tags = expires, tags
		return d
	}
	if same {
		d.memory.entries = before.entries
	} else {
		d.readEntries(before)
	}
	d.compile(before)
	return d
}

// readEntries reads the documents that changed; the large reads of a start
// are spread over the processors.
func (d *Draft) readEntries(before memory) {
	entries := make(map[entryID]*entry, len(before.entries))
	type work struct {
		id  entryID
		doc *discovery.Document
	}
	var changed []work
	for _, s := range docSources() {
		for doc := range d.memory.documents[s].All {
			id := entryID{doc.Kind, doc.Name}
			if _, ok := entries[id]; ok {
				continue // shadowed by an earlier source
			}
			entries[id] = before.entries[id]
			if e := entries[id]; e == nil || e.doc != doc {
				changed = append(changed, work{id, doc})
			}
		}
	}
	read := make([]*entry, len(changed))
	var g errgroup.Group
	workers := 1
	if len(changed) > 256 {
		workers = runtime.GOMAXPROCS(0)
	}
	for w := range workers {
		g.Go(func() error {
			for i := w; i < len(changed); i += workers {
				c := changed[i]
				read[i] = readEntry(c.doc, before.entries[c.id], d.deps.Remembered.Good[c.doc.Key], d.now)
			}
			return nil
		})
	}
	_ = g.Wait() // nothing in it fails
	for i, c := range changed {
		entries[c.id] = read[i]
		d.changed = append(d.changed, c.id)
	}
	d.memory.entries = entries
}

// compile turns entries and tag routes into routes, resolves conflicts and
// indexes what is left.
func (d *Draft) compile(before memory) {
	defaultsSame := d.prev != nil && d.pluginEntriesSame(before)
	if d.memory.defaults = before.defaults; !defaultsSame {
		d.pluginDefaults(before)
	}
	c := &routeCompiler{deps: d.deps, defaults: d.memory.defaults, slots: newSlotTable(d.prev)}

	if defaultsSame {
		for _, id := range d.changed {
			d.compileEntry(c, id, before)
		}
	} else {
		for id := range d.memory.entries {
			d.compileEntry(c, id, before)
		}
	}
	candidates := make([]candidate, 0, len(d.memory.entries)+len(d.memory.tags))
	d.memory.problems = nil
	broken := map[string]bool{}
	for id, e := range d.memory.entries {
		switch id.kind {
		case discovery.KindRoute:
			if e.compiled != nil {
				candidates = append(candidates, candidate{route: e.compiled, signature: e.signature})
			}
		case discovery.KindService, discovery.KindActive:
			c.slots.of(id.name)
		}
		if e.faults != nil {
			d.memory.problems = append(d.memory.problems, e.problem())
			broken[e.doc.Key] = true
		}
	}
	for service, t := range d.memory.tags {
		if !defaultsSame || !t.compiled() {
			t = t.compile(c, d.now)
			d.memory.tags[service] = t
		}
		if t.route != nil {
			candidates = append(candidates, candidate{route: t.route, signature: t.signature})
		}
		if t.faults != nil {
			d.memory.problems = append(d.memory.problems, t.problem())
			broken[t.key()] = true
		}
	}
	for i := range candidates {
		c.slots.keep(candidates[i].route)
	}

	conflicts := d.resolve(candidates, before, c.slots)
	d.slots, d.nslots = c.slots.places()
	slices.SortFunc(d.routes, func(a, b *Route) int { return strings.Compare(a.Name, b.Name) })
	var old *index
	if d.prev != nil {
		old = d.prev.index
	}
	d.index = buildIndex(old, d.routes)
	for key, p := range conflicts {
		if !broken[key] { // one problem a document is enough
			d.memory.problems = append(d.memory.problems, p)
		}
	}
	d.collectConsumers(before)
	sortProblems(d.memory.problems)
	d.collectPins()
	d.collectOwnHeaders()
	d.memory.names = sortedKeys(d.slots)
	d.memory.refs = d.collectRefs()
}

// compileEntry compiles the route of a document. A fault that only compiling
// can see makes the document as wrong as one that cannot be read.
func (d *Draft) compileEntry(c *routeCompiler, id entryID, before memory) {
	if id.kind != discovery.KindRoute {
		return
	}
	e, old := d.memory.entries[id], before.entries[id]
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
	if ne.compiled != nil {
		if ne.faults != nil && ne.compiled.State == RouteOK {
			ne.compiled = ne.compiled.withState(RouteLastGood)
		}
		ne.signature = ne.compiled.matcher.signature(ne.compiled.Spec.Priority)
	}
	d.memory.entries[id] = &ne
}

// pluginDefaults compiles the documents under plugins/.
func (d *Draft) pluginDefaults(before memory) {
	d.memory.defaults = make([]pluginDefault, d.deps.Plugins.Slots())
	for id, e := range d.memory.entries {
		if id.kind != discovery.KindPlugin {
			continue
		}
		slot, ok := d.deps.Plugins.Slot(id.name)
		if !ok {
			ne := *e
			ne.faults = Faults{{Code: ProblemPlugin, Message: "unknown plugin; known are " + list(d.deps.Plugins.Names())}}
			if ne.since.IsZero() {
				ne.since = d.now
			}
			ne.good = nil
			d.memory.entries[id] = &ne
			continue
		}
		d.memory.defaults[slot] = d.pluginDefault(id, e, before)
	}
}

func (d *Draft) pluginDefault(id entryID, e *entry, before memory) pluginDefault {
	old := before.entries[id]
	ne := *e
	for ne.good != nil {
		if ne.disabled {
			d.memory.entries[id] = &ne
			return pluginDefault{disabled: true}
		}
		compiled, faults := d.deps.Plugins.Compile(Place{Key: ne.doc.Key}, id.name, ne.plugin)
		if faults == nil {
			d.memory.entries[id] = &ne
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
	d.memory.entries[id] = &ne
	broken := d.prev == nil
	if slot, ok := d.deps.Plugins.Slot(id.name); ok && d.prev != nil {
		broken = before.defaults[slot].broken
	}
	return pluginDefault{broken: broken}
}

func (d *Draft) pluginEntriesSame(before memory) bool {
	n := 0
	for id, e := range before.entries {
		if id.kind == discovery.KindPlugin {
			n++
			if d.memory.entries[id] != e {
				return false
			}
		}
	}
	for id := range d.memory.entries {
		if id.kind == discovery.KindPlugin {
			n--
		}
	}
	return n == 0
}

// candidate is a route that wants its place in the table.
type candidate struct {
	route     *Route
	signature string
}

// resolve fills d.routes: of routes with the same match the one from the
// stronger source stays, then the older key; the others are conflicts, and
// what they served before goes on if nothing else has its match.
func (d *Draft) resolve(candidates []candidate, before memory, slots *slotTable) map[string]Problem {
	slices.SortFunc(candidates, func(a, b candidate) int {
		return cmp.Or(
			cmp.Compare(placeholderRank(a.route), placeholderRank(b.route)),
			cmp.Compare(sourceRank(a.route.Source), sourceRank(b.route.Source)),
			cmp.Compare(a.route.Created, b.route.Created),
			cmp.Compare(a.route.Key, b.route.Key))
	})
	taken := make(map[string]*Route, len(candidates))
	var losers []candidate
	for _, c := range candidates {
		if taken[c.signature] != nil {
			losers = append(losers, c)
			continue
		}
		taken[c.signature] = c.route
		d.routes = append(d.routes, c.route)
	}
	conflicts := map[string]Problem{}
	d.memory.conflicts = map[string]time.Time{}
	served := d.servedBefore(losers)
	for _, c := range losers {
		winner := taken[c.signature]
		since, ok := before.conflicts[c.route.Key]
		if !ok {
			since = d.now
		}
		d.memory.conflicts[c.route.Key] = since
		p := Problem{Key: c.route.Key, Revision: c.route.Revision, Code: ProblemConflict, Since: since, Serving: ServingNothing,
			Message: "path: " + winner.Key + " already has this match (hosts, path, methods, predicates and priority); the older key stays"}
		if old := served[c.route.Key]; old != nil && old.State != RouteInvalid {
			sig := old.matcher.signature(old.Spec.Priority)
			if taken[sig] == nil {
				last := old.withState(RouteLastGood)
				if last.ServiceName != "" {
					slots.keep(last) // still the place it was compiled for
				}
				taken[sig] = last
				d.routes = append(d.routes, last)
				p.Serving = ServingLastGood
			}
		}
		conflicts[c.route.Key] = p
	}
	return conflicts
}

// servedBefore finds what the losers' keys served in the table before.
func (d *Draft) servedBefore(losers []candidate) map[string]*Route {
	if d.prev == nil || len(losers) == 0 {
		return nil
	}
	want := make(map[string]*Route, len(losers))
	for _, c := range losers {
		want[c.route.Key] = nil
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

// collectPins notes which subsets routes pin.
func (d *Draft) collectPins() {
	d.memory.pins = map[string][]string{}
	for _, r := range d.routes {
		if r.Subset != "" && !slices.Contains(d.memory.pins[r.ServiceName], r.Subset) {
			d.memory.pins[r.ServiceName] = append(d.memory.pins[r.ServiceName], r.Subset)
		}
	}
}

// collectOwnHeaders lists the headers that plugins of any route set.
func (d *Draft) collectOwnHeaders() {
	seen := map[string]bool{}
	for _, r := range d.routes {
		for _, name := range r.ownHeaders {
			seen[name] = true
		}
	}
	d.memory.ownHeaders = nil
	if len(seen) > 0 {
		d.memory.ownHeaders = sortedKeys(seen)
	}
}

// collectRefs lists the registry names whose instances the routes need.
func (d *Draft) collectRefs() []discovery.ServiceRef {
	seen := map[discovery.ServiceRef]bool{}
	routed := make([]bool, d.nslots)
	for _, r := range d.routes {
		if r.slot < 0 || routed[r.slot] {
			continue
		}
		routed[r.slot] = true
		for _, ref := range refsOf(r.ServiceName, d.serviceSpec(r.ServiceName)) {
			seen[ref] = true
		}
	}
	return slices.SortedFunc(maps.Keys(seen), func(a, b discovery.ServiceRef) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Datacenter, b.Datacenter))
	})
}

// serviceSpec returns the good document of the named service, or nil.
func (d *Draft) serviceSpec(name string) *ServiceSpec {
	if e := d.memory.entries[entryID{discovery.KindService, name}]; e != nil {
		return e.service
	}
	return nil
}

// Refs lists the registry names whose instances this draft needs, sorted.
// The slice must not be changed.
func (d *Draft) Refs() []discovery.ServiceRef { return d.memory.refs }
