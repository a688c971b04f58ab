package proxy

import (
	"net/http"
	"net/textproto"
	"strings"
)

// hopByHop are the fields of one connection that Connection need not name
// (RFC 9110 section 7.6.1, and what older software sends).
var hopByHop = [...]string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
	"Proxy-Authentication-Info", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
}

// StripHopByHop removes from a client's request header all that is meant for
// one connection only: the fields that Connection names and the known ones.
// It keeps "Te: trailers", and "Connection: Upgrade" with "Upgrade" for a
// WebSocket handshake, which the forwarder passes on.
//
// The edge calls it before any plugin sets a header: a client that names
// X-User-Id in Connection must delete its own and not the gateway's.
func StripHopByHop(h http.Header) {
	trailers := hasToken(h["Te"], "trailers")
	upgrade := h["Upgrade"]
	websocket := isWebSocket(h)
	removeHopByHop(h)
	if trailers {
		h["Te"] = []string{"trailers"}
	}
	if websocket {
		h["Connection"] = []string{"Upgrade"}
		h["Upgrade"] = upgrade
	}
}

// removeHopByHop deletes hop-by-hop fields of either direction.
func removeHopByHop(h http.Header) {
	for _, line := range h["Connection"] {
		for token := range strings.SplitSeq(line, ",") {
			token = textproto.TrimString(token)
			if token == "" || strings.EqualFold(token, "keep-alive") || strings.EqualFold(token, "close") {
				continue // most say just this
			}
			h.Del(token)
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// isWebSocket reports whether a header asks for, or agrees to, an upgrade to
// WebSocket and nothing else.
func isWebSocket(h http.Header) bool {
	up := h["Upgrade"]
	return len(up) == 1 && strings.EqualFold(textproto.TrimString(up[0]), "websocket") &&
		hasToken(h["Connection"], "upgrade")
}

// hasToken reports whether a comma-separated field holds token, in any case.
// Parameters after a semicolon are not part of a token.
func hasToken(lines []string, token string) bool {
	for _, line := range lines {
		for t := range strings.SplitSeq(line, ",") {
			t, _, _ = strings.Cut(t, ";")
			if strings.EqualFold(textproto.TrimString(t), token) {
				return true
			}
		}
	}
	return false
}
