package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

const (
	// retryAfter goes out with refusals that a moment's wait may cure.
	retryAfter = time.Second
	// linger is how long a client may go on sending a body that nobody wants
	// any more, so that it finds the answer and not a reset.
	linger = 500 * time.Millisecond
)

// call is one request on its way. The goroutine of the request owns it;
// attempts in the background touch only what is said to be shared.
type call struct {
	f      *Forwarder
	w      http.ResponseWriter
	client http.ResponseController
	r      *http.Request
	x      *routing.Exchange
	svc    *routing.Service
	subset *routing.Subset
	split  *http.Cookie // from the choice of subset
	engine Engine

	// ctx and cancel are made by watch; nil while nobody had to wait.
	ctx      context.Context
	cancel   context.CancelCauseFunc
	deadline deadline
	body     *requestBody // nil: no body

	header  http.Header // towards the instance
	own     fields      // what the gateway says in it
	target  url.URL
	upgrade bool
	// idempotent requests may run twice.
	idempotent bool

	query balance.Query
	retry int // further attempts left
	// fresh: a kept connection was stale, and others may be.
	fresh bool
	first attempt

	informing sync.Mutex
	answered  bool // under informing: no informational response any more
}

// newCall prepares everything that does not depend on the instance.
func (f *Forwarder) newCall(w http.ResponseWriter, r *http.Request, x *routing.Exchange) (*call, *routing.Refusal) {
	svc := x.Match.Service
	c := f.calls.Get().(*call)
	c.f, c.w, c.r, c.x, c.svc = f, w, r, x, svc
	c.client = *http.NewResponseController(w)
	if refusal := c.outgoing(); refusal != nil {
		return nil, refusal
	}
	var err error
	if c.engine, err = f.engines.get(svc.Upstream); err != nil {
		return nil, &routing.Refusal{
			Code: routing.CodeUpstreamUnreachable, Detail: "The service cannot be spoken to.", Cause: err,
		}
	}
	c.subset, c.split = svc.Choose(r, x)
	x.Subset = c.subset.Name
	c.query = balance.Query{Hash: hashFor(svc.Hash, r, x), Prefer: preferred(svc.Sticky, r, c.subset)}

	c.idempotent = idempotent(r)
	c.retry = x.Match.Route.Retries
	if c.retry < 0 {
		c.retry = svc.Retry.Attempts
	}
	if c.upgrade {
		c.retry = 0
	}
	c.bound()
	return c, nil
}

// bound sets the deadline and takes the body over.
//
// A gRPC call may be a stream, which nothing in its head tells: while the
// client is still sending, only silence bounds it; once it has sent all, the
// route's timeout bounds the wait for the response's head; after that silence
// again.
func (c *call) bound() {
	start := c.x.Start
	if start.IsZero() {
		start = time.Now()
	}
	c.deadline.base, c.deadline.client = start, &c.client
	timeout := c.x.Match.Route.Timeout
	var route, caller time.Time
	var idle time.Duration
	var onEnd func()
	hasBody := c.r.ContentLength != 0 && c.r.Body != nil && c.r.Body != http.NoBody && !c.upgrade
	if timeout > 0 {
		route = start.Add(timeout)
	}
	if c.x.GRPC {
		if d, ok := grpcTimeout(c.r.Header); ok {
			caller = start.Add(d)
		}
		if hasBody {
			route, idle = time.Time{}, c.svc.Idle
			if timeout > 0 {
				onEnd = func() { c.deadline.limit(time.Now().Add(timeout)) }
			}
		}
	}
	if hasBody {
		c.body = newRequestBody(&watched{c.r.Body, &c.deadline}, c.r.ContentLength, c.retry > 0, onEnd)
		c.deadline.body = c.body
		if c.r.ProtoMajor == 1 {
			// Without it the server reads the rest of the body before it lets
			// a response out. Writers that cannot do it are those of tests.
			_ = c.client.EnableFullDuplex()
		}
	}
	c.deadline.set(route, caller, idle)
}

// watch returns the context that bounds the call: it ends when the client
// leaves, when the deadline passes and when the call is over. Whoever is about
// to wait asks for it. Most calls are answered before anybody has to, and a
// context and a timer that nobody needed would be a good part of what they
// cost.
func (c *call) watch() context.Context {
	if c.ctx == nil {
		c.ctx, c.cancel = context.WithCancelCause(c.r.Context())
		c.deadline.start(c.cancel)
	}
	return c.ctx
}

// cause is why a, or where that is nil the call, had to end; nil if it did not.
// An instance that was told the caller's deadline ends the call when it passes,
// perhaps a moment before the timer here: that is no fault of the instance.
func (c *call) cause(a *attempt) error {
	ctx := c.ctx
	if a != nil && a.ctx != nil {
		ctx = a.ctx
	}
	if ctx != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.deadline.callerOver() {
		return errClientDeadline
	}
	return nil
}

// end gives everything back; nothing of the call lives on after it but the
// loser of a hedge, which does not look back. returned says that the call came
// to its end in good order: one that nothing watched is known to nobody then,
// and serves again.
func (c *call) end(returned bool) {
	if c.ctx == nil && c.body == nil {
		if returned {
			c.recycle()
		}
		return
	}
	c.deadline.stop()
	c.informing.Lock()
	c.answered = true
	c.informing.Unlock()
	if c.cancel != nil {
		c.cancel(errOver)
	}
	c.body.halt()
	if !c.body.complete() && c.r.ProtoMajor == 1 {
		// A read may be waiting for the client; the server waits for the read.
		_ = c.client.SetReadDeadline(time.Now().Add(linger))
	}
}

// recycle makes c ready for another request.
func (c *call) recycle() {
	// Of the response's head only the values can still be looked at, by a
	// writer that has not sent it yet.
	sent, ok := c.w.(interface{ HeadCopied() bool })
	f, h, room := c.f, c.header, c.first.trip.room
	room.Reset(ok && sent.HeadCopied())
	clear(h)
	*c = call{header: h}
	c.first.trip.room = room
	f.calls.Put(c)
}

// idempotent reports whether r may be executed twice (RFC 9110 section 9.2.2,
// and the client's own word for it).
func idempotent(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return r.Header.Get("Idempotency-Key") != "" || r.Header.Get("X-Idempotency-Key") != ""
}

// run is the attempt loop.
func (c *call) run() *routing.Refusal {
	c.svc.Group.Begin()
	pick, err := c.pick()
	if err != nil {
		return refusePick(err)
	}
	a := c.try(pick, true)
	for {
		v := c.judge(a)
		next, ok := c.another(a, v)
		if !ok {
			return c.finish(a, v)
		}
		a = c.try(next, false)
	}
}

// pick takes an endpoint that was not tried.
func (c *call) pick() (balance.Pick, error) {
	if c.subset.Picker == nil {
		return balance.Pick{}, balance.ErrNoInstance
	}
	return c.subset.Picker.Pick(c.query)
}

// another decides whether a is followed by one more attempt and at which
// instance. A failed attempt is given back first, so that what it taught
// counts for the pick; one with a response is kept until there is a
// successor, as it is better than nothing.
func (c *call) another(a *attempt, v verdict) (next balance.Pick, ok bool) {
	if v.reason == "" || c.retry == 0 || !c.repeatable(a, v.stale) {
		return next, false
	}
	if a.resp == nil {
		a.finish(v.result)
	}
	// The budget bounds what retries add to the instances' load. A request that
	// reached none adds nothing: its connection was stale, or there was none.
	free := v.stale || v.result == balance.Unreachable
	if !free && !c.svc.Group.AllowRetry(c.svc.Retry.BudgetPercent) {
		return next, false
	}
	before := c.query.Tried
	c.query.Tried = append(before, a.pick.Endpoint)
	c.query.Prefer = ""
	next, err := c.pick()
	if v.stale && errors.Is(err, balance.ErrNoInstance) {
		c.query.Tried = before // the instance may well be fit, and is all there is
		next, err = c.pick()
	}
	if err != nil {
		return next, false
	}
	a.finish(v.result)
	c.fresh = c.fresh || v.stale
	c.retry--
	c.f.obs.Retry(c.svc.Name, v.reason)
	return next, true
}

// repeatable reports whether the request of a may be sent again: nothing of
// it can have arrived, or it may run twice, or the service takes a stale
// connection's end for the former; and its body is still there.
func (c *call) repeatable(a *attempt, stale bool) bool {
	if c.upgrade || c.r.Context().Err() != nil || c.cause(nil) != nil {
		return false
	}
	if a.resp != nil { // it may still be the one to deliver: leave it whole
		return c.idempotent && c.body.complete() && c.body.replayable()
	}
	a.detach()
	return (c.idempotent || !a.trip.is(tripWrote) || stale && c.svc.Retry.Replay) && c.body.replayable()
}

// finish ends the call with what its last attempt came to.
func (c *call) finish(a *attempt, v verdict) *routing.Refusal {
	if a.resp != nil {
		if a.resp.StatusCode == http.StatusSwitchingProtocols {
			return c.tunnel(a)
		}
		return c.respond(a)
	}
	a.finish(v.result)
	c.closeAfterReply()
	return v.refusal
}

// closeAfterReply tells an HTTP/1 client that sends a body nobody reads, or
// bytes that expected another protocol, to use a new connection.
func (c *call) closeAfterReply() {
	if c.r.ProtoMajor == 1 && (c.upgrade || !c.body.complete()) {
		c.w.Header().Set("Connection", "close")
	}
}

func refusePick(err error) *routing.Refusal {
	r := &routing.Refusal{RetryAfter: retryAfter, Cause: err}
	switch {
	case errors.Is(err, balance.ErrCircuitOpen):
		r.Code, r.Detail = routing.CodeCircuitOpen, "The service fails too often; it is given time to recover."
	case errors.Is(err, balance.ErrOverloaded):
		r.Code, r.Detail = routing.CodeOverloaded, "The service has as many requests as it can take."
	default:
		r.Code, r.Detail = routing.CodeNoHealthyInstance, "No instance of the service can serve right now."
	}
	return r
}
