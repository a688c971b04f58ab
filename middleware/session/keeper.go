package session

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// patience is how long a request waits for a refresh, its own or that of
	// another gateway; a lock that is left behind ends with it.
	patience = 10 * time.Second
	// lookAgain is how often a gateway looks whether another is done.
	lookAgain = 20 * time.Millisecond
)

// Keeper keeps the sessions of one client of one issuer.
type Keeper struct {
	Provider *Provider
	Store    Store
	cookie   string
	log      *slog.Logger
	flight   singleflight.Group
}

// NewKeeper makes a keeper; cookie is the name of the cookie that its
// sessions are found by.
func NewKeeper(p *Provider, s Store, cookie string, log *slog.Logger) *Keeper {
	return &Keeper{Provider: p, Store: s, cookie: cookie, log: log}
}

// OwnCookie is the name of the session cookie; those of logins under way
// begin with it and a "-".
func (k *Keeper) OwnCookie() string { return k.cookie }

// Run says once what the store is, and lets go of connections when ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	defer k.Provider.http.CloseIdleConnections()
	if _, ok := k.Store.(*Memory); ok {
		k.log.Warn("sessions are kept in memory: no other gateway knows them, and a restart ends them; set redis.address",
			"issuer", k.Provider.issuer)
	}
	<-ctx.Done()
}

// Begin keeps a new session and returns its token, which nobody has seen
// before. The one of the token old, "" for none, ends.
func (k *Keeper) Begin(ctx context.Context, old string, s *Session, idle time.Duration) (token string, err error) {
	m := manager(&adapter{k.Store, idle, s})
	if ctx, err = m.Load(ctx, old); err != nil {
		return "", err
	}
	if err := m.RenewToken(ctx); err != nil {
		return "", err
	}
	m.SetDeadline(ctx, s.Ends)
	m.Put(ctx, login, s)
	token, _, err = m.Commit(ctx)
	return token, err
}

// End ends the session of that token and returns it; nil where there is none.
func (k *Keeper) End(ctx context.Context, token string, idle time.Duration) (*Session, error) {
	m := manager(&adapter{k.Store, idle, nil})
	ctx, err := m.Load(ctx, token)
	if err != nil || m.Token(ctx) == "" {
		return nil, err
	}
	s, _ := m.Get(ctx, login).(*Session)
	return s, m.Destroy(ctx)
}

// Find returns the session of that token, refreshed where it has to be; nil
// where there is none, or where the issuer has ended it.
func (k *Keeper) Find(ctx context.Context, c Client, token string, idle time.Duration) (*Session, error) {
	s, err := k.load(ctx, token, idle)
	if err != nil || s == nil || !s.stale(time.Now()) {
		return s, err
	}
	v, err, _ := k.flight.Do(token, func() (any, error) {
		// A refresh token works once: a client that leaves must not take the
		// answer with it.
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		return k.refresh(bounded, c, token, idle)
	})
	if err != nil {
		return nil, err
	}
	return v.(*Session), nil
}

// load returns the session of that token; nil where there is none.
func (k *Keeper) load(ctx context.Context, token string, idle time.Duration) (*Session, error) {
	m := manager(&adapter{k.Store, idle, nil})
	ctx, err := m.Load(ctx, token)
	if err != nil {
		return nil, err
	}
	s, _ := m.Get(ctx, login).(*Session)
	if s != nil && time.Now().After(s.Ends) { // which scs leaves to its store
		return nil, m.Destroy(ctx)
	}
	return s, nil
}

// replace puts s in the place of the session of that token; nil where that
// has ended.
func (k *Keeper) replace(ctx context.Context, token string, s *Session, idle time.Duration) (*Session, error) {
	m := manager(&adapter{k.Store, idle, nil})
	ctx, err := m.Load(ctx, token)
	if err != nil || m.Token(ctx) == "" {
		return nil, err
	}
	m.Put(ctx, login, s)
	switch _, _, err := m.Commit(ctx); {
	case errors.Is(err, errOver):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return s, nil
}

// refresh asks the issuer, or waits for the gateway that already does.
func (k *Keeper) refresh(ctx context.Context, c Client, token string, idle time.Duration) (*Session, error) {
	digest := sha256.Sum256([]byte(token))
	name := base64.RawURLEncoding.EncodeToString(digest[:])
	ticker := time.NewTicker(lookAgain)
	defer ticker.Stop()
	for {
		unlock, mine, err := k.Store.Lock(ctx, name, patience)
		if err != nil {
			return nil, err
		}
		s, err := k.load(ctx, token, idle)
		done := err != nil || s == nil || !s.stale(time.Now())
		if mine && !done {
			s, err = k.ask(ctx, c, token, idle, s)
		}
		if mine {
			unlock()
		}
		if mine || done {
			return s, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ticker.C:
		}
	}
}

func (k *Keeper) ask(ctx context.Context, c Client, token string, idle time.Duration, s *Session) (*Session, error) {
	next, err := k.Provider.Refresh(ctx, c, s)
	if errors.Is(err, ErrRefused) {
		_, err := k.End(ctx, token, idle)
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	return k.replace(ctx, token, next, idle)
}
