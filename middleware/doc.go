// Package middleware is the gateway's front: the server that accepts
// connections, and the Gin engine that every request walks through.
//
// In: an *http.Request from net/http. Out: an answer, either the gateway's own
// (a refusal, a redirect, a fixed response) or what the Forwarder streamed
// from an instance. The walk is one literal list, in order.go; the engine has
// no Gin routes, because the routing table changes and Gin's tree does not.
//
// What never changes: a request loads the table once and sees that one to its
// end; nothing reaches matching, a plugin or an instance before the edge
// filter has settled what the request is (RFC 9112 framing, RFC 9110 target
// forms) and who sent it; every answer carries X-Request-ID; a response that
// was cut short never looks complete.
//
// Durations are time.Duration, sizes are bytes.
package middleware
