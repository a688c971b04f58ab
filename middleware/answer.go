package middleware

import (
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/routing"
)

// respond gives a route's fixed answer.
func respond(w http.ResponseWriter, r *http.Request, spec *routing.RespondSpec) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	for k, v := range spec.Headers {
		h.Set(k, v)
	}
	status := spec.Status
	if status == 0 {
		status = http.StatusOK
	}
	writeBody(w, r, status, spec.Body)
}

// writeBody writes an answer whose whole body is at hand.
func writeBody(w http.ResponseWriter, r *http.Request, status int, body string) {
	if status == http.StatusNoContent || status == http.StatusNotModified {
		w.Header().Del("Content-Type")
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, body) // a client that left does not read it
	}
}

// redirect sends the client to the route's target. The query goes along
// unless the target has its own.
func redirect(w http.ResponseWriter, r *http.Request, m *routing.Match, spec *routing.RedirectSpec) {
	to := expand(spec.To, m.Params())
	if r.URL.RawQuery != "" && !strings.Contains(spec.To, "?") {
		base, fragment, found := strings.Cut(to, "#")
		to = base + "?" + r.URL.RawQuery
		if found {
			to += "#" + fragment
		}
	}
	code := spec.Code
	if code == 0 {
		code = http.StatusFound
	}
	w.Header().Set("Location", to)
	writeBody(w, r, code, "")
}

// expand fills the parameters of the route's path into a redirect's target.
// Values stay escaped as they were sent. A target that is a path stays one: a
// value that begins with a slash must not make it "//host", which a browser
// reads as another site.
func expand(to string, params []routing.Param) string {
	scheme := strings.Index(to, "://")
	var b strings.Builder
	for i := 0; i < len(to); {
		if c := to[i]; (c != ':' || i == scheme) && c != '*' {
			b.WriteByte(c)
			i++
			continue
		}
		end := i + 1
		for end < len(to) && isName(to[end]) {
			end++
		}
		if v, ok := param(params, to[i+1:end]); ok && end > i+1 {
			b.WriteString(v)
		} else {
			b.WriteString(to[i:end])
		}
		i = end
	}
	out := b.String()
	if strings.HasPrefix(to, "/") {
		out = "/" + strings.TrimLeft(out, `/\`)
	}
	return out
}

func param(params []routing.Param, name string) (string, bool) {
	for _, p := range params {
		if p.Name == name {
			return p.Value, true
		}
	}
	return "", false
}

func isName(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}
