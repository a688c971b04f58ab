package middleware_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
	"github.com/sluice-gateway/sluice/routing"
)

// consumer is the document of a consumer with this key.
func consumer(key string, groups ...string) string {
	sum := sha256.Sum256([]byte(key))
	return `{"key_sha256":"` + hex.EncodeToString(sum[:]) + `","groups":["` + strings.Join(groups, `","`) + `"]}`
}

// keyed is a gateway whose route wants the key of alice or bob.
func keyed(t testing.TB, config map[string]any) *plugintest.Gateway {
	t.Helper()
	if config == nil {
		config = map[string]any{}
	}
	return plugintest.Start(t, plugintest.Case{
		Plugins:   plugintest.Config{"api_key": config},
		Documents: map[string]string{"consumers/alice": consumer("alice's key", "gold", "beta"), "consumers/bob": consumer("bob's key", "silver")},
	})
}

// request makes a request with headers "Name: value".
func request(method, target string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	return r
}

// wantCode checks a refusal; "" wants the request to have been forwarded.
func wantCode(t testing.TB, what string, got plugintest.Result, code routing.Code) {
	t.Helper()
	if routing.Code(got.Code()) != code || (got.Forwarded != nil) != (code == "") {
		t.Errorf("%s: got %d %q, forwarded %t; want %q", what, got.Response.Code, got.Code(), got.Forwarded != nil, code)
	}
	if code != "" && got.Response.Code != code.Status() {
		t.Errorf("%s: the status is %d, want %d", what, got.Response.Code, code.Status())
	}
}

// example is the plugins of a file in configs/routes.
func example(t testing.TB, name string) plugintest.Config {
	t.Helper()
	t.Chdir("..") // its files are named from there
	value, err := os.ReadFile("configs/routes/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	spec, faults := routing.DecodeRoute(value)
	if faults != nil {
		t.Fatal(faults)
	}
	return spec.Plugins
}

func TestAPIKeyLetsConsumersPass(t *testing.T) {
	places := map[string]any{"header": "X-Key", "query": "key", "cookie": "key"}
	for _, c := range []struct {
		name   string
		config map[string]any
		r      *http.Request
		// want is what the instance sees: query and cookies.
		query, cookie string
	}{
		{"in the default header", nil, request("GET", "/a?b=c", "X-API-Key: alice's key", "Cookie: b=c"), "b=c", "b=c"},
		{"in a header", places, request("GET", "/", "X-Key: alice's key"), "", ""},
		{"in the query", places, request("GET", "/?a=%zz&key=alice%27s+key&c=;d", "Cookie: a=b"), "a=%zz&c=;d", "a=b"},
		{"in a cookie", places, request("GET", "/", `Cookie: a=b; key="alice's key"`, "Cookie: c=d"), "", "a=b; c=d"},
		{"an escaped name is the name", places, request("GET", "/?k%65y=alice%27s%20key"), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := keyed(t, c.config).Do(c.r)
			wantCode(t, "the request", got, "")
			if got.Forwarded == nil {
				return
			}
			h := got.Forwarded.Header
			if h.Get("X-Consumer") != "alice" || h.Get("X-Consumer-Groups") != "gold,beta" {
				t.Errorf("the instance is told %v", h)
			}
			if h.Get("X-Key")+h.Get("X-API-Key") != "" || h.Get("Cookie") != c.cookie || got.Forwarded.URL.RawQuery != c.query {
				t.Errorf("the instance got the key: %v ?%s", h, got.Forwarded.URL.RawQuery)
			}
			if id := got.Exchange.Identity; id == nil || id.Consumer != "alice" || id.Subject != "alice" || id.Plugin != "api_key" ||
				!slices.Equal(id.Groups, []string{"gold", "beta"}) {
				t.Errorf("the identity is %+v", id)
			}
		})
	}
}

func TestAPIKeyStaysWhereTheRouteSaysSo(t *testing.T) {
	got := keyed(t, map[string]any{"query": "key", "forward_key": true, "consumer_header": "X-Who", "groups_header": "X-Level"}).
		Do(request("GET", "/?key=bob%27s+key"))
	wantCode(t, "the request", got, "")
	if got.Forwarded.URL.RawQuery != "key=bob%27s+key" || got.Forwarded.Header.Get("X-Who") != "bob" || got.Forwarded.Header.Get("X-Level") != "silver" {
		t.Errorf("the instance got %v ?%s", got.Forwarded.Header, got.Forwarded.URL.RawQuery)
	}
}

func TestAPIKeyAttacks(t *testing.T) {
	g := keyed(t, map[string]any{"header": "X-API-Key", "query": "key", "cookie": "key"})
	sum := sha256.Sum256([]byte("alice's key"))
	refused := 0
	for _, c := range []struct {
		name string
		r    *http.Request
	}{
		{"no key", request("GET", "/")},
		{"an empty key", request("GET", "/", "X-API-Key: ")},
		{"a key that nobody has", request("GET", "/", "X-API-Key: alice's kez")},
		{"the hash instead of the key", request("GET", "/", "X-API-Key: "+hex.EncodeToString(sum[:]))},
		{"a key in another case", request("GET", "/", "X-API-Key: ALICE'S KEY")},
		{"a key with something behind it", request("GET", "/", "X-API-Key: alice's key, bob's key")},
		{"two headers", request("GET", "/", "X-API-Key: alice's key", "X-API-Key: bob's key")},
		{"the same key twice", request("GET", "/?key=alice%27s+key", "X-API-Key: alice's key")},
		{"two parameters", request("GET", "/?key=alice%27s+key&key=x")},
		{"two cookies", request("GET", "/", "Cookie: key=alice's key; key=x")},
		{"a parameter hidden behind a semicolon", request("GET", "/?a=1;key=alice%27s+key")},
		{"row 28: an underscore twin", request("GET", "/", "X_API_Key: alice's key")},
		{"a very long key", request("GET", "/", "X-API-Key: "+strings.Repeat("k", 20<<10))},
		{"row 33: the name of a consumer", request("GET", "/", "X-Consumer: alice", "X-Consumer-Groups: gold", "X_Consumer: alice")},
		{"row 34: a loopback address as credential", request("GET", "/", "X-Real-Ip: 127.0.0.1", "X-Forwarded-For: 127.0.0.1")},
	} {
		got := g.Do(c.r)
		wantCode(t, c.name, got, routing.CodeUnauthenticated)
		if got.Response.Header().Get("WWW-Authenticate") != "ApiKey" {
			t.Errorf("%s: no challenge in %v", c.name, got.Response.Header())
		}
		refused++
	}
	if n := g.Rejections("api_key"); n != float64(refused) {
		t.Errorf("%v refusals were counted, want %d", n, refused)
	}
	for name, from := range map[string]string{"row 27: Connection": "X-Consumer, X-Consumer-Groups, X-API-Key"} {
		got := g.Do(request("GET", "/?key=bob%27s+key", "Connection: "+from, "X-Consumer: alice"))
		if got.Forwarded == nil || got.Forwarded.Header.Get("X-Consumer") != "bob" {
			t.Errorf("%s named the gateway's headers and the instance got %+v", name, got.Forwarded)
		}
	}
}

func TestAPIKeyHeadersAreNobodysOnAnyRoute(t *testing.T) {
	g := keyed(t, map[string]any{"consumer_header": "X-Who", "groups_header": "X-Level"})
	g.Put("routes/open", `{"path":"/open","service":"instance"}`)
	got := g.Do(request("GET", "/open", "X-Who: alice", "X-Level: gold", "X_Who: alice"))
	if got.Forwarded == nil || len(got.Forwarded.Header) != 0 {
		t.Errorf("row 33: an anonymous route's instance was told %v", got.Forwarded.Header)
	}
}

func TestAConsumerThatWasDeletedIsOutAtOnce(t *testing.T) {
	g := keyed(t, nil)
	ask := func(key string) plugintest.Result { return g.Do(request("GET", "/", "X-API-Key: "+key)) }
	wantCode(t, "before", ask("alice's key"), "")
	if problems := g.Put("consumers/alice", ""); problems != nil {
		t.Fatal(problems)
	}
	wantCode(t, "after", ask("alice's key"), routing.CodeUnauthenticated)
	wantCode(t, "the other", ask("bob's key"), "")
	g.Put("consumers/bob", consumer("bob's new key", "gold"))
	wantCode(t, "a key that was replaced", ask("bob's key"), routing.CodeUnauthenticated)
	if got := ask("bob's new key"); got.Forwarded == nil || got.Forwarded.Header.Get("X-Consumer-Groups") != "gold" {
		t.Error("the new key and group are not in force")
	}
}

func TestRow64ARouteWhoseAPIKeyPluginIsBrokenIsNeverOpen(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{})
	if problems := g.Put("routes/new", `{"path":"/new","service":"instance","plugins":{"api_key":{"heder":"X"}}}`); len(problems) != 1 {
		t.Fatalf("the problems are %v", problems)
	}
	wantCode(t, "the route", g.Do(request("GET", "/new")), routing.CodeRouteInvalid)
}

func TestRow66NoKeyIsEverEchoed(t *testing.T) {
	var log bytes.Buffer
	g := plugintest.Start(t, plugintest.Case{
		Log:     slog.New(slog.NewJSONHandler(&log, nil)),
		Plugins: plugintest.Config{"api_key": {"header": "X-API-Key", "query": "key"}},
	})
	for _, r := range []*http.Request{
		request("GET", "/", "X-API-Key: canary-1"), request("GET", "/?key=canary-1"),
		request("GET", "/?key=canary-1", "X-API-Key: canary-1"),
	} {
		got := g.Do(r)
		if strings.Contains(got.Response.Body.String(), "canary") {
			t.Errorf("the answer holds the key: %s", got.Response.Body)
		}
	}
	if log.Len() == 0 || strings.Contains(log.String(), "canary") {
		t.Errorf("the log holds the key, or nothing: %s", log.String())
	}
}

func TestAPIKeyRefusesBadConfiguration(t *testing.T) {
	for _, c := range []struct {
		config map[string]any
		want   string
	}{
		{map[string]any{"header": "X Key"}, "plugins.api_key.header: is not a header name"},
		{map[string]any{"header": "Host"}, "plugins.api_key.header: is set by the route's host field"},
		{map[string]any{"header": "x-consumer"}, "plugins.api_key.header: is a header that the gateway sets, and so removes from every request"},
		{map[string]any{"cookie": "a b"}, "plugins.api_key.cookie: is not a cookie name"},
		{map[string]any{"consumer_header": "X-Forwarded-User"}, "plugins.api_key.consumer_header: is the gateway's own and cannot be edited"},
		{map[string]any{"groups_header": "X-Consumer"}, "plugins.api_key.groups_header: is the consumer_header too"},
		{map[string]any{"forward_key": "yes"}, "plugins.api_key.forward_key: must be true or false"},
		{map[string]any{"keys": []any{"x"}}, "plugins.api_key.keys: unknown field; accepted: consumer_header, cookie, forward_key, groups_header, header, query"},
	} {
		if got := plugintest.Faults("api_key", c.config); !slices.Equal(got, []string{c.want}) {
			t.Errorf("%v: the faults are %q, want %q", c.config, got, c.want)
		}
	}
}

func TestTheAPIKeyExampleWorks(t *testing.T) {
	g := plugintest.Start(t, plugintest.Case{Plugins: example(t, "api-key"),
		Documents: map[string]string{"consumers/alice": consumer("alice's key", "gold")}})
	wantCode(t, "a key", g.Do(request("GET", "/", "X-API-Key: alice's key")), "")
	wantCode(t, "no key", g.Do(request("GET", "/")), routing.CodeUnauthenticated)
}
