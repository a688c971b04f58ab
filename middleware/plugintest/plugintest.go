// Package plugintest runs plugins on requests, in the order and with the edge
// filter that the gateway has, and without a server or an instance.
package plugintest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/middleware"
	"github.com/sluice-gateway/sluice/middleware/store"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// Config is plugin configurations by plugin.
type Config map[string]map[string]any

// Case is what is run.
type Case struct {
	// Plugins are what the one route, "/sluice/routes/test" for any path, is
	// configured with.
	Plugins Config
	// Documents are further documents: "routes/other", "plugins/jwt",
	// "consumers/alice" and their values. "routes/test" replaces the route.
	Documents map[string]string
	// Upstream plays the instance; nil answers 200 "ok".
	Upstream http.HandlerFunc
	// Engine is the gateway's configuration; nil is the default.
	Engine *middleware.Config
	// Redis is the store that gateways share; nil is none.
	Redis *store.Redis
	// Log takes what the gateway logs; nil discards it.
	Log *slog.Logger
}

// Result is what came of a request.
type Result struct {
	// Response is what the client got.
	Response *httptest.ResponseRecorder
	// Forwarded is the request as the instance got it; nil where it did not.
	Forwarded *http.Request
	// Exchange is the walk as the forwarder saw it, where it did.
	Exchange routing.Exchange
}

// Code is the machine-readable code of a refusal, or "".
func (r Result) Code() string {
	var p struct{ Code string }
	_ = json.Unmarshal(r.Response.Body.Bytes(), &p) // other answers are no JSON
	return p.Code
}

// Gateway is an engine over real tables.
type Gateway struct {
	t        testing.TB
	engine   *middleware.Engine
	plugins  *middleware.Plugins
	pool     *balance.Pool
	table    atomic.Pointer[routing.Table]
	docs     map[string]string
	created  map[string]int64
	revision int64
	// Registry is what the plugins keep.
	Registry *middleware.Registry
	// Metrics gathers what was counted.
	Metrics prometheus.Gatherer
}

// Start makes a gateway; what its plugins do in the background ends with the
// test. A configuration that does not compile fails the test.
func Start(t testing.TB, c Case) *Gateway {
	t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	cfg := middleware.DefaultConfig()
	if c.Engine != nil {
		cfg = *c.Engine
	}
	registry := prometheus.NewRegistry()
	g := &Gateway{
		t: t, pool: balance.NewPool(), created: map[string]int64{}, Metrics: registry,
		docs:     map[string]string{"routes/test": route(t, c.Plugins)},
		Registry: middleware.NewRegistry(c.Log, c.Redis),
	}
	g.plugins = middleware.NewPlugins(g.Registry)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Registry.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the registry ended with %v", err)
		}
	})
	maps.Copy(g.docs, c.Documents)
	if problems := g.build(); len(problems) > 0 {
		t.Fatalf("the configuration is not valid: %v", problems)
	}
	var err error
	g.engine, err = middleware.New(cfg, middleware.Deps{
		Plugins: g.plugins, Tables: g, Forwarder: instance(c.Upstream), Registerer: registry, Log: c.Log,
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// Run sends one request through a gateway of its own.
func Run(t testing.TB, c Case, r *http.Request) Result {
	t.Helper()
	return Start(t, c).Do(r)
}

// Table returns the table in force.
func (g *Gateway) Table() *routing.Table { return g.table.Load() }

// Do sends one request. Safe for concurrent use.
func (g *Gateway) Do(r *http.Request) Result {
	result := &Result{Response: httptest.NewRecorder()}
	g.engine.ServeHTTP(result.Response, r.WithContext(context.WithValue(r.Context(), resultKey{}, result)))
	// What was sent; the engine uses again what it made the head of.
	maps.Copy(result.Response.Header(), result.Response.Result().Header)
	return *result
}

// ServeHTTP serves requests that come over a real connection.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.engine.ServeHTTP(w, r) }

// Rejections is how many requests a plugin has refused, by the metric.
func (g *Gateway) Rejections(plugin string) (n float64) {
	g.t.Helper()
	families, err := g.Metrics.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "sluice_plugin_rejections_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "plugin" && l.GetValue() == plugin {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// Configure puts other plugins on the test route, as an etcd put would, and
// returns what is wrong with them.
func (g *Gateway) Configure(plugins Config) []string {
	g.t.Helper()
	return g.Put("routes/test", route(g.t, plugins))
}

// Put writes a document ("" deletes it), swaps the table and returns the
// problems of the new one.
func (g *Gateway) Put(name, value string) []string {
	g.t.Helper()
	if g.docs[name] = value; value == "" {
		delete(g.docs, name)
		delete(g.created, name)
	}
	return g.build()
}

func (g *Gateway) build() (problems []string) {
	g.revision++
	var docs []*discovery.Document
	for _, name := range slices.Sorted(maps.Keys(g.docs)) {
		kind, short, _ := strings.Cut(name, "/")
		if g.created[name] == 0 {
			g.created[name] = g.revision
		}
		doc := &discovery.Document{Key: "/sluice/" + name, Kind: discovery.Kind(kind), Name: short,
			Source: discovery.SourceEtcd, Value: []byte(g.docs[name]), Revision: g.revision, Created: g.created[name]}
		if old := g.table.Load(); old != nil {
			// What did not change is handed over again, as a source does.
			st, _ := old.Snapshot().State(discovery.SourceEtcd)
			for was := range st.Documents.All {
				if was.Key == doc.Key && string(was.Value) == string(doc.Value) {
					doc = was
				}
			}
		}
		docs = append(docs, doc)
	}
	old := g.table.Load()
	next := routing.Build(old,
		discovery.Snapshot{States: map[string]discovery.State{
			discovery.SourceEtcd: {Revision: g.revision, Documents: discovery.NewDocuments(docs...)}}},
		routing.Deps{Plugins: g.plugins, Pool: g.pool, Now: time.Now})
	g.table.Store(next)
	g.plugins.Swapped(old, next)
	for _, p := range next.Problems() {
		problems = append(problems, p.Key+": "+p.Message)
	}
	return problems
}

// Faults compiles a configuration and returns what is wrong with it, as
// "plugins.NAME.FIELD: MESSAGE".
func Faults(plugin string, config map[string]any) []string {
	plugins := middleware.NewPlugins(middleware.NewRegistry(slog.New(slog.DiscardHandler), nil))
	_, faults := plugins.Compile(routing.Place{Key: "/sluice/routes/test", Field: "plugins." + plugin}, plugin, config)
	var texts []string
	for _, f := range faults {
		texts = append(texts, f.Error())
	}
	return texts
}

// route writes the test route.
func route(t testing.TB, plugins Config) string {
	t.Helper()
	value, err := json.Marshal(routing.RouteSpec{Path: "/*", Service: "instance", Plugins: plugins})
	if err != nil {
		t.Fatal(err)
	}
	return string(value)
}

type resultKey struct{}

// instance is a forwarder to a handler.
type instance http.HandlerFunc

// Forward implements middleware.Forwarder.
func (f instance) Forward(w http.ResponseWriter, r *http.Request, x *routing.Exchange) *routing.Refusal {
	if result, ok := r.Context().Value(resultKey{}).(*Result); ok {
		result.Forwarded, result.Exchange = r.Clone(r.Context()), *x
	}
	if f == nil {
		_, err := io.WriteString(w, "ok")
		if err != nil {
			return &routing.Refusal{Code: routing.CodeClientClosed, Cause: fmt.Errorf("write the answer: %w", err)}
		}
		return nil
	}
	f(w, r)
	return nil
}
