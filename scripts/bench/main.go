// Command bench measures what Sluice promises of its speed: how soon a change
// in etcd or Consul is obeyed, what a table of 10,000 routes costs, and what a
// proxied request costs beside nginx and those of haproxy, caddy, traefik and
// fabio that are on PATH. It runs the built gateway on a real Consul and a real
// etcd.
//
//	go run ./scripts/bench            # everything
//	go run ./scripts/bench -run etcd  # those whose name contains etcd
//
// A figure over its target is reported and no failure: the machine may be
// busy. The exit code is 1 when a measurement could not be made.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// measurement is a group of figures taken together.
type measurement struct {
	name string
	what string
	run  func(*rig.Program, settings) []figure
}

// settings are the command line.
type settings struct {
	samples int
	rounds  int
	round   time.Duration
}

func measurements() []measurement {
	return []measurement{
		{"etcd", "an etcd put to the first request that obeys it", etcdEffect},
		{"consul", "a change in Consul to the first request that obeys it", consulEffect},
		{"loaded", "both again with 10,000 routes", loadedEffect},
		{"services", "1,000 services of 3 instances on one agent", servicesEffect},
		{"table", "a table of 10,000 routes", tableCost},
		{"micro", "single parts of a request's walk", partsCost},
		{"policy", "the plugins that decide who may pass, and how much", policyCost},
		{"cpu", "processor time per request and allocations per request beside nginx and others", cpuCost},
		{"latency", "time a request takes at a fixed rate", latencyCost},
		{"memory", "memory, idle and with 5,000 idle connections", memoryCost},
		{"routes", "a request's cost with 10,000 routes", routesCost},
		{"shapes", "processor time for uploads, large answers, TLS, HTTP/2 and gRPC", shapesCost},
		{"grpc", "gRPC and HTTP/1.1 through the gateway, 100,000 requests", grpcCost},
		{"gogc", "processor time and memory by GOGC", gogcCost},
		{"http3", "HTTP/3 beside HTTP/2 over TLS", http3Cost},
	}
}

func main() {
	var s settings
	only := flag.String("run", "", "run only measurements whose `name` contains this")
	flag.IntVar(&s.samples, "n", 100, "changes made for each time to effect")
	flag.IntVar(&s.rounds, "rounds", 3, "rounds of load for each proxy")
	flag.DurationVar(&s.round, "round", 2*time.Second, "length of one round of load")
	flag.Parse()
	os.Exit(runAll(*only, s))
}

func runAll(only string, s settings) int {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "MEASURE\tp50 or value\tp99\tTARGET\tRESULT")
	made, failed := 0, 0
	for _, m := range measurements() {
		if !strings.Contains(m.name, only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s: %s …\n", m.name, m.what)
		var figures []figure
		err := rig.Run(func(p *rig.Program) { figures = m.run(p, s) })
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", m.name, err)
			fmt.Fprintf(w, "%s\t-\t-\t-\tFAILED\n", m.name)
			failed++
			continue
		}
		made++
		for _, f := range figures {
			fmt.Fprintf(os.Stderr, "  %s: %s %s\n", f.measure, f.value, f.p99)
			fmt.Fprintf(w, "%s: %s\t%s\t%s\t%s\t%s\n", m.name, f.measure, f.value, or(f.p99, "-"), or(f.target, "-"), f.result())
		}
	}
	_ = w.Flush()
	if failed > 0 || made == 0 {
		return 1
	}
	return 0
}
