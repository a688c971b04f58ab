package middleware

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"

	"github.com/gin-gonic/gin"
)

// identify finds out who asks, and names the request. It is the one place
// where the client's address is computed.
func (e *Engine) identify(_ *gin.Context, st *state) {
	r, x := st.r, &st.x
	peer := peerAddr(r.RemoteAddr)
	st.trusted = contains(e.cfg.TrustedProxies, peer)
	x.Client = peer
	if st.trusted {
		x.Client = e.clientBehind(peer, r.Header["X-Forwarded-For"])
		if id := r.Header["X-Request-Id"]; len(id) == 1 && saneID(id[0]) {
			x.RequestID = id[0]
		}
		x.TraceID = traceID(r.Header["Traceparent"])
	}
	if x.TraceID == "" {
		// A parent that is not believed, or cannot be read, takes its state
		// with it (W3C Trace Context section 3.3.1).
		delete(r.Header, "Traceparent")
		delete(r.Header, "Tracestate")
		x.Traceparent = newTraceparent()
		x.TraceID = x.Traceparent[3:35]
	}
	if x.RequestID == "" {
		x.RequestID = x.TraceID
	}
}

// peerAddr is the address at the other end of the connection, or the zero
// Addr, which no range contains, where it has none.
func peerAddr(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// clientBehind walks X-Forwarded-For from its end: each entry was written by
// the hop after it, so the first that is no trusted proxy is the client. An
// entry that is no address ends the walk at the last believable one.
func (e *Engine) clientBehind(peer netip.Addr, lines []string) netip.Addr {
	client := peer
	for i := len(lines) - 1; i >= 0; i-- {
		rest, more := lines[i], true
		for more {
			var hop string
			if j := strings.LastIndexByte(rest, ','); j >= 0 {
				rest, hop = rest[:j], rest[j+1:]
			} else {
				hop, more = rest, false
			}
			addr, ok := parseHop(strings.TrimSpace(hop))
			if !ok {
				return client
			}
			if client = addr; !contains(e.cfg.TrustedProxies, addr) {
				return client
			}
		}
	}
	return client
}

// parseHop reads an address, with a port or brackets as some proxies write it.
func parseHop(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().WithZone(""), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	if n := len(s); n > 2 && s[0] == '[' && s[n-1] == ']' {
		if a, err := netip.ParseAddr(s[1 : n-1]); err == nil {
			return a.Unmap().WithZone(""), true
		}
	}
	return netip.Addr{}, false
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// unmapPrefixes writes ::ffff:10.0.0.0/104 as 10.0.0.0/8, because addresses
// are compared unmapped.
func unmapPrefixes(prefixes []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, len(prefixes))
	for i, p := range prefixes {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		out[i] = p.Masked()
	}
	return out
}

// newTraceparent begins a trace (W3C Trace Context section 3.2). Its trace id
// serves as request id too: it names things and guards nothing.
func newTraceparent() string {
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = appendID(b)
	b = appendID(b)
	b = append(b, '-')
	b = appendID(b)
	return string(append(b, "-00"...))
}

// appendID appends 64 random bits, not all zero, as 16 hexadecimal digits.
func appendID(b []byte) []byte {
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], rand.Uint64()|1)
	return hex.AppendEncode(b, raw[:])
}

// saneID says whether a request id from outside may go into logs and headers
// as it stands.
func saneID(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-_.:+/=@~", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// traceID returns the trace id of a valid traceparent (W3C Trace Context
// section 3.2), or "".
func traceID(lines []string) string {
	if len(lines) != 1 {
		return ""
	}
	s := lines[0]
	if len(s) < 55 || len(s) > 512 || s[2] != '-' || s[35] != '-' || s[52] != '-' ||
		!lowerHex(s[:2]) || !lowerHex(s[3:35]) || !lowerHex(s[36:52]) || !lowerHex(s[53:55]) {
		return ""
	}
	version, id, parent := s[:2], s[3:35], s[36:52]
	switch {
	case version == "ff", version == "00" && len(s) != 55, len(s) > 55 && s[55] != '-':
		return ""
	case strings.Trim(id, "0") == "", strings.Trim(parent, "0") == "":
		return ""
	}
	return id
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

var _ http.Handler = (*Engine)(nil)
