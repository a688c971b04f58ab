package middleware_test

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-gateway/sluice/middleware"
	"github.com/sluice-gateway/sluice/middleware/plugintest"
	"github.com/sluice-gateway/sluice/routing"
)

// judge is a service that decides, and what it was asked last.
type judge struct {
	*httptest.Server
	mu     sync.Mutex
	asked  *http.Request
	body   string
	answer http.HandlerFunc
}

func startJudge(t testing.TB, answer http.HandlerFunc) *judge {
	t.Helper()
	j := &judge{answer: answer}
	j.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		j.mu.Lock()
		j.asked, j.body = r, string(body)
		j.mu.Unlock()
		j.answer(w, r)
	}))
	t.Cleanup(j.Close)
	return j
}

// last is the request that the service got last.
func (j *judge) last() (*http.Request, string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.asked, j.body
}

func judged(t testing.TB, j *judge, config map[string]any) *plugintest.Gateway {
	t.Helper()
	config["url"] = j.URL + "/decide?for=sluice"
	return plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"forward_auth": config}})
}

func TestForwardAuthAsksAndTakesOverWhatItIsTold(t *testing.T) {
	j := startJudge(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-User-ID", "alice")
		w.Header().Set("X-Roles", "admin, user,")
		w.Header().Set("X-Secret", "not asked for")
		w.WriteHeader(http.StatusNoContent)
	})
	var sent string
	g := plugintest.Start(t, plugintest.Case{
		Plugins: plugintest.Config{"forward_auth": {"url": j.URL + "/decide?for=sluice", "request_headers": []any{"Authorization", "X-Tenant"},
			"response_headers": []any{"X-User-ID", "X-Plan"}, "subject_header": "X-User-ID", "groups_header": "X-Roles"}},
		Upstream: func(_ http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			sent = string(b)
		},
	})
	r := httptest.NewRequest("POST", "/a/%2e%2e/b//c%2Fd?x=1", strings.NewReader("the body"))
	r.Host = "api.example.com"
	for name, value := range map[string]string{"Authorization": "Bearer t", "X-Tenant": "shop", "Cookie": "a=b", "X-Plan": "made up",
		"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/open", "X-Forwarded-Host": "evil", "X-Forwarded-For": "127.0.0.1", "X-Original-Url": "/open"} {
		r.Header.Set(name, value)
	}
	got := g.Do(r)
	wantCode(t, "the request", got, "")
	asked, body := j.last()
	if asked.Method != "GET" || asked.RequestURI != "/decide?for=sluice" || body != "" {
		t.Errorf("the service was asked %s %s with %q", asked.Method, asked.RequestURI, body)
	}
	for name, want := range map[string]string{
		"X-Forwarded-Method": "POST", "X-Forwarded-Uri": "/b//c%2Fd?x=1", "X-Forwarded-Host": "api.example.com",
		"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http", "Authorization": "Bearer t", "X-Tenant": "shop",
		"Cookie": "", "X-Original-Url": "", "X-Plan": "", "Content-Length": "",
	} {
		if v := strings.Join(asked.Header[http.CanonicalHeaderKey(name)], "|"); v != want {
			t.Errorf("row 29: the service was told %s: %q, want %q", name, v, want)
		}
	}
	h := got.Forwarded.Header
	if h.Get("X-User-ID") != "alice" || h["X-Plan"] != nil || h["X-Secret"] != nil || h["X-Roles"] != nil || h.Get("Authorization") != "Bearer t" {
		t.Errorf("the instance got %v", h)
	}
	if sent != "the body" {
		t.Errorf("the instance got the body %q", sent)
	}
	if id := got.Exchange.Identity; id == nil || id.Plugin != "forward_auth" || id.Subject != "alice" || !slices.Equal(id.Groups, []string{"admin", "user"}) {
		t.Errorf("the identity is %+v", id)
	}
	g.Put("routes/open", `{"path":"/open","service":"instance"}`)
	if got := g.Do(request("GET", "/open", "X-Plan: gold", "X-User-Id: root", "Authorization: Basic x")); got.Forwarded == nil ||
		got.Forwarded.Header["X-Plan"] != nil || got.Forwarded.Header["X-User-Id"] != nil || got.Forwarded.Header.Get("Authorization") == "" {
		t.Errorf("row 33: an anonymous route's instance was told %+v", got.Forwarded)
	}
}

func TestForwardAuthReplacesCredentialsWhereItIsToldTo(t *testing.T) {
	j := startJudge(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer opaque" {
			w.Header().Set("Authorization", "Bearer inner")
		}
	})
	g := judged(t, j, map[string]any{"response_headers": []any{"Authorization"}})
	if got := g.Do(request("GET", "/", "Authorization: Bearer opaque")); got.Forwarded == nil || got.Forwarded.Header.Get("Authorization") != "Bearer inner" {
		t.Errorf("the instance got %+v", got.Forwarded)
	}
	if got := g.Do(request("GET", "/", "Authorization: Bearer other")); got.Forwarded == nil || got.Forwarded.Header["Authorization"] != nil {
		t.Errorf("the instance got what the service did not say: %+v", got.Forwarded)
	}
}

func TestForwardAuthPassesARefusalOn(t *testing.T) {
	var status atomic.Int64
	j := startJudge(t, func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Location", "https://login.example.com/?next=x")
		h.Set("WWW-Authenticate", "Bearer")
		h.Set("Content-Type", "text/html")
		h.Add("Set-Cookie", "a=1")
		h.Add("Set-Cookie", "b=2")
		h.Set("X-Internal", "1")
		h.Set("Connection", "X-Request-Id")
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, "log in first")
	})
	g := judged(t, j, map[string]any{})
	for i, code := range []int{401, 403, 302, 303, 307} {
		status.Store(int64(code))
		got := g.Do(request("GET", "/"))
		h := got.Response.Header()
		if got.Forwarded != nil || got.Response.Code != code || got.Response.Body.String() != "log in first" {
			t.Errorf("%d: got %d %q", code, got.Response.Code, got.Response.Body)
		}
		if h.Get("Location") == "" || h.Get("WWW-Authenticate") != "Bearer" || len(h["Set-Cookie"]) != 2 || h.Get("Content-Type") != "text/html" ||
			h["X-Internal"] != nil || h["Connection"] != nil || h.Get("Cache-Control") != "no-store" || h.Get("X-Request-Id") == "" {
			t.Errorf("%d: the answer's head is %v", code, h)
		}
		if n := g.Rejections("forward_auth"); n != float64(i+1) {
			t.Errorf("%d: %v refusals were counted, want %d", code, n, i+1)
		}
	}
}

func TestForwardAuthNeverOpensWithoutAVerdict(t *testing.T) {
	release := make(chan struct{})
	answers := map[string]http.HandlerFunc{
		"500":                   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"404":                   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) },
		"301":                   func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Location", "/"); w.WriteHeader(301) },
		"a connection cut":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"silence":               func(_ http.ResponseWriter, r *http.Request) { <-release },
		"row 53: endless bytes": endless(401), "a refusal cut short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(403)
			panic(http.ErrAbortHandler)
		},
	}
	var answer atomic.Value // http.HandlerFunc
	j := startJudge(t, func(w http.ResponseWriter, r *http.Request) { answer.Load().(http.HandlerFunc)(w, r) })
	defer close(release)
	g := judged(t, j, map[string]any{"timeout": "300ms"})
	for name, a := range answers {
		answer.Store(a)
		got := g.Do(request("GET", "/"))
		wantCode(t, name, got, routing.CodeOverloaded)
		if got.Response.Header().Get("Retry-After") != "1" {
			t.Errorf("%s: Retry-After is %q", name, got.Response.Header().Get("Retry-After"))
		}
	}
	dead := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"forward_auth": {"url": "http://127.0.0.1:1/"}}})
	wantCode(t, "nobody there", dead.Do(request("GET", "/")), routing.CodeOverloaded)
}

// endless answers with a body that does not end.
func endless(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		for {
			if _, err := w.Write(bytes.Repeat([]byte("x"), 64<<10)); err != nil {
				return
			}
		}
	}
}

func TestForwardAuthFollowsNoRedirect(t *testing.T) {
	other := startJudge(t, func(http.ResponseWriter, *http.Request) {})
	j := startJudge(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	got := judged(t, j, map[string]any{}).Do(request("GET", "/", "Authorization: Bearer t"))
	if got.Response.Code != 302 || got.Forwarded != nil {
		t.Errorf("got %d", got.Response.Code)
	}
	if asked, _ := other.last(); asked != nil {
		t.Error("row 37: the gateway went where the service sent it")
	}
}

func TestForwardAuthForGRPC(t *testing.T) {
	j := startJudge(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) })
	r := request("POST", "/pkg.Service/Method", "Content-Type: application/grpc")
	r.ProtoMajor, r.Proto = 2, "HTTP/2.0"
	got := judged(t, j, map[string]any{}).Do(r)
	if got.Forwarded != nil || got.Response.Code != 200 || got.Response.Header().Get("Grpc-Status") != "7" {
		t.Errorf("got %d %v", got.Response.Code, got.Response.Header())
	}
}

func TestForwardAuthBelievesATrustedProxyAboutTheScheme(t *testing.T) {
	j := startJudge(t, func(http.ResponseWriter, *http.Request) {})
	engine := middleware.DefaultConfig()
	engine.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}
	g := plugintest.Start(t, plugintest.Case{Engine: &engine, Plugins: plugintest.Config{"forward_auth": {"url": j.URL}}})
	g.Do(request("GET", "/", "X-Forwarded-Proto: https", "X-Forwarded-For: 10.0.0.1, 10.0.0.2"))
	if asked, _ := j.last(); asked.Header.Get("X-Forwarded-Proto") != "https" || asked.Header.Get("X-Forwarded-For") != "10.0.0.2" {
		t.Errorf("the service was told %v", asked.Header)
	}
}

func TestRow67AServiceWithAnUnknownCertificateIsNotBelieved(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(s.Close)
	config := map[string]any{"url": s.URL}
	g := plugintest.Start(t, plugintest.Case{Plugins: plugintest.Config{"forward_auth": config}})
	wantCode(t, "an unknown authority", g.Do(request("GET", "/")), routing.CodeOverloaded)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	config["ca_file"] = file
	if problems := g.Configure(plugintest.Config{"forward_auth": config}); problems != nil {
		t.Fatal(problems)
	}
	r := request("GET", "/")
	r.TLS = &tls.ConnectionState{}
	wantCode(t, "a known one", g.Do(r), "")
}

func TestRow66NoTokenIsLoggedWhenTheServiceIsAway(t *testing.T) {
	var log bytes.Buffer
	g := plugintest.Start(t, plugintest.Case{Log: slog.New(slog.NewJSONHandler(&log, nil)),
		Plugins: plugintest.Config{"forward_auth": {"url": "http://127.0.0.1:1/?key=canary"}}})
	got := g.Do(request("GET", "/?token=canary", "Authorization: Bearer canary"))
	if strings.Contains(log.String()+got.Response.Body.String(), "canary") || !strings.Contains(log.String(), "ask 127.0.0.1:1") {
		t.Errorf("the log is %s, the answer %s", log.String(), got.Response.Body)
	}
}

func TestForwardAuthRefusesBadConfiguration(t *testing.T) {
	at := "plugins.forward_auth."
	for _, c := range []struct {
		config map[string]any
		want   string
	}{
		{map[string]any{}, at + "url: is missing; give the address of the service that decides"},
		{map[string]any{"url": "auth:9000"}, at + "url: is not an http or https address"},
		{map[string]any{"url": "http://a:b@c/"}, at + "url: holds user information, which would end up in logs"},
		{map[string]any{"url": "http://a/", "method": "PUT"}, at + "method: is none of GET, HEAD, POST"},
		{map[string]any{"url": "http://a/", "timeout": "0s"}, at + "timeout: must be above 0 and at most 1m0s"},
		{map[string]any{"url": "http://a/", "timeout": "2m"}, at + "timeout: must be above 0 and at most 1m0s"},
		{map[string]any{"url": "http://a/", "request_headers": []any{"Connection"}},
			at + "request_headers[0]: belongs to the connection or to the framing of the message and cannot be edited"},
		{map[string]any{"url": "http://a/", "response_headers": []any{"X-A", "X-Forwarded-For"}},
			at + "response_headers[1]: is the gateway's own and cannot be edited"},
		{map[string]any{"url": "http://a/", "groups_header": "a b"}, at + "groups_header: is not a header name"},
		{map[string]any{"url": "http://a/", "ca_file": "/nowhere"}, at + "ca_file: open /nowhere: no such file or directory"},
	} {
		if got := plugintest.Faults("forward_auth", c.config); !slices.Equal(got, []string{c.want}) {
			t.Errorf("%v: the faults are %q, want %q", c.config, got, c.want)
		}
	}
}

func TestTheForwardAuthExampleIsValid(t *testing.T) {
	plugintest.Start(t, plugintest.Case{Plugins: example(t, "forward-auth")})
}
