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
	documents  map[string]*discovery.Documents // by source
	entries    entries
	faulty     map[entryID]bool // entries with faults
	tags       map[string]*tagRoute
	candidates []*Route           // all that want a place in the table, by name
	conflicts  map[string]Problem // of candidates that got none, by key
	problems   []Problem          // of documents and tags, not of active keys
	defaults   []pluginDefault
	pins       map[string][]string // subsets that routes pin, by service
	consumers  *Consumers
	clashes    []Problem // of consumers with the key of another
	ownHeaders []string  // that plugins of any route set
	refs       []discovery.ServiceRef
	routed     []bool    // services that a route goes to, by slot
	names      []string  // of services, in order
	expires    time.Time // when a grace period ends; zero for none
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

	changed   []entryID                                       // documents that came, changed or went
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
	d.memory.entries = before.entries.clone()
	type work struct {
		id  entryID
		doc *discovery.Document
	}
	var changed []work
	changes := d.changesBySource(before)
	for id := range allKeys(changes) {
		old := before.entries.get(id)
		doc := d.standing(id, old, changes)
		if old != nil && old.doc == doc {
			continue // a stronger source has it
		}
		d.changed = append(d.changed, id)
		if doc == nil {
			d.memory.entries.remove(id)
			continue
		}
		changed = append(changed, work{id, doc})
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
				read[i] = readEntry(c.doc, before.entries.get(c.id), d.deps.Remembered.Good[c.doc.Key], d.now)
			}
			return nil
		})
	}
	_ = g.Wait() // nothing in it fails
	for i, c := range changed {
		d.memory.entries.set(c.id, read[i])
	}
}

// changesBySource lists, for each of docSources, what stands now under the
// names that changed there; nil where the document is gone.
func (d *Draft) changesBySource(before memory) []map[entryID]*discovery.Document {
	var all []map[entryID]*discovery.Document
	for _, s := range docSources() {
		changes := map[entryID]*discovery.Document{}
		for old, now := range d.memory.documents[s].Since(before.documents[s]) {
			if now != nil {
				changes[entryID{now.Kind, now.Name}] = now
			} else if id := (entryID{old.Kind, old.Name}); changes[id] == nil {
				changes[id] = nil
			}
		}
		all = append(all, changes)
	}
	return all
}

func allKeys(maps []map[entryID]*discovery.Document) map[entryID]bool {
	keys := map[entryID]bool{}
	for _, m := range maps {
		for id := range m {
			keys[id] = true
		}
	}
	return keys
}

// standing returns the document that counts under id: that of the first
// source that has one; nil for none. old is the entry before, or nil.
func (d *Draft) standing(id entryID, old *entry, changes []map[entryID]*discovery.Document) *discovery.Document {
	hidden := false // behind the document of a stronger source: not in any entry
	for i, s := range docSources() {
		doc, changed := changes[i][id]
		switch {
		case changed:
		case old != nil && old.doc.Source == s:
			doc = old.doc
		case hidden:
			doc = d.memory.documents[s].Named(id.kind, id.name)
		}
		if doc != nil {
			return doc
		}
		hidden = hidden || old != nil && old.doc.Source == s
	}
	return nil
}

// collectPins notes which subsets routes pin.
func (d *Draft) collectPins(before memory) {
	if d.prev != nil && sameSlice(d.routes, d.prev.routes) {
		d.memory.pins = before.pins
		return
	}
	d.memory.pins = map[string][]string{}
	for _, r := range d.routes {
		if r.Subset != "" && !slices.Contains(d.memory.pins[r.ServiceName], r.Subset) {
			d.memory.pins[r.ServiceName] = append(d.memory.pins[r.ServiceName], r.Subset)
		}
	}
}

// collectOwnHeaders lists the headers that plugins of any route set.
func (d *Draft) collectOwnHeaders(before memory) {
	if d.prev != nil && sameSlice(d.routes, d.prev.routes) {
		d.memory.ownHeaders = before.ownHeaders
		return
	}
	seen := map[string]bool{}
	for _, r := range d.routes {
		for _, name := range r.ownHeaders {
			seen[name] = true
		}
	}
	if len(seen) > 0 {
		d.memory.ownHeaders = sortedKeys(seen)
	}
}

// collectRefs lists the registry names whose instances the routes need, and
// marks the services that a route goes to, by slot.
func (d *Draft) collectRefs() (refs []discovery.ServiceRef, routed []bool) {
	seen := map[discovery.ServiceRef]bool{}
	routed = make([]bool, d.nslots)
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
	}), routed
}

// serviceSpec returns the good document of the named service, or nil.
func (d *Draft) serviceSpec(name string) *ServiceSpec {
	if e := d.memory.entries.get(entryID{discovery.KindService, name}); e != nil {
		return e.service
	}
	return nil
}

// Refs lists the registry names whose instances this draft needs, sorted.
// The slice must not be changed.
func (d *Draft) Refs() []discovery.ServiceRef { return d.memory.refs }
