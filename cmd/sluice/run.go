package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-gateway/sluice/middleware"
)

// run serves until ctx ends, then drains. The order of the end is what keeps
// requests from failing: first nobody is sent here any more (not ready, out
// of Consul, "Connection: close"), then nothing new is accepted, then what is
// under way finishes, and only then the parts that it needs stop.
func (gw *gateway) run(ctx context.Context) error {
	listeners, quic, adminListener, err := gw.listen(ctx)
	if err != nil {
		return err
	}
	// The parts behind the listeners outlive the signal.
	back, stopBack := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBack()
	parts, back := errgroup.WithContext(back)
	front, leave := context.WithCancel(back)
	defer leave()

	parts.Go(func() error { return gw.hub.Run(back) })
	parts.Go(func() error { return gw.router.Run(back) })
	parts.Go(func() error { return gw.checker.Run(back) })
	parts.Go(func() error { return gw.registry.Run(back) })
	parts.Go(func() error { return gw.server.Run(back) })
	if gw.redis != nil {
		parts.Go(func() error { return gw.redis.Run(back) })
	}
	if gw.saver != nil {
		parts.Go(func() error { return gw.saver.Run(back) })
	}
	if gw.publisher != nil {
		parts.Go(func() error { return gw.publisher.Run(back) })
		parts.Go(func() error { return gw.publishStatus(back) })
	}
	left := make(chan struct{})
	go func() {
		defer close(left)
		if gw.registrar == nil {
			return
		}
		if err := gw.registrar.Run(front); err != nil {
			gw.log.Error("registration in consul ended", "error", err)
		}
	}()
	for _, l := range listeners {
		parts.Go(func() error { return gw.server.Serve(l) })
	}
	if quic != nil {
		parts.Go(quic.Serve)
	}
	parts.Go(func() error {
		if err := gw.admin.Serve(adminListener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", adminListener.Addr(), err)
		}
		return nil
	})
	gw.log.Info("sluice is up", "gateway", gw.cfg.Name, "http", gw.cfg.Listen.HTTP, "https", gw.cfg.Listen.HTTPS,
		"http3", gw.cfg.Listen.HTTP3,
		"admin", gw.cfg.Admin.Listen, "version", version)

	select {
	case <-ctx.Done():
		gw.log.Info("leaving", "delay", gw.cfg.Shutdown.Delay, "timeout", gw.cfg.Shutdown.Timeout)
	case <-back.Done(): // a part failed for good; Wait says why
	}
	gw.drain(leave, left)
	stopBack()
	err = parts.Wait()
	gw.forwarder.Close()
	if err == nil {
		gw.log.Info("left")
	}
	return err
}

// listen opens every listener, so that a port that is taken is said before
// anything starts.
func (gw *gateway) listen(ctx context.Context) (proxies []net.Listener, quic *middleware.HTTP3, adm net.Listener, err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, l := range proxies {
			_ = l.Close()
		}
		if quic != nil {
			_ = quic.Close()
		}
	}()
	for _, l := range []struct {
		address string
		secure  bool
	}{{gw.cfg.Listen.HTTP, false}, {gw.cfg.Listen.HTTPS, true}} {
		if l.address == "" {
			continue
		}
		ln, err := gw.server.Listen(ctx, l.address, l.secure)
		if err != nil {
			return proxies, nil, nil, err
		}
		proxies = append(proxies, ln)
	}
	if gw.cfg.Listen.HTTP3 {
		if quic, err = gw.server.ListenHTTP3(ctx, gw.cfg.Listen.HTTPS); err != nil {
			return proxies, nil, nil, err
		}
	}
	if adm, err = (&net.ListenConfig{}).Listen(ctx, "tcp", gw.cfg.Admin.Listen); err != nil {
		return proxies, quic, nil, fmt.Errorf("admin.listen: %w", err)
	}
	return proxies, quic, adm, nil
}

// drain lets the gateway out of the traffic.
func (gw *gateway) drain(leave context.CancelFunc, left <-chan struct{}) {
	gw.draining.Store(true) // not ready
	gw.engine.Drain()       // Connection: close, GOAWAY
	leave()                 // out of Consul
	<-left
	delay := time.NewTimer(gw.cfg.Shutdown.Delay)
	defer delay.Stop()
	<-delay.C

	ctx, cancel := context.WithTimeout(context.Background(), gw.cfg.Shutdown.Timeout)
	defer cancel()
	if err := gw.server.Shutdown(ctx); err != nil {
		gw.log.Warn("requests were cut off", "error", err)
	}
	gw.forwarder.AwaitTunnels(ctx) // upgraded connections have until then
	if n := gw.forwarder.CloseTunnels(); n > 0 {
		gw.log.Info("upgraded connections closed", "count", n)
	}
	// The admin listener answers until the last request has gone.
	last, cancelLast := context.WithTimeout(context.Background(), time.Second)
	defer cancelLast()
	if err := gw.admin.Shutdown(last); err != nil {
		_ = gw.admin.Close()
	}
}
