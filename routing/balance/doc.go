// Package balance chooses the instance for a request and remembers how
// instances behave.
//
// Two kinds of things: Pickers, immutable choosers that a table carries, and
// live state that outlives every table: an Endpoint per instance (requests in
// flight, failures in a row, ejection), a Group per service (retry budget,
// circuit breaker, in-flight bound). A Pool owns the live state by name.
// Policy travels with the picker, so that changing a limit resets no counter.
//
// Pick never blocks and takes no lock shared by all requests.
package balance
