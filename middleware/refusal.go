package middleware

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// CodeInternal answers for a bug of the gateway's own: a plugin or the
// forwarder panicked before it had written anything.
const CodeInternal routing.Code = "internal_error"

// problem is the body of an answer of the gateway's own (RFC 9457).
type problem struct {
	Type      string       `json:"type"`
	Title     string       `json:"title"`
	Status    int          `json:"status"`
	Code      routing.Code `json:"code"`
	Detail    string       `json:"detail"`
	RequestID string       `json:"request_id"`
}

// WriteRefusal answers r with ref: application/problem+json, or for gRPC
// callers a trailers-only response. Nothing must have been written to w.
func WriteRefusal(w http.ResponseWriter, r *http.Request, x *routing.Exchange, ref *routing.Refusal) {
	writeRefusal(w, r, x, ref, ref.Code.Status())
}

func writeRefusal(w http.ResponseWriter, r *http.Request, x *routing.Exchange, ref *routing.Refusal, status int) {
	h := w.Header()
	// What a plugin or a failed attempt may have left describes another body.
	for _, k := range []string{"Content-Length", "Content-Encoding", "Etag", "Last-Modified"} {
		delete(h, k)
	}
	h.Set("Cache-Control", "no-store")
	if ref.RetryAfter > 0 {
		seconds := (ref.RetryAfter + time.Second - 1) / time.Second
		h.Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	if x.GRPC {
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", strconv.Itoa(grpcStatus(status)))
		h.Set("Grpc-Message", grpcMessage(string(ref.Code)+": "+ref.Detail))
		w.WriteHeader(http.StatusOK)
		return
	}
	if ref.Code == routing.CodeMethodNotAllowed {
		h.Set("Allow", join(ref.Allow))
	}
	body, _ := json.Marshal(problem{
		Type: "urn:sluice:" + string(ref.Code), Title: title(status), Status: status,
		Code: ref.Code, Detail: ref.Detail, RequestID: x.RequestID,
	})
	body = append(body, '\n')
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that left does not read it
	}
}

func title(status int) string {
	if t := http.StatusText(status); t != "" {
		return t
	}
	return "Client Closed Request"
}

// grpcStatus maps an HTTP status to a gRPC one. 400 to 404, 429, 502 and 503
// are gRPC's own mapping for clients (grpc/doc/http-grpc-status-mapping.md), so
// that a caller sees the same whoever translates; for the rest that page only
// says UNKNOWN, and the nearest meaning is given instead. Its UNAVAILABLE for
// 504 invites clients to send a call again that the instance may be at work on.
func grpcStatus(status int) int {
	switch status {
	case http.StatusBadRequest:
		return 13 // INTERNAL
	case http.StatusUnauthorized:
		return 16 // UNAUTHENTICATED
	case http.StatusForbidden:
		return 7 // PERMISSION_DENIED
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return 12 // UNIMPLEMENTED
	case http.StatusTooManyRequests, http.StatusBadGateway,
		http.StatusServiceUnavailable:
		return 14 // UNAVAILABLE
	case http.StatusRequestEntityTooLarge, http.StatusRequestHeaderFieldsTooLarge:
		return 8 // RESOURCE_EXHAUSTED
	case http.StatusUnprocessableEntity:
		return 3 // INVALID_ARGUMENT
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return 4 // DEADLINE_EXCEEDED
	case http.StatusInternalServerError:
		return 13 // INTERNAL
	}
	return 2 // UNKNOWN
}

// grpcMessage escapes s as Grpc-Message wants it: printable ASCII but %.
func grpcMessage(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// refuse answers with ref and ends the walk. status is that of the code where
// it is 0.
func (st *state) refuse(c *gin.Context, ref *routing.Refusal, status int) {
	c.Abort()
	st.x.Refused = ref
	if status == 0 {
		status = ref.Code.Status()
	}
	if st.body != nil && !st.forwarded && !st.closing {
		st.body.drain(st.r)
	}
	st.w.edit(st.w.Header()) // before the answer's own headers, which win
	writeRefusal(&st.w, st.r, &st.x, ref, status)
}

// bodyRefusal is the answer to a body that could not be read, whatever the
// forwarder made of it; nil if nothing is wrong with the body.
func (st *state) bodyRefusal() (*routing.Refusal, int) {
	if st.body == nil {
		return nil, 0
	}
	err := st.body.failure()
	var over *http.MaxBytesError
	switch {
	case err == nil:
		return nil, 0
	case errors.As(err, &over):
		return &routing.Refusal{Code: routing.CodeBodyTooLarge, Cause: err, Detail: tooLarge(over.Limit)}, 0
	case errors.Is(err, errBodyStalled):
		return &routing.Refusal{Code: routing.CodeBadRequest, Cause: err,
			Detail: "the body did not arrive in time"}, http.StatusRequestTimeout
	}
	return nil, 0
}
