// Package consul follows a Consul agent: the passing instances of the
// services that documents name, and of those whose own tags announce routes.
//
// What flows in: the names to follow (Want) and the agent's answers. What
// flows out: a full discovery.State at every change, through the Sink.
//
// # Queries
//
// Up to a fixed number of services each have a blocking query of their own
// (https://developer.hashicorp.com/consul/api-docs/features/blocking). The
// rest share one watch on the list of checks and one on the catalog of their
// datacenter, which say what to read again; the number of connections never
// passes Config.MaxConnections (docs/adr/0002-consul-connections.md).
//
// The index rules: an index that falls starts over from 0; the same index is
// a timeout and no change; an answer without an index did not come from
// Consul; after any error the next query starts from 0, because an agent
// that lost its state blocks on an index of its former life. How often a
// query may wake is bounded by a token bucket. A query has a deadline of its
// own, since the client has none and a frozen agent never answers.
//
// # What an answer may change
//
// A failed query changes nothing, and neither does one whose answer ACLs
// thinned out: X-Consul-Results-Filtered-By-ACLs is an error here. The one
// exception is the list of checks, which only says what to read again: a
// token that sees part of the cluster is normal there. An empty answer
// empties the service, unless the index fell below the last one known; then
// the agent has lost its state and the last instances stay for 30 seconds,
// or until a non-empty answer. Announcements are kept in the same way.
//
// # Up and down
//
// A query that reached nothing (refused, reset, timed out) reports the lost
// contact at once. A query that Consul itself refused (403, 429, 500, an
// answer thinned out) is reported so only while every query is refused: one
// bad service among good ones does not take the source down. Any good answer
// is a contact. Retries are jittered and at most one second apart.
//
// Index numbers are Consul's Raft indexes; all durations are time.Duration.
package consul
