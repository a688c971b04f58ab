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
	// Connections counts those to instances.
	Connections CountConnections
	Log         *slog.Logger
}

// Server answers on the admin listener.
type Server struct {
	cfg     Config
	deps    Deps
	mux     *http.ServeMux
	origins http.CrossOriginProtection // no origin is trusted
}

// page is one path of the listener, read by GET and HEAD. A path that ends in
// a slash stands for all below it.
type page struct {
	path string
	// open pages are read without the token: probes and scrapers have none.
	open  bool
	serve http.HandlerFunc
}

func (s *Server) pages() []page {
	return []page{
		{"/livez", true, s.livez},
		{"/readyz", true, s.readyz},
		{"/metrics", true, promhttp.HandlerFor(s.deps.Gatherer, promhttp.HandlerOpts{}).ServeHTTP},
		{"/api/v1/routes", false, s.routes},
		{"/api/v1/services", false, s.services},
		{"/api/v1/instances", false, s.instances},
		{"/api/v1/problems", false, s.problems},
		{"/api/v1/status", false, s.status},
		{"/api/v1/sources", false, s.sources},
		{"/api/v1/explain", false, s.explain},
		{"/api/v1/events", false, s.events},
		{"/api/v1/openapi.json", false, s.openapi},
		{"/debug/pprof/", false, pprof.Index},
		{"/debug/pprof/cmdline", false, pprof.Cmdline},
		{"/debug/pprof/profile", false, pprof.Profile},
		{"/debug/pprof/symbol", false, pprof.Symbol},
		{"/debug/pprof/trace", false, pprof.Trace},
	}
}

// New makes the handler of the admin listener.
func New(cfg Config, deps Deps) *Server {
	s := &Server{cfg: cfg, deps: deps, mux: http.NewServeMux()}
	for _, p := range s.pages() {
		if !p.open {
			p.serve = s.guarded(p.serve)
		}
		s.mux.HandleFunc("GET "+p.path, p.serve)
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, http.StatusNotFound, "route_not_found", "no such page: "+r.Method+" "+r.URL.Path)
	})
	return s
}

// ServeHTTP answers one request. A browser lends its place on this host to
// every page it shows: what such a page sends is refused before anything
// else, whether it comes by its own name (a rebound DNS answer) or by ours
// (another origin).
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	switch {
	case s.cfg.Token == "" && !hostAllowed(r.Host):
		writeProblem(w, http.StatusForbidden, "forbidden",
			"the Host of a request without admin.token must be a loopback address or localhost")
	case s.origins.Check(r) != nil:
		writeProblem(w, http.StatusForbidden, "forbidden", "requests of pages from elsewhere are refused")
	default:
		s.mux.ServeHTTP(w, r)
	}
}

// guarded serves h to those who have the token, if there is one.
func (s *Server) guarded(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Token != "" && !s.tokenRight(r.Header.Get("Authorization")) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="sluice admin"`)
			writeProblem(w, http.StatusUnauthorized, "unauthenticated", "the admin API wants Authorization: Bearer TOKEN")
			return
		}
		h(w, r)
	}
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
func hostAllowed(host string) bool {
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

func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	ok, reason := s.deps.Ready()
	if !ok {
		writeJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "reason": reason})
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}
