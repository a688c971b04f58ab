package middleware

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/sluice-gateway/sluice/middleware/remote"
	"github.com/sluice-gateway/sluice/routing"
)

const (
	maxAuthTimeout = time.Minute
	// maxAuthHeaders bounds each list of names.
	maxAuthHeaders = 50
	// maxUnread is how much of an answer that nobody needs is read, to keep
	// the connection.
	maxUnread = 64 << 10
)

// ForwardAuthConfig is the configuration of the forward_auth plugin: another
// service decides whether a request may pass. It is told the head of the
// request and never its body.
type ForwardAuthConfig struct {
	URL     string            `json:"url"`
	Method  string            `json:"method"`
	Timeout *routing.Duration `json:"timeout"`
	CAFile  string            `json:"ca_file"`
	// RequestHeaders go to the service, ResponseHeaders of its answer to the
	// instance.
	RequestHeaders  []string `json:"request_headers"`
	ResponseHeaders []string `json:"response_headers"`
	// SubjectHeader and GroupsHeader of the answer say who asks.
	SubjectHeader string `json:"subject_header"`
	GroupsHeader  string `json:"groups_header"`

	client authClient
	own    []string
}

// authClient is kept, so that its connections outlive a change of the route.
type authClient struct{ *http.Client }

// Run closes the connections once nothing uses the client.
func (c authClient) Run(ctx context.Context) {
	<-ctx.Done()
	c.CloseIdleConnections()
}

func forwardAuthPlugin() *Plugin {
	return authenticates(Define[ForwardAuthConfig]("forward_auth", func(c *gin.Context, x *routing.Exchange, config *ForwardAuthConfig) {
		config.handle(c, x)
	}))
}

// Prepare implements PluginConfig.
func (c *ForwardAuthConfig) Prepare(at *Place) routing.Faults {
	var faults routing.Faults
	fault := func(field, message string) {
		faults = append(faults, routing.Fault{Field: at.At(field), Message: message})
	}
	if c.URL == "" {
		fault("url", "is missing; give the address of the service that decides")
	} else if err := remote.CheckURL(c.URL); err != nil {
		fault("url", err.Error())
	}
	if setDefault(&c.Method, http.MethodGet); !slices.Contains([]string{"GET", "HEAD", "POST"}, c.Method) {
		fault("method", "is none of GET, HEAD, POST")
	}
	timeout := remote.DefaultTimeout
	if c.Timeout != nil {
		timeout = time.Duration(*c.Timeout)
	}
	if timeout <= 0 || timeout > maxAuthTimeout {
		fault("timeout", fmt.Sprintf("must be above 0 and at most %s", maxAuthTimeout))
	}
	if c.RequestHeaders == nil {
		c.RequestHeaders = []string{"Authorization", "Cookie"}
	}
	c.RequestHeaders = c.names(at, "request_headers", c.RequestHeaders, &faults)
	c.ResponseHeaders = c.names(at, "response_headers", c.ResponseHeaders, &faults)
	for _, name := range c.ResponseHeaders {
		// What the service says about credentials replaces the client's on
		// this route; on others clients send their own.
		if name != "Authorization" && name != "Cookie" {
			c.own = append(c.own, name)
		}
	}
	for _, f := range []struct{ field, name string }{{"subject_header", c.SubjectHeader}, {"groups_header", c.GroupsHeader}} {
		if f.name != "" && !validHeaderName(f.name) {
			fault(f.field, "is not a header name")
		}
	}
	c.SubjectHeader, c.GroupsHeader = canonical(c.SubjectHeader), canonical(c.GroupsHeader)
	client, err := remote.NewClient(timeout, c.CAFile)
	if err != nil {
		fault("ca_file", err.Error())
	}
	if len(faults) == 0 {
		c.client = Keep(at, fmt.Sprintf("forward_auth/%s/%s", timeout, c.CAFile), func() authClient { return authClient{client} })
	}
	return faults
}

// names checks a list of header names and makes them canonical.
func (c *ForwardAuthConfig) names(at *Place, field string, names []string, faults *routing.Faults) []string {
	if len(names) > maxAuthHeaders {
		*faults = append(*faults, routing.Fault{Field: at.At(field),
			Message: fmt.Sprintf("has %d names; at most %d are accepted", len(names), maxAuthHeaders)})
	}
	out := make([]string, len(names))
	for i, name := range names {
		*faults = append(*faults, ownHeaderFault(at, fmt.Sprintf("%s[%d]", field, i), name)...)
		out[i] = canonical(name)
	}
	return out
}

// OwnHeaders implements routing.HeaderOwner.
func (c *ForwardAuthConfig) OwnHeaders() []string { return c.own }

func (c *ForwardAuthConfig) handle(gc *gin.Context, x *routing.Exchange) {
	req, err := c.question(gc.Request, x)
	if err != nil {
		c.unavailable(gc, err)
		return
	}
	resp, err := remote.Do(c.client.Client, req)
	if err != nil {
		c.unavailable(gc, err)
		return
	}
	switch status := resp.StatusCode; {
	case status >= 200 && status < 300:
		_, _ = io.CopyN(io.Discard, resp.Body, maxUnread)
		_ = resp.Body.Close()
		c.pass(gc.Request, x, resp.Header)
	case status == http.StatusUnauthorized, status == http.StatusForbidden,
		status == http.StatusFound, status == http.StatusSeeOther, status == http.StatusTemporaryRedirect:
		body, err := remote.ReadBody(resp)
		if err != nil {
			c.unavailable(gc, err)
			return
		}
		c.refuse(gc, resp, body)
	default:
		_ = resp.Body.Close()
		c.unavailable(gc, fmt.Errorf("ask %s: it answered %d", req.URL.Host, status))
	}
}

// question makes the request to the service. What it says about the client's
// request is of the gateway's making: the path is the one that was matched
// and goes to the instance.
func (c *ForwardAuthConfig) question(r *http.Request, x *routing.Exchange) (*http.Request, error) {
	req, err := http.NewRequestWithContext(r.Context(), c.Method, c.URL, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	h := req.Header
	for _, name := range c.RequestHeaders {
		if values := r.Header[name]; len(values) > 0 {
			h[name] = values
		}
	}
	uri := x.Match.Path.Forward
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		uri += "?" + r.URL.RawQuery
	}
	proto := "http"
	if r.TLS != nil {
		proto = "https"
	}
	if said := r.Header["X-Forwarded-Proto"]; len(said) == 1 && (said[0] == "http" || said[0] == "https") {
		proto = said[0] // by a trusted proxy: the edge removes all others'
	}
	for name, value := range map[string]string{
		"X-Forwarded-Method": r.Method, "X-Forwarded-Proto": proto, "X-Forwarded-Host": r.Host, "X-Forwarded-Uri": uri,
		"X-Forwarded-For": x.Client.String(), "X-Request-Id": x.RequestID, "X-Trace-Id": x.TraceID,
	} {
		h[name] = []string{value}
	}
	if h["User-Agent"] == nil {
		h["User-Agent"] = []string{"sluice"}
	}
	return req, nil
}

// pass takes over what the service says about whoever asks.
func (c *ForwardAuthConfig) pass(r *http.Request, x *routing.Exchange, answer http.Header) {
	for _, name := range c.ResponseHeaders {
		if values := answer[name]; len(values) > 0 {
			r.Header[name] = values
		} else {
			delete(r.Header, name)
		}
	}
	x.Identity = &routing.Identity{Plugin: "forward_auth", Subject: answer.Get(c.SubjectHeader)}
	for _, line := range answer[c.GroupsHeader] {
		for group := range strings.SplitSeq(line, ",") {
			if group = strings.TrimSpace(group); group != "" {
				x.Identity.Groups = append(x.Identity.Groups, group)
			}
		}
	}
}

// refuse passes the service's own answer on to the client. Callers of gRPC
// could not read it and get the gateway's.
func (c *ForwardAuthConfig) refuse(gc *gin.Context, resp *http.Response, body []byte) {
	ref := &routing.Refusal{Code: routing.CodeUnauthenticated, Detail: "the request was not let pass"}
	if resp.StatusCode == http.StatusForbidden {
		ref.Code = routing.CodeForbidden
	}
	st := stateOf(gc)
	if st.x.GRPC {
		Reject(gc, "forward_auth", ref)
		return
	}
	gc.Abort()
	st.x.Refused = ref
	st.engine.metrics.reject(st, "forward_auth", ref)
	if st.body != nil {
		st.body.drain(st.r)
	}
	h := gc.Writer.Header()
	h["Cache-Control"] = []string{"no-store"}
	for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Language", "Location", "Www-Authenticate", "Set-Cookie"} {
		if values := resp.Header[name]; len(values) > 0 {
			h[name] = values
		}
	}
	writeBody(&st.w, gc.Request, resp.StatusCode, string(body))
}

// unavailable answers where there is no verdict: the request never passes.
func (c *ForwardAuthConfig) unavailable(gc *gin.Context, err error) {
	ref := &routing.Refusal{Code: routing.CodeOverloaded, Cause: err, RetryAfter: time.Second,
		Detail: "the service that decides about this request did not say"}
	if gc.Request.Context().Err() != nil {
		ref = &routing.Refusal{Code: routing.CodeClientClosed, Cause: err, Detail: "the client left"}
	}
	Reject(gc, "forward_auth", ref)
}
