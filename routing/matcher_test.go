package routing

import (
	"strings"
	"testing"
)

func TestCompileMatcherFaults(t *testing.T) {
	redirect := func(to string) RouteSpec { return RouteSpec{Path: "/a/:id", Redirect: &RedirectSpec{To: to}} }
	many := ""
	for i := range MaxParams + 1 {
		many += "/:p" + string(rune('a'+i))
	}
	for _, tc := range []struct {
		name  string
		spec  RouteSpec
		field string
		says  string
	}{
		{"no path", RouteSpec{}, "path", "required"},
		{"a path without a slash", RouteSpec{Path: "a"}, "path", `begin with "/"`},
		{"a double slash", RouteSpec{Path: "/a//b"}, "path", `one "/"`},
		{"a dot segment", RouteSpec{Path: "/a/../b"}, "path", "dot segment"},
		{"an escaped dot segment", RouteSpec{Path: "/a/%2e%2e/b"}, "path", "dot segment"},
		{"a hidden dot segment", RouteSpec{Path: "/a/..%2fb"}, "path", "dot segment"},
		{"a malformed escape", RouteSpec{Path: "/a%zz"}, "path", "hexadecimal"},
		{"a backslash", RouteSpec{Path: `/a\b`}, "path", "backslash"},
		{"a query", RouteSpec{Path: "/a?b"}, "path", "'?'"},
		{"a space", RouteSpec{Path: "/a b"}, "path", "' '"},
		{"a parameter without a name", RouteSpec{Path: "/:"}, "path", "needs a name"},
		{"a parameter within a segment", RouteSpec{Path: "/user-:id"}, "path", "%3A"},
		{"a star within a segment", RouteSpec{Path: "/a*"}, "path", "%2A"},
		{"a catch-all that is not last", RouteSpec{Path: "/*rest/a"}, "path", "last segment"},
		{"a name that stands twice", RouteSpec{Path: "/:a/:a"}, "path", "twice"},
		{"too many parameters", RouteSpec{Path: many}, "path", "at most 16"},
		{"an empty host", RouteSpec{Path: "/", Hosts: []string{"a", ""}}, "hosts[1]", "leave hosts out"},
		{"a host of a star", RouteSpec{Path: "/", Hosts: []string{"*"}}, "hosts[0]", "leaving hosts out"},
		{"a wildcard within", RouteSpec{Path: "/", Hosts: []string{"a.*.test"}}, "hosts[0]", "leading labels"},
		{"a wildcard in a label", RouteSpec{Path: "/", Hosts: []string{"a*.test"}}, "hosts[0]", "leading labels"},
		{"a host with a port", RouteSpec{Path: "/", Hosts: []string{"a.test:80"}}, "hosts[0]", "port"},
		{"a host with a path", RouteSpec{Path: "/", Hosts: []string{"a.test/x"}}, "hosts[0]", "'/'"},
		{"a host outside ASCII", RouteSpec{Path: "/", Hosts: []string{"bücher.test"}}, "hosts[0]", "punycode"},
		{"a host that is too long", RouteSpec{Path: "/", Hosts: []string{strings.Repeat("a.", 126) + "ab"}}, "hosts[0]", "253"},
		{"a host with an empty label", RouteSpec{Path: "/", Hosts: []string{"a..test"}}, "hosts[0]", "empty label"},
		{"a method in lower case", RouteSpec{Path: "/", Methods: []string{"GET", "post"}}, "methods[1]", "upper case"},
		{"an empty method", RouteSpec{Path: "/", Methods: []string{""}}, "methods[0]", "empty"},
		{"a broken header expression", RouteSpec{Path: "/", Headers: map[string]string{"X-A": "~("}}, "headers.X-A", "RE2"},
		{"a header in two cases", RouteSpec{Path: "/", Headers: map[string]string{"X-A": "1", "x-a": "2"}}, "headers.x-a", "twice"},
		{"Host as a header", RouteSpec{Path: "/", Headers: map[string]string{"host": "a"}}, "headers.Host", "hosts"},
		{"a broken query expression", RouteSpec{Path: "/", Query: map[string]string{"q": "~["}}, "query.q", "RE2"},
		{"strip_prefix beside rewrite", RouteSpec{Path: "/a/*", StripPrefix: "/a", Rewrite: "/b"}, "strip_prefix", "rewrite"},
		{"strip_prefix without a slash", RouteSpec{Path: "/a/*", StripPrefix: "a"}, "strip_prefix", `begin with "/"`},
		{"strip_prefix with a parameter", RouteSpec{Path: "/a/*", StripPrefix: "/:a"}, "strip_prefix", "plain prefix"},
		{"a rewrite of an unknown parameter", RouteSpec{Path: "/a/:id", Rewrite: "/:di"}, "rewrite", `":di"`},
		{"a rewrite of an unknown catch-all", RouteSpec{Path: "/a/*rest", Rewrite: "/b/*tail"}, "rewrite", `"*tail"`},
		{"a rewrite with a catch-all the path has not", RouteSpec{Path: "/a/:id", Rewrite: "/b/*"}, "rewrite", "not in the route's path"},
		{"a rewrite of the catch-all as one segment", RouteSpec{Path: "/a/*rest", Rewrite: "/b/:rest"}, "rewrite", `":rest"`},
		{"a rewrite with a query", RouteSpec{Path: "/a", Rewrite: "/b?c=d"}, "rewrite", "query"},
		{"a rewrite with a dot segment", RouteSpec{Path: "/a", Rewrite: "/b/../c"}, "rewrite", "dot segment"},
		{"a redirect to another host by //", redirect("//evil.test/"), "redirect.to", "another host"},
		{"a redirect with a backslash", redirect(`/\evil.test`), "redirect.to", "backslash"},
		{"a redirect with a line break", redirect("/a\r\nSet-Cookie: a"), "redirect.to", "control"},
		{"a redirect to another scheme", redirect("javascript:alert(1)"), "redirect.to", "http or https"},
		{"a redirect without a host", redirect("https:///a"), "redirect.to", "host"},
		{"a redirect whose host is a parameter", redirect("https://:id/a"), "redirect.to", "host"},
		{"a redirect with a password", redirect("https://a:b@c.test/"), "redirect.to", "host"},
		{"a redirect with an unknown parameter", redirect("https://a.test/:x"), "redirect.to", `":x"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, faults := compileMatcher(&tc.spec)
			if len(faults) != 1 || faults[0].Field != tc.field || !strings.Contains(faults[0].Message, tc.says) || faults[0].Code != ProblemField {
				t.Errorf("got %#v, want %s: …%s…", faults, tc.field, tc.says)
			}
		})
	}
}

func TestCompileMatcherReportsEveryFault(t *testing.T) {
	_, faults := compileMatcher(&RouteSpec{
		Hosts: []string{"*"}, Path: "a", Methods: []string{"get"}, Query: map[string]string{"q": "~("}, Headers: map[string]string{"a": "~("},
	})
	var fields []string
	for _, f := range faults {
		fields = append(fields, f.Field)
	}
	if got, want := strings.Join(fields, " "), "hosts[0] path methods[0] headers.a query.q"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSignature(t *testing.T) {
	sig := func(spec RouteSpec) string {
		t.Helper()
		m, faults := compileMatcher(&spec)
		if faults != nil {
			t.Fatal(faults)
		}
		return m.signature(spec.Priority)
	}
	base := RouteSpec{Hosts: []string{"a.test", "*.b.test"}, Path: "/a/:x/*rest", Methods: []string{"GET", "PUT"},
		Headers: map[string]string{"X-A": "1"}, Query: map[string]string{"q": "~2"}, Priority: 3}
	same := RouteSpec{Hosts: []string{"*.B.test", "A.test.", "a.test"}, Path: "/%61/:y/*", Methods: []string{"PUT", "GET", "GET"},
		Headers: map[string]string{"x-a": "1"}, Query: map[string]string{"q": "~2"}, Priority: 3,
		Service: "other", StripPrefix: "/a"}
	if sig(base) != sig(same) {
		t.Errorf("%q and %q are the same match", sig(base), sig(same))
	}
	seen := map[string]string{sig(base): "base"}
	for name, change := range map[string]func(*RouteSpec){
		"hosts":                    func(s *RouteSpec) { s.Hosts = s.Hosts[:1] },
		"any host":                 func(s *RouteSpec) { s.Hosts = nil },
		"static for parameter":     func(s *RouteSpec) { s.Path = "/a/x/*rest" },
		"a colon for parameter":    func(s *RouteSpec) { s.Path = "/a/%3A/*rest" },
		"no catch-all":             func(s *RouteSpec) { s.Path = "/a/:x" },
		"a trailing slash":         func(s *RouteSpec) { s.Path = "/a/:x/" },
		"a star for the catch-all": func(s *RouteSpec) { s.Path = "/a/:x/%2A" },
		"methods":                  func(s *RouteSpec) { s.Methods = s.Methods[:1] },
		"any method":               func(s *RouteSpec) { s.Methods = nil },
		"a header's value":         func(s *RouteSpec) { s.Headers = map[string]string{"X-A": "2"} },
		"a header, not a query":    func(s *RouteSpec) { s.Headers, s.Query = s.Query, s.Headers },
		"an expression, no value":  func(s *RouteSpec) { s.Query = map[string]string{"q": "2"} },
		"priority":                 func(s *RouteSpec) { s.Priority = 4 },
	} {
		spec := base
		change(&spec)
		if other, ok := seen[sig(spec)]; ok {
			t.Errorf("another %s has the signature of %s", name, other)
		}
		seen[sig(spec)] = name
	}
}

func TestHostKey(t *testing.T) {
	for authority, want := range map[string]string{
		"":                         "",
		"a.test":                   "a.test",
		"A.TEST":                   "a.test",
		"a.test.":                  "a.test",
		"a.test..":                 "a.test.", // one dot only
		"A.Test.:443":              "a.test",
		"a.test:":                  "a.test",
		"[::1]":                    "[::1]",
		"[2001:DB8::1]:80":         "[2001:db8::1]",
		"[::1":                     "",
		".":                        "",
		":80":                      "",
		strings.Repeat("a", 253):   strings.Repeat("a", 253),
		strings.Repeat("a", 254):   "",
		strings.Repeat("a", 70000): "",
	} {
		var buf [maxHost]byte
		if got := string(hostKey(authority, &buf)); got != want {
			t.Errorf("hostKey(%.40q) = %q, want %q", authority, got, want)
		}
	}
}
