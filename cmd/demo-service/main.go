package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// shutdownTimeout bounds the wait for requests in flight at the end.
const shutdownTimeout = 10 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// Once the first signal came, the next one has its usual effect.
	context.AfterFunc(ctx, stop)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "demo-service:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends. It prints one line to stdout once it accepts
// connections.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	o, err := parseOptions(args, getenv, stderr)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	addr := listener.Addr().(*net.TCPAddr)
	if o.id == "" {
		o.id = fmt.Sprintf("%s-%d", o.name, addr.Port)
	}
	log := slog.New(slog.NewTextHandler(stderr, nil)).With("service", o.name, "instance", o.id)
	handler := newHandler(o)
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Fprintf(stdout, "demo-service %s %s listening on %s\n", o.name, o.id, addr)

	registering, stopRegistering := context.WithCancel(ctx)
	defer stopRegistering()
	registered := make(chan struct{})
	go func() {
		defer close(registered)
		if o.consul != "" {
			newRegistration(o, addr, handler.healthy, log).keep(registering)
		}
	}()

	select {
	case <-ctx.Done():
	case err := <-served:
		stopRegistering()
		<-registered
		return fmt.Errorf("serve: %w", err)
	}
	<-registered // deregistered by now
	if o.consul != "" {
		linger(o.linger, served)
	}
	return shutdown(server, served)
}

// linger serves on for d, for callers that have not yet heard of the leave.
func linger(d time.Duration, served chan error) {
	select {
	case <-time.After(d):
	case err := <-served:
		served <- err
	}
}

func shutdown(server *http.Server, served <-chan error) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		_ = server.Close()
		return fmt.Errorf("finish the requests in flight: %w", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
