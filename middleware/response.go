package middleware

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// response stands between net/http and everybody who answers: it sees when
// the head goes out, adds what every answer carries, and counts. Gin's own
// writer lies on top of it and delays heads until the first byte; the
// forwarder writes here directly, so that 1xx responses pass.
//
// A second WriteHeader is ignored: that is how an answered request passes the
// text that Gin appends to one that it believes unanswered.
type response struct {
	rw http.ResponseWriter
	st *state
	// status is 0 until the head went out.
	status int
	bytes  int64
	// edits is what the matched route changes in the head; nil for nothing.
	edits *headerEdits
}

func (w *response) Header() http.Header { return w.rw.Header() }

func (w *response) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		w.rw.WriteHeader(status)
		return
	}
	w.finishHead(status)
	w.rw.WriteHeader(status)
	w.status = status
	if w.st.r.ProtoMajor == 3 && w.st.r.Method == http.MethodHead {
		// Left to itself, quic-go would say that the length is 0.
		_ = w.FlushError()
	}
}

// finishHead puts in place what every head carries.
func (w *response) finishHead(status int) {
	h, st := w.rw.Header(), w.st
	w.edit(h)
	id := st.id[:]
	if !headIsCopied(st.r) {
		id = make([]string, 1)
	}
	id[0] = st.x.RequestID
	h["X-Request-Id"] = id
	if alt := st.engine.altSvc; alt != nil {
		delete(h, "Alt-Svc") // an instance's own speaks of another origin
		if st.r.TLS != nil && st.r.ProtoMajor < 3 && !st.engine.draining.Load() {
			h["Alt-Svc"] = alt
		}
	}
	if status == http.StatusSwitchingProtocols {
		return // its Connection header names the upgrade
	}
	switch {
	case st.r.ProtoMajor == 3: // it has no such header (RFC 9114 section 4.2)
	case st.r.ProtoMajor != 1 && st.r.Method != "PRI":
		// net/http turns this into GOAWAY, which ends the whole connection
		// and so is not for one request's sake.
		if st.engine.draining.Load() {
			h["Connection"] = []string{"close"}
		}
	case st.closing, st.engine.draining.Load(), st.body != nil && !st.body.complete():
		// A body that was not read to its end leaves bytes on the wire that
		// must not be taken for a request; the client of an unanswered
		// Expect: 100-continue may never send them. A preface that net/http
		// took for an HTTP/1 request calls itself HTTP/2.
		h["Connection"] = []string{"close"}
	}
}

// headIsCopied says whether the server copies a head when it is written;
// that of HTTP/3 looks at it until the request is over, and after.
func headIsCopied(r *http.Request) bool { return r.ProtoMajor <= 2 }

// HeadCopied says whether the head was sent and nobody will look at what it
// was made of.
func (w *response) HeadCopied() bool { return w.status != 0 && headIsCopied(w.st.r) }

// edit applies the route's edits once.
func (w *response) edit(h http.Header) {
	if w.edits != nil {
		w.edits.apply(h)
		w.edits = nil
	}
}

func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := w.rw.Write(p)
	w.bytes += int64(n)
	return n, err
}

func (w *response) WriteString(s string) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := io.WriteString(w.rw, s)
	w.bytes += int64(n)
	return n, err
}

// ReadFrom lets net/http copy from connection to connection in the kernel.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := io.Copy(w.rw, src)
	w.bytes += n
	return n, err
}

func (w *response) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController calls.
func (w *response) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch f := w.rw.(type) {
	case interface{ FlushError() error }:
		return f.FlushError()
	case http.Flusher:
		f.Flush()
		return nil
	}
	return http.ErrNotSupported
}

// Hijack hands the connection over, for upgrades.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.rw).Hijack()
	if err == nil && w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, buf, err
}

// Unwrap leads http.ResponseController to the deadlines of the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.rw }
