package main

import (
	"os/exec"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// shape is a kind of traffic.
type shape struct {
	name string
	site site
	by   traffic
	mib  float64 // MiB in an answer; 0 where the request is what costs
	tool string  // what makes the traffic, if this can do without the shape
}

// shapesCost compares processor time for other traffic than small GETs.
func shapesCost(p *rig.Program, set settings) []figure {
	plain := site{upstream: startOrigin(p)}
	secured := plain.secured(p)
	w := buildWorker(p)
	const post = `wrk.method = "POST"; wrk.body = string.rep("x", 1024)`
	var figures []figure
	for _, s := range []shape{
		{name: "POST 1 KiB", site: plain, by: wrk(loadConnections, smallPath, post)},
		{name: "100 KiB", site: plain, by: wrk(loadConnections, mediumPath, ""), mib: float64(mediumSize) / (1 << 20)},
		{name: "10 MiB", site: plain, by: wrk(16, largePath, ""), mib: float64(largeSize) / (1 << 20)},
		{name: "TLS in", site: secured, by: wrk(loadConnections, smallPath, "")},
		{name: "HTTP/2 in", site: secured, by: h2load(8, 8, smallPath), tool: "h2load"},
		{name: "gRPC", site: site{upstream: w.serve(p, "grpc").Addr, grpc: true}, by: w.loadFor("grpc", loadConnections)},
	} {
		figures = append(figures, s.cost(p, set)...)
	}
	return figures
}

func (s shape) cost(p *rig.Program, set settings) []figure {
	if s.tool != "" {
		if _, err := exec.LookPath(s.tool); err != nil {
			return []figure{{measure: s.name, value: s.tool + " is " + notHere}}
		}
	}
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
