package routing

import (
	"strings"
)

// Bounds of a service's lists and numbers.
const (
	maxTargets     = 10_000
	maxTags        = 64
	maxDatacenters = 16
	maxSubsets     = 100
	maxWeight      = 65_535
	maxInFlight    = 10_000_000
)

func decodeService(o *object) *ServiceSpec {
	s := &ServiceSpec{
		Consul:      o.text("consul", acceptName),
		Tags:        o.texts("tags", maxTags, "[production]", acceptTag),
		Datacenters: o.texts("datacenters", maxDatacenters, "[dc1, dc2]", acceptName),
		Targets:     serviceTargets(o),
		URL:         o.text("url", acceptURL),

		Protocol: o.choice("protocol", ProtocolHTTP, ProtocolHTTPS, ProtocolH2C, ProtocolGRPC, ProtocolGRPCS),
		TLS:      child(o, "tls", "{ca_file: ca.pem}", decodeTLS),
		Upstream: child(o, "upstream", "{engine: fast}", decodeUpstream),

		Balance:  serviceBalance(o),
		Sticky:   child(o, "sticky", "{cookie: instance}", decodeSticky),
		Subsets:  serviceSubsets(o),
		SplitBy:  o.text("split_by", acceptSplit),
		MinReady: o.optionalInteger("min_ready", 1, maxTargets),

		Timeouts:       child(o, "timeouts", "{connect: 2s}", decodeTimeouts),
		Retry:          child(o, "retry", "{attempts: 1}", decodeRetry),
		Hedge:          child(o, "hedge", "{after: 200ms}", decodeHedge),
		Outlier:        child(o, "outlier", "{consecutive_failures: 5}", decodeOutlier),
		HealthCheck:    child(o, "health_check", "{path: /health}", decodeHealthCheck),
		CircuitBreaker: child(o, "circuit_breaker", "{error_percent: 50}", decodeCircuitBreaker),
		SlowStart:      o.duration("slow_start", 0),
		OnEmpty:        o.text("on_empty", acceptOnEmpty),

		MaxInFlight:            o.integer("max_in_flight", 0, maxInFlight),
		MaxInFlightPerInstance: o.integer("max_in_flight_per_instance", 0, maxInFlight),
	}
	if len(*o.faults) == 0 {
		serviceRules(o, s)
	}
	return s
}

// serviceRules checks what fields say about each other; see routeRules.
func serviceRules(o *object, s *ServiceSpec) {
	from := ""
	for _, name := range []string{"consul", "targets", "url"} {
		switch {
		case !o.has(name):
		case from != "":
			o.fault(name, "stands beside %s; a service has one of consul, targets and url", from)
		default:
			from = name
		}
	}
	if from == "targets" || from == "url" {
		for _, name := range []string{"tags", "datacenters"} {
			if o.has(name) {
				o.fault(name, "is for instances from Consul, and stands beside %s", from)
			}
		}
	}
	secureURL := strings.HasPrefix(s.URL, "https://")
	secure := s.Protocol == ProtocolHTTPS || s.Protocol == ProtocolGRPCS || s.Protocol == "" && secureURL
	if s.URL != "" && s.Protocol != "" && secure != secureURL {
		o.fault("protocol", "is %s, which the scheme of url is not; leave protocol out, or change one of them", s.Protocol)
	}
	if s.TLS != nil && !secure {
		o.fault("tls", "is only for the protocols https and grpcs; set protocol to one of them")
	}
	if u := s.Upstream; u != nil && u.Engine == EngineFast && s.Protocol != "" && s.Protocol != ProtocolHTTP && s.Protocol != ProtocolHTTPS {
		o.fault("upstream", "asks for the engine fast, which is for the protocols http and https; leave it out, or change protocol")
	}
	if name, ok := strings.CutPrefix(s.OnEmpty, onEmptySubset); ok && len(s.Subsets) > 0 {
		if _, named := s.Subsets[name]; !named {
			o.fault("on_empty", "names the subset %s; subsets has %s", quoted(name), strings.Join(sortedKeys(s.Subsets), ", "))
		}
	}
}

func serviceTargets(o *object) []TargetSpec {
	list := o.elements("targets", maxTargets, "[{address: \"10.0.0.5:8080\"}]")
	if o.has("targets") && list != nil && len(list) == 0 {
		o.fault("targets", "is empty; list at least one, or leave the field out for instances from Consul")
		return nil
	}
	field := joinField(o.path, "targets")
	targets := make([]TargetSpec, 0, len(list))
	seen := make(map[string]int, len(list))
	for i, v := range list {
		at := joinIndex(field, i)
		t := childValue(o, at, v, "{address: \"10.0.0.5:8080\", weight: 1}", decodeTarget)
		if t == nil {
			continue
		}
		if first, twice := seen[t.Address]; twice && t.Address != "" {
			faultAt(o.faults, at+".address", "is the address of %s too", joinIndex(field, first))
		}
		seen[t.Address] = i
		targets = append(targets, *t)
	}
	if len(targets) == 0 {
		return nil
	}
	return targets
}

func decodeTarget(o *object) *TargetSpec {
	t := &TargetSpec{
		Address: o.text("address", acceptTarget),
		Weight:  o.optionalInteger("weight", 0, maxWeight),
		Tags:    o.texts("tags", maxTags, "[blue]", acceptTag),
	}
	if !o.has("address") {
		o.fault("address", "is missing; a target has an address such as 10.0.0.5:8080")
	}
	return t
}

func decodeUpstream(o *object) *UpstreamSpec {
	return &UpstreamSpec{Engine: o.choice("engine", EngineFast, EngineStd)}
}

func decodeTLS(o *object) *TLSSpec {
	t := &TLSSpec{
		CAFile:             o.text("ca_file", acceptText),
		CertFile:           o.text("cert_file", acceptText),
		KeyFile:            o.text("key_file", acceptText),
		ServerName:         o.text("server_name", acceptHostname),
		InsecureSkipVerify: o.flag("insecure_skip_verify"),
	}
	if o.has("cert_file") != o.has("key_file") {
		o.fault("cert_file", "and key_file belong together; give both or neither")
	}
	if t.InsecureSkipVerify && t.CAFile != "" {
		o.fault("insecure_skip_verify", "stands beside ca_file, which would not be looked at; give one of them")
	}
	return t
}
