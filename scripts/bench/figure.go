package main

import (
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/scripts/load"
)

// figure is one line of the result.
type figure struct {
	measure string
	value   string
	p99     string // "" where a figure is one value
	target  string // "" where none is set
	met     bool
}

func (f figure) result() string {
	switch {
	case f.target == "":
		return "-"
	case f.met:
		return "PASS"
	}
	return "OVER"
}

// target is how long a change may take to be obeyed; a zero median is not
// judged.
type target struct{ p50, p99 time.Duration }

// spread is the figure of many samples.
func spread(measure string, samples []time.Duration, t target) figure {
	p50, p99 := load.Percentile(samples, 50), load.Percentile(samples, 99)
	f := figure{
		measure: measure, value: milliseconds(p50), p99: milliseconds(p99),
		target: fmt.Sprintf("p50 ≤ %s, p99 ≤ %s", t.p50, t.p99),
		met:    p50 <= t.p50 && p99 <= t.p99,
	}
	if t.p50 == 0 {
		f.target, f.met = fmt.Sprintf("p99 ≤ %s", t.p99), p99 <= t.p99
	}
	return f
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
