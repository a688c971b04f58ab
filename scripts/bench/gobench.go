package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// goResult is one line that go test -bench prints: its figures by unit.
type goResult map[string]float64

// took is ns/op.
func (r goResult) took() time.Duration { return time.Duration(r["ns/op"]) }

// goBench runs Go benchmarks of one package and returns their results by
// name, without the number of processors.
func goBench(p *rig.Program, pkg, pattern string) map[string]goResult {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", pattern, "-benchmem", pkg).CombinedOutput()
	if err != nil {
		p.Fatalf("go test -bench %s %s: %v\n%s", pattern, pkg, err, out)
	}
	return readGoBench(string(out))
}

// readGoBench reads lines such as
//
//	BenchmarkPick/random/3-2  1000  12.5 ns/op  0 B/op  0 allocs/op
func readGoBench(text string) map[string]goResult {
	results := map[string]goResult{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		r := goResult{}
		for i := 2; i+1 < len(fields); i += 2 {
			if n, err := strconv.ParseFloat(fields[i], 64); err == nil {
				r[fields[i+1]] = n
			}
		}
		name := strings.TrimPrefix(fields[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			name = name[:i]
		}
		results[name] = r
	}
	return results
}

// result returns the named result; that it is missing is a failure.
func result(p *rig.Program, all map[string]goResult, name string) goResult {
	r, ok := all[name]
	if !ok {
		p.Fatalf("go test -bench printed no %s", name)
	}
	return r
}

func (r goResult) allocs() string { return fmt.Sprintf("%.0f allocs", r["allocs/op"]) }

// tableCost runs the benchmarks of a table of 10,000 routes.
func tableCost(p *rig.Program, _ settings) []figure {
	all := goBench(p, "./routing", "10k")
	var figures []figure
	for _, lookup := range []struct{ name, of string }{
		{"MatchStatic10k", "static paths"}, {"MatchParam10k", "paths with parameters"}, {"MatchHosts10k", "hosts"},
	} {
		r := result(p, all, lookup.name)
		figures = append(figures, figure{
			measure: "lookup, " + lookup.of, value: fmt.Sprintf("%.0f ns, %s", r["ns/op"], r.allocs()),
			target: "≤ 1 µs, 0 allocs", met: r.took() <= time.Microsecond && r["allocs/op"] == 0,
		})
	}
	for _, build := range []struct {
		name, measure string
		target        time.Duration
	}{
		{"BuildFull10k", "full build", 500 * time.Millisecond},
		{"BuildInstanceChange10k", "rebuild after one instance change", time.Millisecond},
		{"BuildRouteChange10k", "rebuild after one route change", 20 * time.Millisecond},
	} {
		r := result(p, all, build.name)
		figures = append(figures, figure{
			measure: build.measure, value: milliseconds(r.took()),
			target: "≤ " + build.target.String(), met: r.took() <= build.target,
		})
	}
	mb := result(p, all, "TableMemory10k")["MB"]
	return append(figures, figure{
		measure: "memory", value: fmt.Sprintf("%.1f MB", mb), target: "≤ 100 MB", met: mb <= 100,
	})
}

// absentPlugins is how many the chain benchmark has that its route does not
// use.
const absentPlugins = 20

// partsCost runs the benchmarks of single parts of a request's walk. They
// have no target.
func partsCost(p *rig.Program, _ settings) []figure {
	chain := goBench(p, "./middleware", "EngineForward$|ChainAbsentPlugins")
	forward := goBench(p, "./proxy", "ForwardSmall")
	pick := goBench(p, "./routing/balance", "Pick$/(round_robin|least_request|p2c)$/^10$/plain")
	engine := result(p, chain, "EngineForward")
	absent := result(p, chain, "ChainAbsentPlugins")
	small := result(p, forward, "ForwardSmall")
	figures := []figure{
		{measure: "engine around a forwarder that costs nothing", value: fmt.Sprintf("%.0f ns, %s", engine["ns/op"], engine.allocs())},
		{measure: "each plugin that a route does not use", value: fmt.Sprintf("%.1f ns", (absent["ns/op"]-engine["ns/op"])/absentPlugins)},
		{measure: "forwarder with client and instance, 1 KiB", value: fmt.Sprintf("%.0f ns, %s", small["ns/op"], small.allocs())},
	}
	for _, kind := range []string{"round_robin", "least_request", "p2c"} {
		r := result(p, pick, "Pick/"+kind+"/10/plain")
		figures = append(figures, figure{measure: "pick of 10, " + kind, value: fmt.Sprintf("%.0f ns, %s", r["ns/op"], r.allocs())})
	}
	return figures
}
