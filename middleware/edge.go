package middleware

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/routing"
)

// edge settles what the request is before anything is decided on it. What
// cannot be read in only one way is refused, and where the framing is in
// doubt the connection ends too, so that no rest of it is taken for another
// request.
func (e *Engine) edge(c *gin.Context, st *state) {
	st.x.GRPC = isGRPC(st.r)
	st.guard() // before any answer: an unread body needs its bounds too
	if e.health(c, st) {
		return
	}
	if r := st.r; r.Method == http.MethodOptions && r.RequestURI == "*" {
		// About the server as a whole (RFC 9110 section 9.3.7), so no route's.
		c.Abort()
		writeBody(&st.w, r, http.StatusNoContent, "")
		return
	}
	if ref, status := e.inspect(st); ref != nil {
		st.refuse(c, ref, status)
	}
}

// inspect returns the refusal of a request that must not go on, and its
// status where that is not the code's.
func (e *Engine) inspect(st *state) (*routing.Refusal, int) {
	r := st.r
	if ref := st.checkMethod(); ref != nil {
		return ref, 0
	}
	if ref := st.checkTarget(); ref != nil {
		return ref, 0
	}
	if !validHost(r.Host) {
		return st.broken("the Host header is not a host name with an optional port"), 0
	}
	if ref := st.checkFraming(); ref != nil {
		return ref, 0
	}
	if e.scrub.apply(r.Header, st.trusted, e.cfg.MaxHeaders) {
		return st.broken("the request has too many header lines"), http.StatusRequestHeaderFieldsTooLarge
	}
	if limit := e.cfg.MaxBodyBytes; limit > 0 && r.ContentLength > limit {
		st.closing = true
		return &routing.Refusal{Code: routing.CodeBodyTooLarge,
			Detail: "the body is larger than what is accepted here"}, 0
	}
	path, err := routing.Normalize(rawPath(r))
	if err != nil {
		return &routing.Refusal{Code: routing.CodeBadRequest, Detail: err.Error(), Cause: err}, 0
	}
	st.path = path
	return nil, 0
}

// broken is the answer to a request whose meaning is in doubt.
func (st *state) broken(detail string) *routing.Refusal {
	st.closing = true
	return &routing.Refusal{Code: routing.CodeBadRequest, Detail: detail}
}

// checkMethod refuses the methods that are not about a resource: a tunnel,
// an echo of the request's headers, and HTTP/2's preface on HTTP/1.
func (st *state) checkMethod() *routing.Refusal {
	switch st.r.Method {
	case http.MethodConnect, http.MethodTrace:
		st.closing = true
		return &routing.Refusal{Code: routing.CodeMethodNotAllowed, Detail: st.r.Method + " is not served here",
			Allow: []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}}
	case "PRI":
		return st.broken("HTTP/2 is not spoken on this connection")
	}
	return nil
}

// checkTarget refuses the forms of a request target (RFC 9112 section 3.2)
// that do not name a resource behind the gateway.
func (st *state) checkTarget() *routing.Refusal {
	r := st.r
	target := r.RequestURI
	switch {
	case target == "" || target[0] == '/':
	case r.ProtoMajor > 1, !strings.Contains(target, "://"):
		return st.broken("the request target is neither a path nor a URL")
	case r.URL.Scheme != "http" && r.URL.Scheme != "https":
		return st.broken("only http and https URLs are served")
	case r.URL.User != nil:
		return st.broken("the request target holds user information")
	}
	if strings.IndexByte(target, '#') >= 0 {
		return st.broken("the request target holds a fragment")
	}
	return nil
}

// checkFraming refuses what leaves the length of the message, or the protocol
// of the connection, in doubt.
func (st *state) checkFraming() *routing.Refusal {
	r := st.r
	if !r.ProtoAtLeast(1, 1) {
		// Transfer-Encoding means nothing in HTTP/1.0, and net/http hides that
		// it was sent: a body would be left on the wire. A body needs a length
		// here (RFC 1945 section 7.2.2), and no second request is read.
		st.closing = true
		switch r.Method {
		case http.MethodPost, http.MethodPut, http.MethodPatch:
			if len(r.Header["Content-Length"]) == 0 {
				return st.broken("an HTTP/1.0 request with a body needs a Content-Length")
			}
		}
	}
	for _, v := range r.Header["Upgrade"] {
		if !strings.EqualFold(strings.TrimSpace(v), "websocket") {
			return st.broken("only an upgrade to websocket is served")
		}
		if r.Method != http.MethodGet || r.ContentLength != 0 || !r.ProtoAtLeast(1, 1) {
			return st.broken("an upgrade needs a GET without a body")
		}
	}
	// Trailers come after every check of headers, so none is passed on.
	r.Trailer = nil
	return nil
}

// rawPath is the path as it was sent, escapes and all: what url.URL keeps of
// it is already decoded.
func rawPath(r *http.Request) string {
	target := r.RequestURI
	if target == "" { // a request that did not come through a server
		return r.URL.EscapedPath()
	}
	if target[0] != '/' { // absolute form; see checkTarget
		_, rest, _ := strings.Cut(target, "://")
		i := strings.IndexAny(rest, "/?")
		if i < 0 || rest[i] == '?' {
			return "/"
		}
		target = rest[i:]
	}
	path, _, _ := strings.Cut(target, "?")
	return path
}

// isGRPC says whether the caller reads gRPC statuses. gRPC needs HTTP/2, and
// gRPC-Web is another protocol.
func isGRPC(r *http.Request) bool {
	const prefix = "application/grpc"
	if r.ProtoMajor < 2 {
		return false
	}
	ct := r.Header["Content-Type"]
	if len(ct) != 1 || !strings.HasPrefix(ct[0], prefix) {
		return false
	}
	rest := ct[0][len(prefix):]
	return rest == "" || rest[0] == '+' || rest[0] == ';'
}

// validHost says whether host is a name or address with an optional port. The
// empty host is: HTTP/1.0 knows none, and it matches routes for any host.
func validHost(host string) bool {
	if host == "" {
		return true
	}
	name, port := host, ""
	if host[0] == '[' {
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return false
		}
		name, port = host[1:end], host[end+1:]
		a, err := netip.ParseAddr(name)
		if err != nil || !a.Is6() || a.Zone() != "" {
			return false
		}
	} else {
		if i := strings.IndexByte(host, ':'); i >= 0 {
			name, port = host[:i], host[i:]
		}
		if name == "" || len(name) > 254 {
			return false
		}
		for i := range len(name) {
			switch c := name[i]; {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			case c == '-', c == '.', c == '_': // _ is no host name's, but Docker's
			default:
				return false
			}
		}
	}
	if port == "" {
		return true
	}
	if port[0] != ':' || len(port) > 6 {
		return false
	}
	for i := 1; i < len(port); i++ {
		if port[i] < '0' || port[i] > '9' {
			return false
		}
	}
	return true
}
