package limit

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/middleware/store"
	"github.com/sluice-gateway/sluice/middleware/store/storetest"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// direct is a client of the test's own.
func direct(t testing.TB, address string) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: address})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func take(t testing.TB, s *Shared, key string) Decision {
	t.Helper()
	d, err := s.Take(context.Background(), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSharedRulesAdmitWhatTheyHave(t *testing.T) {
	server := testenv.StartRedis(t)
	one, two := storetest.Open(t, server.Addr, time.Second), storetest.Open(t, server.Addr, time.Second)
	day := 24 * time.Hour
	for _, rules := range [][]Rule{
		{{Algorithm: TokenBucket, Requests: 7, Per: day, Burst: 7}},
		{{Algorithm: TokenBucket, Requests: 3, Per: day, Burst: 5}},
		{{Algorithm: FixedWindow, Requests: 6, Per: 300 * day}},
		{{Algorithm: SlidingWindow, Requests: 6, Per: day}},
		{{Algorithm: LeakyBucket, Requests: 86400, Per: day, Queue: 5, MaxWait: time.Minute}},
		{{Algorithm: TokenBucket, Requests: 5, Per: day, Burst: 5}, {Algorithm: TokenBucket, Requests: 9, Per: 30 * day, Burst: 9}},
	} {
		want := rules[0].Requests
		switch rules[0].Algorithm {
		case TokenBucket:
			want = rules[0].Burst
		case LeakyBucket:
			want = rules[0].Queue + 1
		}
		limiters := []*Shared{NewShared(one, "scope", Sort(rules)), NewShared(two, "scope", Sort(rules))}
		passed := 0
		for i := range 3 * want {
			d := take(t, limiters[i%2], "a")
			if !d.Allowed {
				if i != want || d.RetryAfter <= 0 || d.Remaining != 0 || d.Reset != d.RetryAfter || d.Wait != 0 {
					t.Errorf("%v: request %d got %+v", rules, i, d)
				}
				break
			}
			if passed++; d.Remaining != want-passed || d.Reset <= 0 {
				t.Errorf("%v: after %d passed %+v", rules, passed, d)
			}
			waits := rules[0].Algorithm == LeakyBucket && i > 0
			if waits != (d.Wait > 0) {
				t.Errorf("%v: request %d waits %s", rules, i, d.Wait)
			}
		}
		if passed != want {
			t.Errorf("%v: %d passed, want %d", rules, passed, want)
		}
		if !take(t, limiters[0], "b").Allowed || !take(t, NewShared(one, "elsewhere", Sort(rules)), "a").Allowed {
			t.Errorf("%v: another key or scope was refused", rules)
		}
	}
}

func TestARefusalTakesNothingFromTheOtherRules(t *testing.T) {
	r := storetest.Open(t, testenv.StartRedis(t).Addr, time.Second)
	for _, a := range []Algorithm{TokenBucket, FixedWindow, SlidingWindow} {
		narrow := Rule{Algorithm: a, Requests: 2, Per: 24 * time.Hour, Burst: 2}
		wide := Rule{Algorithm: a, Requests: 5, Per: 365 * 24 * time.Hour, Burst: 5}
		both := NewShared(r, "scope", Sort([]Rule{narrow, wide}))
		for range 10 {
			take(t, both, "a")
		}
		alone := NewShared(r, "scope", []Rule{wide})
		if d := take(t, alone, "a"); !d.Allowed || d.Remaining != 2 {
			t.Errorf("%s: after two that passed and eight that did not, the other rule says %+v", a, d)
		}
	}
}

func TestKeysShareASlotAndExpire(t *testing.T) {
	server := testenv.StartRedis(t)
	r, c := storetest.Open(t, server.Addr, time.Second), direct(t, server.Addr)
	for _, a := range Algorithms() {
		rules := Sort([]Rule{
			{Algorithm: a, Requests: 5, Per: time.Second, Burst: 5, Queue: 5, MaxWait: time.Minute},
			{Algorithm: a, Requests: 100, Per: time.Minute, Burst: 100, Queue: 5, MaxWait: time.Minute},
		})
		s := NewShared(r, "scope", rules)
		take(t, s, "s3cret")
		for _, key := range s.keys([]byte("s3cret")) {
			ttl := c.PTTL(t.Context(), key).Val()
			if ttl <= 0 || ttl > 61*time.Second+time.Millisecond {
				t.Errorf("%s lives for %s", key, ttl)
			}
			if strings.Contains(key, "s3cret") {
				t.Errorf("%s holds the key in clear", key)
			}
		}
	}
	names := c.Keys(t.Context(), "*").Val()
	if len(names) != 8 {
		t.Errorf("redis keeps %q", names)
	}
	for _, n := range names {
		tag := n[strings.Index(n, "{")+1 : strings.Index(n, "}")]
		if n[strings.Index(n, "{")-1] != ':' || len(tag) != 24 {
			t.Errorf("%s has no hash tag of its own", n)
		}
	}
}

func TestR7WhatIsNotOfOurMakingCountsAsNothing(t *testing.T) {
	server := testenv.StartRedis(t)
	r, c := storetest.Open(t, server.Addr, time.Second), direct(t, server.Addr)
	for _, a := range Algorithms() {
		rule := Rule{Algorithm: a, Requests: 5, Per: 24 * time.Hour, Burst: 5, Queue: 5, MaxWait: time.Minute}
		s := NewShared(r, "scope", []Rule{rule})
		key := s.keys([]byte("a"))[0]
		for _, bad := range []string{"", "garbage", "1 2 3", "9e99", "-1", "99999999999999999 4"} {
			if a == SlidingWindow {
				c.Del(t.Context(), key)
				c.RPush(t.Context(), key, bad)
			} else {
				c.Set(t.Context(), key, bad, 0)
			}
			d, err := s.Take(t.Context(), []byte("a"))
			if err != nil {
				t.Errorf("%s: with %q there: %v", a, bad, err)
			}
			// A time far ahead is one that a clock set back has left: the bucket
			// is full, and empties again.
			if far := bad == "9e99" && (a == TokenBucket || a == LeakyBucket); d.Allowed == far {
				t.Errorf("%s: with %q there: %+v", a, bad, d)
			} else if far && d.RetryAfter > 6*time.Hour {
				t.Errorf("%s: with %q there everybody is locked out for %s", a, bad, d.RetryAfter)
			}
		}
	}
}

func TestR2TheScriptIsSentAgainToARedisThatForgotIt(t *testing.T) {
	server := testenv.StartRedis(t)
	s := NewShared(storetest.Open(t, server.Addr, time.Second), "scope", []Rule{{Algorithm: FixedWindow, Requests: 100, Per: 300 * 24 * time.Hour}})
	c := direct(t, server.Addr)
	for i := range 3 {
		if d := take(t, s, "a"); d.Remaining != 99-i {
			t.Errorf("after %d requests: %+v", i+1, d)
		}
		if err := c.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestR3ARequestThatTimedOutIsCountedOnceAtMost(t *testing.T) {
	server := testenv.StartRedis(t)
	r := storetest.Open(t, server.Addr, time.Second)
	s := NewShared(r, "scope", []Rule{{Algorithm: FixedWindow, Requests: 1000, Per: 300 * 24 * time.Hour}})
	testenv.Eventually(t, 10*time.Second, "redis answers", func() bool {
		_, err := s.Take(t.Context(), []byte("warm"))
		return err == nil
	})
	server.Freeze()
	asked := 0
	for ; !r.Away() && asked < 50; asked++ {
		if _, err := s.Take(t.Context(), []byte("a")); err == nil {
			t.Fatal("a frozen Redis decided")
		}
	}
	server.Thaw()
	testenv.Eventually(t, 10*time.Second, "redis is back", func() bool { return !r.Away() })
	d := take(t, s, "a")
	if counted := 1000 - d.Remaining; counted > asked+1 {
		t.Errorf("%d requests were counted as %d", asked+1, counted)
	}
}

// pass is a request that passed: Redis's clock stood between the two.
type pass struct{ before, after time.Time }

// hammer asks as fast as it can from two limiters for d, and returns what
// passed by when it was asked for.
func hammer(t *testing.T, limiters []*Shared, d time.Duration) (all []pass, end time.Time) {
	t.Helper()
	var mu sync.Mutex
	var asking sync.WaitGroup
	end = time.Now().Add(d)
	for _, s := range limiters {
		for range 2 {
			asking.Go(func() {
				for time.Now().Before(end) {
					before := time.Now()
					decision, err := s.Take(context.Background(), []byte("a"))
					if err != nil {
						t.Errorf("redis failed: %v", err)
						return
					}
					if decision.Allowed {
						mu.Lock()
						all = append(all, pass{before, time.Now()})
						mu.Unlock()
					}
				}
			})
		}
	}
	asking.Wait()
	slices.SortFunc(all, func(a, b pass) int { return a.before.Compare(b.before) })
	return all, end
}

func TestR6TwoLimitersOnOneRedisAdmitTheLimitTogether(t *testing.T) {
	server := testenv.StartRedis(t)
	stores := []*store.Redis{storetest.Open(t, server.Addr, time.Second), storetest.Open(t, server.Addr, time.Second)}
	const limit, per = 100, time.Second
	for _, rule := range []Rule{
		{Algorithm: FixedWindow, Requests: limit, Per: per},
		{Algorithm: SlidingWindow, Requests: limit, Per: per},
		{Algorithm: TokenBucket, Requests: limit, Per: per, Burst: limit},
		{Algorithm: LeakyBucket, Requests: limit, Per: per, Queue: limit, MaxWait: 2 * per},
	} {
		t.Run(string(rule.Algorithm), func(t *testing.T) {
			limiters := []*Shared{NewShared(stores[0], "s", []Rule{rule}), NewShared(stores[1], "s", []Rule{rule})}
			begin := time.Now()
			all, end := hammer(t, limiters, 3200*time.Millisecond)
			// Over: whatever was asked and answered within a stretch passed in it.
			for i, p := range all {
				within := 0
				for _, q := range all[i:] {
					if rule.Algorithm == FixedWindow && !q.after.Truncate(per).Equal(p.before.Truncate(per)) {
						continue // the clocks of one machine agree
					}
					if q.after.Sub(p.before) < per {
						within++
					}
				}
				most := limit
				if rule.Algorithm == TokenBucket || rule.Algorithm == LeakyBucket {
					most += limit + 1 // the bucket or the queue, and the one that begins
				}
				if within > most {
					t.Fatalf("%d passed within %s of %s, at most %d may", within, per, p.before, most)
				}
			}
			// Under: somebody asked all the time.
			seconds := end.Sub(begin).Seconds()
			least := int(math.Floor(seconds)*limit) - 1
			if rule.Algorithm == FixedWindow {
				least -= limit // the stretch covers two windows in part
			}
			if len(all) < least {
				t.Errorf("%d passed in %.2f s, at least %d should have", len(all), seconds, least)
			}
			t.Logf("%d passed in %.2f s", len(all), seconds)
			if rule.Algorithm == FixedWindow {
				wholeWindows(t, all, begin, end, per, limit)
			}
		})
	}
}

// wholeWindows checks that windows in which somebody always asked were used up.
func wholeWindows(t *testing.T, all []pass, begin, end time.Time, per time.Duration, limit int) {
	t.Helper()
	for w := begin.Truncate(per).Add(per); !w.Add(per).After(end); w = w.Add(per) {
		n, edge := 0, 0
		for _, p := range all {
			in, out := p.before.Truncate(per).Equal(w), p.after.Truncate(per).Equal(w)
			if in && out {
				n++
			} else if in != out {
				edge++
			}
		}
		if n > limit || n+edge < limit {
			t.Errorf("the window %s admitted %d and at most %d more, want %d", w, n, edge, limit)
		}
	}
}

func TestADecisionRunsOnACluster(t *testing.T) {
	node := testenv.StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(testenv.FreePort(t)))
	if err := direct(t, node.Addr).ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	cfg := store.Default()
	cfg.Address, cfg.Cluster, cfg.Timeout = node.Addr, true, time.Second
	r, err := store.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	storetest.Run(t, r)
	ask := func(s *Shared, key string) (d Decision, err error) {
		return s.Take(context.Background(), []byte(key))
	}
	for _, a := range []Algorithm{TokenBucket, LeakyBucket, FixedWindow, SlidingWindow} {
		s := NewShared(r, "cluster", Sort([]Rule{
			{Algorithm: a, Requests: 3, Per: 8000 * time.Hour, Burst: 3, Queue: 2, MaxWait: time.Hour * 8000},
			{Algorithm: a, Requests: 5, Per: 9000 * time.Hour, Burst: 5, Queue: 4, MaxWait: time.Hour * 8000},
		}))
		testenv.Eventually(t, 10*time.Second, "the cluster decides", func() bool { _, err := ask(s, "first"); return err == nil })
		passed := 0
		for range 10 {
			if d, err := ask(s, "a"); err != nil {
				t.Fatal(err)
			} else if d.Allowed {
				passed++
			}
		}
		if passed != 3 {
			t.Errorf("%s: %d passed, want 3", a, passed)
		}
	}
}

func TestR6ManyAtOnceOnTwoGatewaysAreAdmittedExactly(t *testing.T) {
	server := testenv.StartRedis(t)
	var limiters []*Shared
	for range 2 {
		limiters = append(limiters, NewShared(storetest.Open(t, server.Addr, 5*time.Second), "s",
			[]Rule{{Algorithm: FixedWindow, Requests: 150, Per: 300 * 24 * time.Hour}}))
	}
	c := direct(t, server.Addr)
	var asking sync.WaitGroup
	var passed atomic.Int64
	left := make([]atomic.Int64, 150) // how often each count was told
	for i := range 400 {
		asking.Go(func() {
			if i == 200 {
				c.ScriptFlush(t.Context())
			}
			d, err := limiters[i%2].Take(t.Context(), []byte("a"))
			if err != nil {
				t.Errorf("redis failed: %v", err)
			} else if d.Allowed {
				passed.Add(1)
				left[d.Remaining].Add(1)
			}
		})
	}
	asking.Wait()
	if passed.Load() != 150 {
		t.Errorf("%d of 400 passed, want 150", passed.Load())
	}
	for i := range left {
		if n := left[i].Load(); n != 1 {
			t.Errorf("%d were told that %d are left", n, i)
		}
	}
}
