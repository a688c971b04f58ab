// Package routing turns what registries say into the table that answers
// requests.
//
// In: a discovery.Snapshot (documents as bytes, instances). Out: an immutable
// *Table that a request loads once, and the Problems of every document that
// does not serve as written. Build is a pure function of the previous table
// and the snapshot; the only live state it touches is the balance.Pool, whose
// endpoints and counters outlive every table.
//
// Words: a RouteSpec or ServiceSpec is the document people write; a Route or
// Service is its compiled, immutable form; the Index finds the route of a
// request; the Router owns the atomic pointer to the table in force.
//
// The package knows no plugin and no registry client.
package routing
