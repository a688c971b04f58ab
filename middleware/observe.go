package middleware

import (
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// Bounds on what a client can make the log write.
const (
	logPath  = 512
	logHost  = 255
	logAgent = 256
)

// observe writes the access log and counts, once the request is done.
func (e *Engine) observe(c *gin.Context, st *state) {
	returned := false
	defer func() {
		status := st.outcome(returned)
		e.metrics.leave(st, status)
		if e.cfg.AccessLog && !st.quiet {
			e.logAccess(c.Request, st, status)
		}
	}()
	c.Next()
	returned = true
}

// outcome is the status that stands in log and metrics.
func (st *state) outcome(returned bool) int {
	switch {
	case st.w.status != 0:
		return st.w.status
	case st.x.Refused != nil: // nobody was there to read it
		return st.x.Refused.Code.Status()
	case !returned && st.x.Aborted == "":
		return http.StatusInternalServerError // recover answers next
	case !returned:
		return routing.CodeClientClosed.Status()
	}
	return http.StatusOK
}

func (st *state) routeName() string {
	if r := st.x.Match.Route; r != nil {
		return r.Name
	}
	return ""
}

// logAccess writes one line. Handlers escape values, so that nothing a client
// sends can begin another line. The query is left out: tokens travel in it.
func (e *Engine) logAccess(r *http.Request, st *state, status int) {
	ctx, log := r.Context(), e.deps.Log
	if !log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	x := &st.x
	attrs := append(st.line[:0],
		slog.String("request_id", x.RequestID),
		slog.String("client", st.client()),
		slog.String("method", head(r.Method, 32)),
		slog.String("host", head(r.Host, logHost)),
		slog.String("path", head(rawPath(r), logPath)),
		slog.String("proto", r.Proto),
		slog.Int("status", status),
		slog.Int64("bytes", st.w.bytes),
		slog.Duration("duration", time.Since(x.Start)),
		slog.String("user_agent", head(r.UserAgent(), logAgent)),
	)
	if route := x.Match.Route; route != nil {
		attrs = append(attrs, slog.String("route", route.Name), slog.String("service", route.ServiceName))
	}
	if x.Attempts > 0 {
		attrs = append(attrs, slog.String("subset", x.Subset), slog.String("instance", x.Instance),
			slog.Int("attempts", x.Attempts), slog.Duration("first_byte", x.FirstByte))
	}
	if ref := x.Refused; ref != nil {
		attrs = append(attrs, slog.String("code", string(ref.Code)))
		if ref.Cause != nil {
			attrs = append(attrs, slog.String("cause", ref.Cause.Error()))
		}
	}
	if st.bot != "" {
		attrs = append(attrs, slog.String("bot", st.bot), slog.Int("bot_score", st.botScore))
	}
	if x.Aborted != "" {
		attrs = append(attrs, slog.String("aborted", x.Aborted))
	}
	log.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
}

// client is the client's address as text: that of the connection, where it is
// the client's, without writing it anew.
func (st *state) client() string {
	if ap, err := netip.ParseAddrPort(st.r.RemoteAddr); err == nil && ap.Addr() == st.x.Client && ap.Addr().Is4() {
		host, _, _ := strings.Cut(st.r.RemoteAddr, ":")
		return host
	}
	return st.x.Client.String()
}

// head is the first n bytes of s, marked where it was longer.
func head(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
