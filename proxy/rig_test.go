package proxy

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // http.Transport tells it of hostile instances
	goleak.VerifyTestMain(m)
}

// rig is a gateway of one route in front of given instances.
type rig struct {
	t       testing.TB
	f       *Forwarder
	obs     *counts
	service *routing.Service
	route   *routing.Route
	policy  balance.Policy
	// edge may change the request as the gateway's edge would.
	edge func(*http.Request, *routing.Exchange)
	// wrap may put a writer around the server's.
	wrap func(http.ResponseWriter) http.ResponseWriter

	server *httptest.Server
	done   chan routing.Exchange
}

// engineOfRigs is the engine that newRig's services ask for;
// TestTheStdEngineToo changes it.
var engineOfRigs = routing.EngineFast

// newRig prepares a gateway for instances at the addresses; start it with
// serve, after the test has set what it wants.
func newRig(t testing.TB, addresses ...string) *rig {
	t.Helper()
	obs := &counts{n: map[string]int{}, first: map[string]chan struct{}{}}
	f, err := New(Config{}, slog.New(slog.DiscardHandler), obs)
	if err != nil {
		t.Fatal(err)
	}
	g := &rig{
		t: t, f: f, obs: obs,
		policy: balance.Policy{Kind: balance.RoundRobin, ConsecutiveFailures: 3, BaseEjection: time.Minute, MaxEjectionPercent: 100},
		route:  &routing.Route{Name: "r", ServiceName: "s", Retries: -1, Timeout: 20 * time.Second, Spec: &routing.RouteSpec{Path: "/*"}},
		service: &routing.Service{
			Name:     "s",
			Upstream: routing.Upstream{Protocol: routing.ProtocolHTTP, Engine: engineOfRigs, Connect: 2 * time.Second},
			Retry:    routing.RetryPolicy{Attempts: 1, Connect: true, Reset: true, Timeout: true, BudgetPercent: 20},
		},
		done: make(chan routing.Exchange, 1024),
	}
	g.instances(addresses...)
	return g
}

// instances replaces the service's instances.
func (g *rig) instances(addresses ...string) {
	pool := balance.NewPool()
	g.service.Group = pool.Group("s")
	sub := &routing.Subset{}
	var members []balance.Member
	for i, a := range addresses {
		in := discovery.Instance{ID: fmt.Sprintf("i%d", i), Address: a, Weight: 1}
		e := pool.Endpoint("s", in)
		sub.Instances = append(sub.Instances, in)
		sub.Endpoints = append(sub.Endpoints, e)
		members = append(members, balance.Member{Endpoint: e, Weight: 1})
	}
	sub.Picker = balance.NewPicker(g.service.Group, g.policy, members)
	g.service.All = sub
}

func (g *rig) serve() *rig {
	g.server = httptest.NewUnstartedServer(g)
	g.server.Config.Protocols = new(http.Protocols)
	g.server.Config.Protocols.SetHTTP1(true)
	g.server.Config.Protocols.SetUnencryptedHTTP2(true)
	g.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	g.server.Start()
	g.t.Cleanup(func() {
		g.f.Close()
		g.server.Close()
	})
	return g
}

// ServeHTTP stands for the edge: it fills the Exchange, forwards and answers
// refusals.
func (g *rig) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &routing.Exchange{
		Start: time.Now(), RequestID: "req-1", TraceID: strings.Repeat("a", 32),
		Traceparent: "00-" + strings.Repeat("a", 32) + "-" + strings.Repeat("b", 16) + "-00",
		Client:      netip.MustParseAddr("127.0.0.1"),
		GRPC:        strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"),
	}
	x.Match.Route, x.Match.Service = g.route, g.service
	x.Match.Path = routing.Path{Forward: r.URL.EscapedPath(), Match: r.URL.EscapedPath()}
	if g.edge != nil {
		g.edge(r, x)
	}
	if g.wrap != nil {
		w = g.wrap(w)
	}
	defer func() { g.done <- *x }()
	refusal := g.f.Forward(w, r, x)
	if refusal == nil {
		return
	}
	x.Refused = refusal
	if x.GRPC {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", map[routing.Code]string{routing.CodeUpstreamTimeout: "4"}[refusal.Code])
		if w.Header().Get("Grpc-Status") == "" {
			w.Header().Set("Grpc-Status", "14")
		}
		return
	}
	if refusal.RetryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int(refusal.RetryAfter/time.Second)))
	}
	w.WriteHeader(refusal.Code.Status())
	_, _ = io.WriteString(w, string(refusal.Code))
}

func (g *rig) addr() string { return g.server.Listener.Addr().String() }

// exchange returns what became of the next request to finish.
func (g *rig) exchange() routing.Exchange {
	g.t.Helper()
	select {
	case x := <-g.done:
		return x
	case <-time.After(10 * time.Second):
		g.t.Fatal("the request did not end")
		panic("unreachable")
	}
}

// get sends a request with a client of its own and reads the whole answer.
func (g *rig) do(req *http.Request) (*http.Response, string, error) {
	g.t.Helper()
	tr := &http.Transport{DisableCompression: true}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func (g *rig) request(method, path string, body io.Reader) *http.Request {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), method, g.server.URL+path, body)
	if err != nil {
		g.t.Fatal(err)
	}
	return req
}

// mustGet wants an answer, whatever its status.
func (g *rig) mustGet(path string) (*http.Response, string) {
	g.t.Helper()
	resp, body, err := g.do(g.request("GET", path, nil))
	if err != nil {
		g.t.Fatal(err)
	}
	return resp, body
}

// raw sends bytes and returns the connection with a reader on it.
func (g *rig) raw(s string) (net.Conn, *bufio.Reader) {
	g.t.Helper()
	c, err := net.Dial("tcp", g.addr())
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := io.WriteString(c, s); err != nil {
		g.t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

// counts is an Observer for tests.
type counts struct {
	mu    sync.Mutex
	n     map[string]int
	first map[string]chan struct{} // closed at the first of its kind
}

// once is closed when the first k is counted; ask before it can be.
func (c *counts) once(k string) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan struct{})
	c.first[k] = ch
	return ch
}

func (c *counts) add(k string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[k] += n
	if ch := c.first[k]; ch != nil {
		close(ch)
		delete(c.first, k)
	}
}
func (c *counts) UpstreamResult(_, result string) { c.add(result, 1) }
func (c *counts) Retry(_, reason string)          { c.add("retry "+reason, 1) }
func (c *counts) Tunnels(_ string, delta int)     { c.add("tunnels", delta) }
func (c *counts) of(k string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n[k]
}

// upstream is an ordinary instance.
func upstream(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func addrOf(s *httptest.Server) string { return s.Listener.Addr().String() }

// hostile is an instance that does what a script says with each connection.
type hostile struct {
	addr  string
	conns atomic.Int64
}

// newHostile accepts connections and runs script on each, n counting from 1.
// The connection is closed after the script, unless the script did.
func newHostile(t testing.TB, script func(n int, c *net.TCPConn, br *bufio.Reader)) *hostile {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{addr: l.Addr().String()}
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			n := int(h.conns.Add(1))
			all.Go(func() {
				defer c.Close()
				script(n, c.(*net.TCPConn), bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return h
}

// readHead reads one request head and returns its lines.
func readHead(br *bufio.Reader) []string {
	var lines []string
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return nil
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			return lines
		}
		lines = append(lines, line)
	}
}

// reply answers every request on the connection with the same bytes.
func reply(s string) func(int, *net.TCPConn, *bufio.Reader) {
	return func(_ int, c *net.TCPConn, br *bufio.Reader) {
		for readHead(br) != nil {
			if _, err := io.WriteString(c, s); err != nil {
				return
			}
		}
	}
}

// reset closes the connection with an RST.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}

// refused is an address at which nothing listens.
func refused(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	testenv.Eventually(t, 10*time.Second, what, ok)
}
