package routing

import (
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"go.yaml.in/yaml/v3"
)

// entryID names a document whatever source it came from.
type entryID struct {
	kind discovery.Kind
	name string
}

// entry is what is known of one document: the newest version as written,
// what is wrong with it, and the newest version that was good. It is
// immutable; a changed document gets a new entry.
type entry struct {
	doc    *discovery.Document
	faults Faults
	since  time.Time // when the faults were first seen

	// good is the version that the rest was read from: doc, an earlier
	// version of it, or nil if there never was one.
	good     *discovery.Document
	route    *RouteSpec
	service  *ServiceSpec
	active   Active
	plugin   map[string]any
	consumer *ConsumerSpec
	disabled bool

	// compiled is the route of good, or the placeholder that keeps a broken
	// route's path; nil where not even its path could be read.
	compiled *Route
}

// entries is what is known of every document, by kind and name. Immutable
// once its table is published.
type entries map[discovery.Kind]map[string]*entry

func (es entries) get(id entryID) *entry { return es[id.kind][id.name] }

func (es entries) set(id entryID, e *entry) {
	if es[id.kind] == nil {
		es[id.kind] = map[string]*entry{}
	}
	es[id.kind][id.name] = e
}

func (es entries) remove(id entryID) { delete(es[id.kind], id.name) }

// clone returns a copy to change.
func (es entries) clone() entries {
	out := make(entries, len(es))
	for kind, byName := range es {
		out[kind] = maps.Clone(byName)
	}
	return out
}

// ids calls yield for each document.
func (es entries) ids() iter.Seq[entryID] {
	return func(yield func(entryID) bool) {
		for kind, byName := range es {
			for name := range byName {
				if !yield(entryID{kind, name}) {
					return
				}
			}
		}
	}
}

// readEntry reads doc. prev is the entry of the same document before, or nil;
// remembered is a good version from an earlier run, or nil.
func readEntry(doc *discovery.Document, prev *entry, remembered *discovery.Document, now time.Time) *entry {
	e := &entry{doc: doc, good: doc}
	if e.faults = e.decode(); e.faults == nil {
		return e
	}
	e.fail(prev, now)
	if e.good == nil && remembered != nil && remembered.Created == doc.Created {
		old := &entry{doc: remembered, good: remembered}
		if old.decode() == nil {
			e.takeGood(old)
		}
	}
	return e
}

// decode reads e.doc into the field of its kind.
func (e *entry) decode() (faults Faults) {
	if wrong := acceptFolder(string(e.doc.Kind)); wrong != "" {
		return Faults{{Message: wrong, Code: ProblemKey}}
	}
	if err := ValidName(e.doc.Name); err != nil {
		return Faults{{Message: err.Error(), Code: ProblemKey}}
	}
	switch e.doc.Kind {
	case discovery.KindRoute:
		e.route, faults = DecodeRoute(e.doc.Value)
	case discovery.KindService:
		e.service, faults = DecodeService(e.doc.Value)
	case discovery.KindPlugin:
		e.plugin, e.disabled, faults = DecodePlugin(e.doc.Value)
	case discovery.KindConsumer:
		e.consumer, faults = DecodeConsumer(e.doc.Value)
	case discovery.KindActive:
		var err error
		if e.active, err = ParseActive(string(e.doc.Value)); err != nil {
			faults = Faults{{Message: err.Error(), Code: ProblemActive}}
		}
	}
	return faults
}

// fail puts the last good version of prev in place of what could not be read.
func (e *entry) fail(prev *entry, now time.Time) {
	e.since = now
	e.good, e.route, e.service, e.active, e.plugin, e.disabled, e.consumer = nil, nil, nil, nil, nil, false, nil
	if prev != nil && prev.good != nil {
		e.takeGood(prev)
	}
}

func (e *entry) takeGood(from *entry) {
	e.good, e.route, e.service, e.active = from.good, from.route, from.service, from.active
	e.plugin, e.disabled, e.consumer = from.plugin, from.disabled, from.consumer
	e.compiled = from.compiled
}

// problem reports the faults; serving is what the document's name still does.
func (e *entry) problem() Problem {
	p := Problem{Key: e.doc.Key, Revision: e.doc.Revision, Message: e.faults.Error(), Since: e.since, Serving: ServingNothing}
	if p.Code = e.faults[0].Code; p.Code == "" {
		p.Code = ProblemField
	}
	if e.good != nil {
		p.Serving = ServingLastGood
	}
	return p
}

// salvage reads as much of a broken route document as says which requests it
// was meant for, so that its path can answer route_invalid and no broader
// route catches its traffic. It returns nil where not even a path is there.
// What cannot be read is left out, which makes the placeholder weaker than
// any good route of the same path, never stronger.
func salvage(value []byte) *RouteSpec {
	var loose map[string]any
	if json.Unmarshal(value, &loose) != nil && yaml.Unmarshal(value, &loose) != nil {
		return nil
	}
	spec := &RouteSpec{Respond: &RespondSpec{Status: CodeRouteInvalid.Status()}}
	spec.Path, _ = loose["path"].(string)
	if hosts, ok := loose["hosts"].([]any); ok {
		for _, h := range hosts {
			if s, ok := h.(string); ok {
				spec.Hosts = append(spec.Hosts, s)
			}
		}
	}
	if _, faults := compileMatcher(spec); faults == nil && validSalvage(spec) {
		return spec
	}
	if len(spec.Hosts) == 0 {
		return nil
	}
	// One bad host must not free the traffic of the good ones.
	spec.Hosts = slices.DeleteFunc(spec.Hosts, func(h string) bool {
		return !validSalvage(&RouteSpec{Path: spec.Path, Hosts: []string{h}, Respond: spec.Respond})
	})
	if len(spec.Hosts) == 0 || !validSalvage(spec) {
		return nil
	}
	return spec
}

// validSalvage runs the ordinary rules over what was salvaged.
func validSalvage(spec *RouteSpec) bool {
	value, err := json.Marshal(spec)
	if err != nil {
		return false
	}
	if _, faults := DecodeRoute(value); faults != nil {
		return false
	}
	_, faults := compileMatcher(spec)
	return faults == nil
}
