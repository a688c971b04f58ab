package middleware_test

import (
	"crypto/elliptic"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
)

// jwtConfig is a configuration with more fields put in.
func jwtConfig(more map[string]any) plugintest.Config {
	config := map[string]any{}
	for k, v := range more {
		config[k] = v
	}
	return plugintest.Config{"jwt": config}
}

func TestJWTTellsTheInstanceWhoAsks(t *testing.T) {
	k := newRSA(t, "a")
	g := plugintest.Start(t, plugintest.Case{Plugins: jwtConfig(map[string]any{
		"algorithms": []any{"RS256"}, "public_key_file": file(t, k.pem(t)),
		"claims_to_headers": map[string]any{"sub": "X-User-ID", "uid": "X-UID", "admin": "X-Admin", "roles": "X-Roles",
			"realm_access.roles": "X-Realm-Roles", "https://a.example/tenant": "X-Tenant", "none": "X-None", "empty": "X-Empty",
			"nothing": "X-Nothing", "name": "X-Name", "ratio": "X-Ratio"},
	})})
	got := g.Do(bearer("/", k.sign(t, claims{
		"sub": "alice", "exp": at(time.Hour), "uid": 9007199254740993, "admin": true, "roles": []string{"a", "b"},
		"realm_access": claims{"roles": []string{"c"}}, "https://a.example/tenant": "acme", "none": nil, "empty": "",
		"nothing": []string{}, "name": "Zoë", "ratio": 0.25, "scope": "read write", "groups": []string{"staff"},
	})))
	if got.Forwarded == nil {
		t.Fatalf("refused: %s", got.Code())
	}
	want := map[string]string{"X-User-Id": "alice", "X-Uid": "9007199254740993", "X-Admin": "true", "X-Roles": "a,b",
		"X-Realm-Roles": "c", "X-Tenant": "acme", "X-Name": "Zoë", "X-Ratio": "0.25"}
	for name, values := range got.Forwarded.Header {
		if name != "Authorization" && (len(values) != 1 || want[name] != values[0]) {
			t.Errorf("the instance was told %s: %q", name, values)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("the instance was not told %v", want)
	}
	id := got.Exchange.Identity
	if id.Plugin != "jwt" || id.Subject != "alice" || !slices.Equal(id.Scopes, []string{"read", "write"}) ||
		!slices.Equal(id.Groups, []string{"staff"}) || id.Claims["name"] != "Zoë" {
		t.Errorf("the identity is %+v", id)
	}
}

func TestJWTTakesEveryAlgorithmWithItsKind(t *testing.T) {
	secret := []byte(strings.Repeat("s", 64))
	ecs := map[string]*key{"ES256": newEC(t, "", elliptic.P256()), "ES384": newEC(t, "", elliptic.P384()), "ES512": newEC(t, "", elliptic.P521())}
	rsa, ed := newRSA(t, ""), newEd(t, "")
	for _, algorithm := range []string{"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"} {
		config := map[string]any{"algorithms": []any{algorithm}}
		var private any
		switch algorithm[:2] {
		case "HS":
			private, config["secret_file"] = secret, file(t, append(secret, '\n'))
		case "RS", "PS":
			private, config["public_key_file"] = rsa.private, file(t, rsa.pem(t))
		case "ES":
			private, config["public_key_file"] = ecs[algorithm].private, file(t, ecs[algorithm].pem(t))
		default:
			private, config["public_key_file"] = ed.private, file(t, ed.pem(t))
		}
		signed := forge(t, jwt.GetSigningMethod(algorithm), private, fmt.Sprintf(`{"alg":%q}`, algorithm), jsonOf(t, alice()))
		if got := plugintest.Run(t, plugintest.Case{Plugins: jwtConfig(config)}, bearer("/", signed)); got.Forwarded == nil {
			t.Errorf("%s: %s", algorithm, got.Code())
		}
	}
}

func TestJWTForwardsTheTokenUnlessToldNotTo(t *testing.T) {
	k := newEd(t, "a")
	base := map[string]any{"algorithms": []any{"EdDSA"}, "public_key_file": file(t, k.pem(t))}
	token := k.sign(t, alice())
	for _, c := range []struct {
		name, field, value string
		header, sent, kept string
	}{
		{"Authorization", "", "", "Authorization", "Bearer " + token, ""},
		{"a header", "header", "X-Token", "X-Token", token, ""},
		{"a cookie", "cookie", "token", "Cookie", "a=b; token=" + token + "; c=d", "a=b; c=d"},
		{"the only cookie", "cookie", "token", "Cookie", "token=" + token, ""},
	} {
		for forward, want := range map[bool]string{true: c.sent, false: c.kept} {
			config := jwtConfig(base)
			config["jwt"]["forward_token"] = forward
			if c.field != "" {
				config["jwt"][c.field] = c.value
			}
			got := plugintest.Run(t, plugintest.Case{Plugins: config}, lines("/", c.header, c.sent))
			if got.Forwarded == nil || got.Forwarded.Header.Get(c.header) != want {
				t.Errorf("%s, forward_token %v: the instance got %v, want %q", c.name, forward, got.Forwarded, want)
			}
		}
	}
}

func TestJWTWantsEveryScope(t *testing.T) {
	k := newEd(t, "a")
	g := plugintest.Start(t, plugintest.Case{Plugins: jwtConfig(map[string]any{
		"algorithms": []any{"EdDSA"}, "public_key_file": file(t, k.pem(t)), "scopes": []any{"read", "write"}})})
	for _, c := range []struct {
		claims claims
		passes bool
	}{
		{claims{"scope": "write read"}, true},
		{claims{"scp": []string{"read", "write"}}, true},
		{claims{"scope": "read"}, false},
		{claims{"scope": "readwrite"}, false},
		{claims{"scope": "read", "scp": "write"}, false},
		{claims{}, false},
	} {
		got := g.Do(bearer("/", k.sign(t, alice().with(c.claims))))
		if (got.Forwarded != nil) != c.passes {
			t.Errorf("%v: %d %s", c.claims, got.Response.Code, got.Code())
		}
		want := `Bearer realm="sluice", error="insufficient_scope", scope="read write"`
		if !c.passes && (got.Code() != "forbidden" || got.Response.Header().Get("WWW-Authenticate") != want) {
			t.Errorf("%v: %s, %q", c.claims, got.Code(), got.Response.Header())
		}
	}
}

func TestJWTAnswersGRPCCallersInTheirOwnWay(t *testing.T) {
	k := newEd(t, "a")
	r := bearer("/", "x.y.z")
	r.ProtoMajor = 2
	r.Header.Set("Content-Type", "application/grpc")
	got := plugintest.Run(t, plugintest.Case{Plugins: jwtConfig(map[string]any{
		"algorithms": []any{"EdDSA"}, "public_key_file": file(t, k.pem(t))})}, r)
	if got.Forwarded != nil || got.Response.Header().Get("Grpc-Status") != "16" {
		t.Errorf("got %v", got.Response.Header())
	}
}

// TestJWTAVerifiedTokenIsCheckedAgainstTheClockEachTime: what is kept of a
// token ends with it.
func TestJWTAVerifiedTokenIsCheckedAgainstTheClockEachTime(t *testing.T) {
	k := newEd(t, "a")
	pem := file(t, k.pem(t))
	synctest.Test(t, func(t *testing.T) {
		g := plugintest.Start(t, plugintest.Case{Plugins: jwtConfig(map[string]any{
			"algorithms": []any{"EdDSA"}, "public_key_file": pem, "leeway": "10s"})})
		token := k.sign(t, claims{"sub": "alice", "exp": at(time.Minute)})
		first, second := g.Do(bearer("/", token)), g.Do(bearer("/", token))
		if first.Forwarded == nil || second.Forwarded == nil || first.Exchange.Identity != second.Exchange.Identity {
			t.Error("the second request did not use what the first one found out")
		}
		time.Sleep(69 * time.Second)
		if got := g.Do(bearer("/", token)); got.Forwarded == nil {
			t.Error("refused within the leeway")
		}
		time.Sleep(time.Second)
		if got := g.Do(bearer("/", token)); got.Forwarded != nil {
			t.Error("an expired token passed because it had passed before")
		}
	})
}

func TestJWTALiveChangeAppliesToTokensThatHavePassed(t *testing.T) {
	a, b := newEd(t, "a"), newEd(t, "b")
	path := file(t, a.pem(t))
	config := func(more map[string]any) plugintest.Config {
		c := jwtConfig(map[string]any{"algorithms": []any{"EdDSA"}, "public_key_file": path})
		for k, v := range more {
			c["jwt"][k] = v
		}
		return c
	}
	g := plugintest.Start(t, plugintest.Case{Plugins: config(nil)})
	token := a.sign(t, alice())
	passes := func() bool { return g.Do(bearer("/", token)).Forwarded != nil }
	if !passes() {
		t.Fatal("a good token was refused")
	}
	before := g.Do(bearer("/", token)).Exchange.Identity
	if problems := g.Configure(config(map[string]any{"audience": []any{"other"}})); problems != nil || passes() {
		t.Errorf("a token for another audience passed (%v)", problems)
	}
	if problems := g.Configure(config(map[string]any{"algorithms": []any{"RS256"}})); problems == nil || passes() {
		t.Errorf("a broken change took the route's rules away: %v", problems)
	}
	if problems := g.Configure(config(nil)); problems != nil || !passes() {
		t.Errorf("the old rules are back, and the token is refused (%v)", problems)
	}
	if g.Do(bearer("/", token)).Exchange.Identity != before {
		t.Error("rules that came back did not find what had been found out")
	}
	if problems := g.Configure(nil); problems != nil || g.Do(bearer("/", "")).Forwarded == nil {
		t.Errorf("without the plugin a request was refused (%v)", problems)
	}
	if problems := g.Configure(config(nil)); problems != nil || g.Do(bearer("/", "")).Forwarded != nil {
		t.Errorf("with the plugin a request without a token passed (%v)", problems)
	}
	if err := os.WriteFile(path, b.pem(t), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a token of the old key is refused", func() bool { return !passes() })
	if g.Do(bearer("/", b.sign(t, alice()))).Forwarded == nil {
		t.Error("a token of the new key was refused")
	}
	if err := os.WriteFile(path, []byte("half a fi"), 0o600); err != nil {
		t.Fatal(err)
	}
	if g.Do(bearer("/", b.sign(t, alice()))).Forwarded == nil || passes() {
		t.Error("a broken file took the keys away, or gave the old ones back")
	}
}

func TestJWTTokensOfOneRouteAreNoneOfAnother(t *testing.T) {
	a, b := newEd(t, ""), newEd(t, "")
	route := func(path string, k *key) string {
		return fmt.Sprintf(`{"path":%q,"service":"s","plugins":{"jwt":{"algorithms":["EdDSA"],"public_key_file":%q}}}`, path, file(t, k.pem(t)))
	}
	g := plugintest.Start(t, plugintest.Case{Documents: map[string]string{"routes/a": route("/a", a), "routes/b": route("/b", b)}})
	for _, c := range []struct {
		path   string
		signer *key
		passes bool
	}{{"/a", a, true}, {"/b", b, true}, {"/b", a, false}, {"/a", b, false}, {"/a", a, true}} {
		if got := g.Do(bearer(c.path, c.signer.sign(t, alice()))); (got.Forwarded != nil) != c.passes {
			t.Errorf("%s: %s", c.path, got.Code())
		}
	}
}

func TestJWTRefusesBadConfiguration(t *testing.T) {
	t.Setenv("JWT_TEST_SECRET", strings.Repeat("s", 32))
	t.Setenv("JWT_TEST_SHORT", "hunter2")
	ec := file(t, newEC(t, "a", elliptic.P256()).pem(t))
	good := map[string]any{"algorithms": []any{"HS256"}, "secret_env": "JWT_TEST_SECRET"}
	with := func(field string, value any) map[string]any {
		c := map[string]any{field: value}
		for k, v := range good {
			if _, ok := c[k]; !ok {
				c[k] = v
			}
		}
		return c
	}
	remote := func(field string, value any) map[string]any {
		c := map[string]any{"algorithms": []any{"RS256"}, "jwks_url": "https://issuer.test/keys"}
		c[field] = value
		return c
	}
	for _, c := range []struct {
		config map[string]any
		want   string // "" is none
	}{
		{good, ""},
		{map[string]any{"algorithms": []any{"RS256"}, "jwks_url": "https://issuer.test/keys"}, ""},
		{map[string]any{"algorithms": []any{"RS256"}, "discovery": "https://issuer.test"}, ""},
		{map[string]any{"secret_env": "JWT_TEST_SECRET"}, "algorithms: is missing; accepted: HS256"},
		{with("algorithms", []any{"none"}), `algorithms[0]: "none" is not accepted`},
		{with("algorithms", []any{"hs256"}), `algorithms[0]: "hs256" is not accepted`},
		{with("algorithms", []any{"HS256", "RS256"}), "algorithms[1]: RS256 needs a public key, not a secret"},
		{remote("algorithms", []any{"RS256", "HS256"}), "algorithms[1]: HS256 needs a secret; with public keys anyone could sign"},
		{map[string]any{"algorithms": []any{"RS256"}, "public_key_file": ec}, "public_key_file: " + ec + ": holds no key for RS256"},
		{map[string]any{"algorithms": []any{"RS256"}, "public_key_file": "/nowhere"}, "public_key_file: open /nowhere"},
		{map[string]any{"algorithms": []any{"RS256"}}, "jwks_url: is missing; give one of secret_env"},
		{remote("discovery", "https://issuer.test"), "discovery: stands beside jwks_url"},
		{with("secret_file", "/x"), "secret_file: stands beside secret_env"},
		{with("secret_env", "JWT_TEST_SHORT"), "secret_env: the secret has 7 bytes; HS256 needs at least 32"},
		{with("secret_env", "JWT_TEST_UNSET"), "secret_env: the secret has 0 bytes"},
		{with("refresh_interval", "1m"), "refresh_interval: is only for jwks_url and discovery"},
		{remote("jwks_url", "file:///etc/passwd"), "jwks_url: is not an http or https address"},
		{remote("jwks_url", "https://user:hunter2@issuer.test"), "jwks_url: holds user information"},
		{remote("refresh_interval", "10ms"), "refresh_interval: must be 1s to 24h0m0s"},
		{remote("timeout", "0s"), "timeout: must be above 0s"},
		{remote("ca_file", "/nowhere"), "ca_file: open /nowhere"},
		{map[string]any{"algorithms": []any{"RS256"}, "discovery": "https://issuer.test?a=b"}, "discovery: holds a query"},
		{with("cookie", "a b"), "cookie: is not a cookie name"},
		{with("header", "a b"), "header: is not a header name"},
		{with("header", "X-User-ID"), "header: is removed from every client's request"},
		{with("max_token_bytes", 65537), "max_token_bytes: must be 1 to 65536"},
		{with("max_token_bytes", -1), "max_token_bytes: must be 1 to 65536"},
		{with("leeway", "1h"), "leeway: must be at most 10m0s"},
		{with("audience", []any{""}), "audience: holds an empty entry"},
		{with("scopes", []any{"a b"}), "scopes: holds what is not a single scope"},
		{with("claims_to_headers", map[string]any{"sub": "X User"}), "claims_to_headers.sub: is not a header name"},
		{with("claims_to_headers", map[string]any{"sub": "X_User"}), `claims_to_headers.sub: names a header with "_"`},
		{with("claims_to_headers", map[string]any{"sub": "Host"}), "claims_to_headers.sub: is set by the route's host"},
		{with("claims_to_headers", map[string]any{"sub": "Authorization"}), "claims_to_headers.sub: names a header that clients send"},
		{with("claims_to_headers", map[string]any{"a": "X-A", "b": "x-a"}), "claims_to_headers.b: names the same header"},
		{with("claims_to_headers", map[string]any{"": "X-A"}), "claims_to_headers.: stands behind an empty claim"},
		{with("algoritms", "x"), "algoritms: unknown field; accepted: algorithms, audience, ca_file, claims_to_headers, cookie"},
	} {
		got := plugintest.Faults("jwt", c.config)
		if c.want == "" && got == nil {
			continue
		}
		if len(got) != 1 || c.want == "" || !strings.HasPrefix(got[0], "plugins.jwt."+c.want) || strings.Contains(got[0], "hunter2") {
			t.Errorf("%v: the faults are %q, want %q", c.config, got, c.want)
		}
	}
	both := with("cookie", "a")
	both["header"] = "X-A"
	if got := plugintest.Faults("jwt", both); len(got) != 1 || !strings.HasPrefix(got[0], "plugins.jwt.cookie: stands beside header") {
		t.Errorf("the faults are %q", got)
	}
}

func TestARefusalOfJWTIsCounted(t *testing.T) {
	k := newEd(t, "a")
	g := plugintest.Start(t, plugintest.Case{Plugins: jwtConfig(map[string]any{
		"algorithms": []any{"EdDSA"}, "public_key_file": file(t, k.pem(t))})})
	for range 3 {
		g.Do(bearer("/", "x"))
	}
	if n := rejections(t, g, "jwt", "unauthenticated"); n != 3 {
		t.Errorf("%v refusals were counted", n)
	}
}

// rejections reads sluice_plugin_rejections_total of the test route.
func rejections(t *testing.T, g *plugintest.Gateway, plugin, code string) float64 {
	t.Helper()
	families, err := g.Metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "sluice_plugin_rejections_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["plugin"] == plugin && labels["code"] == code && labels["route"] == "test" {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}
