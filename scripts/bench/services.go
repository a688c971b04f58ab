package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// What the agent of servicesEffect holds.
const (
	manyServices = 1_000
	// maxConnections is the default of consul.max_connections.
	maxConnections = 64
)

// servicesEffect flips checks among 1,000 services of 3 instances on one
// agent with its default limits. The gateway reaches the agent through a line
// that counts connections. A service's route pins the one instance whose
// check is flipped, so that a request can tell.
func servicesEffect(p *rig.Program, set settings) []figure {
	s := newRegistries(p)
	for i := range manyServices {
		name := serviceName(i)
		s.register(name, name+"-1", s.blue.Addr, byReport, "blue")
		s.register(name, name+"-2", s.blue.Addr, byReport, "blue")
		s.register(name, name+"-3", s.green.Addr, byReport, "green")
	}
	s.putRoutes(manyServices, func(i int) string {
		return fmt.Sprintf(`{"path":"/%s","service":%q,"subset":"green"}`, serviceName(i), serviceName(i))
	})
	line := testenv.StartProxy(p, s.consul.HTTPAddr)
	began := time.Now()
	s.start("http://" + line.Addr)
	s.awaitRoutes(manyServices)
	ready := time.Since(began)
	pr := newProbe(p, s.gateway.Addr)
	var took []time.Duration
	for n := range set.samples {
		name := serviceName(n * 389 % manyServices) // far apart, none twice
		flip := func(state string, status int) {
			took = append(took, pr.effect("/"+name, func() { s.report(name+"-3", state) },
				func(a answer) bool { return a.status == status }))
		}
		flip("critical", http.StatusServiceUnavailable)
		flip("passing", http.StatusOK)
	}
	return []figure{
		spread("check failing or passing", took, servicesTarget),
		{
			measure: "most connections to the agent at one time", value: fmt.Sprint(line.Most()),
			target: fmt.Sprintf("≤ %d", maxConnections), met: line.Most() <= maxConnections,
		},
		{measure: "the gateway's start until it is ready", value: milliseconds(ready)},
	}
}

func serviceName(i int) string { return fmt.Sprintf("service-%04d", i) }
