package middleware

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

// FuzzEdge sends heads that a stranger may make up through the whole engine:
// it answers all of them, and nothing guarded goes on.
func FuzzEdge(f *testing.F) {
	f.Add("GET", "/a/../b?x=1", "a.test:80", "X_forwarded_for", "6.6.6.6", "Connection", "x-user-id", false)
	f.Add("OPTIONS", "*", "[::1]:80", "X-User-Id", "root", "Upgrade", "websocket", true)
	f.Add("POST", "http://b@c/%2e%2e", "", "Traceparent", "00-", "Te", "trailers", true)
	plain, trusting := newGateway(f, setup{}), newGateway(f, setup{config: func(c *Config) {
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	}})
	f.Fuzz(func(t *testing.T, method, target, host, name1, value1, name2, value2 string, trusted bool) {
		g := plain
		if trusted {
			g = trusting
		}
		r := httptest.NewRequest("GET", "/", nil)
		if u, err := r.URL.Parse(target); err == nil {
			r.URL = u
		}
		r.Method, r.RequestURI, r.Host = method, target, host
		r.Header.Add(name1, value1)
		r.Header.Add(name2, value2)
		w := httptest.NewRecorder()
		before := len(g.upstream.requests())
		g.engine.ServeHTTP(w, r)
		if sent := w.Result().Header; w.Code < 200 || sent.Get("X-Request-ID") == "" {
			t.Fatalf("answered %d with %v", w.Code, sent)
		}
		seen := g.upstream.requests()
		if len(seen) == before {
			return
		}
		s := seen[len(seen)-1]
		if !strings.HasPrefix(s.Target, "/") || strings.ContainsAny(s.Target, "\\#\x00") || strings.Contains(s.Target, "/../") {
			t.Errorf("%q went on as %q", target, s.Target)
		}
		for name := range s.Header {
			folded := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
			switch {
			case folded == "X-User-Id", folded == "Proxy", strings.HasPrefix(folded, "X-Original-"):
				t.Errorf("%s went on", name)
			case strings.HasPrefix(folded, "X-Forwarded-") && (!trusted || folded != name):
				t.Errorf("%s went on", name)
			}
		}
	})
}
