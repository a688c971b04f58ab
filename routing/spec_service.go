package routing

// ServiceSpec is a service document: where instances come from, and the
// policy for reaching them. An absent document means the Consul service of
// that name with every default.
type ServiceSpec struct {
	// Consul is the Consul service name; the document's own name where none
	// of Consul, Targets and URL is given.
	Consul string `json:"consul,omitempty"`
	// Tags are required of every instance.
	Tags []string `json:"tags,omitempty"`
	// Datacenters are tried in order; the first with a passing instance
	// serves. None means the agent's own.
	Datacenters []string `json:"datacenters,omitempty"`
	// Targets are fixed instances.
	Targets []TargetSpec `json:"targets,omitempty"`
	// URL is one fixed instance: scheme://host[:port], no path.
	URL string `json:"url,omitempty"`

	// Protocol to the instances: http (default), https, h2c, grpc (h2c), grpcs.
	Protocol string   `json:"protocol,omitempty"`
	TLS      *TLSSpec `json:"tls,omitempty"`
	// Upstream says how the gateway speaks the protocol.
	Upstream *UpstreamSpec `json:"upstream,omitempty"`

	Balance *BalanceSpec          `json:"balance,omitempty"`
	Sticky  *StickySpec           `json:"sticky,omitempty"`
	Subsets map[string]SubsetSpec `json:"subsets,omitempty"`
	// SplitBy decides which subset a request gets while several have a
	// share: random (default), cookie, header:NAME or ip.
	SplitBy string `json:"split_by,omitempty"`
	// MinReady is how many passing instances a subset needs before a flip
	// to it takes effect; default 1.
	MinReady *int `json:"min_ready,omitempty"`

	Timeouts       *TimeoutsSpec       `json:"timeouts,omitempty"`
	Retry          *RetrySpec          `json:"retry,omitempty"`
	Hedge          *HedgeSpec          `json:"hedge,omitempty"`
	Outlier        *OutlierSpec        `json:"outlier,omitempty"`
	HealthCheck    *HealthCheckSpec    `json:"health_check,omitempty"`
	CircuitBreaker *CircuitBreakerSpec `json:"circuit_breaker,omitempty"`
	// MaxInFlight bounds the requests under way to the service from this
	// gateway; 0 is no bound.
	MaxInFlight int `json:"max_in_flight,omitempty"`
	// MaxInFlightPerInstance bounds those to each instance; a request goes to
	// another one then, and is refused where all have as many. 0 is no bound.
	MaxInFlightPerInstance int `json:"max_in_flight_per_instance,omitempty"`
	// SlowStart is how long a new instance takes to its full share.
	SlowStart Duration `json:"slow_start,omitempty"`
	// OnEmpty is what happens when no instance passes: error (default, 503),
	// last_known (the last known instances serve on) or "subset NAME".
	OnEmpty string `json:"on_empty,omitempty"`
}

// TargetSpec is one fixed instance.
type TargetSpec struct {
	// Address is host:port.
	Address string `json:"address"`
	// Weight defaults to 1.
	Weight *int     `json:"weight,omitempty"`
	Tags   []string `json:"tags,omitempty"`
}

// SubsetSpec says which instances are in a subset: those with all Tags and
// all Meta, or those of another Consul service.
type SubsetSpec struct {
	Tags   []string          `json:"tags,omitempty"`
	Meta   map[string]string `json:"meta,omitempty"`
	Consul string            `json:"consul,omitempty"`
}

// BalanceSpec is the picker: written as its name, or as
// {consistent_hash: {header: X-User}}.
type BalanceSpec struct {
	// Kind is round_robin, least_request, p2c, random, ip_hash or
	// consistent_hash.
	Kind string `json:"kind"`
	// Header, Cookie, IP and Path say what consistent_hash hashes; one is set.
	Header string `json:"header,omitempty"`
	Cookie string `json:"cookie,omitempty"`
	IP     bool   `json:"ip,omitempty"`
	Path   bool   `json:"path,omitempty"`
}

// StickySpec keeps a client at one instance by a cookie.
type StickySpec struct {
	Cookie string   `json:"cookie"`
	TTL    Duration `json:"ttl,omitempty"`
}

// TimeoutsSpec bounds the stages of one attempt; nil is the default, 0 none.
type TimeoutsSpec struct {
	Connect        *Duration `json:"connect,omitempty"`
	ResponseHeader *Duration `json:"response_header,omitempty"`
	// Idle bounds silence on event streams, gRPC streams and upgraded
	// connections.
	Idle *Duration `json:"idle,omitempty"`
}

// RetrySpec says when a request goes to another instance.
type RetrySpec struct {
	// Attempts is how many further attempts may follow the first.
	Attempts *int `json:"attempts,omitempty"`
	// On lists reasons: connect, reset, timeout, 502, 503, 504 (or any other
	// 5xx or 429 status).
	On []string `json:"on,omitempty"`
	// BudgetPercent bounds retries to this share of requests; default 20.
	BudgetPercent *int     `json:"budget_percent,omitempty"`
	PerTryTimeout Duration `json:"per_try_timeout,omitempty"`
	// Replay sends also what is not idempotent again, once, where a connection
	// that had been idle was closed before a byte of an answer came.
	Replay bool `json:"replay,omitempty"`
}

// HedgeSpec sends a second attempt when the first has not answered After;
// idempotent requests without a body only.
type HedgeSpec struct {
	After Duration `json:"after"`
}

// OutlierSpec is passive ejection.
type OutlierSpec struct {
	// ConsecutiveFailures leave an instance out; default 5; 0 turns it off.
	ConsecutiveFailures *int `json:"consecutive_failures,omitempty"`
	// BaseEjection is the first ejection's length; default 5s; it grows with
	// each further one.
	BaseEjection *Duration `json:"base_ejection,omitempty"`
	// MaxEjectionPercent of the instances may be out at once; default 50.
	MaxEjectionPercent *int `json:"max_ejection_percent,omitempty"`
}

// HealthCheckSpec is an active check by the gateway itself.
type HealthCheckSpec struct {
	// Type is http (default), tcp or grpc.
	Type string `json:"type,omitempty"`
	// Path is relative, default "/"; redirects are not followed.
	Path           string   `json:"path,omitempty"`
	Interval       Duration `json:"interval,omitempty"`        // default 5s
	Timeout        Duration `json:"timeout,omitempty"`         // default 1s
	UnhealthyAfter int      `json:"unhealthy_after,omitempty"` // default 2
	HealthyAfter   int      `json:"healthy_after,omitempty"`   // default 1
}

// CircuitBreakerSpec stops calling a service that fails.
type CircuitBreakerSpec struct {
	ErrorPercent int      `json:"error_percent,omitempty"` // default 50
	MinRequests  int      `json:"min_requests,omitempty"`  // default 20
	Window       Duration `json:"window,omitempty"`        // default 10s
	OpenFor      Duration `json:"open_for,omitempty"`      // default 5s
}

// UpstreamSpec chooses the client that speaks to the instances.
type UpstreamSpec struct {
	// Engine is fast (default) or std; fast is for the protocols http and
	// https, the others are std anyway.
	Engine string `json:"engine,omitempty"`
}

// TLSSpec is how https and grpcs instances are spoken to.
type TLSSpec struct {
	CAFile     string `json:"ca_file,omitempty"`
	CertFile   string `json:"cert_file,omitempty"`
	KeyFile    string `json:"key_file,omitempty"`
	ServerName string `json:"server_name,omitempty"`
	// InsecureSkipVerify turns verification off; said in the log.
	InsecureSkipVerify bool `json:"insecure_skip_verify,omitempty"`
}
