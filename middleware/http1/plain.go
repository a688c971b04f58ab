package http1

import (
	"bytes"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// plain returns the request in the buffer, or nil where it is not plain, or
// not right.
func (c *conn) plain() *http.Request {
	if !c.hopeful() || c.unended() {
		return nil
	}
	c.src.Reset(c.buf[:c.n])
	c.br.Reset(&c.src)
	req, err := http.ReadRequest(c.br)
	if err != nil || c.br.Buffered() > 0 || c.src.Len() > 0 {
		return nil
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead || req.ProtoMajor != 1 || req.ProtoMinor != 1 ||
		req.Body != http.NoBody || !bare(req) || req.Host == "" || !httpguts.ValidHostHeader(req.Host) {
		return nil
	}
	for name, values := range req.Header {
		if !httpguts.ValidHeaderFieldName(name) {
			return nil
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return nil
			}
		}
	}
	return req
}

// hopeful says that what is in the buffer may begin a plain request.
func (c *conn) hopeful() bool {
	return bytes.HasPrefix(c.buf[:c.n], []byte("GET /")) || bytes.HasPrefix(c.buf[:c.n], []byte("HEAD /"))
}

// unended says that what is in the buffer does not end as a head does.
func (c *conn) unended() bool { return !bytes.HasSuffix(c.buf[:c.n], []byte("\r\n\r\n")) }

// bare says that the head says nothing of a body, and nothing of the
// connection but that it shall be kept.
func bare(req *http.Request) bool {
	for _, name := range [...]string{"Content-Length", "Expect", "Upgrade", "Trailer"} {
		if _, ok := req.Header[name]; ok {
			return false
		}
	}
	if req.ContentLength != 0 || len(req.TransferEncoding) > 0 || req.Close {
		return false
	}
	for _, v := range req.Header["Connection"] {
		if !strings.EqualFold(v, "keep-alive") {
			return false
		}
	}
	return true
}
