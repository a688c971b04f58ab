package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/routing"
)

// Event is one message of /api/v1/events.
type Event struct {
	// Generation, Revision and Routes are the new table's; Problems and Held
	// count what is not as written.
	Generation uint64    `json:"generation"`
	Revision   int64     `json:"revision"`
	Routes     int       `json:"routes"`
	Problems   int       `json:"problems"`
	Held       int       `json:"held"`
	At         time.Time `json:"at"`
}

// Events hands each table swap to everyone who listens. A listener that is
// slow misses events and never holds a swap up. Safe for concurrent use.
type Events struct {
	mu        sync.Mutex
	listeners map[chan Event]struct{}
	closed    bool
}

// NewEvents makes an empty hub of events.
func NewEvents() *Events { return &Events{listeners: map[chan Event]struct{}{}} }

// Swapped tells of a new table.
func (e *Events) Swapped(_, t *routing.Table) {
	ev := Event{Generation: t.Generation, Revision: t.Revision, Routes: len(t.Routes()),
		Problems: len(t.Problems()), Held: len(t.Held()), At: t.Built.UTC()}
	e.mu.Lock()
	defer e.mu.Unlock()
	for l := range e.listeners {
		select {
		case l <- ev:
		default:
		}
	}
}

// Close ends every stream, so that a shutdown does not wait for them.
func (e *Events) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for l := range e.listeners {
		close(l)
		delete(e.listeners, l)
	}
}

func (e *Events) listen() (chan Event, func()) {
	l := make(chan Event, 16)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		close(l)
		return l, func() {}
	}
	e.listeners[l] = struct{}{}
	return l, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.listeners, l)
	}
}

// events streams swaps as server-sent events (HTML Living Standard, 9.2).
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	l, stop := s.deps.Events.listen()
	defer stop()
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Time{})
	if _, err := fmt.Fprint(w, ": sluice\n\n"); err != nil || rc.Flush() != nil {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case ev, ok := <-l:
			if !ok {
				return
			}
			data, err := json.Marshal(ev)
			if err != nil {
				return
			}
			if _, err := fmt.Fprintf(w, "event: swap\nid: %d\ndata: %s\n\n", ev.Generation, data); err != nil || rc.Flush() != nil {
				return
			}
		}
	}
}
