package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
)

// contender is one proxy under load, and what its rounds came to.
type contender struct {
	name   string
	url    string     // where it listens: scheme, host and port
	pid    int        // 0 where the program is not on PATH
	admin  string     // URL of the admin listener; "" but for Sluice
	beside *contender // the one it is compared with; itself is one
	cost   []float64  // processor microseconds for a request
	rate   []float64  // requests per second
	allocs []float64  // allocations for a request, of a Sluice
	slow   spreads    // under openLoop
	paced  []float64  // as cost, under openLoop
}

// traffic sends requests to url for d and returns how many were answered, and
// how many a second.
type traffic func(p *rig.Program, url string, d time.Duration) (requests, rate float64)

// warming is how long connections and code get to warm up.
const warming = time.Second

// compete loads every contender in turn, and that set.rounds times: what else
// the machine does falls on all of them.
func compete(p *rig.Program, set settings, all []*contender, by traffic) {
	takeTurns(set, all, func(c *contender) { by(p, c.url, warming) }, func(c *contender) { c.round(p, by, set.round) })
}

// takeTurns warms every contender that is here, then runs turn for each of
// them in every round.
func takeTurns(set settings, all []*contender, warm, turn func(*contender)) {
	here := slices.DeleteFunc(slices.Clone(all), func(c *contender) bool { return c.pid == 0 })
	for _, c := range here {
		warm(c)
	}
	for range set.rounds {
		for _, c := range here {
			turn(c)
		}
	}
}

// round loads the proxy for d and notes what its requests cost.
func (c *contender) round(p *rig.Program, by traffic, d time.Duration) {
	// To read the count allocates as well, a lot where there are many routes:
	// by reading twice it is known how much.
	first := c.mallocs(p)
	second := c.mallocs(p)
	before := processTime(p, c.pid)
	requests, rate := by(p, c.url, d)
	used := processTime(p, c.pid) - before
	c.cost = append(c.cost, float64(used.Microseconds())/requests)
	c.rate = append(c.rate, rate)
	if c.admin != "" {
		c.allocs = append(c.allocs, (c.mallocs(p)-second-(second-first))/requests)
	}
}

// mallocs is how many objects the process of a Sluice has allocated so far.
func (c *contender) mallocs(p *rig.Program) float64 {
	if c.admin == "" {
		return 0
	}
	text, err := fetch(c.admin + "/metrics")
	if err != nil {
		p.Fatalf("read the metrics of %s: %v", c.name, err)
	}
	n, err := readMetric(text, "go_memstats_mallocs_total")
	if err != nil {
		p.Fatalf("read the metrics of %s: %v", c.name, err)
	}
	return n
}

func fetch(url string) (string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// readMetric finds a metric without labels in Prometheus' text format.
func readMetric(text, name string) (float64, error) {
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("no %s", name)
	}
	return strconv.ParseFloat(m[1], 64)
}

// ratio is how much the contender costs beside the one it is compared with.
func (c *contender) ratio() float64 { return median(c.cost) / median(c.beside.cost) }

// figure is the contender's processor time; atMost is the target of its
// ratio, 0 where none is set.
func (c *contender) figure(atMost float64) figure {
	return c.costOf("a request", 1, atMost)
}

// costOf is figure for a unit of which a request is parts.
func (c *contender) costOf(unit string, parts, atMost float64) figure {
	if c.pid == 0 {
		return figure{measure: c.name, value: notHere}
	}
	f := figure{
		measure: c.name,
		value: fmt.Sprintf("%.1f µs %s, %.2f × %s, %.0f requests/s",
			median(c.cost)/parts, unit, c.ratio(), c.beside.name, median(c.rate)),
	}
	if len(c.allocs) > 0 {
		f.value += fmt.Sprintf(", %.1f allocations", median(c.allocs))
	}
	if atMost > 0 {
		f.target, f.met = fmt.Sprintf("≤ %.2f × %s", atMost, c.beside.name), c.ratio() <= atMost
	}
	return f
}

// hostOf is the host and port of a URL.
func hostOf(url string) string {
	_, host, _ := strings.Cut(url, "://")
	return host
}

// notHere is said of a program that is not on PATH.
const notHere = "not on PATH"

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
