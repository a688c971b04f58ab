// Package testenv runs the real servers that tests, drills and benchmarks
// need: Consul, etcd, Redis and an OpenID Connect provider, as processes of
// their own on free loopback ports, with their data in a temporary directory,
// ended by pid when the test ends.
//
// Nothing here is skipped: a binary that is missing fails the test and says
// which command provides it. Everything takes a TB, the part of testing.TB
// that is used, so that a program can pass its own.
//
// A Server is driven by one goroutine at a time.
package testenv
