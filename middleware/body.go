package middleware

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Bounds on what is read of a body that nobody wants any more, to keep the
// connection usable: further than this, closing it is cheaper.
const (
	drainBytes = 64 << 10
	drainTime  = 200 * time.Millisecond
	// lingerTime bounds net/http's own reading after the answer went out.
	lingerTime = 500 * time.Millisecond
)

// errBodyStalled is what reading a body gives after a client sent nothing of
// it for BodyReadTimeout.
var errBodyStalled = errors.New("the client stopped sending the body")

// guardedBody is a request body with a bound on its size and on the client's
// silence. It belongs to one request and is never reused: a transport may
// read or close it after the request has ended.
type guardedBody struct {
	rc  io.ReadCloser
	ctl *http.ResponseController
	// streamed bodies have a stream of their own, not the connection: HTTP/2
	// and HTTP/3.
	streamed bool
	// limit is the most that may be read; negative is no limit.
	limit   int64
	timeout time.Duration
	// limitedBy is the plugin that set the limit; "" for the gateway's own.
	limitedBy string

	mu      sync.Mutex
	left    int64
	reading bool
	since   time.Time // when the pending read began
	timer   *time.Timer
	closed  bool // by whoever forwarded it
	ended   bool // the request is over
	eof     bool
	failed  error
}

// guard puts a guardedBody around the body of r, if it has one.
func (st *state) guard() {
	r, cfg := st.r, &st.engine.cfg
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return
	}
	b := &guardedBody{
		rc: r.Body, ctl: http.NewResponseController(st.w.rw), streamed: r.ProtoMajor > 1,
		limit: -1, timeout: cfg.BodyReadTimeout,
	}
	if cfg.MaxBodyBytes > 0 {
		b.limit, b.left = cfg.MaxBodyBytes, cfg.MaxBodyBytes
	}
	if st.x.GRPC {
		b.timeout = 0
	}
	st.body, r.Body = b, b
}

// wantBody answers "Expect: 100-continue" over HTTP/3, where the server leaves
// it to the handler; net/http does it at the first read.
func (st *state) wantBody() {
	if st.r.ProtoMajor == 3 && st.body != nil && strings.EqualFold(st.r.Header.Get("Expect"), "100-continue") {
		st.w.rw.WriteHeader(http.StatusContinue)
	}
}

// lower sets a lower limit for the named plugin. Only before anything was
// read.
func (b *guardedBody) lower(limit int64, plugin string) {
	if b.limit < 0 || limit < b.limit {
		b.limit, b.left, b.limitedBy = limit, limit, plugin
	}
}

// Read reads from the client. Errors: *http.MaxBytesError past the limit,
// errBodyStalled after too long a silence, and whatever net/http finds wrong
// with the framing.
func (b *guardedBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := b.start(); err != nil {
		return 0, err
	}
	// One byte past the limit tells a body that ends there from one that
	// does not.
	if b.limit >= 0 && int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.rc.Read(p)
	return b.finish(n, err)
}

// start notes that a read is pending. Only the reader touches left, so it
// needs no lock.
func (b *guardedBody) start() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ended, b.closed:
		return http.ErrBodyReadAfterClose
	case b.failed != nil:
		return b.failed
	}
	if b.timeout > 0 {
		b.reading, b.since = true, time.Now()
		if b.timer == nil {
			b.timer = time.AfterFunc(b.timeout, b.check)
		}
	}
	return nil
}

func (b *guardedBody) finish(n int, err error) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reading = false
	if b.failed != nil { // the client stalled
		return n, b.failed
	}
	if b.limit >= 0 {
		if int64(n) > b.left {
			b.failed = &http.MaxBytesError{Limit: b.limit}
			return int(b.left), b.failed
		}
		b.left -= int64(n)
	}
	switch {
	case err == io.EOF:
		b.eof = true
		b.stopTimer()
	case err != nil:
		b.failed = err
		b.stopTimer()
	}
	return n, err
}

// check runs on the timer: it cuts a read that has waited too long, and looks
// again later otherwise. One timer for the whole body costs less than a
// deadline per read, and a deadline that passes while nobody reads would end
// an HTTP/2 stream for nothing.
func (b *guardedBody) check() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended || b.closed || b.eof || b.failed != nil {
		return
	}
	wait := b.timeout
	if b.reading {
		if wait = b.timeout - time.Since(b.since); wait <= 0 {
			b.failed = errBodyStalled
			_ = b.ctl.SetReadDeadline(time.Unix(1, 0))
			return
		}
	}
	b.timer.Reset(wait)
}

func (b *guardedBody) stopTimer() {
	if b.timer != nil {
		b.timer.Stop()
	}
}

// Close ends reading. It leaves the connection alone: net/http's Close reads
// on, in whatever goroutine calls it, for as long as the client likes; the
// server does that by itself once the request is over, within lingerTime.
func (b *guardedBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.stopTimer()
	return nil
}

// complete says whether the body was read to its end.
func (b *guardedBody) complete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.eof
}

// failure returns what went wrong with the body, or nil.
func (b *guardedBody) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

// drain reads a small rest, so that a refused request need not cost the
// connection. Only for a body that nobody else reads.
func (b *guardedBody) drain(r *http.Request) {
	if b.streamed || b.failure() != nil || r.ContentLength < 0 || r.ContentLength > drainBytes || r.Header.Get("Expect") != "" {
		return
	}
	_ = b.ctl.SetReadDeadline(time.Now().Add(drainTime))
	_, _ = io.Copy(io.Discard, b)
	_ = b.ctl.SetReadDeadline(time.Time{})
}

// end is called when the request has been answered. Whoever still reads gets
// an error instead of the next request's bytes.
func (b *guardedBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	b.stopTimer()
	if !b.eof && !b.streamed {
		// net/http reads on for a while; a client that sends nothing must not
		// hold it. The server sets the deadline anew for the next request.
		linger := lingerTime
		if b.failed == errBodyStalled {
			linger = 0
		}
		_ = b.ctl.SetReadDeadline(time.Now().Add(linger))
	}
}
