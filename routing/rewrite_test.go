package routing

import (
	"errors"
	"strings"
	"testing"
)

// target matches "GET h/path" against one route and rewrites its path.
func target(t *testing.T, spec RouteSpec, line string) string {
	t.Helper()
	table := tableOf(t, spec)
	req, ok := request(t, line)
	if !ok {
		return "400"
	}
	var m Match
	if table.Match(&req, &m) != Matched {
		return "404"
	}
	var got string
	var err error
	if spec.Redirect != nil {
		got, err = m.Location(req.RawQuery)
	} else {
		got, err = m.Target()
	}
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return got
}

func TestTarget(t *testing.T) {
	for _, tc := range []struct {
		name, path, strip, rewrite, line, want string
	}{
		{"nothing is rewritten", "/*", "", "", "GET h//a//%40", "//a//%40"},
		{"a prefix goes", "/orders/*", "/orders", "", "GET h/orders/1", "/1"},
		{"the prefix alone leaves the root", "/orders/*", "/orders", "", "GET h/orders", "/"},
		{"the prefix with its slash leaves the root", "/orders/*", "/orders", "", "GET h/orders/", "/"},
		{"a prefix ends at a segment", "/*", "/orders", "", "GET h/ordersx/1", "/ordersx/1"},
		{"a prefix that the path has not stays away", "/*", "/orders", "", "GET h/users", "/users"},
		{"a prefix written with a slash at its end", "/orders/*", "/orders/", "", "GET h/orders/1", "/1"},
		{"the root as prefix takes nothing", "/orders/*", "/", "", "GET h/orders/1", "/orders/1"},
		{"a prefix of two segments sent with double slashes", "/a/b/*", "/a/b", "", "GET h//a//b//c//d", "/c//d"},
		{"a prefix with escapes", "/café/*", "/caf%C3%A9", "", "GET h/caf%c3%a9/x%2fy", "/x%2Fy"},
		{"a prefix with reserved characters", "/@a/*", "/%40a", "", "GET h/%40a/b", "/b"},
		{"no path begins with // that was not sent so", "/api/*", "/api", "", "GET h/api//evil.test/x", "/evil.test/x"},
		{"a named rest", "/orders/*rest", "", "/v2/*rest", "GET h/orders/1/2", "/v2/1/2"},
		{"an unnamed rest", "/orders/*", "", "/v2/*", "GET h/orders/1//2/", "/v2/1//2/"},
		{"an unnamed rest by any name", "/orders/*", "", "/v2/*rest", "GET h/orders/1", "/v2/1"},
		{"a named rest by none", "/orders/*rest", "", "/v2/*", "GET h/orders/1", "/v2/1"},
		{"the rest of the parent", "/orders/*", "", "/v2/*", "GET h/orders", "/v2"},
		{"the rest of the parent with a slash", "/orders/*", "", "/v2/*", "GET h/orders/", "/v2/"},
		{"the rest alone", "/orders/*", "", "/*", "GET h/orders", "/"},
		{"the rest alone never begins with //", "/orders/*", "", "/*", "GET h/orders//evil.test", "/evil.test"},
		{"parameters in another order", "/:a/:b/*c", "", "/x/:b/:a/*c", "GET h/1/2%2F/3", "/x/2%2F/1/3"},
		{"a parameter left out", "/users/:id", "", "/me", "GET h/users/1", "/me"},
		{"a rewrite with a slash at its end", "/users/:id", "", "/u/:id/", "GET h/users/1", "/u/1/"},
		{"a rewrite that stays escaped", "/a", "", "/%40b/café", "GET h/a", "/%40b/caf%C3%A9"},
		{"parameters as they were sent", "/p/:id", "", "/q/:id", "GET h//p//%40x", "/q/%40x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := RouteSpec{Path: tc.path, StripPrefix: tc.strip, Rewrite: tc.rewrite}
			if got := target(t, spec, tc.line); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestRow20StrippedPathStaysBelow(t *testing.T) {
	strip := RouteSpec{Path: "/api/*", StripPrefix: "/api"}
	for line, want := range map[string]string{
		"GET h/api../admin":            "404", // "api.." is another segment
		"GET h/api/..%2f":              "400",
		"GET h/api/..%2fadmin":         "400",
		"GET h/api/%2e%2e%2fadmin":     "400",
		"GET h/api/%252e%252e%252fadm": "400",
		"GET h/api/../admin":           "404", // it is /admin, and not this route's
		"GET h/api/x/../../admin":      "404",
		"GET h/api/x/../admin":         "/admin",
		"GET h/api//../admin":          "/admin", // the dots take the empty segment
	} {
		if got := target(t, strip, line); got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
	everything := RouteSpec{Path: "/*", StripPrefix: "/api"}
	if got := target(t, everything, "GET h/api../admin"); got != "/api../admin" {
		t.Errorf("a prefix was taken off within a segment: %q", got)
	}

	// Even a match whose path was never normalised leads nowhere.
	for _, tc := range []struct {
		spec    RouteSpec
		forward string
		rest    string
	}{
		{strip, "/api/../admin", ""},
		{strip, "/api/..%2fadmin", ""},
		{RouteSpec{Path: "/api/*", Rewrite: "/v2/*"}, "/api/../admin", "../admin"},
		{RouteSpec{Path: "/api/*", Rewrite: "/v2/*"}, "/api/a/%2e%2e/%2e%2e/admin", "a/%2e%2e/%2e%2e/admin"},
		{RouteSpec{Path: "/api/*", Redirect: &RedirectSpec{To: "/*"}}, "/api/../admin", "/evil.test"},
	} {
		m := Match{Route: routeOf(t, "r", 1, &tc.spec), Path: Path{tc.forward, tc.forward}, nparams: 1}
		m.params[0] = Param{"*", tc.rest}
		leave := m.Target
		if tc.spec.Redirect != nil {
			leave = func() (string, error) { return m.Location("") }
		}
		if got, err := leave(); !errors.Is(err, ErrPath) {
			t.Errorf("%s with %q: got %q, %v; want ErrPath", tc.forward, tc.rest, got, err)
		}
	}
}

func TestLocation(t *testing.T) {
	for _, tc := range []struct{ name, path, to, line, want string }{
		{"a path", "/old", "/new", "GET h/old", "/new"},
		{"the query goes along", "/old", "/new", "GET h/old?a=1&b=%20", "/new?a=1&b=%20"},
		{"a query of its own", "/old", "/new?x=y", "GET h/old?a=1", "/new?x=y"},
		{"an empty query of its own", "/old", "/new?", "GET h/old?a=1", "/new"},
		{"a fragment", "/old", "/new#part", "GET h/old?a=1", "/new?a=1#part"},
		{"another host", "/old/*rest", "https://www.example.com/new/*rest", "GET h/old/a/b?c", "https://www.example.com/new/a/b?c"},
		{"another host with a port and no path", "/old", "http://a.test:8080", "GET h/old", "http://a.test:8080/"},
		{"parameters", "/u/:id/*", "/user/:id/*", "GET h/u/7%2F/x", "/user/7%2F/x"},
		{"a query that would break the header", "/old", "/new", "GET h/old?a=\r\nSet-Cookie:x\"#", "/new?a=%0D%0ASet-Cookie:x%22%23"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := target(t, RouteSpec{Path: tc.path, Redirect: &RedirectSpec{To: tc.to}}, tc.line); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	var m Match
	if _, err := m.Location(""); err == nil {
		t.Error("a match without a redirect has a location")
	}
}

func TestRow39NoOpenRedirect(t *testing.T) {
	spec := RouteSpec{Path: "/go/*", Redirect: &RedirectSpec{To: "/*"}}
	for line, want := range map[string]string{
		"GET h/go//evil.test":         "/evil.test",
		"GET h/go///evil.test/x":      "/evil.test/x",
		"GET h//go//evil.test":        "/evil.test",
		"GET h/go/%2fevil.test":       "/%2Fevil.test",
		"GET h/go/%5cevil.test":       "400",
		`GET h/go/\evil.test`:         "400",
		"GET h/go/%09/evil.test":      "/%09/evil.test",
		"GET h/go/@evil.test":         "/@evil.test",
		"GET h/go/https:%2f%2fevil":   "/https:%2F%2Fevil",
		"GET evil.test/go/x":          "/x", // the request's host shapes nothing
		"GET h/go":                    "/",
		"GET h/go/.//evil.test/../..": "/",
	} {
		if got := target(t, spec, line); got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
	if got := target(t, RouteSpec{Path: "/:a/:b", Redirect: &RedirectSpec{To: "/:b/:a"}}, "GET h//evil.test//x"); got != "/x/evil.test" {
		t.Errorf("got %q", got)
	}
}

// FuzzTarget: whatever was sent, a rewritten path is normal, below its
// rewrite, and begins with one slash.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"/api", "/api/", "/api//evil.test", "/api/../admin", "/api/..%2f", "/%61pi/%40/x//", "//api///a;b/..c", "/api/:x/*"} {
		f.Add(s)
	}
	tables := map[string]*Table{
		"/":     tableOf(f, RouteSpec{Path: "/api/*", StripPrefix: "/api"}),
		"/v2":   tableOf(f, RouteSpec{Path: "/api/*", Rewrite: "/v2/*"}),
		"/v3/x": tableOf(f, RouteSpec{Path: "/api/:a/*b", Rewrite: "/v3/x/:a/*b"}),
		"/to":   tableOf(f, RouteSpec{Path: "/api/:a/*b", Redirect: &RedirectSpec{To: "/to/*b"}}),
	}
	f.Fuzz(func(t *testing.T, raw string) {
		p, err := Normalize(raw)
		if err != nil {
			return
		}
		for below, table := range tables {
			var m Match
			if table.Match(&Request{Method: "GET", Path: p}, &m) != Matched {
				continue
			}
			to := m.Target
			if below == "/to" {
				to = func() (string, error) { return m.Location("") }
			}
			got, err := to()
			if err != nil {
				t.Fatalf("%q below %s: %v", raw, below, err)
			}
			n, err := Normalize(got)
			if err != nil || n.Forward != got || below != "/" && !belowSegments(got, below) || strings.HasPrefix(got, "//") {
				t.Fatalf("%q gives %q below %s: %v", raw, got, below, err)
			}
		}
	})
}
