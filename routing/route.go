package routing

import (
	"time"
	"unique"
)

// States of a route in the table.
const (
	RouteOK       = "ok"        // serves as written
	RouteLastGood = "last_good" // the newest document is wrong; an earlier one serves
	RouteInvalid  = "invalid"   // never had a good document: answers route_invalid
)

// Route is a compiled route. It is immutable.
type Route struct {
	// Name is the document's name; "consul:SERVICE" for a route from tags.
	Name string
	// Source, Key, Revision and Created say where it came from.
	Source   string
	Key      string
	Revision int64
	Created  int64
	// State is RouteOK, RouteLastGood or RouteInvalid.
	State string
	// Spec is the document; nil only for RouteInvalid where none could be read.
	Spec *RouteSpec

	// ServiceName names the service, "" for redirect and respond routes;
	// Subset pins a colour.
	ServiceName string
	Subset      string
	// Timeout bounds the whole request; 0 is none. Retries counts further
	// attempts; -1 leaves it to the service.
	Timeout time.Duration
	Retries int
	// Plugins is the compiled configuration by slot; nil where the route
	// does not use that plugin.
	Plugins []any

	// slot is the service's place in Table.services, -1 for none: an instance
	// change replaces the service in its slot and leaves the route alone.
	slot int
	// ownHeaders are those that its plugins set and no client may.
	ownHeaders []string
	// matcher is what a request must look like, and how its path is rewritten.
	matcher matcher
	// signature is the matcher's: of routes with the same one serves.
	signature unique.Handle[string]
}
