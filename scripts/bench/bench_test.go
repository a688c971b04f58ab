package main

import (
	"maps"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

func TestReadStat(t *testing.T) {
	for name, c := range map[string]struct {
		line               string
		pid, parent, ticks int
		wrong              bool
	}{
		"an ordinary line":           {line: "812 (sluice) S 17 812 812 0 -1 4194304 5 0 0 0 31 11 2 1 20 0 9 0 1", pid: 812, parent: 17, ticks: 42},
		"a name with brackets":       {line: "9 (a) b) R 8 9 9 0 -1 0 0 0 0 0 1 2 0 0 20 0 1 0 1", pid: 9, parent: 8, ticks: 3},
		"a line that is cut off":     {line: "9 (a) R 8 9", wrong: true},
		"a line without a name":      {line: "9 a R 8 9 9 0 -1 0 0 0 0 0 1 2", wrong: true},
		"a field that is no number":  {line: "9 (a) R 8 9 9 0 -1 0 0 0 0 0 x 2 0 0", wrong: true},
		"a number that is no number": {line: "x (a) R 8 9 9 0 -1 0 0 0 0 0 1 2 0 0", wrong: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readStat(c.line)
			if (err != nil) != c.wrong {
				t.Fatalf("error %v", err)
			}
			if want := (stat{c.pid, c.parent, c.ticks}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestReadGoBench(t *testing.T) {
	got := readGoBench(`goos: linux
BenchmarkMatchStatic10k-2    	 6333195	       184.4 ns/op	       0 B/op	       2 allocs/op
BenchmarkPick/p2c/10/plain-2 	    1000	        40 ns/op
BenchmarkTableMemory10k-16   	       7	 185799918 ns/op	        30.44 MB	64182227 B/op
PASS
`)
	want := map[string]goResult{
		"MatchStatic10k":    {"ns/op": 184.4, "B/op": 0, "allocs/op": 2},
		"Pick/p2c/10/plain": {"ns/op": 40},
		"TableMemory10k":    {"ns/op": 185799918, "MB": 30.44, "B/op": 64182227},
	}
	if !maps.EqualFunc(got, want, func(a, b goResult) bool { return maps.Equal(a, b) }) {
		t.Errorf("got %v", got)
	}
}

func TestAFigureIsJudgedByBothTargets(t *testing.T) {
	ms := func(values ...int) (out []time.Duration) {
		for _, v := range values {
			out = append(out, time.Duration(v)*time.Millisecond)
		}
		return out
	}
	both := target{p50: 5 * time.Millisecond, p99: 25 * time.Millisecond}
	for name, c := range map[string]struct {
		figure figure
		want   string
	}{
		"both met":                   {spread("x", ms(1, 5, 25), both), "PASS"},
		"the median over its target": {spread("x", ms(6, 6, 6), both), "OVER"},
		"the tail over its target":   {spread("x", append(ms(26, 26), make([]time.Duration, 98)...), both), "OVER"},
		"no target for the median":   {spread("x", ms(6, 6, 6), target{p99: 25 * time.Millisecond}), "PASS"},
		"no target":                  {figure{measure: "x"}, "-"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.figure.result(); got != c.want {
				t.Errorf("%s for %+v", got, c.figure)
			}
		})
	}
}

func TestTheExitCodeSaysWhetherEverythingWasMeasured(t *testing.T) {
	if got := runAll("no such measurement", settings{}); got != 1 {
		t.Errorf("%d where nothing was measured", got)
	}
}

func TestAMissingBenchmarkIsAFailure(t *testing.T) {
	err := rig.Run(func(p *rig.Program) { result(p, map[string]goResult{}, "Gone") })
	if err == nil {
		t.Error("no error")
	}
}
