package routing

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// world is the input of Build, changed step by step as operators and
// registries would.
type world struct {
	t        *testing.T
	deps     Deps
	now      time.Time
	docs     map[string]*discovery.Documents
	revision int64
	consul   discovery.State
	answered bool // Consul has delivered
	table    *Table
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: time.Unix(1_000_000, 0), docs: map[string]*discovery.Documents{}, answered: true}
	w.consul = discovery.State{Instances: map[discovery.ServiceRef][]discovery.Instance{}, Announced: map[string][]string{}}
	w.deps = Deps{
		Plugins: testPlugins{}, Pool: balance.NewPool(), TagPrefix: "sluice.",
		Defaults: Defaults{Timeout: 30 * time.Second, Connect: 2 * time.Second, Retries: 1},
		Now:      func() time.Time { return w.now },
	}
	return w
}

// put writes one etcd key; a new key is created at the revision of the write.
func (w *world) put(key, value string) *world {
	return w.putAs(discovery.SourceEtcd, "/sluice/"+key, value)
}

func (w *world) putAs(source, key, value string) *world {
	w.revision++
	parts := strings.Split(key, "/")
	name := strings.TrimSuffix(parts[len(parts)-1], ".yaml")
	doc := &discovery.Document{
		Key: key, Kind: discovery.Kind(parts[len(parts)-2]), Name: name, Source: source,
		Value: []byte(value), Revision: w.revision, Created: w.revision,
	}
	if old := w.docs[source].Get(key); old != nil {
		doc.Created, doc.Previous = old.Created, old.Value
	}
	w.docs[source] = w.docs[source].With([]*discovery.Document{doc}, nil)
	return w
}

func (w *world) remove(key string) *world {
	w.revision++
	w.docs[discovery.SourceEtcd] = w.docs[discovery.SourceEtcd].With(nil, []string{"/sluice/" + key})
	return w
}

// instances sets the passing instances of a Consul service: "ID:tag,tag".
func (w *world) instances(service string, specs ...string) *world {
	ins := []discovery.Instance{}
	for i, s := range specs {
		id, tags, _ := strings.Cut(s, ":")
		in := discovery.Instance{ID: id, Address: fmt.Sprintf("10.0.0.%d:80", i+1), Weight: 1, Registered: uint64(i + 1)}
		if tags != "" {
			in.Tags = slices.Sorted(strings.SplitSeq(tags, ","))
		}
		ins = append(ins, in)
	}
	ref := discovery.ServiceRef{Name: service}
	if name, dc, ok := strings.Cut(service, "@"); ok {
		ref = discovery.ServiceRef{Name: name, Datacenter: dc}
	}
	next := map[discovery.ServiceRef][]discovery.Instance{}
	for k, v := range w.consul.Instances {
		next[k] = v
	}
	next[ref] = ins
	w.consul.Instances = next
	w.consul.Revision++
	return w
}

// announce sets the gateway tags that Consul's catalog lists for a service;
// none takes the service out of the catalog.
func (w *world) announce(service string, tags ...string) *world {
	next := map[string][]string{}
	for k, v := range w.consul.Announced {
		next[k] = v
	}
	if len(tags) == 0 {
		delete(next, service)
	} else {
		next[service] = tags
	}
	w.consul.Announced = next
	w.consul.Revision++
	return w
}

func (w *world) snapshot() discovery.Snapshot {
	s := discovery.Snapshot{States: map[string]discovery.State{}}
	for name, docs := range w.docs {
		s.States[name] = discovery.State{Documents: docs, Revision: w.revision}
	}
	if w.answered {
		s.States[discovery.SourceConsul] = w.consul
	}
	return s
}

// build makes the next table.
func (w *world) build() *Table {
	w.t.Helper()
	w.table = Build(w.table, w.snapshot(), w.deps)
	return w.table
}

// restart forgets the table, as a new process would.
func (w *world) restart() *world {
	w.table = nil
	w.deps.Pool = balance.NewPool()
	return w
}

// ask returns what a GET of path is answered with: a route's name and state,
// or the outcome.
func (w *world) ask(path string) string {
	w.t.Helper()
	p, err := Normalize(path)
	if err != nil {
		w.t.Fatalf("normalize %s: %v", path, err)
	}
	var m Match
	switch w.table.Match(&Request{Method: http.MethodGet, Host: "example.com", Path: p}, &m) {
	case Matched:
		return m.Route.Name + " " + m.Route.State
	case MethodNotAllowed:
		return "405"
	}
	return "404"
}

func (w *world) problems() []string {
	out := []string{}
	for _, p := range w.table.Problems() {
		out = append(out, p.Key+" "+p.Code+" "+p.Serving)
	}
	return out
}

// serves lists the instance IDs that requests to the service reach.
func (w *world) serves(service string) []string {
	w.t.Helper()
	s := w.table.Service(service)
	if s == nil {
		w.t.Fatalf("no service %s", service)
	}
	seen := map[string]bool{}
	x := &Exchange{Match: Match{Route: &Route{}}}
	for range 400 {
		sub, _ := s.Choose(&http.Request{Header: http.Header{}}, x)
		pick, err := sub.Picker.Pick(balance.Query{})
		if err != nil {
			return []string{err.Error()}
		}
		seen[pick.Endpoint.ID()] = true
		pick.Done(balance.Success)
	}
	return sortedKeys(seen)
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Fatalf("%s: got %s, want %s", what, g, w)
	}
}

// testPlugins knows one plugin, "tag", whose configuration is {value: string}.
type testPlugins struct{}

func (testPlugins) Slot(name string) (int, bool) { return 0, name == "tag" }
func (testPlugins) Slots() int                   { return 1 }
func (testPlugins) Names() []string              { return []string{"tag"} }
func (testPlugins) Group(int) string             { return "" }
func (testPlugins) Compile(at Place, _ string, config map[string]any) (any, Faults) {
	v, ok := config["value"].(string)
	if !ok {
		return nil, Faults{{Field: strings.TrimPrefix(at.Field+".value", "."), Message: "a string is wanted"}}
	}
	return v, nil
}

const (
	orders = `{"path":"/orders/*","service":"orders"}`
	broad  = `{"path":"/*","service":"web"}`
)

func TestAWrongDocumentKeepsItsLastGoodVersionAndTouchesNoOther(t *testing.T) {
	w := newWorld(t).put("routes/orders", orders).put("routes/web", broad).instances("orders", "o1").instances("web", "w1")
	w.build()
	equal(t, "before", w.ask("/orders/1"), "orders ok")
	for _, bad := range []string{`{"path":"/orders/*","servce":"orders"}`, `{"path":`, `{"path":"/orders/*","service":"orders","plugins":{"nope":{}}}`, `{"path":"/orders/*","service":"orders","plugins":{"tag":{"value":1}}}`} {
		w.put("routes/orders", bad).build()
		equal(t, bad, w.ask("/orders/1"), "orders last_good")
		equal(t, bad, w.ask("/other"), "web ok")
		equal(t, bad, len(w.problems()), 1)
	}
	equal(t, "revision served", w.table.Routes()[0].Revision, int64(1))
	w.put("routes/orders", orders).build()
	equal(t, "mended", w.ask("/orders/1"), "orders ok")
	equal(t, "mended", w.problems(), []string{})
}

func TestARouteThatNeverWasGoodKeepsItsPathFromABroaderRoute(t *testing.T) {
	w := newWorld(t).put("routes/web", broad).put("routes/orders", `{"path":"/orders/*","servce":"orders"}`)
	w.build()
	equal(t, "its path", w.ask("/orders/1"), "orders invalid")
	equal(t, "other paths", w.ask("/x"), "web ok")
	equal(t, "problems", w.problems(), []string{"/sluice/routes/orders invalid_field nothing"})
}

func TestThePlaceholderOfABrokenRouteNeverBeatsAGoodRouteOfTheSamePath(t *testing.T) {
	w := newWorld(t).put("routes/bad", `{"path":"/orders/*","service":7}`).put("routes/orders", orders)
	w.build()
	equal(t, "path", w.ask("/orders/1"), "orders ok")
}

func TestOfTwoRoutesWithTheSameMatchTheOlderStays(t *testing.T) {
	w := newWorld(t).put("routes/b", orders).put("routes/a", `{"path":"/orders/*","service":"other"}`)
	w.build()
	equal(t, "winner", w.ask("/orders/1"), "b ok")
	equal(t, "problems", w.problems(), []string{"/sluice/routes/a conflict nothing"})
	w.remove("routes/b").build()
	equal(t, "after the older is gone", w.ask("/orders/1"), "a ok")
	equal(t, "problems", w.problems(), []string{})
}

func TestARouteEditedIntoAConflictServesItsLastGoodVersion(t *testing.T) {
	w := newWorld(t).put("routes/a", orders).put("routes/b", `{"path":"/b","service":"b"}`)
	w.build()
	w.put("routes/b", `{"path":"/orders/*","service":"b"}`).build()
	equal(t, "a", w.ask("/orders/1"), "a ok")
	equal(t, "b", w.ask("/b"), "b last_good")
	equal(t, "problems", w.problems(), []string{"/sluice/routes/b conflict last_good"})
	w.put("routes/c", `{"path":"/c","service":"b"}`).build() // an unrelated change
	equal(t, "b stays", w.ask("/b"), "b last_good")
}

func TestEtcdWinsOverAFileOfTheSameName(t *testing.T) {
	w := newWorld(t).putAs(discovery.SourceFile, "routes/orders.yaml", `path: /old`+"\nservice: orders\n").put("routes/orders", orders)
	w.build()
	equal(t, "etcd", w.ask("/orders/1"), "orders ok")
	equal(t, "file", w.ask("/old"), "404")
	w.remove("routes/orders").build()
	equal(t, "file after etcd's is gone", w.ask("/old"), "orders ok")
}

func TestAnInstanceChangeRebuildsOnlyTheServicesThatNameIt(t *testing.T) {
	w := newWorld(t).put("routes/orders", orders).put("routes/web", broad).instances("orders", "o1").instances("web", "w1")
	before := w.build()
	after := w.instances("orders", "o1", "o2").build()
	if before.index != after.index || &before.routes[0] != &after.routes[0] {
		t.Error("routes or index were rebuilt")
	}
	if before.Service("web") != after.Service("web") {
		t.Error("an untouched service was rebuilt")
	}
	equal(t, "serves", w.serves("orders"), []string{"o1", "o2"})
	if before.Service("orders").All.Endpoints[0] != after.Service("orders").All.Endpoints[0] {
		t.Error("the endpoint of an instance that stayed was replaced")
	}
}

func TestServicesKeepTheirPlaceWhileOthersComeAndGo(t *testing.T) {
	w := newWorld(t)
	for i := range 6 {
		w.put(fmt.Sprintf("routes/r%d", i), fmt.Sprintf(`{"path":"/r%d","service":"s%d"}`, i, i)).instances(fmt.Sprintf("s%d", i), fmt.Sprintf("i%d", i))
	}
	w.build()
	w.remove("routes/r1").build()
	w.put("routes/new", `{"path":"/new","service":"fresh"}`).instances("fresh", "f1").build()
	for _, r := range w.table.Routes() {
		var m Match
		p, _ := Normalize(r.Spec.Path)
		if w.table.Match(&Request{Method: "GET", Path: p}, &m) != Matched || m.Service == nil || m.Service.Name != r.ServiceName {
			t.Errorf("%s leads to %+v, want %s", r.Spec.Path, m.Service, r.ServiceName)
		}
	}
}

func TestPluginDefaultsReachEveryRouteThatSetsNoneOfItsOwn(t *testing.T) {
	w := newWorld(t).put("routes/a", `{"path":"/a","service":"s"}`).put("routes/b", `{"path":"/b","service":"s","plugins":{"tag":{"value":"own"}}}`).
		put("routes/c", `{"path":"/c","service":"s","plugins":{"tag":{"disabled":true}}}`)
	config := func() string {
		var out []string
		for _, r := range w.table.Routes() {
			var tag any
			if len(r.Plugins) > 0 { // a route without any has no slots
				tag = r.Plugins[0]
			}
			out = append(out, fmt.Sprint(tag))
		}
		return strings.Join(out, " ")
	}
	w.build()
	equal(t, "without", config(), "<nil> own <nil>")
	w.put("plugins/tag", `{"value":"all"}`).build()
	equal(t, "with", config(), "all own <nil>")
	w.put("plugins/tag", `{"value":1}`).build()
	equal(t, "broken: the last good one stays", config(), "all own <nil>")
	equal(t, "problems", w.problems(), []string{"/sluice/plugins/tag invalid_plugin last_good"})
	w.put("plugins/tag", `{"disabled":true}`).build()
	equal(t, "disabled everywhere", config(), "<nil> <nil> <nil>")
	w.remove("plugins/tag").build()
	equal(t, "removed", config(), "<nil> own <nil>")
	w.put("plugins/unknown", `{}`).build()
	equal(t, "unknown plugin", w.problems(), []string{"/sluice/plugins/unknown invalid_plugin nothing"})
}

func TestAPluginDefaultThatIsBrokenAtStartFailsClosed(t *testing.T) {
	w := newWorld(t).put("routes/a", `{"path":"/a","service":"s"}`).put("plugins/tag", `{"value":1}`)
	w.build()
	equal(t, "route", w.ask("/a"), "a invalid")
	w.put("plugins/tag", `{"value":"x"}`).build()
	equal(t, "mended", w.ask("/a"), "a ok")
}

func TestABrokenDocumentFallsBackToTheVersionThatAnEarlierRunRemembered(t *testing.T) {
	w := newWorld(t).put("routes/orders", orders)
	w.build()
	w.put("routes/orders", `{"path":"/orders/*"}`).build()
	w.deps.Remembered = w.table.Remembered()
	w.restart().build()
	equal(t, "after a restart", w.ask("/orders/1"), "orders last_good")
}

func TestAKeyInAnUnknownFolderIsAProblemThatNamesTheFolderMeant(t *testing.T) {
	w := newWorld(t).put("servces/orders", `{}`).put("route/x", `{"path":"/x"}`).put("active/orders", "green")
	w.build()
	equal(t, "problems", w.problems(), []string{"/sluice/route/x invalid_key nothing", "/sluice/servces/orders invalid_key nothing"})
	equal(t, "message", w.table.Problems()[1].Message,
		`"servces" is not a folder of documents, so the key is not read; did you mean services?; accepted are routes, services, active, consumers, plugins`)
	equal(t, "no folder", acceptFolder(""), "the key is in no folder, so it is not read; accepted are routes, services, active, consumers, plugins")
	w.remove("servces/orders").remove("route/x").build()
	equal(t, "problems", w.problems(), []string{})
}
