package middleware

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestD8DrainingAsksClientsToGo(t *testing.T) {
	g := start(t, setup{})
	w := g.dial()
	w.send("GET / HTTP/1.1\nHost: a\n\n")
	if got := w.answer("GET"); got.Close {
		t.Fatal("a gateway that does not drain ended the connection")
	}
	g.engine.Drain()
	w.send("GET / HTTP/1.1\nHost: a\n\n")
	if got := w.answer("GET"); got.StatusCode != 200 || !got.Close || !w.closed() {
		t.Errorf("status %d, close %v", got.StatusCode, got.Close)
	}
	if got, _ := g.exchange("GET /health HTTP/1.1\nHost: a\n\n"); got.StatusCode != 503 {
		t.Errorf("health is %d", got.StatusCode)
	}
}

func TestD8DrainingSendsGoAwayOnHTTP2(t *testing.T) {
	g := start(t, setup{})
	client := h2c(t)
	get := func() {
		t.Helper()
		resp, err := client.Get("http://" + g.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || resp.Header.Get("Connection") != "" {
			t.Errorf("status %d, headers %v", resp.StatusCode, resp.Header)
		}
	}
	get()
	if n := g.server.limiter.connections(); n != 1 {
		t.Fatalf("%d connections are open", n)
	}
	g.engine.Drain()
	get()
	eventually(t, "the client leaves its connection", func() bool { return g.server.limiter.connections() == 0 })
}

// connections is the number of open connections.
func (l *limiter) connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// D8 and P11: the order that loses nothing: drain under load, let the load
// go elsewhere, shut down.
func TestP11NothingIsLostInAShutdownUnderLoad(t *testing.T) {
	g, other := start(t, setup{}), start(t, setup{})
	var mu sync.RWMutex // held for reading by a request, so that a change of target waits for it
	target := g.addr
	var closed atomic.Int64
	tr := &http.Transport{MaxIdleConnsPerHost: 16}
	defer tr.CloseIdleConnections()
	clients := testenv.StartClients(t, 8, func() error {
		mu.RLock()
		defer mu.RUnlock()
		req, _ := http.NewRequest("POST", "http://"+target+"/", strings.NewReader("body"))
		req.GetBody = nil // nothing that net/http could quietly send again
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.Close {
			closed.Add(1)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	})
	clients.Await(200)
	g.engine.Drain()
	eventually(t, "the clients are told to go", func() bool { return closed.Load() > 200 })
	mu.Lock()
	target = other.addr // as a load balancer that saw readiness fall
	mu.Unlock()
	if err := g.server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	clients.Await(100)
	clients.Stop()
}

func TestShutdownGivesRequestsUntilTheDeadline(t *testing.T) {
	g := start(t, setup{})
	started, hold := make(chan struct{}), make(chan struct{})
	g.upstream.answer = func(_ http.ResponseWriter, r *http.Request, _ *routing.Exchange) *routing.Refusal {
		close(started)
		<-r.Context().Done()
		close(hold)
		return &routing.Refusal{Code: routing.CodeClientClosed}
	}
	w := g.dial()
	w.send("GET / HTTP/1.1\nHost: a\n\n")
	<-started
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := g.server.Shutdown(ctx); err == nil {
		t.Error("the shutdown waited for nothing")
	}
	<-hold
}
