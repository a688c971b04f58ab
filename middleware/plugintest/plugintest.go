// Package plugintest runs one plugin on one request, in the order and with the
// edge filter that the gateway has, and without a server or an instance.
package plugintest

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/middleware"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// Case is what is run.
type Case struct {
	// Plugin and Config are what the one route is configured with; no Plugin
	// is a route without any.
	Plugin string
	Config map[string]any
	// Request defaults to a GET of "/".
	Request *http.Request
	// Upstream plays the instance; nil answers 200 "ok".
	Upstream http.HandlerFunc
	// Engine is the gateway's configuration; nil is the default.
	Engine *middleware.Config
}

// Result is what came of it.
type Result struct {
	// Response is what the client got.
	Response *httptest.ResponseRecorder
	// Forwarded is the request as the instance got it; nil where it did not.
	Forwarded *http.Request
	// Exchange is the walk as the forwarder saw it, where it did.
	Exchange routing.Exchange
	// Metrics gathers what was counted.
	Metrics prometheus.Gatherer
}

// Run sends the request through the engine. A configuration that does not
// compile fails the test; see Faults.
func Run(t testing.TB, c Case) Result {
	t.Helper()
	if c.Request == nil {
		c.Request = httptest.NewRequest(http.MethodGet, "/", nil)
	}
	cfg := middleware.DefaultConfig()
	if c.Engine != nil {
		cfg = *c.Engine
	}
	registry := prometheus.NewRegistry()
	result := Result{Response: httptest.NewRecorder(), Metrics: registry}
	forward := forwarder(func(w http.ResponseWriter, r *http.Request, x *routing.Exchange) *routing.Refusal {
		result.Forwarded, result.Exchange = r.Clone(r.Context()), *x
		if c.Upstream != nil {
			c.Upstream(w, r)
		} else {
			_, _ = io.WriteString(w, "ok")
		}
		return nil
	})
	engine, err := middleware.New(cfg, middleware.Deps{
		Tables: tables{build(t, c)}, Forwarder: forward, Registerer: registry, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	engine.ServeHTTP(result.Response, c.Request)
	return result
}

// Faults compiles a configuration and returns what is wrong with it.
func Faults(plugin string, config map[string]any) routing.Faults {
	_, faults := middleware.NewPlugins().Compile(plugin, config, "plugins."+plugin)
	return faults
}

// build makes a real table with one route.
func build(t testing.TB, c Case) *routing.Table {
	t.Helper()
	spec := routing.RouteSpec{Path: "/*", Service: "instance"}
	if c.Plugin != "" {
		spec.Plugins = map[string]map[string]any{c.Plugin: c.Config}
	}
	value, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	doc := &discovery.Document{Key: "/sluice/routes/test", Kind: discovery.KindRoute, Name: "test",
		Source: discovery.SourceEtcd, Value: value, Revision: 1, Created: 1}
	table := routing.Build(nil,
		discovery.Snapshot{States: map[string]discovery.State{
			discovery.SourceEtcd: {Revision: 1, Documents: discovery.NewDocuments(doc)}}},
		routing.Deps{Plugins: middleware.NewPlugins(), Pool: balance.NewPool(), Now: time.Now})
	for _, p := range table.Problems() {
		t.Fatalf("the route is not valid: %s", p.Message)
	}
	return table
}

type tables struct{ table *routing.Table }

func (t tables) Table() *routing.Table { return t.table }

type forwarder func(http.ResponseWriter, *http.Request, *routing.Exchange) *routing.Refusal

func (f forwarder) Forward(w http.ResponseWriter, r *http.Request, x *routing.Exchange) *routing.Refusal {
	return f(w, r, x)
}
