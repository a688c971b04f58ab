package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/routing"
)

func stuck(t *testing.T) *hostile {
	return newHostile(t, func(_ int, c *net.TCPConn, br *bufio.Reader) { _, _ = io.Copy(io.Discard, br) })
}

func TestTimeouts(t *testing.T) {
	t.Run("P2 P3: the route's timeout is 504", func(t *testing.T) {
		g := newRig(t, stuck(t).addr)
		g.route.Timeout = 30 * time.Millisecond
		g.serve()
		resp, body := g.mustGet("/")
		if resp.StatusCode != 504 || body != "upstream_timeout" || g.obs.of("timed_out") != 1 {
			t.Errorf("got %d %q %v", resp.StatusCode, body, g.obs.n)
		}
	})
	t.Run("P3: no response head in time is 504, and a GET is tried elsewhere", func(t *testing.T) {
		g := newRig(t, stuck(t).addr, addrOf(upstream(t, echo)))
		g.service.Upstream.ResponseHeader = 30 * time.Millisecond
		g.service.Retry.Attempts = 1
		g.serve()
		for range 2 {
			if resp, _ := g.mustGet("/"); resp.StatusCode != 200 {
				t.Errorf("got %d", resp.StatusCode)
			}
		}
		if g.obs.of("timed_out") == 0 || g.obs.of("retry timeout") != g.obs.of("timed_out") {
			t.Errorf("results %v", g.obs.n)
		}
	})
	t.Run("the time for one try passes on to the next instance", func(t *testing.T) {
		g := newRig(t, stuck(t).addr, addrOf(upstream(t, echo)))
		g.service.Retry.PerTry = 50 * time.Millisecond
		g.serve()
		for range 2 {
			if resp, _ := g.mustGet("/"); resp.StatusCode != 200 {
				t.Errorf("got %d", resp.StatusCode)
			}
		}
		if g.obs.of("timed_out") == 0 || g.obs.of("retry timeout") != g.obs.of("timed_out") {
			t.Errorf("results %v", g.obs.n)
		}
	})
	t.Run("the time for one try does not cut a response short", func(t *testing.T) {
		headed := make(chan struct{})
		up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-headed
			<-time.After(120 * time.Millisecond) // the instance, not the test, takes its time
			_, _ = io.WriteString(w, "late")
		})
		g := newRig(t, addrOf(up))
		g.service.Retry.PerTry = 60 * time.Millisecond
		g.serve()
		close(headed)
		if resp, body := g.mustGet("/"); resp.StatusCode != 200 || body != "late" {
			t.Errorf("got %d %q", resp.StatusCode, body)
		}
	})
	t.Run("the route's timeout cuts a response short, visibly", func(t *testing.T) {
		up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "part")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		g := newRig(t, addrOf(up))
		g.route.Timeout = 100 * time.Millisecond
		g.serve()
		if _, body, err := g.do(g.request("GET", "/", nil)); err == nil {
			t.Errorf("a clean end after %q", body)
		}
		if x := g.exchange(); x.Aborted != "upstream" || g.obs.of("timed_out") != 1 {
			t.Errorf("aborted by %q, %v", x.Aborted, g.obs.n)
		}
	})
	t.Run("a client that does not read is cut off at the route's timeout", func(t *testing.T) {
		up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		})
		g := newRig(t, addrOf(up))
		g.route.Timeout = time.Second // until then all buffers are full
		g.serve()
		g.raw("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		if x := g.exchange(); x.Aborted != "client" {
			t.Errorf("aborted by %q", x.Aborted)
		}
	})
}

func TestEventStreamsOutliveTheRoutesTimeout(t *testing.T) {
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := 0; i < 12 || r.URL.Path == "/silent"; i++ {
			if i == 12 {
				<-r.Context().Done()
				return
			}
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			<-time.After(25 * time.Millisecond) // the stream's own pace
		}
	})
	setup := func(t *testing.T) *rig {
		g := newRig(t, addrOf(up))
		g.route.Timeout = 100 * time.Millisecond
		g.service.Idle = 2 * time.Second
		return g
	}
	t.Run("as long as there is life in them", func(t *testing.T) {
		g := setup(t).serve()
		resp, body := g.mustGet("/")
		if resp.StatusCode != 200 || strings.Count(body, "data:") != 12 {
			t.Errorf("got %d %q", resp.StatusCode, body)
		}
	})
	t.Run("and end in silence", func(t *testing.T) {
		g := setup(t)
		g.service.Idle = 150 * time.Millisecond
		g.serve()
		_, body, err := g.do(g.request("GET", "/silent", nil))
		if err == nil || g.exchange().Aborted != "upstream" || g.obs.of("neutral") != 1 {
			t.Errorf("got %q %v, results %v", body, err, g.obs.n)
		}
	})
}

// D12 and rows 1, 2, 14: what the client does wrong with its body is its own
// fault, the instance never sees a complete request, and keeps its good name.
func TestD12ClientFaults(t *testing.T) {
	const post = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
	tests := []struct {
		name, raw string
		leave     bool
		code      routing.Code
	}{
		{"row 1: a bare LF ends a chunk size", post + "2\nab\r\n0\r\n\r\n", false, routing.CodeBadRequest},
		{"row 2: a chunk extension of 100 KB", post + "1;" + strings.Repeat("a", 100<<10) + "\r\nx\r\n0\r\n\r\n", false, routing.CodeBadRequest},
		{"row 2: 300 chunks of one byte with extensions", post + strings.Repeat("1;"+strings.Repeat("a", 200)+"\r\nx\r\n", 300) + "0\r\n\r\n", false, routing.CodeBadRequest},
		{"a chunk size that is no number", post + "zz\r\n", false, routing.CodeBadRequest},
		{"a chunk without its end", post + "3\r\nabcd\r\n", false, routing.CodeBadRequest},
		{"a client that leaves in its chunked body", post + "5\r\nhel", true, routing.CodeClientClosed},
		{"a client that leaves in its body", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhel", true, routing.CodeClientClosed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var complete atomic.Int64
			up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
				if _, err := io.ReadAll(r.Body); err == nil {
					complete.Add(1)
				}
			})
			g := newRig(t, addrOf(up)).serve()
			c, br := g.raw(tt.raw)
			if tt.leave {
				c.Close()
			} else {
				resp, err := http.ReadResponse(br, nil)
				if err != nil || resp.StatusCode != 400 || !resp.Close {
					t.Errorf("got %v %v", resp, err)
				}
			}
			x := g.exchange()
			if x.Refused == nil || x.Refused.Code != tt.code || g.obs.of("neutral") != 1 || x.Attempts != 1 {
				t.Errorf("refused %v after %d attempts, results %v", x.Refused, x.Attempts, g.obs.n)
			}
			// The connection to the instance is clean for others.
			for i := range 100 {
				if resp, _ := g.mustGet(fmt.Sprintf("/%d", i)); resp.StatusCode != 200 {
					t.Fatalf("got %d", resp.StatusCode)
				}
			}
			if n := complete.Load(); n != 100 {
				t.Errorf("the instance saw %d complete requests", n-100)
			}
		})
	}
}

// Row 14: a body that is announced and does not come holds nothing for
// longer than the route's timeout, and is not the instance's fault.
func TestRow14ABodyThatDoesNotCome(t *testing.T) {
	up := upstream(t, echo)
	for _, proto := range []string{"Content-Length: 10", "Transfer-Encoding: chunked"} {
		g := newRig(t, addrOf(up))
		g.route.Timeout = 50 * time.Millisecond
		g.serve()
		_, br := g.raw("POST / HTTP/1.1\r\nHost: h\r\n" + proto + "\r\n\r\n")
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != 400 || !resp.Close {
			t.Errorf("got %v %v", resp, err)
		}
		if _, err := io.ReadAll(br); err != nil {
			t.Errorf("the connection was not closed: %v", err)
		}
		if g.exchange(); g.obs.of("neutral") != 1 || g.service.All.Endpoints[0].InFlight() != 0 {
			t.Errorf("results %v", g.obs.n)
		}
	}
}

func TestABodyTooLargeForThePluginIs413(t *testing.T) {
	up := upstream(t, echo)
	for _, length := range []bool{true, false} { // row 15: the verdict is the same
		g := newRig(t, addrOf(up))
		g.wrap = func(w http.ResponseWriter) http.ResponseWriter { return w }
		g.edge = func(r *http.Request, _ *routing.Exchange) { r.Body = http.MaxBytesReader(nil, r.Body, 1000) }
		g.serve()
		var body io.Reader = strings.NewReader(strings.Repeat("x", 5000))
		if !length {
			body = io.MultiReader(body)
		}
		resp, text, err := g.do(g.request("POST", "/", body))
		if err != nil || resp.StatusCode != 413 || text != "body_too_large" || g.obs.of("neutral") != 1 {
			t.Errorf("got %v %q %v %v", resp, text, err, g.obs.n)
		}
	}
}

func TestAClientThatLeavesEndsTheUpstreamAtOnce(t *testing.T) {
	begun, gone := make(chan struct{}, 1), make(chan struct{}, 1)
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			_, _ = io.WriteString(w, strings.Repeat("x", 64<<10))
			_ = http.NewResponseController(w).Flush()
		}
		_, _ = io.Copy(io.Discard, r.Body) // the server looks for the end of the connection after it
		begun <- struct{}{}
		<-r.Context().Done()
		gone <- struct{}{}
	})
	for _, row := range []struct{ path, request string }{
		{"/head", "GET /head HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"/body", "GET /body HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"/head", "POST /head HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"},
		{"/head", "POST /head HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"},
	} {
		path := row.path
		t.Run(row.request[:strings.Index(row.request, " HTTP")], func(t *testing.T) {
			g := newRig(t, addrOf(up)).serve()
			c, br := g.raw(row.request)
			<-begun
			if path == "/body" {
				readHead(br)
			}
			c.Close()
			select {
			case <-gone:
			case <-time.After(5 * time.Second):
				t.Fatal("the instance works on")
			}
			x := g.exchange()
			if path == "/head" && (x.Refused == nil || x.Refused.Code != routing.CodeClientClosed || g.obs.of("neutral") != 1) {
				t.Errorf("refused %v, results %v", x.Refused, g.obs.n)
			}
			if path == "/body" && (x.Aborted != "client" || g.obs.of("success") != 1) {
				t.Errorf("aborted %q, results %v", x.Aborted, g.obs.n)
			}
		})
	}
}
