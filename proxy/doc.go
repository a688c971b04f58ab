// Package proxy sends a matched request to an instance and its response back.
//
// In: the request as the edge cleaned it, and the routing.Exchange that
// carries the match. Out: the instance's response, streamed, or a
// routing.Refusal for the caller to write; never both. The walk is: route
// deadline, around attempts, around Pick, around one round trip.
//
// What never changes:
//   - A response that was cut short never looks complete. Once its head has
//     gone out, a failure panics with http.ErrAbortHandler, which closes an
//     HTTP/1 connection and resets an HTTP/2 stream.
//   - A request body that was cut short never looks complete either: the
//     connection to the instance is closed.
//   - What the client did wrong never counts against an instance.
//   - Bodies are streamed through pooled buffers of 64 KiB; at most the first
//     64 KiB of a request body are kept, for a replay.
//   - Every Pick is given back exactly once, when its response body ended.
//
// Durations are time.Duration, sizes bytes. The rules followed are RFC 9110
// (section 7.6.1 for hop-by-hop fields, 9.2.2 for idempotent methods, 10.1.1
// for Expect, 15.2 for 1xx), RFC 9112, RFC 6455 for WebSocket frames and the
// gRPC over HTTP/2 specification for grpc-timeout.
//
// Connections are kept by an Engine per routing.Upstream, outside the table,
// so that they outlive every swap.
package proxy
