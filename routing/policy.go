package routing

import (
	"cmp"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/routing/balance"
)

// Defaults of a service's policy.
const (
	defaultFailures      = 5
	defaultEjection      = 5 * time.Second
	defaultMaxEjection   = 50 // percent
	defaultRetryBudget   = 20 // percent
	defaultErrorPercent  = 50
	defaultMinRequests   = 20
	defaultBreakerWindow = 10 * time.Second
	defaultOpenFor       = 5 * time.Second
	defaultCheckInterval = Duration(5 * time.Second)
	defaultCheckTimeout  = Duration(time.Second)
)

// policies fills in everything about s that does not depend on instances.
func (s *Service) policies(spec *ServiceSpec, def Defaults) {
	if spec == nil {
		spec = &ServiceSpec{}
	}
	timeouts := or(spec.Timeouts, TimeoutsSpec{})
	s.Upstream = Upstream{
		Protocol:       cmp.Or(spec.Protocol, urlProtocol(spec.URL), ProtocolHTTP),
		Engine:         cmp.Or(or(spec.Upstream, UpstreamSpec{}).Engine, EngineFast),
		TLS:            or(spec.TLS, TLSSpec{}),
		Connect:        orDuration(timeouts.Connect, def.Connect),
		ResponseHeader: orDuration(timeouts.ResponseHeader, def.ResponseHeader),
	}
	s.Idle = orDuration(timeouts.Idle, def.Idle)
	s.Retry = retryOf(spec.Retry, def)
	if spec.Hedge != nil {
		s.Hedge = time.Duration(spec.Hedge.After)
	}
	s.Sticky = spec.Sticky
	if b := spec.Balance; b != nil {
		s.Hash = HashOn{Header: b.Header, Cookie: b.Cookie, IP: b.IP || b.Kind == string(balance.IPHash), Path: b.Path}
	}
	if h := spec.HealthCheck; h != nil {
		c := *h
		c.Type = cmp.Or(c.Type, "http")
		c.Path = cmp.Or(c.Path, "/")
		c.Interval = cmp.Or(c.Interval, defaultCheckInterval)
		c.Timeout = cmp.Or(c.Timeout, defaultCheckTimeout)
		c.UnhealthyAfter = cmp.Or(c.UnhealthyAfter, 2)
		c.HealthyAfter = cmp.Or(c.HealthyAfter, 1)
		s.HealthCheck = &c
	}
}

// urlProtocol lets url: https://… need no protocol beside it.
func urlProtocol(u string) string {
	if len(u) > 8 && u[:8] == "https://" {
		return ProtocolHTTPS
	}
	return ""
}

// retryOf reads the retry policy; by default a request goes on when no
// connection could be made or it broke before an answer.
func retryOf(spec *RetrySpec, def Defaults) RetryPolicy {
	p := RetryPolicy{Attempts: def.Retries, Connect: true, Reset: true, BudgetPercent: defaultRetryBudget}
	if spec == nil {
		return p
	}
	p.Attempts = or(spec.Attempts, p.Attempts)
	p.PerTry = time.Duration(spec.PerTryTimeout)
	p.BudgetPercent = or(spec.BudgetPercent, p.BudgetPercent)
	p.Replay = spec.Replay
	if spec.On == nil {
		return p
	}
	p.Connect, p.Reset = false, false
	for _, on := range spec.On {
		switch on {
		case "connect":
			p.Connect = true
		case "reset":
			p.Reset = true
		case "timeout":
			p.Timeout = true
		default:
			if status, err := strconv.Atoi(on); err == nil {
				p.Statuses = append(p.Statuses, status)
			}
		}
	}
	return p
}

// policyOf reads what the pickers need.
func policyOf(spec *ServiceSpec) balance.Policy {
	if spec == nil {
		spec = &ServiceSpec{}
	}
	outlier := or(spec.Outlier, OutlierSpec{})
	p := balance.Policy{
		Kind:                balance.RoundRobin,
		ConsecutiveFailures: or(outlier.ConsecutiveFailures, defaultFailures),
		BaseEjection:        orDuration(outlier.BaseEjection, defaultEjection),
		MaxEjectionPercent:  or(outlier.MaxEjectionPercent, defaultMaxEjection),
		MaxInFlight:         spec.MaxInFlight,
		MaxPerEndpoint:      spec.MaxInFlightPerInstance,
		SlowStart:           time.Duration(spec.SlowStart),
		RetryBudgetPercent:  defaultRetryBudget,
	}
	if spec.Balance != nil {
		p.Kind = balance.Kind(spec.Balance.Kind)
	}
	if spec.Retry != nil {
		p.RetryBudgetPercent = or(spec.Retry.BudgetPercent, defaultRetryBudget)
	}
	if c := spec.CircuitBreaker; c != nil {
		p.ErrorPercent = cmp.Or(c.ErrorPercent, defaultErrorPercent)
		p.MinRequests = cmp.Or(c.MinRequests, defaultMinRequests)
		p.Window = cmp.Or(time.Duration(c.Window), defaultBreakerWindow)
		p.OpenFor = cmp.Or(time.Duration(c.OpenFor), defaultOpenFor)
	}
	return p
}
