package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/test/testenv"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// claims is what a client may not say, in many spellings: forwarding,
// identity, and what steers routing or logs (rows 27 to 38).
var claims = []string{
	"X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: evil", "X-Forwarded-Host: evil", "X-Forwarded-Port: 6",
	"X-Forwarded-Prefix: //evil", "X-Forwarded-Server: evil", "X-Forwarded-Uri: /evil", "X-Forwarded-Method: EVIL",
	"Forwarded: for=6.6.6.6", "X-Real-IP: 6.6.6.6", "X-Request-ID: evil", "X-Trace-ID: evil",
	"X_Forwarded_For: 6.6.6.6", "X_REAL_IP: 6.6.6.6", "x_forwarded-host: evil", "X_User_Id: evil",
	"X-Original-URL: /evil", "X-Original-Host: evil", "X-Rewrite-URL: /evil", "X-Envoy-Original-Path: /evil",
	"X-HTTP-Method-Override: EVIL", "X-HTTP-Method: EVIL", "X-Method-Override: EVIL",
	"Proxy: http://evil", "X-User-Id: evil", "x-user-role: evil",
}

// headerSite is a gateway over http and https that sets X-User-Id and
// X-User-Role towards instances by itself.
func headerSite(t *testing.T) (*site, *origin, string) {
	t.Helper()
	cert, key := testenv.NewCA(t).Issue(t, "gateway", "127.0.0.1")
	secure := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
	s := newSite(t, testenv.GatewayOptions{
		ListenExtra: []string{fmt.Sprintf("https: %q", secure)},
		Extra: fmt.Sprintf("identity_headers: [X-User-Id, X-User-Role]\ntls:\n  certificates: [{cert_file: %q, key_file: %q}]\n",
			cert, key),
	})
	o := startOrigin(t)
	s.register("origin", "origin-1", o.addr)
	s.etcd.Apply(map[string]string{
		"/sluice/routes/any":    `{"path":"/*","service":"origin"}`,
		"/sluice/routes/known":  `{"path":"/known/*","service":"origin","plugins":{"headers":{"request":{"set":{"X-User-Id":"ours"}}}}}`,
		"/sluice/routes/admin":  `{"path":"/admin/*","respond":{"status":403,"body":"guarded"}}`,
		"/sluice/routes/moved":  `{"path":"/old/*rest","redirect":{"to":"/*rest"}}`,
		"/sluice/routes/strict": `{"path":"/dir/","service":"origin"}`,
	})
	s.eventually("the origin answers", "/x", func(a answer) bool { return a.Status == http.StatusOK })
	o.take()
	return s, o, secure
}

func TestRows27To39ForwardedHeadersAndIdentity(t *testing.T) {
	s, o, secure := headerSite(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *site, *origin)
	}{
		{"rows 28 to 38 an untrusted client's claims never reach an instance", untrustedClaims},
		{"row 27 Connection deletes only the client's own", connectionDeletes},
		{"row 33 identity is the gateway's alone", identity},
		{"rows 34 to 36 no header changes route or target", steering},
		{"row 37 redirects of an instance are not followed", redirectsNotFollowed},
		{"row 39 redirects are not steered by the client", openRedirect},
		{"rows 28 to 38 the same over gRPC", claimsOverGRPC},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, s.at(t), o); o.take() })
	}
	t.Run("row 29 port and protocol are those of the connection", func(t *testing.T) {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
		defer tr.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+secure+"/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-Proto", "http")
		req.Header.Set("X-Forwarded-Port", "80")
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		h := o.take()[0].Header
		_, port, _ := strings.Cut(secure, ":")
		equal(t, "protocol", resp.ProtoMajor, 2)
		equal(t, "X-Forwarded-Proto", h["X-Forwarded-Proto"], []string{"https"})
		equal(t, "X-Forwarded-Port", h["X-Forwarded-Port"], []string{port})
	})
}

// ours checks that what an instance was told is the gateway's word.
func (s *site) ours(h http.Header) {
	s.t.Helper()
	_, port, _ := strings.Cut(s.gateway.Addr, ":")
	for name, want := range map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "a", "X-Forwarded-Port": port,
	} {
		equal(s.t, name, h[name], []string{want})
	}
	if len(h["X-Request-Id"]) != 1 || len(h["X-Trace-Id"]) != 1 || len(h["Traceparent"]) != 1 {
		s.t.Errorf("ids are missing: %v", h)
	}
	for name, values := range h {
		for _, v := range values {
			if strings.Contains(strings.ToLower(v), "evil") || strings.Contains(v, "6.6.6.6") {
				s.t.Errorf("the instance was told %s: %s", name, v)
			}
		}
		if strings.Contains(name, "_") {
			s.t.Errorf("the instance was told %s", name)
		}
	}
}

func untrustedClaims(t *testing.T, s *site, o *origin) {
	w := dial(t, s.gateway.Addr)
	w.send(crlf("GET /claims HTTP/1.1\nHost: a\n" + strings.Join(claims, "\n") + "\n\n"))
	equal(t, "status", w.answer(http.MethodGet).StatusCode, http.StatusOK)
	s.ours(o.take()[0].Header)
}

func connectionDeletes(t *testing.T, s *site, o *origin) {
	w := dial(t, s.gateway.Addr)
	w.send(crlf("GET /known/x HTTP/1.1\nHost: a\nX-Own: mine\nX-Other: 1\nKeep-Alive: 5\nTE: trailers, gzip\nProxy-Connection: keep-alive\n" +
		"Connection: x-forwarded-for, X-FORWARDED-HOST, X-Forwarded-Proto, X-Forwarded-Port, X-Request-Id, X-Trace-Id, traceparent, X-User-Id, x-own\n\n"))
	equal(t, "status", w.answer(http.MethodGet).StatusCode, http.StatusOK)
	h := o.take()[0].Header
	s.ours(h)
	equal(t, "X-User-Id", h["X-User-Id"], []string{"ours"})
	equal(t, "X-Other", h["X-Other"], []string{"1"})
	for _, gone := range []string{"X-Own", "Keep-Alive", "Proxy-Connection", "Connection"} {
		equal(t, gone, h[gone], []string(nil))
	}
}

func identity(t *testing.T, s *site, o *origin) {
	for path, want := range map[string][]string{"/x": nil, "/known/x": {"ours"}} {
		s.ask("GET", path, "X-User-Id: root", "x-user-role: root", "X_User_Id: root", "X_USER_ROLE: root")
		h := o.take()[0].Header
		equal(t, path+" X-User-Id", h["X-User-Id"], want)
		equal(t, path+" X-User-Role", h["X-User-Role"], []string(nil))
		for name := range h {
			if strings.Contains(name, "_") {
				t.Errorf("%s: the instance was told %s", path, name)
			}
		}
	}
}

func steering(t *testing.T, s *site, o *origin) {
	for _, h := range []string{
		"X-Real-IP: 127.0.0.1", "X-Forwarded-For: 127.0.0.1", "User-Agent: kube-probe/1.30", "User-Agent: ELB-HealthChecker/2.0",
		"X-Original-URL: /x", "X-Rewrite-URL: /x", "X-Forwarded-Uri: /x", "X-HTTP-Method-Override: OPTIONS",
		"X-Forwarded-Host: evil.test", "X-Sluice-Route: any", "X-Envoy-Original-Path: /x",
	} {
		equal(t, h, s.ask("GET", "/admin/x", h).Status, http.StatusForbidden)
	}
	other := startOrigin(t)
	for _, name := range []string{"X-Sluice-Target", "X-Upstream", "X-Backend", "X-Skipper-Dynamic-Backend-Host", "X-Envoy-Upstream-Rq-Timeout-Ms"} {
		equal(t, name, s.ask("GET", "/x", name+": "+other.addr).Status, http.StatusOK)
	}
	equal(t, "requests at another target", len(other.take()), 0)
	equal(t, "requests at the target", len(o.take()), 5)
}

func redirectsNotFollowed(t *testing.T, s *site, _ *origin) {
	other := startOrigin(t)
	instance := httptest.NewServer(http.RedirectHandler("http://"+other.addr+"/stolen", http.StatusFound))
	defer instance.Close()
	s.register("moved", "moved-1", instance.Listener.Addr().String(), "sluice.path=/moved/*")
	got := s.eventually("the redirect comes", "/moved/x", func(a answer) bool { return a.Status == http.StatusFound },
		"Authorization: Bearer secret", "Cookie: session=secret")
	equal(t, "Location", got.Header.Get("Location"), "http://"+other.addr+"/stolen")
	equal(t, "requests at the redirect's target", len(other.take()), 0)
}

func openRedirect(t *testing.T, s *site, _ *origin) {
	for target, want := range map[string]string{
		"/old/a/b": "/a/b", "/old//evil.test": "/evil.test", "/old/%2Fevil.test": "/%2Fevil.test", "/dir": "",
	} {
		got := s.ask("GET", target, "X-Forwarded-Prefix: //evil.test", "X-Forwarded-Host: evil.test", "Host: evil.test")
		equal(t, target, got.Header.Get("Location"), want)
	}
}

// claimsOverGRPC sends the same claims as gRPC metadata to an instance that
// speaks HTTP/2.
func claimsOverGRPC(t *testing.T, s *site, _ *origin) {
	var mu sync.Mutex
	var seen []*http.Request
	instance := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r)
		mu.Unlock()
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "7")
		w.Header().Set("Grpc-Message", "seen")
	}))
	instance.Config.Protocols = new(http.Protocols)
	instance.Config.Protocols.SetUnencryptedHTTP2(true)
	instance.Start()
	defer instance.Close()
	s.register("rpc", "rpc-1", instance.Listener.Addr().String())
	s.etcd.Apply(map[string]string{
		"/sluice/services/rpc": `{"protocol":"grpc"}`,
		"/sluice/routes/rpc":   `{"path":"/pkg.Svc/*","service":"rpc"}`,
	})
	conn, err := grpc.NewClient(s.gateway.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("a"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	md := metadata.MD{}
	for _, claim := range claims {
		name, value, _ := strings.Cut(claim, ": ")
		md.Append(strings.ToLower(name), value)
	}
	testenv.Eventually(t, wait, "the instance's status comes", func() bool {
		err := conn.Invoke(metadata.NewOutgoingContext(context.Background(), md), "/pkg.Svc/M", nil, nil, grpc.ForceCodec(noBytes{}))
		return err != nil && strings.Contains(err.Error(), "seen")
	})
	mu.Lock()
	defer mu.Unlock()
	equal(t, "protocol", seen[0].ProtoMajor, 2)
	s.ours(seen[0].Header)
	if !slices.Equal(seen[0].Header["Te"], []string{"trailers"}) {
		t.Errorf("TE is %v", seen[0].Header["Te"])
	}
}

// noBytes is a codec of empty messages.
type noBytes struct{}

func (noBytes) Marshal(any) ([]byte, error) { return nil, nil }
func (noBytes) Unmarshal([]byte, any) error { return nil }
func (noBytes) Name() string                { return "proto" }
