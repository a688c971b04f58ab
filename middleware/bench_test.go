package middleware

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// nowhere takes an answer at no cost.
type nowhere struct{ h http.Header }

func (w *nowhere) Header() http.Header         { return w.h }
func (w *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (w *nowhere) WriteHeader(int)             {}

func benchEngine(b *testing.B, log bool, steps []step, routes map[string]string) {
	b.Helper()
	g := newGateway(b, setup{steps: steps, routes: routes, config: func(c *Config) { c.AccessLog = log }})
	if log {
		g.engine.deps.Log = slog.New(slog.NewJSONHandler(discard{}, nil))
	}
	g.upstream.answer = func(w http.ResponseWriter, _ *http.Request, _ *routing.Exchange) *routing.Refusal {
		w.WriteHeader(200)
		return nil
	}
	r := httptest.NewRequest("GET", "/a/b", nil)
	for _, h := range []string{"Accept", "Accept-Encoding", "Accept-Language", "Cookie", "User-Agent", "Referer", "X-Api-Key", "Authorization"} {
		r.Header.Set(h, "some value")
	}
	w := &nowhere{h: http.Header{}}
	b.ReportAllocs()
	begin := cpu()
	for b.Loop() {
		clear(w.h)
		g.engine.ServeHTTP(w, r)
	}
	b.ReportMetric(float64(cpu()-begin)/float64(b.N), "cpu-ns/op")
}

// cpu is the processor time of this process in nanoseconds: unlike the
// clock's, it does not depend on what else the machine does.
func cpu() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkEngineRespondRoute(b *testing.B) {
	benchEngine(b, false, nil, map[string]string{"a": `{"path":"/a/*","respond":{"body":"ok"}}`})
}

// BenchmarkEngineForward is the chain around a forwarder that costs nothing.
func BenchmarkEngineForward(b *testing.B) { benchEngine(b, false, nil, nil) }

func BenchmarkEngineForwardWithAccessLog(b *testing.B) { benchEngine(b, true, nil, nil) }

// BenchmarkChainAbsentPlugins has twenty plugins that the route does not
// use: what it costs above BenchmarkEngineForward, over twenty, is the price
// of one.
func BenchmarkChainAbsentPlugins(b *testing.B) {
	var absent []*Plugin
	for i := range 20 {
		absent = append(absent, Define[testConfig](string(rune('a'+i)), func(*gin.Context, *routing.Exchange, *testConfig) {}))
	}
	benchEngine(b, false, withPlugins(absent...), nil)
}
