package main

import (
	"fmt"
	"slices"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// What the loaded stage holds.
const (
	loadedRoutes   = 10_000
	loadedServices = 10
)

// loadedEffect measures etcdEffect and consulEffect with 10,000 routes in
// force, and what the gateway's process has grown to.
func loadedEffect(p *rig.Program, set settings) []figure {
	s := newStage(p)
	for i := range loadedServices {
		for j := range 3 {
			name := fmt.Sprintf("service-%d", i)
			s.register(name, fmt.Sprintf("%s-%d", name, j), s.blue.Addr, nil, "blue")
		}
	}
	empty := memory(p, s.gateway.Pid())
	s.putRoutes(loadedRoutes, func(i int) string {
		return fmt.Sprintf(
			`{"hosts":["host-%d.example.com"],"path":"/api/v%d/things/:id","methods":["GET","POST"],"service":"service-%d"}`,
			i%100, i/100, i%loadedServices)
	})
	figures := slices.Concat(s.etcdEffect(set.samples), s.consulEffect(set.samples))
	return append(figures, figure{
		measure: "resident memory of the gateway, without and with",
		value:   fmt.Sprintf("%d MB, %d MB", empty>>20, memory(p, s.gateway.Pid())>>20),
	})
}
