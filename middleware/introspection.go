package middleware

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"golang.org/x/sync/singleflight"

	"github.com/sluice-gateway/sluice/middleware/memo"
	"github.com/sluice-gateway/sluice/middleware/remote"
	"github.com/sluice-gateway/sluice/routing"
)

// IntrospectionConfig is the configuration of the introspection plugin: an
// authorization server is asked whether a token is good (RFC 7662).
type IntrospectionConfig struct {
	TokenRules
	URL              string `json:"url"`
	ClientID         string `json:"client_id"`
	ClientSecretEnv  string `json:"client_secret_env"`
	ClientSecretFile string `json:"client_secret_file"`
	// ClientAuth is how the client authenticates: basic (the default) or post.
	ClientAuth string `json:"client_auth"`
	// CacheTTL bounds how long a good token is not asked about again, and so
	// how long one that was revoked still passes; NegativeTTL does for others.
	CacheTTL    *routing.Duration `json:"cache_ttl"`
	NegativeTTL *routing.Duration `json:"negative_ttl"`
	Timeout     *routing.Duration `json:"timeout"`
	CAFile      string            `json:"ca_file"`

	secret   func() []byte
	scope    memo.Key
	server   *introspector
	good     *memo.Memo[*passport]
	bad      *memo.Memo[struct{}]
	positive time.Duration
	negative time.Duration
}

const (
	defaultCacheTTL    = time.Minute
	defaultNegativeTTL = 5 * time.Second
	maxCacheTTL        = time.Hour
	// refusedBytes bounds what is kept of tokens that are no good. It is apart
	// from the good ones, so that whoever makes up tokens displaces none.
	refusedBytes = 8 << 20
	// maxAsked bounds the questions to one server that are under way.
	maxAsked = 128
)

func introspectionPlugin() *Plugin {
	return authenticates(Define[IntrospectionConfig]("introspection",
		func(c *gin.Context, x *routing.Exchange, config *IntrospectionConfig) { config.handle(c, x) }))
}

// introspector is what outlives a change of configuration: connections, the
// bound on questions, and the questions under way.
type introspector struct {
	client *http.Client
	slots  chan struct{}
	flight singleflight.Group
}

// Run closes the connections at the end.
func (s *introspector) Run(ctx context.Context) {
	<-ctx.Done()
	s.client.CloseIdleConnections()
}

// Prepare implements PluginConfig.
func (c *IntrospectionConfig) Prepare(at *Place) (faults routing.Faults) {
	fault := func(field, format string, args ...any) {
		faults = append(faults, routing.Fault{Field: at.At(field), Message: fmt.Sprintf(format, args...)})
	}
	faults = c.prepare(at)
	if c.URL == "" {
		fault("url", "is missing")
	} else if err := remote.CheckURL(c.URL); err != nil {
		fault("url", "%v", err)
	}
	if c.ClientID == "" {
		fault("client_id", "is missing; RFC 7662 wants the endpoint to know who asks")
	}
	if c.ClientAuth == "" {
		c.ClientAuth = "basic"
	}
	if c.ClientAuth != "basic" && c.ClientAuth != "post" {
		fault("client_auth", `must be "basic" or "post"`)
	}
	timeout := remote.DefaultTimeout
	for _, d := range []struct {
		field      string
		given      *routing.Duration
		out        *time.Duration
		byDefault  time.Duration
		least, max time.Duration
	}{
		{"cache_ttl", c.CacheTTL, &c.positive, defaultCacheTTL, 0, maxCacheTTL},
		{"negative_ttl", c.NegativeTTL, &c.negative, defaultNegativeTTL, 0, maxCacheTTL},
		{"timeout", c.Timeout, &timeout, remote.DefaultTimeout, time.Millisecond, maxRemoteTimeout},
	} {
		if *d.out = d.byDefault; d.given != nil {
			*d.out = time.Duration(*d.given)
		}
		if *d.out < d.least || *d.out > d.max {
			fault(d.field, "must be %s to %s", d.least, d.max)
		}
	}
	secret, fs := KeepSecret(at, "client_secret", c.ClientSecretEnv, c.ClientSecretFile)
	faults = append(faults, fs...)
	client, err := remote.NewClient(timeout, c.CAFile)
	if err != nil {
		fault("ca_file", "%v", err)
	}
	if len(faults) > 0 {
		return faults
	}
	c.secret, c.scope = secret, scopeOf("introspection", c)
	c.server = Keep(at, fmt.Sprintf("introspection/server %q %s %q", c.URL, timeout, c.CAFile), func() *introspector {
		return &introspector{client: client, slots: make(chan struct{}, maxAsked)}
	})
	c.good = Keep(at, "introspection/good", func() *memo.Memo[*passport] { return memo.New[*passport](verifiedBytes) })
	c.bad = Keep(at, "introspection/bad", func() *memo.Memo[struct{}] { return memo.New[struct{}](refusedBytes) })
	return nil
}

// handle lets a request pass or refuses it.
func (c *IntrospectionConfig) handle(g *gin.Context, x *routing.Exchange) {
	token, err := c.find(g.Request.Header)
	if err != nil {
		if c.Optional && errors.Is(err, errNoToken) {
			return
		}
		c.refuse(g, "introspection", err)
		return
	}
	p, err := c.check(g.Request.Context(), token)
	if err != nil {
		c.refuse(g, "introspection", err)
		return
	}
	c.admit(g, x, p)
}

// errInactive says that the server knows no such token, or no longer.
var errInactive = errors.New("the token is not active, or not for here")

// check returns the passport of a token: that of an earlier request, or what
// the server says now. Requests with one token that come at once ask once.
func (c *IntrospectionConfig) check(ctx context.Context, token string) (*passport, error) {
	key := c.scope.Of(token)
	if p, err := c.recall(key); p != nil || err != nil {
		return p, err
	}
	if !wellFormed(token) {
		return nil, errBadToken
	}
	v, err, _ := c.server.flight.Do(string(key[:]), func() (any, error) {
		// An answer may have come since; it is remembered within the flight,
		// so that whoever is too late for the flight finds it here.
		if p, err := c.recall(key); p != nil || err != nil {
			return p, err
		}
		// A client that goes away must not fail those who wait for the same
		// answer; the client's timeout ends the question all the same.
		p, err := c.ask(context.WithoutCancel(ctx), token)
		c.remember(key, token, p, err)
		return p, err
	})
	if err != nil {
		return nil, err
	}
	return v.(*passport), nil
}

// recall returns what is remembered of a token; nothing where nothing is.
func (c *IntrospectionConfig) recall(key memo.Key) (*passport, error) {
	now := time.Now()
	if p, ok := c.good.Get(key, now); ok && !now.Before(p.notBefore) {
		return p, nil
	}
	if _, ok := c.bad.Get(key, now); ok {
		return nil, errInactive
	}
	return nil, nil
}

// remember keeps an answer for as long as it may be used.
func (c *IntrospectionConfig) remember(key memo.Key, token string, p *passport, err error) {
	now := time.Now()
	switch {
	case errors.Is(err, errAway): // that is no answer
	case err != nil:
		c.bad.Put(key, struct{}{}, 128, now.Add(c.negative))
	default:
		until := now.Add(c.positive)
		if !p.expires.IsZero() && p.expires.Before(until) {
			until = p.expires
		}
		c.good.Put(key, p, 512+4*len(token)+p.size, until)
	}
}
