package middleware_test

import (
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
)

// fortress is a gateway with a route for each way of configuring jwt, and
// what an attacker could wish for.
type fortress struct {
	*plugintest.Gateway
	t                     testing.TB
	rsa, ec, ed, stranger *key
	secret                []byte
	issuer, evil          *publisher
	log                   *jsonLog
}

func newFortress(t testing.TB) *fortress {
	t.Helper()
	f := &fortress{t: t, rsa: newRSA(t, "rsa"), ec: newEC(t, "ec", elliptic.P256()), ed: newEd(t, "ed"),
		stranger: newRSA(t, "rsa"), secret: []byte(strings.Repeat("0123456789abcdef", 4)), log: &jsonLog{}}
	f.issuer = publish(t, f.rsa, f.ec, f.ed)
	f.evil = publish(t, f.stranger)
	route := func(path, plugins string) string {
		return fmt.Sprintf(`{"path":%q,"service":"instance","plugins":{%s}}`, path, plugins)
	}
	rules := `"issuer":"https://issuer.test","audience":["api","admin"],"leeway":"30s",` +
		`"claims_to_headers":{"sub":"X-User-ID","role":"X-User-Role","tenant":"X-Tenant","roles":"X-Roles"}`
	remote := fmt.Sprintf(`"algorithms":["RS256","ES256","EdDSA"],"jwks_url":%q,%s`, f.issuer.URL, rules)
	f.Gateway = plugintest.Start(t, plugintest.Case{
		Log: slog.New(slog.NewJSONHandler(f.log, nil)),
		Documents: map[string]string{
			"routes/test":     route("/", `"jwt":{`+remote+`}`),
			"routes/hs":       route("/hs", fmt.Sprintf(`"jwt":{"algorithms":["HS256"],"secret_file":%q,%s}`, file(t, f.secret), rules)),
			"routes/pem":      route("/pem", fmt.Sprintf(`"jwt":{"algorithms":["RS256"],"public_key_file":%q,%s}`, file(t, f.rsa.pem(t)), rules)),
			"routes/ec":       route("/ec", fmt.Sprintf(`"jwt":{"algorithms":["ES256"],"public_key_file":%q,%s}`, file(t, f.ec.pem(t)), rules)),
			"routes/cookie":   route("/cookie", `"jwt":{"cookie":"session",`+remote+`}`),
			"routes/header":   route("/header", `"jwt":{"header":"X-Access-Token",`+remote+`}`),
			"routes/optional": route("/optional", `"jwt":{"optional":true,`+remote+`}`),
			"routes/open":     route("/open", ``),
		},
	})
	return f
}

// good makes a token that passes.
func (f *fortress) good(more claims) string { return f.rsa.sign(f.t, alice().with(more)) }

// head makes a token that is good but for its header.
func (f *fortress) head(header string) string { return f.rsa.forge(f.t, header, jsonOf(f.t, alice())) }

// body makes a token whose claims are this text.
func (f *fortress) body(text string) string {
	return f.rsa.forge(f.t, `{"alg":"RS256","typ":"JWT","kid":"rsa"}`, text)
}

// rest is the claims of a good token but for what a text in front says.
func rest(t testing.TB, without ...string) string {
	t.Helper()
	c := alice()
	for _, name := range without {
		delete(c, name)
	}
	return strings.TrimPrefix(jsonOf(t, c), "{")
}

// attack is a request and what must come of it.
type attack struct {
	name string
	make func(f *fortress) *http.Request
	// code is "" where the request passes.
	code string
	// user is what the instance is told about who asks, where it passes.
	user string
}

// token makes an attack of a token in the usual place.
func token(name string, make func(f *fortress) string) attack {
	return attack{name: name, code: "unauthenticated", make: func(f *fortress) *http.Request { return bearer("/", make(f)) }}
}

// passing makes a token that must pass: without these, a gateway that refuses
// everything would look safe.
func passing(name string, make func(f *fortress) string) attack {
	a := token(name, make)
	a.code, a.user = "", "alice"
	return a
}

// lines makes a request with header lines, as a name and a value by turns.
func lines(path string, pairs ...string) *http.Request {
	r := httptest.NewRequest("GET", path, nil)
	for i := 0; i+1 < len(pairs); i += 2 {
		r.Header[pairs[i]] = append(r.Header[pairs[i]], pairs[i+1])
	}
	return r
}

func at(d time.Duration) int64 { return time.Now().Add(d).Unix() }

// TestAttacks: whatever a stranger sends, it passes only with a token that
// the issuer made for here, and the instance is told of nobody else.
func TestAttacks(t *testing.T) {
	f := newFortress(t)
	all := slices.Concat(algorithmAttacks, headerAttacks, claimAttacks, formAttacks, identityAttacks)
	names := map[string]bool{}
	for _, a := range all {
		if names[a.name] {
			t.Errorf("two attacks are named %q", a.name)
		}
		names[a.name] = true
		t.Run(a.name, func(t *testing.T) {
			f.t = t
			got := f.Do(a.make(f))
			if a.code == "" {
				f.passed(t, got, a.user)
				return
			}
			f.refused(t, got, a.code)
		})
	}
	if len(all) < 60 {
		t.Errorf("there are %d attacks", len(all))
	}
	if n := f.evil.hits.Load(); n != 0 {
		t.Errorf("a token had the gateway ask the attacker's server %d times", n)
	}
	if n := f.issuer.hits.Load(); n > 2 {
		t.Errorf("the issuer was asked %d times; unknown kids are worth one", n)
	}
	for line := range strings.Lines(f.log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a log line is broken: %s", line)
		}
		for _, secret := range []string{string(f.secret), "eyJ", "UNION SELECT", "dev/null"} {
			if strings.Contains(line, secret) {
				t.Errorf("row 66: the log holds %q: %s", secret, line)
			}
		}
	}
}

// passed checks a request that went on, and who the instance takes it for.
func (f *fortress) passed(t *testing.T, got plugintest.Result, user string) {
	t.Helper()
	if got.Forwarded == nil {
		t.Fatalf("it was refused: %d %s", got.Response.Code, got.Code())
	}
	want := map[string]string{}
	if user != "" {
		want = map[string]string{"X-User-Id": user, "X-User-Role": "user"}
	}
	for name, values := range got.Forwarded.Header {
		folded := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
		switch folded {
		case "X-User-Id", "X-User-Role", "X-Tenant", "X-Roles", "X-Consumer", "X-Consumer-Username", "X-Forwarded-User":
			if len(values) != 1 || name != folded || want[name] != values[0] {
				t.Errorf("the instance was told %s: %q", name, values)
			}
			delete(want, name)
		}
	}
	if len(want) > 0 {
		t.Errorf("the instance was not told %v", want)
	}
	if id := got.Exchange.Identity; (id == nil) != (user == "") || id != nil && (id.Subject != user || id.Plugin != "jwt") {
		t.Errorf("the identity is %+v", id)
	}
}

// refused checks that nothing went on and that the answer gives nothing away.
func (f *fortress) refused(t *testing.T, got plugintest.Result, code string) {
	t.Helper()
	if got.Forwarded != nil || got.Code() != code || got.Response.Code != 401 {
		t.Fatalf("got %d %s (reached the instance: %v), want %s", got.Response.Code, got.Code(), got.Forwarded != nil, code)
	}
	var body struct{ Detail string }
	if err := json.Unmarshal(got.Response.Body.Bytes(), &body); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"the token is not valid":   `Bearer realm="sluice", error="invalid_token"`,
		"this route needs a token": `Bearer realm="sluice"`,
	}[body.Detail]
	if challenge := got.Response.Header()["Www-Authenticate"]; want == "" || !slices.Equal(challenge, []string{want}) {
		t.Errorf("row 66: the detail is %q, WWW-Authenticate %q", body.Detail, challenge)
	}
}
