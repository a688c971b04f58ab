package middleware

import (
	"net/http"

	"github.com/sluice-gateway/sluice/routing"
)

// SetIntrospectionTransport has every introspection of the table's routes go
// through rt.
func SetIntrospectionTransport(t *routing.Table, rt http.RoundTripper) {
	for config := range t.PluginConfigs() {
		if c, ok := config.(*IntrospectionConfig); ok {
			c.server.client.Transport = rt
		}
	}
}
