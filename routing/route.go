package routing

import (
	"sync/atomic"
	"time"
	"unique"
)

// States of a route in the table.
const (
	RouteOK       = "ok"        // serves as written
	RouteLastGood = "last_good" // the newest document is wrong; an earlier one serves
	RouteInvalid  = "invalid"   // never had a good document: answers route_invalid
)

// Route is a compiled route. It is immutable, but for what Counts holds.
//
// What every request reads stands first: among ten thousand routes asked for
// in turn, each cache line of a route is fetched anew.
type Route struct {
	// slot is the service's place in Table.services, -1 for none: an instance
	// change replaces the service in its slot and leaves the route alone.
	slot int
	// Timeout bounds the whole request; 0 is none. Retries counts further
	// attempts; -1 leaves it to the service.
	Timeout time.Duration
	Retries int
	// State is RouteOK, RouteLastGood or RouteInvalid.
	State string
	// Plugins is the compiled configuration by slot; nil where the route
	// does not use that plugin. It is empty where it uses none.
	Plugins []any
	// Counts is for whoever counts the route's requests; nil is nowhere to
	// keep it.
	Counts *Counts
	// matcher is what a request must look like, and how its path is rewritten.
	matcher matcher
	// Host is the Host header towards instances, as RouteSpec has it.
	Host string
	// ServiceName names the service, "" for redirect and respond routes;
	// Subset pins a colour.
	ServiceName string
	Subset      string

	// Name is the document's name; "consul:SERVICE" for a route from tags.
	Name string
	// Source, Key, Revision and Created say where it came from.
	Source   string
	Key      string
	Revision int64
	Created  int64
	// Spec is the document; nil only for RouteInvalid where none could be read.
	Spec *RouteSpec
	// ownHeaders are those that its plugins set and no client may.
	ownHeaders []string
	// signature is the matcher's: of routes with the same one serves.
	signature unique.Handle[string]
}

// Counts is a place for what a route's requests are counted with, so that no
// request has to look for it. It always holds values of one type.
type Counts struct{ atomic.Value }
