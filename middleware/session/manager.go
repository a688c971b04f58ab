package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/alexedwards/scs/v2"
)

// login is the name of a Session among the values of one of scs.
const login = "login"

// errOver says that a session ended while it was being changed.
var errOver = errors.New("the session has ended")

// manager is how scs sees a store: it makes tokens, hashes them before the
// store sees them, and keeps the absolute end.
//
// It is a literal because scs.New starts a goroutine that cannot be stopped.
// scs's own idle timeout would write the session back on each request, and
// bring one back that a logout ended meanwhile; a Store's reading extends it.
func manager(store *adapter) *scs.SessionManager {
	return &scs.SessionManager{Store: store, Codec: codec{}, HashTokenInStore: true}
}

// adapter is a Store as scs wants one.
type adapter struct {
	Store
	idle time.Duration
	// begins is the session that is new; nil where it was there before.
	begins *Session
}

// FindCtx implements scs.CtxStore.
func (a *adapter) FindCtx(ctx context.Context, id string) ([]byte, bool, error) {
	data, err := a.Get(ctx, id, a.idle)
	return data, data != nil, err
}

// CommitCtx implements scs.CtxStore.
func (a *adapter) CommitCtx(ctx context.Context, id string, data []byte, _ time.Time) error {
	if a.begins != nil {
		return a.Put(ctx, id, a.begins, data, a.idle)
	}
	was, err := a.Replace(ctx, id, data, a.idle)
	if err == nil && !was {
		err = errOver
	}
	return err
}

// DeleteCtx implements scs.CtxStore.
func (a *adapter) DeleteCtx(ctx context.Context, id string) error { return a.Store.Delete(ctx, id) }

// Find implements scs.Store.
func (a *adapter) Find(id string) ([]byte, bool, error) { return a.FindCtx(context.Background(), id) }

// Commit implements scs.Store.
func (a *adapter) Commit(id string, data []byte, expiry time.Time) error {
	return a.CommitCtx(context.Background(), id, data, expiry)
}

// Delete implements scs.Store.
func (a *adapter) Delete(id string) error { return a.DeleteCtx(context.Background(), id) }

var _ scs.CtxStore = (*adapter)(nil)

// codec is the form in which a session is stored: JSON, which other versions
// can read.
type codec struct{}

type stored struct {
	Ends  time.Time `json:"ends"`
	Login *Session  `json:"login"`
}

// Encode implements scs.Codec.
func (codec) Encode(ends time.Time, values map[string]any) ([]byte, error) {
	s, _ := values[login].(*Session)
	return json.Marshal(stored{ends, s})
}

// Decode implements scs.Codec. What is no session, another version's or
// garbage, is one without a login.
func (codec) Decode(data []byte) (time.Time, map[string]any, error) {
	var s stored
	if unmarshal(data, &s) != nil || s.Login == nil || s.Login.Subject == "" || s.Ends.IsZero() {
		return time.Time{}, map[string]any{}, nil
	}
	s.Login.Ends = s.Ends
	return s.Ends, map[string]any{login: s.Login}, nil
}

func unmarshal(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(v)
}
