package middleware_test

import (
	"bufio"
	"crypto/rand"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
)

func TestSessionLogsAUserIn(t *testing.T) {
	h := startHouse(t, nil)
	b := h.browser(t)
	w := b.ask("GET", "/app/page?x=1&y=%20")
	to, err := url.Parse(w.Header().Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	q := to.Query()
	if q.Get("client_id") != "shop" || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" ||
		len(q.Get("code_challenge")) != 43 || len(q.Get("state")) < 26 || len(q.Get("nonce")) < 26 ||
		q.Get("redirect_uri") != "https://example.com/_sluice/callback" || q.Get("scope") != "openid profile email" {
		t.Errorf("the login begins with %v", q)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Error("the way to the login may be cached")
	}
	w = b.ask("GET", "/_sluice/callback?"+h.issuer.approve(t, to.String()).Encode())
	if w.Code != http.StatusFound || w.Header().Get("Location") != "/app/page?x=1&y=%20" {
		t.Fatalf("the login ended with %d to %q: %s", w.Code, w.Header().Get("Location"), w.Body)
	}
	var line string
	for _, l := range w.Header()["Set-Cookie"] {
		if strings.HasPrefix(l, sessionName+"=") {
			line = l
		}
	}
	for _, want := range []string{"; Path=/", "; HttpOnly", "; Secure", "; SameSite=Lax", "; Max-Age=43200"} {
		if !strings.Contains(line, want) {
			t.Errorf("the cookie %q lacks %q", line, want)
		}
	}
	if strings.Contains(line, "Domain") || len(b.cookies) != 1 {
		t.Errorf("the cookie is %q, the browser holds %v", line, b.cookies)
	}
	form := h.issuer.forms[0]
	if form.Get("code_verifier") == "" || form.Get("redirect_uri") != "https://example.com/_sluice/callback" {
		t.Errorf("the code was exchanged with %v", form)
	}

	r := b.request("GET", "/app/page", "X-User-ID", "root")
	r.AddCookie(&http.Cookie{Name: "theme", Value: "dark"})
	got := h.Do(r)
	if got.Forwarded == nil {
		t.Fatalf("the session does not pass: %s", got.Response.Body)
	}
	f := got.Forwarded.Header
	if f.Get("Cookie") != "theme=dark" || f.Get("X-User-Id") != "alice" || f.Get("X-User-Role") != "user" || f.Get("X-Groups") != "gold,beta" {
		t.Errorf("the instance saw %v", f)
	}
	id := got.Exchange.Identity
	if id == nil || id.Plugin != "session" || id.Subject != "alice" || id.Claims["role"] != "user" || !slices.Equal(id.Scopes, []string{"openid", "profile", "email"}) {
		t.Errorf("the identity is %+v", id)
	}
	r = b.request("GET", "/open")
	if got := h.Do(r); got.Forwarded == nil || got.Forwarded.Header["Cookie"] != nil {
		t.Error("an instance of another route saw the session cookie")
	}
}

func TestSessionAnswersScriptsWith401(t *testing.T) {
	h := startHouse(t, nil)
	for name, r := range map[string]*http.Request{
		"an unsafe method":     h.browser(t).request("POST", "/"),
		"no page is asked for": h.browser(t).request("GET", "/", "Accept", "application/json"),
		"fetch":                h.browser(t).request("GET", "/", "Sec-Fetch-Mode", "cors"),
		"a websocket":          h.browser(t).request("GET", "/", "Connection", "Upgrade", "Upgrade", "websocket"),
	} {
		got := h.Do(r)
		if got.Response.Code != http.StatusUnauthorized || got.Code() != "unauthenticated" || got.Forwarded != nil ||
			len(got.Response.Result().Cookies()) != 0 || got.Response.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: got %d %v", name, got.Response.Code, got.Response.Header())
		}
	}
	if n := h.issuer.count("/.well-known/openid-configuration"); n != 0 {
		t.Errorf("the issuer was asked %d times for them", n)
	}
}

func TestSessionTakesNoCookieThatItDidNotSign(t *testing.T) {
	h := startHouse(t, nil)
	b := h.browser(t)
	h.logIn(t, b, "/page")
	good := b.cookies[sessionName]
	flipped := []byte(good)
	flipped[len(flipped)/2] ^= 1
	for name, value := range map[string]string{
		"tampered": string(flipped), "cut": good[:len(good)-4], "a bare id": rand.Text(), "empty": "", "long": strings.Repeat("A", 5000),
		"padded": good + "AAAA",
	} {
		b.cookies[sessionName] = value
		if w := b.ask("GET", "/page", "Accept", "application/json"); w.Code != http.StatusUnauthorized {
			t.Errorf("a cookie that is %s got %d", name, w.Code)
		}
	}
	b.cookies[sessionName] = good
	if w := b.ask("GET", "/page"); w.Code != http.StatusOK {
		t.Errorf("the good cookie got %d", w.Code)
	}
}

func TestRow78SessionIsNoUseToOtherSites(t *testing.T) {
	h := startHouse(t, map[string]any{"trusted_origins": []any{"https://friend.test"}})
	b := h.browser(t)
	h.logIn(t, b, "/page")
	upgrade := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-Websocket-Key", "x", "Sec-Websocket-Version", "13"}
	for _, c := range []struct {
		name, method, origin, site string
		upgrade                    bool
		want                       int
	}{
		{"a foreign websocket", "GET", "https://evil.test", "", true, 403},
		{"a websocket from a sandbox", "GET", "null", "", true, 403},
		{"a websocket from a name that ends alike", "GET", "https://evilexample.com", "", true, 403},
		{"a websocket from a subdomain", "GET", "https://x.example.com", "", true, 403},
		{"its own websocket", "GET", "https://example.com", "", true, 200},
		{"a friend's websocket", "GET", "https://friend.test", "", true, 200},
		{"a program's websocket", "GET", "", "", true, 200},
		{"a foreign post", "POST", "https://evil.test", "cross-site", false, 403},
		{"a post from a subdomain", "POST", "https://x.example.com", "same-site", false, 403},
		{"its own post", "POST", "https://example.com", "same-origin", false, 200},
		{"a friend's post", "POST", "https://friend.test", "cross-site", false, 200},
		{"a link from elsewhere", "GET", "", "cross-site", false, 200},
	} {
		headers := []string{}
		if c.upgrade {
			headers = append(headers, upgrade...)
		}
		r := b.request(c.method, "/page", headers...)
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		if c.site != "" {
			r.Header.Set("Sec-Fetch-Site", c.site)
		}
		if got := h.Do(r); got.Response.Code != c.want || (got.Forwarded != nil) != (c.want == 200) {
			t.Errorf("%s: got %d, want %d", c.name, got.Response.Code, c.want)
		}
	}
}

func TestSessionRefreshesOnceForAllThatAsk(t *testing.T) {
	h := startHouse(t, nil)
	var refreshed []string
	h.issuer.say(nil, func(w http.ResponseWriter, form url.Values) bool {
		if form.Get("grant_type") != "refresh_token" {
			claims := h.issuer.claims()
			h.issuer.mu.Lock()
			claims["nonce"] = h.issuer.nonces[form.Get("code")]
			h.issuer.mu.Unlock()
			h.issuer.write(w, map[string]any{"access_token": "a", "token_type": "Bearer", "expires_in": -1, "refresh_token": "first", "id_token": h.issuer.sign(claims)})
			return true
		}
		h.issuer.mu.Lock()
		refreshed = append(refreshed, form.Get("refresh_token"))
		h.issuer.mu.Unlock()
		claims := h.issuer.claims()
		claims["role"] = "admin"
		h.issuer.write(w, map[string]any{"access_token": "b", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "second", "id_token": h.issuer.sign(claims)})
		return true
	})
	b := h.browser(t)
	h.logIn(t, b, "/page")
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if got := h.Do(b.request("GET", "/page")); got.Forwarded == nil || got.Forwarded.Header.Get("X-User-Role") != "admin" {
				t.Errorf("got %d", got.Response.Code)
			}
		})
	}
	all.Wait()
	if !slices.Equal(refreshed, []string{"first"}) {
		t.Errorf("refreshed with %q, want one time with the first token", refreshed)
	}
}

func TestSessionEndsWhenTheIssuerSaysSoAndWaitsWhileItIsAway(t *testing.T) {
	h := startHouse(t, nil)
	h.stale(func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) })
	b := h.browser(t)
	h.logIn(t, b, "/page")
	if w := b.ask("GET", "/page"); w.Code != http.StatusServiceUnavailable || codeOf(w) != "overloaded" || w.Header().Get("Retry-After") != "1" {
		t.Errorf("while the issuer is away the session got %d", w.Code)
	}
	before := h.issuer.count("/token")
	for range 20 {
		if w := b.ask("GET", "/page"); w.Code != http.StatusServiceUnavailable {
			t.Errorf("got %d", w.Code)
		}
	}
	if n := h.issuer.count("/token") - before; n > 3 {
		t.Errorf("an issuer that is away was asked %d times by 20 requests", n)
	}
	h2 := startHouse(t, nil)
	h2.stale(invalidGrant)
	b = h2.browser(t)
	h2.logIn(t, b, "/page")
	if w := b.ask("GET", "/page", "Accept", "*/*"); w.Code != http.StatusUnauthorized {
		t.Errorf("a session that the issuer has ended got %d", w.Code)
	}
	h2.stale(func(w http.ResponseWriter) {
		claims := h2.issuer.claims()
		claims["sub"] = "mallory"
		h2.issuer.write(w, map[string]any{"access_token": "b", "token_type": "Bearer", "id_token": h2.issuer.sign(claims)})
	})
	b = h2.browser(t)
	h2.logIn(t, b, "/page")
	if w := b.ask("GET", "/page", "Accept", "*/*"); w.Code != http.StatusUnauthorized {
		t.Errorf("a refresh that makes another user of it got %d", w.Code)
	}
}

func TestRow64SessionFailsClosedWithoutItsIssuer(t *testing.T) {
	h := startHouse(t, nil)
	b := h.browser(t)
	h.logIn(t, b, "/page")
	h.issuer.Close()
	if got := h.Do(b.request("GET", "/page")); got.Forwarded == nil {
		t.Errorf("a session that is there does not go on: %d", got.Response.Code)
	}
	away := startHouse(t, map[string]any{"issuer": h.issuer.URL})
	if got := away.Do(away.browser(t).request("GET", "/page")); got.Response.Code != http.StatusServiceUnavailable || got.Forwarded != nil {
		t.Errorf("a first login at an issuer that is away got %d", got.Response.Code)
	}
	if got := away.Do(away.browser(t).request("POST", "/_sluice/backchannel-logout")); got.Response.Code != http.StatusServiceUnavailable {
		t.Errorf("a logout token got %d", got.Response.Code)
	}
}

func TestSessionOutlivesAChangeOfItsDocument(t *testing.T) {
	h := startHouse(t, nil)
	b := h.browser(t)
	h.logIn(t, b, "/page")
	changed := maps.Clone(h.config)
	changed["claims_to_headers"] = map[string]any{"sub": "X-Account"}
	changed["timeout"] = "1s"
	if problems := h.Configure(plugintest.Config{"session": changed}); problems != nil {
		t.Fatal(problems)
	}
	if got := h.Do(b.request("GET", "/page")); got.Forwarded == nil || got.Forwarded.Header.Get("X-Account") != "alice" {
		t.Errorf("after the change the session got %d", got.Response.Code)
	}
	other := maps.Clone(h.config)
	other["client_id"] = "other"
	if problems := h.Configure(plugintest.Config{"session": other}); problems != nil {
		t.Fatal(problems)
	}
	if got := h.Do(b.request("GET", "/page", "Accept", "*/*")); got.Response.Code != http.StatusUnauthorized {
		t.Errorf("another client's session got %d", got.Response.Code)
	}
}

func TestSessionOverPlainHTTPNeedsToBeAskedFor(t *testing.T) {
	h := startHouse(t, map[string]any{"insecure_cookie": true, "cookie": "dev"})
	b := h.browser(t)
	w := b.ask("GET", "/page")
	if to, _ := url.Parse(w.Header().Get("Location")); to.Query().Get("redirect_uri") != "http://example.com/_sluice/callback" {
		t.Errorf("it comes back to %s", to.Query().Get("redirect_uri"))
	}
	b.ask("GET", "/_sluice/callback?"+h.issuer.approve(t, w.Header().Get("Location")).Encode())
	if b.cookies["dev"] == "" || b.ask("GET", "/page").Code != http.StatusOK {
		t.Errorf("the browser holds %v", b.cookies)
	}
}

func TestSessionRefusesBadConfiguration(t *testing.T) {
	t.Setenv("TEST_SESSION_SECRET", sessionSecret)
	t.Setenv("TEST_SHORT_SECRET", "short-and-secret")
	for _, c := range []struct {
		change map[string]any
		want   string
	}{
		{map[string]any{"issuer": "accounts.test"}, "plugins.session.issuer: is not an http or https address"},
		{map[string]any{"issuer": nil}, "plugins.session.issuer: is missing"},
		{map[string]any{"client_id": nil}, "plugins.session.client_id: is missing"},
		{map[string]any{"client_secret_env": "A", "client_secret_file": "b"}, "plugins.session.client_secret_env: stands beside client_secret_file; give one of them"},
		{map[string]any{"secret_env": nil}, "plugins.session.secret_env: is missing, and secret_file too; give one of them"},
		{map[string]any{"secret_env": "TEST_SHORT_SECRET"}, "plugins.session.secret_env: holds no line of at least 32 bytes"},
		{map[string]any{"ca_file": "no such file"}, "plugins.session.ca_file: open no such file: no such file or directory"},
		{map[string]any{"timeout": "1m"}, "plugins.session.timeout: must be 1ms to 30s"},
		{map[string]any{"scopes": []any{"profile"}}, "plugins.session.scopes: lacks openid"},
		{map[string]any{"scopes": []any{"openid", "a b"}}, "plugins.session.scopes[1]: is not a single scope"},
		{map[string]any{"redirect_path": "callback"}, "plugins.session.redirect_path: is not a plain path such as /_sluice/callback"},
		{map[string]any{"redirect_path": "/a/../b"}, "plugins.session.redirect_path: is not a plain path such as /_sluice/callback"},
		{map[string]any{"logout_path": "/_sluice/callback"}, "plugins.session.logout_path: is another path's value too"},
		{map[string]any{"after_logout": "//evil.test"}, "plugins.session.after_logout: is not a local path such as /goodbye"},
		{map[string]any{"after_logout": `/\evil.test`}, "plugins.session.after_logout: is not a local path such as /goodbye"},
		{map[string]any{"after_logout": "https://evil.test"}, "plugins.session.after_logout: is not a local path such as /goodbye"},
		{map[string]any{"origin": "app.test"}, "plugins.session.origin: is not an origin such as https://app.example.com"},
		{map[string]any{"origin": "http://app.test"}, "plugins.session.origin: is not https, which cookies need unless insecure_cookie is set"},
		{map[string]any{"trusted_origins": []any{"https://app.test/x"}}, "plugins.session.trusted_origins[0]: is not an origin such as https://app.example.com"},
		{map[string]any{"cookie": "a b"}, `plugins.session.cookie: is not a cookie name without a prefix such as "__Host-"`},
		{map[string]any{"cookie": "__Host-a"}, `plugins.session.cookie: is not a cookie name without a prefix such as "__Host-"`},
		{map[string]any{"lifetime": "10ms"}, "plugins.session.lifetime: must be 1s to 9600h0m0s"},
		{map[string]any{"idle_timeout": "2h", "lifetime": "1h"}, "plugins.session.idle_timeout: must be 1s to lifetime"},
		{map[string]any{"claims_to_headers": map[string]any{"sub": "X-Request-ID"}}, "plugins.session.claims_to_headers.sub: is the gateway's own and cannot be edited"},
		{map[string]any{"claims_to_headers": map[string]any{"sub": "Cookie"}}, "plugins.session.claims_to_headers.sub: names a header that clients send themselves; it would be taken from all of their requests"},
	} {
		config := map[string]any{"issuer": "https://accounts.test", "client_id": "shop", "secret_env": "TEST_SESSION_SECRET"}
		maps.Copy(config, c.change)
		maps.DeleteFunc(config, func(_ string, v any) bool { return v == nil })
		got := plugintest.Faults("session", config)
		if len(got) == 0 || got[0] != c.want || strings.Contains(strings.Join(got, ""), "short-and-secret") {
			t.Errorf("%v: the faults are %q, want %q", c.change, got, c.want)
		}
	}
}

func TestSessionWarnsOfSessionsThatNobodyElseKnows(t *testing.T) {
	t.Setenv("TEST_SESSION_SECRET", sessionSecret)
	read, write := io.Pipe()
	said := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(read).ReadString('\n')
		said <- line
		_ = read.Close()
	}()
	plugintest.Start(t, plugintest.Case{Log: slog.New(slog.NewTextHandler(write, nil)), Plugins: plugintest.Config{"session": {
		"issuer": "https://accounts.test", "client_id": "shop", "secret_env": "TEST_SESSION_SECRET"}}})
	if line := <-said; !strings.Contains(line, "level=WARN") || !strings.Contains(line, "sessions are kept in memory") || strings.Contains(line, sessionSecret) {
		t.Errorf("the log says %q", line)
	}
}
