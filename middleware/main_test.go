package middleware

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTables holds a table that a test can swap.
type testTables struct{ atomic.Pointer[routing.Table] }

func (t *testTables) Table() *routing.Table { return t.Load() }

// buildTable makes a real table of route documents by name.
func buildTable(t testing.TB, prev *routing.Table, plugins routing.Plugins, routes map[string]string) *routing.Table {
	t.Helper()
	var docs []*discovery.Document
	for i, name := range slices.Sorted(maps.Keys(routes)) {
		docs = append(docs, &discovery.Document{
			Key: "/sluice/routes/" + name, Kind: discovery.KindRoute, Name: name, Source: discovery.SourceEtcd,
			Value: []byte(routes[name]), Revision: int64(i + 1), Created: int64(i + 1),
		})
	}
	return routing.Build(prev,
		discovery.Snapshot{States: map[string]discovery.State{
			discovery.SourceEtcd: {Revision: int64(len(docs)), Documents: discovery.NewDocuments(docs...)},
		}},
		routing.Deps{Plugins: plugins, Pool: balance.NewPool(), Now: time.Now})
}

// seen is a request as the forwarder got it.
type seen struct {
	Method, Host, Target, Query, Body string
	Header                            http.Header
	Trailer                           http.Header
	Client, Route                     string
	RequestID, TraceID                string
	BodyErr                           error
}

// upstream is a Forwarder that records and answers by itself.
type upstream struct {
	mu   sync.Mutex
	seen []seen
	// answer, if set, answers instead of "ok"; the body has not been read.
	answer func(w http.ResponseWriter, r *http.Request, x *routing.Exchange) *routing.Refusal
}

// answers sets answer for requests that come over UDP: what passes there is
// no order between goroutines that the race detector knows, as with TCP.
func (u *upstream) answers(f func(w http.ResponseWriter, r *http.Request, x *routing.Exchange) *routing.Refusal) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answer = f
}

func (u *upstream) Forward(w http.ResponseWriter, r *http.Request, x *routing.Exchange) *routing.Refusal {
	u.mu.Lock()
	answer := u.answer
	u.mu.Unlock()
	if answer != nil {
		return answer(w, r, x)
	}
	target, err := x.Match.Target()
	if err != nil {
		return &routing.Refusal{Code: routing.CodeBadRequest, Detail: err.Error()}
	}
	body, bodyErr := io.ReadAll(r.Body)
	u.mu.Lock()
	u.seen = append(u.seen, seen{
		Method: r.Method, Host: r.Host, Target: target, Query: r.URL.RawQuery, Body: string(body),
		Header: r.Header.Clone(), Trailer: r.Trailer.Clone(), Client: x.Client.String(), Route: x.Match.Route.Name,
		RequestID: x.RequestID, TraceID: x.TraceID, BodyErr: bodyErr,
	})
	u.mu.Unlock()
	if bodyErr != nil {
		return &routing.Refusal{Code: routing.CodeBadRequest, Detail: "the body could not be read", Cause: bodyErr}
	}
	w.Header().Set("X-Request-ID", "the instance's own")
	_, _ = io.WriteString(w, "ok")
	return nil
}

func (u *upstream) requests() []seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.seen)
}

// lines is a log that a test can read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// gateway is an engine behind a real listener.
type gateway struct {
	t        testing.TB
	engine   *Engine
	server   *Server
	addr     string
	tables   *testTables
	upstream *upstream
	log      *lines
	registry *prometheus.Registry
}

// setup is what a test changes of the default gateway.
type setup struct {
	config func(*Config)
	server func(*ServerConfig)
	routes map[string]string
	steps  []step
	secure bool
	// http3 speaks that too, with a certificate for one.test.
	http3 bool
	// tune changes the server before it serves.
	tune func(*http.Server)
}

// anyRoute sends everything to one service.
var anyRoute = map[string]string{"any": `{"path":"/*","service":"any"}`}

func start(t testing.TB, s setup) *gateway {
	t.Helper()
	g := newGateway(t, s)
	cfg := DefaultServerConfig()
	if s.server != nil {
		s.server(&cfg)
	}
	if s.http3 && cfg.TLS.Certificates == nil {
		one, _ := certificate(t, "one.test")
		cfg.TLS.Certificates = []CertificateFiles{one}
	}
	srv, err := NewServer(cfg, g.engine, g.registry, slog.New(slog.NewTextHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	if s.tune != nil {
		s.tune(srv.http)
	}
	ln, err := srv.Listen(t.Context(), "127.0.0.1:0", s.secure || s.http3)
	if err != nil {
		t.Fatal(err)
	}
	g.server, g.addr = srv, ln.Addr().String()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	if s.http3 {
		g.serveHTTP3()
	}
	t.Cleanup(func() {
		_ = srv.http.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return g
}

// newGateway makes the engine alone.
func newGateway(t testing.TB, s setup) *gateway {
	t.Helper()
	if s.steps == nil {
		s.steps = order()
	}
	if s.routes == nil {
		s.routes = anyRoute
	}
	g := &gateway{t: t, tables: &testTables{}, upstream: &upstream{}, log: &lines{}, registry: prometheus.NewRegistry()}
	plugins := newPlugins(quiet(), s.steps)
	table := buildTable(t, nil, plugins, s.routes)
	for _, p := range table.Problems() {
		if !strings.Contains(p.Key, "broken") {
			t.Fatalf("%s: %s", p.Key, p.Message)
		}
	}
	g.tables.Store(table)
	cfg := DefaultConfig()
	if s.config != nil {
		s.config(&cfg)
	}
	var err error
	g.engine, err = New(cfg, Deps{Plugins: plugins, Tables: g.tables, Forwarder: g.upstream, Registerer: g.registry,
		Log: slog.New(slog.NewJSONHandler(g.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// quiet is a registry that logs nothing and knows no Redis.
func quiet() *Registry { return NewRegistry(slog.New(slog.DiscardHandler), nil) }

// dial opens a raw connection that fails rather than hangs.
func (g *gateway) dial() *wire {
	g.t.Helper()
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &wire{t: g.t, Conn: c, r: bufio.NewReader(c)}
}

// wire is a connection to speak HTTP/1 on by hand.
type wire struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

// reply is an answer read off a wire.
type reply struct {
	*http.Response
	Text string
}

// send writes text, with \n for CRLF.
func (w *wire) send(text string) {
	w.t.Helper()
	w.sendRaw(strings.ReplaceAll(text, "\n", "\r\n"))
}

// sendRaw writes text as it is. A connection that the gateway has closed
// already takes no more, which is for the reader to see.
func (w *wire) sendRaw(text string) { _, _ = io.WriteString(w.Conn, text) }

// answer reads one response to a request of the method.
func (w *wire) answer(method string) reply {
	w.t.Helper()
	resp, err := http.ReadResponse(w.r, &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("read the answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatalf("read the answer's body: %v", err)
	}
	return reply{resp, string(body)}
}

// closed says whether the gateway ends the connection without another byte.
func (w *wire) closed() bool {
	w.t.Helper()
	_, err := w.r.ReadByte()
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		return false
	}
	return err != nil
}

// exchange sends one request on a connection of its own.
func (g *gateway) exchange(text string) (reply, *wire) {
	g.t.Helper()
	w := g.dial()
	w.send(text)
	method, _, _ := strings.Cut(text, " ")
	return w.answer(method), w
}

// wantRefusal checks an answer of the gateway's own.
func wantRefusal(t testing.TB, got reply, status int, code routing.Code) {
	t.Helper()
	if got.StatusCode != status || !strings.Contains(got.Text, fmt.Sprintf("%q:%q", "code", code)) ||
		got.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("answer is %d %q, want %d %s", got.StatusCode, got.Text, status, code)
	}
	if got.Header.Get("X-Request-ID") == "" {
		t.Error("the answer has no X-Request-ID")
	}
}

// eventually waits for a condition that needs no clock of its own.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	testenv.Eventually(t, 10*time.Second, what, ok)
}

// newRequest makes a request and a recorder for tests without a server.
func newRequest(method, target string) (*http.Request, *httptest.ResponseRecorder) {
	return httptest.NewRequest(method, target, nil), httptest.NewRecorder()
}
