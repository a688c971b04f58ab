package healthcheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// ask runs one check of t.
func ask(t *testing.T, target Target) error {
	t.Helper()
	target.Spec = target.Spec.withDefaults()
	p, err := newProbe(target)
	if err != nil {
		t.Fatalf("probe: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return p(ctx)
}

// wants compares an error with the part of its text that matters; "" is nil.
func wants(t *testing.T, err error, part string) {
	t.Helper()
	switch {
	case part == "" && err != nil:
		t.Errorf("got %v, want a pass", err)
	case part != "" && (err == nil || !strings.Contains(err.Error(), part)):
		t.Errorf("got %v, want an error with %q", err, part)
	}
}

// trust is a TLS configuration that trusts the server's certificate.
func trust(s *httptest.Server) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{RootCAs: pool}
}

// serve starts an HTTP server that speaks a protocol.
func serve(t *testing.T, protocol string, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	switch protocol {
	case protocolH2C:
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
	case protocolHTTPS:
		s.EnableHTTP2 = true
		s.StartTLS()
	default:
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func address(s *httptest.Server) string { return s.Listener.Addr().String() }

func TestHTTPCheckByStatus(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			w.WriteHeader(http.StatusNoContent)
		case "/moved":
			http.Redirect(w, r, "/broken", http.StatusFound)
		case "/host":
			if r.Host != "orders.internal" {
				w.WriteHeader(http.StatusMisdirectedRequest)
			}
		case "/query":
			if r.URL.RawQuery != "deep=1" {
				w.WriteHeader(http.StatusBadRequest)
			}
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	tests := map[string]struct{ path, err string }{
		"2xx passes":                       {"/ok", ""},
		"3xx passes and is not followed":   {"/moved", ""},
		"5xx fails with the path":          {"/broken", "GET /broken: status 503"},
		"the Host header is the target's":  {"/host", ""},
		"a query is sent":                  {"/query?deep=1", ""},
		"a path without slash is made one": {"ok", ""},
	}
	for _, protocol := range []string{"", protocolHTTPS, protocolH2C} {
		s := serve(t, protocol, handler)
		for name, tt := range tests {
			t.Run(protocol+" "+name, func(t *testing.T) {
				target := Target{
					Endpoint: endpoint("a", address(s)), Protocol: protocol,
					Spec: Spec{Path: tt.path}, Host: "orders.internal",
				}
				if protocol == protocolHTTPS {
					target.TLS = trust(s)
				}
				wants(t, ask(t, target), tt.err)
			})
		}
	}
}

func TestRow86ChecksDoNotFollowRedirectsAndStayAtTheirAddress(t *testing.T) {
	var reached atomic.Int32
	metadata := serve(t, "", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	evil := serve(t, "", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, metadata.URL+"/latest/meta-data", http.StatusTemporaryRedirect)
	}))
	paths := []string{"/", "//" + address(metadata) + "/latest", metadata.URL + "/latest", "@" + address(metadata)}
	for _, path := range paths {
		wants(t, ask(t, Target{Endpoint: endpoint("a", address(evil)), Spec: Spec{Path: path}}), "")
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d checks reached an address that is not the instance's", n)
	}
}

func TestCheckIgnoresProxySettings(t *testing.T) {
	if proxy := newTransport(Target{}).Proxy; proxy != nil {
		t.Error("checks would go through the proxy of the environment")
	}
}

func TestHTTPSCheckVerifiesTheCertificate(t *testing.T) {
	s := serve(t, protocolHTTPS, http.NotFoundHandler())
	s.Config.ErrorLog = nil
	wants(t, ask(t, Target{Endpoint: endpoint("a", address(s)), Protocol: protocolHTTPS}), "certificate")
	named := trust(s)
	named.ServerName = "other.test"
	wants(t, ask(t, Target{Endpoint: endpoint("a", address(s)), Protocol: protocolHTTPS, TLS: named}), "other.test")
}

func TestAnyCheckFailsWhereNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := l.Addr().String()
	l.Close()
	for _, kind := range []string{HTTP, TCP, GRPC} {
		wants(t, ask(t, Target{Endpoint: endpoint("a", free), Spec: Spec{Type: kind}}), "refused")
	}
}

func TestTCPCheckPassesOnAConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	wants(t, ask(t, Target{Endpoint: endpoint("a", l.Addr().String()), Spec: Spec{Type: TCP}}), "")
}

func TestGRPCCheckAsksTheHealthService(t *testing.T) {
	tests := map[string]struct{ path, err string }{
		"the server as a whole serves":       {"", ""},
		"a slash is the server as a whole":   {"/", ""},
		"a service that serves":              {"orders.v1.Orders", ""},
		"a service that does not":            {"/users.v1.Users", "NOT_SERVING"},
		"a service it does not know":         {"ghost", `grpc-status "5"`},
		"a name of more than 127 bytes fits": {strings.Repeat("n", 300), `grpc-status "5"`},
	}
	certificate := serve(t, protocolHTTPS, http.NotFoundHandler()) // lends its key
	for _, protocol := range []string{protocolGRPC, protocolGRPCS} {
		var options []grpc.ServerOption
		if protocol == protocolGRPCS {
			options = append(options, grpc.Creds(credentials.NewTLS(&tls.Config{
				Certificates: certificate.TLS.Certificates, NextProtos: []string{"h2"},
			})))
		}
		server := grpc.NewServer(options...)
		state := health.NewServer()
		state.SetServingStatus("orders.v1.Orders", healthpb.HealthCheckResponse_SERVING)
		state.SetServingStatus("users.v1.Users", healthpb.HealthCheckResponse_NOT_SERVING)
		healthpb.RegisterHealthServer(server, state)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(server.Stop)
		for name, tt := range tests {
			t.Run(protocol+" "+name, func(t *testing.T) {
				target := Target{Endpoint: endpoint("a", l.Addr().String()), Protocol: protocol, Spec: Spec{Type: GRPC, Path: tt.path}}
				if protocol == protocolGRPCS {
					target.TLS = trust(certificate)
				}
				wants(t, ask(t, target), tt.err)
			})
		}
	}
}

func TestGRPCCheckOfAServerThatIsNone(t *testing.T) {
	s := serve(t, protocolH2C, http.NotFoundHandler())
	wants(t, ask(t, Target{Endpoint: endpoint("a", address(s)), Spec: Spec{Type: GRPC}}), "status 404")
}

func TestUnknownTypeNamesTheKnownOnes(t *testing.T) {
	_, err := newProbe(Target{Endpoint: endpoint("a", "10.0.0.1:80"), Spec: Spec{Type: "icmp"}})
	wants(t, err, `health_check.type is "icmp"; http, tcp and grpc are known`)
}

func TestARealInstanceGoesDownAndComesBack(t *testing.T) {
	var down atomic.Bool
	s := serve(t, "", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	c, stop := scripted(t, nil)
	c.probe = newProbe
	defer stop()
	e := endpoint("a", address(s))
	c.Update([]Target{{Endpoint: e, Spec: Spec{Interval: 5 * time.Millisecond, UnhealthyAfter: 2}}})
	until := func(want [2]string) {
		t.Helper()
		testenv.Eventually(t, 10*time.Second, strings.Join(want[:], ": "), func() bool { return status(e) == want })
	}
	down.Store(true)
	until([2]string{"unhealthy", "GET /: status 500"})
	down.Store(false)
	until(wellStatus)
}
