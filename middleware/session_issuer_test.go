package middleware_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
)

// issuer is an OpenID Connect issuer that says what a test wants to hear.
type issuer struct {
	*httptest.Server
	key *rsa.PrivateKey

	mu    sync.Mutex
	calls map[string]int
	// change edits the claims of the next ID tokens, answer what the token
	// endpoint says.
	change func(claims map[string]any)
	answer func(w http.ResponseWriter, form url.Values) bool
	nonces map[string]string // of codes
	forms  []url.Values
}

func startIssuer(t testing.TB) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key, calls: map[string]int{}, nonces: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		i.write(w, map[string]any{
			"issuer": i.URL, "authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token",
			"jwks_uri": i.URL + "/keys", "end_session_endpoint": i.URL + "/end", "id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		i.write(w, map[string]any{"keys": []any{map[string]any{"kty": "RSA", "kid": "k", "alg": "RS256", "use": "sig",
			"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())}}})
	})
	mux.HandleFunc("/token", i.token)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.mu.Lock()
		i.calls[r.URL.Path]++
		i.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (i *issuer) count(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.calls[path]
}

// say sets what the issuer does from now on.
func (i *issuer) say(change func(map[string]any), answer func(http.ResponseWriter, url.Values) bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.change, i.answer = change, answer
}

func (i *issuer) token(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	i.mu.Lock()
	change, answer := i.change, i.answer
	nonce := i.nonces[r.PostForm.Get("code")]
	i.forms = append(i.forms, r.PostForm)
	i.mu.Unlock()
	if answer != nil && answer(w, r.PostForm) {
		return
	}
	claims := i.claims()
	if nonce != "" {
		claims["nonce"] = nonce
	}
	if change != nil {
		change(claims)
	}
	i.write(w, map[string]any{"access_token": "a", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "r-" + rand.Text(),
		"id_token": i.sign(claims)})
}

func (i *issuer) claims() map[string]any {
	now := time.Now().Unix()
	return map[string]any{"iss": i.URL, "aud": "shop", "sub": "alice", "sid": "login-1", "role": "user", "groups": []string{"gold", "beta"},
		"iat": now, "exp": now + 3600}
}

// logoutToken makes a logout token; change edits it.
func (i *issuer) logoutToken(change map[string]any) string {
	now := time.Now().Unix()
	claims := map[string]any{"iss": i.URL, "aud": "shop", "sub": "alice", "sid": "login-1", "iat": now, "exp": now + 120, "jti": rand.Text(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}
	maps.Copy(claims, change)
	for name, value := range claims {
		if value == nil {
			delete(claims, name)
		}
	}
	return i.sign(claims)
}

func (i *issuer) sign(claims map[string]any) string {
	return signWith(i.key, map[string]any{"alg": "RS256", "kid": "k", "typ": "JWT"}, claims)
}

func signWith(key *rsa.PrivateKey, header, claims map[string]any) string {
	h, _ := json.Marshal(header)
	c, _ := json.Marshal(claims)
	signed := base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(c)
	digest := sha256.Sum256([]byte(signed))
	signature, _ := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// approve plays the user at the issuer: it returns the query that the browser
// comes back with.
func (i *issuer) approve(t testing.TB, authorize string) url.Values {
	t.Helper()
	u, err := url.Parse(authorize)
	if err != nil {
		t.Fatal(err)
	}
	q, code := u.Query(), rand.Text()
	i.mu.Lock()
	i.nonces[code] = q.Get("nonce")
	i.mu.Unlock()
	return url.Values{"code": {code}, "state": {q.Get("state")}}
}

// browser keeps cookies for one origin and asks a gateway.
type browser struct {
	t       testing.TB
	do      func(*http.Request) *httptest.ResponseRecorder
	cookies map[string]string
}

func (b *browser) request(method, target string, headers ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.Header.Set("Accept", "text/html,*/*;q=0.8")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	return r
}

// ask sends a request and takes the cookies that come back.
func (b *browser) ask(method, target string, headers ...string) *httptest.ResponseRecorder {
	w := b.do(b.request(method, target, headers...))
	for _, k := range w.Result().Cookies() {
		if k.MaxAge < 0 {
			delete(b.cookies, k.Name)
		} else {
			b.cookies[k.Name] = k.Value
		}
	}
	return w
}

const (
	sessionSecret = "0123456789abcdef0123456789abcdef"
	sessionName   = "__Host-sluice_session"
)

// house is a gateway with a session route, an issuer and what the instance saw.
type house struct {
	*plugintest.Gateway
	issuer *issuer
	config map[string]any
}

func startHouse(t testing.TB, change map[string]any) *house {
	t.Helper()
	h := &house{issuer: startIssuer(t)}
	if e, ok := t.(interface{ Setenv(k, v string) }); ok {
		e.Setenv("TEST_SESSION_SECRET", sessionSecret)
		e.Setenv("TEST_CLIENT_SECRET", "client secret")
	}
	h.config = map[string]any{"issuer": h.issuer.URL, "client_id": "shop", "client_secret_env": "TEST_CLIENT_SECRET",
		"secret_env": "TEST_SESSION_SECRET", "claims_to_headers": map[string]any{"sub": "X-User-ID", "role": "X-User-Role", "groups": "X-Groups"}}
	maps.Copy(h.config, change)
	h.Gateway = plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"session": h.config},
		Documents: map[string]string{"routes/open": `{"path":"/open","service":"instance"}`}})
	return h
}

func (h *house) browser(t testing.TB) *browser {
	return &browser{t: t, cookies: map[string]string{}, do: func(r *http.Request) *httptest.ResponseRecorder { return h.Do(r).Response }}
}

// logIn takes b through a login that begins at target, to its end.
func (h *house) logIn(t testing.TB, b *browser, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := b.ask("GET", target)
	if w.Code != http.StatusFound || !strings.HasPrefix(w.Header().Get("Location"), h.issuer.URL+"/authorize?") {
		t.Fatalf("a page without a session got %d to %q", w.Code, w.Header().Get("Location"))
	}
	return b.ask("GET", "/_sluice/callback?"+h.issuer.approve(t, w.Header().Get("Location")).Encode())
}

func codeOf(w *httptest.ResponseRecorder) string {
	return plugintest.Result{Response: w}.Code()
}

// stale makes logins that need a refresh at once, and refreshes that answer
// does.
func (h *house) stale(answer func(w http.ResponseWriter)) {
	h.issuer.say(nil, func(w http.ResponseWriter, form url.Values) bool {
		if form.Get("grant_type") == "refresh_token" {
			answer(w)
			return true
		}
		claims := h.issuer.claims()
		h.issuer.mu.Lock()
		claims["nonce"] = h.issuer.nonces[form.Get("code")]
		h.issuer.mu.Unlock()
		h.issuer.write(w, map[string]any{"access_token": "a", "token_type": "Bearer", "expires_in": -1, "refresh_token": "r", "id_token": h.issuer.sign(claims)})
		return true
	})
}

func invalidGrant(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": "invalid_grant"})
}
