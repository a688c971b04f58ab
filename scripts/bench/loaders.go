package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/scripts/rig"
	"github.com/sluice-gateway/sluice/test/testenv"
)

// wrk loads path over HTTP/1.1; script is Lua that makes the requests, or "".
func wrk(connections int, path, script string) traffic {
	return func(p *rig.Program, url string, d time.Duration) (requests, rate float64) {
		args := []string{"-t", "1", "-c", strconv.Itoa(connections), "-d", seconds(d)}
		if script != "" {
			file := filepath.Join(p.TempDir(), "requests.lua")
			write(p, file, script)
			args = append(args, "-s", file)
		}
		requests, rate, err := readWrk(tool(p, d, "wrk", append(args, url+path)...))
		if err != nil {
			p.Fatalf("wrk %s: %v", url, err)
		}
		return requests, rate
	}
}

// h2load loads path over HTTP/2 with TLS: streams of them at a time on each
// of the connections.
func h2load(connections, streams int, path string) traffic {
	return func(p *rig.Program, url string, d time.Duration) (requests, rate float64) {
		requests, err := readH2load(tool(p, d, "h2load",
			"-c", strconv.Itoa(connections), "-m", strconv.Itoa(streams), "-D", seconds(d), url+path))
		if err != nil {
			p.Fatalf("h2load %s: %v", url, err)
		}
		return requests, requests / d.Seconds()
	}
}

// seconds is d as the load generators take it: whole, and one at least.
func seconds(d time.Duration) string { return fmt.Sprint(max(1, int(d.Seconds()+0.5))) }

// tool runs a program that loads for d and returns what it printed.
func tool(p *rig.Program, d time.Duration, name string, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), d+time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, testenv.Binary(p, name), args...).CombinedOutput()
	if err != nil {
		p.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// readWrk reads how many requests wrk counted, and how many a second.
func readWrk(text string) (requests, rate float64, err error) {
	failures := regexp.MustCompile(`(?m)^\s*(Socket errors:.*|Non-2xx or 3xx responses:.*)$`)
	if m := failures.FindStringSubmatch(text); m != nil {
		return 0, 0, fmt.Errorf("%s", m[1])
	}
	if requests, err = number(text, `(\d+) requests in`); err != nil {
		return 0, 0, err
	}
	rate, err = number(text, `Requests/sec:\s+([\d.]+)`)
	return requests, rate, err
}

// readH2load reads how many requests h2load counted.
func readH2load(text string) (requests float64, err error) {
	if requests, err = number(text, `(?m)^requests:.* (\d+) succeeded`); err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`(?m)^requests:.* (\d+) failed, (\d+) errored, (\d+) timeout`).FindStringSubmatch(text)
	if m == nil || m[1] != "0" || m[2] != "0" || m[3] != "0" {
		return 0, fmt.Errorf("requests failed:\n%s", text)
	}
	return requests, nil
}

// number is the first group of pattern in text, more than 0.
func number(text, pattern string) (float64, error) {
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("something else was printed:\n%s", text)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("something else was printed:\n%s", text)
	}
	return n, nil
}
