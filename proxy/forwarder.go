package proxy

import (
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// Config is what the forwarder can be told.
type Config struct {
	// NewEngine makes the client for one upstream; nil is NewEngine.
	NewEngine func(routing.Upstream) (Engine, error)
}

// Observer counts what happens on the way. Its methods are called on the
// request path from many goroutines and do not block. Labels are from fixed
// sets: result is one of success, server_error, unreachable, broken,
// timed_out and neutral; reason is connect, reset, timeout, a status code or
// hedge.
type Observer interface {
	// UpstreamResult counts one attempt.
	UpstreamResult(service, result string)
	// Retry counts one attempt that followed another for the same request.
	Retry(service, reason string)
	// Tunnels adds delta to the number of open upgraded connections.
	Tunnels(service string, delta int)
}

// Forwarder forwards requests. Safe for concurrent use.
type Forwarder struct {
	log     *slog.Logger
	obs     Observer
	engines *engines
	tunnels tunnels
	calls   sync.Pool
	port    atomic.Pointer[portText]
}

// New makes a forwarder. obs may be nil.
func New(cfg Config, log *slog.Logger, obs Observer) (*Forwarder, error) {
	if log == nil {
		return nil, errors.New("make forwarder: a logger is needed")
	}
	if cfg.NewEngine == nil {
		cfg.NewEngine = NewEngine
	}
	if obs == nil {
		obs = noObserver{}
	}
	f := &Forwarder{log: log, obs: obs, engines: newEngines(cfg.NewEngine)}
	f.calls.New = func() any { return &call{header: http.Header{}} }
	return f, nil
}

// Forward sends r to an instance of x.Match.Service and streams the response
// to w. It returns nil when a response went out, and otherwise the refusal
// that the caller shall answer with; nothing was written then, except
// informational responses. It panics with http.ErrAbortHandler when the
// response had to be cut short (x.Aborted says why).
//
// x.Match must name a Route and its Service, and r must have been through the
// edge: see StripHopByHop. r is not changed.
func (f *Forwarder) Forward(w http.ResponseWriter, r *http.Request, x *routing.Exchange) *routing.Refusal {
	c, refusal := f.newCall(w, r, x)
	if refusal != nil {
		return refusal
	}
	returned := false
	defer func() { c.end(returned) }()
	refusal = c.run()
	returned = true
	return refusal
}

// Swapped makes the engines that services of t need, and lets go of the
// connections of those that none needs and of instances that are in old, the
// table before or nil, and not in t any more. Call it after t was swapped in.
func (f *Forwarder) Swapped(old, t *routing.Table) {
	seen := map[routing.Upstream]bool{}
	var inUse []routing.Upstream
	for _, s := range t.Services() {
		if !seen[s.Upstream] {
			seen[s.Upstream] = true
			inUse = append(inUse, s.Upstream)
		}
	}
	for _, err := range f.engines.retain(inUse) {
		f.log.Error("upstream cannot be spoken to", "error", err)
	}
	if old == nil {
		return
	}
	for _, was := range old.Services() {
		if is := t.Service(was.Name); is != was {
			f.engines.leave(was.Upstream, departed(was, is))
		}
	}
}

// Connections is how many connections to the instance at address there are,
// and how many of them are idle; ok is false where the client of u does not
// tell.
func (f *Forwarder) Connections(u routing.Upstream, address string) (open, idle int, ok bool) {
	s := (*f.engines.byUp.Load())[u]
	if s == nil || s.engine == nil {
		return 0, 0, false
	}
	return s.engine.Connections(address)
}

// departed lists the addresses that is, which may be nil, has no connections
// to of those that was had.
func departed(was, is *routing.Service) []string {
	stays := map[*balance.Endpoint]bool{}
	if is != nil && is.Upstream == was.Upstream {
		for _, e := range is.All.Endpoints {
			stays[e] = true
		}
	}
	var out []string
	for _, e := range was.All.Endpoints {
		if !stays[e] {
			out = append(out, e.Address())
		}
	}
	return out
}

// CloseTunnels ends every upgraded connection, with WebSocket status 1001
// (going away) where the stream stands between two frames. It returns how
// many there were, without waiting for their handlers.
func (f *Forwarder) CloseTunnels() int { return f.tunnels.closeAll() }

// Close closes every tunnel and every idle connection. Requests under way are
// not disturbed.
func (f *Forwarder) Close() {
	f.tunnels.closeAll()
	f.engines.retain(nil)
}

type noObserver struct{}

func (noObserver) UpstreamResult(string, string) {}
func (noObserver) Retry(string, string)          {}
func (noObserver) Tunnels(string, int)           {}
