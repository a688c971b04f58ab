// Package storetest opens stores for tests, on a real Redis.
package storetest

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/middleware/store"
)

// Open makes a running store on the Redis at address, until the test ends.
// timeout bounds each call; 0 is the gateway's default.
func Open(t testing.TB, address string, timeout time.Duration) *store.Redis {
	t.Helper()
	cfg := store.Default()
	cfg.Address = address
	if timeout > 0 {
		cfg.Timeout = timeout
	}
	r, err := store.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	Run(t, r)
	return r
}

// Run runs a store until the test ends.
func Run(t testing.TB, r *store.Redis) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
