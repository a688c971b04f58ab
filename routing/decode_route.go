package routing

import (
	"net/http"
	"slices"
	"strings"
)

// Bounds of a route's lists.
const (
	maxHosts      = 1000
	maxMethods    = 50
	maxPredicates = 64
	maxLabels     = 64
	maxPlugins    = 64
	maxPriority   = 1_000_000
	maxRetries    = 10
)

func decodeRoute(o *object) *RouteSpec {
	r := &RouteSpec{
		Hosts:    routeHosts(o),
		Path:     o.text("path", acceptPath),
		Methods:  o.texts("methods", maxMethods, "[GET, POST]", acceptMethod),
		Headers:  o.textMap("headers", maxPredicates, "{X-Version: \"2\"}", acceptMatchHeader, acceptHeaderPredicate),
		Query:    o.textMap("query", maxPredicates, "{version: \"2\"}", acceptQueryName, acceptPredicate),
		Priority: o.integer("priority", -maxPriority, maxPriority),

		Service:  o.text("service", acceptName),
		Subset:   o.text("subset", acceptName),
		Redirect: child(o, "redirect", "{to: /new, code: 301}", decodeRedirect),
		Respond:  child(o, "respond", "{status: 200, body: ok}", decodeRespond),

		StripPrefix: o.text("strip_prefix", acceptPrefix),
		Rewrite:     o.text("rewrite", acceptPathText),
		Host:        o.text("host", acceptForwardedHost),
		Timeout:     o.optionalDuration("timeout", 0),
		Retries:     o.optionalInteger("retries", 0, maxRetries),
		Plugins:     routePlugins(o),
		Labels:      o.textMap("labels", maxLabels, "{team: payments}", acceptLabel, acceptText),
	}
	if !o.has("path") {
		o.fault("path", "is missing; a route has a path such as /orders/*")
	}
	if len(*o.faults) == 0 {
		routeRules(o, r)
	} else {
		oneAnswer(o)
	}
	return r
}

// oneAnswer checks that a route says exactly once where a request goes.
func oneAnswer(o *object) {
	var given []string
	for _, name := range []string{"service", "redirect", "respond"} {
		if o.has(name) {
			given = append(given, name)
		}
	}
	switch len(given) {
	case 0:
		o.fault("service", "is missing; a route has one of service, redirect and respond")
	case 1:
	default:
		o.fault(given[1], "stands beside %s; a route has one of service, redirect and respond", given[0])
	}
}

// routeRules checks what fields say about each other. It runs where each by
// itself is right, so that one mistake is not reported twice.
func routeRules(o *object, r *RouteSpec) {
	oneAnswer(o)
	if !o.has("service") {
		for _, name := range []string{"subset", "strip_prefix", "rewrite", "host", "retries"} {
			if o.has(name) {
				o.fault(name, "is only for a route with a service")
			}
		}
	}
	twiceInAnotherCase(o, "headers", r.Headers)
	if r.StripPrefix == "" && r.Rewrite == "" && r.Redirect == nil {
		return // nothing that depends on the path's parameters
	}
	_, faults := compileMatcher(r)
	*o.faults = append(*o.faults, faults...)
	if r.StripPrefix != "" && len(faults) == 0 && !prefixOf(r.StripPrefix, r.Path) {
		o.fault("strip_prefix", "%s begins no request that matches the path %s", quoted(r.StripPrefix), quoted(r.Path))
	}
}

func routeHosts(o *object) []string {
	before := len(*o.faults)
	hosts := o.texts("hosts", maxHosts, "[api.example.com]", acceptHost)
	for i, h := range hosts {
		if canonical, err := parseHost(h); err == nil {
			hosts[i] = canonical
		}
	}
	if i := firstDuplicate(hosts); i >= 0 && len(*o.faults) == before {
		o.fault("hosts", "%s is listed twice", quoted(hosts[i]))
	}
	return hosts
}

func routePlugins(o *object) map[string]map[string]any {
	m := o.mapping("plugins", maxPlugins, "{cors: {origins: [\"https://app.example.com\"]}}")
	if len(m) == 0 {
		return nil
	}
	plugins := make(map[string]map[string]any, len(m))
	for _, name := range sortedKeys(m) {
		field := joinField(joinField(o.path, "plugins"), name)
		if wrong := acceptName(name); wrong != "" {
			faultAt(o.faults, field, "%s", wrong)
		}
		config, ok := m[name].(map[string]any)
		if !ok {
			faultAt(o.faults, field, "is %s; want a mapping with the plugin's configuration, {} for its defaults", kindOf(m[name]))
			continue
		}
		plugins[name] = config
	}
	return plugins
}

func decodeRedirect(o *object) *RedirectSpec {
	r := &RedirectSpec{To: o.text("to", acceptText), Code: o.integer("code", 0, 999)}
	if !o.has("to") {
		o.fault("to", "is missing; a redirect leads to a path or an http(s) URL")
	}
	codes := []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect}
	if _, isNumber := o.fields["code"].(int64); isNumber && !slices.Contains(codes, r.Code) {
		o.fault("code", "is not one of 301, 302, 303, 307, 308")
	}
	return r
}

func decodeRespond(o *object) *RespondSpec {
	r := &RespondSpec{
		Status:  o.integer("status", 200, 599),
		Body:    o.anyText("body"),
		Headers: o.textMap("headers", maxPredicates, "{Content-Type: text/plain}", acceptResponseHeader, acceptText),
	}
	if r.Body != "" && (r.Status == http.StatusNoContent || r.Status == http.StatusNotModified || r.Status == http.StatusResetContent) {
		o.fault("body", "stands beside status %d, which has none", r.Status)
	}
	twiceInAnotherCase(o, "headers", r.Headers)
	return r
}

// acceptResponseHeader refuses what the server itself decides.
func acceptResponseHeader(s string) string {
	switch http.CanonicalHeaderKey(s) {
	case "Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "Trailer", "Te", "Keep-Alive", "Proxy-Connection":
		return "is set by the gateway itself"
	}
	return acceptToken(s)
}

func acceptMatchHeader(s string) string {
	if strings.EqualFold(s, "Host") {
		return "is matched by the field hosts"
	}
	return acceptToken(s)
}

func acceptHeaderPredicate(s string) string {
	if s == "" {
		return "is empty; give a value to equal, or ~regexp (~ alone matches any value)"
	}
	return acceptPredicate(s)
}

func acceptQueryName(s string) string {
	if s == "" || len(s) > 256 || hasControl(s) {
		return "is not a query parameter's name of 1 to 256 bytes"
	}
	return ""
}

func acceptLabel(s string) string {
	if s == "" || len(s) > 128 || hasControl(s) {
		return "is not a label's name of 1 to 128 bytes"
	}
	return ""
}

// twiceInAnotherCase finds header names that are one header.
func twiceInAnotherCase(o *object, field string, headers map[string]string) {
	if len(headers) < 2 {
		return
	}
	seen := make(map[string]string, len(headers))
	for _, name := range sortedKeys(headers) {
		lower := strings.ToLower(name)
		if other, twice := seen[lower]; twice {
			faultAt(o.faults, joinField(joinField(o.path, field), name), "is the same header as %s", other)
		}
		seen[lower] = name
	}
}
