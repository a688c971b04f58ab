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
// name, without the number of processors. args are further flags of go test.
func goBench(p *rig.Program, pkg, pattern string, args ...string) map[string]goResult {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	args = append([]string{"test", "-run", "^$", "-bench", pattern, "-benchmem", pkg}, args...)
	out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput()
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
