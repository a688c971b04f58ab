package middleware_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

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

var algorithmAttacks = []attack{
	passing("control: RS256", func(f *fortress) string { return f.good(nil) }),
	passing("control: ES256", func(f *fortress) string { return f.ec.sign(f.t, alice()) }),
	passing("control: EdDSA", func(f *fortress) string { return f.ed.sign(f.t, alice()) }),
	passing("control: no kid", func(f *fortress) string { return f.head(`{"alg":"RS256"}`) }),
	{"control: HS256", func(f *fortress) *http.Request {
		return bearer("/hs", forge(f.t, jwt.SigningMethodHS256, f.secret, `{"alg":"HS256"}`, jsonOf(f.t, alice())))
	}, "", "alice"},
	{"control: PEM", func(f *fortress) *http.Request { return bearer("/pem", f.good(nil)) }, "", "alice"},
	token("row 56: alg none without a signature", func(f *fortress) string {
		return b64(`{"alg":"none"}`) + "." + b64(jsonOf(f.t, alice())) + "."
	}),
	token("row 56: alg None", func(f *fortress) string {
		return b64(`{"alg":"None"}`) + "." + b64(jsonOf(f.t, alice())) + "."
	}),
	token("row 56: alg nOnE with the signature of another token", func(f *fortress) string {
		_, signature, _ := cutLast(f.good(nil))
		return b64(`{"alg":"nOnE"}`) + "." + b64(jsonOf(f.t, alice())) + "." + signature
	}),
	token("row 56: no alg", func(f *fortress) string { return f.head(`{"typ":"JWT"}`) }),
	token("row 56: alg is a list", func(f *fortress) string { return f.head(`{"alg":["RS256"]}`) }),
	token("row 56: alg in another case", func(f *fortress) string { return f.head(`{"alg":"rs256","kid":"rsa"}`) }),
	token("row 56: alg is empty", func(f *fortress) string { return f.head(`{"alg":""}`) }),
	token("row 56: HS256 with the public key's PEM as secret", func(f *fortress) string {
		return forge(f.t, jwt.SigningMethodHS256, f.rsa.pem(f.t), `{"alg":"HS256","kid":"rsa"}`, jsonOf(f.t, alice()))
	}),
	{"row 56: HS256 with the PEM as secret, where the PEM is the key", func(f *fortress) *http.Request {
		return bearer("/pem", forge(f.t, jwt.SigningMethodHS256, f.rsa.pem(f.t), `{"alg":"HS256"}`, jsonOf(f.t, alice())))
	}, "unauthenticated", ""},
	token("row 56: HS256 with the public key's JWK as secret", func(f *fortress) string {
		return forge(f.t, jwt.SigningMethodHS256, []byte(f.rsa.jwk(f.t)), `{"alg":"HS256","kid":"rsa"}`, jsonOf(f.t, alice()))
	}),
	token("row 56: HS256 with the public key's DER as secret", func(f *fortress) string {
		der, err := x509.MarshalPKIXPublicKey(f.rsa.public)
		if err != nil {
			f.t.Fatal(err)
		}
		return forge(f.t, jwt.SigningMethodHS256, der, `{"alg":"HS256","kid":"rsa"}`, jsonOf(f.t, alice()))
	}),
	token("row 56: HS256 with an empty secret", func(f *fortress) string {
		return forge(f.t, jwt.SigningMethodHS256, []byte{}, `{"alg":"HS256"}`, jsonOf(f.t, alice()))
	}),
	token("row 56: ES256 with the kid of an RSA key", func(f *fortress) string {
		return f.ec.forge(f.t, `{"alg":"ES256","kid":"rsa"}`, jsonOf(f.t, alice()))
	}),
	token("row 56: RS256 with the kid of an EC key", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":"ec"}`) }),
	{"row 56: RS256 where only ES256 is accepted", func(f *fortress) *http.Request { return bearer("/ec", f.good(nil)) }, "unauthenticated", ""},
	token("row 56: PS256 with a good key, but not accepted here", func(f *fortress) string {
		return forge(f.t, jwt.SigningMethodPS256, f.rsa.private, `{"alg":"PS256","kid":"rsa"}`, jsonOf(f.t, alice()))
	}),
	token("row 56: RS512 with a good key, but not accepted here", func(f *fortress) string {
		return forge(f.t, jwt.SigningMethodRS512, f.rsa.private, `{"alg":"RS512","kid":"rsa"}`, jsonOf(f.t, alice()))
	}),
	token("row 56: ES256 by a key on another curve", func(f *fortress) string {
		return forge(f.t, jwt.SigningMethodES384, newEC(f.t, "ec", elliptic.P384()).private, `{"alg":"ES256","kid":"ec"}`, jsonOf(f.t, alice()))
	}),
	token("signature of zeros (CVE-2022-21449)", func(f *fortress) string {
		return b64(`{"alg":"ES256","kid":"ec"}`) + "." + b64(jsonOf(f.t, alice())) + "." + b64(string(make([]byte, 64)))
	}),
	token("signature in DER instead of two numbers", func(f *fortress) string {
		return b64(`{"alg":"ES256","kid":"ec"}`) + "." + b64(jsonOf(f.t, alice())) + "." + b64("0\x06\x02\x01\x01\x02\x01\x01")
	}),
	token("a stranger's signature", func(f *fortress) string { return f.stranger.sign(f.t, alice()) }),
	token("claims changed after signing", func(f *fortress) string {
		head, signature, _ := cutLast(f.good(nil))
		head, _, _ = strings.Cut(head, ".")
		return head + "." + b64(jsonOf(f.t, alice().with(claims{"sub": "root"}))) + "." + signature
	}),
	token("header changed after signing", func(f *fortress) string {
		_, after, _ := strings.Cut(f.good(nil), ".")
		return b64(`{"alg":"RS256","kid":"rsa","typ":"JWT" }`) + "." + after
	}),
	token("a signature cut short", func(f *fortress) string { return strings.TrimRight(f.good(nil)[:len(f.good(nil))-4], ".") }),
	token("the last bits of the signature changed, which lenient decoders drop", func(f *fortress) string {
		s := f.good(nil)
		for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" {
			twin := s[:len(s)-1] + string(c)
			if twin != s && lenient(twin) == lenient(s) {
				return twin
			}
		}
		f.t.Fatal("there is no twin")
		return ""
	}),
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '.')
	return s[:i], s[i+1:], i >= 0
}

// lenient decodes the signature as decoders do that pass over stray bits.
func lenient(token string) string {
	_, signature, _ := cutLast(token)
	var out []byte
	if err := json.Unmarshal([]byte(`"`+strings.NewReplacer("-", "+", "_", "/").Replace(signature)+`=="`), &out); err != nil {
		return err.Error()
	}
	return string(out)
}

var headerAttacks = []attack{
	passing("control: typ at+jwt", func(f *fortress) string { return f.head(`{"alg":"RS256","typ":"at+jwt","kid":"rsa","x5t":"abc"}`) }),
	passing("control: typ application/jwt", func(f *fortress) string { return f.head(`{"alg":"RS256","typ":"application/JWT"}`) }),
	token("row 57: crit with a known claim", func(f *fortress) string { return f.head(`{"alg":"RS256","crit":["exp"],"exp":1,"kid":"rsa"}`) }),
	token("row 57: crit with an unknown name", func(f *fortress) string { return f.head(`{"alg":"RS256","crit":["x"],"x":1,"kid":"rsa"}`) }),
	token("row 57: crit empty", func(f *fortress) string { return f.head(`{"alg":"RS256","crit":[],"kid":"rsa"}`) }),
	token("row 57: crit null", func(f *fortress) string { return f.head(`{"alg":"RS256","crit":null,"kid":"rsa"}`) }),
	token("row 57: b64 false", func(f *fortress) string { return f.head(`{"alg":"RS256","b64":false,"crit":["b64"],"kid":"rsa"}`) }),
	token("row 57: b64 without crit", func(f *fortress) string { return f.head(`{"alg":"RS256","b64":false,"kid":"rsa"}`) }),
	token("row 60: jku to an attacker's keys", func(f *fortress) string {
		return f.stranger.forge(f.t, fmt.Sprintf(`{"alg":"RS256","kid":"rsa","jku":%q}`, f.evil.URL), jsonOf(f.t, alice()))
	}),
	token("row 60: jku to the issuer itself, in a good token", func(f *fortress) string {
		return f.head(fmt.Sprintf(`{"alg":"RS256","kid":"rsa","jku":%q}`, f.issuer.URL))
	}),
	token("row 60: x5u to an attacker's certificate", func(f *fortress) string {
		return f.stranger.forge(f.t, fmt.Sprintf(`{"alg":"RS256","kid":"rsa","x5u":%q}`, f.evil.URL), jsonOf(f.t, alice()))
	}),
	token("row 60: an embedded jwk", func(f *fortress) string {
		return f.stranger.forge(f.t, fmt.Sprintf(`{"alg":"RS256","jwk":%s}`, f.stranger.jwk(f.t)), jsonOf(f.t, alice()))
	}),
	token("row 60: an embedded x5c", func(f *fortress) string {
		return f.stranger.forge(f.t, `{"alg":"RS256","kid":"rsa","x5c":["MIIB"]}`, jsonOf(f.t, alice()))
	}),
	token("row 60: kid is a path", func(f *fortress) string {
		return forge(f.t, jwt.SigningMethodHS256, []byte{}, `{"alg":"HS256","kid":"../../dev/null"}`, jsonOf(f.t, alice()))
	}),
	token("row 60: kid is SQL", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":"x' UNION SELECT 'secret' --"}`) }),
	token("row 60: kid of 4 KB", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":"` + strings.Repeat("k", 4096) + `"}`) }),
	token("row 60: kid with a line break", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":"a\r\n{\"level\":\"INFO\"}"}`) }),
	token("row 60: kid is a number", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":1}`) }),
	token("row 60: kid is an object", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":{"a":1}}`) }),
	token("row 60: kid is null", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":null}`) }),
	token("two alg, the second good", func(f *fortress) string { return f.head(`{"alg":"none","alg":"RS256","kid":"rsa"}`) }),
	token("two kid", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":"x","kid":"rsa"}`) }),
	token("a logout token", func(f *fortress) string { return f.head(`{"alg":"RS256","typ":"logout+jwt","kid":"rsa"}`) }),
	token("a proof of possession", func(f *fortress) string { return f.head(`{"alg":"RS256","typ":"dpop+jwt","kid":"rsa"}`) }),
	token("typ is no string", func(f *fortress) string { return f.head(`{"alg":"RS256","typ":1,"kid":"rsa"}`) }),
	token("a header that is a list", func(f *fortress) string { return f.head(`["RS256"]`) }),
	token("a header with something after it", func(f *fortress) string { return f.head(`{"alg":"RS256","kid":"rsa"} {}`) }),
	token("a header of no UTF-8", func(f *fortress) string { return f.head("{\"alg\":\"RS256\",\"kid\":\"rsa\",\"x\":\"\xff\"}") }),
	token("a header nested a thousand deep", func(f *fortress) string {
		return f.head(`{"alg":"RS256","kid":"rsa","x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`)
	}),
}

var claimAttacks = []attack{
	passing("control: aud is a list", func(f *fortress) string { return f.good(claims{"aud": []string{"web", "admin"}}) }),
	passing("control: expired within the leeway", func(f *fortress) string { return f.good(claims{"exp": at(-10 * time.Second)}) }),
	passing("control: nbf within the leeway", func(f *fortress) string { return f.good(claims{"nbf": at(10 * time.Second)}) }),
	token("row 58: no exp", func(f *fortress) string { return f.good(claims{"exp": nil}) }),
	token("row 58: expired", func(f *fortress) string { return f.good(claims{"exp": at(-time.Minute)}) }),
	token("row 58: exp is 0", func(f *fortress) string { return f.good(claims{"exp": 0}) }),
	token("row 58: exp is negative", func(f *fortress) string { return f.good(claims{"exp": -1}) }),
	token("row 58: exp is a string", func(f *fortress) string { return f.good(claims{"exp": fmt.Sprint(at(time.Hour))}) }),
	token("row 58: exp is null", func(f *fortress) string { return f.body(`{"exp":null,` + rest(f.t, "exp")) }),
	token("row 58: exp overflows", func(f *fortress) string { return f.body(`{"exp":1e300,` + rest(f.t, "exp")) }),
	token("row 58: exp is no float64", func(f *fortress) string { return f.body(`{"exp":1e999,` + rest(f.t, "exp")) }),
	token("row 58: exp is true", func(f *fortress) string { return f.good(claims{"exp": true}) }),
	token("row 58: nbf in the future", func(f *fortress) string { return f.good(claims{"nbf": at(time.Minute)}) }),
	token("row 58: nbf is a string", func(f *fortress) string { return f.good(claims{"nbf": "0"}) }),
	token("row 58: iat in the future", func(f *fortress) string { return f.good(claims{"iat": at(time.Minute)}) }),
	token("row 58: another issuer", func(f *fortress) string { return f.good(claims{"iss": "https://issuer.test.evil"}) }),
	token("row 58: the issuer with a slash", func(f *fortress) string { return f.good(claims{"iss": "https://issuer.test/"}) }),
	token("row 58: no issuer", func(f *fortress) string { return f.good(claims{"iss": nil}) }),
	token("row 58: issuer in a list", func(f *fortress) string { return f.good(claims{"iss": []string{"https://issuer.test"}}) }),
	token("row 58: another audience", func(f *fortress) string { return f.good(claims{"aud": "apis"}) }),
	token("row 58: no audience", func(f *fortress) string { return f.good(claims{"aud": nil}) }),
	token("row 58: aud is an empty list (CVE-2020-26160)", func(f *fortress) string { return f.good(claims{"aud": []string{}}) }),
	token("row 58: aud holds an empty string", func(f *fortress) string { return f.good(claims{"aud": []string{""}}) }),
	token("row 58: aud is a list of other audiences", func(f *fortress) string { return f.good(claims{"aud": []string{"a", "b"}}) }),
	token("row 58: aud is a list with a number", func(f *fortress) string { return f.good(claims{"aud": []any{"api", 1}}) }),
	token("row 58: aud is an object", func(f *fortress) string { return f.good(claims{"aud": claims{"api": true}}) }),
	token("row 65: expired and badly signed", func(f *fortress) string { return f.stranger.sign(f.t, alice().with(claims{"exp": 1})) }),
	token("two sub", func(f *fortress) string { return f.body(`{"sub":"root",` + rest(f.t)) }),
	token("two exp", func(f *fortress) string { return f.body(`{"exp":99999999999,` + rest(f.t)) }),
	token("two of a name, one written with an escape", func(f *fortress) string { return f.body(`{"\u0073ub":"root",` + rest(f.t)) }),
	token("two of a name further in", func(f *fortress) string { return f.body(`{"x":[{"a":1,"a":2}],` + rest(f.t)) }),
	token("sub is a number", func(f *fortress) string { return f.good(claims{"sub": 7}) }),
	token("sub is a list", func(f *fortress) string { return f.good(claims{"sub": []string{"alice"}}) }),
	token("scope is an object", func(f *fortress) string { return f.good(claims{"scope": claims{}}) }),
	token("claims that are a list", func(f *fortress) string { return f.body(`[` + jsonOf(f.t, alice()) + `]`) }),
	token("claims that are null", func(f *fortress) string { return f.body(`null`) }),
	token("claims with something after them", func(f *fortress) string { return f.body(jsonOf(f.t, alice()) + `{}`) }),
	token("a claim with a line break", func(f *fortress) string { return f.good(claims{"tenant": "a\r\nX-User-Role: admin"}) }),
	token("a claim with NUL", func(f *fortress) string { return f.good(claims{"tenant": "a\x00b"}) }),
	token("a claim with a C1 control", func(f *fortress) string { return f.good(claims{"tenant": "a\u0085b"}) }),
	token("a claim with a tab before it, which servers cut off", func(f *fortress) string { return f.good(claims{"role": "\tadmin"}) }),
	token("a claim with a space behind it, which servers cut off", func(f *fortress) string { return f.good(claims{"sub": "root "}) }),
	token("a claim of half a character", func(f *fortress) string { return f.body(`{"tenant":"\ud800",` + rest(f.t)) }),
	token("a list with a comma inside an entry", func(f *fortress) string { return f.good(claims{"roles": []string{"a,admin"}}) }),
	token("a list with a number", func(f *fortress) string { return f.good(claims{"roles": []any{"a", 1}}) }),
	token("an object where a header wants text", func(f *fortress) string { return f.good(claims{"roles": claims{"a": 1}}) }),
}

var formAttacks = []attack{
	{"control: cookie", func(f *fortress) *http.Request { return lines("/cookie", "Cookie", "a=b; session="+f.good(nil)) }, "", "alice"},
	{"control: header", func(f *fortress) *http.Request { return lines("/header", "X-Access-Token", f.good(nil)) }, "", "alice"},
	{"control: scheme in lower case", func(f *fortress) *http.Request { return lines("/", "Authorization", "bearer "+f.good(nil)) }, "", "alice"},
	{"control: optional without a token", func(*fortress) *http.Request { return bearer("/optional", "") }, "", ""},
	{"control: optional with a token", func(f *fortress) *http.Request { return bearer("/optional", f.good(nil)) }, "", "alice"},
	token("no token", func(*fortress) string { return "" }),
	token("row 59: a million dots", func(*fortress) string { return strings.Repeat(".", 1_000_000) }),
	token("row 59: a header of a million characters", func(f *fortress) string { return strings.Repeat("A", 1_000_000) + f.good(nil) }),
	token("row 59: one byte over the limit", func(f *fortress) string { return f.good(claims{"x": strings.Repeat("x", 8192)}) }),
	token("eight thousand dots", func(*fortress) string { return strings.Repeat(".", 8000) }),
	token("two segments", func(f *fortress) string { s, _, _ := cutLast(f.good(nil)); return s }),
	token("four segments", func(f *fortress) string { return f.good(nil) + "." }),
	token("five segments, as of an encrypted token", func(f *fortress) string { return f.good(nil) + ".a.b" }),
	token("empty segments", func(*fortress) string { return ".." }),
	token("padding", func(f *fortress) string { return f.good(nil) + "==" }),
	token("standard base64", func(f *fortress) string { return strings.NewReplacer("-", "+", "_", "/").Replace(f.good(nil)) + "/" }),
	token("a space inside", func(f *fortress) string { return strings.Replace(f.good(nil), ".", " .", 1) }),
	token("quotes around", func(f *fortress) string { return `"` + f.good(nil) + `"` }),
	token("two tokens after one scheme", func(f *fortress) string { return f.good(nil) + ", Bearer " + f.good(nil) }),
	token("JSON serialisation of a JWS", func(f *fortress) string {
		p := strings.Split(f.good(nil), ".")
		return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, p[0], p[1], p[2])
	}),
	{"two Authorization lines, both good", func(f *fortress) *http.Request {
		return lines("/", "Authorization", "Bearer "+f.good(nil), "Authorization", "Bearer "+f.good(nil))
	}, "unauthenticated", ""},
	{"a good token behind another scheme's line", func(f *fortress) *http.Request {
		return lines("/", "Authorization", "Basic cm9vdDpyb290", "Authorization", "Bearer "+f.good(nil))
	}, "unauthenticated", ""},
	{"another scheme", func(f *fortress) *http.Request { return lines("/", "Authorization", "DPoP "+f.good(nil)) }, "unauthenticated", ""},
	{"no scheme", func(f *fortress) *http.Request { return lines("/", "Authorization", f.good(nil)) }, "unauthenticated", ""},
	{"a scheme alone", func(*fortress) *http.Request { return lines("/", "Authorization", "Bearer") }, "unauthenticated", ""},
	{"an empty line", func(*fortress) *http.Request { return lines("/", "Authorization", "") }, "unauthenticated", ""},
	{"a tab for the space", func(f *fortress) *http.Request { return lines("/", "Authorization", "Bearer\t"+f.good(nil)) }, "unauthenticated", ""},
	{"in the query", func(f *fortress) *http.Request { return lines("/?access_token=" + f.good(nil)) }, "unauthenticated", ""},
	{"in a cookie where a header is wanted", func(f *fortress) *http.Request { return lines("/", "Cookie", "session="+f.good(nil)) }, "unauthenticated", ""},
	{"in a header where a cookie is wanted", func(f *fortress) *http.Request { return bearer("/cookie", f.good(nil)) }, "unauthenticated", ""},
	{"two cookies of the name", func(f *fortress) *http.Request {
		return lines("/cookie", "Cookie", "session="+f.good(nil)+"; session="+f.good(nil))
	}, "unauthenticated", ""},
	{"two cookies of the name in two lines", func(f *fortress) *http.Request {
		return lines("/cookie", "Cookie", "session="+f.good(nil), "Cookie", "session=x")
	}, "unauthenticated", ""},
	{"a cookie hidden in another's quotes", func(f *fortress) *http.Request {
		return lines("/cookie", "Cookie", `session="x; session=`+f.good(nil)+`"`)
	}, "unauthenticated", ""},
	{"two lines of the header", func(f *fortress) *http.Request {
		return lines("/header", "X-Access-Token", f.good(nil), "X-Access-Token", "x")
	}, "unauthenticated", ""},
	{"the header's twin with an underscore", func(f *fortress) *http.Request { return lines("/header", "X_access_token", f.good(nil)) }, "unauthenticated", ""},
	{"optional with a bad token", func(f *fortress) *http.Request { return bearer("/optional", f.stranger.sign(f.t, alice())) }, "unauthenticated", ""},
	{"optional with an expired token", func(f *fortress) *http.Request {
		return bearer("/optional", f.good(claims{"exp": at(-time.Hour)}))
	}, "unauthenticated", ""},
	{"optional with another scheme", func(*fortress) *http.Request { return lines("/optional", "Authorization", "Basic cm9vdDpyb290") }, "unauthenticated", ""},
	{"row 34: the address of the gateway's own machine", func(*fortress) *http.Request {
		return lines("/", "X-Real-Ip", "127.0.0.1", "X-Forwarded-For", "127.0.0.1", "User-Agent", "kube-probe/1.30")
	}, "unauthenticated", ""},
	{"row 35: another path and method in headers", func(*fortress) *http.Request {
		return lines("/", "X-Original-Url", "/open", "X-Rewrite-Url", "/open", "X-Http-Method-Override", "OPTIONS")
	}, "unauthenticated", ""},
	{"a preflight of another origin", func(*fortress) *http.Request {
		r := lines("/", "Origin", "https://evil.example", "Access-Control-Request-Method", "GET")
		r.Method = "OPTIONS"
		return r
	}, "unauthenticated", ""},
	{"row 78: an upgrade to websocket", func(*fortress) *http.Request {
		return lines("/", "Connection", "Upgrade", "Upgrade", "websocket", "Sec-Websocket-Key", "x")
	}, "unauthenticated", ""},
}

var identityAttacks = []attack{
	{"row 33: identity on an open route", func(*fortress) *http.Request {
		return lines("/open", "X-User-Id", "root", "X-User-Role", "admin", "X-Tenant", "other", "X-Roles", "admin")
	}, "", ""},
	{"row 33: identity beside no token on an optional route", func(*fortress) *http.Request {
		return lines("/optional", "X-User-Id", "root", "X-Tenant", "other", "X-Roles", "admin")
	}, "", ""},
	{"row 33: identity beside a token without those claims", func(f *fortress) *http.Request {
		r := lines("/", "X-User-Id", "root", "X-Tenant", "other", "X-Roles", "admin")
		r.Header.Set("Authorization", "Bearer "+f.good(nil))
		return r
	}, "", "alice"},
	{"row 28: twins with underscores", func(f *fortress) *http.Request {
		r := lines("/", "X_user_id", "root", "X-User_id", "root", "X_tenant", "other", "x_Roles", "admin")
		r.Header.Set("Authorization", "Bearer "+f.good(nil))
		return r
	}, "", "alice"},
	{"row 27: Connection names the identity headers and the token", func(f *fortress) *http.Request {
		r := lines("/", "Connection", "x-user-id, X-User-Role, X-Tenant", "X-Tenant", "other")
		r.Header.Set("Authorization", "Bearer "+f.good(nil))
		return r
	}, "", "alice"},
	{"row 27: Connection names Authorization", func(f *fortress) *http.Request {
		return lines("/", "Connection", "Authorization", "Authorization", "Bearer "+f.good(nil))
	}, "unauthenticated", ""},
	{"row 29: a forwarded user", func(f *fortress) *http.Request {
		r := lines("/", "X-Forwarded-User", "root", "X-Consumer-Username", "root", "X-Consumer", "root")
		r.Header.Set("Authorization", "Bearer "+f.good(nil))
		return r
	}, "", "alice"},
	{"identity in lower case as HTTP/2 sends it", func(*fortress) *http.Request {
		r := lines("/open")
		r.Header.Set("x-user-id", "root")
		r.Header.Set("x-roles", "admin")
		return r
	}, "", ""},
}

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
