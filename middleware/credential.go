package middleware

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// authenticates marks p as one of the plugins of which a route uses one: two
// could disagree about who asks.
func authenticates(p *Plugin) *Plugin {
	p.group = "authentication"
	return p
}

// rejectUnknown answers a request that did not show who it comes from.
// challenge says how to (RFC 9110 section 11.6.1); detail is a fixed string.
func rejectUnknown(c *gin.Context, plugin, challenge, detail string) {
	c.Writer.Header()["Www-Authenticate"] = []string{challenge}
	Reject(c, plugin, &routing.Refusal{Code: routing.CodeUnauthenticated, Detail: detail})
}

// tell sets a header towards the instance, or removes it where there is
// nothing to say. name is in canonical form.
func tell(h http.Header, name, value string) {
	if value == "" {
		delete(h, name)
		return
	}
	h[name] = []string{value}
}

// ownHeaderFault checks the name of a header that a plugin sets towards
// instances.
func ownHeaderFault(at *Place, field, name string) routing.Faults {
	if message := headerNameFault(name); message != "" {
		return routing.Faults{{Field: at.At(field), Message: message}}
	}
	return nil
}

// queryValues returns the values of a query parameter. Pairs are split at "&"
// alone: what an instance might see in a pair that holds ";" or a broken
// escape is left to it, and is no value here.
func queryValues(rawQuery, name string) (values []string) {
	for pair := range strings.SplitSeq(rawQuery, "&") {
		if value, ok := queryPair(pair, name); ok {
			values = append(values, value)
		}
	}
	return values
}

// withoutQuery returns the query without the named parameter, the rest as it
// was sent.
func withoutQuery(rawQuery, name string) string {
	var rest []string
	for pair := range strings.SplitSeq(rawQuery, "&") {
		if _, ok := queryPair(pair, name); !ok {
			rest = append(rest, pair)
		}
	}
	return strings.Join(rest, "&")
}

func queryPair(pair, name string) (value string, ok bool) {
	key, raw, _ := strings.Cut(pair, "=")
	if key, err := url.QueryUnescape(key); err != nil || key != name {
		return "", false
	}
	value, err := url.QueryUnescape(raw)
	if err != nil {
		return raw, true // no credential holds a broken escape
	}
	return value, true
}

// cookieValues returns the values of a cookie. Like browsers, and unlike
// net/http, it reads every pair between semicolons.
func cookieValues(h http.Header, name string) (values []string) {
	for _, line := range h["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			if value, ok := cookiePair(pair, name); ok {
				values = append(values, value)
			}
		}
	}
	return values
}

// removeCookie takes the named cookie out of the request.
func removeCookie(h http.Header, name string) {
	var rest []string
	for _, line := range h["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			if _, ok := cookiePair(pair, name); !ok && strings.TrimSpace(pair) != "" {
				rest = append(rest, strings.TrimSpace(pair))
			}
		}
	}
	tell(h, "Cookie", strings.Join(rest, "; "))
}

func cookiePair(pair, name string) (value string, ok bool) {
	key, value, ok := strings.Cut(pair, "=")
	if !ok || textproto.TrimString(key) != name {
		return "", false
	}
	value = textproto.TrimString(value)
	if n := len(value); n > 1 && value[0] == '"' && value[n-1] == '"' {
		value = value[1 : n-1]
	}
	return value, true
}
