package main

import (
	"fmt"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// gogcCost compares values of GOGC by processor time and memory.
func gogcCost(p *rig.Program, set settings) []figure {
	raiseOpenFiles(p)
	s := site{upstream: startOrigin(p)}
	gateway := func(percent string) *contender {
		return sluice{name: "GOGC=" + percent, engine: "fast", env: []string{"GOGC=" + percent}}.start(p, s)
	}
	var all []*contender
	var held []residence
	for _, percent := range []string{"100", "50", "200", "400", "800"} {
		held = append(held, gateway(percent).holding(p)) // one that served nothing else
		c := gateway(percent)
		all = append(all, c)
		c.beside = all[0]
	}
	compete(p, set, all, wrk(loadConnections, smallPath, ""))
	var figures []figure
	for i, c := range all {
		f := c.figure(0)
		f.value += fmt.Sprintf(", %.0f MB; %.1f KB an idle connection", megabytes(treeMemory(p, c.pid)), held[i].each())
		figures = append(figures, f)
	}
	return figures
}
