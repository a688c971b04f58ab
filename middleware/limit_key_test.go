package middleware

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// asker is who asks, for what a key is made of.
type asker struct {
	Client   string
	Identity *routing.Identity
	Headers  map[string][]string
	Route    string
}

func (a asker) key(t testing.TB, key any) string {
	t.Helper()
	k, faults := compileKey(&Place{}, key, 0)
	if faults != nil {
		t.Fatal(faults)
	}
	x := &routing.Exchange{Identity: a.Identity}
	if a.Client != "" {
		x.Client = netip.MustParseAddr(a.Client)
	}
	x.Match.Route = &routing.Route{Key: a.Route}
	return string(k.appendTo(nil, &http.Request{Header: a.Headers}, x))
}

func TestAKeySaysWhoseRequestItIs(t *testing.T) {
	alice := &routing.Identity{Plugin: "jwt", Subject: "alice", Claims: map[string]any{
		"sub": "alice", "tenant": "t1", "level": 3.0, "number": json.Number("3"), "on": true, "empty": "", "list": []any{"a"}}}
	aliceConsumer := &routing.Identity{Plugin: "api_key", Consumer: "alice", Subject: "key-7"}
	header := func(values ...string) map[string][]string { return map[string][]string{"X-Tenant": values} }
	for _, c := range []struct {
		name string
		key  any
		a, b asker
		same bool
	}{
		{"ip: the address alone", "ip", asker{Client: "192.0.2.1", Identity: alice}, asker{Client: "192.0.2.1"}, true},
		{"ip: another address", "ip", asker{Client: "192.0.2.1"}, asker{Client: "192.0.2.2"}, false},
		{"ip: none that is known", "ip", asker{}, asker{}, true},
		{"consumer is the default", nil, asker{Client: "192.0.2.1", Identity: aliceConsumer}, asker{Client: "192.0.2.2", Identity: aliceConsumer}, true},
		{"consumer: by its name, not its key's", "consumer", asker{Identity: aliceConsumer},
			asker{Identity: &routing.Identity{Plugin: "api_key", Consumer: "alice", Subject: "key-8"}}, true},
		{"consumer: a subject of the same name is another", "consumer", asker{Identity: aliceConsumer}, asker{Identity: alice}, false},
		{"consumer: a subject that another plugin vouches for is another", "consumer", asker{Identity: alice},
			asker{Identity: &routing.Identity{Plugin: "basic_auth", Subject: "alice"}}, false},
		{"consumer: nobody is the address", "consumer", asker{Client: "192.0.2.1"}, asker{Client: "192.0.2.1", Identity: &routing.Identity{Plugin: "jwt"}}, true},
		{"consumer: nobody from elsewhere", "consumer", asker{Client: "192.0.2.1"}, asker{Client: "192.0.2.2"}, false},
		{"claim: the same tenant", "claim:tenant", asker{Client: "192.0.2.1", Identity: alice},
			asker{Client: "192.0.2.2", Identity: &routing.Identity{Claims: map[string]any{"tenant": "t1"}}}, true},
		{"claim: a number is not the text of it", "claim:level", asker{Identity: alice},
			asker{Identity: &routing.Identity{Claims: map[string]any{"level": "3"}}}, false},
		{"claim: a truth value", "claim:on", asker{Identity: alice}, asker{Identity: &routing.Identity{Claims: map[string]any{"on": false}}}, false},
		{"claim: a list names nobody", "claim:list", asker{Client: "192.0.2.1", Identity: alice}, asker{Client: "192.0.2.1"}, true},
		{"claim: an empty one names nobody", "claim:empty", asker{Client: "192.0.2.1", Identity: alice}, asker{Client: "192.0.2.1"}, true},
		{"claim: without a token", "claim:tenant", asker{Client: "192.0.2.1"}, asker{Client: "192.0.2.2"}, false},
		{"header: in any case of its name", "header:x-tenant", asker{Client: "192.0.2.1", Headers: header("a")}, asker{Client: "192.0.2.2", Headers: header("a")}, true},
		{"header: another value", "header:X-Tenant", asker{Headers: header("a")}, asker{Headers: header("b")}, false},
		{"header: missing is the address", "header:X-Tenant", asker{Client: "192.0.2.1"}, asker{Client: "192.0.2.1", Headers: header("")}, true},
		{"header: two lines are not one", "header:X-Tenant", asker{Headers: header("a", "b")}, asker{Headers: header("ab")}, false},
		{"header: a long value is not its digest's twin", "header:X-Tenant", asker{Headers: header(strings.Repeat("a", 5000))}, asker{Headers: header(strings.Repeat("a", 5001))}, false},
		{"header: nobody can pose as an address", "header:X-Tenant", asker{Client: "192.0.2.1"}, asker{Client: "192.0.2.9", Headers: header("4\xc0\x00\x02\x01")}, false},
		{"route: all of one route", "route", asker{Client: "192.0.2.1", Route: "/a"}, asker{Client: "192.0.2.2", Route: "/a"}, true},
		{"route: another", "route", asker{Route: "/a"}, asker{Route: "/b"}, false},
		{"a list: every part counts", []any{"consumer", "route"}, asker{Identity: alice, Route: "/a"}, asker{Identity: alice, Route: "/b"}, false},
	} {
		if same := c.a.key(t, c.key) == c.b.key(t, c.key); same != c.same {
			t.Errorf("%s: the same is %v", c.name, same)
		}
	}
}

// Row 68: keys that are put together by concatenation are ambiguous.
func TestRow68DifferentAskersNeverShareAKey(t *testing.T) {
	parts := []any{"header:X-Tenant", "claim:a", "consumer", "route"}
	random := rand.New(rand.NewPCG(1, 2))
	word := func() string { // of letters that the encoding itself uses
		b := make([]byte, random.IntN(4))
		for i := range b {
			b[i] = "chr.s\x01\x02"[random.IntN(7)]
		}
		return string(b)
	}
	seen := map[string]string{}
	for range 200_000 {
		a := asker{Client: "192.0.2.1", Route: word(),
			Identity: &routing.Identity{Plugin: word(), Consumer: word(), Subject: word(), Claims: map[string]any{"a": word()}}}
		a.Headers = map[string][]string{"X-Tenant": {word(), word()}}
		who := *a.Identity
		if who.Consumer != "" || who.Subject == "" {
			who.Plugin, who.Subject = "", "" // not a part of the name
		}
		lines := []string{}
		for _, l := range a.Headers["X-Tenant"] {
			if l != "" { // an empty line says nothing
				lines = append(lines, l)
			}
		}
		text, err := json.Marshal([]any{who, lines, a.Route})
		if err != nil {
			t.Fatal(err)
		}
		key := a.key(t, parts)
		if other, ok := seen[key]; ok && other != string(text) {
			t.Fatalf("%s and %s share a key", other, text)
		}
		seen[key] = string(text)
	}
}

// identityConfig is a plugin that vouches for whoever X-Who names.
type identityConfig struct{}

func (*identityConfig) Prepare(*Place) routing.Faults { return nil }

func identityPlugin() *Plugin {
	return Define[identityConfig]("who", func(c *gin.Context, x *routing.Exchange, _ *identityConfig) {
		if who := c.Request.Header.Get("X-Who"); who != "" {
			x.Identity = &routing.Identity{Plugin: "who", Consumer: who}
		}
	})
}

func TestRateLimitCountsWhoWasFoundToAsk(t *testing.T) {
	steps := []step{}
	for _, s := range order() {
		if s.name == "rate_limit" {
			steps = append(steps, step{name: "who", plugin: identityPlugin()})
		}
		steps = append(steps, s)
	}
	g := newGateway(t, setup{steps: steps, routes: map[string]string{"any": `{"path":"/*","service":"any","plugins":{
		"who":{},"rate_limit":{"limits":[{"requests":2,"per":"hour"}]}}}`}})
	ask := func(who, address string) int {
		r, w := newRequest("GET", "/")
		r.RemoteAddr = address + ":1234"
		r.Header.Set("X-Who", who)
		g.engine.ServeHTTP(w, r)
		return w.Code
	}
	for i, c := range []struct {
		who, address string
		want         int
	}{
		{"alice", "192.0.2.1", 200}, {"alice", "192.0.2.2", 200}, {"alice", "192.0.2.3", 429}, {"bob", "192.0.2.1", 200},
		{"", "192.0.2.1", 200}, {"", "192.0.2.1", 200}, {"", "192.0.2.1", 429}, {"", "192.0.2.2", 200},
	} {
		if got := ask(c.who, c.address); got != c.want {
			t.Errorf("request %d of %q from %s got %d, want %d", i, c.who, c.address, got, c.want)
		}
	}
}
