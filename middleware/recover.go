package middleware

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// recover turns a panic below it into an answer. http.ErrAbortHandler goes
// on up: it is how a response that cannot be completed is cut, and to swallow
// it, as Gin's own Recovery does, would make a truncated body look whole.
func (e *Engine) recover(c *gin.Context, st *state) {
	defer func() {
		v := recover()
		if v == nil {
			st.returned = true
			return
		}
		if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(http.ErrAbortHandler)
		}
		e.metrics.panics.Inc()
		e.deps.Log.LogAttrs(c.Request.Context(), slog.LevelError, "panic while serving a request",
			slog.String("panic", fmt.Sprint(v)), slog.String("request_id", st.x.RequestID),
			slog.String("route", st.routeName()), slog.String("stack", string(debug.Stack())))
		if st.w.status != 0 {
			panic(http.ErrAbortHandler)
		}
		clear(st.w.Header()) // whatever half an answer left there
		st.w.edits = nil
		st.closing = true
		st.refuse(c, &routing.Refusal{Code: CodeInternal, Detail: "the gateway failed to serve this request"}, 0)
	}()
	// Gin presets 404 and appends its text to whatever was answered with that
	// status; with another it only makes sure that a head went out.
	c.Status(http.StatusOK)
	c.Next()
}
