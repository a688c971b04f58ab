package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
)

// from makes a request of an address.
func from(address string) *http.Request {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(address), 1234).String()
	return r
}

// limits writes a limits field, of maps "requests per".
func limits(entries ...map[string]any) []any {
	list := make([]any, len(entries))
	for i, e := range entries {
		list[i] = e
	}
	return list
}

func every(requests int, per string) map[string]any {
	return map[string]any{"requests": requests, "per": per}
}

// passed sends n requests of an address at once and counts those that passed;
// any other answer than a 429 fails the test.
func passed(t *testing.T, g *plugintest.Gateway, n int, address string) int {
	t.Helper()
	count := 0
	for range n {
		got := g.Do(from(address))
		switch {
		case got.Forwarded != nil:
			count++
		case got.Response.Code != 429 || got.Code() != "rate_limited":
			t.Fatalf("got %d %s", got.Response.Code, got.Code())
		}
	}
	return count
}

func TestRateLimitAdmitsTheLimitAndSaysWhatIsLeft(t *testing.T) {
	for _, plugin := range []string{"rate_limit", "ip_rate_limit"} {
		synctest.Test(t, func(t *testing.T) {
			g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{plugin: {
				"limits": limits(every(2, "minute"), every(1000, "hour")), "algorithm": "fixed_window"}}})
			time.Sleep(15 * time.Second) // of the bubble's clock
			policy := fmt.Sprintf(`"%[1]s-hour";q=1000;w=3600, "%[1]s-minute";q=2;w=60`, plugin)
			for i, want := range []string{`;r=1;t=45`, `;r=0;t=45`, `;r=0;t=45`} {
				got := g.Do(from("192.0.2.1")).Response
				if h := got.Header(); h.Get("RateLimit") != fmt.Sprintf("%q%s", plugin+"-minute", want) || h.Get("RateLimit-Policy") != policy {
					t.Errorf("request %d was told %q of %q", i, h.Values("RateLimit"), h.Values("RateLimit-Policy"))
				}
				if over := i == 2; over != (got.Code == 429) || over != (got.Header().Get("Retry-After") == "45") {
					t.Errorf("request %d got %d, Retry-After %q", i, got.Code, got.Header().Get("Retry-After"))
				}
			}
			if n := passed(t, g, 1, "192.0.2.2"); n != 1 {
				t.Error("another address was refused")
			}
			time.Sleep(45 * time.Second)
			if n := passed(t, g, 5, "192.0.2.1"); n != 2 {
				t.Errorf("%d passed in the next minute, want 2", n)
			}
			if got := g.Rejections(plugin); got != 4 {
				t.Errorf("%v refusals were counted, want 4", got)
			}
		})
	}
}

func TestEveryAlgorithmLimitsARoute(t *testing.T) {
	for algorithm, c := range map[string]struct {
		more          map[string]any
		atOnce, in10s int
	}{
		"token_bucket":   {map[string]any{}, 5, 10 * 5},
		"fixed_window":   {map[string]any{}, 5, 10 * 5},
		"sliding_window": {map[string]any{}, 5, 10 * 5},
		"leaky_bucket":   {map[string]any{"queue": 0}, 1, 10 * 5},
	} {
		t.Run(algorithm, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.more["limits"], c.more["algorithm"] = limits(every(5, "second")), algorithm
				g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"rate_limit": c.more}})
				if n := passed(t, g, 50, "192.0.2.1"); n != c.atOnce {
					t.Errorf("%d passed at once, want %d", n, c.atOnce)
				}
				time.Sleep(time.Second)
				total := 0
				for range 1000 {
					total += passed(t, g, 1, "192.0.2.1")
					time.Sleep(10 * time.Millisecond)
				}
				// A bucket was full to begin with.
				if total < c.in10s || total > c.in10s+5 || algorithm != "token_bucket" && total != c.in10s {
					t.Errorf("%d passed in ten seconds, want %d", total, c.in10s)
				}
			})
		})
	}
}

func TestABurstMayComeAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"ip_rate_limit": {
			"limits": limits(map[string]any{"requests": 100, "per": "second", "burst": 200})}}})
		if n := passed(t, g, 300, "192.0.2.1"); n != 200 {
			t.Errorf("%d passed, want the burst of 200", n)
		}
		time.Sleep(100 * time.Millisecond)
		if n := passed(t, g, 300, "192.0.2.1"); n != 10 {
			t.Errorf("%d passed a tenth of a second later, want 10", n)
		}
	})
}

func TestALeakyBucketLetsRequestsOutEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var times []time.Duration
		begin := time.Now()
		g := plugintest.Start(t, plugintest.Case{
			Plugins: plugintest.Config{"rate_limit": {"limits": limits(every(10, "second")), "algorithm": "leaky_bucket", "queue": 3}},
		})
		results := make(chan plugintest.Result)
		for range 6 {
			go func() { results <- g.Do(from("192.0.2.1")) }()
		}
		refused := 0
		for range 6 {
			got := <-results
			if got.Forwarded != nil {
				times = append(times, time.Since(begin))
			} else if refused++; got.Response.Header().Get("Retry-After") != "1" {
				t.Errorf("refused with Retry-After %q", got.Response.Header().Get("Retry-After"))
			}
		}
		want := []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond}
		if !slices.Equal(times, want) || refused != 2 {
			t.Errorf("sent at %v, %d refused; want %v and 2", times, refused, want)
		}
	})
}

func TestAClientThatLeavesIsNoLongerWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"rate_limit": {
			"limits": limits(every(1, "10s")), "algorithm": "leaky_bucket", "max_wait": "1m"}}})
		g.Do(from("192.0.2.1"))
		ctx, leave := context.WithCancel(context.Background())
		ended := make(chan any)
		go func() {
			defer func() { ended <- recover() }()
			if got := g.Do(from("192.0.2.1").WithContext(ctx)); got.Forwarded != nil {
				t.Error("its request was sent")
			}
		}()
		synctest.Wait()
		begin := time.Now()
		leave()
		if v := <-ended; time.Since(begin) != 0 {
			t.Errorf("it was waited for for %s", time.Since(begin))
		} else if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
			t.Errorf("its connection was not cut: %v", v)
		}
	})
}

func TestRow30RandomForwardedForIsOneBucket(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"ip_rate_limit": {"limits": limits(every(10, "hour"))}}})
	through := 0
	for i := range 1000 {
		r := from("192.0.2.1")
		address := fmt.Sprintf("203.0.%d.%d", i/250, i%250)
		for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "X_forwarded_for", "True-Client-Ip"} {
			r.Header.Set(name, address)
		}
		if g.Do(r).Forwarded != nil {
			through++
		}
	}
	if through != 10 {
		t.Errorf("%d passed, want 10", through)
	}
}

func TestIPv6ClientsAreCountedByTheirNetwork(t *testing.T) {
	for _, c := range []struct {
		name, first, second string
		prefix              int
		same                bool
	}{
		{"one /64", "2001:db8::1", "2001:db8::ffff:1", 0, true},
		{"two /64s", "2001:db8::1", "2001:db8:0:1::1", 0, false},
		{"one /56", "2001:db8::1", "2001:db8:0:1::1", 56, true},
		{"every address", "2001:db8::1", "2001:db8::2", 128, false},
		{"two IPv4 addresses", "192.0.2.1", "192.0.2.2", 0, false},
		{"two IPv4 addresses with a short prefix", "192.0.2.1", "192.0.2.2", 1, false},
		{"row 32: a mapped address is the plain one", "192.0.2.1", "::ffff:192.0.2.1", 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := map[string]any{"limits": limits(every(1, "hour"))}
			if c.prefix != 0 {
				config["ipv6_prefix"] = c.prefix
			}
			g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"ip_rate_limit": config}})
			passed(t, g, 1, c.first)
			if same := passed(t, g, 1, c.second) == 0; same != c.same {
				t.Errorf("counted as one: %v", same)
			}
		})
	}
}

func TestBothLimitsOfARouteAreTold(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{
		"ip_rate_limit": {"limits": limits(every(100, "second"))}, "rate_limit": {"limits": limits(every(5, "1500ms"))}}})
	for range 2 { // the policies of one request must not grow with the next
		got := g.Do(from("192.0.2.1")).Response.Header()
		if len(got["Ratelimit"]) != 2 || !slices.Equal(got["Ratelimit-Policy"],
			[]string{`"ip_rate_limit-second";q=100;w=1`, `"rate_limit-1500ms";q=5`}) {
			t.Errorf("told %q of %q", got["Ratelimit"], got["Ratelimit-Policy"])
		}
	}
}

func TestAChangedLimitLeavesTheOthersTheirCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := func(list ...map[string]any) plugintest.Config {
			return plugintest.Config{"rate_limit": {"limits": limits(list...), "algorithm": "fixed_window"}}
		}
		g := plugintest.Start(t, plugintest.Case{Plugins: config(every(3, "minute"), every(10, "hour")),
			Documents: map[string]string{"routes/other": `{"path":"/other","service":"s","plugins":{"rate_limit":{"limits":[{"requests":1,"per":"hour"}]}}}`}})
		other := func() int {
			r := from("192.0.2.1")
			r.URL.Path, r.RequestURI = "/other", "/other"
			return g.Do(r).Response.Code
		}
		if n := passed(t, g, 5, "192.0.2.1"); n != 3 || other() != 200 || other() != 429 {
			t.Fatalf("%d passed", n)
		}
		if p := g.Configure(config(every(10, "hour"), every(5, "minute"))); p != nil {
			t.Fatal(p)
		}
		if n := passed(t, g, 9, "192.0.2.1"); n != 5 {
			t.Errorf("%d passed, want the new 5", n)
		}
		time.Sleep(time.Minute)
		if n := passed(t, g, 9, "192.0.2.1"); n != 2 {
			t.Errorf("%d passed; the hour has had 3 and 5 of 10, want 2", n)
		}
		if other() != 429 {
			t.Error("the other route's limit began anew")
		}
		before := g.Registry.Len()
		if p := g.Configure(plugintest.Config{}); p != nil || passed(t, g, 50, "192.0.2.1") != 50 {
			t.Errorf("without the plugin not all passed: %v", p)
		}
		if after := g.Registry.Len(); after != before-2 {
			t.Errorf("%d things are kept, were %d", after, before)
		}
	})
}

func TestALimitThatRoutesInheritIsOneForAllOfThem(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{Documents: map[string]string{
		"plugins/ip_rate_limit": `{"limits":[{"requests":3,"per":"hour"}]}`,
		"plugins/rate_limit":    `{"limits":[{"requests":2,"per":"hour"}],"key":["ip","route"]}`,
		"routes/other":          `{"path":"/other","service":"s"}`,
	}})
	ask := func(path string) string {
		r := from("192.0.2.1")
		r.URL.Path, r.RequestURI = path, path
		got := g.Do(r)
		return got.Response.Result().Status[:3] + got.Code()
	}
	got := []string{ask("/a"), ask("/a"), ask("/other"), ask("/other")}
	if want := []string{"200", "200", "200", "429rate_limited"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestGRPCCallersAreRefusedInTheirOwnWay(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"rate_limit": {"limits": limits(every(1, "hour"))}}})
	var got *httptest.ResponseRecorder
	for range 2 {
		r := from("192.0.2.1")
		r.Method, r.Proto, r.ProtoMajor, r.ProtoMinor = "POST", "HTTP/2.0", 2, 0
		r.Header.Set("Content-Type", "application/grpc")
		got = g.Do(r).Response
	}
	if h := got.Header(); got.Code != 200 || h.Get("Grpc-Status") != "14" || !strings.HasPrefix(h.Get("Grpc-Message"), "rate_limited") {
		t.Errorf("got %d %v", got.Code, h)
	}
}

func TestRateLimitRefusesBadConfiguration(t *testing.T) {
	good := limits(every(1, "second"))
	with := func(name string, value any) map[string]any { return map[string]any{"limits": good, name: value} }
	one := func(field string, value any, more ...string) map[string]any {
		l := every(1, "second")
		l[field] = value
		c := map[string]any{"limits": limits(l)}
		if len(more) > 0 {
			c["algorithm"] = more[0]
		}
		return c
	}
	for _, c := range []struct {
		config map[string]any
		want   string
	}{
		{map[string]any{}, "limits: has 0 entries; accepted is 1 to 8, such as {requests: 100, per: second}"},
		{map[string]any{"limits": limits(make([]map[string]any, 9)...)}, ""},
		{map[string]any{"limits": limits(map[string]any{"requests": 1})}, "limits[0].per: is missing; give second, minute, hour, day or a duration"},
		{map[string]any{"limits": limits(map[string]any{"per": "second"})}, "limits[0].requests: is 0; accepted is 1 and above"},
		{map[string]any{"limits": limits(every(1, "second"), every(1, "1s"))}, "limits[1]: stands there twice"},
		{one("per", "week"), `limits[0].per: "week" is none of second, minute, hour, day, and no duration such as 10s`},
		{one("per", "50ms"), "limits[0].per: is 50ms; accepted is 100ms to 8784h0m0s"},
		{one("per", 60), "limits[0].per: must be a string"},
		{one("requests", -5), "limits[0].requests: is -5; accepted is 1 and above"},
		{one("requests", 1.5), "limits[0].requests: must be a whole number"},
		{one("requests", 1000001), "limits[0].requests: is 1000001; accepted is up to 1000000 in this period"},
		{one("requests", 10001, "sliding_window"), "limits[0].requests: is 10001; sliding_window remembers each, at most 10000"},
		{one("burst", 0), "limits[0].burst: is 0; accepted is 1 and above"},
		{one("burst", 1<<40), "limits[0].burst: is 1099511627776; it would take longer than 8784h0m0s to fill"},
		{one("burst", 5, "fixed_window"), "limits[0].burst: belongs to algorithm token_bucket"},
		{one("burst", 5, "leaky_bucket"), "limits[0].burst: belongs to algorithm token_bucket; see queue"},
		{one("brust", 5), "limits[0].brust: unknown field; accepted: burst, per, requests"},
		{with("algorithm", "gcra"), `algorithm: is "gcra"; accepted are token_bucket, leaky_bucket, fixed_window, sliding_window`},
		{with("queue", 5), "queue: belongs to algorithm leaky_bucket"},
		{with("max_wait", "5s"), "max_wait: belongs to algorithm leaky_bucket"},
		{map[string]any{"limits": good, "algorithm": "leaky_bucket", "queue": -1}, "queue: is -1; accepted is 0 to 10000"},
		{map[string]any{"limits": good, "algorithm": "leaky_bucket", "max_wait": "2m"}, "max_wait: is 2m0s; accepted is more than 0s, up to 1m0s"},
		{with("store", "memcached"), `store: is "memcached"; accepted are local, redis`},
		{with("store", "redis"), "store: is redis, but the gateway's configuration has no redis.address"},
		{with("on_store_error", "ignore"), `on_store_error: is "ignore"; accepted are local, allow, deny`},
		{with("gateways", -1), "gateways: is -1; accepted is 1 to 1000"},
		{with("ipv6_prefix", 129), "ipv6_prefix: is 129; accepted is 1 to 128"},
		{with("key", 5), "key: must be a string or a list of strings"},
		{with("key", "user"), `key: is "user"; accepted are ip, consumer, claim:NAME, header:NAME, route`},
		{with("key", "ip:4"), `key: is "ip:4"; accepted are ip, consumer, claim:NAME, header:NAME, route`},
		{with("key", "claim:"), `key: is "claim:"; accepted are ip, consumer, claim:NAME, header:NAME, route`},
		{with("key", "header:X Y"), `key: is "header:X Y"; accepted are ip, consumer, claim:NAME, header:NAME, route`},
		{with("key", []any{}), "key: has 0 entries; accepted is 1 to 8"},
		{with("key", []any{"ip", "ip"}), "key[1]: stands there twice"},
		{with("key", []any{"header:x-a", "header:X-A"}), "key[1]: stands there twice"},
		{with("limit", good), "limit: unknown field; accepted: algorithm, gateways, ipv6_prefix, key, limits, max_wait, on_store_error, queue, store"},
	} {
		got := plugintest.Faults("rate_limit", c.config)
		if c.want == "" {
			if len(got) < 9 {
				t.Errorf("%v: the faults are %q", c.config, got)
			}
			continue
		}
		if !slices.Equal(got, []string{"plugins.rate_limit." + c.want}) {
			t.Errorf("%v: the faults are %q, want %q", c.config, got, c.want)
		}
	}
	if got := plugintest.Faults("ip_rate_limit", with("key", "ip")); len(got) != 1 || !strings.HasPrefix(got[0], "plugins.ip_rate_limit.key: unknown field") {
		t.Errorf("a key of ip_rate_limit has the faults %q", got)
	}
}
