package http1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strings"
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

// behaviours are handlers by path.
var behaviours = map[string]func(w http.ResponseWriter, r *http.Request){
	"/silent": func(http.ResponseWriter, *http.Request) {},
	"/short":  func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "short") },
	"/empty":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(nil) },
	"/html":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
	"/2048":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 2048)) },
	"/2049":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 2049)) },
	"/pieces": pieces(300, 100),
	"/large":  pieces(5000, 20),
	"/huge":   pieces(1<<20, 3),
	"/length": func(w http.ResponseWriter, _ *http.Request) { length(w, "5"); _, _ = io.WriteString(w, "fiver") },
	"/long":   func(w http.ResponseWriter, _ *http.Request) { length(w, "70000"); pieces(7000, 10)(w, nil) },
	"/short0": func(w http.ResponseWriter, _ *http.Request) { length(w, "0") },
	"/less":   func(w http.ResponseWriter, _ *http.Request) { length(w, "9"); _, _ = io.WriteString(w, "less") },
	"/more":   more,
	"/204":    status(204),
	"/204body": func(w http.ResponseWriter, _ *http.Request) {
		length(w, "3")
		w.WriteHeader(204)
		_, _ = io.WriteString(w, "abc")
	},
	"/304":   func(w http.ResponseWriter, _ *http.Request) { length(w, "3"); typed(w, "text/css"); w.WriteHeader(304) },
	"/404":   func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) },
	"/299":   status(299),
	"/twice": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201); w.WriteHeader(500) },
	"/late":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200); w.Header().Set("X-Late", "1") },
	"/typed": func(w http.ResponseWriter, _ *http.Request) {
		typed(w, "text/x-own")
		_, _ = io.WriteString(w, "<html>")
	},
	"/untyped": func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		_, _ = io.WriteString(w, "a")
	},
	"/zipped": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, "a")
	},
	"/dated":   func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Date", "then") },
	"/undated": func(w http.ResponseWriter, _ *http.Request) { w.Header()["Date"] = nil },
	"/close": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		_, _ = io.WriteString(w, "bye")
	},
	"/keep": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "keep-alive")
		_, _ = io.WriteString(w, "hi")
	},
	"/token": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "X-Hop, Close")
		_, _ = io.WriteString(w, "hi")
	},
	"/odd": func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["X-Odd"] = []string{"a\r\nX-Split: b", "\x00"}
		w.Header()["Not A Name"] = []string{"a"}
		w.Header()["x-lower"] = []string{"a", "b"}
	},
	"/identity": func(w http.ResponseWriter, _ *http.Request) {
		coding(w, "identity")
		_, _ = io.WriteString(w, "until the end")
	},
	"/chunked": func(w http.ResponseWriter, _ *http.Request) {
		coding(w, "chunked")
		_, _ = io.WriteString(w, "in chunks")
	},
	"/both": func(w http.ResponseWriter, _ *http.Request) {
		coding(w, "chunked")
		length(w, "4")
		_, _ = io.WriteString(w, "both")
	},
	"/flush": func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, "one")
		w.(http.Flusher).Flush()
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, "two")
	},
	"/flushed": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "one")
		_ = http.NewResponseController(w).Flush()
	},
	"/inform": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>")
		length(w, "2")
		w.WriteHeader(103)
		w.WriteHeader(199)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "ok")
	},
	"/trailers": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum, X-None, Content-Length")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "4")
		w.Header().Set(http.TrailerPrefix+"X-Further", "5")
	},
	"/trailing": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(http.TrailerPrefix+"X-Sum", "4")
		_, _ = io.WriteString(w, "body")
	},
	"/abort":   func(w http.ResponseWriter, _ *http.Request) { pieces(3000, 3)(w, nil); panic(http.ErrAbortHandler) },
	"/aborted": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	"/cut": func(w http.ResponseWriter, _ *http.Request) {
		length(w, "9000")
		pieces(5000, 1)(w, nil)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	},
	"/deadline": func(w http.ResponseWriter, _ *http.Request) {
		ctl := http.NewResponseController(w)
		err := errors.Join(ctl.SetReadDeadline(time.Now().Add(time.Hour)), ctl.SetWriteDeadline(time.Time{}), ctl.EnableFullDuplex())
		_, _ = fmt.Fprint(w, err)
	},
}

func status(code int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func length(w http.ResponseWriter, n string)  { w.Header().Set("Content-Length", n) }
func typed(w http.ResponseWriter, as string)  { w.Header().Set("Content-Type", as) }
func coding(w http.ResponseWriter, as string) { w.Header().Set("Transfer-Encoding", as) }

func pieces(size, n int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := range n {
			_, _ = w.Write(bytes.Repeat([]byte{'a' + byte(i%26)}, size))
		}
	}
}

func more(w http.ResponseWriter, _ *http.Request) {
	length(w, "4")
	n, err := io.WriteString(w, "more!")
	if n != 0 || !errors.Is(err, http.ErrContentLength) {
		panic(fmt.Sprint(n, err))
	}
}

// behave is the handler of all of them; other paths are told what they asked.
func behave(w http.ResponseWriter, r *http.Request) {
	if b, ok := behaviours[r.URL.Path]; ok {
		b(w, r)
		return
	}
	echo(w, r)
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	typed(w, "text/plain")
	_, _ = fmt.Fprintf(w, "%s %s %q %s host=%q header=%q coding=%q length=%d close=%t body=%q, %v trailer=%q tls=%v", r.Method, r.RequestURI, r.URL,
		r.Proto, r.Host, r.Header, r.TransferEncoding, r.ContentLength, r.Close, body, err, r.Trailer, r.TLS)
}

func compare(t *testing.T, a, b *side, raw string, methods ...string) {
	t.Helper()
	want, _ := a.talk(t, raw, methods...)
	got, _ := b.talk(t, raw, methods...)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%.200q\n got %.2000s\nwant %.2000s", raw, fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want))
	}
}

func TestAnswersAreThoseOfNetHTTP(t *testing.T) {
	theirs, own := std(t, http.HandlerFunc(behave)), ours(t, http.HandlerFunc(behave), nil)
	for path := range behaviours {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(method+path, func(t *testing.T) {
				ask := func(path string) string { return method + " " + path + " HTTP/1.1\r\nHost: a\r\n\r\n" }
				before := own.handed.taken()
				compare(t, theirs, own, ask(path), method)
				if own.handed.taken() != before {
					t.Error("it was handed over")
				}
			})
		}
	}
}

// Whether another request may follow an answer is part of it.
func TestAConnectionServesOnWhereThatOfNetHTTPDoes(t *testing.T) {
	theirs, own := std(t, http.HandlerFunc(behave)), ours(t, http.HandlerFunc(behave), nil)
	for path := range behaviours {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(method+path, func(t *testing.T) {
				var kept [2]bool
				for i, s := range []*side{theirs, own} {
					c, err := net.Dial("tcp", s.addr)
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					_ = c.SetDeadline(time.Now().Add(20 * time.Second))
					in := bufio.NewReader(c)
					_, _ = fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: a\r\n\r\n", method, path)
					for final := false; !final; {
						resp, err := http.ReadResponse(in, &http.Request{Method: method})
						if err != nil {
							break
						}
						_, _ = io.Copy(io.Discard, resp.Body)
						final = resp.StatusCode >= 200
					}
					_, _ = io.WriteString(c, "GET /short HTTP/1.1\r\nHost: a\r\n\r\n")
					resp, err := http.ReadResponse(in, nil)
					kept[i] = err == nil && resp.StatusCode == 200
				}
				if kept[0] != kept[1] {
					t.Errorf("net/http kept it: %t, here: %t", kept[0], kept[1])
				}
			})
		}
	}
}

// requests that are plain, and such that are not.
var requests = []struct {
	name, raw string
	plain     bool
	methods   []string
}{
	{name: "GET", raw: "GET / HTTP/1.1\r\nHost: a\r\n\r\n", plain: true},
	{name: "HEAD", raw: "HEAD /a?b=c HTTP/1.1\r\nHost: a:80\r\nAccept: */*\r\naccept: b\r\n\r\n", plain: true, methods: []string{"HEAD"}},
	{name: "keep-alive", raw: "GET / HTTP/1.1\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", plain: true},
	{name: "escapes", raw: "GET /%2e%2E/a%20b;c?x=%zz#f HTTP/1.1\r\nHost: a\r\n\r\n", plain: true},
	{name: "two slashes", raw: "GET //b/c HTTP/1.1\r\nHost: a\r\n\r\n", plain: true},
	{name: "Pragma", raw: "GET / HTTP/1.1\r\nHost: a\r\nPragma: no-cache\r\n\r\n", plain: true},
	{name: "lines ended by LF but the last", raw: "GET / HTTP/1.1\nHost: a\n\r\n", plain: false},
	{name: "an end before the end", raw: "GET / HTTP/1.1\nHost: a\n\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "a folded line", raw: "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", plain: true},
	{name: "close", raw: "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"},
	{name: "a hop's field", raw: "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-A\r\nX-A: 1\r\n\r\n"},
	{name: "two of Connection", raw: "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n"},
	{name: "HTTP/1.0", raw: "GET / HTTP/1.0\r\nHost: a\r\n\r\n"},
	{name: "HTTP/1.0 kept", raw: "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"},
	{name: "HTTP/1.2", raw: "GET / HTTP/1.2\r\nHost: a\r\n\r\n"},
	{name: "HTTP/2 by prior knowledge", raw: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
	{name: "POST", raw: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", methods: []string{"POST"}},
	{name: "POST without a body", raw: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", methods: []string{"POST"}},
	{name: "GET with a body", raw: "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"},
	{name: "GET with a body like an end", raw: "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\r\n\r\n"},
	{name: "GET with a body to come", raw: "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"},
	{name: "GET with an empty body", raw: "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"},
	{name: "GET in chunks", raw: "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{name: "length and chunks", raw: "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{name: "two lengths", raw: "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n"},
	{name: "an unknown coding", raw: "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"},
	{name: "a space before the colon", raw: "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n"},
	{name: "a trailer", raw: "GET / HTTP/1.1\r\nHost: a\r\nTrailer: X\r\n\r\n"},
	{name: "an upgrade", raw: "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
	{name: "expects", raw: "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n"},
	{name: "expects nonsense", raw: "GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n"},
	{name: "no host", raw: "GET / HTTP/1.1\r\n\r\n"},
	{name: "an empty host", raw: "GET / HTTP/1.1\r\nHost:\r\n\r\n"},
	{name: "two hosts", raw: "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
	{name: "a bad host", raw: "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"},
	{name: "a bad name", raw: "GET / HTTP/1.1\r\nHost: a\r\nX(: b\r\n\r\n"},
	{name: "NUL", raw: "GET / HTTP/1.1\r\nHost: a\r\nX: b\x00c\r\n\r\n"},
	{name: "a bare CR", raw: "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n"},
	{name: "an absolute target", raw: "GET http://b/c HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "an asterisk", raw: "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "CONNECT", raw: "CONNECT b:80 HTTP/1.1\r\nHost: b:80\r\n\r\n"},
	{name: "a bad escape", raw: "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "a space in the target", raw: "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "a line before", raw: "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "two at once", raw: "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"},
	{name: "two at once, the second odd", raw: "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nBREW\r\n\r\n"},
	{name: "a head without an end", raw: "GET / HTTP/1.1\r\nHost: a\r\n"},
	{name: "a head that is long", raw: "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", headSize) + "\r\n\r\n"},
	{name: "TLS", raw: "\x16\x03\x01\x00\x10"},
	{name: "nothing"},
}

func TestRequestsMeanWhatTheyMeanToNetHTTP(t *testing.T) {
	theirs, own := std(t, http.HandlerFunc(echo)), ours(t, http.HandlerFunc(echo), nil)
	for _, tc := range requests {
		t.Run(tc.name, func(t *testing.T) {
			before := own.handed.taken()
			compare(t, theirs, own, tc.raw, tc.methods...)
			if plain := own.handed.taken() == before; plain != tc.plain && tc.raw != "" {
				t.Errorf("plain is %t", plain)
			}
		})
	}
}

// FuzzRequestsMeanWhatTheyMeanToNetHTTP has both servers read the same bytes.
func FuzzRequestsMeanWhatTheyMeanToNetHTTP(f *testing.F) {
	for _, tc := range requests {
		f.Add(tc.raw)
	}
	f.Add("HEAD /pieces HTTP/1.1\r\nHost: a\r\n\r\n")
	theirs, own := std(f, http.HandlerFunc(echo)), ours(f, http.HandlerFunc(echo), nil)
	f.Fuzz(func(t *testing.T, raw string) {
		want, cut := theirs.talk(t, raw)
		got, short := own.talk(t, raw)
		if !cut && !short && !reflect.DeepEqual(got, want) {
			t.Errorf("%q\n got %+v\nwant %+v", raw, got, want)
		}
	})
}
