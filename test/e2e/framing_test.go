package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/test/testenv"
)

// edgeSite is a gateway with an origin that keeps what it sees behind
// everything below /, strict limits, and a guarded path.
func edgeSite(t *testing.T) (*site, *origin) {
	t.Helper()
	s := newSite(t, testenv.GatewayOptions{Extra: "limits:\n  max_body_bytes: 64\n  body_read_timeout: 300ms\n"})
	o := startOrigin(t)
	s.register("origin", "origin-1", o.addr)
	s.etcd.Apply(map[string]string{
		"/sluice/routes/any":    `{"path":"/*","service":"origin"}`,
		"/sluice/routes/refuse": `{"path":"/no","respond":{"status":403,"body":"no"}}`,
		"/sluice/routes/admin":  `{"path":"/admin/*","respond":{"status":403,"body":"guarded"}}`,
		"/sluice/routes/public": `{"path":"/public/*","service":"origin"}`,
		"/sluice/routes/api":    `{"path":"/api/*","service":"origin","strip_prefix":"/api"}`,
	})
	s.eventually("the origin answers", "/x", func(a answer) bool { return a.Status == http.StatusOK })
	o.take()
	return s, o
}

// framing is one message whose end, or whose protocol, is in doubt.
type framing struct {
	name   string
	send   string // see crlf
	status []int
}

const post = "POST /evil HTTP/1.1\nHost: a\n"

// refusedFraming is rows 1 to 11 and 13: what must be refused and must end
// the connection.
func refusedFraming() []framing {
	long := strings.Repeat("x", 200)
	return []framing{
		{"row 1 a bare LF ends a chunk-size line", post + "Transfer-Encoding: chunked\n\n2\x01ab\n0\n\nGET /evil HTTP/1.1\nHost: a\n\n", []int{400}},
		{"row 2 three hundred one-byte chunks with long extensions", post + "Transfer-Encoding: chunked\n\n" + strings.Repeat("1;"+long+"\na\n", 300) + "0\n\n", []int{400, 413}},
		{"row 2 a chunk extension of 100 KB", post + "Transfer-Encoding: chunked\n\n1;" + strings.Repeat(long, 500) + "\na\n0\n\n", []int{400}},
		{"row 3 xchunked", post + "Transfer-Encoding: xchunked\n\n0\n\n", []int{501}},
		{"row 3 a vertical tab before chunked", post + "Transfer-Encoding: \vchunked\n\n0\n\n", []int{400, 501}},
		{"row 3 chunked, identity", post + "Transfer-Encoding: chunked, identity\n\n0\n\n", []int{501}},
		{"row 3 two Transfer-Encoding lines", post + "Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n\n", []int{400, 501}},
		{"row 4 two lengths that differ", post + "Content-Length: 2\nContent-Length: 3\n\nabc", []int{400}},
		{"row 4 a length with a sign", post + "Content-Length: +2\n\nab", []int{400}},
		{"row 4 a length in hexadecimal", post + "Content-Length: 0x2\n\nab", []int{400}},
		{"row 4 a negative length", post + "Content-Length: -1\n\n", []int{400}},
		{"row 4 a list of equal lengths", post + "Content-Length: 2, 2\n\nab", []int{400}},
		{"row 5 a space before the colon", post + "Transfer-Encoding : chunked\n\n0\n\n", []int{400}},
		{"row 5 a space in a name", post + "X A: b\n\n", []int{400}},
		{"row 5 a space before the first header", "GET /evil HTTP/1.1\n X: b\nHost: a\n\n", []int{400}},
		{"row 6 NUL in a value", "GET /evil HTTP/1.1\nHost: a\nX: a\x00b\n\n", []int{400}},
		{"row 6 a bare CR in a value", "GET /evil HTTP/1.1\nHost: a\nX: a\rb\n\n", []int{400}},
		{"row 8 HTTP/1.0 with a chunked body", "POST /evil HTTP/1.0\nHost: a\nConnection: keep-alive\nTransfer-Encoding: chunked\n\n2\nab\n0\n\nGET /evil HTTP/1.1\nHost: a\n\n", []int{400}},
		{"row 9 CONNECT with a request behind it", "CONNECT a:80 HTTP/1.1\nHost: a:80\n\nGET /evil HTTP/1.1\nHost: a\n\n", []int{405}},
		{"row 9 a WebSocket handshake with a body", "GET /evil HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\nContent-Length: 5\n\nearly", []int{400}},
		{"row 10 an upgrade to h2c", "GET /evil HTTP/1.1\nHost: a\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\n\n", []int{400}},
		{"row 11 the preface of HTTP/2 as a request", "PRI * HTTP/2.0\nHost: a\n\nGET /evil HTTP/1.1\nHost: a\n\n", []int{400, 505}},
		{"row 13 a trailer named Content-Length", post + "Transfer-Encoding: chunked\nTrailer: Content-Length\n\n2\nab\n0\nContent-Length: 5\n\n", []int{400}},
	}
}

func TestRows1To15Framing(t *testing.T) {
	s, o := edgeSite(t)
	for _, c := range refusedFraming() {
		t.Run(c.name, func(t *testing.T) {
			w := dial(t, s.gateway.Addr)
			w.send(crlf(c.send))
			got := w.answer(http.MethodPost)
			if !slices.Contains(c.status, got.StatusCode) {
				t.Errorf("status is %d (%q), want one of %v", got.StatusCode, got.Text, c.status)
			}
			if !w.closed() {
				t.Error("the connection was kept")
			}
			if seen := whole(o.take()); len(seen) > 0 {
				t.Errorf("a whole request went on: %+v", seen)
			}
			s.at(t).hundredAnswers("/after/")
			o.take()
		})
	}
	for _, c := range []struct {
		name string
		test func(*testing.T, *site, *origin)
	}{
		{"row 4 a length beside chunked never goes on", lengthBesideChunked},
		{"row 7 folded and bare-LF headers are normalised", foldedHeaders},
		{"row 9 a WebSocket handshake that is answered 200", failedHandshake},
		{"row 12 Expect refused unread", expectRefused},
		{"row 13 trailers never go on", trailers},
		{"row 14 a body that never comes", noBody},
		{"row 15 the size limit holds however the body is framed", sizeLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.test(t, s.at(t), o)
			s.at(t).hundredAnswers("/after/")
			o.take()
		})
	}
}

// net/http frames a request that has both by Transfer-Encoding, as RFC 9112
// section 6.3 allows; what matters is that no instance is told both.
func lengthBesideChunked(t *testing.T, s *site, o *origin) {
	w := dial(t, s.gateway.Addr)
	w.send(crlf(post + "Content-Length: 60\nTransfer-Encoding: chunked\n\n2\nab\n0\n\n"))
	equal(t, "status", w.answer(http.MethodPost).StatusCode, http.StatusOK)
	seen := o.take()
	if len(seen) != 1 || seen[0].Body != "ab" || strings.Contains(seen[0].Head, "Content-Length: 60") {
		t.Errorf("the origin saw %+v", seen)
	}
}

func foldedHeaders(t *testing.T, s *site, o *origin) {
	w := dial(t, s.gateway.Addr)
	w.send("GET /fold HTTP/1.1\nHost: a\nX-Bare: lf\r\nX-Folded: one\r\n two\r\n\r\n")
	equal(t, "status", w.answer(http.MethodGet).StatusCode, http.StatusOK)
	seen := o.take()
	equal(t, "requests", len(seen), 1)
	for _, want := range []string{"\r\nX-Bare: lf\r\n", "\r\nX-Folded: one two\r\n"} {
		if !strings.Contains(seen[0].Head+"\r\n", want) {
			t.Errorf("the origin did not see %q but %q", want, seen[0].Head)
		}
	}
	if strings.Contains(strings.ReplaceAll(seen[0].Head, "\r\n", ""), "\n") {
		t.Errorf("a bare LF went on: %q", seen[0].Head)
	}
}

// What a client sends behind a handshake must not be the next request of the
// connection to the instance.
func failedHandshake(t *testing.T, s *site, o *origin) {
	w := dial(t, s.gateway.Addr)
	w.send(crlf("GET /ws HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\n" +
		"Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\nGET /evil HTTP/1.1\nHost: a\n\n"))
	got := w.answer(http.MethodGet)
	equal(t, "answer", fmt.Sprint(got.StatusCode, " ", got.Text), "200 GET /ws")
	w.closed()
	for _, seen := range o.take() {
		if seen.Target != "/ws" && seen.Header.Get("X-Request-Id") == "" {
			t.Errorf("bytes behind the handshake reached the instance as a request: %q", seen.Head)
		}
	}
}

func expectRefused(t *testing.T, s *site, o *origin) {
	for _, path := range []string{"/no", "/refuse-unread"} {
		for range 100 {
			w := dial(t, s.gateway.Addr)
			w.send(crlf("POST " + path + " HTTP/1.1\nHost: a\nExpect: 100-continue\nContent-Length: 26\n\n"))
			got := w.answer(http.MethodPost)
			for got.StatusCode == http.StatusContinue {
				w.send("GET /evil HTTP/1.1\r\nX: y\r\n\r\n")
				got = w.answer(http.MethodPost)
			}
			equal(t, path, got.StatusCode, http.StatusForbidden)
			_ = w.Close()
		}
	}
	for _, seen := range o.take() {
		equal(t, "target", seen.Target, "/refuse-unread")
	}
}

func trailers(t *testing.T, s *site, o *origin) {
	for _, declared := range []string{"Trailer: X-User-Id\n", ""} {
		w := dial(t, s.gateway.Addr)
		w.send(crlf(post + "Transfer-Encoding: chunked\n" + declared + "\n2\nab\n0\nX-User-Id: evil\n\n"))
		equal(t, "status", w.answer(http.MethodPost).StatusCode, http.StatusOK)
	}
	seen := o.take()
	equal(t, "requests", len(seen), 2)
	for _, got := range seen {
		if got.Body != "ab" || len(got.Request.Trailer) > 0 || got.Header["X-User-Id"] != nil || strings.Contains(got.Head, "Trailer") {
			t.Errorf("the origin saw %+v", got)
		}
	}
}

func noBody(t *testing.T, s *site, o *origin) {
	for _, head := range []string{
		"POST /slow HTTP/1.1\nHost: a\nContent-Length: 10\n\n",
		"GET /slow HTTP/1.1\nHost: a\nContent-Length: 10\n\nabc",
		"POST /slow HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n",
	} {
		w := dial(t, s.gateway.Addr)
		w.send(crlf(head))
		equal(t, "status", w.answer(http.MethodPost).StatusCode, http.StatusRequestTimeout)
		equal(t, "closed", w.closed(), true)
	}
	if seen := whole(o.take()); len(seen) > 0 {
		t.Errorf("a whole request went on: %+v", seen)
	}
	for _, in := range s.instances("origin") {
		equal(t, "requests held at the instance", in.InFlight, int64(0))
	}
}

func sizeLimit(t *testing.T, s *site, o *origin) {
	chunk := func(n int) string { return fmt.Sprintf("%x\n%s\n", n, strings.Repeat("x", n)) }
	for _, c := range []struct {
		name, send string
		status     int
	}{
		{"a length at the limit", "Content-Length: 64\n\n" + strings.Repeat("x", 64), 200},
		{"a length past it", "Content-Length: 65\n\n" + strings.Repeat("x", 65), 413},
		{"a length far past it and no body", "Content-Length: 99999999999\n\n", 413},
		{"chunks up to the limit", "Transfer-Encoding: chunked\n\n" + chunk(32) + chunk(32) + "0\n\n", 200},
		{"chunks past it", "Transfer-Encoding: chunked\n\n" + chunk(32) + chunk(33) + "0\n\n", 413},
	} {
		w := dial(t, s.gateway.Addr)
		w.send(crlf(post + c.send))
		equal(t, c.name, w.answer(http.MethodPost).StatusCode, c.status)
		for _, seen := range whole(o.take()) {
			equal(t, c.name+": the body that went on", len(seen.Body), 64)
		}
	}
	for size, want := range map[int]int{64: 200, 65: 413, 100000: 413} {
		for _, declared := range []bool{true, false} {
			req, err := http.NewRequest(http.MethodPost, s.gateway.URL()+"/h2", strings.NewReader(strings.Repeat("x", size)))
			if err != nil {
				t.Fatal(err)
			}
			if !declared {
				req.ContentLength = -1
			}
			resp, err := h2c(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			equal(t, fmt.Sprintf("%d bytes over HTTP/2, declared %v", size, declared), resp.StatusCode, want)
		}
	}
}
