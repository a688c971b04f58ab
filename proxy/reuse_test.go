package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-gateway/sluice/routing"
)

// prompt is a writer that sends the head when it is written, and says so.
type prompt struct{ http.ResponseWriter }

func (prompt) HeadCopied() bool              { return true }
func (p prompt) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// late is a writer that keeps the head until the request is over, as one that
// compresses may.
type late struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (l *late) WriteHeader(status int)      { l.status = status }
func (l *late) Write(p []byte) (int, error) { return l.body.Write(p) }
func (l *late) send() {
	l.ResponseWriter.WriteHeader(l.status)
	_, _ = l.ResponseWriter.Write(l.body.Bytes())
}

// The memory of one request is the next one's: nothing of it may be seen
// there, also where a writer has not sent the head yet.
func TestRequestsDoNotMix(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		id := r.URL.Query().Get("id")
		if got := r.Header.Values("X-Id"); !slices.Equal(got, []string{id}) {
			http.Error(w, fmt.Sprintf("request %s came with X-Id %q", id, got), http.StatusTeapot)
			return
		}
		for i := range len(id) * len(id) { // heads of different sizes
			w.Header().Set(fmt.Sprintf("X-%s-%d", id, i), id)
		}
		w.Header()["X-Id"] = []string{id, id}
		_, _ = io.WriteString(w, id)
	})
	for name, walk := range map[string]func(*rig, http.ResponseWriter, *http.Request){
		"a head that is sent at once": func(g *rig, w http.ResponseWriter, r *http.Request) { g.ServeHTTP(prompt{w}, r) },
		"a head that is sent late": func(g *rig, w http.ResponseWriter, r *http.Request) {
			l := &late{ResponseWriter: w}
			g.ServeHTTP(l, r)
			l.send()
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, addrOf(up))
			g.service.Upstream.Engine = routing.EngineFast
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { walk(g, w, r) }))
			t.Cleanup(func() {
				g.f.Close()
				s.Close()
			})
			var all errgroup.Group
			for worker := range 8 {
				all.Go(func() error {
					for i := range 100 {
						if err := askFor(s, strings.Repeat(string(rune('a'+worker)), 1+i%4)); err != nil {
							return err
						}
					}
					return nil
				})
			}
			if err := all.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// askFor says what is wrong with the answer to the request of that id.
func askFor(s *httptest.Server, id string) error {
	req, err := http.NewRequest(http.MethodGet, s.URL+"/?id="+id, nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Id", id)
	resp, err := s.Client().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if string(body) != id || !slices.Equal(resp.Header["X-Id"], []string{id, id}) {
		return fmt.Errorf("%s was answered with %q, X-Id %q", id, body, resp.Header["X-Id"])
	}
	own := 0
	for name, values := range resp.Header {
		if strings.Count(name, "-") != 2 {
			continue // Date and its like
		}
		if own++; !strings.EqualFold(name[2:2+len(id)], id) || !slices.Equal(values, []string{id}) {
			return fmt.Errorf("%s was answered with %s: %q", id, name, values)
		}
	}
	if own != len(id)*len(id) {
		return fmt.Errorf("%s was answered with %d fields of its own", id, own)
	}
	return nil
}
