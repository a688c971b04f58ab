package routing

import (
	"time"

	"github.com/sluice-gateway/sluice/discovery"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// Protocols to instances.
const (
	ProtocolHTTP  = "http"
	ProtocolHTTPS = "https"
	ProtocolH2C   = "h2c"
	ProtocolGRPC  = "grpc"
	ProtocolGRPCS = "grpcs"
)

// Engines are the clients that speak to instances: one that works on the
// request's own goroutine, for HTTP/1.1, and that of net/http.
const (
	EngineFast = "fast"
	EngineStd  = "std"
)

// Upstream is how the instances of a service are connected to. It is
// comparable: services with equal settings share connections.
type Upstream struct {
	Protocol string
	// Engine is EngineFast or EngineStd; "" is EngineFast.
	Engine  string
	TLS     TLSSpec
	Connect time.Duration
	// ResponseHeader bounds the wait for a response head after the request
	// was written; 0 is none.
	ResponseHeader time.Duration
}

// RetryPolicy says when an attempt may be followed by another.
type RetryPolicy struct {
	// Attempts counts further attempts after the first.
	Attempts int
	// Connect, Reset and Timeout are the transport failures that qualify.
	Connect, Reset, Timeout bool
	// Statuses lists response codes that qualify.
	Statuses []int
	// PerTry bounds one attempt; 0 is none.
	PerTry time.Duration
	// BudgetPercent bounds retries to this share of requests.
	BudgetPercent int
	// Replay lets what is not idempotent go again over a fresh connection
	// where a stale one ended without a byte of an answer.
	Replay bool
}

// Service is a compiled service in one table: its policy and, by subset, the
// picker over its endpoints. It is immutable; the endpoints' counters and the
// group's budgets are live and outlive it.
type Service struct {
	Name string
	// Source, Key and Revision name the document; Source is "" where there
	// is none and every default holds.
	Source   string
	Key      string
	Revision int64
	Spec     *ServiceSpec

	Upstream Upstream
	Retry    RetryPolicy
	// Idle bounds silence on streams and upgraded connections; 0 is none.
	Idle time.Duration
	// Hedge sends a second attempt after this long; 0 is off.
	Hedge time.Duration
	// Sticky is nil where clients are not kept at one instance.
	Sticky *StickySpec
	// Hash says what the picker hashes.
	Hash HashOn
	// HealthCheck is nil where the gateway does not check by itself.
	HealthCheck *HealthCheckSpec

	// Group is the live state of the whole service: retry budget, breaker,
	// in-flight count.
	Group *balance.Group
	// Refs are the registry names whose instances it uses.
	Refs []discovery.ServiceRef

	// All holds every instance; subsets each colour by name.
	All     *Subset
	subsets map[string]*Subset
	// LastKnown says that no instance passes and the last known ones serve
	// on, as on_empty asks.
	LastKnown bool
	choice    choice
	split     split
	// standIn serves for a subset without instances; nil for none.
	standIn *Subset
	inputs  serviceInputs
}

// Subset is the instances of one colour with the picker over them.
type Subset struct {
	// Name is "" for all instances.
	Name string
	// Instances are sorted by ID.
	Instances []discovery.Instance
	Endpoints []*balance.Endpoint
	Picker    balance.Picker
}

// HashOn says what ip_hash and consistent_hash hash: exactly one is set, or
// none where the picker needs no hash.
type HashOn struct {
	Header string
	Cookie string
	IP     bool
	Path   bool
}
