package main

import (
	"context"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// sentinelMaster is the name by which the sentinel knows the master.
const sentinelMaster = "limits"

// sentinel is a running sentinel, and a client to ask it.
type sentinel struct {
	*testenv.Redis
	p      testenv.TB
	client *redis.SentinelClient
}

func newSentinel(p testenv.TB, master *testenv.Redis) *sentinel {
	s := &sentinel{Redis: testenv.StartSentinel(p, sentinelMaster, master), p: p}
	s.client = redis.NewSentinelClient(&redis.Options{Addr: s.Addr})
	p.Cleanup(func() { _ = s.client.Close() })
	return s
}

// awaitReplica waits until the master has a replica that follows it.
func (s *sentinel) awaitReplica() {
	testenv.Eventually(s.p, 60*time.Second, "the sentinel knows a replica that follows the master", func() bool {
		replicas, err := s.client.Replicas(context.Background(), sentinelMaster).Result()
		return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok" && replicas[0]["flags"] == "slave"
	})
}

// awaitMaster waits until the sentinel names addr as the master.
func (s *sentinel) awaitMaster(addr string) {
	testenv.Eventually(s.p, 60*time.Second, "the sentinel names the replica as the master", func() bool {
		named, err := s.client.GetMasterAddrByName(context.Background(), sentinelMaster).Result()
		return err == nil && len(named) == 2 && net.JoinHostPort(named[0], named[1]) == addr
	})
}
