package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/proxy/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// side is a listener whose requests are served.
type side struct {
	addr   string
	server *Server // nil: net/http alone
	handed *handed
	std    *http.Server
	log    *logged
}

// handed is the listener of what is handed over.
type handed struct {
	net.Listener
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	mu    sync.Mutex
	count int
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handed) take(c net.Conn) {
	h.mu.Lock()
	h.count++
	h.mu.Unlock()
	select {
	case h.conns <- c:
	case <-h.done:
		_ = c.Close()
	}
}

func (h *handed) taken() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// logged is a log that is read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// std serves with net/http alone.
func std(t testing.TB, h http.Handler) *side {
	ln := listen(t)
	s := &side{addr: ln.Addr().String(), std: &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}}
	var served sync.WaitGroup
	served.Go(func() { _ = s.std.Serve(ln) })
	t.Cleanup(func() { _ = s.std.Close(); served.Wait() })
	return s
}

// ours serves with a Server, and net/http behind it.
func ours(t testing.TB, h http.Handler, change func(*Config)) *side {
	ln := listen(t)
	s := &side{
		addr:   ln.Addr().String(),
		handed: &handed{Listener: ln, conns: make(chan net.Conn), done: make(chan struct{})},
		std:    &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)},
		log:    new(logged),
	}
	conf := Config{Handler: h, HandOver: s.handed.take, Log: slog.New(slog.NewTextHandler(s.log, nil))}
	if change != nil {
		change(&conf)
	}
	s.server = New(conf)
	var served sync.WaitGroup
	served.Go(func() { _ = s.std.Serve(s.handed) })
	served.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			served.Go(func() { s.server.ServeConn(tcp.New(c.(*net.TCPConn))) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		over, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.server.Shutdown(over, func() {})
		_ = s.std.Close()
		served.Wait()
	})
	return s
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// answer is what a client reads.
type answer struct {
	Status  string
	Header  http.Header
	Length  int64
	Coding  []string
	Close   bool
	Body    string
	Trailer http.Header
	Fault   string
}

// talk sends raw, and returns the answers up to the end of the connection.
// methods are those of the requests. reset says that bytes may be lacking.
func (s *side) talk(t testing.TB, raw string, methods ...string) (answers []answer, reset bool) {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, raw); err == nil {
		_ = c.(*net.TCPConn).CloseWrite()
	}
	text, err := io.ReadAll(c)
	if err != nil {
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			t.Fatalf("no end of the answers to %q; so far %q", raw, text)
		}
		reset = true
	}
	in := bufio.NewReader(bytes.NewReader(text))
	for i := 0; ; i++ {
		if _, err := in.Peek(1); err != nil {
			return answers, reset
		}
		method := http.MethodGet
		if i < len(methods) {
			method = methods[i]
		}
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return append(answers, answer{Fault: "no answer: " + err.Error()}), reset
		}
		a := answer{Status: resp.Status, Header: resp.Header, Length: resp.ContentLength, Coding: resp.TransferEncoding, Close: resp.Close}
		if resp.Header.Get("Date") != "" {
			resp.Header.Set("Date", "now")
		}
		if resp.StatusCode >= 100 && resp.StatusCode < 200 {
			i--
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			a.Fault = err.Error()
		}
		a.Body, a.Trailer = string(body), resp.Trailer
		answers = append(answers, a)
	}
}
