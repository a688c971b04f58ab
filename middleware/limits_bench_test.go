package middleware

import (
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/routing"
)

// benchPlugins measures the whole walk with plugins; without any it is what
// BenchmarkEngineForward measures.
func benchPlugins(b *testing.B, plugins string) {
	b.Helper()
	benchEngine(b, false, nil, map[string]string{"any": `{"path":"/*","service":"any","plugins":{` + plugins + `}}`})
}

func BenchmarkLimitsOff(b *testing.B) { benchPlugins(b, "") }

func BenchmarkIPRateLimit(b *testing.B) {
	benchPlugins(b, `"ip_rate_limit":{"limits":[{"requests":1000000,"per":"second"}]}`)
}

func BenchmarkRateLimitTwoWindows(b *testing.B) {
	benchPlugins(b, `"rate_limit":{"limits":[{"requests":1000000,"per":"second"},{"requests":1000000000,"per":"hour"}]}`)
}

func BenchmarkRateLimitRefusing(b *testing.B) {
	benchPlugins(b, `"rate_limit":{"limits":[{"requests":1,"per":"day"}]}`)
}

func BenchmarkMaxInFlight(b *testing.B) { benchPlugins(b, `"max_in_flight":{"requests":10}`) }

// BenchmarkRateDecision is the key and the decision, without the engine.
func BenchmarkRateDecision(b *testing.B) {
	config := &IPRateLimitConfig{LimitsConfig{Limits: []LimitConfig{{Requests: 1_000_000, Per: Period{"second", time.Second}}}}}
	if faults := config.Prepare(&Place{registry: quiet()}); faults != nil {
		b.Fatal(faults)
	}
	r, _ := newRequest("GET", "/")
	x := &routing.Exchange{Client: peerAddr("192.0.2.1:1234")}
	b.ReportAllocs()
	for b.Loop() {
		config.rates.decide(r, x)
	}
}
