package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/routing"
)

func TestStripHopByHop(t *testing.T) {
	tests := []struct {
		name     string
		in, want http.Header
	}{
		{"fields that Connection names go, in any case",
			http.Header{"Connection": {"x-a, X-B", "close"}, "X-A": {"1"}, "X-B": {"2"}, "X-C": {"3"}},
			http.Header{"X-C": {"3"}}},
		{"known fields go unnamed",
			http.Header{"Keep-Alive": {"5"}, "Proxy-Connection": {"x"}, "Proxy-Authorization": {"y"}, "Transfer-Encoding": {"z"}, "Trailer": {"T"}, "A": {"1"}},
			http.Header{"A": {"1"}}},
		{"te keeps only trailers",
			http.Header{"Te": {"gzip;q=0.5, trailers;q=1"}}, http.Header{"Te": {"trailers"}}},
		{"te without trailers goes", http.Header{"Te": {"gzip"}}, http.Header{}},
		{"row 10: an upgrade to h2c goes",
			http.Header{"Connection": {"Upgrade, HTTP2-Settings"}, "Upgrade": {"h2c"}, "Http2-Settings": {"AAMAAABk"}}, http.Header{}},
		{"an upgrade to websocket stays, alone",
			http.Header{"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"WebSocket"}, "Sec-Websocket-Key": {"k"}},
			http.Header{"Connection": {"Upgrade"}, "Upgrade": {"WebSocket"}, "Sec-Websocket-Key": {"k"}}},
		{"two protocols to upgrade to go",
			http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket", "h2c"}}, http.Header{}},
		{"an upgrade that Connection does not name goes",
			http.Header{"Upgrade": {"websocket"}}, http.Header{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			StripHopByHop(tt.in)
			if !reflect.DeepEqual(tt.in, tt.want) {
				t.Errorf("got %v, want %v", tt.in, tt.want)
			}
		})
	}
}

// recorder is an instance that keeps the bytes of request heads.
func recorder(t *testing.T) (*hostile, chan []string) {
	heads := make(chan []string, 16)
	return newHostile(t, func(_ int, c *net.TCPConn, br *bufio.Reader) {
		for {
			head := readHead(br)
			if head == nil {
				return
			}
			heads <- head
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}), heads
}

func TestHeadersTowardsTheInstance(t *testing.T) {
	up, heads := recorder(t)
	g := newRig(t, up.addr)
	g.serve()
	tests := []struct {
		name, raw string
		want, not []string
		edge      func(*http.Request, *routing.Exchange)
		host      string
	}{
		{name: "row 27: Connection does not delete what the gateway sets",
			raw:  "GET / HTTP/1.1\r\nHost: h\r\nConnection: x-forwarded-for, X-Request-ID, x-forwarded-proto, traceparent\r\n\r\n",
			want: []string{"X-Forwarded-For: 127.0.0.1", "X-Request-Id: req-1", "X-Forwarded-Proto: http"},
			not:  []string{"Connection: x-forwarded-for"}},
		{name: "row 27: Connection does not delete what a plugin set, as the edge strips first",
			raw: "GET / HTTP/1.1\r\nHost: h\r\nX-User-Id: evil\r\nConnection: X-User-Id\r\n\r\n",
			edge: func(r *http.Request, _ *routing.Exchange) {
				StripHopByHop(r.Header)
				r.Header.Set("X-User-Id", "alice")
			},
			want: []string{"X-User-Id: alice"}, not: []string{"X-User-Id: evil"}},
		{name: "nothing is invented",
			raw: "GET / HTTP/1.0\r\nHost: h\r\n\r\n",
			not: []string{"User-Agent", "Accept-Encoding", "Content-Length", "Content-Type"}},
		{name: "a trusted chain is continued",
			raw:  "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: outer\r\nX-Forwarded-Port: 443\r\n\r\n",
			want: []string{"X-Forwarded-For: 192.0.2.1, 192.0.2.2, 127.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: outer", "X-Forwarded-Port: 443"}},
		{name: "a double slash and stray bytes in the path stay a path",
			raw:  "GET //evil.test/a%2Fb HTTP/1.1\r\nHost: h\r\n\r\n",
			want: []string{"GET //evil.test/a%2Fb HTTP/1.1"}},
		{name: "the query goes on byte for byte",
			raw:  "GET /?a=1;b=2&%zz&c=%20+ HTTP/1.1\r\nHost: h\r\n\r\n",
			want: []string{"GET /?a=1;b=2&%zz&c=%20+ HTTP/1.1"}},
		{name: "an empty query keeps its question mark",
			raw:  "GET /x? HTTP/1.1\r\nHost: h\r\n\r\n",
			want: []string{"GET /x? HTTP/1.1"}},
		{name: "a POST without a body says so",
			raw:  "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
			want: []string{"Content-Length: 0"}, not: []string{"Transfer-Encoding"}},
		{name: "host preserve is the default", raw: "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", want: []string{"Host: shop.test"}},
		{name: "host service is the instance's address", host: "service",
			raw: "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", want: []string{"Host: " + up.addr}},
		{name: "host may be a name", host: "inner.test",
			raw: "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", want: []string{"Host: inner.test", "X-Forwarded-Host: shop.test"}},
		{name: "row 10: h2c upgrade is stripped",
			raw: "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
			not: []string{"Upgrade", "Http2-Settings", "Connection"}},
		{name: "row 7: obs-fold arrives as one line",
			raw:  "GET / HTTP/1.1\r\nHost: h\r\nX-A: one\r\n two\r\n\r\n",
			want: []string{"X-A: one two"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g.edge = tt.edge
			g.route.Host = tt.host
			_, br := g.raw(tt.raw)
			resp, err := http.ReadResponse(br, nil)
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("%v %v", resp, err)
			}
			g.exchange()
			head := <-heads
			for _, w := range tt.want {
				if !slices.Contains(head, w) {
					t.Errorf("%q is missing in %q", w, head)
				}
			}
			for _, line := range head[1:] {
				for _, n := range tt.not {
					if strings.HasPrefix(line, n) {
						t.Errorf("%q arrived", line)
					}
				}
			}
		})
	}
}

func TestTraceparentContinuesTheTrace(t *testing.T) {
	up, heads := recorder(t)
	g := newRig(t, up.addr).serve()
	g.mustGet("/")
	own := slices.IndexFunc(<-heads, func(s string) bool {
		return strings.HasPrefix(s, "Traceparent: 00-"+strings.Repeat("a", 32)+"-") && strings.HasSuffix(s, "-00") &&
			len(s) == len("Traceparent: ")+55
	})
	if own < 0 {
		t.Error("no traceparent of the request's trace")
	}
	const sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	req := g.request("GET", "/", nil)
	req.Header.Set("Traceparent", sent)
	if _, _, err := g.do(req); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(<-heads, "Traceparent: "+sent) {
		t.Error("the edge's traceparent was replaced")
	}
}

func TestHeadersTowardsTheClient(t *testing.T) {
	up := newHostile(t, reply("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Secret, keep-alive\r\nX-Secret: 1\r\n"+
		"Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nX-Request-Id: theirs\r\nVary: Accept\r\n"+
		"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Up: 1\r\n\r\nok"))
	g := newRig(t, up.addr)
	g.wrap = func(w http.ResponseWriter) http.ResponseWriter {
		w.Header().Set("X-Request-Id", "req-1")
		w.Header().Set("Vary", "Origin")
		return w
	}
	g.serve()
	resp, body := g.mustGet("/")
	resp.Header.Del("Date")
	want := http.Header{
		"Content-Length": {"2"}, "X-Request-Id": {"req-1"}, "Vary": {"Origin", "Accept"},
		"Set-Cookie": {"a=1", "b=2"}, "X-Up": {"1"},
	}
	if body != "ok" || !reflect.DeepEqual(resp.Header, want) {
		t.Errorf("got %q %v, want %v", body, resp.Header, want)
	}
}

// Row 37: a redirect is the client's to follow.
func TestRow37RedirectsAreNotFollowed(t *testing.T) {
	other := upstream(t, func(w http.ResponseWriter, r *http.Request) { t.Error("the redirect was followed") })
	up := upstream(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	g := newRig(t, addrOf(up)).serve()
	req := g.request("GET", "/", nil)
	req.Header.Set("Authorization", "Bearer x")
	resp, _, err := g.do(req)
	if err != nil || resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != other.URL {
		t.Errorf("got %v %v", resp, err)
	}
}
