package middleware_test

import (
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"

	"github.com/sluice-gateway/sluice/middleware"
	"github.com/sluice-gateway/sluice/middleware/plugintest"
)

func TestIPFilterDecidesByTheLongestRange(t *testing.T) {
	list := func(ranges ...any) []any { return ranges }
	for _, c := range []struct {
		name   string
		config map[string]any
		passes []string
		denied []string
	}{
		{"allow alone keeps all others out", map[string]any{"allow": list("10.0.0.0/8", "fd00::/8")},
			[]string{"10.1.2.3", "::ffff:10.1.2.3", "fd00::1"}, []string{"11.0.0.1", "2001:db8::1"}},
		{"deny alone lets all others in", map[string]any{"deny": list("192.0.2.7")},
			[]string{"192.0.2.8", "2001:db8::1"}, []string{"192.0.2.7", "::ffff:192.0.2.7"}},
		{"a longer allow wins", map[string]any{"allow": list("10.0.0.0/8"), "deny": list("0.0.0.0/0", "::/0")},
			[]string{"10.1.2.3"}, []string{"11.0.0.1", "::1"}},
		{"a longer deny wins", map[string]any{"allow": list("10.0.0.0/8"), "deny": list("10.1.0.0/16")},
			[]string{"10.2.0.1"}, []string{"10.1.0.1", "11.0.0.1"}},
		{"of equals deny wins", map[string]any{"allow": list("10.0.0.0/8"), "deny": list("10.0.0.0/8")},
			nil, []string{"10.1.0.1"}},
		{"row 32: a mapped range is the plain one", map[string]any{"deny": list("::ffff:10.0.0.0/104")},
			[]string{"11.0.0.1"}, []string{"10.1.0.1", "::ffff:10.1.0.1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"ip_filter": c.config}})
			ask := func(address string) plugintest.Result {
				r := httptest.NewRequest("GET", "/", nil)
				r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(address), 1234).String()
				return g.Do(r)
			}
			for _, a := range c.passes {
				if got := ask(a); got.Forwarded == nil {
					t.Errorf("%s was refused with %s", a, got.Code())
				}
			}
			for _, a := range c.denied {
				if got := ask(a); got.Forwarded != nil || got.Code() != "forbidden" || got.Response.Code != 403 {
					t.Errorf("%s got %d %s", a, got.Response.Code, got.Code())
				}
			}
		})
	}
}

func TestIPFilterLooksAtTheConnectionUnlessAProxyIsTrusted(t *testing.T) {
	ask := func(trusted ...netip.Prefix) plugintest.Result {
		engine := middleware.DefaultConfig()
		engine.TrustedProxies = trusted
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = "192.0.2.1:1234"
		r.Header.Set("X-Forwarded-For", "10.0.0.1")
		return plugintest.Run(t, plugintest.Case{Engine: &engine,
			Plugins: plugintest.Config{"ip_filter": {"allow": []any{"10.0.0.0/8"}}}}, r)
	}
	if got := ask(); got.Code() != "forbidden" {
		t.Errorf("an address made up by the client passed: %d", got.Response.Code)
	}
	if got := ask(netip.MustParsePrefix("192.0.2.1/32")); got.Forwarded == nil {
		t.Errorf("the address a trusted proxy saw was refused: %s", got.Code())
	}
}

func TestIPFilterRefusesBadConfiguration(t *testing.T) {
	for _, c := range []struct {
		config map[string]any
		want   string
	}{
		{map[string]any{}, "plugins.ip_filter.allow: is missing, and deny too; give at least one range in either"},
		{map[string]any{"deny": []any{"10.0.0"}}, `plugins.ip_filter.deny[0]: "10.0.0" is no address or range, such as 10.0.0.5, 10.0.0.0/8 or fd00::/8`},
		{map[string]any{"allow": []any{"10.0.0.1/8"}}, `plugins.ip_filter.allow[0]: "10.0.0.1/8" has address bits after its mask; write 10.0.0.0/8`},
		{map[string]any{"allow": "10.0.0.0/8"}, "plugins.ip_filter.allow: must be a list"},
		{map[string]any{"allw": []any{"10.0.0.0/8"}}, "plugins.ip_filter.allw: unknown field; accepted: allow, deny"},
	} {
		if got := plugintest.Faults("ip_filter", c.config); !slices.Equal(got, []string{c.want}) {
			t.Errorf("%v: the faults are %q, want %q", c.config, got, c.want)
		}
	}
}
