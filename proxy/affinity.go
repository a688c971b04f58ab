package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// fnv1a hashes s onto h (FNV-1a, 64 bits); start with fnvOffset. The value
// must agree between gateways and over restarts, so it is not seeded.
func fnv1a[T string | []byte](h uint64, s T) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

const fnvOffset = 14695981039346656037

// hashFor is what a hashing picker chooses by. A request without the header
// or cookie is hashed by its client address.
func hashFor(on routing.HashOn, r *http.Request, x *routing.Exchange) uint64 {
	switch {
	case on.Header != "":
		if v := r.Header.Get(on.Header); v != "" {
			return fnv1a(fnvOffset, v)
		}
	case on.Cookie != "":
		if c, err := r.Cookie(on.Cookie); err == nil && c.Value != "" {
			return fnv1a(fnvOffset, c.Value)
		}
	case on.Path:
		return fnv1a(fnvOffset, x.Match.Path.Match)
	case !on.IP:
		return 0
	}
	ip := clientAddr(r, x).As16()
	return fnv1a(fnvOffset, ip[:])
}

// clientAddr is the client that the edge computed; the peer where it did not.
func clientAddr(r *http.Request, x *routing.Exchange) netip.Addr {
	if x.Client.IsValid() {
		return x.Client
	}
	a, _ := netip.ParseAddr(peerHost(r))
	if !a.IsValid() {
		return netip.IPv6Unspecified()
	}
	return a.Unmap()
}

// peerHost is the address of the peer without its port.
func peerHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// stickyToken names an endpoint in a cookie without saying which it is.
func stickyToken(e *balance.Endpoint) string {
	h := fnv1a(fnvOffset, e.Service())
	h = fnv1a(h, "\x00")
	return strconv.FormatUint(fnv1a(h, e.ID()), 36)
}

// preferred returns the ID of the endpoint that the request's sticky cookie
// names, "" where there is none (any more).
func preferred(s *routing.StickySpec, r *http.Request, subset *routing.Subset) string {
	if s == nil {
		return ""
	}
	cookie, err := r.Cookie(s.Cookie)
	if err != nil {
		return ""
	}
	for _, e := range subset.Endpoints {
		if stickyToken(e) == cookie.Value {
			return e.ID()
		}
	}
	return ""
}

// stickyCookie keeps the client at e.
func stickyCookie(s *routing.StickySpec, r *http.Request, e *balance.Endpoint) *http.Cookie {
	return &http.Cookie{
		Name:     s.Cookie,
		Value:    stickyToken(e),
		Path:     "/",
		MaxAge:   int(time.Duration(s.TTL) / time.Second),
		HttpOnly: true,
		Secure:   r.TLS != nil,
		SameSite: http.SameSiteLaxMode,
	}
}
