package main

import (
	"github.com/sluice-gateway/sluice/scripts/rig"
)

// shape is a kind of traffic.
type shape struct {
	name string
	site site
	by   traffic
	mib  float64 // MiB in an answer; 0 where the request is what costs
}

// shapesCost compares processor time for other traffic than small GETs.
func shapesCost(p *rig.Program, set settings) []figure {
	plain := site{upstream: startOrigin(p)}
	secured := plain.secured(p)
	w := buildWorker(p)
	const post = `wrk.method = "POST"; wrk.body = string.rep("x", 1024)`
	var figures []figure
	for _, s := range []shape{
		{"POST 1 KiB", plain, wrk(loadConnections, smallPath, post), 0},
		{"100 KiB", plain, wrk(loadConnections, mediumPath, ""), float64(mediumSize) / (1 << 20)},
		{"10 MiB", plain, wrk(16, largePath, ""), float64(largeSize) / (1 << 20)},
		{"TLS in", secured, wrk(loadConnections, smallPath, ""), 0},
		{"HTTP/2 in", secured, h2load(8, 8, smallPath), 0},
		{"gRPC", site{upstream: w.serve(p, "grpc").Addr, grpc: true}, w.loadFor("grpc", loadConnections), 0},
	} {
		figures = append(figures, s.cost(p, set)...)
	}
	return figures
}

func (s shape) cost(p *rig.Program, set settings) []figure {
	nginx := startNginx(p, s.site)
	all := append([]*contender{nginx}, startPeers(p, s.site, nginx)...)
	if s.site.grpc {
		c := sluice{name: "sluice"}.start(p, s.site)
		c.beside = nginx
		all = append(all, c)
	} else {
		all = append(all, engines(p, s.site, nginx, "")...)
	}
	compete(p, set, all, s.by)
	var figures []figure
	for _, c := range all {
		f := c.figure(0)
		if s.mib > 0 {
			f = c.costOf("a MiB", s.mib, 0)
		}
		f.measure = s.name + ", " + f.measure
		figures = append(figures, f)
	}
	return figures
}
