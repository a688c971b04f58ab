package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/proxy/wire"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// attempt is one round trip to one instance.
type attempt struct {
	pick    balance.Pick
	service string
	obs     Observer

	ctx    context.Context         // nil: the call's, if somebody has to wait
	cancel context.CancelCauseFunc // nil where the call's context serves
	view   *bodyView               // nil: no body
	trip   Trip

	req  *http.Request
	room struct { // for req, where nobody else will see it
		req http.Request
		url url.URL
	}
	resp *http.Response // with err == nil
	err  error

	finished bool
}

// try makes one attempt at pick and waits for the response's head.
func (c *call) try(pick balance.Pick, first bool) *attempt {
	if first && c.hedgeable() {
		return c.hedge(pick)
	}
	a := c.attempt(pick, false)
	a.trip.call = c
	a.send(c.engine, c.svc.Retry.PerTry)
	return a
}

// attempt makes the request for pick; nothing is sent yet. own asks for a
// context of its own, so that it can be cancelled alone.
func (c *call) attempt(pick balance.Pick, own bool) *attempt {
	c.x.Attempts++
	c.x.Instance = pick.Endpoint.ID()
	a := &c.first
	if c.x.Attempts > 1 || own {
		a = new(attempt)
	}
	a.pick, a.service, a.obs = pick, c.svc.Name, c.f.obs
	a.trip.fresh = c.fresh
	a.trip.replay = c.idempotent || c.svc.Retry.Replay && !c.upgrade
	switch {
	case own || c.svc.Retry.PerTry > 0 && !c.upgrade:
		a.ctx, a.cancel = context.WithCancelCause(c.watch())
	case c.quick():
		a.trip.quick = true
	default:
		a.ctx = c.watch()
	}
	c.request(a)
	return a
}

// quick reports whether an attempt may begin unwatched: with the engine that
// asks for the context itself once it has to wait, and nothing that would make
// somebody else wait. A timeout that is about to pass is not noticed late.
func (c *call) quick() bool {
	_, ok := c.engine.(QuickEngine)
	timeout := c.x.Match.Route.Timeout
	return ok && c.ctx == nil && c.body == nil && !c.upgrade && !c.x.GRPC && (timeout == 0 || timeout > 4*wire.Patience)
}

// send runs the round trip. It touches nothing of the call.
func (a *attempt) send(engine Engine, perTry time.Duration) {
	if perTry > 0 && a.cancel != nil {
		stop := a.limit(perTry)
		defer stop() // the response's body may take as long as the route allows
	}
	a.resp, a.err = engine.RoundTrip(a.req, &a.trip)
	if a.err != nil {
		a.resp = nil
	} else if refuse := unusable(a.req, a.resp); refuse != nil {
		a.resp.Body.Close()
		a.resp, a.err = nil, refuse
	}
}

// limit ends the attempt after d of waiting for the instance.
func (a *attempt) limit(d time.Duration) (stop func() bool) {
	var timer *time.Timer
	armed := make(chan struct{})
	timer = time.AfterFunc(d, func() {
		<-armed
		if a.view.closeUnlessWaiting() {
			a.cancel(errPerTry)
			return
		}
		timer.Reset(d)
	})
	close(armed)
	return timer.Stop
}

// unusable says why a response cannot be passed on.
func unusable(req *http.Request, resp *http.Response) error {
	if resp.StatusCode >= 200 {
		return nil
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return errors.New("the instance answered with status " + strconv.Itoa(resp.StatusCode))
	}
	if req.Header["Upgrade"] == nil {
		return errors.New("the instance switched protocols unasked")
	}
	if !isWebSocket(resp.Header) {
		return errors.New("the instance switched to another protocol than asked for")
	}
	if _, ok := resp.Body.(io.ReadWriteCloser); !ok {
		return errors.New("the connection cannot be taken over")
	}
	return nil
}

// detach stops the attempt's reading of the client's body.
func (a *attempt) detach() {
	if a.view != nil {
		a.view.Close()
	}
}

// finish gives the attempt back with what it says of its instance. Only the
// first call counts.
func (a *attempt) finish(r balance.Result) {
	if a.finished {
		return
	}
	a.finished = true
	a.detach()
	if a.resp != nil {
		a.resp.Body.Close()
	}
	if a.cancel != nil {
		a.cancel(errOver)
	}
	if a.trip.is(tripConnected) {
		a.pick.Endpoint.Connected(a.trip.is(tripReused))
	}
	a.pick.Done(r)
	a.obs.UpstreamResult(a.service, r.String())
}

// verdict is what an attempt came to.
type verdict struct {
	result balance.Result
	// reason names why another attempt may follow; "" for none.
	reason string
	// stale: a connection that had been idle was found closed. The instance
	// may well be fit, so it may be tried again where there is no other.
	stale bool
	// refusal is the answer if no further attempt follows and there is no
	// response.
	refusal *routing.Refusal
}

// judge tells the instance's faults from the client's and the clock's.
func (c *call) judge(a *attempt) verdict {
	policy := c.svc.Retry
	if a.resp != nil {
		v := verdict{result: ofStatus(a.resp)}
		if slices.Contains(policy.Statuses, a.resp.StatusCode) {
			v.reason = strconv.Itoa(a.resp.StatusCode)
		}
		return v
	}
	switch cause := c.cause(a); cause {
	case errSlowBody: // the instance was waiting for the client, as we were
		return verdict{refusal: refuse(routing.CodeBadRequest, "The request body did not arrive in time.", cause)}
	case errPerTry:
		return verdict{balance.TimedOut, on(policy.Timeout, "timeout"), false, timedOut(cause)}
	case errRouteTimeout:
		return verdict{result: balance.TimedOut, refusal: timedOut(cause)}
	case errClientDeadline, errIdle: // however short, no fault of the instance
		return verdict{refusal: timedOut(cause)}
	}
	if refusal := c.clientFault(); refusal != nil {
		return verdict{refusal: refusal}
	}
	return c.judgeError(a)
}

// judgeError is judge for what the transport says.
func (c *call) judgeError(a *attempt) verdict {
	policy := c.svc.Retry
	var timeout net.Error
	switch {
	case !a.trip.is(tripAsked):
		return verdict{refusal: refuse(routing.CodeBadRequest, "The request cannot be sent on.", a.err)}
	case !a.trip.is(tripConnected) && balance.OwnFault(a.err):
		return verdict{refusal: &routing.Refusal{Code: routing.CodeOverloaded, RetryAfter: retryAfter, Cause: a.err,
			Detail: "The gateway can open no more connections."}}
	case !a.trip.is(tripConnected):
		return verdict{balance.Unreachable, on(policy.Connect, "connect"), false,
			refuse(routing.CodeUpstreamUnreachable, "The service cannot be reached.", a.err)}
	case errors.As(a.err, &timeout) && timeout.Timeout():
		return verdict{balance.TimedOut, on(policy.Timeout, "timeout"), false, timedOut(a.err)}
	case a.trip.is(tripReused) && !a.trip.is(tripAnswered):
		return verdict{balance.Neutral, on(policy.Reset, "reset"), true, broken(a.err)}
	}
	return verdict{balance.Broken, on(policy.Reset, "reset"), false, broken(a.err)}
}

// clientFault is the refusal for what the client did wrong, or nil.
func (c *call) clientFault() *routing.Refusal {
	if err := c.body.err(); err != nil {
		var tooLarge *http.MaxBytesError
		var own *routing.Refusal
		switch {
		case errors.As(err, &own):
			return own
		case errors.As(err, &tooLarge):
			return refuse(routing.CodeBodyTooLarge, "The request body is larger than allowed.", err)
		case c.r.Context().Err() == nil && !errors.Is(err, io.ErrUnexpectedEOF):
			return refuse(routing.CodeBadRequest, "The request body is malformed.", err)
		}
		return refuse(routing.CodeClientClosed, "The client left.", err)
	}
	if err := c.r.Context().Err(); err != nil {
		return refuse(routing.CodeClientClosed, "The client left.", err)
	}
	return nil
}

func ofStatus(resp *http.Response) balance.Result {
	if resp.StatusCode >= 500 {
		return balance.ServerError
	}
	return balance.Success
}

func on(allowed bool, reason string) string {
	if allowed {
		return reason
	}
	return ""
}

func refuse(code routing.Code, detail string, cause error) *routing.Refusal {
	return &routing.Refusal{Code: code, Detail: detail, Cause: cause}
}

func timedOut(cause error) *routing.Refusal {
	return refuse(routing.CodeUpstreamTimeout, "The service did not answer in time.", cause)
}

func broken(cause error) *routing.Refusal {
	return refuse(routing.CodeUpstreamError, "The service broke off before it answered.", cause)
}
