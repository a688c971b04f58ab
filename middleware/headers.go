package middleware

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// maxHeaderValue bounds one configured value, well below what servers accept
// for a whole head.
const maxHeaderValue = 4 << 10

// HeadersConfig is the configuration of the headers plugin: what changes in
// the request on its way to the instance, and in the response on its way
// back. Within each, remove comes first, then set, then add. Responses are
// all answers of the route: the instance's, the route's own and the gateway's
// refusals, whose own fields win.
type HeadersConfig struct {
	Request  HeaderRules `json:"request"`
	Response HeaderRules `json:"response"`

	request, response *headerEdits
}

// HeaderRules is what changes in one direction.
type HeaderRules struct {
	Set    map[string]string `json:"set"`
	Add    map[string]string `json:"add"`
	Remove []string          `json:"remove"`
}

func headersPlugin() *Plugin {
	return Define[HeadersConfig]("headers", func(c *gin.Context, _ *routing.Exchange, config *HeadersConfig) {
		if config.request != nil {
			config.request.apply(c.Request.Header)
		}
		stateOf(c).w.edits = config.response
	})
}

// Prepare implements PluginConfig.
func (c *HeadersConfig) Prepare(at *Place) routing.Faults {
	var faults routing.Faults
	c.request = c.Request.compile(at.At("request"), &faults)
	c.response = c.Response.compile(at.At("response"), &faults)
	return faults
}

// headerEdits is the compiled form of HeaderRules. It is immutable.
type headerEdits struct {
	remove   []string
	set, add []headerEdit
}

type headerEdit struct {
	name string
	// values holds the one value; its capacity is one, so that appending to
	// the header it was put into copies it.
	values []string
}

// compile returns nil where there is nothing to do.
func (r *HeaderRules) compile(field string, faults *routing.Faults) *headerEdits {
	if len(r.Set)+len(r.Add)+len(r.Remove) == 0 {
		return nil
	}
	e := &headerEdits{
		set: compileValues(r.Set, Field(field, "set"), faults),
		add: compileValues(r.Add, Field(field, "add"), faults),
	}
	for i, name := range r.Remove {
		if message := headerNameFault(name); message != "" {
			*faults = append(*faults, routing.Fault{
				Field: fmt.Sprintf("%s[%d]", Field(field, "remove"), i), Message: message})
		}
		e.remove = append(e.remove, canonical(name))
	}
	return e
}

func compileValues(values map[string]string, field string, faults *routing.Faults) []headerEdit {
	var out []headerEdit
	seen := map[string]bool{}
	for _, name := range sortedKeys(values) {
		at := Field(field, name)
		message := headerNameFault(name)
		switch {
		case message != "":
		case seen[canonical(name)]:
			message = "names the same header as another entry, in another case"
		default:
			message = headerValueFault(values[name])
		}
		if message != "" {
			*faults = append(*faults, routing.Fault{Field: at, Message: message})
		}
		seen[canonical(name)] = true
		out = append(out, headerEdit{canonical(name), []string{values[name]}})
	}
	return out
}

// headerNameFault says why a route may not touch the header, or "".
func headerNameFault(name string) string {
	if !validHeaderName(name) {
		return "is not a header name"
	}
	switch k := canonical(name); k {
	case "Host":
		return "is set by the route's host field"
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Expect", "Http2-Settings":
		return "belongs to the connection or to the framing of the message and cannot be edited"
	case "X-Request-Id", "X-Trace-Id", "Traceparent", "Tracestate":
		return "is the gateway's own and cannot be edited"
	default:
		if strings.HasPrefix(k, "X-Forwarded-") {
			return "is the gateway's own and cannot be edited"
		}
	}
	return ""
}

func headerValueFault(v string) string {
	if len(v) > maxHeaderValue {
		return fmt.Sprintf("is longer than %d bytes", maxHeaderValue)
	}
	for i := range len(v) {
		if c := v[i]; c < ' ' && c != '\t' || c == 0x7f {
			return "holds a control character"
		}
	}
	return ""
}

func (e *headerEdits) apply(h http.Header) {
	for _, name := range e.remove {
		delete(h, name)
	}
	for _, s := range e.set {
		h[s.name] = s.values
	}
	for _, a := range e.add {
		h[a.name] = append(h[a.name], a.values...)
	}
}
