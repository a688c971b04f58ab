package proxy

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// h2cUpstream is an instance that speaks cleartext HTTP/2 and nothing else.
func h2cUpstream(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func tlsUpstream(t *testing.T, h2 bool, h http.HandlerFunc) (s *httptest.Server, caFile string) {
	t.Helper()
	s = httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = h2
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(caFile, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return s, caFile
}

func describe(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "HTTP/%d tls=%v %s", r.ProtoMajor, r.TLS != nil, b)
}

func TestProtocolsToTheInstance(t *testing.T) {
	tls1, ca1 := tlsUpstream(t, false, describe)
	tls2, ca2 := tlsUpstream(t, true, describe)
	h2c := h2cUpstream(t, describe)
	tests := []struct {
		name string
		addr string
		up   routing.Upstream
		want string // "" is 502
	}{
		{"http", addrOf(upstream(t, describe)), routing.Upstream{Protocol: "http"}, "HTTP/1 tls=false body"},
		{"h2c", addrOf(h2c), routing.Upstream{Protocol: "h2c"}, "HTTP/2 tls=false body"},
		{"grpc is h2c", addrOf(h2c), routing.Upstream{Protocol: "grpc"}, "HTTP/2 tls=false body"},
		{"https to an HTTP/1.1 instance", addrOf(tls1), routing.Upstream{Protocol: "https", TLS: routing.TLSSpec{CAFile: ca1}}, "HTTP/1 tls=true body"},
		{"https to an HTTP/2 instance", addrOf(tls2), routing.Upstream{Protocol: "https", TLS: routing.TLSSpec{CAFile: ca2}}, "HTTP/2 tls=true body"},
		{"grpcs", addrOf(tls2), routing.Upstream{Protocol: "grpcs", TLS: routing.TLSSpec{CAFile: ca2}}, "HTTP/2 tls=true body"},
		{"server_name is what is verified", addrOf(tls1), routing.Upstream{Protocol: "https", TLS: routing.TLSSpec{CAFile: ca1, ServerName: "example.com"}}, "HTTP/1 tls=true body"},
		{"a wrong server_name is refused", addrOf(tls1), routing.Upstream{Protocol: "https", TLS: routing.TLSSpec{CAFile: ca1, ServerName: "other.test"}}, ""},
		{"an unknown authority is refused", addrOf(tls1), routing.Upstream{Protocol: "https"}, ""},
		{"unless told not to verify", addrOf(tls1), routing.Upstream{Protocol: "https", TLS: routing.TLSSpec{InsecureSkipVerify: true}}, "HTTP/1 tls=true body"},
		{"a missing ca_file", addrOf(tls1), routing.Upstream{Protocol: "https", TLS: routing.TLSSpec{CAFile: "/does/not/exist"}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, tt.addr)
			g.service.Upstream = tt.up
			g.service.Upstream.Engine = engineOfRigs
			g.serve()
			resp, body, err := g.do(g.request("POST", "/", strings.NewReader("body")))
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" {
				if resp.StatusCode != 502 || body != "upstream_unreachable" {
					t.Errorf("got %d %q", resp.StatusCode, body)
				}
				return
			}
			if resp.StatusCode != 200 || body != tt.want {
				t.Errorf("got %d %q, want %q", resp.StatusCode, body, tt.want)
			}
		})
	}
}

func TestAWebSocketOverTLSToAnInstanceThatAlsoSpeaksHTTP2(t *testing.T) {
	up, ca := tlsUpstream(t, true, wsEcho(t))
	g := newRig(t, addrOf(up))
	g.service.Upstream = routing.Upstream{Protocol: "https", Engine: engineOfRigs, TLS: routing.TLSSpec{CAFile: ca}}
	g.serve()
	c := dialWS(t, g)
	if err := c.Write(t.Context(), 1, []byte("hi")); err != nil {
		t.Fatal(err)
	}
	if _, b, err := c.Read(t.Context()); err != nil || string(b) != "hi" {
		t.Errorf("got %q %v", b, err)
	}
}

func TestNewStdEngineNamesWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		up   routing.Upstream
		want string
	}{
		{"an unknown protocol", routing.Upstream{Protocol: "ftp"}, "protocol ftp"},
		{"a missing ca_file", routing.Upstream{Protocol: "https", TLS: routing.TLSSpec{CAFile: dir + "/none"}}, "tls.ca_file"},
		{"a ca_file without a certificate", routing.Upstream{Protocol: "https", TLS: routing.TLSSpec{CAFile: empty}}, "tls.ca_file"},
		{"a certificate without its key", routing.Upstream{Protocol: "https", TLS: routing.TLSSpec{CertFile: empty}}, "tls.key_file"},
		{"a certificate that cannot be read", routing.Upstream{Protocol: "grpcs", TLS: routing.TLSSpec{CertFile: empty, KeyFile: empty}}, "tls.cert_file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := NewStdEngine(tt.up); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want something about %s", err, tt.want)
			}
		})
	}
}

// fakeEngine counts what the registry does with it.
type fakeEngine struct{ closed atomic.Int64 }

func (e *fakeEngine) Leave(string) {}

func (e *fakeEngine) Connections(string) (open, idle int, ok bool) { return 0, 0, false }

func (e *fakeEngine) RoundTrip(*http.Request, *Trip) (*http.Response, error) {
	return nil, errors.New("not here")
}
func (e *fakeEngine) CloseIdle() { e.closed.Add(1) }

func TestEnginesOutliveSwaps(t *testing.T) {
	made := map[string]int{}
	var fail bool
	reg := newEngines(func(u routing.Upstream) (Engine, error) {
		made[u.Protocol]++
		if fail && u.Protocol == "https" {
			return nil, errors.New("tls.ca_file: gone")
		}
		return &fakeEngine{}, nil
	})
	a, b := routing.Upstream{Protocol: "http"}, routing.Upstream{Protocol: "https"}
	ea, _ := reg.get(a)
	eb, _ := reg.get(b)
	if errs := reg.retain([]routing.Upstream{a, a}); errs != nil {
		t.Fatal(errs)
	}
	if again, _ := reg.get(a); again != ea || made["http"] != 1 {
		t.Error("an engine in use was made again")
	}
	if eb.(*fakeEngine).closed.Load() != 1 || ea.(*fakeEngine).closed.Load() != 0 {
		t.Error("exactly the unused engine is to be closed")
	}
	fail = true
	if errs := reg.retain([]routing.Upstream{a, b}); len(errs) != 1 {
		t.Errorf("errors %v", errs)
	}
	made["https"] = 0
	for range 10 {
		if _, err := reg.get(b); err == nil {
			t.Fatal("no error")
		}
	}
	if made["https"] != 0 {
		t.Errorf("a failing engine was tried %d times on the request path", made["https"])
	}
	fail = false
	if errs := reg.retain([]routing.Upstream{b}); errs != nil {
		t.Error(errs)
	}
	if _, err := reg.get(b); err != nil {
		t.Error(err)
	}
}

func TestStickySessions(t *testing.T) {
	name := func(n string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, n) }
	}
	g := newRig(t, addrOf(upstream(t, name("a"))), addrOf(upstream(t, name("b"))), addrOf(upstream(t, name("c"))))
	g.service.Sticky = &routing.StickySpec{Cookie: "at", TTL: routing.Duration(time.Hour)}
	g.serve()
	resp, first := g.mustGet("/")
	cookies := resp.Cookies()
	if len(cookies) != 1 {
		t.Fatalf("cookies %v", cookies)
	}
	c := cookies[0]
	if c.Name != "at" || c.MaxAge != 3600 || c.Path != "/" || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteLaxMode {
		t.Errorf("cookie %+v", c)
	}
	for range 10 {
		req := g.request("GET", "/", nil)
		req.AddCookie(c)
		resp, body, err := g.do(req)
		if err != nil || body != first || len(resp.Cookies()) != 0 {
			t.Fatalf("got %q %v with %v", body, err, resp.Cookies())
		}
	}
	req := g.request("GET", "/", nil)
	req.AddCookie(&http.Cookie{Name: "at", Value: "gone"})
	if resp, _, err := g.do(req); err != nil || len(resp.Cookies()) != 1 {
		t.Errorf("a client of a gone instance is not moved: %v %v", resp, err)
	}
	secure := stickyCookie(g.service.Sticky, &http.Request{TLS: &tls.ConnectionState{}}, g.service.All.Endpoints[0])
	if !secure.Secure {
		t.Error("a cookie over TLS is not Secure")
	}
}

// exhausted is an engine for which this host has no more of something.
type exhausted struct{ err error }

func (e exhausted) RoundTrip(_ *http.Request, trip *Trip) (*http.Response, error) {
	trip.Asked()
	return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", e.err)}
}
func (exhausted) Leave(string)                                 {}
func (exhausted) Connections(string) (open, idle int, ok bool) { return 0, 0, false }
func (exhausted) CloseIdle()                                   {}

func TestP12WhatThisHostLacksIsNoFaultOfTheInstance(t *testing.T) {
	for _, lack := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS} {
		g := newRig(t, refused(t), refused(t))
		f, err := New(Config{NewEngine: func(routing.Upstream) (Engine, error) { return exhausted{lack}, nil }}, slog.New(slog.DiscardHandler), g.obs)
		if err != nil {
			t.Fatal(err)
		}
		g.f = f
		g.serve()
		resp, body := g.mustGet("/")
		if resp.StatusCode != http.StatusServiceUnavailable || body != string(routing.CodeOverloaded) || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%v: got %d %q", lack, resp.StatusCode, body)
		}
		if x := g.exchange(); x.Attempts != 1 || g.obs.of("neutral") != 1 {
			t.Errorf("%v: %d attempts, results %v", lack, x.Attempts, g.obs.n)
		}
		for _, e := range g.service.All.Endpoints {
			if state, reason, _ := e.Status(); state != balance.Healthy {
				t.Errorf("%v: %s is %s: %s", lack, e.ID(), state, reason)
			}
		}
	}
}
