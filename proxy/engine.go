package proxy

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/proxy/wire"
	"github.com/sluice-gateway/sluice/routing"
)

// Engine is an HTTP client for the instances of upstreams with equal
// settings. Safe for concurrent use.
type Engine interface {
	// RoundTrip sends req to req.URL.Host and returns the response head with
	// its body still to be read. It follows no redirect, decodes nothing and
	// invents no header. The context of req bounds the exchange until the
	// body is closed. trip is filled in on the way.
	//
	// After a 101 response Body is an io.ReadWriteCloser over the raw
	// connection, with CloseWrite() error where the transport can half-close.
	RoundTrip(req *http.Request, trip *Trip) (*http.Response, error)
	// Leave says that there is no instance at address any more: what is kept
	// for it is let go, as far as the client can do that for one address.
	Leave(address string)
	// Connections is how many connections to address there are and how many of
	// them are idle; ok is false where the client does not tell.
	Connections(address string) (open, idle int, ok bool)
	// CloseIdle closes connections that no request uses.
	CloseIdle()
}

// QuickEngine is an Engine that takes quick trips: see Trip.Quick.
type QuickEngine interface {
	Engine
	// Quick does nothing; it is the word of an engine that means it.
	Quick()
}

// Trip is how far one round trip came. The engine sets it, from any
// goroutine; the forwarder reads it after RoundTrip returned.
type Trip struct {
	// call takes informational responses; nil for none.
	call  *call
	quick bool
	// replay: the request may be sent again over a fresh connection where one
	// that had been idle ends without an answer.
	replay bool
	fresh  bool
	room   wire.Room
	state  atomic.Uint32
}

// How far a trip came.
const (
	tripAsked     = 1 << iota // the request was well formed and a connection was asked for
	tripConnected             // a connection was had
	tripReused                // it had served another request before
	tripWrote                 // something of the request may have been sent
	tripAnswered              // the first byte of an answer came
)

// Asked records that a connection is being looked for. It clears what an
// earlier one came to: an engine that asks again for the same request knows
// that it may.
func (t *Trip) Asked() { t.state.Store(tripAsked) }

// Connected records that the request has a connection and whether that had
// been used before.
func (t *Trip) Connected(reused bool) {
	s := uint32(tripAsked | tripConnected)
	if reused {
		s |= tripReused
	}
	t.state.Store(s)
}

// Wrote records that something of the request may have left.
func (t *Trip) Wrote() { t.state.Or(tripWrote) }

// Answered records the first byte of an answer.
func (t *Trip) Answered() { t.state.Or(tripAnswered) }

// Informed hands an informational response over.
func (t *Trip) Informed(code int, header http.Header) error {
	if t.call == nil {
		return nil
	}
	return t.call.inform(code, header)
}

// Quick reports whether the request's context ends only when the client
// leaves. Whoever has to wait asks Watch for the one that bounds the round
// trip.
func (t *Trip) Quick() bool { return t.quick }

// Watch returns the context that bounds a quick round trip. It is for the
// goroutine of the request.
func (t *Trip) Watch() context.Context { return t.call.watch() }

// Fresh asks for a connection that has not served yet.
func (t *Trip) Fresh() bool { return t.fresh }

// Room is the memory of the exchange.
func (t *Trip) Room() *wire.Room { return &t.room }

func (t *Trip) is(s uint32) bool { return t.state.Load()&s != 0 }

// engineRetry is how long an engine that could not be made is not tried again.
const engineRetry = time.Second

// engines owns the engine of each upstream. Looking one up takes no lock.
type engines struct {
	make func(routing.Upstream) (Engine, error)
	byUp atomic.Pointer[map[routing.Upstream]*engineSlot]

	mu sync.Mutex // serialises changes of byUp
}

// engineSlot is an engine, or why there is none and since when.
type engineSlot struct {
	engine Engine
	err    error
	at     time.Time
}

func newEngines(mk func(routing.Upstream) (Engine, error)) *engines {
	e := &engines{make: mk}
	e.byUp.Store(&map[routing.Upstream]*engineSlot{})
	return e
}

// get returns the engine for u, made when first asked for.
func (e *engines) get(u routing.Upstream) (Engine, error) {
	if s := (*e.byUp.Load())[u]; s.usable() {
		return s.engine, s.err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := (*e.byUp.Load())[u]; s.usable() {
		return s.engine, s.err
	}
	next := maps.Clone(*e.byUp.Load())
	s := e.slot(u)
	next[u] = s
	e.byUp.Store(&next)
	return s.engine, s.err
}

func (s *engineSlot) usable() bool {
	return s != nil && (s.err == nil || time.Since(s.at) < engineRetry)
}

func (e *engines) slot(u routing.Upstream) *engineSlot {
	engine, err := e.make(u)
	if err != nil {
		err = fmt.Errorf("make %s client: %w", u.Protocol, err)
	}
	return &engineSlot{engine: engine, err: err, at: time.Now()}
}

// retain keeps exactly the engines of inUse and returns the errors of those
// that could not be made.
func (e *engines) retain(inUse []routing.Upstream) []error {
	e.mu.Lock()
	defer e.mu.Unlock()
	old := *e.byUp.Load()
	next := make(map[routing.Upstream]*engineSlot, len(inUse))
	var errs []error
	for _, u := range inUse {
		if _, ok := next[u]; ok {
			continue
		}
		s := old[u]
		if s == nil || s.err != nil {
			s = e.slot(u)
		}
		if s.err != nil {
			errs = append(errs, s.err)
		}
		next[u] = s
	}
	e.byUp.Store(&next)
	for u, s := range old {
		if s.engine != nil && !slices.Contains(inUse, u) {
			s.engine.CloseIdle()
		}
	}
	return errs
}

// leave tells the engine of u, if there is one, which instances have left.
// Where another service has the same instance, a connection is made anew.
func (e *engines) leave(u routing.Upstream, addresses []string) {
	s := (*e.byUp.Load())[u]
	if s == nil || s.engine == nil {
		return
	}
	for _, a := range addresses {
		s.engine.Leave(a)
	}
}
