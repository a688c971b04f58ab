package middleware

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sluice-gateway/sluice/routing"
)

// guarded is a route that must not be reached past its guard, beside a
// public one. The guard is played by a fixed 403.
var guarded = map[string]string{
	"admin":  `{"path":"/admin/*","respond":{"status":403,"body":"guarded"}}`,
	"public": `{"path":"/public/*","service":"public"}`,
	"api":    `{"path":"/api/*","service":"api","strip_prefix":"/api"}`,
}

// Rows 16 to 24 and 26: what a client may do to the path and the host.
func TestPathsAndHosts(t *testing.T) {
	for _, c := range []struct {
		name, target string
		// status 403 is the guard's; 400 and 404 the gateway's own.
		status int
		// forwarded is the path an instance saw.
		forwarded string
	}{
		{"row 16 dot segments", "/public/../admin/x", 403, ""},
		{"row 16 mixed dot segments", "/public/./../admin", 403, ""},
		{"row 16 escaped dot segments", "/public/%2e%2e/admin/x", 403, ""},
		{"row 17 an escaped slash after dots", "/public/..%2fadmin", 400, ""},
		{"row 17 an escaped backslash", "/public/..%5cadmin", 400, ""},
		{"row 17 a backslash", `/public/..\admin`, 400, ""},
		{"row 17 an escaped NUL", "/public/%00", 400, ""},
		{"row 17 doubly escaped dots", "/public/%252e%252e%252fadmin", 400, ""},
		{"row 17 an escaped slash as data", "/public/a%2Fb", 200, "/public/a%2Fb"},
		{"row 18 two slashes in front", "//admin/x", 403, ""},
		{"row 18 two slashes inside", "/admin//x", 403, ""},
		{"row 19 a fragment behind a public path", "/public/x#/../admin", 400, ""},
		{"row 19 a fragment", "/admin#x", 400, ""},
		{"row 20 a stripped prefix that ends inside a segment", "/api../admin", 404, ""},
		{"row 20 a stripped prefix before escaped dots", "/api/..%2fadmin", 400, ""},
		{"row 20 a stripped prefix", "/api/x", 200, "/x"},
		{"row 21 needless escapes", "/%61dmin/x", 403, ""},
		{"row 22 a public path in the query", "/admin?x=/public/", 403, ""},
		{"row 26 an absolute URL of another scheme", "ftp://a/public/x", 400, ""},
		{"row 26 an absolute URL without authority", "http:public", 400, ""},
		{"row 26 an absolute URL with user information", "http://a@b/public/x", 400, ""},
		{"row 26 an absolute URL", "http://a/public/x", 200, "/public/x"},
		{"row 26 the asterisk", "*", 400, ""},
		{"a malformed escape", "/public/%zz", 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, setup{routes: guarded})
			got, _ := g.exchange("GET " + c.target + " HTTP/1.1\nHost: a\n\n")
			if got.StatusCode != c.status {
				t.Errorf("status is %d (%q), want %d", got.StatusCode, got.Text, c.status)
			}
			forwarded := ""
			for _, s := range g.upstream.requests() {
				forwarded = s.Target
			}
			if forwarded != c.forwarded {
				t.Errorf("an instance saw %q, want %q", forwarded, c.forwarded)
			}
		})
	}
}

func TestRow23TheQueryGoesOnAsItWasSent(t *testing.T) {
	g := start(t, setup{})
	long := strings.Repeat("a&", 2000) + "hidden=1"
	for _, q := range []string{"a=1;b=2", "%zz", "a=%00", "", long} {
		got, _ := g.exchange("GET /x?" + q + " HTTP/1.1\nHost: a\n\n")
		if got.StatusCode != 200 {
			t.Fatalf("?%.20s got %d", q, got.StatusCode)
		}
		seen := g.upstream.requests()
		if last := seen[len(seen)-1].Query; last != q {
			t.Errorf("the instance saw ?%.40s, want ?%.40s", last, q)
		}
	}
}

func TestRow24HTTP2PathWithoutSlash(t *testing.T) {
	g := start(t, setup{})
	for _, path := range []string{"pkg.Svc/M", "http://other.test/x", "*"} {
		c, err := net.Dial("tcp", g.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		fr := preface(t, c)
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true, EndHeaders: true,
			BlockFragment: fields(":method", "GET", ":scheme", "http", ":authority", "a", ":path", path)})
		if status := statusOf(t, fr); status != "400" && status != "reset" {
			t.Errorf("%q got %s", path, status)
		}
	}
	if n := len(g.upstream.requests()); n != 0 {
		t.Errorf("%d requests went on", n)
	}
}

// preface starts HTTP/2 on a raw connection.
func preface(t testing.TB, c net.Conn) *http2.Framer {
	t.Helper()
	if _, err := c.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	fr := http2.NewFramer(c, c)
	if err := fr.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return fr
}

// fields encodes name, value pairs.
func fields(pairs ...string) []byte {
	var b strings.Builder
	enc := hpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return []byte(b.String())
}

// statusOf reads frames until a stream has an answer: its status, or "reset".
func statusOf(t testing.TB, fr *http2.Framer) string {
	t.Helper()
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatalf("read frames: %v", err)
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return "reset"
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return "reset"
			}
		}
	}
}

func TestRow26Hosts(t *testing.T) {
	routes := map[string]string{
		"a": `{"hosts":["a.test"],"path":"/*","service":"a"}`,
		"b": `{"hosts":["b.test"],"path":"/*","service":"b"}`,
	}
	for _, c := range []struct {
		name, send string
		status     int
		route      string
	}{
		{"no Host", "GET / HTTP/1.1\n\n", 400, ""},
		{"two Hosts", "GET / HTTP/1.1\nHost: a.test\nHost: b.test\n\n", 400, ""},
		{"a path in Host", "GET / HTTP/1.1\nHost: a.test/@b.test\n\n", 400, ""},
		{"user information in Host", "GET / HTTP/1.1\nHost: a@b.test\n\n", 400, ""},
		{"a space in Host", "GET / HTTP/1.1\nHost: a.test b.test\n\n", 400, ""},
		{"a list in Host", "GET / HTTP/1.1\nHost: a.test,b.test\n\n", 400, ""},
		{"an escape in Host", "GET / HTTP/1.1\nHost: a%2etest\n\n", 400, ""},
		{"a port that is no number", "GET / HTTP/1.1\nHost: a.test:x\n\n", 400, ""},
		{"an unclosed address", "GET / HTTP/1.1\nHost: [::1\n\n", 400, ""},
		{"HTTP/1.0 without Host", "GET / HTTP/1.0\n\n", 404, ""},
		{"an absolute URL wins over Host", "GET http://b.test/ HTTP/1.1\nHost: a.test\n\n", 200, "b"},
		{"row 21 upper case", "GET / HTTP/1.1\nHost: A.TEST\n\n", 200, "a"},
		{"row 21 a trailing dot", "GET / HTTP/1.1\nHost: a.test.\n\n", 200, "a"},
		{"row 21 a port", "GET / HTTP/1.1\nHost: a.test:443\n\n", 200, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := start(t, setup{routes: routes})
			got, _ := g.exchange(c.send)
			route := ""
			for _, s := range g.upstream.requests() {
				route = s.Route
			}
			if got.StatusCode != c.status || route != c.route {
				t.Errorf("status %d by route %q, want %d by %q", got.StatusCode, route, c.status, c.route)
			}
		})
	}
}

// A name spelled in whatever way net/http lets through still finds nothing
// but methods that the route lists.
func TestUnknownMethodsReachTheTable(t *testing.T) {
	g := start(t, setup{routes: map[string]string{
		"all":  `{"path":"/all/*","service":"all"}`,
		"some": `{"path":"/some","methods":["GET","POST"],"service":"some"}`,
	}})
	got, _ := g.exchange("PROPFIND /all/x HTTP/1.1\nHost: a\n\n")
	if got.StatusCode != 200 || g.upstream.requests()[0].Method != "PROPFIND" {
		t.Errorf("status is %d", got.StatusCode)
	}
	got, _ = g.exchange("DELETE /some HTTP/1.1\nHost: a\n\n")
	wantRefusal(t, got, http.StatusMethodNotAllowed, routing.CodeMethodNotAllowed)
	if allow := got.Header.Get("Allow"); !strings.Contains(allow, "GET") || !strings.Contains(allow, "POST") {
		t.Errorf("Allow is %q", allow)
	}
}
