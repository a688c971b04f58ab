package middleware

import (
	"slices"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// step is one place in a request's walk: either run, which every request
// takes, or a plugin, which routes configure.
type step struct {
	name string
	// always marks the steps ahead of everything that may refuse.
	always bool
	run    func(*Engine, *gin.Context, *state)
	plugin *Plugin
}

// order is THE order: one for every route, so that no route can be put
// together wrongly. Each line says why it stands where it does. The order is
// pinned by a test.
func order() []step {
	return []step{
		// First, so that a panic anywhere below becomes an answer.
		{name: "recover", always: true, run: (*Engine).recover},
		// Before the log, which needs the name of the request and of the client.
		{name: "request_id", always: true, run: (*Engine).identify},
		// Around everything that can answer, so that refusals are seen too.
		{name: "access_log", always: true, run: (*Engine).observe},
		// Before matching: what is matched has to be what is forwarded.
		{name: "edge", run: (*Engine).edge},
		// Before plugins: each reads its configuration from the route.
		{name: "match", run: (*Engine).match},
		// First of all plugins: it costs least and needs nothing but the address.
		{name: "ip_filter", plugin: ipFilterPlugin()},
		// Before authentication: what an address may cost, whoever it claims to be.
		{name: "ip_rate_limit", plugin: ipRateLimitPlugin()},
		// Before authentication, around which it sees who fails at it.
		{name: "bot_guard", plugin: botGuardPlugin()},
		// Before authentication, which may be dear: a length costs nothing.
		{name: "body_limit", plugin: bodyLimitPlugin()},
		// Before the other ways to authenticate, whose word about who asks is
		// the more exact: it may stand beside one of them.
		{name: "mtls", plugin: mtlsPlugin()},
		// Who asks: of these a route uses one.
		{name: "jwt", plugin: jwtPlugin()},
		{name: "api_key", plugin: apiKeyPlugin()},
		{name: "basic_auth", plugin: basicAuthPlugin()},
		{name: "introspection", plugin: introspectionPlugin()},
		{name: "session", plugin: sessionPlugin()},
		{name: "forward_auth", plugin: forwardAuthPlugin()},
		// After authentication, whose findings it judges.
		{name: "acl", plugin: aclPlugin()},
		// After whatever finds out who asks, and whether they may: a request that
		// is refused there takes nothing from anybody's limit.
		{name: "rate_limit", plugin: rateLimitPlugin()},
		// After the limits, where a request may wait: who waits is not in flight.
		{name: "max_in_flight", plugin: maxInFlightPlugin()},
		// After whatever may refuse or answer by itself, so that it edits only
		// what goes on; before the forwarder, whose own headers win.
		{name: "headers", plugin: headersPlugin()},
		{name: "forward", run: (*Engine).forward},
	}
}

// Plugins is every plugin there is, in the fixed order, and what they keep.
// It implements routing.Plugins. It is immutable.
type Plugins struct {
	steps    []step
	list     []*Plugin
	slots    map[string]int
	registry *Registry
}

// NewPlugins returns the plugins of this build; what they keep between
// requests is in registry.
func NewPlugins(registry *Registry) *Plugins { return newPlugins(registry, order()) }

func newPlugins(registry *Registry, steps []step) *Plugins {
	p := &Plugins{steps: steps, slots: map[string]int{}, registry: registry}
	for _, s := range steps {
		if s.plugin != nil {
			p.slots[s.plugin.name] = len(p.list)
			p.list = append(p.list, s.plugin)
		}
	}
	return p
}

// Slot returns the plugin's place in the order, and false where there is no
// plugin of that name.
func (p *Plugins) Slot(name string) (int, bool) {
	i, ok := p.slots[name]
	return i, ok
}

// Slots is the number of plugins.
func (p *Plugins) Slots() int { return len(p.list) }

// Group says what the plugin does that a route has only one for; see
// routing.Plugins.
func (p *Plugins) Group(slot int) string { return p.list[slot].group }

// Names lists the plugins in order.
func (p *Plugins) Names() []string {
	names := make([]string, len(p.list))
	for i, pl := range p.list {
		names[i] = pl.name
	}
	return names
}

// Compile reads the configuration of one plugin; see routing.Plugins.
func (p *Plugins) Compile(at routing.Place, name string, config map[string]any) (any, routing.Faults) {
	i, ok := p.slots[name]
	if !ok {
		return nil, routing.Faults{{Field: at.Field, Code: routing.ProblemPlugin,
			Message: "unknown plugin; accepted: " + join(p.Names())}}
	}
	return p.list[i].compile(&Place{Place: at, registry: p.registry}, config)
}

// Swapped lets go of what only old used. Hang it on every swap.
func (p *Plugins) Swapped(old, t *routing.Table) {
	if !t.SamePlugins(old) {
		p.registry.Retain(t.PluginConfigs())
	}
}

// Order lists every step of a request's walk by name, plugins or not.
func Order() []string {
	var names []string
	for s := range slices.Values(order()) {
		names = append(names, s.name)
	}
	return names
}
