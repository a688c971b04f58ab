package middleware_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/middleware/plugintest"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// held is an upstream that holds every request until it is let go.
type held struct {
	arrived, release chan struct{}
}

func newHeld() *held { return &held{make(chan struct{}, 100), make(chan struct{})} }

func (h *held) serve(w http.ResponseWriter, _ *http.Request) {
	h.arrived <- struct{}{}
	<-h.release
	w.WriteHeader(http.StatusNoContent)
}

func inFlight(requests int, key any) plugintest.Config {
	c := map[string]any{"requests": requests}
	if key != nil {
		c["key"] = key
	}
	return plugintest.Config{"max_in_flight": c}
}

func TestMaxInFlightBoundsWhatIsUnderWayByKey(t *testing.T) {
	h := newHeld()
	g := plugintest.Start(t, plugintest.Case{Plugins: inFlight(2, "ip"), Upstream: h.serve})
	var all sync.WaitGroup
	hold := func(address string) {
		all.Go(func() {
			if got := g.Do(from(address)).Response.Code; got != http.StatusNoContent {
				t.Errorf("one that was let through got %d", got)
			}
		})
		<-h.arrived
	}
	hold("192.0.2.1")
	hold("192.0.2.1")
	got := g.Do(from("192.0.2.1"))
	if got.Forwarded != nil || got.Response.Code != 429 || got.Code() != "rate_limited" || got.Response.Header().Get("Retry-After") != "1" {
		t.Errorf("a third got %d %s", got.Response.Code, got.Code())
	}
	hold("192.0.2.2") // another key
	if p := g.Configure(inFlight(3, "ip")); p != nil {
		t.Fatal(p)
	}
	hold("192.0.2.1") // more may come, and those under way still count
	if got := g.Do(from("192.0.2.1")); got.Code() != "rate_limited" {
		t.Errorf("a fourth got %d", got.Response.Code)
	}
	if p := g.Configure(plugintest.Config{}); p != nil {
		t.Fatal(p)
	}
	hold("192.0.2.1") // off
	close(h.release)
	all.Wait()
	if n := g.Rejections("max_in_flight"); n != 2 {
		t.Errorf("%v refusals were counted, want 2", n)
	}
}

func TestAPlaceIsGivenBackOnceHoweverTheRequestEnds(t *testing.T) {
	for name, upstream := range map[string]http.HandlerFunc{
		"an answer":       func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) },
		"a bug":           func(http.ResponseWriter, *http.Request) { panic("bug") },
		"a broken answer": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200); panic(http.ErrAbortHandler) },
		"an upgrade":      hijack,
		"an answer in two": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "a")
			_, _ = io.WriteString(w, "b")
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHeld()
			g := plugintest.Start(t, plugintest.Case{Plugins: inFlight(2, "route"), Upstream: func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/held" {
					h.serve(w, r)
					return
				}
				upstream(w, r)
			}})
			server := httptest.NewServer(g)
			defer server.Close()
			for range 5 { // more often than there are places
				testenv.Eventually(t, 10*time.Second, "there is a place", func() bool { return exchange(t, server) })
			}
			var all sync.WaitGroup
			hold := func() (passed bool) {
				refused := make(chan struct{})
				all.Go(func() {
					if g.Do(httptest.NewRequest("GET", "/held", nil)).Forwarded == nil {
						close(refused)
					}
				})
				select {
				case <-h.arrived:
					return true
				case <-refused:
					return false
				}
			}
			for range 2 {
				testenv.Eventually(t, 10*time.Second, "both places are free", hold)
			}
			if hold() {
				t.Error("there are more places than before")
			}
			close(h.release)
			all.Wait()
		})
	}
}

// hijack takes the connection over and ends it.
func hijack(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_ = conn.Close()
}

// exchange sends a request on a connection of its own and says whether it was
// let through, whatever came of it then.
func exchange(t *testing.T, server *httptest.Server) bool {
	t.Helper()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	answer, _ := io.ReadAll(conn) // one that was cut is one
	return !strings.HasPrefix(string(answer), "HTTP/1.1 429 ")
}

func TestManyAtOnceNeverExceedWhatMayBeInFlight(t *testing.T) {
	var under, most, served atomic.Int64
	g := plugintest.Start(t, plugintest.Case{Plugins: inFlight(3, "route"), Upstream: func(w http.ResponseWriter, _ *http.Request) {
		n := under.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		served.Add(1)
		w.WriteHeader(200)
		under.Add(-1)
	}})
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 200 {
				g.Do(from("192.0.2.1"))
			}
		})
	}
	all.Wait()
	if most.Load() > 3 || served.Load() < 200 {
		t.Errorf("%d were under way at once of %d served", most.Load(), served.Load())
	}
	if g.Do(from("192.0.2.1")).Response.Code != 200 {
		t.Error("afterwards one is refused")
	}
}

func TestMaxInFlightRefusesBadConfiguration(t *testing.T) {
	for _, c := range []struct {
		config map[string]any
		want   []string
	}{
		{map[string]any{}, []string{"requests: is 0; accepted is 1 to 1000000"}},
		{map[string]any{"requests": 5, "key": "tenant"}, []string{`key: is "tenant"; accepted are ip, consumer, claim:NAME, header:NAME, route`}},
		{map[string]any{"requests": 5, "ipv6_prefix": 200}, []string{"ipv6_prefix: is 200; accepted is 1 to 128"}},
		{map[string]any{"request": 5}, []string{"request: unknown field; accepted: ipv6_prefix, key, requests"}},
	} {
		for i := range c.want {
			c.want[i] = "plugins.max_in_flight." + c.want[i]
		}
		if got := plugintest.Faults("max_in_flight", c.config); !slices.Equal(got, c.want) {
			t.Errorf("%v: the faults are %q, want %q", c.config, got, c.want)
		}
	}
}
