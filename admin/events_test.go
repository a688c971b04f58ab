package admin

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// stream is one listener's end of /api/v1/events.
type stream struct {
	t     *testing.T
	lines *bufio.Scanner
}

func (r *rig) listen(server *httptest.Server) stream {
	r.t.Helper()
	resp, err := server.Client().Get(server.URL + "/api/v1/events")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		r.t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	s := stream{r.t, bufio.NewScanner(resp.Body)}
	if first := s.message(); first != ": sluice" {
		r.t.Fatalf("the stream begins with %q", first)
	}
	return s
}

// message is the next one, or "" at the end of the stream.
func (s stream) message() string {
	var lines []string
	for s.lines.Scan() && s.lines.Text() != "" {
		lines = append(lines, s.lines.Text())
	}
	return strings.Join(lines, "\n")
}

func TestEventsTellEveryListenerOfEachSwap(t *testing.T) {
	r := newRig(t, "")
	server := httptest.NewServer(r.server)
	defer server.Close()
	listeners := []stream{r.listen(server), r.listen(server)}
	r.shop()
	for _, s := range listeners {
		got := s.message()
		data, ok := strings.CutPrefix(got, "event: swap\nid: 1\ndata: ")
		var e Event
		if err := json.Unmarshal([]byte(data), &e); !ok || err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		if !e.At.Equal(r.table.Built) {
			t.Errorf("at %s, built %s", e.At, r.table.Built)
		}
		e.At = r.table.Built
		if want := (Event{Generation: 1, Revision: 7, Routes: 2, Problems: 1, At: r.table.Built}); e != want {
			t.Errorf("got %+v, want %+v", e, want)
		}
	}
	r.shop()
	if got := listeners[0].message(); !strings.HasPrefix(got, "event: swap\nid: 2\n") {
		t.Errorf("the next swap is %q", got)
	}
	r.events.Close() // as a shutdown does
	for _, s := range listeners[:1] {
		if got := s.message(); got != "" {
			t.Errorf("after the end: %q", got)
		}
	}
	if late := r.listen(server); late.message() != "" {
		t.Error("a stream that begins after the end does not end")
	}
}

func TestAListenerThatReadsNothingHoldsNoSwapUp(t *testing.T) {
	r := newRig(t, "")
	l, stop := r.events.listen()
	defer stop()
	for range 100 {
		r.shop()
	}
	if len(l) != cap(l) {
		t.Errorf("%d events wait, want %d", len(l), cap(l))
	}
	if first := <-l; first.Generation != 1 {
		t.Errorf("the first is of generation %d", first.Generation)
	}
}
