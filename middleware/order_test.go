package middleware

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sluice-gateway/sluice/routing"
)

func TestTheOrderIsPinned(t *testing.T) {
	want := []string{"recover", "request_id", "access_log", "edge", "match", "ip_filter",
		"ip_rate_limit", "bot_guard", "body_limit", "mtls",
		"jwt", "api_key", "basic_auth", "introspection", "session", "forward_auth", "acl",
		"rate_limit", "max_in_flight", "headers", "forward"}
	if got := Order(); !slices.Equal(got, want) {
		t.Errorf("the order is %v, want %v: whoever changes it changes what every route means", got, want)
	}
}

func TestPluginsAreInTheirOrder(t *testing.T) {
	p := NewPlugins(quiet())
	var _ routing.Plugins = p
	if p.Slots() != len(p.Names()) {
		t.Errorf("%d slots for %v", p.Slots(), p.Names())
	}
	at := -1
	for i, name := range p.Names() {
		slot, ok := p.Slot(name)
		if !ok || slot != i {
			t.Errorf("%s has slot %d, want %d", name, slot, i)
		}
		next := slices.Index(Order(), name)
		if next <= at {
			t.Errorf("%s stands out of order", name)
		}
		at = next
	}
	if _, ok := p.Slot("recover"); ok {
		t.Error("a step that is no plugin has a slot")
	}
}

func TestPluginConfigurationIsReadStrictly(t *testing.T) {
	p := newPlugins(quiet(), withPlugins(Define[testConfig]("test", nil)))
	for _, c := range []struct {
		name   string
		config map[string]any
		want   []string
	}{
		{"good", map[string]any{"why": "x", "count": 3.0, "limit": 7, "ratio": 1, "on": true, "list": []any{"a"},
			"inner": []any{map[string]any{"wait": "1s"}}, "free": map[string]any{"x": 1}}, nil},
		{"its own check", map[string]any{}, []string{"plugins.test.why: must be given"}},
		{"an unknown field", map[string]any{"why": "x", "wy": 1},
			[]string{"plugins.test.wy: unknown field; accepted: count, free, inner, limit, list, on, ratio, why"}},
		{"an unknown field further in", map[string]any{"why": "x", "inner": []any{map[string]any{"weit": "1s"}}},
			[]string{"plugins.test.inner[0].weit: unknown field; accepted: wait"}},
		{"every fault at once", map[string]any{"why": 1, "count": 1.5, "on": "yes", "ratio": "x", "limit": "7"}, []string{
			"plugins.test.count: must be a whole number", "plugins.test.limit: must be a whole number",
			"plugins.test.on: must be true or false", "plugins.test.ratio: must be a number",
			"plugins.test.why: must be a string; put it in quotes"}},
		{"lists and mappings", map[string]any{"why": "x", "list": "a", "free": 1, "inner": []any{1}}, []string{
			"plugins.test.free: must be a mapping", "plugins.test.inner[0]: must be a mapping", "plugins.test.list: must be a list"}},
		{"no value", map[string]any{"why": nil}, []string{"plugins.test.why: has no value; leave the field out instead"}},
		{"a bad duration", map[string]any{"why": "x", "inner": []any{map[string]any{"wait": "1 day"}}},
			[]string{`plugins.test.inner[0].wait: "1 day" is not a duration such as 250ms, 30s or 5m`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, faults := p.Compile(routing.Place{Field: "plugins.test"}, "test", c.config)
			var texts []string
			for _, f := range faults {
				texts = append(texts, f.Error())
				if f.Code != routing.ProblemPlugin {
					t.Errorf("the code of %v is %s", f, f.Code)
				}
			}
			if !slices.Equal(texts, c.want) || (got == nil) != (c.want != nil) {
				t.Errorf("got %v with %q, want %q", got, texts, c.want)
			}
		})
	}
	if _, faults := p.Compile(routing.Place{Field: "plugins.nope"}, "nope", nil); fmt.Sprint(faults) == "" {
		t.Error("an unknown plugin has no fault")
	}
	if _, faults := p.Compile(routing.Place{}, "test", map[string]any{"x": 1}); len(faults) != 1 || faults[0].Field != "x" {
		t.Errorf("in a document of its own the faults are %v", faults)
	}
}
