package healthcheck

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/routing/balance"
)

// The types of a check.
const (
	HTTP = "http"
	TCP  = "tcp"
	GRPC = "grpc"
)

// The protocols that instances speak, as a service names them. http is the
// default.
const (
	protocolHTTPS = "https"
	protocolH2C   = "h2c"
	protocolGRPC  = "grpc"
	protocolGRPCS = "grpcs"
)

// atOnce bounds the checks under way, so that the first round after a start
// with thousands of targets is no burst.
const atOnce = 128

// Spec says how to check. The zero value of a field is its default. It is
// comparable.
type Spec struct {
	// Type is HTTP (default), TCP or GRPC.
	Type string
	// Path of an HTTP check, with its query; default "/". For a gRPC check it
	// is the service to ask for; "" and "/" are the server as a whole.
	Path string
	// Interval lies between two checks, give or take a tenth; default 5 s.
	Interval time.Duration
	// Timeout bounds one check; default 1 s.
	Timeout time.Duration
	// UnhealthyAfter failures in a row make the endpoint unhealthy (default
	// 2), HealthyAfter passes in a row healthy again (default 1).
	UnhealthyAfter int
	HealthyAfter   int
}

// withDefaults fills in what is not set.
func (s Spec) withDefaults() Spec {
	if s.Type == "" {
		s.Type = HTTP
	}
	if s.Path == "" {
		s.Path = "/"
	}
	if s.Interval <= 0 {
		s.Interval = 5 * time.Second
	}
	if s.Timeout <= 0 {
		s.Timeout = time.Second
	}
	s.UnhealthyAfter = defaultTo(s.UnhealthyAfter, 2)
	s.HealthyAfter = defaultTo(s.HealthyAfter, 1)
	return s
}

func defaultTo(n, fallback int) int {
	if n <= 0 {
		return fallback
	}
	return n
}

// Target is one endpoint to check. It is comparable: a target that is equal
// to the one before is not touched, so pass the same TLS pointer as long as
// the settings are the same.
type Target struct {
	Endpoint *balance.Endpoint
	Spec     Spec
	// Protocol is that of the service: http (default), https, h2c, grpc or
	// grpcs.
	Protocol string
	// TLS is for https and grpcs; nil is Go's defaults. The name to verify is
	// its ServerName, or else the endpoint's host.
	TLS *tls.Config
	// Host is the Host header; "" is the endpoint's address.
	Host string
}

// Checker runs the checks of all targets.
type Checker struct {
	log     *slog.Logger
	probe   func(Target) (probe, error)
	slots   chan struct{}
	changed chan struct{}

	mu     sync.Mutex
	wanted []Target
}

// New makes a checker without targets.
func New(log *slog.Logger) *Checker {
	return &Checker{
		log:     log,
		probe:   newProbe,
		slots:   make(chan struct{}, atOnce),
		changed: make(chan struct{}, 1),
	}
}

// Update replaces all targets; call it after each table swap. Of several with
// one endpoint the last counts. It does not block, and takes effect in Run.
func (c *Checker) Update(targets []Target) {
	c.mu.Lock()
	c.wanted = targets
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default: // Run is due already and will find these
	}
}

// check is one target being checked.
type check struct {
	target Target
	cancel context.CancelFunc
	done   chan struct{}
}

// Run checks until ctx ends, then returns nil once every check has stopped.
func (c *Checker) Run(ctx context.Context) error {
	running := map[*balance.Endpoint]*check{}
	for {
		select {
		case <-ctx.Done():
			for _, k := range running {
				k.cancel()
				<-k.done
			}
			return nil
		case <-c.changed:
			c.mu.Lock()
			wanted := c.wanted
			c.mu.Unlock()
			c.follow(ctx, running, wanted)
		}
	}
}

// follow stops and starts checks until running is what is wanted.
func (c *Checker) follow(ctx context.Context, running map[*balance.Endpoint]*check, wanted []Target) {
	want := make(map[*balance.Endpoint]Target, len(wanted))
	for _, t := range wanted {
		want[t.Endpoint] = t
	}
	var stopped []*check
	for e, k := range running {
		if t, ok := want[e]; !ok || t != k.target {
			k.cancel()
			stopped = append(stopped, k)
			delete(running, e)
		}
	}
	for _, k := range stopped {
		<-k.done // nothing of the old target is heard after this
		if _, again := want[k.target.Endpoint]; !again {
			k.target.Endpoint.SetHealthy(true, "")
		}
	}
	for e, t := range want {
		if running[e] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		k := &check{target: t, cancel: cancel, done: make(chan struct{})}
		running[e] = k
		go func() {
			defer close(k.done)
			defer cancel()
			c.watch(ctx, t)
		}()
	}
}

// watch checks one target until ctx ends.
func (c *Checker) watch(ctx context.Context, t Target) {
	spec := t.Spec.withDefaults()
	t.Spec = spec
	log := c.log.With("service", t.Endpoint.Service(), "instance", t.Endpoint.ID())
	ask, err := c.probe(t)
	if err != nil {
		log.Error("instance is not checked", "error", err)
		return
	}
	// Targets that came together must not be checked in step for ever.
	timer := time.NewTimer(rand.N(min(spec.Interval, time.Second)))
	defer timer.Stop()
	state, _, _ := t.Endpoint.Status()
	healthy, streak := state != balance.Unhealthy, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := c.once(ctx, ask, spec.Timeout)
		if ctx.Err() != nil {
			return
		}
		if balance.OwnFault(err) {
			timer.Reset(spec.Interval) // nothing was learnt
			continue
		}
		if (err == nil) == healthy {
			streak = 0
		} else if streak++; healthy && streak >= spec.UnhealthyAfter || !healthy && streak >= spec.HealthyAfter {
			healthy, streak = !healthy, 0
			if healthy {
				log.Info("instance passes its check again")
			} else {
				log.Warn("instance fails its check", "error", err)
			}
		}
		switch {
		case healthy:
			t.Endpoint.SetHealthy(true, "")
		case err != nil:
			t.Endpoint.SetHealthy(false, err.Error())
		}
		timer.Reset(spec.Interval - spec.Interval/10 + rand.N(spec.Interval/5+1))
	}
}

// once runs one check when there is room for it.
func (c *Checker) once(ctx context.Context, ask probe, timeout time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case c.slots <- struct{}{}:
	}
	defer func() { <-c.slots }()
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := ask(limited)
	if err != nil && limited.Err() == context.DeadlineExceeded {
		return fmt.Errorf("no answer within %v", timeout)
	}
	return err
}
