package wire

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestAConnectionThatWasClosedWhileIdle(t *testing.T) {
	// The first connection serves one request. Then it is closed: before the
	// next one, so that the look at the socket finds it; or when the next one
	// has come, so that it does not.
	tests := []struct {
		name, method, when string
		replay             bool
		want               string
		fails              bool
	}{
		{"is found by the look", "POST", "before", false, "asked fresh wrote answered", false},
		{"is replaced where the request may run twice", "PUT", "upon", true, "asked reused wrote asked fresh wrote answered", false},
		{"fails the request that may not", "POST", "upon", false, "asked reused wrote", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			served, closed := make(chan struct{}), make(chan struct{}, 1)
			at := peer(t, func(n int, c *net.TCPConn, br *bufio.Reader) {
				if n > 1 {
					answers(ok)(n, c, br)
					return
				}
				request(br)
				_, _ = io.WriteString(c, ok)
				<-served
				if tt.when == "upon" {
					closed <- struct{}{}
					request(br)
					return
				}
				c.Close()
				closed <- struct{}{}
			})
			c := newClient(t, nil)
			if _, body, _, err := get(t, c, at); err != nil || body != "ok" {
				t.Fatal(body, err)
			}
			close(served)
			<-closed
			n := &note{}
			resp, err := c.RoundTrip(newRequest(t, t.Context(), tt.method, at, "data"), n, tt.replay)
			if (err != nil) != tt.fails || n.String() != tt.want {
				t.Errorf("went %q, %v", n, err)
			}
			if err == nil {
				b, _ := io.ReadAll(resp.Body)
				if resp.Body.Close(); string(b) != "ok" {
					t.Errorf("got %q", b)
				}
			}
		})
	}
}

// Once a byte of the answer came, the request ran: it is not sent again.
func TestAnAnswerThatBreaksOffIsNotAskedForAgain(t *testing.T) {
	var conns atomic.Int64
	at := peer(t, func(n int, c *net.TCPConn, br *bufio.Reader) {
		conns.Store(int64(n))
		request(br)
		_, _ = io.WriteString(c, ok)
		request(br)
		_, _ = io.WriteString(c, "H")
	})
	c := newClient(t, nil)
	_, _, _, _ = get(t, c, at)
	if _, _, n, err := get(t, c, at); err == nil || n.String() != "asked reused wrote answered" || conns.Load() != 1 {
		t.Errorf("went %q over %d connections, %v", n, conns.Load(), err)
	}
}

// Bytes that come while a connection is idle belong to no request.
func TestUnsolicitedBytesAreNoAnswer(t *testing.T) {
	sent := make(chan struct{}, 1)
	at := peer(t, func(n int, c *net.TCPConn, br *bufio.Reader) {
		for request(br) != "" {
			_, _ = io.WriteString(c, ok)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
			sent <- struct{}{}
		}
	})
	c := newClient(t, nil)
	for range 5 {
		_, body, n, err := get(t, c, at)
		if err != nil || body != "ok" || n.steps[1] != "fresh" {
			t.Errorf("got %q by %q, %v", body, n, err)
		}
		<-sent
	}
}

func TestAContextThatEndsInterruptsAtOnce(t *testing.T) {
	cause := errors.New("the client left")
	const begun = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
	for name, answer := range map[string]string{
		"waiting for the head": "", "in the head": "HTTP/1.1 200", "in the body": begun,
		"between chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			waiting, gone := make(chan struct{}, 1), make(chan struct{}, 1)
			at := peer(t, func(n int, c *net.TCPConn, br *bufio.Reader) {
				request(br)
				_, _ = io.WriteString(c, answer)
				waiting <- struct{}{}
				_, _ = io.Copy(io.Discard, br)
				gone <- struct{}{}
			})
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				<-waiting
				cancel(cause)
			}()
			// The bound is there to be undone by no one.
			c := newClient(t, func(c *Config) { c.ResponseHeader = time.Minute })
			resp, err := c.RoundTrip(newRequest(t, ctx, "GET", at, ""), &note{}, true)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if !errors.Is(err, cause) {
				t.Errorf("got %v", err)
			}
			<-gone
		})
	}
	t.Run("before it began", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		n := &note{}
		if _, err := newClient(t, nil).RoundTrip(newRequest(t, ctx, "GET", "127.0.0.1:1", ""), n, true); !errors.Is(err, cause) || n.String() != "asked" {
			t.Errorf("went %q, %v", n, err)
		}
	})
}

// A connection is free before its response's reader knows, and the context
// may end at that very moment: no later exchange may feel it.
func TestAnInterruptNeverReachesTheNextExchange(t *testing.T) {
	at := peer(t, answers(ok))
	c := newClient(t, nil)
	for i := range 2000 {
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := c.RoundTrip(newRequest(t, ctx, "GET", at, ""), &note{}, true)
		if err != nil {
			t.Fatal(err)
		}
		go cancel()
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if _, body, _, err := get(t, c, at); err != nil || body != "ok" {
			t.Fatalf("exchange %d: %q, %v", i, body, err)
		}
	}
}

func TestTheResponseHeadIsBoundedAndItsBodyIsNot(t *testing.T) {
	const bound = 30 * time.Millisecond
	short := func(c *Config) { c.ResponseHeader = bound }
	t.Run("no head", func(t *testing.T) {
		at := peer(t, func(_ int, _ *net.TCPConn, br *bufio.Reader) { _, _ = io.Copy(io.Discard, br) })
		_, _, n, err := get(t, newClient(t, short), at)
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) || n.String() != "asked fresh wrote" {
			t.Errorf("went %q, %v", n, err)
		}
	})
	t.Run("a slow body, and a slow head after it", func(t *testing.T) {
		at := peer(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
			request(br)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
			<-time.After(3 * bound) // longer than a head may take
			_, _ = io.WriteString(c, "k")
			_, _ = io.Copy(io.Discard, br)
		})
		c := newClient(t, short)
		if _, body, _, err := get(t, c, at); err != nil || body != "ok" {
			t.Errorf("got %q, %v", body, err)
		}
		if _, _, n, err := get(t, c, at); !errors.Is(err, os.ErrDeadlineExceeded) || n.steps[1] != "reused" {
			t.Errorf("went %q, %v", n, err)
		}
	})
}

func TestInformationalResponses(t *testing.T) {
	at := peer(t, answers("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+ok))
	c := newClient(t, nil)
	for range 2 { // 100 is swallowed, and nothing is left over
		if _, body, n, err := get(t, c, at); err != nil || body != "ok" || !slices.Equal(n.infos, []int{102, 103}) {
			t.Errorf("got %q after %v, %v", body, n.infos, err)
		}
	}
	n := &note{inform: errors.New("no more")}
	if _, err := c.RoundTrip(newRequest(t, t.Context(), "GET", at, ""), n, true); !errors.Is(err, n.inform) {
		t.Errorf("got %v", err)
	}
}

// Data is handed over when it came, not when the next chunk or the trailers
// have come.
func TestChunksAreHandedOverAsTheyCome(t *testing.T) {
	next := make(chan string)
	at := peer(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
		request(br)
		for s := range next {
			_, _ = io.WriteString(c, s)
		}
	})
	go func() { next <- "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" }()
	resp, err := newClient(t, nil).RoundTrip(newRequest(t, t.Context(), "GET", at, ""), &note{}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, step := range []struct{ send, want string }{
		{"1\r\na\r\n", "a"}, {"1\r\nb", "b"}, {"\r\n1\r\nc\r\n1", "c"}, {"\r\nd\r\n2\r\ne", "de"}, {"f\r\n0\r\n", "f"},
	} {
		next <- step.send
		got := ""
		for p := make([]byte, 100); len(got) < len(step.want); {
			n, err := resp.Body.Read(p)
			if err != nil {
				t.Fatal(err)
			}
			got += string(p[:n])
		}
		if got != step.want {
			t.Errorf("after %q came %q", step.send, got)
		}
	}
	next <- "X-Sum: 1\r\n\r\n"
	close(next)
	if b, err := io.ReadAll(resp.Body); len(b) != 0 || err != nil || resp.Trailer.Get("X-Sum") != "1" {
		t.Errorf("got %q, %v with %v", b, err, resp.Trailer)
	}
}

func TestRequestsThatCannotBeSent(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"a name with a colon":    func(r *http.Request) { r.Header["A:b"] = []string{"1"} },
		"a value with CRLF":      func(r *http.Request) { r.Header["A"] = []string{"1\r\nB: 2"} },
		"a value with a NUL":     func(r *http.Request) { r.Header["A"] = []string{"\x00"} },
		"a method with a blank":  func(r *http.Request) { r.Method = "GET /evil" },
		"a target with a blank":  func(r *http.Request) { r.URL.Opaque = "/a b" },
		"a target with CRLF":     func(r *http.Request) { r.URL.Opaque = "/a\r\nb" },
		"a body that is shorter": func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("abc")), 4 },
		"a body that is longer":  func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("abc")), 2 },
		"a body that fails": func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(io.MultiReader(strings.NewReader("abc"), failing{})), 4
		},
	} {
		t.Run(name, func(t *testing.T) {
			at := peer(t, func(_ int, _ *net.TCPConn, br *bufio.Reader) { t.Error("a connection was made") })
			req := newRequest(t, t.Context(), "POST", at, "")
			change(req)
			n := &note{}
			if _, err := newClient(t, nil).RoundTrip(req, n, true); err == nil || n.String() != "" {
				t.Errorf("went %q, %v", n, err)
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the client's body is malformed") }

func TestRequestsThatDoNotFit(t *testing.T) {
	tests := map[string]func(*http.Request){
		"an upgrade":              func(r *http.Request) { r.Header["Upgrade"] = []string{"websocket"} },
		"Expect":                  func(r *http.Request) { r.Header["Expect"] = []string{"100-continue"} },
		"Connection":              func(r *http.Request) { r.Header["Connection"] = []string{"close"} },
		"Transfer-Encoding":       func(r *http.Request) { r.Header["Transfer-Encoding"] = []string{"chunked"} },
		"trailers":                func(r *http.Request) { r.Trailer = http.Header{"X": nil} },
		"CONNECT":                 func(r *http.Request) { r.Method = "CONNECT" },
		"another scheme":          func(r *http.Request) { r.URL.Scheme = "ftp" },
		"a name to be encoded":    func(r *http.Request) { r.Host = "münchen.example" },
		"a zone":                  func(r *http.Request) { r.Host = "[fe80::1%eth0]" },
		"no host":                 func(r *http.Request) { r.Host = "" },
		"a length without a body": func(r *http.Request) { r.ContentLength = 5 },
		"a body without a length": func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("x")) },
		"a connection of its own": func(r *http.Request) { r.Close = true },
	}
	for name, change := range tests {
		req := newRequest(t, t.Context(), "POST", "127.0.0.1:80", "")
		if !Fits(req) {
			t.Fatal("an ordinary request does not fit")
		}
		if change(req); Fits(req) {
			t.Errorf("%s fits", name)
		}
	}
}

func TestNewWantsBounds(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a client without a dial function was made")
	}
}

// BenchmarkInterrupt is what it costs to have an exchange end with its
// context.
func BenchmarkInterrupt(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	f := func() {}
	b.ReportAllocs()
	for b.Loop() {
		context.AfterFunc(ctx, f)()
	}
}

// BenchmarkExchange is one exchange over a kept connection, quick or watched
// from the start; the figures include a peer that allocates nothing.
func BenchmarkExchange(b *testing.B) {
	at := peer(b, func(_ int, c *net.TCPConn, _ *bufio.Reader) {
		answer, p := []byte(ok), make([]byte, 4<<10)
		for {
			if n, err := c.Read(p); n == 0 || err != nil {
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	})
	for name, trace := range map[string]*silentTrace{
		"quick": {ctx: b.Context(), room: new(Room)}, "watched": {},
	} {
		b.Run(name, func(b *testing.B) {
			c := newClient(b, nil)
			req := newRequest(b, b.Context(), "GET", at, "")
			var p [64]byte
			b.ReportAllocs()
			for b.Loop() {
				resp, err := c.RoundTrip(req, trace, true)
				if err != nil {
					b.Fatal(err)
				}
				for err == nil {
					_, err = resp.Body.Read(p[:])
				}
			}
		})
	}
}

type silentTrace struct {
	ctx  context.Context
	room *Room
}

func (*silentTrace) Asked()                          {}
func (*silentTrace) Connected(bool)                  {}
func (*silentTrace) Wrote()                          {}
func (*silentTrace) Answered()                       {}
func (*silentTrace) Informed(int, http.Header) error { return nil }
func (*silentTrace) Fresh() bool                     { return false }
func (s *silentTrace) Quick() bool                   { return s.ctx != nil }
func (s *silentTrace) Watch() context.Context        { return s.ctx }
func (s *silentTrace) Room() *Room                   { return s.room }
