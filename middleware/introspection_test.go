package middleware_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/middleware"
	"github.com/sluice-gateway/sluice/middleware/plugintest"
)

const clientSecret = "s:e c/r&e=t"

// authority is an authorization server that knows some tokens.
type authority struct {
	*publisher
	mu     sync.Mutex
	tokens map[string]claims
	asked  map[string]int
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	t.Setenv("INTROSPECTION_SECRET", clientSecret)
	a := &authority{publisher: publish(t), tokens: map[string]claims{}, asked: map[string]int{}}
	a.does(a.answer)
	return a
}

// answer is what RFC 7662 wants.
func (a *authority) answer(w http.ResponseWriter, r *http.Request) {
	token := r.PostFormValue("token")
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked[token]++
	out := claims{"active": false}
	if c, ok := a.tokens[token]; ok {
		out = c.with(claims{"active": true})
	}
	_ = json.NewEncoder(w).Encode(out)
}

func (a *authority) knows(token string, c claims) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tokens[token] = c; c == nil {
		delete(a.tokens, token)
	}
}

func (a *authority) askedFor(token string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[token]
}

func (a *authority) config(more map[string]any) plugintest.Config {
	c := map[string]any{"url": a.URL, "client_id": "gate:way", "client_secret_env": "INTROSPECTION_SECRET"}
	for k, v := range more {
		c[k] = v
	}
	return plugintest.Config{"introspection": c}
}

func TestIntrospectionLetsActiveTokensPassAndTellsWhoseTheyAre(t *testing.T) {
	a := newAuthority(t)
	a.knows("tok", claims{"sub": "alice", "role": "user", "scope": "read write"})
	g := plugintest.Start(t, plugintest.Case{Plugins: a.config(map[string]any{
		"claims_to_headers": map[string]any{"sub": "X-User-ID", "role": "X-User-Role", "tenant": "X-Tenant"}})})
	r := bearer("/", "tok")
	r.Header.Set("X-User-Id", "root")
	r.Header.Set("X-Tenant", "other")
	got := g.Do(r)
	if got.Forwarded == nil {
		t.Fatalf("refused: %d %s", got.Response.Code, got.Response.Body)
	}
	h := got.Forwarded.Header
	if h.Get("X-User-Id") != "alice" || h.Get("X-User-Role") != "user" || h["X-Tenant"] != nil || h.Get("Authorization") != "Bearer tok" {
		t.Errorf("the instance got %v", h)
	}
	id := got.Exchange.Identity
	if id.Plugin != "introspection" || id.Subject != "alice" || !slices.Equal(id.Scopes, []string{"read", "write"}) {
		t.Errorf("the identity is %+v", id)
	}
	if got := g.Do(bearer("/", "other")); got.Code() != "unauthenticated" ||
		got.Response.Header().Get("WWW-Authenticate") != `Bearer realm="sluice", error="invalid_token"` {
		t.Errorf("an unknown token got %d %v", got.Response.Code, got.Response.Header())
	}
	if got := g.Do(bearer("/", "")); got.Code() != "unauthenticated" || a.askedFor("") != 0 {
		t.Errorf("no token got %d", got.Response.Code)
	}
	if problems := g.Configure(nil); problems != nil || g.Do(bearer("/", "")).Forwarded == nil {
		t.Errorf("without the plugin a request was refused (%v)", problems)
	}
}

func TestIntrospectionAuthenticatesAsRFC6749Wants(t *testing.T) {
	a := newAuthority(t)
	for _, c := range []struct{ auth, want string }{
		{"basic", `["gate%3Away" "s%3Ae+c%2Fr%26e%3Dt"] "" "" "tok" "access_token"`},
		{"post", `["" ""] "gate:way" "s:e c/r&e=t" "tok" "access_token"`},
	} {
		saw := ""
		a.does(func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth()
			saw = fmt.Sprintf("%q %q %q %q %q", []string{user, password}, r.PostFormValue("client_id"),
				r.PostFormValue("client_secret"), r.PostFormValue("token"), r.PostFormValue("token_type_hint"))
			_, _ = io.WriteString(w, `{"active":true}`)
		})
		got := plugintest.Run(t, plugintest.Case{Plugins: a.config(map[string]any{"client_auth": c.auth})}, bearer("/", "tok"))
		if got.Forwarded == nil || saw != c.want {
			t.Errorf("%s: the server saw %s, want %s", c.auth, saw, c.want)
		}
	}
}

func TestRow69IntrospectionFailsClosed(t *testing.T) {
	a := newAuthority(t)
	g := plugintest.Start(t, plugintest.Case{Plugins: a.config(map[string]any{"timeout": "300ms", "issuer": "https://issuer.test",
		"audience": []any{"api"}, "scopes": []any{"read"}, "claims_to_headers": map[string]any{"tenant": "X-Tenant"}})})
	good := func(more claims) string {
		c := claims{"active": true, "iss": "https://issuer.test", "aud": "api", "scope": "read", "exp": at(time.Hour)}
		return jsonOf(t, c.with(more))
	}
	n := 0
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   int
	}{
		{"control", 200, good(nil), 200},
		{"control: no exp", 200, good(claims{"exp": nil}), 200},
		{"inactive", 200, good(claims{"active": false}), 401},
		{"a refresh token", 200, good(claims{"token_use": "refresh_token"}), 401},
		{"expired, whatever active says", 200, good(claims{"exp": at(-time.Minute)}), 401},
		{"not yet valid", 200, good(claims{"nbf": at(time.Minute)}), 401},
		{"another issuer", 200, good(claims{"iss": "https://evil.test"}), 401},
		{"no issuer", 200, good(claims{"iss": nil}), 401},
		{"another audience", 200, good(claims{"aud": []string{"web"}}), 401},
		{"no audience", 200, good(claims{"aud": nil}), 401},
		{"a line break in a claim", 200, good(claims{"tenant": "a\r\nb"}), 401},
		{"a scope is missing", 200, good(claims{"scope": "write"}), 403},
		{"active is a string", 200, good(claims{"active": "true"}), 503},
		{"active is a number", 200, good(claims{"active": 1}), 503},
		{"active twice", 200, `{"active":false,` + good(nil)[1:], 503},
		{"active missing", 200, good(claims{"active": nil}), 503},
		{"a list", 200, `[{"active":true}]`, 503},
		{"HTML", 200, `<html>`, 503},
		{"nothing", 200, ``, 503},
		{"500 with a good body", 500, good(nil), 503},
		{"401: our secret is wrong", 401, good(nil), 503},
		{"404", 404, good(nil), 503},
		{"a redirect", 302, good(nil), 503},
		{"201", 201, good(nil), 503},
		{"row 53: 5 MB", 200, good(nil) + strings.Repeat(" ", 5<<20), 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.answers(c.status, c.body)
			n++
			got := g.Do(bearer("/", fmt.Sprint("token-", n)))
			if got.Response.Code != c.want || (got.Forwarded != nil) != (c.want == 200) {
				t.Errorf("got %d %s, want %d", got.Response.Code, got.Code(), c.want)
			}
		})
	}
	t.Run("a hang", func(t *testing.T) {
		a.does(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then a hang-up is noticed
			<-r.Context().Done()
		})
		if got := g.Do(bearer("/", "hang")); got.Response.Code != 503 {
			t.Errorf("got %d", got.Response.Code)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		a.Close()
		if got := g.Do(bearer("/", "gone")); got.Response.Code != 503 || strings.Contains(got.Response.Body.String(), "127.0.0.1") {
			t.Errorf("got %d %s", got.Response.Code, got.Response.Body)
		}
		if got := g.Do(bearer("/", "token-1")); got.Response.Code != 200 {
			t.Errorf("a token that is remembered got %d", got.Response.Code)
		}
	})
}

// inBubble plays the authority without a network, so that a test's own clock
// can run: the configuration's client is given this transport.
type inBubble struct {
	asked atomic.Int64
	body  func() string
}

func (b *inBubble) RoundTrip(*http.Request) (*http.Response, error) {
	b.asked.Add(1)
	return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(b.body()))}, nil
}

func TestRow69WhatIsRememberedEndsWithCacheTTLAndTheToken(t *testing.T) {
	t.Setenv("INTROSPECTION_SECRET", clientSecret)
	synctest.Test(t, func(t *testing.T) {
		b := &inBubble{}
		g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"introspection": {
			"url": "http://authority.test/introspect", "client_id": "gateway", "client_secret_env": "INTROSPECTION_SECRET",
			"cache_ttl": "60s", "negative_ttl": "5s"}}})
		middleware.SetIntrospectionTransport(g.Table(), b)
		ask := func(token string) (status int, asked int64) {
			before := b.asked.Load()
			status = g.Do(bearer("/", token)).Response.Code
			return status, b.asked.Load() - before
		}
		expect := func(what, token string, status int, asked int64) {
			t.Helper()
			if s, n := ask(token); s != status || n != asked {
				t.Errorf("%s: %d after %d questions, want %d after %d", what, s, n, status, asked)
			}
		}
		b.body = func() string { return `{"active":true}` }
		expect("first", "a", 200, 1)
		expect("again", "a", 200, 0)
		b.body = func() string { return `{"active":false}` }
		time.Sleep(59 * time.Second)
		expect("revoked, and remembered for less than cache_ttl", "a", 200, 0)
		time.Sleep(time.Second)
		expect("revoked, cache_ttl later", "a", 401, 1)
		expect("an inactive token again", "a", 401, 0)
		b.body = func() string { return `{"active":true}` }
		time.Sleep(5 * time.Second)
		expect("negative_ttl later", "a", 200, 1)

		exp := at(30 * time.Second)
		b.body = func() string { return fmt.Sprintf(`{"active":true,"exp":%d}`, exp) }
		expect("a token that expires in 30 s", "b", 200, 1)
		time.Sleep(29 * time.Second)
		expect("before it has expired", "b", 200, 0)
		time.Sleep(time.Second)
		expect("after it has expired, whatever the server says", "b", 401, 1)
	})
}

func TestIntrospectionAsksOnceForAllWhoComeAtOnce(t *testing.T) {
	a := newAuthority(t)
	a.knows("tok", claims{"sub": "alice"})
	inside, release := make(chan struct{}, 100), make(chan struct{})
	a.does(func(w http.ResponseWriter, r *http.Request) {
		inside <- struct{}{}
		<-release
		a.answer(w, r)
	})
	g := plugintest.Start(t, plugintest.Case{Plugins: a.config(nil)})
	var all sync.WaitGroup
	ask := func() {
		all.Go(func() {
			if got := g.Do(bearer("/", "tok")); got.Forwarded == nil || got.Exchange.Identity.Subject != "alice" {
				t.Errorf("got %d", got.Response.Code)
			}
		})
	}
	ask()
	<-inside // the question is under way
	for range 50 {
		ask()
	}
	close(release)
	all.Wait()
	if n := a.askedFor("tok"); n != 1 {
		t.Errorf("the server was asked %d times", n)
	}
}

// TestRow68OneClientsAnswerIsNoOthers: neither a token that looks like
// another's key nor another configuration finds what was remembered.
func TestRow68OneClientsAnswerIsNoOthers(t *testing.T) {
	a := newAuthority(t)
	a.knows("abc", claims{"sub": "alice", "aud": "one"})
	route := func(path string, config plugintest.Config) string {
		return fmt.Sprintf(`{"path":%q,"service":"s","plugins":%s}`, path, jsonOf(t, config))
	}
	g := plugintest.Start(t, plugintest.Case{Documents: map[string]string{
		"routes/one":   route("/one", a.config(map[string]any{"audience": []any{"one"}})),
		"routes/two":   route("/two", a.config(map[string]any{"audience": []any{"two"}})),
		"routes/other": route("/other", a.config(map[string]any{"audience": []any{"one"}, "client_id": "gate"})),
	}})
	for _, c := range []struct {
		path, token string
		want        int
	}{
		{"/one", "abc", 200}, {"/two", "abc", 401}, {"/one", "abc", 200}, {"/two", "abc", 401}, {"/other", "abc", 200},
		{"/one", "ab", 401}, {"/one", "abc=", 401}, {"/one", "Abc", 401}, {"/one", "abc", 200},
	} {
		if got := g.Do(bearer(c.path, c.token)); got.Response.Code != c.want {
			t.Errorf("%s with %s: %d, want %d", c.path, c.token, got.Response.Code, c.want)
		}
	}
	if n := a.askedFor("abc"); n != 3 {
		t.Errorf("the server was asked %d times, want once for each configuration", n)
	}
}

func TestMadeUpTokensDisplaceNoGoodOnes(t *testing.T) {
	a := newAuthority(t)
	a.knows("tok", claims{"sub": "alice"})
	g := plugintest.Start(t, plugintest.Case{Plugins: a.config(map[string]any{"negative_ttl": "1h"})})
	g.Do(bearer("/", "tok"))
	for n := range 2000 {
		if got := g.Do(bearer("/", fmt.Sprint("made-up-", n))); got.Response.Code != 401 {
			t.Fatalf("a made up token got %d", got.Response.Code)
		}
	}
	g.Do(bearer("/", "tok"))
	if n := a.askedFor("tok"); n != 1 {
		t.Errorf("the server was asked %d times about the good token", n)
	}
}

func TestRow66IntrospectionTellsNobodyItsSecrets(t *testing.T) {
	a := newAuthority(t)
	log := &jsonLog{}
	g := plugintest.Start(t, plugintest.Case{Plugins: a.config(map[string]any{"url": a.URL + "/?key=hunter2"}),
		Log: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	bodies := g.Do(bearer("/", "canary-token")).Response.Body.String()
	a.answers(500, "")
	bodies += g.Do(bearer("/", "canary-token-2")).Response.Body.String()
	a.Close()
	bodies += g.Do(bearer("/", "canary-token-3")).Response.Body.String()
	for _, secret := range []string{"canary", "hunter2", clientSecret, "s%3Ae"} {
		if strings.Contains(log.String()+bodies, secret) {
			t.Errorf("%q is in log or body:\n%s%s", secret, log, bodies)
		}
	}
	if !strings.Contains(log.String(), "overloaded") {
		t.Errorf("the log does not tell of the outage: %s", log)
	}
}

func TestIntrospectionRefusesBadConfiguration(t *testing.T) {
	t.Setenv("INTROSPECTION_SECRET", clientSecret)
	for _, c := range []struct {
		field string
		value any // nil leaves the field out
		want  string
	}{
		{"url", "https://issuer.test/introspect", ""},
		{"cache_ttl", "0s", ""},
		{"url", nil, "url: is missing"},
		{"url", "issuer.test", "url: is not an http or https address"},
		{"url", "https://u:hunter2@issuer.test", "url: holds user information"},
		{"client_id", nil, "client_id: is missing"},
		{"client_secret_env", nil, "client_secret_env: is missing, and client_secret_file too"},
		{"client_secret_env", "INTROSPECTION_UNSET", "client_secret_env: the environment variable INTROSPECTION_UNSET is not set"},
		{"client_secret_file", "/nowhere", "client_secret_env: stands beside client_secret_file"},
		{"client_auth", "none", `client_auth: must be "basic" or "post"`},
		{"cache_ttl", "2h", "cache_ttl: must be 0s to 1h0m0s"},
		{"negative_ttl", "2h", "negative_ttl: must be 0s to 1h0m0s"},
		{"timeout", "0s", "timeout: must be 1ms to 30s"},
		{"ca_file", "/nowhere", "ca_file: open /nowhere"},
		{"leeway", "1h", "leeway: must be at most 10m0s"},
		{"algorithms", []any{"RS256"}, "algorithms: unknown field; accepted: audience, ca_file, cache_ttl"},
	} {
		config := map[string]any{"url": "https://issuer.test", "client_id": "a", "client_secret_env": "INTROSPECTION_SECRET"}
		if config[c.field] = c.value; c.value == nil {
			delete(config, c.field)
		}
		got := plugintest.Faults("introspection", config)
		if c.want == "" && got == nil {
			continue
		}
		if len(got) != 1 || c.want == "" || !strings.HasPrefix(got[0], "plugins.introspection."+c.want) || strings.Contains(got[0], "hunter2") {
			t.Errorf("%s: %v: the faults are %q, want %q", c.field, c.value, got, c.want)
		}
	}
	t.Run("beside jwt", func(t *testing.T) {
		config := plugintest.Config{"jwt": {"algorithms": []any{"RS256"}, "jwks_url": "https://issuer.test/keys"},
			"introspection": {"url": "https://issuer.test", "client_id": "a", "client_secret_env": "INTROSPECTION_SECRET"}}
		g := plugintest.Start(t, plugintest.Case{})
		if problems := g.Configure(config); len(problems) != 1 || !strings.Contains(problems[0], "a route uses one plugin for authentication") {
			t.Errorf("the problems are %q", problems)
		}
	})
}
