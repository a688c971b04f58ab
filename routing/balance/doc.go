// Package balance chooses the instance for a request and remembers how
// instances behave.
//
// Two kinds of things: Pickers, immutable choosers that a table carries, and
// live state that outlives every table: an Endpoint per instance (requests in
// flight, failures in a row, ejection), a Group per service (retry budget,
// circuit breaker, in-flight bound). A Pool owns the live state by name.
// Policy travels with the picker, so that changing a limit resets no counter.
//
// Pick never blocks and takes no lock shared by all requests. A lock guards
// the rare changes of state only: an endpoint going out or coming back, a
// breaker opening or closing.
//
// # Who is fit
//
// A member of a picker is left out while it is ejected (it failed requests)
// or unhealthy (an active check says so). Three rules keep a bad verdict from
// making things worse:
//
//   - At most MaxEjectionPercent of the members, rounded down, are ejected at
//     once, and never the last one that is fit. Where more are out because
//     members left since, ejections are ignored.
//   - Where fewer than half of the members pass their active checks, the
//     checks are ignored: the rest would drown in the traffic of all.
//   - Where nobody is fit, everybody is.
//
// An ejection lasts BaseEjection, twice that when the trial after it fails,
// and so on up to ten times BaseEjection. It starts over once the endpoint has
// served for as long as the longest ejection. After its time one request at a
// time is let through (another one where that took five seconds); success
// brings the endpoint back, failure sends it out again.
//
// A member of weight 0 gets no request; where no member has a weight, Pick
// says ErrNoInstance.
package balance
