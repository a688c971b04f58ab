package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// A fixed rate far below what any of the proxies can take, and how much
// longer than with nginx the slowest hundredth may take.
const (
	fixedRate  = 2_500
	mostSlower = 1.6
)

// latencyCost compares how long requests take at a fixed rate.
func latencyCost(p *rig.Program, set settings) []figure {
	s := site{upstream: startOrigin(p)}
	nginx := startNginx(p, s)
	own := engines(p, s, nginx, "")
	all := slices.Concat([]*contender{nginx}, startPeers(p, s, nginx), own)
	one := get(smallPath)
	atFixedRate(p, set, all, func(int) []byte { return one })
	var figures []figure
	for _, c := range all {
		atMost := 0.0
		if c == own[len(own)-1] {
			atMost = mostSlower
		}
		figures = append(figures, c.latency(atMost))
	}
	return figures
}

// pacedTurn is how long a contender's turn is. What a shared machine does to a
// p99 comes and goes within seconds: many short turns share it out, and the
// median of their p99 leaves out the worst of it.
const pacedTurn = 500 * time.Millisecond

// atFixedRate sends the requests through every contender in turn, for as long
// as the rounds are in all.
func atFixedRate(p *rig.Program, set settings, all []*contender, request func(n int) []byte) {
	ask := func(c *contender, d time.Duration) []time.Duration {
		before := processTime(p, c.pid)
		took, err := openLoop{hostOf(c.url), fixedRate, loadConnections, request}.run(d)
		if err != nil {
			p.Fatalf("%s at %d requests/s: %v", c.name, fixedRate, err)
		}
		c.paced = append(c.paced, float64((processTime(p, c.pid)-before).Microseconds())/(d.Seconds()*fixedRate))
		return took
	}
	turns := settings{rounds: max(1, int(time.Duration(set.rounds)*set.round/pacedTurn)), round: pacedTurn}
	takeTurns(turns, all, func(c *contender) { ask(c, warming) }, func(c *contender) { c.slow.add(ask(c, turns.round)) })
}

// latency is the contender's figure at the fixed rate; atMost is the target
// of its p99 beside the other's, 0 where none is set.
func (c *contender) latency(atMost float64) figure {
	if c.pid == 0 {
		return figure{measure: c.name, value: notHere}
	}
	p50, p99 := c.slow.medians()
	base50, base99 := c.beside.slow.medians()
	ratio := float64(p99) / float64(base99)
	f := figure{
		measure: fmt.Sprintf("%s, %d requests/s", c.name, fixedRate),
		value: fmt.Sprintf("%s, %.2f × %s; %.0f µs of processor time a request",
			milliseconds(p50), float64(p50)/float64(base50), c.beside.name, median(c.paced)),
		p99: fmt.Sprintf("%s, %.2f ×", milliseconds(p99), ratio),
	}
	if atMost > 0 {
		f.target, f.met = fmt.Sprintf("p99 ≤ %.2f × %s", atMost, c.beside.name), ratio <= atMost
	}
	return f
}
