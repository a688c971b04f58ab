package proxy

import (
	"net/http"
	"time"

	"github.com/sluice-gateway/sluice/routing/balance"
)

// hedgeable reports whether a second attempt may run beside the first: reads
// without a body, which nothing but the instance can be slow with.
func (c *call) hedgeable() bool {
	return c.svc.Hedge > 0 && c.body == nil && !c.upgrade && !c.x.GRPC &&
		(c.r.Method == http.MethodGet || c.r.Method == http.MethodHead)
}

// hedge makes the first attempt and, when it has not answered in time, a
// second one at another instance. The first to answer wins; the other is
// cancelled and says nothing about its instance.
func (c *call) hedge(pick balance.Pick) *attempt {
	answers := make(chan *attempt, 2)
	start := func(p balance.Pick) *attempt {
		a := c.attempt(p, true)
		go func() {
			a.send(c.engine, c.svc.Retry.PerTry)
			answers <- a
		}()
		return a
	}
	first := start(pick)
	timer := time.NewTimer(c.svc.Hedge)
	defer timer.Stop()
	select {
	case a := <-answers:
		return a
	case <-timer.C:
	}

	c.query.Tried = append(c.query.Tried, pick.Endpoint)
	var second *attempt
	if c.svc.Group.AllowRetry(c.svc.Retry.BudgetPercent) {
		if p, err := c.pick(); err == nil {
			c.f.obs.Retry(c.svc.Name, "hedge")
			second = start(p)
		}
	}
	a := <-answers
	if second == nil {
		return a
	}
	if c.judge(a).good() { // the common end
		loser := first
		if a == first {
			loser = second
		}
		loser.cancel(errHedgeLost)
		go func() { (<-answers).finish(balance.Neutral) }()
		c.x.Instance = a.pick.Endpoint.ID()
		return a
	}
	b := <-answers
	better, worse := b, a
	if v := c.judge(b); !v.good() && a.resp != nil && b.resp == nil {
		better, worse = a, b
	}
	worse.finish(c.judge(worse).result)
	c.query.Tried = append(c.query.Tried, second.pick.Endpoint)
	c.x.Instance = better.pick.Endpoint.ID()
	return better
}

// good reports whether the attempt has a response that ends the call.
func (v verdict) good() bool { return v.refusal == nil && v.reason == "" }
