// Package discovery brings what registries say into the gateway.
//
// A Source follows one registry (Consul, etcd, a directory) and reports its
// full state every time that state changes; the Hub merges the latest state
// of every source into one immutable Snapshot. Nothing here knows what a
// route is: a Document is a key and its bytes, an Instance an address with
// its tags.
//
// Everything that leaves this package is immutable after it was handed over:
// the receiver may keep it and compare it by identity. A *Documents pointer or
// an Instances slice that did not change is handed over again as it was, so
// that a rebuild can skip it.
package discovery
