package middleware_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/middleware"
	"github.com/sluice-gateway/sluice/proxy"
	"github.com/sluice-gateway/sluice/proxy/wire"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// BenchmarkPipeline is a request's whole walk through the gateway but for the
// server's own part: engine, match, plugins, pick, engine fast, 1 KiB back.
// The instance is a connection in memory, so that every allocation is the
// gateway's. Only the look at the idle connection asks the kernel.
func BenchmarkPipeline(b *testing.B) {
	for _, route := range []struct{ name, plugins string }{
		{"plain", ""},
		{"four_plugins", `"ip_filter":{"allow":["192.0.2.0/24"]},"ip_rate_limit":{"limits":[{"requests":1000000,"per":"second"}]},"body_limit":{"max_bytes":1048576},"rate_limit":{"limits":[{"requests":1000000,"per":"second"}],"key":"ip"}`},
	} {
		b.Run(route.name, func(b *testing.B) {
			engine := newPipeline(b, route.plugins)
			r := httptest.NewRequest("GET", "/some/path", nil)
			r.Header.Set("Accept", "*/*")
			r.Header.Set("User-Agent", "bench")
			w := &sink{h: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				w.status = 0
				engine.ServeHTTP(w, r)
				if w.status != http.StatusOK {
					b.Fatalf("answered %d", w.status)
				}
			}
		})
	}
}

// newPipeline is an engine whose one route leads to an instance in memory.
func newPipeline(b *testing.B, plugins string) *middleware.Engine {
	b.Helper()
	log := slog.New(slog.DiscardHandler)
	document := func(kind discovery.Kind, key, value string) *discovery.Document {
		return &discovery.Document{Key: key, Kind: kind, Name: "origin", Source: discovery.SourceEtcd, Value: []byte(value), Revision: 1, Created: 1}
	}
	compile := middleware.NewPlugins(middleware.NewRegistry(log, nil))
	table := routing.Build(nil, discovery.Snapshot{States: map[string]discovery.State{
		discovery.SourceEtcd: {Revision: 1, Documents: discovery.NewDocuments(
			document(discovery.KindRoute, "/sluice/routes/origin", fmt.Sprintf(`{"path":"/*","service":"origin","plugins":{%s}}`, plugins)),
			document(discovery.KindService, "/sluice/services/origin", `{"targets":[{"address":"127.0.0.1:9"}],"upstream":{"engine":"fast"}}`),
		)},
	}}, routing.Deps{Plugins: compile, Pool: balance.NewPool(), Now: time.Now})
	for _, p := range table.Problems() {
		b.Fatalf("%s: %s", p.Key, p.Message)
	}
	forwarder, err := proxy.New(proxy.Config{NewEngine: func(routing.Upstream) (proxy.Engine, error) { return newMemoryEngine() }},
		log, noObserver{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(forwarder.Close)
	cfg := middleware.DefaultConfig()
	cfg.AccessLog = false
	engine, err := middleware.New(cfg, middleware.Deps{Plugins: compile, Tables: oneTable{table}, Forwarder: forwarder, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	return engine
}

type oneTable struct{ t *routing.Table }

func (o oneTable) Table() *routing.Table { return o.t }

type noObserver struct{}

func (noObserver) UpstreamResult(_, _ string) {}
func (noObserver) Retry(_, _ string)          {}
func (noObserver) Tunnels(string, int)        {}

// memoryEngine is engine fast over connections in memory.
type memoryEngine struct{ *wire.Client }

func newMemoryEngine() (proxy.Engine, error) {
	client, err := wire.New(wire.Config{
		Dial:        func(context.Context, string) (net.Conn, error) { return newMemoryConn() },
		IdleTimeout: time.Minute, IdlePerAddress: 4, MaxHead: 1 << 16,
	})
	return memoryEngine{client}, err
}

func (e memoryEngine) RoundTrip(req *http.Request, trip *proxy.Trip) (*http.Response, error) {
	return e.Client.RoundTrip(req, trip, true)
}

// Connections implements proxy.Engine.
func (e memoryEngine) Connections(address string) (open, idle int, ok bool) {
	open, idle = e.Client.Connections(address)
	return open, idle, true
}

// Quick implements proxy.QuickEngine.
func (e memoryEngine) Quick() {}

// memoryConn answers each request head at once. Its socket is silent for
// ever: the client looks there before it uses a connection again.
type memoryConn struct {
	*net.UDPConn
	answer []byte
	left   []byte // of the answer under way
}

func newMemoryConn() (*memoryConn, error) {
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	return &memoryConn{UDPConn: socket, answer: []byte("HTTP/1.1 200 OK\r\nServer: memory\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n" +
		strings.Repeat("x", 1024))}, nil
}

func (c *memoryConn) Write(p []byte) (int, error) {
	if bytes.HasSuffix(p, []byte("\r\n\r\n")) {
		c.left = c.answer
	}
	return len(p), nil
}

func (c *memoryConn) Read(p []byte) (int, error) {
	if len(c.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.left)
	c.left = c.left[n:]
	return n, nil
}
