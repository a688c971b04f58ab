package main

import (
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// grant is one login of a user for a client, and all that follows from it.
type grant struct {
	id       string
	client   string
	user     string
	scopes   []string
	audience []string
	request  *oidc.AuthRequest
	authTime time.Time
	done     bool   // the user has logged in
	ended    bool   // and out
	refresh  string // the refresh token that works
}

func (g *grant) GetAMR() []string       { return []string{"pwd"} }
func (g *grant) GetAudience() []string  { return g.audience }
func (g *grant) GetAuthTime() time.Time { return g.authTime }
func (g *grant) GetClientID() string    { return g.client }
func (g *grant) GetSubject() string     { return g.user }

// authRequest is a grant as op sees it until the code was used.
type authRequest struct{ *grant }

func (r authRequest) GetScopes() []string                { return r.scopes }
func (r authRequest) GetID() string                      { return r.id }
func (r authRequest) GetACR() string                     { return "" }
func (r authRequest) GetNonce() string                   { return r.request.Nonce }
func (r authRequest) GetRedirectURI() string             { return r.request.RedirectURI }
func (r authRequest) GetResponseType() oidc.ResponseType { return r.request.ResponseType }
func (r authRequest) GetResponseMode() oidc.ResponseMode { return r.request.ResponseMode }
func (r authRequest) GetState() string                   { return r.request.State }
func (r authRequest) Done() bool                         { return r.done }
func (r authRequest) GetCodeChallenge() *oidc.CodeChallenge {
	if r.request.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{Challenge: r.request.CodeChallenge, Method: r.request.CodeChallengeMethod}
}

// refreshRequest is a grant as op sees it afterwards.
type refreshRequest struct {
	*grant
	current []string
}

func (r *refreshRequest) GetScopes() []string              { return r.current }
func (r *refreshRequest) SetCurrentScopes(scopes []string) { r.current = scopes }

// grantOf is the grant behind what op asks for, or nil.
func grantOf(r any) *grant {
	switch r := r.(type) {
	case authRequest:
		return r.grant
	case *refreshRequest:
		return r.grant
	}
	return nil
}

// client is an application as a test describes it.
type client struct {
	Secret                 string         `json:"secret"` // "" for a public one
	RedirectURIs           []string       `json:"redirect_uris"`
	PostLogoutRedirectURIs []string       `json:"post_logout_redirect_uris"`
	BackChannelLogoutURI   string         `json:"backchannel_logout_uri"`
	Audience               []string       `json:"audience"` // beside the client itself
	Opaque                 bool           `json:"opaque"`   // access tokens are no JWT
	Claims                 map[string]any `json:"claims"`   // in the client's own tokens
}

func (c client) audience(id string) []string { return append([]string{id}, c.Audience...) }

// registered is a client as op sees it.
type registered struct {
	client
	id              string
	idTokenLifetime string
}

func (r registered) GetID() string                       { return r.id }
func (r registered) RedirectURIs() []string              { return r.client.RedirectURIs }
func (r registered) PostLogoutRedirectURIs() []string    { return r.client.PostLogoutRedirectURIs }
func (r registered) ApplicationType() op.ApplicationType { return op.ApplicationTypeWeb }
func (r registered) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (r registered) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken, oidc.GrantTypeClientCredentials}
}
func (r registered) LoginURL(id string) string      { return "/login?id=" + id }
func (r registered) IDTokenLifetime() time.Duration { return lifetime(r.idTokenLifetime, time.Hour) }

// DevMode lets redirect addresses be http ones.
func (r registered) DevMode() bool                        { return true }
func (r registered) IsScopeAllowed(string) bool           { return true }
func (r registered) IDTokenUserinfoClaimsAssertion() bool { return true }
func (r registered) ClockSkew() time.Duration             { return 0 }
func (r registered) AuthMethod() oidc.AuthMethod {
	if r.Secret == "" {
		return oidc.AuthMethodNone
	}
	return oidc.AuthMethodBasic
}
func (r registered) AccessTokenType() op.AccessTokenType {
	if r.Opaque {
		return op.AccessTokenTypeBearer
	}
	return op.AccessTokenTypeJWT
}
func (r registered) RestrictAdditionalIdTokenScopes() func([]string) []string     { return all }
func (r registered) RestrictAdditionalAccessTokenScopes() func([]string) []string { return all }

func all(scopes []string) []string { return scopes }
