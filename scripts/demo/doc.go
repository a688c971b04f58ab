// Command demo runs the whole walk on one machine: a real Consul agent, a
// real etcd, the gateway, and a handful of services that register themselves.
// It prints a page of things to try and stops what it started on Ctrl-C.
//
//	go run ./scripts/demo          (make demo)
//	go run ./scripts/demo -check   (make demo CHECK=1)
//
// With -check it runs each printed command itself, to the letter, looks at
// each answer, and exits 0 or 1. One table of steps is behind the page and
// the check, so that neither can say what the other does not.
//
// The programs are taken from bin/. The usual ports are used where they are
// free, others where not. Everything written goes to a temporary directory.
package main
