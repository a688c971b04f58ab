// Package wire is an HTTP/1.1 client, over TCP and TLS, that serves each
// exchange on the goroutine that asked for it: no connection has a reader or a
// writer of its own.
//
// In: requests that Fits accepts; the head and a small body leave in one
// write, a larger body follows from a goroutine of its own, beside the reading
// of the answer. Out: responses whose head was parsed once, strictly, and
// whose body is streamed from the connection.
//
// What never changes:
//   - A connection serves another request only after a response that ended
//     where its framing says, with no byte behind it, and after a look at the
//     socket has found it open and silent.
//   - A response that can be read in two ways is an error, and its connection
//     is closed.
//   - A body that was cut short ends in an error, never in io.EOF; a request
//     body that was cut short is never ended, its connection is closed.
//   - When the context that bounds the exchange ends, whatever waits for the
//     connection returns at once; a quick exchange asks for that context once
//     it has waited for Patience.
//
// The rules followed are RFC 9112 (message framing) and RFC 9110. Where those
// let a recipient be lenient (a bare LF as line end, folded lines, repeated
// equal lengths), this package is not.
package wire
