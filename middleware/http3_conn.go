package middleware

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// farewell is how long a connection without requests is kept after GOAWAY. A
// client that understands it closes the connection itself; this is for the
// last packets to arrive, and for clients that do not.
const farewell = 2 * time.Second

// http3Conn is one connection. It has an http3.Server of its own, so that it
// can be told to go, and waited for, by itself.
type http3Conn struct {
	owner  *HTTP3
	conn   *quic.Conn
	server http3.Server
	// serving is closed once server can be shut down.
	serving chan struct{}

	mu       sync.Mutex
	requests int
	// patience is how long the connection is kept without a request; 0 is
	// for ever. Unlike QUIC's own timeout it does not mind other packets.
	patience time.Duration
	timer    *time.Timer
	over     bool
}

func newHTTP3Conn(owner *HTTP3, conn *quic.Conn) *http3Conn {
	c := &http3Conn{
		owner: owner, conn: conn, patience: owner.cfg.IdleTimeout, serving: make(chan struct{}),
	}
	c.server = http3.Server{
		Handler:        c,
		MaxHeaderBytes: owner.cfg.MaxHeaderBytes,
		// What it has to say, clients cause.
		Logger: slog.New(slog.DiscardHandler),
		ConnContext: func(ctx context.Context, _ *quic.Conn) context.Context {
			close(c.serving)
			return ctx
		},
	}
	return c
}

// serve returns when the connection has ended and its last request too.
func (c *http3Conn) serve() {
	left := make(chan struct{})
	stay := context.AfterFunc(c.owner.draining, func() {
		defer close(left)
		c.leave(c.owner.until)
	})
	c.wait()
	_ = c.server.ServeQUICConn(c.conn) // why a client left is its own affair
	c.part()
	if !stay() {
		<-left
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.timer != nil {
		c.timer.Stop()
	}
}

// leave sends GOAWAY and waits for the connection's end, which comes at the
// latest with ctx's: then requests under way are cut off.
func (c *http3Conn) leave(ctx context.Context) {
	select {
	case <-c.serving:
	case <-c.conn.Context().Done():
		return
	}
	c.mu.Lock()
	c.patience = farewell
	c.mu.Unlock()
	c.wait()
	_ = c.server.Shutdown(ctx)
}

// ServeHTTP takes the connection's requests. There are never more at a time
// than streams are allowed, however fast they are reset: a stream counts until
// its request is over or has noticed.
func (c *http3Conn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.requests++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.requests--
		c.mu.Unlock()
		c.wait()
	}()
	settleBody(w, r, c.owner.cfg.ReadHeaderTimeout)
	c.owner.handler.ServeHTTP(w, r)
}

// settleBody finds out whether a request has a body that says nothing of its
// length. quic-go leaves that open even where the stream has ended with the
// head, and an instance would get an empty chunked body with every GET. Only
// methods that seldom have one are waited for: others may send theirs late.
func settleBody(w http.ResponseWriter, r *http.Request, timeout time.Duration) {
	if r.ContentLength >= 0 {
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodDelete:
	default:
		return
	}
	ctl := http.NewResponseController(w)
	if timeout > 0 {
		_ = ctl.SetReadDeadline(time.Now().Add(timeout))
	}
	b := &begunBody{ReadCloser: r.Body}
	if b.n, b.err = b.ReadCloser.Read(b.first[:]); b.n == 0 && b.err == io.EOF {
		r.Body, r.ContentLength = http.NoBody, 0
		return
	}
	if errors.Is(b.err, os.ErrDeadlineExceeded) {
		b.err = nil // it may still come, in the time that bodies have
	}
	_ = ctl.SetReadDeadline(time.Time{})
	r.Body = b
}

// begunBody is a body whose first read has been done.
type begunBody struct {
	io.ReadCloser
	first [1]byte
	n     int
	err   error
}

func (b *begunBody) Read(p []byte) (int, error) {
	if b.n > 0 && len(p) > 0 {
		b.n = 0
		return copy(p, b.first[:]), nil
	}
	if b.err != nil {
		return 0, b.err
	}
	return b.ReadCloser.Read(p)
}

// wait begins to count the time without a request, if there is none.
func (c *http3Conn) wait() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.over || c.requests > 0 || c.patience <= 0:
	case c.timer == nil:
		c.timer = time.AfterFunc(c.patience, c.tire)
	default:
		c.timer.Reset(c.patience)
	}
}

// tire closes the connection, unless a request came in at the last moment: its
// end begins to count anew.
func (c *http3Conn) tire() {
	c.mu.Lock()
	busy := c.requests > 0
	c.mu.Unlock()
	if !busy {
		c.part()
	}
}

func (c *http3Conn) part() {
	_ = c.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
}
