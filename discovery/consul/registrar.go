package consul

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"
)

// RegistrationConfig is how the gateway stands in Consul.
type RegistrationConfig struct {
	// ID is unique on the agent: the gateway's own name.
	ID string
	// Name is the service; empty is "sluice".
	Name string
	// Address and Port are where clients reach the gateway; an empty address
	// is the node's.
	Address string
	Port    int
	// CheckURL is asked by the agent, for example
	// http://10.0.0.7:8081/readyz.
	CheckURL string
	// CheckInterval defaults to 5 s, with a time-out of 2 s for each check.
	CheckInterval time.Duration
	// DeregisterAfter is how long a gateway that died stays registered;
	// default, and the least that Consul accepts, is 1 min.
	DeregisterAfter time.Duration
	Tags            []string
	Meta            map[string]string
}

// Registrar keeps the gateway registered with the agent.
type Registrar struct {
	client *client
	log    *slog.Logger
	entry  *api.AgentServiceRegistration
	wait   time.Duration
}

const (
	registrarWait = 30 * time.Second
	// deregisterIn bounds the farewell, so that an agent that is away does
	// not hold up the shutdown.
	deregisterIn = 800 * time.Millisecond
)

// NewRegistrar makes a registrar. It connects to nothing yet.
func NewRegistrar(cfg Config, reg RegistrationConfig, log *slog.Logger) (*Registrar, error) {
	if err := errors.Join(append(cfg.Validate("consul"), reg.validate()...)...); err != nil {
		return nil, err
	}
	log = log.With("component", "registrar", "id", reg.ID)
	c, err := newClient(cfg, registrarConnections, log)
	if err != nil {
		return nil, err
	}
	interval := cmp.Or(reg.CheckInterval, 5*time.Second)
	return &Registrar{client: c, log: log, wait: registrarWait, entry: &api.AgentServiceRegistration{
		ID:      reg.ID,
		Name:    cmp.Or(reg.Name, "sluice"),
		Address: reg.Address,
		Port:    reg.Port,
		Tags:    slices.Clone(reg.Tags),
		Meta:    reg.Meta,
		Check: &api.AgentServiceCheck{
			CheckID:                        "service:" + reg.ID,
			Name:                           "gateway is ready",
			HTTP:                           reg.CheckURL,
			Interval:                       interval.String(),
			Timeout:                        min(interval, 2*time.Second).String(),
			DeregisterCriticalServiceAfter: cmp.Or(reg.DeregisterAfter, time.Minute).String(),
		},
	}}, nil
}

func (r RegistrationConfig) validate() []error {
	var errs []error
	if r.ID == "" {
		errs = append(errs, errors.New("registration id: is empty"))
	}
	if r.Port < 1 || r.Port > 65535 {
		errs = append(errs, fmt.Errorf("registration port: is %d: accepted is 1 to 65535", r.Port))
	}
	if u, err := url.Parse(r.CheckURL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		errs = append(errs, fmt.Errorf("registration check url: %q: accepted is http://HOST:PORT/PATH", r.CheckURL))
	}
	return errs
}

// Run registers the gateway, puts the registration back whenever the agent
// has lost it, and takes it away when ctx ends; then it returns nil, within a
// second. An agent that is away is tried again at most a second apart.
func (r *Registrar) Run(ctx context.Context) error {
	defer r.client.transport.CloseIdleConnections()
	r.keep(ctx)

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), deregisterIn)
	defer cancel()
	err := r.client.Agent().ServiceDeregisterOpts(r.entry.ID, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil && !notFound(err) {
		r.log.Warn("the gateway stays in consul until its check has failed long enough", "error", err)
	}
	return nil
}

// keep looks after the registration until ctx ends. The agent's own view of
// one service can be waited on by its hash; a restart of the agent breaks
// the connection and is noticed at once. The first thing is to register, for
// what stands under the ID may come from a former life.
func (r *Registrar) keep(ctx context.Context) {
	var (
		retry      backoff
		limit      = rate.NewLimiter(rate.Every(time.Second), 3)
		registered bool
		hash       string
		silent     bool // the failure was logged
	)
	for limit.Wait(ctx) == nil {
		var err error
		if !registered {
			if err = r.register(ctx); err == nil {
				registered, hash = true, ""
				r.log.Info("registered in consul", "service", r.entry.Name)
			}
		}
		if err == nil {
			hash, err = r.look(ctx, hash)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			silent = false
			retry.reset()
		case notFound(err):
			registered = false
		default:
			if !silent {
				r.log.Warn("not registered in consul, or not known to be", "error", err)
			}
			silent, hash = true, ""
			if !retry.wait(ctx) {
				return
			}
		}
	}
}

// look waits for the registration to change from hash and returns the new
// one. An empty hash returns at once.
func (r *Registrar) look(ctx context.Context, hash string) (string, error) {
	limit := defaultTiming().read
	q := &api.QueryOptions{WaitHash: hash}
	if hash != "" {
		q.WaitTime = between(r.wait, 2*r.wait)
		limit = q.WaitTime + q.WaitTime/16 + 5*time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, meta, err := r.client.Agent().Service(r.entry.ID, q.WithContext(ctx))
	if err != nil {
		return "", fmt.Errorf("look up the registration: %w", err)
	}
	return meta.LastContentHash, nil
}

func (r *Registrar) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, defaultTiming().read)
	defer cancel()
	err := r.client.Agent().ServiceRegisterOpts(r.entry, api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("register the gateway: %w", err)
	}
	return nil
}

func notFound(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && status.Code == http.StatusNotFound
}
