package middleware

import (
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// Plugin is something that a route can switch on by configuring it. Make one
// with Define and give it its place in order.
type Plugin struct {
	name string
	// group names what only one plugin of a route does; "" for no such thing.
	group   string
	compile func(at *Place, config map[string]any) (any, routing.Faults)
	handle  func(c *gin.Context, x *routing.Exchange, config any)
}

// PluginConfig is a plugin's configuration: a struct whose exported fields
// carry json tags and are what people write, and whose unexported ones hold
// what Prepare made of them.
type PluginConfig[T any] interface {
	*T
	// Prepare fills in defaults, checks the values and compiles them; what is
	// to outlive this configuration it gets from Keep. It runs once per
	// document; the configuration is immutable afterwards. Faults name fields
	// by at.At.
	Prepare(at *Place) routing.Faults
}

// Define makes a plugin. Configuration is read strictly: an unknown field or
// a value of another type is a fault. handle runs for the routes that
// configure the plugin. To refuse it calls Reject; to answer by itself it
// writes to c.Writer and calls c.Abort; to act around the rest of the walk it
// calls c.Next. It must not keep c or x.
func Define[T any, P PluginConfig[T]](name string, handle func(c *gin.Context, x *routing.Exchange, config P)) *Plugin {
	return &Plugin{
		name: name,
		compile: func(at *Place, config map[string]any) (any, routing.Faults) {
			p := P(new(T))
			faults := decode(config, p, at.Place.Field)
			if len(faults) == 0 {
				faults = p.Prepare(at)
			}
			for i := range faults {
				faults[i].Code = routing.ProblemPlugin
			}
			if len(faults) > 0 {
				return nil, faults
			}
			at.used(p)
			return p, nil
		},
		handle: func(c *gin.Context, x *routing.Exchange, config any) { handle(c, x, config.(P)) },
	}
}

// Reject answers for the named plugin in place of the instance, counts it and
// ends the walk. Nothing must have been written.
func Reject(c *gin.Context, plugin string, ref *routing.Refusal) {
	st := stateOf(c)
	st.engine.metrics.reject(st, plugin, ref)
	st.refuse(c, ref, 0)
}

// Field joins a field's path: Field("plugins.headers", "request") is
// "plugins.headers.request".
func Field(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "." + name
}

func join(names []string) string { return strings.Join(names, ", ") }
