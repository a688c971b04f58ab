package store_test

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/middleware/store"
	"github.com/sluice-gateway/sluice/middleware/store/storetest"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// open makes a running store of cfg.
func open(t *testing.T, cfg store.Config) *store.Redis {
	t.Helper()
	r, err := store.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	storetest.Run(t, r)
	return r
}

func TestR4ASentinelNamesTheMasterAlsoAfterAFailover(t *testing.T) {
	primary := testenv.StartRedis(t)
	host, port, _ := net.SplitHostPort(primary.Addr)
	testenv.StartRedis(t, "--replicaof", host+" "+port, "--repl-diskless-sync-delay", "0")
	sentinel := testenv.StartSentinel(t, "limits", primary)
	known := redis.NewSentinelClient(&redis.Options{Addr: sentinel.Addr})
	t.Cleanup(func() { _ = known.Close() })
	eventually(t, "the sentinel knows the replica", func() bool {
		replicas, err := known.Replicas(context.Background(), "limits").Result()
		return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok"
	})
	cfg := store.Default()
	cfg.Address, cfg.SentinelMaster = sentinel.Addr, "limits"
	r := open(t, cfg)
	set := func() bool {
		return r.Do(context.Background(), func(ctx context.Context, c redis.UniversalClient) error {
			return c.Set(ctx, "key", "value", 0).Err()
		}) == nil
	}
	eventually(t, "the master takes writes", set)
	primary.Kill()
	eventually(t, "the old master is missed", func() bool { return !set() })
	eventually(t, "the replica has taken over", set)
}

func TestEachDecisionsKeysLieInOneSlotOfACluster(t *testing.T) {
	node := testenv.StartRedis(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(testenv.FreePort(t)))
	direct := redis.NewClient(&redis.Options{Addr: node.Addr})
	t.Cleanup(func() { _ = direct.Close() })
	if err := direct.ClusterAddSlotsRange(context.Background(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	cfg := store.Default()
	cfg.Address, cfg.Cluster = node.Addr, true
	r := open(t, cfg)
	write := func(keys ...string) func() bool {
		return func() bool {
			return r.Do(context.Background(), func(ctx context.Context, c redis.UniversalClient) error {
				return c.Eval(ctx, "for _, k in ipairs(KEYS) do redis.call('SET', k, 1) end return 1", keys).Err()
			}) == nil
		}
	}
	eventually(t, "keys of one tag are written together", write("{a}1", "{a}2"))
	if write("a", "b")() {
		t.Error("keys of two slots were written together: this is no cluster")
	}
}
