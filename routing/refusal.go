package routing

import (
	"net/http"
	"time"
)

// Code names a gateway's own answer, for machines. The set is fixed.
type Code string

// Every code the gateway answers with.
const (
	CodeRouteNotFound       Code = "route_not_found"
	CodeMethodNotAllowed    Code = "method_not_allowed"
	CodeBadRequest          Code = "bad_request"
	CodeRouteInvalid        Code = "route_invalid"
	CodeNoHealthyInstance   Code = "no_healthy_instance"
	CodeCircuitOpen         Code = "circuit_open"
	CodeOverloaded          Code = "overloaded"
	CodeUpstreamUnreachable Code = "upstream_unreachable"
	CodeUpstreamError       Code = "upstream_error"
	CodeUpstreamTimeout     Code = "upstream_timeout"
	CodeUnauthenticated     Code = "unauthenticated"
	CodeForbidden           Code = "forbidden"
	CodeRateLimited         Code = "rate_limited"
	CodeBodyTooLarge        Code = "body_too_large"
	CodeInvalidRequest      Code = "invalid_request"
	// CodeClientClosed is for logs and metrics only: the client left, and
	// nobody reads an answer.
	CodeClientClosed Code = "client_closed"
)

// Status is the HTTP status of the code.
func (c Code) Status() int {
	switch c {
	case CodeRouteNotFound:
		return http.StatusNotFound
	case CodeMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case CodeBadRequest:
		return http.StatusBadRequest
	case CodeRouteInvalid, CodeNoHealthyInstance, CodeCircuitOpen, CodeOverloaded:
		return http.StatusServiceUnavailable
	case CodeUpstreamUnreachable, CodeUpstreamError:
		return http.StatusBadGateway
	case CodeUpstreamTimeout:
		return http.StatusGatewayTimeout
	case CodeUnauthenticated:
		return http.StatusUnauthorized
	case CodeForbidden:
		return http.StatusForbidden
	case CodeRateLimited:
		return http.StatusTooManyRequests
	case CodeBodyTooLarge:
		return http.StatusRequestEntityTooLarge
	case CodeInvalidRequest:
		return http.StatusUnprocessableEntity
	case CodeClientClosed:
		return 499
	}
	return http.StatusInternalServerError
}

// Refusal is an answer of the gateway's own in place of the instance's. It
// is an error so that it can travel up to whoever writes it.
type Refusal struct {
	Code Code
	// Detail is one sentence for the person who asked; it names no internal
	// address and no secret.
	Detail string
	// RetryAfter goes out as Retry-After where it is above zero.
	RetryAfter time.Duration
	// Allow goes out as Allow, with CodeMethodNotAllowed.
	Allow []string
	// Cause is for the log only.
	Cause error
}

// Error gives code, detail and cause, for logs.
func (r *Refusal) Error() string {
	s := string(r.Code) + ": " + r.Detail
	if r.Cause != nil {
		s += ": " + r.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Cause }
