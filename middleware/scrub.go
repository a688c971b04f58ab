package middleware

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// scrubber removes what a client must not say about itself or about how its
// request is handled, and what was meant for its connection only (RFC 9110
// section 7.6.1). It is immutable. It runs before any plugin, so that a client
// that names a header in Connection deletes its own and never the gateway's.
//
// Two kinds: what only a trusted proxy may say (who the client was, how the
// request came in, its names), and what nobody may, because the gateway alone
// says it (identities) or because it would make an instance see another
// request than the one that was let through. A name spelled with "_" for "-"
// is the same name to CGI-like servers and never a trusted proxy's, so the
// twins of both kinds always go.
type scrubber struct {
	exact map[string]claim
	// first marks the first letters of everything guarded, so that most
	// headers cost one look.
	first [256]bool
}

// claim is who may send a header.
type claim uint8

const (
	anyone claim = iota
	trustedOnly
	nobody
)

// prefixes are guarded whole: whatever may be invented below them says the
// same kind of thing.
var prefixes = [...]struct {
	name  string
	claim claim
}{
	{"X-Forwarded-", trustedOnly},
	{"X-Original-", nobody},
	{"X-Rewrite-", nobody},
	{"X-Envoy-", nobody},
	{"X-Consumer-", nobody},
	{"X-Sluice-", nobody},
}

func newScrubber(identity []string) *scrubber {
	s := &scrubber{exact: map[string]claim{}}
	for _, k := range []string{
		"Forwarded", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip",
		"X-Request-Id", "Traceparent", "Tracestate",
	} {
		s.exact[k] = trustedOnly
	}
	for _, k := range append([]string{
		"Proxy", // becomes HTTP_PROXY in CGI
		"X-Http-Method-Override", "X-Http-Method", "X-Method-Override",
		"X-Trace-Id",
		"X-User-Id", "X-User-Role", "X-Consumer",
		// Of one connection only, whether or not Connection names them.
		"Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
		"Proxy-Authentication-Info", "Trailer", "Transfer-Encoding", "Http2-Settings",
	}, identity...) {
		s.exact[canonical(k)] = nobody
	}
	for k := range s.exact {
		s.first[k[0]] = true
	}
	for _, p := range prefixes {
		s.first[p.name[0]] = true
	}
	// Names in lower case are not in canonical form where they hold a byte
	// that canonicalisation refuses; twins are compared folded.
	for c := range s.first {
		if s.first[c] && 'A' <= c && c <= 'Z' {
			s.first[c+'a'-'A'] = true
		}
	}
	return s
}

// apply removes from h what the peer may not send, and says whether there are
// more than most header lines (0 is no limit). One pass, and no allocation
// for headers without an underscore.
func (s *scrubber) apply(h http.Header, trusted bool, most int) (tooMany bool) {
	lines := len(h["Connection"])
	stripConnection(h)
	for name, values := range h {
		lines += len(values)
		if name == "" || !s.first[name[0]] {
			continue
		}
		if strings.IndexByte(name, '_') >= 0 {
			if s.claim(canonical(strings.ReplaceAll(name, "_", "-"))) != anyone {
				delete(h, name)
			}
			continue
		}
		switch s.claim(name) {
		case nobody:
			delete(h, name)
		case trustedOnly:
			if !trusted {
				delete(h, name)
			}
		}
	}
	return most > 0 && lines > most
}

// stripConnection removes Connection, what it names, and the two fields that
// go with it. "TE: trailers", which gRPC wants to see, and an upgrade to
// websocket, the only one that comes this far, are kept in plain form.
func stripConnection(h http.Header) {
	upgrade := false
	if lines := h["Connection"]; lines != nil {
		delete(h, "Connection")
		for _, line := range lines {
			for token := range strings.SplitSeq(line, ",") {
				switch token = textproto.TrimString(token); {
				case strings.EqualFold(token, "upgrade"):
					upgrade = true
				case token != "" && !strings.EqualFold(token, "te"):
					delete(h, canonical(token))
				}
			}
		}
	}
	if h["Upgrade"] != nil {
		delete(h, "Upgrade")
		if upgrade {
			h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
		}
	}
	if lines := h["Te"]; lines != nil {
		delete(h, "Te")
		for _, line := range lines {
			for token := range strings.SplitSeq(line, ",") {
				if strings.EqualFold(textproto.TrimString(token), "trailers") {
					h["Te"] = []string{"trailers"}
				}
			}
		}
	}
}

func (s *scrubber) claim(name string) claim {
	if c, ok := s.exact[name]; ok {
		return c
	}
	for i := range prefixes {
		if strings.HasPrefix(name, prefixes[i].name) {
			return prefixes[i].claim
		}
	}
	return anyone
}

// stripOwn removes from h the headers that plugins of some route set towards
// instances, and what CGI-like servers take for the same. No client may send
// them to any route, not even through a trusted proxy.
func stripOwn(h http.Header, own []string) {
	if len(own) == 0 {
		return
	}
	for name := range h {
		k := name
		if strings.IndexByte(name, '_') >= 0 {
			k = canonical(strings.ReplaceAll(name, "_", "-"))
		}
		if slices.Contains(own, k) {
			delete(h, name)
		}
	}
}

// cookie is one that a browser sent.
type cookie struct{ name, value string }

// takeCookies removes from h the cookies that are the gateway's own, and
// returns them.
func takeCookies(h http.Header, own []string) (taken []cookie) {
	if len(own) == 0 {
		return nil
	}
	isOwn := func(name string) bool {
		for _, o := range own {
			if rest, ok := strings.CutPrefix(name, o); ok && (rest == "" || rest[0] == '-') {
				return true
			}
		}
		return false
	}
	var rest []string
	for _, line := range h["Cookie"] {
		var kept []string
		before := len(taken)
		for pair := range strings.SplitSeq(line, ";") {
			pair = textproto.TrimString(pair)
			if name, value, _ := strings.Cut(pair, "="); isOwn(textproto.TrimString(name)) {
				taken = append(taken, cookie{textproto.TrimString(name), textproto.TrimString(value)})
			} else if pair != "" {
				kept = append(kept, pair)
			}
		}
		switch {
		case len(taken) == before:
			rest = append(rest, line) // as it was sent
		case len(kept) > 0:
			rest = append(rest, strings.Join(kept, "; "))
		}
	}
	if taken == nil {
		return nil
	}
	if delete(h, "Cookie"); len(rest) > 0 {
		h["Cookie"] = rest
	}
	return taken
}
