// Package http1 serves plain requests on the goroutine of their connection,
// and leaves every other to net/http.
//
// net/http watches the client of every request with a goroutine of its own,
// which the answer then has to stop; under a proxy, whose requests wait, that
// is a third to a half of the processor time that a request costs
// (docs/adr/0009). Here nobody watches until somebody asks for the end of
// the request's context.
//
// Plain is a GET or HEAD of HTTP/1.1 without a body, whose whole head came in
// one read and nothing behind it, and that asks for no upgrade. http.ReadRequest
// reads it, so that there is no second opinion of what a request means. With
// the first request that is not plain, or not right, the connection goes to
// net/http for good, with what was read of it: bodies, upgrades, HTTP/1.0,
// pipelines, HTTP/2 by prior knowledge, slow heads and refusals are all
// net/http's.
//
// Answers follow the rules of net/http's server: same framing, same fields,
// same limits (RFC 9112). Tests hold both servers side by side.
package http1
