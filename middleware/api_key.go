package middleware

import (
	"crypto/sha256"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// maxAPIKey bounds a key, in bytes: a longer one is nobody's.
const maxAPIKey = 512

// APIKeyConfig is the configuration of the api_key plugin: the caller shows
// the key of a consumer.
type APIKeyConfig struct {
	// Header, Query and Cookie name where a key may stand; X-API-Key if none
	// is given.
	Header string `json:"header"`
	Query  string `json:"query"`
	Cookie string `json:"cookie"`
	// ForwardKey leaves the key in what goes on to the instance.
	ForwardKey bool `json:"forward_key"`
	// ConsumerHeader and GroupsHeader tell the instance who asks.
	ConsumerHeader string `json:"consumer_header"`
	GroupsHeader   string `json:"groups_header"`
}

func apiKeyPlugin() *Plugin {
	return authenticates(Define[APIKeyConfig]("api_key", func(c *gin.Context, x *routing.Exchange, config *APIKeyConfig) {
		config.handle(c, x)
	}))
}

// Prepare implements PluginConfig.
func (c *APIKeyConfig) Prepare(at *Place) routing.Faults {
	if c.Header == "" && c.Query == "" && c.Cookie == "" {
		c.Header = "X-API-Key"
	}
	setDefault(&c.ConsumerHeader, "X-Consumer")
	setDefault(&c.GroupsHeader, "X-Consumer-Groups")
	var faults routing.Faults
	for _, f := range []struct {
		field string
		name  *string
	}{{"header", &c.Header}, {"consumer_header", &c.ConsumerHeader}, {"groups_header", &c.GroupsHeader}} {
		if *f.name != "" {
			faults = append(faults, ownHeaderFault(at, f.field, *f.name)...)
			*f.name = canonical(*f.name)
		}
	}
	switch {
	case c.Header != "" && (c.Header == c.ConsumerHeader || c.Header == c.GroupsHeader):
		faults = append(faults, routing.Fault{Field: at.At("header"),
			Message: "is a header that the gateway sets, and so removes from every request"})
	case c.ConsumerHeader == c.GroupsHeader:
		faults = append(faults, routing.Fault{Field: at.At("groups_header"), Message: "is the consumer_header too"})
	}
	if c.Cookie != "" && !validHeaderName(c.Cookie) {
		faults = append(faults, routing.Fault{Field: at.At("cookie"), Message: "is not a cookie name"})
	}
	return faults
}

// OwnHeaders implements routing.HeaderOwner.
func (c *APIKeyConfig) OwnHeaders() []string { return []string{c.ConsumerHeader, c.GroupsHeader} }

func (c *APIKeyConfig) handle(gc *gin.Context, x *routing.Exchange) {
	const challenge = "ApiKey"
	r := gc.Request
	key, count := c.find(r)
	switch {
	case count == 0:
		rejectUnknown(gc, "api_key", challenge, "an API key is needed here")
		return
	case count > 1: // which of them would the instance believe?
		rejectUnknown(gc, "api_key", challenge, "more than one API key was given")
		return
	}
	var consumer *routing.Consumer
	if key != "" && len(key) <= maxAPIKey {
		consumer = x.Match.Table.Consumers().ByKey(sha256.Sum256([]byte(key)))
	}
	if consumer == nil {
		rejectUnknown(gc, "api_key", challenge, "the API key is not valid")
		return
	}
	if !c.ForwardKey {
		c.remove(r)
	}
	x.Identity = &routing.Identity{Plugin: "api_key", Subject: consumer.Name, Consumer: consumer.Name, Groups: consumer.Groups}
	tell(r.Header, c.ConsumerHeader, consumer.Name)
	tell(r.Header, c.GroupsHeader, strings.Join(consumer.Groups, ","))
}

// find returns a key and how many there are, empty ones included.
func (c *APIKeyConfig) find(r *http.Request) (key string, count int) {
	look := func(values []string) {
		count += len(values)
		if len(values) > 0 {
			key = values[0]
		}
	}
	if c.Header != "" {
		look(r.Header[c.Header])
	}
	if c.Query != "" && r.URL.RawQuery != "" {
		look(queryValues(r.URL.RawQuery, c.Query))
	}
	if c.Cookie != "" {
		look(cookieValues(r.Header, c.Cookie))
	}
	return key, count
}

// remove takes the key out of what goes on to the instance.
func (c *APIKeyConfig) remove(r *http.Request) {
	if c.Header != "" {
		delete(r.Header, c.Header)
	}
	if c.Query != "" && r.URL.RawQuery != "" {
		r.URL.RawQuery = withoutQuery(r.URL.RawQuery, c.Query)
	}
	if c.Cookie != "" && r.Header["Cookie"] != nil {
		removeCookie(r.Header, c.Cookie)
	}
}

func setDefault(s *string, value string) {
	if *s == "" {
		*s = value
	}
}
