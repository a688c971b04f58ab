package session

import (
	"context"
	"crypto/rand"
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

// Begin keeps a new session and returns its id, which nobody has seen before.
func (k *Keeper) Begin(ctx context.Context, s *Session, idle time.Duration) (string, error) {
	id := rand.Text()
	return id, k.Store.Put(ctx, id, s, idle)
}

// Find returns the session of that id, refreshed where it has to be; nil
// where there is none, or where the issuer has ended it.
func (k *Keeper) Find(ctx context.Context, c Client, id string, idle time.Duration) (*Session, error) {
	now := time.Now()
	s, err := k.Store.Get(ctx, id, idle)
	if err != nil || s == nil {
		return nil, err
	}
	if now.After(s.Ends) {
		return nil, k.Store.Delete(ctx, id)
	}
	if !s.stale(now) {
		return s, nil
	}
	v, err, _ := k.flight.Do(id, func() (any, error) {
		// A refresh token works once: a client that leaves must not take the
		// answer with it.
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		return k.refresh(bounded, c, id, idle)
	})
	if err != nil {
		return nil, err
	}
	return v.(*Session), nil
}

// refresh asks the issuer, or waits for the gateway that already does.
func (k *Keeper) refresh(ctx context.Context, c Client, id string, idle time.Duration) (*Session, error) {
	ticker := time.NewTicker(lookAgain)
	defer ticker.Stop()
	for {
		unlock, mine, err := k.Store.Lock(ctx, id, patience)
		if err != nil {
			return nil, err
		}
		s, err := k.Store.Get(ctx, id, idle)
		done := err != nil || s == nil || !s.stale(time.Now())
		if mine && !done {
			s, err = k.ask(ctx, c, id, idle, s)
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

func (k *Keeper) ask(ctx context.Context, c Client, id string, idle time.Duration, s *Session) (*Session, error) {
	next, err := k.Provider.Refresh(ctx, c, s)
	if errors.Is(err, ErrRefused) {
		return nil, k.Store.Delete(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	if was, err := k.Store.Replace(ctx, id, next, idle); err != nil || !was {
		return nil, err
	}
	return next, nil
}
