package middleware_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
	"github.com/sluice-gateway/sluice/routing"
)

// decisions counts sluice_bot_decisions_total of an action.
func decisions(t testing.TB, from prometheus.Gatherer, action string) (n float64) {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "sluice_bot_decisions_total" && l.GetName() == "action" && l.GetValue() == action {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// scrape asks for a page a second, as scripts do, until it is refused or n
// pages were there, and returns how many were and the last answer.
func scrape(g *plugintest.Gateway, n int, headers ...string) (passed int, last plugintest.Result) {
	for i := range n {
		time.Sleep(time.Second)
		if last = g.Do(request("GET", fmt.Sprint("/items/", i), headers...)); last.Forwarded == nil {
			return i, last
		}
	}
	return n, last
}

func guarded(t testing.TB, config map[string]any) *plugintest.Gateway {
	t.Helper()
	return plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"bot_guard": config}})
}

func TestBotGuardBlocksAScraperForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		g := plugintest.Start(t, plugintest.Case{Log: slog.New(slog.NewJSONHandler(&log, nil)),
			Plugins: plugintest.Config{"bot_guard": {"action": "block", "block_for": "5m"}}})
		passed, last := scrape(g, 100)
		if passed == 100 || passed < 15 {
			t.Fatalf("%d pages were scraped", passed)
		}
		wantCode(t, "the scraper", last, routing.CodeForbidden)
		if last.Response.Header().Get("Retry-After") != "300" {
			t.Errorf("Retry-After is %q", last.Response.Header().Get("Retry-After"))
		}
		if n := decisions(t, g.Metrics, "block"); n != 1 || g.Rejections("bot_guard") != 1 {
			t.Errorf("%v decisions were counted, want 1", n)
		}
		if !strings.Contains(log.String(), `"bot":"block","bot_score":`) || strings.Count(log.String(), `"bot":`) != 1 {
			t.Errorf("the log does not say so once: %s", log.String())
		}
		other := request("GET", "/")
		other.RemoteAddr = "192.0.2.2:1"
		wantCode(t, "another client", g.Do(other), "")
		time.Sleep(4 * time.Minute)
		wantCode(t, "row 30: other addresses in headers", g.Do(request("GET", "/", "X-Forwarded-For: 10.0.0.9", "X-Real-Ip: 10.0.0.9")), routing.CodeForbidden)
		time.Sleep(time.Minute)
		wantCode(t, "when the block is over", g.Do(request("GET", "/")), "")
	})
}

func TestBotGuardLeavesPeopleAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := guarded(t, map[string]any{"action": "block"})
		r := rand.New(rand.NewPCG(1, 2))
		for i := range 1000 {
			if i%12 == 0 { // a page, and then what belongs to it
				time.Sleep(time.Duration(8 * math.Exp(r.NormFloat64()) * float64(time.Second)))
			} else {
				time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
			}
			if got := g.Do(request("GET", fmt.Sprint("/page/", r.IntN(50)))); got.Forwarded == nil {
				t.Fatalf("request %d was refused with %s", i, got.Code())
			}
		}
	})
}

func TestBotGuardActions(t *testing.T) {
	for _, action := range []string{"", "observe", "challenge", "slow"} {
		synctest.Test(t, func(t *testing.T) {
			config := map[string]any{"slow_by": "500ms"}
			if action != "" {
				config["action"] = action
			}
			g := guarded(t, config)
			passed, _ := scrape(g, 60)
			if passed != 60 {
				t.Fatalf("%q: only %d passed", action, passed)
			}
			begin := time.Now()
			got := g.Do(request("GET", "/items/x", "X-Sluice-Bot-Score: 0"))
			wait, score := time.Since(begin), got.Forwarded.Header.Get("X-Sluice-Bot-Score")
			if (wait == 500*time.Millisecond) != (action == "slow") || wait != 0 && action != "slow" {
				t.Errorf("%q: the request took %v", action, wait)
			}
			if (score != "") != (action == "challenge") || score == "0" {
				t.Errorf("%q: the instance is told the score %q", action, score)
			}
			if action == "" {
				action = "observe"
			}
			if n := decisions(t, g.Metrics, action); n == 0 {
				t.Errorf("%s: no decision was counted", action)
			}
		})
	}
}

func TestBotGuardSlowsABoundedNumberOfRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := guarded(t, map[string]any{"action": "slow", "slow_by": "10s", "user_agents": []any{"bot"}})
		codes := make(chan string, 1100)
		for range 1100 {
			go func() { codes <- g.Do(request("GET", "/", "User-Agent: bot")).Code() }()
		}
		synctest.Wait()
		if len(codes) != 100 {
			t.Errorf("%d requests were answered at once, want the 100 above the bound", len(codes))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		count := map[string]int{}
		for range 1100 {
			count[<-codes]++
		}
		if count["rate_limited"] != 100 || count[""] != 1000 {
			t.Errorf("the answers are %v", count)
		}
	})
}

func TestBotGuardKnowsSomeByTheirNameAndSomeByTheirAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := guarded(t, map[string]any{"action": "block", "user_agents": []any{"(?i)scrapy", "^$"}, "allow": []any{"10.0.0.0/8"}})
		wantCode(t, "a browser", g.Do(request("GET", "/", "User-Agent: Mozilla/5.0")), "")
		wantCode(t, "a script that says so", g.Do(request("GET", "/", "User-Agent: Scrapy/2.11")), routing.CodeForbidden)
		wantCode(t, "one that says nothing", g.Do(request("GET", "/")), routing.CodeForbidden)
		wantCode(t, "the browser at the same address", g.Do(request("GET", "/", "User-Agent: Mozilla/5.0")), "")
		wantCode(t, "row 34: a name is no key", g.Do(request("GET", "/", "User-Agent: Scrapy Googlebot kube-probe/1.30")), routing.CodeForbidden)
		for i := range 200 {
			time.Sleep(time.Second)
			r := request("GET", fmt.Sprint("/items/", i))
			r.RemoteAddr = "10.1.2.3:4"
			if got := g.Do(r); got.Forwarded == nil {
				t.Fatalf("request %d of an allowed address was refused", i)
			}
		}
	})
}

func TestBotGuardSeesWhoFailsToAuthenticate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"api_key": {}, "bot_guard": {"action": "block"}}})
		for i := range 100 {
			time.Sleep(700 * time.Millisecond)
			got := g.Do(request("GET", "/login", fmt.Sprint("X-API-Key: guess ", i)))
			if got.Response.Code == http.StatusForbidden {
				return
			}
			wantCode(t, "a guess", got, routing.CodeUnauthenticated)
		}
		t.Error("a hundred guesses were let pass")
	})
}

func TestBotGuardKeepsWhatItKnowsThroughAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := map[string]any{"action": "block"}
		g := guarded(t, config)
		if passed, _ := scrape(g, 100); passed == 100 {
			t.Fatal("the scraper was not blocked")
		}
		config["threshold"] = 90
		if problems := g.Configure(plugintest.Config{"bot_guard": config}); problems != nil {
			t.Fatal(problems)
		}
		wantCode(t, "after a change", g.Do(request("GET", "/")), routing.CodeForbidden)
		g.Put("routes/other", `{"path":"/other","service":"instance","plugins":{"bot_guard":{"action":"block"}}}`)
		wantCode(t, "on a route of its own", g.Do(request("GET", "/other")), "")
		config["action"] = "observe"
		g.Configure(plugintest.Config{"bot_guard": config})
		wantCode(t, "when it only observes", g.Do(request("GET", "/")), "")
		config["action"] = "bloc"
		if problems := g.Configure(plugintest.Config{"bot_guard": config}); len(problems) != 1 {
			t.Errorf("the problems are %v", problems)
		}
		wantCode(t, "after a bad change", g.Do(request("GET", "/")), "")
		g.Configure(plugintest.Config{})
		if n := g.Registry.Len(); n != 1 {
			t.Errorf("%d guards are kept, want that of the other route", n)
		}
	})
}

func TestBotGuardRefusesBadConfiguration(t *testing.T) {
	at := "plugins.bot_guard."
	for _, c := range []struct {
		config map[string]any
		want   string
	}{
		{map[string]any{"action": "ban"}, at + "action: is none of observe, challenge, slow, block"},
		{map[string]any{"block_for": "10ms"}, at + "block_for: must be from 1s to 24h0m0s"},
		{map[string]any{"slow_by": "1m"}, at + "slow_by: must be from 1ms to 10s"},
		{map[string]any{"window": "1h"}, at + "window: must be from 10s to 10m0s"},
		{map[string]any{"threshold": 101}, at + "threshold: must be from 1 to 100"},
		{map[string]any{"min_requests": 65}, at + "min_requests: must be from 8 to 64"},
		{map[string]any{"max_clients": 10}, at + "max_clients: must be from 100 to 1000000"},
		{map[string]any{"max_rate": -1}, at + "max_rate: must be from 0.1 to 100000 requests a second"},
		{map[string]any{"user_agents": []any{"("}}, at + "user_agents[0]: error parsing regexp: missing closing ): `(`"},
		{map[string]any{"user_agents": []any{strings.Repeat("a", 513)}}, at + "user_agents[0]: is longer than 512 bytes"},
		{map[string]any{"user_agents": slices.Repeat([]any{"a"}, 51)}, at + "user_agents: has 51 patterns; at most 50 are accepted"},
		{map[string]any{"allow": []any{"x"}}, at + `allow[0]: "x" is no address or range, such as 10.0.0.5, 10.0.0.0/8 or fd00::/8`},
	} {
		if got := plugintest.Faults("bot_guard", c.config); !slices.Equal(got, []string{c.want}) {
			t.Errorf("%v: the faults are %q, want %q", c.config, got, c.want)
		}
	}
}

func TestTheBotGuardExampleWorks(t *testing.T) {
	config := example(t, "bot-guard")
	synctest.Test(t, func(t *testing.T) {
		g := plugintest.Start(t, plugintest.Case{Plugins: config})
		if passed, last := scrape(g, 100, "User-Agent: Mozilla/5.0"); passed == 100 || last.Code() != "forbidden" {
			t.Errorf("%d pages were scraped", passed)
		}
	})
}
