package http1

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is a connection as package proxy/tcp has it.
type Conn interface {
	net.Conn
	// ReadNow reads what is there, and fails where a read would wait.
	ReadNow(p []byte) (int, error)
	// Unread takes back what was read too much: p is what the next Read
	// returns first.
	Unread(p []byte)
}

// Config says how connections are served. Handler, HandOver and Log are
// needed.
type Config struct {
	Handler http.Handler
	// HandOver takes a connection whose next request is not plain.
	HandOver func(net.Conn)
	// FirstTimeout is how long a new connection may be silent; 0 is for ever.
	FirstTimeout time.Duration
	// IdleTimeout is how long one may be silent between requests; 0 is for
	// ever.
	IdleTimeout time.Duration
	// Log takes, at level error, panics of the handler.
	Log *slog.Logger
}

// newGrace is how long after its beginning a connection's first request is
// waited for when the server shuts down; net/http has the same.
const newGrace = 5 * time.Second

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// Server serves connections. It is safe for concurrent use. Requests share no
// lock of it.
type Server struct {
	conf    Config
	date    date
	closing atomic.Bool
	changed chan struct{} // while closing: a connection began to serve, or ended

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// New makes a Server.
func New(conf Config) *Server {
	return &Server{conf: conf, conns: map[*conn]struct{}{}, changed: make(chan struct{}, 1)}
}

// ServeConn serves c until it ends or is handed over.
func (s *Server) ServeConn(c Conn) {
	cn := &conn{server: s, nc: c, born: time.Now(), reading: true}
	if !s.enter(cn) {
		_ = c.Close()
		return
	}
	cn.serve()
}

// enter counts c, unless the server shuts down.
func (s *Server) enter(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

// leave forgets c.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.change()
}

// change tells Shutdown to look again.
func (s *Server) change() {
	if s.closing.Load() {
		select {
		case s.changed <- struct{}{}:
		default: // it has not looked since the last one
		}
	}
}

// Shutdown ends connections between two requests, and has the others end with
// the response that they are at. Once none is left that could be handed over,
// it calls settled; it returns when none is left at all. When ctx ends before,
// it closes what is left, and returns why.
func (s *Server) Shutdown(ctx context.Context, settled func()) error {
	s.mu.Lock()
	s.closing.Store(true)
	for c := range s.conns {
		c.hurry()
	}
	s.mu.Unlock()
	err := s.until(ctx, func() bool {
		for c := range s.conns {
			if c.isReading() {
				return false
			}
		}
		return true
	})
	settled()
	return errors.Join(err, s.until(ctx, func() bool { return len(s.conns) == 0 }))
}

// until waits for a state of the server. It asks under the lock.
func (s *Server) until(ctx context.Context, reached func() bool) error {
	for {
		s.mu.Lock()
		done := reached()
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			s.closeAll()
			return context.Cause(ctx)
		}
	}
}

func (s *Server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.nc.Close()
	}
}
