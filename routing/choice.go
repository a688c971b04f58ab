package routing

import (
	"fmt"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
)

// choice is which subsets of a service serve, and whether the active key
// asks for others that are not ready. It is immutable.
type choice struct {
	// entry is the active key's; nil where there is none.
	entry *entry
	// serving is in effect; empty means all instances.
	serving Active
	// tentative: the registry has not answered for the instances yet, so
	// whether the choice may take effect is decided by the next build.
	tentative bool
	held      *Held
}

// choose decides which subsets serve. ready counts the passing instances of
// a subset and says whether the registry has answered for them at all.
func (d *Draft) choose(name string, before *Service, minReady int, ready func(subset string) (n int, known bool)) choice {
	e := d.memory.entries.get(entryID{discovery.KindActive, name})
	if e == nil || e.active == nil {
		return choice{} // absent, or never readable: all instances serve
	}
	c := choice{entry: e, serving: e.active}
	old, known := d.choiceBefore(name, e, before)
	if !known || old.String() == e.active.String() {
		return c // in effect already: later trouble in a subset undoes no flip
	}
	reason, unknown := notReady(e.active, old, minReady, ready)
	switch {
	case unknown:
		c.tentative = true
		return c
	case reason == "":
		return c
	case len(old) > 0 && !anyReady(old, ready) && anyReady(e.active, ready):
		// The old choice has nothing left to serve with; part of the new
		// one is better than nothing.
		return c
	}
	c.serving = old
	c.held = &Held{Service: name, Wanted: e.active.String(), Serving: old.String(), Reason: reason, Since: d.now}
	if before != nil && before.choice.held != nil && before.choice.held.Wanted == c.held.Wanted {
		c.held.Since = before.choice.held.Since
	}
	return c
}

// choiceBefore returns the choice in effect before e was written, and whether
// it is known: from the table before, from an earlier run of this gateway, or
// from the key's previous revision.
func (d *Draft) choiceBefore(name string, e *entry, before *Service) (Active, bool) {
	running := d.prev != nil && d.prev.memory.documents[e.doc.Source] != nil
	if before != nil && running && !before.choice.tentative {
		return before.choice.serving, true
	}
	if text, ok := d.deps.Remembered.Active[name]; ok && (!running || before != nil) {
		if text == "" {
			return nil, true
		}
		if a, err := ParseActive(text); err == nil {
			return a, true
		}
	}
	if len(e.good.Previous) > 0 {
		a, err := ParseActive(string(e.good.Previous))
		return a, err == nil
	}
	return nil, e.good.Created == e.good.Revision // created by this write: all served before
}

// notReady says why wanted cannot take over from old yet, or "". Subsets
// that already serve need not prove themselves again.
func notReady(wanted, old Active, minReady int, ready func(string) (int, bool)) (reason string, unknown bool) {
	serving := map[string]bool{}
	for _, s := range old {
		serving[s.Subset] = s.Weight > 0
	}
	var reasons []string
	for _, s := range wanted {
		if s.Weight == 0 || serving[s.Subset] {
			continue
		}
		n, known := ready(s.Subset)
		if !known {
			return "", true
		}
		if n < minReady {
			reasons = append(reasons, fmt.Sprintf("subset %s has %d passing instances of %d needed", s.Subset, n, minReady))
		}
	}
	return strings.Join(reasons, "; "), false
}

func anyReady(a Active, ready func(string) (int, bool)) bool {
	for _, s := range a {
		if n, _ := ready(s.Subset); s.Weight > 0 && n > 0 {
			return true
		}
	}
	return false
}

// splitLifetime is how long a client keeps its side of a split by cookie.
const splitLifetime = 30 * 24 * time.Hour
