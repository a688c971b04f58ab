package wire

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Why a response is refused.
var (
	errTooLong     = errors.New("the head is too long")
	errBareLF      = errors.New("a line ends without CR")
	errStatusLine  = errors.New("the status line is malformed")
	errFolded      = errors.New("a field is folded")
	errField       = errors.New("a field is malformed")
	errLength      = errors.New("Content-Length is malformed")
	errLengths     = errors.New("there is more than one Content-Length")
	errEncoding    = errors.New("the transfer encoding is not known")
	errEncoding10  = errors.New("an HTTP/1.0 response has a transfer encoding")
	errTrailerName = errors.New("a trailer is announced that must not be one")
	errSwitched    = errors.New("the protocol was switched unasked")
	errInforms     = errors.New("too many informational responses")
	errSilent      = errors.New("the connection was closed without an answer")
)

// maxInforms bounds the informational responses before a final one.
const maxInforms = 32

// answer reads responses up to the final one and frames its body. On an error
// the connection is still the caller's to close.
func (x *exchange) answer(c *Client, req *http.Request, trace Trace) (*http.Response, error) {
	if err := x.conn.fill(c.conf.MaxHead); err != nil {
		if err == io.EOF {
			err = errSilent
		}
		return nil, err
	}
	trace.Answered()
	for range maxInforms + 1 {
		text, err := x.conn.section(c.conf.MaxHead)
		if err != nil {
			return nil, err
		}
		resp, err := parseHead(text)
		switch {
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errSwitched
		case resp.StatusCode >= 200:
			resp.Request = req
			if x.up != nil {
				x.up.answerCame()
			}
			return &resp.Response, x.frame(resp, c.conf.MaxHead)
		case resp.StatusCode != http.StatusContinue:
			if err := trace.Informed(resp.StatusCode, resp.Header); err != nil {
				return nil, err
			}
		}
	}
	return nil, errInforms
}

// section takes the bytes up to and including an empty line, which a head and
// a trailer section end with, and returns the lines with their ends.
func (c *conn) section(limit int) (string, error) {
	line := 0 // where the line begins that is looked at
	seen := 0 // up to here there is no end of that line; both count from c.r
	for {
		b := c.buf[c.r:c.w]
		for {
			i := bytes.IndexByte(b[seen:], '\n')
			if i < 0 {
				seen = len(b)
				break
			}
			end := seen + i
			switch {
			case end == line || b[end-1] != '\r':
				return "", errBareLF
			case end+1 > limit:
				return "", errTooLong
			case end == line+1:
				c.r += end + 1
				return string(b[:line]), nil
			}
			line, seen = end+1, end+1
		}
		if err := c.fill(limit); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
	}
}

// message is a response with its body, which are made at once.
type message struct {
	http.Response
	body body
}

// parseHead reads a status line and fields, all ended by CRLF.
func parseHead(text string) (*message, error) {
	line, rest, _ := strings.Cut(text, "\r\n")
	resp := &message{Response: http.Response{ProtoMajor: 1}}
	switch {
	case strings.HasPrefix(line, "HTTP/1.1 "):
		resp.ProtoMinor = 1
	case !strings.HasPrefix(line, "HTTP/1.0 "):
		return nil, errStatusLine
	}
	resp.Proto, resp.Status = line[:8], line[9:]
	code, reason, _ := strings.Cut(resp.Status, " ")
	if len(code) != 3 || code[0] < '1' || code[0] > '9' || !digit(code[1]) || !digit(code[2]) ||
		!httpguts.ValidHeaderFieldValue(reason) {
		return nil, errStatusLine
	}
	resp.StatusCode = int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0')
	var err error
	resp.Header, err = parseFields(rest)
	return resp, err
}

func digit(b byte) bool { return '0' <= b && b <= '9' }

// parseFields reads field lines, all ended by CRLF. Names and values are
// parts of text.
func parseFields(text string) (http.Header, error) {
	n := strings.Count(text, "\n")
	h := make(http.Header, n)
	values := make([]string, n)
	for i := 0; text != ""; i++ {
		var line string
		line, text, _ = strings.Cut(text, "\r\n")
		if line[0] == ' ' || line[0] == '\t' {
			return nil, errFolded
		}
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		// A name with a space before the colon is none, RFC 9112 section 5.1.
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, errField
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		values[i] = value
		if before, ok := h[name]; ok {
			h[name] = append(before, value)
		} else {
			h[name] = values[i : i+1 : i+1]
		}
	}
	return h, nil
}

// frame finds out where the body ends (RFC 9112 section 6.3) and sets
// resp.Body. Without a body, the connection is free at once.
func (x *exchange) frame(m *message, maxHead int) error {
	resp, h := &m.Response, m.Header
	length, known, err := contentLength(h)
	if err != nil {
		return err
	}
	chunked, err := takeChunked(resp)
	if err != nil {
		return err
	}
	resp.Close = closes(resp)
	if chunked && known {
		// Whoever sends both is mistaken about one of them.
		delete(h, "Content-Length")
		resp.Close, known, length = true, false, 0
	}
	resp.ContentLength = -1
	if known {
		resp.ContentLength = length
	}
	if chunked {
		if resp.Trailer, err = announced(h); err != nil {
			return err
		}
	}
	head := resp.Request.Method == http.MethodHead
	if head || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified {
		if !head {
			resp.ContentLength = 0
		}
		resp.Body = http.NoBody
		x.release(!resp.Close)
		return nil
	}
	b := &m.body
	*b = body{exchange: *x, reusable: !resp.Close, left: length}
	switch {
	case chunked:
		b.chunks = &chunks{trailer: &resp.Trailer, limit: maxHead}
	case !known:
		b.untilClose = true
		resp.Close = true
	case length == 0:
		resp.Body = http.NoBody
		x.release(!resp.Close)
		return nil
	}
	resp.Body = b
	if x.conn.buffered() == 0 || b.chunks != nil || b.untilClose || length > int64(x.conn.buffered()) {
		return x.expect(0) // the body may take its time
	}
	return nil
}

func contentLength(h http.Header) (n int64, known bool, err error) {
	lines := h["Content-Length"]
	switch {
	case len(lines) == 0:
		return 0, false, nil
	case len(lines) > 1:
		return 0, false, errLengths
	case lines[0] == "" || len(lines[0]) > 18: // 18 digits do not overflow
		return 0, false, errLength
	}
	for i := range len(lines[0]) {
		if !digit(lines[0][i]) {
			return 0, false, errLength
		}
		n = n*10 + int64(lines[0][i]-'0')
	}
	return n, true, nil
}

// takeChunked removes Transfer-Encoding and reports whether it was chunked;
// nothing else is understood.
func takeChunked(resp *http.Response) (bool, error) {
	lines, ok := resp.Header["Transfer-Encoding"]
	switch {
	case !ok:
		return false, nil
	case resp.ProtoMinor == 0:
		return false, errEncoding10
	case len(lines) != 1 || !strings.EqualFold(lines[0], "chunked"):
		return false, errEncoding
	}
	delete(resp.Header, "Transfer-Encoding")
	return true, nil
}

// closes reports whether the connection ends with this response.
func closes(resp *http.Response) bool {
	lines := resp.Header["Connection"]
	if httpguts.HeaderValuesContainsToken(lines, "close") {
		return true
	}
	return resp.ProtoMinor == 0 && !httpguts.HeaderValuesContainsToken(lines, "keep-alive")
}

// announced takes the names of the trailers that are to follow.
func announced(h http.Header) (http.Header, error) {
	lines, ok := h["Trailer"]
	if !ok {
		return nil, nil
	}
	delete(h, "Trailer")
	trailer := http.Header{}
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name))
			switch name {
			case "":
				continue
			case "Transfer-Encoding", "Trailer", "Content-Length":
				return nil, errTrailerName
			}
			trailer[name] = nil
		}
	}
	if len(trailer) == 0 {
		return nil, nil
	}
	return trailer, nil
}
