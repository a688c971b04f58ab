package plugintest_test

import (
	"net/http/httptest"
	"testing"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
)

func TestRunShowsWhatThePluginDid(t *testing.T) {
	r := httptest.NewRequest("GET", "/a", nil)
	r.Header.Set("X-Gone", "1")
	got := plugintest.Run(t, plugintest.Case{Plugin: "headers", Request: r, Config: map[string]any{
		"request":  map[string]any{"set": map[string]any{"X-A": "b"}, "remove": []any{"X-Gone"}},
		"response": map[string]any{"set": map[string]any{"X-C": "d"}},
	}})
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
	got := plugintest.Run(t, plugintest.Case{})
	if got.Response.Code != 200 || got.Forwarded == nil || len(got.Forwarded.Header) != 0 {
		t.Errorf("the instance got %+v", got.Forwarded)
	}
}

func TestFaultsNameTheField(t *testing.T) {
	got := plugintest.Faults("headers", map[string]any{"request": map[string]any{"sett": 1}})
	if len(got) != 1 || got[0].Error() != "plugins.headers.request.sett: unknown field; accepted: add, remove, set" {
		t.Errorf("the faults are %v", got)
	}
}
