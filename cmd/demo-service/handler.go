package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// answer is what an ordinary request gets.
type answer struct {
	Service  string      `json:"service"`
	Instance string      `json:"instance"`
	Colour   string      `json:"colour,omitempty"`
	Method   string      `json:"method"`
	Proto    string      `json:"proto"`
	Host     string      `json:"host"`
	Path     string      `json:"path"` // as received, escapes kept
	Query    url.Values  `json:"query"`
	Headers  http.Header `json:"headers"`
}

// handler serves requests. Safe for concurrent use.
type handler struct {
	service, instance, colour string
	delay                     time.Duration
	health                    atomic.Int64 // the status of /healthz
}

func newHandler(o options) *handler {
	h := &handler{service: o.name, instance: o.id, colour: o.colour(), delay: o.delay}
	h.health.Store(http.StatusOK)
	return h
}

func (h *handler) healthy() bool { return h.health.Load() < 400 }

// ServeHTTP goes by the end of the path, so that a request finds its way with
// and without the prefix of a route.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	segments := strings.Split(r.URL.Path, "/")
	last := segments[len(segments)-1]
	if last == "healthz" {
		h.serveHealth(w, r)
		return
	}
	w.Header().Set("X-Instance", h.instance)
	if h.delay > 0 && !pause(r, h.delay) {
		return
	}
	switch {
	case last == "slow":
		if d, ok := milliseconds(w, r, 1000); ok && pause(r, d) {
			h.serveAnswer(w, r, http.StatusOK)
		}
	case last == "stream":
		h.serveStream(w, r)
	case last == "echo":
		serveEcho(w, r)
	case len(segments) > 1 && segments[len(segments)-2] == "status":
		if code, err := strconv.Atoi(last); err == nil && code >= 200 && code <= 599 {
			h.serveAnswer(w, r, code)
			return
		}
		http.Error(w, "want /status/200 to /status/599", http.StatusBadRequest)
	default:
		h.serveAnswer(w, r, http.StatusOK)
	}
}

func (h *handler) serveAnswer(w http.ResponseWriter, r *http.Request, code int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if code == http.StatusNoContent || code == http.StatusNotModified {
		return
	}
	_ = json.NewEncoder(w).Encode(answer{
		Service: h.service, Instance: h.instance, Colour: h.colour,
		Method: r.Method, Proto: r.Proto, Host: r.Host,
		Path: r.URL.EscapedPath(), Query: r.URL.Query(), Headers: r.Header,
	})
}

func (h *handler) serveHealth(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		code, err := strconv.Atoi(r.URL.Query().Get("status"))
		if err != nil || code < 200 || code > 599 {
			http.Error(w, "want ?status=200 to ?status=599", http.StatusBadRequest)
			return
		}
		h.health.Store(int64(code))
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.WriteHeader(int(h.health.Load()))
}

func (h *handler) serveStream(w http.ResponseWriter, r *http.Request) {
	every, ok := milliseconds(w, r, 200)
	if !ok {
		return
	}
	count := 5
	if s := r.URL.Query().Get("count"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			http.Error(w, "count: want a whole number from 1", http.StatusBadRequest)
			return
		}
		count = n
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	control := http.NewResponseController(w)
	for i := 1; i <= count; i++ {
		if _, err := fmt.Fprintf(w, "id: %d\ndata: %s %d of %d\n\n", i, h.instance, i, count); err != nil {
			return
		}
		if control.Flush() != nil || i < count && !pause(r, every) {
			return
		}
	}
}

// serveEcho sends the body back as it arrives.
func serveEcho(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // HTTP/2 is so by nature and refuses
	if t := r.Header.Get("Content-Type"); t != "" {
		w.Header().Set("Content-Type", t)
	}
	w.WriteHeader(http.StatusOK)
	buffer := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(buffer)
		if n > 0 {
			if _, werr := w.Write(buffer[:n]); werr != nil || control.Flush() != nil {
				return
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler) // a cut body must not look whole
		}
	}
}

// milliseconds reads the query's ms.
func milliseconds(w http.ResponseWriter, r *http.Request, otherwise int) (time.Duration, bool) {
	ms := otherwise
	if s := r.URL.Query().Get("ms"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			http.Error(w, "ms: want a whole number from 0", http.StatusBadRequest)
			return 0, false
		}
		ms = n
	}
	return time.Duration(ms) * time.Millisecond, true
}

// pause waits for d and says whether the caller is still there.
func pause(r *http.Request, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
		return false
	}
}
