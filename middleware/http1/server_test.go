package http1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/testenv"
)

const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"

// client is a connection to a side.
type client struct {
	*net.TCPConn
	in *bufio.Reader
}

func (s *side) client(t testing.TB) *client {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{c.(*net.TCPConn), bufio.NewReader(c)}
}

func (c *client) send(t testing.TB, raw string) {
	t.Helper()
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
}

// answer reads an answer and its body; an error ends the body's text.
func (c *client) answer(t testing.TB) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp, fmt.Sprintf("%s, %v", body, err)
	}
	return resp, string(body)
}

// ended waits for the connection's end.
func (c *client) ended(t testing.TB) {
	t.Helper()
	if b, err := c.in.ReadByte(); err != io.EOF && !strings.Contains(fmt.Sprint(err), "reset") {
		t.Fatalf("instead of the end came %q, %v", b, err)
	}
}

func TestALengthThatIsNoneIsNotPassedOn(t *testing.T) {
	s := ours(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		length(w, "five")
		_, _ = io.WriteString(w, "fiver")
	}), nil)
	c := s.client(t)
	c.send(t, get)
	if resp, body := c.answer(t); resp.ContentLength != 5 || body != "fiver" {
		t.Errorf("length %d, %q", resp.ContentLength, body)
	}
}

func TestAStatusThatIsNoneIsAFault(t *testing.T) {
	for _, status := range []int{0, 99, 1000} {
		s := ours(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }), nil)
		c := s.client(t)
		c.send(t, get)
		c.ended(t)
		if !strings.Contains(s.log.String(), fmt.Sprintf("the status %d", status)) {
			t.Errorf("logged: %s", s.log)
		}
	}
}

// A response that the handler could not complete must not look complete, and
// what went wrong is to be read in the log, unless it was meant.
func TestAPanicEndsTheConnectionAndIsLogged(t *testing.T) {
	for _, fault := range []any{http.ErrAbortHandler, fmt.Errorf("told: %w", http.ErrAbortHandler), "broken", errors.New("broken")} {
		s := ours(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			panic(fault)
		}), nil)
		c := s.client(t)
		c.send(t, get)
		if _, body := c.answer(t); body != "half, unexpected EOF" {
			t.Errorf("%v: the body is %q", fault, body)
		}
		c.ended(t)
		s.settle(t)
		meant := !strings.Contains(fmt.Sprint(fault), "broken")
		if logged := s.log.String(); meant != (logged == "") || !meant && !strings.Contains(logged, "server_test.go") {
			t.Errorf("%v: logged %q", fault, logged)
		}
	}
}

// settle waits until no connection is left.
func (s *side) settle(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.server.Shutdown(ctx, func() {}); err != nil {
		t.Fatal(err)
	}
}

// Writing once the handler has returned is against the rules, and must not
// reach the response of another.
func TestWhoWritesTooLateWritesNothing(t *testing.T) {
	kept := make(chan http.ResponseWriter, 1)
	s := ours(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { kept <- w }), nil)
	c := s.client(t)
	c.send(t, get)
	c.answer(t)
	w := <-kept
	s.settle(t) // it has returned
	w.WriteHeader(103)
	n, err := io.WriteString(w, "late")
	if ferr := http.NewResponseController(w).Flush(); n != 0 || err == nil || ferr == nil {
		t.Errorf("wrote %d, %v; flushed %v", n, err, ferr)
	}
	c.ended(t)
}

func TestTheContextEndsWithTheClientOnceSomebodyAsks(t *testing.T) {
	for name, wait := range map[string]func(context.Context){
		"by itself": func(ctx context.Context) { <-ctx.Done() },
		"as a parent": func(ctx context.Context) {
			child, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			<-child.Done()
		},
		"by a function": func(ctx context.Context) {
			called := make(chan struct{})
			context.AfterFunc(ctx, func() { close(called) })
			<-called
		},
	} {
		t.Run(name, func(t *testing.T) {
			begun, ended := make(chan struct{}), make(chan error)
			s := ours(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if err := r.Context().Err(); err != nil {
					t.Errorf("it had ended before: %v", err)
				}
				close(begun)
				wait(r.Context())
				ended <- r.Context().Err()
			}), nil)
			c := s.client(t)
			c.send(t, get)
			<-begun
			_ = c.Close()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}

func TestTheContextEndsWithTheRequest(t *testing.T) {
	contexts := make(chan context.Context, 2)
	s := ours(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		contexts <- r.Context()
		if r.URL.Path == "/asks" {
			_ = r.Context().Done()
		}
		if a, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); !ok || a.Port == 0 {
			t.Error("it does not know the address that was called")
		}
	}), nil)
	c := s.client(t)
	for _, path := range []string{"/", "/asks", "/"} {
		c.send(t, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
		c.answer(t)
		ctx := <-contexts
		<-ctx.Done()
		if err := ctx.Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: it ended with %v", path, err)
		}
	}
	if n := s.handed.taken(); n > 0 {
		t.Error("the connection was handed over")
	}
}

func TestTheContextEndsWhenTheClientCannotBeWrittenTo(t *testing.T) {
	ended := make(chan error)
	s := ours(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		for err == nil {
			_, err = w.Write(make([]byte, 64<<10))
		}
		if _, again := w.Write([]byte("a")); again == nil {
			t.Error("a write after the fault went well")
		}
		ended <- r.Context().Err()
	}), nil)
	c := s.client(t)
	c.send(t, get)
	_ = c.SetLinger(0)
	_ = c.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}

// What a client sends before it has its answer is the next request's.
func TestARequestThatComesDuringAnotherIsServed(t *testing.T) {
	begun, proceed := make(chan struct{}), make(chan struct{})
	s := ours(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/1" {
			begun <- struct{}{}
			select {
			case <-proceed:
			case <-r.Context().Done():
				t.Error("the context ended for it")
			}
		}
		_, _ = io.WriteString(w, r.URL.Path)
	}), nil)
	c := s.client(t)
	c.send(t, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
	<-begun
	c.send(t, "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
	close(proceed)
	for _, want := range []string{"/1", "/2"} {
		if _, body := c.answer(t); body != want {
			t.Errorf("got %q, want %q", body, want)
		}
	}
}

func TestAConnectionIsHandedOverWithAllThatWasRead(t *testing.T) {
	s := ours(t, http.HandlerFunc(echo), nil)
	c := s.client(t)
	c.send(t, get)
	c.answer(t)
	if n := s.handed.taken(); n != 0 {
		t.Fatal("the first request was handed over")
	}
	for _, piece := range []string{"POST /a HTTP/1.1\r\nHost: a\r\nContent-", "Length: 3\r\n\r\na", "bc"} {
		c.send(t, piece)
	}
	if _, body := c.answer(t); !strings.Contains(body, `body="abc"`) {
		t.Errorf("the second was answered %q", body)
	}
	c.send(t, get)
	c.answer(t)
	if n := s.handed.taken(); n != 1 {
		t.Errorf("it was handed over %d times", n)
	}
}

func TestSilentConnectionsAreClosed(t *testing.T) {
	const silence = 20 * time.Millisecond
	ours(t, http.HandlerFunc(echo), func(c *Config) { c.FirstTimeout = silence }).client(t).ended(t)
	c := ours(t, http.HandlerFunc(echo), func(c *Config) { c.IdleTimeout = silence }).client(t)
	c.send(t, get)
	c.answer(t)
	c.ended(t)
}

func TestShutdownEndsWhatIdlesAndWaitsForWhatServes(t *testing.T) {
	begun, proceed := make(chan struct{}), make(chan struct{})
	s := ours(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			begun <- struct{}{}
			<-proceed
		}
		_, _ = io.WriteString(w, "ok")
	}), nil)
	idle, busy, fresh := s.client(t), s.client(t), s.client(t)
	idle.send(t, get)
	idle.answer(t)
	busy.send(t, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-begun
	s.awaitConns(t, 3) // the fresh one is accepted
	settled, done := make(chan struct{}), make(chan error)
	go func() { done <- s.server.Shutdown(t.Context(), func() { close(settled) }) }()
	idle.ended(t)
	// A client that has just come was about to ask.
	fresh.send(t, get)
	if resp, body := fresh.answer(t); body != "ok" || !resp.Close {
		t.Errorf("a fresh connection: %q, to be closed: %t", body, resp.Close)
	}
	fresh.ended(t)
	<-settled
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
	close(proceed)
	if resp, body := busy.answer(t); body != "ok" || !resp.Close {
		t.Errorf("what was under way: %q, to be closed: %t", body, resp.Close)
	}
	busy.ended(t)
	if err := <-done; err != nil {
		t.Error(err)
	}
	late := s.client(t)
	late.ended(t)
}

// Between the end of accepting and that of net/http, a request with a body may
// come on a connection that was not handed over yet.
func TestWhatIsHandedOverDuringShutdownIsServed(t *testing.T) {
	s := ours(t, http.HandlerFunc(echo), nil)
	c := s.client(t)
	s.awaitConns(t, 1)
	settled, done := make(chan struct{}), make(chan error)
	go func() { done <- s.server.Shutdown(t.Context(), func() { close(settled) }) }()
	c.send(t, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
	if _, body := c.answer(t); !strings.Contains(body, `body="abc"`) {
		t.Errorf("it was answered %q", body)
	}
	<-settled
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// awaitConns waits until n connections are being served.
func (s *side) awaitConns(t testing.TB, n int) {
	t.Helper()
	testenv.Eventually(t, 20*time.Second, fmt.Sprintf("%d connections are served", n), func() bool {
		s.server.mu.Lock()
		defer s.server.mu.Unlock()
		return len(s.server.conns) == n
	})
}

func TestShutdownClosesWhatDoesNotEndInTime(t *testing.T) {
	begun, proceed := make(chan struct{}), make(chan struct{})
	s := ours(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		begun <- struct{}{}
		<-proceed
	}), nil)
	c := s.client(t)
	c.send(t, get)
	<-begun
	over := errors.New("time is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	if err := s.server.Shutdown(ctx, func() {}); !errors.Is(err, over) {
		t.Errorf("it returned %v", err)
	}
	c.ended(t)
	close(proceed)
}

func BenchmarkPlainRequest(b *testing.B) {
	body := []byte(strings.Repeat("x", 1024))
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h["Content-Length"], h["Content-Type"] = []string{"1024"}, []string{"text/plain"}
		_, _ = w.Write(body)
	})
	request := []byte("GET /a HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
	for name, s := range map[string]*side{"http1": ours(b, h, nil), "net/http": std(b, h)} {
		b.Run(name, func(b *testing.B) {
			c := s.client(b)
			_ = c.SetDeadline(time.Time{})
			p := make([]byte, 4096)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(request); err != nil {
					b.Fatal(err)
				}
				for n := 0; n < len(body); {
					m, err := c.TCPConn.Read(p)
					if err != nil {
						b.Fatal(err)
					}
					n += m
				}
			}
		})
	}
}
