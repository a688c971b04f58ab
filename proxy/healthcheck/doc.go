// Package healthcheck asks instances themselves whether they are well.
//
// In: after each table swap the endpoints to check, each with what to send
// and how often. Out: verdicts, by balance.Endpoint.SetHealthy. A target that
// did not change goes on as it was; one that left is healthy again as far as
// this package is concerned, because nobody looks any more.
//
// A check opens a connection of its own, sends one request, follows no
// redirect and uses no proxy. An HTTP check passes on any status from 200 to
// 399, a TCP check on a connection, a gRPC check on SERVING (grpc.health.v1,
// https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
package healthcheck
