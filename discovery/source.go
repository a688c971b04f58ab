package discovery

import (
	"context"
	"time"
)

// State is everything one source knows at one moment. It is immutable once
// reported. A part that did not change since the last report is the same
// pointer, map value or slice as before.
type State struct {
	// Revision is the store revision that this state stands for: the etcd
	// revision, the highest Consul index, a counter for files.
	Revision int64
	// Documents are what operators wrote; nil where the source has none.
	Documents *Documents
	// Instances holds the passing instances, sorted by ID, of each service
	// the source has an answer for. A missing key means "not known yet", an
	// empty slice "none is passing".
	Instances map[ServiceRef][]Instance
	// Announced lists the services that exist in the registry and carry
	// gateway tags, with the union of those tags over all their instances,
	// passing or not.
	Announced map[string][]string
	// Seen is when the gateway saw the change that led to this state: the
	// start of the propagation metric.
	Seen time.Time
	// Stored is set on a state that came from the state directory and not
	// from the registry.
	Stored bool

	// carried: instances of a stored state stand in for what the registry
	// has not answered yet.
	carried bool
}

// Sink takes what a source has to say. Its methods may be called from any
// goroutine and do not block.
type Sink interface {
	// Report hands over the source's full state. The newest report wins.
	Report(State)
	// Contact records that the registry answered (nil) or did not (why).
	// It feeds the up and age metrics and changes nothing for traffic.
	Contact(error)
}

// Source follows one registry.
//
// Run reports the full state once it is known and again on every change,
// until ctx ends; then it returns nil within a second. A registry that is
// away is no reason to return: Run keeps trying, at most two seconds apart
// with jitter, and reports nothing meanwhile. Run returns an error only for
// what no retry can mend.
type Source interface {
	// Name is one of SourceEtcd, SourceConsul and SourceFile.
	Name() string
	Run(ctx context.Context, sink Sink) error
}
