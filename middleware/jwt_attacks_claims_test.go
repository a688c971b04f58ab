package middleware_test

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

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
