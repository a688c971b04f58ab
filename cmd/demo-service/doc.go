// Command demo-service is a small HTTP service that registers itself in
// Consul: what the demo and the end-to-end tests put behind the gateway.
//
// It answers every request with what it received, as JSON, so that a reader
// sees which instance answered and what the gateway made of the request. A
// path whose end is one of these does something else:
//
//	/healthz        200, or what POST /healthz?status=503 set it to
//	/slow?ms=500    answers after so long
//	/status/503     answers with that status
//	/stream?count=5&ms=200   server-sent events, one every so often
//	/echo           sends the body back while it still arrives
//
// The registration is kept: it is retried while the agent is away and made
// again when an agent came back without it. On SIGTERM or SIGINT the service
// first leaves Consul, serves on for -linger so that nobody is surprised, and
// then finishes what is in flight. A second signal ends it at once.
//
// CONSUL_HTTP_ADDR and CONSUL_HTTP_TOKEN are read as Consul's own tools do.
package main
