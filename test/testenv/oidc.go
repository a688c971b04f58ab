package testenv

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// OIDC is one OpenID Connect provider (scripts/tools/oidc). It keeps
// everything in memory: after Restart its keys are new, and codes, tokens and
// logins are gone; clients and users are put again.
type OIDC struct {
	*Server
	// Issuer is its address, which is its name too.
	Issuer string
	config oidcConfig
}

type oidcConfig struct {
	Users               map[string]OIDCUser   `json:"users"`
	Clients             map[string]OIDCClient `json:"clients"`
	AccessTokenLifetime string                `json:"access_token_lifetime"`
	IDTokenLifetime     string                `json:"id_token_lifetime"`
}

// OIDCUser is somebody who can log in.
type OIDCUser struct {
	Password string `json:"password"`
	Email    string `json:"email"`
	// Claims stand in every token of the user.
	Claims map[string]any `json:"claims"`
}

// OIDCClient is an application that the provider knows.
type OIDCClient struct {
	Secret                 string   `json:"secret"`
	RedirectURIs           []string `json:"redirect_uris"`
	PostLogoutRedirectURIs []string `json:"post_logout_redirect_uris"`
	BackChannelLogoutURI   string   `json:"backchannel_logout_uri"`
	// Audience of its tokens, beside itself.
	Audience []string `json:"audience"`
	// Opaque access tokens can only be introspected; others are JWTs.
	Opaque bool `json:"opaque"`
	// Claims stand in the tokens that it gets for itself.
	Claims map[string]any `json:"claims"`
}

// OIDCTokens is what a login gives.
type OIDCTokens struct {
	AccessToken  string `json:"access_token"`
	IDToken      string `json:"id_token"`
	RefreshToken string `json:"refresh_token"`
}

// oidcCallback is where LogIn is sent back to; nothing listens there.
const oidcCallback = "http://127.0.0.1:1/callback"

// StartOIDC runs a provider until the test ends. It knows the users guest,
// user and admin, each with its name as password and as claim role; the
// clients web (JWT access tokens), opaque (opaque ones) and service (JWTs,
// claim role admin in its own), each with its name and "-secret" as secret,
// and the audience api beside themselves.
func StartOIDC(t TB) *OIDC {
	t.Helper()
	o := &OIDC{config: oidcConfig{Users: map[string]OIDCUser{}, Clients: map[string]OIDCClient{}}}
	for _, name := range []string{"guest", "user", "admin"} {
		o.config.Users[name] = OIDCUser{Password: name, Email: name + "@example.com", Claims: map[string]any{"role": name}}
	}
	for _, name := range []string{"web", "opaque", "service"} {
		o.config.Clients[name] = OIDCClient{Secret: name + "-secret", RedirectURIs: []string{oidcCallback},
			Audience: []string{"api"}, Opaque: name == "opaque", Claims: map[string]any{"role": "admin"}}
	}
	o.Server = launch(t, "oidc", "oidc-provider", func(s *Server) {
		addr := loopback(FreePort(t))
		o.Issuer = "http://" + addr
		s.args = []string{"-listen", addr}
		s.ready = func() error { // what it should know is put each time that it starts
			if _, err := o.call(http.MethodPut, "/control/config", o.config); err != nil {
				return err
			}
			return httpReady(o.Issuer+"/.well-known/openid-configuration", func(status int, body string) error {
				if status != http.StatusOK {
					return fmt.Errorf("discovery: %d %s", status, body)
				}
				return nil
			})
		}
	})
	return o
}

// PutClient registers a client or changes one.
func (o *OIDC) PutClient(id string, c OIDCClient) {
	o.t.Helper()
	o.config.Clients[id] = c
	o.must(http.MethodPut, "/control/config", o.config)
}

// PutUser adds a user or changes one.
func (o *OIDC) PutUser(name string, u OIDCUser) {
	o.t.Helper()
	o.config.Users[name] = u
	o.must(http.MethodPut, "/control/config", o.config)
}

// Lifetimes sets how long tokens that are issued from now on live; at first
// five minutes and one hour.
func (o *OIDC) Lifetimes(access, id time.Duration) {
	o.t.Helper()
	o.config.AccessTokenLifetime, o.config.IDTokenLifetime = access.String(), id.String()
	o.must(http.MethodPut, "/control/config", o.config)
}

// Rotate signs with a new key from now on; alg is RS256, PS256 or ES256. With
// retire the keys before it are no longer published.
func (o *OIDC) Rotate(alg string, retire bool) {
	o.t.Helper()
	o.must(http.MethodPost, "/control/rotate?alg="+alg+"&retire="+strconv.FormatBool(retire), nil)
}

// Sign makes a JWT of any claims with the provider's current key; typ is its
// header's.
func (o *OIDC) Sign(typ string, claims map[string]any) string {
	o.t.Helper()
	return o.must(http.MethodPost, "/control/sign?typ="+url.QueryEscape(typ), claims)
}

// LogOut ends a user's logins and tells every client that has a back-channel
// address, before it returns.
func (o *OIDC) LogOut(user string) {
	o.t.Helper()
	o.must(http.MethodPost, "/control/logout?user="+url.QueryEscape(user), nil)
}

// Revoke ends a user's logins, refresh tokens and opaque tokens, and tells
// nobody.
func (o *OIDC) Revoke(user string) {
	o.t.Helper()
	o.must(http.MethodPost, "/control/revoke?user="+url.QueryEscape(user), nil)
}

// Calls says how often something was asked for since the provider started: a
// path such as "/keys", for the token endpoint with the kind of grant as in
// "/oauth/token refresh_token"; and "refresh token reused".
func (o *OIDC) Calls(name string) int {
	o.t.Helper()
	var calls map[string]int
	if err := json.Unmarshal([]byte(o.must(http.MethodGet, "/control/calls", nil)), &calls); err != nil {
		o.t.Fatalf("read the calls: %v", err)
	}
	return calls[name]
}

// Token gets an access token for a client itself (client_credentials).
func (o *OIDC) Token(id string, scopes ...string) string {
	o.t.Helper()
	return o.tokens(id, url.Values{"grant_type": {"client_credentials"}, "scope": {strings.Join(scopes, " ")}}).AccessToken
}

// LogIn logs a user in to a client (authorization code and PKCE).
func (o *OIDC) LogIn(id, user string) OIDCTokens {
	o.t.Helper()
	verifier, state := rand.Text()+rand.Text(), rand.Text()
	challenge := sha256.Sum256([]byte(verifier))
	back := o.Approve(o.Issuer+"/authorize?"+url.Values{
		"response_type": {"code"}, "client_id": {id}, "redirect_uri": {oidcCallback}, "state": {state},
		"scope": {"openid profile email offline_access"}, "nonce": {rand.Text()},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}.Encode(), user)
	u, err := url.Parse(back)
	if err != nil || u.Query().Get("state") != state {
		o.t.Fatalf("the login of %s ended at %q", user, back)
	}
	return o.tokens(id, url.Values{"grant_type": {"authorization_code"}, "code": {u.Query().Get("code")},
		"redirect_uri": {oidcCallback}, "code_verifier": {verifier}})
}

// Refresh gets new tokens for a refresh token, which works once.
func (o *OIDC) Refresh(id, refreshToken string) OIDCTokens {
	o.t.Helper()
	return o.tokens(id, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshToken}})
}

// Approve plays the browser of a user who is sent to the provider with
// authorizeURL and logs in there. It returns the address that the provider
// sends the browser back to.
func (o *OIDC) Approve(authorizeURL, user string) string {
	o.t.Helper()
	client := o.client()
	next := authorizeURL
	for range 10 {
		u, err := url.Parse(next)
		if err != nil {
			o.t.Fatalf("follow %q: %v", next, err)
			return ""
		}
		if !strings.HasPrefix(next, o.Issuer+"/") {
			return next
		}
		var resp *http.Response
		if u.Path == "/login" {
			resp, err = client.PostForm(o.Issuer+"/login", url.Values{"id": {u.Query().Get("id")}, "user": {user},
				"password": {o.config.Users[user].Password}})
		} else {
			resp, err = client.Get(next)
		}
		if err != nil {
			o.t.Fatalf("log %s in: %v", user, err)
			return ""
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		to, err := resp.Location()
		if err != nil {
			o.t.Fatalf("log %s in: %s answered %d %s", user, u.Path, resp.StatusCode, body)
			return ""
		}
		next = to.String()
	}
	o.t.Fatalf("the login of %s does not end", user)
	return ""
}

func (o *OIDC) tokens(id string, form url.Values) OIDCTokens {
	o.t.Helper()
	req, err := http.NewRequest(http.MethodPost, o.Issuer+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		o.t.Fatalf("ask for tokens: %v", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(o.config.Clients[id].Secret))
	body, err := o.do(req)
	if err != nil {
		o.t.Fatalf("ask for tokens: %v", err)
	}
	var tokens OIDCTokens
	if err := json.Unmarshal([]byte(body), &tokens); err != nil {
		o.t.Fatalf("read the tokens: %v", err)
	}
	return tokens
}

// Config is what the provider's discovery document says.
func (o *OIDC) Config() map[string]any {
	o.t.Helper()
	out := map[string]any{}
	if err := json.Unmarshal([]byte(o.must(http.MethodGet, "/.well-known/openid-configuration", nil)), &out); err != nil {
		o.t.Fatalf("read the discovery document: %v", err)
	}
	return out
}

func (o *OIDC) must(method, path string, value any) string {
	o.t.Helper()
	body, err := o.call(method, path, value)
	if err != nil {
		o.t.Fatalf("%s %s: %v", method, path, err)
	}
	return body
}

func (o *OIDC) call(method, path string, value any) (string, error) {
	data, err := json.Marshal(value)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequest(method, o.Issuer+path, bytes.NewReader(data))
	if err != nil {
		return "", err
	}
	return o.do(req)
}

func (o *OIDC) do(req *http.Request) (string, error) {
	resp, err := o.client().Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answered %d %s", resp.StatusCode, body)
	}
	return string(body), err
}

// client follows no redirect and keeps no connection: tests look for what is
// left over.
func (o *OIDC) client() *http.Client {
	return &http.Client{
		Timeout:       10 * time.Second,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
