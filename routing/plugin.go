package routing

import "iter"

// Place is where one plugin configuration stands.
type Place struct {
	// Key is the document's key: what the plugin keeps for this configuration
	// is found again by it after the document changed.
	Key string
	// Field is the path within the document ("plugins.headers", or "" in a
	// document of its own); each fault names a field below it.
	Field string
}

// Plugins compiles plugin configuration. The table stores what Compile
// returns by slot and never looks inside; the request path reads
// Route.Plugins[slot].
type Plugins interface {
	// Slot returns the plugin's place in the fixed order, and false for a
	// name that is no plugin.
	Slot(name string) (int, bool)
	// Slots is the number of slots.
	Slots() int
	// Names lists every plugin, in order.
	Names() []string
	// Group says which plugins exclude each other: a route uses at most one
	// of a group, and one of its own takes the place of any that it would
	// inherit. "" is no group.
	Group(slot int) string
	// Compile reads one configuration. The value is immutable.
	Compile(at Place, name string, config map[string]any) (any, Faults)
}

// HeaderOwner is a compiled plugin configuration that sets headers towards
// instances which nobody else may set: they are removed from what every
// client sends, whatever the route. Names are in canonical form.
type HeaderOwner interface{ OwnHeaders() []string }

// PluginConfigs yields every compiled plugin configuration that this table or
// a table built from it may use without compiling it again.
func (t *Table) PluginConfigs() iter.Seq[any] {
	return func(yield func(any) bool) {
		each := func(configs []any) bool {
			for _, c := range configs {
				if c != nil && !yield(c) {
					return false
				}
			}
			return true
		}
		for _, d := range t.memory.defaults {
			if d.compiled != nil && !yield(d.compiled) {
				return
			}
		}
		for _, r := range t.routes {
			if !each(r.Plugins) {
				return
			}
		}
		for _, r := range t.memory.candidates { // a loser of a conflict may win later
			if !each(r.Plugins) {
				return
			}
		}
	}
}

// SamePlugins says that t and old use the same compiled configurations.
func (t *Table) SamePlugins(old *Table) bool {
	return old != nil && sameSlice(t.routes, old.routes) && sameSlice(t.memory.defaults, old.memory.defaults)
}

// OwnHeaders lists the headers that only the gateway may set, by the plugins
// of all routes. The slice must not be changed.
func (t *Table) OwnHeaders() []string { return t.memory.ownHeaders }
