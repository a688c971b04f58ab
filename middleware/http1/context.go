package http1

import (
	"context"
	"sync"
	"time"
)

// requestContext is the context of a request. It ends with the request, or
// with its client; the client is watched from when Done is first called.
type requestContext struct {
	context.Context // of the connection
	conn            *conn

	mu      sync.Mutex
	inner   context.Context // nil: nobody asked yet
	cancel  context.CancelFunc
	stopped chan struct{} // closed when nobody watches any more
	over    bool
}

// Done implements context.Context.
func (x *requestContext) Done() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.inner == nil {
		x.inner, x.cancel = context.WithCancel(x.Context)
		if x.over {
			x.cancel()
		} else {
			x.stopped = make(chan struct{})
			go x.conn.watch(x.cancel, x.stopped)
		}
	}
	return x.inner.Done()
}

// Err implements context.Context.
func (x *requestContext) Err() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.inner != nil:
		return x.inner.Err()
	case x.over:
		return context.Canceled
	}
	return nil
}

// Value implements context.Context. Package context finds by it that what
// Done returned is a channel of its own, and needs no goroutine to follow it.
func (x *requestContext) Value(key any) any {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.inner != nil {
		return x.inner.Value(key)
	}
	return x.Context.Value(key)
}

// fail ends the context because the client cannot be written to.
func (x *requestContext) fail() {
	x.mu.Lock()
	x.over = true
	cancel := x.cancel
	x.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// end ends the context with its request. Nobody reads from the connection
// when it returns.
func (x *requestContext) end() {
	x.fail()
	if x.stopped != nil {
		_ = x.conn.nc.SetReadDeadline(past)
		<-x.stopped
		_ = x.conn.nc.SetReadDeadline(time.Time{})
	}
}
