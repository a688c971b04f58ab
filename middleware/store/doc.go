// Package store is the Redis that gateways share: for limits and sessions.
//
// A call takes at most Config.Timeout, whatever Redis does, and is never
// repeated: a script that timed out may still have run. After a few failures
// in a row the store counts as away, and calls fail at once without being
// tried; one probe in the background notices when it is back. What a caller
// does meanwhile is its own, declared choice.
//
// The keys of one decision share a hash tag ({...}), so that a cluster keeps
// them in one slot (Redis Cluster specification, "hash tags").
package store
