package middleware

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/routing"
)

// Rows 1 to 15 of the vulnerability list as far as they are the listener's:
// what a client may do to the framing of messages.
func TestFraming(t *testing.T) {
	const post = "POST / HTTP/1.1\nHost: a\n"
	for _, c := range []struct {
		name   string
		send   string // \n stands for CRLF, \x00 for a bare LF, \x01 for NUL
		status int
	}{
		{name: "row 1 a bare LF ends a chunk-size line", status: 400,
			send: post + "Transfer-Encoding: chunked\n\n2\x00ab\n0\n\nGET /smuggled HTTP/1.1\nHost: a\n\n"},
		{name: "row 2 a chunk extension of 100 KB", status: 400,
			send: post + "Transfer-Encoding: chunked\n\n1;" + strings.Repeat("x", 100<<10) + "\na\n0\n\n"},
		{name: "row 2 three hundred one-byte chunks with long extensions", status: 400,
			send: post + "Transfer-Encoding: chunked\n\n" + strings.Repeat("1;"+strings.Repeat("x", 200)+"\na\n", 300) + "0\n\n"},
		{name: "row 3 xchunked", status: 501, send: post + "Transfer-Encoding: xchunked\n\n0\n\n"},
		{name: "row 3 vertical tab before chunked", status: 400, send: post + "Transfer-Encoding: \vchunked\n\n0\n\n"},
		{name: "row 3 chunked, identity", status: 501, send: post + "Transfer-Encoding: chunked, identity\n\n0\n\n"},
		{name: "row 3 two Transfer-Encoding lines", status: 501,
			send: post + "Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n\n"},
		{name: "row 4 two lengths that differ", status: 400, send: post + "Content-Length: 2\nContent-Length: 3\n\nabc"},
		{name: "row 4 a length with a sign", status: 400, send: post + "Content-Length: +2\n\nab"},
		{name: "row 4 a length in hexadecimal", status: 400, send: post + "Content-Length: 0x2\n\nab"},
		{name: "row 4 a negative length", status: 400, send: post + "Content-Length: -1\n\n"},
		{name: "row 4 a list of equal lengths", status: 400, send: post + "Content-Length: 2, 2\n\nab"},
		{name: "row 5 a space before the colon", status: 400, send: post + "Transfer-Encoding : chunked\n\n0\n\n"},
		{name: "row 5 a space in a name", status: 400, send: post + "X A: b\n\n"},
		{name: "row 5 a space before the first header", status: 400, send: "GET / HTTP/1.1\n X: b\nHost: a\n\n"},
		{name: "row 6 NUL in a value", status: 400, send: "GET / HTTP/1.1\nHost: a\nX: a\x01b\n\n"},
		{name: "row 8 HTTP/1.0 with a chunked body", status: 400,
			send: "POST / HTTP/1.0\nHost: a\nConnection: keep-alive\nTransfer-Encoding: chunked\n\n2\nab\n0\n\nGET /smuggled HTTP/1.1\nHost: a\n\n"},
		{name: "row 9 CONNECT with a request behind it", status: 405,
			send: "CONNECT a:80 HTTP/1.1\nHost: a:80\n\nGET /admin HTTP/1.1\nHost: a\n\n"},
		{name: "row 9 a WebSocket handshake with a body", status: 400,
			send: "GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\nContent-Length: 5\n\nearly"},
		{name: "row 9 a WebSocket handshake by POST", status: 400,
			send: "POST / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\n\n"},
		{name: "row 10 an upgrade to h2c", status: 400,
			send: "GET / HTTP/1.1\nHost: a\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\n\n"},
		{name: "row 10 an upgrade to h2c beside websocket", status: 400,
			send: "GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: h2c, websocket\n\n"},
		{name: "row 11 the preface of HTTP/2 with a header line", status: 400,
			send: "PRI * HTTP/2.0\nHost: a\n\nGET /smuggled HTTP/1.1\nHost: a\n\n"},
		{name: "row 13 a trailer named Content-Length", status: 400,
			send: post + "Transfer-Encoding: chunked\nTrailer: Content-Length\n\n2\nab\n0\nContent-Length: 5\n\n"},
		{name: "TRACE", status: 405, send: "TRACE / HTTP/1.1\nHost: a\n\n"},
		{name: "an unknown expectation", status: 417, send: "GET / HTTP/1.1\nHost: a\nExpect: pie\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, setup{})
			w := g.dial()
			w.sendRaw(strings.NewReplacer("\n", "\r\n", "\x00", "\n", "\x01", "\x00").Replace(c.send))
			got := w.answer("POST")
			if got.StatusCode != c.status {
				t.Errorf("status is %d (%q), want %d", got.StatusCode, got.Text, c.status)
			}
			if !w.closed() {
				t.Error("the connection was kept")
			}
			for _, s := range g.upstream.requests() {
				if s.BodyErr == nil {
					t.Errorf("a whole request went on: %+v", s)
				}
			}
		})
	}
}

// net/http frames a request that has both by Transfer-Encoding, as RFC 9112
// section 6.3 allows, and hides the length from its handler. What matters is
// that no instance is told both.
func TestRow4LengthBesideChunkedNeverGoesOn(t *testing.T) {
	g := start(t, setup{})
	got, _ := g.exchange("POST / HTTP/1.1\nHost: a\nContent-Length: 60\nTransfer-Encoding: chunked\n\n2\nab\n0\n\n")
	if got.StatusCode != 200 {
		t.Fatalf("status is %d", got.StatusCode)
	}
	s := g.upstream.requests()[0]
	if s.Body != "ab" || s.Header["Content-Length"] != nil || s.Header["Transfer-Encoding"] != nil {
		t.Errorf("the instance was told %q with %v", s.Body, s.Header)
	}
}

func TestRow7FoldedAndBareLFHeadersAreNormalised(t *testing.T) {
	g := start(t, setup{})
	w := g.dial()
	w.sendRaw("GET / HTTP/1.1\nHost: a\nX-Bare: lf\r\nX-Folded: one\r\n two\r\n\r\n")
	if got := w.answer("GET"); got.StatusCode != 200 {
		t.Fatalf("status is %d", got.StatusCode)
	}
	h := g.upstream.requests()[0].Header
	if h.Get("X-Bare") != "lf" || h.Get("X-Folded") != "one two" {
		t.Errorf("the instance was told %q", h)
	}
}

func TestRow8HTTP10IsNeverKept(t *testing.T) {
	g := start(t, setup{})
	got, w := g.exchange("GET / HTTP/1.0\nHost: a\nConnection: keep-alive\nTransfer-Encoding: chunked\n\n2\nab\n0\n\nGET /smuggled HTTP/1.1\nHost: a\n\n")
	if got.StatusCode != 200 || !w.closed() {
		t.Errorf("status is %d, or the connection was kept", got.StatusCode)
	}
	if n := len(g.upstream.requests()); n != 1 {
		t.Errorf("%d requests went on, want 1", n)
	}
	got, _ = g.exchange("POST / HTTP/1.0\nContent-Length: 2\n\nab")
	if s := g.upstream.requests()[1]; got.StatusCode != 200 || s.Body != "ab" || s.Host != "" {
		t.Errorf("a plain HTTP/1.0 request got %d; the instance saw %+v", got.StatusCode, s)
	}
}

func TestRow11PrefaceOnAnHTTP1Listener(t *testing.T) {
	g := start(t, setup{tune: func(s *http.Server) {
		s.Protocols.SetUnencryptedHTTP2(false)
		s.Protocols.SetHTTP2(false)
	}})
	w := g.dial()
	w.send("PRI * HTTP/2.0\n\nSM\n\n")
	if got := w.answer("PRI"); got.StatusCode != 400 || !w.closed() {
		t.Errorf("status is %d, or the connection was kept", got.StatusCode)
	}
	if n := len(g.upstream.requests()); n != 0 {
		t.Errorf("%d requests went on", n)
	}
}

// A client that was refused before it was told to continue need not send the
// body; what it sends next must be read as a request and not as that body.
func TestRow12ExpectContinueRefusedUnread(t *testing.T) {
	g := start(t, setup{routes: map[string]string{
		"no":  `{"path":"/no","respond":{"status":403,"body":"no"}}`,
		"any": `{"path":"/*","service":"any"}`,
	}})
	var refused []*wire
	for range 100 {
		w := g.dial()
		w.send("POST /no HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 26\n\n")
		refused = append(refused, w)
	}
	for _, w := range refused {
		if got := w.answer("POST"); got.StatusCode != 403 || !got.Close || !w.closed() {
			t.Fatalf("status is %d, close %v", got.StatusCode, got.Close)
		}
	}
	w := g.dial()
	for range 100 {
		w.send("GET /yes HTTP/1.1\nHost: a\n\n")
		if got := w.answer("GET"); got.StatusCode != 200 || got.Text != "ok" {
			t.Fatalf("a later request got %d %q", got.StatusCode, got.Text)
		}
	}
}

func TestRow13TrailersNeverGoOn(t *testing.T) {
	g := start(t, setup{})
	for _, declared := range []string{"Trailer: X-User-Id\n", ""} {
		got, _ := g.exchange("POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n" + declared + "\n2\nab\n0\nX-User-Id: evil\n\n")
		if got.StatusCode != 200 {
			t.Fatalf("status is %d", got.StatusCode)
		}
	}
	for _, s := range g.upstream.requests() {
		if s.Body != "ab" || s.Header["X-User-Id"] != nil || s.Header["Trailer"] != nil {
			t.Errorf("the instance saw %+v", s)
		}
	}
}

func TestRow14BodyThatNeverComes(t *testing.T) {
	g := start(t, setup{config: func(c *Config) { c.BodyReadTimeout = 50 * time.Millisecond }})
	for _, head := range []string{
		"POST / HTTP/1.1\nHost: a\nContent-Length: 10\n\n",
		"GET / HTTP/1.1\nHost: a\nContent-Length: 10\n\nabc",
		"POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n",
		"POST / HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 10\n\n",
	} {
		w := g.dial()
		w.send(head)
		if strings.Contains(head, "Expect") {
			if got := w.answer("POST"); got.StatusCode != 100 {
				t.Errorf("%q got %d first", head, got.StatusCode)
			}
		}
		wantRefusal(t, w.answer("POST"), http.StatusRequestTimeout, routing.CodeBadRequest)
		if !w.closed() {
			t.Errorf("%q: the connection was kept", head)
		}
	}
}

func TestRow14AnAnswerIsNotHeldBackByABodyThatNeverComes(t *testing.T) {
	g := start(t, setup{routes: map[string]string{"no": `{"path":"/no","respond":{"status":403,"body":"no"}}`}})
	for _, path := range []string{"/no", "/missing", "/health"} {
		w := g.dial()
		w.send("GET " + path + " HTTP/1.1\nHost: a\nContent-Length: 10\n\n")
		if got := w.answer("GET"); got.StatusCode == 0 || !got.Close || !w.closed() {
			t.Errorf("%s: close is %v", path, got.Close)
		}
	}
}

func TestRow15BodyLimitHoldsHoweverTheBodyIsFramed(t *testing.T) {
	g := start(t, setup{config: func(c *Config) { c.MaxBodyBytes = 8 }})
	for _, c := range []struct {
		name, send string
		status     int
	}{
		{"a length at the limit", "Content-Length: 8\n\n12345678", 200},
		{"a length past it", "Content-Length: 9\n\n123456789", 413},
		{"a length far past it, and no body", "Content-Length: 99999999999\n\n", 413},
		{"chunks up to the limit", "Transfer-Encoding: chunked\n\n4\n1234\n4\n5678\n0\n\n", 200},
		{"chunks past it", "Transfer-Encoding: chunked\n\n4\n1234\n5\n56789\n0\n\n", 413},
		{"one chunk past it, and more to come", "Transfer-Encoding: chunked\n\nff\n" + strings.Repeat("x", 100), 413},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, w := g.exchange("POST / HTTP/1.1\nHost: a\n" + c.send)
			if got.StatusCode != c.status {
				t.Errorf("status is %d, want %d", got.StatusCode, c.status)
			}
			if c.status == 413 {
				wantRefusal(t, got, 413, routing.CodeBodyTooLarge)
				if !w.closed() {
					t.Error("the connection was kept")
				}
			}
		})
	}
	t.Run("the same over HTTP/2", func(t *testing.T) {
		client := h2c(t)
		for size, want := range map[int]int{8: 200, 9: 413, 100000: 413} {
			for _, length := range []int64{int64(size), -1} {
				req, _ := http.NewRequest("POST", "http://"+g.addr+"/", strings.NewReader(strings.Repeat("x", size)))
				req.ContentLength = length
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if resp.StatusCode != want {
					t.Errorf("%d bytes (length %d) got %d, want %d", size, length, resp.StatusCode, want)
				}
			}
		}
	})
}

func TestSmallRefusedBodyKeepsTheConnection(t *testing.T) {
	g := start(t, setup{routes: map[string]string{"a": `{"path":"/a","service":"a"}`}})
	w := g.dial()
	for i := range 3 {
		w.send(fmt.Sprintf("POST /missing HTTP/1.1\nHost: a\nContent-Length: 2\n\n%02d", i))
		got := w.answer("POST")
		wantRefusal(t, got, 404, routing.CodeRouteNotFound)
		if got.Close {
			t.Fatal("the connection is to be closed")
		}
	}
}
