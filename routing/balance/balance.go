package balance

import (
	"errors"
	"syscall"
	"time"
)

// Kind names a picker.
type Kind string

// The pickers.
const (
	RoundRobin     Kind = "round_robin"
	LeastRequest   Kind = "least_request"
	P2C            Kind = "p2c"
	Random         Kind = "random"
	IPHash         Kind = "ip_hash"
	ConsistentHash Kind = "consistent_hash"
)

// Errors of Pick.
var (
	// ErrNoInstance: no instance is left to try.
	ErrNoInstance = errors.New("no healthy instance")
	// ErrCircuitOpen: the service's breaker is open.
	ErrCircuitOpen = errors.New("circuit open")
	// ErrOverloaded: the service's in-flight bound is reached.
	ErrOverloaded = errors.New("too many requests in flight")
)

// Result is what became of one attempt, as far as it speaks of the instance.
type Result uint8

// Results of an attempt.
const (
	// Neutral says nothing about the instance: the client left or sent a
	// broken body, a reused connection was closed before its first byte, or
	// this host had nothing left to connect with.
	Neutral Result = iota
	// Success: the instance answered, and not with a 5xx.
	Success
	// ServerError: the instance answered with a 5xx.
	ServerError
	// Unreachable: no connection could be made; nothing was sent.
	Unreachable
	// Broken: the connection broke, or what came back was not HTTP.
	Broken
	// TimedOut: the instance did not answer in time.
	TimedOut
)

// String gives the result as a word for labels: "neutral", "success",
// "server_error", "unreachable", "broken" or "timed_out".
func (r Result) String() string {
	switch r {
	case Success:
		return "success"
	case ServerError:
		return "server_error"
	case Unreachable:
		return "unreachable"
	case Broken:
		return "broken"
	case TimedOut:
		return "timed_out"
	}
	return "neutral"
}

// OwnFault reports whether a connection could not be made for want of
// something of this host's: files, local ports, memory. Another instance is no
// better then, and none is to blame.
func OwnFault(err error) bool {
	for _, lack := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, lack) {
			return true
		}
	}
	return false
}

// Policy is what a picker does with what it learns. It is immutable and
// comparable.
type Policy struct {
	Kind Kind

	// ConsecutiveFailures in a row eject an endpoint (0: never); Unreachable
	// ejects at once.
	ConsecutiveFailures int
	// BaseEjection is the first ejection's length.
	BaseEjection time.Duration
	// MaxEjectionPercent of the members may be out at once.
	MaxEjectionPercent int

	// The breaker opens when ErrorPercent of at least MinRequests in Window
	// failed, for OpenFor; ErrorPercent 0 is no breaker.
	ErrorPercent int
	MinRequests  int
	Window       time.Duration
	OpenFor      time.Duration

	// MaxInFlight bounds the service's requests under way, MaxPerEndpoint
	// those of each endpoint; 0 is no bound.
	MaxInFlight    int
	MaxPerEndpoint int
	// SlowStart is how long a new endpoint takes to its full weight.
	SlowStart time.Duration
	// RetryBudgetPercent bounds retries to this share of requests.
	RetryBudgetPercent int
}

// Query is what Pick may look at.
type Query struct {
	// Hash chooses for the hashing kinds.
	Hash uint64
	// Tried are endpoints that this request has had; they are chosen again
	// only by nobody: ErrNoInstance if no other is left.
	Tried []*Endpoint
	// Prefer names the endpoint to take if it is fit to serve (stickiness).
	Prefer string
}

// Picker chooses an endpoint. It is immutable and safe for concurrent use.
type Picker interface {
	// Pick returns an endpoint, already counted as in flight, or one of the
	// errors of this package. It never blocks. Done must be called once on
	// what it returned.
	Pick(Query) (Pick, error)
}
