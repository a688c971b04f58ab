package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/scripts/load"
	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// limitSite is gateways on one etcd and one Redis; their routes answer by
// themselves.
type limitSite struct {
	t        *testing.T
	etcd     *testenv.Etcd
	redis    *testenv.Redis
	gateways []*testenv.Gateway
}

func newLimitSite(t *testing.T, gateways int) *limitSite {
	t.Helper()
	s := &limitSite{t: t, etcd: testenv.StartEtcd(t), redis: testenv.StartRedis(t)}
	for i := range gateways {
		s.gateways = append(s.gateways, testenv.StartGateway(t, testenv.GatewayOptions{
			Name: fmt.Sprintf("gateway-%d", i+1), Etcd: s.etcd.Endpoint,
			// Long enough for a machine that does other things, too.
			Extra: fmt.Sprintf("log:\n  access: false\nredis:\n  address: %q\n  timeout: 500ms\n", s.redis.Addr),
		}))
	}
	return s
}

// put writes documents in one transaction and waits until every gateway
// serves them.
func (s *limitSite) put(docs map[string]string) {
	s.t.Helper()
	revision := s.etcd.Apply(docs)
	for _, g := range s.gateways {
		rig.AwaitApplied(s.t, g, revision)
	}
}

// limited is a route below path that answers by itself and is limited.
func limited(path, plugin string) string {
	if plugin != "" {
		plugin = `,"plugins":{"rate_limit":` + plugin + `}`
	}
	return `{"path":"` + path + `","respond":{"status":200}` + plugin + `}`
}

// loads are one load on each gateway.
type loads []*load.Load

// stop ends them and returns what became of all requests.
func (ls loads) stop() (all []load.Sample) {
	for _, l := range ls {
		all = append(all, l.Stop()...)
	}
	return all
}

// await waits until as many more requests went to each gateway and came to
// their end.
func (ls loads) await(t *testing.T, more int) {
	t.Helper()
	for _, l := range ls {
		before := l.Sent()
		testenv.Eventually(t, 60*time.Second, "more requests are answered", func() bool { return l.Sent() >= before+more })
	}
}

// load sends rate requests a second for path to each gateway. A sample's tag
// is the policy that it was decided by.
func (s *limitSite) load(rate int, path string) (ls loads) {
	for _, g := range s.gateways {
		ls = append(ls, load.Start(load.Config{
			Rate: rate,
			Request: func(ctx context.Context, _ int) (*http.Request, error) {
				return http.NewRequestWithContext(ctx, http.MethodGet, g.URL()+path, nil)
			},
			Tag: func(_ int, h http.Header, _ []byte) string { return h.Get("RateLimit-Policy") },
		}))
	}
	return ls
}

// tally counts samples by status; one without an answer fails the test.
func tally(t *testing.T, samples []load.Sample) map[int]int {
	t.Helper()
	count := map[int]int{}
	for _, s := range samples {
		if s.Err != nil {
			t.Errorf("a request got no answer: %v", s.Err)
		}
		count[s.Status]++
	}
	return count
}

// within returns the samples that began and ended between two moments.
func within(samples []load.Sample, from, to time.Time) (in []load.Sample) {
	for _, s := range samples {
		if !s.Start.Before(from) && s.Start.Add(s.Took).Before(to) {
			in = append(in, s)
		}
	}
	return in
}

func TestR6TwoGatewaysTogetherAdmitTheLimit(t *testing.T) {
	s := newLimitSite(t, 2)
	const limit = 100
	for _, algorithm := range []string{"fixed_window", "sliding_window", "token_bucket", "leaky_bucket"} {
		t.Run(algorithm, func(t *testing.T) {
			path := "/" + algorithm
			s.put(map[string]string{"/sluice/routes/" + algorithm: limited(path,
				`{"limits":[{"requests":100,"per":"second"}],"store":"redis","algorithm":"`+algorithm+`"}`)})
			begin := time.Now()
			load100 := s.load(100, path) // twice the limit in all
			load100.await(t, 520)
			samples := load100.stop()
			end := begin
			for _, sample := range samples {
				if sample.Start.After(end) {
					end = sample.Start
				}
			}
			count := tally(t, samples)
			if count[200]+count[429] != len(samples) {
				t.Errorf("the answers were %v", count)
			}
			var passed []load.Sample
			for _, sample := range samples {
				if sample.Status == 200 {
					passed = append(passed, sample)
				}
			}
			t.Logf("%d of %d passed in %s", len(passed), len(samples), end.Sub(begin))
			switch algorithm {
			case "fixed_window":
				for w := begin.Truncate(time.Second).Add(time.Second); !w.Add(time.Second).After(end); w = w.Add(time.Second) {
					if n := len(within(passed, w, w.Add(time.Second))); n > limit {
						t.Errorf("%d passed in the window %s", n, w)
					}
				}
				fallthrough
			case "sliding_window":
				for _, p := range passed {
					most := limit
					if algorithm == "fixed_window" {
						most *= 2 // around the edge of two windows
					}
					if n := len(within(passed, p.Start, p.Start.Add(time.Second))); n > most {
						t.Fatalf("%d passed within a second of %s", n, p.Start)
					}
				}
			default: // a full bucket, or a queue, and then the rate
				if most := limit + int(end.Sub(begin).Seconds()*limit) + 2; len(passed) > most {
					t.Errorf("%d passed, at most %d may", len(passed), most)
				}
			}
			if least := 5*limit - 1; len(passed) < least {
				t.Errorf("%d passed, at least %d should have", len(passed), least)
			}
		})
	}
}

func TestLimitsChangeUnderLoadWithoutALeak(t *testing.T) {
	s := newLimitSite(t, 2)
	s.put(map[string]string{"/sluice/routes/a": limited("/a", "")})
	begin := time.Now()
	both := s.load(100, "/a")
	// No window of these ends while the test runs, so that every request that
	// passes can be accounted for.
	rule := func(entries ...string) string {
		return `{"algorithm":"sliding_window","store":"redis","limits":[` + strings.Join(entries, ",") + `]}`
	}
	const thirty, forty, hundred = `{"requests":30,"per":"8000h"}`, `{"requests":40,"per":"8100h"}`, `{"requests":100,"per":"8200h"}`
	applied := func(value string) time.Time {
		s.put(map[string]string{"/sluice/routes/a": value})
		return time.Now()
	}
	// pause lets the load use up what there is.
	pause := func() { both.await(t, 120) }
	pause()
	added := applied(limited("/a", rule(thirty)))
	pause()
	// A wrong document: the last good one goes on.
	s.etcd.Put("/sluice/routes/a", `{"path":"/a","respond":{"status":200},"plugins":{"rate_limit":{"limits":[{"requests":0}]}}}`)
	testenv.Eventually(t, 20*time.Second, "the fault is known", func() bool {
		for _, g := range s.gateways {
			if st, err := rig.Status(g); err != nil || len(st.Problems) != 1 {
				return false
			}
		}
		return true
	})
	pause()
	// Another limit beside it: the first is used up all the same.
	applied(limited("/a", rule(thirty, hundred)))
	pause()
	// The first is replaced; the other has had none of those refused.
	applied(limited("/a", rule(forty, hundred)))
	pause()
	removing := time.Now()
	removed := applied(limited("/a", ""))
	pause()
	samples := both.stop()

	byPolicy := map[string]int{}
	for _, sample := range samples {
		if sample.Status == 200 {
			byPolicy[sample.Tag]++
		} else if sample.Status != 429 || sample.Tag == "" {
			t.Fatalf("an answer was %d %v", sample.Status, sample.Err)
		}
	}
	for policy, want := range map[string]int{
		`"rate_limit-8000h";q=30;w=28800000`:                                      30,
		`"rate_limit-8200h";q=100;w=29520000, "rate_limit-8000h";q=30;w=28800000`: 0,
		`"rate_limit-8200h";q=100;w=29520000, "rate_limit-8100h";q=40;w=29160000`: 40,
	} {
		if got := byPolicy[policy]; got != want {
			t.Errorf("%d passed by %s, want %d", got, policy, want)
		}
	}
	for _, sample := range samples {
		ended := sample.Start.Add(sample.Took)
		switch {
		case sample.Start.After(added) && ended.Before(removing) && sample.Tag == "":
			t.Errorf("a request %s after the start passed no limit", sample.Start.Sub(begin))
		case sample.Start.After(removed) && sample.Status != 200:
			t.Errorf("a request %s after the start was refused by a limit that is gone", sample.Start.Sub(begin))
		}
	}
}

func TestR1R2RedisAwayUnderLoadDoesWhatEachRouteSays(t *testing.T) {
	for _, o := range []struct {
		name      string
		off, back func(*testenv.Redis)
		forgets   bool
	}{
		{"R1 it stands still", func(r *testenv.Redis) { r.Freeze() }, func(r *testenv.Redis) { r.Thaw() }, false},
		{"R2 it is killed and starts anew", func(r *testenv.Redis) { r.Kill() }, func(r *testenv.Redis) { r.Restart() }, true},
	} {
		t.Run(o.name, func(t *testing.T) {
			s := newLimitSite(t, 1)
			const limit = 50
			onError := []string{"local", "allow", "deny"}
			docs := map[string]string{}
			for _, c := range onError {
				docs["/sluice/routes/"+c] = limited("/"+c,
					`{"limits":[{"requests":50,"per":"8000h"}],"algorithm":"sliding_window","store":"redis","on_store_error":"`+c+`"}`)
			}
			s.put(docs)
			on := map[string]loads{}
			for _, c := range onError {
				on[c] = s.load(100, "/"+c)
			}
			status := func(path string) int {
				resp, err := http.Get(s.gateways[0].URL() + path)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				return resp.StatusCode
			}
			for _, c := range onError {
				testenv.Eventually(t, 20*time.Second, "the limit is used up", func() bool { return status("/"+c) == 429 })
			}
			off := time.Now()
			o.off(s.redis)
			testenv.Eventually(t, 20*time.Second, "redis counts as away", func() bool { return status("/deny") == 503 })
			away := time.Now()
			on["deny"].await(t, 200)
			leaving := time.Now()
			o.back(s.redis)
			back := time.Now()
			testenv.Eventually(t, 20*time.Second, "redis is used again", func() bool { return status("/deny") != 503 })
			used := time.Now()
			t.Logf("away after %s, used again %s after it was back", away.Sub(off), used.Sub(back))
			for _, c := range onError {
				on[c].await(t, 100)
			}
			for _, c := range onError {
				samples := on[c].stop()
				count := tally(t, samples)
				var slowest time.Duration
				for _, sample := range within(samples, away, leaving) {
					slowest = max(slowest, sample.Took)
				}
				during, after := tally(t, within(samples, away, leaving)), tally(t, within(samples, used, time.Now()))
				t.Logf("%s: %v in all, %v while away (slowest %s), %v afterwards", c, count, during, slowest, after)
				if c != "deny" && count[200]+count[429] != len(samples) {
					t.Errorf("%s: the answers were %v", c, count)
				}
				outage := tally(t, within(samples, off, used))
				switch c {
				case "local": // its own count of the same limit
					if outage[200] > limit+after[200] || outage[429] == 0 {
						t.Errorf("local: the answers in the outage were %v", outage)
					}
				case "allow":
					if during[429] > 0 || during[200] == 0 {
						t.Errorf("allow: the answers while redis was away were %v", during)
					}
				case "deny":
					if during[200]+during[429] > 0 || during[503] == 0 || count[200]+count[429]+count[503] != len(samples) {
						t.Errorf("deny: the answers while redis was away were %v, in all %v", during, count)
					}
				}
				most := 0
				if o.forgets {
					most = limit
				}
				if after[200] > most || after[503] > 0 || after[429] == 0 {
					t.Errorf("%s: the answers afterwards were %v", c, after)
				}
			}
		})
	}
}

// The example is what docs and configs show.
func TestTheRateLimitExampleLimits(t *testing.T) {
	s := newLimitSite(t, 1)
	example, err := os.ReadFile("../../configs/routes/rate-limit.yaml")
	if err != nil {
		t.Fatal(err)
	}
	value := strings.Replace(string(example), "service: orders", "respond: {status: 200}", 1)
	s.put(map[string]string{"/sluice/routes/api": value})
	resp, err := http.Get(s.gateways[0].URL() + "/api/x")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	equal(t, "status", resp.StatusCode, 200)
	equal(t, "policy", resp.Header.Get("RateLimit-Policy"), `"rate_limit-hour";q=1000;w=3600, "rate_limit-second";q=5;w=1`)
	left, _, _ := strings.Cut(strings.TrimPrefix(resp.Header.Get("RateLimit"), `"rate_limit-second";r=`), ";")
	if n, err := strconv.Atoi(left); err != nil || n != 4 {
		t.Errorf("RateLimit is %q", resp.Header.Get("RateLimit"))
	}
}
