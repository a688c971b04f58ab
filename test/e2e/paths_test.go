package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/test/testenv"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// asCarelessInstance is the path as an instance takes it that decodes until
// nothing is left to decode and normalises then.
func asCarelessInstance(target string) string {
	p, _, _ := strings.Cut(target, "?")
	for range 5 {
		decoded, err := url.PathUnescape(p)
		if err != nil || decoded == p {
			break
		}
		p = decoded
	}
	return path.Clean(strings.ToLower(strings.ReplaceAll(p, `\`, "/")))
}

func TestRows16To26PathsAndHosts(t *testing.T) {
	s, o := edgeSite(t)
	s.etcd.Put("/sluice/routes/tenant", `{"hosts":["a.test"],"path":"/*","respond":{"status":403,"body":"guarded"}}`)
	s.eventually("the tenant is guarded", "/", func(a answer) bool { return a.Status == http.StatusForbidden }, "Host: a.test")
	o.take()
	const guarded, refused = 403, 400
	for _, c := range []struct {
		name, target, host string
		status             int
		forwarded          string // what the instance may see
	}{
		{name: "row 16 dot segments", target: "/public/../admin/x", status: guarded},
		{name: "row 16 mixed dot segments", target: "/public/./../admin", status: guarded},
		{name: "row 16 escaped dot segments", target: "/public/%2e%2e/admin/x", status: guarded},
		{name: "row 16 half-escaped dot segments", target: "/public/.%2E/admin", status: guarded},
		{name: "row 17 an escaped slash after dots", target: "/public/..%2fadmin", status: refused},
		{name: "row 17 an escaped backslash", target: "/public/..%5cadmin", status: refused},
		{name: "row 17 a backslash", target: `/public\..\admin`, status: refused},
		{name: "row 17 an escaped NUL", target: "/public/%00/../admin", status: refused},
		{name: "row 17 doubly escaped dots", target: "/public/%252e%252e%252fadmin", status: refused},
		{name: "row 17 an escaped slash as data", target: "/public/a%2Fb", status: 200, forwarded: "/public/a%2Fb"},
		{name: "row 18 two slashes in front", target: "//admin/x", status: guarded},
		{name: "row 18 two slashes inside", target: "/admin//x", status: guarded},
		{name: "row 18 two slashes go on as sent", target: "/public//x", status: 200, forwarded: "/public//x"},
		{name: "row 19 a fragment behind a public path", target: "/public/x#/../admin", status: refused},
		{name: "row 19 a fragment", target: "/admin#x", status: refused},
		{name: "row 20 a stripped prefix before escaped dots", target: "/api/..%2fadmin", status: refused},
		{name: "row 20 a stripped prefix that ends inside a segment", target: "/api../admin", status: 200, forwarded: "/api../admin"},
		{name: "row 20 a stripped prefix", target: "/api/x", status: 200, forwarded: "/x"},
		{name: "row 21 needless escapes", target: "/%61dmin/x", status: guarded},
		{name: "row 21 the host in upper case", target: "/x", host: "A.TEST", status: guarded},
		{name: "row 21 the host with a dot at its end", target: "/x", host: "a.test.", status: guarded},
		{name: "row 21 the host with a port", target: "/x", host: "a.test:443", status: guarded},
		{name: "row 22 a public path in the query", target: "/admin?x=/public/", status: guarded},
		{name: "row 23 a query with semicolons", target: "/public/q?a=1;b=2", status: 200, forwarded: "/public/q?a=1;b=2"},
		{name: "row 23 a query with a malformed escape", target: "/public/q?%zz", status: 200, forwarded: "/public/q?%zz"},
		{name: "row 26 an absolute URL goes by its own host", target: "http://a.test/x", host: "b.test", status: guarded},
		{name: "row 26 an absolute URL of another scheme", target: "ftp://b.test/public/x", status: refused},
		{name: "row 26 an absolute URL with user information", target: "http://a@b.test/public/x", status: refused},
		{name: "row 26 a host with a slash and an at", target: "/public/x", host: "a/@b", status: refused},
		{name: "row 26 a host with a space", target: "/public/x", host: "a b", status: refused},
		{name: "row 26 the asterisk", target: "*", status: refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := dial(t, s.gateway.Addr)
			w.send(crlf("GET " + c.target + " HTTP/1.1\nHost: " + orElse(c.host, "b.test") + "\nConnection: close\n\n"))
			got := w.answer(http.MethodGet)
			equal(t, "status", got.StatusCode, c.status)
			forwarded := ""
			for _, seen := range o.take() {
				forwarded = seen.Target
				if in := asCarelessInstance(seen.Target) + "/"; strings.HasPrefix(in, "/admin/") {
					t.Errorf("an instance takes %q for %s", seen.Target, in)
				}
			}
			equal(t, "the instance saw", forwarded, c.forwarded)
		})
	}
	for _, c := range []struct {
		name string
		test func(*testing.T, *site, *origin)
	}{
		{"row 23 ten thousand parameters", manyParameters},
		{"row 24 an HTTP/2 path without a slash", pathWithoutSlash},
		{"row 25 values that would inject rules", injectedRules},
		{"row 26 no host, two hosts, and HTTP/1.0", missingHosts},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, s.at(t), o) })
	}
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// The gateway's own predicates see what the instance sees.
func manyParameters(t *testing.T, s *site, o *origin) {
	s.etcd.Put("/sluice/routes/hidden", `{"path":"/public/q","query":{"hidden":"1"},"respond":{"status":418}}`)
	s.eventually("the predicate holds", "/public/q?hidden=1", func(a answer) bool { return a.Status == http.StatusTeapot })
	o.take()
	for _, query := range []string{strings.Repeat("a&", 10001) + "hidden=1", "hidden=1;b=2&hidden=1", "%zz&hidden=1"} {
		w := dial(t, s.gateway.Addr)
		w.send(crlf("GET /public/q?" + query + " HTTP/1.1\nHost: b.test\n\n"))
		got := w.answer(http.MethodGet).StatusCode
		if !slices.Contains([]int{http.StatusTeapot, http.StatusBadRequest, http.StatusRequestURITooLong}, got) {
			t.Errorf("?%.30s: %d", query, got)
		}
	}
	equal(t, "requests past the predicate", len(o.take()), 0)
	s.etcd.Delete("/sluice/routes/hidden")
}

func pathWithoutSlash(t *testing.T, s *site, o *origin) {
	for _, target := range []string{"admin/x", "pkg.Svc/M", "http://a.test/x", "*"} {
		w := dial(t, s.gateway.Addr)
		w.send(http2.ClientPreface)
		framer := http2.NewFramer(w, w.r)
		framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		var block strings.Builder
		encoder := hpack.NewEncoder(&block)
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "b.test"}, {":path", target}} {
			if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
				t.Fatal(err)
			}
		}
		if err := framer.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndStream: true, EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
		equal(t, target, h2Verdict(t, framer), "refused")
	}
	equal(t, "requests that went on", len(o.take()), 0)
}

// h2Verdict is what became of stream 1.
func h2Verdict(t *testing.T, framer *http2.Framer) string {
	t.Helper()
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("no verdict: %v", err)
		}
		switch f := frame.(type) {
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "refused"
		case *http2.MetaHeadersFrame:
			if status := f.PseudoValue("status"); status != "400" {
				return status
			}
			return "refused"
		}
	}
}

func injectedRules(t *testing.T, s *site, _ *origin) {
	before := s.problems()
	for i, doc := range []string{
		`{"path":"/x` + "`) || PathPrefix(`/" + `","service":"origin"}`,
		`{"path":"/x{a:.*}","service":"origin"}`,
		`{"path":"/x\n/y","service":"origin"}`,
		`{"path":"/x","service":"origin` + "`) || Host(`" + `"}`,
		`{"path":"/x","hosts":["a.test\n"],"service":"origin"}`,
		`{"path":"/x","service":"origin\nGET /admin"}`,
	} {
		key := fmt.Sprintf("/sluice/routes/injected-%d", i)
		s.etcd.Put(key, doc)
		testenv.Eventually(t, wait, key+" is a problem", func() bool {
			return slices.ContainsFunc(s.problems(), func(p string) bool { return strings.HasPrefix(p, key+" ") })
		})
		equal(t, "/admin with "+doc, s.ask("GET", "/admin/x", "Host: b.test").Status, http.StatusForbidden)
		equal(t, "/public with "+doc, s.ask("GET", "/public/x", "Host: b.test").Status, http.StatusOK)
		s.etcd.Delete(key)
	}
	testenv.Eventually(t, wait, "the problems are gone", func() bool { return len(s.problems()) == len(before) })
}

func missingHosts(t *testing.T, s *site, o *origin) {
	o.take()
	for send, want := range map[string]int{
		"GET /public/x HTTP/1.1\n\n":                             400,
		"GET /public/x HTTP/1.1\nHost: a.test\nHost: b.test\n\n": 400,
		"GET /public/x HTTP/1.0\n\n":                             200,
	} {
		w := dial(t, s.gateway.Addr)
		w.send(crlf(send))
		equal(t, send, w.answer(http.MethodGet).StatusCode, want)
	}
	equal(t, "requests that went on", len(o.take()), 1)
}
