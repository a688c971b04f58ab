package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/scripts/load"
	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// site is what a drill breaks: a Consul, an etcd and two blue and two green
// instances of orders behind one route.
type site struct {
	p      *rig.Program
	rate   int
	outage time.Duration

	consul *testenv.Consul
	etcd   *testenv.Etcd
	orders []*testenv.Service
	base   atomic.Pointer[string] // where the load goes
}

func newSite(p *rig.Program, rate int, outage time.Duration) *site {
	s := &site{p: p, rate: rate, outage: outage, consul: testenv.StartConsul(p), etcd: testenv.StartEtcd(p)}
	for i, colour := range []string{"blue", "blue", "green", "green"} {
		s.orders = append(s.orders, testenv.StartService(p, "orders",
			"-id", fmt.Sprintf("orders-%d", i+1), "-tags", colour, "-consul", s.consul.URL()))
	}
	s.etcd.Put("/sluice/routes/orders", `{"path":"/orders/*","service":"orders"}`)
	return s
}

// gateway starts a gateway on the site's registries and waits for its
// instances.
func (s *site) gateway(o testenv.GatewayOptions) *testenv.Gateway {
	o.Consul = s.consul.URL()
	if o.Etcd == "" {
		o.Etcd = s.etcd.Endpoint
	}
	// One address stands for many clients here, and after a stall of a busy
	// machine they come all at once.
	o.Extra = "log:\n  access: false\nlimits:\n  max_connections_per_ip: 0\n" + o.Extra
	g := testenv.StartGateway(s.p, o)
	rig.AwaitInstances(s.p, g, "orders", len(s.orders))
	return g
}

// aim points the load at base.
func (s *site) aim(base string) { s.base.Store(&base) }

// load starts the load: GETs, or every fourth a POST of a small body.
func (s *site) load(base string, posts bool) *load.Load {
	s.aim(base)
	l := load.Start(load.Config{
		Rate: s.rate,
		Request: func(ctx context.Context, n int) (*http.Request, error) {
			url := fmt.Sprintf("%s/orders/%d", *s.base.Load(), n)
			if posts && n%4 == 3 {
				return http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"quantity":1}`))
			}
			return http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		},
		Tag: rig.Colour,
	})
	testenv.Eventually(s.p, 10*time.Second, "the load runs", func() bool { return l.Sent() > s.rate/2 })
	return l
}

// count fills in what the samples came to.
func count(samples []load.Sample) outcome {
	o := outcome{sent: len(samples)}
	for _, s := range samples {
		if !s.Failed() {
			continue
		}
		o.failed++
		if o.firstFailure == "" {
			o.firstFailure = fmt.Sprintf("(first failure: status %d %s, %v, %s after the start, took %s)",
				s.Status, s.Tag, s.Err, s.Start.Sub(samples[0].Start).Round(time.Millisecond), s.Took.Round(time.Millisecond))
		}
	}
	return o
}

// obeyed asks base until answer says so and returns how long that took since
// start.
func (s *site) obeyed(what, url string, start time.Time, says func(status int, a rig.Answer) bool) time.Duration {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	for time.Since(start) < 2*time.Minute {
		asked := time.Now()
		status, a, err := rig.Get(client, url)
		if err == nil && says(status, a) {
			return asked.Sub(start)
		}
	}
	s.p.Fatalf("waited two minutes in vain for: %s", what)
	return 0
}

// critical is how often Consul found the check of an instance critical. Its
// checks give up after two seconds: on a machine that is so busy they fail for
// every instance, and no gateway could serve.
func (s *site) critical() int {
	return strings.Count(s.consul.Log(), "is now critical: check=service:orders")
}

// hold lets the load run on; it is a part of what a drill does, not a wait
// for something.
func (s *site) hold(d time.Duration) { <-time.After(d) }

func (o outcome) effectText() string {
	if len(o.effect) == 0 {
		return "-"
	}
	text := fmt.Sprintf("%s, %s", round(load.Percentile(o.effect, 50)), round(load.Percentile(o.effect, 100)))
	if o.note != "" {
		text += " " + o.note
	}
	return text
}

func round(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(100 * time.Microsecond)
}
