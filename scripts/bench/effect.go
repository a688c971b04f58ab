package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// Targets of the times to effect.
var (
	etcdTarget     = target{p50: 5 * time.Millisecond, p99: 25 * time.Millisecond}
	consulTarget   = target{p50: 8 * time.Millisecond, p99: 50 * time.Millisecond}
	servicesTarget = target{p99: 500 * time.Millisecond}
)

func etcdEffect(p *rig.Program, set settings) []figure { return newStage(p).etcdEffect(set.samples) }

func consulEffect(p *rig.Program, set settings) []figure {
	return newStage(p).consulEffect(set.samples)
}

// etcdEffect puts new routes, other versions of one route, and flips.
func (s *stage) etcdEffect(n int) []figure {
	s.register("orders", "blue", s.blue.Addr, nil, "blue")
	s.register("orders", "green", s.green.Addr, nil, "green")
	s.etcd.Put("/sluice/routes/orders", `{"path":"/orders/*","service":"orders"}`)
	s.etcd.Put("/sluice/active/orders", "green")
	rig.AwaitInstances(s.p, s.gateway, "orders", 2)
	pr := newProbe(s.p, s.gateway.Addr)
	var fresh, changed, flipped []time.Duration
	for i := range n {
		path, body := fmt.Sprintf("/new/%d", i), fmt.Sprint(i)
		respond := func(path string) string {
			return fmt.Sprintf(`{"path":%q,"respond":{"status":200,"body":%q}}`, path, body)
		}
		obeys := func(a answer) bool { return a.status == http.StatusOK && a.body == body }
		fresh = append(fresh, pr.effect(path, func() { s.etcd.Put("/sluice/routes/new-"+body, respond(path)) }, obeys))
		changed = append(changed, pr.effect("/same", func() { s.etcd.Put("/sluice/routes/same", respond("/same")) }, obeys))
		colour := []string{"blue", "green"}[i%2]
		flipped = append(flipped, pr.effect("/orders/1", func() { s.etcd.Put("/sluice/active/orders", colour) },
			func(a answer) bool { return a.instance == colour }))
	}
	return []figure{
		spread("put of a new route", fresh, etcdTarget),
		spread("put of a changed route", changed, etcdTarget),
		spread("put of an active key", flipped, etcdTarget),
	}
}

// consulEffect lets the only instance of a service come, fail, pass again and
// go.
func (s *stage) consulEffect(n int) []figure {
	s.etcd.Put("/sluice/routes/probed", `{"path":"/probed","service":"probed"}`)
	pr := newProbe(s.p, s.gateway.Addr)
	serves := func(a answer) bool { return a.status == http.StatusOK }
	empty := func(a answer) bool { return a.status == http.StatusServiceUnavailable }
	steps := []struct {
		measure string
		change  func()
		obeys   func(answer) bool
	}{
		{"register", func() { s.register("probed", "probed-1", s.blue.Addr, byReport) }, serves},
		{"check failing", func() { s.report("probed-1", "critical") }, empty},
		{"check passing", func() { s.report("probed-1", "passing") }, serves},
		{"deregister", func() { s.deregister("probed-1") }, empty},
	}
	took := make([][]time.Duration, len(steps))
	for range n {
		for i, step := range steps {
			took[i] = append(took[i], pr.effect("/probed", step.change, step.obeys))
		}
	}
	figures := make([]figure, len(steps))
	for i, step := range steps {
		figures[i] = spread(step.measure, took[i], consulTarget)
	}
	return figures
}
