package store

import (
	"context"
	"log/slog"
	"testing"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// The client's pool counts failed dials; at as many as it is large it used to
// refuse calls until a dial of its own, once a second, had succeeded.
func TestADeadRedisIsUsedAtOnceHoweverOftenItWasAskedInVain(t *testing.T) {
	server := testenv.StartRedis(t)
	cfg := Default()
	cfg.Address = server.Addr
	r, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer r.client.Close()
	server.Kill()
	for range 500 {
		if r.probe(context.Background()) {
			t.Fatal("a dead redis answered")
		}
	}
	server.Restart()
	if !r.probe(context.Background()) {
		t.Error("it answers, and is not asked")
	}
}
