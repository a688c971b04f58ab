package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// guarded is a gateway that follows etcd alone, one instance, and a provider
// whose tokens let requests pass.
type guarded struct {
	*site
	oidc *testenv.OIDC
}

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	g := &guarded{site: &site{t: t, etcd: testenv.StartEtcd(t)}, oidc: testenv.StartOIDC(t)}
	g.gateway = testenv.StartGateway(t, testenv.GatewayOptions{Etcd: g.etcd.Endpoint})
	instance := testenv.StartService(t, "orders", "-id", "o1", "-consul", "")
	g.etcd.Put("/sluice/services/orders", fmt.Sprintf(`{"targets":[{"address":%q}]}`, instance.Addr))
	return g
}

// put writes the document and waits until the gateway serves by it.
func (g *guarded) put(key, value string) {
	g.t.Helper()
	revision := g.etcd.Put(key, value)
	testenv.Eventually(g.t, 20*time.Second, "the gateway serves by "+key, func() bool { return g.status().Revision >= revision })
}

// route puts the route /orders/* with plugins.
func (g *guarded) route(plugins string) {
	g.t.Helper()
	g.put("/sluice/routes/orders", fmt.Sprintf(`{"path":"/orders/*","service":"orders","plugins":{%s}}`, plugins))
}

// jwt is the plugin's configuration with further fields.
func (g *guarded) jwt(more ...string) string {
	fields := append([]string{`"algorithms":["RS256","ES256"]`, fmt.Sprintf(`"issuer":%q`, g.oidc.Issuer), `"audience":["api"]`,
		`"claims_to_headers":{"sub":"X-User-ID","role":"X-User-Role","tenant":"X-Tenant"}`, `"refresh_interval":"1s"`}, more...)
	return `"jwt":{` + strings.Join(fields, ",") + `}`
}

// told is what the instance says it was told by header.
func told(t *testing.T, a answer, name string) string {
	t.Helper()
	var seen struct{ Headers http.Header }
	if err := json.Unmarshal(a.Body, &seen); err != nil {
		t.Fatalf("read the instance's answer %d %q: %v", a.Status, a.Body, err)
	}
	return strings.Join(seen.Headers.Values(name), "|")
}

func bearer(token string) string { return "Authorization: Bearer " + token }

func TestTokensOfARealIssuerSayWhoAsks(t *testing.T) {
	g := newGuarded(t)
	g.route(g.jwt(fmt.Sprintf(`"discovery":%q`, g.oidc.Issuer)))
	g.put("/sluice/routes/open", `{"path":"/open","service":"orders"}`)

	login := g.oidc.LogIn("web", "user")
	a := g.ask("GET", "/orders/1", bearer(login.AccessToken), "X-User-ID: root", "x_user_role: admin", "X-Tenant: other")
	equal(t, "status", a.Status, 200)
	for name, want := range map[string]string{"X-User-ID": "user", "X-User-Role": "user", "X-Tenant": "", "x_user_role": "",
		"Authorization": "Bearer " + login.AccessToken} {
		equal(t, name, told(t, a, name), want)
	}
	a = g.ask("GET", "/orders/1", bearer(g.oidc.Token("service")))
	equal(t, "a service's own role", told(t, a, "X-User-Role"), "admin")
	a = g.ask("GET", "/open", "X-User-ID: root", "X-Tenant: other")
	equal(t, "identity on an open route", told(t, a, "X-User-ID")+told(t, a, "X-Tenant"), "")

	good := map[string]any{"iss": g.oidc.Issuer, "sub": "eve", "aud": "api", "exp": time.Now().Add(time.Hour).Unix()}
	with := func(name string, value any) map[string]any {
		c := map[string]any{}
		for k, v := range good {
			c[k] = v
		}
		c[name] = value
		return c
	}
	stranger := testenv.StartOIDC(t)
	for name, c := range map[string]struct {
		token string
		want  int
	}{
		"control":             {g.oidc.Sign("JWT", good), 200},
		"expired":             {g.oidc.Sign("JWT", with("exp", time.Now().Add(-time.Minute).Unix())), 401},
		"no expiry":           {g.oidc.Sign("JWT", with("exp", nil)), 401},
		"another audience":    {g.oidc.Sign("JWT", with("aud", "web")), 401},
		"another issuer":      {g.oidc.Sign("JWT", with("iss", stranger.Issuer)), 401},
		"a logout token":      {g.oidc.Sign("logout+jwt", good), 401},
		"a stranger's token":  {stranger.Token("service"), 401},
		"a stranger's signed": {stranger.Sign("JWT", good), 401},
		"a line break":        {g.oidc.Sign("JWT", with("tenant", "a\r\nX-User-Role: admin")), 401},
		"a refresh token":     {login.RefreshToken, 401},
		"nothing":             {"x", 401},
	} {
		a := g.ask("GET", "/orders/1", bearer(c.token))
		if a.Status != c.want {
			t.Errorf("%s: %d %s, want %d", name, a.Status, a.Body, c.want)
		}
		if c.want == 401 && !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%s: %v", name, a.Header)
		}
	}
	metrics := string(g.metrics())
	if !strings.Contains(metrics, `sluice_plugin_rejections_total{code="unauthenticated",plugin="jwt",route="orders"} 10`) {
		t.Errorf("the refusals were not counted")
	}
}

func (g *guarded) metrics() []byte {
	g.t.Helper()
	resp, err := http.Get(g.gateway.AdminURL() + "/metrics")
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return body
}

func TestOpaqueTokensOfARealIssuerAreAskedAbout(t *testing.T) {
	g := newGuarded(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("service-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	endpoint := g.oidc.Config()["introspection_endpoint"].(string)
	g.route(fmt.Sprintf(`"introspection":{"url":%q,"client_id":"opaque","client_secret_file":%q,"cache_ttl":"1s","audience":["api"],`+
		`"claims_to_headers":{"sub":"X-User-ID","role":"X-User-Role"}}`, endpoint, secret))
	a := g.ask("GET", "/orders/1", bearer("x"))
	equal(t, "with a wrong secret", fmt.Sprint(a.Status, a.Code), "503overloaded")
	if err := os.WriteFile(secret, []byte("opaque-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	token := g.oidc.LogIn("opaque", "user").AccessToken
	a = g.eventually("the new secret is in use", "/orders/1", func(a answer) bool { return a.Status == 200 }, bearer(token))
	equal(t, "user", told(t, a, "X-User-ID")+" "+told(t, a, "X-User-Role"), "user user")
	equal(t, "a made up token", g.ask("GET", "/orders/1", bearer(token+"x")).Status, 401)
	before := g.oidc.Calls("/oauth/introspect")
	l := g.load(map[string]func() string{"good": func() string { return token }})
	l.expect("good", 200)
	l.run(200)
	l.end()
	if n := g.oidc.Calls("/oauth/introspect") - before; n > 30 {
		t.Errorf("%d questions for one token within a few seconds", n)
	}
	g.oidc.Revoke("user")
	g.eventually("the revoked token is refused", "/orders/1", func(a answer) bool { return a.Status == 401 }, bearer(token))
}

// load sends requests with tokens.
func (g *guarded) load(tokens map[string]func() string) *volley {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	g.t.Cleanup(client.CloseIdleConnections)
	kinds := map[string]func() (int, error){}
	for name, token := range tokens {
		kinds[name] = func() (int, error) {
			req, err := http.NewRequest(http.MethodGet, g.gateway.URL()+"/orders/1", nil)
			if err != nil {
				return 0, err
			}
			if token := token(); token != "" {
				req.Header.Set("Authorization", "Bearer "+token)
			}
			return status(client, req)
		}
	}
	return startVolley(g.t, 3, kinds)
}

func TestPolicyChangesUnderLoadLetNobodyThroughAndShutNobodyOut(t *testing.T) {
	g := newGuarded(t)
	stranger := testenv.StartOIDC(t)
	g.route("")
	good := g.oidc.Sign("JWT", map[string]any{"iss": g.oidc.Issuer, "sub": "eve", "aud": []string{"api", "other"},
		"exp": time.Now().Add(time.Hour).Unix(), "role": "user"})
	bad := stranger.Token("service")
	l := g.load(map[string]func() string{
		"good": func() string { return good }, "bad": func() string { return bad }, "missing": func() string { return "" },
	})
	l.expect("good", 200)
	refuse := func(yes bool) {
		status := 0
		if yes {
			status = 401
		}
		l.expect("bad", status)
		l.expect("missing", status)
	}
	jwks, discovery := fmt.Sprintf(`"jwks_url":%q`, g.oidc.Issuer+"/keys"), fmt.Sprintf(`"discovery":%q`, g.oidc.Issuer)
	l.run(50)
	for range 5 {
		g.route(g.jwt(jwks)) // added
		refuse(true)
		l.run(50)
		for _, changed := range []string{g.jwt(discovery), g.jwt(jwks, `"leeway":"5s"`), g.jwt(discovery, `"timeout":"2s"`),
			strings.Replace(g.jwt(jwks), `["api"]`, `["other","more"]`, 1)} {
			g.route(changed)
			l.run(20)
		}
		for _, broken := range []string{g.jwt(jwks, `"algorithms":["none"]`), g.jwt(), g.jwt(jwks, discovery), g.jwt(jwks, `"nope":1`)} {
			g.route(broken)
			equal(t, "problems", len(g.problems()), 1)
			l.run(20)
		}
		g.put("/sluice/routes/orders", "{")
		l.run(20)
		// The policy moves from the route to every route, in one transaction.
		revision := g.etcd.Apply(map[string]string{"/sluice/routes/orders": `{"path":"/orders/*","service":"orders"}`,
			"/sluice/plugins/jwt": strings.TrimPrefix(g.jwt(jwks), `"jwt":`)})
		testenv.Eventually(t, 20*time.Second, "the transaction is applied", func() bool { return g.status().Revision >= revision })
		l.run(50)
		g.put("/sluice/plugins/jwt", `{"algorithms":["none"]}`)
		l.run(20)
		refuse(false)
		g.put("/sluice/plugins/jwt", `{"disabled":true}`) // removed
		equal(t, "without the plugin", g.ask("GET", "/orders/1").Status, 200)
		g.etcd.Delete("/sluice/plugins/jwt")
		l.run(20)
	}
	l.end()
}

func TestKeysRotateUnderLoad(t *testing.T) {
	g := newGuarded(t)
	g.route(g.jwt(fmt.Sprintf(`"jwks_url":%q`, g.oidc.Issuer+"/keys")))
	var current atomic.Pointer[string]
	refreshed := func() *string { s := g.oidc.Token("service"); return &s }
	old := *refreshed()
	current.Store(&old)
	l := g.load(map[string]func() string{"old": func() string { return old }, "newest": func() string { return *current.Load() }})
	l.expect("old", 200)
	l.expect("newest", 200)
	l.run(200)
	g.oidc.Rotate("ES256", false) // used at once, and the old key is still published
	current.Store(refreshed())
	l.run(500)
	l.expect("old", 0)
	l.expect("newest", 0)
	g.oidc.Rotate("RS256", true) // the keys before are gone
	current.Store(refreshed())
	g.eventually("tokens of the key that is gone are refused", "/orders/1", func(a answer) bool { return a.Status == 401 }, bearer(old))
	l.expect("old", 401)
	l.expect("newest", 200)
	l.run(500)
	l.end()
}

func TestRow63TheKeySetGoesDownAndComesBackUnderLoad(t *testing.T) {
	g := newGuarded(t)
	line := testenv.StartProxy(t, strings.TrimPrefix(g.oidc.Issuer, "http://"))
	good, bad := g.oidc.Token("service"), g.oidc.Sign("JWT", map[string]any{"iss": g.oidc.Issuer, "aud": "web"})
	line.Cut()
	g.route(g.jwt(fmt.Sprintf(`"jwks_url":"http://%s/keys"`, line.Addr), `"timeout":"500ms"`))
	a := g.ask("GET", "/orders/1", bearer(good))
	equal(t, "before the first keys", fmt.Sprint(a.Status, a.Code), "503overloaded")
	l := g.load(map[string]func() string{"good": func() string { return good }, "bad": func() string { return bad }})
	l.expect("good", 503)
	l.expect("bad", 503)
	l.run(100)
	l.expect("good", 0)
	l.expect("bad", 0)
	line.Mend()
	g.eventually("the keys are there", "/orders/1", func(a answer) bool { return a.Status == 200 }, bearer(good))
	l.expect("good", 200)
	l.expect("bad", 401)
	l.run(100)
	for what, outage := range map[string]struct{ begin, end func() }{
		"cut": {line.Cut, line.Mend}, "stalled": {line.Stall, line.Flow},
	} {
		outage.begin()
		begin := time.Now()
		testenv.Eventually(t, time.Minute, "three refreshes have failed: "+what, func() bool { return time.Since(begin) > 3*time.Second })
		l.run(200)
		outage.end()
	}
	l.expect("good", 0) // until the keys are fetched again, its key's successor is unknown
	g.oidc.Rotate("ES256", true)
	g.eventually("the new keys are fetched", "/orders/1", func(a answer) bool { return a.Status == 401 }, bearer(good))
	equal(t, "with the new key", g.ask("GET", "/orders/1", bearer(g.oidc.Token("service"))).Status, 200)
	l.end()
}
