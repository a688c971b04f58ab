package bots

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func usual() *Rules {
	return &Rules{MinRequests: 20, Window: time.Minute, MaxRate: 10, Threshold: 60, BlockFor: 10 * time.Minute}
}

func ip(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

// run sends requests until the client is blocked, and returns how many passed
// and the highest score.
func run(c *Clients, rules *Rules, requests int, next func(i int) (wait time.Duration, path string, failed bool)) (passed, most int) {
	for i := range requests {
		wait, path, failed := next(i)
		time.Sleep(wait)
		v := c.Arrive(ip(1), path, rules)
		most = max(most, v.Score)
		if v.Blocked > 0 {
			return i, most
		}
		if failed {
			c.Failed(v)
		}
	}
	return requests, most
}

func TestScriptsAreBlockedAndPeopleAreNot(t *testing.T) {
	const all = 2000
	for _, c := range []struct {
		name string
		bot  bool
		next func(*rand.Rand) func(i int) (time.Duration, string, bool)
	}{
		{"a scraper that asks for a page a second", true, func(*rand.Rand) func(int) (time.Duration, string, bool) {
			return func(i int) (time.Duration, string, bool) { return time.Second, fmt.Sprint("/items/", i), false }
		}},
		{"one that waits a little longer or shorter each time", true, func(r *rand.Rand) func(int) (time.Duration, string, bool) {
			return func(i int) (time.Duration, string, bool) {
				return 400*time.Millisecond + time.Duration(r.IntN(200))*time.Millisecond, fmt.Sprint("/items/", i), false
			}
		}},
		{"one that goes as fast as it can", true, func(r *rand.Rand) func(int) (time.Duration, string, bool) {
			return func(i int) (time.Duration, string, bool) {
				return time.Duration(10+r.IntN(60)) * time.Millisecond, fmt.Sprint("/items/", i), false
			}
		}},
		{"a scanner for what is not there", true, func(r *rand.Rand) func(int) (time.Duration, string, bool) {
			return func(i int) (time.Duration, string, bool) {
				return time.Duration(200+r.IntN(300)) * time.Millisecond, fmt.Sprint("/", i, ".php"), true
			}
		}},
		{"a guesser of passwords", true, func(*rand.Rand) func(int) (time.Duration, string, bool) {
			return func(int) (time.Duration, string, bool) { return 500 * time.Millisecond, "/login", true }
		}},
		{"a person who reads", false, func(r *rand.Rand) func(int) (time.Duration, string, bool) {
			return func(i int) (time.Duration, string, bool) {
				return time.Duration(4 * math.Exp(1.2*r.NormFloat64()) * float64(time.Second)), fmt.Sprint("/page/", r.IntN(40)), i%30 == 0
			}
		}},
		{"a person whose pages bring thirty files each", false, func(r *rand.Rand) func(int) (time.Duration, string, bool) {
			return func(i int) (time.Duration, string, bool) {
				if i%31 == 0 {
					return time.Duration(15 * math.Exp(r.NormFloat64()) * float64(time.Second)), fmt.Sprint("/page/", i), false
				}
				return time.Duration(r.IntN(8)) * time.Millisecond, fmt.Sprint("/files/", i%31+r.IntN(2)), false
			}
		}},
		{"an office behind one address", false, func(r *rand.Rand) func(int) (time.Duration, string, bool) {
			return func(i int) (time.Duration, string, bool) {
				return time.Duration(r.ExpFloat64() * 0.4 * float64(time.Second)), fmt.Sprint("/page/", r.IntN(60)), r.IntN(25) == 0
			}
		}},
		{"a page that asks for news every five seconds", false, func(*rand.Rand) func(int) (time.Duration, string, bool) {
			return func(int) (time.Duration, string, bool) { return 5 * time.Second, "/news", false }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(5) {
				synctest.Test(t, func(t *testing.T) {
					passed, most := run(New(100), usual(), all, c.next(rand.New(rand.NewPCG(seed, 1))))
					if (passed < all) != c.bot {
						t.Errorf("seed %d: %d of %d passed, with a score of at most %d", seed, passed, all, most)
					}
				})
			}
		})
	}
}

// scrape makes the client a suspect.
func scrape(i int) (time.Duration, string, bool) { return time.Second, fmt.Sprint("/items/", i), false }

func TestABlockEndsAndTheClientBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, rules := New(100), usual()
		first, _ := run(c, rules, 200, scrape)
		if first == 200 {
			t.Fatal("the scraper was not blocked")
		}
		time.Sleep(rules.BlockFor - time.Second)
		if v := c.Arrive(ip(1), "/", rules); v.Blocked != time.Second || !v.Suspect {
			t.Errorf("a second before the end: %+v", v)
		}
		if v := c.Arrive(ip(2), "/", rules); v.Blocked != 0 {
			t.Errorf("another client: %+v", v)
		}
		time.Sleep(time.Second)
		if v := c.Arrive(ip(1), "/", rules); v.Blocked != 0 || v.Score != 0 {
			t.Errorf("at the end: %+v", v)
		}
		if again, _ := run(c, rules, 200, scrape); again == 200 || again < rules.MinRequests-2 {
			t.Errorf("%d requests passed the second time", again)
		}
	})
}

func TestNobodyIsBlockedWhereTheRulesDoNotSaySo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, rules := New(100), usual()
		_, _ = run(c, rules, 200, scrape)
		rules.BlockFor = 0 // a live change
		if v := c.Arrive(ip(1), "/", rules); v.Blocked != 0 {
			t.Errorf("still blocked: %+v", v)
		}
		passed, most := run(c, rules, 200, scrape)
		if passed != 200 || most < rules.Threshold {
			t.Errorf("%d passed, with a score of at most %d", passed, most)
		}
	})
}

func TestTheClientSeenLeastRecentlyMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, rules := New(160), usual()
		passed, _ := run(c, rules, 200, scrape)
		if passed == 200 {
			t.Fatal("the scraper was not blocked")
		}
		for i := range 10_000 {
			c.Arrive(ip(1000+i), "/", rules)
			if i%5 == 0 { // it is seen all the while
				if v := c.Arrive(ip(1), "/", rules); v.Blocked == 0 {
					t.Fatalf("after %d others it is no longer known", i)
				}
			}
		}
		if n := c.Len(); n > 160 || n < 150 {
			t.Errorf("%d clients are known, want up to 160", n)
		}
		for i := range 10_000 {
			c.Arrive(ip(100_000+i), "/", rules)
		}
		if v := c.Arrive(ip(1), "/", rules); v.Blocked != 0 {
			t.Error("it is still known though so many came after it")
		}
	})
}

func TestAFailureIsNotedOnItsOwnRequestOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, rules := New(16), usual()
		old := c.Arrive(ip(1), "/", rules)
		c.Failed(old)
		if cl := c.shard(ip(1)).clients[ip(1)]; !cl.ring[0].failed {
			t.Error("the failure was not noted")
		}
		for range recent {
			c.Arrive(ip(1), "/", rules)
		}
		c.Failed(old) // its place is another's by now
		c.Failed(Visit{})
		cl := c.shard(ip(1)).clients[ip(1)]
		for i, r := range cl.ring {
			if r.failed {
				t.Errorf("request %d of the last ones failed", i)
			}
		}
	})
}

func TestIPv6ClientsAreToldApartByTheirNetwork(t *testing.T) {
	a := netip.MustParseAddr
	if subscriber(a("2001:db8::1")) != subscriber(a("2001:db8::ffff:1")) || subscriber(a("2001:db8::1")) == subscriber(a("2001:db8:0:1::1")) {
		t.Error("a /64 is one client")
	}
	if subscriber(a("10.0.0.1")) == subscriber(a("10.0.0.2")) || subscriber(netip.Addr{}) != (netip.Addr{}) {
		t.Error("each IPv4 address is one client")
	}
}

func TestClientsMayArriveAtOnce(t *testing.T) {
	c, rules := New(64), usual()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				c.Failed(c.Arrive(ip(i*g%200), "/", rules))
			}
		})
	}
	wg.Wait()
	if n := c.Len(); n > 64 {
		t.Errorf("%d clients are known, want at most 64", n)
	}
}

func BenchmarkArrive(b *testing.B) {
	c, rules := New(10_000), usual()
	rules.BlockFor = 0
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := rand.IntN(1000); pb.Next(); i++ {
			c.Arrive(ip(i%1000), "/items/7", rules)
		}
	})
}
