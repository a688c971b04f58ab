package session

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	// logoutEvent is what a logout token is about.
	logoutEvent = "http://schemas.openid.net/event/backchannel-logout"
	// skew is how far clocks may be apart.
	skew = 5 * time.Minute
)

// AuthURL is where a browser is sent to log in.
func (p *Provider) AuthURL(ctx context.Context, c Client, l *Login, redirect string, scopes []string) (string, error) {
	f, err := p.discovered(ctx)
	if err != nil {
		return "", err
	}
	return f.config(c, redirect, scopes).AuthCodeURL(l.State, oidc.Nonce(l.Nonce), oauth2.S256ChallengeOption(l.Verifier)), nil
}

// Callback is what the issuer sends a browser back with.
type Callback struct{ Code, Issuer string }

// Exchange makes a session of the code that a login ended with. The session
// has no end yet.
func (p *Provider) Exchange(ctx context.Context, c Client, l *Login, back Callback, redirect string) (*Session, error) {
	f, err := p.discovered(ctx)
	if err != nil {
		return nil, err
	}
	// Another issuer's code must not be taken for this one's (RFC 9207).
	if back.Issuer != "" && back.Issuer != p.issuer || back.Issuer == "" && f.SendsIssuer {
		return nil, fmt.Errorf("%w: the answer is another issuer's", ErrRefused)
	}
	if err := p.reachable(); err != nil {
		return nil, err
	}
	token, err := f.config(c, redirect, nil).Exchange(oidc.ClientContext(ctx, p.http), back.Code, oauth2.VerifierOption(l.Verifier))
	if err != nil {
		return nil, p.tokenError("exchange the code at", err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return nil, fmt.Errorf("%w: the issuer sent no ID token", ErrRefused)
	}
	s, nonce, err := p.read(ctx, f, raw, token)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(nonce), []byte(l.Nonce)) != 1 {
		return nil, fmt.Errorf("%w: the nonce is another login's", ErrRefused)
	}
	return s, nil
}

// Refresh asks the issuer whether the user may stay, and returns the session
// to put in the place of s.
func (p *Provider) Refresh(ctx context.Context, c Client, s *Session) (*Session, error) {
	f, err := p.discovered(ctx)
	if err != nil {
		return nil, err
	}
	if err := p.reachable(); err != nil {
		return nil, err
	}
	source := f.config(c, "", nil).TokenSource(oidc.ClientContext(ctx, p.http), &oauth2.Token{RefreshToken: s.RefreshToken})
	token, err := source.Token()
	if err != nil {
		return nil, p.tokenError("refresh at", err)
	}
	next := *s
	if raw, ok := token.Extra("id_token").(string); ok {
		read, _, err := p.read(ctx, f, raw, token)
		if err != nil {
			return nil, err
		}
		if read.Subject != s.Subject { // OpenID Connect Core 1.0 section 12.2
			return nil, fmt.Errorf("%w: the refreshed token is another user's", ErrRefused)
		}
		next.Claims, next.IDToken = read.Claims, raw
	}
	next.RefreshToken, next.Fresh = token.RefreshToken, token.Expiry
	return &next, nil
}

// read verifies an ID token (OpenID Connect Core 1.0 section 3.1.3.7).
// go-oidc checks signature, iss, aud, exp and nbf; the rest is here.
func (p *Provider) read(ctx context.Context, f *found, raw string, token *oauth2.Token) (*Session, string, error) {
	id, err := f.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrRefused, err)
	}
	var text json.RawMessage
	claims := map[string]any{}
	if err := errors.Join(id.Claims(&text), unmarshal(text, &claims)); err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrRefused, err)
	}
	azp, _ := claims["azp"].(string)
	switch {
	case id.Subject == "":
		err = errors.New("it has no sub")
	case azp != p.id && (claims["azp"] != nil || len(id.Audience) > 1):
		err = errors.New("its azp is another client")
	case id.IssuedAt.IsZero() || id.IssuedAt.After(time.Now().Add(skew)):
		err = errors.New("its iat is missing or in the future")
	case id.AccessTokenHash != "":
		err = id.VerifyAccessToken(token.AccessToken)
	}
	if err != nil {
		return nil, "", fmt.Errorf("%w: the ID token: %w", ErrRefused, err)
	}
	for _, name := range []string{"nonce", "at_hash", "c_hash"} { // of the login only
		delete(claims, name)
	}
	sid, _ := claims["sid"].(string)
	s := &Session{Subject: id.Subject, SID: sid, Claims: claims, IDToken: raw,
		RefreshToken: token.RefreshToken, Fresh: token.Expiry, Scopes: scopesOf(token)}
	return s, id.Nonce, nil
}

func scopesOf(token *oauth2.Token) []string {
	text, _ := token.Extra("scope").(string)
	return strings.Fields(text)
}

// Logout is what a logout token asks for.
type Logout struct {
	// SID is the login that has ended; where it is "", all those of Subject.
	SID, Subject string
}

// VerifyLogout verifies a logout token (Back-Channel Logout 1.0 section 2.6).
// One that comes again is no fault: what it names has ended already, and an
// issuer that was answered 503 has to send it again.
func (p *Provider) VerifyLogout(ctx context.Context, raw string) (*Logout, error) {
	f, err := p.discovered(ctx)
	if err != nil {
		return nil, err
	}
	token, err := f.logouts.Verify(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	var claims struct {
		SID    string                    `json:"sid"`
		ID     string                    `json:"jti"`
		Nonce  *string                   `json:"nonce"`
		Events map[string]map[string]any `json:"events"`
	}
	if err := token.Claims(&claims); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	switch {
	case claims.Events[logoutEvent] == nil:
		err = errors.New("it is about no logout")
	case claims.Nonce != nil:
		err = errors.New("it has a nonce, as an ID token has")
	case claims.SID == "" && token.Subject == "":
		err = errors.New("it names neither sid nor sub")
	case claims.ID == "":
		err = errors.New("it has no jti")
	case token.IssuedAt.IsZero() || token.IssuedAt.After(time.Now().Add(skew)):
		err = errors.New("its iat is missing or in the future")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the logout token: %w", ErrRefused, err)
	}
	return &Logout{SID: claims.SID, Subject: token.Subject}, nil
}

// EndSessionURL is where a browser is sent to end the login at the issuer
// too; "" where the issuer has no such place. back is where it comes back to.
func (p *Provider) EndSessionURL(ctx context.Context, s *Session, back string) string {
	f, err := p.discovered(ctx)
	if err != nil || f.EndSession == "" {
		return ""
	}
	u, err := url.Parse(f.EndSession)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return ""
	}
	q := u.Query()
	q.Set("client_id", p.id)
	q.Set("post_logout_redirect_uri", back)
	if s != nil {
		q.Set("id_token_hint", s.IDToken)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// tokenError says what a call to the token endpoint failed with. Only
// invalid_grant is about the user; an issuer that says anything else cannot
// be used now, and nobody is logged out for that.
func (p *Provider) tokenError(doing string, err error) error {
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) {
		return p.unreachable(doing, err)
	}
	if answer.ErrorCode == "invalid_grant" {
		return fmt.Errorf("%s %s: %w", doing, p.issuer, ErrRefused)
	}
	if answer.Response.StatusCode >= 500 {
		return p.unreachable(doing, fmt.Errorf("it answered %d", answer.Response.StatusCode))
	}
	return fmt.Errorf("%s %s: %w: it answered %d", doing, p.issuer, ErrAway, answer.Response.StatusCode)
}

// quiet strips addresses, whose queries may hold what nobody should log.
func quiet(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
