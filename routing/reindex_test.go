package routing

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sluice-gateway/sluice/discovery"
)

// lines writes an index as text: every place that holds routes, in the order
// in which they are tried, and every empty place at the end of a way.
func (x *index) lines() []string {
	out := (*pathNode)(nil).lines("")
	if x.any != nil {
		out = append(out, x.any.root.lines("any ")...)
	}
	for _, hosts := range []map[string]*hostIndex{x.exact, x.wild} {
		for _, h := range hosts {
			out = append(out, h.root.lines(h.host+" ")...)
		}
	}
	slices.Sort(out)
	return out
}

func (n *pathNode) lines(way string) (out []string) {
	if n == nil {
		return nil
	}
	names := func(routes []*Route) (names []string) {
		for _, r := range routes {
			names = append(names, fmt.Sprintf("%s@%d", r.Name, r.Revision))
		}
		return names
	}
	out = append(n.param.lines(way+"/:"), fmt.Sprint(way, " exact ", names(n.exact), " rest ", names(n.rest)))
	for i, name := range n.static.names {
		out = append(out, n.static.nodes[i].lines(way+"/"+name)...)
	}
	for name, next := range n.static.byName {
		out = append(out, next.lines(way+"/"+name)...)
	}
	return out
}

func TestAnIndexMadeFromTheOneBeforeIsThatOfItsRoutes(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	segment := func() string {
		return []string{"/a", "/b", "/:x", "/:y", fmt.Sprint("/", r.IntN(12)), "/"}[r.IntN(6)]
	}
	spec := func() *RouteSpec {
		s := &RouteSpec{Priority: r.IntN(3)}
		for range 1 + r.IntN(3) {
			s.Path += segment()
		}
		s.Path += []string{"", "/*"}[r.IntN(2)]
		for range r.IntN(3) {
			s.Hosts = append(s.Hosts, []string{"a.test", "b.test", "*.a.test", "*.test"}[r.IntN(4)])
		}
		return s
	}
	valid := func() *RouteSpec { // what the walk made may name a parameter twice
		for {
			s := spec()
			if _, faults := compileMatcher(s); faults == nil {
				return s
			}
		}
	}
	byKey := map[string]*Route{}
	var x *index
	for step := range int64(600) {
		for range r.IntN(6) { // of about sixty routes: at first more come than go
			name := fmt.Sprint("r", r.IntN(60))
			if r.IntN(3) == 0 {
				delete(byKey, name)
				continue
			}
			byKey[name] = routeOf(t, name, step, valid())
			byKey[name].Revision = step
		}
		routes := slices.SortedFunc(maps.Values(byKey), byName)
		before := x
		var was []string
		if before != nil {
			was = before.lines()
		}
		x = x.with(routes)
		if got, want := x.lines(), buildIndex(routes).lines(); !slices.Equal(got, want) {
			t.Fatalf("step %d:\n%v\nwant\n%v", step, got, want)
		}
		if before != nil && !slices.Equal(before.lines(), was) {
			t.Fatalf("step %d changed the index before", step)
		}
	}
}

func TestAnIndexOfTheSameRoutesIsTheSame(t *testing.T) {
	spec := RouteSpec{Path: "/a"}
	routes := []*Route{routeOf(t, "a", 1, &spec)}
	x := buildIndex(routes)
	if x.with(slices.Clone(routes)) != x {
		t.Error("another index")
	}
}

// Many small changes must end in the table that one build of the last
// snapshot makes: same routes, same losers, same needs.
func TestATableMadeStepByStepIsThatOfItsDocuments(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	w := newWorld(t)
	route := func() string {
		return fmt.Sprintf(`{"path":"/%d/*","service":"s%d"%s,"priority":%d}`,
			r.IntN(25), r.IntN(9), []string{"", `,"subset":"blue"`}[r.IntN(2)], r.IntN(2))
	}
	step := func() {
		name := fmt.Sprintf("r%d", r.IntN(30))
		switch r.IntN(12) {
		case 0, 1:
			w.remove("routes/" + name)
		case 2:
			w.putAs(discovery.SourceFile, "routes/"+name+".yaml", route())
		case 3:
			docs := w.docs[discovery.SourceFile]
			w.docs[discovery.SourceFile] = docs.With(nil, []string{"routes/" + name + ".yaml"})
		case 4:
			w.put("plugins/tag", fmt.Sprintf(`{"value":"%d"}`, r.IntN(2)))
		case 5:
			w.remove("plugins/tag")
		case 6:
			w.put(fmt.Sprintf("services/s%d", r.IntN(12)), fmt.Sprintf(`{"consul":"c%d"}`, r.IntN(5)))
		case 7:
			w.put(fmt.Sprintf("active/s%d", r.IntN(12)), "blue")
		case 8:
			service := fmt.Sprintf("t%d", r.IntN(4))
			tag := fmt.Sprintf("sluice.path=/%d/*", r.IntN(25))
			w.instances(service, service+"-1:"+tag).announce(service, tag)
		default:
			w.put("routes/"+name, route())
		}
	}
	// What a table shows, but for what depends on how it came about: a loser's
	// last good version, and when a tag route was first seen.
	shown := func(table *Table) []string {
		out := []string{}
		for _, r := range table.Routes() {
			if r.State == RouteOK {
				out = append(out, fmt.Sprint("route ", r.Name, r.Key, r.Revision, r.Spec.Path, r.ServiceName, r.Plugins))
			}
		}
		for _, p := range table.Problems() {
			out = append(out, fmt.Sprint("problem ", p.Key, p.Code))
		}
		for _, s := range table.Services() {
			if table.Service(s.Name) != s {
				t.Fatalf("service %s is not in its place", s.Name)
			}
		}
		return append(out, fmt.Sprint("watch ", table.memory.refs))
	}
	for n := range 1500 {
		for range 1 + r.IntN(3) {
			step()
		}
		w.build()
		fresh := Build(nil, w.snapshot(), w.deps)
		got, want := shown(w.table), shown(fresh)
		lastGood := slices.ContainsFunc(w.table.Routes(), func(r *Route) bool { return r.State == RouteLastGood })
		if lastGood { // it may need a service that nothing else does
			got, want = got[:len(got)-1], want[:len(want)-1]
		}
		if !slices.Equal(got, want) {
			t.Fatalf("step %d:\n%v\nwant\n%v", n, got, want)
		}
		if got, want := w.table.index.lines(), buildIndex(w.table.Routes()).lines(); !slices.Equal(got, want) {
			t.Fatalf("step %d, index:\n%v\nwant\n%v", n, got, want)
		}
		for _, r := range w.table.Routes() {
			if r.slot >= 0 && w.table.services[r.slot].Name != r.ServiceName {
				t.Fatalf("step %d: route %s leads to %s", n, r.Name, w.table.services[r.slot].Name)
			}
		}
	}
}
