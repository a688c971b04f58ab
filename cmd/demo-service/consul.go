package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	// lookEvery is the time between two looks at whether the agent still
	// knows the service, and between two tries while it is away.
	lookEvery = time.Second
	// callTimeout bounds one call to the agent.
	callTimeout = 2 * time.Second
	// forgottenAfter is when an agent drops an instance that died without a
	// word; it is the shortest that Consul grants.
	forgottenAfter = time.Minute
)

// errUnknown says that the agent does not have the service.
var errUnknown = errors.New("the agent does not know the service")

// agentService is the body of /v1/agent/service/register.
type agentService struct {
	ID      string
	Name    string
	Tags    []string          `json:",omitempty"`
	Meta    map[string]string `json:",omitempty"`
	Address string            `json:",omitempty"`
	Port    int
	Weights agentWeights
	Check   *agentCheck `json:",omitempty"`
}

type agentWeights struct{ Passing, Warning int }

type agentCheck struct {
	CheckID                        string
	Name                           string
	HTTP                           string `json:",omitempty"`
	Interval                       string `json:",omitempty"`
	Timeout                        string `json:",omitempty"`
	TTL                            string `json:",omitempty"`
	Status                         string
	DeregisterCriticalServiceAfter string
}

// registration is one service that is to stand in one agent.
type registration struct {
	agent, token string
	service      agentService
	checkEvery   time.Duration // of a TTL check, else 0
	healthy      func() bool
	away         bool // the last try failed
	client       *http.Client
	log          *slog.Logger
}

func newRegistration(o options, addr *net.TCPAddr, healthy func() bool, log *slog.Logger) *registration {
	r := &registration{
		agent: o.consul, token: o.token, healthy: healthy, log: log,
		client: &http.Client{Timeout: callTimeout, Transport: &http.Transport{Proxy: nil}},
		service: agentService{
			ID: o.id, Name: o.name, Tags: o.tags, Meta: o.meta, Port: addr.Port,
			Weights: agentWeights{Passing: o.weight, Warning: 1},
		},
	}
	probe := *addr
	if addr.IP.IsUnspecified() {
		probe.IP = net.IPv4(127, 0, 0, 1) // callers get the node's address
	} else {
		r.service.Address = addr.IP.String()
	}
	if o.check == checkNone {
		return r
	}
	// It serves before it registers, so it may pass from the start.
	check := &agentCheck{
		CheckID: "service:" + r.service.ID, Name: "demo-service",
		Status: "passing", DeregisterCriticalServiceAfter: forgottenAfter.String(),
	}
	if o.check == checkHTTP {
		check.HTTP = "http://" + probe.String() + "/healthz"
		check.Interval, check.Timeout = o.interval.String(), callTimeout.String()
	} else {
		check.TTL = (3 * o.interval).String() // two reports may be lost
		r.checkEvery = o.interval
	}
	r.service.Check = check
	return r
}

// keep has the service registered until ctx ends, then deregisters it.
func (r *registration) keep(ctx context.Context) {
	defer r.client.CloseIdleConnections()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var report <-chan time.Time
	if r.checkEvery > 0 {
		t := time.NewTicker(r.checkEvery)
		defer t.Stop()
		report = t.C
	}
	up := r.ensure(ctx)
	for {
		select {
		case <-ctx.Done():
			r.leave()
			return
		case <-look.C:
			up = r.ensure(ctx)
		case <-report:
			if up {
				up = r.reportHealth(ctx)
			}
		}
	}
}

// ensure registers the service unless the agent has it, and says whether it
// has it now. The first failure of a spell is logged, not each try.
func (r *registration) ensure(ctx context.Context) bool {
	err := r.look(ctx)
	if errors.Is(err, errUnknown) {
		err = r.call(ctx, http.MethodPut, "/v1/agent/service/register?replace-existing-checks=true", r.service)
		if err == nil {
			r.log.Info("registered", "consul", r.agent)
		}
	}
	if err != nil && !r.away && ctx.Err() == nil {
		r.log.Warn("not registered; trying on", "consul", r.agent, "error", err)
	}
	r.away = err != nil
	return err == nil
}

// look asks the agent for the service.
func (r *registration) look(ctx context.Context) error {
	return r.call(ctx, http.MethodGet, "/v1/agent/service/"+url.PathEscape(r.service.ID), nil)
}

// reportHealth tells a TTL check how the service is.
func (r *registration) reportHealth(ctx context.Context) bool {
	verdict := "pass"
	if !r.healthy() {
		verdict = "fail"
	}
	path := "/v1/agent/check/" + verdict + "/" + url.PathEscape(r.service.Check.CheckID)
	return r.call(ctx, http.MethodPut, path, nil) == nil
}

// leave deregisters the service, whatever ended its run.
func (r *registration) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	err := r.call(ctx, http.MethodPut, "/v1/agent/service/deregister/"+url.PathEscape(r.service.ID), nil)
	if err != nil && !errors.Is(err, errUnknown) {
		r.log.Warn("not deregistered", "consul", r.agent, "error", err)
		return
	}
	r.log.Info("deregistered", "consul", r.agent)
}

// call sends one request to the agent; body, unless nil, goes as JSON.
func (r *registration) call(ctx context.Context, method, path string, body any) error {
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return fmt.Errorf("encode the registration: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, r.agent+path, &content)
	if err != nil {
		return fmt.Errorf("call the agent: %w", err)
	}
	if r.token != "" {
		req.Header.Set("X-Consul-Token", r.token)
	}
	res, err := r.client.Do(req)
	if err != nil {
		return fmt.Errorf("call the agent: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	switch {
	case err != nil:
		return fmt.Errorf("read the agent's answer: %w", err)
	case res.StatusCode == http.StatusNotFound:
		return errUnknown
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("the agent answered %s: %s", res.Status, bytes.TrimSpace(answer))
	}
	return nil
}
