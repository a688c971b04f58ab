package middleware_test

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
	"github.com/sluice-gateway/sluice/routing"
)

func TestABodyLimitChangesWithTheNextRequest(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{})
	post := func() plugintest.Result {
		return g.Do(httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", 100))))
	}
	wantCode(t, "off", post(), "")
	g.Configure(plugintest.Config{"body_limit": {"max_bytes": 99}})
	wantCode(t, "a byte too many", post(), routing.CodeBodyTooLarge)
	g.Configure(plugintest.Config{"body_limit": {"max_bytes": 100}})
	wantCode(t, "just enough", post(), "")
	if problems := g.Configure(plugintest.Config{"body_limit": {"max_bytes": -1}}); len(problems) != 1 {
		t.Errorf("the problems are %v", problems)
	}
	wantCode(t, "a bad change", post(), "")
}

func TestBodyLimitRefusesBadConfiguration(t *testing.T) {
	for _, c := range []struct {
		config map[string]any
		want   string
	}{
		{map[string]any{}, "plugins.body_limit.max_bytes: is missing; give a number of bytes"},
		{map[string]any{"max_bytes": -1}, "plugins.body_limit.max_bytes: must be from 0 to 1099511627776"},
		{map[string]any{"max_bytes": 1 << 41}, "plugins.body_limit.max_bytes: must be from 0 to 1099511627776"},
		{map[string]any{"max_bytes": "1MB"}, "plugins.body_limit.max_bytes: must be a whole number"},
		{map[string]any{"bytes": 1}, "plugins.body_limit.bytes: unknown field; accepted: max_bytes"},
	} {
		if got := plugintest.Faults("body_limit", c.config); !slices.Equal(got, []string{c.want}) {
			t.Errorf("%v: the faults are %q, want %q", c.config, got, c.want)
		}
	}
}

func TestTheBodyLimitExampleWorks(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{Plugins: example(t, "body-limit")})
	wantCode(t, "a small body", g.Do(httptest.NewRequest("POST", "/", strings.NewReader("x"))), "")
	wantCode(t, "a large one", g.Do(httptest.NewRequest("POST", "/", strings.NewReader(strings.Repeat("x", 1<<20+1)))), routing.CodeBodyTooLarge)
}
