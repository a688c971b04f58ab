package routing

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
	// Compile reads one configuration. field is the path at which it stands
	// ("plugins.headers", or "" in a document of its own); each fault names a
	// field below it. The value is immutable.
	Compile(name string, config map[string]any, field string) (any, Faults)
}
