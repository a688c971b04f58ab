package main

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// storage is all that the provider knows. Its mutex guards every field.
type storage struct {
	issuer string

	mu     sync.Mutex
	config config
	keys   []*key             // the last one signs
	grants map[string]*grant  // by id, which is the sid of tokens too
	codes  map[string]*grant  // authorization codes that were not used yet
	fresh  map[string]*grant  // every refresh token ever given
	tokens map[string]*access // by token id
	calls  map[string]int
}

// config is what a test puts.
type config struct {
	Users               map[string]user   `json:"users"`
	Clients             map[string]client `json:"clients"`
	AccessTokenLifetime string            `json:"access_token_lifetime"`
	IDTokenLifetime     string            `json:"id_token_lifetime"`
}

type user struct {
	Password string         `json:"password"`
	Email    string         `json:"email"`
	Claims   map[string]any `json:"claims"` // in every token of the user
}

// access is one access token.
type access struct {
	grant    *grant // nil for a client's own
	subject  string
	client   string
	scopes   []string
	audience []string
	expires  time.Time
}

var errUnknown = errors.New("unknown, used or ended")

func newStorage(issuer string) (*storage, error) {
	first, err := newKey(jose.RS256)
	if err != nil {
		return nil, err
	}
	return &storage{
		issuer: issuer, keys: []*key{first}, grants: map[string]*grant{}, codes: map[string]*grant{},
		fresh: map[string]*grant{}, tokens: map[string]*access{}, calls: map[string]int{},
	}, nil
}

func lifetime(text string, otherwise time.Duration) time.Duration {
	if d, err := time.ParseDuration(text); err == nil {
		return d
	}
	return otherwise
}

// CreateAuthRequest implements op.AuthStorage.
func (s *storage) CreateAuthRequest(_ context.Context, r *oidc.AuthRequest, userID string) (op.AuthRequest, error) {
	if slices.Contains(r.Prompt, oidc.PromptNone) {
		return nil, oidc.ErrLoginRequired() // nobody is ever logged in here
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g := &grant{id: rand.Text(), client: r.ClientID, user: userID, scopes: r.Scopes, request: r,
		audience: s.config.Clients[r.ClientID].audience(r.ClientID)}
	s.grants[g.id] = g
	return authRequest{g}, nil
}

// AuthRequestByID implements op.AuthStorage.
func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.grants[id]; g != nil {
		return authRequest{g}, nil
	}
	return nil, errUnknown
}

// AuthRequestByCode implements op.AuthStorage. A code works once.
func (s *storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.codes[code]
	delete(s.codes, code)
	if g == nil || g.ended {
		return nil, errUnknown
	}
	return authRequest{g}, nil
}

// SaveAuthCode implements op.AuthStorage.
func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grants[id] == nil {
		return errUnknown
	}
	s.codes[code] = s.grants[id]
	return nil
}

// DeleteAuthRequest implements op.AuthStorage. The grant lives on: tokens
// belong to it.
func (s *storage) DeleteAuthRequest(context.Context, string) error { return nil }

// CreateAccessToken implements op.AuthStorage.
func (s *storage) CreateAccessToken(_ context.Context, r op.TokenRequest) (string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, expires := s.newAccess(r)
	return id, expires, nil
}

func (s *storage) newAccess(r op.TokenRequest) (string, time.Time) {
	t := &access{subject: r.GetSubject(), scopes: r.GetScopes(), audience: r.GetAudience(),
		expires: time.Now().Add(lifetime(s.config.AccessTokenLifetime, 5*time.Minute))}
	if g := grantOf(r); g != nil {
		t.grant, t.client = g, g.client
	} else {
		t.client = t.subject
	}
	id := rand.Text()
	s.tokens[id] = t
	return id, t.expires
}

// CreateAccessAndRefreshTokens implements op.AuthStorage: each refresh token
// works once.
func (s *storage) CreateAccessAndRefreshTokens(_ context.Context, r op.TokenRequest, current string) (string, string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := grantOf(r)
	if g == nil || g.ended || current != g.refresh {
		return "", "", time.Time{}, op.ErrInvalidRefreshToken
	}
	id, expires := s.newAccess(r)
	g.refresh = rand.Text()
	s.fresh[g.refresh] = g
	return id, g.refresh, expires, nil
}

// TokenRequestByRefreshToken implements op.AuthStorage. A token that comes a
// second time may be stolen: it ends what it belongs to (RFC 9700, 4.14.2).
func (s *storage) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.fresh[token]
	if g == nil || g.ended {
		return nil, op.ErrInvalidRefreshToken
	}
	if g.refresh != token {
		s.calls["refresh token reused"]++
		g.ended = true
		return nil, op.ErrInvalidRefreshToken
	}
	return &refreshRequest{grant: g, current: g.scopes}, nil
}

// TerminateSession implements op.AuthStorage: the user logs out here.
func (s *storage) TerminateSession(ctx context.Context, userID, _ string) error {
	s.tell(ctx, s.end(userID))
	return nil
}

// end ends every grant of a user and returns them.
func (s *storage) end(userID string) []*grant {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ended []*grant
	for _, g := range s.grants {
		if g.user == userID && g.done && !g.ended {
			g.ended = true
			ended = append(ended, g)
		}
	}
	return ended
}

// RevokeToken implements op.AuthStorage.
func (s *storage) RevokeToken(_ context.Context, token, _, clientID string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tokens[token]; t != nil {
		if t.client != clientID {
			return oidc.ErrInvalidClient()
		}
		delete(s.tokens, token)
		return nil
	}
	if g := s.fresh[token]; g != nil {
		if g.client != clientID {
			return oidc.ErrInvalidClient()
		}
		g.ended = true
	}
	return nil
}

// GetRefreshTokenInfo implements op.AuthStorage.
func (s *storage) GetRefreshTokenInfo(_ context.Context, _, token string) (string, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.fresh[token]; g != nil {
		return g.user, token, nil
	}
	return "", "", op.ErrInvalidRefreshToken
}

// Health implements op.Storage.
func (s *storage) Health(context.Context) error { return nil }

// live returns an access token that was not revoked and did not expire.
func (s *storage) live(id string) (*access, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tokens[id]
	if t == nil || t.grant != nil && t.grant.ended || time.Now().After(t.expires) {
		return nil, errUnknown
	}
	return t, nil
}
