package proxy

import (
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/routing"
)

// outgoing prepares target and header towards the instance.
func (c *call) outgoing() *routing.Refusal {
	path, err := c.x.Match.Target()
	if err != nil {
		return refuse(routing.CodeBadRequest, "The path cannot be forwarded.", err)
	}
	c.target = target(path, c.r.URL)
	c.target.Scheme = "http"
	if secure(c.svc.Upstream.Protocol) {
		c.target.Scheme = "https"
	}
	h := c.header
	maps.Copy(h, c.r.Header)
	StripHopByHop(h)
	c.upgrade = h["Upgrade"] != nil
	if c.upgrade && (multiplexed(c.svc.Upstream.Protocol) || c.r.ProtoMajor != 1 || c.r.Method != http.MethodGet) {
		// RFC 9110 section 7.8: an Upgrade that cannot be had is ignored.
		c.upgrade = false
		delete(h, "Connection")
		delete(h, "Upgrade")
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // or the transport invents one
	}
	c.identify()
	return nil
}

// target makes the URL whose request target is exactly path?query.
func target(path string, in *url.URL) url.URL {
	u := url.URL{Opaque: path, RawQuery: in.RawQuery, ForceQuery: in.ForceQuery}
	if strings.HasPrefix(path, "//") {
		// net/url takes an opaque part with two slashes for an authority. As
		// RawPath it is sent as it stands, provided it holds nothing that
		// net/url would escape.
		u.Opaque, u.RawPath = "", escapeStray(path)
		if plain, err := url.PathUnescape(u.RawPath); err == nil {
			u.Path = plain
		}
	}
	return u
}

// escapeStray escapes the bytes that RFC 3986 does not allow in a path.
func escapeStray(path string) string {
	const allowed = "-._~!$&'()*+,;=:@/%"
	var b strings.Builder
	for i := range len(path) {
		switch ch := path[i]; {
		case 'a' <= ch && ch <= 'z', 'A' <= ch && ch <= 'Z', '0' <= ch && ch <= '9', strings.IndexByte(allowed, ch) >= 0:
			b.WriteByte(ch)
		default:
			b.WriteByte('%')
			b.WriteByte("0123456789ABCDEF"[ch>>4])
			b.WriteByte("0123456789ABCDEF"[ch&15])
		}
	}
	return b.String()
}

// fields sets header fields of one value each out of one allocation.
type fields struct {
	h      http.Header
	values [7]string
	n      int
}

func (f *fields) set(name, value string) {
	f.values[f.n] = value
	f.h[name] = f.values[f.n : f.n+1 : f.n+1]
	f.n++
}

func (f *fields) setIfAbsent(name, value string) {
	if f.h[name] == nil {
		f.set(name, value)
	}
}

// identify says where the request came from and which one it is. What h holds
// of X-Forwarded-* already was left there by the edge, because a trusted
// proxy sent it; a traceparent was made or accepted there.
func (c *call) identify() {
	h, r, x, f := c.header, c.r, c.x, &c.own
	f.h = h
	chain := peerHost(r)
	if prior := h["X-Forwarded-For"]; len(prior) > 0 {
		chain = strings.Join(prior, ", ") + ", " + chain
	}
	f.set("X-Forwarded-For", chain)
	proto := "http"
	if r.TLS != nil {
		proto = "https"
	}
	f.setIfAbsent("X-Forwarded-Proto", proto)
	f.setIfAbsent("X-Forwarded-Host", r.Host)
	// TCP's and UDP's addresses have that in common.
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(interface{ AddrPort() netip.AddrPort }); ok && h["X-Forwarded-Port"] == nil {
		f.set("X-Forwarded-Port", c.f.portOf(int(a.AddrPort().Port())))
	}
	if x.RequestID != "" {
		f.set("X-Request-Id", x.RequestID)
	}
	if x.TraceID == "" {
		return
	}
	f.set("X-Trace-Id", x.TraceID)
	if h["Traceparent"] == nil && x.Traceparent != "" {
		f.set("Traceparent", x.Traceparent)
	}
}

// portText is a port as it is written.
type portText struct {
	port int
	text string
}

// portOf writes a port of the gateway's: it has one or two.
func (f *Forwarder) portOf(port int) string {
	p := f.port.Load()
	if p == nil || p.port != port {
		p = &portText{port, strconv.Itoa(port)}
		f.port.Store(p)
	}
	return p.text
}

// request makes the request for one attempt.
func (c *call) request(a *attempt) {
	out := &a.room.req
	if a.ctx != nil {
		out = c.r.WithContext(a.ctx)
	} else {
		*out = *c.r
	}
	a.req = out
	a.room.url = c.target
	a.room.url.Host = a.pick.Endpoint.Address()
	out.URL = &a.room.url
	out.Host = c.host(out.URL.Host)
	out.Header = c.header
	if c.x.GRPC {
		if left, ok := c.deadline.left(); ok {
			// The instance has what is left, not what there was when the client
			// asked. The attempt before may still be reading c.header.
			out.Header = maps.Clone(c.header)
			out.Header["Grpc-Timeout"] = []string{grpcTimeoutText(left)}
		}
	}
	out.Proto, out.ProtoMajor, out.ProtoMinor = "HTTP/1.1", 1, 1
	out.RequestURI = ""
	out.TransferEncoding = nil
	out.Trailer = nil // a client's trailers are not passed on
	out.Close = false
	out.Body, out.GetBody = nil, nil
	if c.body == nil {
		out.ContentLength = 0
		return
	}
	a.view = c.body.view()
	out.Body = a.view
	out.ContentLength = c.body.length
	if c.retry > 0 {
		out.GetBody = a.rewind
	}
}

// rewind gives the transport the body again, for the cases in which it knows
// that the instance has not looked at the request.
func (a *attempt) rewind() (io.ReadCloser, error) {
	a.view.Close()
	if !a.view.body.replayable() {
		return nil, errDetached
	}
	a.view = a.view.body.view()
	return a.view, nil
}

// host is the Host to send: the client's own, the instance's address or a
// name.
func (c *call) host(address string) string {
	mode := c.x.Match.Route.Host
	switch mode {
	case "", "preserve":
		if c.r.Host == "" {
			return address
		}
		return c.r.Host
	case "service":
		return address
	}
	return mode
}
