package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// errFailed says that a step of the check failed; which one was printed.
var errFailed = errors.New("the check failed")

func main() {
	check := flag.Bool("check", false, "run each command of the page, check its answer and exit")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal ends the demo at once
	err := run(ctx, *check, os.Stdout)
	stop()
	if err != nil && (*check || !errors.Is(err, context.Canceled)) {
		if !errors.Is(err, errFailed) {
			fmt.Fprintln(os.Stderr, "demo:", err)
		}
		os.Exit(1)
	}
}

// run starts everything, shows or checks the page, and stops everything.
func run(ctx context.Context, check bool, out io.Writer) (err error) {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sluice-demo-")
	if err != nil {
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	defer os.RemoveAll(dir)

	// A part that ends unasked ends the demo, with its reason as the cause.
	asked := ctx
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	st := &stack{root: root, dir: dir, out: out, fail: fail}
	defer func() {
		if asked.Err() != nil {
			err = context.Canceled
		} else if err != nil {
			st.printLogs()
		}
		fmt.Fprintln(out, "\nstopping what was started")
		st.stop()
	}()
	if err := st.start(ctx); err != nil {
		return err
	}
	steps := st.steps()
	if check {
		return checkSteps(ctx, st, steps)
	}
	printPage(out, st, steps)
	<-ctx.Done()
	return context.Cause(ctx)
}

// moduleRoot is the directory of the go.mod above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the working directory: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory: run the demo inside the repository")
		}
		dir = filepath.Dir(dir)
	}
}
