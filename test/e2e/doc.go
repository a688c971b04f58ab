// Package e2e tests what users see: the built programs against a real Consul,
// etcd and Redis. Build them first: make build.
package e2e
