package main

import (
	"fmt"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// gogcCost compares values of GOGC by processor time and memory.
func gogcCost(p *rig.Program, set settings) []figure {
	s := site{upstream: startOrigin(p)}
	var all []*contender
	for _, percent := range []string{"100", "50", "200", "400", "800"} {
		c := sluice{name: "GOGC=" + percent, engine: "fast", env: []string{"GOGC=" + percent}}.start(p, s)
		all = append(all, c)
		c.beside = all[0]
	}
	compete(p, set, all, wrk(loadConnections, smallPath, ""))
	var figures []figure
	for _, c := range all {
		f := c.figure(0)
		f.value += fmt.Sprintf(", %.1f MB", megabytes(treeMemory(p, c.pid)))
		figures = append(figures, f)
	}
	return figures
}
