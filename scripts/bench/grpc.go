package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

const (
	comparedRequests = 100_000
	// leastRate is the target of both, in requests per second.
	leastRate = 5_560
)

// grpcCost sends the same number of 1 KiB messages, which come back, through
// the gateway as gRPC and over HTTP/1.1.
func grpcCost(p *rig.Program, _ settings) []figure {
	w := buildWorker(p)
	grpc := sluice{name: "gRPC"}.start(p, site{upstream: w.serve(p, "grpc"), grpc: true})
	upstream := w.serve(p, "http")
	var figures []figure
	for _, way := range []struct {
		proto string
		to    *contender
	}{
		{"grpc", grpc},
		{"http", sluice{name: "HTTP/1.1, engine std", engine: "std"}.start(p, site{upstream: upstream})},
		{"http", sluice{name: "HTTP/1.1, engine fast", engine: "fast"}.start(p, site{upstream: upstream})},
	} {
		for _, connections := range []int{100, 500, 1000} {
			before := processTime(p, way.to.pid)
			r := w.load(p, 5*time.Minute, "-proto", way.proto, "-addr", hostOf(way.to.url),
				"-c", strconv.Itoa(connections), "-n", strconv.Itoa(comparedRequests))
			used := processTime(p, way.to.pid) - before
			rate := float64(r.Requests) / r.Seconds
			figures = append(figures, figure{
				measure: fmt.Sprintf("%s, %d connections", way.to.name, connections),
				value: fmt.Sprintf("%.0f requests/s, %.1f µs a request in the gateway",
					rate, float64(used.Microseconds())/float64(r.Requests)),
				target: fmt.Sprintf("≥ %d requests/s", leastRate), met: rate >= leastRate,
			})
		}
	}
	return figures
}

// worker is the built program of the folder worker.
type worker struct{ path string }

func buildWorker(p *rig.Program) worker {
	w := worker{filepath.Join(p.TempDir(), "worker")}
	out, err := exec.Command("go", "build", "-o", w.path, "./scripts/bench/worker").CombinedOutput()
	if err != nil {
		p.Fatalf("build the worker: %v\n%s", err, out)
	}
	return w
}

// serve runs an upstream that sends back what it gets.
func (w worker) serve(p *rig.Program, proto string) (addr string) {
	return testenv.StartProgram(p, "upstream", w.path, nil, func(addr string) []string {
		return []string{"serve", "-proto", proto, "-addr", addr}
	}).Addr
}

// workerResult is what the worker prints.
type workerResult struct {
	Requests int     `json:"requests"`
	Seconds  float64 `json:"seconds"`
}

// load runs a client to its end, which is to come within limit.
func (w worker) load(p *rig.Program, limit time.Duration, args ...string) workerResult {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, w.path, append([]string{"load"}, args...)...).Output()
	if err != nil {
		p.Fatalf("worker load %q: %v", args, err)
	}
	var r workerResult
	if err := json.Unmarshal(out, &r); err != nil || r.Requests == 0 {
		p.Fatalf("worker load %q printed %q: %v", args, out, err)
	}
	return r
}

// loadFor is the worker as the traffic of a contest.
func (w worker) loadFor(proto string, connections int) traffic {
	return func(p *rig.Program, url string, d time.Duration) (requests, rate float64) {
		r := w.load(p, d+time.Minute, "-proto", proto, "-addr", hostOf(url), "-c", strconv.Itoa(connections), "-d", d.String())
		return float64(r.Requests), float64(r.Requests) / r.Seconds
	}
}
