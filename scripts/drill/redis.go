package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/sluice-gateway/sluice/scripts/load"
	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// redisOutage freezes Redis and brings it back, and then kills it and brings
// it back, under a load on three routes whose limits lie in Redis: one that
// counts by itself meanwhile, one that allows and one that denies. No request
// of the first two may fail, and those of the third only while Redis is away.
func redisOutage(s *site) outcome {
	redis := testenv.StartRedis(s.p)
	routes := []string{"local", "allow", "deny"}
	docs := map[string]string{}
	for _, name := range routes {
		docs["/sluice/routes/"+name] = fmt.Sprintf(`{"path":"/%[1]s/*","service":"orders","plugins":{"rate_limit":{
			"limits":[{"requests":1000000,"per":"minute"}],"store":"redis","on_store_error":%[1]q}}}`, name)
	}
	revision := s.etcd.Apply(docs)
	g := s.gateway(testenv.GatewayOptions{Extra: fmt.Sprintf("redis:\n  address: %q\n", redis.Addr)})
	rig.AwaitApplied(s.p, g, revision)
	l := load.Start(load.Config{
		Rate: s.rate,
		Request: func(ctx context.Context, n int) (*http.Request, error) {
			return http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/%s/%d", g.URL(), routes[n%len(routes)], n), nil)
		},
		Tag: func(_ int, h http.Header, _ []byte) string { return h.Get("RateLimit-Policy") },
	})
	testenv.Eventually(s.p, 10*time.Second, "the load runs", func() bool { return l.Sent() > s.rate/2 })
	type span struct{ from, to time.Time }
	var away []span
	var effect []time.Duration
	for _, way := range []struct{ off, back func() }{{redis.Freeze, redis.Thaw}, {redis.Kill, redis.Restart}} {
		off := time.Now()
		way.off()
		s.hold(s.outage)
		way.back()
		back := time.Now()
		effect = append(effect, s.obeyed("the shared limits are in force again", g.URL()+"/deny/probe", back,
			func(status int, _ rig.Answer) bool { return status == http.StatusOK }))
		away = append(away, span{off, time.Now()})
		s.hold(2 * time.Second)
	}
	samples := l.Stop()
	var ours []load.Sample // without what the third route had to refuse
	var first, later []time.Duration
	denied := 0
	for _, sample := range samples {
		during := -1
		for i, a := range away {
			if !sample.Start.Add(sample.Took).Before(a.from) && sample.Start.Before(a.to) {
				during = i
			}
		}
		if during >= 0 && sample.Status == http.StatusServiceUnavailable && sample.Tag == "" {
			denied++
			continue
		}
		if during >= 0 {
			if sample.Start.Before(away[during].from.Add(time.Second)) {
				first = append(first, sample.Took)
			} else {
				later = append(later, sample.Took)
			}
		}
		ours = append(ours, sample)
	}
	o := count(ours)
	o.effect = effect
	o.note = fmt.Sprintf("Redis back to its limits in force; while away p99 %s in the first second, then %s; %d denied",
		round(load.Percentile(first, 99)), round(load.Percentile(later, 99)), denied)
	if denied == 0 {
		o.broken = "nothing was denied while Redis was away"
	}
	return o
}
