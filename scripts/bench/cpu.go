package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// loadConnections is how many connections wrk keeps busy.
const loadConnections = 64

// contender is one proxy under load, and what its rounds came to.
type contender struct {
	name, addr string
	pid        int
	beside     *contender // the nginx it is compared with
	cost       []float64  // processor microseconds for a request
	rate       []float64  // requests per second
}

// cpuCost loads Sluice and nginx in turn, both in front of one nginx that
// answers 1 KiB, and compares the processor time that a request costs the
// proxy's processes. Every round visits every proxy, so that what else the
// machine does falls on all of them.
func cpuCost(p *rig.Program, set settings) []figure {
	upstream := testenv.StartNginx(p, "access_log off;\nkeepalive_requests 1000000000;",
		fmt.Sprintf("location / { return 200 %q; }", strings.Repeat("x", 1024)))
	plain := peer(p, "nginx", upstream.Addr, "access_log off;")
	logging := peer(p, "nginx, access log", upstream.Addr, fmt.Sprintf("access_log %s/access.log;", p.TempDir()))
	all := []*contender{
		plain,
		gateway(p, plain, "sluice, engine std", upstream.Addr, "std", false),
		gateway(p, plain, "sluice, engine fast", upstream.Addr, "fast", false),
		logging,
		gateway(p, logging, "sluice, engine std, access log", upstream.Addr, "std", true),
		gateway(p, logging, "sluice, engine fast, access log", upstream.Addr, "fast", true),
	}
	for _, c := range all {
		c.round(p, time.Second) // connections and code are warm after it
	}
	for _, c := range all {
		c.cost, c.rate = nil, nil
	}
	for range set.rounds {
		for _, c := range all {
			c.round(p, set.round)
		}
	}
	var figures []figure
	for _, c := range all {
		cost, nginx := median(c.cost), median(c.beside.cost)
		figures = append(figures, figure{
			measure: c.name,
			value:   fmt.Sprintf("%.1f µs a request, %.2f × nginx, %.0f requests/s", cost, cost/nginx, median(c.rate)),
		})
	}
	return figures
}

// peer is an nginx that proxies to upstream the way Sluice does: over
// connections that are kept.
func peer(p *rig.Program, name, upstream, log string) *contender {
	n := testenv.StartNginx(p,
		fmt.Sprintf("%s\nkeepalive_requests 1000000000;\nupstream origin { server %s; keepalive %d; keepalive_requests 1000000000; }",
			log, upstream, loadConnections),
		`location / { proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; }`)
	c := &contender{name: name, addr: n.Addr, pid: n.Pid()}
	c.beside = c
	return c
}

// gateway is a Sluice whose one route leads to upstream by the engine.
func gateway(p *rig.Program, beside *contender, name, upstream, engine string, log bool) *contender {
	dir := p.TempDir()
	route := filepath.Join(dir, "routes", "origin.yaml")
	if err := os.MkdirAll(filepath.Dir(route), 0o700); err != nil {
		p.Fatalf("make the directory of routes: %v", err)
	}
	service := filepath.Join(dir, "services", "origin.yaml")
	if err := os.MkdirAll(filepath.Dir(service), 0o700); err != nil {
		p.Fatalf("make the directory of services: %v", err)
	}
	for path, text := range map[string]string{
		route:   "path: /*\nservice: origin\n",
		service: fmt.Sprintf("targets: [{address: %q}]\nupstream: {engine: %s}\n", upstream, engine),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			p.Fatalf("write a document: %v", err)
		}
	}
	g := testenv.StartGateway(p, testenv.GatewayOptions{
		Extra: fmt.Sprintf("file:\n  path: %q\nlog:\n  access: %t\n", dir, log),
	})
	return &contender{name: name, addr: g.Addr, pid: g.Pid(), beside: beside}
}

// round loads the proxy for d and notes what its requests cost.
func (c *contender) round(p *rig.Program, d time.Duration) {
	before := processTime(p, c.pid)
	requests, rate := wrk(p, "http://"+c.addr+"/", d)
	used := processTime(p, c.pid) - before
	c.cost = append(c.cost, float64(used.Microseconds())/requests)
	c.rate = append(c.rate, rate)
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkRate     = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkFailures = regexp.MustCompile(`(?m)^\s*(Socket errors:.*|Non-2xx or 3xx responses:.*)$`)
)

// wrk loads url and returns how many requests were answered, and how many a
// second.
func wrk(p *rig.Program, url string, d time.Duration) (requests, rate float64) {
	ctx, cancel := context.WithTimeout(context.Background(), d+30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, testenv.Binary(p, "wrk"),
		"-t", "1", "-c", strconv.Itoa(loadConnections), "-d", fmt.Sprintf("%.0fs", d.Seconds()), url).CombinedOutput()
	if err != nil {
		p.Fatalf("wrk: %v\n%s", err, out)
	}
	if failures := wrkFailures.Find(out); failures != nil {
		p.Fatalf("wrk %s: %s", url, failures)
	}
	number := func(r *regexp.Regexp) float64 {
		m := r.FindSubmatch(out)
		if m == nil {
			p.Fatalf("wrk printed something else:\n%s", out)
		}
		n, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil || n == 0 {
			p.Fatalf("wrk printed something else:\n%s", out)
		}
		return n
	}
	return number(wrkRequests), number(wrkRate)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
