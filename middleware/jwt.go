package middleware

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-gateway/sluice/middleware/keys"
	"github.com/sluice-gateway/sluice/middleware/memo"
	"github.com/sluice-gateway/sluice/routing"
)

// JWTConfig is the configuration of the jwt plugin: which signed tokens let a
// request pass. Exactly one of SecretEnv, SecretFile, PublicKeyFile, JWKSURL
// and Discovery says where the keys come from.
type JWTConfig struct {
	TokenRules
	// Algorithms are those that tokens may be signed with.
	Algorithms    []string `json:"algorithms"`
	SecretEnv     string   `json:"secret_env"`
	SecretFile    string   `json:"secret_file"`
	PublicKeyFile string   `json:"public_key_file"`
	JWKSURL       string   `json:"jwks_url"`
	// Discovery is the address of an OpenID provider.
	Discovery string `json:"discovery"`
	// RefreshInterval, Timeout and CAFile are for JWKSURL and Discovery.
	RefreshInterval *routing.Duration `json:"refresh_interval"`
	Timeout         *routing.Duration `json:"timeout"`
	CAFile          string            `json:"ca_file"`

	keys     keySource
	scope    memo.Key // of this configuration within verified
	verified *memo.Memo[*passport]
}

// keySource gives the keys that tokens are checked with.
type keySource interface {
	// Get returns the newest keys. An error says that there never were any.
	Get(ctx context.Context) (*keys.Set, error)
	// Seek is Get for a token that names a key which the set does not hold.
	Seek(ctx context.Context, kid string) (*keys.Set, error)
}

// verifiedBytes bounds what all routes together keep of verified tokens.
const verifiedBytes = 64 << 20

func jwtPlugin() *Plugin {
	return authenticates(Define[JWTConfig]("jwt",
		func(c *gin.Context, x *routing.Exchange, config *JWTConfig) { config.handle(c, x) }))
}

// Prepare implements PluginConfig.
func (c *JWTConfig) Prepare(at *Place) routing.Faults {
	faults := c.checkAlgorithms(at)
	if c.Discovery != "" && c.Issuer == "" {
		c.Issuer = c.Discovery
	}
	faults = append(faults, c.prepare(at, jwt.WithExpirationRequired())...)
	if len(faults) > 0 {
		return faults // the keys are looked for by what is known to be good
	}
	if c.keys, faults = c.findKeys(at); len(faults) > 0 {
		return faults
	}
	c.scope = scopeOf("jwt", c)
	c.verified = Keep(at, "jwt/verified", func() *memo.Memo[*passport] { return memo.New[*passport](verifiedBytes) })
	return nil
}

// scopeOf names what a configuration says, so that one which comes back, or
// stands on two routes, finds what was found out for it.
func scopeOf(plugin string, config any) memo.Key {
	text, err := json.Marshal(config)
	if err != nil {
		panic(fmt.Sprintf("a configuration of %s cannot be written as JSON: %v", plugin, err))
	}
	return sha256.Sum256([]byte(plugin + " " + string(text)))
}

func (c *JWTConfig) checkAlgorithms(at *Place) (faults routing.Faults) {
	if len(c.Algorithms) == 0 {
		return routing.Faults{{Field: at.At("algorithms"), Message: "is missing; accepted: " + join(keys.Algorithms())}}
	}
	for i, a := range c.Algorithms {
		message := ""
		switch {
		case !slices.Contains(keys.Algorithms(), a):
			message = fmt.Sprintf("%q is not accepted; accepted: %s", a, join(keys.Algorithms()))
		case keys.Symmetric(a) && c.SecretEnv == "" && c.SecretFile == "":
			message = a + " needs a secret; with public keys anyone could sign"
		case !keys.Symmetric(a) && (c.SecretEnv != "" || c.SecretFile != ""):
			message = a + " needs a public key, not a secret"
		}
		if message != "" {
			faults = append(faults, routing.Fault{Field: fmt.Sprintf("%s[%d]", at.At("algorithms"), i), Message: message})
		}
	}
	return faults
}

// handle lets a request pass or refuses it.
func (c *JWTConfig) handle(g *gin.Context, x *routing.Exchange) {
	token, err := c.find(g.Request.Header)
	if err != nil {
		if c.Optional && errors.Is(err, errNoToken) {
			return
		}
		c.refuse(g, "jwt", err)
		return
	}
	p, err := c.check(g.Request.Context(), token)
	if err != nil {
		c.refuse(g, "jwt", err)
		return
	}
	c.admit(g, x, p)
}

// check returns the passport of a token: that of an earlier request, if it
// was checked with the same keys, or a new one.
func (c *JWTConfig) check(ctx context.Context, token string) (*passport, error) {
	set, err := c.keys.Get(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAway, err)
	}
	now, key := time.Now(), c.scope.Of(token)
	if p, ok := c.verified.Get(key, now); ok && p.source == set.ID() && !now.Before(p.notBefore) {
		return p, nil
	}
	if !wellFormed(token) {
		return nil, errBadToken
	}
	p, err := c.verify(ctx, set, token)
	if err != nil {
		return nil, err
	}
	// What JSON decodes to takes a few times its text.
	c.verified.Put(key, p, 512+4*len(token), p.expires)
	return p, nil
}
