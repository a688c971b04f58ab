package middleware

import (
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"golang.org/x/oauth2"

	"github.com/sluice-gateway/sluice/middleware/session"
	"github.com/sluice-gateway/sluice/routing"
)

const (
	// maxReturn bounds the path that is remembered during a login.
	maxReturn = 2 << 10
	// maxLogins is how many logins one browser may have under way: each is a
	// cookie that goes along with every request.
	maxLogins = 5
	// maxLogoutToken bounds the form that an issuer posts.
	maxLogoutToken = 32 << 10
)

// login sends a browser to the issuer.
func (c *SessionConfig) login(g *gin.Context) {
	l := &session.Login{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Return: returnPath(g.Request)}
	to, err := c.keeper.Provider.AuthURL(g.Request.Context(), c.client(), l, c.origin(g.Request)+c.RedirectPath, c.Scopes)
	if err != nil {
		c.fail(g, err)
		return
	}
	name := c.loginCookie(l.State)
	value, err := c.signer.SealLogin(name, l)
	if err != nil {
		c.fail(g, err)
		return
	}
	if pending := c.pending(g); len(pending) >= maxLogins {
		for _, old := range pending {
			c.setCookie(g, old, "", -1)
		}
	}
	c.setCookie(g, name, value, session.LoginLifetime)
	redirectTo(g, http.StatusFound, to)
}

// callback takes a browser back that has been at the issuer.
func (c *SessionConfig) callback(g *gin.Context) {
	if g.Request.Method != http.MethodGet {
		rejectMethod(g, http.MethodGet)
		return
	}
	q := g.Request.URL.Query()
	l, err := c.begun(g, q.Get("state"))
	switch {
	case err != nil:
		c.fail(g, err)
		return
	case l == nil:
		c.rejectLogin(g)
		return
	}
	c.setCookie(g, c.loginCookie(l.State), "", -1)
	ctx := g.Request.Context()
	first, err := c.keeper.Store.Once(ctx, l.State, session.LoginLifetime)
	switch {
	case err != nil:
		c.fail(g, err)
		return
	case !first:
		c.rejectLogin(g)
		return
	case q.Get("code") == "": // the issuer tells of an error, or of nothing
		c.fail(g, session.ErrRefused)
		return
	}
	s, err := c.keeper.Provider.Exchange(ctx, c.client(), l,
		session.Callback{Code: q.Get("code"), Issuer: q.Get("iss")}, c.origin(g.Request)+c.RedirectPath)
	if err != nil {
		c.fail(g, err)
		return
	}
	s.Ends = time.Now().Add(time.Duration(c.Lifetime))
	if len(s.Scopes) == 0 { // what is granted as asked for need not be said
		s.Scopes = c.Scopes
	}
	if err := c.begin(g, s); err != nil {
		c.fail(g, err)
		return
	}
	redirectTo(g, http.StatusFound, localPath(l.Return))
}

// begin gives the browser a new session. The one it came with, whoever gave
// it to the browser, ends.
func (c *SessionConfig) begin(g *gin.Context, s *session.Session) error {
	old, err := c.signer.ID(c.cookie(), ownCookie(g, c.cookie()))
	if err != nil {
		return err
	}
	id, err := c.keeper.Begin(g.Request.Context(), old, s, time.Duration(c.IdleTimeout))
	if err != nil {
		return err
	}
	value, err := c.signer.SignID(c.cookie(), id)
	if err != nil {
		return err
	}
	c.setCookie(g, c.cookie(), value, time.Duration(c.Lifetime))
	return nil
}

// begun returns the login that this browser began with state; nil where it
// began none.
func (c *SessionConfig) begun(g *gin.Context, state string) (*session.Login, error) {
	if len(state) < 8 {
		return nil, nil
	}
	name := c.loginCookie(state)
	l, err := c.signer.Login(name, ownCookie(g, name))
	if err != nil || l == nil || l.State != state {
		return nil, err
	}
	return l, nil
}

func (c *SessionConfig) rejectLogin(g *gin.Context) {
	Reject(g, "session", &routing.Refusal{Code: routing.CodeBadRequest,
		Detail: "this browser began no such login, or it has ended; open the page again"})
}

// logout ends the browser's session.
func (c *SessionConfig) logout(g *gin.Context) {
	if g.Request.Method != http.MethodPost {
		rejectMethod(g, http.MethodPost)
		return
	}
	if c.crossOrigin(g.Request) {
		c.rejectForeign(g)
		return
	}
	ctx := g.Request.Context()
	id, err := c.signer.ID(c.cookie(), ownCookie(g, c.cookie()))
	var s *session.Session
	if err == nil && id != "" {
		s, err = c.keeper.End(ctx, id, time.Duration(c.IdleTimeout))
	}
	if err != nil { // it still lives: do not say otherwise
		c.fail(g, err)
		return
	}
	c.setCookie(g, c.cookie(), "", -1)
	to := c.AfterLogout
	if c.IssuerLogout {
		if issuer := c.keeper.Provider.EndSessionURL(ctx, s, c.origin(g.Request)+c.AfterLogout); issuer != "" {
			to = issuer
		}
	}
	redirectTo(g, http.StatusSeeOther, to)
}

// backChannelLogout ends the sessions that the issuer says have ended
// (Back-Channel Logout 1.0 section 2.5).
func (c *SessionConfig) backChannelLogout(g *gin.Context) {
	r := g.Request
	if r.Method != http.MethodPost {
		rejectMethod(g, http.MethodPost)
		return
	}
	r.Body = http.MaxBytesReader(g.Writer, r.Body, maxLogoutToken)
	if err := r.ParseForm(); err != nil {
		c.rejectLogout(g, err)
		return
	}
	ctx := r.Context()
	l, err := c.keeper.Provider.VerifyLogout(ctx, r.PostForm.Get("logout_token"))
	switch {
	case errors.Is(err, session.ErrRefused):
		c.rejectLogout(g, err)
		return
	case err != nil:
		c.fail(g, err)
		return
	}
	if err := c.keeper.Store.End(ctx, l.SID, l.Subject); err != nil {
		c.fail(g, err)
		return
	}
	g.Writer.Header().Set("Cache-Control", "no-store")
	g.Abort()
	writeBody(g.Writer, r, http.StatusOK, "")
}

func (c *SessionConfig) rejectLogout(g *gin.Context, err error) {
	Reject(g, "session", &routing.Refusal{Code: routing.CodeBadRequest, Detail: "this is no logout token for here", Cause: err})
}

// origin is where browsers find this route. Secure cookies work over https
// only, so that is what they see, wherever TLS ends.
func (c *SessionConfig) origin(r *http.Request) string {
	switch {
	case c.Origin != "":
		return c.Origin
	case c.InsecureCookie:
		return "http://" + r.Host
	}
	return "https://" + r.Host
}

// loginCookie is the name of the cookie of one login: each has its own, so
// that two tabs do not disturb each other.
func (c *SessionConfig) loginCookie(state string) string {
	return c.cookie() + "-" + url.QueryEscape(state[:8])
}

// pending lists the cookies of logins under way.
func (c *SessionConfig) pending(g *gin.Context) (names []string) {
	for _, k := range stateOf(g).cookies {
		if strings.HasPrefix(k.name, c.cookie()+"-") {
			names = append(names, k.name)
		}
	}
	return names
}

func ownCookie(g *gin.Context, name string) string {
	for _, k := range stateOf(g).cookies {
		if k.name == name {
			return k.value
		}
	}
	return ""
}

// setCookie gives the browser a cookie; a negative life takes it away.
func (c *SessionConfig) setCookie(g *gin.Context, name, value string, life time.Duration) {
	k := http.Cookie{Name: name, Value: value, Path: "/", HttpOnly: true, Secure: !c.InsecureCookie, SameSite: http.SameSiteLaxMode,
		MaxAge: int(life / time.Second)}
	if life < 0 {
		k.MaxAge = -1
	}
	g.Writer.Header().Add("Set-Cookie", k.String())
}

func redirectTo(g *gin.Context, code int, to string) {
	h := g.Writer.Header()
	h.Set("Location", to)
	h.Set("Cache-Control", "no-store")
	// The address of a callback holds a code; it is nobody's referrer.
	h.Set("Referrer-Policy", "no-referrer")
	g.Abort()
	writeBody(g.Writer, g.Request, code, "")
}

func rejectMethod(g *gin.Context, allowed string) {
	Reject(g, "session", &routing.Refusal{Code: routing.CodeMethodNotAllowed, Detail: "only " + allowed + " is served here",
		Allow: []string{allowed}})
}

// returnPath is where a browser goes on after it has logged in.
func returnPath(r *http.Request) string {
	path := rawPath(r)
	if r.URL.RawQuery != "" {
		path += "?" + r.URL.RawQuery
	}
	return localPath(path)
}

// localPath returns to where a browser that is sent there stays on this
// site, and "/" where it might not: browsers read "//" and "/\" as another
// host, and leave control characters out before they look.
func localPath(to string) string {
	if len(to) > maxReturn || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.ContainsAny(to, `\`) {
		return "/"
	}
	for i := range len(to) {
		if to[i] <= ' ' || to[i] == 0x7f {
			return "/"
		}
	}
	return to
}
