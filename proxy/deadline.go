package proxy

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Causes with which a request's context ends.
var (
	errSlowBody       = errors.New("the client did not send its body in time")
	errRouteTimeout   = errors.New("the route's timeout passed")
	errClientDeadline = errors.New("the deadline that the client set passed")
	errIdle           = errors.New("the stream was silent for too long")
	errPerTry         = errors.New("the time for one attempt passed")
	errHedgeLost      = errors.New("another attempt answered first")
	errOver           = errors.New("the request is over")
)

// deadline bounds one request: by the route's timeout, by what a gRPC client
// allowed, or, for streams, by silence. When it passes, the context is
// cancelled with the cause, and, once the response's head has gone out, a
// write that waits for the client fails.
type deadline struct {
	base   time.Time
	body   *requestBody // set before the first bound
	client *http.ResponseController
	last   atomic.Int64 // time since base of the last sign of life

	mu      sync.Mutex
	cancel  context.CancelCauseFunc // nil before start
	timer   *time.Timer
	route   time.Time // zero: none
	caller  time.Time // zero: none
	idle    time.Duration
	grace   time.Duration // for what is to be written once it has passed
	headOut bool
	over    bool
}

// start has the bounds that are set, and those to come, end a context by
// cancel. Before that they are only kept.
func (d *deadline) start(cancel context.CancelCauseFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cancel = cancel
	d.arm(time.Now())
}

// set changes the bounds; zero values lift them.
func (d *deadline) set(route, caller time.Time, idle time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.route, d.caller, d.idle = route, caller, idle
	d.touch()
	d.arm(time.Now())
}

// limit bounds the wait for a response head, unless that has gone out.
func (d *deadline) limit(route time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.headOut {
		return
	}
	d.route = route
	d.arm(time.Now())
}

// started says that the response's head goes out now; a stream is from here
// on bounded by silence in place of the route's timeout. grace is how long the
// client may take what is written after the deadline.
func (d *deadline) started(stream bool, idle, grace time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.headOut, d.grace = true, grace
	if stream {
		d.route, d.idle = time.Time{}, idle
		d.touch()
		d.arm(time.Now())
	}
}

// left is what remains of the time that the client allowed; ok is false where
// it set none.
func (d *deadline) left() (left time.Duration, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Until(d.caller), !d.caller.IsZero()
}

// touch records a sign of life.
func (d *deadline) touch() { d.last.Store(int64(time.Since(d.base))) }

// callerOver reports whether what the caller allowed has passed, also where
// the timer is late.
func (d *deadline) callerOver() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.caller.IsZero() && !time.Now().Before(d.caller)
}

// stop ends the deadline; when it returns, nothing fires any more.
func (d *deadline) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	if d.timer != nil {
		d.timer.Stop()
	}
}

// arm sets the timer to the earliest bound; called with mu held.
func (d *deadline) arm(now time.Time) {
	if d.over || d.cancel == nil {
		return
	}
	next, _ := d.next()
	if next.IsZero() {
		if d.timer != nil {
			d.timer.Stop()
		}
		return
	}
	wait := max(next.Sub(now), 0)
	if d.timer == nil {
		d.timer = time.AfterFunc(wait, d.fire)
		return
	}
	d.timer.Reset(wait)
}

// next is the earliest bound and its cause.
func (d *deadline) next() (at time.Time, why error) {
	earlier := func(t time.Time, err error) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at, why = t, err
		}
	}
	earlier(d.caller, errClientDeadline)
	earlier(d.route, errRouteTimeout)
	if d.idle > 0 {
		earlier(d.base.Add(time.Duration(d.last.Load())+d.idle), errIdle)
	}
	return at, why
}

func (d *deadline) fire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return
	}
	now := time.Now()
	at, why := d.next()
	if at.IsZero() {
		return
	}
	if at.After(now) { // there were signs of life, or the bounds moved
		d.arm(now)
		return
	}
	waiting := d.body.halt()
	if waiting && why != errClientDeadline {
		why = errSlowBody
	}
	d.cancel(why)
	// What waits for the client does not see the context. Writers that have no
	// deadlines are those of tests.
	if waiting {
		_ = d.client.SetReadDeadline(now)
	}
	if d.headOut {
		_ = d.client.SetWriteDeadline(now.Add(d.grace))
	}
}
