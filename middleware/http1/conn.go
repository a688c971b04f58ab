package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

// headSize is how long a plain request's head may be.
const headSize = 4 << 10

// conn is a connection under way. Its goroutine owns it.
type conn struct {
	server *Server
	nc     Conn
	born   time.Time

	mu      sync.Mutex
	reading bool // it waits for, or reads, a request
	used    bool // it had one

	base   context.Context
	remote string

	buf [headSize]byte
	n   int // of buf was read
	*desk
}

// desk is what a request is read and answered with. A connection between two
// requests has none.
type desk struct {
	src bytes.Reader
	br  *bufio.Reader // over src
	out bytes.Buffer  // of the response
}

var desks = sync.Pool{New: func() any { return &desk{br: bufio.NewReaderSize(nil, headSize)} }}

// serve serves requests while they are plain.
func (c *conn) serve() {
	keep := false // the connection is somebody else's
	defer func() {
		if !keep {
			_ = c.nc.Close()
		}
		c.server.leave(c)
	}()
	// Where a proxy says who the client is, this waits for it.
	c.remote = c.nc.RemoteAddr().String()
	c.base = context.WithValue(context.Background(), http.LocalAddrContextKey, c.nc.LocalAddr())
	for silence := c.server.conf.FirstTimeout; ; silence = c.server.conf.IdleTimeout {
		if c.n == 0 && !c.read(silence) {
			return
		}
		c.desk = desks.Get().(*desk)
		req := c.plain()
		if req == nil {
			keep = true
			c.handOver()
			return
		}
		c.n = 0
		c.took()
		if !c.answer(req) {
			return
		}
		desks.Put(c.desk)
		c.desk = nil
	}
}

// read waits for the beginning of a request.
func (c *conn) read(silence time.Duration) bool {
	until := time.Time{}
	if silence > 0 {
		until = time.Now().Add(silence)
	}
	c.await(until)
	var err error
	if c.n, err = c.nc.Read(c.buf[:]); err != nil {
		return false
	}
	// A head may come in two pieces, the first of them behind a PROXY header.
	for c.hopeful() && c.unended() && c.n < len(c.buf) {
		n, err := c.nc.ReadNow(c.buf[c.n:])
		if err != nil {
			break
		}
		c.n += n
	}
	return true
}

// await begins to wait for a request.
func (c *conn) await(until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = true
	if c.server.closing.Load() {
		until = c.atMost()
	}
	_ = c.nc.SetReadDeadline(until)
}

// took says that there is a request to serve.
func (c *conn) took() {
	c.mu.Lock()
	c.reading, c.used = false, true
	_ = c.nc.SetReadDeadline(time.Time{})
	c.mu.Unlock()
	c.server.change()
}

// hurry ends the wait for a request, which the server does not serve any more.
func (c *conn) hurry() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reading {
		_ = c.nc.SetReadDeadline(c.atMost())
	}
}

// atMost is how long a request is waited for when the server shuts down.
func (c *conn) atMost() time.Time {
	if c.used {
		return past
	}
	return c.born.Add(newGrace)
}

func (c *conn) isReading() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reading
}

// handOver gives the connection away with all that was read of it.
func (c *conn) handOver() {
	c.nc.Unread(bytes.Clone(c.buf[:c.n]))
	_ = c.nc.SetReadDeadline(time.Time{})
	c.server.conf.HandOver(c.nc)
}

// answer has the handler answer req, and reports whether another request may
// follow.
func (c *conn) answer(req *http.Request) (again bool) {
	ctx := &requestContext{Context: c.base, conn: c}
	req = req.WithContext(ctx)
	req.RemoteAddr = c.remote
	w := &response{conn: c, ctx: ctx, req: req, header: http.Header{}, length: -1}
	defer func() {
		fault := recover()
		w.over.Store(true)
		ctx.end()
		if fault == nil {
			return
		}
		again = false
		// As much of the response as left the handler's hands goes out: that it
		// is not all, its framing tells. Half a head tells nothing.
		if w.begun {
			_ = w.send()
		}
		if err, ok := fault.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
			c.server.conf.Log.Error("panic while serving a request", slog.String("client", c.remote),
				slog.Any("panic", fault), slog.String("stack", string(debug.Stack())))
		}
	}()
	c.server.conf.Handler.ServeHTTP(w, req)
	w.finish()
	return !w.close && w.err == nil
}

// watch reads on while a request is served: what ends then is the client. A
// byte is the next request's.
func (c *conn) watch(gone context.CancelFunc, stopped chan<- struct{}) {
	defer close(stopped)
	n, err := c.nc.Read(c.buf[:1])
	if c.n = n; n > 0 {
		return
	}
	if timeout, ok := errors.AsType[net.Error](err); !ok || !timeout.Timeout() {
		gone()
	}
}
