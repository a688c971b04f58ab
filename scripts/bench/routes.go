package main

import (
	"fmt"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// mostGrowth is how much more a request may cost with loadedRoutes than with
// one route.
const mostGrowth = 1.10

// routesCost sends the same requests, to as many hosts and paths as there are
// routes, through gateways with one route and with loadedRoutes.
func routesCost(p *rig.Program, set settings) []figure {
	s := site{upstream: startOrigin(p)}
	var all []*contender
	for _, g := range []sluice{
		{name: "1 route", engine: "fast"},
		manyRoutes("host", "hosts: [host-%[1]d.example.com]\npath: /*\nservice: origin\n"),
		manyRoutes("path", "path: /api/things/%[1]d\nservice: origin\n"),
	} {
		c := g.start(p, s)
		all = append(all, c)
		c.beside = all[0]
	}
	compete(p, set, all, wrk(loadConnections, "", manyRequests()))
	atFixedRate(p, set, all, func(n int) []byte {
		i := n * 389 % loadedRoutes // far apart
		return fmt.Appendf(nil, "GET /api/things/%d HTTP/1.1\r\nHost: host-%[1]d.example.com\r\n\r\n", i)
	})
	var costs, latencies []figure
	for _, c := range all {
		atMost := mostGrowth
		if c == all[0] {
			atMost = 0
		}
		costs = append(costs, c.figure(atMost))
		latencies = append(latencies, c.latency(atMost))
	}
	return append(costs, latencies...)
}

// manyRoutes is a gateway with loadedRoutes, each with a host or path of its
// own.
func manyRoutes(own, document string) sluice {
	routes := map[string]string{}
	for i := range loadedRoutes {
		routes[fmt.Sprintf("loaded-%d", i)] = fmt.Sprintf(document, i)
	}
	return sluice{name: fmt.Sprintf("%d routes, a %s each", loadedRoutes, own), engine: "fast", routes: routes}
}

// manyRequests has wrk ask for every route in turn, far apart.
func manyRequests() string {
	return fmt.Sprintf(`
local requests, at, many = {}, 0, %d
for i = 0, many - 1 do
	requests[i] = string.format("GET /api/things/%%d HTTP/1.1\r\nHost: host-%%d.example.com\r\n\r\n", i, i)
end
function request()
	at = (at + 389) %% many
	return requests[at]
end
`, loadedRoutes)
}
