// Command worker is the far ends of a measurement in processes of their own:
// an upstream that sends back what it gets, and a client that keeps a number
// of connections busy and counts.
//
//	worker serve -proto grpc -addr 127.0.0.1:9000
//	worker load -proto grpc -addr 127.0.0.1:8080 -c 100 -n 100000
//
// load prints one Result as JSON.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Result is what came of a load.
type Result struct {
	Requests int     `json:"requests"` // that were answered
	Seconds  float64 `json:"seconds"`
}

// caller has one request answered on a connection of its own.
type caller interface {
	call(ctx context.Context) error
	close()
}

type options struct {
	proto, addr       string
	connections, size int
	requests          int
	duration          time.Duration
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("say serve or load")
	}
	var o options
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	flags.StringVar(&o.proto, "proto", "http", "http or grpc")
	flags.StringVar(&o.addr, "addr", "", "`HOST:PORT` to serve or load")
	flags.IntVar(&o.connections, "c", 64, "connections")
	flags.IntVar(&o.size, "size", 1024, "bytes in a message")
	flags.IntVar(&o.requests, "n", 0, "requests; 0 is as many as -d allows")
	flags.DurationVar(&o.duration, "d", 0, "length; 0 is until -n are answered")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch {
	case args[0] == "serve" && o.proto == "grpc":
		return serveGRPC(o.addr)
	case args[0] == "serve":
		return serveHTTP(o.addr)
	case args[0] == "load" && (o.requests > 0 || o.duration > 0):
		r, err := o.load()
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(r)
	}
	return fmt.Errorf("cannot %q", args)
}

// load opens every connection, has one request answered on each, and only
// then starts the clock.
func (o options) load() (Result, error) {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Minute)
	defer stop()
	callers := make([]caller, o.connections)
	for i := range callers {
		c, err := o.dial()
		if err != nil {
			return Result{}, err
		}
		defer c.close()
		if err := c.call(ctx); err != nil {
			return Result{}, fmt.Errorf("first request of connection %d: %w", i, err)
		}
		callers[i] = c
	}
	begin := time.Now()
	n, err := o.busy(ctx, callers, begin)
	return Result{Requests: n, Seconds: time.Since(begin).Seconds()}, err
}

func (o options) dial() (caller, error) {
	if o.proto == "grpc" {
		return dialGRPC(o.addr, o.size)
	}
	return dialHTTP(o.addr, o.size)
}

// busy keeps every caller busy until the requests or the time are used up,
// or one fails, and returns how many were answered.
func (o options) busy(ctx context.Context, callers []caller, begin time.Time) (int, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var taken, answered atomic.Int64
	var working sync.WaitGroup
	for _, c := range callers {
		working.Go(func() {
			for ctx.Err() == nil && o.goOn(int(taken.Add(1)), begin) {
				if err := c.call(ctx); err != nil {
					stop(err)
					return
				}
				answered.Add(1)
			}
		})
	}
	working.Wait()
	return int(answered.Load()), context.Cause(ctx)
}

// goOn says whether the n-th request is still to be sent.
func (o options) goOn(n int, begin time.Time) bool {
	return (o.requests == 0 || n <= o.requests) && (o.duration == 0 || time.Since(begin) < o.duration)
}
