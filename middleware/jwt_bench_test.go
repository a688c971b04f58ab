package middleware

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-gateway/sluice/routing"
)

// benchToken is a configuration for an algorithm and a token of the size that
// providers make.
func benchToken(b *testing.B, algorithm string) (config map[string]any, token string) {
	b.Helper()
	var private, public any
	secret := make([]byte, 64)
	switch algorithm {
	case "HS256":
		private = secret
	case "RS256":
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			b.Fatal(err)
		}
		private, public = k, &k.PublicKey
	case "ES256":
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		private, public = k, &k.PublicKey
	case "EdDSA":
		pub, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		private, public = k, pub
	}
	path := filepath.Join(b.TempDir(), "key")
	content, field := secret, "secret_file"
	if public != nil {
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			b.Fatal(err)
		}
		content, field = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), "public_key_file"
	} else {
		for i := range content {
			content[i] = 's'
		}
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		b.Fatal(err)
	}
	token, err := jwt.NewWithClaims(jwt.GetSigningMethod(algorithm), jwt.MapClaims{
		"iss": "https://issuer.example.com/realms/shop", "aud": []string{"api", "account"}, "sub": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
		"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "jti": "b9f2ab6c-2c21-4a2d-a2d1-6d0e7fb0ffb1",
		"azp": "web", "scope": "openid email profile", "email": "alice@example.com", "name": "Alice Example", "role": "user",
		"realm_access": map[string]any{"roles": []string{"offline_access", "uma_authorization", "user"}},
	}).SignedString(private)
	if err != nil {
		b.Fatal(err)
	}
	return map[string]any{"algorithms": []any{algorithm}, field: path, "issuer": "https://issuer.example.com/realms/shop",
		"audience": []any{"api"}, "claims_to_headers": map[string]any{"sub": "X-User-ID", "role": "X-User-Role"}}, token
}

// BenchmarkJWTVerifiedBefore is what the plugin costs a request whose token
// has been verified: everything between the match and the forwarder.
func BenchmarkJWTVerifiedBefore(b *testing.B) {
	config, token := benchToken(b, "RS256")
	c := compileJWT(b, config)
	h := http.Header{"Authorization": {"Bearer " + token}, "Accept": {"*/*"}, "User-Agent": {"bench"}}
	ctx := context.Background()
	b.ReportAllocs()
	start := cpu()
	for b.Loop() {
		found, err := c.find(h)
		if err != nil {
			b.Fatal(err)
		}
		p, err := c.check(ctx, found)
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range p.headers {
			h[e.name] = e.values
		}
	}
	b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op")
}

// BenchmarkJWTVerifiedBeforeParallel shows whether requests wait for each other.
func BenchmarkJWTVerifiedBeforeParallel(b *testing.B) {
	config, token := benchToken(b, "RS256")
	c := compileJWT(b, config)
	h := http.Header{"Authorization": {"Bearer " + token}}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			found, err := c.find(h)
			if err != nil {
				b.Error(err)
			}
			if _, err := c.check(context.Background(), found); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkJWTVerify is what a token costs the first time.
func BenchmarkJWTVerify(b *testing.B) {
	for _, algorithm := range []string{"HS256", "RS256", "ES256", "EdDSA"} {
		b.Run(algorithm, func(b *testing.B) {
			config, token := benchToken(b, algorithm)
			c := compileJWT(b, config)
			set, err := c.keys.Get(context.Background())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.verify(context.Background(), set, token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func compileJWT(b *testing.B, config map[string]any) *JWTConfig {
	b.Helper()
	compiled, faults := jwtPlugin().compile(&Place{registry: quiet()}, config)
	if faults != nil {
		b.Fatal(faults)
	}
	return compiled.(*JWTConfig)
}

// BenchmarkEngineJWT is the whole chain with and without the plugin, and
// where it refuses.
func BenchmarkEngineJWT(b *testing.B) {
	config, token := benchToken(b, "RS256")
	routes := map[string]string{"a": fmt.Sprintf(`{"path":"/on","service":"any","plugins":{"jwt":{"algorithms":["RS256"],`+
		`"public_key_file":%q,"audience":["api"],"claims_to_headers":{"sub":"X-User-ID","role":"X-User-Role"}}}}`, config["public_key_file"]),
		"b": `{"path":"/off","service":"any"}`}
	for _, c := range []struct{ name, path, token string }{
		{"off", "/off", token}, {"on", "/on", token}, {"refused", "/on", token + "x"},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := newGateway(b, setup{routes: routes, config: func(c *Config) { c.AccessLog = false }})
			g.upstream.answer = func(w http.ResponseWriter, _ *http.Request, _ *routing.Exchange) *routing.Refusal {
				w.WriteHeader(200)
				return nil
			}
			r := httptest.NewRequest("GET", c.path, nil)
			r.Header.Set("Authorization", "Bearer "+c.token)
			w := &nowhere{h: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				g.engine.ServeHTTP(w, r)
			}
		})
	}
}
