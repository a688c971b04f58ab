package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/middleware/session"
	"github.com/sluice-gateway/sluice/middleware/store/storetest"
	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stores are all there are; what holds for one holds for the other.
func stores(t *testing.T, f func(t *testing.T, s session.Store)) {
	t.Run("memory", func(t *testing.T) { f(t, session.NewMemory()) })
	t.Run("redis", func(t *testing.T) {
		f(t, session.NewRedis(storetest.Open(t, testenv.StartRedis(t).Addr, time.Second), "test"))
	})
}

func login(subject, sid string) *session.Session {
	return &session.Session{Subject: subject, SID: sid, Scopes: []string{"openid"}, IDToken: "i", RefreshToken: "r",
		Claims: map[string]any{"n": json.Number("12345678901234567890"), "l": []any{"a"}},
		Fresh:  time.Now().Add(time.Minute).Round(0), Ends: time.Now().Add(time.Hour).Round(0)}
}

// put keeps a session whose data is its subject and sid.
func put(t *testing.T, s session.Store, id string, who *session.Session) {
	t.Helper()
	must(t, s.Put(t.Context(), id, who, []byte(who.Subject+who.SID), time.Minute))
}

func has(t *testing.T, s session.Store, id string) bool {
	t.Helper()
	got, err := s.Get(t.Context(), id, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return got != nil
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestASessionComesBackAsItWas(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		k := session.NewKeeper(nil, s, "c", nil)
		ctx, want := t.Context(), login("alice", "1")
		token, err := k.Begin(ctx, "", want, time.Minute)
		must(t, err)
		got, err := k.Find(ctx, session.Client{}, token, time.Minute)
		must(t, err)
		if got == nil || !got.Ends.Equal(want.Ends) || !got.Fresh.Equal(want.Fresh) {
			t.Fatalf("got %+v", got)
		}
		got.Ends, got.Fresh = want.Ends, want.Fresh // of another location
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if has(t, s, token) {
			t.Error("who reads the store can read tokens")
		}
		ended, err := k.End(ctx, token, time.Minute)
		must(t, err)
		if ended == nil || ended.Subject != "alice" {
			t.Errorf("what ended is %+v", ended)
		}
		for _, none := range []string{token, "", "b"} {
			if got, err := k.Find(ctx, session.Client{}, none, time.Minute); got != nil || err != nil {
				t.Errorf("%q, which nobody has, is %+v, %v", none, got, err)
			}
			if got, err := k.End(ctx, none, time.Minute); got != nil || err != nil {
				t.Errorf("%q, which nobody has, ended %+v, %v", none, got, err)
			}
		}
	})
}

func TestALoginEndsTheSessionThatTheBrowserCameWith(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		k, ctx := session.NewKeeper(nil, s, "c", nil), t.Context()
		first, err := k.Begin(ctx, "", login("mallory", "1"), time.Minute)
		must(t, err)
		second, err := k.Begin(ctx, first, login("alice", "2"), time.Minute)
		must(t, err)
		third, err := k.Begin(ctx, "no session", login("alice", "3"), time.Minute)
		must(t, err)
		for token, want := range map[string]string{first: "", second: "2", third: "3"} {
			got, err := k.Find(ctx, session.Client{}, token, time.Minute)
			must(t, err)
			if got == nil && want != "" || got != nil && got.SID != want {
				t.Errorf("the login %q is %+v", want, got)
			}
		}
	})
}

func TestARefreshDoesNotUndoALogout(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		ctx := t.Context()
		put(t, s, "a", login("alice", "1"))
		was, err := s.Replace(ctx, "a", []byte("alice2"), time.Minute)
		if must(t, err); !was {
			t.Error("a session that is there is not replaced")
		}
		got, err := s.Get(ctx, "a", time.Minute)
		if must(t, err); string(got) != "alice2" {
			t.Errorf("after it the session is %s", got)
		}
		must(t, s.Delete(ctx, "a"), s.Delete(ctx, "a"))
		was, err = s.Replace(ctx, "a", []byte("alice3"), time.Minute)
		if must(t, err); was || has(t, s, "a") {
			t.Error("a session that has ended came back")
		}
	})
}

func TestAStoreEndsWhatTheIssuerNames(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		ctx := t.Context()
		put(t, s, "a1", login("alice", "1"))
		put(t, s, "a2", login("alice", "2"))
		put(t, s, "a3", login("alice", ""))
		put(t, s, "b", login("bob", "3"))
		must(t, s.End(ctx, "1", "alice"))
		if has(t, s, "a1") || !has(t, s, "a2") || !has(t, s, "a3") || !has(t, s, "b") {
			t.Error("the end of one login is not that of one session")
		}
		must(t, s.End(ctx, "", "alice"), s.End(ctx, "", "nobody"), s.End(ctx, "9", ""))
		if has(t, s, "a2") || has(t, s, "a3") || !has(t, s, "b") {
			t.Error("the end of a user's logins is not that of all their sessions, and of no others")
		}
	})
}

func TestAStoreSeesANameOnce(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		for i, want := range []bool{true, false, false} {
			if first, err := s.Once(t.Context(), "n", time.Minute); err != nil || first != want {
				t.Errorf("time %d: got %v, %v", i+1, first, err)
			}
		}
		if first, err := s.Once(t.Context(), "m", time.Minute); err != nil || !first {
			t.Errorf("another name: got %v, %v", first, err)
		}
	})
}

func TestOnlyOneHoldsALock(t *testing.T) {
	stores(t, func(t *testing.T, s session.Store) {
		ctx := t.Context()
		unlock, ok, err := s.Lock(ctx, "a", time.Minute)
		if must(t, err); !ok {
			t.Fatal("a free lock is not given")
		}
		if _, ok, err := s.Lock(ctx, "a", time.Minute); ok || err != nil {
			t.Errorf("a second one got %v, %v", ok, err)
		}
		if other, ok, err := s.Lock(ctx, "b", time.Minute); !ok || err != nil {
			t.Errorf("another id got %v, %v", ok, err)
		} else {
			other()
		}
		unlock()
		if again, ok, err := s.Lock(ctx, "a", time.Minute); !ok || err != nil {
			t.Errorf("after it was given back: %v, %v", ok, err)
		} else {
			again()
		}
	})
}

func TestR7AValueThatIsNoSessionIsNone(t *testing.T) {
	r := storetest.Open(t, testenv.StartRedis(t).Addr, time.Second)
	k := session.NewKeeper(nil, session.NewRedis(r, "test"), "c", nil)
	token, err := k.Begin(t.Context(), "", login("alice", "1"), time.Minute)
	must(t, err)
	for _, value := range []string{"", "{", "null", "[]", `{"login":1}`, `{"login":{"sub":"a"}}`, `{"ends":"2999-01-01T00:00:00Z"}`,
		`{"ends":"2999-01-01T00:00:00Z","login":{"sub":""}}`, `{"v":2,"who":"a"}`, "\x00\xff"} {
		err := r.Do(t.Context(), func(ctx context.Context, c redis.UniversalClient) error {
			keys, err := c.Keys(ctx, "sluice:session:test:id:*").Result()
			if len(keys) != 1 {
				t.Fatalf("the sessions are %v, %v", keys, err)
			}
			return c.Set(ctx, keys[0], value, 0).Err()
		})
		must(t, err)
		if got, err := k.Find(t.Context(), session.Client{}, token, time.Minute); got != nil || err != nil {
			t.Errorf("%q is the session %+v, %v", value, got, err)
		}
	}
}

func TestSessionsInRedisEndByThemselves(t *testing.T) {
	r := storetest.Open(t, testenv.StartRedis(t).Addr, time.Second)
	s := session.NewRedis(r, "test")
	put(t, s, "a", login("alice", "1"))
	_, err := s.Once(t.Context(), "n", time.Minute)
	must(t, err)
	if !has(t, s, "a") {
		t.Fatal("it is not there")
	}
	err = r.Do(t.Context(), func(ctx context.Context, c redis.UniversalClient) error {
		keys, err := c.Keys(ctx, "*").Result()
		if len(keys) != 4 {
			t.Errorf("the keys are %v", keys)
		}
		for _, key := range keys {
			if ttl := c.TTL(ctx, key).Val(); ttl <= 0 || ttl > time.Hour {
				t.Errorf("%s ends in %s", key, ttl)
			}
		}
		return err
	})
	must(t, err)
}

func TestRow64ARedisThatIsAwayIsNoStore(t *testing.T) {
	server := testenv.StartRedis(t)
	s := session.NewRedis(storetest.Open(t, server.Addr, time.Second), "test")
	put(t, s, "a", login("alice", "1"))
	server.Kill()
	if got, err := s.Get(t.Context(), "a", time.Minute); err == nil || got != nil {
		t.Errorf("it gave %v, %v", got, err)
	}
	if first, err := s.Once(t.Context(), "n", time.Minute); err == nil || first {
		t.Errorf("a name was seen: %v, %v", first, err)
	}
	if _, ok, err := s.Lock(t.Context(), "a", time.Minute); err == nil || ok {
		t.Errorf("a lock was given: %v, %v", ok, err)
	}
}

func TestASessionIsOneRoundTrip(t *testing.T) {
	r := storetest.Open(t, testenv.StartRedis(t).Addr, time.Second)
	s := session.NewRedis(r, "test")
	k := session.NewKeeper(nil, s, "c", nil)
	token, err := k.Begin(t.Context(), "", login("alice", "1"), time.Minute)
	must(t, err)
	commands := func() (n int) {
		err := r.Do(t.Context(), func(ctx context.Context, c redis.UniversalClient) error {
			text, err := c.Info(ctx, "stats").Result()
			for line := range strings.Lines(text) {
				if v, ok := strings.CutPrefix(line, "total_commands_processed:"); ok {
					n, err = strconv.Atoi(strings.TrimSpace(v))
				}
			}
			return err
		})
		must(t, err)
		return n
	}
	before := commands()
	for range 10 {
		if got, err := k.Find(t.Context(), session.Client{}, token, time.Minute); got == nil || err != nil {
			t.Fatal(got, err)
		}
	}
	if n := commands() - before - 1; n != 10 { // the count itself is one
		t.Errorf("10 requests are %d commands", n)
	}
}
