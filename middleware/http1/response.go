package http1

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// outSize is how much of a response is gathered before it is written; a piece
// of up to copySize is copied so that it goes out with what stands before it.
const (
	outSize  = 4 << 10
	copySize = 16 << 10
)

// sizeUnknown is how many bytes of a body are held back to find out that they
// are all of it, and so how long it is.
const sizeUnknown = 2 << 10

var errOver = errors.New("write a response: its handler has returned")

// response is the http.ResponseWriter of a request. It has the fields that the
// handler gave by the time it called WriteHeader.
type response struct {
	conn   *conn
	ctx    *requestContext
	req    *http.Request
	header http.Header

	status   int
	length   int64 // Content-Length as the handler gave it; -1: it did not
	written  int64 // bytes of the body, by the handler
	facts    facts
	begun    bool   // the head is complete and in the buffer, or sent
	chunked  bool   // the body goes in chunks
	held     []byte // the body's beginning, until the head is complete
	trailers []string
	trailing bool // there may be trailers
	close    bool // no request may follow
	err      error
	// over: the handler has returned. Who writes all the same, against the
	// rules of http.Handler, must not write into another's response.
	over atomic.Bool
}

// facts are what the end of the head depends on.
type facts struct {
	sniff      bool // nothing is said of the content's type
	date       bool
	encoding   string // Transfer-Encoding
	connection []string
}

// framing are the fields that the server decides on itself; a response
// without a body has no type either.
var (
	framing  = map[string]bool{"Content-Length": true, "Transfer-Encoding": true, "Connection": true}
	bodiless = map[string]bool{"Content-Length": true, "Transfer-Encoding": true, "Connection": true, "Content-Type": true}
	informal = map[string]bool{"Content-Length": true, "Transfer-Encoding": true}
)

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	switch {
	case w.status != 0 || w.over.Load():
		return
	case status < 100 || status > 999:
		panic(fmt.Sprintf("write the status %d: there is no such", status))
	case status < 200 && status != http.StatusSwitchingProtocols:
		w.statusLine(status)
		_ = w.header.WriteSubset(&w.conn.out, informal)
		w.conn.out.WriteString("\r\n")
		_ = w.send()
		return
	}
	w.status = status
	w.statusLine(status)
	if text := first(w.header, "Content-Length"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err == nil && n >= 0 {
			w.length = n
		}
	}
	_, typed := w.header["Content-Type"]
	_, w.facts.date = w.header["Date"]
	w.facts.sniff = !typed && first(w.header, "Content-Encoding") == ""
	w.facts.encoding = first(w.header, "Transfer-Encoding")
	w.facts.connection = append(w.facts.connection, w.header["Connection"]...)
	exclude := framing
	if status == http.StatusNotModified {
		exclude = bodiless
	}
	w.announce()
	if w.trailing {
		exclude = w.withoutTrailers(exclude)
	}
	_ = w.header.WriteSubset(&w.conn.out, exclude)
}

func first(h http.Header, name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

func (w *response) statusLine(status int) {
	out := &w.conn.out
	out.WriteString("HTTP/1.1 ")
	out.WriteString(strconv.Itoa(status))
	out.WriteByte(' ')
	if text := http.StatusText(status); text != "" {
		out.WriteString(text)
	} else {
		out.WriteString("status code ")
		out.WriteString(strconv.Itoa(status))
	}
	out.WriteString("\r\n")
}

// announce takes down the trailers that the head speaks of.
func (w *response) announce() {
	for _, line := range w.header["Trailer"] {
		w.trailing = true
		for name := range strings.SplitSeq(line, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if httpguts.ValidTrailerHeader(name) {
				w.trailers = append(w.trailers, name)
			}
		}
	}
	for name := range w.header {
		w.trailing = w.trailing || strings.HasPrefix(name, http.TrailerPrefix)
	}
}

// withoutTrailers excludes what is a trailer by its name.
func (w *response) withoutTrailers(exclude map[string]bool) map[string]bool {
	all := map[string]bool{}
	for name := range exclude {
		all[name] = true
	}
	for name := range w.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			all[name] = true
		}
	}
	return all
}

// hasBody says whether the status allows one (RFC 9110 section 6.4.1).
func (w *response) hasBody() bool {
	return w.status >= 200 && w.status != http.StatusNoContent && w.status != http.StatusNotModified
}

func (w *response) isHead() bool { return w.req.Method == http.MethodHead }

// begin completes the head. p is the body's beginning; all says that it is the
// whole body.
func (w *response) begin(p []byte, all bool) {
	w.begun = true
	out, te := &w.conn.out, w.facts.encoding
	length := w.length
	if all && !w.trailing && te == "" && w.hasBody() && length < 0 && (!w.isHead() || len(p) > 0) {
		length = int64(len(p))
		w.length = length
	}
	closing := w.conn.server.closing.Load()
	w.close = w.close || closing || len(w.facts.connection) > 0 && w.facts.connection[0] == "close"
	if w.hasBody() && w.facts.sniff && te == "" && len(p) > 0 {
		field(out, "Content-Type", http.DetectContentType(p))
	}
	if !w.facts.date {
		field(out, "Date", w.conn.server.date.now())
	}
	if length >= 0 && te != "" && te != "identity" {
		length = -1
	}
	switch {
	case w.isHead() || !w.hasBody():
	case length >= 0:
	case te == "identity":
		w.close = true
	default:
		w.chunked = true
		field(out, "Transfer-Encoding", "chunked")
	}
	if length >= 0 && w.hasBody() {
		var digits [20]byte
		out.WriteString("Content-Length: ")
		out.Write(strconv.AppendInt(digits[:0], length, 10))
		out.WriteString("\r\n")
	}
	if w.close && (closing || !httpguts.HeaderValuesContainsToken(w.facts.connection, "close")) {
		field(out, "Connection", "close")
	} else {
		for _, v := range w.facts.connection {
			field(out, "Connection", v)
		}
	}
	out.WriteString("\r\n")
}

func field(out *bytes.Buffer, name, value string) {
	out.WriteString(name)
	out.WriteString(": ")
	out.WriteString(value)
	out.WriteString("\r\n")
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	if w.over.Load() {
		return 0, errOver
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case len(p) == 0:
		return 0, nil
	case !w.hasBody():
		return 0, http.ErrBodyNotAllowed
	}
	w.written += int64(len(p))
	if w.length >= 0 && w.written > w.length {
		return 0, http.ErrContentLength
	}
	if !w.begun {
		if w.length < 0 && len(w.held)+len(p) <= sizeUnknown {
			w.held = append(w.held, p...)
			return len(p), nil
		}
		if len(w.held) > 0 {
			w.release(false)
		} else {
			w.begin(p, false)
		}
	}
	w.body(p)
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// body gathers a part of the body, or writes it.
func (w *response) body(p []byte) {
	if w.isHead() {
		return
	}
	out := &w.conn.out
	if w.chunked {
		var digits [18]byte
		out.Write(append(strconv.AppendInt(digits[:0], int64(len(p)), 16), "\r\n"...))
	}
	if len(p) <= copySize {
		out.Write(p)
	} else {
		_ = w.send()
		w.write(p)
	}
	if w.chunked {
		out.WriteString("\r\n")
	}
	if out.Len() >= outSize {
		_ = w.send()
	}
}

// send writes what was gathered.
func (w *response) send() error {
	out := &w.conn.out
	if out.Len() > 0 {
		w.write(out.Bytes())
		out.Reset()
	}
	return w.err
}

// write writes to the client, unless that has failed before.
func (w *response) write(p []byte) {
	if w.err != nil {
		return
	}
	if _, w.err = w.conn.nc.Write(p); w.err != nil {
		w.ctx.fail()
	}
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// FlushError sends what the handler wrote so far.
func (w *response) FlushError() error {
	if w.over.Load() {
		return errOver
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.release(false)
	return w.send()
}

// release completes the head and lets go what was held back; all says that it
// is the whole body.
func (w *response) release(all bool) {
	if w.begun {
		return
	}
	w.begin(w.held, all)
	if len(w.held) > 0 {
		w.body(w.held)
		w.held = nil
	}
}

// finish ends the response.
func (w *response) finish() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.release(true)
	if w.chunked {
		w.conn.out.WriteString("0\r\n")
		w.writeTrailers()
		w.conn.out.WriteString("\r\n")
	}
	// Who was promised more would take the next response for the rest.
	if !w.isHead() && w.hasBody() && w.length >= 0 && w.length != w.written {
		w.close = true
	}
	_ = w.send()
}

func (w *response) writeTrailers() {
	if !w.trailing {
		return
	}
	all := http.Header{}
	for name, values := range w.header {
		if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			all[name] = values
		}
	}
	for _, name := range w.trailers {
		all[name] = append(all[name], w.header[name]...)
	}
	_ = all.Write(&w.conn.out)
}

// SetReadDeadline is for http.ResponseController. There is no body to read.
func (w *response) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is for http.ResponseController.
func (w *response) SetWriteDeadline(t time.Time) error { return w.conn.nc.SetWriteDeadline(t) }

// EnableFullDuplex is for http.ResponseController. Without a body, a response
// waits for nothing.
func (w *response) EnableFullDuplex() error { return nil }
