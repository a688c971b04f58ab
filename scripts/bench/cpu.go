package main

import (
	"fmt"
	"slices"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// Targets of a request through engine fast: processor time beside nginx,
// without and with an access log, and allocations.
const (
	mostCost        = 2.4
	mostLoggedCost  = 2.9
	mostAllocations = 20
)

// cpuCost compares the processor time that a request costs the processes of
// each proxy, all in front of one nginx that answers 1 KiB, and what it
// allocates in Sluice.
func cpuCost(p *rig.Program, set settings) []figure {
	plain := site{upstream: startOrigin(p)}
	logged := plain
	logged.log = true
	nginx, loggingNginx := startNginx(p, plain), startNginx(p, logged)
	own, loggingOwn := engines(p, plain, nginx, ""), engines(p, logged, loggingNginx, ", access log")
	all := slices.Concat([]*contender{nginx}, startPeers(p, plain, nginx), own, []*contender{loggingNginx}, loggingOwn)
	compete(p, set, all, wrk(loadConnections, smallPath, ""))
	fast, loggingFast := own[len(own)-1], loggingOwn[len(loggingOwn)-1]
	var figures []figure
	for _, c := range all {
		atMost := map[*contender]float64{fast: mostCost, loggingFast: mostLoggedCost}[c]
		figures = append(figures, c.figure(atMost))
	}
	return append(figures, figure{
		measure: "allocations for a request, engine fast", value: fmt.Sprintf("%.1f", median(fast.allocs)),
		target: fmt.Sprintf("≤ %d", mostAllocations), met: median(fast.allocs) <= mostAllocations,
	})
}
