package middleware_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/middleware"
	"github.com/sluice-gateway/sluice/middleware/plugintest"
)

// sink takes an answer at no cost.
type sink struct {
	h      http.Header
	status int
}

func (w *sink) Header() http.Header { return w.h }
func (w *sink) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *sink) Write(p []byte) (int, error) {
	w.WriteHeader(200)
	return len(p), nil
}

// BenchmarkAccess is a whole walk with one plugin on: what it costs above
// "off" is that plugin's price.
func BenchmarkAccess(b *testing.B) {
	decide := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
	b.Cleanup(decide.Close)
	known := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"active":true,"sub":"alice"}`)
	}))
	b.Cleanup(known.Close)
	b.Setenv("BENCH_CLIENT_SECRET", "secret")
	cert := clientCertificate(b, nil)
	rules := []any{
		map[string]any{"paths": []any{"/api/public/*"}, "anyone": true},
		map[string]any{"paths": []any{"/api/profile"}, "of": "group", "any_of": []any{"user", "admin"}},
		map[string]any{"paths": []any{"/api/admin/*"}, "methods": []any{"GET"}, "of": "group", "any_of": []any{"gold"}},
	}
	key, pair := []string{"alice's key"}, strings.TrimPrefix(basic("alice", "wonderland"), "Authorization: ")
	for _, c := range []struct {
		name    string
		plugins plugintest.Config
	}{
		{"off", nil},
		{"api_key", plugintest.Config{"api_key": {}}},
		{"api_key and acl", plugintest.Config{"api_key": {}, "acl": {"rules": rules}}},
		{"basic_auth", plugintest.Config{"basic_auth": {"users_file": usersFile(b, map[string]string{"alice": "wonderland"})}}},
		{"bot_guard", plugintest.Config{"bot_guard": {"min_requests": 8}}},
		{"body_limit", plugintest.Config{"body_limit": {"max_bytes": 1000}}},
		{"mtls", plugintest.Config{"mtls": {"headers": map[string]any{"X-Client-CN": "subject_cn"}, "allow": map[string]any{"subject_cn": []any{"orders"}}}}},
		{"ip_filter", plugintest.Config{"ip_filter": {"allow": []any{"192.0.2.0/24"}, "deny": []any{"0.0.0.0/0", "::/0"}}}},
		{"introspection", plugintest.Config{"introspection": {"url": known.URL, "client_id": "gateway",
			"client_secret_env": "BENCH_CLIENT_SECRET", "header": "X-Token"}}},
		{"forward_auth", plugintest.Config{"forward_auth": {"url": decide.URL}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			engine := middleware.DefaultConfig()
			engine.AccessLog = false
			g := plugintest.Start(b, plugintest.Case{Engine: &engine, Plugins: c.plugins,
				Documents: map[string]string{"consumers/alice": consumer(key[0], "gold")}})
			r, w := request("GET", "/api/admin/dashboard"), &sink{h: http.Header{}}
			r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}
			r.Header.Set("X-Token", "opaque")
			credentials := []string{pair}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				w.status = 0
				r.Header["X-Api-Key"], r.Header["Authorization"] = key, credentials
				g.ServeHTTP(w, r)
				if w.status != 200 {
					b.Fatalf("got %d", w.status)
				}
			}
		})
	}
}
