package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// Config is what the admin listener is told.
type Config struct {
	// Listen is host:port; Token, where set, is asked for as
	// "Authorization: Bearer TOKEN".
	Listen string
	Token  string
	// Gateway and Address name this gateway in status.
	Gateway, Address string
}

// Deps is what the admin listener reads. All of it is safe for concurrent use.
type Deps struct {
	Tables interface{ Table() *routing.Table }
	Hub    *discovery.Hub
	Pool   *balance.Pool
	// Ready says whether traffic may come, and if not why.
	Ready    func() (ok bool, reason string)
	Gatherer prometheus.Gatherer
	Plugins  routing.Plugins
	Events   *Events
	Log      *slog.Logger
}

// Server answers on the admin listener.
type Server struct {
	cfg  Config
	deps Deps
	mux  *http.ServeMux
}

// New makes the handler of the admin listener.
func New(cfg Config, deps Deps) *Server {
	s := &Server{cfg: cfg, deps: deps, mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	s.mux.HandleFunc("GET /readyz", s.readyz)
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(deps.Gatherer, promhttp.HandlerOpts{}))
	s.guarded("GET /api/v1/routes", s.routes)
	s.guarded("GET /api/v1/services", s.services)
	s.guarded("GET /api/v1/instances", s.instances)
	s.guarded("GET /api/v1/problems", s.problems)
	s.guarded("GET /api/v1/status", s.status)
	s.guarded("GET /api/v1/sources", s.sources)
	s.guarded("GET /api/v1/explain", s.explain)
	s.guarded("GET /api/v1/events", s.events)
	s.guarded("GET /api/v1/openapi.json", s.openapi)
	s.guarded("GET /debug/pprof/", pprof.Index)
	s.guarded("GET /debug/pprof/cmdline", pprof.Cmdline)
	s.guarded("GET /debug/pprof/profile", pprof.Profile)
	s.guarded("GET /debug/pprof/symbol", pprof.Symbol)
	s.guarded("GET /debug/pprof/trace", pprof.Trace)
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, http.StatusNotFound, "route_not_found", "no such page: "+r.Method+" "+r.URL.Path)
	})
	return s
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	s.mux.ServeHTTP(w, r)
}

// guarded serves pattern to those who may ask.
func (s *Server) guarded(pattern string, h http.HandlerFunc) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.cfg.Token == "" && !s.hostAllowed(r.Host):
			writeProblem(w, http.StatusForbidden, "forbidden",
				"the Host of a request without admin.token must be a loopback address or localhost")
		case s.cfg.Token != "" && !s.tokenRight(r.Header.Get("Authorization")):
			w.Header().Set("WWW-Authenticate", `Bearer realm="sluice admin"`)
			writeProblem(w, http.StatusUnauthorized, "unauthenticated", "the admin API wants Authorization: Bearer TOKEN")
		default:
			h(w, r)
		}
	})
}

// tokenRight compares digests, so that neither content nor length of the
// token shows in the time it takes.
func (s *Server) tokenRight(header string) bool {
	scheme, token, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	want, got := sha256.Sum256([]byte(s.cfg.Token)), sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1
}

// hostAllowed refuses names that only a rebound DNS answer could have
// brought here.
func (s *Server) hostAllowed(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	ok, reason := s.deps.Ready()
	if !ok {
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "reason": reason})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}
