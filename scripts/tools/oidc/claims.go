package main

import (
	"context"
	"errors"
	"maps"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// GetClientByClientID implements op.OPStorage.
func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.config.Clients[id]
	if !ok {
		return nil, errUnknown
	}
	return registered{client: c, id: id, idTokenLifetime: s.config.IDTokenLifetime}, nil
}

// AuthorizeClientIDSecret implements op.OPStorage.
func (s *storage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.config.Clients[id]; !ok || c.Secret == "" || c.Secret != secret {
		return errors.New("no such client and secret")
	}
	return nil
}

// ClientCredentials implements op.ClientCredentialsStorage.
func (s *storage) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	if err := s.AuthorizeClientIDSecret(ctx, id, secret); err != nil {
		return nil, err
	}
	return s.GetClientByClientID(ctx, id)
}

// ClientCredentialsTokenRequest implements op.ClientCredentialsStorage.
func (s *storage) ClientCredentialsTokenRequest(_ context.Context, id string, scopes []string) (op.TokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &oidc.JWTTokenRequest{Subject: id, Audience: s.config.Clients[id].audience(id), Scopes: scopes}, nil
}

// claimsOf is what tokens say of a subject beside what the protocol asks for.
func (s *storage) claimsOf(subject string, g *grant) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	claims := map[string]any{}
	if u, ok := s.config.Users[subject]; ok {
		maps.Copy(claims, u.Claims)
	} else if c, ok := s.config.Clients[subject]; ok {
		maps.Copy(claims, c.Claims)
	}
	if g != nil {
		claims["sid"] = g.id
	}
	return claims
}

// GetPrivateClaimsFromRequest implements op.CanGetPrivateClaimsFromRequest:
// what a JWT access token says.
func (s *storage) GetPrivateClaimsFromRequest(_ context.Context, r op.TokenRequest, _ []string) (map[string]any, error) {
	return s.claimsOf(r.GetSubject(), grantOf(r)), nil
}

// SetUserinfoFromRequest implements op.CanSetUserinfoFromRequest: what an ID
// token says.
func (s *storage) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, r op.IDTokenRequest, _ []string) error {
	s.userinfo(info, r.GetSubject(), grantOf(r))
	return nil
}

// SetUserinfoFromToken implements op.OPStorage: what the userinfo endpoint says.
func (s *storage) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, id, subject, _ string) error {
	t, err := s.live(id)
	if err != nil {
		return err
	}
	s.userinfo(info, subject, t.grant)
	return nil
}

func (s *storage) userinfo(info *oidc.UserInfo, subject string, g *grant) {
	for name, value := range s.claimsOf(subject, g) {
		info.AppendClaims(name, value)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	info.Subject = subject
	if u, ok := s.config.Users[subject]; ok {
		info.PreferredUsername, info.Email, info.EmailVerified = subject, u.Email, true
	}
}

// SetIntrospectionFromToken implements op.OPStorage.
func (s *storage) SetIntrospectionFromToken(_ context.Context, answer *oidc.IntrospectionResponse, id, subject, _ string) error {
	t, err := s.live(id)
	if err != nil {
		return err
	}
	answer.Subject, answer.ClientID, answer.Scope = subject, t.client, t.scopes
	answer.Audience, answer.Issuer, answer.Expiration = t.audience, s.issuer, oidc.FromTime(t.expires)
	answer.Claims = s.claimsOf(subject, t.grant)
	return nil
}

// SetUserinfoFromScopes implements op.OPStorage; SetUserinfoFromRequest does it.
func (s *storage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

// GetPrivateClaimsFromScopes implements op.OPStorage; GetPrivateClaimsFromRequest does it.
func (s *storage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

// GetKeyByIDAndClientID implements op.OPStorage: no client signs anything.
func (s *storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errUnknown
}

// ValidateJWTProfileScopes implements op.OPStorage: see GetKeyByIDAndClientID.
func (s *storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errUnknown
}
