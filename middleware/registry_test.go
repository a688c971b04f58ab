package middleware

import (
	"context"
	"fmt"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// keepConfig keeps a worker under its name.
type keepConfig struct {
	Name string `json:"name"`
	own  *worker
}

type worker struct {
	name           string
	started, ended chan struct{}
}

func (w *worker) Run(ctx context.Context) {
	close(w.started)
	<-ctx.Done()
	close(w.ended)
}

func (c *keepConfig) Prepare(at *Place) routing.Faults {
	c.own = Keep(at, "keep/"+c.Name, func() *worker {
		return &worker{name: c.Name, started: make(chan struct{}), ended: make(chan struct{})}
	})
	return nil
}

func (c *keepConfig) OwnHeaders() []string { return []string{"X-Kept"} }

func keepPlugin() *Plugin {
	p := Define[keepConfig]("keep", func(*gin.Context, *routing.Exchange, *keepConfig) {})
	p.group = "keeping"
	return p
}

func keptBy(t *testing.T, table *routing.Table, route string, slot int) *worker {
	t.Helper()
	for _, r := range table.Routes() {
		if r.Name == route {
			return r.Plugins[slot].(*keepConfig).own
		}
	}
	t.Fatalf("no route %s", route)
	return nil
}

func TestWhatAPluginKeepsOutlivesItsDocumentAndGoesWithTheLast(t *testing.T) {
	reg := quiet()
	plugins := newPlugins(reg, withPlugins(keepPlugin()))
	slot, _ := plugins.Slot("keep")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- reg.Run(ctx) }()

	route := func(path, name string) string {
		return fmt.Sprintf(`{"path":%q,"service":"s","plugins":{"keep":{"name":%q}}}`, path, name)
	}
	swap := func(old *routing.Table, routes map[string]string) *routing.Table {
		next := buildTable(t, old, plugins, routes)
		plugins.Swapped(old, next)
		return next
	}
	first := swap(nil, map[string]string{"a": route("/a", "one"), "b": route("/b", "one"), "c": route("/c", "two")})
	one, two := keptBy(t, first, "a", slot), keptBy(t, first, "c", slot)
	<-one.started
	<-two.started
	if keptBy(t, first, "b", slot) != one || one == two {
		t.Error("what has the same key is not the same, or what has another is")
	}
	second := swap(first, map[string]string{"a": route("/elsewhere", "one"), "c": route("/c", "three")})
	if keptBy(t, second, "a", slot) != one {
		t.Error("a changed document lost what its plugin kept")
	}
	<-two.ended // nobody uses it any more
	three := keptBy(t, second, "c", slot)
	<-three.started
	if reg.Len() != 2 {
		t.Errorf("%d things are kept, want 2", reg.Len())
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-one.ended
	<-three.ended
}

func TestNothingRunsBehindARegistryThatDoesNot(t *testing.T) {
	plugins := newPlugins(quiet(), withPlugins(keepPlugin()))
	table := buildTable(t, nil, plugins, map[string]string{"a": `{"path":"/","service":"s","plugins":{"keep":{"name":"x"}}}`})
	slot, _ := plugins.Slot("keep")
	select {
	case <-keptBy(t, table, "a", slot).started:
		t.Error("checking a document started something")
	default:
	}
}

func TestARouteUsesOnePluginOfAGroup(t *testing.T) {
	other := Define[testConfig]("other", nil)
	other.group = "keeping"
	plugins := newPlugins(quiet(), withPlugins(keepPlugin(), other))
	table := buildTable(t, nil, plugins, map[string]string{
		"a": `{"path":"/a","service":"s","plugins":{"keep":{"name":"x"},"other":{"why":"y"}}}`,
	})
	if p := table.Problems(); len(p) != 1 || p[0].Message != "plugins.other: stands beside plugins.keep; a route uses one plugin for keeping" {
		t.Errorf("the problems are %v", p)
	}
}

func TestHeadersThatAPluginOwnsAreTakenFromEveryClient(t *testing.T) {
	g := newGateway(t, setup{steps: withPlugins(keepPlugin()), routes: map[string]string{
		"a":     `{"path":"/a","service":"s","plugins":{"keep":{"name":"x"}}}`,
		"plain": `{"path":"/plain","service":"s"}`,
		"magic": `{"path":"/plain","service":"other","headers":{"X-Kept":"1"}}`,
	}})
	r, w := newRequest("GET", "/plain")
	r.Header = map[string][]string{"X-Kept": {"1"}, "X_kept": {"1"}, "x_Kept": {"1"}, "X-Kept-Not": {"1"}}
	g.engine.ServeHTTP(w, r)
	seen := g.upstream.requests()
	if len(seen) != 1 || seen[0].Route != "plain" {
		t.Fatalf("the request went %+v", seen)
	}
	for name := range seen[0].Header {
		if name != "X-Kept-Not" {
			t.Errorf("%s reached the instance", name)
		}
	}
}
