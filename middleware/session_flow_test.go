package middleware_test

import (
	"compress/gzip"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestRow39SessionRedirectsNowhereElse(t *testing.T) {
	h := startHouse(t, nil)
	for target, want := range map[string]string{
		"/a?next=//evil.test":              "/a?next=//evil.test",
		"//evil.test":                      "/",
		"//evil.test/x":                    "/",
		"///evil.test":                     "/",
		"/%2F%2Fevil.test":                 "/%2F%2Fevil.test",
		"https://evil.test/x":              "/x",
		"http://evil.test//evil.test":      "/",
		"/a?" + strings.Repeat("x", 4<<10): "/",
	} {
		b := h.browser(t)
		w := h.logInAnyHost(t, b, target)
		if got := w.Header().Get("Location"); w.Code != http.StatusFound || got != want {
			t.Errorf("a login begun at %.40q ended with %d at %.40q, want %.40q", target, w.Code, got, want)
		}
	}
	for _, target := range []string{`/\evil.test`, "/%5Cevil.test"} {
		if w := h.browser(t).ask("GET", target); w.Code != http.StatusBadRequest {
			t.Errorf("%q got %d", target, w.Code)
		}
	}
}

// logInAnyHost is logIn for targets that name a host.
func (h *house) logInAnyHost(t *testing.T, b *browser, target string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest("GET", "/", nil)
	r.RequestURI = target
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Fatal(err)
	}
	r.URL = u
	r.Header.Set("Accept", "text/html")
	w := h.Do(r).Response
	for _, k := range w.Result().Cookies() {
		b.cookies[k.Name] = k.Value
	}
	return b.ask("GET", "/_sluice/callback?"+h.issuer.approve(t, w.Header().Get("Location")).Encode())
}

func TestSessionRefusesWhatIsNoAnswerToItsLogin(t *testing.T) {
	h := startHouse(t, nil)
	begin := func() (*browser, url.Values) {
		b := h.browser(t)
		return b, h.issuer.approve(t, b.ask("GET", "/page").Header().Get("Location"))
	}
	callback := func(b *browser, q url.Values) *httptest.ResponseRecorder {
		return b.ask("GET", "/_sluice/callback?"+q.Encode())
	}
	none := func(name string, b *browser, w *httptest.ResponseRecorder, code string) {
		t.Helper()
		if codeOf(w) != code || b.cookies[sessionName] != "" {
			t.Errorf("%s: got %d %s, session %q", name, w.Code, codeOf(w), b.cookies[sessionName])
		}
	}
	b, q := begin()
	none("a state nobody has heard of", b, callback(b, url.Values{"code": q["code"], "state": {rand.Text()}}), "bad_request")
	none("no state", b, callback(b, url.Values{"code": q["code"]}), "bad_request")
	_, other := begin()
	none("another browser's login (login CSRF)", b, callback(b, other), "bad_request")
	sealed := maps.Clone(b.cookies)
	for name, value := range b.cookies {
		b.cookies[name] = value[:len(value)-2] + "xx"
	}
	none("a tampered login cookie", b, callback(b, q), "bad_request")
	b.cookies = maps.Clone(sealed)
	if w := callback(b, q); w.Code != http.StatusFound || b.cookies[sessionName] == "" {
		t.Fatalf("the login itself got %d %s", w.Code, w.Body)
	}
	b.cookies = maps.Clone(sealed)
	none("the same state and code again", b, callback(b, q), "bad_request")
	if n := h.issuer.count("/token"); n != 1 {
		t.Errorf("the issuer was asked for tokens %d times, want 1", n)
	}
	b, q = begin()
	none("an error from the issuer", b, callback(b, url.Values{"error": {"access_denied"}, "state": q["state"]}), "unauthenticated")
	b, q = begin()
	q.Set("iss", "https://other.test")
	none("RFC 9207: another issuer's answer", b, callback(b, q), "unauthenticated")
	b, q = begin()
	if w := b.ask("POST", "/_sluice/callback?"+q.Encode()); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET" {
		t.Errorf("a posted callback got %d", w.Code)
	}
}

func TestSessionBelievesNoWrongIDToken(t *testing.T) {
	h := startHouse(t, nil)
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	set := func(name string, value any) func(map[string]any) { return func(c map[string]any) { c[name] = value } }
	drop := func(name string) func(map[string]any) { return func(c map[string]any) { delete(c, name) } }
	send := func(make func(claims map[string]any) any) func(http.ResponseWriter, url.Values) bool {
		return func(w http.ResponseWriter, form url.Values) bool {
			claims := h.issuer.claims()
			h.issuer.mu.Lock()
			claims["nonce"] = h.issuer.nonces[form.Get("code")]
			h.issuer.mu.Unlock()
			h.issuer.write(w, map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": make(claims)})
			return true
		}
	}
	for name, c := range map[string]struct {
		change func(map[string]any)
		answer func(http.ResponseWriter, url.Values) bool
	}{
		"another nonce":              {change: set("nonce", "x")},
		"no nonce":                   {change: drop("nonce")},
		"row 58: another issuer":     {change: set("iss", "https://other.test")},
		"row 58: another audience":   {change: set("aud", "other")},
		"row 58: an empty audience":  {change: set("aud", []string{})},
		"row 58: expired":            {change: set("exp", now-10)},
		"row 58: no exp":             {change: drop("exp")},
		"row 58: issued in a while":  {change: set("iat", now+3600)},
		"no iat":                     {change: drop("iat")},
		"not before a while":         {change: set("nbf", now+3600)},
		"azp is another client":      {change: set("azp", "other")},
		"two audiences and no azp":   {change: set("aud", []string{"shop", "other"})},
		"azp is no string":           {change: set("azp", 7)},
		"no sub":                     {change: drop("sub")},
		"at_hash of another token":   {change: set("at_hash", "AAAAAAAAAAAAAAAAAAAAAA")},
		"a claim no header can hold": {change: set("role", "user\r\nX-Admin: 1")},
		"another key": {answer: send(func(c map[string]any) any {
			return signWith(stranger, map[string]any{"alg": "RS256", "kid": "k"}, c)
		})},
		"row 56: no signature": {answer: send(func(c map[string]any) any {
			token := signWith(h.issuer.key, map[string]any{"alg": "none"}, c)
			return token[:strings.LastIndexByte(token, '.')+1]
		})},
		"row 56: HS256": {answer: send(func(c map[string]any) any {
			return signWith(h.issuer.key, map[string]any{"alg": "HS256", "kid": "k"}, c)
		})},
		"row 57: crit": {answer: send(func(c map[string]any) any {
			return signWith(h.issuer.key, map[string]any{"alg": "RS256", "kid": "k", "crit": []string{"exp"}, "exp": 1}, c)
		})},
		"no ID token": {answer: send(func(map[string]any) any { return nil })},
		"garbage":     {answer: send(func(map[string]any) any { return "a.b.c" })},
		"the code is refused": {answer: func(w http.ResponseWriter, _ url.Values) bool {
			invalidGrant(w)
			return true
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h.issuer.say(c.change, c.answer)
			b := h.browser(t)
			w := h.logIn(t, b, "/page")
			if strings.HasPrefix(name, "a claim") { // a login, but one that never reaches an instance
				if got := h.Do(b.request("GET", "/page")); got.Forwarded != nil || got.Code() != "forbidden" {
					t.Errorf("the instance was told %v", got.Response.Code)
				}
				return
			}
			if w.Code != http.StatusUnauthorized || codeOf(w) != "unauthenticated" || b.cookies[sessionName] != "" {
				t.Errorf("got %d %s", w.Code, w.Body)
			}
			if body := w.Body.String(); !strings.Contains(body, "the login was not accepted") {
				t.Errorf("row 66: the answer tells %s", body)
			}
		})
	}
	h.issuer.say(func(c map[string]any) { c["aud"], c["azp"] = []string{"shop", "other"}, "shop" }, nil)
	if b := h.browser(t); h.logIn(t, b, "/page").Code != http.StatusFound {
		t.Error("two audiences with a right azp are refused")
	}
}

func TestSessionIDIsNewAfterEachLogin(t *testing.T) {
	h := startHouse(t, nil)
	attacker := h.browser(t)
	h.logIn(t, attacker, "/page")
	victim := h.browser(t)
	victim.cookies[sessionName] = attacker.cookies[sessionName] // planted
	q := h.issuer.approve(t, h.browser(t).ask("GET", "/page").Header().Get("Location"))
	if w := victim.ask("GET", "/_sluice/callback?"+q.Encode()); w.Code != http.StatusBadRequest {
		t.Errorf("a callback without its login got %d", w.Code)
	}
	// The victim's own login, with the planted cookie still there.
	fresh := h.browser(t)
	q = h.issuer.approve(t, fresh.ask("GET", "/page").Header().Get("Location"))
	maps.Copy(victim.cookies, fresh.cookies)
	if w := victim.ask("GET", "/_sluice/callback?"+q.Encode()); w.Code != http.StatusFound {
		t.Fatalf("the login got %d", w.Code)
	}
	if victim.cookies[sessionName] == attacker.cookies[sessionName] {
		t.Error("the login kept the id that was there before")
	}
	if w := attacker.ask("GET", "/page", "Accept", "*/*"); w.Code != http.StatusUnauthorized {
		t.Errorf("the planted session still works: %d", w.Code)
	}
}

func TestSessionLogout(t *testing.T) {
	h := startHouse(t, map[string]any{"issuer_logout": true, "after_logout": "/bye"})
	b := h.browser(t)
	h.logIn(t, b, "/page")
	if w := b.ask("GET", "/_sluice/logout"); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" {
		t.Errorf("a logout by link got %d", w.Code)
	}
	for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.test"}, {"Origin", "null"}} {
		if w := b.ask("POST", "/_sluice/logout", headers...); w.Code != http.StatusForbidden {
			t.Errorf("a logout from another site (%v) got %d", headers, w.Code)
		}
	}
	stolen := maps.Clone(b.cookies)
	w := b.ask("POST", "/_sluice/logout", "Origin", "https://example.com", "Sec-Fetch-Site", "same-origin")
	to, _ := url.Parse(w.Header().Get("Location"))
	if w.Code != http.StatusSeeOther || to.Path != "/end" || to.Query().Get("id_token_hint") == "" ||
		to.Query().Get("post_logout_redirect_uri") != "https://example.com/bye" {
		t.Errorf("the logout got %d to %v", w.Code, to)
	}
	if len(b.cookies) != 0 {
		t.Errorf("the browser still holds %v", b.cookies)
	}
	b.cookies = stolen
	if w := b.ask("GET", "/page", "Accept", "*/*"); w.Code != http.StatusUnauthorized {
		t.Errorf("the cookie still works after the logout: %d", w.Code)
	}
	if w := b.ask("POST", "/_sluice/logout"); w.Code != http.StatusSeeOther {
		t.Errorf("a second logout got %d", w.Code)
	}
}

func TestRow53SessionReadsNoEndlessAnswer(t *testing.T) {
	blank := strings.Repeat(" ", 64<<10)
	var packed strings.Builder
	z := gzip.NewWriter(&packed)
	_, _ = z.Write([]byte(blank))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ encoding, chunk string }{
		"as it is": {"", blank}, "row 52: to be inflated": {"gzip", packed.String()},
	} {
		t.Run(name, func(t *testing.T) {
			endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", c.encoding)
				for {
					if _, err := w.Write([]byte(c.chunk)); err != nil {
						return
					}
				}
			}))
			defer endless.Close()
			h := startHouse(t, map[string]any{"issuer": endless.URL})
			if w := h.browser(t).ask("GET", "/page"); w.Code != http.StatusServiceUnavailable {
				t.Errorf("got %d", w.Code)
			}
		})
	}
}

func TestRow67SessionVerifiesTheIssuersCertificate(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	h := startHouse(t, map[string]any{"issuer": secure.URL})
	if w := h.browser(t).ask("GET", "/page"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("got %d", w.Code)
	}
}

func TestSessionBackChannelLogout(t *testing.T) {
	h := startHouse(t, nil)
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	post := func(token string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/_sluice/backchannel-logout", strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return h.Do(r).Response
	}
	b := h.browser(t)
	h.logIn(t, b, "/page")
	now := time.Now().Unix()
	for name, token := range map[string]string{
		"an ID token":       h.issuer.sign(h.issuer.claims()),
		"with a nonce":      h.issuer.logoutToken(map[string]any{"nonce": "n"}),
		"of another issuer": h.issuer.logoutToken(map[string]any{"iss": "https://other.test"}),
		"for another":       h.issuer.logoutToken(map[string]any{"aud": "other"}),
		"expired":           h.issuer.logoutToken(map[string]any{"exp": now - 10}),
		"without events":    h.issuer.logoutToken(map[string]any{"events": nil}),
		"of another event":  h.issuer.logoutToken(map[string]any{"events": map[string]any{"x": map[string]any{}}}),
		"of nobody":         h.issuer.logoutToken(map[string]any{"sub": nil, "sid": nil}),
		"without jti":       h.issuer.logoutToken(map[string]any{"jti": nil}),
		"without iat":       h.issuer.logoutToken(map[string]any{"iat": nil}),
		"signed by others":  signWith(stranger, map[string]any{"alg": "RS256", "kid": "k"}, map[string]any{}),
		"nothing":           "",
	} {
		if w := post(token); w.Code != http.StatusBadRequest {
			t.Errorf("a logout token %s got %d", name, w.Code)
		}
	}
	if w := post(strings.Repeat("x", 64<<10)); w.Code != http.StatusBadRequest {
		t.Errorf("a huge one got %d", w.Code)
	}
	if w := b.ask("GET", "/page"); w.Code != http.StatusOK {
		t.Fatalf("one of them ended the session: %d", w.Code)
	}
	if w := post(h.issuer.logoutToken(map[string]any{"sid": "another login", "sub": "alice"})); w.Code != http.StatusOK || b.ask("GET", "/page").Code != http.StatusOK {
		t.Error("the end of another login ended this one")
	}
	if w := post(h.issuer.logoutToken(map[string]any{"sub": nil})); w.Code != http.StatusOK || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("the logout token got %d %s", w.Code, w.Body)
	}
	if w := b.ask("GET", "/page", "Accept", "*/*"); w.Code != http.StatusUnauthorized {
		t.Errorf("the session lives on: %d", w.Code)
	}
	h.logIn(t, b, "/page")
	post(h.issuer.logoutToken(map[string]any{"sid": nil}))
	if w := b.ask("GET", "/page", "Accept", "*/*"); w.Code != http.StatusUnauthorized {
		t.Errorf("the user's session lives on: %d", w.Code)
	}
}

func TestRow61UnknownKeysOfLogoutTokensDoNotReachTheIssuer(t *testing.T) {
	h := startHouse(t, nil)
	for i := range 50 {
		token := signWith(h.issuer.key, map[string]any{"alg": "RS256", "kid": fmt.Sprint("unknown ", i)}, h.issuer.claims())
		r := httptest.NewRequest("POST", "/_sluice/backchannel-logout", strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if got := h.Do(r); got.Response.Code != http.StatusBadRequest {
			t.Errorf("got %d", got.Response.Code)
		}
	}
	if n := h.issuer.count("/keys"); n > 2 {
		t.Errorf("the keys were asked for %d times", n)
	}
	if b := h.browser(t); h.logIn(t, b, "/page").Code != http.StatusFound {
		t.Error("nobody can log in any more")
	}
}

func TestSessionForgetsLoginsThatAreNeverFinished(t *testing.T) {
	h := startHouse(t, nil)
	b := h.browser(t)
	for i := range 40 {
		b.ask("GET", "/page")
		if len(b.cookies) > 6 {
			t.Fatalf("after %d logins the browser holds %d cookies", i+1, len(b.cookies))
		}
	}
	if w := h.logIn(t, b, "/page"); w.Code != http.StatusFound {
		t.Errorf("the last login got %d", w.Code)
	}
}
