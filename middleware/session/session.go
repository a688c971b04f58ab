package session

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrAway says that the issuer cannot be asked now.
	ErrAway = errors.New("the issuer is away")
	// ErrRefused says that the issuer, or what it sent, does not let the user in.
	ErrRefused = errors.New("the login was refused")
	// ErrFull says that no more sessions are kept.
	ErrFull = errors.New("too many sessions are kept in memory")
)

// Session is one login of one user. It is immutable; a refresh puts another
// in its place.
type Session struct {
	Subject string `json:"sub"`
	// SID is the issuer's name for the login; "" where it gives none.
	SID string `json:"sid,omitempty"`
	// Claims are those of the ID token; a number is a json.Number, since a
	// float64 does not hold every identifier.
	Claims map[string]any `json:"claims"`
	Scopes []string       `json:"scopes,omitempty"`
	// IDToken tells the issuer who logs out.
	IDToken      string `json:"id_token,omitempty"`
	RefreshToken string `json:"refresh_token,omitempty"`
	// Fresh is until when the issuer need not be asked again; the zero time
	// for as long as the session lasts.
	Fresh time.Time `json:"fresh,omitzero"`
	// Ends is when it ends, whatever happens.
	Ends time.Time `json:"-"`
}

// stale says whether the issuer has to be asked about s.
func (s *Session) stale(now time.Time) bool {
	return s.RefreshToken != "" && !s.Fresh.IsZero() && now.After(s.Fresh)
}

// Store keeps what scs makes of sessions, by the digests of their tokens: who
// reads the store cannot take a session over. A session that nobody asks for
// ends after the idle time it was last got or put with.
type Store interface {
	// Get returns a session's data, nil where there is none.
	Get(ctx context.Context, id string, idle time.Duration) ([]byte, error)
	// Put keeps the data of s, a new session.
	Put(ctx context.Context, id string, s *Session, data []byte, idle time.Duration) error
	// Replace puts data in the place of the session of that id, and says
	// whether there still was one: a logout must not be undone.
	Replace(ctx context.Context, id string, data []byte, idle time.Duration) (bool, error)
	Delete(ctx context.Context, id string) error
	// End deletes the sessions of a login at the issuer, or, where sid is "",
	// all those of a subject.
	End(ctx context.Context, sid, subject string) error
	// Once says whether name is seen for the first time in ttl.
	Once(ctx context.Context, name string, ttl time.Duration) (bool, error)
	// Lock keeps others from refreshing the session of that id until unlock
	// is called or ttl has passed. ok is false while somebody else does.
	Lock(ctx context.Context, id string, ttl time.Duration) (unlock func(), ok bool, err error)
}
