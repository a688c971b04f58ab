package store_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/middleware/store"
	"github.com/sluice-gateway/sluice/middleware/store/storetest"
	"github.com/sluice-gateway/sluice/test/testenv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ping(r *store.Redis) error {
	return r.Do(context.Background(), func(ctx context.Context, c redis.UniversalClient) error { return c.Ping(ctx).Err() })
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	testenv.Eventually(t, 10*time.Second, what, is)
}

func TestR1AFrozenRedisIsLeftAloneUntilItIsBack(t *testing.T) {
	server := testenv.StartRedis(t)
	r := storetest.Open(t, server.Addr, 0)
	eventually(t, "it answers", func() bool { return ping(r) == nil })
	server.Freeze()
	tries := 0
	for !r.Away() {
		if err := ping(r); err == nil {
			t.Fatal("a frozen Redis answered")
		}
		if tries++; tries > 10 {
			t.Fatal("ten timeouts in a row do not make it away")
		}
	}
	called := false
	err := r.Do(context.Background(), func(context.Context, redis.UniversalClient) error { called = true; return nil })
	if !errors.Is(err, store.ErrAway) || called {
		t.Errorf("while away a call gave %v (tried: %v)", err, called)
	}
	server.Thaw()
	eventually(t, "it is used again", func() bool { return ping(r) == nil })
}

func TestR2ADeadRedisIsUsedAgainOnceItIsBack(t *testing.T) {
	server := testenv.StartRedis(t)
	r := storetest.Open(t, server.Addr, 0)
	eventually(t, "it answers", func() bool { return ping(r) == nil })
	server.Kill()
	eventually(t, "it counts as away", func() bool { return errors.Is(ping(r), store.ErrAway) })
	server.Restart()
	eventually(t, "it is used again", func() bool { return ping(r) == nil })
}

func TestWhatRedisSaysOfACommandIsNoSignOfItsHealth(t *testing.T) {
	r := storetest.Open(t, testenv.StartRedis(t).Addr, 0)
	for range 10 {
		err := r.Do(context.Background(), func(ctx context.Context, c redis.UniversalClient) error {
			return c.Do(ctx, "NOSUCHCOMMAND").Err()
		})
		if err == nil || errors.Is(err, store.ErrAway) {
			t.Fatalf("got %v", err)
		}
		err = r.Do(context.Background(), func(ctx context.Context, c redis.UniversalClient) error {
			return c.Get(ctx, "nothing").Err()
		})
		if !errors.Is(err, redis.Nil) {
			t.Fatalf("a missing key gave %v", err)
		}
	}
	gone, leave := context.WithCancel(context.Background())
	leave()
	for range 10 {
		if err := r.Do(gone, func(ctx context.Context, c redis.UniversalClient) error { return c.Ping(ctx).Err() }); !errors.Is(err, context.Canceled) {
			t.Fatalf("a caller that left got %v", err)
		}
	}
	if r.Away() {
		t.Error("it counts as away")
	}
}

func TestConfigurationNamesTheKey(t *testing.T) {
	for want, change := range map[string]func(*store.Config){
		"redis.address: is not HOST:PORT": func(c *store.Config) { c.Address = "localhost" },
		"redis.address: is empty":         func(c *store.Config) { c.Address, c.Password = "", "x" },
		"redis.timeout: is 0s":            func(c *store.Config) { c.Timeout = 0 },
		"redis.db: is 3":                  func(c *store.Config) { c.Cluster, c.DB = true, 3 },
		"redis.cluster: stands beside":    func(c *store.Config) { c.Cluster, c.SentinelMaster = true, "m" },
		"redis.password_file: open":       func(c *store.Config) { c.PasswordFile = "no such file" },
		"redis.password_file: stands":     func(c *store.Config) { c.PasswordFile, c.Password = "f", "s3cret" },
		"redis.tls.enabled: is false":     func(c *store.Config) { c.TLS.ServerName = "r" },
		"redis.tls.ca_file: open":         func(c *store.Config) { c.TLS = store.TLS{Enabled: true, CAFile: "no such file"} },
	} {
		cfg := store.Default()
		cfg.Address = "127.0.0.1:6379"
		change(&cfg)
		r, err := store.New(cfg, slog.New(slog.DiscardHandler))
		if err == nil {
			err = cfg.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("got %v, %v; want %q", r, err, want)
		}
	}
}
