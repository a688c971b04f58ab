package routing

import "github.com/sluice-gateway/sluice/discovery"

// Build makes the table of snap. prev, which may be nil, is the table before:
// what did not change is taken from it, the last good version of a document
// that is wrong now serves on, and a flip that is not ready keeps its choice.
//
// Build is pure but for deps.Pool, from which it takes live endpoints.
func Build(prev *Table, snap discovery.Snapshot, deps Deps) *Table {
	return Read(prev, snap, deps).Table()
}

// Table completes the draft: it gives each service its instances.
func (d *Draft) Table() *Table {
	t := &Table{
		Generation: 1,
		Built:      d.now, Seen: d.snap.Seen,
		routes: d.routes, index: d.index, slots: d.slots,
		services: make([]*Service, d.nslots),
		active:   map[string]string{},
		choices:  map[string]string{},
		snapshot: d.snap,
		memory:   d.memory,
	}
	if st, ok := d.snap.State(discovery.SourceEtcd); ok {
		t.Revision = st.Revision
	}
	if d.prev != nil {
		t.Generation = d.prev.Generation + 1
	}
	t.problems = d.memory.problems
	t.listed = make([]*Service, 0, len(d.memory.names))
	for _, name := range d.memory.names {
		s := d.service(name)
		t.services[d.slots[name]] = s
		t.listed = append(t.listed, s)
		t.note(s, d.memory.routed[d.slots[name]], d.deps.Remembered.Active)
		if s.choice.held != nil {
			t.held = append(t.held, *s.choice.held)
		}
	}
	return t
}

// note enters the choice of s, if it has one. Of a service that no route goes
// to nothing is in effect, whatever its key says; where the registry has not
// answered yet, nothing is decided, and what an earlier run of this gateway
// knew stays the best there is to remember.
func (t *Table) note(s *Service, routed bool, remembered map[string]string) {
	if s.choice.entry == nil {
		return
	}
	if s.choice.tentative {
		if old, ok := remembered[s.Name]; ok {
			t.choices[s.Name] = old
		}
		if routed {
			t.undecided = append(t.undecided, s.Name)
		}
		return
	}
	t.choices[s.Name] = s.choice.serving.String()
	if routed {
		t.active[s.Name] = t.choices[s.Name]
	}
}
