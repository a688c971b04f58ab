package middleware

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// health answers the health path, and says whether it did. A gateway that
// drains says so, for load balancers that ask on this port.
func (e *Engine) health(c *gin.Context, st *state) bool {
	r := st.r
	if e.cfg.HealthPath == "" || rawPath(r) != e.cfg.HealthPath ||
		r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	c.Abort()
	st.quiet = true
	status, body := http.StatusOK, `{"status":"ok"}`+"\n"
	if e.draining.Load() {
		status, body = http.StatusServiceUnavailable, `{"status":"draining"}`+"\n"
	}
	h := st.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	writeBody(&st.w, r, status, body)
	return true
}

// match looks the request up in the table that serves it to its end.
func (e *Engine) match(c *gin.Context, st *state) {
	table := e.deps.Tables.Table()
	if table == nil {
		st.refuse(c, &routing.Refusal{Code: routing.CodeOverloaded,
			Detail: "the gateway has not loaded its routes yet", RetryAfter: time.Second}, 0)
		return
	}
	r, m := st.r, &st.x.Match
	stripOwn(r.Header, table.OwnHeaders()) // before predicates look at them
	st.cookies = takeCookies(r.Header, e.deps.Plugins.registry.ownCookies())
	st.ask = routing.Request{Method: r.Method, Host: r.Host, Path: st.path, RawQuery: r.URL.RawQuery, Header: r.Header}
	switch table.Match(&st.ask, m) {
	case routing.Matched:
	case routing.MethodNotAllowed:
		allow := m.Allow
		m.Route = nil
		st.refuse(c, &routing.Refusal{Code: routing.CodeMethodNotAllowed,
			Detail: "the path is served, but not with this method", Allow: allow}, 0)
		return
	default:
		m.Route = nil
		st.refuse(c, &routing.Refusal{Code: routing.CodeRouteNotFound,
			Detail: "no route matches this request"}, 0)
		return
	}
	e.metrics.enter(st)
	if m.Route.State == routing.RouteInvalid {
		st.refuse(c, &routing.Refusal{Code: routing.CodeRouteInvalid,
			Detail: "the route's configuration is not valid, and it never had one that was"}, 0)
	}
}

// forward ends the walk: the route's own answer, or the instance's.
func (e *Engine) forward(c *gin.Context, st *state) {
	m := &st.x.Match
	if m.Service == nil {
		if spec := m.Route.Spec; spec.Redirect != nil {
			redirect(outer(c, st), st.r, m, spec.Redirect)
			return
		} else if spec.Respond != nil {
			respond(outer(c, st), st.r, spec.Respond)
			return
		}
	}
	st.forwarded = true
	st.wantBody()
	if ref := e.deps.Forwarder.Forward(outer(c, st), st.r, &st.x); ref != nil {
		e.forwardFailed(c, st, ref)
	}
}

// outer is the writer to answer on: the one that plugins have wrapped, or,
// where none has, the one beneath Gin's, which delays nothing.
func outer(c *gin.Context, st *state) http.ResponseWriter {
	if u, ok := c.Writer.(interface{ Unwrap() http.ResponseWriter }); ok && u.Unwrap() == http.ResponseWriter(&st.w) {
		return &st.w
	}
	return c.Writer
}

// forwardFailed answers for an instance that did not.
func (e *Engine) forwardFailed(c *gin.Context, st *state, ref *routing.Refusal) {
	status := 0
	if own, s := st.bodyRefusal(); own != nil {
		ref, status = own, s
		if ref.Code == routing.CodeBodyTooLarge && st.body.limitedBy != "" {
			e.metrics.reject(st, st.body.limitedBy, ref)
		}
	}
	if st.w.status != 0 || ref.Code == routing.CodeClientClosed {
		// Either the answer has begun and cannot be completed, or nobody is
		// there to read one; net/http would make a good 200 of silence.
		st.x.Refused = ref
		if st.x.Aborted == "" {
			st.x.Aborted = "upstream"
			if ref.Code == routing.CodeClientClosed || status != 0 {
				st.x.Aborted = "client"
			}
		}
		panic(http.ErrAbortHandler)
	}
	st.refuse(c, ref, status)
}
