package routing

import (
	"net/netip"
	"time"
)

// Exchange is one request's walk through the gateway: who asked, what
// matched, and, as it goes on, what became of it. One goroutine at a time
// owns it; it is reused after the request ends, so nobody keeps it.
type Exchange struct {
	// Start is when the request's head had been read.
	Start time.Time
	// RequestID and TraceID are the gateway's.
	RequestID string
	TraceID   string
	// Traceparent is what instances are told where the client said nothing
	// that is believed: a trace that begins here, not sampled. "" where they
	// get the client's, or none.
	Traceparent string
	// Client is the client's address, computed once from the connection and
	// trusted_proxies; unmapped.
	Client netip.Addr
	// GRPC is set for requests whose content type is application/grpc*.
	GRPC bool

	// Identity is who asks, once a plugin has found out; nil before, and for
	// routes that ask nobody.
	Identity *Identity

	// Match is what the request matched; Match.Route is nil before.
	Match Match

	// The rest is filled in while forwarding, for log and metrics.

	// Subset and Instance served; Attempts counts tries.
	Subset   string
	Instance string
	Attempts int
	// FirstByte is the time from Start to the upstream's response head.
	FirstByte time.Duration
	// Refused is set when the gateway answered itself.
	Refused *Refusal
	// Aborted says why a response was cut short after its head had gone out:
	// "client" or "upstream"; "" where it was not.
	Aborted string
}

// Reset makes x ready for another request.
func (x *Exchange) Reset() { *x = Exchange{} }
