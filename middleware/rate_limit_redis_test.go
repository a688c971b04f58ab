package middleware_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
	"github.com/sluice-gateway/sluice/middleware/store/storetest"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// onRedis limits to 20 a fixed window of ten months, so that none ends within
// a test.
func onRedis(onError string, more ...any) plugintest.Config {
	config := map[string]any{"limits": limits(every(20, "8000h")), "algorithm": "fixed_window", "store": "redis", "on_store_error": onError}
	for i := 0; i < len(more); i += 2 {
		config[more[i].(string)] = more[i+1]
	}
	return plugintest.Config{"rate_limit": config}
}

func TestGatewaysOnOneRedisCountTogether(t *testing.T) {
	server := testenv.StartRedis(t)
	one := plugintest.Start(t, plugintest.Case{Plugins: onRedis("deny"), Redis: storetest.Open(t, server.Addr, 500*time.Millisecond)})
	two := plugintest.Start(t, plugintest.Case{Plugins: onRedis("deny"), Redis: storetest.Open(t, server.Addr, 500*time.Millisecond)})
	through := 0
	for range 30 {
		through += passed(t, one, 1, "192.0.2.1") + passed(t, two, 1, "192.0.2.1")
	}
	if through != 20 {
		t.Errorf("%d passed, want 20", through)
	}
	if n := passed(t, two, 1, "192.0.2.2"); n != 1 {
		t.Error("another address was refused")
	}
	got := two.Do(from("192.0.2.1")).Response.Header()
	if got.Get("Retry-After") == "" || got.Get("RateLimit-Policy") != `"rate_limit-8000h";q=20;w=28800000` {
		t.Errorf("refused with %v", got)
	}
}

// outage is a way in which Redis goes away and comes back.
type outage struct {
	name      string
	off, back func(*testenv.Redis)
	// forgets says that what was counted is lost.
	forgets bool
}

func outages() []outage {
	return []outage{
		{"R1: it stands still", func(r *testenv.Redis) { r.Freeze() }, func(r *testenv.Redis) { r.Thaw() }, false},
		{"R2: it is killed and starts anew", func(r *testenv.Redis) { r.Kill() }, func(r *testenv.Redis) { r.Restart() }, true},
	}
}

func TestWhileRedisIsAwayOnStoreErrorDecides(t *testing.T) {
	for _, o := range outages() {
		for _, c := range []struct {
			onError string
			want    int // that pass of 50
			code    int // of those that do not
		}{{"local", 20, 429}, {"allow", 50, 0}, {"deny", 0, 503}} {
			t.Run(o.name+", "+c.onError, func(t *testing.T) {
				t.Parallel() // each waits for its own Redis
				server := testenv.StartRedis(t)
				shared := storetest.Open(t, server.Addr, 500*time.Millisecond)
				g := plugintest.Start(t, plugintest.Case{Plugins: onRedis(c.onError), Redis: shared})
				if n := passed(t, g, 50, "192.0.2.1"); n != 20 {
					t.Fatalf("%d passed, want 20", n)
				}
				o.off(server)
				through := 0
				for range 50 {
					got := g.Do(from("192.0.2.1"))
					if got.Forwarded != nil {
						through++
					} else if got.Response.Code != c.code {
						t.Errorf("got %d %s, want %d", got.Response.Code, got.Code(), c.code)
					} else if got.Response.Header().Get("Retry-After") == "" {
						t.Error("refused without Retry-After")
					}
				}
				if through != c.want {
					t.Errorf("%d passed while redis was away, want %d", through, c.want)
				}
				if !shared.Away() {
					t.Error("each request still waits for redis")
				}
				o.back(server)
				testenv.Eventually(t, 10*time.Second, "redis is used again", func() bool { return !shared.Away() })
				want := 0
				if o.forgets {
					want = 20
				}
				if n := passed(t, g, 50, "192.0.2.1"); n != want {
					t.Errorf("%d passed once redis was back, want %d", n, want)
				}
			})
		}
	}
}

func TestEachGatewayHasItsPartWhileRedisIsAway(t *testing.T) {
	server := testenv.StartRedis(t)
	g := plugintest.Start(t, plugintest.Case{Plugins: onRedis("local", "gateways", 3), Redis: storetest.Open(t, server.Addr, 500*time.Millisecond)})
	server.Kill()
	if n := passed(t, g, 50, "192.0.2.1"); n != 6 {
		t.Errorf("%d passed, want a third of 20", n)
	}
}

func TestR4AReplicaThatIsPromotedCountsForAll(t *testing.T) {
	primary := testenv.StartRedis(t, "--repl-diskless-sync-delay", "0")
	host, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		t.Fatal(err)
	}
	replica := testenv.StartRedis(t, "--replicaof", host, port)
	direct := redis.NewClient(&redis.Options{Addr: replica.Addr})
	defer direct.Close()
	before := plugintest.Start(t, plugintest.Case{Plugins: onRedis("local"), Redis: storetest.Open(t, primary.Addr, 500*time.Millisecond)})
	if n := passed(t, before, 15, "192.0.2.1"); n != 15 {
		t.Fatalf("%d passed, want 15", n)
	}
	testenv.Eventually(t, 20*time.Second, "the replica has the count", func() bool {
		keys := direct.Keys(t.Context(), "*}:fixed_window:*").Val()
		return len(keys) == 1 && strings.HasSuffix(direct.Get(t.Context(), keys[0]).Val(), " 15")
	})
	// A gateway whose address already leads to the one that is to be promoted.
	shared := storetest.Open(t, replica.Addr, 500*time.Millisecond)
	g := plugintest.Start(t, plugintest.Case{Plugins: onRedis("local"), Redis: shared})
	if n := passed(t, g, 30, "192.0.2.1"); n != 20 || !shared.Away() {
		t.Errorf("%d passed beside a replica, want 20 of its own; away: %v", n, shared.Away())
	}
	primary.Kill()
	if err := direct.ReplicaOf(t.Context(), "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 10*time.Second, "the promoted one is used", func() bool { return !shared.Away() })
	if n := passed(t, g, 30, "192.0.2.1"); n != 5 {
		t.Errorf("%d passed, want the 5 that were left", n)
	}
}

func TestALimitMovesToRedisAndBackWhileServing(t *testing.T) {
	server := testenv.StartRedis(t)
	g := plugintest.Start(t, plugintest.Case{Plugins: onRedis("local", "store", "local"), Redis: storetest.Open(t, server.Addr, 500*time.Millisecond)})
	if n := passed(t, g, 30, "192.0.2.1"); n != 20 {
		t.Errorf("%d passed here, want 20", n)
	}
	for i, want := range []int{20, 0} {
		if p := g.Configure(onRedis("local", "store", []string{"redis", "local"}[i])); p != nil {
			t.Fatal(p)
		}
		if n := passed(t, g, 30, "192.0.2.1"); n != want {
			t.Errorf("move %d: %d passed, want %d", i, n, want)
		}
	}
}
