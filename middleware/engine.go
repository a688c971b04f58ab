package middleware

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/routing"
)

// Config is what the engine can be told. The zero value of a limit is "none".
type Config struct {
	// HealthPath is answered by the gateway itself, before matching; "" turns
	// it off.
	HealthPath string
	// TrustedProxies are the peers whose word about the client is taken:
	// X-Forwarded-*, Forwarded, X-Real-IP, X-Request-ID, traceparent. None by
	// default.
	TrustedProxies []netip.Prefix
	// IdentityHeaders are further headers that only the gateway may set
	// towards instances; whoever sends one, it is removed.
	IdentityHeaders []string
	// MaxHeaders bounds the header lines of one request.
	MaxHeaders int
	// MaxBodyBytes bounds the body of one request, however it is framed.
	MaxBodyBytes int64
	// BodyReadTimeout is how long a client may send nothing of a body that
	// the gateway is waiting for. gRPC streams are exempt: silence is their
	// right, and the service's idle timeout bounds them.
	BodyReadTimeout time.Duration
	// AltSvc tells clients of the TLS listener that HTTP/3 is spoken too, as
	// the value of Alt-Svc (RFC 7838); "" tells them nothing.
	AltSvc string
	// AccessLog writes one line per request.
	AccessLog bool
}

// DefaultConfig is the engine's configuration where nothing else is said.
func DefaultConfig() Config {
	return Config{HealthPath: "/health", MaxHeaders: 200, BodyReadTimeout: time.Minute, AccessLog: true}
}

// Tables gives the table in force. Table returns nil until the first one was
// built; the engine calls it once per request.
type Tables interface{ Table() *routing.Table }

// Forwarder takes a matched request to an instance and streams the answer to
// w. It returns a refusal only if it has written nothing; once the head is
// out it ends a response that it cannot complete with
// panic(http.ErrAbortHandler), having set x.Aborted.
//
// What is left of X-Forwarded-*, Forwarded, X-Real-IP, traceparent and
// tracestate in r.Header was sent by a trusted proxy. Errors of r.Body are the
// client's.
type Forwarder interface {
	Forward(w http.ResponseWriter, r *http.Request, x *routing.Exchange) *routing.Refusal
}

// Deps is what the engine works with.
type Deps struct {
	// Plugins are those that the tables were compiled with.
	Plugins    *Plugins
	Tables     Tables
	Forwarder  Forwarder
	Registerer prometheus.Registerer
	// Log takes the access log (level info) and the engine's own messages.
	Log *slog.Logger
}

// Engine is the handler of the proxy listeners. It is safe for concurrent use.
type Engine struct {
	cfg      Config
	deps     Deps
	gin      *gin.Engine
	scrub    *scrubber
	metrics  *metrics
	draining atomic.Bool
	states   sync.Pool
	altSvc   []string // the header's lines; nil for none
	// plugins and last are what follows match; see rest.
	plugins []*Plugin
	last    func(*Engine, *gin.Context, *state)
}

// New makes an engine. Every fault of cfg is in the error.
func New(cfg Config, deps Deps) (*Engine, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.TrustedProxies = unmapPrefixes(cfg.TrustedProxies)
	m, err := newMetrics(deps.Registerer, deps.Tables)
	if err != nil {
		return nil, fmt.Errorf("register the request metrics: %w", err)
	}
	e := &Engine{cfg: cfg, deps: deps, scrub: newScrubber(cfg.IdentityHeaders), metrics: m}
	if cfg.AltSvc != "" {
		e.altSvc = []string{cfg.AltSvc}
	}
	e.states.New = func() any { return new(state) }

	gin.SetMode(gin.ReleaseMode) // the debug mode prints to stdout
	e.gin = gin.New()
	// The engine decides by itself what Gin would guess: who the client is,
	// what a trailing slash means, which methods exist.
	e.gin.ForwardedByClientIP = false
	e.gin.RedirectTrailingSlash = false
	e.gin.RedirectFixedPath = false
	e.gin.HandleMethodNotAllowed = false
	if err := e.gin.SetTrustedProxies(nil); err != nil {
		return nil, fmt.Errorf("turn off Gin's trusted proxies: %w", err)
	}
	var use, noRoute []gin.HandlerFunc
	steps := deps.Plugins.steps
	for i, s := range steps {
		switch {
		case s.plugin != nil:
			e.plugins = append(e.plugins, s.plugin)
		case i == len(steps)-1:
			e.last = s.run
		case s.always:
			use = append(use, e.fixed(s.run))
		default:
			noRoute = append(noRoute, e.fixed(s.run))
		}
	}
	for range len(e.plugins) + 1 {
		noRoute = append(noRoute, e.fixed((*Engine).rest))
	}
	e.gin.Use(use...)
	e.gin.NoRoute(noRoute...)
	return e, nil
}

func (c Config) validate() error {
	var errs []error
	if c.HealthPath != "" && !strings.HasPrefix(c.HealthPath, "/") {
		errs = append(errs, errors.New(`health_path: must begin with "/", or be empty to turn it off`))
	}
	for i, p := range c.TrustedProxies {
		if !p.IsValid() {
			errs = append(errs, fmt.Errorf("trusted_proxies[%d]: must be an address range such as 10.0.0.0/8", i))
		}
	}
	for i, h := range c.IdentityHeaders {
		if !validHeaderName(h) {
			errs = append(errs, fmt.Errorf("identity_headers[%d]: must be a header name such as X-User-ID", i))
		}
	}
	for _, l := range []struct {
		key string
		bad bool
	}{
		{"limits.max_headers", c.MaxHeaders < 0},
		{"limits.max_body_bytes", c.MaxBodyBytes < 0},
		{"limits.body_read_timeout", c.BodyReadTimeout < 0},
	} {
		if l.bad {
			errs = append(errs, errors.New(l.key+": must not be negative; 0 is no limit"))
		}
	}
	return errors.Join(errs...)
}

// Drain makes the engine ask its clients to go elsewhere: every response from
// now on ends its connection (HTTP/1.1 Connection: close, HTTP/2 GOAWAY),
// HTTP/3, whose GOAWAY is the server's Shutdown, is announced no more, and the
// health path answers 503. Requests are served all the same. Call it some
// time before the server's Shutdown, so that no client sends a request into a
// connection that is being closed.
func (e *Engine) Drain() { e.draining.Store(true) }

// ServeHTTP walks r through the steps.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	st := e.states.Get().(*state)
	st.begin(e, w, r)
	defer st.end() // also when the walk ends in a panic
	e.gin.ServeHTTP(&st.w, r)
}

// state is everything the engine holds for one request. It is reused.
type state struct {
	engine *Engine
	r      *http.Request
	x      routing.Exchange
	w      response
	// body is nil for requests without one. It is not reused: a transport may
	// hold on to it after the request ended.
	body  *guardedBody
	meter *meter
	path  routing.Path
	// ask and id are what would otherwise be made for each request.
	ask  routing.Request
	id   [1]string
	line [20]slog.Attr
	// cookies are the gateway's own, taken out of the request.
	cookies []cookie
	// slot is the next plugin's.
	slot int
	// trusted says that the peer is one of trusted_proxies.
	trusted bool
	// forwarded says that the forwarder had the request, and so the body.
	forwarded bool
	// closing says that the connection must not carry another request.
	closing bool
	// quiet keeps health probes out of the access log.
	quiet bool
	// bot is what bot_guard did about a suspect, botScore its score; "" where
	// it did nothing.
	bot      string
	botScore int
	// returned says that the walk came back without a panic.
	returned bool
}

func (st *state) begin(e *Engine, w http.ResponseWriter, r *http.Request) {
	st.engine, st.r = e, r
	st.w.rw, st.w.st = w, st
	st.x.Start = time.Now()
}

// end gives back what the request held. After a panic the state is left to
// the garbage collector: somebody may still be unwinding with it.
func (st *state) end() {
	if st.body != nil {
		st.body.end()
		// net/http looks at the body it made to decide whether the connection
		// can be used again.
		st.r.Body = st.body.rc
	}
	if !st.returned {
		return
	}
	e := st.engine
	*st = state{}
	e.states.Put(st)
}

// fixed makes a Gin handler of a step that every request takes.
func (e *Engine) fixed(run func(*Engine, *gin.Context, *state)) gin.HandlerFunc {
	return func(c *gin.Context) { run(e, c, stateOf(c)) }
}

// rest runs the plugins that the route configures, from the first that has
// not had its turn, and then the forwarder. One Gin handler does for all of
// them: a handler each would cost twenty absent plugins some 400 ns a request,
// this loop some 20. It is registered once more for every plugin, so that
// c.Next, called by one that acts around the walk, finds the rest of it.
func (e *Engine) rest(c *gin.Context, st *state) {
	configs := st.x.Match.Route.Plugins
	for st.slot < len(configs) {
		slot := st.slot
		st.slot++
		if config := configs[slot]; config != nil {
			e.plugins[slot].handle(c, &st.x, config)
			if c.IsAborted() { // it answered, or the rest ran inside it
				return
			}
		}
	}
	e.last(e, c, st)
	c.Abort()
}

// stateOf finds the request's state behind the writer that Gin was given,
// through whatever plugins have wrapped around it. gin.Context.Keys would
// cost a map for each request.
func stateOf(c *gin.Context) *state {
	var w http.ResponseWriter = c.Writer
	for {
		if own, ok := w.(*response); ok {
			return own.st
		}
		w = w.(interface{ Unwrap() http.ResponseWriter }).Unwrap()
	}
}

func validHeaderName(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		if !isToken(s[i]) {
			return false
		}
	}
	return true
}

// isToken says whether c may stand in a token (RFC 9110 section 5.6.2).
func isToken(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// canonical is the form in which net/http keeps header names.
func canonical(name string) string { return textproto.CanonicalMIMEHeaderKey(name) }
