package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/scripts/load"
	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// tenantLimit is how many requests of one tenant pass in an hour.
const tenantLimit = 20

// limited is a load on three routes whose limits lie in Redis: one that counts
// by itself while Redis is away, one that allows and one that denies. No
// request of the first two may fail, and those of the third only in an outage
// or a pause that a witness saw. Beside them /tenant is a small limit, which two
// gateways share.
type limited struct {
	s        *site
	gateways []*testenv.Gateway
	loads    map[string]*load.Load
	witness  *witness
	client   *http.Client
	tenants  int

	outages []span
	effect  []time.Duration
	notes   string
	faults  string
}

// limited starts gateways with a Redis, redis being that section of their
// configuration, and the load on the first of them. servers are those of
// Redis.
func (s *site) limited(redis string, servers ...*testenv.Redis) *limited {
	l := &limited{s: s, loads: map[string]*load.Load{}, client: probeClient()}
	docs := map[string]string{"/sluice/routes/tenant": fmt.Sprintf(`{"path":"/tenant","service":"orders","plugins":{"rate_limit":{
		"limits":[{"requests":%d,"per":"hour"}],"key":"header:X-Tenant","algorithm":"sliding_window","store":"redis","on_store_error":"deny"}}}`, tenantLimit)}
	routes := []string{"local", "allow", "deny"}
	for _, name := range routes {
		docs["/sluice/routes/"+name] = fmt.Sprintf(`{"path":"/%[1]s/*","service":"orders","plugins":{"rate_limit":{
			"limits":[{"requests":1000000,"per":"minute"}],"store":"redis","on_store_error":%[1]q}}}`, name)
	}
	revision := s.etcd.Apply(docs)
	for _, name := range []string{"first", "second"} {
		g := s.gateway(testenv.GatewayOptions{Name: name, Extra: redis})
		rig.AwaitApplied(s.p, g, revision)
		l.gateways = append(l.gateways, g)
	}
	l.witness = watch(s.p, servers, l.gateways[:1])
	for _, name := range routes {
		l.loads[name] = load.Start(load.Config{
			Rate: max(s.rate/len(routes), 1),
			Request: func(ctx context.Context, n int) (*http.Request, error) {
				return http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/%s/%d", l.gateways[0].URL(), name, n), nil)
			},
			Tag: refusal,
		})
	}
	testenv.Eventually(s.p, 10*time.Second, "the load runs", func() bool { return l.loads["deny"].Sent() > s.rate/6 })
	return l
}

// refusal reads the code of a refusal, or that an answer tells what Redis said.
func refusal(status int, h http.Header, body []byte) string {
	if bytes.Contains(body, []byte("READONLY")) {
		return "READONLY"
	}
	if status == http.StatusOK {
		return ""
	}
	return rig.Colour(status, h, body)
}

// outage has Redis go away and come back, which it returns the time of, and
// waits until the limits are in force again: that time is returned.
func (l *limited) outage(away func() (back time.Time)) time.Time {
	from := time.Now()
	back := away()
	l.effect = append(l.effect, l.s.obeyed("the shared limits are in force again", l.gateways[0].URL()+"/deny/probe", back,
		func(status int, _ rig.Answer) bool { return status == http.StatusOK }))
	l.outages = append(l.outages, span{from, time.Now()})
	return time.Now()
}

// inForce checks that what the gateways admit together is the limit.
func (l *limited) inForce() {
	l.tenants++
	tenant := fmt.Sprintf("tenant-%d", l.tenants)
	testenv.Eventually(l.s.p, 10*time.Second, "the second gateway counts in Redis", func() bool {
		return status(l.client, l.gateways[1].URL()+"/deny/probe", "") == http.StatusOK
	})
	if n := l.passed(tenant, tenantLimit+10); n != tenantLimit {
		l.fault("two gateways admitted %d of a limit of %d", n, tenantLimit)
	}
}

// spend uses up the limit of a tenant.
func (l *limited) spend(tenant string) { l.passed(tenant, tenantLimit+5) }

// passed sends n requests of a tenant to the gateways in turn.
func (l *limited) passed(tenant string, n int) (passed int) {
	for i := range n {
		if status(l.client, l.gateways[i%len(l.gateways)].URL()+"/tenant", tenant) == http.StatusOK {
			passed++
		}
	}
	return passed
}

func (l *limited) note(format string, args ...any)  { l.notes += "; " + fmt.Sprintf(format, args...) }
func (l *limited) fault(format string, args ...any) { l.faults += fmt.Sprintf(format, args...) + "; " }

// outcome ends the load and judges it; effect is what the drill measured.
func (l *limited) outcome(effect string) outcome {
	var all []load.Sample // without what the third route had to refuse
	var first, later []time.Duration
	denied, paused := 0, 0
	samples := map[string][]load.Sample{}
	for name, running := range l.loads {
		samples[name] = running.Stop()
	}
	l.witness.end()
	for name, of := range samples {
		for _, sample := range of {
			request := span{sample.Start, sample.Start.Add(sample.Took)}
			in := request.meetsAny(l.outages, 0)
			switch {
			case sample.Tag == "READONLY":
				l.fault("a client was told READONLY")
			case name != "deny" || sample.Status != http.StatusServiceUnavailable || sample.Tag != "overloaded":
			case in:
				denied++
				continue
			case request.meetsAny(l.witness.pauses, 3*redisTimeout):
				paused++
				continue
			}
			if in {
				if l.firstSecond(sample.Start) {
					first = append(first, sample.Took)
				} else {
					later = append(later, sample.Took)
				}
			}
			all = append(all, sample)
		}
	}
	slices.SortFunc(all, func(a, b load.Sample) int { return a.Start.Compare(b.Start) })
	o := count(all)
	o.effect = l.effect
	if denied == 0 {
		l.fault("nothing was denied while Redis was away")
	}
	l.note("while away p99 %s in the first second, then %s; %d denied",
		round(load.Percentile(first, 99)), round(load.Percentile(later, 99)), denied)
	if paused > 0 {
		l.note("%d denied in pauses that were seen from outside (%v)", paused, l.witness.by)
	}
	for _, spell := range spells(l.gateways[0]) {
		if !spell.meetsAny(l.outages, 2*redisTimeout) {
			l.note("away besides for %s (%s)", round(spell.to.Sub(spell.from)), spell.cause)
		}
	}
	o.note, o.broken = effect+l.notes, l.faults
	return o
}

// firstSecond says whether t is in the first second of an outage.
func (l *limited) firstSecond(t time.Time) bool {
	for _, o := range l.outages {
		if !t.Before(o.from) && t.Before(o.from.Add(time.Second)) {
			return true
		}
	}
	return false
}
