package middleware_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
)

// FuzzToken sends whatever a stranger may write where a token stands, and
// tokens that were signed well over whatever header and claims. Nothing
// unsigned passes, and whatever passes tells the instance clean text.
func FuzzToken(f *testing.F) {
	secret := []byte(strings.Repeat("s", 32))
	g := plugintest.Start(f, plugintest.Case{Plugins: jwtConfig(map[string]any{
		"algorithms": []any{"HS256"}, "secret_file": file(f, secret), "issuer": "i",
		"claims_to_headers": map[string]any{"sub": "X-Sub", "a.b": "X-B", "roles": "X-Roles"}})})
	for _, seed := range []struct{ line, header, body string }{
		{"Bearer a.b.c", `{"alg":"HS256"}`, `{"iss":"i","exp":9999999999,"sub":"alice","a":{"b":[]},"roles":["x","y"]}`},
		{"bearer ..", `{"alg":"none"}`, `{"iss":"i","exp":9999999999,"exp":1}`},
		{"Bearer", `{"alg":"HS256","crit":[]}`, `{"iss":"i","exp":1e999,"sub":"\ud800"}`},
		{"", `[]`, `null`},
	} {
		f.Add(seed.line, seed.header, seed.body)
	}
	f.Fuzz(func(t *testing.T, line, header, body string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Authorization"] = []string{line}
		if got := g.Do(r); got.Forwarded != nil || got.Response.Code != 401 {
			t.Errorf("%q got %d", line, got.Response.Code)
		}
		got := g.Do(bearer("/", forge(t, jwt.SigningMethodHS256, secret, header, body)))
		if got.Forwarded == nil {
			if got.Response.Code != 401 {
				t.Errorf("%s %s got %d", header, body, got.Response.Code)
			}
			return
		}
		if !strings.Contains(header, "HS256") || strings.Contains(header, `"crit"`) {
			t.Errorf("a token passed whose header is %s", header)
		}
		for _, name := range []string{"X-Sub", "X-B", "X-Roles"} {
			for _, v := range got.Forwarded.Header[name] {
				if v == "" || strings.ContainsAny(v, "\r\n\t\x00\x7f") || v != strings.TrimSpace(v) {
					t.Errorf("the instance was told %s: %q", name, v)
				}
			}
		}
	})
}
