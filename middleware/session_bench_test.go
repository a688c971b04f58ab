package middleware

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/middleware/session"
	"github.com/sluice-gateway/sluice/middleware/store"
	"github.com/sluice-gateway/sluice/middleware/store/storetest"
	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// benchSession serves requests with a live session. The difference to
// BenchmarkEngineForward is what the plugin costs.
func benchSession(b *testing.B, redis *store.Redis) {
	b.Helper()
	b.Setenv("BENCH_SESSION_SECRET", strings.Repeat("s", session.MinSecret))
	log := slog.New(slog.DiscardHandler)
	plugins := newPlugins(NewRegistry(log, redis), order())
	table := buildTable(b, nil, plugins, map[string]string{"a": `{"path":"/*","service":"s","plugins":{"session":{
		"issuer":"https://accounts.test","client_id":"shop","secret_env":"BENCH_SESSION_SECRET",
		"claims_to_headers":{"sub":"X-User-ID","role":"X-User-Role"}}}}`})
	tables := &testTables{}
	tables.Store(table)
	forwarded := 0
	forwarder := &upstream{answer: func(w http.ResponseWriter, r *http.Request, _ *routing.Exchange) *routing.Refusal {
		if r.Header["X-User-Id"] != nil {
			forwarded++
		}
		w.WriteHeader(http.StatusOK)
		return nil
	}}
	cfg := DefaultConfig()
	cfg.AccessLog = false
	engine, err := New(cfg, Deps{Plugins: plugins, Tables: tables, Forwarder: forwarder, Registerer: prometheus.NewRegistry(), Log: log})
	if err != nil {
		b.Fatal(err)
	}
	slot, _ := plugins.Slot("session")
	config := table.Routes()[0].Plugins[slot].(*SessionConfig)
	id, err := config.keeper.Begin(b.Context(), "", &session.Session{Subject: "alice", Ends: time.Now().Add(time.Hour),
		IDToken: strings.Repeat("t", 1000), RefreshToken: strings.Repeat("r", 64), Fresh: time.Now().Add(time.Hour),
		Claims: map[string]any{"sub": "alice", "role": "user", "email": "alice@example.com", "groups": []any{"gold", "beta"}}}, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	value, err := config.signer.SignID(config.cookie(), id)
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/a/b", nil)
	cookies := []string{"theme=dark; " + config.cookie() + "=" + value}
	w := &nowhere{h: http.Header{}}
	b.ReportAllocs()
	begin, n := cpu(), 0
	for b.Loop() {
		clear(w.h)
		r.Header["Cookie"] = cookies
		delete(r.Header, "X-User-Id")
		engine.ServeHTTP(w, r)
		n++
	}
	b.ReportMetric(float64(cpu()-begin)/float64(b.N), "cpu-ns/op")
	if forwarded != n {
		b.Fatalf("%d of %d requests passed", forwarded, n)
	}
}

func BenchmarkSessionInMemory(b *testing.B) { benchSession(b, nil) }

// BenchmarkSessionInRedis is one round trip to a Redis beside it.
func BenchmarkSessionInRedis(b *testing.B) {
	benchSession(b, storetest.Open(b, testenv.StartRedis(b).Addr, time.Second))
}
