package keys_test

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sluice-gateway/sluice/middleware/keys"
)

// issuer plays who publishes keys. It runs inside a synctest bubble, whose
// clock is its own.
type issuer struct {
	t       testing.TB
	mu      sync.Mutex
	kids    []string
	err     error
	slow    time.Duration
	fetches []time.Time
	log     bytes.Buffer
	public  any
}

func newIssuer(t testing.TB, kids ...string) *issuer {
	return &issuer{t: t, kids: kids, public: &ecKey(t, elliptic.P256()).PublicKey}
}

func (i *issuer) set(kids ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kids, i.err = kids, nil
}

func (i *issuer) breaks(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.err = err
}

func (i *issuer) takes(d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.slow = d
}

func (i *issuer) fetch(ctx context.Context) (*keys.Set, error) {
	i.mu.Lock()
	i.fetches = append(i.fetches, time.Now())
	kids, err, slow := i.kids, i.err, i.slow
	i.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(slow):
	}
	if err != nil {
		return nil, err
	}
	var texts []string
	for _, kid := range kids {
		texts = append(texts, jwk(i.t, jose.JSONWebKey{Key: i.public, KeyID: kid}))
	}
	return keys.ParseJWKS(jwks(texts...))
}

func (i *issuer) asked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.fetches)
}

// follow starts a Remote that refreshes every five minutes.
func (i *issuer) follow() *keys.Remote {
	r := keys.NewRemote(keys.RemoteConfig{Fetch: i.fetch, Set: new(atomic.Pointer[keys.Set]), Interval: 5 * time.Minute,
		Timeout: 5 * time.Second, Close: func() {}, Name: "issuer", Log: slog.New(slog.NewTextHandler(&i.log, nil))})
	ctx, stop := context.WithCancel(i.t.Context())
	ended := make(chan struct{})
	go func() {
		r.Run(ctx)
		close(ended)
	}()
	i.t.Cleanup(func() { stop(); <-ended })
	return r
}

// holds says whether the newest set has the key.
func holds(t *testing.T, r *keys.Remote, kid string) bool {
	t.Helper()
	s, err := r.Get(t.Context())
	if err != nil {
		t.Fatalf("get the keys: %v", err)
	}
	return s.Has(kid)
}

// seek looks for a key and returns how long that took.
func seek(t *testing.T, r *keys.Remote, kid string) (bool, time.Duration) {
	t.Helper()
	begin := time.Now()
	s, err := r.Seek(t.Context(), kid)
	if err != nil {
		t.Fatalf("seek %q: %v", kid, err)
	}
	return s.Has(kid), time.Since(begin)
}

func TestRequestsWaitForTheFirstFetchOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "a")
		i.takes(time.Second)
		r := i.follow()
		begin := time.Now()
		if !holds(t, r, "a") || time.Since(begin) != time.Second {
			t.Errorf("the first request waited %s", time.Since(begin))
		}
		i.takes(4 * time.Second)
		time.Sleep(5 * time.Minute) // the second fetch is under way, or just over
		begin = time.Now()
		if !holds(t, r, "a") || time.Since(begin) != 0 {
			t.Errorf("a later request waited %s", time.Since(begin))
		}
	})
}

func TestRow63AFirstFetchThatFailsGivesNoKeysAndIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "a")
		i.breaks(errors.New("it answered 500"))
		r := i.follow()
		for range 3 {
			begin := time.Now()
			if _, err := r.Get(t.Context()); !errors.Is(err, keys.ErrNoKeys) || time.Since(begin) != 0 {
				t.Errorf("got %v after %s", err, time.Since(begin))
			}
		}
		time.Sleep(20 * time.Second)
		if n := i.asked(); n < 8 || n > 16 {
			t.Errorf("%d fetches in 20 s without keys", n)
		}
		i.set("a")
		time.Sleep(2 * time.Second)
		if !holds(t, r, "a") {
			t.Error("the issuer is back, and its keys are not there")
		}
		synctest.Wait()
		if log := i.log.String(); strings.Count(log, "cannot be fetched") != 1 || !strings.Contains(log, "can be fetched again") {
			t.Errorf("the log says %s", log)
		}
	})
}

func TestRow63TheLastGoodKeysStayWhileTheIssuerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "a")
		r := i.follow()
		if !holds(t, r, "a") {
			t.Fatal("the key is not there")
		}
		for _, broken := range []func(){
			func() { i.breaks(errors.New("it answered 500")) },
			func() { i.set() }, // an empty set
			func() { i.takes(time.Hour) },
		} {
			broken()
			before := i.asked()
			time.Sleep(time.Hour)
			if begin := time.Now(); !holds(t, r, "a") || time.Since(begin) != 0 {
				t.Error("the keys went with the issuer, or requests wait for it")
			}
			if n := i.asked() - before; n < 30 || n > 150 {
				t.Errorf("%d fetches in an hour of a broken issuer", n)
			}
		}
	})
}

func TestRow62AKeyTakenOutIsGoneWithinTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "old", "new")
		r := i.follow()
		before, err := r.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i.set("new")
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		after, err := r.Get(t.Context())
		if err != nil || after.Has("old") || !after.Has("new") || after.ID() == before.ID() {
			t.Errorf("the set still has the old key, or the same ID (%v)", err)
		}
	})
}

func TestANewKeyIsFoundByTheFirstTokenThatNamesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "old")
		r := i.follow()
		if holds(t, r, "new") {
			t.Fatal("the new key is there already")
		}
		i.takes(100 * time.Millisecond)
		i.set("old", "new")
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if found, took := seek(t, r, "new"); !found || took != 100*time.Millisecond {
					t.Errorf("found: %v after %s", found, took)
				}
			})
		}
		all.Wait()
		if n := i.asked(); n != 2 {
			t.Errorf("%d fetches, want the first and one for all who asked", n)
		}
	})
}

// TestRow61AStampedeOfUnknownKeysCostsOneFetchEach30s: a thousand made up
// names a second for ten minutes.
func TestRow61AStampedeOfUnknownKeysCostsOneFetchEach30s(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "a")
		i.takes(50 * time.Millisecond)
		r := i.follow()
		holds(t, r, "a")
		var all sync.WaitGroup
		for n := range 600 {
			for m := range 100 {
				all.Go(func() {
					if found, took := seek(t, r, fmt.Sprintf("made-up-%d-%d", n, m)); found || took > 50*time.Millisecond {
						t.Errorf("found: %v after %s", found, took)
					}
				})
			}
			begin := time.Now()
			if !holds(t, r, "a") || time.Since(begin) != 0 {
				t.Error("a good token had to wait")
			}
			time.Sleep(time.Second)
		}
		all.Wait()
		if n := i.asked(); n > 1+20+2 { // the first, one for each 30 s, and the regular ones
			t.Errorf("%d fetches in ten minutes", n)
		}
		for n, at := range i.fetches[1:] {
			if n > 0 && at.Sub(i.fetches[n]) < 25*time.Second {
				t.Errorf("two fetches within %s", at.Sub(i.fetches[n]))
			}
		}
	})
}

func TestRow61TheLimitIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "a")
		r := i.follow()
		holds(t, r, "a")
		seek(t, r, "x") // the fetch of these 30 s
		i.set("a", "b")
		for range 100 {
			if found, took := seek(t, r, "b"); found || took != 0 {
				t.Fatalf("found: %v after %s", found, took)
			}
		}
		time.Sleep(30 * time.Second)
		if found, _ := seek(t, r, "b"); !found {
			t.Error("the new key is not found once a fetch is allowed again")
		}
	})
}

func TestRow61AFloodOfUnknownKeysDoesNotPileUpBehindASlowIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "old")
		r := i.follow()
		if !holds(t, r, "old") {
			t.Fatal("the first keys are not there")
		}
		i.takes(4 * time.Second)
		ctx, leave := context.WithCancel(t.Context())
		var flood sync.WaitGroup
		var waited atomic.Int64
		ask := func(ctx context.Context, n int) {
			flood.Go(func() {
				begin := time.Now()
				_, _ = r.Seek(ctx, fmt.Sprintf("made up %d", n))
				if time.Since(begin) > 0 {
					waited.Add(1)
				}
			})
		}
		for n := range 3000 {
			ask(ctx, n)
		}
		synctest.Wait()
		<-time.After(time.Second)
		leave() // whoever waited makes room
		synctest.Wait()
		for n := range 10 {
			ask(t.Context(), 4000+n)
		}
		flood.Wait()
		if n := waited.Load(); n != 1010 {
			t.Errorf("%d waited for the issuer", n)
		}
	})
}

func TestAKeyThatTheIssuerDoesNotHaveIsNotAskedForAgainUntilTheNextRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "a")
		r := i.follow()
		holds(t, r, "a")
		for range 8 { // four minutes
			if found, _ := seek(t, r, "gone"); found {
				t.Error("a key that nobody has was found")
			}
			time.Sleep(30 * time.Second)
		}
		if n := i.asked(); n != 2 {
			t.Errorf("%d fetches, want two", n)
		}
		if _, took := seek(t, r, strings.Repeat("k", 257)); took != 0 || i.asked() != 2 {
			t.Error("a name longer than any key's was asked for")
		}
	})
}

// TestAKeyPublishedDuringAFetchIsNotTakenForAbsent: whoever joins a fetch
// under way learns nothing about a key that came after it began.
func TestAKeyPublishedDuringAFetchIsNotTakenForAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "a")
		r := i.follow()
		holds(t, r, "a")
		i.takes(2 * time.Second)
		var all sync.WaitGroup
		all.Go(func() { seek(t, r, "x") })
		time.Sleep(time.Second)
		i.set("a", "b")
		all.Go(func() { seek(t, r, "b") })
		all.Wait()
		time.Sleep(30 * time.Second)
		if found, _ := seek(t, r, "b"); !found {
			t.Error("the key counts as absent although no fetch since has looked for it")
		}
	})
}

func TestNobodyWaitsForAFetchThatWillNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "a")
		i.takes(4 * time.Second)
		r := keys.NewRemote(keys.RemoteConfig{Fetch: i.fetch, Set: new(atomic.Pointer[keys.Set]), Interval: time.Minute,
			Timeout: 5 * time.Second, Close: func() {}, Log: slog.New(slog.DiscardHandler)})
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { r.Run(ctx) })
		all.Go(func() {
			if _, err := r.Seek(t.Context(), "x"); !errors.Is(err, keys.ErrNoKeys) {
				t.Errorf("got %v", err)
			}
		})
		time.Sleep(time.Second)
		stop()
		all.Wait()
		begin := time.Now()
		if _, err := r.Seek(t.Context(), "y"); !errors.Is(err, keys.ErrNoKeys) || time.Since(begin) != 0 {
			t.Errorf("after the end: %v after %s", err, time.Since(begin))
		}
	})
}
