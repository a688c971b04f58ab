package middleware

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/middleware/remote"
	"github.com/sluice-gateway/sluice/middleware/session"
	"github.com/sluice-gateway/sluice/routing"
)

// SessionConfig is the configuration of the session plugin: users log in at
// an OpenID Connect issuer, and the gateway remembers them.
type SessionConfig struct {
	// Issuer is the issuer's address, where it is discovered.
	Issuer   string `json:"issuer"`
	ClientID string `json:"client_id"`
	// ClientSecretEnv or ClientSecretFile hold the client's secret; neither is
	// a public client, which PKCE alone protects.
	ClientSecretEnv  string `json:"client_secret_env"`
	ClientSecretFile string `json:"client_secret_file"`
	// CAFile replaces the system's roots for the issuer's certificate.
	CAFile string `json:"ca_file"`
	// Timeout bounds each call to the issuer.
	Timeout routing.Duration `json:"timeout"`
	Scopes  []string         `json:"scopes"`
	// SecretEnv or SecretFile hold what cookies are signed with.
	SecretEnv  string `json:"secret_env"`
	SecretFile string `json:"secret_file"`
	// The paths that the plugin answers itself; the route has to cover them.
	RedirectPath          string `json:"redirect_path"`
	LogoutPath            string `json:"logout_path"`
	BackChannelLogoutPath string `json:"backchannel_logout_path"`
	// AfterLogout is the local path that a browser goes to after a logout,
	// by way of the issuer's own where IssuerLogout is set.
	AfterLogout  string `json:"after_logout"`
	IssuerLogout bool   `json:"issuer_logout"`
	// Origin is what browsers see; by default https:// and the request's host.
	Origin string `json:"origin"`
	// TrustedOrigins are other sites that may send unsafe requests.
	TrustedOrigins []string `json:"trusted_origins"`
	// Cookie is the cookie's name without the prefix __Host-.
	Cookie string `json:"cookie"`
	// InsecureCookie is for development over plain http.
	InsecureCookie bool `json:"insecure_cookie"`
	// IdleTimeout ends a session that is not used, Lifetime each one.
	IdleTimeout     routing.Duration  `json:"idle_timeout"`
	Lifetime        routing.Duration  `json:"lifetime"`
	ClaimsToHeaders map[string]string `json:"claims_to_headers"`

	keeper  *session.Keeper
	signer  *session.Signer
	secret  func() []byte // of the client
	headers []claimHeader
	foreign *http.CrossOriginProtection
}

const (
	defaultSessionIdle     = 30 * time.Minute
	defaultSessionLifetime = 12 * time.Hour
	maxSessionLifetime     = 400 * 24 * time.Hour // no browser keeps a cookie longer
	maxIssuerTimeout       = 30 * time.Second
)

func sessionPlugin() *Plugin {
	return authenticates(Define[SessionConfig]("session", func(c *gin.Context, x *routing.Exchange, config *SessionConfig) {
		switch x.Match.Path.Match {
		case config.RedirectPath:
			config.callback(c)
		case config.LogoutPath:
			config.logout(c)
		case config.BackChannelLogoutPath:
			config.backChannelLogout(c)
		default:
			config.pass(c, x)
		}
	}))
}

// Prepare implements PluginConfig.
func (c *SessionConfig) Prepare(at *Place) (faults routing.Faults) {
	fault := func(field, format string, args ...any) {
		faults = append(faults, routing.Fault{Field: at.At(field), Message: fmt.Sprintf(format, args...)})
	}
	c.defaults()
	if err := remote.CheckURL(c.Issuer); c.Issuer == "" {
		fault("issuer", "is missing")
	} else if err != nil {
		fault("issuer", "%v", err)
	}
	if c.ClientID == "" {
		fault("client_id", "is missing")
	}
	if t := time.Duration(c.Timeout); t < time.Millisecond || t > maxIssuerTimeout {
		fault("timeout", "must be 1ms to %s", maxIssuerTimeout)
	}
	if !slices.Contains(c.Scopes, "openid") {
		fault("scopes", "lacks openid")
	}
	for i, s := range c.Scopes {
		if s == "" || strings.ContainsAny(s, " \"\\") {
			fault(fmt.Sprintf("scopes[%d]", i), "is not a single scope")
		}
	}
	if life := time.Duration(c.Lifetime); life < time.Second || life > maxSessionLifetime {
		fault("lifetime", "must be 1s to %s", maxSessionLifetime)
	}
	if c.IdleTimeout < routing.Duration(time.Second) || c.IdleTimeout > c.Lifetime {
		fault("idle_timeout", "must be 1s to lifetime")
	}
	c.checkPaths(fault)
	c.checkOrigins(fault)
	if !validHeaderName(c.Cookie) || strings.HasPrefix(c.Cookie, "__") {
		fault("cookie", `is not a cookie name without a prefix such as "__Host-"`)
	}
	c.headers = compileClaimHeaders(c.ClaimsToHeaders, "", at.At("claims_to_headers"), &faults)
	return append(faults, c.keep(at, len(faults) == 0)...)
}

func (c *SessionConfig) defaults() {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&c.RedirectPath, "/_sluice/callback")
	set(&c.LogoutPath, "/_sluice/logout")
	set(&c.BackChannelLogoutPath, "/_sluice/backchannel-logout")
	set(&c.AfterLogout, "/")
	set(&c.Cookie, "sluice_session")
	if c.Timeout == 0 {
		c.Timeout = routing.Duration(remote.DefaultTimeout)
	}
	if c.Scopes == nil {
		c.Scopes = []string{"openid", "profile", "email"}
	}
	if c.Lifetime == 0 {
		c.Lifetime = routing.Duration(defaultSessionLifetime)
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = min(routing.Duration(defaultSessionIdle), c.Lifetime)
	}
}

func (c *SessionConfig) checkPaths(fault func(field, format string, args ...any)) {
	seen := map[string]bool{}
	for _, p := range []struct{ field, path string }{
		{"redirect_path", c.RedirectPath}, {"logout_path", c.LogoutPath}, {"backchannel_logout_path", c.BackChannelLogoutPath},
	} {
		if path, err := routing.Normalize(p.path); err != nil || path.Match != p.path || strings.ContainsAny(p.path, "?*:") {
			fault(p.field, "is not a plain path such as /_sluice/callback")
		}
		if seen[p.path] {
			fault(p.field, "is another path's value too")
		}
		seen[p.path] = true
	}
	if localPath(c.AfterLogout) != c.AfterLogout {
		fault("after_logout", "is not a local path such as /goodbye")
	}
}

func (c *SessionConfig) checkOrigins(fault func(field, format string, args ...any)) {
	c.foreign = http.NewCrossOriginProtection()
	check := func(field, origin string) {
		u, err := url.Parse(origin)
		if err == nil {
			err = c.foreign.AddTrustedOrigin(origin)
		}
		if err != nil || u.Scheme != "https" && u.Scheme != "http" {
			fault(field, "is not an origin such as https://app.example.com")
		} else if u.Scheme == "http" && !c.InsecureCookie {
			fault(field, "is not https, which cookies need unless insecure_cookie is set")
		}
	}
	if c.Origin != "" {
		check("origin", c.Origin)
	}
	for i, origin := range c.TrustedOrigins {
		check(fmt.Sprintf("trusted_origins[%d]", i), origin)
	}
}

// keep finds the secrets, and where all else is well what outlives the
// document.
func (c *SessionConfig) keep(at *Place, good bool) routing.Faults {
	secret, faults := KeepSecret(at, "secret", c.SecretEnv, c.SecretFile)
	if faults == nil {
		var err error
		if c.signer, err = session.NewSigner(secret, time.Duration(c.Lifetime)); err != nil {
			field := "secret_env"
			if c.SecretFile != "" {
				field = "secret_file"
			}
			faults = append(faults, routing.Fault{Field: at.At(field),
				Message: fmt.Sprintf("holds no line of at least %d bytes", session.MinSecret)})
		}
	}
	c.secret = func() []byte { return nil }
	if c.ClientSecretEnv != "" || c.ClientSecretFile != "" {
		var more routing.Faults
		c.secret, more = KeepSecret(at, "client_secret", c.ClientSecretEnv, c.ClientSecretFile)
		faults = append(faults, more...)
	}
	client, err := remote.NewClient(time.Duration(c.Timeout), c.CAFile)
	if err != nil {
		faults = append(faults, routing.Fault{Field: at.At("ca_file"), Message: err.Error()})
	}
	if !good || len(faults) > 0 {
		return faults
	}
	// A session belongs to a client of an issuer: one route's cookie opens
	// no route that asks somebody else.
	names := fmt.Sprintf("%q %q %q", c.Issuer, c.ClientID, c.cookie())
	sum := sha256.Sum256([]byte(names))
	sessions := Keep(at, "session/store "+names, func() session.Store {
		if redis := at.Redis(); redis != nil {
			return session.NewRedis(redis, hex.EncodeToString(sum[:8]))
		}
		return session.NewMemory()
	})
	c.keeper = Keep(at, fmt.Sprintf("session %s %s %q", names, time.Duration(c.Timeout), c.CAFile), func() *session.Keeper {
		return session.NewKeeper(session.NewProvider(c.Issuer, c.ClientID, client), sessions, c.cookie(), at.Log())
	})
	return nil
}

// OwnHeaders implements routing.HeaderOwner.
func (c *SessionConfig) OwnHeaders() []string {
	names := make([]string, len(c.headers))
	for i, h := range c.headers {
		names[i] = h.name
	}
	return names
}

func (c *SessionConfig) cookie() string {
	if c.InsecureCookie {
		return c.Cookie
	}
	return "__Host-" + c.Cookie
}

func (c *SessionConfig) client() session.Client {
	return session.Client{ID: c.ClientID, Secret: string(c.secret())}
}

// pass lets requests with a session through, and sends browsers without one
// to log in.
func (c *SessionConfig) pass(g *gin.Context, x *routing.Exchange) {
	s, _, err := c.find(g)
	switch {
	case err != nil:
		c.fail(g, err)
		return
	case s == nil && asksForPage(g.Request, x):
		c.login(g)
		return
	case s == nil:
		g.Writer.Header().Set("WWW-Authenticate", `Cookie realm="sluice", cookie-name="`+c.cookie()+`"`)
		Reject(g, "session", &routing.Refusal{Code: routing.CodeUnauthenticated, Detail: "this route needs a login"})
		return
	case c.crossOrigin(g.Request):
		c.rejectForeign(g)
		return
	}
	h := g.Request.Header
	for _, header := range c.headers {
		text, err := headerText(claimAt(s.Claims, header.claim))
		if err != nil {
			Reject(g, "session", &routing.Refusal{Code: routing.CodeForbidden,
				Detail: "the login says what cannot be passed on", Cause: fmt.Errorf("the claim for %s: %w", header.name, err)})
			return
		}
		if text != "" {
			h[header.name] = []string{text}
		}
	}
	x.Identity = &routing.Identity{Plugin: "session", Subject: s.Subject, Scopes: s.Scopes, Claims: s.Claims}
}

// find returns the request's session and its id; nil where it has none.
func (c *SessionConfig) find(g *gin.Context) (*session.Session, string, error) {
	value := ownCookie(g, c.cookie())
	if value == "" {
		return nil, "", nil
	}
	id, err := c.signer.ID(c.cookie(), value)
	if err != nil || id == "" {
		return nil, "", err
	}
	s, err := c.keeper.Find(g.Request.Context(), c.client(), id, time.Duration(c.IdleTimeout))
	return s, id, err
}

// fail answers for a store or an issuer that cannot be asked, and for a login
// that ended badly.
func (c *SessionConfig) fail(g *gin.Context, err error) {
	ref := &routing.Refusal{Code: routing.CodeOverloaded, Detail: "logins cannot be checked at the moment",
		RetryAfter: time.Second, Cause: err}
	if errors.Is(err, session.ErrRefused) {
		ref = &routing.Refusal{Code: routing.CodeUnauthenticated, Detail: "the login was not accepted", Cause: err}
	}
	Reject(g, "session", ref)
}

// asksForPage says whether r is a browser's that shows what it gets: a script
// or an API client could not follow it to a login page.
func asksForPage(r *http.Request, x *routing.Exchange) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.Header["Upgrade"] != nil || x.GRPC {
		return false
	}
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" && mode != "navigate" {
		return false
	}
	return strings.Contains(strings.Join(r.Header["Accept"], ","), "text/html")
}

// crossOrigin says whether another site's page sent r and could do harm with
// it: cookies go along with such requests, and nothing keeps a page from
// opening a websocket anywhere.
func (c *SessionConfig) crossOrigin(r *http.Request) bool {
	if r.Header["Upgrade"] == nil {
		return c.foreign.Check(r) != nil
	}
	origin := r.Header.Get("Origin")
	if origin == "" || origin == c.Origin || slices.Contains(c.TrustedOrigins, origin) {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, r.Host)
}

func (c *SessionConfig) rejectForeign(g *gin.Context) {
	Reject(g, "session", &routing.Refusal{Code: routing.CodeForbidden, Detail: "another site sent this request"})
}
