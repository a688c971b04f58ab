package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
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
// the gateway as gRPC and over HTTP/1.1. The requests per second are those of
// a machine that runs gateway, client and upstream: what each of them took
// says where they went.
func grpcCost(p *rig.Program, _ settings) []figure {
	w := buildWorker(p)
	var figures []figure
	for _, way := range []struct {
		proto   string
		through sluice
	}{
		{"grpc", sluice{name: "gRPC"}},
		{"http", sluice{name: "HTTP/1.1, engine std", engine: "std"}},
		{"http", sluice{name: "HTTP/1.1, engine fast", engine: "fast"}},
	} {
		upstream := w.serve(p, way.proto)
		gateway := way.through.start(p, site{upstream: upstream.Addr, grpc: way.proto == "grpc"})
		for _, connections := range []int{100, 500, 1000} {
			own, far := processTime(p, gateway.pid), processTime(p, upstream.Pid())
			r := w.load(p, 5*time.Minute, "-proto", way.proto, "-addr", hostOf(gateway.url),
				"-c", strconv.Itoa(connections), "-n", strconv.Itoa(comparedRequests))
			own, far = processTime(p, gateway.pid)-own, processTime(p, upstream.Pid())-far
			figures = append(figures, r.figure(fmt.Sprintf("%s, %d connections", gateway.name, connections), own, far))
		}
	}
	return figures
}

// figure says how many requests came through a second, and what they cost
// the gateway, the client and the upstream.
func (r workerResult) figure(measure string, gateway, upstream time.Duration) figure {
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(r.Requests) }
	rate := float64(r.Requests) / r.Seconds
	return figure{
		measure: measure,
		value: fmt.Sprintf("%.0f requests/s; a request costs the gateway %.0f µs, the client %.0f µs, the upstream %.0f µs",
			rate, each(gateway), each(r.used), each(upstream)),
		target: fmt.Sprintf("≥ %d requests/s", leastRate), met: rate >= leastRate,
	}
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
func (w worker) serve(p *rig.Program, proto string) *testenv.Program {
	return testenv.StartProgram(p, "upstream", w.path, nil, func(addr string) []string {
		return []string{"serve", "-proto", proto, "-addr", addr}
	})
}

// workerResult is what the worker prints.
type workerResult struct {
	Requests int           `json:"requests"`
	Seconds  float64       `json:"seconds"`
	used     time.Duration // processor time of the client
}

// load runs a client to its end, which is to come within limit.
func (w worker) load(p *rig.Program, limit time.Duration, args ...string) workerResult {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.path, append([]string{"load"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		p.Fatalf("worker load %q: %v", args, err)
	}
	var r workerResult
	if err := json.Unmarshal(out, &r); err != nil || r.Requests == 0 {
		p.Fatalf("worker load %q printed %q: %v", args, out, err)
	}
	r.used = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return r
}

// loadFor is the worker as the traffic of a contest.
func (w worker) loadFor(proto string, connections int) traffic {
	return func(p *rig.Program, url string, d time.Duration) (requests, rate float64) {
		r := w.load(p, d+time.Minute, "-proto", proto, "-addr", hostOf(url), "-c", strconv.Itoa(connections), "-d", d.String())
		return float64(r.Requests), float64(r.Requests) / r.Seconds
	}
}
