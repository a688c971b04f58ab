package proxy

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/sluice-gateway/sluice/routing"
	"github.com/sluice-gateway/sluice/routing/balance"
)

// unsent is how much of a response the server keeps until the request is over:
// writing as much waits for nobody.
const unsent = 2 << 10

// lastWords is how long a client may take the status of a call that is over.
const lastWords = 5 * time.Second

// copyBuffers are what every body goes through. Of 16, 32, 64 and 128 KiB the
// second costs a tenth more processor time than the third for bodies of
// 100 KiB, the fourth a tenth less; but a client that reads slowly holds one.
var copyBuffers = sync.Pool{New: func() any { return new(copyBuffer) }}

type copyBuffer [64 << 10]byte

// watched is a reader that gives the deadline a sign of life at every read.
type watched struct {
	io.Reader
	deadline *deadline
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 {
		w.deadline.touch()
	}
	return n, err
}

// inform passes 103 Early Hints on. 100 is the server's own to send, when the
// instance wants the body; the others mean nothing beyond one hop. It is
// called from the transport's goroutine.
func (c *call) inform(code int, hints http.Header) error {
	if code != http.StatusEarlyHints || !c.r.ProtoAtLeast(1, 1) {
		return nil
	}
	c.informing.Lock()
	defer c.informing.Unlock()
	if c.answered {
		return nil
	}
	// Wrappers such as Gin's only note a status; the writer below sends it.
	raw := c.w
	for {
		u, ok := raw.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		raw = u.Unwrap()
	}
	removeHopByHop(hints)
	h := raw.Header()
	final := maps.Clone(h)
	clear(h)
	maps.Copy(h, hints)
	raw.WriteHeader(code)
	clear(h)
	maps.Copy(h, final)
	return nil
}

// respond streams the response of a to the client.
func (c *call) respond(a *attempt) *routing.Refusal {
	resp := a.resp
	c.informing.Lock()
	c.answered = true
	c.informing.Unlock()
	c.body.settle()
	c.headArrived()

	removeHopByHop(resp.Header)
	if resp.StatusCode == http.StatusNoContent {
		delete(resp.Header, "Content-Length") // RFC 9110 section 8.6
	}
	h := c.w.Header()
	mergeHeader(h, resp.Header)
	c.setCookies(h, a)
	announced := announceTrailers(h, resp.Trailer)
	c.closeAfterReply()

	stream := c.x.GRPC || isEventStream(resp.Header)
	flush := stream || resp.ContentLength < 0
	var grace time.Duration
	if c.endsWithStatus() {
		grace = lastWords
	}
	c.deadline.started(stream, c.svc.Idle, grace)
	if flush {
		c.watch()
	}
	c.w.WriteHeader(resp.StatusCode)
	if flush && resp.ContentLength != 0 && c.r.Method != http.MethodHead {
		// A gRPC response that is only trailers has length 0: flushing its
		// head would turn it into another message.
		_ = c.client.Flush() // a client that left is seen at the next write
	}
	result := c.stream(a, flush)
	sendTrailers(h, resp.Trailer, announced)
	if c.x.GRPC && result == balance.Success && grpcFailed(resp.Header, resp.Trailer) {
		result = balance.ServerError
	}
	a.finish(result)
	return nil
}

func (c *call) headArrived() {
	if !c.x.Start.IsZero() {
		c.x.FirstByte = time.Since(c.x.Start)
	}
}

// endsWithStatus reports whether the response can say in its trailers that it
// was cut short.
func (c *call) endsWithStatus() bool { return c.x.GRPC && c.r.ProtoMajor > 1 }

// stream copies the body and returns what the attempt says of its instance.
// It panics where the body was cut short, unless the trailers say so.
func (c *call) stream(a *attempt, flush bool) balance.Result {
	buf := copyBuffers.Get().(*copyBuffer)
	defer copyBuffers.Put(buf)
	result := ofStatus(a.resp)
	left := a.resp.ContentLength
	for {
		n, rerr := a.resp.Body.Read(buf[:])
		if rerr == nil || n > unsent {
			c.watch() // the client may be slow to take it
		}
		if n > 0 {
			c.deadline.touch()
			_, werr := c.w.Write(buf[:n])
			left -= int64(n)
			// A short read of a body that goes on: the instance has no more
			// for now, and what it sent is not to lie in our buffers.
			if werr == nil && (flush || n < len(buf) && left > 0) {
				werr = c.client.Flush()
			}
			if werr != nil {
				c.abort(a, "client", result)
			}
		}
		switch {
		case rerr == io.EOF:
			return result
		case rerr == nil:
		case c.endsWithStatus() && c.outOfTime():
			c.x.Aborted = "upstream"
			a.resp.Trailer = http.Header{"Grpc-Status": {"4"}, "Grpc-Message": {"upstream_timeout: The call took too long."}}
			return balance.Neutral
		default:
			c.cutShort(a)
		}
	}
}

// outOfTime reports whether the call ended by the client's deadline or by
// silence. A reset in their place would be an internal error for the client.
func (c *call) outOfTime() bool {
	cause := c.cause(nil)
	return cause == errClientDeadline || cause == errIdle
}

// cutShort aborts a response whose body broke off, and tells who it was.
func (c *call) cutShort(a *attempt) {
	switch c.cause(nil) {
	case errRouteTimeout:
		c.abort(a, "upstream", balance.TimedOut)
	case errIdle, errClientDeadline:
		c.abort(a, "upstream", balance.Neutral)
	case errSlowBody:
		c.abort(a, "client", balance.Neutral)
	}
	if c.clientFault() != nil {
		c.abort(a, "client", ofStatus(a.resp))
	}
	c.abort(a, "upstream", balance.Broken)
}

// abort ends a response whose head has gone out so that the client cannot
// take it for complete.
func (c *call) abort(a *attempt, by string, result balance.Result) {
	c.x.Aborted = by
	a.finish(result)
	panic(http.ErrAbortHandler)
}

// mergeHeader puts the instance's header into h. What the gateway set itself
// stays; cookies and Vary add up.
func mergeHeader(h, from http.Header) {
	for name, values := range from {
		own, ok := h[name]
		switch {
		case !ok:
			h[name] = values
		case name == "Set-Cookie" || name == "Vary":
			h[name] = append(own[:len(own):len(own)], values...)
		}
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // or the server guesses one
	}
}

// setCookies sets what keeps the client at its subset and instance.
func (c *call) setCookies(h http.Header, a *attempt) {
	if c.split != nil {
		h.Add("Set-Cookie", c.split.String())
	}
	sticky := c.svc.Sticky
	if sticky == nil {
		return
	}
	cookie := stickyCookie(sticky, c.r, a.pick.Endpoint)
	if sent, err := c.r.Cookie(sticky.Cookie); err != nil || sent.Value != cookie.Value {
		h.Add("Set-Cookie", cookie.String())
	}
}

// announceTrailers names the trailers that will follow, as the instance did,
// and returns the names.
func announceTrailers(h, trailer http.Header) []string {
	var names []string
	for name := range trailer {
		if httpguts.ValidTrailerHeader(name) {
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		h["Trailer"] = []string{strings.Join(names, ", ")}
	}
	return names
}

// sendTrailers hands the trailers to the server after the body, also those
// that were not announced.
func sendTrailers(h, trailer http.Header, announced []string) {
	for _, name := range announced {
		if values, ok := trailer[name]; ok {
			h[name] = values
		}
	}
	for name, values := range trailer {
		if httpguts.ValidTrailerHeader(name) && !slices.Contains(announced, name) {
			h[http.TrailerPrefix+name] = values
		}
	}
}

func isEventStream(h http.Header) bool {
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(kind), "text/event-stream")
}
