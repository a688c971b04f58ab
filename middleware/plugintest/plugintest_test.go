package plugintest_test

import (
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRunShowsWhatThePluginDid(t *testing.T) {
	r := httptest.NewRequest("GET", "/a", nil)
	r.Header.Set("X-Gone", "1")
	got := plugintest.Run(t, plugintest.Case{Plugins: plugintest.Config{"headers": {
		"request":  map[string]any{"set": map[string]any{"X-A": "b"}, "remove": []any{"X-Gone"}},
		"response": map[string]any{"set": map[string]any{"X-C": "d"}},
	}}}, r)
	if got.Forwarded == nil || got.Forwarded.Header.Get("X-A") != "b" || got.Forwarded.Header.Get("X-Gone") != "" {
		t.Errorf("the instance got %+v", got.Forwarded)
	}
	if got.Response.Code != 200 || got.Response.Body.String() != "ok" || got.Response.Header().Get("X-C") != "d" {
		t.Errorf("the client got %+v", got.Response)
	}
	if got.Exchange.Match.Route.Name != "test" || got.Exchange.RequestID == "" {
		t.Errorf("the walk was %+v", got.Exchange)
	}
}

func TestRunWithoutAPluginChangesNothing(t *testing.T) {
	got := plugintest.Run(t, plugintest.Case{}, httptest.NewRequest("GET", "/", nil))
	if got.Response.Code != 200 || got.Forwarded == nil || len(got.Forwarded.Header) != 0 || got.Code() != "" {
		t.Errorf("the instance got %+v", got.Forwarded)
	}
}

func TestPutsTakeEffectAndSayWhatIsWrong(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{})
	ask := func() string { return g.Do(httptest.NewRequest("GET", "/", nil)).Response.Header().Get("X-A") }
	set := func(v any) plugintest.Config {
		return plugintest.Config{"headers": {"response": map[string]any{"set": map[string]any{"X-A": v}}}}
	}
	if problems := g.Configure(set("1")); problems != nil || ask() != "1" {
		t.Errorf("problems %v, X-A is %q", problems, ask())
	}
	want := []string{"/sluice/routes/test: plugins.headers.response.set.X-A: must be a string; put it in quotes"}
	if problems := g.Configure(set(2)); !slices.Equal(problems, want) || ask() != "1" {
		t.Errorf("problems %v, X-A is %q; the last good version should serve", problems, ask())
	}
	if problems := g.Put("routes/test", ""); problems != nil || g.Do(httptest.NewRequest("GET", "/", nil)).Code() != "route_not_found" {
		t.Errorf("problems %v; the route should be gone", problems)
	}
}

func TestFaultsNameTheField(t *testing.T) {
	got := plugintest.Faults("headers", map[string]any{"request": map[string]any{"sett": 1}})
	if len(got) != 1 || got[0] != "plugins.headers.request.sett: unknown field; accepted: add, remove, set" {
		t.Errorf("the faults are %v", got)
	}
}
