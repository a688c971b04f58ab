package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// MaxBody is the largest request body that is read whole, before there is a
// connection, and goes out with the head in one write. While a larger one is
// sent, the answer may come before its end, and the client may fail in the
// middle of it; that takes a second goroutine.
const MaxBody = 16 << 10

// Fits reports whether RoundTrip takes req: no upgrade, no CONNECT, and
// nothing that waits for 100 Continue.
func Fits(req *http.Request) bool {
	if req.Close || req.Method == http.MethodConnect || req.URL.Scheme != "http" && req.URL.Scheme != "https" || !plainHost(req.Host) {
		return false
	}
	for _, name := range [...]string{"Connection", "Expect", "Transfer-Encoding", "Trailer", "Upgrade"} {
		if _, ok := req.Header[name]; ok {
			return false
		}
	}
	if req.Trailer != nil || req.TransferEncoding != nil {
		return false
	}
	if req.Body == nil || req.Body == http.NoBody {
		return req.ContentLength == 0
	}
	return req.ContentLength != 0
}

// plainHost reports whether host can be sent as it stands: no name to encode,
// no zone to remove.
func plainHost(host string) bool {
	for i := range len(host) {
		if ch := host[i]; ch <= ' ' || ch >= 0x7f || ch == '%' {
			return false
		}
	}
	return host != "" && httpguts.ValidHostHeader(host)
}

// outgoing is a request as it goes over the wire, in a pooled buffer.
type outgoing struct {
	bytes []byte
	split int           // where the head ends
	rest  io.ReadCloser // the body, if it is not in bytes
}

var outgoings = sync.Pool{New: func() any { return &outgoing{bytes: make([]byte, 0, 4<<10)} }}

// maxKept bounds the buffers that are kept: the largest body with its head.
const maxKept = 2 * MaxBody

// free gives the buffer back, and closes a body of which nothing was sent.
func (o *outgoing) free() {
	if o.rest != nil {
		o.rest.Close()
		o.rest = nil
	}
	if cap(o.bytes) <= maxKept {
		o.bytes = o.bytes[:0]
		outgoings.Put(o)
	}
}

// newOutgoing writes req into a buffer, with its body unless that is too large
// or of unknown length. It takes the body over.
func newOutgoing(req *http.Request) (*outgoing, error) {
	o := outgoings.Get().(*outgoing)
	o.rest = req.Body
	err := o.head(req)
	if err == nil && 0 <= req.ContentLength && req.ContentLength <= MaxBody {
		if err = o.body(req); o.rest != nil {
			o.rest.Close()
			o.rest = nil
		}
	}
	if err != nil {
		o.free()
		return nil, fmt.Errorf("write request: %w", err)
	}
	return o, nil
}

func (o *outgoing) head(req *http.Request) error {
	method := req.Method
	if method == "" {
		method = http.MethodGet
	}
	if !httpguts.ValidHeaderFieldName(method) { // a token, as a method is
		return fmt.Errorf("method %q is malformed", method)
	}
	b := append(o.bytes, method...)
	b = append(b, ' ')
	start := len(b)
	b = appendTarget(b, req.URL)
	for _, ch := range b[start:] {
		if ch <= ' ' || ch == 0x7f {
			return errors.New("the target has a space or a control character")
		}
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, req.Host...)
	b = append(b, "\r\n"...)
	for name, values := range req.Header {
		if name == "Host" || name == "Content-Length" {
			continue
		}
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("field name %q is malformed", name)
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return fmt.Errorf("the value of %s is malformed", name) // not quoted: it may be a secret
			}
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, textproto.TrimString(v)...)
			b = append(b, "\r\n"...)
		}
	}
	if req.ContentLength < 0 {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	} else if req.ContentLength > 0 || method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, req.ContentLength, 10)
		b = append(b, "\r\n"...)
	}
	o.bytes = append(b, "\r\n"...)
	o.split = len(o.bytes)
	return nil
}

// appendTarget appends what u.RequestURI returns.
func appendTarget(b []byte, u *url.URL) []byte {
	switch path := u.EscapedPath(); {
	case strings.HasPrefix(u.Opaque, "//"):
		b = append(b, u.Scheme...)
		b = append(b, ':')
		b = append(b, u.Opaque...)
	case u.Opaque != "":
		b = append(b, u.Opaque...)
	case path != "":
		b = append(b, path...)
	default:
		b = append(b, '/')
	}
	if u.ForceQuery || u.RawQuery != "" {
		b = append(b, '?')
		b = append(b, u.RawQuery...)
	}
	return b
}

// body appends the body, which must be as long as was said.
func (o *outgoing) body(req *http.Request) error {
	n := int(req.ContentLength)
	if n == 0 {
		return nil
	}
	head := len(o.bytes)
	// One byte of room more, in which the end, or a byte too many, is found.
	b := append(o.bytes, make([]byte, n+1)...)
	o.bytes = b[:head+n]
	got, err := io.ReadFull(req.Body, b[head:])
	switch {
	case err == nil:
		return errLongBody
	case err != io.ErrUnexpectedEOF && err != io.EOF:
		return err
	case got < n:
		return io.ErrUnexpectedEOF
	}
	return nil
}

// giveBack has req read as if its body had not been touched.
func (o *outgoing) giveBack(req *http.Request) {
	if o.rest == nil && req.ContentLength > 0 {
		req.Body = io.NopCloser(bytes.NewReader(bytes.Clone(o.bytes[o.split:])))
	}
	o.rest = nil
}
