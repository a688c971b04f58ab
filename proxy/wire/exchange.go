package wire

import (
	"context"
	"errors"
	"net/http"
	"os"
	"time"
)

// atOnce is what a kernel takes of a request without the other side reading.
const atOnce = 4 << 10

// Room is the memory of one exchange, from its request to the end of its
// response. It may serve another once nobody looks at the response any more.
type Room struct {
	exchange exchange
	resp     http.Response
	body     body
	header   http.Header
	values   []string // what the fields of header lie in
}

// Reset forgets the last exchange. Where somebody may still look at the values
// of its header fields, those are left to them.
func (r *Room) Reset(values bool) {
	h, v := r.header, r.values
	clear(h)
	if !values {
		v = nil
	}
	clear(v)
	*r = Room{header: h, values: v}
}

// fields makes room for n values.
func (r *Room) fields(n int) []string {
	if n > cap(r.values) {
		r.values = make([]string, n)
	}
	r.values = r.values[:n]
	return r.values
}

// exchange is the use of one connection for one request. Once it is watched,
// and until the response's body has ended, the end of a context interrupts the
// connection.
type exchange struct {
	conn  *conn
	trace Trace
	room  *Room
	ctx   context.Context // nil: not watched yet
	stop  func() bool
	until time.Time // bounds what is read next; zero for nothing
	up    *upload   // nil: all was sent with the head
}

// run sends the request and reads the answer's head. On an error the
// connection is still the caller's to close.
func (x *exchange) run(c *Client, req *http.Request, out *outgoing) (resp *http.Response, wrote int, err error) {
	switch {
	case !x.trace.Quick():
		err = x.watch(req.Context())
	case len(out.bytes) > atOnce || out.rest != nil:
		err = x.watch(x.trace.Watch())
	}
	if err != nil {
		return nil, 0, err
	}
	wrote, err = x.conn.nc.Write(out.bytes)
	if wrote > 0 {
		x.trace.Wrote()
	}
	if err == nil {
		err = x.send(out, req.ContentLength, c.conf.ResponseHeader)
	}
	if err == nil {
		resp, err = x.answer(c, req)
	}
	return resp, wrote, err
}

// watch has the end of ctx interrupt the connection from now on.
func (x *exchange) watch(ctx context.Context) error {
	x.ctx = ctx
	x.stop = context.AfterFunc(ctx, x.conn.interrupt)
	return x.bound(x.until)
}

// ended is why the exchange has to end; nil while it has not.
func (x *exchange) ended() error {
	if x.ctx == nil {
		return nil
	}
	return context.Cause(x.ctx)
}

// expect bounds what is read next, the context apart; 0 is no bound.
func (x *exchange) expect(d time.Duration) error {
	if x.ctx != nil && d == 0 && !x.conn.bounded {
		return nil
	}
	now := time.Now()
	at := time.Time{}
	if d != 0 {
		x.until = now.Add(d)
		at = x.until
	}
	if x.ctx == nil && (d == 0 || d > Patience) {
		at = now.Add(Patience)
	}
	return x.bound(at)
}

// takeTime lifts the bound of expect.
func (x *exchange) takeTime() error {
	x.until = time.Time{}
	if x.ctx == nil || !x.conn.bounded {
		return nil
	}
	return x.bound(x.until)
}

// bound sets the time after which reading fails; zero is none.
func (x *exchange) bound(at time.Time) error {
	x.conn.bounded = !at.IsZero()
	if err := x.conn.nc.SetReadDeadline(at); err != nil {
		return err
	}
	// An interrupt before this was undone by it; a later one stands.
	return x.ended()
}

// read reads from the connection. An exchange that nothing watches is watched
// once it has to wait for longer than is its due.
func (x *exchange) read(p []byte) (int, error) {
	n, err := x.conn.nc.Read(p)
	if n > 0 || x.ctx != nil || !errors.Is(err, os.ErrDeadlineExceeded) || !x.until.IsZero() && !time.Now().Before(x.until) {
		return n, err
	}
	if err := x.watch(x.trace.Watch()); err != nil {
		return 0, err
	}
	return x.conn.nc.Read(p)
}

// send begins to send the body that did not go out with the head, and bounds
// the wait for the response's head, which begins when all of the request was
// sent.
func (x *exchange) send(out *outgoing, length int64, bound time.Duration) error {
	if out.rest == nil {
		return x.expect(bound)
	}
	if err := x.expect(0); err != nil {
		return err
	}
	x.conn.bounded = bound > 0 // from here on by the upload
	x.up = &upload{conn: x.conn, ctx: x.ctx, src: out.rest, left: length, head: bound}
	out.rest = nil
	go x.up.run()
	return nil
}

// drop closes the connection.
func (x *exchange) drop() {
	if x.stop != nil {
		x.stop()
	}
	x.conn.close()
}

// release keeps the connection for another request, if it is fit for one.
func (x *exchange) release(reusable bool) {
	// Where the interrupt may have come, it may also still be coming.
	reusable = (x.stop == nil || x.stop()) && reusable && x.conn.buffered() == 0
	switch {
	case x.up != nil:
		x.up.release(reusable)
	case reusable:
		x.conn.shelf.put(x.conn)
	default:
		x.conn.close()
	}
}
