package main

import (
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// redisOutage freezes Redis and brings it back, and then kills it and brings
// it back.
func redisOutage(s *site) outcome {
	redis := testenv.StartRedis(s.p)
	l := s.limited(fmt.Sprintf("redis:\n  address: %q\n", redis.Addr), redis)
	for _, way := range []struct{ off, back func() }{{redis.Freeze, redis.Thaw}, {redis.Kill, redis.Restart}} {
		l.outage(func() (back time.Time) {
			way.off()
			s.hold(s.outage)
			way.back()
			return time.Now()
		})
		l.inForce()
		s.hold(2 * time.Second)
	}
	return l.outcome("Redis back to its limits in force")
}

const (
	// sentinelDownAfter is how long a master is silent before the sentinel
	// acts, as testenv sets it.
	sentinelDownAfter = 500 * time.Millisecond
	// failoverBound is what a failover may take beyond that.
	failoverBound = 2 * time.Second
	// sentinelRest is how long a sentinel leaves a master alone after a
	// failover: twice the failover-timeout that testenv sets.
	sentinelRest = 10 * time.Second
)

// redisFailover kills the master of a Redis with a replica and a sentinel,
// which promotes the replica; the old master comes back as a replica. Then it
// freezes the new master, which makes the old one master again, and lets it
// go on: for a moment there are two that take themselves for the master.
func redisFailover(s *site) outcome {
	master := testenv.StartRedis(s.p, "--repl-diskless-sync-delay", "0")
	host, port, err := net.SplitHostPort(master.Addr)
	if err != nil {
		s.p.Fatalf("split %s: %v", master.Addr, err)
	}
	replica := testenv.StartRedis(s.p, "--replicaof", host, port, "--repl-diskless-sync-delay", "0")
	sentinel := newSentinel(s.p, master)
	sentinel.awaitReplica()
	l := s.limited(fmt.Sprintf("redis:\n  address: %q\n  sentinel_master: %s\n", sentinel.Addr, sentinelMaster), master, replica)
	l.spend("kept")
	for _, way := range []struct {
		off, back func()
		heir      *testenv.Redis
	}{{master.Kill, master.Restart, replica}, {replica.Freeze, replica.Thaw, master}} {
		s.hold(time.Second) // the replica has what was counted
		lost := time.Now()
		var named time.Time
		back := l.outage(func() time.Time {
			way.off()
			sentinel.awaitMaster(way.heir.Addr)
			named = time.Now()
			return named
		})
		l.note("%s until the replica was named", round(named.Sub(lost)))
		if took := back.Sub(lost) - sentinelDownAfter; took > failoverBound {
			l.fault("the limits were in force only %s after the loss", round(back.Sub(lost)))
		}
		l.inForce()
		if n := l.passed("kept", 5); n > 0 {
			l.fault("%d passed of a limit that was used up before the failover", n)
		}
		way.back()
		rested := time.Now().Add(sentinelRest)
		sentinel.awaitReplica()
		l.inForce()
		s.hold(time.Until(rested))
	}
	return l.outcome("replica named to the limits in force")
}

// status asks url with a tenant's name, once, and returns the answer's status.
func status(client *http.Client, url, tenant string) int {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	req.Header.Set("X-Tenant", tenant)
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
